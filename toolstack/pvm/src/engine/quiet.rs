//! Quiet windows: times without background work, in which others change xenstore.
//!
//! Each domain that is prepared or removed changes `/local/domain`. xenstored refuses the commit of a
//! transaction that has seen this node before, and libxl begins such a transaction anew until it is
//! taken: beside a family that forks without end `xl create` would never return. So background work
//! leaves a window from time to time that is long enough for such a transaction.

use std::time::{Duration, Instant};

/// Length of a window: twice what a transaction of libxl takes on a slow host, because it begins at
/// any time.
const WINDOW: Duration = Duration::from_millis(80);
/// Longest time of work without a window: windows take no more than a twentieth of the time.
const WORK: Duration = Duration::from_millis(1600);

/// The state of windows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet {
    /// The moments at which work began after the last window, and at which the last step ended.
    work: Option<(Instant, Instant)>,
    /// The end of the window.
    until: Option<Instant>,
}

impl Quiet {
    /// A step of background work began and ended.
    pub fn worked(&mut self, began: Instant, ended: Instant) {
        // A pause is a window, too.
        let first = self.work.filter(|(_, last)| *last + WINDOW > began).map_or(began, |(first, _)| first);
        self.work = Some((first, ended));
    }

    /// True during a window, which begins if one is due.
    pub fn lasts(&mut self, now: Instant) -> bool {
        if let Some((first, last)) = self.work
            && last - first >= WORK
        {
            self.work = None;
            self.until = Some(last + WINDOW);
        }
        let lasts = self.until.is_some_and(|until| now < until);
        if !lasts {
            self.until = None;
        }
        lasts
    }

    /// The end of the window; none if there is none.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lengths of all pauses, when steps of `step` are done as soon as they may be.
    fn pauses(step: Duration, pause: Duration, length: Duration) -> Vec<Duration> {
        let start = Instant::now();
        let (mut now, mut quiet, mut pauses) = (start, Quiet::default(), Vec::new());
        while now < start + length {
            if quiet.lasts(now) {
                let until = quiet.until().unwrap();
                pauses.push(until - now);
                now = until;
            }
            quiet.worked(now, now + step);
            now += step + pause;
        }
        pauses
    }

    #[test]
    fn work_without_end_leaves_windows_and_they_are_few() {
        for step in [1, 7, 300] {
            let windows = pauses(Duration::from_millis(step), Duration::ZERO, Duration::from_secs(20));
            assert!(windows.len() >= 9, "{windows:?}");
            assert!(windows.iter().all(|window| *window == WINDOW), "{windows:?}");
            assert!(windows.iter().sum::<Duration>() <= Duration::from_secs(1), "{windows:?}");
        }
    }

    #[test]
    fn work_with_pauses_of_its_own_needs_no_window() {
        assert_eq!(pauses(Duration::from_millis(30), WINDOW, Duration::from_secs(20)), []);
    }
}
