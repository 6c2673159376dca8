//! The layout of a pVM's address space, and the rights of each page.
//!
//! This crate alone decides, for every page, if it can be written or executed, and how a fork
//! treats it:
//!
//! * [`Zone`]: the fixed division of the address space. Zones begin and end at entries of the level
//!   3 table. A fork can therefore remove the right to write from the whole heap by a change of one
//!   table entry, without touching stacks and devices, which the guest needs even to take a fault.
//! * [`PageClass`]: the kind of a page; it decides the [`Protection`] and the [`ForkRule`].
//! * [`AddressSpace`]: the ranges in use, each with the class of its pages.
//!
//! Nothing here touches a page table: `zooid-kernel` carries out the decisions of this crate.

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
