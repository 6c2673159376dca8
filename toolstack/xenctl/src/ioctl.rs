//! Linux's `ioctl` for Xen's devices, whose requests are numbered `_IOC(_IOC_NONE, letter, number,
//! size)`.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use crate::error::OpenError;

/// Opens a device for reading and writing.
pub fn open(path: &'static str) -> Result<File, OpenError> {
    File::options().read(true).write(true).open(path).map_err(|cause| OpenError { path, cause })
}

/// Opens a device whose reads return at once, with `EAGAIN` if there is nothing to read.
pub fn open_nonblocking(path: &'static str) -> Result<File, OpenError> {
    let opened = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path);
    opened.map_err(|cause| OpenError { path, cause })
}

/// The request with this letter, number and size of its argument.
pub const fn request(letter: u8, number: u8, size: usize) -> libc::c_ulong {
    (size as libc::c_ulong) << 16 | (letter as libc::c_ulong) << 8 | number as libc::c_ulong
}

/// Makes a request, and returns the kernel's number.
///
/// # Errors
/// The kernel's.
///
/// # Safety
/// `argument`, and the memory that it points to, are valid for the kernel's reads and writes for
/// `request`.
pub unsafe fn ioctl<T>(device: &File, request: libc::c_ulong, argument: *mut T) -> io::Result<u64> {
    // SAFETY: passed on to the caller.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), request, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as u64) }
}
