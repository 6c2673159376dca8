//! Random numbers: seeds, identifiers, ports. Not a source of long-lived keys: a host without RDRAND gives a guest little that others
//! on the host cannot guess. A child of a fork draws other numbers than its parent and its siblings.

pub use zooid_kernel::random::u64;
