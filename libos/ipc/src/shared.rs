//! Mutexes, condition variables and semaphores that lie in shared memory (POSIX
//! `PTHREAD_PROCESS_SHARED`, `sem_init`), for threads of all relatives that have it.
//!
//! Zeroed memory is a mutex that nobody has, a condition variable that nobody waits for, and a
//! semaphore of value 0: nobody has to be first. Their state is in the memory alone; the values
//! here only say where.

use core::mem;
use core::time::Duration;

use crate::error::Error;
use crate::layout::POINTS;
use crate::lock;
use crate::memory::SharedMemory;
use crate::platform::{Pages, Platform, Word};
use crate::semaphore::MAX_VALUE;
use crate::wait::{self, Patience};

/// A place in shared memory. Several places may share a wait point: a woken thread checks its own
/// condition.
struct Place<P: Platform> {
    memory: SharedMemory<P>,
    /// Offset in the object.
    at: usize,
}

impl<P: Platform> Clone for Place<P> {
    fn clone(&self) -> Self {
        Self { memory: self.memory.clone(), at: self.at }
    }
}

impl<P: Platform> Place<P> {
    fn new(memory: &SharedMemory<P>, offset: usize, size: usize) -> Result<Self, Error> {
        Ok(Self { memory: memory.clone(), at: memory.place(offset, size)? })
    }

    fn point(&self) -> usize {
        self.at / 8 % POINTS.len()
    }

    fn word(&self) -> <P::Pages as Pages>::U32<'_> {
        self.memory.object().pages().u32(self.at)
    }

    fn wait(&self, patience: Patience, ready: impl FnMut() -> bool) -> Result<(), Error> {
        let object = self.memory.object();
        if wait::wait(object, self.point(), patience, ready) { Ok(()) } else { Err(Error::WouldBlock) }
    }

    fn wake(&self) {
        wait::wake(self.memory.object(), self.point());
    }
}

/// A mutex. A thread must not lock it twice. If its owner's pVM ends, the next owner gets
/// it, and is told so.
pub struct Mutex<P: Platform>(Place<P>);

impl<P: Platform> Clone for Mutex<P> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// The mutex is locked while this lives.
#[must_use]
pub struct MutexGuard<'a, P: Platform> {
    mutex: &'a Mutex<P>,
    owner_died: bool,
}

impl<P: Platform> Mutex<P> {
    /// The object at `offset`, 8 bytes.
    ///
    /// # Errors
    /// [`Invalid`](Error::Invalid) outside the memory, or if `offset` is no multiple of 8.
    pub fn at(memory: &SharedMemory<P>, offset: usize) -> Result<Self, Error> {
        Place::new(memory, offset, 8).map(Self)
    }

    /// Waits until nobody has it, and takes it.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn lock(&self) -> Result<MutexGuard<'_, P>, Error> {
        self.lock_within(Patience::Forever)
    }

    /// Takes it if nobody has it.
    ///
    /// # Errors
    /// [`WouldBlock`](Error::WouldBlock).
    pub fn try_lock(&self) -> Result<MutexGuard<'_, P>, Error> {
        self.lock_within(Patience::None)
    }

    /// Takes it, waiting `limit` at most.
    ///
    /// # Errors
    /// [`WouldBlock`](Error::WouldBlock).
    pub fn lock_timeout(&self, limit: Duration) -> Result<MutexGuard<'_, P>, Error> {
        self.lock_within(Patience::within::<P>(limit))
    }

    /// Takes it, waiting so long.
    ///
    /// # Errors
    /// [`WouldBlock`](Error::WouldBlock) when the patience is over.
    pub fn lock_within(&self, patience: Patience) -> Result<MutexGuard<'_, P>, Error> {
        let Place { memory, at } = &self.0;
        let owner_died = lock::take(memory.object(), *at, self.0.point(), patience)?;
        Ok(MutexGuard { mutex: self, owner_died })
    }

    /// The guard of a mutex whose guard was [forgotten](MutexGuard::forget).
    ///
    /// # Errors
    /// [`NotOwner`](Error::NotOwner) when no thread of this pVM has the mutex.
    pub fn adopt(&self) -> Result<MutexGuard<'_, P>, Error> {
        if !lock::is_mine(self.0.memory.object(), self.0.at) {
            return Err(Error::NotOwner);
        }
        Ok(MutexGuard { mutex: self, owner_died: false })
    }
}

impl<P: Platform> MutexGuard<'_, P> {
    /// True if the previous owner's pVM has ended with the mutex locked: the protected data may be
    /// half changed (`EOWNERDEAD`).
    pub fn owner_died(&self) -> bool {
        self.owner_died
    }

    /// Leaves the mutex locked. A later [`adopt`](Mutex::adopt) gives the guard back.
    pub fn forget(self) {
        mem::forget(self);
    }
}

impl<P: Platform> Drop for MutexGuard<'_, P> {
    fn drop(&mut self) {
        let Place { memory, at } = &self.mutex.0;
        lock::release(memory.object(), *at, self.mutex.0.point());
    }
}

/// A condition variable. A wait may end without a notification, as in POSIX: the waiter checks
/// its condition again.
pub struct Condvar<P: Platform>(Place<P>);

impl<P: Platform> Clone for Condvar<P> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<P: Platform> Condvar<P> {
    /// The object at `offset`, 4 bytes: how many notifications there were.
    ///
    /// # Errors
    /// [`Invalid`](Error::Invalid) outside the memory, or if `offset` is no multiple of 4.
    pub fn at(memory: &SharedMemory<P>, offset: usize) -> Result<Self, Error> {
        Place::new(memory, offset, 4).map(Self)
    }

    /// Gives the mutex back, waits for a notification, and takes the mutex again.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn wait<'a>(&self, guard: MutexGuard<'a, P>) -> Result<MutexGuard<'a, P>, Error> {
        self.wait_within(guard, Patience::Forever).map(|(guard, _)| guard)
    }

    /// As [`wait`](Self::wait), `limit` at most; true as well if it was notified in time.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn wait_timeout<'a>(
        &self,
        guard: MutexGuard<'a, P>,
        limit: Duration,
    ) -> Result<(MutexGuard<'a, P>, bool), Error> {
        self.wait_within(guard, Patience::within::<P>(limit))
    }

    /// As [`wait_timeout`](Self::wait_timeout), waiting so long.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn wait_within<'a>(
        &self,
        guard: MutexGuard<'a, P>,
        patience: Patience,
    ) -> Result<(MutexGuard<'a, P>, bool), Error> {
        let mutex = guard.mutex;
        let before = self.0.word().load();
        drop(guard);
        let notified = self.0.wait(patience, || self.0.word().load() != before).is_ok();
        Ok((mutex.lock()?, notified))
    }

    /// Wakes at least one of those that wait.
    pub fn notify_one(&self) {
        self.notify_all();
    }

    /// Wakes all that wait.
    pub fn notify_all(&self) {
        self.0.word().fetch_add(1);
        self.0.wake();
    }
}

/// A semaphore.
pub struct Semaphore<P: Platform>(Place<P>);

impl<P: Platform> Clone for Semaphore<P> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<P: Platform> Semaphore<P> {
    /// The object at `offset`, 4 bytes: its value.
    ///
    /// # Errors
    /// [`Invalid`](Error::Invalid) outside the memory, or if `offset` is no multiple of 4.
    pub fn at(memory: &SharedMemory<P>, offset: usize) -> Result<Self, Error> {
        Place::new(memory, offset, 4).map(Self)
    }

    /// Gives it a value, before anybody uses it.
    ///
    /// # Errors
    /// [`Invalid`](Error::Invalid) above [`MAX_VALUE`].
    pub fn set(&self, value: u32) -> Result<(), Error> {
        if value > MAX_VALUE {
            return Err(Error::Invalid);
        }
        self.0.word().store(value);
        Ok(())
    }

    /// Its value, a moment ago.
    pub fn value(&self) -> u32 {
        self.0.word().load()
    }

    /// Takes one, waiting until there is one.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn wait(&self) -> Result<(), Error> {
        self.wait_within(Patience::Forever)
    }

    /// Takes one if there is one.
    ///
    /// # Errors
    /// [`WouldBlock`](Error::WouldBlock).
    pub fn try_wait(&self) -> Result<(), Error> {
        self.wait_within(Patience::None)
    }

    /// Takes one, waiting `limit` at most.
    ///
    /// # Errors
    /// [`WouldBlock`](Error::WouldBlock).
    pub fn wait_timeout(&self, limit: Duration) -> Result<(), Error> {
        self.wait_within(Patience::within::<P>(limit))
    }

    /// Takes one, waiting so long.
    ///
    /// # Errors
    /// [`WouldBlock`](Error::WouldBlock) when the patience is over.
    pub fn wait_within(&self, patience: Patience) -> Result<(), Error> {
        let less = |value: u32| value.checked_sub(1).filter(|less| *less < MAX_VALUE);
        let take = || self.0.word().fetch_update(less).is_ok();
        if take() { Ok(()) } else { self.0.wait(patience, take) }
    }

    /// Gives one.
    ///
    /// # Errors
    /// [`Overflow`](Error::Overflow) above [`MAX_VALUE`].
    pub fn post(&self) -> Result<(), Error> {
        let more = |value: u32| value.checked_add(1).filter(|more| *more <= MAX_VALUE);
        let posted = self.0.word().fetch_update(more);
        posted.map_err(|_| Error::Overflow)?;
        self.0.wake();
        Ok(())
    }
}
