//! IpC: what relatives share (docs/protocols/ipc.md).
//!
//! - [`layout`]: where things lie in an object's pages.
//! - [`object`]: an object that this pVM has: its pages, who takes part, and what a fork does to that.
//! - [`wait`]: waiting for members and waking them; [`link`]: the ports that this goes through.
//! - [`lock`]: mutual exclusion between threads of all members.
//! - [`pipe`], [`semaphore`], [`queue`], [`memory`], [`signal`], [`shared`], [`poll`]: what applications use.
//!
//! Everything in an object can be written by every relative that has it: a value is read once and checked, and what cannot be is
//! [`Broken`](Error::Broken), for this object alone.

#![no_std]
#![deny(unsafe_code)]

extern crate alloc;

mod error;
mod layout;
mod link;
mod lock;
pub mod memory;
mod object;
pub mod pipe;
pub mod poll;
pub mod queue;
pub mod semaphore;
pub mod shared;
pub mod signal;
mod wait;

pub use error::Error;
pub use object::How;
pub use wait::Patience;

/// Removes a name of the family's. Who has the object goes on.
///
/// # Errors
/// `NotFound`; see [`Error`].
pub fn unlink(name: &str) -> Result<(), Error> {
    Ok(zooid_fork::objects::unlink(name)?)
}
