//! Objects in shared memory, by their address.

use core::ffi::{c_int, c_longlong, c_uint, c_void};

use zooid::ipc::shared::{Condvar, Mutex, MutexGuard, Semaphore};
use zooid::ipc::{Error, SharedMemory};

use crate::ipc::{Result, answer, errno, patience};

const EOWNERDEAD: c_int = 130;

/// The shared memory that contains this address, and the offset in it.
fn place(address: *const c_void) -> Result<(SharedMemory, usize)> {
    SharedMemory::at_address(address.cast()).ok_or(errno(Error::Invalid))
}

fn mutex_at(address: *const c_void) -> Result<Mutex> {
    let (memory, offset) = place(address)?;
    Mutex::at(&memory, offset).map_err(errno)
}

fn condition_at(address: *const c_void) -> Result<Condvar> {
    let (memory, offset) = place(address)?;
    Condvar::at(&memory, offset).map_err(errno)
}

fn semaphore_at(address: *const c_void) -> Result<Semaphore> {
    let (memory, offset) = place(address)?;
    Semaphore::at(&memory, offset).map_err(errno)
}

/// Leaves the mutex locked, for the caller.
fn keep(guard: MutexGuard<'_>) -> Result<c_int> {
    let owner_died = guard.owner_died();
    guard.forget();
    if owner_died { Err(EOWNERDEAD) } else { Ok(0) }
}

#[unsafe(no_mangle)]
extern "C" fn pvm_shared_mutex_lock(mutex: *const c_void, timeout: c_longlong) -> c_int {
    answer(|| keep(mutex_at(mutex)?.lock_within(patience(timeout)).map_err(errno)?)) as c_int
}

#[unsafe(no_mangle)]
extern "C" fn pvm_shared_mutex_unlock(mutex: *const c_void) -> c_int {
    answer(|| mutex_at(mutex)?.adopt().map(drop).map(|()| 0).map_err(errno)) as c_int
}

#[unsafe(no_mangle)]
extern "C" fn pvm_shared_cond_wait(condition: *const c_void, mutex: *const c_void, timeout: c_longlong) -> c_int {
    answer(|| {
        let (condition, mutex) = (condition_at(condition)?, mutex_at(mutex)?);
        let guard = mutex.adopt().map_err(errno)?;
        let (guard, notified) = condition.wait_within(guard, patience(timeout)).map_err(errno)?;
        keep(guard)?;
        if notified { Ok(0) } else { Err(errno(Error::WouldBlock)) }
    }) as c_int
}

#[unsafe(no_mangle)]
extern "C" fn pvm_shared_cond_signal(condition: *const c_void) -> c_int {
    answer(|| {
        condition_at(condition)?.notify_one();
        Ok(0)
    }) as c_int
}

#[unsafe(no_mangle)]
extern "C" fn pvm_shared_cond_broadcast(condition: *const c_void) -> c_int {
    answer(|| {
        condition_at(condition)?.notify_all();
        Ok(0)
    }) as c_int
}

#[unsafe(no_mangle)]
extern "C" fn pvm_shared_sem_init(semaphore: *const c_void, value: c_uint) -> c_int {
    answer(|| semaphore_at(semaphore)?.set(value).map(|()| 0).map_err(errno)) as c_int
}

#[unsafe(no_mangle)]
extern "C" fn pvm_shared_sem_wait(semaphore: *const c_void, timeout: c_longlong) -> c_int {
    answer(|| semaphore_at(semaphore)?.wait_within(patience(timeout)).map(|()| 0).map_err(errno)) as c_int
}

#[unsafe(no_mangle)]
extern "C" fn pvm_shared_sem_post(semaphore: *const c_void) -> c_int {
    answer(|| semaphore_at(semaphore)?.post().map(|()| 0).map_err(errno)) as c_int
}
