//! The thread block at `%fs`, as the x86-64 psABI lays it out (variant II of "ELF Handling For
//! Thread-Local Storage"). The thread-local variables are below the thread pointer, the block
//! itself above it.

use core::arch::asm;
use core::mem::offset_of;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use spin::Once;

use crate::entry::image;
use crate::mmu::Stack;

/// Largest alignment that a thread-local variable may have; `linker.ld` starts the template at a
/// multiple of it.
const ALIGN: usize = 64;

/// Bytes in every thread, below the variables of the image, for the variables of shared objects.
const RESERVE: usize = 1024;

/// The code that places variables in the reserve. It is told of threads.
#[derive(Clone, Copy, Debug)]
pub struct Observer {
    /// Called with the thread pointer of each new thread, before it runs.
    pub begins: fn(u64),
    /// Called by each thread of an application when its body has returned.
    pub ends: fn(),
}

/// The observer, set once.
pub static OBSERVER: Once<Observer> = Once::new();

/// Tells the observer that the calling thread's body has returned.
pub fn end_thread() {
    if let Some(observer) = OBSERVER.get() {
        (observer.ends)();
    }
}

/// The unused part of a thread's block, as distances below its thread pointer. It is zero in every
/// thread.
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

/// The distance of `errno` above the thread pointer, the same in every thread.
pub const ERROR_NUMBER: usize = offset_of!(ThreadBlock, error_number);

/// The address of the calling thread's `errno`.
pub fn error_number() -> *mut i32 {
    (thread_pointer() as usize + ERROR_NUMBER) as *mut i32
}

/// The stack that gets the frames of the thread with this thread pointer, if the thread is in user
/// mode.
pub fn kernel_stack(pointer: u64) -> Option<u64> {
    // SAFETY: a word of a thread block, which lives as long as the thread; written by the thread
    // itself.
    let stack = unsafe { (&raw const (*(pointer as *const ThreadBlock)).kernel_stack).read_volatile() };
    (stack != 0).then_some(stack)
}

/// Sets the kernel stack of the calling thread.
pub fn set_kernel_stack(stack: u64) {
    // SAFETY: a word of the calling thread's block.
    unsafe { (&raw mut (*(thread_pointer() as *mut ThreadBlock)).kernel_stack).write_volatile(stack) };
}

/// The block that compiled code expects at the thread pointer.
#[repr(C, align(64))]
struct ThreadBlock {
    /// The thread pointer itself: `%fs:0` yields it.
    this: u64,
    /// The dynamic thread vector, for libraries with TLS of their own.
    dynamic: u64,
    reserved: u64,
    /// The stack that gets frames while the thread is in user mode; 0 if it is in kernel mode.
    kernel_stack: u64,
    /// C's `errno`.
    error_number: i32,
    /// The canary that `-fstack-protector` compares, at `%fs:0x28`.
    canary: u64,
}

static CANARY: AtomicU64 = AtomicU64::new(0);

/// Chooses the value of the stack protector's canary. Its lowest byte is zero, so that a string
/// copy cannot forge it.
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
    // The variables end at the thread pointer, at the distance that the linker counted: the
    // template's size rounded up.
    // SAFETY: the reserved range is private, mapped, zeroed and large enough; the template is
    // constant.
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
    if let Some(observer) = OBSERVER.get() {
        (observer.begins)(block as u64);
    }
    block as u64
}
