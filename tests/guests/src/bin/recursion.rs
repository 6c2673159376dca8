//! A stack can be used to its end, also while the thread is preempted there.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::hint::black_box;

use test_guests::{check_eq, expect, success};
use zooid::thread;

zooid::main!(main);

const STACK: usize = 512 << 10;
/// The room left for the deepest frame, for Xen's frame, the registers, and the upcall's own calls.
const REST: usize = 8 << 10;

fn main() {
    let threads: Vec<_> = (0..4)
        .map(|_| {
            expect!(thread::Builder::new().stack_size(STACK).spawn(|| {
                let top = 0u8;
                let top = black_box(&raw const top).addr();
                (0..10).map(|_| descend(top, 1)).max()
            }))
        })
        .collect();
    let depths: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
    zooid::println!("{depths:?} frames");
    check_eq!(depths.iter().filter(|depth| **depth > Some(1000)).count(), 4);
    success();
}

/// Recurses until little of the stack is left; every frame keeps its contents. Returns the depth.
#[inline(never)]
fn descend(top: usize, depth: u64) -> u64 {
    let frame = black_box([depth; 16]);
    let used = top - (&raw const frame).addr();
    let deepest = if used < STACK - REST - 1024 {
        descend(top, depth + 1)
    } else {
        // Long enough to be preempted here now and then.
        (0..200_000).fold(depth, |sum, _| black_box(sum))
    };
    check_eq!(frame, [depth; 16]);
    deepest
}
