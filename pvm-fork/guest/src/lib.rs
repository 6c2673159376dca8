//! The fork component of a pVM: the guest's half of making two domains of one
//! (docs/protocols/fork.md).
//!
//! - [`fork`] and [`fork_many`]: quiesce, snapshot, commit, resume. [`snapshot`] has what is copied
//!   at once; the heap is copied on write by the kernel (`zooid_kernel::mmu::cow`).
//! - [`shell`]: the code that a prepared domain runs until it becomes a child.
//! - [`eager`]: pages of the heap that children write at once, and that the snapshot holds, too.
//! - [`control`]: the page that guest and pvmd share, and the requests.
//! - [`objects`]: memory shared with relatives, for the IpC component.
//! - [`libraries`]: libraries of the host's store.
//! - [`family`]: children, their ends, the pVM's own end, requests from outside.
//!
//! An image carries all this if it calls something of it: then boot also runs [`control::start`],
//! which announces the pVM to pvmd.

#![no_std]
#![deny(clippy::undocumented_unsafe_blocks)]

extern crate alloc;

mod control;
mod eager;
mod family;
mod forking;
mod grants;
pub mod libraries;
pub mod objects;
mod shell;
mod snapshot;

pub use family::{SIGCHLD, SIGCONT, SIGPIPE, take_default_action};
pub use family::{id, parent_id, wait, wait_for};
pub use forking::{AtFork, CHandler, ForkError, Forked, at_fork, at_fork_c, fork, fork_many};
pub use zooid_fork_core::children::{Ended, WaitError};
pub use zooid_fork_plan::id::PvmId;
pub use zooid_fork_plan::status::Status;

use zooid_kernel::at_boot;

at_boot! {
    /// Starts the component, in every image that holds it.
    COMPONENT, "fork", control::start
}

/// Called by each entry of the component, so that the image holds [`COMPONENT`].
fn present() {
    core::hint::black_box(&COMPONENT);
}

at_boot! {
    /// Runs before [`COMPONENT`], in an image that forks by itself: pvmd prepares domains unasked
    /// only for such an image.
    FORKS, "early", control::expect_forks
}

/// Called by what an application calls to fork, so that the image holds [`FORKS`].
fn forks() {
    core::hint::black_box(&FORKS);
}
