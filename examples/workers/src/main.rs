//! A parent and two workers. The parent sends jobs through a queue; the workers add them up in a
//! counter that all three share.
//!
//! ```text
//! pvm run -a workers
//! ```

#![no_std]
#![no_main]

use core::sync::atomic::Ordering;

use zooid::ipc::{self, Attributes, MessageQueue, SharedMemory};
use zooid::println;
use zooid::process::{self, Forked};

zooid::main!(main);

const WORKERS: u32 = 2;
const JOBS: u64 = 1000;
/// Offset of the sum of all jobs in the shared memory. Behind it is the number of jobs of each
/// worker.
const SUM: usize = 0;
const DONE: usize = 8;

fn main() -> Result<(), ipc::Error> {
    let jobs = MessageQueue::new(Attributes { messages: 16, size: 8 })?;
    let counters = SharedMemory::new(64)?;
    let children = match process::fork_many(WORKERS) {
        Ok(Forked::Parent(children)) => children,
        Ok(Forked::Child(number)) => {
            work(number, &jobs, &counters)?;
            process::exit(0)
        }
        Err(error) => {
            println!("workers: cannot fork: {error}");
            process::exit(1)
        }
    };
    for job in 1..=JOBS {
        jobs.send(&job.to_le_bytes(), 1)?;
    }
    // An empty message, one for each worker, is the end; messages of a higher priority are received
    // before it.
    for _ in &children {
        jobs.send(&[], 0)?;
    }
    for _ in &children {
        if let Ok(ended) = process::wait() {
            println!("workers: {} has ended: {}", ended.id, ended.status);
        }
    }
    let done = |number: usize| counters.atomic_u64(DONE + 8 * number).load(Ordering::SeqCst);
    println!("workers: {} and {} jobs of {JOBS} were done", done(0), done(1));
    let sum = counters.atomic_u64(SUM).load(Ordering::SeqCst);
    println!("workers: the sum is {sum}, and should be {}", JOBS * (JOBS + 1) / 2);
    Ok(())
}

/// Takes jobs until there are no more.
fn work(number: u32, jobs: &MessageQueue, counters: &SharedMemory) -> Result<(), ipc::Error> {
    let mut message = [0; 8];
    loop {
        let (length, _) = jobs.receive(&mut message)?;
        if length == 0 {
            return Ok(());
        }
        counters.atomic_u64(SUM).fetch_add(u64::from_le_bytes(message), Ordering::SeqCst);
        counters.atomic_u64(DONE + 8 * number as usize).fetch_add(1, Ordering::SeqCst);
    }
}
