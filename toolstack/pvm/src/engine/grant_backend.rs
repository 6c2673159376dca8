//! The backend that copies: pages that a parent has granted to dom0 are kept mapped, and copied to the frames of its children.

use std::collections::BTreeMap;

use xen_abi::pte::{PTES_PER_TABLE, Pte};
use xen_abi::{DomId, GrantRef, Mfn, PAGE_SIZE};
use xenctl::{Hypervisor, Memory, Protection};
use zooid_fork_plan::link::{Copied, Entries};
use zooid_fork_plan::wire::directory;

use super::failure::Failure;

/// Grants that are mapped at once.
const AT_ONCE: usize = 256;

/// The pages that a parent has granted.
#[derive(Debug)]
pub struct Sources<M> {
    directory: M,
    /// By the first address of the table of level 1 that maps them at the parent.
    tables: BTreeMap<usize, SourceTable<M>>,
}

#[derive(Debug)]
struct SourceTable<M> {
    /// Names the grants of the table's pages.
    list: M,
    /// Which grant is mapped for each page, 0 for none, and where.
    pages: Box<[(u32, u16, u16); PTES_PER_TABLE]>,
    maps: Vec<Option<Batch<M>>>,
}

#[derive(Debug)]
struct Batch<M> {
    map: M,
    /// Pages of it that are used.
    used: usize,
}

impl<M: Memory> Sources<M> {
    /// Maps the directory that the grant `reference` of `domain` is of.
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

    /// Maps what has been granted since the last time, and lets go of what is no longer named. What the directory says is a
    /// claim: a grant that is not one is refused by Xen.
    ///
    /// # Errors
    /// Xen refuses a grant.
    pub fn update<H>(&mut self, xen: &H, domain: DomId) -> Result<(), Failure>
    where
        H: Hypervisor<Memory = M>,
    {
        let count = (self.directory.read_u32(directory::COUNT) as usize).min(directory::MAX_ENTRIES);
        for number in 0..count {
            let at = directory::ENTRIES + number * directory::ENTRY_SIZE;
            let base = self.directory.read_u64(at) as usize;
            if !self.tables.contains_key(&base) {
                let list = [GrantRef(self.directory.read_u32(at + 8))];
                let list = xen.map_grants(domain, &list, Protection::Read)?;
                let pages = Box::new([(0, 0, 0); PTES_PER_TABLE]);
                self.tables.insert(base, SourceTable { list, pages, maps: Vec::new() });
            }
        }
        self.tables.values_mut().try_for_each(|table| table.update(xen, domain))
    }

    /// Copies the page that the entry `index` of the parent's table at `base` maps. False when the parent has not granted it.
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
    fn update<H>(&mut self, xen: &H, domain: DomId) -> Result<(), Failure>
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
                self.release(map);
                self.pages[index] = (0, 0, 0);
            }
            if reference != 0 {
                new.push((index, reference));
            }
        }
        for batch in new.chunks(AT_ONCE) {
            let references: Vec<GrantRef> = batch.iter().map(|(_, reference)| GrantRef(*reference)).collect();
            let map = xen.map_grants(domain, &references, Protection::Read)?;
            let place = self.maps.iter().position(Option::is_none).unwrap_or_else(|| {
                self.maps.push(None);
                self.maps.len() - 1
            });
            self.maps[place] = Some(Batch { map, used: batch.len() });
            for (page, (index, reference)) in batch.iter().enumerate() {
                self.pages[*index] = (*reference, place as u16, page as u16);
            }
        }
        Ok(())
    }

    /// A page of the mapping number `place` is no longer used.
    fn release(&mut self, place: u16) {
        let slot = &mut self.maps[usize::from(place)];
        if let Some(batch) = slot {
            batch.used -= 1;
            if batch.used == 0 {
                *slot = None;
            }
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
    /// Numbers of the entries whose pages are mapped, in order.
    indices: Vec<u16>,
}

impl<M> Default for Copies<M> {
    fn default() -> Self {
        Self { tables: Vec::new() }
    }
}

impl<M: Memory> Copies<M> {
    /// Maps the frames of `domain` for the pages of one table of level 1, of which the parent's is `now`, and copies what never
    /// changes. `frame` says which frame the domain has at an address.
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

    /// Copies, for a COMMIT, the pages of the parent's table at `base`, which is `now`; how many that were.
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
