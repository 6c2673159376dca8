//! The hypercalls that stand alone: console, timer, version, assists, and many calls in one.

use crate::page::{hypercall, inout, input};
use xen_abi::Errno;
use xen_abi::version::{Extraversion, FeatureInfo, XenVersionOp};
use xen_abi::xen::{ConsoleIo, Hypercall, MulticallEntry, VmAssistCmd, VmAssistType};

/// Writes `bytes` to Xen's console. A release build of Xen drops what a domU writes and reports success.
///
/// # Errors
/// `EPERM`: the domain may not.
pub fn console_io_write(bytes: &[u8]) -> Result<(), Errno> {
    let args = [ConsoleIo::WRITE.0.into(), bytes.len() as u64, input(bytes), 0, 0];
    // SAFETY: Xen reads `bytes`, which are borrowed for the call.
    unsafe { hypercall::<{ Hypercall::CONSOLE_IO.0 }>(args) }.map(drop)
}

/// Reads what was typed on Xen's console. Returns how many bytes came.
///
/// # Errors
/// `EPERM`: the domain may not.
pub fn console_io_read(buffer: &mut [u8]) -> Result<usize, Errno> {
    let args = [ConsoleIo::READ.0.into(), buffer.len() as u64, inout(buffer), 0, 0];
    // SAFETY: Xen writes no more than `buffer` holds, which is borrowed for the call.
    unsafe { hypercall::<{ Hypercall::CONSOLE_IO.0 }>(args) }.map(|count| count as usize)
}

/// Raises `VIRQ_TIMER` once, when system time reaches `timeout` nanoseconds; 0 takes the timer back. It is the
/// single-shot timer of the calling vcpu.
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

/// What follows the minor number in Xen's version, padded with NULs.
///
/// # Errors
/// None is known.
pub fn xen_version_extraversion() -> Result<Extraversion, Errno> {
    let mut extraversion = Extraversion::default();
    // SAFETY: `extraversion` is what the operation writes, and is borrowed for the call.
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
    // SAFETY: an assist makes more of what the guest does succeed; none changes the meaning of its memory.
    unsafe { hypercall::<{ Hypercall::VM_ASSIST.0 }>([cmd.0.into(), kind.0.into(), 0, 0, 0]) }.map(drop)
}

/// Makes the hypercalls in `calls`, in order. Each has a `result` of its own; a failure stops none of the others.
///
/// # Errors
/// `EINVAL`: the call is itself part of a multicall.
///
/// # Safety
/// What each single hypercall asks of its caller.
pub unsafe fn multicall(calls: &mut [MulticallEntry]) -> Result<(), Errno> {
    // SAFETY: Xen reads and writes `calls`, which are borrowed for the call; what they do is the caller's duty.
    unsafe { hypercall::<{ Hypercall::MULTICALL.0 }>([inout(calls), calls.len() as u64, 0, 0, 0]) }.map(drop)
}

/// # Safety
/// `argument` is 0 or the address of what `op` reads and writes.
unsafe fn xen_version(op: XenVersionOp, argument: u64) -> Result<u64, Errno> {
    // SAFETY: what is at `argument` is, by the caller's word, as Xen expects.
    unsafe { hypercall::<{ Hypercall::XEN_VERSION.0 }>([op.0.into(), argument, 0, 0, 0]) }
}
