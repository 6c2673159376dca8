//! No memory is lost by threads that come and go, with stacks of many sizes, nor by the heap.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;

use test_guests::{check, check_eq, expect, settle, success};
use zooid::{memory, thread};

zooid::main!(main);

fn main() {
    settle();
    // The first rounds fill caches and make page tables.
    rounds(20);
    let before = memory::statistics();
    rounds(20);
    let after = memory::statistics();
    check_eq!((after.free, after.heap_size), (before.free, before.heap_size));
    // The kernel's map of the address space may have another node; 600 threads that lost anything would show.
    check!(after.heap_used < before.heap_used + 1024);
    success();
}

fn rounds(count: usize) {
    for _ in 0..count {
        let threads: Vec<_> = (0..30)
            .map(|index| {
                let builder = thread::Builder::new().stack_size(8192 * (1 + index % 16));
                expect!(builder.spawn(move || vec![0u8; 100 * index].len()))
            })
            .collect();
        for (index, thread) in threads.into_iter().enumerate() {
            check_eq!(thread.join(), 100 * index);
        }
    }
}
