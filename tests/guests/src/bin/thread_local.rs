//! Thread-local variables and the thread block are laid out as the x86-64 psABI says, for every thread.

#![no_std]
#![no_main]
#![feature(thread_local)]

extern crate alloc;

use alloc::vec::Vec;
use core::arch::asm;
use core::cell::Cell;

use test_guests::{check, check_eq, success};
use zooid::thread;

zooid::main!(main);

#[repr(align(64))]
struct Aligned([u8; 70]);

#[thread_local]
static BYTE: Cell<u8> = Cell::new(0x5a);
#[thread_local]
static WORD: Cell<u64> = Cell::new(0x0123_4567_89ab_cdef);
#[thread_local]
static ALIGNED: Aligned = Aligned([7; 70]);
#[thread_local]
static ZERO: Cell<u32> = Cell::new(0);
#[thread_local]
static LARGE: [Cell<u16>; 500] = [const { Cell::new(0) }; 500];

fn main() {
    let canary = inspect(1);
    // Low byte 0, so that no string function can write it; the rest random.
    check_eq!(canary & 0xff, 0);
    check!(canary != 0);
    let threads: Vec<_> = (2..20).map(|number| thread::spawn(move || inspect(number))).collect();
    for thread in threads {
        check_eq!(thread.join(), canary);
    }
    // A stack that was used before gives no old values to its next thread.
    for number in 20..40 {
        check_eq!(thread::spawn(move || inspect(number)).join(), canary);
    }
    check_eq!(ZERO.get(), 1);
    success();
}

/// Checks the variables, changes them, lets others run, and checks again. Returns the stack protector's canary.
fn inspect(number: u32) -> u64 {
    check_eq!((BYTE.get(), WORD.get(), ZERO.get()), (0x5a, 0x0123_4567_89ab_cdef, 0));
    check_eq!((&raw const ALIGNED).addr() % 64, 0);
    check_eq!((&raw const WORD).addr() % 8, 0);
    check!(ALIGNED.0.iter().all(|byte| *byte == 7));
    check!(LARGE.iter().all(|cell| cell.get() == 0));
    BYTE.set(number as u8);
    WORD.set(u64::from(number) << 40);
    ZERO.set(number);
    LARGE.iter().for_each(|cell| cell.set(number as u16));
    let pointer = thread_pointer();
    thread::yield_now();
    check_eq!((BYTE.get(), WORD.get(), ZERO.get()), (number as u8, u64::from(number) << 40, number));
    check!(LARGE.iter().all(|cell| cell.get() == number as u16));
    check_eq!(thread_pointer(), pointer);
    // The variables lie right below the thread pointer, the block above it.
    check!((&raw const LARGE).addr() < pointer as usize && (&raw const LARGE).addr() + 4096 > pointer as usize);
    canary()
}

/// `%fs:0` holds its own address.
fn thread_pointer() -> u64 {
    let pointer: u64;
    // SAFETY: the first word of the thread block.
    unsafe { asm!("mov {}, fs:[0]", out(reg) pointer, options(nostack, readonly)) };
    pointer
}

fn canary() -> u64 {
    let canary: u64;
    // SAFETY: a word of the thread block.
    unsafe { asm!("mov {}, fs:[0x28]", out(reg) canary, options(nostack, readonly)) };
    canary
}
