//! What the fork brick needs of the kernel besides what its modules offer (`begin_life` of each): the way into a prepared
//! domain, and the call that returns twice.

use core::ffi::c_void;

pub use crate::entry::{resume_at, returns_twice};

/// Gives Xen the trap table and the callbacks of this image: for a prepared domain, which uses no variables.
pub fn init_traps() {
    crate::trap::init();
}

/// What [`returns_twice`] calls: the stack pointer to resume at, and what its caller passed on.
pub type Act = extern "C" fn(u64, *mut c_void) -> u64;
