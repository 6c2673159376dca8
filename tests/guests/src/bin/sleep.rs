//! A sleep is never shorter than asked for, and not much longer; sleepers wake in the order of
//! their deadlines; and a sleep that never ends disturbs nobody.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use test_guests::{Random, check, check_eq, success};
use zooid::sync::{Arc, Mutex};
use zooid::time::{Duration, Instant};
use zooid::{println, thread};

zooid::main!(main);

/// The delay that an emulated, busy machine may add.
const GRACE: Duration = Duration::from_millis(250);

fn main() {
    for forever in [Duration::MAX, Duration::from_secs(1 << 33), Duration::from_secs(86_400 * 365)] {
        thread::spawn(move || thread::sleep(forever));
    }
    let mut worst = Duration::ZERO;
    for micros in [0, 1, 10, 100, 1_000, 1_500, 10_000, 100_000, 700_000] {
        let asked = Duration::from_micros(micros);
        let start = Instant::now();
        thread::sleep(asked);
        let slept = start.elapsed();
        check!(slept >= asked);
        worst = worst.max(slept - asked);
    }
    println!("at most {worst:?} too long");
    check!(worst < GRACE);
    // A machine that stands still lets deadlines pass before their threads sleep, or stops a thread
    // between its wake-up and its entry: a round that differs is done again.
    check!((0..3).any(|_| sorted()));
    success();
}

/// Lets 50 threads sleep until random instants; returns true if they wake in the order of these.
fn sorted() -> bool {
    let woken = Arc::new(Mutex::new(Vec::new()));
    let mut random = Random::new(1);
    let start = Instant::now() + Duration::from_millis(20);
    let threads: Vec<_> = (0..50)
        .map(|_| {
            let woken = woken.clone();
            let deadline = start + Duration::from_micros(random.below(100_000));
            thread::spawn(move || {
                thread::sleep_until(deadline);
                let early = Instant::now() < deadline;
                woken.lock().push((deadline, early));
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join());
    let woken = woken.lock();
    check_eq!(woken.len(), 50);
    check!(woken.iter().all(|(_, early)| !early));
    woken.is_sorted_by_key(|(deadline, _)| *deadline)
}
