//! Signals between relatives, and from dom0 (`pvm kill -s`).
//!
//! A handler runs in a thread of its own, one at a time, not in the middle of another thread: it may use everything of the libOS. Without one, most
//! signals end the pVM, as POSIX has it; `SIGCHLD`, `SIGCONT`, `SIGURG`, `SIGWINCH`, and `SIGPIPE` do nothing. A child has its parent's handlers and mask.

use core::time::Duration;

use zooid_ipc::{Patience, signal};
use zooid_kernel::time;

pub use zooid_ipc::Error;
pub use zooid_ipc::signal::{Action, LAST, SIGCHLD, SIGCONT, SIGKILL, SIGPIPE, SIGSTOP, pending, set_action};

/// Sets of signals are bits: bit 1 is signal 1.
pub const fn set(signals: &[u8]) -> u64 {
    let mut bits = 0;
    let mut at = 0;
    while at < signals.len() {
        bits |= 1 << signals[at];
        at += 1;
    }
    bits
}

/// Blocks these signals: they wait until they are unblocked. Returns those that were blocked before.
///
/// # Errors
/// See [`Error`].
pub fn block(signals: u64) -> Result<u64, Error> {
    signal::set_mask(signals, 0)
}

/// Unblocks these signals. Returns those that were blocked before.
///
/// # Errors
/// See [`Error`].
pub fn unblock(signals: u64) -> Result<u64, Error> {
    signal::set_mask(0, signals)
}

/// Takes one of these signals, which are blocked, once it comes.
///
/// # Errors
/// See [`Error`].
pub fn wait(signals: u64) -> Result<u8, Error> {
    signal::wait_for(signals, Patience::Forever)
}

/// As [`wait`], `limit` at most.
///
/// # Errors
/// [`Error::WouldBlock`].
pub fn wait_timeout(signals: u64, limit: Duration) -> Result<u8, Error> {
    signal::wait_for(signals, Patience::Until(time::after(limit)))
}
