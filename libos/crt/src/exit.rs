//! The end of the image, and of an object in it.

use alloc::vec::Vec;
use core::ffi::{CStr, c_int, c_void};
use core::ptr;

use crate::export::Export;
use crate::format::{Cut, Sink};
use crate::lock::Lock;
use crate::raw;
use crate::stdio;
use crate::system::system;
use crate::thread;

pub(crate) const EXIT: &[Export] =
    exports![exit, _Exit = _exit, _exit, quick_exit = _exit, abort, atexit, on_exit, __cxa_atexit, __cxa_finalize];

pub(crate) const ASSERT: &[Export] = exports![
    __assert_fail,
    __assert,
    __stack_chk_fail,
    __chk_fail = overflow_detected,
    __fortify_fail,
    __cxa_pure_virtual
];

/// `on_exit`'s function takes the status, then the argument; the others ignore the arguments that
/// they do not take.
type Function = unsafe extern "C" fn(*mut c_void, *mut c_void);

struct Handler {
    function: Function,
    /// The object that registered it; null: the image itself.
    object: *mut c_void,
    arguments: (Argument, Argument),
}

enum Argument {
    Given(*mut c_void),
    Status,
}

// SAFETY: the pointers are the object's, which allows any thread that ends it to run its handlers.
unsafe impl Send for Handler {}

static HANDLERS: Lock<Vec<Handler>> = Lock::new(Vec::new());

fn register(function: Function, object: *mut c_void, arguments: (Argument, Argument)) -> c_int {
    let mut handlers = HANDLERS.lock();
    if handlers.try_reserve(1).is_err() {
        return -1;
    }
    handlers.push(Handler { function, object, arguments });
    0
}

/// Runs the handlers that this object registered, last first; all handlers if it is null. An object
/// (or the loader) calls this after its `fini` functions ran and before it is unmapped.
///
/// # Safety
/// The registered functions are still mapped.
pub unsafe fn finalize(object: *mut c_void, status: c_int) {
    loop {
        let mut handlers = HANDLERS.lock();
        let Some(last) = handlers.iter().rposition(|handler| object.is_null() || handler.object == object) else {
            return;
        };
        let handler = handlers.remove(last);
        // A handler may register others.
        drop(handlers);
        let value = |argument| match argument {
            Argument::Given(value) => value,
            Argument::Status => ptr::without_provenance_mut(status as usize),
        };
        // SAFETY: it was registered with these arguments; the rest is passed on to the caller.
        unsafe { (handler.function)(value(handler.arguments.0), value(handler.arguments.1)) };
    }
}

pub(crate) unsafe extern "C" fn __cxa_atexit(function: Function, argument: *mut c_void, object: *mut c_void) -> c_int {
    register(function, object, (Argument::Given(argument), Argument::Given(ptr::null_mut())))
}

pub(crate) unsafe extern "C" fn atexit(function: Function) -> c_int {
    register(function, ptr::null_mut(), (Argument::Given(ptr::null_mut()), Argument::Given(ptr::null_mut())))
}

pub(crate) unsafe extern "C" fn on_exit(function: Function, argument: *mut c_void) -> c_int {
    register(function, ptr::null_mut(), (Argument::Status, Argument::Given(argument)))
}

pub(crate) unsafe extern "C" fn __cxa_finalize(object: *mut c_void) {
    // SAFETY: the object that calls is mapped.
    unsafe { finalize(object, 0) };
}

/// Ends the image as C's `exit` does: the thread's variables are destroyed, handlers run, then the
/// finalisers of objects, and streams are flushed.
///
/// # Safety
/// The registered functions are still mapped.
pub unsafe extern "C" fn exit(status: c_int) -> ! {
    thread::destroy_variables();
    // SAFETY: unloaded objects have no handlers left.
    unsafe { finalize(ptr::null_mut(), status) };
    (system().finalise)();
    stdio::flush_all();
    (system().exit)(status)
}

pub(crate) unsafe extern "C" fn _exit(status: c_int) -> ! {
    (system().exit)(status)
}

pub(crate) unsafe extern "C" fn abort() -> ! {
    (system().abort)()
}

/// Prints the reason, and ends the image.
pub(crate) fn fail(why: &str) -> ! {
    stdio::flush_all();
    (system().write)(2, why.as_bytes());
    (system().abort)()
}

pub(crate) fn overflow() -> ! {
    fail("*** buffer overflow detected ***: terminated\n")
}

pub(crate) unsafe extern "C" fn overflow_detected() -> ! {
    overflow()
}

pub(crate) unsafe extern "C" fn __stack_chk_fail() -> ! {
    fail("*** stack smashing detected ***: terminated\n")
}

pub(crate) unsafe extern "C" fn __fortify_fail(what: *const u8) -> ! {
    // SAFETY: glibc's promise: a string.
    let what = unsafe { CStr::from_ptr(what.cast()) };
    say(&[b"*** ", what.to_bytes(), b" ***: terminated\n"])
}

pub(crate) unsafe extern "C" fn __cxa_pure_virtual() -> ! {
    fail("pure virtual method called\n")
}

pub(crate) unsafe extern "C" fn __assert_fail(
    what: *const u8,
    file: *const u8,
    line: core::ffi::c_uint,
    function: *const u8,
) -> ! {
    let mut digits = [0; 10];
    let mut number = Cut { room: &mut digits, used: 0 };
    decimal(line, &mut number);
    let used = number.used;
    let function = if function.is_null() { c"?".as_ptr().cast() } else { function };
    // SAFETY: as C demands: strings.
    let (what, file, function) = unsafe { (raw::string(what), raw::string(file), raw::string(function)) };
    say(&[file, b":", &digits[..used], b": ", function, b": Assertion `", what, b"' failed.\n"])
}

pub(crate) unsafe extern "C" fn __assert(what: *const u8, file: *const u8, line: c_int) -> ! {
    // SAFETY: passed on to the caller.
    unsafe { __assert_fail(what, file, line as core::ffi::c_uint, ptr::null()) }
}

fn decimal(value: u32, sink: &mut dyn Sink) {
    if value >= 10 {
        decimal(value / 10, sink);
    }
    sink.put(&[b'0' + (value % 10) as u8]);
}

/// Prints the text as one write, if it is not too long, so that texts of threads do not mix.
fn say(parts: &[&[u8]]) -> ! {
    let mut text = [0; 512];
    let mut cut = Cut { room: &mut text, used: 0 };
    for part in parts {
        cut.put(part);
    }
    let used = cut.used;
    stdio::flush_all();
    (system().write)(2, &text[..used]);
    (system().abort)()
}
