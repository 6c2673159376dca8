//! Signals (POSIX `kill`, `sigaction`, `sigprocmask`, `sigwait`).
//!
//! Each member has words with the signals that wait for it, in an object of the family. The members
//! that handle signals have this object. A relative that does not handle signals is signalled by
//! pvmd, and takes the default action. Handlers run in a thread of their own, one at a time,
//! whether the application's threads are busy or blocked.

use alloc::sync::Arc;
use core::mem;
use core::time::Duration;

use zooid_fork_plan::id::PvmId;

use crate::error::Error;
use crate::layout::{BODY, Kind, MAX_MEMBERS, Role};
use crate::object::{How, Object, Part, open};
use crate::platform::{AnyEvent, Pages, Platform, Word};
use crate::poll::{Events, Pollable};
use crate::wait::{self, Patience};

/// The largest number of a signal; the smallest one is 1.
pub const LAST: u8 = 63;
/// Ends a pVM. It cannot be handled, ignored or blocked.
pub const SIGKILL: u8 = 9;
/// A write to a pipe that has no reader.
pub(crate) const SIGPIPE: u8 = 13;
/// Stops a process in POSIX; a pVM never stops. It cannot be handled or ignored.
pub const SIGSTOP: u8 = 19;

/// The first character of the object's name, which names of applications must not begin with.
pub const RESERVED: char = '\u{1}';
const NAME: &str = "\u{1}signals";
/// Signals in a word, whose high half has the id of their member.
const IN_WORD: u8 = 32;
const WORDS: usize = 2;
const PAGES: usize = 1 + (8 * WORDS * MAX_MEMBERS).div_ceil(xen_abi::PAGE_SIZE);
/// The wait point of threads that wait for signals.
const POINT: usize = 0;

/// The action for a signal.
#[derive(Clone, Copy)]
pub enum Action {
    /// The pVM ends, or nothing happens, as POSIX has it for each signal.
    Default,
    /// Nothing happens.
    Ignore,
    /// This function is called, in the thread of the signals.
    Call(fn(u8)),
}

/// This pVM's actions and blocked signals.
pub(crate) struct Signals<P: Platform> {
    actions: [Action; LAST as usize + 1],
    /// Signals that wait until they are unblocked.
    blocked: u64,
    part: Option<Part<P>>,
}

impl<P: Platform> Signals<P> {
    pub(crate) const fn new() -> Self {
        Self { actions: [Action::Default; LAST as usize + 1], blocked: 0, part: None }
    }
}

/// Signals as bits, bit 1 for signal 1.
const fn bit(signal: u8) -> u64 {
    1 << signal
}

/// The object of the signals, once signals are handled here.
fn object<P: Platform>() -> Option<Arc<Object<P>>> {
    P::with(|state| state.signals.part.as_ref().map(Part::object).cloned())
}

/// The object, and this pVM's inbox in it. It is looked up each time, because a handler may go on
/// in a child.
fn here<P: Platform>() -> Option<(Arc<Object<P>>, Inbox)> {
    let (object, number) = (object::<P>()?, P::member()?);
    Some((object, Inbox { number, id: P::member_id(number)? }))
}

/// The words with the signals of a member. They hold its id, because numbers are given out again.
#[derive(Clone, Copy)]
struct Inbox {
    number: u16,
    id: PvmId,
}

impl Inbox {
    fn word<P: Platform>(self, object: &Object<P>, word: usize) -> <P::Pages as Pages>::U64<'_> {
        object.pages().u64(BODY + 8 * (word * MAX_MEMBERS + usize::from(self.number) % MAX_MEMBERS))
    }

    fn is_for_it(self, value: u64) -> bool {
        value >> 32 == u64::from(self.id.raw())
    }

    /// Signals that wait, as bits.
    fn waiting<P: Platform>(self, object: &Object<P>) -> u64 {
        let of = |word| {
            let value = self.word(object, word).load();
            if self.is_for_it(value) { (value & u64::from(u32::MAX)) << (word * usize::from(IN_WORD)) } else { 0 }
        };
        (0..WORDS).fold(0, |all, word| all | of(word))
    }

    /// Takes a signal out; `false` if it does not wait any more.
    fn take<P: Platform>(self, object: &Object<P>, signal: u8) -> bool {
        let bit = bit(signal % IN_WORD);
        let without = |value| (self.is_for_it(value) && value & bit != 0).then_some(value & !bit);
        self.word(object, usize::from(signal / IN_WORD)).fetch_update(without).is_ok()
    }

    /// Puts a signal in; `false` if the member has ended.
    fn put<P: Platform>(self, object: &Object<P>, signal: u8) -> bool {
        let with = |value| {
            // Signals for another id are for a member that has ended, unless this one has ended and
            // its number has been given out again.
            let kept = if self.is_for_it(value) { value } else { u64::from(self.id.raw()) << 32 };
            (P::member_id(self.number) == Some(self.id)).then_some(kept | bit(signal % IN_WORD))
        };
        self.word(object, usize::from(signal / IN_WORD)).fetch_update(with).is_ok()
    }
}

/// Begins to handle signals.
fn start<P: Platform>() -> Result<(), Error> {
    if object::<P>().is_some() {
        return Ok(());
    }
    let how = How { create: true, exclusive: false };
    let part = open(Kind::Signals, Some(NAME), PAGES, how, [0; 2], Role::Reader)?;
    let other = P::with(|state| match state.signals.part {
        None => state.signals.part.replace(part),
        Some(_) => Some(part),
    });
    if other.is_some() || P::start_signals() {
        return Ok(());
    }
    let part = P::with(|state| state.signals.part.take());
    drop(part);
    Err(Error::OutOfMemory)
}

/// The body of the thread of the signals.
pub fn serve<P: Platform>() {
    loop {
        let Some(object) = object::<P>() else { return };
        let mut taken = None;
        let take = || {
            let Some((object, inbox)) = here::<P>() else { return false };
            let signals = inbox.waiting(&object) & !P::with(|state| state.signals.blocked);
            taken = (signals != 0).then(|| signals.trailing_zeros() as u8).filter(|it| inbox.take(&object, *it));
            taken.is_some()
        };
        if !wait::wait(&object, POINT, Patience::Forever, take) {
            return;
        }
        taken.into_iter().for_each(deliver::<P>);
    }
}

fn deliver<P: Platform>(signal: u8) {
    match P::with(|state| state.signals.actions[usize::from(signal)]) {
        Action::Call(handler) => P::call(handler, signal),
        Action::Ignore => {}
        Action::Default => P::take_default_action(signal),
    }
}

/// Sets the action for a signal, and returns the former one.
///
/// # Errors
/// `Invalid` for 9 and 19, which cannot be caught, and for numbers of no signal; see [`Error`].
pub fn set_action<P: Platform>(signal: u8, action: Action) -> Result<Action, Error> {
    if matches!(signal, 0 | SIGKILL | SIGSTOP) || signal > LAST {
        return Err(Error::Invalid);
    }
    start::<P>()?;
    Ok(P::with(|state| mem::replace(&mut state.signals.actions[usize::from(signal)], action)))
}

/// Blocks and unblocks signals, given as bits, and returns those that were blocked before. 9 cannot
/// be blocked.
///
/// # Errors
/// See [`Error`].
pub fn set_mask<P: Platform>(block: u64, unblock: u64) -> Result<u64, Error> {
    start::<P>()?;
    let before = P::with(|state| {
        let next = (state.signals.blocked | block) & !unblock & !bit(SIGKILL);
        mem::replace(&mut state.signals.blocked, next)
    });
    if unblock != 0 {
        look::<P>();
    }
    Ok(before)
}

/// Signals that wait for this pVM because they are blocked, as bits.
pub fn pending<P: Platform>() -> u64 {
    here::<P>().map_or(0, |(object, inbox)| inbox.waiting(&object))
}

/// A set of signals, as bits: bit 1 is signal 1.
pub const fn set(signals: &[u8]) -> u64 {
    let mut bits = 0;
    let mut at = 0;
    while at < signals.len() {
        bits |= bit(signals[at]);
        at += 1;
    }
    bits
}

/// Takes one of these signals, which are blocked, once it comes, `limit` at most.
///
/// # Errors
/// [`Error::WouldBlock`].
pub fn wait_timeout<P: Platform>(signals: u64, limit: Duration) -> Result<u8, Error> {
    wait_within::<P>(signals, Patience::within::<P>(limit))
}

/// Signals, which are blocked, as something that can be polled: readable while one of them waits.
pub struct Blocked<P> {
    signals: u64,
    platform: core::marker::PhantomData<P>,
}

/// These signals.
pub const fn blocked<P: Platform>(signals: u64) -> Blocked<P> {
    Blocked { signals, platform: core::marker::PhantomData }
}

impl<P: Platform> Pollable for Blocked<P> {
    fn ready(&self, wanted: Events) -> Events {
        if pending::<P>() & self.signals != 0 { Events::READABLE & wanted } else { Events::empty() }
    }

    fn watch(&self, _: Events, event: &AnyEvent) {
        if let (Ok(()), Some(object)) = (start::<P>(), object::<P>()) {
            wait::watch(&object, POINT, event);
        }
    }

    fn unwatch(&self, event: &AnyEvent) {
        wait::unwatch::<P>(event);
    }
}

/// Takes one of these signals, which are blocked, once it comes.
///
/// # Errors
/// `WouldBlock` when the patience is over.
pub fn wait_within<P: Platform>(set: u64, patience: Patience) -> Result<u8, Error> {
    start::<P>()?;
    let (object, _) = here::<P>().ok_or(Error::NoDaemon)?;
    let mut taken = 0;
    let take = || {
        let Some((object, inbox)) = here::<P>() else { return false };
        let signals = inbox.waiting(&object) & set;
        taken = signals.trailing_zeros() as u8;
        signals != 0 && inbox.take(&object, taken)
    };
    if wait::wait(&object, POINT, patience, take) { Ok(taken) } else { Err(Error::WouldBlock) }
}

/// Wakes the threads that wait for signals of this pVM, so that they look again.
fn look<P: Platform>() {
    if let Some((object, me)) = here::<P>() {
        wait::wake_member(&object, POINT, me.number);
    }
}

/// Sends a signal to this pVM.
pub fn raise<P: Platform>(signal: u8) {
    if let Some((object, me)) = here::<P>()
        && me.put(&object, signal)
    {
        wait::wake_member(&object, POINT, me.number);
    }
}

/// Sends a signal to this pVM, if it has a handler for it.
pub(crate) fn raise_if_handled<P: Platform>(signal: u8) {
    if matches!(P::with(|state| state.signals.actions[usize::from(signal)]), Action::Call(_)) {
        raise::<P>(signal);
    }
}

/// Sends a signal to a relative, or to this pVM; signal 0 only checks if it lives.
///
/// # Errors
/// `Invalid`, `NotFound` when the family has no such pVM; see [`Error`].
pub fn kill<P: Platform>(target: PvmId, signal: u8) -> Result<(), Error> {
    if signal > LAST || signal == SIGSTOP {
        return Err(Error::Invalid);
    }
    if let Some(object) = object::<P>()
        && let Some(number) = P::member().and_then(|_| P::member_number(target))
        && signal != SIGKILL
        && object.takes_part(Role::Reader, number, target)
        && (signal == 0 || Inbox { number, id: target }.put(&object, signal))
    {
        if signal != 0 {
            wait::wake_member(&object, POINT, number);
        }
        return Ok(());
    }
    Ok(P::kill(target, signal)?)
}
