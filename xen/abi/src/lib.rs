//! Xen's public interface as a 64-bit PV guest on x86 sees it: numbers, structures, and the
//! arithmetic that belongs to them. It holds no `unsafe` and makes no hypercall; `xen-sys` does
//! that.
//!
//! One module per header of Xen's `public/` directory, with Xen's names in Rust's case. A number
//! that Xen or another domain may extend is an *open enum*: a newtype with a constant for each
//! known value, so that an unknown value is kept and shown, never refused. Structures have the
//! layout of C; `tests/c_headers.rs` compares every size, offset and constant with the C headers.
//!
//! A structure that lives in a page shared with Xen or another domain describes that page's layout
//! only: copy out of the page through a raw pointer, then judge the copy.

#![no_std]
#![forbid(unsafe_code)]

#[macro_use]
mod macros;

pub mod arch_x86;
pub mod callback;
pub mod elfnote;
pub mod errno;
pub mod event_channel;
pub mod features;
pub mod frame;
pub mod grant_table;
pub mod io;
pub mod memory;
pub mod pte;
pub mod sched;
pub mod vcpu;
pub mod version;
pub mod xen;

pub use errno::Errno;
pub use event_channel::Port;
pub use frame::{Mfn, PAGE_SHIFT, PAGE_SIZE, Pfn};
pub use grant_table::GrantRef;
pub use xen::DomId;
