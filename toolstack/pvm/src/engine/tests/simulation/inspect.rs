//! All that the simulation knows of the engine beyond what anybody can ask it: what it would wait for.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use xenctl::fake::FakeXen;

use super::super::super::core::Engine;

/// Whether there are notes or commands.
pub fn is_woken(engine: &Engine<FakeXen>) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(engine.inbox.wake(), PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}

/// How long it would wait if nothing happened; nothing: for ever.
pub fn wait(engine: &Engine<FakeXen>) -> Option<Duration> {
    let now = engine.clock.now();
    let later = engine.unbooked.is_some() || !engine.unreaped.is_empty();
    let rest = engine.rest.filter(|_| later || !engine.jobs.is_empty());
    if !engine.jobs.is_empty() && rest.is_none() {
        return Some(Duration::ZERO);
    }
    let timers = engine.timers.iter().map(|(when, _)| *when);
    timers.chain(rest).min().map(|when: Instant| when.saturating_duration_since(now))
}
