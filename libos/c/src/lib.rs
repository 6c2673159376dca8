//! The C ABI of the library OS: `include/zooid.h`. An application with C code in it says `use zooid_c as _;`.
//!
//! A crate of its own, because the compiler keeps functions with a C name even if nothing calls them.

#![no_std]
#![deny(clippy::undocumented_unsafe_blocks)]

extern crate alloc;

mod ipc;
mod poll;
mod shared;

use alloc::vec::Vec;
use core::ffi::{c_int, c_uint};

use zooid_kernel::events::Masked;

use zooid::process::{self, AtFork, Ended, ForkError, Forked, PvmId, WaitError};

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

type Handler = Option<unsafe extern "C" fn()>;

/// Prepare, parent, child; one entry per call of `pvm_atfork`.
static HANDLERS: Masked<Vec<[Handler; 3]>> = Masked::new(Vec::new());

/// # Safety
/// The functions may be called around every fork.
#[unsafe(no_mangle)]
unsafe extern "C" fn pvm_atfork(prepare: Handler, parent: Handler, child: Handler) {
    fn call(which: usize, backwards: bool) {
        let mut handlers = HANDLERS.lock().clone();
        if backwards {
            handlers.reverse();
        }
        for handler in handlers.into_iter().filter_map(|handlers| handlers[which]) {
            // SAFETY: who registered it promised so.
            unsafe { handler() };
        }
    }
    let first = {
        let mut handlers = HANDLERS.lock();
        handlers.push([prepare, parent, child]);
        handlers.len() == 1
    };
    if first {
        process::at_fork(AtFork { prepare: || call(0, true), parent: || call(1, false), child: || call(2, false) });
    }
}
