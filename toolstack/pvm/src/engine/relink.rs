//! Brings a prepared domain's tables up to date with its parent's.

use std::collections::BTreeMap;

use xen_abi::pte::{PTES_PER_TABLE, Pte};
use xen_abi::xen::{MmuUpdate, MmuextCmd, MmuextOp};
use xen_abi::{DomId, Errno};
use xenctl::{Hypervisor, Memory};
use zooid_fork_plan::id::PvmId;
use zooid_fork_plan::link::{Entries, Owner};
use zooid_fork_plan::plan::table_base;
use zooid_fork_plan::relink::{Linkage, Moved, Step};
use zooid_fork_plan::wire::guest;

use super::failure::Failure;
use super::grant_backend::{Copies, Sources};
use super::libraries::Libraries;
use super::memory_owner::MemoryOwner;
use super::tables::Tables;

/// Memory that is used again and again.
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
    /// The family's, if it has one: those of joint pages.
    pub family: Option<DomId>,
    /// The host's, if there is one: those of libraries.
    pub libraries: Option<DomId>,
}

impl MemoryOwners {
    /// Those of this family.
    pub fn of<M>(
        root: PvmId,
        memory_owners: &BTreeMap<PvmId, MemoryOwner<M>>,
        libraries: Option<&Libraries<M>>,
    ) -> Self {
        Self {
            family: memory_owners.get(&root).map(|memory_owner| memory_owner.domain),
            libraries: libraries.map(|libraries| libraries.domain),
        }
    }
}

/// A parent, as far as linking to it goes.
pub struct Source<'a, M> {
    /// Its control page.
    pub control: Option<&'a M>,
    pub tables: &'a Tables<M>,
    /// Whose frames its tables may name, its own domain last.
    pub owners: &'a [DomId],
    /// Whose the frames are that are neither its own nor its ancestors'.
    pub memory_owners: MemoryOwners,
    /// What it was linked to itself.
    pub linkage: Option<&'a Linkage>,
    /// What it has granted, where children get copies.
    pub sources: Option<&'a Sources<M>>,
}

/// A domain that is linked to a parent.
pub struct Target<'a, M> {
    pub domain: DomId,
    pub linkage: &'a mut Linkage,
    pub bitmaps: Option<&'a M>,
}

impl<M: Memory> Target<'_, M> {
    /// Makes table number `place` what the parent's is now; how many entries that were. After an error, what was done is noted
    /// and the rest can be tried again. A table that the parent has not counted a change of is not looked at.
    pub fn relink<H>(
        &mut self,
        xen: &H,
        source: &Source<'_, M>,
        place: usize,
        scratch: &mut Scratch,
    ) -> Result<usize, Failure>
    where
        H: Hypervisor<Memory = M>,
    {
        let base = source.tables.base(place);
        if self.linkage.base(place) != Some(base) {
            return Err(Failure::Stale);
        }
        // Before the table: what changes from here on is counted later. Where children get copies, each table is looked through anyway.
        let control = source.control.filter(|_| source.sources.is_none());
        let changes = control.map(|page| page.read_u32(guest::changes(base)));
        if changes.is_some() && self.linkage.changes(place) == changes {
            return Ok(0);
        }
        let own = Owner((source.owners.len() - 1) as u8);
        source.tables.copy_leaf(place, &mut scratch.now);
        let shadow = source.linkage.and_then(|linkage| linkage.shadow(base));
        let owner = |index, entry: Pte| shadow.map_or(own, |shadow| shadow.owner(index, entry, own));
        scratch.steps.clear();
        let planned = self.linkage.compare(place, &scratch.now, owner, &mut scratch.steps);
        let mut done = 0;
        let mut tries = 0;
        let mut result = planned.map_err(Failure::from);
        while result.is_ok() && done < scratch.steps.len() {
            let owner = scratch.steps[done].owner;
            let run = scratch.steps[done..].iter().take_while(|step| step.owner == owner).count();
            scratch.updates.clear();
            scratch.updates.extend(scratch.steps[done..done + run].iter().map(|step| step.update));
            let frames_of = match owner {
                None => self.domain,
                Some(owner @ (Owner::MEMORY_OWNER | Owner::LIBRARIES)) => {
                    let memory_owners = source.memory_owners;
                    match if owner == Owner::MEMORY_OWNER { memory_owners.family } else { memory_owners.libraries } {
                        Some(memory_owner) => memory_owner,
                        None => {
                            result = Err(Failure::Stale);
                            break;
                        }
                    }
                }
                Some(owner) => source.owners[usize::from(owner.0)],
            };
            let (succeeded, outcome) = xen.mmu_update(self.domain, frames_of, &scratch.updates);
            for step in &scratch.steps[done..done + succeeded] {
                let moved = self.linkage.note(step);
                self.show(moved);
            }
            done += succeeded;
            match outcome {
                Ok(()) => tries = 0,
                // Not the owner's that was thought of. Without a shadow, which a daemon that has started anew does not have, each of
                // the ancestors may be it; with one, what was linked here has gone, and the parent has that frame now.
                Err(error)
                    if error.errno() == Some(Errno::EBUSY)
                        && owner.is_some_and(|owner| owner != Owner::MEMORY_OWNER && owner != Owner::LIBRARIES) =>
                {
                    tries = if succeeded > 0 { 1 } else { tries + 1 };
                    let next = match owner {
                        Some(Owner(0)) | None => own,
                        Some(Owner(number)) if shadow.is_none() => Owner(number - 1),
                        Some(_) => own,
                    };
                    let possible = if shadow.is_none() { source.owners.len() } else { 2 };
                    if tries >= possible {
                        result = Err(error.into());
                        break;
                    }
                    let same = scratch.steps[done..].iter_mut().take_while(|step| step.owner == owner);
                    let count = if shadow.is_none() { usize::MAX } else { 1 };
                    same.take(count).for_each(|step| step.owner = Some(next));
                }
                Err(error) => result = Err(error.into()),
            }
        }
        for step in &scratch.steps[done..] {
            self.linkage.abandon(step);
        }
        if let (Ok(()), Some(changes)) = (&result, changes) {
            self.linkage.note_changes(place, changes);
        }
        result.map(|()| done)
    }

    /// As [`relink`](Self::relink), for a parent that stands still: copies what is copied at a COMMIT, too.
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
        let relinked = self.relink(xen, source, place, scratch)?;
        match source.sources {
            Some(sources) => Ok(relinked + copies.commit_table(source.tables.base(place), &scratch.now, sources)?),
            None => Ok(relinked),
        }
    }

    /// Gives it the tables of level 1 that came at the parent, empty.
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

    /// Says in its bitmap of free frames what became of a frame.
    fn show(&self, moved: Option<Moved>) {
        if let (Some(Moved { pfn, free }), Some(bitmaps)) = (moved, self.bitmaps) {
            let at = pfn.0 as usize / 64 * 8;
            let bit = 1 << (pfn.0 % 64);
            let word = bitmaps.read_u64(at);
            bitmaps.write_u64(at, if free { word | bit } else { word & !bit });
        }
    }
}

/// Has the table that covers `address` compared with the parent's again, though the parent has counted no change of it.
pub fn look_again(linkage: &mut Linkage, address: usize) {
    let base = table_base(address, 1);
    let place = linkage.bases().position(|other| other == base);
    if let Some((place, changes)) = place.and_then(|place| Some((place, linkage.changes(place)?))) {
        linkage.note_changes(place, changes.wrapping_sub(1));
    }
}

/// Whether an error means that the parent changed something meanwhile, so that it makes sense to look again.
pub fn is_race(failure: &Failure) -> bool {
    matches!(failure, Failure::Xen(error) if matches!(error.errno(), Some(Errno::EBUSY | Errno::EINVAL)))
}
