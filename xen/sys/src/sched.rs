//! `sched_op`: yielding, waiting and ending.

use crate::page::{hypercall, input};
use xen_abi::sched::{SchedOp, SchedPoll, SchedShutdown, ShutdownReason};
use xen_abi::xen::Hypercall;
use xen_abi::{Errno, Mfn, Port};

/// Lets other vcpus run.
pub fn sched_op_yield() {
    // SAFETY: the operation has no argument and changes nothing. It cannot fail.
    let _ = unsafe { sched_op(SchedOp::YIELD, 0, 0) };
}

/// Unmasks events and waits until one is pending, in one step, so that no event is missed in
/// between. The upcall runs before this returns.
pub fn sched_op_block() {
    // SAFETY: the operation has no argument; the upcall's handler is sound at any time or could not
    // be registered. It cannot fail.
    let _ = unsafe { sched_op(SchedOp::BLOCK, 0, 0) };
}

/// Waits, with events masked, until one is pending on one of `ports`, or until system time reaches
/// `timeout` nanoseconds (0: for ever).
///
/// # Errors
/// `EINVAL`: more than 128 ports, or one that does not exist.
pub fn sched_op_poll(ports: &[Port], timeout: u64) -> Result<(), Errno> {
    let poll = SchedPoll { ports: ports.as_ptr(), nr_ports: ports.len() as u32, timeout };
    ports.as_ptr().expose_provenance();
    // SAFETY: Xen reads `poll` and, through it, `ports`; both are borrowed for the call.
    unsafe { sched_op(SchedOp::POLL, input(&poll), 0) }.map(drop)
}

/// Ends this domain for `reason`. It does not return, unless the tools let the ended domain run on.
///
/// # Errors
/// `EINVAL`: the reason has no name, or it is `SUSPEND`, which takes [`sched_op_suspend`].
pub fn sched_op_shutdown(reason: ShutdownReason) -> Result<(), Errno> {
    // Xen looks at the low 8 bits only, so a number without a name could still mean `SUSPEND`.
    if reason == ShutdownReason::SUSPEND || reason.name().is_none() {
        return Err(Errno::EINVAL);
    }
    // SAFETY: Xen reads the structure, which lives until the call returns. The domain runs no
    // further.
    unsafe { sched_op(SchedOp::SHUTDOWN, input(&SchedShutdown { reason }), 0) }.map(drop)
}

/// Suspends this domain. `start_info` is the frame that the tools fill in for the resumed domain.
/// Returns true if the suspend was cancelled and nothing has changed.
/// suspend was cancelled: then nothing has changed.
///
/// # Errors
/// None is known.
///
/// # Safety
/// - `start_info` is the frame of the start_info page, and only that frame is so used.
/// - The caller can do without the resources that a resumed domain has lost: events, grants, the
///   shared_info mapping, and every mfn that is neither in a page table nor in the p2m.
pub unsafe fn sched_op_suspend(start_info: Mfn) -> Result<bool, Errno> {
    let shutdown = SchedShutdown { reason: ShutdownReason::SUSPEND };
    // SAFETY: Xen reads `shutdown`, which lives until the call returns; the rest is the caller's
    // duty.
    unsafe { sched_op(SchedOp::SHUTDOWN, input(&shutdown), start_info.0) }.map(|cancelled| cancelled != 0)
}

/// # Safety
/// `argument` is 0 or the address of the structure that belongs to `op`.
unsafe fn sched_op(op: SchedOp, argument: u64, third: u64) -> Result<u64, Errno> {
    // SAFETY: Xen only reads the memory at `argument`, which by the caller's promise is as it
    // expects.
    unsafe { hypercall::<{ Hypercall::SCHED_OP.0 }>([op.0.into(), argument, third, 0, 0]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_xen::with_xen;

    #[test]
    fn yield_and_block_have_no_argument() {
        with_xen(
            |call| {
                assert_eq!(call.number(), Hypercall::SCHED_OP);
                assert_eq!(call.args, [SchedOp::YIELD.0.into(), 0, 0, 0, 0]);
                0
            },
            sched_op_yield,
        );
        with_xen(
            |call| {
                assert_eq!(call.args, [SchedOp::BLOCK.0.into(), 0, 0, 0, 0]);
                0
            },
            sched_op_block,
        );
    }

    #[test]
    fn poll_passes_its_ports() {
        let result = with_xen(
            |call| {
                assert_eq!(call.args[0], SchedOp::POLL.0.into());
                let poll: SchedPoll = *call.pointee(1);
                assert_eq!((poll.nr_ports, poll.timeout), (2, 1_000));
                call.args[1] = poll.ports.addr() as u64;
                assert_eq!(call.pointees::<Port>(1, 2), [Port(3), Port(4)]);
                0
            },
            || sched_op_poll(&[Port(3), Port(4)], 1_000),
        );
        assert_eq!(result, Ok(()));
    }

    #[test]
    fn shutdown_is_not_suspend() {
        let ended = with_xen(
            |call| {
                assert_eq!(call.args[0], SchedOp::SHUTDOWN.0.into());
                assert_eq!(call.pointee::<SchedShutdown>(1).reason, ShutdownReason::CRASH);
                0
            },
            || sched_op_shutdown(ShutdownReason::CRASH),
        );
        assert_eq!(ended, Ok(()));
        for reason in [ShutdownReason::SUSPEND, ShutdownReason(0x102)] {
            assert_eq!(sched_op_shutdown(reason), Err(Errno::EINVAL));
        }
    }

    #[test]
    fn suspend_names_the_start_info() {
        let cancelled = with_xen(
            |call| {
                assert_eq!((call.args[0], call.args[2]), (SchedOp::SHUTDOWN.0.into(), 0x99));
                assert_eq!(call.pointee::<SchedShutdown>(1).reason, ShutdownReason::SUSPEND);
                1
            },
            // SAFETY: the test plays Xen.
            || unsafe { sched_op_suspend(Mfn(0x99)) },
        );
        assert_eq!(cancelled, Ok(true));
    }
}
