//! Loads a C library as others wrote it, with its test (tests/libraries/real), and runs the test as
//! Linux would run the program. The first word of the command line is the library. With `storm`,
//! the test runs again and again, while events come in and children are forked, so that pages are
//! copied when they are written. Other words are objects to be opened before, in place of the
//! image's own.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::ffi::{CStr, c_char, c_int};
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use test_guests::{check, check_eq, expect, success};
use zooid::dl::{self, Flags};
use zooid::process::{self, Status};
use zooid::time::Duration;
use zooid::{env, println, thread};
use zooid_kernel::export;

zooid::main!(main, mode = kernel);

dl::trust!(include_bytes!("../../../libraries/test-only.pub"));

/// The number of forks of a storm, which goes on until the test is over.
const CHILDREN: u32 = 8;

static FORKED: AtomicU32 = AtomicU32::new(0);
static OVER: AtomicBool = AtomicBool::new(false);

export! { "in_thread" => in_thread }

/// Calls a function in a new thread, and waits for its end, as the program for Linux does
/// (tests/libraries/features/linux.c).
extern "C" fn in_thread(act: extern "C" fn()) {
    thread::spawn(move || act()).join();
}

fn main() {
    let mut words = env::args();
    let name = words.next().unwrap_or_default();
    let (storms, objects): (Vec<_>, Vec<_>) = words.partition(|word| *word == "storm");
    let opened: Vec<_> = objects.into_iter().map(|object| expect!(dl::open(object, Flags::default()))).collect();
    let library = expect!(dl::open(&alloc::format!("{name}_tests.so"), Flags::default()));
    type Main = extern "C" fn(c_int, *const *const c_char) -> c_int;
    // SAFETY: every test in tests/libraries/real and tests/libraries/features has a `main` of C's
    // type.
    let run: Main = expect!(unsafe { library.function("main") });
    let program: &CStr = c"test";
    let storms = !storms.is_empty();
    // lz4's test wants more stack than the first thread has.
    let thread = thread::Builder::new().stack_size(1 << 20).spawn(move || {
        loop {
            println!("begins");
            let status = run(1, [program.as_ptr(), ptr::null()].as_ptr());
            println!("ends");
            if status != 0 || !storms || FORKED.load(Ordering::Relaxed) >= CHILDREN {
                OVER.store(true, Ordering::Relaxed);
                return status;
            }
        }
    });
    let thread = expect!(thread);
    if storms {
        let events = storm();
        println!("{} children, {events} events", FORKED.load(Ordering::Relaxed));
        check!(events > 10 * CHILDREN);
    }
    check_eq!(thread.join(), 0);
    drop(opened);
    success();
}

/// Disturbs the test until it is over. Returns the number of timer events.
fn storm() -> u32 {
    let events = thread::spawn(|| {
        let mut events = 0;
        while !OVER.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_micros(200));
            events += 1;
        }
        events
    });
    while !OVER.load(Ordering::Relaxed) {
        match expect!(process::fork()) {
            None => process::exit(0),
            Some(child) => {
                let ended = expect!(process::waitpid(Some(child), false));
                check_eq!(ended.map(|ended| ended.status), Some(Status::Exited(0)));
            }
        }
        FORKED.fetch_add(1, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(5));
    }
    events.join()
}
