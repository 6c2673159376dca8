//! The timer is armed only when somebody needs it: a guest that sleeps, and one with a single busy thread, take next to no
//! interrupts.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, Ordering};

use test_guests::{check, settle, success};
use zooid::time::{Duration, Instant};
use zooid::{println, thread};
use zooid_kernel::evtchn;

zooid::main!(main);

const TIME: Duration = Duration::from_millis(500);

fn main() {
    settle();
    let asleep = interrupts(|| thread::sleep(TIME));
    let alone = interrupts(spin);
    let stop = zooid::sync::Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    let other = thread::spawn(move || while !told.load(Ordering::Relaxed) {});
    let together = interrupts(spin);
    stop.store(true, Ordering::Relaxed);
    other.join();
    let alone_again = interrupts(spin);
    println!("interrupts: {asleep} asleep, {alone} alone, {together} together, {alone_again} alone again");
    check!(asleep <= 3);
    check!(alone <= 3);
    check!(together >= 10);
    check!(alone_again <= 3);
    success();
}

fn spin() {
    let start = Instant::now();
    while start.elapsed() < TIME {}
}

fn interrupts(act: impl FnOnce()) -> u64 {
    let before = evtchn::upcalls();
    act();
    evtchn::upcalls() - before
}
