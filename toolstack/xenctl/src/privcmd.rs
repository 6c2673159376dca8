//! The way to the hypervisor: Linux's `/dev/xen/privcmd` (xen/sys/privcmd.h), and memory that Xen may use in a call.
#![allow(unsafe_code)]

use std::fmt;
use std::fs::File;
use std::io;
use std::mem::offset_of;
use std::ops::{Deref, DerefMut};
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use xen_abi::event_channel::{EventChannelOp, EvtchnStat, EvtchnStatus};
use xen_abi::xen::Hypercall;
use xen_abi::{DomId, Errno};

use crate::sysctl::Request;

const PRIVCMD: &str = "/dev/xen/privcmd";
/// Gives memory that is always present; what Xen finds absent fails with `EFAULT` (Linux, drivers/xen/privcmd-buf.c).
const BUFFERS: &str = "/dev/xen/hypercall";
/// `IOCTL_PRIVCMD_HYPERCALL`: `_IOC(_IOC_NONE, 'P', 0, sizeof(privcmd_hypercall_t))`.
const IOCTL_PRIVCMD_HYPERCALL: libc::c_ulong =
    (size_of::<PrivcmdHypercall>() as libc::c_ulong) << 16 | (b'P' as libc::c_ulong) << 8;
const PAGE_SIZE: usize = 4096;

/// `privcmd_hypercall_t`.
#[repr(C)]
struct PrivcmdHypercall {
    op: u64,
    arg: [u64; 5],
}

/// There is no way to the hypervisor: this is no dom0, the caller is not root, or a module is not loaded.
#[derive(Debug)]
pub struct OpenError {
    path: &'static str,
    cause: io::Error,
}

impl fmt::Display for OpenError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "cannot open {}: {}", self.path, self.cause)
    }
}

impl std::error::Error for OpenError {}

/// Why a call did nothing.
#[derive(Debug)]
pub enum CallError {
    /// Linux has no memory for it.
    Memory(io::Error),
    /// Xen refused it.
    Refused(Errno),
}

impl From<Errno> for CallError {
    fn from(errno: Errno) -> Self {
        Self::Refused(errno)
    }
}

/// The two devices.
#[derive(Debug)]
pub struct Privcmd {
    hypercalls: File,
    buffers: File,
}

impl Privcmd {
    /// Opens them.
    pub fn open() -> Result<Self, OpenError> {
        let open = |path| File::options().read(true).write(true).open(path).map_err(|cause| OpenError { path, cause });
        Ok(Privcmd { hypercalls: open(PRIVCMD)?, buffers: open(BUFFERS)? })
    }

    /// Makes a sysctl of interface `version`; `request` is then as Xen left it.
    ///
    /// # Errors
    /// No memory, or what Xen says.
    pub fn sysctl(&self, version: u32, request: &mut Request) -> Result<(), CallError> {
        let mut buffer = Buffer::new(&self.buffers, request.length())?;
        let address = buffer.address();
        request.write_to(version, &mut buffer, address);
        // SAFETY: Xen writes to the sysctl and to its data, of which a `Request` names no more than its length, for which
        // `buffer` has room.
        unsafe { self.call(Hypercall::SYSCTL, [address, 0, 0, 0, 0]) }?;
        request.read_from(&buffer);
        Ok(())
    }

    /// Asks for the state of a domain's ports from 0 on, until Xen knows no more of them.
    ///
    /// # Errors
    /// No memory, or what Xen says about port 0.
    pub fn port_states(&self, domain: DomId) -> Result<Vec<EvtchnStat>, CallError> {
        let mut buffer = Buffer::new(&self.buffers, size_of::<EvtchnStatus>())?;
        let arguments = [u64::from(EventChannelOp::STATUS.0), buffer.address(), 0, 0, 0];
        let mut states = Vec::new();
        loop {
            buffer[..2].copy_from_slice(&domain.0.to_le_bytes());
            let port = states.len() as u32;
            buffer[offset_of!(EvtchnStatus, port)..][..4].copy_from_slice(&port.to_le_bytes());
            // SAFETY: Xen writes one `struct evtchn_status`, for which `buffer` has room.
            match unsafe { self.call(Hypercall::EVENT_CHANNEL_OP, arguments) } {
                Ok(_) => {}
                Err(Errno::EINVAL) if port > 0 => return Ok(states),
                Err(errno) => return Err(errno.into()),
            }
            let state = &buffer[offset_of!(EvtchnStatus, status)..][..4];
            states.push(EvtchnStat(u32::from_le_bytes([state[0], state[1], state[2], state[3]])));
        }
    }

    /// Makes a hypercall; the value that it returns.
    ///
    /// # Safety
    /// Whatever memory of this process Xen writes for this operation lies in a [`Buffer`] that the caller holds
    /// exclusively.
    unsafe fn call(&self, op: Hypercall, arg: [u64; 5]) -> Result<u64, Errno> {
        let mut hypercall = PrivcmdHypercall { op: u64::from(op.0), arg };
        // SAFETY: the request reads and writes one `privcmd_hypercall_t`, which `hypercall` is; the rest is the caller's
        // duty.
        let result = unsafe { libc::ioctl(self.hypercalls.as_raw_fd(), IOCTL_PRIVCMD_HYPERCALL, &raw mut hypercall) };
        // Linux hands Xen's error number on as its own.
        match io::Error::last_os_error().raw_os_error() {
            Some(errno) if result < 0 => Err(Errno(errno.unsigned_abs())),
            _ => Ok(result as u64),
        }
    }
}

/// Memory that Xen can reach during a hypercall.
struct Buffer {
    start: NonNull<u8>,
    length: usize,
}

impl Buffer {
    /// Room for `length` octets, all zero.
    fn new(device: &File, length: usize) -> Result<Self, CallError> {
        let length = length.next_multiple_of(PAGE_SIZE);
        // SAFETY: a new mapping at an address that the kernel chooses touches no memory of ours.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                device.as_raw_fd(),
                0,
            )
        };
        match NonNull::new(start.cast()) {
            Some(mapped) if start != libc::MAP_FAILED => Ok(Buffer { start: mapped, length }),
            _ => Err(CallError::Memory(io::Error::last_os_error())),
        }
    }

    /// Its address, for a hypercall.
    fn address(&self) -> u64 {
        self.start.as_ptr() as u64
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start` and `length` are those of a mapping that lives as long as `self`. Only this process knows it;
        // the kernel and Xen write to it only during a call, whose caller holds the buffer exclusively.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing borrows from it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}
