//! SSE and x87 registers and their control words survive preemption, and a new or waking thread
//! finds none of another's.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};

use test_guests::{check, check_eq, failure, success};
use zooid::thread;
use zooid::time::{Duration, Instant};

zooid::main!(main, mode = kernel);

const TIME: Duration = Duration::from_secs(1);
/// All exceptions masked, rounding to nearest: the psABI's initial state.
const MXCSR: u32 = 0x1f80;
const X87_CONTROL: u16 = 0x037f;

static STOP: AtomicBool = AtomicBool::new(false);

fn main() {
    let busy: Vec<_> = (1..=3).map(|number| thread::spawn(move || hold(number))).collect();
    let start = Instant::now();
    let mut fresh = 0;
    while start.elapsed() < TIME {
        // This thread runs between the busy ones, whose registers are full.
        thread::spawn(clean).join();
        clean();
        thread::sleep(Duration::from_millis(1));
        fresh += 1;
    }
    STOP.store(true, Ordering::Relaxed);
    for thread in busy {
        check!(thread.join() > 100);
    }
    check!(fresh > 5);
    success();
}

/// Fills every register with values of this thread's own, spins, and compares, until it
/// is told to stop. Returns the number of rounds.
fn hold(number: u64) -> u64 {
    // Another rounding mode and precision for each thread.
    let mxcsr = MXCSR | (number as u32) << 13;
    let control = X87_CONTROL & !0x0f00 | (number as u16) << 10 | 0x200;
    let mut rounds = 0;
    while !STOP.load(Ordering::Relaxed) {
        let value = [number * 0x0101_0101_0101_0101, !number];
        let (mut mxcsr_after, mut control_after) = (0u32, 0u16);
        let mut vectors = [[0u64; 2]; 16];
        let mut stack = [0u64; 8];
        // SAFETY: writes the four variables only, each of the size that the instructions store, and
        // restores the control words; the registers are named as clobbered.
        unsafe {
            asm!(
                "ldmxcsr [{mxcsr}]",
                "fninit",
                "fldcw [{control}]",
                "movdqu xmm0, [{value}]",
                "movdqa xmm1, xmm0", "movdqa xmm2, xmm0", "movdqa xmm3, xmm0", "movdqa xmm4, xmm0",
                "movdqa xmm5, xmm0", "movdqa xmm6, xmm0", "movdqa xmm7, xmm0", "movdqa xmm8, xmm0",
                "movdqa xmm9, xmm0", "movdqa xmm10, xmm0", "movdqa xmm11, xmm0", "movdqa xmm12, xmm0",
                "movdqa xmm13, xmm0", "movdqa xmm14, xmm0", "movdqa xmm15, xmm0",
                "fild qword ptr [{number}]",
                "fild qword ptr [{number}]",
                "fild qword ptr [{number}]",
                "fild qword ptr [{number}]",
                "fild qword ptr [{number}]",
                "fild qword ptr [{number}]",
                "fild qword ptr [{number}]",
                "fild qword ptr [{number}]",
                "mov ecx, 100000",
                "2: dec ecx",
                "jnz 2b",
                "movdqu [{vectors}], xmm0", "movdqu [{vectors} + 16], xmm1",
                "movdqu [{vectors} + 32], xmm2", "movdqu [{vectors} + 48], xmm3",
                "movdqu [{vectors} + 64], xmm4", "movdqu [{vectors} + 80], xmm5",
                "movdqu [{vectors} + 96], xmm6", "movdqu [{vectors} + 112], xmm7",
                "movdqu [{vectors} + 128], xmm8", "movdqu [{vectors} + 144], xmm9",
                "movdqu [{vectors} + 160], xmm10", "movdqu [{vectors} + 176], xmm11",
                "movdqu [{vectors} + 192], xmm12", "movdqu [{vectors} + 208], xmm13",
                "movdqu [{vectors} + 224], xmm14", "movdqu [{vectors} + 240], xmm15",
                "fistp qword ptr [{stack}]", "fistp qword ptr [{stack} + 8]",
                "fistp qword ptr [{stack} + 16]", "fistp qword ptr [{stack} + 24]",
                "fistp qword ptr [{stack} + 32]", "fistp qword ptr [{stack} + 40]",
                "fistp qword ptr [{stack} + 48]", "fistp qword ptr [{stack} + 56]",
                "stmxcsr [{mxcsr_after}]",
                "fnstcw [{control_after}]",
                "ldmxcsr [{mxcsr_before}]",
                "fninit",
                mxcsr = in(reg) &mxcsr,
                mxcsr_before = in(reg) &MXCSR,
                control = in(reg) &control,
                value = in(reg) &value,
                number = in(reg) &number,
                vectors = in(reg) &mut vectors,
                stack = in(reg) &mut stack,
                mxcsr_after = in(reg) &mut mxcsr_after,
                control_after = in(reg) &mut control_after,
                out("ecx") _,
                clobber_abi("C"),
            );
        }
        if vectors != [value; 16] || stack != [number; 8] {
            failure!("thread {number}: xmm {vectors:x?}, x87 {stack:x?}");
        }
        // The low bits of MXCSR are flags that computing sets.
        if (mxcsr_after & !0x3f, control_after) != (mxcsr, control) {
            failure!("thread {number}: mxcsr {mxcsr_after:#x}, x87 control {control_after:#x}");
        }
        rounds += 1;
    }
    rounds
}

/// The area that `fxsave64` writes.
#[repr(C, align(16))]
struct Area([u8; 512]);

/// Checks that the x87 stack is empty, and that the control words are the initial ones.
fn clean() {
    let mut area = Area([0; 512]);
    // SAFETY: the area has the size and alignment that the instruction asks for.
    unsafe { asm!("fxsave64 [{}]", in(reg) &mut area) };
    // Intel SDM volume 1, table 10-2: control word at 0, a bit for each register in use at 4, MXCSR
    // at 24.
    let Area(bytes) = area;
    check_eq!(u16::from_le_bytes([bytes[0], bytes[1]]), X87_CONTROL);
    check_eq!(bytes[4], 0);
    // The low bits of MXCSR are flags that computing sets.
    check_eq!(u32::from_le_bytes([bytes[24], bytes[25], bytes[26], bytes[27]]) & !0x3f, MXCSR);
}
