//! Provokes the exception that the argument names. Each must be reported as what it is, and end the domain with `crash`.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use core::arch::asm;
use core::hint::black_box;

use test_guests::{argument, error, failure};
use zooid::thread;

zooid::main!(main, mode = kernel);

/// `ret`, for data that is executed.
const RET: u8 = 0xc3;

static CONSTANT: [u64; 4] = [1, 2, 3, 4];

unsafe extern "C" {
    /// The page below the boot stack (linker.ld).
    static __boot_stack_guard: u8;
}

fn main() {
    provoke(argument());
}

#[inline(never)]
fn provoke(fault: &str) {
    match fault {
        "null_read" => null_read(),
        "null_write" => null_write(),
        "null_call" => null_call(),
        "write_text" => write_text(),
        "write_constant" => write_constant(),
        "execute_heap" => execute_heap(),
        "execute_stack" => execute_stack(),
        "execute_data" => execute_data(),
        "divide" => divide(),
        "invalid_opcode" => invalid_opcode(),
        "avx" => avx(),
        "bad_selector" => bad_selector(),
        "port" => port(),
        "breakpoint" => breakpoint(),
        "single_step" => single_step(),
        "x87" => x87(),
        "non_canonical" => non_canonical(),
        "below_stack" => below_stack(),
        "below_thread_stack" => thread::spawn(below_stack).join(),
        "below_boot_stack" => below_boot_stack(),
        "stack_overflow" => stack_overflow(),
        "thread_stack_overflow" => thread::spawn(stack_overflow).join(),
        "registers" => registers(),
        _ => error!("no such fault: {fault}"),
    }
    failure!("{fault} went unnoticed")
}

fn write(address: *const u8) {
    // SAFETY: none: the fault is the test, here and wherever nothing else is said.
    unsafe { black_box(address).cast_mut().write_volatile(RET) }
}

fn call(address: *const u8) {
    // SAFETY: as above.
    let function: fn() = unsafe { core::mem::transmute(black_box(address)) };
    function();
}

#[inline(never)]
fn null_read() {
    // SAFETY: none.
    black_box(unsafe { black_box(core::ptr::null::<u64>()).read_volatile() });
}

#[inline(never)]
fn null_write() {
    write(core::ptr::without_provenance(8));
}

#[inline(never)]
fn null_call() {
    // SAFETY: none.
    unsafe { asm!("xor eax, eax", "call rax", out("rax") _, clobber_abi("C")) };
}

#[inline(never)]
fn write_text() {
    write(null_read as fn() as *const u8);
}

#[inline(never)]
fn write_constant() {
    write((&raw const CONSTANT).cast());
}

#[inline(never)]
fn execute_heap() {
    let code = Box::new([RET; 64]);
    call(code.as_ptr());
    black_box(code);
}

#[inline(never)]
fn execute_stack() {
    let code = black_box([RET; 64]);
    call(code.as_ptr());
    black_box(code);
}

#[inline(never)]
fn execute_data() {
    static mut CODE: [u8; 64] = [RET; 64];
    call((&raw const CODE).cast());
}

#[inline(never)]
fn divide() {
    // SAFETY: none.
    unsafe { asm!("xor edx, edx", "xor ecx, ecx", "mov eax, 1", "div ecx", out("rax") _, out("rcx") _, out("rdx") _) };
}

#[inline(never)]
fn invalid_opcode() {
    // SAFETY: none.
    unsafe { asm!("ud2") };
}

/// Loads a selector that no descriptor table has.
#[inline(never)]
fn avx() {
    // SAFETY: none.
    unsafe { asm!("vaddps ymm0, ymm0, ymm0") };
}

#[inline(never)]
fn bad_selector() {
    // SAFETY: none.
    unsafe { asm!("mov ds, {0:x}", in(reg) 0xdeadu64) };
}

/// Writes to an I/O port, which an unprivileged domain may not.
#[inline(never)]
fn port() {
    // SAFETY: none.
    unsafe { asm!("out 0x80, al", in("al") 0u8) };
}

#[inline(never)]
fn breakpoint() {
    // SAFETY: none.
    unsafe { asm!("int3") };
}

#[inline(never)]
fn single_step() {
    // SAFETY: none.
    unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop", "nop") };
}

/// Divides by zero while the x87 unit's exceptions are unmasked.
#[inline(never)]
fn x87() {
    let control = 0x37bu16; // all masked but the division by zero
    // SAFETY: none.
    unsafe { asm!("fninit", "fldcw [{}]", "fld1", "fldz", "fdivp", "fwait", in(reg) &control) };
}

#[inline(never)]
fn non_canonical() {
    // SAFETY: none.
    black_box(unsafe { core::ptr::without_provenance::<u64>(0x1234_5678_9abc_def0).read_volatile() });
}

/// Reads downwards until the stack ends. The stack pointer stays where it is, so that the fault can be reported.
#[inline(never)]
fn below_stack() {
    let here = 0u8;
    let mut address = &raw const here;
    loop {
        // SAFETY: none.
        black_box(unsafe { address.read_volatile() });
        address = address.wrapping_sub(1024);
    }
}

#[inline(never)]
fn below_boot_stack() {
    // SAFETY: none.
    black_box(unsafe { (&raw const __boot_stack_guard).read_volatile() });
}

#[inline(never)]
#[allow(unconditional_recursion)]
fn stack_overflow() {
    let frame = black_box([0u8; 256]);
    stack_overflow();
    black_box(frame);
}

/// Faults with known values in the registers.
#[inline(never)]
fn registers() {
    // SAFETY: none.
    unsafe {
        asm!(
            "mov rax, 0x1111222233334444",
            "mov rbx, 0x0b0b0b0b0b0b0b0b",
            "mov rcx, 0x0c0c0c0c0c0c0c0c",
            "mov rdx, 0x0d0d0d0d0d0d0d0d",
            "mov rsi, 0x5151515151515151",
            "mov rdi, 0xd1d1d1d1d1d1d1d1",
            "mov r8,  0x0808080808080808",
            "mov r9,  0x0909090909090909",
            "mov r10, 0x1010101010101010",
            "mov r11, 0x1111111111111111",
            "mov r12, 0x1212121212121212",
            "mov r13, 0x1313131313131313",
            "mov r14, 0x1414141414141414",
            "mov r15, 0x1515151515151515",
            "ud2",
            options(noreturn)
        )
    }
}
