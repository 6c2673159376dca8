//! All that the simulation knows of the engine beyond what anybody can ask it: what it would wait for.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use xenctl::fake::FakeXen;

use super::super::super::core::Engine;

/// Whether there are notes or commands.
pub fn is_woken(engine: &Engine<FakeXen>) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(engine.inbox().wake(), PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}

/// How long it would wait if nothing happened; nothing: for ever.
pub fn wait(engine: &Engine<FakeXen>) -> Option<Duration> {
    engine.timeout()
}
