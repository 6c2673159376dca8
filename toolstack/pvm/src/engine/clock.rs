//! The engine's time: that of the host, or one that a test moves.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[cfg(test)]
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// A clock. Clones tell the same time.
#[derive(Clone, Debug)]
pub struct Clock {
    start: Instant,
    start_us: u64,
    /// Nanoseconds since the start, in a test.
    #[cfg(test)]
    moved: Option<Arc<AtomicU64>>,
}

impl Clock {
    /// The host's.
    pub fn host() -> Self {
        let start_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_micros() as u64);
        Self {
            start: Instant::now(),
            start_us,
            #[cfg(test)]
            moved: None,
        }
    }

    /// A clock that stands still until [`advance`](Self::advance), and begins at the same date in
    /// every run.
    #[cfg(test)]
    pub fn manual() -> Self {
        Self { start: Instant::now(), start_us: 1 << 50, moved: Some(Arc::default()) }
    }

    /// Moves a manual clock on.
    #[cfg(test)]
    pub fn advance(&self, time: Duration) {
        let moved = self.moved.as_ref().expect("the host's clock moves by itself");
        moved.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Time since this clock was made.
    fn elapsed(&self) -> Duration {
        #[cfg(test)]
        if let Some(moved) = &self.moved {
            return Duration::from_nanos(moved.load(Ordering::Relaxed));
        }
        self.start.elapsed()
    }

    /// This moment.
    pub fn now(&self) -> Instant {
        self.start + self.elapsed()
    }

    /// Time since a moment; zero if that is still to come.
    pub fn since(&self, moment: Instant) -> Duration {
        self.now().saturating_duration_since(moment)
    }

    /// Microseconds since 1970.
    pub fn now_us(&self) -> u64 {
        self.start_us + self.elapsed().as_micros() as u64
    }
}
