//! The hypercalls that stand alone: console, timer, version, assists, and multicall.

use crate::page::{hypercall, inout, input};
use xen_abi::Errno;
use xen_abi::version::{Extraversion, FeatureInfo, XenVersionOp};
use xen_abi::xen::{ConsoleIo, Hypercall, MulticallEntry, VmAssistCmd, VmAssistType};

/// Writes `bytes` to Xen's console.
///
/// # Errors
/// `EPERM`: the domain may not write; a release build of Xen allows it to dom0 only.
pub fn console_io_write(bytes: &[u8]) -> Result<(), Errno> {
    let args = [ConsoleIo::WRITE.0.into(), bytes.len() as u64, input(bytes), 0, 0];
    // SAFETY: Xen reads `bytes`, which are borrowed for the call.
    unsafe { hypercall::<{ Hypercall::CONSOLE_IO.0 }>(args) }.map(drop)
}

/// Reads the input of Xen's console. Returns the number of bytes.
///
/// # Errors
/// `EPERM`: the domain is not dom0.
pub fn console_io_read(buffer: &mut [u8]) -> Result<usize, Errno> {
    let args = [ConsoleIo::READ.0.into(), buffer.len() as u64, inout(buffer), 0, 0];
    // SAFETY: Xen writes no more than `buffer` holds, which is borrowed for the call.
    unsafe { hypercall::<{ Hypercall::CONSOLE_IO.0 }>(args) }.map(|count| count as usize)
}

/// Raises `VIRQ_TIMER` once, when system time reaches `timeout` nanoseconds; 0 cancels the timer.
/// It is the calling vcpu's single-shot timer. For a time more than 2^50 ns (13 days) ahead, Xen
/// takes 100 ms from now.
///
/// # Errors
/// None is known.
pub fn set_timer_op(timeout: u64) -> Result<(), Errno> {
    // SAFETY: the argument is a time.
    unsafe { hypercall::<{ Hypercall::SET_TIMER_OP.0 }>([timeout, 0, 0, 0, 0]) }.map(drop)
}

/// Xen's version, as major and minor number.
///
/// # Errors
/// None is known.
pub fn xen_version_version() -> Result<(u16, u16), Errno> {
    // SAFETY: the operation has no argument and changes nothing.
    let version = unsafe { xen_version(XenVersionOp::VERSION, 0) }?;
    Ok(((version >> 16) as u16, version as u16))
}

/// The third part of Xen's version, such as `.5`, padded with NULs.
///
/// # Errors
/// None is known.
pub fn xen_version_extraversion() -> Result<Extraversion, Errno> {
    let mut extraversion = Extraversion::default();
    // SAFETY: the operation writes `extraversion`, which is borrowed for the call.
    unsafe { xen_version(XenVersionOp::EXTRAVERSION, inout(&mut extraversion)) }?;
    Ok(extraversion)
}

/// 32 features of Xen, a bit each, beginning with number `32 * submap_idx`; see
/// [`Feature`](xen_abi::features::Feature).
///
/// # Errors
/// `EINVAL`: there are no such features.
pub fn xen_version_get_features(submap_idx: u32) -> Result<u32, Errno> {
    let mut info = FeatureInfo { submap_idx, submap: 0 };
    // SAFETY: `info` is the operation's own structure, and is borrowed for the call.
    unsafe { xen_version(XenVersionOp::GET_FEATURES, inout(&mut info)) }?;
    Ok(info.submap)
}

/// Switches an assist on or off.
///
/// # Errors
/// `EINVAL`: Xen does not have it.
pub fn vm_assist(cmd: VmAssistCmd, kind: VmAssistType) -> Result<(), Errno> {
    // SAFETY: an assist makes Xen emulate more of the guest's instructions; none changes the
    // meaning of its memory.
    unsafe { hypercall::<{ Hypercall::VM_ASSIST.0 }>([cmd.0.into(), kind.0.into(), 0, 0, 0]) }.map(drop)
}

/// Makes the hypercalls in `calls`, in order. Each has a `result` of its own; a failure stops none
/// of the others.
///
/// # Errors
/// `EINVAL`: the call is itself part of a multicall.
///
/// # Safety
/// The conditions of each single hypercall.
pub unsafe fn multicall(calls: &mut [MulticallEntry]) -> Result<(), Errno> {
    // SAFETY: Xen reads and writes `calls`, which are borrowed for the call; their effects are the
    // caller's duty.
    unsafe { hypercall::<{ Hypercall::MULTICALL.0 }>([inout(calls), calls.len() as u64, 0, 0, 0]) }.map(drop)
}

/// # Safety
/// `argument` is 0 or the address of the structure that `op` reads and writes.
unsafe fn xen_version(op: XenVersionOp, argument: u64) -> Result<u64, Errno> {
    // SAFETY: the memory at `argument` is, by the caller's promise, as Xen expects.
    unsafe { hypercall::<{ Hypercall::XEN_VERSION.0 }>([op.0.into(), argument, 0, 0, 0]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_xen::with_xen;

    #[test]
    fn console() {
        let result = with_xen(
            |call| {
                assert_eq!(call.number(), Hypercall::CONSOLE_IO);
                assert_eq!(call.args[..2], [ConsoleIo::WRITE.0.into(), 5]);
                assert_eq!(call.pointees::<u8>(2, 5), b"hello");
                0
            },
            || console_io_write(b"hello"),
        );
        assert_eq!(result, Ok(()));

        let mut buffer = [0; 4];
        let count = with_xen(
            |call| {
                assert_eq!(call.args[..2], [ConsoleIo::READ.0.into(), 4]);
                call.pointees(2, 2).copy_from_slice(b"ok");
                2
            },
            || console_io_read(&mut buffer),
        );
        assert_eq!((count, &buffer), (Ok(2), b"ok\0\0"));
    }

    #[test]
    fn timer() {
        let result = with_xen(
            |call| {
                assert_eq!(call.number(), Hypercall::SET_TIMER_OP);
                assert_eq!(call.args[0], 1 << 40);
                0
            },
            || set_timer_op(1 << 40),
        );
        assert_eq!(result, Ok(()));
    }

    #[test]
    fn version() {
        let version = with_xen(
            |call| {
                assert_eq!(call.number(), Hypercall::XEN_VERSION);
                assert_eq!(call.args[0], XenVersionOp::VERSION.0.into());
                4 << 16 | 17
            },
            xen_version_version,
        );
        assert_eq!(version, Ok((4, 17)));

        let extraversion = with_xen(
            |call| {
                assert_eq!(call.args[0], XenVersionOp::EXTRAVERSION.0.into());
                call.pointees(1, 2).copy_from_slice(b".7");
                0
            },
            xen_version_extraversion,
        );
        assert_eq!(extraversion.unwrap()[..3], *b".7\0");

        let features = with_xen(
            |call| {
                assert_eq!(call.args[0], XenVersionOp::GET_FEATURES.0.into());
                let info: &mut FeatureInfo = call.pointee(1);
                assert_eq!(info.submap_idx, 1);
                info.submap = 0x70;
                0
            },
            || xen_version_get_features(1),
        );
        assert_eq!(features, Ok(0x70));
    }

    #[test]
    fn assist() {
        let result = with_xen(
            |call| {
                assert_eq!(call.number(), Hypercall::VM_ASSIST);
                assert_eq!(call.args[..2], [0, 32]);
                0
            },
            || vm_assist(VmAssistCmd::ENABLE, VmAssistType::M2P_STRICT),
        );
        assert_eq!(result, Ok(()));
    }

    #[test]
    fn many_calls_in_one() {
        let mut calls = [MulticallEntry { op: Hypercall::SET_TIMER_OP.0.into(), ..MulticallEntry::default() }; 2];
        let result = with_xen(
            |call| {
                assert_eq!(call.number(), Hypercall::MULTICALL);
                assert_eq!(call.args[1], 2);
                call.pointees::<MulticallEntry>(0, 2)[1].result = -22;
                0
            },
            // SAFETY: the test plays Xen.
            || unsafe { multicall(&mut calls) },
        );
        assert_eq!((result, Errno::check(calls[1].result)), (Ok(()), Err(Errno::EINVAL)));
    }
}
