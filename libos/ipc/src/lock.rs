//! Mutual exclusion between threads of all members that have an object: a u64 in it, 0 while nobody
//! has the lock. The lock of a pVM that has stopped is free again. Only pvmd's word counts for
//! that, and nothing that stands in an object.

use alloc::sync::Arc;

use crate::error::Error;
use crate::layout::{LOCKS, POINTS};
use crate::object::Object;
use crate::platform::{Family, Pages, Platform, Word};
use crate::wait::{self, Patience};

/// The lock is held while this lives, with events masked: no thread of this pVM runs meanwhile, and
/// none forks. So no thread of a child holds a lock of its parent.
#[must_use]
pub struct Guard<'a, P: Platform> {
    object: &'a Object<P>,
    number: usize,
    /// The lock's value.
    mine: u64,
    mask: Option<P::Mask>,
}

/// The point at which waiters for lock `number` wait.
const fn point(number: usize) -> usize {
    POINTS.len() - LOCKS.len() + number
}

/// Takes lock `number` of an object.
///
/// # Errors
/// `WouldBlock` when the patience is over.
pub fn lock<P: Platform>(object: &Arc<Object<P>>, number: usize, patience: Patience) -> Result<Guard<'_, P>, Error> {
    let word = object.pages().u64(LOCKS[number]);
    let mask = P::mask();
    let mine = self::mine::<P>()?;
    if word.compare_exchange(0, mine).is_ok() {
        return Ok(Guard { object, number, mine, mask: Some(mask) });
    }
    drop(mask);
    loop {
        take(object, LOCKS[number], point(number), patience)?;
        let mask = P::mask();
        let mine = self::mine::<P>()?;
        if word.load() == mine {
            return Ok(Guard { object, number, mine, mask: Some(mask) });
        }
        // This is a child, and its parent has the lock.
    }
}

impl<P: Platform> Drop for Guard<'_, P> {
    fn drop(&mut self) {
        let was_mine = self.object.pages().u64(LOCKS[self.number]).compare_exchange(self.mine, 0).is_ok();
        self.mask = None;
        if was_mine {
            wait::wake(self.object, point(self.number));
        }
    }
}

/// The value of a lock that a thread of this pVM has: its number plus one, and its id in the high
/// half.
fn mine<P: Family>() -> Result<u64, Error> {
    let number = P::member().ok_or(Error::NoDaemon)?;
    let id = P::member_id(number).ok_or(Error::NoDaemon)?;
    Ok((u64::from(number) + 1) | (u64::from(id.raw()) << 32))
}

/// True if the owner of a lock has stopped. An invalid value counts as such an owner.
fn has_ended<P: Family>(owner: u64) -> bool {
    let number = (owner as u32).wrapping_sub(1);
    let id = u16::try_from(number).ok().and_then(P::member_id);
    id.is_none_or(|id| u64::from(id.raw()) != owner >> 32)
}

/// Takes the lock at offset `at`, waiting at `point`; true if its former owner has stopped.
///
/// # Errors
/// `WouldBlock` when the patience is over; `NoDaemon` when this pVM is no member.
pub fn take<P: Platform>(object: &Arc<Object<P>>, at: usize, point: usize, patience: Patience) -> Result<bool, Error> {
    let word = object.pages().u64(at);
    let (mut of_dead, mut is_member) = (false, true);
    let mut take = || {
        // Looked up in each turn: the waiter may go on in a child. With events masked no thread
        // forks in between: the lock gets the id of the pVM that has it.
        let _mask = P::mask();
        let Ok(me) = mine::<P>() else {
            is_member = false;
            return true;
        };
        match word.compare_exchange(0, me) {
            Ok(_) => true,
            // A waiter hears of the end of a member.
            Err(owner) if has_ended::<P>(owner) => {
                of_dead = word.compare_exchange(owner, me).is_ok();
                of_dead
            }
            Err(_) => false,
        }
    };
    match take() || wait::wait(object, point, patience, take) {
        _ if !is_member => Err(Error::NoDaemon),
        true => Ok(of_dead),
        false => Err(Error::WouldBlock),
    }
}

/// True if this pVM has the lock at offset `at`.
pub fn is_mine<P: Platform>(object: &Object<P>, at: usize) -> bool {
    mine::<P>() == Ok(object.pages().u64(at).load())
}

/// Unlocks; `false` if this pVM does not have the lock. A child does not have its parent's locks.
fn give_back<P: Platform>(object: &Object<P>, at: usize) -> bool {
    mine::<P>().is_ok_and(|me| object.pages().u64(at).compare_exchange(me, 0).is_ok())
}

/// Gives the lock at offset `at` back, if this pVM has it.
pub fn release<P: Platform>(object: &Object<P>, at: usize, point: usize) {
    if give_back(object, at) {
        wait::wake(object, point);
    }
}
