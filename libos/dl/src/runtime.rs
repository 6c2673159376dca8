//! The symbols that objects import: the C runtime (`zooid-crt`), whose requests the kernel serves;
//! this crate's own functions (`dlfcn`); and the symbols that the crates of the image
//! [export](zooid_kernel::export!).

use alloc::ffi::CString;
use alloc::vec::Vec;
use core::ffi::{c_char, c_int};
use core::ptr;
use core::sync::atomic::Ordering;
use core::time::Duration;

use zooid_crt::System;
use zooid_kernel::sync::WaitQueue;
use zooid_kernel::{boot, console, export, power, random, thread, time, tls, xenstore};
use zooid_loader::{Export, ExportTable, Origin};

use crate::tls::{get_address, observe_threads};
use crate::{dlfcn, load};

/// Libraries that count as provided, as far as the image has their symbols.
const PROVIDED: &[&str] = &["libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "ld-linux-x86-64.so.2"];

/// Size of the stack of a thread that C makes.
const STACK: usize = 256 << 10;

static SYSTEM: System = System {
    write: |_, bytes| console::write(bytes),
    now: || Duration::from_nanos(time::wall_clock(time::now())),
    monotonic: || Duration::from_nanos(time::now()),
    sleep: |limit| thread::sleep_until(time::after(limit)),
    spawn: |body| thread::spawn_application("pthread", STACK, body).is_ok(),
    keep: |address| {
        load::with(|loader| {
            if let Some(id) = loader.namespace.holder(address.addr() as u64) {
                loader.namespace.keep(id);
            }
        });
    },
    // SAFETY: C demands of the caller that they can be called; their objects stay loaded.
    at_fork: |handlers| unsafe { zooid_fork::at_fork_c(handlers) }.is_ok(),
    finalise: load::finalise_all,
    exit: |code| power::exit(code),
    abort: || {
        console::drain();
        power::crash()
    },
    environment: |name| boot::command_line().variable(name),
    random: |bytes| {
        bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&random::u64().to_le_bytes()[..chunk.len()]))
    },
    error_number: tls::error_number,
    // Relatives have different domains.
    process: || xenstore::read("domid").ok().and_then(|number| number.parse().ok()).unwrap_or(1),
    thread: || (tls::thread_pointer() >> 4) as u32,
    yield_now: thread::yield_now,
    wait: |word, value, limit| {
        WAITERS.wait_until(limit.map(time::after), || word.load(Ordering::SeqCst) != value);
    },
    wake: |_, _| WAITERS.wake_all(),
};

/// The threads that wait for any word. Each woken thread checks its own.
static WAITERS: WaitQueue = WaitQueue::new();

/// Calls a program's `main`, and then C's `exit`.
pub fn run(main: *const (), words: &[&str]) -> ! {
    let words: Vec<CString> = words.iter().filter_map(|word| CString::new(*word).ok()).collect();
    let pointers: Vec<*const c_char> =
        words.iter().map(|word| word.as_ptr()).chain([ptr::null(), ptr::null()]).collect();
    // SAFETY: a function of this name takes these arguments (C11 5.1.2.2.1, and the environment,
    // which is empty); they live as long as this pVM.
    let status = unsafe {
        let main = core::mem::transmute::<
            *const (),
            extern "C" fn(c_int, *const *const c_char, *const *const c_char) -> c_int,
        >(main);
        main(words.len() as c_int, pointers.as_ptr(), pointers.as_ptr().add(words.len()))
    };
    // SAFETY: nothing is unmapped any more.
    unsafe { zooid_crt::exit(status) }
}

/// Prepares the runtime, and lists the symbols that objects may import.
pub fn exports() -> ExportTable<'static> {
    zooid_crt::set_system(&SYSTEM);
    observe_threads();
    // `export!` is not used here, because every image would then hold the loader.
    let loader = dlfcn::FUNCTIONS.into_iter().chain([("__tls_get_addr", get_address as *const ())]);
    let loader = loader.map(|(name, address)| (name, address as u64));
    let own = export::exports().iter().map(|export| (export.name, export.address as u64)).chain(loader);
    let own = own.map(|(name, value)| (name, Export { origin: Origin::Own, value }));
    let stand_in = zooid_crt::EXPORTS.iter().filter_map(|export| {
        Some((export.name.to_str().ok()?, Export { origin: Origin::StandIn, value: export.address as u64 }))
    });
    // glibc's libm refers to it by that name.
    let number = Export { origin: Origin::StandInThreadLocal, value: tls::ERROR_NUMBER as u64 };
    ExportTable::of(own.chain(stand_in).chain([("errno", number)]), PROVIDED)
}
