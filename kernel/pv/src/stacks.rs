//! The search of all threads' stacks for code that is to be unmapped.

use core::arch::asm;
use core::ops::Range;

use zooid_core::callers::{Code, Stack};

use crate::entry::{self, image};
use crate::user::ROOM;
use crate::{events, thread, tls};

/// Octets below its stack pointer that code may use in user mode (psABI x86-64, 3.2.2).
const RED_ZONE: u64 = 128;

/// True if any thread may be in the middle of code in `text`: the caller will return there, another
/// thread was switched away from there, or a function from `text` is among the callers of that
/// place. C code that is part of the image must keep frame pointers, as all code of the image does.
pub fn any_in(text: &[Range<u64>]) -> bool {
    let _mask = events::mask();
    let mut found = false;
    thread::for_each_other(|rsp, pointer, end| {
        // `switch_stacks` has pushed six registers below the return address, the frame pointer
        // being the last of them.
        // SAFETY: the stack of a thread that was switched away from.
        let (frame, caller) = unsafe { (((rsp + 48) as *const u64).read(), ((rsp + 56) as *const u64).read()) };
        found = found || holds(text, pointer, rsp, end as u64, caller, frame, rsp + 64);
    });
    found || {
        let frame: u64;
        // SAFETY: reads a register.
        unsafe { asm!("mov {}, rbp", out(reg) frame, options(nomem, nostack, preserves_flags)) };
        // SAFETY: the frame of this function.
        unsafe { caller_in(text, frame) }
    }
}

/// True if the calling thread may be in the middle of code in `text`, apart from the function whose
/// frame this is.
///
/// # Safety
/// `frame` is the frame of a function of this thread that has not returned: its caller's frame
/// pointer, then its return address.
pub unsafe fn caller_in(text: &[Range<u64>], frame: u64) -> bool {
    let _mask = events::mask();
    let (next, caller) =
        // SAFETY: the caller's promise.
        unsafe { ((frame as *const u64).read(), ((frame + 8) as *const u64).read()) };
    holds(text, tls::thread_pointer(), frame, thread::stack_end() as u64, caller, next, frame + 16)
}

/// The answer for the thread with this thread pointer and stack end, whose stack is in use from
/// `rsp` on.
fn holds(text: &[Range<u64>], pointer: u64, rsp: u64, end: u64, caller: u64, frame: u64, at: u64) -> bool {
    let parts = match tls::kernel_stack(pointer) {
        None => [rsp..end, end..end],
        // The thread is in user mode, on its own part of the stack.
        Some(top) if rsp <= top - ROOM as u64 => [rsp..top - ROOM as u64, end..end],
        // The thread is in the kernel's part; Xen has pushed ss and rsp of user mode at its top.
        Some(top) => {
            // SAFETY: the stack of a thread that came from user mode.
            let rsp_of_user = unsafe { ((top - 16) as *const u64).read() };
            [rsp..top, rsp_of_user - RED_ZONE..top - ROOM as u64]
        }
    };
    let code = |address: u64| {
        if text.iter().any(|text| text.contains(&address)) {
            Code::Wanted
        } else if (image::text_start()..image::text_end()).contains(&(address as usize))
            && address != entry::trap_return as *const () as u64
        {
            Code::Framed
        } else {
            Code::Unknown
        }
    };
    // SAFETY: a word of a stack in use, which is mapped; the thread does not run, or its frames
    // from here on do not change.
    let read = |address: u64| unsafe { (address as *const u64).read_volatile() };
    Stack { parts: &parts, read, code }.holds(caller, frame, at)
}
