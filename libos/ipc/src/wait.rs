//! Waiting for what members do, and waking them.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ptr;
use core::sync::atomic::{Ordering, fence};
use core::time::Duration;

use zooid_fork::objects;
use zooid_kernel::events::{self, Masked};
use zooid_kernel::evtchn::Event;
use zooid_kernel::thread::{self, ThreadId};
use zooid_kernel::time;

use crate::layout::{BITMAP_WORDS, POINTS};
use crate::link;
use crate::object::Object;

/// How long a call waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Not at all.
    None,
    /// Until this system time, in nanoseconds.
    Until(u64),
    /// As long as it takes.
    Forever,
}

impl Patience {
    /// So long from now on.
    pub fn within(limit: Duration) -> Self {
        Self::Until(time::after(limit))
    }
}

/// Who in this pVM waits at a point of an object: nobody has woken it while this pVM's bit is set there.
struct Waiter {
    who: Who,
    object: Arc<Object>,
    point: usize,
}

enum Who {
    Thread(ThreadId),
    /// A thread that waits for other things, too, see [`watch`].
    Watcher(Arc<Event>),
}

impl Who {
    /// Whether there is still somebody.
    fn wake(&self) -> bool {
        match self {
            Self::Thread(thread) => thread::wake(*thread),
            Self::Watcher(event) => {
                event.signal();
                true
            }
        }
    }
}

static WAITERS: Masked<Vec<Waiter>> = Masked::new(Vec::new());

/// Offset of the word that has this pVM's bit, and the bit.
fn bit(point: usize, member: u16) -> (usize, u64) {
    (POINTS[point] + 8 + 8 * (usize::from(member) / 64), 1 << (member % 64))
}

/// Says that somebody here waits at a point. The caller has masked events until there is a [`Waiter`], and looks once more whether it has to
/// wait: what happened before woke nobody.
fn set_bit(object: &Object, point: usize, me: u16) {
    let (word, bit) = bit(point, me);
    let was_set = object.pages().atomic_u64(word).fetch_or(bit, Ordering::SeqCst) & bit != 0;
    object.pages().atomic_u32(POINTS[point]).fetch_or(1 << (me / 64), Ordering::SeqCst);
    if !was_set {
        // Those that waited here with the bit were woken; the event that says so may come after it is set again.
        wake_here(|waiter| waiter.point == point && ptr::eq(&*waiter.object, object));
    }
}

/// Blocks the calling thread until `ready` returns true, which is asked whenever somebody wakes the point, and also with events masked;
/// `false` when the patience was over first.
pub fn wait(object: &Arc<Object>, point: usize, patience: Patience, mut ready: impl FnMut() -> bool) -> bool {
    let deadline = match patience {
        Patience::None => return ready(),
        Patience::Until(deadline) => Some(deadline),
        Patience::Forever => None,
    };
    let Some(me) = objects::member() else { return ready() };
    loop {
        if ready() {
            return true;
        }
        link::offer(object, me);
        let mask = events::mask();
        set_bit(object, point, me);
        if ready() {
            return true;
        }
        let thread = thread::current();
        WAITERS.lock().push(Waiter { who: Who::Thread(thread), object: object.clone(), point });
        let woken = thread::block(deadline);
        // The callers have the objects, so that none is dropped here.
        WAITERS.lock().retain(|waiter| !matches!(waiter.who, Who::Thread(other) if other == thread));
        drop(mask);
        if !woken {
            return ready();
        }
    }
}

/// Has `event` signalled when somebody wakes a point next, or has done so since the caller looked last whether it has to wait: it looks again
/// after this. Until [`unwatch`]; the caller has the object for so long.
pub fn watch(object: &Arc<Object>, point: usize, event: &Arc<Event>) {
    let Some(me) = objects::member() else { return };
    link::offer(object, me);
    let _mask = events::mask();
    set_bit(object, point, me);
    WAITERS.lock().push(Waiter { who: Who::Watcher(event.clone()), object: object.clone(), point });
}

/// Ends what [`watch`] has begun, for all points.
pub fn unwatch(event: &Arc<Event>) {
    WAITERS.lock().retain(|waiter| !matches!(&waiter.who, Who::Watcher(other) if Arc::ptr_eq(other, event)));
}

/// Wakes those that wait at a point. What they wait for was done before.
pub fn wake(object: &Object, point: usize) {
    fence(Ordering::SeqCst);
    let words = object.pages().atomic_u32(POINTS[point]);
    if words.load(Ordering::SeqCst) == 0 {
        return;
    }
    let mut words = words.swap(0, Ordering::SeqCst) & ((1 << BITMAP_WORDS) - 1);
    let Some(me) = objects::member() else { return };
    let mut here = false;
    while words != 0 {
        let word = words.trailing_zeros() as u16;
        words &= words - 1;
        let mut bits = object.pages().atomic_u64(POINTS[point] + 8 + 8 * usize::from(word)).swap(0, Ordering::SeqCst);
        while bits != 0 {
            let member = word * 64 + bits.trailing_zeros() as u16;
            bits &= bits - 1;
            if member == me {
                here = true;
            } else {
                link::send(object, member, me);
            }
        }
    }
    if here {
        doorbell();
    }
}

/// As [`wake`], for one member that waits.
pub fn wake_member(object: &Object, point: usize, member: u16) {
    let Some(me) = objects::member() else { return };
    let (word, bit) = bit(point, member);
    if object.pages().atomic_u64(word).fetch_and(!bit, Ordering::SeqCst) & bit == 0 {
        return;
    }
    if member == me {
        doorbell();
    } else {
        link::send(object, member, me);
    }
}

/// Wakes the threads of this pVM that somebody has woken: what a link's event calls, with events masked.
pub fn doorbell() {
    let Some(me) = objects::member() else { return };
    wake_here(|waiter| {
        let (word, bit) = bit(waiter.point, me);
        waiter.object.pages().atomic_u64(word).load(Ordering::SeqCst) & bit == 0
    });
}

/// Wakes all threads of this pVM that wait, so that they look again.
pub fn wake_all_here() {
    wake_here(|_| true);
}

/// Wakes those threads of this pVM that wait so.
fn wake_here(so: impl Fn(&Waiter) -> bool) {
    for waiter in WAITERS.lock().iter().filter(|waiter| so(waiter)) {
        waiter.who.wake();
    }
}

/// In a child: those threads wait that live on.
pub fn begin_life() {
    WAITERS.lock().retain(|waiter| matches!(waiter.who, Who::Thread(_)) && waiter.who.wake());
}
