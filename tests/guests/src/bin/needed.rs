//! An image that was linked with shared objects, of tests/libraries: they are there before `main`.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ffi::{c_int, c_void};

use test_guests::{check_eq, expect, success};
use zooid::dl::{self, Flags};
use zooid::process::{self, Status};
use zooid_kernel::events::Masked;

zooid::main!(main, mode = kernel);
dl::trust!(include_bytes!("../../../libraries/test-only.pub"));
zooid_kernel::export! { "test_note" => note }

/// The notes of the objects' constructors.
static NOTES: Masked<Vec<u8>> = Masked::new(Vec::new());

extern "C" fn note(octet: c_int) {
    NOTES.lock().push(octet as u8);
}

unsafe extern "C" {
    safe fn base_add(a: c_int, b: c_int) -> c_int;
    safe fn middle_check() -> c_int;
    // src/needed.c
    safe fn needed_third_number() -> c_int;
    safe fn needed_base_add() -> *const c_void;
}

fn main() {
    check_eq!(String::from_utf8_lossy(&NOTES.lock()), "bmn");
    check_eq!(base_add(40, 2), 42);
    check_eq!(middle_check(), 0);
    // A variable of an object, and a function's one address for everybody.
    check_eq!(needed_third_number(), 3);
    let base = expect!(dl::open("libbase.so", Flags::default()));
    check_eq!(base.symbol("base_add"), Ok(needed_base_add().cast()));
    check_eq!(dl::symbol("base_add"), Ok(needed_base_add().cast()));
    // A library that the image needs stays, whoever closes it.
    drop(base);
    check_eq!(base_add(1, 1), 2);
    let mut names = Vec::new();
    dl::iterate(|object| names.push(object.name.to_string()));
    names.sort();
    check_eq!(names, ["libbase.so", "libmiddle.so"]);
    // A child has them unchanged.
    match expect!(process::fork()) {
        None => process::exit(i32::from(base_add(2, 2) != 4 || middle_check() != 0)),
        Some(child) => {
            let ended = expect!(process::waitpid(Some(child), false));
            check_eq!(ended.map(|ended| ended.status), Some(Status::Exited(0)));
        }
    }
    success();
}
