//! No program finds AVX or later vector state enabled, in any thread, before and after a fork: such
//! state is not kept. With the argument `avx` the processor must have AVX.

#![no_std]
#![no_main]

use core::arch::asm;
use core::arch::x86_64::__cpuid;

use test_guests::{check, check_eq, expect, reap, success};
use zooid::{env, process, thread};

zooid::main!(main, mode = kernel);

/// Leaf 1, ecx (Intel SDM volume 2, CPUID).
const OSXSAVE: u32 = 1 << 27;
const AVX: u32 = 1 << 28;
/// State of x87 and SSE in XCR0.
const KEPT: u64 = 0b11;

fn main() {
    look();
    if env::args().next() == Some("avx") {
        check!(__cpuid(1).ecx & AVX != 0);
    }
    thread::spawn(look).join();
    match expect!(process::fork()) {
        None => {
            look();
            thread::spawn(look).join();
            process::exit(0)
        }
        Some(child) => reap(child),
    }
    look();
    success();
}

/// Asks as programs do: CPUID, and then XCR0.
fn look() {
    if __cpuid(1).ecx & OSXSAVE != 0 {
        let (low, high): (u32, u32);
        // SAFETY: CPUID says that the instruction is there; it writes the two registers.
        unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high) };
        check_eq!(u64::from(high) << 32 | u64::from(low), KEPT);
    }
}
