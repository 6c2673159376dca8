//! Waiting for other members, and waking them.

use alloc::sync::Arc;
use core::ptr;

use crate::doorbell;
use crate::layout::{BITMAP_WORDS, POINTS};
use crate::object::{Object, State};
use crate::platform::{AnyEvent, Pages, Platform, Word};

/// The time that a call waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// The call does not wait.
    None,
    /// Until this system time, in nanoseconds.
    Until(u64),
    /// The call waits as long as it takes.
    Forever,
}

impl Patience {
    /// Until `limit` from now on.
    pub(crate) fn within<P: Platform>(limit: core::time::Duration) -> Self {
        Self::Until(P::now().saturating_add(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// A waiter of this pVM at a point of an object. Nobody has woken it while this pVM's bit is set
/// there.
pub struct Waiter<P: Platform> {
    who: Who<P>,
    object: Arc<Object<P>>,
    point: usize,
}

enum Who<P: Platform> {
    Thread(P::Thread),
    /// A thread that waits for other things, too, see [`watch`].
    Watcher(AnyEvent),
}

impl<P: Platform> Who<P> {
    /// Wakes the waiter; `false` if nobody is there any more.
    fn wake(&self) -> bool {
        match self {
            Self::Thread(thread) => P::wake(*thread),
            Self::Watcher(event) => {
                event.signal();
                true
            }
        }
    }
}

/// Offset of the word that has this pVM's bit, and the bit.
fn bit(point: usize, member: u16) -> (usize, u64) {
    (POINTS[point] + 8 + 8 * (usize::from(member) / 64), 1 << (member % 64))
}

/// Sets this pVM's bit at a point. The caller has masked events until there is a
/// [`Waiter`], and checks its condition once more: an earlier change woke nobody.
fn set_bit<P: Platform>(object: &Object<P>, point: usize, me: u16) {
    let (word, bit) = bit(point, me);
    let was_set = object.pages().u64(word).fetch_or(bit) & bit != 0;
    object.pages().u32(POINTS[point]).fetch_or(1 << (me / 64));
    if !was_set {
        // The bit was cleared, so earlier waiters here were woken. Their event may come after the
        // bit is set again.
        wake_here::<P>(|waiter| waiter.point == point && ptr::eq(&*waiter.object, object));
    }
}

/// Blocks the calling thread until `ready` returns true; `false` when the patience was over first.
/// `ready` is called whenever somebody wakes the point, and also with events masked.
pub(crate) fn wait<P: Platform>(
    object: &Arc<Object<P>>,
    point: usize,
    patience: Patience,
    mut ready: impl FnMut() -> bool,
) -> bool {
    let deadline = match patience {
        Patience::None => return ready(),
        Patience::Until(deadline) => Some(deadline),
        Patience::Forever => None,
    };
    loop {
        if ready() {
            return true;
        }
        // Looked up in each turn: a thread that waits may go on in a child.
        let Some(me) = P::member() else { return false };
        doorbell::offer(object, me);
        let mask = P::mask();
        let Some(me) = P::member() else { return false };
        set_bit(object, point, me);
        if ready() {
            return true;
        }
        let thread = P::current();
        P::with(|state| state.waiters.push(Waiter { who: Who::Thread(thread), object: object.clone(), point }));
        let woken = P::block(deadline);
        // The callers hold the objects, so that none is dropped here.
        P::with(|state| {
            state.waiters.retain(|waiter| !matches!(waiter.who, Who::Thread(other) if other == thread));
        });
        drop(mask);
        if !woken {
            return ready();
        }
    }
}

/// Registers `event`, to be signalled when somebody wakes a point, until [`unwatch`]. The caller
/// checks its condition again after this, because an earlier wake-up is not seen. It holds the
/// object until then.
pub(crate) fn watch<P: Platform>(object: &Arc<Object<P>>, point: usize, event: &AnyEvent) {
    let Some(me) = P::member() else { return };
    doorbell::offer(object, me);
    let _mask = P::mask();
    let Some(me) = P::member() else { return };
    set_bit(object, point, me);
    let waiter = Waiter { who: Who::Watcher(event.clone()), object: object.clone(), point };
    P::with(|state| state.waiters.push(waiter));
}

/// Takes the registrations of [`watch`] back, for all points.
pub(crate) fn unwatch<P: Platform>(event: &AnyEvent) {
    P::with(|state| {
        state.waiters.retain(|waiter| !matches!(&waiter.who, Who::Watcher(other) if Arc::ptr_eq(other, event)));
    });
}

/// Takes the waiters at a point out, and calls `wake` with each but this pVM, which is woken here.
pub(crate) fn take_waiting<P: Platform>(object: &Object<P>, point: usize, mut wake: impl FnMut(u16)) {
    P::fence();
    let words = object.pages().u32(POINTS[point]);
    if words.load() == 0 {
        return;
    }
    let mut words = words.swap(0) & ((1 << BITMAP_WORDS) - 1);
    let Some(me) = P::member() else { return };
    let mut here = false;
    while words != 0 {
        let word = words.trailing_zeros() as u16;
        words &= words - 1;
        let mut bits = object.pages().u64(POINTS[point] + 8 + 8 * usize::from(word)).swap(0);
        while bits != 0 {
            let member = word * 64 + bits.trailing_zeros() as u16;
            bits &= bits - 1;
            if member == me {
                here = true;
            } else {
                wake(member);
            }
        }
    }
    if here {
        ring::<P>();
    }
}

/// Wakes those that wait at a point. The caller has made their condition true before.
pub(crate) fn wake<P: Platform>(object: &Object<P>, point: usize) {
    take_waiting(object, point, |member| {
        if let Some(me) = P::member() {
            doorbell::send(object, member, me);
        }
    });
}

/// As [`wake`], for one member that waits.
pub(crate) fn wake_member<P: Platform>(object: &Object<P>, point: usize, member: u16) {
    let Some(me) = P::member() else { return };
    let (word, bit) = bit(point, member);
    if object.pages().u64(word).fetch_and(!bit) & bit == 0 {
        return;
    }
    if member == me {
        ring::<P>();
    } else {
        doorbell::send(object, member, me);
    }
}

/// Wakes the threads of this pVM whose bits others have cleared. A doorbell's event calls it, with
/// events masked.
pub fn ring<P: Platform>() {
    let Some(me) = P::member() else { return };
    wake_here::<P>(|waiter| {
        let (word, bit) = bit(waiter.point, me);
        waiter.object.pages().u64(word).load() & bit == 0
    });
}

/// Wakes all threads of this pVM that wait, so that they look again.
pub(crate) fn wake_all_here<P: Platform>() {
    wake_here::<P>(|_| true);
}

/// Wakes the waiters of this pVM for which `so` returns true.
fn wake_here<P: Platform>(so: impl Fn(&Waiter<P>) -> bool) {
    P::with(|state| {
        for waiter in state.waiters.iter().filter(|waiter| so(waiter)) {
            waiter.who.wake();
        }
    });
}

/// Wakes the waiting threads that live on in a child, and forgets all other waiters.
pub(crate) fn begin_life<P: Platform>(state: &mut State<P>) {
    state.waiters.retain(|waiter| matches!(waiter.who, Who::Thread(_)) && waiter.who.wake());
}
