//! When there is no memory for another thread, spawning it is an error, and after the others have ended it works again.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use test_guests::{check, check_eq, settle, success};
use zooid::sync::{Arc, Condvar, Mutex};
use zooid::{memory, println, thread};

zooid::main!(main);

fn main() {
    settle();
    let count = fill();
    println!("{count} threads");
    check!(count > 10);
    let before = memory::statistics();
    check_eq!(fill(), count);
    let after = memory::statistics();
    check_eq!(after.free, before.free);
    // The kernel's map of the address space may have another node.
    check!(after.heap_used < before.heap_used + 1024);
    success();
}

fn fill() -> usize {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let mut threads = Vec::new();
    loop {
        let at = gate.clone();
        let wait = move || drop(at.1.wait_while(at.0.lock(), |open| !*open));
        match thread::Builder::new().spawn(wait) {
            Ok(thread) => threads.push(thread),
            Err(thread::SpawnError::OutOfMemory) => break,
        }
    }
    *gate.0.lock() = true;
    gate.1.notify_all();
    let count = threads.len();
    threads.into_iter().for_each(|thread| thread.join());
    check_eq!(Arc::strong_count(&gate), 1);
    count
}
