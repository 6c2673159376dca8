//! Mutual exclusion between threads of all members that have an object. A lock whose owner's pVM ends is free again.

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
    object: &'a Arc<Object>,
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
    let me = u32::from(objects::member().ok_or(Error::NoDaemon)?) + 1;
    let word = object.pages().atomic_u32(LOCKS[number]);
    let take = || word.compare_exchange(0, me, Ordering::SeqCst, Ordering::SeqCst).is_ok();
    // Two threads of one pVM hold it one after the other, too: the word says which pVM has it, not which thread.
    if take() || wait::wait(object, point(number), patience, take) {
        Ok(Guard { object, number })
    } else {
        Err(Error::WouldBlock)
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        release(self.object, self.number);
    }
}

fn release(object: &Object, number: usize) {
    object.pages().atomic_u32(LOCKS[number]).store(0, Ordering::SeqCst);
    wait::wake(object, point(number));
}

/// Frees locks that members had who have ended.
pub fn forget_ended(object: &Object) {
    for (number, at) in LOCKS.iter().enumerate() {
        let word = object.pages().atomic_u32(*at);
        let owner = word.load(Ordering::SeqCst);
        let ended = |owner: u32| objects::member_id((owner - 1).min(u16::MAX.into()) as u16).is_none();
        if owner != 0 && ended(owner) && word.compare_exchange(owner, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            wait::wake(object, point(number));
        }
    }
}
