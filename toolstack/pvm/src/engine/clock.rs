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
    /// Microseconds by which a test has set the host's date forward since the start.
    #[cfg(test)]
    set: Arc<AtomicU64>,
}

impl Clock {
    /// The host's.
    pub fn host() -> Self {
        Self {
            start: Instant::now(),
            start_us: since_1970_us(),
            #[cfg(test)]
            moved: None,
            #[cfg(test)]
            set: Arc::default(),
        }
    }

    /// A clock that stands still until [`advance`](Self::advance), and begins at the same date in
    /// every run.
    #[cfg(test)]
    pub fn manual() -> Self {
        Self { start: Instant::now(), start_us: 1 << 50, moved: Some(Arc::default()), set: Arc::default() }
    }

    /// Moves a manual clock on.
    #[cfg(test)]
    pub fn advance(&self, time: Duration) {
        let moved = self.moved.as_ref().expect("the host's clock moves by itself");
        moved.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Sets the host's date forward, as this clock sees it, or back by a number below 2^64.
    #[cfg(test)]
    pub fn set_forward(&self, us: u64) {
        self.set.fetch_add(us, Ordering::Relaxed);
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

    /// Microseconds since 1970, for as long as nobody sets the date. They only rise.
    pub fn now_us(&self) -> u64 {
        self.start_us + self.elapsed().as_micros() as u64
    }

    /// The date of a moment of [`now_us`](Self::now_us) in microseconds since 1970, by the host's
    /// present date. Somebody may have set that since this clock was made.
    pub fn date_us(&self, moment: u64) -> u64 {
        self.date_now_us().saturating_sub(self.now_us().saturating_sub(moment))
    }

    /// The host's date in microseconds since 1970.
    pub fn date_now_us(&self) -> u64 {
        #[cfg(test)]
        {
            let date = if self.moved.is_some() { self.now_us() } else { since_1970_us() };
            date.wrapping_add(self.set.load(Ordering::Relaxed))
        }
        #[cfg(not(test))]
        {
            since_1970_us()
        }
    }
}

fn since_1970_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_micros() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_that_is_set_moves_dates_and_no_times() {
        let clock = Clock::manual();
        let (then, then_us) = (clock.now(), clock.now_us());
        clock.advance(Duration::from_secs(5));
        for step in [1 << 45, (1_u64 << 46).wrapping_neg()] {
            clock.set_forward(step);
            assert_eq!((clock.since(then), clock.now_us() - then_us), (Duration::from_secs(5), 5_000_000));
            assert_eq!(clock.date_us(clock.now_us()) - clock.date_us(then_us), 5_000_000);
        }
        assert_eq!(clock.date_us(then_us), then_us - (1 << 45));
    }
}
