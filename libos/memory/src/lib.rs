//! What lies where in a pVM's address space, and what each page may do.
//!
//! This is the one place that knows, for every page, whether it can be written or executed and what a
//! fork does with it:
//!
//! * [`Zone`]: the fixed division of the address space. Zones begin and end at entries of the level 3
//!   table, so that a fork can take the right to write from the whole heap by changing one entry of a
//!   table and not touch stacks and devices, without which the guest could not even take a fault.
//! * [`PageClass`]: the kind of a page; it decides the [`Protection`] and the [`ForkRule`].
//! * [`AddressSpace`]: which ranges are in use, by pages of which class.
//!
//! Nothing here touches a page table: `zooid-kernel` maps what this crate has decided.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod class;
pub mod device;
mod place;
mod space;
mod zone;

pub use class::{ForkRule, PageClass, Protection};
pub use place::{Part, Place};
pub use space::{AddressSpace, Region, RegionError};
pub use xen_abi::PAGE_SIZE;
pub use xen_abi::pte::PteFlags;
pub use zone::Zone;
