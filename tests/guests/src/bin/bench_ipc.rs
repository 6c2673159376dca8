//! The cost of IpC between a parent and its child, for `make bench`: the rows of
//! `tests/bench/ipc.py`.
//!
//! Arguments: ROW SAMPLES. Prints "sample ROW TICKS" of the TSC for a round trip, and for
//! `pipe_bulk` for a MiB. The guest needs `tsc_mode = "native"`.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;
use core::arch::x86_64::_rdtsc;
use core::time::Duration;

use test_guests::{argument, check, check_eq, error, expect, success};
use zooid::ipc::{self, Attributes, How, MessageQueue, PipeReader, Semaphore, SharedMemory};
use zooid::process::{self, Forked, Status};
use zooid::{env, println, signal, thread};

zooid::main!(main);

/// Round trips that make up a sample.
const TRIPS: u64 = 1000;
/// MiB that make up a sample of `pipe_bulk`.
const BULK: usize = 16;
const MIB: usize = 1 << 20;

fn main() {
    let samples: u32 = match env::args().nth(1).map(str::parse) {
        Some(Ok(samples)) => samples,
        _ => error!("the second argument is the number of samples"),
    };
    match argument() {
        "pipe" => pipe("pipe", 1, samples),
        "pipe_4k" => pipe("pipe_4k", 4 << 10, samples),
        "pipe_64k" => pipe("pipe_64k", 64 << 10, samples),
        "pipe_bulk" => pipe_bulk(samples),
        "mq" => mq(samples),
        "mq_bulk" => mq_bulk(),
        "sem" => sem(samples),
        "shm" => shm(samples),
        "signal" => signal(samples),
        "exit_wait" => exit_wait(samples),
        "ipc_first" => ipc_first(samples),
        other => error!("unknown row {other:?}"),
    }
    success();
}

fn now() -> u64 {
    // SAFETY: every x86-64 CPU has the instruction.
    unsafe { _rdtsc() }
}

/// Runs `there` in a child as often as `here` in this pVM, once to warm up, and prints the time of
/// one trip.
fn trips(row: &str, samples: u32, mut here: impl FnMut(), mut there: impl FnMut()) {
    let all = (u64::from(samples) + 1) * TRIPS;
    match expect!(process::fork()) {
        None => {
            (0..all).for_each(|_| there());
            process::exit(0)
        }
        Some(child) => {
            (0..TRIPS).for_each(|_| here());
            for _ in 0..samples {
                let began = now();
                (0..TRIPS).for_each(|_| here());
                println!("sample {row} {}", (now() - began) / TRIPS);
            }
            let ended = expect!(process::waitpid(Some(child), false));
            check_eq!(ended.map(|ended| ended.status), Some(Status::Exited(0)));
        }
    }
}

fn read_exactly(reader: &PipeReader, buffer: &mut [u8]) {
    let mut at = 0;
    while at < buffer.len() {
        at += expect!(reader.read(&mut buffer[at..]));
    }
}

fn pipe(row: &str, size: usize, samples: u32) {
    let (from_parent, to_child) = expect!(ipc::pipe());
    let (from_child, to_parent) = expect!(ipc::pipe());
    let (mut mine, mut theirs) = (vec![1; size], vec![0; size]);
    let here = || {
        expect!(to_child.write_all(&mine));
        read_exactly(&from_child, &mut mine);
    };
    let there = || {
        read_exactly(&from_parent, &mut theirs);
        expect!(to_parent.write_all(&theirs));
    };
    trips(row, samples, here, there);
}

/// Measures a pipe from the first byte written to the last one read, in pieces of 64 KiB.
fn pipe_bulk(samples: u32) {
    let (reader, writer) = expect!(ipc::pipe());
    let done = expect!(Semaphore::new(0));
    let mut piece = vec![7; 64 << 10];
    match expect!(process::fork()) {
        None => {
            for _ in 0..=samples {
                (0..BULK * MIB / piece.len()).for_each(|_| read_exactly(&reader, &mut piece));
                expect!(done.post());
            }
            process::exit(0)
        }
        Some(_) => {
            for sample in 0..=samples {
                let began = now();
                (0..BULK * MIB / piece.len()).for_each(|_| expect!(writer.write_all(&piece)));
                expect!(done.wait());
                if sample > 0 {
                    println!("sample pipe_bulk {}", (now() - began) / BULK as u64);
                }
            }
        }
    }
    expect!(process::wait());
}

fn mq(samples: u32) {
    let attributes = Attributes { messages: 10, size: 64 };
    let (down, up) = (expect!(MessageQueue::new(attributes)), expect!(MessageQueue::new(attributes)));
    let (mut mine, mut theirs) = ([0; 64], [0; 64]);
    let here = || {
        expect!(down.send(b"x", 0));
        check_eq!(expect!(up.receive(&mut mine)), (1, 0));
    };
    let there = || {
        expect!(down.receive(&mut theirs));
        expect!(up.send(b"x", 0));
    };
    trips("mq", samples, here, there);
}

/// Sends ten million messages through one queue, checks that none is lost, and measures the cost of
/// one.
fn mq_bulk() {
    const MESSAGES: u64 = 10_000_000;
    let queue = expect!(MessageQueue::new(Attributes { messages: 64, size: 64 }));
    let began = now();
    match expect!(process::fork()) {
        None => {
            (0..MESSAGES).for_each(|number| expect!(queue.send(&number.to_le_bytes(), 0)));
            process::exit(0)
        }
        Some(_) => {
            let mut buffer = [0; 64];
            for number in 0..MESSAGES {
                let (length, _) = expect!(queue.receive(&mut buffer));
                check!(buffer[..length] == number.to_le_bytes());
            }
        }
    }
    println!("sample mq_bulk {}", (now() - began) / MESSAGES);
    expect!(process::wait());
}

fn sem(samples: u32) {
    let (down, up) = (expect!(Semaphore::new(0)), expect!(Semaphore::new(0)));
    let here = || {
        expect!(down.post());
        expect!(up.wait());
    };
    let there = || {
        expect!(down.wait());
        expect!(up.post());
    };
    trips("sem", samples, here, there);
}

/// Measures a byte in shared memory, with a semaphore that announces it.
fn shm(samples: u32) {
    let (down, up) = (expect!(Semaphore::new(0)), expect!(Semaphore::new(0)));
    let memory = expect!(SharedMemory::new(4096));
    let mut number = 0_u8;
    let mut byte = [0];
    let here = || {
        number = number.wrapping_add(1);
        memory.write(0, &[number]);
        expect!(down.post());
        expect!(up.wait());
        memory.read(1, &mut byte);
        check_eq!(byte[0], number);
    };
    let mut copy = [0];
    let there = || {
        expect!(down.wait());
        memory.read(0, &mut copy);
        memory.write(1, &copy);
        expect!(up.post());
    };
    trips("shm", samples, here, there);
}

/// Measures a signal to the other side, and one back.
fn signal(samples: u32) {
    let me = expect!(process::id().ok_or("no id"));
    let set = signal::set(&[10]);
    expect!(signal::block(set));
    let all = (u64::from(samples) + 1) * TRIPS;
    match expect!(process::fork()) {
        None => {
            for _ in 0..all {
                expect!(signal::wait(set));
                expect!(process::kill(me, 10));
            }
            process::exit(0)
        }
        Some(child) => {
            for sample in 0..=samples {
                let began = now();
                for _ in 0..TRIPS {
                    expect!(process::kill(child, 10));
                    expect!(signal::wait(set));
                }
                if sample > 0 {
                    println!("sample signal {}", (now() - began) / TRIPS);
                }
            }
            expect!(process::wait());
        }
    }
}

/// Measures the time from the child's `exit` to the return of `wait` in the parent.
fn exit_wait(samples: u32) {
    let memory = expect!(SharedMemory::new(8));
    for sample in 0..=samples {
        // The next domain is prepared meanwhile.
        thread::sleep(Duration::from_millis(500));
        match expect!(process::fork()) {
            None => {
                thread::sleep(Duration::from_millis(20));
                memory.write(0, &now().to_le_bytes());
                process::exit(0);
            }
            Some(_) => {
                expect!(process::wait());
                let returned = now();
                let mut left = [0; 8];
                memory.read(0, &mut left);
                if sample > 0 {
                    println!("sample exit_wait {}", returned - u64::from_le_bytes(left));
                }
            }
        }
    }
}

/// Measures the first round trip of two siblings, and after it a warm one.
fn ipc_first(samples: u32) {
    let how = How { create: true, exclusive: false };
    for sample in 0..=samples {
        match expect!(process::fork_many(2)) {
            Forked::Child(number) => {
                let down = expect!(Semaphore::open("down", how, 0));
                let up = expect!(Semaphore::open("up", how, 0));
                if number == 0 {
                    // The other one waits by now.
                    thread::sleep(Duration::from_millis(100));
                    let began = now();
                    expect!(down.post());
                    expect!(up.wait());
                    let first = now();
                    expect!(down.post());
                    expect!(up.wait());
                    let second = now();
                    expect!(down.post());
                    expect!(up.wait());
                    let third = now();
                    // The second trip needs the other direction's first contact to be over, too.
                    let _ = second;
                    println!("first {} {}", first - began, third - second);
                } else {
                    for _ in 0..3 {
                        expect!(down.wait());
                        expect!(up.post());
                    }
                }
                process::exit(0)
            }
            Forked::Parent(children) => {
                for child in children {
                    expect!(process::waitpid(Some(child), false));
                }
            }
        }
        let _ = sample;
    }
}
