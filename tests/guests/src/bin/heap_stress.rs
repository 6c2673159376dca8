//! Blocks of the heap never overlap and keep their contents, while several threads allocate, reallocate and free at
//! random; and the heap does not grow without end by it.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use test_guests::{Random, check, failure, settle, success};
use zooid::{memory, println, thread};

zooid::main!(main, mode = kernel);

const THREADS: u64 = 4;
const BLOCKS: usize = 100;
const STEPS: usize = 20_000;

fn main() {
    settle();
    // The first threads make the kernel's lists of threads grow.
    run(100);
    let used = memory::statistics().heap_used;
    run(STEPS);
    let heap = memory::statistics();
    println!("the heap has {} KiB", heap.heap_size / 1024);
    // At most THREADS * BLOCKS blocks of 4 KiB live at a time: three times as much is a lot of fragmentation.
    check!(heap.heap_size < 3 * THREADS as usize * BLOCKS * 4096);
    // The kernel's map of the address space may have another node.
    check!(heap.heap_used < used + 1024);
    success();
}

fn run(steps: usize) {
    let threads: Vec<_> = (0..THREADS).map(|seed| thread::spawn(move || stress(seed, steps))).collect();
    for thread in threads {
        thread.join();
    }
}

/// A block whose bytes are all the same, so that a write by another owner shows.
struct Block {
    mark: u8,
    bytes: Vec<u8>,
}

impl Block {
    fn check(&self) {
        if let Some(at) = self.bytes.iter().position(|byte| *byte != self.mark) {
            failure!("a block of {} bytes has changed at {at}", self.bytes.len());
        }
    }
}

fn stress(seed: u64, steps: usize) {
    let mut random = Random::new(seed);
    let mut blocks: Vec<Block> = Vec::new();
    for step in 0..steps {
        let mark = (step as u64 * THREADS + seed) as u8;
        match random.below(4) {
            0 | 1 if blocks.len() < BLOCKS => {
                let length = 1 + (random.below(4096) >> random.below(8)) as usize;
                blocks.push(Block { mark, bytes: alloc::vec![mark; length] });
            }
            2 if !blocks.is_empty() => {
                let index = random.below(blocks.len() as u64) as usize;
                let block = &mut blocks[index];
                block.check();
                block.bytes.resize(1 + random.below(4096) as usize, block.mark);
                block.bytes.shrink_to_fit();
            }
            _ if !blocks.is_empty() => {
                let index = random.below(blocks.len() as u64) as usize;
                blocks.swap_remove(index).check();
            }
            _ => {}
        }
    }
    blocks.iter().for_each(Block::check);
}
