//! The services of the image for the runtime.

use alloc::boxed::Box;
use core::ffi::{c_int, c_void};
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use core::time::Duration;

/// The image's side. Any thread may call these at any time after [`set_system`].
pub struct System {
    /// Writes text to a standard stream: 1 or 2.
    pub write: fn(c_int, &[u8]),
    /// The time since 1970.
    pub now: fn() -> Duration,
    /// The time since a fixed point; it never goes back.
    pub monotonic: fn() -> Duration,
    /// Blocks the calling thread for at least so long.
    pub sleep: fn(Duration),
    /// Makes a thread of the application with this body; false if there is no memory for it.
    pub spawn: fn(Box<dyn FnOnce() + Send>) -> bool,
    /// Keeps the object that has this address loaded from now on.
    pub keep: fn(*const c_void),
    /// Has functions called around every fork: before it, after it in the parent, and after it in the
    /// child. False if there is no memory for that.
    pub at_fork: fn([Option<ForkHandler>; 3]) -> bool,
    /// Calls the finalisers of all objects, at the end of the application.
    pub finalise: fn(),
    /// Ends the image. The handlers and finalisers have run and the streams are flushed when it is
    /// called.
    pub exit: fn(c_int) -> !,
    /// Ends the pVM as a crash.
    pub abort: fn() -> !,
    /// A variable of the environment.
    pub environment: fn(&str) -> Option<&'static str>,
    /// Fills the octets with random ones.
    pub random: fn(&mut [u8]),
    /// The calling thread's `errno`.
    pub error_number: fn() -> *mut c_int,
    /// The id of this pVM.
    pub process: fn() -> c_int,
    /// The calling thread's number, not 0 and different from that of every other living thread.
    pub thread: fn() -> u32,
    /// Lets other threads run.
    pub yield_now: fn(),
    /// Waits while the word holds this value, for at most this time, until [`wake`](Self::wake). It
    /// may return early without a reason.
    pub wait: fn(&AtomicU32, u32, Option<Duration>),
    /// Wakes at most this many threads that wait for the word.
    pub wake: fn(&AtomicU32, usize),
}

/// A function that is called around a fork.
pub type ForkHandler = unsafe extern "C" fn();

static SYSTEM: AtomicPtr<System> = AtomicPtr::new(ptr::null_mut());

/// Sets the image's services, once, before any exported function is called.
pub fn set_system(system: &'static System) {
    SYSTEM.store(ptr::from_ref(system).cast_mut(), Ordering::Release);
}

pub(crate) fn system() -> &'static System {
    let system = SYSTEM.load(Ordering::Acquire);
    // SAFETY: only `set_system` stores here, a reference that lasts for ever and is never written
    // through.
    unsafe { system.as_ref() }.expect("the image calls `set_system` before it loads an object")
}
