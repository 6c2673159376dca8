//! Semaphores (POSIX `sem_open`, `sem_wait`, `sem_post`).

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;

use zooid_kernel::evtchn::Event;

use crate::error::Error;
use crate::layout::{FIELDS, Kind, Role};
use crate::object::{How, Part, open};
use crate::poll::{Events, Pollable};
use crate::wait::{self, Patience};

/// The largest value (`SEM_VALUE_MAX`).
pub const MAX_VALUE: u32 = i32::MAX as u32;
const WAITERS: usize = 0;

/// A semaphore. Clones are the same one.
#[derive(Clone)]
pub struct Semaphore(Part);

impl Semaphore {
    /// A semaphore without a name, for this pVM and its descendants.
    ///
    /// # Errors
    /// `Invalid` above [`MAX_VALUE`]; see [`Error`].
    pub fn new(value: u32) -> Result<Self, Error> {
        Self::make(None, How::ANONYMOUS, value)
    }

    /// The family's semaphore of this name; `value` is for one that is made now.
    ///
    /// # Errors
    /// As [`new`](Self::new), and `Exists`, `NotFound`; `Invalid` when there is something else of this name.
    pub fn open(name: &str, how: How, value: u32) -> Result<Self, Error> {
        Self::make(Some(name), how, value)
    }

    /// One with or without a name.
    ///
    /// # Errors
    /// As [`new`](Self::new) and [`open`](Self::open).
    pub fn make(name: Option<&str>, how: How, value: u32) -> Result<Self, Error> {
        if value > MAX_VALUE {
            return Err(Error::Invalid);
        }
        // The value stands among the details, so that it is there when others see the object.
        let object = open(Kind::Semaphore, name, 1, how, [value, 0])?;
        Ok(Self(Part::new(&object, Role::Reader)))
    }

    /// What was posted and taken since it was made, as two counts that wrap around.
    fn taken(&self) -> &AtomicU32 {
        self.0.object().pages().atomic_u32(FIELDS[0])
    }

    fn posted(&self) -> &AtomicU32 {
        self.0.object().pages().atomic_u32(FIELDS[1])
    }

    /// Its value, a moment ago.
    pub fn value(&self) -> u32 {
        let start = self.0.object().detail(0);
        let taken = self.taken().load(Ordering::SeqCst);
        start.wrapping_add(self.posted().load(Ordering::SeqCst)).wrapping_sub(taken)
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
        self.wait_within(Patience::within(limit))
    }

    /// Takes one, waiting so long.
    ///
    /// # Errors
    /// [`WouldBlock`](Error::WouldBlock) when the patience is over.
    pub fn wait_within(&self, patience: Patience) -> Result<(), Error> {
        let object = self.0.object();
        let take = || {
            let taken = self.taken().load(Ordering::SeqCst);
            let limit = object.detail(0).wrapping_add(self.posted().load(Ordering::SeqCst));
            let left = limit.wrapping_sub(taken);
            left != 0
                && left <= MAX_VALUE
                && self
                    .taken()
                    .compare_exchange(taken, taken.wrapping_add(1), Ordering::SeqCst, Ordering::SeqCst)
                    .is_ok()
        };
        if wait::wait(object, WAITERS, patience, take) { Ok(()) } else { Err(Error::WouldBlock) }
    }

    /// Gives one.
    ///
    /// # Errors
    /// `Overflow` above [`MAX_VALUE`].
    pub fn post(&self) -> Result<(), Error> {
        if self.value() >= MAX_VALUE {
            return Err(Error::Overflow);
        }
        self.posted().fetch_add(1, Ordering::SeqCst);
        wait::wake(self.0.object(), WAITERS);
        Ok(())
    }
}

impl Pollable for Semaphore {
    fn ready(&self, wanted: Events) -> Events {
        if self.value() > 0 { Events::READABLE & wanted } else { Events::empty() }
    }

    fn watch(&self, _: Events, event: &Arc<Event>) {
        wait::watch(self.0.object(), WAITERS, event);
    }

    fn unwatch(&self, event: &Arc<Event>) {
        wait::unwatch(event);
    }
}
