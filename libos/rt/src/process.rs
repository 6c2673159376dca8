//! The pVM as a process: how it ends.

use core::fmt::Display;

use zooid_kernel::{console, power};

/// Exit code of success.
pub const SUCCESS: i32 = 0;
/// Exit code of a `main` that returns an error.
pub const FAILURE: i32 = 1;

/// Ends the pVM; its domain ends with the reason `poweroff`. A code that is not 0 is shown on the console.
pub fn exit(code: i32) -> ! {
    if code != SUCCESS {
        console::print(format_args!("zooid: exit code {code}\n"));
    }
    power::poweroff()
}

/// Ends the pVM at once, as after a fault: its domain ends with the reason `crash`.
pub fn abort() -> ! {
    console::drain();
    power::crash()
}

/// What `main` may return.
pub trait Termination {
    /// The exit code.
    fn report(self) -> i32;
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
