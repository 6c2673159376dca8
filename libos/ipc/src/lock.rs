//! Mutual exclusion between threads of all members that have an object: a u64 in it, 0 while nobody has the lock. The lock of a pVM that has
//! ended is free again.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use zooid_fork::objects;

use crate::error::Error;
use crate::layout::{LOCKS, POINTS};
use crate::object::Object;
use crate::wait::{self, Patience};

/// The lock is held while this lives.
#[must_use]
pub struct Guard<'a> {
    object: &'a Object,
    number: usize,
}

/// The point at which those wait who want lock `number`.
const fn point(number: usize) -> usize {
    POINTS.len() - LOCKS.len() + number
}

/// Takes lock `number` of an object.
///
/// # Errors
/// `WouldBlock` when the patience is over.
pub fn lock(object: &Arc<Object>, number: usize, patience: Patience) -> Result<Guard<'_>, Error> {
    take(object, LOCKS[number], point(number), patience)?;
    Ok(Guard { object, number })
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        release(self.object, LOCKS[self.number], point(self.number));
    }
}

/// What a lock holds that this pVM has, whichever of its threads: its number plus one, and its id in the high half.
pub fn mine() -> Result<u64, Error> {
    let number = objects::member().ok_or(Error::NoDaemon)?;
    let id = objects::member_id(number).ok_or(Error::NoDaemon)?;
    Ok((u64::from(number) + 1) | (u64::from(id.raw()) << 32))
}

/// Whether who has a lock has ended. Nonsense counts as that.
fn has_ended(owner: u64) -> bool {
    let number = (owner as u32).wrapping_sub(1);
    let id = u16::try_from(number).ok().and_then(objects::member_id);
    id.is_none_or(|id| u64::from(id.raw()) != owner >> 32)
}

/// Takes the lock at offset `at`, for which those wait at `point`; true if who had it has ended.
///
/// # Errors
/// `WouldBlock` when the patience is over.
pub fn take(object: &Arc<Object>, at: usize, point: usize, patience: Patience) -> Result<bool, Error> {
    let me = mine()?;
    let word = object.pages().atomic_u64(at);
    let mut of_dead = false;
    let mut take = || match word.compare_exchange(0, me, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) => true,
        // Who waits hears of the end of a member.
        Err(owner) if has_ended(owner) => {
            of_dead = word.compare_exchange(owner, me, Ordering::SeqCst, Ordering::SeqCst).is_ok();
            of_dead
        }
        Err(_) => false,
    };
    if take() || wait::wait(object, point, patience, take) { Ok(of_dead) } else { Err(Error::WouldBlock) }
}

/// Gives the lock at offset `at` back.
pub fn release(object: &Object, at: usize, point: usize) {
    object.pages().atomic_u64(at).store(0, Ordering::SeqCst);
    wait::wake(object, point);
}
