//! The library OS for applications: an API in the style of `std`, for a pVM.
//!
//! ```ignore
//! #![no_std]
//! #![no_main]
//!
//! use zooid::println;
//!
//! zooid::main!(main);
//!
//! fn main() {
//!     println!("hello");
//! }
//! ```
//!
//! An image carries only the components that its application uses: nothing of a component (such as
//! [`net`]) is linked in unless it is called.

#![no_std]
#![deny(unsafe_code)]

extern crate alloc;

pub mod app;
pub mod dl;
pub mod env;
pub mod io;
pub mod ipc;
pub mod memory;
pub mod net;
pub mod poll;
pub mod process;
pub mod random;
pub mod signal;
pub mod sync;
pub mod thread;
pub mod time;
pub mod xenstore;

#[doc(hidden)]
pub mod start;

pub use log;

/// Makes `main` the start of the application. It is a function without arguments that returns `()`,
/// an exit code, or a `Result` of these whose error can be displayed.
#[macro_export]
macro_rules! main {
    ($main:path) => {
        #[unsafe(no_mangle)]
        static ZOOID_APPLICATION: $crate::start::Application =
            $crate::start::application(|| $crate::start::run(|| $crate::process::Termination::report($main())));
    };
    ($main:path, mode = $mode:ident) => {
        #[unsafe(no_mangle)]
        static ZOOID_APPLICATION: $crate::start::Application = $crate::start::application_with_modes(|| {
            $crate::start::in_mode(stringify!($mode), || {
                $crate::start::run(|| $crate::process::Termination::report($main()))
            });
        });
    };
}

/// Prints to the console.
#[macro_export]
macro_rules! print {
    ($($arguments:tt)*) => { $crate::io::print(format_args!($($arguments)*)) };
}

/// Prints to the console, with a line feed at the end.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($arguments:tt)*) => { $crate::io::print(format_args!("{}\n", format_args!($($arguments)*))) };
}
