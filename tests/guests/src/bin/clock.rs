//! The clock never goes back, whoever reads it; time passes while a thread sleeps; the wall clock and the uptime agree
//! with it.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use test_guests::{check, failure, success};
use zooid::time::{Duration, Instant, unix_time, uptime};
use zooid::{println, thread};

zooid::main!(main);

static STOP: AtomicBool = AtomicBool::new(false);

fn main() {
    // For the script, which compares it with dom0's.
    println!("unix time {}", unix_time().as_secs());
    check!(uptime() < Duration::from_secs(30));
    let readers: Vec<_> = (0..2).map(|_| thread::spawn(read_on)).collect();
    let (start, wall, up) = (Instant::now(), unix_time(), uptime());
    // Long enough for several updates of what Xen tells about the clock.
    let reads = read_until(start + Duration::from_secs(3));
    let (elapsed, wall, up) = (start.elapsed(), unix_time() - wall, uptime() - up);
    STOP.store(true, Ordering::Relaxed);
    let more: u64 = readers.into_iter().map(|reader| reader.join()).sum();
    println!("{} reads in {elapsed:?}; wall clock {wall:?}, uptime {up:?}", reads + more);
    check!(reads > 100_000 / 3 && more > 100_000 / 3);
    let near = |other: Duration| elapsed.abs_diff(other) < Duration::from_millis(200);
    check!(near(wall) && near(up));
    success();
}

fn read_until(end: Instant) -> u64 {
    let (mut last, mut reads) = (Instant::now(), 0);
    while last < end {
        let now = Instant::now();
        if now < last {
            failure!("the clock went back by {:?} after {reads} reads", last - now);
        }
        last = now;
        reads += 1;
    }
    reads
}

fn read_on() -> u64 {
    let mut reads = 0;
    while !STOP.load(Ordering::Relaxed) {
        reads += read_until(Instant::now() + Duration::from_millis(10));
        thread::sleep(Duration::from_micros(100));
    }
    reads
}
