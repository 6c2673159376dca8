//! Shared objects: libraries that are loaded while the pVM runs, from the archive (tar) that `ramdisk=` of its configuration names.
//!
//! ```ignore
//! let library = dl::open("libz.so.1", dl::Flags::default())?;
//! let version = library.symbol("zlibVersion")?;
//! ```
//!
//! An object finds the libOS under the names of `zooid.h`, and the C runtime under those of C. It is built for kernel mode: position independent, and with
//! `-mno-red-zone`.

pub use zooid_dl::{Address, Error, Flags, Library, Object, Refusal, address, iterate, open, symbol};
