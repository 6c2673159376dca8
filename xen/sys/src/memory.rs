//! `memory_op`: the frames of this domain.

use crate::page::{hypercall, inout};
use xen_abi::memory::{E820Entry, MachphysMapping, MemoryDomain, MemoryMap, MemoryOp, MemoryReservation};
use xen_abi::xen::Hypercall;
use xen_abi::{DomId, Errno, Mfn, Pfn};

/// Gets a new frame for each of `pfns` and writes its number to the same place in `mfns`. Returns
/// the number of frames that came: fewer than asked for when Xen is out of memory or the domain has
/// reached its limit. Xen enters the new frames into the machine-to-physical table; the p2m and the
/// page tables are the caller's to change.
///
/// # Errors
/// None is known: Xen does not fail the call, but stops counting.
///
/// # Panics
/// If the two slices differ in length.
pub fn memory_op_populate_physmap(pfns: &[Pfn], mfns: &mut [Mfn]) -> Result<usize, Errno> {
    assert_eq!(pfns.len(), mfns.len());
    // Xen reads pfns from the array that it writes mfns to.
    for (mfn, pfn) in mfns.iter_mut().zip(pfns) {
        *mfn = Mfn(pfn.0);
    }
    let extents = mfns.as_mut_ptr().cast();
    // SAFETY: Xen reads and writes `mfns`, numbers of 64 bits, borrowed for the call. New frames
    // are mapped nowhere.
    unsafe { change_reservation(MemoryOp::POPULATE_PHYSMAP, extents, mfns.len()) }
}

/// Gives `mfns` back to Xen. Returns the number of frames that went: Xen stops at the first that is
/// not this domain's.
///
/// # Errors
/// None is known.
///
/// # Safety
/// Nothing uses the frames any more, and no page table maps them.
pub unsafe fn memory_op_decrease_reservation(mfns: &[Mfn]) -> Result<usize, Errno> {
    let extents = mfns.as_ptr().cast::<u64>().cast_mut();
    // SAFETY: Xen reads `mfns`, numbers of 64 bits, borrowed for the call, and does not write
    // there; that the frames are free is the caller's duty.
    unsafe { change_reservation(MemoryOp::DECREASE_RESERVATION, extents, mfns.len()) }
}

/// Pages that `domid` has. An unprivileged domain can only name [`DomId::SELF`].
///
/// # Errors
/// `EPERM`: not for that domain. `ESRCH`: no such domain.
pub fn memory_op_current_reservation(domid: DomId) -> Result<u64, Errno> {
    // SAFETY: the structure is the operation's own.
    unsafe { memory_op(MemoryOp::CURRENT_RESERVATION, &mut MemoryDomain { domid }) }
}

/// Pages that `domid` may have. An unprivileged domain can only name [`DomId::SELF`].
///
/// # Errors
/// `EPERM`: not for that domain. `ESRCH`: no such domain.
pub fn memory_op_maximum_reservation(domid: DomId) -> Result<u64, Errno> {
    // SAFETY: the structure is the operation's own.
    unsafe { memory_op(MemoryOp::MAXIMUM_RESERVATION, &mut MemoryDomain { domid }) }
}

/// The place where the machine-to-physical table is mapped.
///
/// # Errors
/// `ENOSYS`: Xen does not know the operation.
pub fn memory_op_machphys_mapping() -> Result<MachphysMapping, Errno> {
    let mut mapping = MachphysMapping::default();
    // SAFETY: the structure is the operation's own.
    unsafe { memory_op(MemoryOp::MACHPHYS_MAPPING, &mut mapping) }?;
    Ok(mapping)
}

/// Writes the memory map that the tools gave this domain to `entries`. Returns the number of its
/// entries.
///
/// # Errors
/// `ENOSYS`: the tools gave none.
pub fn memory_op_memory_map(entries: &mut [E820Entry]) -> Result<usize, Errno> {
    entries.as_mut_ptr().expose_provenance();
    let mut map = MemoryMap { nr_entries: entries.len() as u32, buffer: entries.as_mut_ptr() };
    // SAFETY: the structure is the operation's own; through it, Xen writes no more than `entries`
    // holds.
    unsafe { memory_op(MemoryOp::MEMORY_MAP, &mut map) }?;
    Ok(map.nr_entries as usize)
}

/// # Safety
/// `op` takes a reservation. `extents` points to `count` frame numbers that it may read and, unless
/// it only frees, write. The frames may be given away.
unsafe fn change_reservation(op: MemoryOp, extents: *mut u64, count: usize) -> Result<usize, Errno> {
    extents.expose_provenance();
    let mut reservation = MemoryReservation {
        extent_start: extents,
        nr_extents: count as u64,
        extent_order: 0,
        mem_flags: 0,
        domid: DomId::SELF,
    };
    // SAFETY: the structure is the operation's own; the memory that it points to is the caller's
    // duty.
    unsafe { memory_op(op, &mut reservation) }.map(|count| count as usize)
}

/// # Safety
/// `argument` is the structure that belongs to `op`, and the memory that it points to is as `op`
/// expects.
unsafe fn memory_op<T>(op: MemoryOp, argument: &mut T) -> Result<u64, Errno> {
    // SAFETY: Xen reads and writes `argument`. It is borrowed for the call and, by the caller's
    // promise, large enough.
    unsafe { hypercall::<{ Hypercall::MEMORY_OP.0 }>([op.0.into(), inout(argument), 0, 0, 0]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_xen::{Call, with_xen};

    /// The frame numbers that a reservation points to.
    fn extents(call: &mut Call) -> &mut [u64] {
        let reservation: MemoryReservation = *call.pointee(1);
        assert_eq!((reservation.extent_order, reservation.mem_flags), (0, 0));
        assert_eq!(reservation.domid, DomId::SELF);
        call.args[1] = reservation.extent_start.addr() as u64;
        call.pointees(1, reservation.nr_extents as usize)
    }

    #[test]
    fn populate_takes_pfns_and_gives_mfns() {
        let mut mfns = [Mfn(0); 2];
        let count = with_xen(
            |call| {
                assert_eq!(call.number(), Hypercall::MEMORY_OP);
                assert_eq!(call.args[0], MemoryOp::POPULATE_PHYSMAP.0.into());
                let extents = extents(call);
                assert_eq!(extents, [10, 11]);
                extents.copy_from_slice(&[900, 901]);
                2
            },
            || memory_op_populate_physmap(&[Pfn(10), Pfn(11)], &mut mfns),
        );
        assert_eq!((count, mfns), (Ok(2), [Mfn(900), Mfn(901)]));
    }

    #[test]
    fn decrease_takes_mfns() {
        let count = with_xen(
            |call| {
                assert_eq!(call.args[0], MemoryOp::DECREASE_RESERVATION.0.into());
                assert_eq!(extents(call), [900]);
                1
            },
            // SAFETY: the test plays Xen.
            || unsafe { memory_op_decrease_reservation(&[Mfn(900)]) },
        );
        assert_eq!(count, Ok(1));
    }

    #[test]
    fn reservations() {
        let current = with_xen(
            |call| {
                assert_eq!(call.args[0], MemoryOp::CURRENT_RESERVATION.0.into());
                assert_eq!(call.pointee::<MemoryDomain>(1).domid, DomId(3));
                1024
            },
            || memory_op_current_reservation(DomId(3)),
        );
        assert_eq!(current, Ok(1024));
        let maximum = with_xen(
            |call| {
                assert_eq!(call.args[0], MemoryOp::MAXIMUM_RESERVATION.0.into());
                assert_eq!(call.pointee::<MemoryDomain>(1).domid, DomId::SELF);
                2048
            },
            || memory_op_maximum_reservation(DomId::SELF),
        );
        assert_eq!(maximum, Ok(2048));
    }

    #[test]
    fn maps() {
        let expected = MachphysMapping { v_start: 1, v_end: 2, max_mfn: 3 };
        let mapping = with_xen(
            |call| {
                assert_eq!(call.args[0], MemoryOp::MACHPHYS_MAPPING.0.into());
                *call.pointee(1) = MachphysMapping { v_start: 1, v_end: 2, max_mfn: 3 };
                0
            },
            memory_op_machphys_mapping,
        );
        assert_eq!(mapping, Ok(expected));

        let mut entries = [E820Entry::default(); 4];
        let count = with_xen(
            |call| {
                assert_eq!(call.args[0], MemoryOp::MEMORY_MAP.0.into());
                let map: &mut MemoryMap = call.pointee(1);
                assert_eq!(map.nr_entries, 4);
                map.nr_entries = 1;
                call.args[1] = map.buffer.addr() as u64;
                *call.pointee(1) = E820Entry { addr: 0, size: 0x1000, kind: 1 };
                0
            },
            || memory_op_memory_map(&mut entries),
        );
        assert_eq!((count, entries[0]), (Ok(1), E820Entry { addr: 0, size: 0x1000, kind: 1 }));
    }
}
