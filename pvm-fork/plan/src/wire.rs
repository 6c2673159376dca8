//! Octets of the control page and of the snapshot's header (docs/protocols/fork.md,
//! docs/protocols/ipc.md, docs/protocols/libraries.md). All values are little-endian; offsets are
//! in octets.

use zooid_memory::{PAGE_SIZE, Zone};

/// Version of everything here.
pub const VERSION: u32 = 2;
/// First word of a control page.
pub const MAGIC: u64 = u64::from_le_bytes(*b"ZOIDFORK");
/// The node at which a root pVM announces itself, below its home in xenstore.
pub const ANNOUNCEMENT: &str = "data/zooid-fork";
/// Grant table entry of the control page, in every pVM.
pub const CONTROL_GREF: u32 = 8;
/// Most children of one call.
pub const MAX_CHILDREN: u32 = 256;
/// Snapshot buffers, used in turn.
pub const BUFFERS: u32 = 2;

pub use zooid_memory::device;

/// Address of the page with this number in the DEVICE zone.
pub const fn device_page(number: usize) -> usize {
    Zone::Device.base() + number * PAGE_SIZE
}

/// Fields that the guest writes.
pub mod guest {
    /// u64, [`MAGIC`](super::MAGIC).
    pub const MAGIC: usize = 0;
    /// u32, [`VERSION`](super::VERSION).
    pub const VERSION: usize = 8;
    /// u32: number of the last request; written last.
    pub const REQUEST: usize = 12;
    /// u32: what is asked for, see [`operation`](super::operation).
    pub const OPERATION: usize = 16;
    /// u32: how many children.
    pub const COUNT: usize = 20;
    /// u32: snapshot buffer of a COMMIT.
    pub const BUFFER: usize = 24;
    /// u32: see [`state`](super::state).
    pub const STATE: usize = 28;
    /// u32: how the pVM ended, see [`Status`](crate::status::Status); valid once the state is
    /// ENDED.
    pub const STATUS: usize = 32;
    /// u32: ended children that were taken from the ring.
    pub const ENDED_CONS: usize = 36;
    /// u32: the last request from outside (`OUTSIDE`) that was dealt with.
    pub const OUTSIDE_DONE: usize = 40;
    /// u32: 0, or the error number of that request.
    pub const OUTSIDE_ERRNO: usize = 44;
    /// u32: the port of the timer's interrupt, which a prepared domain binds. For the guest alone.
    pub const TIMER_PORT: usize = 48;
    /// u32: octets that nobody has taken from the console's ring; valid once the state is ENDED.
    pub const OUTPUT: usize = 52;
    /// u64: the signals from outside that were taken, see [`SIGNALS`](super::daemon::SIGNALS).
    pub const SIGNALS_TAKEN: usize = 56;

    /// u64: address at which a prepared domain begins to run.
    pub const ENTRY: usize = 64;
    /// u64: frames that the guest's p2m list has room for.
    pub const P2M_ENTRIES: usize = 72;
    /// u64: address of the p2m list: one u64 per frame, `u64::MAX` where there is none.
    pub const P2M: usize = 80;
    /// u64: address of the bitmaps: first that of free frames, then that of numbers without a
    /// frame; a bit per frame number, each bitmap in whole u64.
    pub const BITMAPS: usize = 88;
    /// u64: address of the start_info page.
    pub const START_INFO: usize = 96;
    /// u32: pages of one snapshot buffer.
    pub const SNAPSHOT_PAGES: usize = 116;
    /// u64: address of the snapshot buffers, one behind the other; 0 while there are none.
    pub const SNAPSHOT: usize = 120;
    /// u32: grant of the [`directory`](super::directory); 0 unless the backend wants it.
    pub const GRANTS: usize = 128;
    /// u32: how many page tables of level 1 came since the announcement; incremented when the table
    /// can be found.
    pub const TABLES: usize = 132;
    /// u32: in a child, how many of its first writes to pages that it shares stand at `EARLY`.
    pub const EARLY_COUNT: usize = 136;
    /// u32: not 0 if the image never forks by itself: no domain is prepared for it unasked.
    pub const NO_CHILDREN: usize = 140;
    /// u32 each, at most [`EARLY_PAGES`](super::EARLY_PAGES): which pages these were, counted from
    /// the start of the HEAP zone.
    pub const EARLY: usize = 144;
    /// u64: frame of the member's own table of level 1 that a MAP changes.
    pub const MAP_TABLE: usize = 272;
    /// u32: the first of its entries that it changes; how many is in `COUNT`.
    pub const MAP_INDEX: usize = 280;
    /// u32: number of the object of a MAP, of the library of a MAP_LIBRARY, or of the member of a
    /// RELAY.
    pub const OBJECT: usize = 284;
    /// u32: first page of the object that a MAP maps.
    pub const OBJECT_OFFSET: usize = 288;
    /// u32: pages of the object that a CREATE makes.
    pub const OBJECT_PAGES: usize = 292;
    /// u32: see [`object_flags`](super::object_flags).
    pub const OBJECT_FLAGS: usize = 296;
    /// u32: octets of the name; 0: none.
    pub const NAME_LENGTH: usize = 300;
    /// The name, at most [`MAX_NAME`](super::MAX_NAME) octets; of LIBRARY and REFUSED: a text.
    pub const NAME: usize = 304;
    /// u32: not 0 if this member wants to hear of others' ends.
    pub const INTEREST: usize = 560;
    /// u32: number of the request from outside (`OUTSIDE`) that a COMMIT carries out; 0: the
    /// application called `fork`. pvmd refuses (`ECANCELED`) the COMMIT of a request that it has
    /// given up.
    pub const COMMIT_FOR: usize = 564;
    /// u32 each, [`CHANGE_COUNTERS`]: how often what is mapped below tables of level 1 has changed,
    /// see [`changes`]; incremented after the change.
    pub const CHANGES: usize = 1024;
    /// Counters at [`CHANGES`].
    pub const CHANGE_COUNTERS: usize = 256;

    /// The counter of the table of level 1 that covers `address`. Tables may share one.
    pub const fn changes(address: usize) -> usize {
        // The sum gives the first tables of the zones, which are busy ones, different counters.
        let number = (address >> 21) + 37 * (address >> 30);
        CHANGES + 4 * (number % CHANGE_COUNTERS)
    }
}

/// Fields that pvmd writes.
pub mod daemon {
    /// u32: number of the request that was answered last; written last.
    pub const REPLY: usize = 2048;
    /// u32: 0, or an error number of Linux.
    pub const ERRNO: usize = 2052;
    /// u32: children that were made.
    pub const MADE: usize = 2056;
    /// u32: prepared domains that are linked to this pVM.
    pub const READY: usize = 2060;
    /// u32: id of this pVM.
    pub const ID: usize = 2064;
    /// u32: id of its parent, or 0.
    pub const PARENT: usize = 2068;
    /// u32: id of the family's root.
    pub const ROOT: usize = 2072;
    /// u32: in a prepared domain: 0 until it becomes a child.
    pub const GO: usize = 2076;
    /// u32: which of the children of one call this is, from 0.
    pub const INDEX: usize = 2080;
    /// u32: 1 in a child that xenstored and xenconsoled have been introduced to. Before, nobody is
    /// on the other side of its rings.
    pub const INTRODUCED: usize = 2084;
    /// u32: number of the last COMMIT, when none of the pVM's descendants lives any more.
    pub const UNSHARED: usize = 2088;
    /// u32: see [`backend`](super::backend).
    pub const BACKEND: usize = 2092;
    /// u32: this domain's port of the channel to pvmd, in a prepared domain and in a child.
    pub const PORT: usize = 2096;
    /// u32: frame number of the level 4 page table, in a prepared domain and in a child.
    pub const ROOT_TABLE: usize = 2100;
    /// u32: ended children that were put in the ring.
    pub const ENDED_PROD: usize = 2104;
    /// u32: number of the last request from outside to fork (`pvm fork`).
    pub const OUTSIDE: usize = 2108;
    /// u64: signals from outside, a bit per signal number: a bit that differs from that in
    /// `SIGNALS_TAKEN` is a signal that waits. pvmd makes it differ; a signal that waits already is
    /// not sent twice.
    pub const SIGNALS: usize = 2112;
    /// u64: address of the parent's snapshot buffer that this child resumes from; written before
    /// `GO`.
    pub const SNAPSHOT: usize = 2120;
    /// u32: how many children the request from outside asks for; written before `OUTSIDE`.
    pub const OUTSIDE_COUNT: usize = 2128;
    /// u32: this pVM's number as a member of its family, plus one; 0: none.
    pub const MEMBER: usize = 2132;
    /// u32: incremented when the table of members has changed, and by each RELAY.
    pub const NEWS: usize = 2136;
    /// u32: number of the object that CREATE has found or made.
    pub const OBJECT: usize = 2140;
    /// u32: its pages.
    pub const OBJECT_PAGES: usize = 2144;
    /// u32: 1 if it was made by this request, 0 if it was there.
    pub const OBJECT_IS_NEW: usize = 2148;
    /// u32: octets of the manifest that LIBRARY has found. It begins at the first page behind the
    /// file's.
    pub const MANIFEST_SIZE: usize = 2152;
    /// u64: octets of the file of the library that LIBRARY has found.
    pub const FILE_SIZE: usize = 2160;
    /// 32 octets of randomness for this child; written before `GO`.
    pub const SEED: usize = 2176;
    /// Ring of [`ENDED_SLOTS`](super::ENDED_SLOTS) ended children: u32 id, u32
    /// [`Status`](crate::status::Status).
    pub const ENDED: usize = 2304;
    /// Ids of the children of the COMMIT that was answered last, u32 each.
    pub const CHILDREN: usize = 2816;
    /// u32: how many times `EARLY` has changed; written last.
    pub const EARLY_NUMBER: usize = 3840;
    /// u32: how many pages stand at `EARLY`.
    pub const EARLY_COUNT: usize = 3844;
    /// A child's report, copied from its own [`EARLY`](super::guest::EARLY).
    pub const EARLY: usize = 3848;
}

/// Most pages that a child reports as written early.
pub const EARLY_PAGES: usize = 32;

/// The answer to a COMMIT that needs a PREPARE first: Linux's `ESTALE`, which Xen does not have.
pub const ESTALE: u32 = 116;
/// The answer to a COMMIT for a request from outside that pvmd has given up: Linux's `ECANCELED`.
pub const ECANCELED: u32 = 125;

/// Entries of the ring of ended children.
pub const ENDED_SLOTS: u32 = 64;

/// Values of `OPERATION`.
pub mod operation {
    /// Nothing: takes a request back that pvmd has not seen.
    pub const NONE: u32 = 0;
    /// Prepare and link domains.
    pub const PREPARE: u32 = 1;
    /// Make prepared domains children.
    pub const COMMIT: u32 = 2;
    /// Make or open an object.
    pub const CREATE: u32 = 3;
    /// Map pages of an object.
    pub const MAP: u32 = 4;
    /// Remove a name.
    pub const UNLINK: u32 = 5;
    /// Wake a member.
    pub const RELAY: u32 = 6;
    /// Send signal number `COUNT` to the relative whose id is in `OBJECT`; 0 only looks whether it
    /// lives.
    pub const KILL: u32 = 7;
    /// Open a library of the host's store.
    pub const LIBRARY: u32 = 8;
    /// Map pages of a library, for reading or executing.
    pub const MAP_LIBRARY: u32 = 9;
    /// Say that a rule does not hold for a library.
    pub const REFUSED: u32 = 10;
}

/// Flags of CREATE, MAP, LIBRARY and MAP_LIBRARY.
pub mod object_flags {
    /// CREATE: make the object if it does not exist.
    pub const CREATE: u32 = 1;
    /// CREATE: fail if the object exists.
    pub const EXCLUSIVE: u32 = 2;
    /// MAP: the last one of an anonymous object.
    pub const LAST: u32 = 4;
    /// MAP_LIBRARY: the pages hold instructions.
    pub const EXECUTE: u32 = 8;
    /// LIBRARY: the library is for guest user mode.
    pub const USER_MODE: u32 = 16;
}

/// Most octets of an object's name.
pub const MAX_NAME: usize = 255;

/// The table of members: a page.
pub mod members {
    /// u32: how many times it has changed; written last.
    pub const CHANGES: usize = 0;
    /// u32 each: id of the member with this number, 0 where there is none.
    pub const IDS: usize = 8;
    /// Most members.
    pub const MAX: usize = (super::PAGE_SIZE - IDS) / 4;
}

/// Values of `STATE`.
pub mod state {
    /// The domain boots, or it is a prepared one that is not at its waiting point yet.
    pub const STARTING: u32 = 0;
    /// A prepared domain waits for GO.
    pub const WAITING: u32 = 1;
    /// The domain runs; a child has copied the snapshot.
    pub const RUNNING: u32 = 2;
    /// The pVM has ended; `STATUS` is valid.
    pub const ENDED: u32 = 3;
}

/// Values of `BACKEND`.
pub mod backend {
    /// Foreign page-table entries.
    pub const FOREIGN: u32 = 1;
    /// Grants, copied by pvmd.
    pub const GRANT: u32 = 2;
}

/// The directory of grants, for the backend GRANT: a page.
pub mod directory {
    /// u32: how many entries there are.
    pub const COUNT: usize = 0;
    /// First entry: u64 first address of a table of level 1; u32 grant of its page of 512 grants,
    /// u32 each; u32 zero.
    pub const ENTRIES: usize = 16;
    /// Octets of an entry.
    pub const ENTRY_SIZE: usize = 16;
    /// Most entries.
    pub const MAX_ENTRIES: usize = (super::PAGE_SIZE - ENTRIES) / ENTRY_SIZE;
}

/// Header of a snapshot buffer, for the child alone: pvmd does not read it.
pub mod snapshot {
    /// u64: stack pointer that the child resumes with.
    pub const RSP: usize = 0;
    /// u64: base of `%fs`.
    pub const THREAD_BLOCK: usize = 8;
    /// u64: pages of the header.
    pub const HEADER_PAGES: usize = 16;
    /// u64: how many pages follow the header.
    pub const COUNT: usize = 24;
    /// u64 each: where the pages go.
    pub const TARGETS: usize = 32;
}

/// Pages of the header of a snapshot of `pages` pages.
pub const fn header_pages(pages: usize) -> usize {
    (snapshot::TARGETS + pages * 8).div_ceil(PAGE_SIZE)
}

const _: () = {
    assert!(guest::EARLY + 4 * EARLY_PAGES <= guest::MAP_TABLE);
    assert!(guest::NAME + MAX_NAME <= guest::INTEREST);
    assert!(daemon::FILE_SIZE + 8 <= daemon::SEED);
    assert!(guest::CHANGES + 4 * guest::CHANGE_COUNTERS <= daemon::REPLY);
    assert!(daemon::ENDED + 8 * ENDED_SLOTS as usize == daemon::CHILDREN);
    assert!(daemon::CHILDREN + 4 * MAX_CHILDREN as usize <= daemon::EARLY_NUMBER);
    assert!(daemon::EARLY + 4 * EARLY_PAGES <= PAGE_SIZE);
    assert!(daemon::SEED + 32 <= daemon::ENDED);
};
