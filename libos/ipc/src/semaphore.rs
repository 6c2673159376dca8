//! Semaphores (POSIX `sem_open`, `sem_wait`, `sem_post`).

use core::time::Duration;

use crate::error::Error;
use crate::layout::{FIELDS, Kind, Role};
use crate::object::{How, Part, open};
use crate::platform::{AnyEvent, Pages, Platform, Word};
use crate::poll::{Events, Pollable};
use crate::wait::{self, Patience};

/// The largest value (`SEM_VALUE_MAX`).
pub const MAX_VALUE: u32 = i32::MAX as u32;
const WAITERS: usize = 0;

/// A semaphore. Clones are the same one.
pub struct Semaphore<P: Platform>(Part<P>);

impl<P: Platform> Clone for Semaphore<P> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<P: Platform> Semaphore<P> {
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
    /// As [`new`](Self::new), and `Exists`, `NotFound`; `Invalid` when there is something else of
    /// this name.
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
        open(Kind::Semaphore, name, 1, how, [value, 0], Role::Reader).map(Self)
    }

    /// The number of takes since it was made; wraps around.
    fn taken(&self) -> <P::Pages as Pages>::U32<'_> {
        self.0.object().pages().u32(FIELDS[0])
    }

    /// The number of posts since it was made; wraps around.
    fn posted(&self) -> <P::Pages as Pages>::U32<'_> {
        self.0.object().pages().u32(FIELDS[1])
    }

    /// The value left after `taken` takes. The caller reads the count of takes before this reads
    /// that of posts, so that the result is never below 0.
    fn left(&self, taken: u32) -> u32 {
        self.0.object().detail(0).wrapping_add(self.posted().load()).wrapping_sub(taken)
    }

    /// Its value, a moment ago.
    pub fn value(&self) -> u32 {
        self.left(self.taken().load())
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
        let object = self.0.object();
        // A concurrent taker has not taken the last one.
        let less = |taken: u32| (1..=MAX_VALUE).contains(&self.left(taken)).then(|| taken.wrapping_add(1));
        let take = || self.taken().fetch_update(less).is_ok();
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
        self.posted().fetch_add(1);
        wait::wake(self.0.object(), WAITERS);
        Ok(())
    }
}

impl<P: Platform> Pollable for Semaphore<P> {
    fn ready(&self, wanted: Events) -> Events {
        if self.value() > 0 { Events::READABLE & wanted } else { Events::empty() }
    }

    fn watch(&self, _: Events, event: &AnyEvent) {
        wait::watch(self.0.object(), WAITERS, event);
    }

    fn unwatch(&self, event: &AnyEvent) {
        wait::unwatch::<P>(event);
    }
}
