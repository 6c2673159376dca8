//! Nearly all memory of the guest can be allocated. It keeps its contents, and freed memory can be
//! allocated again. When there is no more, `try_reserve` fails.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use test_guests::{Random, check, failure, success};
use zooid::{memory, println};

zooid::main!(main);

fn main() {
    let before = memory::statistics();
    let block = (before.total / 256).clamp(16 << 10, 1 << 20);
    // The application cannot have the image, page tables, kernel records and a rest smaller than a
    // block.
    let least = (before.free - before.free / 16) / block - 1;

    let first = fill(block);
    println!(
        "{} KiB in all, {} KiB free at first, {} KiB allocated",
        kib(before.total),
        kib(before.free),
        kib(first * block)
    );
    check!(first >= least);
    let full = memory::statistics();
    check!(full.free < block + (64 << 10));
    // The memory taken is in the heap, but for two page tables per 512 pages and a few above them.
    let taken = full.heap_size - before.heap_size;
    check!(before.free - full.free <= taken + taken / 256 + (64 << 10));

    // The same again; the list of the blocks may lie worse this time.
    check!(fill(block) + 2 >= first);
    // In small pieces it is as much, less the allocator's headers. (A small guest is
    // enough: the time that freeing takes grows with the square of the number of pieces.)
    if before.total <= 8 << 20 {
        let small = fill(200) * 200;
        println!("{} KiB in pieces of 200 bytes", kib(small));
        check!(small >= first * block / 10 * 8);
    }
    check!(memory::statistics().heap_used <= before.heap_used + 4096);
    success();
}

/// Allocates blocks until there is no memory, checks them all, and frees them in another order.
/// Returns how many.
fn fill(size: usize) -> usize {
    let mut blocks: Vec<Vec<u64>> = Vec::new();
    let words = size / size_of::<u64>();
    while let Some(mut block) = allocate(words) {
        // Growing the list may fail as well.
        if blocks.try_reserve(1).is_err() {
            break;
        }
        let mut numbers = Random::new(blocks.len() as u64);
        block.resize_with(words, || numbers.next_u64());
        blocks.push(block);
    }
    for (index, block) in blocks.iter().enumerate() {
        let mut numbers = Random::new(index as u64);
        if block.iter().any(|word| *word != numbers.next_u64()) {
            failure!("block {index} of {} does not hold what was written", blocks.len());
        }
    }
    let count = blocks.len();
    while !blocks.is_empty() {
        let middle = blocks.len() / 2;
        blocks.swap_remove(middle);
    }
    count
}

fn allocate(words: usize) -> Option<Vec<u64>> {
    let mut block = Vec::new();
    block.try_reserve_exact(words).ok()?;
    Some(block)
}

fn kib(bytes: usize) -> usize {
    bytes / 1024
}
