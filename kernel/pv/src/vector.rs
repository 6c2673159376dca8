//! Vector state that programs can use: that of x87 and SSE, which `fxsave64` keeps (`trap.rs`). AVX
//! and all later state is off: Xen gives a PV guest none until its kernel asks with `xsetbv`, and
//! this one never asks. An instruction of such a unit is an invalid opcode.
//!
//! Programs look before they use a unit (Intel SDM volume 1, 14.3): CPUID says OSXSAVE, and XCR0
//! has the state's bits. Xen need not intercept CPUID for that answer to be right.

use core::arch::x86_64::__cpuid;

use crate::boot;

/// Leaf 1, ecx (Intel SDM volume 2, CPUID).
const OSXSAVE: u32 = 1 << 27;
const AVX: u32 = 1 << 28;
/// State of x87 and SSE in XCR0 (Intel SDM volume 1, 13.3).
const KEPT: u64 = 0b11;

/// Says at boot what the processor has and programs do not get. Refuses to run where they would get
/// state that nobody keeps.
pub fn init() {
    let leaf = __cpuid(1);
    if leaf.ecx & OSXSAVE != 0 {
        let enabled = xcr0();
        if enabled & !KEPT != 0 {
            boot::refuse(format_args!("the vector state {enabled:#x} (XCR0) is on, and would not be kept"));
        }
    }
    if leaf.ecx & AVX != 0 {
        log::info!("vector state: x87 and SSE; AVX is off");
    }
}

/// The extended control register 0; CPUID must say OSXSAVE.
fn xcr0() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller's condition; it writes the two registers.
    unsafe { core::arch::asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack)) };
    u64::from(high) << 32 | u64::from(low)
}
