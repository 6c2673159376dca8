//! The C ABI, called from C (`fork_c.c`).

#![no_std]
#![no_main]

use test_guests::{check_eq, success};
use zooid_c as _;

zooid::main!(main);

unsafe extern "C" {
    /// 0, or the line that found something wrong.
    safe fn fork_c() -> i32;
}

fn main() {
    check_eq!(fork_c(), 0);
    success();
}
