//! Panics in the way that the argument names. Each must be reported with message, place, thread and back trace, and end the
//! domain with `crash`.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::hint::black_box;

use test_guests::{argument, error, failure};
use zooid::time::Duration;
use zooid::{print, println, thread};

zooid::main!(main);

// A name of its own in the back trace.
#[inline(never)]
fn main() {
    let kind = argument();
    match kind {
        "main" => fail(),
        "thread" => in_a_thread(),
        "nested" => nested(),
        "index" => index(),
        "flood" => flood(),
        "full_ring" => full_ring(),
        "allocation" => allocation(),
        "out_of_memory" => out_of_memory(),
        _ => error!("no such panic: {kind}"),
    }
    failure!("the panic {kind} went unnoticed")
}

#[inline(never)]
fn fail() {
    if black_box(true) {
        panic!("{} is the reason", black_box("this"));
    }
}

#[inline(never)]
fn in_a_thread() {
    match thread::Builder::new().name("worker").spawn(fail) {
        Ok(thread) => thread.join(),
        Err(error) => error!("{error}"),
    }
}

/// A message whose display panics itself.
struct Unprintable;

impl fmt::Display for Unprintable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("the message itself")
    }
}

#[inline(never)]
fn nested() {
    panic!("{Unprintable}");
}

#[inline(never)]
fn index() {
    let list = black_box([1, 2, 3]);
    println!("{}", list[black_box(7)]);
}

/// Panics while other threads keep the console's ring full.
#[inline(never)]
fn flood() {
    for name in ["a", "b"] {
        let line = name.repeat(100);
        thread::spawn(move || {
            loop {
                println!("{line}");
            }
        });
    }
    for _ in 0..20 {
        print!("{}", String::from_utf8(Vec::from([b'm'; 1000])).unwrap_or_default());
    }
    fail();
}

/// Panics when the console's ring is full and nobody empties it (tests/boot/panic_console_stopped.sh).
#[inline(never)]
fn full_ring() {
    thread::spawn(|| {
        loop {
            println!("a line that fills the ring");
        }
    });
    // The other thread blocks when the ring is full: there is no event to wait for.
    thread::sleep(Duration::from_millis(100));
    fail();
}

#[inline(never)]
fn allocation() {
    black_box(Vec::<u8>::with_capacity(black_box(1 << 40)));
}

#[inline(never)]
fn out_of_memory() {
    let mut all = Vec::new();
    loop {
        all.push(Vec::<u8>::with_capacity(64 << 10));
    }
}
