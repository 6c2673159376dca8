//! Rests: how long the engine stands back after a fork, or after the end of a child, before it does what can wait. On a host with one
//! processor, parent and children could not run meanwhile.
//!
//! A stream of forks and ends, of which each asks for a rest, must not put work off without end: a rest that was renewed again and
//! again ends [`MOST`] after it began, and then the engine works for as long before it rests again.

use std::time::{Duration, Instant};

use super::sabotage::{self, Sabotage};

/// How long it stands back.
const REST: Duration = Duration::from_millis(5);
/// How long at most in a row.
const MOST: Duration = Duration::from_millis(20);

/// Whether the engine stands back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rest {
    /// It began at the first of these moments, and lasts to the second.
    now: Option<(Instant, Instant)>,
    /// Before this moment there is no other.
    awake: Option<Instant>,
}

impl Rest {
    /// Both sides of a fork, or a parent, are to run first.
    pub fn begin(&mut self, now: Instant) {
        if self.awake.is_some_and(|awake| now < awake) {
            return;
        }
        let began = self.now.map_or(now, |(began, _)| began);
        self.now = Some((began, (now + REST).min(began + MOST)));
    }

    /// Somebody waits for work to be done.
    pub fn end(&mut self) {
        self.now = None;
    }

    /// Whether it lasts still.
    pub fn lasts(&mut self, now: Instant) -> bool {
        let Some((began, until)) = self.now else { return false };
        if now < until || sabotage::is(Sabotage::RestForEver) {
            return true;
        }
        self.now = None;
        // One that others have renewed is made up for.
        if until - began > REST {
            self.awake = Some(now + MOST);
        }
        false
    }

    /// When it ends.
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
