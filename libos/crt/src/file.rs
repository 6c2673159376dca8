//! Functions of a system with files, processes and users. There are none of these, and every call
//! returns an error that says so. Descriptors 0, 1 and 2 are the standard streams.

use core::ffi::{c_int, c_long, c_uint, c_void};
use core::ptr;
use core::time::Duration;

use crate::error::{self, EBADF, EINVAL, ENOENT, ENOSYS, ENOTTY};
use crate::export::Export;
use crate::memory::{mmap, munmap};
use crate::raw;
use crate::system::system;

pub(crate) const FILES: &[Export] = exports![
    write,
    read,
    __read_chk = read,
    close,
    isatty,
    fsync = nothing,
    fdatasync = nothing,
    getpid,
    getppid,
    getuid = zero,
    geteuid = zero,
    getgid = zero,
    getegid = zero,
    issetugid = zero,
    getpagesize,
    sysconf,
    sleep,
    usleep,
    getrandom,
    getentropy,
    // Functions on names of files.
    open = no_such,
    open64 = no_such,
    openat = no_such,
    openat64 = no_such,
    __open_2 = no_such,
    __open64_2 = no_such,
    creat = no_such,
    creat64 = no_such,
    stat = no_such,
    stat64 = no_such,
    lstat = no_such,
    lstat64 = no_such,
    __xstat = no_such,
    __xstat64 = no_such,
    __lxstat = no_such,
    __lxstat64 = no_such,
    fstatat = no_such,
    fstatat64 = no_such,
    access = no_such,
    faccessat = no_such,
    unlink = no_such,
    unlinkat = no_such,
    rmdir = no_such,
    mkdir = no_such,
    chdir = no_such,
    link = no_such,
    symlink = no_such,
    readlink = no_such,
    __readlink_chk = no_such,
    chmod = no_such,
    chown = no_such,
    lchown = no_such,
    truncate = no_such,
    truncate64 = no_such,
    utime = no_such,
    utimes = no_such,
    utimensat = no_such,
    statfs = no_such,
    statfs64 = no_such,
    statvfs = no_such,
    statvfs64 = no_such,
    fchmodat = no_such,
    mkstemp = no_such,
    mkstemp64 = no_such,
    opendir = no_such_pointer,
    realpath = no_such_pointer,
    __realpath_chk = no_such_pointer,
    getcwd = no_such_pointer,
    __getcwd_chk = no_such_pointer,
    // Functions on descriptors.
    fstat = no_descriptor,
    fstat64 = no_descriptor,
    __fxstat = no_descriptor,
    __fxstat64 = no_descriptor,
    fchmod = no_descriptor,
    fchown = no_descriptor,
    fcntl = no_descriptor,
    fcntl64 = no_descriptor,
    ftruncate = no_descriptor,
    ftruncate64 = no_descriptor,
    pread = no_descriptor,
    pread64 = no_descriptor,
    pwrite = no_descriptor,
    pwrite64 = no_descriptor,
    readv = no_descriptor,
    writev = no_descriptor,
    dup = no_descriptor,
    dup2 = no_descriptor,
    flock = no_descriptor,
    fallocate = no_descriptor,
    posix_fallocate = bad_descriptor,
    posix_fadvise = bad_descriptor,
    lseek = no_seek,
    lseek64 = no_seek,
    closedir = no_descriptor,
    dirfd = no_descriptor,
    sendfile = no_descriptor,
    sendfile64 = no_descriptor,
    fdopendir = no_pointer,
    readdir = no_pointer,
    readdir64 = no_pointer,
    // All others.
    ioctl = no,
    poll = no,
    pipe = no,
    fork = no,
    vfork = no,
    execve = no,
    execv = no,
    execvp = no,
    waitpid = no,
    kill = no,
    system = no,
    mmap,
    mmap64 = mmap,
    mremap = no,
    munmap,
    mprotect = no,
    madvise = no,
    syscall = no,
    uname = no,
    gethostname = no,
    getrusage = no,
    getrlimit = no,
    getrlimit64 = no,
    setrlimit = no,
];

fn refused(number: c_int) -> c_long {
    error::set(number);
    -1
}

// These stand for functions with any arguments. The caller cleans up after them, and takes the part
// of the result that it needs.

pub(crate) unsafe extern "C" fn no_such() -> c_long {
    refused(ENOENT)
}

pub(crate) unsafe extern "C" fn no_descriptor() -> c_long {
    refused(EBADF)
}

pub(crate) unsafe extern "C" fn no_seek() -> c_long {
    refused(29)
}

pub(crate) unsafe extern "C" fn no() -> c_long {
    refused(ENOSYS)
}

pub(crate) unsafe extern "C" fn no_such_pointer() -> *mut c_void {
    refused(ENOENT);
    ptr::null_mut()
}

pub(crate) unsafe extern "C" fn no_pointer() -> *mut c_void {
    refused(ENOSYS);
    ptr::null_mut()
}

/// For functions that return the number of the error.
unsafe extern "C" fn bad_descriptor() -> c_int {
    EBADF
}

unsafe extern "C" fn zero() -> c_long {
    0
}

unsafe extern "C" fn nothing(number: c_int) -> c_long {
    if matches!(number, 0..=2) { 0 } else { refused(EBADF) }
}

pub(crate) unsafe extern "C" fn write(number: c_int, from: *const u8, count: usize) -> c_long {
    if !matches!(number, 1 | 2) {
        return refused(EBADF);
    }
    // SAFETY: as C demands.
    (system().write)(number, unsafe { raw::slice(from, count) });
    count as c_long
}

unsafe extern "C" fn read(number: c_int) -> c_long {
    if number == 0 { 0 } else { refused(EBADF) }
}

unsafe extern "C" fn close(number: c_int) -> c_long {
    if matches!(number, 0..=2) { 0 } else { refused(EBADF) }
}

unsafe extern "C" fn isatty(number: c_int) -> c_int {
    error::set(if matches!(number, 0..=2) { ENOTTY } else { EBADF });
    0
}

unsafe extern "C" fn getpid() -> c_int {
    (system().process)()
}

unsafe extern "C" fn getppid() -> c_int {
    1
}

const PAGE: c_int = 4096;

unsafe extern "C" fn getpagesize() -> c_int {
    PAGE
}

unsafe extern "C" fn sysconf(name: c_int) -> c_long {
    // Linux's numbers (bits/confname.h).
    match name {
        // _SC_CLK_TCK
        2 => 100,
        // _SC_OPEN_MAX
        4 => 3,
        // _SC_PAGESIZE
        30 => c_long::from(PAGE),
        // _SC_NPROCESSORS_CONF, _SC_NPROCESSORS_ONLN
        83 | 84 => 1,
        _ => refused(EINVAL),
    }
}

unsafe extern "C" fn sleep(seconds: c_uint) -> c_uint {
    (system().sleep)(Duration::from_secs(u64::from(seconds)));
    0
}

unsafe extern "C" fn usleep(microseconds: c_uint) -> c_int {
    (system().sleep)(Duration::from_micros(u64::from(microseconds)));
    0
}

unsafe extern "C" fn getrandom(to: *mut u8, count: usize, _flags: c_uint) -> c_long {
    // SAFETY: as C demands.
    (system().random)(unsafe { raw::slice_mut(to, count) });
    count as c_long
}

unsafe extern "C" fn getentropy(to: *mut u8, count: usize) -> c_int {
    // SAFETY: passed on to the caller.
    unsafe { getrandom(to, count, 0) };
    0
}
