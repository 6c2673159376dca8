//! `pvm_poll`.

use alloc::vec::Vec;
use core::ffi::{c_int, c_longlong, c_short, c_uint};
use core::slice;

use zooid::poll::{Events, PollEntry, Pollable, poll_within};

use crate::ipc::{Handle, answer, handle, patience};

/// No such descriptor, or one of an object that `pvm_poll` does not support.
const NVAL: Events = Events::from_bits_retain(0x20);

/// `struct pvm_pollfd`.
#[repr(C)]
struct PollFd {
    descriptor: c_int,
    events: c_short,
    revents: c_short,
}

/// The object of a handle, for waiting.
fn source(handle: &Handle) -> Option<&dyn Pollable> {
    match handle {
        Handle::Reader(reader) => Some(reader),
        Handle::Writer(writer) => Some(writer),
        Handle::Semaphore(semaphore) => Some(semaphore),
        Handle::Queue(queue) => Some(queue),
        Handle::Memory(_) => None,
    }
}

fn entry<'a>(descriptor: &PollFd, handle: Option<&'a Handle>) -> PollEntry<'a> {
    match handle.and_then(source) {
        Some(source) => PollEntry::new(source, Events::from_bits_truncate(descriptor.events as u16)),
        None if descriptor.descriptor < 0 => PollEntry::none(Events::empty()),
        None => PollEntry::none(NVAL),
    }
}

/// # Safety
/// At `descriptors` are `count` of them.
#[unsafe(no_mangle)]
unsafe extern "C" fn pvm_poll(descriptors: *mut PollFd, count: c_uint, timeout: c_longlong) -> c_int {
    answer(|| {
        let descriptors = match count {
            0 => &mut [],
            // SAFETY: the caller's promise.
            _ => unsafe { slice::from_raw_parts_mut(descriptors, count as usize) },
        };
        let handles: Vec<Option<Handle>> = descriptors.iter().map(|entry| handle(entry.descriptor).ok()).collect();
        let mut entries: Vec<PollEntry> =
            descriptors.iter().zip(&handles).map(|(descriptor, handle)| entry(descriptor, handle.as_ref())).collect();
        let ready = poll_within(&mut entries, patience(timeout));
        for (descriptor, entry) in descriptors.iter_mut().zip(&entries) {
            descriptor.revents = entry.ready.bits() as c_short;
        }
        Ok(ready as c_int)
    }) as c_int
}
