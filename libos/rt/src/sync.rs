//! Blocking primitives for threads.

pub use alloc::sync::{Arc, Weak};
pub use core::sync::atomic;
pub use zooid_kernel::sync::{Condvar, Mutex, MutexGuard, WaitTimeoutResult};
