//! IpC by descriptors.

use alloc::vec::Vec;
use core::ffi::{CStr, c_char, c_int, c_long, c_longlong, c_uint, c_ulonglong, c_void};
use core::slice;

use zooid::ipc::{
    self, Attributes, Error, How, MessageQueue, Patience, PipeReader, PipeWriter, Semaphore, SharedMemory,
};
use zooid::process::{self, PvmId};
use zooid::signal::{self, Action};
use zooid_kernel::events::Masked;

const CREAT: c_int = 1;
const EXCL: c_int = 2;

/// The object of a descriptor.
#[derive(Clone)]
pub enum Handle {
    Reader(PipeReader),
    Writer(PipeWriter),
    Semaphore(Semaphore),
    Queue(MessageQueue),
    Memory(SharedMemory),
}

static DESCRIPTORS: Masked<Vec<Option<Handle>>> = Masked::new(Vec::new());

pub type Result<T> = core::result::Result<T, c_int>;

const ESRCH: c_int = 3;
const EBADF: c_int = 9;

pub fn errno(error: Error) -> c_int {
    match error {
        Error::WouldBlock => 11,
        Error::BrokenPipe => 32,
        Error::TooLong => 90,
        Error::Exists => 17,
        Error::NotFound => 2,
        Error::Invalid => 22,
        Error::NotOwner => 1,
        Error::Overflow => 75,
        Error::OutOfMemory => 28,
        Error::NoDaemon => 107,
        Error::Broken => 5,
        Error::Refused(errno) => errno.0 as c_int,
    }
}

fn new_descriptor(handle: Handle) -> c_int {
    let mut descriptors = DESCRIPTORS.lock();
    let free = descriptors.iter().position(Option::is_none).unwrap_or(descriptors.len());
    if free == descriptors.len() {
        descriptors.push(None);
    }
    descriptors[free] = Some(handle);
    free as c_int
}

/// A handle of the same object, because another thread may close the descriptor meanwhile.
pub fn handle(descriptor: c_int) -> Result<Handle> {
    let descriptors = DESCRIPTORS.lock();
    let place = usize::try_from(descriptor).map_err(|_| EBADF)?;
    descriptors.get(place).cloned().flatten().ok_or(EBADF)
}

macro_rules! get {
    ($kind:ident, $descriptor:expr) => {
        match handle($descriptor)? {
            Handle::$kind(object) => object,
            _ => return Err(EBADF),
        }
    };
}

/// Calls `body`; returns its number, or the negated error number.
pub fn answer<T: Into<c_long>>(body: impl FnOnce() -> Result<T>) -> c_long {
    match body() {
        Ok(value) => value.into(),
        Err(errno) => -c_long::from(errno),
    }
}

pub fn patience(timeout: c_longlong) -> Patience {
    match u64::try_from(timeout) {
        Err(_) => Patience::Forever,
        Ok(0) => Patience::None,
        Ok(nanoseconds) => Patience::Until(zooid_kernel::time::now().saturating_add(nanoseconds)),
    }
}

/// # Safety
/// `name` is null or ends with a zero.
unsafe fn text<'a>(name: *const c_char) -> Result<Option<&'a str>> {
    if name.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(name) }.to_str().map(Some).map_err(|_| errno(Error::Invalid))
}

/// # Safety
/// As for [`text`].
unsafe fn name_and_flags<'a>(name: *const c_char, flags: c_int) -> Result<(Option<&'a str>, How)> {
    // SAFETY: passed on to the caller.
    let name = unsafe { text(name) }?;
    let how = How { create: flags & CREAT != 0, exclusive: flags & EXCL != 0 };
    Ok((name, if name.is_some() { how } else { How::ANONYMOUS }))
}

/// # Safety
/// `ends` has room for two numbers.
#[unsafe(no_mangle)]
unsafe extern "C" fn pvm_pipe(ends: *mut c_int) -> c_int {
    answer(|| {
        let (reader, writer) = ipc::pipe().map_err(errno)?;
        // SAFETY: the caller's promise.
        unsafe {
            ends.write(new_descriptor(Handle::Reader(reader)));
            ends.add(1).write(new_descriptor(Handle::Writer(writer)));
        }
        Ok(0)
    }) as c_int
}

/// # Safety
/// `buffer` has room for `size` octets.
#[unsafe(no_mangle)]
unsafe extern "C" fn pvm_read(descriptor: c_int, buffer: *mut c_void, size: usize, timeout: c_longlong) -> c_long {
    answer(|| {
        let reader = get!(Reader, descriptor);
        // SAFETY: the caller's promise.
        let buffer = unsafe { octets_mut(buffer, size) };
        Ok(reader.read_within(buffer, patience(timeout)).map_err(errno)? as c_long)
    })
}

/// # Safety
/// At `buffer` are `size` octets.
#[unsafe(no_mangle)]
unsafe extern "C" fn pvm_write(descriptor: c_int, buffer: *const c_void, size: usize, timeout: c_longlong) -> c_long {
    answer(|| {
        let writer = get!(Writer, descriptor);
        // SAFETY: the caller's promise.
        let bytes = unsafe { octets(buffer, size) };
        Ok(writer.write_within(bytes, patience(timeout)).map_err(errno)? as c_long)
    })
}

/// # Safety
/// At `start` are `size` octets, which do not change; it may be null if that is 0.
unsafe fn octets<'a>(start: *const c_void, size: usize) -> &'a [u8] {
    if size == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts(start.cast(), size) }
}

/// # Safety
/// As for [`octets`], and they can be written.
pub unsafe fn octets_mut<'a>(start: *mut c_void, size: usize) -> &'a mut [u8] {
    if size == 0 {
        return &mut [];
    }
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts_mut(start.cast(), size) }
}

#[unsafe(no_mangle)]
extern "C" fn pvm_close(descriptor: c_int) -> c_int {
    answer(|| {
        let closed = {
            let mut descriptors = DESCRIPTORS.lock();
            let place = usize::try_from(descriptor).map_err(|_| EBADF)?;
            descriptors.get_mut(place).and_then(Option::take)
        };
        // The drop comes after the list is unlocked, because it wakes waiting threads.
        closed.map(drop).map(|()| 0).ok_or(EBADF)
    }) as c_int
}

/// # Safety
/// As for [`text`].
#[unsafe(no_mangle)]
unsafe extern "C" fn pvm_sem_open(name: *const c_char, flags: c_int, value: c_uint) -> c_int {
    answer(|| {
        // SAFETY: passed on to the caller.
        let (name, how) = unsafe { name_and_flags(name, flags) }?;
        let semaphore = Semaphore::make(name, how, value).map_err(errno)?;
        Ok(new_descriptor(Handle::Semaphore(semaphore)))
    }) as c_int
}

#[unsafe(no_mangle)]
extern "C" fn pvm_sem_wait(descriptor: c_int, timeout: c_longlong) -> c_int {
    answer(|| get!(Semaphore, descriptor).wait_within(patience(timeout)).map(|()| 0).map_err(errno)) as c_int
}

#[unsafe(no_mangle)]
extern "C" fn pvm_sem_post(descriptor: c_int) -> c_int {
    answer(|| get!(Semaphore, descriptor).post().map(|()| 0).map_err(errno)) as c_int
}

#[unsafe(no_mangle)]
extern "C" fn pvm_sem_getvalue(descriptor: c_int) -> c_int {
    answer(|| Ok(get!(Semaphore, descriptor).value() as c_int)) as c_int
}

/// # Safety
/// As for [`text`].
#[unsafe(no_mangle)]
unsafe extern "C" fn pvm_mq_open(name: *const c_char, flags: c_int, messages: usize, size: usize) -> c_int {
    answer(|| {
        // SAFETY: passed on to the caller.
        let (name, how) = unsafe { name_and_flags(name, flags) }?;
        let queue = MessageQueue::make(name, how, Attributes { messages, size }).map_err(errno)?;
        Ok(new_descriptor(Handle::Queue(queue)))
    }) as c_int
}

/// # Safety
/// At `message` are `size` octets.
#[unsafe(no_mangle)]
unsafe extern "C" fn pvm_mq_send(
    descriptor: c_int,
    message: *const c_void,
    size: usize,
    priority: c_uint,
    timeout: c_longlong,
) -> c_int {
    answer(|| {
        let queue = get!(Queue, descriptor);
        // SAFETY: the caller's promise.
        let message = unsafe { octets(message, size) };
        queue.send_within(message, priority, patience(timeout)).map(|()| 0).map_err(errno)
    }) as c_int
}

/// # Safety
/// `buffer` has room for `size` octets, `priority` is null or can be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn pvm_mq_receive(
    descriptor: c_int,
    buffer: *mut c_void,
    size: usize,
    priority: *mut c_uint,
    timeout: c_longlong,
) -> c_long {
    answer(|| {
        let queue = get!(Queue, descriptor);
        // SAFETY: the caller's promise.
        let buffer = unsafe { octets_mut(buffer, size) };
        let (length, found) = queue.receive_within(buffer, patience(timeout)).map_err(errno)?;
        if !priority.is_null() {
            // SAFETY: the caller's promise.
            unsafe { priority.write(found) };
        }
        Ok(length as c_long)
    })
}

/// # Safety
/// As for [`text`].
#[unsafe(no_mangle)]
unsafe extern "C" fn pvm_shm_open(name: *const c_char, flags: c_int, size: usize) -> c_int {
    answer(|| {
        // SAFETY: passed on to the caller.
        let (name, how) = unsafe { name_and_flags(name, flags) }?;
        let memory = SharedMemory::make(name, how, size).map_err(errno)?;
        Ok(new_descriptor(Handle::Memory(memory)))
    }) as c_int
}

/// # Safety
/// `size` is null or can be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn pvm_shm_map(descriptor: c_int, size: *mut usize) -> *mut c_void {
    let Ok(Handle::Memory(memory)) = handle(descriptor) else { return core::ptr::null_mut() };
    if !size.is_null() {
        // SAFETY: the caller's promise.
        unsafe { size.write(memory.len()) };
    }
    memory.as_ptr().cast()
}

/// # Safety
/// `name` ends with a zero.
#[unsafe(no_mangle)]
unsafe extern "C" fn pvm_unlink(name: *const c_char) -> c_int {
    answer(|| {
        // SAFETY: passed on to the caller.
        let name = unsafe { text(name) }?.ok_or(errno(Error::Invalid))?;
        ipc::unlink(name).map(|()| 0).map_err(errno)
    }) as c_int
}

#[unsafe(no_mangle)]
extern "C" fn pvm_kill(id: c_int, signal: c_int) -> c_int {
    answer(|| {
        let target = u32::try_from(id).ok().and_then(PvmId::from_raw).ok_or(ESRCH)?;
        let signal = u8::try_from(signal).map_err(|_| errno(Error::Invalid))?;
        process::kill(target, signal).map(|()| 0).map_err(|error| match error {
            Error::NotFound => ESRCH,
            error => errno(error),
        })
    }) as c_int
}

type Handler = unsafe extern "C" fn(c_int);

/// The handlers set from C, by signal.
static HANDLERS: Masked<[Option<Handler>; 64]> = Masked::new([None; 64]);

fn call_handler(signal: u8) {
    let handler = HANDLERS.lock()[usize::from(signal)];
    if let Some(handler) = handler {
        // SAFETY: the caller of `pvm_signal` promised so.
        unsafe { handler(signal.into()) };
    }
}

/// # Safety
/// `handler` is null, 1, or a function that may be called when the signal comes.
#[unsafe(no_mangle)]
unsafe extern "C" fn pvm_signal(signal: c_int, handler: *const c_void) -> c_int {
    answer(|| {
        let signal = u8::try_from(signal).map_err(|_| errno(Error::Invalid))?;
        let action = match handler as usize {
            0 => Action::Default,
            1 => Action::Ignore,
            _ => Action::Call(call_handler),
        };
        if matches!(action, Action::Call(_)) && signal <= signal::LAST {
            // SAFETY: the caller's promise.
            let handler = unsafe { core::mem::transmute::<*const c_void, Handler>(handler) };
            HANDLERS.lock()[usize::from(signal)] = Some(handler);
        }
        signal::set_action(signal, action).map(|_| 0).map_err(errno)
    }) as c_int
}

#[unsafe(no_mangle)]
extern "C" fn pvm_sigmask(block: c_ulonglong, unblock: c_ulonglong) -> c_int {
    answer(|| signal::set_mask(block, unblock).map(|_| 0).map_err(errno)) as c_int
}

#[unsafe(no_mangle)]
extern "C" fn pvm_sigwait(set: c_ulonglong, timeout: c_longlong) -> c_int {
    answer(|| signal::wait_within(set, patience(timeout)).map(c_int::from).map_err(errno)) as c_int
}
