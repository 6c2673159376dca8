//! `public/memory.h`: the operations on a domain's memory that a PV guest uses.

use crate::DomId;

open_enum! {
    /// An operation of `memory_op`, `XENMEM_*`.
    pub struct MemoryOp: u32 {
        /// Add frames; returns their mfns.
        INCREASE_RESERVATION = 0;
        /// Give frames back.
        DECREASE_RESERVATION = 1;
        /// The highest mfn of the machine's memory.
        MAXIMUM_RAM_PAGE = 2;
        /// Pages that a domain has.
        CURRENT_RESERVATION = 3;
        /// Pages that a domain may have.
        MAXIMUM_RESERVATION = 4;
        /// Frames of the machine-to-physical table.
        MACHPHYS_MFN_LIST = 5;
        /// Add frames for given pfns.
        POPULATE_PHYSMAP = 6;
        /// Only for guests that Xen translates.
        ADD_TO_PHYSMAP = 7;
        /// The guest's memory map, as the tools set it.
        MEMORY_MAP = 9;
        /// The machine's memory map; dom0 only.
        MACHINE_MEMORY_MAP = 10;
        /// Trade frames for contiguous or lower ones.
        EXCHANGE = 11;
        /// The place where the machine-to-physical table is mapped.
        MACHPHYS_MAPPING = 12;
        /// Set a domain's memory map.
        SET_MEMORY_MAP = 13;
        /// The highest gfn of a domain.
        MAXIMUM_GPFN = 14;
        /// Only for guests that Xen translates.
        REMOVE_FROM_PHYSMAP = 15;
    }
}

/// A change of a domain's memory, `struct xen_memory_reservation`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MemoryReservation {
    /// Address of `nr_extents` frame numbers. `POPULATE_PHYSMAP` reads pfns and writes mfns; the
    /// others read mfns.
    pub extent_start: *mut u64,
    /// Extents; what was done is the hypercall's result.
    pub nr_extents: u64,
    /// Each extent has 2^`extent_order` frames.
    pub extent_order: u32,
    /// `XENMEMF_*`; 0: any frame will do.
    pub mem_flags: u32,
    /// The domain whose memory it is; only [`DomId::SELF`] for an unprivileged caller.
    pub domid: DomId,
}
assert_layout!(MemoryReservation, 32, extent_start: 0, nr_extents: 8, extent_order: 16, mem_flags: 20, domid: 24);

/// The domain that `CURRENT_RESERVATION`, `MAXIMUM_RESERVATION` and `MAXIMUM_GPFN` ask about,
/// `struct xen_memory_domain`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryDomain {
    /// The domain whose memory it is.
    pub domid: DomId,
}
assert_layout!(MemoryDomain, 2);

/// The place of the machine-to-physical table, `struct xen_machphys_mapping`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachphysMapping {
    /// Out: its first vaddr.
    pub v_start: u64,
    /// Out: the first vaddr after it.
    pub v_end: u64,
    /// Out: the highest mfn that can be looked up.
    pub max_mfn: u64,
}
assert_layout!(MachphysMapping, 24, v_start: 0, v_end: 8, max_mfn: 16);

/// Asks for a memory map, `struct xen_memory_map`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MemoryMap {
    /// In: entries that `buffer` can take. Out: entries written.
    pub nr_entries: u32,
    /// The array to write them to.
    pub buffer: *mut E820Entry,
}
assert_layout!(MemoryMap, 16, nr_entries: 0, buffer: 8);

/// An entry of a memory map, in the form of the BIOS call INT 15h, EAX=E820h.
#[repr(C, packed)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct E820Entry {
    /// First byte.
    pub addr: u64,
    /// Bytes.
    pub size: u64,
    /// 1 is memory.
    pub kind: u32,
}
assert_layout!(E820Entry, 20, addr: 0, size: 8, kind: 16);
