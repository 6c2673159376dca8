//! Output much larger than the ring arrives whole and in order (tests/boot/console.sh). "flood":
//! one thread, also a single long text. "threads": eight threads, whose lines must not mix.
//! "reader": a flood while another thread waits for input.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use test_guests::{argument, error, success};
use zooid::{io, print, println, thread};

zooid::main!(main);

const LINES: usize = 1000;

fn main() {
    match argument() {
        "flood" => flood(),
        "threads" => threads(),
        "reader" => {
            drop(thread::spawn(io::read_line));
            thread::yield_now();
            flood();
        }
        other => error!("no such output: {other}"),
    }
    success();
}

/// The text behind a line's number, 64 bytes or so, so that a lost part shows.
fn tail(number: usize) -> String {
    (0..64 - number % 7).map(|index| (b'a' + ((number + index) % 26) as u8) as char).collect()
}

fn flood() {
    for number in 0..LINES {
        println!("thread 0 line {number} {}", tail(number));
    }
    let mut text = String::new();
    for number in LINES..2 * LINES {
        let _ = writeln!(text, "thread 0 line {number} {}", tail(number));
    }
    print!("{text}");
}

fn threads() {
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            thread::spawn(move || {
                for number in 0..LINES / 4 {
                    println!("thread {thread} line {number} {}", tail(number));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join());
}
