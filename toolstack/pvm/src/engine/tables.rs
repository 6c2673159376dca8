//! A parent's page tables, mapped for reading for as long as domains are prepared for it.
//!
//! The entries are claims. The walk follows the zones that a fork concerns and no others, and maps
//! at most as many tables as the domain has frames. A frame that stops being a table is still read
//! as one: its entries are claims as well, and Xen judges each when it is used.

use std::ops::Range;

use xen_abi::pte::{PTES_PER_TABLE, Pte, PteFlags};
use xen_abi::{DomId, Mfn, PAGE_SIZE};
use xenctl::{Hypervisor, Memory, Protection};
use zooid_fork_plan::link::Entries;
use zooid_fork_plan::plan::{L1_SPAN, L2_SPAN, ParentTable, index, table_base};
use zooid_memory::Zone;

use super::failure::Failure;

/// The bits that are compared to see that a table of level 1 came or went.
const COMPARED: u64 = Pte::new(Mfn(u64::MAX), PteFlags::PRESENT).0;

/// The page tables of one domain.
#[derive(Debug)]
pub struct Tables<M> {
    top: Upper,
    third: Upper,
    second: Vec<Upper>,
    /// In the order of their addresses.
    leaves: Vec<Leaf>,
    maps: Vec<M>,
    /// Most tables of level 1.
    limit: usize,
    /// The guest's count of tables when these were read.
    counted: u32,
}

/// A table of level 2, 3 or 4.
#[derive(Debug)]
struct Upper {
    base: usize,
    frame: Mfn,
    place: Place,
    entries: Box<Entries>,
}

/// A table of level 1.
#[derive(Debug)]
struct Leaf {
    base: usize,
    frame: Mfn,
    place: Place,
}

/// The mapping of a table.
#[derive(Clone, Copy, Debug)]
struct Place {
    map: usize,
    page: usize,
}

/// A change of the tables of level 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// They are the same.
    None,
    /// Some came.
    Grown,
    /// Some went: all have to be read anew.
    Gone,
}

impl<M: Memory> Tables<M> {
    /// Reads the tables of `domain`, with the given `cr3` and at most `limit` frames. The guest had
    /// counted `counted` new tables before.
    ///
    /// # Errors
    /// A frame cannot be mapped, or there are too many.
    pub fn read<H>(xen: &H, domain: DomId, cr3: u64, limit: usize, counted: u32) -> Result<Self, Failure>
    where
        H: Hypervisor<Memory = M>,
    {
        let mut maps = Vec::new();
        let top = Upper::map_one(xen, domain, &mut maps, 0, Mfn::containing(cr3))?;
        let zones = index(Zone::Heap.base(), 4);
        let third = Pte(top.entries[zones]);
        if !third.is_present() {
            return Err(Failure::Tables("nothing is mapped where all zones are"));
        }
        let third = Upper::map_one(xen, domain, &mut maps, Zone::Heap.base(), third.mfn())?;
        let mut second = Vec::new();
        for zone in Zone::ALL.into_iter().filter(|zone| *zone != Zone::Tables) {
            second.extend(third.below(zone.l3_entries(), L2_SPAN));
        }
        let second = Upper::map(xen, domain, &mut maps, &second)?;
        let mut tables = Self { top, third, second, leaves: Vec::new(), maps, limit, counted };
        let leaves = tables.second.iter().flat_map(|table| table.below(0..PTES_PER_TABLE, L1_SPAN)).collect();
        tables.add(xen, domain, leaves)?;
        Ok(tables)
    }

    /// Maps tables of level 1.
    fn add<H>(&mut self, xen: &H, domain: DomId, tables: Vec<(usize, Mfn)>) -> Result<(), Failure>
    where
        H: Hypervisor<Memory = M>,
    {
        if tables.is_empty() {
            return Ok(());
        }
        if self.leaves.len() + tables.len() > self.limit {
            return Err(Failure::Tables("there are more tables than frames"));
        }
        let frames: Vec<Mfn> = tables.iter().map(|(_, mfn)| *mfn).collect();
        self.maps.push(xen.map_foreign(domain, &frames, Protection::Read)?);
        let map = self.maps.len() - 1;
        self.leaves.extend(tables.iter().enumerate().map(|(page, (base, frame))| Leaf {
            base: *base,
            frame: *frame,
            place: Place { map, page },
        }));
        self.leaves.sort_by_key(|leaf| leaf.base);
        Ok(())
    }

    /// The change of the tables of level 1 at a guest that had counted `counted` new ones before
    /// this call. Nothing is compared if the count is the same, because the guest's tables never
    /// go.
    pub fn change(&self, counted: u32, scratch: &mut Entries) -> Change {
        if counted == self.counted {
            return Change::None;
        }
        let mut change = Change::None;
        let uppers = [(&self.top, false), (&self.third, false)].into_iter();
        for (table, leads_to_leaves) in uppers.chain(self.second.iter().map(|table| (table, true))) {
            self.copy(table.place, scratch);
            // There is nearly always no difference. A loop that does not look for its place is the
            // fastest.
            let pairs = || table.entries.iter().zip(scratch.iter());
            if pairs().fold(0, |all, (old, new)| all | (old ^ new)) & COMPARED == 0 {
                continue;
            }
            let went = |(old, new): (&u64, &u64)| (old ^ new) & COMPARED != 0 && Pte(*old).is_present();
            if !leads_to_leaves || pairs().any(went) {
                return Change::Gone;
            }
            change = Change::Grown;
        }
        change
    }

    /// Adds tables of level 1 that are new at a guest that had counted `counted` before this call.
    ///
    /// # Errors
    /// Some went, or cannot be mapped: all have to be read anew.
    pub fn grow<H>(&mut self, xen: &H, domain: DomId, counted: u32) -> Result<(), Failure>
    where
        H: Hypervisor<Memory = M>,
    {
        if self.change(counted, &mut Box::new([0; PTES_PER_TABLE])) == Change::Gone {
            return Err(Failure::Stale);
        }
        let mut new = Vec::new();
        for number in 0..self.second.len() {
            let mut now = Box::new([0; PTES_PER_TABLE]);
            self.copy(self.second[number].place, &mut now);
            let table = &mut self.second[number];
            let came = |at: &usize| Pte(now[*at]).is_present() && !Pte(table.entries[*at]).is_present();
            new.extend((0..PTES_PER_TABLE).filter(came).map(|at| (table.base + at * L1_SPAN, Pte(now[at]).mfn())));
            table.entries = now;
        }
        self.add(xen, domain, new)?;
        self.counted = counted;
        Ok(())
    }

    /// The number of tables of level 1.
    pub fn count(&self) -> usize {
        self.leaves.len()
    }

    /// Their first addresses, in order.
    pub fn bases(&self) -> impl Iterator<Item = usize> {
        self.leaves.iter().map(|leaf| leaf.base)
    }

    /// First address of the table with this number.
    pub fn base(&self, number: usize) -> Option<usize> {
        self.leaves.get(number).map(|leaf| leaf.base)
    }

    /// The number of the table of level 1 in this frame.
    pub fn number_of(&self, frame: Mfn) -> Option<usize> {
        self.leaves.iter().position(|leaf| leaf.frame == frame)
    }

    /// Copies a table's entries, as they are now; nothing where there is no such table.
    pub fn copy_leaf(&self, number: usize, to: &mut Entries) {
        match self.leaves.get(number) {
            Some(leaf) => self.copy(leaf.place, to),
            None => to.fill(0),
        }
    }

    /// The table of level 1 with this number hangs in the tree of the domain's cr3, so Xen has
    /// validated it and keeps it so. This holds for as long as the domain is paused.
    ///
    /// # Errors
    /// Xen does not tell the domain's cr3.
    pub fn is_live<H>(&self, xen: &H, domain: DomId, number: usize) -> Result<bool, Failure>
    where
        H: Hypervisor<Memory = M>,
    {
        let Some(leaf) = self.leaves.get(number) else { return Ok(false) };
        let Some(second) = self.second.iter().find(|table| table.base == table_base(leaf.base, 2)) else {
            return Ok(false);
        };
        let context = xen.vcpu_context(domain, 0)?;
        let leads = |table: &Upper, level: u32, to: Mfn| {
            let at = table.place.page * PAGE_SIZE + index(leaf.base, level) * size_of::<u64>();
            let entry = Pte(self.maps[table.place.map].read_u64(at));
            entry.is_present() && entry.mfn() == to
        };
        Ok(Mfn::containing(context.ctrlreg[3]) == self.top.frame
            && leads(&self.top, 4, self.third.frame)
            && leads(&self.third, 3, second.frame)
            && leads(second, 2, leaf.frame))
    }

    /// A copy of all of them.
    pub fn copy_leaves(&self) -> Vec<ParentTable> {
        let copy = |leaf: &Leaf| {
            let mut entries = Box::new([0; PTES_PER_TABLE]);
            self.copy(leaf.place, &mut entries);
            ParentTable { base: leaf.base, entries }
        };
        self.leaves.iter().map(copy).collect()
    }

    fn copy(&self, place: Place, to: &mut Entries) {
        copy_entries(&self.maps[place.map], place.page, to);
    }
}

impl Upper {
    /// Maps one table.
    fn map_one<H: Hypervisor>(
        xen: &H,
        domain: DomId,
        maps: &mut Vec<H::Memory>,
        base: usize,
        frame: Mfn,
    ) -> Result<Self, Failure> {
        Self::map(xen, domain, maps, &[(base, frame)])?.pop().ok_or(Failure::Stale)
    }

    /// Maps tables, given by their first addresses, and copies their entries.
    fn map<H: Hypervisor>(
        xen: &H,
        domain: DomId,
        maps: &mut Vec<H::Memory>,
        tables: &[(usize, Mfn)],
    ) -> Result<Vec<Self>, Failure> {
        if tables.is_empty() {
            return Ok(Vec::new());
        }
        let frames: Vec<Mfn> = tables.iter().map(|(_, mfn)| *mfn).collect();
        let map = xen.map_foreign(domain, &frames, Protection::Read)?;
        let upper = |(page, (base, frame)): (usize, &(usize, Mfn))| {
            let mut entries = Box::new([0; PTES_PER_TABLE]);
            copy_entries(&map, page, &mut entries);
            Upper { base: *base, frame: *frame, place: Place { map: maps.len(), page }, entries }
        };
        let uppers = tables.iter().enumerate().map(upper).collect();
        maps.push(map);
        Ok(uppers)
    }

    /// First addresses and frames of the tables in the entries `range`. Each covers `span` octets.
    fn below(&self, range: Range<usize>, span: usize) -> impl Iterator<Item = (usize, Mfn)> {
        let entry = move |at: usize| (self.base + at * span, Pte(self.entries[at]));
        range.map(entry).filter(|(_, entry)| entry.is_present()).map(|(base, entry)| (base, entry.mfn()))
    }
}

/// The frame of the table of level 1 that covers `address` in `domain`, for the given `cr3`.
///
/// # Errors
/// There is none, or a table cannot be mapped.
pub fn leaf_of<H: Hypervisor>(xen: &H, domain: DomId, cr3: u64, address: usize) -> Result<Mfn, Failure> {
    let mut table = Mfn::containing(cr3);
    for level in (2..=4).rev() {
        let map = xen.map_foreign(domain, &[table], Protection::Read)?;
        let entry = Pte(map.read_u64(index(address, level) * 8));
        if !entry.is_present() {
            return Err(Failure::Tables("there is no table for its devices"));
        }
        table = entry.mfn();
    }
    Ok(table)
}

fn copy_entries<M: Memory>(map: &M, page: usize, to: &mut Entries) {
    map.copy_words_out(page * PAGE_SIZE, to);
}
