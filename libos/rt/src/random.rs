//! Random numbers for seeds, identifiers and ports. They are no source of long-lived keys: on a
//! host without RDRAND, other guests can guess much of a guest's state. A child of a fork draws
//! other numbers than its parent and its siblings.

pub use zooid_kernel::random::u64;
