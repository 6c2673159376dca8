//! What this vcpu does when it is interrupted: trap table, callbacks, kernel stack, segment bases.

use crate::page::{hypercall, input};
use xen_abi::Errno;
use xen_abi::arch_x86::{SegmentBase, TrapInfo};
use xen_abi::callback::{CallbackOp, CallbackRegister};
use xen_abi::xen::Hypercall;

/// Sets the handlers of exceptions.
///
/// # Errors
/// `EPERM`: a code selector that belongs to Xen. `EFAULT`: an address that is not canonical.
///
/// # Safety
/// `traps` ends with [`TrapInfo::END`], and every handler deals with the frame that Xen pushes and is sound wherever
/// its exception can happen.
pub unsafe fn set_trap_table(traps: &[TrapInfo]) -> Result<(), Errno> {
    // SAFETY: Xen reads `traps` up to its end mark; the handlers are the caller's duty.
    unsafe { hypercall::<{ Hypercall::SET_TRAP_TABLE.0 }>([input(traps), 0, 0, 0, 0]) }.map(drop)
}

/// Sets the kernel's entries for events, for segments that Xen cannot restore, and for `syscall` from guest user mode
/// (0: none). Events are masked on entry to the first.
///
/// # Errors
/// `EINVAL`: an address is not canonical.
///
/// # Safety
/// Each entry deals with the frame that Xen pushes and is sound wherever it can be entered.
pub unsafe fn set_callbacks(event: u64, failsafe: u64, syscall: u64) -> Result<(), Errno> {
    // SAFETY: no argument is a pointer that Xen follows now; the entries are the caller's duty.
    unsafe { hypercall::<{ Hypercall::SET_CALLBACKS.0 }>([event, failsafe, syscall, 0, 0]) }.map(drop)
}

/// Sets one entry of the kernel.
///
/// # Errors
/// `EINVAL`: the address is not canonical. `ENOSYS`: no such entry.
///
/// # Safety
/// The entry deals with the frame that Xen pushes and is sound wherever it can be entered.
pub unsafe fn callback_op_register(callback: CallbackRegister) -> Result<(), Errno> {
    let args = [CallbackOp::REGISTER.0.into(), input(&callback), 0, 0, 0];
    // SAFETY: Xen reads `callback`, which lives until the call returns; the entry is the caller's duty.
    unsafe { hypercall::<{ Hypercall::CALLBACK_OP.0 }>(args) }.map(drop)
}

/// Sets the stack on which Xen enters the kernel when the vcpu is in guest user mode.
///
/// # Errors
/// None is known: Xen corrects the selector.
///
/// # Safety
/// Below `sp` is a mapped stack that nothing else uses, large enough for the entries.
pub unsafe fn stack_switch(ss: u16, sp: u64) -> Result<(), Errno> {
    // SAFETY: no argument is a pointer that Xen follows now; the stack is the caller's duty.
    unsafe { hypercall::<{ Hypercall::STACK_SWITCH.0 }>([ss.into(), sp, 0, 0, 0]) }.map(drop)
}

/// Sets a segment's base to `base`, or the selector of user mode's `gs`.
///
/// # Errors
/// `EINVAL`: not canonical, or no such segment.
///
/// # Safety
/// Code that runs with the new base finds there what it relies on: for [`SegmentBase::FS`] a thread block.
pub unsafe fn set_segment_base(which: SegmentBase, base: u64) -> Result<(), Errno> {
    // SAFETY: no argument is a pointer that Xen follows; the new base is the caller's duty.
    unsafe { hypercall::<{ Hypercall::SET_SEGMENT_BASE.0 }>([which.0.into(), base, 0, 0, 0]) }.map(drop)
}
