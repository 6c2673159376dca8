//! Signals between relatives, and from dom0 (`pvm kill -s`).
//!
//! Handlers run in a thread of their own, one at a time, never in the middle of another thread. A
//! handler may therefore use all of the libOS. Without a handler, most signals end the pVM, as in
//! POSIX; `SIGCHLD`, `SIGCONT`, `SIGURG`, `SIGWINCH`, and `SIGPIPE` do nothing. A child has its
//! parent's handlers and mask.

use core::time::Duration;

pub use zooid_fork::{SIGCHLD, SIGCONT, SIGPIPE};
pub use zooid_ipc::Error;
use zooid_ipc::signal;
pub use zooid_ipc::signal::{Action, LAST, SIGKILL, SIGSTOP, set};

use crate::ipc::{Kernel, Patience};
use crate::poll::{AnyEvent, Events, Pollable};

/// Sets the action for a signal, and returns the former one.
///
/// # Errors
/// `Invalid` for 9 and 19, which cannot be caught, and for numbers of no signal; see [`Error`].
pub fn set_action(signal: u8, action: Action) -> Result<Action, Error> {
    signal::set_action::<Kernel>(signal, action)
}

/// Blocks and unblocks signals, given as bits, and returns those that were blocked before. 9 cannot
/// be blocked.
///
/// # Errors
/// See [`Error`], here and below.
pub fn set_mask(block: u64, unblock: u64) -> Result<u64, Error> {
    signal::set_mask::<Kernel>(block, unblock)
}

/// Blocks these signals: they wait until they are unblocked. Returns those that were blocked
/// before.
///
/// # Errors
/// As [`set_mask`].
pub fn block(signals: u64) -> Result<u64, Error> {
    set_mask(signals, 0)
}

/// Unblocks these signals. Returns those that were blocked before.
///
/// # Errors
/// As [`set_mask`].
pub fn unblock(signals: u64) -> Result<u64, Error> {
    set_mask(0, signals)
}

/// Signals that wait for this pVM because they are blocked, as bits.
pub fn pending() -> u64 {
    signal::pending::<Kernel>()
}

/// Takes one of these signals, which are blocked, once it comes.
///
/// # Errors
/// As [`set_mask`].
pub fn wait(signals: u64) -> Result<u8, Error> {
    wait_within(signals, Patience::Forever)
}

/// As [`wait()`], `limit` at most.
///
/// # Errors
/// [`Error::WouldBlock`].
pub fn wait_timeout(signals: u64, limit: Duration) -> Result<u8, Error> {
    signal::wait_timeout::<Kernel>(signals, limit)
}

/// As [`wait()`], with a `patience`.
///
/// # Errors
/// [`Error::WouldBlock`] when the patience is over.
pub fn wait_within(signals: u64, patience: Patience) -> Result<u8, Error> {
    signal::wait_within::<Kernel>(signals, patience)
}

/// Signals, which are blocked, as something that can be polled: readable while one of them waits.
#[derive(Clone, Copy, Debug)]
pub struct Blocked(pub u64);

impl Pollable for Blocked {
    fn ready(&self, wanted: Events) -> Events {
        signal::blocked::<Kernel>(self.0).ready(wanted)
    }

    fn watch(&self, wanted: Events, event: &AnyEvent) {
        signal::blocked::<Kernel>(self.0).watch(wanted, event);
    }

    fn unwatch(&self, event: &AnyEvent) {
        signal::blocked::<Kernel>(self.0).unwatch(event);
    }
}
