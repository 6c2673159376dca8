//! IpC between relatives, as POSIX has it.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;

use test_guests::{argument, check, check_eq, error, expect, failure, reap, success};
use zooid::ipc::shared::{self, Condvar, Mutex};
use zooid::ipc::{
    self, Attributes, Error, How, MessageQueue, PIPE_BUF, PIPE_CAPACITY, PipeReader, Semaphore, SharedMemory,
};
use zooid::poll::{Events, PollEntry, poll};
use zooid::process::{self, Forked, PvmId, Status};
use zooid::signal::{self, Action, Blocked, SIGCHLD, SIGKILL};
use zooid::thread;
use zooid::time::Instant;

zooid::main!(main, mode = kernel);

const CREATE: How = How { create: true, exclusive: false };
const EXCLUSIVE: How = How { create: true, exclusive: true };
const OPEN: How = How { create: false, exclusive: false };
const SECOND: Duration = Duration::from_secs(1);

fn main() {
    match argument() {
        "pipe" => pipe(),
        "pipe_limits" => pipe_limits(),
        "pipe_atomic" => pipe_atomic(),
        "pipe_ends" => pipe_ends(),
        "generations" => generations(10),
        "channels" => channels(),
        "semaphore" => semaphore(),
        "memory" => memory(),
        "queue" => queue(),
        "queue_many" => queue_many(2_000),
        "queue_million" => queue_many(250_000),
        "names" => names(),
        "shared" => shared(),
        "poll" => poll_objects(),
        "siblings" => siblings(),
        "signals" => signals(),
        "signals_end" => signals_end(),
        "killed_is_still" => killed_is_still(),
        "takers" => takers(),
        "looks" => looks(),
        "named_idle" => {
            let _left = expect!(Semaphore::open("left-behind", EXCLUSIVE, 1));
            zooid::println!("idle");
            thread::sleep(3600 * SECOND);
        }
        other => error!("unknown test {other:?}"),
    }
    success();
}

/// Forks. In the child it runs what is given, which owns what it uses, and the child exits with 0.
macro_rules! child {
    ($body:block) => {
        match expect!(process::fork()) {
            Some(child) => child,
            None => {
                $body
                process::exit(0)
            }
        }
    };
}

/// An octet that depends on its place.
fn pattern(at: usize) -> u8 {
    (at ^ at >> 8 ^ at >> 16).wrapping_mul(31) as u8
}

fn read_exactly(reader: &PipeReader, buffer: &mut [u8]) {
    let mut at = 0;
    while at < buffer.len() {
        match expect!(reader.read(&mut buffer[at..])) {
            0 => failure!("the pipe ends after {at} of {} octets", buffer.len()),
            count => at += count,
        }
    }
}

/// To a child and back: hundreds of kilobytes in one write, and the end of the stream.
fn pipe() {
    const SIZE: usize = 600_000;
    let (from_parent, to_child) = expect!(ipc::pipe());
    let (from_child, to_parent) = expect!(ipc::pipe());
    let echo = child!({
        drop((to_child, from_child));
        let mut buffer = vec![0; 10_000];
        loop {
            match expect!(from_parent.read(&mut buffer)) {
                0 => break,
                count => expect!(to_parent.write_all(&buffer[..count])),
            }
        }
    });
    drop((from_parent, to_parent));
    let sender = thread::spawn(move || {
        let bytes: Vec<u8> = (0..SIZE).map(pattern).collect();
        expect!(to_child.write_all(&bytes));
    });
    let mut bytes = vec![0; SIZE];
    read_exactly(&from_child, &mut bytes);
    check!(bytes.iter().enumerate().all(|(at, byte)| *byte == pattern(at)));
    sender.join();
    // The writer went with the thread: the child reads the end, and goes, too.
    check_eq!(expect!(from_child.read(&mut bytes)), 0);
    reap(echo);
}

/// The size of a pipe, and reads and writes when it is full or empty; all in one pVM.
fn pipe_limits() {
    let (reader, writer) = expect!(ipc::pipe());
    let mut buffer = vec![0; 2 * PIPE_CAPACITY];
    check_eq!(reader.try_read(&mut buffer), Err(Error::WouldBlock));
    check_eq!(reader.read_timeout(&mut buffer, Duration::from_millis(20)), Err(Error::WouldBlock));
    check_eq!(reader.try_read(&mut []), Ok(0));
    // More than fits: a part. Then a small one that does not fit as a whole: nothing.
    let bytes = vec![7; PIPE_CAPACITY + 10];
    check_eq!(writer.try_write(&bytes[..PIPE_CAPACITY - 10]), Ok(PIPE_CAPACITY - 10));
    check_eq!(writer.try_write(&bytes[..PIPE_BUF]), Err(Error::WouldBlock));
    check_eq!(writer.try_write(&bytes[..PIPE_BUF + 1]), Ok(10));
    check_eq!(writer.try_write(&bytes[..1]), Err(Error::WouldBlock));
    check_eq!(writer.write_timeout(&bytes, Duration::from_millis(20)), Err(Error::WouldBlock));
    check_eq!(reader.read(&mut buffer), Ok(PIPE_CAPACITY));
    // A reader gets all octets after the last writer has gone, then the end.
    check_eq!(writer.try_write(b"last"), Ok(4));
    let second = writer.clone();
    drop(writer);
    check_eq!(reader.read(&mut buffer), Ok(4));
    check_eq!(reader.try_read(&mut buffer), Err(Error::WouldBlock));
    drop(second);
    check_eq!(reader.read(&mut buffer), Ok(0));
    check_eq!(reader.try_read(&mut buffer), Ok(0));

    let (reader, writer) = expect!(ipc::pipe());
    drop(reader);
    check_eq!(writer.write_all(b"x"), Err(Error::BrokenPipe));
    check_eq!(writer.try_write(b"x"), Err(Error::BrokenPipe));
}

/// Several write at the same time: pieces of up to `PIPE_BUF` octets are whole, and those of one writer in order.
fn pipe_atomic() {
    const WRITERS: usize = 4;
    const PIECES: u32 = 300;
    const LENGTH: usize = 1000;
    let (reader, writer) = expect!(ipc::pipe());
    match expect!(process::fork_many(WRITERS as u32)) {
        Forked::Child(number) => {
            drop(reader);
            for piece in 0..PIECES {
                let mut bytes = [number as u8; LENGTH];
                bytes[..4].copy_from_slice(&piece.to_le_bytes());
                expect!(writer.write_all(&bytes));
            }
            drop(writer);
            process::exit(0);
        }
        Forked::Parent(children) => {
            drop(writer);
            let mut next = [0; WRITERS];
            let mut piece = [0; LENGTH];
            for _ in 0..WRITERS as u32 * PIECES {
                read_exactly(&reader, &mut piece);
                let writer = usize::from(piece[4]);
                check!(writer < WRITERS && piece[4..].iter().all(|byte| usize::from(*byte) == writer));
                check_eq!(u32::from_le_bytes([piece[0], piece[1], piece[2], piece[3]]), next[writer]);
                next[writer] += 1;
            }
            check_eq!(reader.read(&mut piece), Ok(0));
            children.into_iter().for_each(reap);
        }
    }
}

/// The end of a pVM closes its ends, however it comes: its peers read the end, or get `BrokenPipe`.
fn pipe_ends() {
    for crash in [false, true] {
        let (reader, writer) = expect!(ipc::pipe());
        let child = child!({
            expect!(writer.write_all(b"before the end"));
            if crash {
                process::abort();
            }
        });
        drop(writer);
        let mut buffer = [0; 100];
        read_exactly(&reader, &mut buffer[..14]);
        check_eq!(&buffer[..14], b"before the end");
        check_eq!(reader.read(&mut buffer), Ok(0));
        let status = if crash { Status::Crashed } else { Status::Exited(0) };
        check_eq!(expect!(process::waitpid(Some(child), false)).map(|ended| ended.status), Some(status));

        let (reader, writer) = expect!(ipc::pipe());
        let child = child!({
            drop(writer);
            let mut buffer = [0; 100];
            expect!(reader.read(&mut buffer));
            thread::sleep(Duration::from_millis(50));
            if crash {
                process::abort();
            }
        });
        drop(reader);
        // It blocks when the pipe is full, until the reader has gone.
        check_eq!(writer.write_all(&vec![1; 3 * PIPE_CAPACITY]), Err(Error::BrokenPipe));
        check_eq!(expect!(process::waitpid(Some(child), false)).map(|ended| ended.status), Some(status));
    }
}

/// A chain of generations, each with a pipe to the next, through which a number travels to the last and back.
fn generations(left: u32) {
    fn descend(left: u32, number: u32) -> u32 {
        if left == 0 {
            return number * 1000;
        }
        let (down, to_child) = expect!(ipc::pipe());
        let (up, to_parent) = expect!(ipc::pipe());
        let child = child!({
            let mut bytes = [0; 4];
            read_exactly(&down, &mut bytes);
            let answer = descend(left - 1, u32::from_le_bytes(bytes) + 1);
            expect!(to_parent.write_all(&answer.to_le_bytes()));
        });
        expect!(to_child.write_all(&number.to_le_bytes()));
        let mut bytes = [0; 4];
        read_exactly(&up, &mut bytes);
        reap(child);
        u32::from_le_bytes(bytes)
    }
    check_eq!(descend(left, 1), (left + 1) * 1000);
}

/// Hundreds of channels between two pVMs, used in both directions in turn.
fn channels() {
    const CHANNELS: usize = 200;
    let down: Vec<_> = (0..CHANNELS).map(|_| expect!(Semaphore::new(0))).collect();
    let up: Vec<_> = (0..CHANNELS).map(|_| expect!(Semaphore::new(0))).collect();
    let child = child!({
        for round in 0..3 * CHANNELS {
            let number = round * 7 % CHANNELS;
            expect!(down[number].wait());
            expect!(up[number].post());
        }
    });
    for round in 0..3 * CHANNELS {
        let number = round * 7 % CHANNELS;
        expect!(down[number].post());
        expect!(up[number].wait());
    }
    reap(child);
}

/// Values, waiting with and without a limit, and across pVMs.
fn semaphore() {
    let one = expect!(Semaphore::new(2));
    check_eq!(one.value(), 2);
    check_eq!((one.try_wait(), one.try_wait()), (Ok(()), Ok(())));
    check_eq!(one.try_wait(), Err(Error::WouldBlock));
    check_eq!(one.wait_timeout(Duration::from_millis(20)), Err(Error::WouldBlock));
    check_eq!(Semaphore::new(ipc::semaphore::MAX_VALUE + 1).err(), Some(Error::Invalid));
    check_eq!(expect!(Semaphore::new(ipc::semaphore::MAX_VALUE)).post(), Err(Error::Overflow));

    // Four take turns at two places.
    let (places, inside, total) = (expect!(Semaphore::new(2)), expect!(SharedMemory::new(16)), 4 * 50);
    match expect!(process::fork_many(4)) {
        Forked::Child(_) => {
            for _ in 0..50 {
                expect!(places.wait());
                let there = inside.atomic_u32(0).fetch_add(1, Ordering::SeqCst);
                check!(there < 2);
                thread::yield_now();
                inside.atomic_u32(4).fetch_add(1, Ordering::SeqCst);
                inside.atomic_u32(0).fetch_sub(1, Ordering::SeqCst);
                expect!(places.post());
            }
            process::exit(0);
        }
        Forked::Parent(children) => children.into_iter().for_each(reap),
    }
    check_eq!(inside.atomic_u32(4).load(Ordering::SeqCst), total);
    check_eq!(places.value(), 2);
}

/// Each sees the other's writes, in regions of many pages, from before a fork on; the heap is not
/// shared.
fn memory() {
    const SIZE: usize = 3_000_000;
    let shared = expect!(SharedMemory::new(SIZE));
    check_eq!(shared.len(), SIZE);
    let mut zeros = vec![1; SIZE];
    shared.read(0, &mut zeros);
    check!(zeros.iter().all(|byte| *byte == 0));
    let bytes: Vec<u8> = (0..SIZE).map(pattern).collect();
    let ready = expect!(Semaphore::new(0));
    let mut private = vec![0; 100];
    let child = child!({
        expect!(ready.wait());
        let mut seen = vec![0; SIZE];
        shared.read(0, &mut seen);
        check!(seen == bytes);
        seen.reverse();
        shared.write(0, &seen);
        private.fill(9);
        // A grandchild has it, too.
        reap(child!({
            check_eq!(
                shared.atomic_u32(4096).load(Ordering::SeqCst),
                u32::from_le_bytes([seen[4096], seen[4097], seen[4098], seen[4099]])
            );
            shared.atomic_u64(8).store(77, Ordering::SeqCst);
        }));
    });
    shared.write(0, &bytes);
    expect!(ready.post());
    reap(child);
    let mut seen = vec![0; SIZE];
    shared.read(0, &mut seen);
    check_eq!(shared.atomic_u64(8).load(Ordering::SeqCst), 77);
    check!(
        seen.iter()
            .rev()
            .zip(&bytes)
            .enumerate()
            .all(|(at, (seen, byte))| (8..16).contains(&(SIZE - 1 - at)) || seen == byte)
    );
    check!(private.iter().all(|byte| *byte == 0));
}

/// Order, bounds, limits.
fn queue() {
    let attributes = Attributes { messages: 4, size: 100 };
    let queue = expect!(MessageQueue::new(attributes));
    check_eq!(queue.attributes(), attributes);
    let mut buffer = [0; 100];
    check_eq!(queue.try_receive(&mut buffer), Err(Error::WouldBlock));
    check_eq!(queue.receive_timeout(&mut buffer, Duration::from_millis(20)), Err(Error::WouldBlock));
    check_eq!(queue.try_receive(&mut buffer[..99]), Err(Error::TooLong));
    check_eq!(queue.send(&[0; 101], 0), Err(Error::TooLong));
    check_eq!(queue.send(b"", ipc::queue::PRIORITIES), Err(Error::Invalid));
    for (text, priority) in [("low", 1), ("first", 5), ("", 5), ("high", ipc::queue::PRIORITIES - 1)] {
        expect!(queue.send(text.as_bytes(), priority));
    }
    check_eq!(queue.len(), 4);
    check_eq!(queue.try_send(b"x", 0), Err(Error::WouldBlock));
    check_eq!(queue.send_timeout(b"x", 0, Duration::from_millis(20)), Err(Error::WouldBlock));
    for (text, priority) in [("high", ipc::queue::PRIORITIES - 1), ("first", 5), ("", 5), ("low", 1)] {
        let (length, found) = expect!(queue.receive(&mut buffer));
        check_eq!((&buffer[..length], found), (text.as_bytes(), priority));
    }
    for wrong in [
        Attributes { messages: 0, size: 1 },
        Attributes { messages: 1, size: 0 },
        Attributes { messages: 1 << 30, size: 1 },
    ] {
        check_eq!(MessageQueue::new(wrong).err(), Some(Error::Invalid));
    }
}

/// Several send, several receive: each message arrives once, and those of one sender to one receiver in order.
fn queue_many(messages: u32) {
    const SENDERS: u32 = 4;
    let queue = expect!(MessageQueue::new(Attributes { messages: 64, size: 64 }));
    let counts = expect!(SharedMemory::new((SENDERS * messages) as usize * 4));
    match expect!(process::fork_many(SENDERS + 2)) {
        Forked::Child(number) if number < SENDERS => {
            for message in 0..messages {
                let mut bytes = [number as u8; 64];
                bytes[..4].copy_from_slice(&message.to_le_bytes());
                let length = 5 + message as usize % 60;
                expect!(queue.send(&bytes[..length], 0));
            }
        }
        Forked::Child(_) => {
            let mut last = [None; SENDERS as usize];
            let mut buffer = [0; 64];
            loop {
                let (length, priority) = expect!(queue.receive(&mut buffer));
                if length == 0 {
                    break;
                }
                let message = u32::from_le_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]);
                let sender = u32::from(buffer[4]);
                check_eq!((length, priority), (5 + message as usize % 60, 0));
                check!(buffer[4..length].iter().all(|byte| u32::from(*byte) == sender));
                check!(last[sender as usize].replace(message).is_none_or(|last| last < message));
                counts.atomic_u32((sender * messages + message) as usize * 4).fetch_add(1, Ordering::SeqCst);
            }
        }
        Forked::Parent(children) => {
            let (senders, receivers) = children.split_at(SENDERS as usize);
            senders.iter().copied().for_each(reap);
            for _ in receivers {
                expect!(queue.send(b"", 0));
            }
            receivers.iter().copied().for_each(reap);
            check!((0..(SENDERS * messages) as usize).all(|at| counts.atomic_u32(4 * at).load(Ordering::SeqCst) == 1));
            check!(queue.is_empty());
            return;
        }
    }
    process::exit(0)
}

/// A mutex, a condition variable and a semaphore in shared memory, used by four pVMs; the mutex of one that is killed.
fn shared() {
    const WORKERS: u32 = 4;
    const TURNS: u32 = 500;
    const MUTEX: usize = 0;
    const CONDITION: usize = 8;
    const SEMAPHORE: usize = 12;
    const COUNT: usize = 16;
    const STAGE: usize = 20;
    let memory = expect!(SharedMemory::new(64));
    check_eq!(Mutex::at(&memory, 4).err(), Some(Error::Invalid));
    check_eq!(Mutex::at(&memory, 64).err(), Some(Error::Invalid));
    check_eq!(Condvar::at(&memory, usize::MAX - 3).err(), Some(Error::Invalid));
    let mutex = expect!(Mutex::at(&memory, MUTEX));
    let condition = expect!(Condvar::at(&memory, CONDITION));
    let semaphore = expect!(shared::Semaphore::at(&memory, SEMAPHORE));
    let read = |at| memory.atomic_u32(at).load(Ordering::Relaxed);
    let write = |at, value| memory.atomic_u32(at).store(value, Ordering::Relaxed);

    // Without the mutex a count would be lost: it is read, others run, and it is written.
    match expect!(process::fork_many(WORKERS)) {
        Forked::Child(_) => {
            expect!(semaphore.wait());
            for turn in 0..TURNS {
                let _guard = expect!(mutex.lock());
                let count = read(COUNT);
                if turn % 16 == 0 {
                    thread::sleep(Duration::from_micros(50));
                }
                write(COUNT, count + 1);
            }
            let guard = expect!(mutex.lock());
            write(STAGE, read(STAGE) + 1);
            condition.notify_all();
            drop(guard);
            process::exit(0)
        }
        Forked::Parent(children) => {
            check_eq!(semaphore.try_wait(), Err(Error::WouldBlock));
            (0..WORKERS).for_each(|_| expect!(semaphore.post()));
            let mut guard = expect!(mutex.lock());
            while read(STAGE) < WORKERS {
                guard = expect!(condition.wait(guard));
            }
            drop(guard);
            children.into_iter().for_each(reap);
            check_eq!(read(COUNT), WORKERS * TURNS);
        }
    }

    // The time of a wait is limited, and the mutex is the caller's again afterwards.
    let (guard, notified) = expect!(condition.wait_timeout(expect!(mutex.lock()), Duration::from_millis(20)));
    check!(!notified && !guard.owner_died());
    let holder = child!({
        check_eq!(mutex.try_lock().err(), Some(Error::WouldBlock));
        check_eq!(mutex.lock_timeout(Duration::from_millis(20)).err(), Some(Error::WouldBlock));
        check_eq!(mutex.adopt().err(), Some(Error::NotOwner));
    });
    reap(holder);
    drop(guard);

    // The holder of the mutex is killed, while another waits for it, and while nobody does.
    for waits in [true, false] {
        write(STAGE, 0);
        let victim = child!({
            let _guard = expect!(mutex.lock());
            write(STAGE, 1);
            thread::sleep(3600 * SECOND);
        });
        while read(STAGE) == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        let killer = waits.then(|| {
            child!({
                thread::sleep(Duration::from_millis(50));
                expect!(process::kill(victim, SIGKILL));
            })
        });
        if !waits {
            expect!(process::kill(victim, SIGKILL));
            expect!(process::waitpid(Some(victim), false));
        }
        check!(expect!(mutex.lock()).owner_died());
        if let Some(killer) = killer {
            reap(killer);
            expect!(process::waitpid(Some(victim), false));
        }
        check!(!expect!(mutex.lock()).owner_died());
    }

    check_eq!(semaphore.set(u32::MAX), Err(Error::Invalid));
    expect!(semaphore.set(ipc::semaphore::MAX_VALUE));
    check_eq!(semaphore.post(), Err(Error::Overflow));
}

/// Several objects at once: what is ready is said, and nothing else; who waits is woken by each of them.
fn poll_objects() {
    let (reader, writer) = expect!(ipc::pipe());
    let queue = expect!(MessageQueue::new(Attributes { messages: 2, size: 8 }));
    let semaphore = expect!(Semaphore::new(0));
    let step = expect!(Semaphore::new(0));
    let signals = signal::set(&[10]);
    expect!(signal::block(signals));
    let blocked = Blocked(signals);
    let me = expect!(process::id().ok_or("no id"));
    let look = |limit| {
        let mut entries = [
            PollEntry::new(&reader, Events::READABLE),
            PollEntry::new(&queue, Events::READABLE),
            PollEntry::new(&semaphore, Events::READABLE),
            PollEntry::new(&blocked, Events::READABLE),
        ];
        let count = poll(&mut entries, limit);
        let ready = entries.map(|entry| entry.ready);
        check_eq!(count, ready.iter().filter(|ready| !ready.is_empty()).count());
        ready
    };
    const NONE: Events = Events::empty();
    const READ: Events = Events::READABLE;
    check_eq!(look(Some(Duration::ZERO)), [NONE; 4]);
    let began = Instant::now();
    check_eq!(look(Some(Duration::from_millis(30))), [NONE; 4]);
    check!(began.elapsed() >= Duration::from_millis(30));

    // The end for writing is ready until it is full, or nobody reads.
    let writable = |queue: &MessageQueue| {
        let mut entries =
            [PollEntry::new(&writer, Events::WRITABLE), PollEntry::new(queue, Events::READABLE | Events::WRITABLE)];
        poll(&mut entries, Some(Duration::ZERO));
        entries.map(|entry| entry.ready)
    };
    check_eq!(writable(&queue), [Events::WRITABLE, Events::WRITABLE]);
    expect!(queue.send(b"1", 0));
    check_eq!(writable(&queue), [Events::WRITABLE, READ | Events::WRITABLE]);
    expect!(queue.send(b"2", 0));
    expect!(writer.write_all(&vec![1; PIPE_CAPACITY - PIPE_BUF + 1]));
    check_eq!(writable(&queue), [NONE, READ]);
    let mut all = vec![0; PIPE_CAPACITY];
    expect!(reader.read(&mut all));
    (0..2).for_each(|_| check_eq!(expect!(queue.receive(&mut all[..8])), (1, 0)));

    let driver = {
        let (queue, semaphore, step) = (queue.clone(), semaphore.clone(), step.clone());
        let end = writer.clone();
        child!({
            drop(end);
            drop(reader);
            // Each time the parent waits in its poll, or soon will.
            for place in 0..4 {
                expect!(step.wait());
                thread::sleep(Duration::from_millis(20));
                match place {
                    0 => expect!(writer.write_all(b"x")),
                    1 => expect!(queue.send(b"x", 0)),
                    2 => expect!(semaphore.post()),
                    _ => expect!(process::kill(me, 10)),
                }
            }
            expect!(step.wait());
            thread::sleep(Duration::from_millis(20));
            // The last writer goes by its end.
        })
    };
    drop(writer);
    let mut buffer = [0; 8];
    for place in 0..4 {
        expect!(step.post());
        let mut wanted = [NONE; 4];
        wanted[place] = READ;
        check_eq!(look(Some(10 * SECOND)), wanted);
        match place {
            0 => check_eq!(expect!(reader.read(&mut buffer)), 1),
            1 => check_eq!(expect!(queue.receive(&mut buffer)), (1, 0)),
            2 => expect!(semaphore.try_wait()),
            _ => check_eq!(expect!(signal::wait(signals)), 10),
        }
        check_eq!(look(Some(Duration::ZERO)), [NONE; 4]);
    }
    expect!(step.post());
    check_eq!(look(None), [Events::HANGUP, NONE, NONE, NONE]);
    reap(driver);
    let (reader, writer) = expect!(ipc::pipe());
    drop(reader);
    let mut entries = [PollEntry::new(&writer, Events::WRITABLE), PollEntry::none(NONE)];
    check_eq!((poll(&mut entries, None), entries[0].ready), (1, Events::ERROR));
}

/// Names: made, found, refused, removed; what has a name survives those who made it.
fn names() {
    check_eq!(Semaphore::open("none", OPEN, 1).err(), Some(Error::NotFound));
    check_eq!(Semaphore::open("", CREATE, 1).err(), Some(Error::Invalid));
    check_eq!(Semaphore::open("a/b", CREATE, 1).err(), Some(Error::Invalid));
    check_eq!(ipc::unlink("none"), Err(Error::NotFound));
    reap(child!({
        let made = expect!(Semaphore::open("places", EXCLUSIVE, 3));
        expect!(made.wait());
        expect!(expect!(MessageQueue::open("letters", CREATE, Attributes { messages: 3, size: 10 })).send(b"hello", 2));
    }));
    check_eq!(Semaphore::open("places", EXCLUSIVE, 3).err(), Some(Error::Exists));
    let found = expect!(Semaphore::open("places", CREATE, 100));
    check_eq!(found.value(), 2);
    check_eq!(MessageQueue::open("places", OPEN, Attributes::default()).err(), Some(Error::Invalid));
    let letters = expect!(MessageQueue::open("letters", OPEN, Attributes::default()));
    check_eq!(letters.attributes(), Attributes { messages: 3, size: 10 });
    let mut buffer = [0; 10];
    check_eq!(letters.try_receive(&mut buffer), Ok((5, 2)));
    // Twice open in one pVM, it is still one.
    drop(expect!(Semaphore::open("places", OPEN, 0)));
    reap(child!({ expect!(found.wait()) }));
    expect!(found.post());
    // Without its name it goes on, and another can have the name.
    expect!(ipc::unlink("places"));
    check_eq!(Semaphore::open("places", OPEN, 1).err(), Some(Error::NotFound));
    let other = expect!(Semaphore::open("places", EXCLUSIVE, 9));
    expect!(found.post());
    check_eq!((found.value(), other.value()), (3, 9));
    expect!(ipc::unlink("places"));
    expect!(ipc::unlink("letters"));
}

/// Two children that have nothing in common but their parent meet by name, and then a child of each; cousins signal each other, too.
fn siblings() {
    let meet = |names: [&str; 2], first: bool| {
        let (mine, theirs) = if first { (names[0], names[1]) } else { (names[1], names[0]) };
        let wakes = expect!(Semaphore::open(mine, CREATE, 0));
        let waits = expect!(Semaphore::open(theirs, CREATE, 0));
        for _ in 0..100 {
            expect!(wakes.post());
            expect!(waits.wait_timeout(10 * SECOND));
        }
    };
    let cousin = |first: bool| {
        let set = signal::set(&[SIGUSR1]);
        expect!(signal::block(set));
        let ids = expect!(SharedMemory::open("ids", CREATE, 8));
        let id = |mine: bool| ids.atomic_u32(if mine == first { 0 } else { 4 });
        id(true).store(expect!(process::id().ok_or("no id")).raw(), Ordering::SeqCst);
        meet(["third", "fourth"], first);
        let other = expect!(PvmId::from_raw(id(false).load(Ordering::SeqCst)).ok_or("no cousin's id"));
        expect!(process::kill(other, SIGUSR1));
        check_eq!(signal::wait_timeout(set, 10 * SECOND), Ok(SIGUSR1));
    };
    match expect!(process::fork_many(2)) {
        Forked::Child(number) => {
            meet(["first", "second"], number == 0);
            reap(child!({ cousin(number == 0) }));
            process::exit(0)
        }
        Forked::Parent(children) => children.into_iter().for_each(reap),
    }
    for name in ["first", "second", "third", "fourth"] {
        check_eq!(expect!(Semaphore::open(name, OPEN, 0)).value(), 0);
    }
}

const SIGUSR1: u8 = 10;
const SIGUSR2: u8 = 12;
const SIGTERM: u8 = 15;

/// The number of calls of `count`.
static COUNT: AtomicU32 = AtomicU32::new(0);
/// The last signal that it was called for.
static SIGNAL: AtomicU32 = AtomicU32::new(0);

fn count(signal: u8) {
    SIGNAL.store(signal.into(), Ordering::SeqCst);
    COUNT.fetch_add(1, Ordering::SeqCst);
}

/// Waits until `count` was called so often.
fn counted(times: u32) {
    for _ in 0..500 {
        if COUNT.load(Ordering::SeqCst) >= times {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    check_eq!(COUNT.load(Ordering::SeqCst), times);
}

/// Handlers, masks, and waiting, between relatives and to oneself.
fn signals() {
    let me = expect!(process::id().ok_or("no id"));
    expect!(signal::set_action(SIGUSR1, Action::Call(count)));
    for wrong in [0, SIGKILL, signal::SIGSTOP, 64] {
        check_eq!(signal::set_action(wrong, Action::Ignore).err(), Some(Error::Invalid));
    }
    expect!(process::kill(me, SIGUSR1));
    counted(1);
    check_eq!(process::kill(me, 0), Ok(()));
    check_eq!(process::kill(me, 64), Err(Error::Invalid));

    // Blocked, it waits, once; then it comes.
    check_eq!(signal::block(signal::set(&[SIGUSR1, SIGUSR2])), Ok(0));
    for _ in 0..3 {
        expect!(process::kill(me, SIGUSR1));
    }
    thread::sleep(Duration::from_millis(20));
    check_eq!((COUNT.load(Ordering::SeqCst), signal::pending()), (1, signal::set(&[SIGUSR1])));
    expect!(signal::unblock(signal::set(&[SIGUSR1])));
    counted(2);
    // Waited for, it calls no handler.
    check_eq!(signal::wait_timeout(signal::set(&[SIGUSR2]), Duration::from_millis(20)), Err(Error::WouldBlock));

    // A busy child has the handlers and the mask; its own signals are none of the parent's.
    let ready = expect!(Semaphore::new(0));
    let busy = child!({
        check_eq!(signal::pending(), 0);
        expect!(ready.post());
        while COUNT.load(Ordering::SeqCst) == 2 {
            core::hint::spin_loop();
        }
        // And one that waits.
        expect!(process::kill(me, SIGUSR2));
        check_eq!(signal::wait(signal::set(&[SIGUSR2])), Ok(SIGUSR2));
        expect!(process::kill(me, SIGUSR2));
    });
    expect!(ready.wait());
    expect!(process::kill(busy, SIGUSR1));
    check_eq!(signal::wait_timeout(signal::set(&[SIGUSR2]), 10 * SECOND), Ok(SIGUSR2));
    expect!(process::kill(busy, SIGUSR2));
    check_eq!(signal::wait_timeout(signal::set(&[SIGUSR2]), 10 * SECOND), Ok(SIGUSR2));
    reap(busy);
    check_eq!(COUNT.load(Ordering::SeqCst), 2);
    check_eq!(process::kill(busy, SIGUSR1), Err(Error::NotFound));

    expect!(signal::set_action(SIGCHLD, Action::Call(count)));
    reap(child!({}));
    counted(3);
    check_eq!(SIGNAL.load(Ordering::SeqCst), u32::from(SIGCHLD));
}

/// Signals that nobody handles end a pVM, wherever they come from; 9 cannot be handled.
fn signals_end() {
    let status = |child| expect!(process::waitpid(Some(child), false)).map(|ended| ended.status);
    let idle = || thread::sleep(3600 * SECOND);
    // Before anybody has anything to do with signals, and after.
    for _ in 0..2 {
        for signal in [SIGTERM, SIGUSR1, SIGKILL] {
            let child = child!({ idle() });
            expect!(process::kill(child, signal));
            check_eq!(status(child), Some(Status::Killed(signal)));
        }
        expect!(signal::set_action(SIGUSR2, Action::Call(count)));
    }
    let ready = expect!(Semaphore::new(0));
    let child = child!({
        expect!(signal::set_action(SIGTERM, Action::Ignore));
        expect!(signal::block(u64::MAX));
        expect!(ready.post());
        idle()
    });
    expect!(ready.wait());
    for signal in [SIGTERM, SIGUSR1] {
        expect!(process::kill(child, signal));
    }
    thread::sleep(Duration::from_millis(50));
    check_eq!(process::waitpid(Some(child), true), Ok(None));
    expect!(process::kill(child, SIGKILL));
    check_eq!(status(child), Some(Status::Killed(SIGKILL)));
}

/// Nobody posts while two pVMs take at once: whoever is refused has seen the end.
fn takers() {
    const VALUE: u32 = 100_000;
    const TAKEN: usize = 0;
    const REFUSED: usize = 8;
    let counts = expect!(SharedMemory::new(4096));
    let (tries, go) = (expect!(Semaphore::new(VALUE)), expect!(Semaphore::new(0)));
    let children = [(); 2].map(|()| {
        child!({
            expect!(go.wait());
            let (mut taken, mut refused) = (0, 0);
            loop {
                match tries.try_wait() {
                    Ok(()) => taken += 1,
                    Err(_) if tries.value() > 0 => refused += 1,
                    Err(_) => break,
                }
            }
            counts.atomic_u32(TAKEN).fetch_add(taken, Ordering::SeqCst);
            counts.atomic_u32(REFUSED).fetch_add(refused, Ordering::SeqCst);
        })
    });
    children.iter().for_each(|_| expect!(go.post()));
    children.into_iter().for_each(reap);
    let count = |place| counts.atomic_u32(place).load(Ordering::SeqCst);
    check_eq!((count(TAKEN), count(REFUSED)), (VALUE, 0));
}

/// Nobody writes nonsense into a pipe that three pVMs look at, read from and write to at once: it is never broken.
fn looks() {
    const TURNS: u32 = 20_000;
    let (reader, writer) = expect!(ipc::pipe());
    let children = [(); 2].map(|()| {
        child!({
            for _ in 0..TURNS {
                let mut wanted = [PollEntry::new(&reader, Events::READABLE)];
                let _ = poll(&mut wanted, Some(Duration::ZERO));
                check!(!wanted[0].ready.contains(Events::ERROR));
                match reader.try_read(&mut [0; 64]) {
                    Ok(_) | Err(Error::WouldBlock) => {}
                    Err(error) => error!("a reader: {error}"),
                }
            }
        })
    });
    for _ in 0..TURNS {
        match writer.try_write(&[7; 16]) {
            Ok(_) | Err(Error::WouldBlock) => {}
            Err(error) => error!("the writer: {error}"),
        }
    }
    children.into_iter().for_each(reap);
}

/// When `waitpid` has told of a child that was killed, the child runs no more: it writes nothing, and sees nothing of what its parent writes
/// from then on.
fn killed_is_still() {
    const TURNS: usize = 0;
    const SEEN: usize = 8;
    /// Nobody does: the child is killed.
    const STOP: usize = 16;
    const ROUNDS: u32 = 40;
    /// Reads by the parent, in which a child that runs on would be seen to.
    const LOOKS: u32 = 100_000;
    let joint = expect!(SharedMemory::new(4096));
    let word = |place| joint.atomic_u32(place);
    for round in 1..=ROUNDS {
        let mut memory = vec![round; 64 * 1024];
        word(SEEN).store(0, Ordering::SeqCst);
        word(TURNS).store(0, Ordering::SeqCst);
        let child = child!({
            while joint.atomic_u32(STOP).load(Ordering::SeqCst) == 0 {
                joint.atomic_u32(TURNS).fetch_add(1, Ordering::SeqCst);
                for word in memory.iter().step_by(1024) {
                    // SAFETY: a word of the vector.
                    let word = unsafe { core::ptr::from_ref(word).read_volatile() };
                    if word != round {
                        joint.atomic_u32(SEEN).store(word, Ordering::SeqCst);
                    }
                }
            }
        });
        while word(TURNS).load(Ordering::SeqCst) == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        expect!(process::kill(child, SIGKILL));
        let ended = expect!(process::waitpid(Some(child), false)).map(|ended| ended.status);
        check_eq!(ended, Some(Status::Killed(SIGKILL)));
        let turns = word(TURNS).load(Ordering::SeqCst);
        memory.fill(round + 1000);
        for _ in 0..LOOKS {
            let now = word(TURNS).load(Ordering::SeqCst);
            if now != turns {
                failure!("round {round}: after waitpid the killed child went on for {} turns", now.wrapping_sub(turns));
            }
        }
        check_eq!(word(SEEN).load(Ordering::SeqCst), 0);
    }
}
