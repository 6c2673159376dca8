//! Functions that are looked up at their first call.
//!
//! The first entry of an object's PLT pushes the second word of its table and jumps to the address
//! in the third, which is [`resolve`]. That finds on the stack this word, the number of the
//! relocation, and the return address (psABI x86-64, 5.2).

use core::arch::naked_asm;
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::load::{self, Key};

/// Saves the registers that a call may change, `rax` first, below a frame of its own. Calls are
/// allowed from then on.
macro_rules! save {
    () => {
        "push rbp
         mov rbp, rsp
         push rax
         push rcx
         push rdx
         push rsi
         push rdi
         push r8
         push r9
         push r10
         push r11
         sub rsp, 264
         and rsp, -16
         movups [rsp], xmm0
         movups [rsp + 16], xmm1
         movups [rsp + 32], xmm2
         movups [rsp + 48], xmm3
         movups [rsp + 64], xmm4
         movups [rsp + 80], xmm5
         movups [rsp + 96], xmm6
         movups [rsp + 112], xmm7
         movups [rsp + 128], xmm8
         movups [rsp + 144], xmm9
         movups [rsp + 160], xmm10
         movups [rsp + 176], xmm11
         movups [rsp + 192], xmm12
         movups [rsp + 208], xmm13
         movups [rsp + 224], xmm14
         movups [rsp + 240], xmm15"
    };
}

/// Restores the registers that [`save`] has saved; `rax` from `[rbp - 8]`.
macro_rules! restore {
    () => {
        "movups xmm0, [rsp]
         movups xmm1, [rsp + 16]
         movups xmm2, [rsp + 32]
         movups xmm3, [rsp + 48]
         movups xmm4, [rsp + 64]
         movups xmm5, [rsp + 80]
         movups xmm6, [rsp + 96]
         movups xmm7, [rsp + 112]
         movups xmm8, [rsp + 128]
         movups xmm9, [rsp + 144]
         movups xmm10, [rsp + 160]
         movups xmm11, [rsp + 176]
         movups xmm12, [rsp + 192]
         movups xmm13, [rsp + 208]
         movups xmm14, [rsp + 224]
         movups xmm15, [rsp + 240]
         lea rsp, [rbp - 72]
         pop r11
         pop r10
         pop r9
         pop r8
         pop rdi
         pop rsi
         pop rdx
         pop rcx
         pop rax
         pop rbp"
    };
}

pub(crate) use {restore, save};

/// The function that [`resolve`] calls: [`bind`], in an image that opens libraries. It is a
/// variable because naked functions, and the symbols that they name, are in every image until its
/// sections are linked.
static BIND: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Sets [`BIND`]. It is called before an object is loaded.
pub fn init() {
    BIND.store(bind as *mut (), Ordering::Relaxed);
}

/// Looks a function up, writes its address into the table, and jumps to it as if it had been called
/// directly.
#[unsafe(naked)]
pub unsafe extern "C" fn resolve() {
    naked_asm!(
        save!(),
        "mov rdi, [rbp + 8]",
        "mov rsi, [rbp + 16]",
        "call [rip + {bind}]",
        // The address replaces the number of the relocation, and `ret` jumps to it.
        "mov [rbp + 16], rax",
        restore!(),
        "lea rsp, [rsp + 8]",
        "ret",
        bind = sym BIND,
    );
}

extern "C" fn bind(object: u64, number: u64) -> u64 {
    load::bind(Key(object), number as usize)
        .unwrap_or_else(|error| panic!("a function cannot be found at its first call: {error}"))
}
