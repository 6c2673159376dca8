//! The thinking part of the loader of shared objects: it maps nothing and touches no memory, it decides.
//!
//! * [`Object`]: what an ELF64 x86-64 shared object says about itself, checked: [`Segment`]s, tables, symbols,
//!   versions, [`Relocation`]s. Every offset and count in a file is a claim until it has been compared with the file.
//! * [`Namespace`]: the objects that are loaded, and how a symbol is found among them and the kernel's [`Exports`],
//!   as the gABI (chapter "Dynamic Linking") has it, and glibc where the gABI leaves it open.
//! * [`Namespace::plan`]: the [`Write`]s that relocate new objects; then the order of initialisation.
//! * [`Namespace::replacement`]: what makes all who use a library use another version of it.
//! * [`Refusal`]: why an object is not loaded, with the place, in one line.
//!
//! Whoever maps pages and writes words (a guest) or only wants to know (a tool in dom0) builds on this.

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
pub use namespace::{Id, Namespace, TlsPlace};
pub use object::{Flags, Limits, Object};
pub use plan::{Binding, Value, Write};
pub use refusal::{Mismatch, Place, Refusal, SegmentFault};
pub use relocation::{Relocation, Table};
pub use scope::{Definition, Found, Holder};
pub use segment::{Rights, Segment, TlsSegment};
pub use symbol::{Symbol, SymbolKind};

/// Size of a page, the unit of rights.
pub const PAGE_SIZE: u64 = 4096;
