//! Loads the objects of tests/libraries from the ramdisk.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ffi::{c_double, c_int, c_void};

use test_guests::{argument, check, check_eq, error, expect, failure, success};
use zooid::dl::{self, Error, Flags, Library, Refusal};
use zooid::process::{self, Status};
use zooid::time::{Duration, Instant};
use zooid::{env, memory, println, thread};
use zooid_kernel::events::Masked;

zooid::main!(main, mode = kernel);

/// The notes of the objects' constructors and destructors.
static NOTES: Masked<Vec<u8>> = Masked::new(Vec::new());

extern "C" fn note(octet: c_int) {
    NOTES.lock().push(octet as u8);
}

dl::trust!(include_bytes!("../../../libraries/test-only.pub"));
dl::require!("liballowed.so", ">=1.2");
dl::require!("libold.so", "^1");
dl::require!("libnew.so", "^1");

zooid_kernel::export! { "test_note" => note }

const NOW: Flags = Flags { lazy: false, global: false, loaded: false, deep: false, stays: false };
const LAZY: Flags = Flags { lazy: true, ..NOW };

fn main() {
    match argument() {
        "open" => open(),
        "lazy" => lazy(),
        "refused" => refused(),
        "damaged" => damaged(),
        "signed" => signed(),
        "red_zone" => red_zone(),
        "tls" => tls(),
        "fork" => fork(),
        "close" => close(),
        "runtime" => runtime(),
        "write_text" => write_text(),
        "write_relro" => write_relro(),
        "run_data" => run_data(),
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

type Check = extern "C" fn() -> c_int;

/// All kinds of references lead where they have to; constructors and destructors run in the order
/// of the dependencies, once.
fn open() {
    let middle = expect!(dl::open("libmiddle.so", NOW));
    check_eq!(notes(), "bmn");
    check_eq!(function::<Check>(&middle, "middle_check")(), 0);
    // Its dependency is found by way of it, and is the same object.
    let base = expect!(dl::open("some/path/libbase.so", NOW));
    check_eq!(notes(), "");
    check_eq!(base.symbol("base_add"), middle.symbol("base_add"));
    check_eq!(base.symbol("middle_check"), Err(Error::NoSymbol("middle_check".to_string())));

    let mut objects = Vec::new();
    dl::iterate(|object| objects.push(object));
    let names: Vec<&str> = objects.iter().map(|object| object.name.as_str()).collect();
    check_eq!(names, ["libmiddle.so", "libbase.so"]);
    let add = expect!(base.symbol("base_add"));
    let found = expect!(dl::address(add.wrapping_byte_add(1)).ok_or("no such address"));
    check_eq!((found.object.as_str(), found.base), ("libbase.so", objects[1].base));
    check_eq!(found.symbol, Some(("base_add".to_string(), add as usize)));
    check!(objects[1].range.contains(&(add as usize)));
    check_eq!(dl::address(main as *const ()), None);

    // Symbols of a library that was opened for its opener alone are found by no other.
    check_eq!(dl::symbol("base_add"), Err(Error::NoSymbol("base_add".to_string())));
    let global = expect!(dl::open("libbase.so", Flags { global: true, ..NOW }));
    check_eq!(dl::symbol("base_add"), Ok(add));
    check!(dl::symbol("test_note").is_ok());
    drop(global);

    drop(middle);
    check_eq!(notes(), "M");
    drop(base);
    check_eq!(notes(), "B");
    check_eq!(dl::address(add), None);

    // Relocations in the new compact form, and a table of names in the old one.
    let packed = expect!(dl::open("libpacked.so", NOW));
    check_eq!(notes(), "b");
    let number = expect!(packed.symbol("base_pointer")).cast::<*const c_int>();
    // SAFETY: a pointer to an int in the library's data.
    check_eq!(unsafe { **number }, 2);
}

/// Functions that are looked up at their first call get their arguments, and are found at once from
/// then on.
fn lazy() {
    let middle = expect!(dl::open("libmiddle.so", LAZY));
    type Eight = extern "C" fn(f64, f64, f64, f64, f64, f64, f64, f64) -> c_double;
    let scale: Eight = function(&middle, "middle_scale");
    for _ in 0..2 {
        check_eq!(scale(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0), 87_654_323.0);
    }
    check_eq!(function::<Check>(&middle, "middle_check")(), 0);
    // The first call of the missing function would end the pVM. Until then nobody looks it up.
    let missing = expect!(dl::open("libmissing.so", LAZY));
    check!(missing.symbol("missing_call").is_ok());
}

/// A library that cannot be loaded is refused with the reason, and leaves nothing behind.
fn refused() {
    let refusal = |name: &str| match dl::open(name, NOW) {
        Err(Error::Refused { object, refusal }) => {
            check_eq!(object, name);
            refusal
        }
        other => failure!("{name}: {other:?}"),
    };
    // The first round makes room that the loader keeps.
    refusal("libmissing.so");
    notes();
    let before = memory::statistics().free;
    match refusal("libmissing.so") {
        Refusal::MissingSymbol { symbol, .. } => check_eq!(symbol, "nobody_has_this"),
        other => failure!("{other}"),
    }
    check_eq!(refusal("libtext.so"), Refusal::TextRelocations);
    check_eq!(refusal("libstack.so"), Refusal::ExecutableStack);
    check_eq!(dl::open("libnone.so", NOW).err(), Some(Error::NotFound("libnone.so".to_string())));
    check_eq!(notes(), "");
    dl::iterate(|object| failure!("{} is there", object.name));
    check_eq!(memory::statistics().free, before);
}

/// Says how each of the objects is refused that the other words name. They leave nothing behind,
/// and do not get into the way of what is sound.
fn damaged() {
    let round = |say: bool| {
        for name in env::args().skip(1) {
            match dl::open(name, NOW) {
                Err(Error::Refused { refusal, .. }) if say => println!("{name}: {refusal}"),
                Err(Error::Refused { .. }) => {}
                other => failure!("{name}: {other:?}"),
            }
        }
        dl::iterate(|object| failure!("{} is there", object.name));
        check_eq!(notes(), "");
        let whole = expect!(dl::open("libwhole.so", NOW));
        check!((1..100).all(|number| function::<Check>(&whole, "base_count")() == 40 + number));
        drop(whole);
        check_eq!(notes(), "bB");
    };
    // The first round makes room that the loader keeps.
    round(true);
    let before = memory::statistics();
    round(false);
    let after = memory::statistics();
    check_eq!((before.total, before.free), (after.total, after.free));
}

/// A library whose rules hold is mapped; one that breaks a rule is refused by the rule's name, and
/// leaves nothing behind.
fn signed() {
    let refused = |name: &str, expected: &str| match dl::open(name, NOW) {
        Err(Error::Forbidden { object, rule }) => {
            let said = rule.to_string();
            if object != name || !said.starts_with(expected) {
                failure!("{object}: {said}, and not {name}: {expected}");
            }
        }
        other => failure!("{name}: {other:?}"),
    };
    let all = [
        ("libunsigned.so", "signature rule: it has no manifest"),
        (
            "libstranger.so",
            "signature rule: the key 8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c is not trusted",
        ),
        ("libmutated.so", "signature rule: the file is not the one that was signed"),
        ("libshort.so", "signature rule: the file is not the one that was signed"),
        ("liblong.so", "signature rule: the file is not the one that was signed"),
        ("libforged.so", "signature rule: the manifest is not what its signer has signed"),
        ("libmore.so", "signature rule: the manifest's line `signer` is not there, or not well formed"),
        ("librenamed.so", "signature rule: the manifest is that of libbase.so"),
        ("libbase.so.manifest", "signature rule: it has no manifest"),
        ("libold.so", "version rule: it is 0.9.9, wanted is ^1"),
        ("libnew.so", "version rule: it is 2.0.0, wanted is ^1"),
        ("librevoked.so", "version rule: 1.0.0 is revoked"),
        ("libelsewhere.so", "loader rule: the image libraries may not map it"),
        ("libforeign.so", "loader rule: the family library_signed may not map it"),
        ("libredzone.so", "loader rule: the code at 0x"),
    ];
    let round = || {
        all.iter().for_each(|(name, expected)| refused(name, expected));
        dl::iterate(|object| failure!("{} is there", object.name));
        check_eq!(notes(), "");
        drop(expect!(dl::open("liballowed.so", NOW)));
        check_eq!(notes(), "bB");
    };
    // The first round makes room that the loader keeps.
    round();
    let before = memory::statistics();
    round();
    let after = memory::statistics();
    check_eq!((before.total, before.free), (after.total, after.free));

    // A child is of the family of its parent.
    match expect!(process::fork()) {
        None => {
            drop(expect!(dl::open("liballowed.so", NOW)));
            refused("libforeign.so", "loader rule: the family library_signed may not map it");
            process::exit(0)
        }
        Some(child) => {
            let ended = expect!(process::waitpid(Some(child), false));
            check_eq!(ended.map(|ended| ended.status), Some(Status::Exited(0)));
        }
    }
}

/// A library's data below its stack pointer is safe in user mode, from threads that disturb each
/// other.
fn red_zone() {
    let library = expect!(dl::open("libredzone.so", NOW));
    let twice: extern "C" fn(c_int) -> c_int = function(&library, "red_zone");
    let end = Instant::now() + Duration::from_millis(300);
    let calls = move || {
        let mut calls = 0;
        while Instant::now() < end || calls < 1000 {
            check_eq!(twice(calls), 2 * calls);
            calls += 1;
        }
    };
    let threads: Vec<_> = (0..3).map(|_| thread::spawn(calls)).collect();
    threads.into_iter().for_each(thread::JoinHandle::join);
}

/// Every thread has its own variables, started before or after the library came. They have
/// the library's initial values.
fn tls() {
    for (name, next, first) in
        [("libbase.so", "base_count", 40), ("libfixed.so", "fixed_next", 11), ("liblarge.so", "large_next", 5)]
    {
        let waits = thread::spawn(move || {
            thread::sleep(core::time::Duration::from_millis(50));
            let library = expect!(dl::open(name, NOW));
            let count: Check = function(&library, next);
            (count(), count())
        });
        let library = expect!(dl::open(name, NOW));
        let count: Check = function(&library, next);
        check_eq!((count(), count(), count()), (first + 1, first + 2, first + 3));
        check_eq!(waits.join(), (first + 1, first + 2));
        for _ in 0..3 {
            let other = thread::spawn(move || (count(), count()));
            check_eq!(other.join(), (first + 1, first + 2));
        }
        check_eq!(count(), first + 4);
    }
    // A variable of another object, also looked up by its name.
    let middle = expect!(dl::open("libmiddle.so", NOW));
    let (count, counter): (Check, Check) = (function(&middle, "base_count"), function(&middle, "middle_counter"));
    let before = counter();
    count();
    check_eq!(counter(), before + 1);
    let variable = expect!(middle.symbol("base_counter")).cast::<c_int>();
    // SAFETY: this thread's int.
    check_eq!(unsafe { *variable }, before + 1);
}

/// A child has its parent's libraries. A write of one of them there is not seen by the other;
/// both can open and close more.
fn fork() {
    type Handler = Option<extern "C" fn()>;
    let middle = expect!(dl::open("libmiddle.so", LAZY));
    // SAFETY: the function of pthread.h.
    let at_fork: extern "C" fn(Handler, Handler, Handler) -> c_int =
        unsafe { core::mem::transmute(expect!(dl::symbol("pthread_atfork"))) };
    check_eq!(at_fork(Some(before_fork), Some(in_parent), None), 0);
    // SAFETY: that of glibc, with an address in the object of the functions.
    let register_at_fork: extern "C" fn(Handler, Handler, Handler, *const c_void) -> c_int =
        unsafe { core::mem::transmute(expect!(dl::symbol("__register_atfork"))) };
    check_eq!(register_at_fork(None, None, Some(in_child), fork as *const c_void), 0);
    let check: Check = function(&middle, "middle_check");
    let numbers = expect!(middle.symbol("base_numbers")).cast::<c_int>().cast_mut();
    // SAFETY: the library's array of four.
    let read = || unsafe { numbers.add(2).read_volatile() };
    // SAFETY: as above.
    let write = |value| unsafe { numbers.add(2).write_volatile(value) };
    write(100);
    notes();
    for round in 0..5 {
        match expect!(process::fork()) {
            None => {
                check_eq!(read(), 100 + round);
                write(7);
                check_eq!((read(), check()), (7, 0));
                let fixed = expect!(dl::open("libfixed.so", NOW));
                check_eq!(function::<Check>(&fixed, "fixed_next")(), 12);
                drop(fixed);
                drop(middle);
                check_eq!(notes(), "<cMB");
                process::exit(0)
            }
            Some(child) => {
                check_eq!(notes(), "<p");
                write(101 + round);
                let large = expect!(dl::open("liblarge.so", NOW));
                check_eq!(function::<Check>(&large, "large_next")(), 6);
                let ended = expect!(process::waitpid(Some(child), false));
                check_eq!(ended.map(|ended| ended.status), Some(Status::Exited(0)));
                check_eq!((read(), check()), (101 + round, 0));
            }
        }
    }
}

extern "C" fn before_fork() {
    note(b'<'.into());
}

extern "C" fn in_parent() {
    note(b'p'.into());
}

extern "C" fn in_child() {
    note(b'c'.into());
}

/// Opening and closing again and again costs nothing in the end.
fn close() {
    let round = || {
        let middle = expect!(dl::open("libmiddle.so", LAZY));
        let large = expect!(dl::open("liblarge.so", NOW));
        check_eq!(function::<Check>(&middle, "middle_check")(), 0);
        check_eq!(function::<Check>(&large, "large_next")(), 6);
        drop(middle);
        drop(large);
        check_eq!(notes(), "bmnMB");
    };
    (0..10).for_each(|_| round());
    let before = memory::statistics();
    (0..200).for_each(|_| round());
    let after = memory::statistics();
    check_eq!((before.total, before.free), (after.total, after.free));
}

/// An object gets the C runtime from the image; a thread has an `errno` of its own.
fn runtime() {
    let runtime = expect!(dl::open("libruntime.so", LAZY));
    check_eq!(function::<Check>(&runtime, "runtime_check")(), 0);
    let check: Check = function(&runtime, "runtime_check");
    check_eq!(thread::spawn(move || check()).join(), 0);
}

#[inline(never)]
fn write_text() {
    let base = expect!(dl::open("libbase.so", NOW));
    let text = expect!(base.symbol("base_add")).cast::<u8>().cast_mut();
    // SAFETY: it must not come to that.
    unsafe { text.write_volatile(0xc3) };
    core::hint::black_box(&base);
}

/// Writes to data that is constant since its relocation.
#[inline(never)]
fn write_relro() {
    let middle = expect!(dl::open("libmiddle.so", NOW));
    let table = expect!(middle.symbol("middle_table")).cast::<usize>().cast_mut();
    // SAFETY: it must not come to that.
    unsafe { table.write_volatile(0) };
    core::hint::black_box(&middle);
}

#[inline(never)]
fn run_data() {
    let base = expect!(dl::open("libbase.so", NOW));
    let data: Check = function(&base, "base_numbers");
    core::hint::black_box(data());
}
