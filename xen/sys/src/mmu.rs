//! `mmu_update`, `mmuext_op`, `update_va_mapping`: page tables, which a PV guest changes only
//! through Xen.

use crate::page::{hypercall, inout, input};
use xen_abi::pte::Pte;
use xen_abi::xen::{Hypercall, MmuUpdate, MmuextOp, UvmFlags};
use xen_abi::{DomId, Errno};

/// Performs `updates` in order. `domid` owns the frames that they map: [`DomId::SELF`], or another
/// domain for a foreign mapping. Returns the number of updates, all of which were done. No TLB is
/// flushed.
///
/// # Errors
/// `EINVAL`: Xen's checks refused an update; those before it were done. `EPERM`: no right to that
/// domain's frames. `ESRCH`: no such domain.
///
/// # Safety
/// Memory that Rust code relies on stays mapped as it is: no update removes, redirects or weakens a
/// mapping that is in use, or makes constant memory writable.
pub unsafe fn mmu_update(updates: &[MmuUpdate], domid: DomId) -> Result<usize, Errno> {
    let mut done = 0u32;
    let args = [input(updates), updates.len() as u64, inout(&mut done), domid.0.into(), 0];
    // SAFETY: Xen reads `updates` and writes `done`; the effects of the updates are the caller's
    // duty.
    unsafe { hypercall::<{ Hypercall::MMU_UPDATE.0 }>(args) }?;
    Ok(done as usize)
}

/// Performs `ops` in order: pinning, base pointers, TLB flushes, page clearing and copying. `domid`
/// owns the frames, as in [`mmu_update`]. Returns the number of operations, all of which were done.
///
/// # Errors
/// `EINVAL`: Xen's checks refused an operation; those before it were done. `EPERM`: no right to
/// that domain's frames. `ESRCH`: no such domain.
///
/// # Safety
/// As for [`mmu_update`]. A new base pointer maps the running code, its stack and its data as the
/// old one does. A frame that is cleared or copied to is not in use.
pub unsafe fn mmuext_op(ops: &[MmuextOp], domid: DomId) -> Result<usize, Errno> {
    let mut done = 0u32;
    let args = [input(ops), ops.len() as u64, inout(&mut done), domid.0.into(), 0];
    // SAFETY: Xen reads `ops` and writes `done`; the effects of the operations are the caller's
    // duty.
    unsafe { hypercall::<{ Hypercall::MMUEXT_OP.0 }>(args) }?;
    Ok(done as usize)
}

/// Makes `pte` the entry of level 1 for `vaddr` in the current address space, and flushes the TLB
/// as `flags` say.
///
/// # Errors
/// `EINVAL`: Xen's checks refused the entry, or there is no table of level 1 for `vaddr`.
///
/// # Safety
/// As for [`mmu_update`]. With [`UvmFlags::TLB_FLUSH`] or [`UvmFlags::INVLPG`], `flags` have no
/// further bits but [`UvmFlags::ALL`]: Xen would take them for the address of a vcpu mask.
pub unsafe fn update_va_mapping(vaddr: u64, pte: Pte, flags: UvmFlags) -> Result<(), Errno> {
    // SAFETY: no argument is a pointer; the effect of the new entry is the caller's duty.
    unsafe { hypercall::<{ Hypercall::UPDATE_VA_MAPPING.0 }>([vaddr, pte.0, flags.bits(), 0, 0]) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_xen::with_xen;
    use xen_abi::Mfn;
    use xen_abi::pte::PteFlags;

    #[test]
    fn lists_are_passed_with_length_and_owner() {
        let done = with_xen(
            |call| {
                assert_eq!(call.number(), Hypercall::MMU_UPDATE);
                assert_eq!((call.args[1], call.args[3]), (2, 7));
                let updates: &mut [MmuUpdate] = call.pointees(0, 2);
                assert_eq!(updates[1], MmuUpdate { ptr: 0x2000, val: 0x5001 });
                *call.pointee::<u32>(2) = 2;
                0
            },
            || {
                let pte = Pte::new(Mfn(5), PteFlags::PRESENT);
                // SAFETY: the test plays Xen.
                unsafe { mmu_update(&[MmuUpdate::pte(0x1000, pte), MmuUpdate::pte(0x2000, pte)], DomId(7)) }
            },
        );
        assert_eq!(done, Ok(2));

        let done = with_xen(
            |call| {
                assert_eq!(call.number(), Hypercall::MMUEXT_OP);
                assert_eq!((call.args[1], call.args[3]), (1, DomId::SELF.0.into()));
                assert_eq!(*call.pointee::<MmuextOp>(0), MmuextOp::copy_page(Mfn(1), Mfn(2)));
                *call.pointee::<u32>(2) = 1;
                0
            },
            // SAFETY: the test plays Xen.
            || unsafe { mmuext_op(&[MmuextOp::copy_page(Mfn(1), Mfn(2))], DomId::SELF) },
        );
        assert_eq!(done, Ok(1));
    }

    #[test]
    fn one_entry_by_address() {
        let result = with_xen(
            |call| {
                assert_eq!(call.number(), Hypercall::UPDATE_VA_MAPPING);
                assert_eq!(call.args[..3], [0x7000, 0x5001, 2]);
                0
            },
            // SAFETY: the test plays Xen.
            || unsafe { update_va_mapping(0x7000, Pte::new(Mfn(5), PteFlags::PRESENT), UvmFlags::INVLPG) },
        );
        assert_eq!(result, Ok(()));
    }
}
