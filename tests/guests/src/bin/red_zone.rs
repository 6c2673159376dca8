//! Code that keeps values below its stack pointer, in threads that are preempted and whose writes fault: guest user mode leaves them alone, guest kernel mode
//! does not.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;
use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};

use test_guests::{check, check_eq, success};
use zooid::time::{Duration, Instant};
use zooid::{process, thread};

zooid::main!(main, mode = user);

const TIME: Duration = Duration::from_millis(500);
const PAGES: usize = 64;

static STOP: AtomicBool = AtomicBool::new(false);

fn main() {
    match zooid::env::args().next().unwrap_or_default() {
        "kept" => check_eq!(storm(), 0),
        "lost" => check!(storm() > 0),
        "fork" => fork(),
        "outside" => outside(),
        other => test_guests::failure!("no test {other:?}"),
    }
    success();
}

/// Threads that disturb each other; how many values were lost.
fn storm() -> u64 {
    storm_during(|| {
        let start = Instant::now();
        while start.elapsed() < TIME {
            thread::sleep(Duration::from_millis(1));
        }
    })
}

/// As [`storm`], for as long as `body` runs in another thread.
fn storm_during(body: impl FnOnce()) -> u64 {
    let threads: Vec<_> = (0..3).map(|_| thread::spawn(|| until_stopped(&mut vec![0; PAGES * 512]))).collect();
    body();
    STOP.store(true, Ordering::Relaxed);
    let (rounds, lost) =
        threads.into_iter().map(|thread| thread.join()).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    zooid::println!("{rounds} rounds, {lost} values lost");
    check!(rounds > 1000);
    lost
}

/// In parent and children, each of which writes what it shares with the others.
fn fork() {
    let mut words = vec![0; PAGES * 512];
    let mut children = 0;
    for generation in 0..4 {
        match process::fork() {
            Ok(Some(_)) => children += 1,
            Ok(None) => children = 0,
            Err(error) => test_guests::failure!("{error}"),
        }
        words.fill(generation);
        for place in (0..words.len()).step_by(512) {
            check_eq!(round(&mut words[place]), 0);
            check_eq!(words[place], generation + 1);
        }
    }
    for _ in 0..children {
        let ended = process::wait();
        check!(ended.is_ok_and(|ended| ended.status == process::Status::Exited(0)));
    }
    check_eq!(storm(), 0);
}

/// A fork from outside, in the middle of it: all threads live on in the child.
fn outside() {
    let parent = process::id();
    let lost = storm_during(|| {
        zooid::println!("running");
        loop {
            thread::sleep(Duration::from_millis(5));
            if process::id() != parent {
                return thread::sleep(TIME);
            }
            if let Ok(ended) = process::wait() {
                return check!(ended.status == process::Status::Exited(0));
            }
        }
    });
    check_eq!(lost, 0);
}

fn until_stopped(words: &mut [u64]) -> (u64, u64) {
    let (mut rounds, mut lost) = (0, 0);
    while !STOP.load(Ordering::Relaxed) {
        lost += round(&mut words[rounds as usize % PAGES * 512]);
        rounds += 1;
    }
    (rounds, lost)
}

/// Fills the red zone (psABI 3.2.2: 128 bytes below the stack pointer), computes for a while, adds 1 to `word`, and compares; how many
/// of the 16 values were lost.
fn round(word: &mut u64) -> u64 {
    let lost;
    // SAFETY: the compiler's own code has nothing below the stack pointer, as it is compiled without a red zone; the word is the caller's.
    unsafe {
        asm!(
            "mov {count:e}, 16",
            "2: mov {at}, {count}",
            "neg {at}",
            "mov [rsp + 8 * {at}], {count}",
            "dec {count:e}",
            "jnz 2b",
            "mov {count:e}, 3000",
            "3: dec {count:e}",
            "jnz 3b",
            "inc qword ptr [{word}]",
            "xor {lost:e}, {lost:e}",
            "mov {count:e}, 16",
            "4: mov {at}, {count}",
            "neg {at}",
            "cmp [rsp + 8 * {at}], {count}",
            "je 5f",
            "inc {lost:e}",
            "5: dec {count:e}",
            "jnz 4b",
            word = in(reg) word,
            count = out(reg) _,
            at = out(reg) _,
            lost = out(reg) lost,
        );
    }
    lost
}
