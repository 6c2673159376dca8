//! Ends in the way that the argument names.

#![no_std]
#![no_main]

use core::fmt;

use test_guests::{argument, error};
use zooid::{println, process, thread};

zooid::main!(main);

/// The error of `main`.
struct Reason;

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the reason for it")
    }
}

fn main() -> Result<i32, Reason> {
    match argument() {
        "success" => Ok(0),
        "code" => Ok(3),
        "error" => Err(Reason),
        "abort" => {
            println!("the last line");
            process::abort()
        }
        // The exit comes from a thread, while main waits for it.
        "thread" => thread::spawn(|| process::exit(4)).join(),
        other => error!("no such end: {other}"),
    }
}
