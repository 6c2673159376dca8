//! Lines that are typed arrive as they were typed, with what Backspace took back; also longer than the ring
//! (tests/boot/console_input.sh).

#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::String;

use test_guests::success;
use zooid::{io, println};

zooid::main!(main);

fn main() {
    println!("ready");
    loop {
        let line = io::read_line();
        let sum = line.bytes().fold(0u64, |sum, byte| sum * 31 % 1_000_003 + u64::from(byte));
        let head: String = line.chars().take(20).collect();
        println!("got {} bytes, sum {sum}: {head:?}", line.len());
        if line == "end" {
            break;
        }
    }
    success();
}
