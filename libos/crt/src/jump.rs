//! `setjmp` and `longjmp`. The saved registers fit into the first 64 octets of glibc's `jmp_buf`,
//! which has 200.

use core::arch::naked_asm;

use crate::export::Export;

pub(crate) const SETJMP: &[Export] = exports![
    setjmp,
    _setjmp = setjmp,
    __sigsetjmp = setjmp,
    sigsetjmp = setjmp,
    longjmp,
    _longjmp = longjmp,
    siglongjmp = longjmp,
    __longjmp_chk = longjmp
];

/// There are no signals, so the second argument of `__sigsetjmp` has no effect.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn setjmp() {
    naked_asm!(
        "mov [rdi], rbx",
        "mov [rdi + 8], rbp",
        "mov [rdi + 16], r12",
        "mov [rdi + 24], r13",
        "mov [rdi + 32], r14",
        "mov [rdi + 40], r15",
        // The stack pointer and the return address of the caller.
        "lea rax, [rsp + 8]",
        "mov [rdi + 48], rax",
        "mov rax, [rsp]",
        "mov [rdi + 56], rax",
        "xor eax, eax",
        "ret",
    )
}

#[unsafe(naked)]
pub(crate) unsafe extern "C" fn longjmp() {
    naked_asm!(
        "mov eax, esi",
        "test eax, eax",
        "jnz 2f",
        "inc eax",
        "2:",
        "mov rbx, [rdi]",
        "mov rbp, [rdi + 8]",
        "mov r12, [rdi + 16]",
        "mov r13, [rdi + 24]",
        "mov r14, [rdi + 32]",
        "mov r15, [rdi + 40]",
        "mov rsp, [rdi + 48]",
        "jmp qword ptr [rdi + 56]",
    )
}
