//! Comparisons with the C library of the build machine.

#![allow(clippy::undocumented_unsafe_blocks)] // the tests are callers, with C's duties

mod exports;
mod math;
mod memory;
mod numbers;
mod objects;
mod print;
mod sort;
mod strings;
mod threads;
mod times;

use core::cell::{Cell, RefCell};
use core::ffi::{CStr, c_int};
use core::mem::transmute_copy;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::io::Write;
use std::sync::Once;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use std::vec::Vec;
use std::{process, thread};

use crate::{ForkHandler, System, find, set_system};

std::thread_local! {
    static NUMBER: Cell<c_int> = const { Cell::new(0) };
    static THREAD: u32 = NEXT.fetch_add(1, Ordering::Relaxed);
    static WRITTEN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

static NEXT: AtomicU32 = AtomicU32::new(1);

static FORK_HANDLERS: std::sync::Mutex<Vec<[Option<ForkHandler>; 3]>> = std::sync::Mutex::new(Vec::new());

static HOST: System = System {
    write: |number, octets| match number {
        1 => WRITTEN.with_borrow_mut(|written| written.extend_from_slice(octets)),
        _ => std::io::stderr().write_all(octets).unwrap(),
    },
    now: || SystemTime::now().duration_since(UNIX_EPOCH).unwrap(),
    monotonic: || {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    },
    sleep: thread::sleep,
    spawn: |body| thread::Builder::new().spawn(body).is_ok(),
    keep: |_| {},
    at_fork: |handlers| {
        FORK_HANDLERS.lock().unwrap().push(handlers);
        true
    },
    finalise: || {},
    exit: |status| process::exit(status),
    abort: || process::abort(),
    environment: |name| (name == "ZOOID_TEST").then_some("a value"),
    random: |octets| octets.fill(4),
    error_number: || NUMBER.with(Cell::as_ptr),
    process: || 17,
    thread: || THREAD.with(|thread| *thread),
    yield_now: thread::yield_now,
    wait: |_, _, limit| thread::sleep(limit.unwrap_or(Duration::MAX).min(Duration::from_micros(50))),
    wake: |_, _| {},
};

pub(crate) fn set_up() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| set_system(&HOST));
}

/// The text that this thread wrote to standard output since the last call.
fn written() -> Vec<u8> {
    WRITTEN.take()
}

/// The function of this name, as an object imports it.
fn ours<F: Copy>(name: &CStr) -> F {
    set_up();
    let address = find(name).unwrap_or_else(|| panic!("{name:?} is not exported"));
    assert_eq!(size_of::<F>(), size_of_val(&address));
    // SAFETY: the tests name the function's own type.
    unsafe { transmute_copy(&address) }
}

/// `RTLD_NOW`.
const NOW: c_int = 2;

unsafe extern "C" {
    fn dlopen(path: *const core::ffi::c_char, flags: c_int) -> *const u8;
    fn dlsym(object: *const u8, name: *const core::ffi::c_char) -> *const ();
}

/// The function of this name of the build machine's C library.
fn theirs<F: Copy>(name: &CStr) -> F {
    // libm's symbols hide none of libc's.
    let address = unsafe { dlsym(dlopen(c"libm.so.6".as_ptr(), NOW), name.as_ptr()) };
    assert!(!address.is_null(), "{name:?} is not in the C library");
    assert_eq!(size_of::<F>(), size_of_val(&address));
    // SAFETY: the tests name the function's own type.
    unsafe { transmute_copy(&address) }
}

/// A generator with the same numbers each time (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// A string with its NUL, of octets from an alphabet.
    fn text(&mut self, longest: usize, alphabet: &[u8]) -> Vec<u8> {
        let length = self.below(longest + 1);
        let mut text: Vec<u8> = (0..length).map(|_| alphabet[self.below(alphabet.len())]).collect();
        text.push(0);
        text
    }
}
