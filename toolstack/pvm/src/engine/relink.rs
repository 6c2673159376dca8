//! Brings a prepared domain's tables up to date with its parent's.

use xen_abi::pte::{PTES_PER_TABLE, Pte, PteFlags};
use xen_abi::xen::{MmuUpdate, MmuextCmd, MmuextOp};
use xen_abi::{DomId, Errno, Mfn};
use xenctl::{Hypervisor, Memory};
use zooid_fork_plan::link::{Entries, Owner, Shadow};
use zooid_fork_plan::plan::table_base;
pub use zooid_fork_plan::relink::Owners;
use zooid_fork_plan::relink::{Linkage, Moved, Step};
use zooid_fork_plan::wire::guest;

use super::failure::Failure;
use super::grant_backend::{Copies, Sources};
use super::sabotage::{self, Sabotage};
use super::standstill::Standstill;
use super::tables::Tables;

/// Buffers that are used again and again.
#[derive(Debug)]
pub struct Scratch {
    now: Box<Entries>,
    steps: Vec<Step>,
    updates: Vec<MmuUpdate>,
}

impl Scratch {
    /// Room for a page table's entries.
    pub fn entries(&mut self) -> &mut Entries {
        &mut self.now
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self { now: Box::new([0; PTES_PER_TABLE]), steps: Vec::new(), updates: Vec::new() }
    }
}

/// Domains that never run, and whose frames a family's members have.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryOwners {
    /// The family's, if it has one: the owner of joint pages.
    pub family: Option<DomId>,
    /// The frame of the family's table of members, which only the daemon may write.
    pub members: Option<Mfn>,
    /// The host's, if there is one: the owner of libraries' pages.
    pub libraries: Option<DomId>,
}

/// A parent that domains are linked to.
pub struct Source<'a, M> {
    pub domain: DomId,
    /// Its control page.
    pub control: Option<&'a M>,
    pub tables: &'a Tables<M>,
    /// The pVMs whose frames its tables may name, itself last.
    pub owners: &'a Owners,
    /// The owners of frames that are neither its own nor its ancestors'.
    pub memory_owners: MemoryOwners,
    /// The entries that it was linked to itself, if it is a child.
    pub linkage: Option<&'a Linkage>,
    /// The pages that it has granted, if children get copies.
    pub sources: Option<&'a Sources<M>>,
}

impl<M> Source<'_, M> {
    /// The place of the parent itself among the owners.
    fn own(&self) -> Owner {
        Owner((self.owners.len() - 1) as u16)
    }

    /// The domain that an owner stands for.
    fn domain_of(&self, owner: Owner) -> Option<DomId> {
        match owner {
            Owner::MEMORY_OWNER => self.memory_owners.family,
            Owner::LIBRARIES => self.memory_owners.libraries,
            Owner(place) => self.owners.get(usize::from(place)).map(|id| id.domain()),
        }
    }

    /// The owner of the frame that an entry of the parent's names. It is known from the time when
    /// the parent was linked itself, by the shadow of that table; else it is the parent.
    fn owner_of(&self, shadow: Option<&Shadow>, index: u16, entry: Pte) -> Owner {
        let known = || {
            let id = self.linkage?.owner(shadow?.owner(index, entry)?)?;
            self.owners.iter().rposition(|owner| *owner == id)
        };
        known().map_or(self.own(), |place| Owner(place as u16))
    }
}

/// A domain that is linked to a parent.
pub struct Target<'a, M> {
    pub domain: DomId,
    pub linkage: &'a mut Linkage,
    pub bitmaps: Option<&'a M>,
}

/// The entries of a parent's table that are believed when they name frames of others.
#[derive(Clone, Copy)]
enum Believed<'a> {
    /// None: the parent runs.
    Nothing,
    /// Those that name these frames of a memory owner.
    Frames(&'a [Mfn]),
    /// All: the parent stands still, and the table is one of its tree.
    All,
}

/// The frame's owner is known to be the parent or an ancestor, and no memory owner.
fn is_ancestors(owner: Option<Owner>) -> bool {
    owner.is_some_and(|owner| owner != Owner::MEMORY_OWNER && owner != Owner::LIBRARIES)
}

/// The outcome of an attempt to link a table.
enum Attempt {
    /// The number of entries that were set.
    Done(usize),
    /// Entries are left that name frames of others; the parent has to stand still for them.
    Foreign,
}

impl<M: Memory> Target<'_, M> {
    /// Makes table number `place` equal to the parent's; the number of entries set. After an error,
    /// the linkage has what was done, and the rest can be tried again. A table without a change
    /// that the parent has counted is skipped.
    ///
    /// # Errors
    /// [`Failure::Stale`]: entries name frames of others, and without `still` the parent cannot be
    /// made to stand still. `EPERM`: they are in a table that is none of the parent's, or ask for a
    /// right that no pVM has.
    pub fn relink<H>(
        &mut self,
        xen: &H,
        source: &Source<'_, M>,
        place: usize,
        scratch: &mut Scratch,
        still: Option<&mut Standstill<'_, H>>,
    ) -> Result<usize, Failure>
    where
        H: Hypervisor<Memory = M>,
    {
        match self.attempt(xen, source, place, scratch, Believed::Nothing)? {
            Attempt::Done(entries) => return Ok(entries),
            Attempt::Foreign => {}
        }
        still.ok_or(Failure::Stale)?.begin()?;
        if !sabotage::is(Sabotage::DeadTables) && !source.tables.is_live(xen, source.domain, place)? {
            return Err(Failure::Denied(Errno::EPERM));
        }
        match self.attempt(xen, source, place, scratch, Believed::All)? {
            Attempt::Done(entries) => Ok(entries),
            Attempt::Foreign => Err(Failure::Stale),
        }
    }

    /// Links pages of a memory owner that the daemon itself has just mapped at the parent, and
    /// whose frames these are. The parent need not stand still for that.
    pub fn link_given<H>(
        &mut self,
        xen: &H,
        source: &Source<'_, M>,
        place: usize,
        scratch: &mut Scratch,
        given: &[Mfn],
    ) -> Result<(), Failure>
    where
        H: Hypervisor<Memory = M>,
    {
        if let Some(base) = source.tables.base(place) {
            // The parent has not counted this change.
            look_again(self.linkage, base);
        }
        self.attempt(xen, source, place, scratch, Believed::Frames(given)).map(drop)
    }

    /// Links the entries that are believed.
    fn attempt<H>(
        &mut self,
        xen: &H,
        source: &Source<'_, M>,
        place: usize,
        scratch: &mut Scratch,
        believed: Believed<'_>,
    ) -> Result<Attempt, Failure>
    where
        H: Hypervisor<Memory = M>,
    {
        let base = source.tables.base(place).ok_or(Failure::Stale)?;
        if self.linkage.base(place) != Some(base) {
            return Err(Failure::Stale);
        }
        // This is read before the table: later changes are counted later. If children get copies,
        // each table is looked through anyway.
        let control = source.control.filter(|_| source.sources.is_none());
        let changes = control.map(|page| page.read_u32(guest::changes(base)));
        let never = sabotage::is(Sabotage::StaleChildren) && self.linkage.changes(place).is_some();
        if changes.is_some() && (never || self.linkage.changes(place) == changes) {
            return Ok(Attempt::Done(0));
        }
        source.tables.copy_leaf(place, &mut scratch.now);
        scratch.steps.clear();
        let shadow = source.linkage.and_then(|linkage| linkage.shadow(base));
        let owner = |index, entry: Pte| source.owner_of(shadow, index, entry);
        let planned = self.linkage.compare(place, &scratch.now, owner, &mut scratch.steps);
        let mut done = 0;
        let result = match planned {
            Ok(()) => self.apply(xen, source, scratch, believed, &mut done),
            Err(stale) => Err(stale.into()),
        };
        for step in &scratch.steps[done..] {
            self.linkage.abandon(step);
        }
        if let (Ok(Attempt::Done(_)), Some(changes)) = (&result, changes) {
            self.linkage.note_changes(place, changes);
        }
        result
    }

    /// Takes the steps, from `done` on.
    fn apply<H>(
        &mut self,
        xen: &H,
        source: &Source<'_, M>,
        scratch: &mut Scratch,
        believed: Believed<'_>,
        done: &mut usize,
    ) -> Result<Attempt, Failure>
    where
        H: Hypervisor<Memory = M>,
    {
        let own = source.own();
        let mut tries = 0;
        while let Some(first) = scratch.steps.get(*done) {
            let owner = first.owner;
            let is_foreign = owner.is_some_and(|owner| owner != own);
            let run = scratch.steps[*done..].iter().take_while(|step| step.owner == owner).count();
            let steps = &scratch.steps[*done..*done + run];
            let is_believed = |step: &Step| match believed {
                Believed::Nothing => false,
                Believed::Frames(frames) => !is_ancestors(step.owner) && frames.contains(&Pte(step.update.val).mfn()),
                Believed::All => true,
            };
            if is_foreign && !steps.iter().all(is_believed) && !sabotage::is(Sabotage::ForeignUnseen) {
                return Ok(Attempt::Foreign);
            }
            let may_write = |step: &Step| Pte(step.update.val).flags().contains(PteFlags::WRITABLE);
            let is_table = |step: &Step| Some(Pte(step.update.val).mfn()) == source.memory_owners.members;
            if is_foreign && steps.iter().any(|step| may_write(step) && is_table(step)) {
                return Err(Failure::Denied(Errno::EPERM));
            }
            let frames_of = match owner {
                None => self.domain,
                // Without a memory owner, which somebody has destroyed, its pages cannot be linked
                // any more.
                Some(owner) => source.domain_of(owner).ok_or(Failure::Denied(Errno::EIO))?,
            };
            scratch.updates.clear();
            scratch.updates.extend(steps.iter().map(|step| step.update));
            let (succeeded, outcome) = xen.mmu_update(self.domain, frames_of, &scratch.updates);
            for step in &steps[..succeeded.min(run)] {
                let moved = self.linkage.note(step);
                self.show(moved);
            }
            *done += succeeded.min(run);
            let Err(error) = outcome else {
                tries = 0;
                continue;
            };
            // The frame is not this owner's, which may have gone: each of the ancestors may own it.
            tries = if succeeded > 0 { 1 } else { tries + 1 };
            let is_anothers = matches!(error.errno(), Some(Errno::EBUSY | Errno::ESRCH));
            if !is_anothers || !is_ancestors(owner) || tries >= source.owners.len() {
                return Err(error.into());
            }
            let next = match owner {
                Some(Owner(place)) if place > 0 => Owner(place - 1),
                _ => own,
            };
            // Neighbouring entries mostly have one owner. Otherwise Xen refuses the next one, too.
            let known = source.linkage.is_some();
            let same = scratch.steps[*done..].iter_mut().take_while(|step| step.owner == owner);
            same.take(if known { 1 } else { usize::MAX }).for_each(|step| step.owner = Some(next));
        }
        Ok(Attempt::Done(*done))
    }

    /// As [`relink`](Self::relink), for a parent that stands still. Pages that are copied at a
    /// COMMIT are copied, too.
    pub fn commit_table<H>(
        &mut self,
        xen: &H,
        source: &Source<'_, M>,
        place: usize,
        scratch: &mut Scratch,
        copies: &Copies<M>,
    ) -> Result<usize, Failure>
    where
        H: Hypervisor<Memory = M>,
    {
        let relinked = self.relink(xen, source, place, scratch, None)?;
        match source.sources {
            Some(sources) => {
                let base = source.tables.base(place).ok_or(Failure::Stale)?;
                Ok(relinked + copies.commit_table(base, &scratch.now, sources)?)
            }
            None => Ok(relinked),
        }
    }

    /// Adds the tables of level 1 that are new at the parent, empty.
    ///
    /// # Errors
    /// It cannot be relinked, see [`Stale`](zooid_fork_plan::relink::Stale).
    pub fn add_tables<H>(&mut self, xen: &H, source: &Source<'_, M>) -> Result<(), Failure>
    where
        H: Hypervisor<Memory = M>,
    {
        let bases = || source.tables.bases();
        while let Some(table) = self.linkage.missing(bases())? {
            let clear = [MmuextOp::on_frame(MmuextCmd::CLEAR_PAGE, table.frame)];
            xen.mmuext_op(self.domain, &clear).1?;
            xen.mmu_update(self.domain, self.domain, &table.updates).1?;
            let moved = self.linkage.note_table(&table);
            self.show(Some(moved));
        }
        Ok(())
    }

    /// Marks a moved frame in the bitmap of free frames.
    fn show(&self, moved: Option<Moved>) {
        if let (Some(Moved { pfn, free }), Some(bitmaps)) = (moved, self.bitmaps) {
            let at = pfn.0 as usize / 64 * 8;
            let bit = 1 << (pfn.0 % 64);
            let word = bitmaps.read_u64(at);
            bitmaps.write_u64(at, if free { word | bit } else { word & !bit });
        }
    }
}

/// Has the table that covers `address` compared with the parent's again, though the parent has
/// counted no change of it.
pub fn look_again(linkage: &mut Linkage, address: usize) {
    let base = table_base(address, 1);
    let place = linkage.bases().position(|other| other == base);
    if let Some((place, changes)) = place.and_then(|place| Some((place, linkage.changes(place)?))) {
        linkage.note_changes(place, changes.wrapping_sub(1));
    }
}

/// The parent has changed its tables meanwhile, so another attempt makes sense.
pub fn is_race(failure: &Failure) -> bool {
    matches!(failure, Failure::Xen(error) if matches!(error.errno(), Some(Errno::EBUSY | Errno::EINVAL)))
}
