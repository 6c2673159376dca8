//! The cost of a fork, for `make bench`: prints TSC values that `tests/bench/forks.py` makes
//! figures of.
//!
//! Arguments: ROW ROUNDS. The parent prints "begin ROW ROUND CALLED RETURNED" for each fork, its
//! child "end ROW ROUND DONE" on its own console when that was timed too, and the parent "sample
//! ROW TICKS" where a whole cycle is timed. The guest needs `tsc_mode = "native"`, so that parent,
//! child and dom0 read the same counter.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;
use core::arch::asm;
use core::arch::x86_64::_rdtsc;
use core::time::Duration;

use test_guests::{argument, error, expect, failure, reap, success};
use zooid::process;
use zooid::{env, println, thread};

zooid::main!(main);

/// Words of a page.
const WORDS: usize = 512;
/// Pages of a MiB.
const MIB: usize = 256;
/// Cycles of `fork_rate` that make up one sample.
const CYCLES: u64 = 200;
/// Children between two looks of `clone_mem`.
const CLONES: usize = 40;
/// The value that children write, and the parent's below; neither is ever in a page otherwise.
const CHILDS: u64 = 1 << 32;
const PARENTS: u64 = 1 << 33;

fn main() {
    let rounds: usize = match env::args().nth(1).map(str::parse) {
        Some(Ok(rounds)) => rounds,
        _ => error!("the second argument is the number of rounds"),
    };
    match argument() {
        "fork" => fork("fork", 4 * MIB, rounds, true, 0),
        "fork_clean" => fork("fork_clean", 4 * MIB, rounds, false, 0),
        // An odd number: a page is not written again for 64 rounds.
        "fork_cold" => fork("fork_cold", 4 * MIB, rounds, true, 23),
        "fork_256" => fork("fork_256", 256 * MIB, rounds, true, 0),
        "fork_write" => fork_write(rounds),
        "fork_rate" => fork_rate(rounds),
        "fork_1000" => fork_alive("fork_1000", rounds, true),
        "clone_mem" => fork_alive("clone_mem", rounds, false),
        other => error!("unknown row {other:?}"),
    }
    success();
}

fn now() -> u64 {
    // SAFETY: every x86-64 CPU has the instruction.
    unsafe { _rdtsc() }
}

/// `pages` pages that were all written.
fn touched(pages: usize) -> Vec<u64> {
    let mut memory = vec![0; pages * WORDS];
    memory.fill(1);
    memory
}

/// Every `step`-th page from page `first` on.
#[derive(Clone, Copy)]
struct Every {
    step: usize,
    first: usize,
}

impl Every {
    const fn new(step: usize) -> Self {
        Self { step, first: 0 }
    }
}

/// Writes the first word of these pages.
fn write_pages(memory: &mut [u64], pages: Every, value: u64) {
    memory.chunks_mut(pages.step * WORDS).for_each(|chunk| chunk[pages.first * WORDS] = value);
}

/// Reads every word: that of each of these pages is `written`, if it is the page's first one, all
/// others are `value`.
fn verify(memory: &[u64], value: u64, pages: Every, written: u64) {
    for (number, page) in memory.chunks(WORDS).enumerate() {
        let first = if number % pages.step == pages.first { written } else { value };
        if page[0] != first || !all_are(&page[1..], value) {
            failure!("page {number} does not hold {value} with {first} at its start");
        }
    }
}

/// True if all words are `value`. It takes one instruction for each word, as in the Linux process,
/// so that the loops of two compilers make no difference.
fn all_are(words: &[u64], value: u64) -> bool {
    let same: u8;
    // SAFETY: reads the words of the slice, which is not empty, and no others; the direction flag
    // is clear (psABI).
    unsafe {
        asm!("repe scasq", "sete {same}", same = out(reg_byte) same, inout("rcx") words.len() => _,
            inout("rdi") words.as_ptr() => _, in("rax") value, options(nostack, readonly));
    }
    same == 1
}

/// Waits while the next domain is prepared in the background. That cost is in the row `fork_rate`.
fn let_prepare() {
    thread::sleep(Duration::from_millis(500));
}

/// Leaves the one processor to the parent, if it has not returned yet.
fn let_parent_return() {
    thread::sleep(Duration::from_millis(1));
}

/// Measures the time from the call until the parent has returned and the child has written 16
/// pages, which are those of the round before if `shift` is 0. Both sides write every page before
/// each fork, if the row is about `dirty` pages. Both compare all pages afterwards.
fn fork(row: &str, pages: usize, rounds: usize, dirty: bool, shift: usize) {
    let mut memory = touched(pages);
    let mut value = 1;
    for round in 0..rounds {
        if dirty {
            value = round as u64 + 2;
            memory.fill(value);
        }
        let step = pages / 16;
        let written = Every { step, first: round * shift % step };
        let_prepare();
        let called = now();
        match expect!(process::fork()) {
            None => {
                write_pages(&mut memory, written, CHILDS);
                let done = now();
                let_parent_return();
                verify(&memory, value, written, CHILDS);
                // The memory is too small for two of the large ones.
                if dirty && pages == 4 * MIB {
                    memory.fill(CHILDS);
                    verify(&memory, CHILDS, Every::new(1), CHILDS);
                }
                println!("end {row} {round} {done}");
                process::exit(0);
            }
            Some(child) => {
                let returned = now();
                reap(child);
                println!("begin {row} {round} {called} {returned}");
                verify(&memory, value, Every::new(1), value);
            }
        }
    }
}

/// Measures a fork after which both sides write 256 pages spread over 4 MiB, and verify all of it.
fn fork_write(rounds: usize) {
    let mut memory = touched(4 * MIB);
    for round in 0..rounds {
        let value = round as u64 + 2;
        memory.fill(value);
        let_prepare();
        let called = now();
        match expect!(process::fork()) {
            None => {
                write_pages(&mut memory, Every::new(4), CHILDS);
                verify(&memory, value, Every::new(4), CHILDS);
                let done = now();
                let_parent_return();
                println!("end fork_write {round} {done}");
                process::exit(0);
            }
            Some(child) => {
                write_pages(&mut memory, Every::new(4), PARENTS);
                verify(&memory, value, Every::new(4), PARENTS);
                let done = now();
                reap(child);
                println!("begin fork_write {round} {called} {done}");
            }
        }
    }
}

/// Measures cycles of fork, exit and wait in a row, with 4 MiB touched. The cost of a cycle
/// includes the work in the background.
fn fork_rate(rounds: usize) {
    let memory = touched(4 * MIB);
    for _ in 0..rounds {
        let began = now();
        for _ in 0..CYCLES {
            match expect!(process::fork()) {
                None => process::exit(0),
                Some(child) => reap(child),
            }
        }
        println!("sample fork_rate {}", (now() - began) / CYCLES);
        verify(&memory, 1, Every::new(1), 1);
    }
}

/// Measures forks of children that stay alive: the cost of the first and of the last fork; or, if
/// they do not `write`, the memory that they take.
fn fork_alive(row: &str, rounds: usize, write: bool) {
    let mut memory = touched(4 * MIB);
    for round in 0..rounds {
        if !write && round % CLONES == 0 {
            println!("alive: {round}");
            thread::sleep(Duration::from_secs(20));
        }
        let_prepare();
        let called = now();
        match expect!(process::fork()) {
            None if write => {
                write_pages(&mut memory, Every::new(64), CHILDS);
                let done = now();
                let_parent_return();
                println!("end {row} {round} {done}");
                rest();
            }
            None => rest(),
            Some(_) => {
                let returned = now();
                // The child goes on before the parent does anything else.
                let_prepare();
                println!("begin {row} {round} {called} {returned}");
            }
        }
    }
    println!("alive: {rounds}");
    rest();
}

/// Idles until it is destroyed.
fn rest() -> ! {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}
