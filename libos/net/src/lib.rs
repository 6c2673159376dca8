//! Network for a pVM: a Xen netfront below smoltcp, and sockets above it.
//!
//! The layers, bottom up:
//! - [`platform`]: the services of the kernel (shared pages, grants, an event channel, xenstore);
//! - [`rings`]: the front half of one shared ring, with checked indices;
//! - [`netfront`]: the xenstore negotiation with the backend, its loss and its return;
//! - [`device`]: packets in ring slots, checksum and segmentation offload;
//! - `dhcp` and `dns`: the thinking halves of the DHCP client and of the resolver;
//! - [`stack`]: the TCP/IP stack with its sockets. It has no threads and no clock: time is an
//!   argument, and the caller waits (a `Waker` tells when to try again).
//!
//! The wire protocol is described in `docs/protocols/netfront.md`.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod config;
pub mod device;
mod dhcp;
mod dns;
mod error;
mod frame;
pub mod netfront;
pub mod platform;
pub mod rings;
pub mod stack;

pub use config::{ConfigError, List, NetConfig, Route, StaticAddress};
pub use dns::SearchList;
pub use error::Error;
pub use smoltcp::time::{Duration, Instant};
pub use smoltcp::wire::EthernetAddress;
pub use stack::{Settings, Stack};
