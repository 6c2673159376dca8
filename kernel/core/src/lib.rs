//! The thinking half of the Zooid kernel.
//!
//! Everything here is pure: it takes values, returns decisions or lists of operations, and touches
//! neither the hypervisor nor any memory but its own. The kernel's shell (`kernel/pv`), which holds
//! the `unsafe`, carries out what these modules decide; they are tested on the host.
//!
//! | module | decides |
//! |---|---|
//! | [`callers`] | which code a stack belongs to |
//! | [`clock`] | what time it is, from Xen's time records |
//! | [`cmdline`] | what the command line says |
//! | [`evtchn`] | which pending event channel is served next |
//! | [`frames`] | which page frame is handed out |
//! | [`ring`] | which bytes of a shared ring are copied |
//! | [`sched`] | which thread runs, and when the timer fires |
//! | [`symbols`] | which function an address lies in |
//! | [`xenstore`] | what is sent to xenstore, and what its answers mean |

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod callers;
pub mod clock;
pub mod cmdline;
pub mod evtchn;
pub mod frames;
pub mod ring;
pub mod sched;
pub mod symbols;
pub mod xenstore;

#[cfg(test)]
mod testing;
