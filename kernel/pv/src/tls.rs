//! The thread block at `%fs`, as the x86-64 psABI lays it out (variant II of "ELF Handling For Thread-Local Storage"): the
//! thread-local variables below the thread pointer, the block itself above it.

use core::arch::asm;
use core::mem::offset_of;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use spin::Once;

use crate::entry::image;
use crate::mmu::Stack;

/// Largest alignment that a thread-local variable may have; `linker.ld` starts the template at a multiple of it.
const ALIGN: usize = 64;

/// Room below the variables of the image for those of shared objects, in every thread, in bytes.
const RESERVE: usize = 1024;

/// What the kernel calls with the thread pointer of each new thread; set by who places variables in the reserve.
pub static NEW_THREAD: Once<fn(u64)> = Once::new();

/// The part of a thread's block, as distances below its thread pointer, that is nobody's and zero in every thread.
pub fn reserve() -> Range<usize> {
    let used = image::tls_memory_size().next_multiple_of(ALIGN);
    used..used + RESERVE
}

/// The base of `%fs` of the calling thread.
pub fn thread_pointer() -> u64 {
    let pointer;
    // SAFETY: the thread block begins with its own address.
    unsafe { asm!("mov {}, fs:0", out(reg) pointer, options(nostack, preserves_flags, readonly)) };
    pointer
}

/// How far above the thread pointer every thread has its `errno`.
pub const ERROR_NUMBER: usize = offset_of!(ThreadBlock, error_number);

/// Where the calling thread's `errno` is.
pub fn error_number() -> *mut i32 {
    (thread_pointer() as usize + ERROR_NUMBER) as *mut i32
}

/// Of the thread with this thread pointer: where frames go that come in user mode, if it is in it.
pub fn kernel_stack(pointer: u64) -> Option<u64> {
    // SAFETY: a word of a thread block, which lives as long as the thread; written by the thread itself.
    let stack = unsafe { (&raw const (*(pointer as *const ThreadBlock)).kernel_stack).read_volatile() };
    (stack != 0).then_some(stack)
}

/// Sets it for the calling thread.
pub fn set_kernel_stack(stack: u64) {
    // SAFETY: a word of the calling thread's block.
    unsafe { (&raw mut (*(thread_pointer() as *mut ThreadBlock)).kernel_stack).write_volatile(stack) };
}

/// What compiled code expects at the thread pointer.
#[repr(C, align(64))]
struct ThreadBlock {
    /// The thread pointer itself: `%fs:0` yields it.
    this: u64,
    /// The dynamic thread vector, for libraries with TLS of their own.
    dynamic: u64,
    reserved: u64,
    /// Where frames go that come while the thread is in user mode; 0 for one that is not in it.
    kernel_stack: u64,
    /// C's `errno`.
    error_number: i32,
    /// What `-fstack-protector` compares, at `%fs:0x28`.
    canary: u64,
}

static CANARY: AtomicU64 = AtomicU64::new(0);

/// Chooses the value of the stack protector's canary. Its lowest byte is zero, so that a string copy cannot forge it.
pub fn set_canary(random: u64) {
    CANARY.store(random & !0xff, Ordering::Relaxed);
}

/// Puts a new thread's block at the top of its stack and returns the thread pointer.
pub fn place(stack: &mut Stack) -> u64 {
    let size = reserve().end;
    let top = stack.reserve(size + size_of::<ThreadBlock>(), ALIGN);
    let block = (top + size) as *mut ThreadBlock;
    let variables = top + RESERVE;
    let template = image::tls_template() as *const u8;
    // The variables end at the thread pointer, at the distance that the linker counted: the template's size rounded up.
    // SAFETY: the reserved range is private, mapped, zeroed and large enough; the template is constant.
    unsafe { core::ptr::copy_nonoverlapping(template, variables as *mut u8, image::tls_file_size()) };
    let canary = CANARY.load(Ordering::Relaxed);
    // SAFETY: as above; `reserve` aligned it.
    unsafe {
        block.write(ThreadBlock {
            this: block as u64,
            dynamic: 0,
            reserved: 0,
            kernel_stack: 0,
            error_number: 0,
            canary,
        })
    };
    if let Some(tell) = NEW_THREAD.get() {
        tell(block as u64);
    }
    block as u64
}
