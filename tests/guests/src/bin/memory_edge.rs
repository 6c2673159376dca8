//! A request for about as much memory as there is succeeds or fails, but does no harm. Its page
//! tables are counted, too.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use test_guests::{check, success};
use zooid::{memory, println};

zooid::main!(main);

const PAGE: usize = 4096;

fn main() {
    let start = memory::statistics();
    let mut size = start.free;
    let mut block = Vec::<u8>::new();
    while block.try_reserve_exact(size).is_err() {
        // A failed allocation has taken nothing.
        check!(memory::statistics().free == start.free);
        size -= PAGE;
    }
    let rest = memory::statistics().free;
    println!("{} pages were free, {} could be had at once, {} are left", start.free / PAGE, size / PAGE, rest / PAGE);
    check!(rest < 100 * PAGE);
    success();
}
