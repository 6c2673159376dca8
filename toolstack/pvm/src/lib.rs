//! The parts of `pvmd` (the daemon) and `pvm` (the command).
//!
//! - [`cli`]: the command.
//! - [`engine`]: one thread that knows every pVM of this host, keeps domains prepared for them, and
//!   makes those children.
//! - [`image`]: recognition of Zooid's kernels.
//! - [`library`]: the store of libraries, and keys.
//! - [`protocol`]: the protocol between the two programs.
//! - [`server`]: the daemon around the engine: options, log, socket.

#![forbid(unsafe_code)]

pub mod cli;
pub mod engine;
pub mod image;
pub mod library;
mod plain;
pub mod protocol;
pub mod server;
#[cfg(test)]
mod testing;
