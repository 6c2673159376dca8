//! IpC: objects that relatives share (docs/protocols/ipc.md).
//!
//! - [`platform`]: the traits that the kernel and the fork component implement; `libos/rt` connects
//!   them.
//! - [`layout`]: the layout of an object's pages.
//! - [`object`]: an object that this pVM has: its pages, its members, and its state after a
//!   fork.
//! - [`wait`]: waiting for members and waking them; [`doorbell`]: the event channels for that.
//! - [`lock`]: mutual exclusion between threads of all members.
//! - [`pipe`], [`semaphore`], [`queue`], [`memory`], [`signal`], [`shared`], [`poll`]: the objects
//!   that applications use.
//!
//! Members run at the same time, each on a processor of its own. Everything in an object can be
//! written by every relative that has it: a value is read once and checked. An impossible value is
//! [`Broken`](Error::Broken), for this object alone.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod doorbell;
mod error;
pub mod layout;
mod lock;
pub mod memory;
pub mod object;
pub mod pipe;
pub mod platform;
pub mod poll;
pub mod queue;
pub mod semaphore;
pub mod shared;
pub mod signal;
mod wait;

pub use error::Error;
pub use object::{How, State};
pub use platform::Platform;
pub use wait::{Patience, ring};

/// Removes a name of the family's. A member that has the object keeps it.
///
/// # Errors
/// `NotFound`; see [`Error`].
pub fn unlink<P: Platform>(name: &str) -> Result<(), Error> {
    Ok(P::unlink(name)?)
}
