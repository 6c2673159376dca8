//! The decisions of the loader of shared objects. It maps nothing and touches no memory.
//!
//! * [`Object`]: the contents of an ELF64 x86-64 shared object, checked: [`Segment`]s, tables,
//!   symbols, versions, [`Relocation`]s. Every offset and count in a file is a claim until it has
//!   been checked against the file.
//! * [`Namespace`]: the loaded objects, and the search for a symbol among them and the kernel's
//!   [`Exports`]. It follows the gABI (chapter "Dynamic Linking"), and glibc where the gABI leaves
//!   it open.
//! * [`Namespace::plan`]: the [`Write`]s that relocate new objects; then the order of
//!   initialisation.
//! * [`Namespace::replacement`]: the changes that make all users of a library use another version
//!   of it.
//! * [`Refusal`]: the reason for which an object is not loaded, with the place, in one line.
//!
//! A guest, which maps pages and writes words, and the tools of dom0, which only inspect, build on
//! it.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod bytes;
mod dynamic;
mod exports;
mod hash;
mod live;
mod namespace;
mod object;
mod order;
mod plan;
#[cfg(feature = "red-zone")]
pub mod red_zone;
mod refusal;
mod relocation;
mod scope;
mod segment;
mod symbol;
mod version;

pub use exports::{Export, ExportTable, Exports, Origin};
pub use live::{ENTRIES_PER_PAGE, ENTRY_SIZE, Replacement, entry_address, entry_number};
pub use namespace::{Id, Namespace, Search, TlsPlace};
pub use object::{Flags, Limits, Object};
pub use plan::{Binding, Value, Write};
pub use refusal::{Mismatch, Place, Refusal, SegmentFault};
pub use relocation::{Relocation, Table};
pub use scope::{Definition, Found, Holder};
pub use segment::{Rights, Segment, TlsSegment};
pub use symbol::{Symbol, SymbolKind};

/// Size of a page, the unit of rights.
pub const PAGE_SIZE: u64 = 4096;
