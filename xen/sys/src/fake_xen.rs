//! A hypercall page for host tests, in which a function of the test plays Xen.
//!
//! The entries are reached by the same instructions as in a guest, so a test sees each argument in
//! the register where Xen looks for it. On return, all registers that Xen may change hold garbage,
//! so that a missing clobber in the assembly shows.

extern crate std;

use core::arch::global_asm;
use core::cell::Cell;
use std::any::Any;
use std::boxed::Box;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use xen_abi::Errno;
use xen_abi::xen::Hypercall;

// Each entry leaves its own address in rax; the hypercall's number follows from it.
global_asm!(
    ".pushsection .hypercall_page, \"ax\", @progbits",
    ".balign 4096",
    ".globl hypercall_page",
    ".type hypercall_page, @function",
    "hypercall_page:",
    ".rept 128",
    "   .balign 32, 0xcc",
    "   lea rax, [rip - 7]",
    "   jmp {enter}",
    ".endr",
    ".balign 4096, 0xcc",
    ".size hypercall_page, . - hypercall_page",
    ".popsection",
    enter = sym enter,
);

/// Gathers the registers, calls `play`, and returns its result. Registers that Xen may change come
/// back with garbage, all others as they were.
#[unsafe(naked)]
unsafe extern "C" fn enter() {
    core::arch::naked_asm!(
        "push rbp",
        "mov rbp, rsp",
        "push r9",
        "push r8",
        "push r10",
        "push rdx",
        "push rsi",
        "push rdi",
        "push rax",
        "mov rdi, rsp",
        "sub rsp, 512",
        "and rsp, -16",
        "fxsave64 [rsp]",
        "call {play}",
        "fxrstor64 [rsp]",
        "mov r9, [rbp - 8]",
        "mov rcx, 0x5a5a5a5a",
        "mov rdx, rcx",
        "mov rsi, rcx",
        "mov rdi, rcx",
        "mov r8, rcx",
        "mov r10, rcx",
        "mov r11, rcx",
        "leave",
        "ret",
        play = sym play,
    )
}

/// A hypercall as Xen sees it.
#[repr(C)]
pub struct Call {
    entry: *const u8,
    /// rdi, rsi, rdx, r10, r8.
    pub args: [u64; 5],
}

impl Call {
    /// The hypercall's number.
    pub fn number(&self) -> Hypercall {
        let offset = self.entry.addr() - (&raw const crate::hypercall_page).addr();
        assert_eq!(offset % crate::HYPERCALL_ENTRY_SIZE, 0);
        Hypercall((offset / crate::HYPERCALL_ENTRY_SIZE) as u32)
    }

    /// The value that argument `index` points to.
    pub fn pointee<T>(&mut self, index: usize) -> &mut T {
        &mut self.pointees(index, 1)[0]
    }

    /// The `count` elements that argument `index` points to.
    pub fn pointees<T>(&mut self, index: usize, count: usize) -> &mut [T] {
        let address = core::ptr::with_exposed_provenance_mut(self.args[index] as usize);
        // SAFETY: the test knows which type the hypercall under test passes here; it is borrowed
        // for the call.
        unsafe { core::slice::from_raw_parts_mut(address, count) }
    }
}

/// The function that plays Xen. It gets the call and returns the value for rax.
pub type Player = fn(&mut Call) -> i64;

std::thread_local! {
    static PLAYER: Cell<Option<Player>> = const { Cell::new(None) };
    static FAILURE: Cell<Option<Box<dyn Any + Send>>> = const { Cell::new(None) };
}

/// Runs `guest` on a machine where `player` is Xen. A failed assertion of either fails the test.
pub fn with_xen<R>(player: Player, guest: impl FnOnce() -> R) -> R {
    PLAYER.set(Some(player));
    let result = guest();
    PLAYER.set(None);
    if let Some(failure) = FAILURE.take() {
        resume_unwind(failure);
    }
    result
}

/// Lets the test answer. A panic must not unwind through [`enter`], so it is stored for
/// [`with_xen`].
extern "C" fn play(call: &mut Call) -> i64 {
    let answer = AssertUnwindSafe(|| PLAYER.get().expect("a hypercall outside of `with_xen`")(call));
    catch_unwind(answer).unwrap_or_else(|failure| {
        FAILURE.set(Some(failure));
        -i64::from(Errno::ENOSYS.0)
    })
}
