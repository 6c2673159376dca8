/*
 * The entry to guest user mode and the return from it. Intel syntax; included by `user.rs`, and
 * only in images that can run in it.
 *
 * Both modes are ring 3 with the same page tables; Xen keeps the current one. In user mode, Xen
 * pushes the frames of exceptions, of events and of `syscall` on the stack that the kernel has
 * named for the thread: rcx, r11, rip, cs, rflags, rsp, ss (`create_bounce_frame` in
 * xen/arch/x86/x86_64/entry.S). The return is the `iret` hypercall, which goes to the mode in cs.
 */

    .section .text.user_mode, "ax", @progbits

/* No hypercall has this number: it calls rdi(rsi, rdx, r10) in kernel mode. */
.set KERNEL_CALL, 0x5a00

/*
 * The target of `syscall` in user mode, with events masked. A hypercall, with its number in eax and
 * its arguments in their registers, is made here.
 */
    .globl user_syscall_entry
    .type user_syscall_entry, @function
user_syscall_entry:
    add     rsp, 16                 /* rcx and r11 are lost, as after any hypercall */
    push    0                       /* the flags of iret; and now the stack is aligned as for a call */
    cmp     eax, KERNEL_CALL
    je      1f
    syscall
    jmp     hypercall_page + 23 * 32
1:  mov     rax, rdi
    mov     rdi, rsi
    mov     rsi, rdx
    mov     rdx, r10
    call    rax
    jmp     hypercall_page + 23 * 32
    .size user_syscall_entry, . - user_syscall_entry

/* user_call(function, a, b, c): in user mode, lets the kernel call function(a, b, c). */
    .globl user_call
    .type user_call, @function
user_call:
    mov     r10, rcx
    mov     eax, KERNEL_CALL
    syscall
    ret
    .size user_call, . - user_call

/*
 * user_run(body: extern "C" fn(data) in rdi, data in rsi, room in rdx, prepare: extern "C"
 * fn(kernel stack) in rcx): calls body(data) in user mode, on this stack, `room` bytes further
 * down. The bytes between are the kernel's while the thread is in user mode. Returns, in kernel
 * mode and with events masked, when body does.
 */
    .globl user_run
    .type user_run, @function
user_run:
    push    rbp
    push    rbx
    push    r12
    push    r13
    push    r14
    push    r15
    sub     rsp, 8
    mov     r12, rdi
    mov     r13, rsi
    mov     rbx, rsp
    sub     rbx, rdx
    mov     rdi, rsp
    call    rcx
    push    0xe02b                  /* FLAT_USER_SS */
    push    rbx
    push    0x202                   /* events are not masked */
    push    0xe033                  /* FLAT_USER_CS */
    lea     rax, [rip + 2f]
    push    rax
    push    0
    jmp     hypercall_page + 23 * 32
2:  xor     ebp, ebp
    mov     rdi, r13
    call    r12
    lea     rdi, [rip + 3f]
    call    user_call
    ud2
    /* Back in kernel mode: above are the address after `call`, and the frame of `syscall`. */
3:  add     rsp, 64
    pop     r15
    pop     r14
    pop     r13
    pop     r12
    pop     rbx
    pop     rbp
    ret
    .size user_run, . - user_run

/* user_return(): returns in user mode, with events masked. */
    .globl user_return
    .type user_return, @function
user_return:
    pop     rax
    mov     rcx, rsp
    push    0xe02b
    push    rcx
    push    2                       /* events stay masked */
    push    0xe033
    push    rax
    push    0
    jmp     hypercall_page + 23 * 32
    .size user_return, . - user_return
