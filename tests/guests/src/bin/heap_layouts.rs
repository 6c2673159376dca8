//! The heap keeps to layouts: any alignment, large sizes, sizes of zero, and contents over a
//! reallocation.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::alloc::{alloc, alloc_zeroed, dealloc, realloc};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::hint::black_box;

use test_guests::{check, check_eq, error, settle, success};
use zooid::memory;

zooid::main!(main);

fn main() {
    settle();
    let used = memory::statistics().heap_used;
    alignments();
    zero_sizes();
    reallocation();
    zeroed();
    too_large();
    check_eq!(memory::statistics().heap_used, used);
    success();
}

fn layout(size: usize, align: usize) -> Layout {
    match Layout::from_size_align(size, align) {
        Ok(layout) => layout,
        Err(_) => error!("no layout has {size} bytes at a multiple of {align}"),
    }
}

fn alignments() {
    let mut blocks = Vec::new();
    for shift in 0..=20 {
        for size in [1, 7, 64, 4097] {
            let layout = layout(size, 1 << shift);
            // SAFETY: the size is not 0.
            let block = unsafe { alloc(layout) };
            check!(!block.is_null());
            check_eq!(block.addr() % (1 << shift), 0);
            // SAFETY: the block is `size` bytes long.
            unsafe { block.write_bytes(shift as u8, size) };
            blocks.push((block, layout));
        }
    }
    for (index, (block, layout)) in blocks.into_iter().enumerate() {
        for offset in 0..layout.size() {
            // SAFETY: inside the block, which was written.
            check_eq!(usize::from(unsafe { block.add(offset).read() }), index / 4);
        }
        // SAFETY: from `alloc`, with this layout.
        unsafe { dealloc(block, layout) };
    }
}

fn zero_sizes() {
    let nothing: [Box<()>; 2] = [Box::new(()), Box::new(())];
    let mut empty: Vec<u8> = Vec::with_capacity(0);
    check!(empty.is_empty() && String::new().capacity() == 0);
    empty.extend_from_slice(&[1, 2, 3]);
    check_eq!(empty, [1, 2, 3]);
    empty.truncate(0);
    empty.shrink_to_fit();
    check_eq!(empty.capacity(), 0);
    drop(nothing);
}

fn reallocation() {
    let mut size = 24;
    // SAFETY: the size is not 0.
    let mut block = unsafe { alloc(layout(size, 64)) };
    for step in 0..40 {
        // Up to 1 MiB and down again.
        let next = if step < 20 { size * 17 / 10 } else { size * 10 / 17 };
        check!(!block.is_null());
        for offset in 0..size {
            // SAFETY: inside the block.
            unsafe { block.add(offset).write((offset * 7) as u8) };
        }
        // SAFETY: from `alloc` or `realloc` with this layout; the new size is not 0.
        block = unsafe { realloc(block, layout(size, 64), next) };
        check!(!block.is_null());
        check_eq!(block.addr() % 64, 0);
        for offset in 0..size.min(next) {
            // SAFETY: inside the block; `realloc` kept what was written.
            check_eq!(unsafe { block.add(offset).read() }, (offset * 7) as u8);
        }
        size = next;
    }
    // SAFETY: as above.
    unsafe { dealloc(block, layout(size, 64)) };
}

/// Checks that used memory comes back zeroed from a zeroed allocation.
fn zeroed() {
    for _ in 0..2 {
        let layout = layout(100_000, 16);
        // SAFETY: the size is not 0.
        let block = unsafe { alloc_zeroed(layout) };
        check!(!block.is_null());
        for offset in 0..layout.size() {
            // SAFETY: inside the block.
            check_eq!(unsafe { block.add(offset).read() }, 0);
        }
        // SAFETY: the block is that long.
        unsafe { block.write_bytes(0xff, layout.size()) };
        // SAFETY: from `alloc_zeroed`, with this layout.
        unsafe { dealloc(block, layout) };
    }
}

/// Impossible sizes are refused, at once and without harm. (The compiler leaves out an allocation
/// that nobody looks at.)
fn too_large() {
    let before = memory::statistics();
    for size in [1 << 40, isize::MAX as usize - 4096, before.total] {
        // SAFETY: the size is not 0.
        check!(black_box(unsafe { alloc(layout(size, 16)) }).is_null());
        check!(Vec::<u8>::new().try_reserve(size).is_err());
    }
    // SAFETY: as above.
    check!(black_box(unsafe { alloc(layout(16, 1 << 62)) }).is_null());
    check_eq!(memory::statistics(), before);
}
