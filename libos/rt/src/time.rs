//! Time: the monotonic clock and the wall clock.

use core::ops::{Add, Sub};
pub use core::time::Duration;

use zooid_kernel::time;

/// A point of the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The present point.
    pub fn now() -> Self {
        Self(time::now())
    }

    /// Time since this point.
    pub fn elapsed(&self) -> Duration {
        Self::now() - *self
    }

    /// Time since an earlier point; zero if it is not earlier.
    pub fn duration_since(&self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The point as Xen's system time, in nanoseconds.
    pub(crate) fn system_time(self) -> u64 {
        self.0
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    /// Saturates: a point that far in the future is never reached.
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Instant {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        self.duration_since(earlier)
    }
}

/// Time since 1970-01-01 00:00 UTC, by the host's clock.
pub fn unix_time() -> Duration {
    Duration::from_nanos(time::wall_clock(time::now()))
}

/// As [`unix_time`], at the time of the last reading of the clock by any code of this pVM, such as
/// the network at the arrival of a packet. It is for dates in many answers, because reading the
/// clock is expensive.
pub fn recent_unix_time() -> Duration {
    Duration::from_nanos(time::wall_clock(time::recent()))
}

/// Time since this pVM booted.
pub fn uptime() -> Duration {
    Duration::from_nanos(time::uptime())
}
