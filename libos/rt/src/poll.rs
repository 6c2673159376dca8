//! Waiting for several objects at once: the ends of pipes, semaphores, message queues, [blocked
//! signals](crate::signal::Blocked), sockets.
//!
//! ```ignore
//! let mut entries = [
//!     PollEntry::new(&listener, Events::READABLE),
//!     PollEntry::new(&reader, Events::READABLE),
//! ];
//! if poll(&mut entries, Some(Duration::from_secs(1))) == 0 {
//!     println!("nothing for a second");
//! } else if entries[0].ready.contains(Events::READABLE) {
//!     let (stream, peer) = listener.accept()?;
//! }
//! ```
//!
//! An object may no longer be ready if another thread, or another relative, was faster. A caller
//! that must not wait uses the `try_` forms, and sockets that are `set_nonblocking`.

use core::time::Duration;

pub use zooid_ipc::platform::AnyEvent;
pub use zooid_ipc::poll::{Events, PollEntry, Pollable};

use crate::ipc::{Kernel, Patience};

/// Waits until one of the entries is ready, `limit` at most, and for ever without one. Returns the
/// number of ready entries.
pub fn poll(entries: &mut [PollEntry<'_>], limit: Option<Duration>) -> usize {
    zooid_ipc::poll::poll::<Kernel>(entries, limit)
}

/// As [`poll`], with a `patience`.
pub fn poll_within(entries: &mut [PollEntry<'_>], patience: Patience) -> usize {
    zooid_ipc::poll::poll_within::<Kernel>(entries, patience)
}
