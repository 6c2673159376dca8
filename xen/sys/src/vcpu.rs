//! `vcpu_op`: a vcpu's timers and state.

use crate::page::{hypercall, input};
use xen_abi::vcpu::{SshottmrFlags, VcpuOp, VcpuRegisterVcpuInfo, VcpuSetSingleshotTimer};
use xen_abi::xen::Hypercall;
use xen_abi::{Errno, Mfn};

/// True if `vcpu` is up.
///
/// # Errors
/// `ENOENT`: no such vcpu.
pub fn vcpu_op_is_up(vcpu: u32) -> Result<bool, Errno> {
    // SAFETY: the operation has no argument and changes nothing.
    unsafe { vcpu_op(VcpuOp::IS_UP, vcpu, 0) }.map(|up| up != 0)
}

/// Raises the calling vcpu's `VIRQ_TIMER` once, when system time reaches `timeout_abs_ns`. It
/// replaces the time set before.
///
/// # Errors
/// `ETIME`: the time has passed, and `flags` say that this is an error (Xen 4.17 ignores them and
/// raises the event). `EINVAL`: not the calling vcpu.
pub fn vcpu_op_set_singleshot_timer(vcpu: u32, timeout_abs_ns: u64, flags: SshottmrFlags) -> Result<(), Errno> {
    let timer = VcpuSetSingleshotTimer { timeout_abs_ns, flags };
    // SAFETY: `timer` is the operation's own structure and lives until the call returns.
    unsafe { vcpu_op(VcpuOp::SET_SINGLESHOT_TIMER, vcpu, input(&timer)) }.map(drop)
}

/// Cancels the single-shot timer.
///
/// # Errors
/// `EINVAL`: not the calling vcpu.
pub fn vcpu_op_stop_singleshot_timer(vcpu: u32) -> Result<(), Errno> {
    // SAFETY: the operation has no argument and only stops a timer.
    unsafe { vcpu_op(VcpuOp::STOP_SINGLESHOT_TIMER, vcpu, 0) }.map(drop)
}

/// Stops the periodic timer, which Xen starts with a vcpu.
///
/// # Errors
/// `ENOENT`: no such vcpu.
pub fn vcpu_op_stop_periodic_timer(vcpu: u32) -> Result<(), Errno> {
    // SAFETY: the operation has no argument and only stops a timer.
    unsafe { vcpu_op(VcpuOp::STOP_PERIODIC_TIMER, vcpu, 0) }.map(drop)
}

/// Moves the `vcpu_info` of `vcpu` from shared_info to `offset` in the frame `mfn`; possible once
/// per vcpu.
///
/// # Errors
/// `EINVAL`: done before, not this domain's frame, or the structure would cross the frame's end.
///
/// # Safety
/// Those 64 bytes belong to Xen from now on.
pub unsafe fn vcpu_op_register_vcpu_info(vcpu: u32, mfn: Mfn, offset: u32) -> Result<(), Errno> {
    let place = VcpuRegisterVcpuInfo { mfn, offset, rsvd: 0 };
    // SAFETY: `place` is the operation's own structure and lives until the call returns; where it
    // points is the caller's duty.
    unsafe { vcpu_op(VcpuOp::REGISTER_VCPU_INFO, vcpu, input(&place)) }.map(drop)
}

/// # Safety
/// `argument` is 0 or the address of the structure that belongs to `op`, which does not write
/// there.
unsafe fn vcpu_op(op: VcpuOp, vcpu: u32, argument: u64) -> Result<u64, Errno> {
    // SAFETY: Xen reads the memory at `argument`, which by the caller's promise is as it expects.
    unsafe { hypercall::<{ Hypercall::VCPU_OP.0 }>([op.0.into(), vcpu.into(), argument, 0, 0]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_xen::with_xen;

    #[test]
    fn operations_name_their_vcpu() {
        let up = with_xen(
            |call| {
                assert_eq!(call.number(), Hypercall::VCPU_OP);
                assert_eq!(call.args[..3], [VcpuOp::IS_UP.0.into(), 1, 0]);
                1
            },
            || vcpu_op_is_up(1),
        );
        assert_eq!(up, Ok(true));
        let stopped = with_xen(
            |call| {
                assert_eq!(call.args[..3], [VcpuOp::STOP_PERIODIC_TIMER.0.into(), 2, 0]);
                0
            },
            || vcpu_op_stop_periodic_timer(2),
        );
        assert_eq!(stopped, Ok(()));
        let stopped = with_xen(
            |call| {
                assert_eq!(call.args[..3], [VcpuOp::STOP_SINGLESHOT_TIMER.0.into(), 3, 0]);
                0
            },
            || vcpu_op_stop_singleshot_timer(3),
        );
        assert_eq!(stopped, Ok(()));
    }

    #[test]
    fn operations_with_an_argument() {
        let late = with_xen(
            |call| {
                assert_eq!(call.args[..2], [VcpuOp::SET_SINGLESHOT_TIMER.0.into(), 1]);
                let timer: &mut VcpuSetSingleshotTimer = call.pointee(2);
                assert_eq!((timer.timeout_abs_ns, timer.flags), (500, SshottmrFlags::FUTURE));
                -i64::from(Errno::ETIME.0)
            },
            || vcpu_op_set_singleshot_timer(1, 500, SshottmrFlags::FUTURE),
        );
        assert_eq!(late, Err(Errno::ETIME));
        let registered = with_xen(
            |call| {
                assert_eq!(call.args[..2], [VcpuOp::REGISTER_VCPU_INFO.0.into(), 1]);
                let place: &mut VcpuRegisterVcpuInfo = call.pointee(2);
                assert_eq!((place.mfn, place.offset, place.rsvd), (Mfn(6), 64, 0));
                0
            },
            // SAFETY: the test plays Xen.
            || unsafe { vcpu_op_register_vcpu_info(1, Mfn(6), 64) },
        );
        assert_eq!(registered, Ok(()));
    }
}
