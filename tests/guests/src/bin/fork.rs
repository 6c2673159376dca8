//! Forks: both sides return, the child has the parent's memory, neither sees what the other writes afterwards.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use alloc::{format, vec};
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;

use test_guests::{argument, check, check_eq, error, expect, failure, reap, success};
use zooid::process::{self, ForkError, Forked, PvmId, Status, WaitError};
use zooid::sync::{Arc, Mutex};
use zooid::{env, println, thread, xenstore};

zooid::main!(main, mode = kernel);

static VARIABLE: AtomicU32 = AtomicU32::new(1);

fn main() {
    match argument() {
        "returns" => returns(),
        "codes" => codes(),
        "tree" => tree(),
        "many" => many(),
        "threads" => threads(),
        "handlers" => handlers(),
        "in_handler" => in_handler(),
        "ended" => ended(second_argument()),
        "apart" => apart(),
        "random" => random(),
        "registers" => registers(),
        "eager" => eager(),
        "bad_count" => bad_count(),
        "rate" => rate(second_argument()),
        "output" => output(),
        "alive" => alive(second_argument()),
        "bomb" => bomb(),
        "chain" => chain(second_argument()),
        "oom" => oom(),
        "orphans_exit" => orphans(|| process::exit(0)),
        "orphans_crash" => orphans(|| panic!("on purpose")),
        "orphans_idle" => orphans(idle),
        "middle_exit" => middle(|| process::exit(0)),
        "middle_crash" => middle(|| panic!("on purpose")),
        "middle_idle" => middle(idle),
        "idle" => {
            expect!(process::fork());
            idle()
        }
        other => error!("unknown test {other:?}"),
    }
    success();
}

fn second_argument() -> u32 {
    match env::args().nth(1).map(str::parse) {
        Some(Ok(number)) => number,
        _ => error!("a number must follow"),
    }
}

fn idle() -> ! {
    println!("idle");
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

/// Forks; the child runs `body` and exits with what it returns.
fn child(body: impl FnOnce() -> i32) -> PvmId {
    match expect!(process::fork()) {
        Some(child) => child,
        None => process::exit(body()),
    }
}

/// Both sides have the memory from before the fork. A later write is seen by its writer alone.
fn returns() {
    let me = expect!(process::id().ok_or("no id"));
    let mut boxed = Box::new([7_u8; 5000]);
    let mut local = 5_u64;
    VARIABLE.store(2, Ordering::Relaxed);
    match expect!(process::fork()) {
        None => {
            check_eq!(process::parent_id(), Some(me));
            check!(process::id() != Some(me));
            check_eq!(boxed[4999], 7);
            check_eq!(core::hint::black_box(local), 5);
            check_eq!(VARIABLE.load(Ordering::Relaxed), 2);
            boxed.fill(9);
            local = core::hint::black_box(local) + 1;
            VARIABLE.store(3, Ordering::Relaxed);
            println!("in the child: {local} {}", boxed[0]);
            process::exit(42)
        }
        Some(child) => {
            check!(child != me);
            boxed.fill(8);
            local = core::hint::black_box(local) + 2;
            VARIABLE.store(4, Ordering::Relaxed);
            let ended = expect!(process::wait());
            check_eq!(ended.id, child);
            check_eq!(ended.status, Status::Exited(42));
            check!(boxed.iter().all(|byte| *byte == 8));
            check_eq!(local, 7);
            check_eq!(VARIABLE.load(Ordering::Relaxed), 4);
            check_eq!(process::wait(), Err(WaitError));
        }
    }
}

/// Pages that one child after the other writes at once are copied during the fork, before long; what is in them is what the parent had
/// at that moment, in children and grandchildren, and the parent never sees what they write.
fn eager() {
    const WORDS: usize = 512;
    /// More than can be eager at a time.
    const PAGES: usize = 40;
    /// The value of a word that `writer` wrote in `round`.
    fn value(writer: u64, round: u64, at: usize) -> u64 {
        writer << 48 | round << 32 | at as u64
    }
    fn verify(memory: &[u64], writer: u64, round: u64) {
        for (at, word) in memory.iter().enumerate() {
            check_eq!(*word, value(writer, round, at));
        }
    }
    fn fill(memory: &mut [u64], writer: u64, round: u64) {
        memory.iter_mut().enumerate().for_each(|(at, word)| *word = value(writer, round, at));
    }
    /// Writes every page, and sees nothing else change.
    fn write(memory: &mut [u64], writer: u64, round: u64, generations: u64) -> i32 {
        memory.chunks_mut(WORDS).enumerate().for_each(|(page, words)| words[7] = value(writer, round, page));
        for (page, words) in memory.chunks_mut(WORDS).enumerate() {
            check_eq!(words[7], value(writer, round, page));
            words[7] = value(0, round, page * WORDS + 7);
        }
        verify(memory, 0, round);
        if generations > 0 {
            for _ in 0..3 {
                reap(child(|| write(memory, writer + 1, round, generations - 1)));
                verify(memory, 0, round);
            }
        }
        fill(memory, writer, round);
        verify(memory, writer, round);
        0
    }

    let mut memory = vec![0; PAGES * WORDS];
    let mut written = 0;
    for round in 0..12 {
        // Sometimes the parent has written since, sometimes not, sometimes a part.
        match round % 3 {
            0 => {
                written = round;
                fill(&mut memory, 0, round);
            }
            1 => memory.chunks_mut(2 * WORDS).for_each(|words| words[0] = core::hint::black_box(words[0])),
            _ => {}
        }
        // The children's reports are taken in, and the next domain is up to date.
        thread::sleep(Duration::from_millis(30));
        reap(child(|| write(&mut memory, 1, written, u64::from(round > 8))));
        verify(&memory, 0, written);
    }
}

/// A parent is told the true status of its child.
fn codes() {
    for code in [0, 1, 7, 255] {
        let child = child(|| code);
        let ended = expect!(process::waitpid(Some(child), false)).map(|ended| ended.status);
        check_eq!(ended, Some(Status::Exited(code as u8)));
    }
    let crashing = child(|| panic!("on purpose"));
    check_eq!(expect!(process::wait()).status, Status::Crashed);
    check_eq!(process::waitpid(Some(crashing), true), Err(WaitError));
    let slow = child(|| {
        thread::sleep(Duration::from_millis(300));
        3
    });
    check_eq!(process::waitpid(None, true), Ok(None));
    check_eq!(expect!(process::wait()), process::Ended { id: slow, status: Status::Exited(3) });
}

/// A child forks, and its child, too; each has the memory of all above it.
fn tree() {
    fn descend(depth: u32, mut path: Vec<u32>, note: &str) -> i32 {
        path.push(depth);
        if depth == 6 {
            check_eq!(path, [1, 2, 3, 4, 5, 6]);
            check_eq!(note, "from the root");
            return 0;
        }
        reap(child(|| descend(depth + 1, path.clone(), note)));
        check_eq!(path.len(), depth as usize);
        0
    }
    let note = String::from("from the root");
    reap(child(|| descend(1, Vec::new(), &note)));
}

/// Several children of one call, and many that live at once.
fn many() {
    let shared = vec![3_u32; 20_000];
    match expect!(process::fork_many(5)) {
        Forked::Parent(children) => {
            check_eq!(children.len(), 5);
            let mut codes: Vec<_> = (0..5).map(|_| expect!(process::wait()).status).collect();
            codes.sort_by_key(|status| status.exit_code());
            check_eq!(codes, (0..5).map(|code| Status::Exited(100 + code)).collect::<Vec<_>>());
        }
        Forked::Child(index) => {
            check!(shared.iter().all(|value| *value == 3));
            process::exit(100 + index as i32)
        }
    }
    let mut numbers = vec![0_u64; 50_000];
    let children: Vec<_> = (0..8)
        .map(|round| {
            numbers.fill(round);
            child(|| {
                thread::sleep(Duration::from_millis(200));
                i32::from(!numbers.iter().all(|number| *number == round))
            })
        })
        .collect();
    numbers.fill(99);
    children.into_iter().for_each(reap);
    check!(numbers.iter().all(|number| *number == 99));
}

/// Only the calling thread lives on; what other threads hold is not lost to the parent; any thread may fork.
fn threads() {
    let counter = Arc::new(Mutex::new(0_u64));
    let counting = counter.clone();
    let stop = Arc::new(AtomicU32::new(0));
    let stopping = stop.clone();
    let worker = thread::spawn(move || {
        while stopping.load(Ordering::Relaxed) == 0 {
            *counting.lock() += 1;
            thread::yield_now();
        }
    });
    let forking = thread::spawn(|| {
        reap(child(|| {
            let other = thread::spawn(|| String::from("a new thread in the child"));
            println!("{}", other.join());
            0
        }));
    });
    forking.join();
    let before = *counter.lock();
    while *counter.lock() == before {
        thread::yield_now();
    }
    stop.store(1, Ordering::Relaxed);
    worker.join();
}

/// At-fork handlers run in their order, on the right side.
fn handlers() {
    static LOG: Mutex<String> = Mutex::new(String::new());
    fn note(text: &str) {
        LOG.lock().push_str(text);
    }
    process::at_fork(process::AtFork { prepare: || note("a"), parent: || note("b"), child: || note("c") });
    process::at_fork(process::AtFork { prepare: || note("A"), parent: || note("B"), child: || note("C") });
    reap(child(|| i32::from(*LOG.lock() != "AacC")));
    check_eq!(*LOG.lock(), "AabB");
}

/// A handler cannot fork, whichever it is, and is told so; the fork that it belongs to goes on.
fn in_handler() {
    static REFUSED: AtomicU32 = AtomicU32::new(0);
    fn try_to_fork() {
        check_eq!(process::fork(), Err(ForkError::InHandler));
        REFUSED.fetch_add(1, Ordering::Relaxed);
    }
    process::at_fork(process::AtFork { prepare: try_to_fork, parent: try_to_fork, child: try_to_fork });
    for round in 1..3 {
        reap(child(|| i32::from(REFUSED.load(Ordering::Relaxed) != 2 * round)));
        check_eq!(REFUSED.load(Ordering::Relaxed), 2 * round);
    }
}

/// Children that end before anybody waits, more of them than the ring of their ends has room for:
/// each is told of once.
fn ended(count: u32) {
    let fork = || loop {
        match process::fork() {
            Ok(Some(child)) => return child,
            Ok(None) => process::exit(0),
            Err(ForkError::Again) => thread::sleep(Duration::from_millis(20)),
            Err(error) => failure!("{error}"),
        }
    };
    let mut children: Vec<PvmId> = (0..count).map(|_| fork()).collect();
    // All but the last few have ended for long.
    thread::sleep(Duration::from_secs(1));
    let mut told: Vec<PvmId> = (0..count)
        .map(|_| {
            let ended = expect!(process::wait());
            check_eq!(ended.status, Status::Exited(0));
            ended.id
        })
        .collect();
    check_eq!(process::wait(), Err(WaitError));
    children.sort();
    told.sort();
    check_eq!(told, children);
}

/// Parent and child write their memory, and see no write of the other, whatever becomes of pvmd:
/// until there is `data/stop`.
fn apart() {
    let mut memory = vec![0_u32; 20_000];
    // All words are of one round, which is the writer's alone.
    fn is_whole(memory: &[u32], round: u32) -> bool {
        memory.iter().all(|word| *word == round)
    }
    let mut without_daemon = 0;
    for round in 1.. {
        memory.fill(2 * round);
        let forked = process::fork();
        if forked == Ok(None) {
            // Long enough for the parent to have given up, and to have gone on.
            for _ in 0..100 {
                if !is_whole(&memory, 2 * round) {
                    println!("the child sees what its parent has written");
                    process::exit(3)
                }
                thread::sleep(Duration::from_millis(200));
            }
            memory.fill(1);
            println!("the child is right");
            process::exit(0)
        }
        check!(is_whole(&memory, 2 * round));
        match forked {
            Err(ForkError::NoDaemon) => {
                without_daemon += 1;
                println!("no daemon");
            }
            Err(ForkError::Again) => thread::sleep(Duration::from_millis(20)),
            Err(error) => failure!("{error}"),
            Ok(_) => {}
        }
        for step in 0..40 {
            memory.fill(2 * round + 2 + step);
            thread::sleep(Duration::from_millis(50));
            check!(is_whole(&memory, 2 * round + 2 + step));
        }
        if xenstore::read("data/stop").is_ok() {
            break;
        }
    }
    println!("without a daemon: {without_daemon}");
    while let Ok(ended) = process::wait() {
        check_eq!(ended.status, Status::Exited(0));
    }
}

/// Two children of one call draw different numbers, and the parent others still.
fn random() {
    match expect!(process::fork_many(2)) {
        Forked::Parent(_) => {
            println!("random parent {:x}", zooid::random::u64());
            expect!(process::wait());
            expect!(process::wait());
        }
        Forked::Child(_) => {
            println!("random child {:x}", zooid::random::u64());
            process::exit(0)
        }
    }
}

/// SSE registers, rounding mode and thread-local data are the parent's.
fn registers() {
    fn third() -> f64 {
        core::hint::black_box(1.0) / core::hint::black_box(3.0)
    }
    let nearest = third();
    set_rounding(3);
    let toward_zero = third();
    check!(toward_zero <= nearest);
    let kept = core::hint::black_box([1.5_f64, 2.5, 3.5, 4.5]);
    let result = process::fork();
    check_eq!(kept, [1.5, 2.5, 3.5, 4.5]);
    check_eq!(third(), toward_zero);
    match expect!(result) {
        None => process::exit(0),
        Some(child) => {
            set_rounding(0);
            check_eq!(third(), nearest);
            reap(child);
        }
    }
    println!("{}", format!("{kept:?}"));
}

/// Sets the SSE rounding mode: 0 to nearest, 3 toward zero (Intel SDM volume 1, "MXCSR").
fn set_rounding(mode: u32) {
    let mxcsr: u32 = 0x1f80 | mode << 13;
    // SAFETY: a valid value with all exceptions masked.
    unsafe { core::arch::asm!("ldmxcsr [{}]", in(reg) &raw const mxcsr, options(nostack, readonly)) };
}

/// Children that print and end at once, and one that prints more than the console's ring takes.
fn output() {
    for number in 0..8 {
        if expect!(process::fork()).is_none() {
            println!("child {number} prints, and ends");
            process::exit(0);
        }
        expect!(process::wait());
    }
    if expect!(process::fork()).is_none() {
        (0..200).for_each(|line| println!("line {line} of a long text"));
        process::exit(0);
    }
    expect!(process::wait());
    success();
}

/// Fork, exit, wait, again and again.
fn rate(rounds: u32) {
    let mut memory = vec![0_u32; 100_000];
    for round in 0..rounds {
        memory.fill(round);
        reap(child(|| i32::from(memory.iter().any(|word| *word != round))));
    }
    println!("rounds: {rounds}");
}

/// Many children at once, while the parent goes on writing.
fn alive(count: u32) {
    let mut memory = vec![0_u32; 100_000];
    let children: Vec<_> = (0..count)
        .map(|number| {
            memory.fill(number);
            child(|| {
                thread::sleep(Duration::from_secs(5));
                i32::from(memory.iter().any(|word| *word != number))
            })
        })
        .collect();
    println!("alive: {count}");
    memory.fill(u32::MAX);
    children.into_iter().for_each(reap);
}

/// Each generation forks and exits, so that one or two pVMs live at a time: as a daemon does that starts itself anew. The last one says so.
fn chain(generations: u32) {
    /// Refusals that one generation may meet: more are no shortage but a wall.
    const MOST: u32 = 400;
    let first = vec![7_u32; 3000];
    let mut last = Vec::new();
    for generation in 1..=generations {
        // A generation has all that the ones before it wrote.
        last.push(generation);
        let mut refused = 0;
        loop {
            match process::fork() {
                Ok(Some(_)) => process::exit(0),
                Ok(None) => break,
                Err(ForkError::Again) if refused < MOST => {
                    refused += 1;
                    thread::sleep(Duration::from_millis(10));
                }
                Err(error) => failure!("generation {generation}: {error} after {refused} refusals"),
            }
        }
        check!(first.iter().all(|word| *word == 7) && (1..=generation).eq(last.iter().copied()));
        if generation % 50 == 0 {
            println!("generation {generation}");
        }
    }
    println!("the chain has ended: {generations} generations");
}

/// Forks until it is told to stop, as its children do.
fn bomb() -> ! {
    let mut refused = 0;
    loop {
        match process::fork() {
            Ok(_) => {}
            Err(ForkError::Again) => {
                refused += 1;
                if refused == 1 {
                    println!("refused: EAGAIN");
                }
                thread::sleep(Duration::from_millis(20));
            }
            Err(error) => failure!("{error}"),
        }
    }
}

/// Somebody takes all of the host's memory: a child that writes finds no frame and ends; the parent goes on, and can fork again when there
/// is memory.
fn oom() {
    let mut memory = vec![1_u64; 8 << 17];
    let writer = child(|| {
        // dom0 says when there is none left.
        while xenstore::read("data/go").is_err() {
            thread::sleep(Duration::from_millis(100));
        }
        memory.fill(2);
        0
    });
    println!("forked");
    let ended = expect!(process::waitpid(Some(writer), false)).map(|ended| ended.status);
    check_eq!(ended, Some(Status::OutOfMemory));
    check!(memory.iter().all(|word| *word == 1));
    memory.fill(3);
    println!("the child ran out of memory, the parent goes on");
    let mut tries = 0;
    let again = loop {
        match process::fork() {
            Ok(Some(child)) => break child,
            Ok(None) => process::exit(i32::from(memory.iter().any(|word| *word != 3))),
            Err(ForkError::OutOfMemory | ForkError::Again) if tries < 200 => {
                tries += 1;
                thread::sleep(Duration::from_millis(100));
            }
            Err(error) => failure!("{error}"),
        }
    };
    reap(again);
    println!("refused {tries} times for want of memory");
}

/// The parent ends first; its children have its pages still.
fn orphans(end: fn() -> !) -> ! {
    let memory: Vec<u32> = (0..300_000).collect();
    for number in 0..2 {
        child(|| {
            thread::sleep(Duration::from_millis(1500));
            check!((0..300_000).eq(memory.iter().copied()));
            let mut copy = memory.clone();
            copy.reverse();
            println!("orphan {number} is right, its parent is {:?}", process::parent_id());
            0
        });
    }
    end()
}

/// The middle of a chain ends first.
fn middle(end: fn() -> !) {
    let memory: Vec<u32> = (0..300_000).collect();
    child(|| {
        let mut own = vec![5_u32; 50_000];
        own[7] = 6;
        child(|| {
            thread::sleep(Duration::from_millis(1500));
            check!((0..300_000).eq(memory.iter().copied()));
            check!(own.iter().enumerate().all(|(at, word)| *word == if at == 7 { 6 } else { 5 }));
            println!("grandchild is right, its parent is {:?}", process::parent_id());
            0
        });
        end()
    });
    println!("root {:?}", process::id());
    let ended = expect!(process::wait());
    println!("the middle ended: {}", ended.status);
    thread::sleep(Duration::from_secs(4));
    check!((0..300_000).eq(memory.iter().copied()));
}

fn bad_count() {
    check_eq!(process::fork_many(0), Err(ForkError::BadCount));
    check_eq!(process::fork_many(257), Err(ForkError::BadCount));
}
