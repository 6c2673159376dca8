//! Rules of POSIX by way of the C ABI, from the same source as in Linux (`tests/posix`). Usage:
//! posix TOPIC [SEED].

#![no_std]
#![no_main]

extern crate alloc;

use alloc::ffi::CString;
use core::ffi::{c_char, c_int, c_longlong, c_uint};
use core::time::Duration;

use test_guests::{argument, error, failure, success};
use zooid::{env, print, thread, time};
use zooid_c as _;

zooid::main!(main);

unsafe extern "C" {
    /// The number of failed cases of the topic; below 0 if there is no such topic.
    fn posix_main(topic: *const c_char, seed: c_uint) -> c_int;
}

/// # Safety
/// At `text` are `length` octets.
#[unsafe(no_mangle)]
unsafe extern "C" fn guest_print(text: *const u8, length: usize) {
    // SAFETY: the caller's promise.
    let text = unsafe { core::slice::from_raw_parts(text, length) };
    print!("{}", core::str::from_utf8(text).unwrap_or("?"));
}

#[unsafe(no_mangle)]
extern "C" fn guest_now() -> c_longlong {
    time::uptime().as_nanos() as c_longlong
}

#[unsafe(no_mangle)]
extern "C" fn guest_sleep(nanoseconds: c_longlong) {
    thread::sleep(Duration::from_nanos(nanoseconds as u64));
}

fn main() {
    let Ok(topic) = CString::new(argument()) else { error!("a zero in the topic") };
    let seed = env::args().nth(1).and_then(|seed| seed.parse().ok()).unwrap_or(1);
    // SAFETY: it reads the topic, which ends with a zero.
    match unsafe { posix_main(topic.as_ptr(), seed) } {
        0 => success(),
        failed if failed > 0 => failure!("{failed} cases have failed"),
        _ => error!("there is no such topic"),
    }
}
