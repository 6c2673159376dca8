//! Random numbers: seeds, identifiers, ports. Not a source of long-lived keys: a host without RDRAND gives a guest little
//! that others on the host cannot guess.

use core::arch::x86_64::{__cpuid, _rdtsc};

use crate::events::Masked;
use crate::life::Component;
use crate::time;

static STATE: Masked<u64> = Masked::new(0);

/// 64 random bits.
pub fn u64() -> u64 {
    let mut state = STATE.lock();
    // SAFETY: every x86-64 CPU has the instruction.
    let tsc = unsafe { _rdtsc() };
    let fresh = hardware().unwrap_or_else(|| time::wall_clock(time::now()).rotate_left(32));
    *state = mix(*state ^ mix(tsc) ^ fresh);
    *state
}

/// A child must not draw its parent's numbers.
pub static LIFE: Component = Component { begin: |birth| reseed(birth.seed), ..Component::PASSIVE };

/// Mixes a seed in.
fn reseed(seed: [u64; 4]) {
    let mut state = STATE.lock();
    *state = seed.into_iter().fold(*state, |state, word| mix(state ^ word));
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// What RDRAND gives, where the CPU has it and it works.
fn hardware() -> Option<u64> {
    const RDRAND: u32 = 1 << 30; // leaf 1, ecx (Intel SDM volume 2, CPUID)
    if __cpuid(1).ecx & RDRAND == 0 {
        return None;
    }
    let (value, valid): (u64, u8);
    // SAFETY: the CPU has the instruction; it writes a register and the carry flag.
    unsafe {
        core::arch::asm!("rdrand {}", "setc {}", out(reg) value, out(reg_byte) valid, options(nomem, nostack));
    }
    (valid != 0).then_some(value)
}
