//! Replaces a library while it is in use: `live` of tests/libraries, of which the archive has
//! several versions.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use test_guests::{Random, argument, check, check_eq, error, expect, failure, settle, success};
use zooid::dl::{self, Error, Flags, Library, Mismatch, Refusal, RuleRefusal};
use zooid::process::{self, Status};
use zooid::sync::{Condvar, Mutex};
use zooid::time::{Duration, Instant};
use zooid::{memory, thread};
use zooid_kernel::events::Masked;

zooid::main!(main, mode = kernel);

/// The notes of the versions' constructors, destructors and `migrate`.
static NOTES: Masked<Vec<u8>> = Masked::new(Vec::new());

extern "C" fn note(octet: c_int) {
    NOTES.lock().push(octet as u8);
}

dl::trust!(include_bytes!("../../../libraries/test-only.pub"));
dl::live!("liblive.so");
dl::require!("liblive.so", "<8");

zooid_kernel::export! { "test_note" => note }

/// The time that an update which is to succeed may wait.
const PATIENCE: Duration = Duration::from_secs(5);

fn main() {
    settle();
    match argument() {
        "replace" => replace(),
        "refused" => refused(),
        "busy" => busy(),
        "threads" => threads(),
        "fork" => fork(),
        "full" => full(),
        other => error!("unknown test {other:?}"),
    }
    success();
}

fn notes() -> String {
    let notes = core::mem::take(&mut *NOTES.lock());
    String::from_utf8_lossy(&notes).into_owned()
}

/// A function of a library.
fn function<F: Copy>(library: &Library, name: &str) -> F {
    // SAFETY: tests/libraries says that the function is of this type.
    expect!(unsafe { library.function(name) })
}

type Number = extern "C" fn() -> c_int;
type OfNumber = extern "C" fn(c_int) -> c_int;
type Call = extern "C" fn(extern "C" fn() -> c_int) -> c_int;

/// `live` and its user, with functions that are looked up once.
struct Opened {
    live: Library,
    user: Library,
    version: Number,
    count: Number,
    check: OfNumber,
}

fn open() -> Opened {
    let user = expect!(dl::open("libuser.so", Flags::default()));
    let live = expect!(dl::open("liblive.so", Flags::default()));
    let (version, count) = (function(&live, "live_version"), function(&live, "live_count"));
    let check = function(&user, "user_check");
    Opened { live, user, version, count, check }
}

impl Opened {
    /// Checks that all is of one version.
    fn check(&self, version: c_int) {
        check_eq!((self.version)(), version);
        check_eq!((self.check)(version), 0);
        check_eq!(function::<Number>(&self.live, "live_version_again")(), version);
        check_eq!(function::<Number>(&self.live, "live_chosen")(), version);
        check_eq!(function::<Number>(&self.live, "live_mine")(), 7 * version);
        let numbers = expect!(self.live.symbol("live_numbers")).cast::<c_int>();
        // SAFETY: the library's array.
        check_eq!(unsafe { *numbers }, version);
    }

    /// An address in the text of the version that is in use.
    fn inside(&self) -> *const () {
        function::<extern "C" fn() -> *const ()>(&self.live, "live_inside")()
    }
}

fn update(version: &str) -> Result<(String, String), Error> {
    dl::update("liblive.so", Some(version), PATIENCE)
}

/// All users of the library, of its functions, or of references to it have the new version; the old
/// one is gone.
fn replace() {
    let opened = open();
    check_eq!(notes(), "1");
    opened.check(1);
    check_eq!(((opened.count)(), (opened.count)()), (1, 2));
    let old = opened.inside();
    check_eq!(dl::address(old).map(|found| found.object), Some("liblive.so".to_string()));
    let entry = expect!(opened.live.symbol("live_version"));

    check_eq!(update("2.0.0"), Ok(("1.0.0".to_string(), "2.0.0".to_string())));
    check_eq!(notes(), "2mA");
    opened.check(2);
    check_eq!((opened.count)(), 3);
    check_eq!(opened.live.symbol("live_version"), Ok(entry));
    check_eq!(dl::address(old), None);
    check_eq!(dl::address(opened.inside()).map(|found| found.object), Some("liblive.so".to_string()));
    let mut names = Vec::new();
    dl::iterate(|object| names.push(object.name));
    names.sort();
    check_eq!(names, ["liblive.so", "libuser.so"]);
    // An update to the version that is there already does nothing.
    check_eq!(update("2.0.0"), Ok(("2.0.0".to_string(), "2.0.0".to_string())));
    check_eq!(notes(), "");
    // A new opener gets the same library.
    let again = expect!(dl::open("liblive.so", Flags::default()));
    check_eq!(again.symbol("live_version"), Ok(entry));
    drop(again);
    check_eq!(notes(), "");

    // A thread that begins now has the variables of the new version.
    let mine: Number = function(&opened.live, "live_mine");
    check_eq!(thread::spawn(move || mine()).join(), 14);

    // Back and forth, without loss.
    let round = |count: c_int| {
        expect!(update("1.0.0"));
        opened.check(1);
        expect!(update("2.0.0"));
        opened.check(2);
        check_eq!((opened.count)(), count);
        check_eq!(notes(), "1mB2mA");
    };
    (4..8).for_each(round);
    let before = memory::statistics();
    (8..58).for_each(round);
    lost_nothing(&before);

    // The last one that is in use is finalised in the end.
    let inside = opened.inside();
    drop(opened);
    check_eq!(notes(), "B");
    check_eq!(dl::address(inside), None);
    check_eq!(update("1.0.0"), Err(Error::NotOpen));
    check_eq!(dl::update("libuser.so", None, PATIENCE), Err(Error::NotOpen));
}

/// Checks that at least thirty rounds have cost nothing: an allocation in each would be more than
/// the heap may lose between blocks.
fn lost_nothing(before: &memory::Statistics) {
    let after = memory::statistics();
    check_eq!((before.total, before.free), (after.total, after.free));
    check!(after.heap_used <= before.heap_used + 256);
}

/// A version that cannot take the place of the old one leaves that as it is, and nothing of itself.
fn refused() {
    let opened = open();
    opened.check(1);
    check_eq!((opened.count)(), 1);
    notes();
    let inside = opened.inside();
    let mismatch = |symbol: &str, mismatch| {
        let refusal = Refusal::Mismatch { symbol: symbol.into(), mismatch };
        Error::Refused { object: "liblive.so".into(), refusal }
    };
    let forbidden = |version: &str, expected: &str| match update(version) {
        Err(Error::Forbidden { object, rule }) => {
            check_eq!(object, "liblive.so");
            let said = rule.to_string();
            if !said.starts_with(expected) {
                failure!("{version}: {said}, and not {expected}");
            }
        }
        other => failure!("{version}: {other:?}"),
    };
    let round = || {
        check_eq!(update("3.0.0"), Err(mismatch("live_count", Mismatch::Missing)));
        check_eq!(notes(), "3C");
        check_eq!(update("4.0.0"), Err(mismatch("live_numbers", Mismatch::Smaller)));
        check_eq!(notes(), "4D");
        check_eq!(update("5.0.0"), Err(Error::Migration { object: "liblive.so".into(), code: 7 }));
        check_eq!(notes(), "5mE");
        forbidden("6.0.0", "signature rule: it has no manifest");
        forbidden("7.0.0", "signature rule: the key ");
        forbidden("8.0.0", "version rule: it is 8.0.0, wanted is <8");
        let none = |version: &str| Error::NoVersion { object: "liblive.so".into(), version: Some(version.into()) };
        check_eq!(update("9.0.0"), Err(none("9.0.0")));
        check_eq!(update("no version"), Err(none("no version")));
        check_eq!(dl::update("libuser.so", None, PATIENCE), Err(Error::NotLive("libuser.so".into())));
        check_eq!(notes(), "");
        opened.check(1);
        check_eq!(opened.inside(), inside);
    };
    // The first round makes room that the loader keeps.
    round();
    let before = memory::statistics();
    (0..30).for_each(|_| round());
    lost_nothing(&before);
    check_eq!((opened.count)(), 2);
    // The newest version is forbidden; a permitted one can still be had.
    let newest = dl::update("liblive.so", None, PATIENCE);
    check!(matches!(newest, Err(Error::Forbidden { rule: RuleRefusal::Version { .. }, .. })));
    expect!(update("2.0.0"));
    opened.check(2);
    check_eq!((opened.count)(), 3);
}

/// Lets a thread wait for another.
struct Door {
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

static DOOR: Door = Door { state: Mutex::new((false, false)), changed: Condvar::new() };

impl Door {
    /// Says that the caller is there, and waits until it may go on.
    fn wait(&self) {
        let mut state = self.state.lock();
        state.0 = true;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| !state.1));
    }

    fn until_somebody_waits(&self) {
        drop(self.changed.wait_while(self.state.lock(), |state| !state.0));
    }

    fn open(&self) {
        self.state.lock().1 = true;
        self.changed.notify_all();
    }

    fn close(&self) {
        *self.state.lock() = (false, false);
    }
}

extern "C" fn wait_at_door() -> c_int {
    DOOR.wait();
    0
}

/// A library in use is not replaced: not while a thread is in a function of it, nor while one is in
/// a section. Newcomers wait, and go on with the old version when the update gives up.
fn busy() {
    let opened = Arc::new(open());
    let short = Duration::from_millis(100);
    let late = || dl::update("liblive.so", Some("2.0.0"), short);
    let call: Call = function(&opened.live, "live_call");
    let limit = || Err(Error::TimeLimit("liblive.so".to_string()));

    // The thread is in a function of the library, which waits in the application.
    let caller = thread::spawn(move || call(wait_at_door));
    DOOR.until_somebody_waits();
    let began = Instant::now();
    check_eq!(late(), limit());
    check!(began.elapsed() >= short && began.elapsed() < PATIENCE);
    opened.check(1);
    // As soon as it leaves, the update is done. A caller meanwhile waits for the new version.
    let version = opened.version;
    let calls = Arc::new(AtomicU32::new(0));
    let newcomer = {
        let calls = Arc::clone(&calls);
        thread::spawn(move || {
            while version() == 1 {
                calls.fetch_add(1, Ordering::Relaxed);
                thread::yield_now();
            }
            version()
        })
    };
    // The door opens when the newcomer's calls do not come to an end any more.
    let opener = thread::spawn(move || {
        let mut before = None;
        while before.replace(calls.load(Ordering::Relaxed)) != Some(calls.load(Ordering::Relaxed)) {
            thread::sleep(Duration::from_millis(50));
        }
        DOOR.open();
    });
    expect!(update("2.0.0"));
    check_eq!(caller.join(), 1);
    check_eq!(newcomer.join(), 2);
    opener.join();
    opened.check(2);

    // The thread is in a section, but in no function of the library.
    DOOR.close();
    let holder = {
        let opened = Arc::clone(&opened);
        thread::spawn(move || {
            let outer = opened.live.enter();
            let inner = opened.live.enter();
            let before = (opened.version)();
            drop(inner);
            DOOR.wait();
            // The section goes on in the version that it began with, however many wait for its end.
            let inner = opened.live.enter();
            let after = ((opened.version)(), (opened.check)(before));
            drop(inner);
            drop(outer);
            (before, after)
        })
    };
    DOOR.until_somebody_waits();
    let back = || dl::update("liblive.so", Some("1.0.0"), short);
    check_eq!(back(), limit());
    opened.check(2);
    let over = Arc::new(AtomicBool::new(false));
    let newcomer = {
        let (opened, over) = (Arc::clone(&opened), Arc::clone(&over));
        thread::spawn(move || {
            let mut waits = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let began = Instant::now();
                let section = opened.live.enter();
                waits.extend(Some(began.elapsed()).filter(|wait| *wait >= Duration::from_millis(5)));
                check_eq!((opened.version)(), 2);
                drop(section);
                thread::yield_now();
            }
            waits
        })
    };
    // The update gives up. The newcomer has waited in each of its attempts, and gone on with the old
    // version after it.
    check_eq!(dl::update("liblive.so", Some("1.0.0"), Duration::from_secs(1)), limit());
    over.store(true, Ordering::Relaxed);
    let waits = newcomer.join();
    check!(waits.len() >= 2 && waits.iter().any(|wait| *wait >= Duration::from_millis(100)));
    let opener = thread::spawn(|| {
        thread::sleep(Duration::from_millis(50));
        DOOR.open();
    });
    expect!(update("1.0.0"));
    check_eq!(holder.join(), (2, (2, 0)));
    opener.join();
    opened.check(1);

    // A section of C code.
    DOOR.close();
    let in_section: Call = function(&opened.user, "user_in_section");
    let holder = thread::spawn(move || in_section(wait_at_door));
    DOOR.until_somebody_waits();
    check_eq!(late(), limit());
    DOOR.open();
    check_eq!(holder.join(), 1);

    // A thread cannot wait for itself.
    let section = opened.live.enter();
    check_eq!(late(), limit());
    drop(section);
    let inside = call(update_from_inside);
    check_eq!(inside, 1);
    expect!(update("2.0.0"));
    opened.check(2);
}

/// Without memory, calls that have an error return it, and nothing has changed.
fn full() {
    type DlSym = extern "C" fn(*const c_void, *const c_char) -> *const c_void;
    type DlError = extern "C" fn() -> *const c_char;
    let opened = open();
    // SAFETY: the functions of dlfcn.h.
    let dlsym: DlSym = unsafe { core::mem::transmute(expect!(dl::symbol("dlsym"))) };
    // SAFETY: as above.
    let dlerror: DlError = unsafe { core::mem::transmute(expect!(dl::symbol("dlerror"))) };

    let mut blocks: Vec<Vec<u8>> = Vec::with_capacity(20_000);
    for size in [1 << 20, 64 << 10, 4 << 10, 256, 64] {
        let mut block = Vec::new();
        while blocks.len() < blocks.capacity() && block.try_reserve_exact(size).is_ok() {
            blocks.push(core::mem::take(&mut block));
        }
    }
    check!(Vec::<u8>::new().try_reserve_exact(64).is_err());
    let out_of_memory = |result: Result<(), Error>| check_eq!(result, Err(Error::OutOfMemory));
    for _ in 0..3 {
        out_of_memory(dl::update("liblive.so", Some("2.0.0"), PATIENCE).map(drop));
        out_of_memory(dl::open("libnull.so", Flags::default()).map(drop));
        out_of_memory(opened.live.symbol("live_version").map(drop));
        check!(dlsym(core::ptr::null(), c"dlopen".as_ptr()).is_null());
        // SAFETY: dlsym has failed, so this is a text.
        check_eq!(unsafe { CStr::from_ptr(dlerror()) }, c"not enough memory for a library");
    }
    check!(Vec::<u8>::new().try_reserve_exact(64).is_err());
    // The frames stay with the heap, so this is enough for a search alone.
    drop(blocks);
    expect!(opened.live.symbol("live_version"));
    opened.check(1);
}

/// Called by the library. Returns 0 if the update that it asks for reaches its time limit.
extern "C" fn update_from_inside() -> c_int {
    let result = dl::update("liblive.so", Some("2.0.0"), Duration::from_millis(20));
    c_int::from(result != Err(Error::TimeLimit("liblive.so".to_string())))
}

/// Threads call all the while, and are preempted in the library: none sees two versions in a
/// section, and no call is lost.
fn threads() {
    const THREADS: u64 = 6;
    let opened = Arc::new(open());
    let over = Arc::new(AtomicBool::new(false));
    let worker = |seed: u64| {
        let (opened, over) = (Arc::clone(&opened), Arc::clone(&over));
        thread::spawn(move || {
            let mut random = Random::new(seed);
            let spin: OfNumber = function(&opened.live, "live_spin");
            let (mut calls, mut seen) = (0, [false; 3]);
            while !over.load(Ordering::Relaxed) {
                let rounds = random.below(200_000) as c_int;
                match random.below(4) {
                    // Outside of sections each call is of one version; most of these are preempted.
                    0 => seen[spin(10 * rounds) as usize] = true,
                    1 => thread::sleep(Duration::from_micros(random.below(1000))),
                    _ => {
                        let section = opened.live.enter();
                        let version = (opened.version)();
                        (opened.count)();
                        calls += 1;
                        match random.below(3) {
                            0 => thread::yield_now(),
                            1 => thread::sleep(Duration::from_micros(random.below(500))),
                            _ => check_eq!(spin(rounds), version),
                        }
                        check_eq!((opened.version)(), version);
                        check_eq!((opened.check)(version), 0);
                        drop(section);
                        seen[version as usize] = true;
                    }
                }
            }
            check!(seen[1] && seen[2]);
            calls
        })
    };
    let workers: Vec<_> = (0..THREADS).map(worker).collect();
    for _ in 0..30 {
        expect!(update("2.0.0"));
        thread::sleep(Duration::from_millis(5));
        expect!(update("1.0.0"));
        thread::sleep(Duration::from_millis(5));
    }
    over.store(true, Ordering::Relaxed);
    let calls: c_int = workers.into_iter().map(|worker| worker.join()).sum();
    let counter: Number = function(&opened.live, "live_counter");
    check_eq!(counter(), calls);
    check!(calls > 100);
    opened.check(1);
}

/// A child has the version of its parent. An update of one of them is not seen by the other.
fn fork() {
    let opened = open();
    opened.check(1);
    for round in 0..3 {
        // The parent updates while its child lives; in later rounds it has updated before the fork,
        // too.
        match expect!(process::fork()) {
            None => {
                opened.check(1);
                thread::sleep(Duration::from_millis(100));
                opened.check(1);
                expect!(update("2.0.0"));
                opened.check(2);
                check_eq!((opened.count)(), round + 1);
                expect!(update("1.0.0"));
                opened.check(1);
                process::exit(0)
            }
            Some(child) => {
                opened.check(1);
                expect!(update("2.0.0"));
                opened.check(2);
                let ended = expect!(process::waitpid(Some(child), false));
                check_eq!(ended.map(|ended| ended.status), Some(Status::Exited(0)));
                opened.check(2);
                check_eq!((opened.count)(), round + 1);
                expect!(update("1.0.0"));
                opened.check(1);
            }
        }
    }
    // Sections of threads that a child does not have are no reason to wait.
    let opened = Arc::new(opened);
    let holder = {
        let opened = Arc::clone(&opened);
        thread::spawn(move || {
            let _section = opened.live.enter();
            DOOR.wait();
        })
    };
    DOOR.until_somebody_waits();
    match expect!(process::fork()) {
        None => {
            expect!(update("2.0.0"));
            opened.check(2);
            process::exit(0)
        }
        Some(child) => {
            let ended = expect!(process::waitpid(Some(child), false));
            check_eq!(ended.map(|ended| ended.status), Some(Status::Exited(0)));
        }
    }
    DOOR.open();
    holder.join();
}
