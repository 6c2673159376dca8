//! The fork component of a pVM: what the guest does so that pvmd can make two domains of one (docs/protocols/fork.md).
//!
//! - [`fork`] and [`fork_many`]: quiesce, snapshot, commit, resume. [`snapshot`] has what is copied at once; the heap is copied on
//!   write by the kernel (`zooid_kernel::mmu::cow`).
//! - [`shell`]: what a prepared domain runs until it becomes a child.
//! - [`eager`]: pages of the heap that children write at once, and that the snapshot holds, too.
//! - [`control`]: the page that guest and pvmd share, and the requests.
//! - [`objects`]: memory shared with relatives, for the IpC component.
//! - [`libraries`]: libraries of the host's store.
//! - [`family`]: children, their ends, the pVM's own end, requests from outside.
//!
//! An image carries all this if it calls something of it: then boot also runs [`COMPONENT`], which announces the pVM to pvmd.

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

pub use family::{Ended, WaitError, id, parent_id, wait, wait_for};
pub use family::{SIGCHLD, SIGCONT, SIGPIPE, SIGURG, SIGWINCH, take_default_action};
pub use forking::{AtFork, ForkError, Forked, at_fork, fork, fork_many};
pub use zooid_fork_plan::id::PvmId;
pub use zooid_fork_plan::status::Status;

/// Boot calls this function in an image that holds the component: it stands in a section that the linker keeps only if something
/// refers to it, which [`present`] does.
// SAFETY: the section is an array of `fn()`, as `zooid_kernel::boot` expects.
#[unsafe(link_section = ".zooid.init.fork")]
static COMPONENT: fn() = control::start;

/// Called by each entry of the component, so that the image holds [`COMPONENT`].
fn present() {
    core::hint::black_box(&COMPONENT);
}

/// Called at boot, before [`COMPONENT`], in an image that forks by itself: only for such a one a domain is prepared unasked.
// SAFETY: as above.
#[unsafe(link_section = ".zooid.init.early")]
static FORKS: fn() = control::expect_forks;

/// Called by what an application calls to fork, so that the image holds [`FORKS`].
fn forks() {
    core::hint::black_box(&FORKS);
}
