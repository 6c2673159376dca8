//! Threads return values, see what they were given, drop it, and know when another has finished.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use test_guests::{check, check_eq, expect, success};
use zooid::sync::{Arc, Mutex};
use zooid::thread;

zooid::main!(main, mode = kernel);

fn main() {
    check_eq!(thread::spawn(|| 7).join(), 7);
    check_eq!(thread::spawn(|| String::from("text")).join(), "text");

    let given = Arc::new(5);
    let copy = given.clone();
    check_eq!(thread::spawn(move || *copy + 1).join(), 6);
    // The last act of a thread is to drop what it was given.
    check_eq!(Arc::strong_count(&given), 1);

    finished();
    order();
    many();
    nested();
    success();
}

fn finished() {
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock();
    let other = gate.clone();
    let thread = thread::spawn(move || drop(other.lock()));
    thread::yield_now();
    check!(!thread.is_finished());
    drop(closed);
    while !thread.is_finished() {
        thread::yield_now();
    }
    thread.join();
}

/// Threads that are ready run in turn. On a slow machine one of them may use its time up before it
/// has done its part, and goes to the end; not each time.
fn order() {
    let orders: Vec<_> = (0..5).map(|_| order_once()).collect();
    check!(orders.iter().any(|order| order.is_sorted()));
}

fn order_once() -> Vec<u32> {
    let order = Arc::new(Mutex::new(Vec::new()));
    let threads: Vec<_> = (0..10)
        .map(|number| {
            let order = order.clone();
            expect!(thread::Builder::new().name("in turn").spawn(move || order.lock().push(number)))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join());
    let order = order.lock();
    check_eq!(order.len(), 10);
    order.clone()
}

/// 200 threads at a time, each with its own stack.
fn many() {
    static ALIVE: AtomicUsize = AtomicUsize::new(0);
    const COUNT: usize = 200;
    let start = Arc::new((Mutex::new(false), zooid::sync::Condvar::new()));
    let threads: Vec<_> = (0..COUNT)
        .map(|number| {
            let start = start.clone();
            thread::spawn(move || {
                let own = [number; 64];
                ALIVE.fetch_add(1, Ordering::Relaxed);
                drop(start.1.wait_while(start.0.lock(), |started| !*started));
                core::hint::black_box(own).iter().sum::<usize>()
            })
        })
        .collect();
    while ALIVE.load(Ordering::Relaxed) < COUNT {
        thread::yield_now();
    }
    *start.0.lock() = true;
    start.1.notify_all();
    for (number, thread) in threads.into_iter().enumerate() {
        check_eq!(thread.join(), number * 64);
    }
}

/// A thread may start threads, and end before they do.
fn nested() {
    let (outer, inner) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (outer, inner) = (outer.clone(), inner.clone());
            thread::spawn(move || {
                for _ in 0..4 {
                    let inner = inner.clone();
                    drop(thread::spawn(move || inner.fetch_add(1, Ordering::Relaxed)));
                }
                outer.fetch_add(1, Ordering::Relaxed);
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join());
    check_eq!(outer.load(Ordering::Relaxed), 4);
    while inner.load(Ordering::Relaxed) < 16 {
        thread::yield_now();
    }
}
