//! Loads a C library as others wrote it, with its test (tests/libraries/real), and runs the test as Linux would run the program.

#![no_std]
#![no_main]

extern crate alloc;

use core::ffi::{CStr, c_char, c_int};
use core::mem::transmute;
use core::ptr;

use test_guests::{argument, check_eq, expect, success};
use zooid::dl::{self, Flags};
use zooid::{println, thread};
use zooid_kernel::export;

zooid::main!(main, mode = kernel);

dl::trust!(include_bytes!("../../../libraries/test-only.pub"));

export! { "in_thread" => in_thread }

/// What the program for Linux has too (tests/libraries/features/linux.c): calls a function in a new thread, and waits for its end.
extern "C" fn in_thread(act: extern "C" fn()) {
    thread::spawn(move || act()).join();
}

fn main() {
    let name = argument();
    let library = expect!(dl::open(&alloc::format!("{name}_tests.so"), Flags::default()));
    let address = expect!(library.symbol("main"));
    // SAFETY: every test in tests/libraries/real and tests/libraries/features has a `main` of C's type.
    let run = unsafe { transmute::<*const (), extern "C" fn(c_int, *const *const c_char) -> c_int>(address) };
    println!("begins");
    let program: &CStr = c"test";
    // lz4's test wants more stack than the first thread has.
    let thread =
        thread::Builder::new().stack_size(1 << 20).spawn(move || run(1, [program.as_ptr(), ptr::null()].as_ptr()));
    let status = expect!(thread).join();
    println!("ends");
    check_eq!(status, 0);
    success();
}
