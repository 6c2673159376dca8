//! The thinking half of the Zooid kernel.
//!
//! Everything here is pure: it takes values, returns decisions or lists of operations, and touches
//! neither the hypervisor nor any memory but its own. The kernel's shell (`kernel/pv`), which holds
//! the `unsafe`, carries out the decisions of these modules; they are tested on the host.
//!
//! | module | decides |
//! |---|---|
//! | [`callers`] | if a stack has calls of given code |
//! | [`clock`] | the time, from Xen's time records |
//! | [`cmdline`] | the meaning of the command line |
//! | [`evtchn`] | the pending event channel that is served next |
//! | [`frames`] | the page frame that is handed out |
//! | [`ring`] | the bytes of a shared ring that are copied |
//! | [`sched`] | the thread that runs, and the time of the timer |
//! | [`symbols`] | the function that an address lies in |
//! | [`xenstore`] | the requests to xenstore, and the meaning of its answers |

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
