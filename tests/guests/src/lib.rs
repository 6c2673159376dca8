//! What the test guests share: the verdict.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use zooid::println;

/// Ends the test well.
pub fn success() {
    println!("Test result: SUCCESS");
}

/// The subject of the test is wrong: says why.
#[macro_export]
macro_rules! failure {
    ($($why:tt)*) => {{
        zooid::println!("Test result: FAILURE: {}", format_args!($($why)*));
        zooid::process::exit(1)
    }};
}

/// Fails the test unless the condition holds.
#[macro_export]
macro_rules! check {
    ($condition:expr) => {
        if !$condition {
            $crate::failure!("{} is not so ({}:{})", stringify!($condition), file!(), line!());
        }
    };
}
