//! The C runtime that shared objects import from the image: the functions of glibc that gcc's
//! output uses, with glibc's layouts (docs/runtime.md).
//!
//! - [`EXPORTS`], [`find`]: names and addresses, for the loader.
//! - [`System`]: the services of the image for the runtime; [`set_system`] comes before the first
//!   call of anything here.
//! - [`finalize`]: runs the handlers that an object registered with `__cxa_atexit`, before its text
//!   is unmapped.
//! - [`flush_all`], [`thread_ended`]: for the image, when it or a thread ends without C's `exit`.
//!
//! No function has its C name as a symbol: the image has its own `memcpy`, and on the build machine
//! tests call these functions beside those of the host. Memory comes from Rust's global allocator.
//! There are no files.
//!
//! The caller of an exported function has the duties that C gives it (ISO C11 7, POSIX): pointers
//! that are valid for the reads and writes in the function's description, and strings that end. A
//! `SAFETY` comment "as C demands" means these.

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

#[macro_use]
mod export;
#[macro_use]
mod variadic;
mod character;
mod error;
mod exit;
mod file;
mod float;
mod format;
mod jump;
mod locale;
mod lock;
mod math;
mod memory;
mod misc;
mod number;
mod raw;
mod scan;
mod sort;
mod stdio;
mod string;
mod system;
#[cfg(test)]
mod tests;
mod thread;
mod time;
mod wide;

pub use exit::{exit, finalize};
pub use export::{EXPORTS, Export, HEADERS, find};
pub use stdio::flush_all;
pub use system::{ForkHandler, System, set_system};
pub use thread::thread_ended;
