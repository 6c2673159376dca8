//! What `pvmd` (the daemon) and `pvm` (the command) are made of.
//!
//! - [`engine`]: one thread that knows every pVM of this host, keeps domains prepared for them, and makes those children.

#![forbid(unsafe_code)]

pub mod engine;
pub mod protocol;
