//! Signals (POSIX `kill`, `sigaction`, `sigprocmask`, `sigwait`).
//!
//! A word for each member says which signals wait for it. It lies in an object of the family, which those have who handle signals; a relative that does
//! not is signalled by pvmd, and the default action is taken. Handlers run in a thread of their own, one at a time, whether the application's
//! threads are busy or blocked.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use core::time::Duration;

use spin::Once;
use zooid_fork::PvmId;
use zooid_fork::objects;
pub use zooid_fork::{SIGCHLD, SIGCONT, SIGPIPE, SIGURG, SIGWINCH};
use zooid_kernel::events::Masked;
use zooid_kernel::evtchn::Event;
use zooid_kernel::thread;

use crate::error::Error;
use crate::layout::{BODY, Kind, Role};
use crate::object::{How, Object, Part, open};
use crate::poll::{Events, Pollable};
use crate::wait::{self, Patience};

/// Signals have numbers from 1 to this.
pub const LAST: u8 = 63;
pub const SIGKILL: u8 = 9;
pub const SIGSTOP: u8 = 19;

/// The object's name begins with this, and none that an application gives.
pub const RESERVED: char = '\u{1}';
const NAME: &str = "\u{1}signals";
const PAGES: usize = 3;
/// Where those wait who handle signals.
const POINT: usize = 0;
const STACK_SIZE: usize = 64 << 10;

/// What is done about a signal.
#[derive(Clone, Copy)]
pub enum Action {
    /// The pVM ends, or nothing happens, as POSIX has it for each signal.
    Default,
    /// Nothing.
    Ignore,
    /// This is called, in the thread of the signals.
    Call(fn(u8)),
}

static ACTIONS: Masked<[Action; LAST as usize + 1]> = Masked::new([Action::Default; LAST as usize + 1]);
/// Signals that wait until they are unblocked.
static BLOCKED: AtomicU64 = AtomicU64::new(0);
static SIGNALS: Once<Part> = Once::new();
/// In how many lives the thread was started.
static STARTED: AtomicU32 = AtomicU32::new(0);

/// Signals as bits, bit 1 for signal 1.
const fn bit(signal: u8) -> u64 {
    1 << signal
}

fn object() -> Option<&'static Arc<Object>> {
    SIGNALS.get().map(Part::object)
}

/// A member has ended: its number may be given out again.
pub fn forget(object: &Object, member: u16) {
    if BODY + 8 * usize::from(member) < object.pages().len() {
        word(object, member).store(0, Ordering::SeqCst);
    }
}

/// Where the signals of a member stand.
fn word(object: &Object, member: u16) -> &AtomicU64 {
    object.pages().atomic_u64(BODY + 8 * usize::from(member))
}

/// Begins to handle signals.
fn start() -> Result<(), Error> {
    if SIGNALS.is_completed() {
        return Ok(());
    }
    let object = open(Kind::Signals, Some(NAME), PAGES, How { create: true, exclusive: false }, [0; 2])?;
    SIGNALS.call_once(|| Part::new(&object, Role::Reader));
    objects::handle_signals(raise);
    if STARTED.swap(1, Ordering::Relaxed) == 0 {
        thread::spawn_service("signals", STACK_SIZE, serve).map_err(|_| Error::OutOfMemory)?;
    }
    Ok(())
}

/// The thread of the signals.
fn serve() {
    let (Some(object), Some(me)) = (object(), objects::member()) else { return };
    loop {
        let waiting = || word(object, me).load(Ordering::SeqCst) & !BLOCKED.load(Ordering::SeqCst);
        wait::wait(object, POINT, Patience::Forever, || waiting() != 0);
        let signal = waiting().trailing_zeros() as u8;
        if signal <= LAST && word(object, me).fetch_and(!bit(signal), Ordering::SeqCst) & bit(signal) != 0 {
            deliver(signal);
        }
    }
}

fn deliver(signal: u8) {
    let action = ACTIONS.lock()[usize::from(signal)];
    match action {
        Action::Call(handler) => thread::run_application(&mut || handler(signal)),
        Action::Ignore => {}
        Action::Default => zooid_fork::take_default_action(signal),
    }
}

/// Sets what is done about a signal, and returns what was done before.
///
/// # Errors
/// `Invalid` for 9 and 19, which cannot be caught, and for what is no signal; see [`Error`].
pub fn set_action(signal: u8, action: Action) -> Result<Action, Error> {
    if matches!(signal, 0 | SIGKILL | SIGSTOP) || signal > LAST {
        return Err(Error::Invalid);
    }
    start()?;
    Ok(core::mem::replace(&mut ACTIONS.lock()[usize::from(signal)], action))
}

/// Blocks and unblocks signals, given as bits, and returns those that were blocked before. 9 cannot be blocked.
///
/// # Errors
/// See [`Error`].
pub fn set_mask(block: u64, unblock: u64) -> Result<u64, Error> {
    start()?;
    let mut before = 0;
    let _ = BLOCKED.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |blocked| {
        before = blocked;
        Some((blocked | block) & !unblock & !bit(SIGKILL))
    });
    if unblock != 0 {
        look();
    }
    Ok(before)
}

/// Signals that wait for this pVM, as bits: those that are blocked.
pub fn pending() -> u64 {
    match (object(), objects::member()) {
        (Some(object), Some(me)) => word(object, me).load(Ordering::SeqCst),
        _ => 0,
    }
}

/// Sets of signals are bits: bit 1 is signal 1.
pub const fn set(signals: &[u8]) -> u64 {
    let mut bits = 0;
    let mut at = 0;
    while at < signals.len() {
        bits |= bit(signals[at]);
        at += 1;
    }
    bits
}

/// Blocks these signals: they wait until they are unblocked. Returns those that were blocked before.
///
/// # Errors
/// See [`Error`].
pub fn block(signals: u64) -> Result<u64, Error> {
    set_mask(signals, 0)
}

/// Unblocks these signals. Returns those that were blocked before.
///
/// # Errors
/// See [`Error`].
pub fn unblock(signals: u64) -> Result<u64, Error> {
    set_mask(0, signals)
}

/// Takes one of these signals, which are blocked, once it comes.
///
/// # Errors
/// See [`Error`].
pub fn wait(signals: u64) -> Result<u8, Error> {
    wait_within(signals, Patience::Forever)
}

/// As [`wait()`], `limit` at most.
///
/// # Errors
/// [`Error::WouldBlock`].
pub fn wait_timeout(signals: u64, limit: Duration) -> Result<u8, Error> {
    wait_within(signals, Patience::within(limit))
}

/// Signals, which are blocked, as something that can be polled: readable while one of them waits.
#[derive(Clone, Copy, Debug)]
pub struct Blocked(pub u64);

impl Pollable for Blocked {
    fn ready(&self, wanted: Events) -> Events {
        if pending() & self.0 != 0 { Events::READABLE & wanted } else { Events::empty() }
    }

    fn watch(&self, _: Events, event: &Arc<Event>) {
        if let (Ok(()), Some(object)) = (start(), object()) {
            wait::watch(object, POINT, event);
        }
    }

    fn unwatch(&self, event: &Arc<Event>) {
        wait::unwatch(event);
    }
}

/// Takes one of these signals, which are blocked, once it comes.
///
/// # Errors
/// `WouldBlock` when the patience is over.
pub fn wait_within(set: u64, patience: Patience) -> Result<u8, Error> {
    start()?;
    let (Some(object), Some(me)) = (object(), objects::member()) else { return Err(Error::NoDaemon) };
    let mut taken = 0;
    let take = || {
        let here = word(object, me).load(Ordering::SeqCst) & set;
        taken = here.trailing_zeros() as u8;
        here != 0 && word(object, me).fetch_and(!bit(taken), Ordering::SeqCst) & bit(taken) != 0
    };
    if wait::wait(object, POINT, patience, take) { Ok(taken) } else { Err(Error::WouldBlock) }
}

/// The threads that wait for signals of this pVM look again.
fn look() {
    if let (Some(object), Some(me)) = (object(), objects::member()) {
        wait::wake_member(object, POINT, me);
    }
}

/// A signal to this pVM.
fn raise(signal: u8) {
    if let (Some(object), Some(me)) = (object(), objects::member()) {
        word(object, me).fetch_or(bit(signal), Ordering::SeqCst);
        wait::wake_member(object, POINT, me);
    }
}

/// A signal to this pVM, if it has a handler for it.
pub fn raise_if_handled(signal: u8) {
    if matches!(ACTIONS.lock()[usize::from(signal)], Action::Call(_)) {
        raise(signal);
    }
}

/// Sends a signal to a relative, or to this pVM; signal 0 only looks whether it lives.
///
/// # Errors
/// `Invalid`, `NotFound` when the family has no such pVM; see [`Error`].
pub fn kill(target: PvmId, signal: u8) -> Result<(), Error> {
    if signal > LAST || signal == SIGSTOP {
        return Err(Error::Invalid);
    }
    let member = objects::member().and_then(|_| objects::member_number(target));
    let handles = |object: &Arc<Object>, member| object.takes_part(Role::Reader, member);
    if let (Some(member), Some(object)) = (member, object())
        && signal != SIGKILL
        && handles(object, member)
    {
        if signal != 0 {
            word(object, member).fetch_or(bit(signal), Ordering::SeqCst);
            wait::wake_member(object, POINT, member);
        }
        return Ok(());
    }
    Ok(objects::kill(target, signal)?)
}
