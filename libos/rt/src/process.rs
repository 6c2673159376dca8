//! The pVM as a process: its end, its children, and signals.

use core::convert::Infallible;
use core::fmt::Display;

use zooid_kernel::{console, power};

/// Exit code of success.
pub const SUCCESS: i32 = 0;
/// Exit code of a `main` that returns an error.
pub const FAILURE: i32 = 1;

/// Ends the pVM; its domain ends with the reason `poweroff`. A code other than 0 is shown on the
/// console.
pub fn exit(code: i32) -> ! {
    power::exit(code)
}

/// Ends the pVM at once, as after a fault: its domain ends with the reason `crash`.
pub fn abort() -> ! {
    console::drain();
    power::crash()
}

/// A type that `main` may return.
pub trait Termination {
    /// The exit code.
    fn report(self) -> i32;
}

impl Termination for Infallible {
    fn report(self) -> i32 {
        match self {}
    }
}

impl Termination for () {
    fn report(self) -> i32 {
        SUCCESS
    }
}

impl Termination for i32 {
    fn report(self) -> i32 {
        self
    }
}

impl<T: Termination, E: Display> Termination for Result<T, E> {
    fn report(self) -> i32 {
        match self {
            Ok(value) => value.report(),
            Err(error) => {
                console::print(format_args!("error: {error}\n"));
                FAILURE
            }
        }
    }
}

pub use zooid_fork::{
    AtFork, CHandler, Ended, ForkError, Forked, PvmId, Status, WaitError, at_fork, at_fork_c, id, parent_id, wait,
};

/// Makes a child of this pVM. Returns the child's id in the parent, and `None` in the child.
///
/// The child has its own domain. Its memory is the parent's at the time of the call; each page is
/// copied when one of them writes it. Only the calling thread, and those of the libOS, live on in
/// it. The call blocks while pvmd prepares a domain, if none is ready.
///
/// ```ignore
/// match process::fork()? {
///     Some(child) => println!("the child is {child}"),
///     None => process::exit(0),
/// }
/// ```
pub fn fork() -> Result<Option<PvmId>, ForkError> {
    zooid_fork::fork()
}

/// Makes up to `count` children at once, at most 256, all with the same memory.
pub fn fork_many(count: u32) -> Result<Forked, ForkError> {
    zooid_fork::fork_many(count, false)
}

/// Waits for the child `id`, or for any if it is `None`. With `nohang` it does not wait, and
/// returns `None` if no child has ended.
pub fn waitpid(id: Option<PvmId>, nohang: bool) -> Result<Option<Ended>, WaitError> {
    zooid_fork::wait_for(id, !nohang)
}

/// Sends a signal to a relative, or to this pVM itself. Signal 0 only checks that the pVM lives.
///
/// # Errors
/// [`ipc::Error::Invalid`](zooid_ipc::Error) if there is no such signal,
/// [`NotFound`](zooid_ipc::Error::NotFound) if the family has no such pVM.
pub fn kill(target: PvmId, signal: u8) -> Result<(), zooid_ipc::Error> {
    zooid_ipc::signal::kill::<crate::ipc::Kernel>(target, signal)
}
