//! The entry points of this vcpu: trap table, callbacks, kernel stack, segment bases.

use crate::page::{hypercall, input};
use xen_abi::Errno;
use xen_abi::arch_x86::{SegmentBase, TrapInfo};
use xen_abi::callback::{CallbackOp, CallbackRegister};
use xen_abi::xen::Hypercall;

/// Sets the handlers of exceptions.
///
/// # Errors
/// `EINVAL`: an address is not canonical; the entries before it are set.
///
/// # Safety
/// `traps` ends with [`TrapInfo::END`]. Every handler accepts the frame that Xen pushes and is
/// sound wherever its exception can happen.
pub unsafe fn set_trap_table(traps: &[TrapInfo]) -> Result<(), Errno> {
    // SAFETY: Xen reads `traps` up to its end mark; the handlers are the caller's duty.
    unsafe { hypercall::<{ Hypercall::SET_TRAP_TABLE.0 }>([input(traps), 0, 0, 0, 0]) }.map(drop)
}

/// Sets one of the kernel's entry points: for events, for segments that Xen cannot restore, or for
/// system calls. (The older hypercall `set_callbacks` does the same, but hides errors.)
///
/// # Errors
/// `EINVAL`: the address is not canonical. `ENOSYS`: no such entry.
///
/// # Safety
/// The entry point accepts the frame that Xen pushes and is sound wherever it can be entered.
pub unsafe fn callback_op_register(callback: CallbackRegister) -> Result<(), Errno> {
    let args = [CallbackOp::REGISTER.0.into(), input(&callback), 0, 0, 0];
    // SAFETY: Xen reads `callback`, which lives until the call returns; the entry is the caller's
    // duty.
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
/// Code that runs with the new base finds there the data that it relies on: for
/// [`SegmentBase::FS`], a thread block.
pub unsafe fn set_segment_base(which: SegmentBase, base: u64) -> Result<(), Errno> {
    // SAFETY: no argument is a pointer that Xen follows; the new base is the caller's duty.
    unsafe { hypercall::<{ Hypercall::SET_SEGMENT_BASE.0 }>([which.0.into(), base, 0, 0, 0]) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_xen::with_xen;
    use xen_abi::callback::{CallbackFlags, CallbackType};

    const TRAP: TrapInfo = TrapInfo { vector: 14, flags: TrapInfo::MASK_EVENTS, cs: 0xe033, address: 0x1234 };
    const CALLBACK: CallbackRegister =
        CallbackRegister { kind: CallbackType::FAILSAFE, flags: CallbackFlags::MASK_EVENTS, address: 0x1234 };

    #[test]
    fn handlers_are_passed_by_address() {
        let result = with_xen(
            |call| {
                assert_eq!(call.number(), Hypercall::SET_TRAP_TABLE);
                assert_eq!(call.pointees::<TrapInfo>(0, 2), [TRAP, TrapInfo::END]);
                0
            },
            // SAFETY: the test plays Xen.
            || unsafe { set_trap_table(&[TRAP, TrapInfo::END]) },
        );
        assert_eq!(result, Ok(()));

        let result = with_xen(
            |call| {
                assert_eq!(call.number(), Hypercall::CALLBACK_OP);
                assert_eq!(call.args[0], CallbackOp::REGISTER.0.into());
                assert_eq!(*call.pointee::<CallbackRegister>(1), CALLBACK);
                0
            },
            // SAFETY: the test plays Xen.
            || unsafe { callback_op_register(CALLBACK) },
        );
        assert_eq!(result, Ok(()));
    }

    #[test]
    fn registers_are_passed_by_value() {
        let result = with_xen(
            |call| {
                assert_eq!(call.number(), Hypercall::STACK_SWITCH);
                assert_eq!(call.args[..2], [0xe02b, 0x8000]);
                0
            },
            // SAFETY: the test plays Xen.
            || unsafe { stack_switch(0xe02b, 0x8000) },
        );
        assert_eq!(result, Ok(()));

        let result = with_xen(
            |call| {
                assert_eq!(call.number(), Hypercall::SET_SEGMENT_BASE);
                assert_eq!(call.args[..2], [SegmentBase::GS_KERNEL.0.into(), 0x9000]);
                0
            },
            // SAFETY: the test plays Xen.
            || unsafe { set_segment_base(SegmentBase::GS_KERNEL, 0x9000) },
        );
        assert_eq!(result, Ok(()));
    }
}
