//! The backend that copies. A parent grants its pages to dom0, which keeps them mapped and copies
//! them to the frames of its children.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use xen_abi::pte::{PTES_PER_TABLE, Pte};
use xen_abi::{DomId, GrantRef, Mfn, PAGE_SIZE};
use xenctl::{Hypervisor, Memory, Protection};
use zooid_fork_plan::link::{Copied, Entries};
use zooid_fork_plan::wire::directory;

use super::failure::Failure;
use super::sabotage::{self, Sabotage};

/// Grants that are mapped at once.
const AT_ONCE: usize = 256;
/// Most grants of one pVM that are mapped: the size of a grant table with Xen's defaults. All pVMs
/// share dom0's table of mappings.
const MOST: usize = 32_768;

/// A pVM grants more pages than dom0 maps.
const TOO_MANY: Failure = Failure::Quota("grants of a pVM that dom0 maps");

/// The pages that a parent has granted.
#[derive(Debug)]
pub struct Sources<M> {
    directory: M,
    /// By the first address of the table of level 1 that maps them at the parent.
    tables: BTreeMap<usize, SourceTable<M>>,
}

#[derive(Debug)]
struct SourceTable<M> {
    /// The grant of the list.
    reference: u32,
    /// The page with the grants of the table's pages.
    list: M,
    /// The mapped grant of each page, 0 for none; its batch; its page there.
    pages: Box<[(u32, u16, u16); PTES_PER_TABLE]>,
    maps: Vec<Option<Batch<M>>>,
}

#[derive(Debug)]
struct Batch<M> {
    map: M,
    /// Grants that it maps, used or not.
    size: usize,
    /// Its used pages.
    used: usize,
}

impl<M: Memory> Sources<M> {
    /// Maps the parent's directory, which `domain` has granted as `reference`.
    ///
    /// # Errors
    /// Xen refuses it.
    pub fn map<H>(xen: &H, domain: DomId, reference: GrantRef) -> Result<Self, Failure>
    where
        H: Hypervisor<Memory = M>,
    {
        let directory = xen.map_grants(domain, &[reference], Protection::Read)?;
        Ok(Self { directory, tables: BTreeMap::new() })
    }

    /// Maps pages that were granted since the last time, and unmaps those that are no longer named.
    /// The directory is a claim: Xen refuses a number that is no grant.
    ///
    /// # Errors
    /// Xen refuses a grant.
    pub fn update<H>(&mut self, xen: &H, domain: DomId) -> Result<(), Failure>
    where
        H: Hypervisor<Memory = M>,
    {
        let result = self.map_new(xen, domain);
        // Pages of batches that are hardly used may be the excess.
        if matches!(result, Err(Failure::Quota(_))) {
            self.tables.clear();
        }
        result
    }

    fn map_new<H>(&mut self, xen: &H, domain: DomId) -> Result<(), Failure>
    where
        H: Hypervisor<Memory = M>,
    {
        let count = (self.directory.read_u32(directory::COUNT) as usize).min(directory::MAX_ENTRIES);
        let entry = |number: usize| {
            let at = directory::ENTRIES + number * directory::ENTRY_SIZE;
            (self.directory.read_u64(at) as usize, self.directory.read_u32(at + 8))
        };
        let named: BTreeMap<usize, u32> = (0..count).map(entry).collect();
        // A table with another list is unmapped with all pages of the old one.
        self.tables
            .retain(|base, table| sabotage::is(Sabotage::GrantsForEver) || named.get(base) == Some(&table.reference));
        let mut room = MOST.saturating_sub(self.tables.values().map(SourceTable::mapped).sum());
        for (base, reference) in named {
            let table = match self.tables.entry(base) {
                Entry::Occupied(table) => table.into_mut(),
                Entry::Vacant(place) => {
                    room = room.checked_sub(1).ok_or(TOO_MANY)?;
                    let list = xen.map_grants(domain, &[GrantRef(reference)], Protection::Read)?;
                    let pages = Box::new([(0, 0, 0); PTES_PER_TABLE]);
                    place.insert(SourceTable { reference, list, pages, maps: Vec::new() })
                }
            };
            table.update(xen, domain, &mut room)?;
        }
        Ok(())
    }

    /// Copies the page that the entry `index` of the parent's table at `base` maps. False if the
    /// parent has not granted it.
    fn copy(&self, base: usize, index: u16, to: &M, page: usize) -> bool {
        let Some(table) = self.tables.get(&base) else { return false };
        let (reference, map, from) = table.pages[usize::from(index)];
        match table.maps.get(usize::from(map)) {
            Some(Some(batch)) if reference != 0 => {
                batch.map.copy_page(from.into(), to, page);
                true
            }
            _ => false,
        }
    }
}

impl<M: Memory> SourceTable<M> {
    /// Grants that are mapped for it.
    fn mapped(&self) -> usize {
        1 + self.maps.iter().flatten().map(|batch| batch.size).sum::<usize>()
    }

    /// Maps new grants; `room` counts those that may still be mapped.
    fn update<H>(&mut self, xen: &H, domain: DomId, room: &mut usize) -> Result<(), Failure>
    where
        H: Hypervisor<Memory = M>,
    {
        let mut new = Vec::new();
        for index in 0..PTES_PER_TABLE {
            let reference = self.list.read_u32(index * size_of::<u32>());
            let (known, map, _) = self.pages[index];
            if reference == known {
                continue;
            }
            if known != 0 {
                *room += self.release(map);
                self.pages[index] = (0, 0, 0);
            }
            if reference != 0 {
                new.push((index, reference));
            }
        }
        for batch in new.chunks(AT_ONCE) {
            let references: Vec<GrantRef> = batch.iter().map(|(_, reference)| GrantRef(*reference)).collect();
            *room = room.checked_sub(batch.len()).ok_or(TOO_MANY)?;
            let map = xen.map_grants(domain, &references, Protection::Read)?;
            let place = self.maps.iter().position(Option::is_none).unwrap_or_else(|| {
                self.maps.push(None);
                self.maps.len() - 1
            });
            self.maps[place] = Some(Batch { map, size: batch.len(), used: batch.len() });
            for (page, (index, reference)) in batch.iter().enumerate() {
                self.pages[*index] = (*reference, place as u16, page as u16);
            }
        }
        Ok(())
    }

    /// Gives up a page of batch number `place`; the number of grants that are unmapped with the
    /// batch's last page.
    fn release(&mut self, place: u16) -> usize {
        let Some(slot) = self.maps.get_mut(usize::from(place)) else { return 0 };
        match slot {
            Some(batch) if batch.used > 1 => {
                batch.used -= 1;
                0
            }
            _ => slot.take().map_or(0, |batch| batch.size),
        }
    }
}

/// The frames of a prepared domain that copies go to.
#[derive(Debug)]
pub struct Copies<M> {
    tables: Vec<CopyTable<M>>,
}

#[derive(Debug)]
struct CopyTable<M> {
    base: usize,
    map: M,
    /// Indices of the entries whose pages are mapped, in order.
    indices: Vec<u16>,
}

impl<M> Default for Copies<M> {
    fn default() -> Self {
        Self { tables: Vec::new() }
    }
}

impl<M: Memory> Copies<M> {
    /// Maps the frames of `domain` for the pages of one table of level 1 and copies pages that
    /// never change. `now` is the parent's table. `frame` gives the domain's frame at an address.
    ///
    /// # Errors
    /// Xen refuses to map them; or [`Failure::Stale`]: the parent has not granted a page.
    pub fn add_table<H>(
        &mut self,
        xen: &H,
        domain: DomId,
        (base, now): (usize, &Entries),
        frame: impl Fn(usize) -> Option<Mfn>,
        sources: &Sources<M>,
    ) -> Result<(), Failure>
    where
        H: Hypervisor<Memory = M>,
    {
        let mut indices = Vec::new();
        let mut frames = Vec::new();
        for (index, entry) in now.iter().enumerate() {
            if Copied::of(Pte(*entry)) != Copied::Never
                && let Some(frame) = frame(base + index * PAGE_SIZE)
            {
                indices.push(index as u16);
                frames.push(frame);
            }
        }
        if frames.is_empty() {
            return Ok(());
        }
        let map = xen.map_foreign(domain, &frames, Protection::ReadWrite)?;
        let table = CopyTable { base, map, indices };
        table.copy(now, sources, Copied::Once)?;
        self.tables.push(table);
        Ok(())
    }

    /// Copies, for a COMMIT, the pages of the parent's table at `base`, which is `now`; the number
    /// of pages.
    ///
    /// # Errors
    /// [`Failure::Stale`]: the parent has not granted a page.
    pub fn commit_table(&self, base: usize, now: &Entries, sources: &Sources<M>) -> Result<usize, Failure> {
        match self.tables.iter().find(|table| table.base == base) {
            Some(table) => table.copy(now, sources, Copied::AtCommit),
            None => Ok(0),
        }
    }
}

impl<M: Memory> CopyTable<M> {
    fn copy(&self, now: &Entries, sources: &Sources<M>, when: Copied) -> Result<usize, Failure> {
        let mut copied = 0;
        for (page, index) in self.indices.iter().enumerate() {
            if Copied::of(Pte(now[usize::from(*index)])) == when {
                if !sources.copy(self.base, *index, &self.map, page) {
                    return Err(Failure::Stale);
                }
                copied += 1;
            }
        }
        Ok(copied)
    }
}
