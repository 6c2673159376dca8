//! The cost of opening a library, for `make bench`: the rows of `tests/bench/dl.py`.
//!
//! Arguments: LIBRARY SAMPLES, with the library in the ramdisk. Prints "first TICKS" of the TSC for
//! the first time in this pVM, "memory OCTETS" that it has taken from the guest, and then "sample
//! TICKS" for once more, after it was closed. The guest needs `tsc_mode = "native"`.

#![no_std]
#![no_main]

use core::arch::x86_64::_rdtsc;

use test_guests::{argument, error, expect, success};
use zooid::dl::{self, Flags, Library};
use zooid::{env, memory, println};

zooid::main!(main, mode = kernel);
dl::trust!(include_bytes!("../../../libraries/test-only.pub"));

/// Times that make up a sample.
const TIMES: u64 = 10;

fn main() {
    let samples: u32 = match env::args().nth(1).map(str::parse) {
        Some(Ok(samples)) => samples,
        _ => error!("the second argument is the number of samples"),
    };
    let before = memory::statistics().free;
    let (ticks, library) = open(argument());
    println!("first {ticks}");
    println!("memory {}", before - memory::statistics().free);
    drop(library);
    for _ in 0..samples {
        println!("sample {}", (0..TIMES).map(|_| open(argument()).0).sum::<u64>() / TIMES);
    }
    success();
}

/// Opens a library, and returns the ticks that this took.
fn open(name: &str) -> (u64, Library) {
    let begin = now();
    let library = expect!(dl::open(name, Flags::default()));
    (now() - begin, library)
}

fn now() -> u64 {
    // SAFETY: every x86-64 CPU has the instruction.
    unsafe { _rdtsc() }
}
