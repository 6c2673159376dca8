//! `threads`: threads that fork beside threads that ask pvmd for pipes, signals and pages of
//! libraries, and beside forks from outside, which take all threads along: each fork gives its
//! caller its own child, each request its own answer, and nothing waits for ever, on either side.
//! `in_signal_handler`: a fork in a handler.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::ffi::c_int;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use core::time::Duration;

use test_guests::{argument, check, check_eq, error, expect, failure, settle, success};
use zooid::dl::{self, Flags, Library};
use zooid::process::{self, ForkError, PvmId, Status};
use zooid::signal::{self, Action};
use zooid::sync::Mutex;
use zooid::{ipc, println, thread, xenstore};

zooid::main!(main, mode = kernel);

extern "C" fn note(_: c_int) {}

dl::trust!(include_bytes!("../../../libraries/test-only.pub"));
dl::live!("liblive.so");

zooid_kernel::export! { "test_note" => note }

/// Forks of each thread at least.
const FORKS: u32 = 20;
/// Exit codes of children; 1 and 2 are those of a failure.
const CODES: core::ops::Range<u32> = 10..70;
/// The exit code of a child that was forked from outside.
const OUTSIDE: u8 = 77;

/// The id of the pVM in which this began.
static FIRST: AtomicU32 = AtomicU32::new(0);
static OVER: AtomicBool = AtomicBool::new(false);
static FORKED: AtomicU32 = AtomicU32::new(0);
/// Ids that forks have returned.
static IDS: Mutex<Vec<PvmId>> = Mutex::new(Vec::new());

/// True in a pVM that was forked from outside, and in its children.
fn is_elsewhere() -> bool {
    process::id().map(PvmId::raw) != Some(FIRST.load(Ordering::Relaxed))
}

fn is_over() -> bool {
    OVER.load(Ordering::Relaxed) || is_elsewhere()
}

type Number = extern "C" fn() -> c_int;

fn function(library: &Library, name: &str) -> Number {
    // SAFETY: tests/libraries says that the function is of this type.
    expect!(unsafe { library.function(name) })
}

fn main() {
    settle();
    match argument() {
        "threads" => threads(),
        "in_signal_handler" => in_signal_handler(),
        other => error!("unknown test {other:?}"),
    }
    success();
}

fn threads() {
    let me = expect!(process::id().ok_or("no id"));
    FIRST.store(me.raw(), Ordering::Relaxed);
    let live = expect!(dl::open("liblive.so", Flags::default()));
    let version = function(&live, "live_version");
    let forkers = [(); 2].map(|()| thread::spawn(move || fork_and_wait(version)));
    let others = [
        thread::spawn(|| repeat(use_pipe)),
        thread::spawn(|| repeat(|| pause_after(use_library))),
        thread::spawn(move || repeat(|| expect!(process::kill(me, 0)))),
        thread::spawn(|| {
            repeat(|| {
                for version in ["2.0.0", "1.0.0"] {
                    let patience = Duration::from_secs(60);
                    pause_after(|| drop(expect!(dl::update("liblive.so", Some(version), patience))));
                }
            })
        }),
    ];
    println!("at work");
    while !is_elsewhere() && (xenstore::read("data/stop").is_err() || FORKED.load(Ordering::Relaxed) < 2 * FORKS) {
        thread::sleep(Duration::from_millis(50));
    }
    OVER.store(true, Ordering::Relaxed);
    forkers.into_iter().for_each(|thread| thread.join());
    others.into_iter().for_each(|thread| thread.join());
    // Those that were forked from outside; everybody else was waited for.
    let mut from_outside = 0;
    while let Ok(ended) = process::wait() {
        check_eq!((ended.id, ended.status), (ended.id, Status::Exited(OUTSIDE)));
        from_outside += 1;
    }
    if is_elsewhere() {
        process::exit(OUTSIDE.into());
    }
    let mut ids = IDS.lock();
    let count = ids.len();
    ids.sort();
    ids.dedup();
    check_eq!(ids.len(), count);
    println!("{count} forks, {from_outside} from outside");
}

fn repeat(act: impl Fn()) {
    while !is_over() {
        act();
        thread::yield_now();
    }
}

/// Page tables that change at each look are a fork's reason to give up.
fn pause_after(act: impl Fn()) {
    act();
    thread::sleep(Duration::from_millis(200));
}

fn fork_and_wait(version: Number) {
    while !is_over() {
        let number = FORKED.fetch_add(1, Ordering::Relaxed);
        let code = CODES.start + number % CODES.len() as u32;
        let parent = process::id();
        match process::fork() {
            Ok(None) => live_and_end(version, code),
            Ok(Some(child)) => {
                let ended = process::waitpid(Some(child), false);
                // A fork from outside may have come in between: then this thread is in the child,
                // whose child that one is not.
                if process::id() != parent {
                    continue;
                }
                IDS.lock().push(child);
                check_eq!(ended.map(|ended| ended.map(|ended| ended.status)), Ok(Some(Status::Exited(code as u8))));
            }
            Err(ForkError::Again) => thread::sleep(Duration::from_millis(20)),
            Err(error) => failure!("fork: {error}"),
        }
    }
}

/// A child asks for something of its own, and ends.
fn live_and_end(version: Number, code: u32) -> ! {
    use_pipe();
    let parent = expect!(process::parent_id().ok_or("no parent"));
    expect!(process::kill(parent, 0));
    check!(matches!(version(), 1 | 2));
    process::exit(code as i32)
}

fn use_pipe() {
    let (reader, writer) = expect!(ipc::pipe());
    expect!(writer.write_all(b"seven"));
    let mut octets = [0; 8];
    check_eq!(expect!(reader.read(&mut octets)), 5);
    check_eq!(&octets[..5], b"seven");
}

fn use_library() {
    let library = expect!(dl::open("liblarge.so", Flags::default()));
    let next = function(&library, "large_next");
    check_eq!((next(), next()), (6, 7));
}

/// A child that is forked in a handler of a signal is a pVM of its own: none of its parent's
/// signals wait for it, and those that are sent to it reach it, handled or not.
fn in_signal_handler() {
    const FORK: u8 = 10;
    const BLOCKED: u8 = 12;
    const EXIT: u8 = 14;
    const TERM: u8 = 15;
    static CHILD: AtomicU32 = AtomicU32::new(0);
    fn forks(_: u8) {
        match expect!(process::fork()) {
            Some(child) => CHILD.store(child.raw(), Ordering::Relaxed),
            // A signal of its parent's would come now.
            None => drop(expect!(signal::unblock(signal::set(&[BLOCKED])))),
        }
    }
    let me = expect!(process::id().ok_or("no id"));
    expect!(signal::set_action(FORK, Action::Call(forks)));
    for signal in [BLOCKED, EXIT] {
        expect!(signal::set_action(signal, Action::Call(|signal| process::exit(signal.into()))));
    }
    expect!(signal::block(signal::set(&[BLOCKED])));
    expect!(process::kill(me, BLOCKED));
    for (sent, status) in [(EXIT, Status::Exited(EXIT)), (TERM, Status::Killed(TERM))] {
        CHILD.store(0, Ordering::Relaxed);
        expect!(process::kill(me, FORK));
        let child = loop {
            match PvmId::from_raw(CHILD.load(Ordering::Relaxed)) {
                Some(child) => break child,
                None => thread::yield_now(),
            }
        };
        expect!(process::kill(child, sent));
        let ended = expect!(process::waitpid(Some(child), false));
        check_eq!(ended.map(|ended| ended.status), Some(status));
        // `SIGCHLD` may be on its way.
        check_eq!(signal::pending() & signal::set(&[BLOCKED]), signal::set(&[BLOCKED]));
    }
}
