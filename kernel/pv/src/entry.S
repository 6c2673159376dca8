/*
 * The parts of the kernel that must be assembly: the first instruction, the trap and upcall
 * entries, the return from them, and the thread switch. Intel syntax; included by `entry.rs`.
 *
 * Xen enters a 64-bit PV kernel for an exception or an event with this on the current stack
 * (public/arch-x86/xen-x86_64.h, `create_bounce_frame` in xen/arch/x86/x86_64/entry.S): rcx, r11,
 * [error code,] rip, cs, rflags, rsp, ss. Bit 9 of the saved rflags is set if events were unmasked.
 * The return is the `iret` hypercall, which restores that state together with the registers, so
 * that no event can slip in between. For the kernel's own page faults it is `iretq`.
 */

    .section .text.entry, "ax", @progbits

/* _start(rsi = start_info): the builder's stack only serves to find the first free frame. */
    .globl _start
    .type _start, @function
_start:
    cld
    fninit                          /* Xen 4.20 and later start a vCPU with the x87's state after a reset */
    mov     rdi, rsi
    mov     rsi, rsp
    lea     rsp, [__boot_stack_end]
    xor     ebp, ebp
    call    zooid_boot
    ud2
    .size _start, . - _start

/*
 * An entry point per vector. After it the stack holds, from low to high: vector, error code, rip,
 * cs, rflags, rsp, ss.
 */
.macro trap_entry vector, has_error
trap_entry_\vector:
    pop     rcx
    pop     r11
  .if \has_error == 0
    push    0
  .endif
    push    \vector
    jmp     trap_common
.endm

.altmacro
.set vector, 0
.rept 32
  .if (vector == 8) || (vector == 10) || (vector == 11) || (vector == 12) || (vector == 13) || (vector == 14) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30)
    trap_entry %vector, 1
  .else
    trap_entry %vector, 0
  .endif
  .set vector, vector + 1
.endr

/* Events have vector 256, which no exception has. */
    .globl event_upcall_entry
event_upcall_entry:
    pop     rcx
    pop     r11
    push    0
    push    256
    jmp     trap_common

/*
 * The entry for a failure of Xen to load a segment on its return to the guest: ds, es, fs, gs lie
 * above rcx and r11. The kernel never changes a selector, so this is a crash; vector 257 reports
 * it.
 */
    .globl failsafe_entry
failsafe_entry:
    pop     rcx
    pop     r11
    add     rsp, 32
    push    0
    push    257
    jmp     trap_common

/* Pushes `TrapFrame` of trap.rs. */
    .type trap_common, @function
trap_common:
    cld
    push    rax
    push    rbx
    push    rcx
    push    rdx
    push    rsi
    push    rdi
    push    rbp
    push    r8
    push    r9
    push    r10
    push    r11
    push    r12
    push    r13
    push    r14
    push    r15
    mov     rdi, rsp
    /* A frame for the back trace: the interrupted rip and rbp. */
    mov     rbp, rsp
    sub     rsp, 512
    and     rsp, -16
    fxsave64 [rsp]
    fninit                          /* the next thread expects an empty x87 stack, as at any call */
    mov     rbx, rbp
    push    qword ptr [rdi + 17 * 8]
    push    qword ptr [rdi + 8 * 8]
    mov     rbp, rsp
    call    zooid_trap
    .globl trap_return
trap_return:
    add     rsp, 16
    fxrstor64 [rsp]
    mov     rsp, rbx
    mov     [rsp + 15 * 8], al      /* the vector is not needed any more: whether to leave by `iretq` */
    pop     r15
    pop     r14
    pop     r13
    pop     r12
    pop     r11
    pop     r10
    pop     r9
    pop     r8
    pop     rbp
    pop     rdi
    pop     rsi
    pop     rdx
    pop     rcx
    pop     rbx
    pop     rax
    test    byte ptr [rsp], 1
    lea     rsp, [rsp + 8]
    jnz     1f
    mov     qword ptr [rsp], 0      /* the error code's place holds iret's flags: 0 = leave by iretq */
    jmp     hypercall_page + 23 * 32
1:  or      byte ptr [rsp + 2 * 8], 3   /* Xen shows the kernel's cs and ss as those of ring 0 */
    or      byte ptr [rsp + 5 * 8], 3
    add     rsp, 8
    iretq
    .size trap_common, . - trap_common

/*
 * switch_stacks(save: *mut u64 in rdi, next: u64 in rsi): pushes the psABI's callee-saved registers
 * on the running thread's stack, stores its rsp at `save` and continues the thread whose rsp is
 * `next`.
 */
    .globl switch_stacks
    .type switch_stacks, @function
switch_stacks:
    push    rbp
    push    rbx
    push    r12
    push    r13
    push    r14
    push    r15
    sub     rsp, 8
    stmxcsr [rsp]
    fnstcw  [rsp + 4]
    mov     [rdi], rsp
    mov     rsp, rsi
restore_registers:
    fldcw   [rsp + 4]
    ldmxcsr [rsp]
    add     rsp, 8
    pop     r15
    pop     r14
    pop     r13
    pop     r12
    pop     rbx
    pop     rbp
    ret
    .size switch_stacks, . - switch_stacks

/*
 * returns_twice(act: extern "C" fn(rsp, data) -> u64 in rdi, data in rsi) -> u64: as
 * `switch_stacks`, but stays here, calls `act` with the stack pointer and returns its result. In a
 * copy of this stack, `resume_at` returns once more.
 */
    .section .text.returns_twice, "ax", @progbits
    .globl returns_twice
    .type returns_twice, @function
returns_twice:
    push    rbp
    push    rbx
    push    r12
    push    r13
    push    r14
    push    r15
    sub     rsp, 8
    stmxcsr [rsp]
    fnstcw  [rsp + 4]
    mov     rax, rdi
    mov     rdi, rsp
    call    rax
    jmp     restore_registers
    .size returns_twice, . - returns_twice

/* resume_at(rsp in rdi, value in rsi): returns from `returns_twice` with `value`. */
    .section .text.resume_at, "ax", @progbits
    .globl resume_at
    .type resume_at, @function
resume_at:
    mov     rsp, rdi
    mov     rax, rsi
    jmp     restore_registers
    .size resume_at, . - resume_at

    .section .text.entry, "ax", @progbits

/*
 * The target of a new thread's first `ret`: r12 = closure data, r13 = its entry function. rbp = 0
 * ends back traces.
 */
    .globl thread_start
    .type thread_start, @function
thread_start:
    xor     ebp, ebp
    mov     rdi, r12
    call    r13
    ud2
    .size thread_start, . - thread_start

    .section .rodata
    .balign 8
    .globl trap_entry_table
trap_entry_table:
.macro trap_address vector
    .quad   trap_entry_\vector
.endm
.set vector, 0
.rept 32
    trap_address %vector
  .set vector, vector + 1
.endr

/*
 * ELF notes (public/elfnote.h) for the domain builder. BSD_SYMTAB asks it to load .symtab and
 * .strtab behind the image: they are the name table of the back traces.
 */
.macro note_text type, text
    .balign 4
    .long   4, 2f - 1f, \type
    .asciz  "Xen"
1:  .asciz  "\text"
2:
.endm
.macro note_quad type, value
    .balign 4
    .long   4, 8, \type
    .asciz  "Xen"
    .quad   \value
.endm

    .section .note.xen, "a", @note
    note_quad 1, _start                     /* ENTRY */
    note_quad 2, hypercall_page             /* HYPERCALL_PAGE */
    note_quad 3, 0xffffffff80000000         /* VIRT_BASE */
    note_quad 4, 0xffffffff80000000         /* PADDR_OFFSET */
    note_text 5, "xen-3.0"                  /* XEN_VERSION */
    note_text 6, "Zooid"                    /* GUEST_OS */
    note_text 8, "generic"                  /* LOADER */
    note_text 9, "yes"                      /* PAE_MODE */
    note_text 11, "yes"                     /* BSD_SYMTAB */
    .balign 4
