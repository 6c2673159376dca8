//! Xen's control interface, from a program in a Linux dom0.
//!
//! - [`Hypervisor`] has the operations; [`Memory`] and [`Events`] are the access to other domains'
//!   frames and ports.
//! - [`Xen`] is the real one: hypercalls through `/dev/xen/privcmd`, [`Mapping`]s through that and
//!   `/dev/xen/gntdev`, [`EventChannels`] through `/dev/xen/evtchn`.
//! - [`fake::FakeXen`] is one in memory, for tests.
//! - [`answers`] asks both the same, and has what Xen answered.
//! - [`xenstore::Store`] is a client of xenstored.
//! - [`RELEASES`] are those of Xen that are known. [`Xen`] finds the one that it runs on.
//! - [`sysctl`] and [`domctl`] have the octets of requests and answers. These interfaces are the
//!   toolstack's own and change with Xen's releases, so they are here and not in `xen-abi`.
//!
//! Unsafe code is in the modules `buffer`, `ioctl`, `privcmd`, `mapping` and `evtchn` only.

#![deny(unsafe_code)]

pub mod answers;
mod buffer;
#[cfg(test)]
mod c_octets;
mod control;
mod domain;
pub mod domctl;
mod error;
mod evtchn;
pub mod fake;
mod grants;
mod hypervisor;
mod ioctl;
mod mapping;
mod privcmd;
mod release;
pub mod sysctl;
pub mod vcpu;
mod xen;
pub mod xenstore;

pub use domain::{CpuPolicy, CreateDomain, DomainInfo, SchedParams, Scheduler, TscInfo};
pub use error::{Error, OpenError};
pub use evtchn::EventChannels;
pub use grants::in_use as grants_in_use;
pub use hypervisor::{Events, Hypervisor, Memory, Protection};
pub use mapping::Mapping;
pub use release::{RELEASES, Release, SUPPORTED, XenVersion};
pub use vcpu::VcpuGuestContext;
pub use xen::Xen;
