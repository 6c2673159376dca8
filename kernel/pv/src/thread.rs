//! Threads: preemptive, on one vCPU. The decisions are `zooid_core::sched`'s; here are stacks,
//! registers and the idle loop.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use spin::Once;
use xen_abi::PAGE_SIZE;
use xen_abi::arch_x86::SegmentBase;
use zooid_core::sched::{Scheduler, State, WakeReason};

use crate::events::{self, Masked};
use crate::life::{Birth, Component};
use crate::mmu::{Stack, StackError};
use crate::{entry, time, tls};

pub use zooid_core::sched::ThreadId;

/// The least time that a thread runs while others wait, in nanoseconds.
const SLICE: u64 = 2_000_000;

/// Bytes of stack of a thread whose creator names no size.
pub const DEFAULT_STACK_SIZE: usize = 64 << 10;

struct Thread {
    name: String,
    /// The stack pointer at which the thread left off; valid while it does not run.
    rsp: u64,
    /// Base of `%fs`: the thread block.
    thread_block: u64,
    /// Dropping the record frees it.
    stack: Stack,
    /// The entry that the thread starts from again in the child of a fork, if it is a service.
    service: Option<fn()>,
}

struct Threads {
    scheduler: Scheduler,
    /// The threads, by slot.
    records: Vec<Option<Thread>>,
    /// The thread that has exited last and whose stack is still to be given back.
    exited: Option<ThreadId>,
}

impl Threads {
    /// The calling thread's record; none in boot and idle code.
    #[inline(never)]
    fn running(&self) -> Option<&Thread> {
        self.records.get(self.scheduler.running()?.slot())?.as_ref()
    }
}

static THREADS: Masked<Threads> =
    Masked::new(Threads { scheduler: Scheduler::new(SLICE), records: Vec::new(), exited: None });

/// A thread could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpawnError {
    /// No frames are left for its stack, or no heap for its record.
    OutOfMemory,
}

impl fmt::Display for SpawnError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("not enough memory for a thread; give the guest more with memory= in its configuration")
    }
}

impl core::error::Error for SpawnError {}

impl From<StackError> for SpawnError {
    fn from(_: StackError) -> Self {
        Self::OutOfMemory
    }
}

/// Makes a thread that runs `body` and then exits. It is ready at once.
///
/// `stack_size` is in bytes and rounded up to whole pages; the page below the stack is unmapped.
pub fn spawn(name: &str, stack_size: usize, body: impl FnOnce() + Send + 'static) -> Result<ThreadId, SpawnError> {
    start_on(Stack::new(stack_for(&body, stack_size))?, name_of(name)?, body, None)
}

/// Bytes of stack for a thread whose `body` lies on it until it is called.
fn stack_for<F>(body: &F, stack_size: usize) -> usize {
    match size_of_val(body) {
        ..=SMALL_BODY => stack_size,
        size => stack_size.saturating_add(size),
    }
}

/// The largest body of a thread, in bytes, that needs no further stack.
const SMALL_BODY: usize = 512;

fn name_of(name: &str) -> Result<String, SpawnError> {
    let mut owned = String::new();
    owned.try_reserve_exact(name.len()).map_err(|_| SpawnError::OutOfMemory)?;
    owned.push_str(name);
    Ok(owned)
}

/// The mode that the application's threads run in, if it is not that of the kernel's threads.
pub struct Mode {
    /// Runs its argument.
    pub run: fn(&mut dyn FnMut()),
    /// Bytes of stack that `run` needs.
    pub room: usize,
    /// Leaves the running thread for another one.
    pub switch: Switch,
}

/// Set by the image's mode.
pub static MODE: Once<Mode> = Once::new();

/// Runs a part of the application, in the image's mode.
pub fn run_application(body: &mut dyn FnMut()) {
    match MODE.get() {
        Some(mode) => (mode.run)(body),
        None => body(),
    }
}

/// As [`spawn`], for a thread of the application.
pub fn spawn_application(
    name: &str,
    stack_size: usize,
    body: impl FnOnce() + Send + 'static,
) -> Result<ThreadId, SpawnError> {
    let room = MODE.get().map_or(0, |mode| mode.room);
    let mut body = Some(body);
    spawn(name, stack_size.saturating_add(room), move || {
        run_application(&mut || body.take().expect("it is called once")());
    })
}

/// As [`spawn`], for a thread of the kernel or the libOS that a child of a fork has, too: there it
/// runs `body` from its beginning.
pub fn spawn_service(name: &str, stack_size: usize, body: fn()) -> Result<ThreadId, SpawnError> {
    start_on(Stack::new(stack_size)?, name_of(name)?, body, Some(body))
}

fn start_on<F: FnOnce() + Send + 'static>(
    mut stack: Stack,
    name: String,
    body: F,
    service: Option<fn()>,
) -> Result<ThreadId, SpawnError> {
    // The lock is held until the thread is in the list, so that a walk through all threads finds
    // it.
    let mut threads = THREADS.lock();
    let Threads { scheduler, records, .. } = &mut *threads;
    records.try_reserve(1).map_err(|_| SpawnError::OutOfMemory)?;
    let id = scheduler.spawn().map_err(|_| SpawnError::OutOfMemory)?;
    let thread_block = tls::place(&mut stack);
    let rsp = first_frame(&mut stack, body);
    // Slots are given out one after the other, so one more record is enough.
    if records.len() <= id.slot() {
        records.push(None);
    }
    records[id.slot()] = Some(Thread { name, rsp, thread_block, stack, service });
    begin_slice_if_contended(&mut threads.scheduler);
    Ok(id)
}

/// Puts the thread's body on its stack, and the words that `switch_stacks` pops, so that the thread
/// starts in `thread_start`.
fn first_frame<F: FnOnce() + Send + 'static>(stack: &mut Stack, body: F) -> u64 {
    const MXCSR_AND_FCW: u64 = 0x0000_037f_0000_1f80; // all exceptions masked: the psABI's initial state
    let place = stack.reserve(size_of::<F>(), align_of::<F>());
    // SAFETY: room that was made for it, on a stack that nobody uses yet.
    unsafe { (place as *mut F).write(body) };
    let r12 = place as u64;
    let r13 = thread_main::<F> as *const () as u64;
    // From low to high: mxcsr and fcw, r15, r14, r13, r12, rbx, rbp, return address. The
    // stack is aligned as the psABI wants it for the functions that `thread_start` calls.
    stack.reserve(16, 16);
    stack.push(entry::thread_start as *const () as u64);
    for value in [0, 0, r12, r13, 0, 0, MXCSR_AND_FCW] {
        stack.push(value);
    }
    stack.top()
}

extern "C" fn thread_main<F: FnOnce() + Send + 'static>(body: *mut F) -> ! {
    finish_switch();
    events::unmask();
    // SAFETY: `first_frame` laid it there, and only this thread takes it, once.
    let body = unsafe { body.read() };
    body();
    exit()
}

/// Ends the calling thread.
pub fn exit() -> ! {
    let _mask = events::mask();
    {
        let mut threads = THREADS.lock();
        let id = threads.scheduler.exit();
        threads.exited = Some(id);
    }
    run_next(None);
    unreachable!("an exited thread runs")
}

/// Leaves the boot stack for the first thread. The caller's stack is never returned to.
pub fn start() -> ! {
    run_next(None);
    unreachable!("the boot stack runs")
}

/// The calling thread.
pub fn current() -> ThreadId {
    THREADS.lock().scheduler.running().expect("a thread is running")
}

/// Shows the name of the running thread, for reports. It takes no lock that may be held.
pub struct Running;

impl fmt::Display for Running {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(threads) = THREADS.try_lock() else { return out.write_str("the scheduler") };
        match threads.running() {
            Some(thread) => write!(out, "thread {:?}", thread.name),
            None => out.write_str("boot or idle code"),
        }
    }
}

/// True if the caller is a service. False, too, if the lock of the threads is taken.
pub fn is_service() -> bool {
    THREADS.try_lock().is_some_and(|threads| threads.running().is_some_and(|thread| thread.service.is_some()))
}

/// True if the caller may wait: threads run, and events are not masked.
pub fn may_block() -> bool {
    !events::masked() && THREADS.lock().scheduler.running().is_some()
}

/// Blocks the calling thread until [`wake`], or until `deadline` (system time, ns); `false` when
/// the deadline came first.
///
/// The caller has masked events since it decided to block.
pub fn block(deadline: Option<u64>) -> bool {
    let _mask = events::mask();
    let me = {
        let mut threads = THREADS.lock();
        let me = threads.scheduler.running();
        threads.scheduler.block(deadline);
        if let Some(deadline) = deadline {
            time::arm(deadline);
        }
        me
    };
    run_next(me);
    THREADS.lock().scheduler.wake_reason() == WakeReason::Woken
}

/// Makes a blocked thread ready; `false`, and nothing happens, if it is not blocked.
pub fn wake(id: ThreadId) -> bool {
    let mut threads = THREADS.lock();
    let woken = threads.scheduler.wake(id);
    if woken {
        begin_slice_if_contended(&mut threads.scheduler);
    }
    woken
}

/// Lets the other ready threads run first.
pub fn yield_now() {
    let _mask = events::mask();
    let me = {
        let mut threads = THREADS.lock();
        let me = threads.scheduler.running();
        threads.scheduler.preempt();
        me
    };
    run_next(me);
}

/// Blocks the calling thread until `deadline` (system time, ns).
pub fn sleep_until(deadline: u64) {
    let _mask = events::mask();
    while time::now() < deadline {
        block(Some(deadline));
    }
}

/// The timer's interrupt: wakes the threads whose deadline has come. Events are masked.
pub fn timer_expired() {
    let scheduler = &mut THREADS.lock().scheduler;
    scheduler.timer_fired(time::now());
    begin_slice_if_contended(scheduler);
    if let Some(deadline) = scheduler.next_timer() {
        time::arm(deadline);
    }
}

/// The end of an upcall: gives the vCPU to the next thread if the interrupted one has had its time.
/// Events are masked.
pub fn preempt() {
    let me = {
        let mut threads = THREADS.lock();
        if !threads.scheduler.slice_is_over() {
            return;
        }
        let me = threads.scheduler.running();
        threads.scheduler.preempt();
        me
    };
    run_next(me);
}

/// Base of `%fs` of the calling thread.
pub fn thread_block() -> u64 {
    THREADS.lock().running().expect("a thread is running").thread_block
}

/// The first address behind the calling thread's stack.
pub fn stack_end() -> usize {
    THREADS.lock().running().expect("a thread is running").stack.end()
}

/// Calls `each` with the base of `%fs` of every thread. Events are masked meanwhile.
pub fn for_each_block(mut each: impl FnMut(u64)) {
    THREADS.lock().records.iter().flatten().for_each(|thread| each(thread.thread_block));
}

/// Calls `each` with the pages of every stack that are in use: from the stack pointer up, which is
/// `rsp` for the calling thread. Those of services are left out unless `all` is set, because a
/// child begins them anew.
pub fn for_each_stack(rsp: u64, all: bool, mut each: impl FnMut(Range<usize>)) {
    let threads = THREADS.lock();
    let running = threads.scheduler.running().map(ThreadId::slot);
    for (slot, thread) in threads.records.iter().enumerate() {
        let Some(thread) = thread else { continue };
        let from = if Some(slot) == running { rsp } else { used_from(thread) };
        if all || thread.service.is_none() || Some(slot) == running {
            each(from as usize & !(PAGE_SIZE - 1)..thread.stack.end());
        }
    }
}

/// Calls `each` for every thread but the calling one, with its stack pointer,
/// its thread pointer, and the end of its stack. Events are masked meanwhile.
pub fn for_each_other(mut each: impl FnMut(u64, u64, usize)) {
    let threads = THREADS.lock();
    let running = threads.scheduler.running().map(ThreadId::slot);
    let others = threads.records.iter().enumerate().filter(|(slot, _)| Some(*slot) != running);
    others.filter_map(|(_, record)| record.as_ref()).for_each(|it| each(it.rsp, it.thread_block, it.stack.end()));
}

/// True if a thread has not ended.
pub fn is_alive(id: ThreadId) -> bool {
    THREADS.lock().scheduler.state(id).is_some_and(|state| state != State::Exited)
}

/// The lowest stack address in use by a thread that does not run.
fn used_from(thread: &Thread) -> u64 {
    let Some(kernel_stack) = tls::kernel_stack(thread.thread_block) else { return thread.rsp };
    // The thread has left off in the kernel's part of its stack. The frame at the top of that part
    // has its user stack pointer. SAFETY: the stack of a thread that came from user mode: Xen has
    // pushed ss and rsp there.
    let rsp = unsafe { ((kernel_stack - 16) as *const u64).read_volatile() };
    rsp.min(thread.rsp)
}

/// In a child only the calling thread lives on, unless all threads do; services begin anew.
pub static LIFE: Component = Component { begin: begin_life, ..Component::PASSIVE };

/// The stacks of the other threads stay readable, because the calling thread may have
/// references to them.
fn begin_life(birth: &Birth) {
    if birth.all_threads {
        return;
    }
    let mut services = Vec::new();
    {
        let mut threads = THREADS.lock();
        threads.scheduler.end_others();
        let running = threads.scheduler.running().map(ThreadId::slot);
        for (slot, record) in threads.records.iter_mut().enumerate() {
            if Some(slot) == running {
                continue;
            }
            match record.take() {
                Some(thread) if thread.service.is_some() => services.push(thread),
                other => core::mem::forget(other),
            }
        }
    }
    for Thread { name, mut stack, service, .. } in services {
        stack.clear();
        if let Some(body) = service
            && let Err(error) = start_on(stack, name, body, service)
        {
            log::error!("{error}");
        }
    }
}

/// Sets the timer for the earliest deadline of a thread, in a child: it has no timer of its
/// parent's.
pub fn arm_timer() {
    if let Some(deadline) = THREADS.lock().scheduler.next_timer() {
        time::arm(deadline);
    }
}

fn begin_slice_if_contended(scheduler: &mut Scheduler) {
    if scheduler.wants_slice() {
        time::arm(scheduler.begin_slice(time::now()));
    }
}

/// Runs the next ready thread, after idling in the hypervisor while there is none; returns when the
/// caller `me` runs again. Nothing is running for the scheduler, and events are masked.
fn run_next(me: Option<ThreadId>) {
    let next = loop {
        let mut threads = THREADS.lock();
        if let Some(next) = threads.scheduler.pick() {
            begin_slice_if_contended(&mut threads.scheduler);
            break next;
        }
        drop(threads);
        // Xen unmasks events and blocks in one step. The upcall comes on this stack; `preempt`
        // leaves it alone, because no thread is running.
        xen_sys::sched_op_block();
        core::mem::forget(events::mask());
    };
    if Some(next) == me {
        return;
    }
    let mut unused = 0;
    let (save, rsp, thread_block) = {
        let mut threads = THREADS.lock();
        let save = match me.and_then(|id| threads.records[id.slot()].as_mut()) {
            Some(thread) => &raw mut thread.rsp,
            None => &raw mut unused,
        };
        let thread = threads.records[next.slot()].as_ref().expect("a picked thread has a record");
        (save, thread.rsp, thread.thread_block)
    };
    let switch = MODE.get().map_or(switch as Switch, |mode| mode.switch);
    // SAFETY: events are masked, so the record that `save` points into does not move; `rsp` was
    // saved by an earlier switch or made by `first_frame`, and the thread block is of the same
    // thread.
    unsafe { switch(save, rsp, thread_block) };
    finish_switch();
}

/// Saves the registers on this stack, stores `rsp` at the first argument, and continues on the
/// stack of the second one, with the third one as base of `%fs`.
pub type Switch = unsafe extern "C" fn(*mut u64, u64, u64);

/// The [`Switch`] of threads in kernel mode.
///
/// # Safety
/// Events are masked; the first argument can be written; the others belong to a thread that does
/// not run.
pub unsafe extern "C" fn switch(save: *mut u64, rsp: u64, thread_block: u64) {
    // SAFETY: the thread block is mapped for as long as its thread's stack is.
    let _ = unsafe { xen_sys::set_segment_base(SegmentBase::FS, thread_block) };
    // SAFETY: the caller's promise.
    unsafe { entry::switch_stacks(save, rsp) };
}

/// The first act on a new stack: gives back that of a thread that has exited. Events are masked.
fn finish_switch() {
    let stack = {
        let mut threads = THREADS.lock();
        threads.exited.take().and_then(|id| {
            threads.scheduler.reap(id);
            threads.records[id.slot()].take()
        })
    };
    drop(stack);
}
