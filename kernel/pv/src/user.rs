//! Guest user mode: application code runs where Xen pushes nothing on its stack, so that code with a red zone is safe, and calls the libOS as it does in
//! kernel mode.
//!
//! The page tables are the same. What the modes differ in is where exceptions and events arrive: in user mode on a part of the thread's stack that is
//! set apart for the kernel ([`ROOM`]). A hypercall from user mode arrives there, too, and is made in its place; so all code runs in
//! either mode. Only a change of threads must be made in kernel mode, because a thread leaves off where the kernel's part of its stack is in use.
//!
//! What is the application's is called by [`run`], in every thread of it. Threads of the kernel and the libOS stay in kernel mode.

use core::arch::{asm, global_asm};
use core::ffi::c_void;

use xen_abi::DomId;
use xen_abi::arch_x86::FLAT_KERNEL_SS;
use xen_abi::callback::{CallbackFlags, CallbackRegister, CallbackType};
use xen_abi::xen::{MmuextCmd, MmuextOp};

use crate::life::{self, Component, Order};
use crate::thread::Mode;
use crate::{boot, events, mmu, thread, tls};

global_asm!(include_str!("user.S"));

unsafe extern "C" {
    fn user_syscall_entry();
    fn user_call(function: *const c_void, a: u64, b: u64, c: u64) -> u64;
    fn user_run(body: extern "C" fn(*mut c_void), data: *mut c_void, room: usize, prepare: extern "C" fn(u64));
    fn user_return();
}

/// Bytes of a thread's stack that are the kernel's while the thread is in user mode.
pub const ROOM: usize = 16 << 10;

/// Runs `main` in the mode that `mode=` of the guest's configuration names: `kernel`, `user`, or `default` if it says nothing.
pub fn start(default: &str, mut main: impl FnMut()) {
    match boot::command_line().setting("mode").unwrap_or(default) {
        "kernel" => main(),
        "user" => {
            init();
            run(&mut main);
        }
        other => boot::refuse(format_args!("mode={other}: the modes are kernel and user")),
    }
}

fn init() {
    enter_domain();
    thread::MODE.call_once(|| Mode { run, room: ROOM, switch });
    life::join(Order::Mode, &LIFE);
}

/// What Xen must know of this domain before a thread goes to user mode.
fn enter_domain() {
    let root = MmuextOp::on_frame(MmuextCmd::NEW_USER_BASEPTR, mmu::root());
    // SAFETY: the root of the address space that is in use.
    unsafe { xen_sys::mmuext_op(&[root], DomId::SELF) }.expect("Xen takes the tables for user mode");
    let callback = CallbackRegister {
        kind: CallbackType::SYSCALL,
        flags: CallbackFlags::MASK_EVENTS,
        address: user_syscall_entry as *const () as u64,
    };
    // SAFETY: an entry that was made for this callback.
    unsafe { xen_sys::callback_op_register(callback) }.expect("Xen refuses a callback");
}

/// A child begins in kernel mode, and goes on in the mode that its parent was in.
static LIFE: Component = Component { begin: |_| begin_life(), ..Component::PASSIVE };

fn begin_life() {
    enter_domain();
    if let Some(stack) = tls::kernel_stack(tls::thread_pointer()) {
        name_stack(stack);
        if in_user_mode() {
            // SAFETY: the rest of the thread is to run there.
            unsafe { user_return() };
        }
    }
}

/// Runs `body` in user mode, on the calling thread's stack.
///
/// # Panics
/// When the thread is in user mode.
fn run(body: &mut dyn FnMut()) {
    extern "C" fn call(body: *mut c_void) {
        // SAFETY: `run` passes its argument's address, and waits.
        let body = unsafe { &mut *body.cast::<&mut dyn FnMut()>() };
        body();
    }
    extern "C" fn prepare(stack: u64) {
        tls::set_kernel_stack(stack);
        name_stack(stack);
    }
    assert!(tls::kernel_stack(tls::thread_pointer()).is_none(), "the thread is in user mode");
    let mut body = body;
    let _mask = events::mask();
    // SAFETY: `call` is given what it expects; below this frame is nothing of the thread's, and its stack has the room (`Mode::room`).
    unsafe { user_run(call, (&raw mut body).cast(), ROOM, prepare) };
    // Events are masked still.
    tls::set_kernel_stack(0);
}

/// Whether the calling thread is in user mode: then its stack pointer is below the kernel's part.
fn in_user_mode() -> bool {
    let rsp: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) rsp, options(nomem, nostack, preserves_flags)) };
    tls::kernel_stack(tls::thread_pointer()).is_some_and(|stack| rsp <= stack - ROOM as u64)
}

/// Tells Xen where frames go that come in user mode.
fn name_stack(stack: u64) {
    // SAFETY: the part of the thread's stack that is set apart for it.
    let _ = unsafe { xen_sys::stack_switch(FLAT_KERNEL_SS, stack) };
}

/// The [`Switch`](thread::Switch) of threads in either mode.
///
/// # Safety
/// As [`thread::switch`].
unsafe extern "C" fn switch(save: *mut u64, rsp: u64, thread_block: u64) {
    if in_user_mode() {
        // SAFETY: calls the function with its arguments, in kernel mode, on the kernel's part of this thread's stack.
        unsafe { user_call(switch_in_kernel as *const c_void, save as u64, rsp, thread_block) };
    } else {
        // SAFETY: the caller's promise.
        unsafe { switch_in_kernel(save, rsp, thread_block) };
    }
}

/// # Safety
/// As [`thread::switch`].
unsafe extern "C" fn switch_in_kernel(save: *mut u64, rsp: u64, thread_block: u64) {
    if let Some(stack) = tls::kernel_stack(thread_block) {
        name_stack(stack);
    }
    // SAFETY: the caller's promise.
    unsafe { thread::switch(save, rsp, thread_block) };
}
