//! Where things lie in an object. All values are little-endian; offsets are in octets from the object's first page, the header.

use xen_abi::PAGE_SIZE;

/// u32: [`MAGIC`] once the header is filled in.
pub const STATE: usize = 0;
/// u32: see [`Kind`].
pub const KIND: usize = 4;
/// u32, two of them: what the kind needs to know of the object's size.
pub const DETAILS: [usize; 2] = [8, 12];
/// u32: all members that have ever taken part have numbers below this.
pub const MEMBERS: usize = 16;
/// [`OFFERS`] ports that are offered, u64 each, see [`crate::link`].
pub const OFFER: usize = 64;
/// How many there are.
pub const OFFERS: usize = 16;
/// Wait points: u32 that says which words of the bitmap of members at 8 are not 0.
pub const POINTS: [usize; 4] = [192, 384, 576, 768];
/// [Locks](crate::lock), for which those wait at points 2 and 3.
pub const LOCKS: [usize; 2] = [960, 968];
/// What the kind has besides.
pub const FIELDS: [usize; 3] = [1024, 1088, 1152];
/// An octet for each member: a bit for each [`Role`] that it takes part in, and [`BORN`].
pub const PARTS: usize = 2048;
/// This member has written its octet itself: its parent has nothing to say any more.
pub const BORN: u32 = 1 << 7;
/// Most members.
pub const MAX_MEMBERS: usize = 1024;
/// Where the kind's own memory begins.
pub const BODY: usize = PAGE_SIZE;

/// Value of [`STATE`].
pub const MAGIC: u32 = u32::from_le_bytes(*b"ZIPC");
/// u64 of a bitmap of members.
pub const BITMAP_WORDS: usize = 16;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    Pipe = 1,
    Semaphore = 2,
    Queue = 3,
    Memory = 4,
    Signals = 5,
}

/// What a member takes part as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Who reads; of what is not read from one side and written from the other: who has it.
    Reader = 1 << 0,
    /// Who writes.
    Writer = 1 << 1,
}
