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

pub use zooid_ipc::poll::{Events, PollEntry, Pollable, poll, poll_within};
