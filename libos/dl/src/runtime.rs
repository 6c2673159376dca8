//! The symbols that objects import: the C runtime (`zooid-crt`), whose requests the kernel serves;
//! the functions of this crate that C knows as `dlopen` and so on; and the symbols that the crates
//! of the image [export](zooid_kernel::export!).

use alloc::ffi::CString;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr;
use core::sync::atomic::Ordering;
use core::time::Duration;

use zooid_crt::System;
use zooid_kernel::events::Masked;
use zooid_kernel::sync::WaitQueue;
use zooid_kernel::{boot, console, export, power, random, thread, time, tls, xenstore};
use zooid_loader::{Export, ExportTable, Origin};

use crate::load::Key;
use crate::tls::get_address;
use crate::{Error, Flags, Library, live};

/// Libraries that count as provided, as far as the image has their symbols.
const PROVIDED: &[&str] = &["libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "ld-linux-x86-64.so.2"];

static SYSTEM: System = System {
    write: |_, bytes| console::write(bytes),
    now: || Duration::from_nanos(time::wall_clock(time::now())),
    monotonic: || Duration::from_nanos(time::now()),
    sleep: |limit| thread::sleep_until(time::after(limit)),
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
    // `export!` is not used here, because every image would then hold the loader.
    let loader = [
        ("dlopen", dlopen as *const ()),
        ("dlsym", dlsym as *const ()),
        ("dlclose", dlclose as *const ()),
        ("dlerror", dlerror as *const ()),
        ("zooid_library_enter", library_enter as *const ()),
        ("zooid_library_leave", library_leave as *const ()),
        ("__tls_get_addr", get_address as *const ()),
    ];
    let loader = loader.into_iter().map(|(name, address)| (name, address as u64));
    let own = export::exports().iter().map(|export| (export.name, export.address as u64)).chain(loader);
    let own = own.map(|(name, value)| (name, Export { origin: Origin::Own, value }));
    let stand_in = zooid_crt::EXPORTS.iter().filter_map(|export| {
        Some((export.name.to_str().ok()?, Export { origin: Origin::StandIn, value: export.address as u64 }))
    });
    // glibc's libm refers to it by that name.
    let number = Export { origin: Origin::StandInThreadLocal, value: tls::ERROR_NUMBER as u64 };
    ExportTable::of(own.chain(stand_in).chain([("errno", number)]), PROVIDED)
}

const RTLD_LAZY: c_int = 1;
const RTLD_GLOBAL: c_int = 0x100;

/// The next answer of `dlerror`.
static LAST_ERROR: Masked<Option<CString>> = Masked::new(None);

fn note(error: &Error) {
    *LAST_ERROR.lock() = CString::new(error.to_string()).ok();
}

/// # Safety
/// `name` is null or ends with a zero.
unsafe extern "C" fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void {
    let opened = if name.is_null() {
        Err(Error::NotFound("the image itself".to_string()))
    } else {
        // SAFETY: the caller's promise.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
        crate::open(&name, Flags { lazy: flags & RTLD_LAZY != 0, global: flags & RTLD_GLOBAL != 0 })
    };
    match opened {
        Ok(library) => ptr::without_provenance_mut(library.into_raw()),
        Err(error) => {
            note(&error);
            ptr::null_mut()
        }
    }
}

/// # Safety
/// `name` ends with a zero.
unsafe extern "C" fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
    // 0 is RTLD_DEFAULT.
    let found = match handle.addr() {
        0 => crate::symbol(&name),
        number => Library::from_raw(number).and_then(|library| {
            let found = library.symbol(&name);
            library.into_raw();
            found
        }),
    };
    found.map_or_else(
        |error| {
            note(&error);
            ptr::null_mut()
        },
        |address| address.cast_mut().cast(),
    )
}

extern "C" fn dlclose(handle: *mut c_void) -> c_int {
    match Library::from_raw(handle.addr()) {
        Ok(library) => {
            drop(library);
            0
        }
        Err(error) => {
            note(&error);
            -1
        }
    }
}

extern "C" fn library_enter(handle: *mut c_void) {
    live::enter(Key(handle.addr() as u64));
}

extern "C" fn library_leave(handle: *mut c_void) {
    live::leave(Key(handle.addr() as u64));
}

extern "C" fn dlerror() -> *const c_char {
    /// The last answer, which stays until the next call.
    static SAID: Masked<Option<CString>> = Masked::new(None);
    let error = LAST_ERROR.lock().take();
    let mut said = SAID.lock();
    *said = error;
    said.as_ref().map_or(ptr::null(), |text| text.as_ptr())
}
