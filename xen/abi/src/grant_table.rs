//! `public/grant_table.h`: the grant table, version 1, and the operations on it.

use crate::{DomId, Mfn};

/// An index into a domain's grant table, `grant_ref_t`.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantRef(pub u32);

impl GrantRef {
    /// The entry that the tools fill for the console's ring.
    pub const CONSOLE: GrantRef = GrantRef(0);
    /// The entry that the tools fill for xenstore's ring.
    pub const XENSTORE: GrantRef = GrantRef(1);
    /// The first entry that is not kept for the tools.
    pub const FIRST_FREE: GrantRef = GrantRef(8);
}

impl core::fmt::Display for GrantRef {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A mapping made by [`GnttabMapGrantRef`], `grant_handle_t`.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantHandle(pub u32);

bitflags::bitflags! {
    /// Type and state of a grant entry, `GTF_*`. An entry without a bit set is unused.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct GrantFlags: u16 {
        /// Type: the other domain may map the frame.
        const PERMIT_ACCESS = 1;
        /// Type: the other domain may give a frame.
        const ACCEPT_TRANSFER = 2;
        /// Type: the other domain may use a grant of a third one.
        const TRANSITIVE = 3;
        /// The bits that hold the type.
        const TYPE_MASK = 3;
        /// The other domain may only read.
        const READONLY = 1 << 2;
        /// Set by Xen: the frame is in use for reading.
        const READING = 1 << 3;
        /// Set by Xen: the frame is in use for writing.
        const WRITING = 1 << 4;
        /// Cache attribute of a mapping.
        const PWT = 1 << 5;
        /// Cache attribute of a mapping.
        const PCD = 1 << 6;
        /// Cache attribute of a mapping.
        const PAT = 1 << 7;
        /// The other domain may only copy, from a part of the page.
        const SUB_PAGE = 1 << 8;
    }
}

/// An entry of the grant table, `struct grant_entry_v1`. `flags` is written last. While the entry
/// is in use, `flags` is changed only by an atomic compare and exchange.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GrantEntryV1 {
    /// Kind of the entry, its rights, and whether it is in use.
    pub flags: GrantFlags,
    /// The domain that is granted access.
    pub domid: DomId,
    /// The frame's mfn. It fits: Xen keeps frames beyond 2^32 out of reach of version 1.
    pub frame: u32,
}
assert_layout!(GrantEntryV1, 8, flags: 0, domid: 2, frame: 4);

open_enum! {
    /// An operation of `grant_table_op`, `GNTTABOP_*`.
    pub struct GrantTableOp: u32 {
        MAP_GRANT_REF = 0;
        UNMAP_GRANT_REF = 1;
        SETUP_TABLE = 2;
        DUMP_TABLE = 3;
        TRANSFER = 4;
        COPY = 5;
        QUERY_SIZE = 6;
        UNMAP_AND_REPLACE = 7;
        SET_VERSION = 8;
        GET_STATUS_FRAMES = 9;
        GET_VERSION = 10;
        SWAP_GRANT_REF = 11;
        CACHE_FLUSH = 12;
    }
}

open_enum! {
    /// The outcome of one grant-table request, `GNTST_*`.
    pub struct GrantStatus: i16 {
        /// The request was carried out.
        OKAY = 0;
        /// An error without a number of its own.
        GENERAL_ERROR = -1;
        /// No such domain.
        BAD_DOMAIN = -2;
        /// No such grant, or not for this use.
        BAD_GNTREF = -3;
        /// No such mapping.
        BAD_HANDLE = -4;
        /// The vaddr cannot be mapped.
        BAD_VIRT_ADDR = -5;
        /// The device address is not mapped.
        BAD_DEV_ADDR = -6;
        /// The I/O MMU is full.
        NO_DEVICE_SPACE = -7;
        /// The caller may not do that.
        PERMISSION_DENIED = -8;
        /// The page cannot be used so.
        BAD_PAGE = -9;
        /// The range to copy crosses a page.
        BAD_COPY_ARG = -10;
        /// The frame's address is too large.
        ADDRESS_TOO_BIG = -11;
        /// The request was not carried out; try again.
        EAGAIN = -12;
        /// Xen has no room for the entry.
        NO_SPACE = -13;
    }
}

impl core::error::Error for GrantStatus {}

impl GrantStatus {
    /// `Ok` for `OKAY`, else the status as an error.
    ///
    /// # Errors
    /// Every status but `OKAY`.
    pub fn check(self) -> Result<(), GrantStatus> {
        if self == Self::OKAY { Ok(()) } else { Err(self) }
    }
}

bitflags::bitflags! {
    /// The way in which a grant is mapped, `GNTMAP_*`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct GntmapFlags: u32 {
        /// For access by devices.
        const DEVICE_MAP = 1 << 0;
        /// For access by the processor.
        const HOST_MAP = 1 << 1;
        /// For reading only.
        const READONLY = 1 << 2;
        /// Guest user mode may use it too.
        const APPLICATION_MAP = 1 << 3;
        /// `host_addr` is the maddr of a page-table entry, not a vaddr.
        const CONTAINS_PTE = 1 << 4;
    }
}

/// Maps a grant, `struct gnttab_map_grant_ref`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GnttabMapGrantRef {
    /// vaddr, or maddr of a page-table entry.
    pub host_addr: u64,
    /// Flags of the mapping.
    pub flags: GntmapFlags,
    /// The entry of the other domain's table.
    pub gref: GrantRef,
    /// The domain that granted.
    pub dom: DomId,
    /// Out.
    pub status: GrantStatus,
    /// Out: needed to unmap.
    pub handle: GrantHandle,
    /// Out: the frame's maddr, or the address that a device uses for it.
    pub dev_bus_addr: u64,
}
assert_layout!(
    GnttabMapGrantRef, 32,
    host_addr: 0, flags: 8, gref: 12, dom: 16, status: 18, handle: 20, dev_bus_addr: 24,
);

/// Unmaps a grant, `struct gnttab_unmap_grant_ref`. An address of 0 is not looked at.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GnttabUnmapGrantRef {
    /// The address of the mapping, as in [`GnttabMapGrantRef`].
    pub host_addr: u64,
    /// The address for devices, if it was mapped for them.
    pub dev_bus_addr: u64,
    /// The handle of the mapping.
    pub handle: GrantHandle,
    /// Out.
    pub status: GrantStatus,
}
assert_layout!(GnttabUnmapGrantRef, 24, host_addr: 0, dev_bus_addr: 8, handle: 16, status: 20);

/// Grows the grant table to `nr_frames` and returns its frames, `struct gnttab_setup_table`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct GnttabSetupTable {
    /// The table's domain; only [`DomId::SELF`] for an unprivileged caller.
    pub dom: DomId,
    /// Frames that the table is to have at least.
    pub nr_frames: u32,
    /// Out.
    pub status: GrantStatus,
    /// Address of an array that gets `nr_frames` frame numbers.
    pub frame_list: *mut Mfn,
}
assert_layout!(GnttabSetupTable, 24, dom: 0, nr_frames: 4, status: 8, frame_list: 16);

/// Asks for the grant table's size, `struct gnttab_query_size`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GnttabQuerySize {
    /// The table's domain; only [`DomId::SELF`] for an unprivileged caller.
    pub dom: DomId,
    /// Out.
    pub nr_frames: u32,
    /// Out.
    pub max_nr_frames: u32,
    /// Out.
    pub status: GrantStatus,
}
assert_layout!(GnttabQuerySize, 16, dom: 0, nr_frames: 4, max_nr_frames: 8, status: 12);

bitflags::bitflags! {
    /// The ends of a copy that are named by a grant, `GNTCOPY_*`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct GntcopyFlags: u16 {
        /// The source.
        const SOURCE_GREF = 1 << 0;
        /// The destination.
        const DEST_GREF = 1 << 1;
    }
}

/// One end of a copy, `struct gnttab_copy_ptr`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GnttabCopyPtr {
    /// The union `u`: a gref, or the number of a frame (a gfn, which is an mfn in a PV guest).
    pub u: u64,
    /// The domain that granted; [`DomId::SELF`] for a frame.
    pub domid: DomId,
    /// Bytes from the page's start.
    pub offset: u16,
}
assert_layout!(GnttabCopyPtr, 16, u: 0, domid: 8, offset: 10);

impl GnttabCopyPtr {
    /// A page that `domid` granted.
    #[must_use]
    pub const fn gref(domid: DomId, gref: GrantRef, offset: u16) -> GnttabCopyPtr {
        GnttabCopyPtr { u: gref.0 as u64, domid, offset }
    }

    /// A frame of this domain.
    #[must_use]
    pub const fn frame(mfn: Mfn, offset: u16) -> GnttabCopyPtr {
        GnttabCopyPtr { u: mfn.0, domid: DomId::SELF, offset }
    }
}

/// Lets Xen copy within one page of each domain, `struct gnttab_copy`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GnttabCopy {
    /// The source.
    pub source: GnttabCopyPtr,
    /// To where.
    pub dest: GnttabCopyPtr,
    /// Bytes.
    pub len: u16,
    /// Flags that say which of source and destination is a grant.
    pub flags: GntcopyFlags,
    /// Out.
    pub status: GrantStatus,
}
assert_layout!(GnttabCopy, 40, source: 0, dest: 16, len: 32, flags: 34, status: 36);
