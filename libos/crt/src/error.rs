//! `errno`, and the texts for its values.

use core::ffi::{CStr, c_int};

use crate::export::Export;
use crate::raw;
use crate::system::system;

pub(crate) const ENOENT: c_int = 2;
pub(crate) const ESRCH: c_int = 3;
pub(crate) const EBADF: c_int = 9;
pub(crate) const EAGAIN: c_int = 11;
pub(crate) const ENOMEM: c_int = 12;
pub(crate) const EBUSY: c_int = 16;
pub(crate) const EINVAL: c_int = 22;
pub(crate) const ENOTTY: c_int = 25;
pub(crate) const ERANGE: c_int = 34;
pub(crate) const EDEADLK: c_int = 35;
pub(crate) const ENOSYS: c_int = 38;
pub(crate) const EOVERFLOW: c_int = 75;
pub(crate) const EILSEQ: c_int = 84;
pub(crate) const ETIMEDOUT: c_int = 110;
pub(crate) const EPERM: c_int = 1;

pub(crate) const ERRNO: &[Export] = exports![__errno_location];

pub(crate) unsafe extern "C" fn __errno_location() -> *mut c_int {
    (system().error_number)()
}

pub(crate) fn set(number: c_int) {
    // SAFETY: `System`: the thread's own variable.
    unsafe { (system().error_number)().write(number) };
}

pub(crate) fn get() -> c_int {
    // SAFETY: `System`: the thread's own variable.
    unsafe { (system().error_number)().read() }
}

pub(crate) fn message(number: c_int) -> &'static CStr {
    usize::try_from(number).ok().and_then(|number| MESSAGES.get(number)).copied().unwrap_or(c"Unknown error")
}

pub(crate) unsafe extern "C" fn strerror(number: c_int) -> *const u8 {
    message(number).as_ptr().cast()
}

/// GNU's: the text need not be in the buffer.
pub(crate) unsafe extern "C" fn strerror_r(number: c_int, _buffer: *mut u8, _size: usize) -> *const u8 {
    message(number).as_ptr().cast()
}

pub(crate) unsafe extern "C" fn __xpg_strerror_r(number: c_int, buffer: *mut u8, size: usize) -> c_int {
    let message = message(number).to_bytes();
    if size > 0 {
        // SAFETY: as C demands, the buffer has this size; the text is cut to leave room for the
        // NUL.
        unsafe { raw::put_text(buffer, message.iter().copied().take(size - 1)) };
    }
    if message.len() < size { 0 } else { ERANGE }
}

/// Linux's numbers (asm-generic/errno-base.h, errno.h).
static MESSAGES: [&CStr; 134] = [
    c"Success",
    c"Operation not permitted",
    c"No such file or directory",
    c"No such process",
    c"Interrupted system call",
    c"Input/output error",
    c"No such device or address",
    c"Argument list too long",
    c"Exec format error",
    c"Bad file descriptor",
    c"No child processes",
    c"Resource temporarily unavailable",
    c"Cannot allocate memory",
    c"Permission denied",
    c"Bad address",
    c"Block device required",
    c"Device or resource busy",
    c"File exists",
    c"Invalid cross-device link",
    c"No such device",
    c"Not a directory",
    c"Is a directory",
    c"Invalid argument",
    c"Too many open files in system",
    c"Too many open files",
    c"Inappropriate ioctl for device",
    c"Text file busy",
    c"File too large",
    c"No space left on device",
    c"Illegal seek",
    c"Read-only file system",
    c"Too many links",
    c"Broken pipe",
    c"Numerical argument out of domain",
    c"Numerical result out of range",
    c"Resource deadlock avoided",
    c"File name too long",
    c"No locks available",
    c"Function not implemented",
    c"Directory not empty",
    c"Too many levels of symbolic links",
    c"Unknown error",
    c"No message of desired type",
    c"Identifier removed",
    c"Channel number out of range",
    c"Level 2 not synchronized",
    c"Level 3 halted",
    c"Level 3 reset",
    c"Link number out of range",
    c"Protocol driver not attached",
    c"No CSI structure available",
    c"Level 2 halted",
    c"Invalid exchange",
    c"Invalid request descriptor",
    c"Exchange full",
    c"No anode",
    c"Invalid request code",
    c"Invalid slot",
    c"Unknown error",
    c"Bad font file format",
    c"Device not a stream",
    c"No data available",
    c"Timer expired",
    c"Out of streams resources",
    c"Machine is not on the network",
    c"Package not installed",
    c"Object is remote",
    c"Link has been severed",
    c"Advertise error",
    c"Srmount error",
    c"Communication error on send",
    c"Protocol error",
    c"Multihop attempted",
    c"RFS specific error",
    c"Bad message",
    c"Value too large for defined data type",
    c"Name not unique on network",
    c"File descriptor in bad state",
    c"Remote address changed",
    c"Can not access a needed shared library",
    c"Accessing a corrupted shared library",
    c".lib section in a.out corrupted",
    c"Attempting to link in too many shared libraries",
    c"Cannot exec a shared library directly",
    c"Invalid or incomplete multibyte or wide character",
    c"Interrupted system call should be restarted",
    c"Streams pipe error",
    c"Too many users",
    c"Socket operation on non-socket",
    c"Destination address required",
    c"Message too long",
    c"Protocol wrong type for socket",
    c"Protocol not available",
    c"Protocol not supported",
    c"Socket type not supported",
    c"Operation not supported",
    c"Protocol family not supported",
    c"Address family not supported by protocol",
    c"Address already in use",
    c"Cannot assign requested address",
    c"Network is down",
    c"Network is unreachable",
    c"Network dropped connection on reset",
    c"Software caused connection abort",
    c"Connection reset by peer",
    c"No buffer space available",
    c"Transport endpoint is already connected",
    c"Transport endpoint is not connected",
    c"Cannot send after transport endpoint shutdown",
    c"Too many references: cannot splice",
    c"Connection timed out",
    c"Connection refused",
    c"Host is down",
    c"No route to host",
    c"Operation already in progress",
    c"Operation now in progress",
    c"Stale file handle",
    c"Structure needs cleaning",
    c"Not a XENIX named type file",
    c"No XENIX semaphores available",
    c"Is a named type file",
    c"Remote I/O error",
    c"Disk quota exceeded",
    c"No medium found",
    c"Wrong medium type",
    c"Operation canceled",
    c"Required key not available",
    c"Key has expired",
    c"Key has been revoked",
    c"Key was rejected by service",
    c"Owner died",
    c"State not recoverable",
    c"Operation not possible due to RF-kill",
    c"Memory page has hardware error",
];
