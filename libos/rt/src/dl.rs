//! Shared objects: libraries that are loaded while the pVM runs, from the archive (tar) that
//! `ramdisk=` of its configuration names.
//!
//! ```ignore
//! dl::trust!(include_bytes!("shop.pub"));
//! dl::require!("libz.so.1", "^1.2.11");
//!
//! let library = dl::open("libz.so.1", dl::Flags::default())?;
//! let version = library.symbol("zlibVersion")?;
//! ```
//!
//! A library declared with `live!` can be replaced while it is in use: see [`update`] and
//! [`Library::enter`].
//!
//! ```ignore
//! dl::live!("libpage.so.1");
//!
//! let (from, to) = dl::update("libpage.so.1", Some("2.0.0"), Duration::from_secs(5))?;
//! ```
//!
//! A library is mapped only if a key that the image trusts has signed it, and only as the manifest
//! beside it allows: see `docs/libraries.md`.
//!
//! An object finds the libOS under the names of `zooid.h`, and the C runtime under those of C. It
//! is built for kernel mode: position independent, and with `-mno-red-zone`.

pub use zooid_dl::{
    Address, Error, Flags, Library, Mismatch, Object, Refusal, RuleRefusal, Section, address, iterate, live, open,
    require, symbol, trust, update,
};
