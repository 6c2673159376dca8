//! The simulation's only view into the engine: the events that it would wait for.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use xenctl::fake::FakeXen;

use super::super::super::core::Engine;

/// There are changes or commands.
pub fn is_woken(engine: &Engine<FakeXen>) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(engine.inbox().wake(), PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}

/// The time that it would wait without an event; none if without limit.
pub fn wait(engine: &Engine<FakeXen>) -> Option<Duration> {
    engine.timeout()
}
