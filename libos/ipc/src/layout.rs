//! The layout of an object. All values are little-endian; offsets are in octets from the
//! object's first page, the header.

use xen_abi::PAGE_SIZE;
use zooid_fork_plan::id::PvmId;

/// u32: [`MAGIC`] once the header is filled in.
pub const STATE: usize = 0;
/// u32: see [`Kind`].
pub const KIND: usize = 4;
/// Two u32 that the kind defines: the object's size, or a semaphore's first value.
pub const DETAILS: [usize; 2] = [8, 12];
/// u32: all members that have ever taken part have numbers below this.
pub const MEMBERS: usize = 16;
/// [`OFFERS`] ports that are offered, u64 each: the doorbells of docs/protocols/ipc.md.
pub const OFFER: usize = 64;
/// The number of offers.
pub const OFFERS: usize = 16;
/// Wait points, each with a u32 at 0, a bit for each word that is not 0 in the bitmap of members at
/// 8.
pub const POINTS: [usize; 4] = [192, 384, 576, 768];
/// Locks. Their waiters wait at points 2 and 3.
pub const LOCKS: [usize; 2] = [960, 968];
/// Offsets of the fields of each kind's own.
pub const FIELDS: [usize; 3] = [1024, 1088, 1152];
/// u16 for each member: a bit for each [`Role`] that it takes part in, [`BORN`], and its [`tag`].
pub const PARTS: usize = 2048;
/// Set in a part that the member has written itself: its parent does not write it any more.
pub const BORN: u16 = 1 << 2;
/// Most members.
pub const MAX_MEMBERS: usize = 1024;
/// Start of the memory of the kind's own.
pub const BODY: usize = PAGE_SIZE;

/// Value of [`STATE`].
pub const MAGIC: u32 = u32::from_le_bytes(*b"ZIPC");
/// u64 of a bitmap of members.
pub const BITMAP_WORDS: usize = 16;

const TAG_SHIFT: u32 = 3;

/// The bits of a part that identify its member, because numbers are given out again: the low bits
/// of the id, which are those of the domid. Xen reuses a domid after many thousand others.
pub const fn tag(id: PvmId) -> u16 {
    (id.raw() as u16) << TAG_SHIFT
}

/// True if a part was written for this member.
pub const fn is_of(part: u16, id: PvmId) -> bool {
    part >> TAG_SHIFT == tag(id) >> TAG_SHIFT
}

/// The kind of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// See [`pipe`](crate::pipe).
    Pipe = 1,
    /// See [`semaphore`](crate::semaphore).
    Semaphore = 2,
    /// See [`queue`](crate::queue).
    Queue = 3,
    /// See [`memory`](crate::memory).
    Memory = 4,
    /// See [`signal`](crate::signal).
    Signals = 5,
}

/// The role of a member in an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A reader. In an object without reading and writing sides: every member that has it.
    Reader = 1 << 0,
    /// A writer.
    Writer = 1 << 1,
}
