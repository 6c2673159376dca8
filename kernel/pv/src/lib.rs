//! The kernel of a pVM: a paravirtual Xen guest with one vCPU.
//!
//! Everything here touches the hypervisor, page tables or registers. Decisions that need none of
//! these are made in `zooid-core` and `zooid-memory`, which are tested on the host. Applications do
//! not use this crate but `zooid` (libos/rt).
//!
//! From the bottom up: [`events`] (masking, locks), [`shared`] (pages that others write), [`mmu`]
//! (frames, page tables, stacks), [`heap`], [`console`] and [`logger`], [`trap`] and [`backtrace`],
//! [`evtchn`], [`time`], [`thread`] and [`sync`], [`stacks`], [`gnttab`], [`xenstore`], [`power`].
//! [`boot`] starts them in this order.

#![no_std]

extern crate alloc;

pub mod backtrace;
pub mod boot;
pub mod console;
mod entry;
pub mod events;
pub mod evtchn;
pub mod export;
pub mod gnttab;
pub mod heap;
pub mod life;
pub mod logger;
pub mod mmu;
mod panic;
pub mod power;
pub mod random;
pub mod shared;
pub mod stacks;
pub mod sync;
pub mod thread;
pub mod time;
pub mod tls;
mod trap;
pub mod user;
mod vector;
pub mod xenstore;
