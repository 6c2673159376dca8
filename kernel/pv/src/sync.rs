//! Blocking primitives for threads: wait queue, mutex, condition variable.

use alloc::collections::VecDeque;
use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use zooid_core::sched::ThreadId;

use crate::events::{self, Masked};
use crate::{thread, time};

/// Threads that wait for a condition.
pub struct WaitQueue {
    waiters: Masked<VecDeque<ThreadId>>,
}

impl WaitQueue {
    /// A queue without waiters.
    pub const fn new() -> Self {
        Self { waiters: Masked::new(VecDeque::new()) }
    }

    /// Blocks the calling thread until `ready` returns true; returns false when `deadline` (system
    /// time, ns) came first.
    ///
    /// `ready` runs with events masked, so that no wake-up is lost between its answer and the wait.
    /// It is called once more after the deadline.
    pub fn wait_until(&self, deadline: Option<u64>, mut ready: impl FnMut() -> bool) -> bool {
        let _mask = events::mask();
        loop {
            if ready() {
                return true;
            }
            if !self.wait_once(deadline, || ()) {
                return ready();
            }
        }
    }

    /// Queues the calling thread, calls `queued`, and blocks until it is woken; returns false when
    /// `deadline` came first.
    fn wait_once(&self, deadline: Option<u64>, queued: impl FnOnce()) -> bool {
        let _mask = events::mask();
        let current = thread::current();
        self.waiters.lock().push_back(current);
        queued();
        if thread::block(deadline) {
            return true;
        }
        // The deadline came. A wake-up may have come before this thread ran again; in that case it
        // has left the queue.
        let mut waiters = self.waiters.lock();
        let before = waiters.len();
        waiters.retain(|id| *id != current);
        waiters.len() == before
    }

    /// Wakes the thread that has waited longest; returns false when there is none.
    pub fn wake_one(&self) -> bool {
        loop {
            let Some(id) = self.waiters.lock().pop_front() else { return false };
            // The queue may hold threads that run already, or that stayed behind in the parent of a
            // fork.
            if thread::wake(id) {
                return true;
            }
        }
    }

    /// Wakes all threads that wait now.
    pub fn wake_all(&self) {
        while self.wake_one() {}
    }
}

impl Default for WaitQueue {
    fn default() -> Self {
        Self::new()
    }
}

/// Mutual exclusion between threads. A thread that has to wait blocks.
///
/// A thread that was woken and found the mutex taken again is not passed over a second time: the
/// next unlock hands the mutex over, to the thread that has waited longest. So a thread that takes
/// it again and again starves nobody, and a switch of threads is paid for only then.
pub struct Mutex<T: ?Sized> {
    locked: AtomicBool,
    /// Set if a woken thread was passed over.
    passed_over: AtomicBool,
    /// Set while it is locked for a thread that was woken, and that has not taken it yet.
    handed_over: AtomicBool,
    waiters: WaitQueue,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached only through the guard, of which there is one at a time.
unsafe impl<T: ?Sized + Send> Send for Mutex<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Send> Sync for Mutex<T> {}

/// Access to the value of a [`Mutex`].
#[must_use]
pub struct MutexGuard<'a, T: ?Sized> {
    mutex: &'a Mutex<T>,
    /// As in std, a guard stays with the thread that took it.
    _not_send: PhantomData<*const ()>,
}

// SAFETY: shares `&T` only.
unsafe impl<T: ?Sized + Sync> Sync for MutexGuard<'_, T> {}

impl<T> Mutex<T> {
    /// An unlocked mutex.
    pub const fn new(value: T) -> Self {
        Self {
            locked: AtomicBool::new(false),
            passed_over: AtomicBool::new(false),
            handed_over: AtomicBool::new(false),
            waiters: WaitQueue::new(),
            value: UnsafeCell::new(value),
        }
    }

    /// The value, taken out of the mutex.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits until the mutex is free and takes it.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        if self.locked.swap(true, Ordering::Acquire) {
            let mut was_woken = false;
            self.waiters.wait_until(None, || {
                let is_mine = was_woken && self.handed_over.swap(false, Ordering::Acquire)
                    || !self.locked.swap(true, Ordering::Acquire);
                if was_woken && !is_mine {
                    self.passed_over.store(true, Ordering::Relaxed);
                }
                was_woken = true;
                is_mine
            });
        }
        MutexGuard::new(self)
    }

    /// Takes the mutex if it is free.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        (!self.locked.swap(true, Ordering::Acquire)).then(|| MutexGuard::new(self))
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.try_lock() {
            Some(value) => out.debug_tuple("Mutex").field(&&*value).finish(),
            None => out.write_str("Mutex(<locked>)"),
        }
    }
}

impl<'a, T: ?Sized> MutexGuard<'a, T> {
    /// The guard of a caller that has just taken the lock.
    fn new(mutex: &'a Mutex<T>) -> Self {
        Self { mutex, _not_send: PhantomData }
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        let Mutex { locked, passed_over, handed_over, waiters, .. } = self.mutex;
        if passed_over.load(Ordering::Relaxed) {
            let _mask = events::mask();
            passed_over.store(false, Ordering::Relaxed);
            if waiters.wake_one() {
                return handed_over.store(true, Ordering::Release);
            }
        }
        locked.store(false, Ordering::Release);
        waiters.wake_one();
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: this guard holds the lock, so no other reference to the value exists.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and the guard is borrowed mutably.
        unsafe { &mut *self.mutex.value.get() }
    }
}

/// Mutual exclusion that knows its owner: a thread that comes back in its own turn is told so, and
/// does not wait for itself.
pub struct Turns {
    mutex: Mutex<()>,
    whose: Masked<Option<ThreadId>>,
}

/// The calling thread's turn, until it is dropped.
#[must_use]
pub struct Turn<'a> {
    turns: &'a Turns,
    _guard: MutexGuard<'a, ()>,
}

impl Turns {
    /// Nobody's turn.
    pub const fn new() -> Self {
        Self { mutex: Mutex::new(()), whose: Masked::new(None) }
    }

    /// Waits for a turn; `None` if the calling thread has one already.
    pub fn take(&self) -> Option<Turn<'_>> {
        let me = thread::current();
        if *self.whose.lock() == Some(me) {
            return None;
        }
        let guard = self.mutex.lock();
        *self.whose.lock() = Some(me);
        Some(Turn { turns: self, _guard: guard })
    }
}

impl Default for Turns {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.turns.whose.lock() = None;
    }
}

/// The end of a wait: true inside if its time was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// True when the time was over before a notification came.
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

/// A condition variable, used with a [`Mutex`].
#[derive(Default)]
pub struct Condvar {
    waiters: WaitQueue,
}

impl Condvar {
    /// A condition variable without waiters.
    pub const fn new() -> Self {
        Self { waiters: WaitQueue::new() }
    }

    /// Releases the mutex, waits for a notification, and takes the mutex again.
    pub fn wait<'a, T: ?Sized>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.wait_deadline(guard, None).0
    }

    /// Waits until `condition` is false.
    pub fn wait_while<'a, T: ?Sized>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        while condition(&mut guard) {
            guard = self.wait(guard);
        }
        guard
    }

    /// As [`Condvar::wait`], but for at most `timeout`.
    pub fn wait_timeout<'a, T: ?Sized>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> (MutexGuard<'a, T>, WaitTimeoutResult) {
        self.wait_deadline(guard, Some(time::after(timeout)))
    }

    /// As [`Condvar::wait_while`], but for at most `timeout`, after which the condition may still
    /// be true.
    pub fn wait_timeout_while<'a, T: ?Sized>(
        &self,
        mut guard: MutexGuard<'a, T>,
        timeout: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> (MutexGuard<'a, T>, WaitTimeoutResult) {
        let deadline = Some(time::after(timeout));
        let mut timed_out = false;
        while condition(&mut guard) {
            if timed_out {
                return (guard, WaitTimeoutResult(true));
            }
            (guard, WaitTimeoutResult(timed_out)) = self.wait_deadline(guard, deadline);
        }
        (guard, WaitTimeoutResult(false))
    }

    fn wait_deadline<'a, T: ?Sized>(
        &self,
        guard: MutexGuard<'a, T>,
        deadline: Option<u64>,
    ) -> (MutexGuard<'a, T>, WaitTimeoutResult) {
        let mutex = guard.mutex;
        let notified = self.waiters.wait_once(deadline, || drop(guard));
        (mutex.lock(), WaitTimeoutResult(!notified))
    }

    /// Wakes one waiting thread.
    pub fn notify_one(&self) {
        self.waiters.wake_one();
    }

    /// Wakes all waiting threads.
    pub fn notify_all(&self) {
        self.waiters.wake_all();
    }
}
