//! Threads that never wait and never yield all get ahead, in about equal parts; and a thread that wakes gets its turn
//! among them.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use test_guests::{check, success};
use zooid::time::{Duration, Instant};
use zooid::{println, thread};

zooid::main!(main, mode = kernel);

const TIME: Duration = Duration::from_secs(1);
static COUNTS: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];
static STOP: AtomicBool = AtomicBool::new(false);

fn main() {
    for count in &COUNTS {
        thread::spawn(|| {
            while !STOP.load(Ordering::Relaxed) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let start = Instant::now();
    let mut naps = 0;
    while start.elapsed() < TIME {
        thread::sleep(Duration::from_millis(10));
        naps += 1;
    }
    STOP.store(true, Ordering::Relaxed);
    let counts: Vec<u64> = COUNTS.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    println!("{naps} naps of 10 ms, counts {counts:?}");
    let (least, most) = (counts.iter().min(), counts.iter().max());
    check!(least > Some(&0) && least.map(|least| least * 3) > most.copied());
    // Four slices of 2 ms may pass before the sleeper's turn, and the machine may be busy.
    check!(naps > 5);
    success();
}
