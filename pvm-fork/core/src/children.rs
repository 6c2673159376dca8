//! The children of a pVM, and their ends.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::fmt;

use zooid_fork_plan::id::PvmId;
use zooid_fork_plan::status::Status;
use zooid_fork_plan::wire::{ENDED_SLOTS, daemon, guest};

use crate::Page;

/// A child that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The child that has ended.
    pub id: PvmId,
    /// The way in which it ended.
    pub status: Status,
}

/// No child to wait for (`ECHILD`): it does not exist, or it was waited for already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitError;

impl fmt::Display for WaitError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("there is no such child to wait for (ECHILD)")
    }
}

impl core::error::Error for WaitError {}

struct Child {
    id: PvmId,
    status: Option<Status>,
}

/// The number of children that are recorded without the heap. A first write to the heap after a
/// fork is slow.
const FEW: usize = 16;

/// Children that nobody has waited for.
pub struct Children {
    few: [Option<Child>; FEW],
    more: Vec<Child>,
}

impl Children {
    /// No children.
    pub const NONE: Self = Self { few: [const { None }; FEW], more: Vec::new() };

    /// Makes room for `count` more children before they are made.
    ///
    /// # Errors
    /// The heap has no room.
    pub fn reserve(&mut self, count: usize) -> Result<(), TryReserveError> {
        let free = self.few.iter().filter(|slot| slot.is_none()).count();
        self.more.try_reserve(count.saturating_sub(free))
    }

    /// Notes the children of a fork, for which there is room.
    pub fn adopt(&mut self, ids: impl Iterator<Item = PvmId>) {
        for id in ids {
            let child = Child { id, status: None };
            match self.few.iter_mut().find(|slot| slot.is_none()) {
                Some(slot) => *slot = Some(child),
                None => self.more.push(child),
            }
        }
    }

    /// In a child: none of the parent's children are its own.
    pub fn begin_life(&mut self) {
        self.few = [const { None }; FEW];
        // Giving the memory back would be a write to the heap.
        self.more.clear();
    }

    /// Takes pvmd's entries about ended children out of the ring. Returns true if pvmd is to be
    /// told, because it may have found the ring full.
    #[must_use]
    pub fn collect<P: Page + ?Sized>(&mut self, page: &P) -> bool {
        let prod = page.read(daemon::ENDED_PROD);
        let cons = page.read(guest::ENDED_CONS);
        for place in 0..prod.wrapping_sub(cons).min(ENDED_SLOTS) {
            let at = daemon::ENDED + 8 * (cons.wrapping_add(place) % ENDED_SLOTS) as usize;
            let (id, status) = (page.read(at), Status::from_raw(page.read(at + 4)));
            // pvmd may tell of an end twice, if it was killed in between.
            if let Some(child) = self.iter_mut().find(|child| child.id.raw() == id) {
                child.status.get_or_insert(status);
            }
        }
        if prod != cons {
            page.write(guest::ENDED_CONS, prod);
        }
        // A pvmd that finds the ring full has seen an index that is at most a ring's length behind
        // the last entry. On the way there the index passes a multiple of that length once, after
        // pvmd has looked.
        prod / ENDED_SLOTS != cons / ENDED_SLOTS
    }

    /// Takes an ended child out of the list: `which`, or any. Returns `None` when none has ended.
    ///
    /// # Errors
    /// There is no such child.
    pub fn take(&mut self, which: Option<PvmId>) -> Result<Option<Ended>, WaitError> {
        let mut there_are_some = false;
        let candidates = self.iter_mut().filter(|child| which.is_none_or(|id| id == child.id));
        let ended = candidates.inspect(|_| there_are_some = true).find_map(|child| {
            let status = child.status?;
            Some(Ended { id: child.id, status })
        });
        if !there_are_some {
            return Err(WaitError);
        }
        if let Some(ended) = ended {
            self.forget(ended.id);
        }
        Ok(ended)
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut Child> {
        self.few.iter_mut().flatten().chain(&mut self.more)
    }

    fn forget(&mut self, id: PvmId) {
        for slot in &mut self.few {
            slot.take_if(|child| child.id == id);
        }
        self.more.retain(|child| child.id != id);
    }
}
