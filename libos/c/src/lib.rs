//! The C ABI of the library OS: `include/zooid.h`. An application with C code in it contains `use
//! zooid_c as _;`.
//!
//! It is a crate of its own, because the compiler keeps functions with a C name even if they are
//! not called.

#![no_std]

extern crate alloc;

mod ipc;
mod poll;
mod shared;

use core::ffi::{c_int, c_uint};

use zooid::process::{self, CHandler, Ended, ForkError, Forked, PvmId, WaitError};

const WNOHANG: c_int = 1;
const EAGAIN: c_int = 11;
const EDEADLK: c_int = 35;
const ECHILD: c_int = 10;
const EINVAL: c_int = 22;
const ENOMEM: c_int = 12;
const ENOTCONN: c_int = 107;

fn number(id: PvmId) -> c_int {
    // Ids are positive as an `i32`.
    id.raw() as c_int
}

fn errno(error: ForkError) -> c_int {
    -match error {
        ForkError::Again => EAGAIN,
        ForkError::OutOfMemory => ENOMEM,
        ForkError::NoDaemon => ENOTCONN,
        ForkError::BadCount => EINVAL,
        ForkError::InHandler => EDEADLK,
        ForkError::Refused(errno) => errno.0 as c_int,
    }
}

#[unsafe(no_mangle)]
extern "C" fn pvm_fork() -> c_int {
    match process::fork() {
        Ok(child) => child.map_or(0, number),
        Err(error) => errno(error),
    }
}

/// # Safety
/// `ids` has room for `count` numbers.
#[unsafe(no_mangle)]
unsafe extern "C" fn pvm_fork_many(count: c_uint, ids: *mut c_int) -> c_int {
    match process::fork_many(count) {
        Ok(Forked::Parent(children)) => {
            for (index, child) in children.iter().enumerate() {
                // SAFETY: there are at most `count` children, for which the caller has room.
                unsafe { ids.add(index).write(number(*child)) };
            }
            children.len() as c_int
        }
        Ok(Forked::Child(_)) => 0,
        Err(error) => errno(error),
    }
}

/// # Safety
/// `status` is null or can be written.
unsafe fn ended(result: Result<Option<Ended>, WaitError>, status: *mut c_int) -> c_int {
    match result {
        Ok(Some(ended)) => {
            if !status.is_null() {
                // SAFETY: the caller's promise.
                unsafe { status.write(ended.status.to_raw() as c_int) };
            }
            number(ended.id)
        }
        Ok(None) => 0,
        Err(WaitError) => -ECHILD,
    }
}

/// # Safety
/// `status` is null or can be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn pvm_wait(status: *mut c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { ended(process::waitpid(None, false), status) }
}

/// # Safety
/// `status` is null or can be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn pvm_waitpid(id: c_int, status: *mut c_int, options: c_int) -> c_int {
    let child = match u32::try_from(id).ok().and_then(PvmId::from_raw) {
        None if id != -1 => return -ECHILD,
        child => child,
    };
    // SAFETY: the caller's promise.
    unsafe { ended(process::waitpid(child, options & WNOHANG != 0), status) }
}

#[unsafe(no_mangle)]
extern "C" fn pvm_exit(code: c_int) -> ! {
    process::exit(code)
}

#[unsafe(no_mangle)]
extern "C" fn pvm_getpid() -> c_int {
    process::id().map_or(0, number)
}

#[unsafe(no_mangle)]
extern "C" fn pvm_getppid() -> c_int {
    process::parent_id().map_or(0, number)
}

type Handler = Option<CHandler>;

/// # Safety
/// The functions may be called around every fork.
#[unsafe(no_mangle)]
unsafe extern "C" fn pvm_atfork(prepare: Handler, parent: Handler, child: Handler) {
    // SAFETY: passed on to the caller.
    let result = unsafe { process::at_fork_c([prepare, parent, child]) };
    result.unwrap_or_else(|error| panic!("pvm_atfork: {error}"));
}
