//! Xen's control interface, from a program in a Linux dom0.
//!
//! - [`Xen`] makes the hypercalls, through `/dev/xen/privcmd`. All `unsafe` code of the crate is in its module.
//! - [`sysctl`] has the octets of what is asked and answered. That interface is the toolstack's own: it changes with Xen's
//!   releases, so it stands here and not in `xen-abi`.

#![deny(unsafe_code)]

mod grants;
mod privcmd;
pub mod sysctl;
mod xen;

pub use grants::in_use as grants_in_use;
pub use privcmd::OpenError;
pub use xen::{Error, Xen};
