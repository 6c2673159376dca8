//! What a fork costs, for `make bench`: prints lines "sample ROW VALUE" in TSC ticks, and of a child "end ROW ROUND TSC".
//!
//! The guest needs `tsc_mode = "native"`, so that parent and child read the same counter.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;
use core::arch::x86_64::_rdtsc;
use core::time::Duration;

use test_guests::{argument, check_eq, error, expect, failure, success};
use zooid::process::{self, PvmId, Status};
use zooid::{env, println, thread};

zooid::main!(main);

/// Words of a page.
const WORDS: usize = 512;
const MIB: usize = 256;

fn main() {
    let rounds: usize = match env::args().nth(1).map(str::parse) {
        Some(Ok(rounds)) => rounds,
        _ => error!("the second argument is the number of rounds"),
    };
    match argument() {
        "fork" => fork("fork", 4 * MIB, rounds, true),
        "fork_clean" => fork("fork_clean", 4 * MIB, rounds, false),
        "fork_256" => fork("fork_256", 256 * MIB, rounds, true),
        "fork_write" => fork_write(rounds),
        "fork_rate" => fork_rate(rounds),
        "fork_alive" => fork_alive(rounds),
        other => error!("unknown row {other:?}"),
    }
    success();
}

fn now() -> u64 {
    // SAFETY: every x86-64 CPU has the instruction.
    unsafe { _rdtsc() }
}

/// Writes every page.
fn touch(memory: &mut [u64], value: u64) {
    memory.chunks_mut(WORDS).for_each(|page| page.fill(value));
}

fn verify(memory: &[u64], expected: impl Fn(usize) -> u64) {
    for (number, page) in memory.chunks(WORDS).enumerate() {
        let expected = expected(number);
        if let Some(wrong) = page.iter().find(|word| **word != expected) {
            failure!("page {number} holds {wrong}, not {expected}");
        }
    }
}

fn reap(child: PvmId) {
    let ended = expect!(process::waitpid(Some(child), false));
    check_eq!(ended.map(|ended| ended.status), Some(Status::Exited(0)));
}

/// From the call until the parent has returned and the child has written 16 pages. Both sides have written every page before, unless
/// the row is about clean pages; all pages are compared afterwards.
fn fork(row: &str, pages: usize, rounds: usize, dirty: bool) {
    let mut memory = vec![0; pages * WORDS];
    touch(&mut memory, 1);
    for round in 0..rounds {
        let value = round as u64 + 2;
        if dirty || round == 0 {
            touch(&mut memory, value);
        }
        // The next domain is prepared in the background: that is counted in the row `fork_rate`.
        thread::sleep(Duration::from_millis(500));
        let expected = memory[0];
        let began = now();
        match expect!(process::fork()) {
            None => {
                for page in 0..16 {
                    memory[page * (pages / 16) * WORDS] = u64::MAX;
                }
                let ended = now();
                (0..16).for_each(|page| memory[page * (pages / 16) * WORDS] = expected);
                verify(&memory, |_| expected);
                if pages <= 4 * MIB {
                    touch(&mut memory, 7);
                }
                println!("end {row} {round} {ended}");
                process::exit(0);
            }
            Some(child) => {
                let returned = now();
                println!("begin {row} {round} {began} {returned}");
                reap(child);
                verify(&memory, |_| expected);
            }
        }
    }
}

/// Fork, then both sides write 256 pages spread over 4 MiB and verify all of it.
fn fork_write(rounds: usize) {
    let mut memory = vec![0; 4 * MIB * WORDS];
    let write = |memory: &mut [u64], value| {
        memory.chunks_mut(4 * WORDS).for_each(|pages| pages[0] = value);
        for (number, page) in memory.chunks(WORDS).enumerate() {
            let expected = if number % 4 == 0 { value } else { page[1] };
            if page[0] != expected {
                failure!("page {number} holds {}, not {expected}", page[0]);
            }
        }
    };
    for round in 0..rounds {
        touch(&mut memory, round as u64);
        thread::sleep(Duration::from_millis(500));
        let began = now();
        match expect!(process::fork()) {
            None => {
                write(&mut memory, 1 << 32);
                println!("end fork_write {round} {}", now());
                process::exit(0);
            }
            Some(child) => {
                write(&mut memory, 1 << 33);
                println!("begin fork_write {round} {began} {}", now());
                reap(child);
            }
        }
    }
}

/// Fork, exit, wait, in a row, with 4 MiB touched: per cycle, everything included that is paid in the background.
fn fork_rate(rounds: usize) {
    let mut memory = vec![0; 4 * MIB * WORDS];
    touch(&mut memory, 1);
    let began = now();
    for _ in 0..rounds {
        match expect!(process::fork()) {
            None => process::exit(0),
            Some(child) => reap(child),
        }
    }
    println!("sample fork_rate {}", (now() - began) / rounds as u64);
    verify(&memory, |_| 1);
}

/// Children that stay alive: what each fork costs, the first and the hundredth.
fn fork_alive(rounds: usize) {
    let mut memory = vec![0; 4 * MIB * WORDS];
    touch(&mut memory, 1);
    let mut children = Vec::new();
    for round in 0..rounds {
        thread::sleep(Duration::from_millis(500));
        let began = now();
        match expect!(process::fork()) {
            None => loop {
                thread::sleep(Duration::from_secs(3600));
            },
            Some(child) => {
                println!("begin fork_alive {round} {began} {}", now());
                children.push(child);
            }
        }
    }
    println!("alive: {}", children.len());
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}
