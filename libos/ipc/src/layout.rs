//! Where things lie in an object. All values are little-endian; offsets are in octets from the object's first page, the header.

use xen_abi::PAGE_SIZE;

/// u32: [`MAGIC`] once the header is filled in.
pub const STATE: usize = 0;
/// u32: see [`Kind`].
pub const KIND: usize = 4;
/// u32, two of them: what the kind needs to know of the object's size.
pub const DETAILS: [usize; 2] = [8, 12];
/// Bitmaps of members, one for each [`Role`].
pub const ROLES: [usize; 2] = [64, 192];
/// [`OFFERS`] ports that are offered, u64 each, see [`crate::link`].
pub const OFFER: usize = 320;
/// How many there are.
pub const OFFERS: usize = 16;
/// Wait points: u32 that is not 0 if there is a bit, and at 8 a bitmap of members.
pub const POINTS: [usize; 4] = [512, 704, 896, 1088];
/// Locks: u32, of which points 2 and 3 are for those who wait.
pub const LOCKS: [usize; 2] = [1280, 1284];
/// What the kind has besides.
pub const FIELDS: [usize; 3] = [1344, 1408, 1472];
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
    Reader = 0,
    /// Who writes.
    Writer = 1,
}
