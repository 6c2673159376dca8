//! Children and their ends, this pVM's own end, and requests from outside.

use core::sync::atomic::{AtomicU32, Ordering};

use xen_abi::Errno;
use zooid_fork_core::children::{Children, Ended, WaitError};
use zooid_fork_core::mailbox::Channel;
use zooid_fork_plan::id::PvmId;
use zooid_fork_plan::status::Status;
use zooid_fork_plan::wire::{daemon, guest, state};
use zooid_kernel::events::{self, Masked};
use zooid_kernel::life::{self, Ending};
use zooid_kernel::shared::barrier;
use zooid_kernel::{console, evtchn, power, time, xenstore};

use crate::control::{Control, control};
use crate::forking::{ForkError, Forked, fork_as_asked};
use crate::{eager, objects};

static CHILDREN: Masked<Children> = Masked::new(Children::NONE);

/// Makes room for children of a fork.
pub fn reserve(count: usize) -> Result<(), ForkError> {
    CHILDREN.lock().reserve(count).map_err(|_| ForkError::OutOfMemory)
}

/// Notes the children of a fork.
pub fn adopt(children: impl Iterator<Item = PvmId>) {
    CHILDREN.lock().adopt(children);
}

/// Forgets the parent's children, in a child.
pub fn begin_life() {
    CHILDREN.lock().begin_life();
    ENDS_TOLD.store(0, Ordering::Relaxed);
}

/// The time that a pVM that has just started waits for pvmd to give it an id, in nanoseconds.
pub(crate) const FIRST_SIGHT: u64 = 2_000_000_000;

/// The id of this pVM, as its relatives and dom0 know it; `None` when there is no pvmd that gives
/// it one.
pub fn id() -> Option<PvmId> {
    crate::present();
    let control = control()?;
    let seen = || control.page.read_u32(daemon::ID) != 0;
    if !seen() {
        control.event.wait_for(Some(time::now() + FIRST_SIGHT), seen);
    }
    PvmId::from_raw(control.page.read_u32(daemon::ID))
}

/// The id of the pVM that forked this one, or that adopted it; `None` for the root of a family.
pub fn parent_id() -> Option<PvmId> {
    crate::present();
    PvmId::from_raw(control()?.page.read_u32(daemon::PARENT))
}

/// Waits until a child has ended.
pub fn wait() -> Result<Ended, WaitError> {
    let ended = wait_for(None, true)?;
    ended.ok_or(WaitError)
}

/// Waits for the child `which`, or for any; if not `blocking`, only looks: `None` when none has
/// ended.
pub fn wait_for(which: Option<PvmId>, blocking: bool) -> Result<Option<Ended>, WaitError> {
    crate::present();
    let control = control().ok_or(WaitError)?;
    let mut result = Ok(None);
    let mut look = || {
        collect(control);
        result = CHILDREN.lock().take(which);
        result != Ok(None)
    };
    if blocking {
        control.event.wait_for(None, look);
    } else {
        look();
    }
    result
}

/// Takes pvmd's entries about ended children out of the ring.
fn collect(control: &Control) {
    if CHILDREN.lock().collect(control) {
        control.notify();
    }
}

/// Writes the status of this pVM for pvmd. Other components have ended before. Output comes first,
/// because pvmd may destroy the domain at once.
pub fn end(ending: Ending) {
    console::drain();
    // Relatives that learn of the end rely on it that nothing runs here any more.
    core::mem::forget(events::mask());
    say_status(match ending {
        Ending::Exited(code) => Status::Exited(code as u8),
        Ending::Killed(signal) => Status::Killed(signal),
    });
    await_destruction();
}

/// The time that pvmd has to destroy a child that has written its status, in nanoseconds.
const DESTRUCTION: u64 = 1_000_000_000;

/// Waits to be destroyed. A shutdown would have every daemon of dom0 look at this domain, before
/// the parent learns of its end on a host with one processor. Returns if pvmd does not come.
fn await_destruction() {
    let Some(control) = control() else { return };
    // A root belongs to the toolstack, which waits for its shutdown.
    if control.page.read_u32(daemon::PARENT) == 0 || !control.daemon_is_there() {
        return;
    }
    let give_up = time::now() + DESTRUCTION;
    while time::now() < give_up {
        let _ = xen_sys::sched_op_poll(&[], give_up);
    }
}

impl Control {
    fn say_ended(&self, status: Status) {
        self.page.write_u32(guest::STATUS, status.to_raw());
        self.page.write_u32(guest::OUTPUT, console::left());
        barrier();
        self.page.write_u32(guest::STATE, state::ENDED);
    }
}

fn say_status(status: Status) {
    if let Some(control) = control() {
        control.say_ended(status);
        control.notify();
    }
}

/// Ends this pVM because a shared page could not be copied for a write. It takes no lock
/// that may be held.
pub fn end_out_of_memory() -> ! {
    use core::fmt::Write;
    let _ = console::Emergency::begin().write_str("\nzooid: out of memory: no frame for a page written after a fork\n");
    if let Some(control) = control() {
        control.say_ended(Status::OutOfMemory);
    }
    power::crash()
}

/// The service that obeys requests from outside, `pvm fork` and `pvm kill`, and learns from
/// children.
pub fn serve() {
    let Some(control) = control() else { return };
    life::settle();
    if evtchn::lives() > 0 {
        control.notify();
    }
    loop {
        control.event.wait_for(None, || {
            let page = &control.page;
            page.read_u64(daemon::SIGNALS) != page.read_u64(guest::SIGNALS_TAKEN)
                || page.read_u32(daemon::OUTSIDE) != page.read_u32(guest::OUTSIDE_DONE)
                || eager::has_news(control)
                || objects::has_news(control)
                || has_untold_ends(control)
                || xenstore::has_old_watches()
        });
        if xenstore::has_old_watches() {
            xenstore::renew_watches();
        }
        obey_signals(control);
        obey_fork(control);
        eager::learn(control);
        objects::take_news(control);
        tell_ends(control);
    }
}

/// Handles signals that pvmd passes on. A handler may fork: no value that was read before it is
/// used after it.
fn obey_signals(control: &Control) {
    while let Some(signal) = next_signal(control) {
        match objects::signal_handler() {
            Some(handler) => handler(signal),
            None => take_default_action(signal),
        }
    }
}

/// Takes one of the waiting signals.
fn next_signal(control: &Control) -> Option<u8> {
    let taken = control.page.read_u64(guest::SIGNALS_TAKEN);
    let waiting = control.page.read_u64(daemon::SIGNALS) ^ taken;
    let signal = (waiting != 0).then(|| waiting.trailing_zeros() as u8)?;
    control.page.write_u64(guest::SIGNALS_TAKEN, taken ^ 1 << signal);
    Some(signal)
}

// Signals with their numbers in Linux. A pVM ignores these by default.

/// A write to a pipe that has no reader.
pub const SIGPIPE: u8 = 13;
/// The end of a child.
pub const SIGCHLD: u8 = 17;
/// The continuation of a stopped process: a pVM never stops.
pub const SIGCONT: u8 = 18;
/// Urgent data at a socket.
const SIGURG: u8 = 23;
/// A change of the terminal's size.
const SIGWINCH: u8 = 28;

/// Takes the default action of a signal that nobody handles: most signals end this pVM.
pub fn take_default_action(signal: u8) {
    if matches!(signal, SIGPIPE | SIGCHLD | SIGCONT | SIGURG | SIGWINCH) {
        return;
    }
    log::info!("signal {signal} ends this pVM");
    life::end(Ending::Killed(signal));
    power::poweroff()
}

/// The number of ended children for which a signal was raised.
static ENDS_TOLD: AtomicU32 = AtomicU32::new(0);

fn has_untold_ends(control: &Control) -> bool {
    objects::signal_handler().is_some()
        && ENDS_TOLD.load(Ordering::Relaxed) != control.page.read_u32_acquire(daemon::ENDED_PROD)
}

fn tell_ends(control: &Control) {
    let ended = control.page.read_u32_acquire(daemon::ENDED_PROD);
    if ENDS_TOLD.swap(ended, Ordering::Relaxed) != ended
        && let Some(handler) = objects::signal_handler()
    {
        handler(SIGCHLD);
    }
}

fn obey_fork(control: &Control) {
    let request = control.page.read_u32_acquire(daemon::OUTSIDE);
    if request == control.page.read_u32(guest::OUTSIDE_DONE) {
        return;
    }
    let errno = match fork_as_asked(control.page.read_u32(daemon::OUTSIDE_COUNT), true, request) {
        Ok(Forked::Parent(_)) => 0,
        Ok(Forked::Child(_)) => {
            // The request was the parent's. A thread that waits for a child of the parent has none
            // here.
            control.notify();
            return control.event.signal();
        }
        Err(ForkError::Refused(errno)) => errno.0,
        Err(ForkError::Again) => Errno::EAGAIN.0,
        Err(ForkError::OutOfMemory) => Errno::ENOMEM.0,
        Err(ForkError::NoDaemon | ForkError::BadCount | ForkError::InHandler) => Errno::EIO.0,
    };
    control.page.write_u32(guest::OUTSIDE_ERRNO, errno);
    control.page.write_u32_release(guest::OUTSIDE_DONE, request);
    control.notify();
}
