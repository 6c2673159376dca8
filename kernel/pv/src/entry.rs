//! The assembly of the kernel (`entry.S`) and the Rust names for its symbols.

use core::arch::global_asm;
use core::ffi::c_void;

global_asm!(include_str!("entry.S"));

unsafe extern "C" {
    /// Entry points of vectors 0 to 31, by vector.
    pub static trap_entry_table: [u64; 32];
    /// The entry point for events.
    pub fn event_upcall_entry();
    /// The entry point for a failure of Xen to load a segment on its way back to the guest.
    pub fn failsafe_entry();
    /// The return point of the handler of exceptions and events. Above it on the stack is the
    /// interrupted context.
    pub fn trap_return();
    /// The target of a new thread's first `ret`: calls `r13` with `r12` as its argument.
    pub fn thread_start();
    /// Pushes the callee-saved registers on this stack, stores `rsp` at `save`, and continues on
    /// the stack `next`.
    ///
    /// # Safety
    /// Events are masked; `next` came from an earlier `save` or from `thread::first_frame`, and its
    /// stack is mapped.
    pub fn switch_stacks(save: *mut u64, next: u64);
    /// Calls `act` with a stack pointer and returns the value that `act` returns. [`resume_at`]
    /// with that stack pointer, in a copy of the stack, makes this call return once more.
    ///
    /// # Safety
    /// `act` may be called with `data`.
    pub fn returns_twice(act: extern "C" fn(u64, *mut c_void) -> u64, data: *mut c_void) -> u64;
    /// Lets [`returns_twice`] return `value` on the stack that `rsp` belongs to.
    ///
    /// # Safety
    /// `rsp` is the argument that [`returns_twice`] passed to `act`. The stack from there up,
    /// `%fs`, and the memory that the caller of it uses are as they were then.
    pub fn resume_at(rsp: u64, value: u64) -> !;
}

/// Bounds that `linker.ld` defines; only their addresses have a meaning.
pub mod image {
    unsafe extern "C" {
        static __text_start: u8;
        static __text_end: u8;
        static __rodata_start: u8;
        static __rodata_end: u8;
        static __data_start: u8;
        static __data_end: u8;
        static __init_start: u8;
        static __exports_start: u8;
        static __exports_end: u8;
        static __init_end: u8;
        static __boot_stack_guard: u8;
        static __boot_stack_end: u8;
        static __tls_template: u8;
        static __tls_file_size: u8;
        static __tls_memory_size: u8;
    }

    macro_rules! addresses {
        ($($(#[$doc:meta])* $name:ident = $symbol:ident;)*) => {
            $($(#[$doc])* pub fn $name() -> usize { &raw const $symbol as usize })*
        };
    }

    addresses! {
        /// First byte of the executable pages.
        text_start = __text_start;
        /// End of the executable pages.
        text_end = __text_end;
        /// First byte of the constants.
        rodata_start = __rodata_start;
        /// End of the constants.
        rodata_end = __rodata_end;
        /// First byte of the writable statics.
        data_start = __data_start;
        /// End of the image in memory.
        data_end = __data_end;
        /// First of the functions that boot calls for the components of the image.
        init_start = __init_start;
        exports_start = __exports_start;
        exports_end = __exports_end;
        /// End of these functions.
        init_end = __init_end;
        /// The page below the boot stack, which is left unmapped.
        boot_stack_guard = __boot_stack_guard;
        /// Top of the boot stack.
        boot_stack_end = __boot_stack_end;
        /// First byte of the TLS template.
        tls_template = __tls_template;
        /// Bytes of the TLS template that have a value.
        tls_file_size = __tls_file_size;
        /// Bytes of the TLS template with its zeroed part.
        tls_memory_size = __tls_memory_size;
    }
}
