//! Rests: the time for which the engine does no background work after a fork, or after the end of a
//! child. On a host with one processor, parent and children could not run meanwhile.
//!
//! Each fork and end asks for a rest. A stream of them must not put work off without end: a rest
//! that is renewed ends [`MOST`] after it began, and then the engine works for as long before it
//! rests again.

use std::time::{Duration, Instant};

use super::sabotage::{self, Sabotage};

/// Length of a rest.
const REST: Duration = Duration::from_millis(5);
/// Longest time of renewed rests in a row.
const MOST: Duration = Duration::from_millis(20);

/// The state of rests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rest {
    /// The moments at which the rest began, and at which it ends.
    now: Option<(Instant, Instant)>,
    /// The moment before which no rest begins.
    awake: Option<Instant>,
}

impl Rest {
    /// Begins or renews a rest, so that both sides of a fork, or a parent, run first.
    pub fn begin(&mut self, now: Instant) {
        if self.awake.is_some_and(|awake| now < awake) {
            return;
        }
        let began = self.now.map_or(now, |(began, _)| began);
        self.now = Some((began, (now + REST).min(began + MOST)));
    }

    /// Ends the rest: a guest waits for work to be done.
    pub fn end(&mut self) {
        self.now = None;
    }

    /// True during a rest.
    pub fn lasts(&mut self, now: Instant) -> bool {
        let Some((began, until)) = self.now else { return false };
        if now < until || sabotage::is(Sabotage::RestForEver) {
            return true;
        }
        self.now = None;
        // A renewed rest is made up for.
        if until - began > REST {
            self.awake = Some(now + MOST);
        }
        false
    }

    /// The end of the rest; none if there is none.
    pub fn until(&self) -> Option<Instant> {
        self.now.map(|(_, until)| until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_stream_of_ends_puts_work_off_for_more_than_half_of_the_time() {
        let start = Instant::now();
        let mut rest = Rest::default();
        let mut free = 0;
        for millisecond in 0..1000 {
            let now = start + Duration::from_millis(millisecond);
            rest.begin(now);
            free += u32::from(!rest.lasts(now));
        }
        assert!(free >= 450, "{free}");
    }

    #[test]
    fn one_rest_is_short_and_costs_nothing_afterwards() {
        let start = Instant::now();
        let mut rest = Rest::default();
        rest.begin(start);
        assert!(rest.lasts(start + Duration::from_millis(4)));
        assert!(!rest.lasts(start + Duration::from_millis(5)));
        rest.begin(start + Duration::from_millis(6));
        assert!(rest.lasts(start + Duration::from_millis(7)));
        rest.end();
        assert!(!rest.lasts(start + Duration::from_millis(7)));
    }
}
