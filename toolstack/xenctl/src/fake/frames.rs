//! Machine frames: their owners, the references to them, and the page tables among them.
//!
//! A frame is freed when its owner has given it up and it has no reference. The fake refuses the
//! same as Xen's `get_page_from_l1e` and `get_page_type` (xen/arch/x86/mm.c), with the same errors.

use std::collections::BTreeMap;
use std::ops::Range;

use xen_abi::pte::{Pte, PteFlags};
use xen_abi::xen::MmuCommand;
use xen_abi::{DomId, Errno, Mfn, PAGE_SIZE, Pfn};

use super::ForeignEntry;

/// All frames that are in use.
#[derive(Debug, Default)]
pub(super) struct Frames {
    frames: BTreeMap<Mfn, Frame>,
    /// Those of them that are page tables of level 1, each with its foreign entries as of the last
    /// look; None since a write.
    last_tables: BTreeMap<Mfn, Option<Vec<ForeignEntry>>>,
    /// The number of frames of each domain: its own, and special ones.
    counts: BTreeMap<DomId, (u64, u64)>,
    /// The last number given out, so that a freed frame's number does not come again soon.
    last: u64,
    /// Counts the changes of references.
    pub changes: u64,
}

#[derive(Debug)]
pub(super) struct Frame {
    pub owner: DomId,
    /// The owner has not given it up.
    pub kept: bool,
    /// Xen's own, shared with the owner; it does not count as the owner's memory.
    pub special: bool,
    /// Its entry in the machine-to-physical table.
    pub pfn: Pfn,
    /// Page-table entries and mappings that name it.
    refs: usize,
    /// Those of them that can write.
    writers: usize,
    table: Option<Table>,
    /// None while it has not been written: all zeros.
    octets: Option<Box<[u8; PAGE_SIZE]>>,
}

/// Entries of a top table that are Xen's own in every domain.
const XEN_SLOTS: Range<usize> = 256..272;

/// The state of a frame that is used as a page table.
#[derive(Clone, Copy, Debug)]
struct Table {
    level: u32,
    /// Entries of upper tables, a pin, and vcpus that name it.
    uses: usize,
    pinned: bool,
}

impl Frames {
    /// A new frame of `owner`, filled with zeros.
    pub fn add(&mut self, owner: DomId, pfn: Pfn, special: bool) -> Mfn {
        const FIRST: u64 = 0x1000;
        self.last = self.last.max(FIRST) + 1;
        let frame = Frame { owner, kept: true, special, pfn, refs: 0, writers: 0, table: None, octets: None };
        self.frames.insert(Mfn(self.last), frame);
        *self.counter(owner, special) += 1;
        Mfn(self.last)
    }

    pub fn get(&self, mfn: Mfn) -> Option<&Frame> {
        self.frames.get(&mfn)
    }

    pub fn of(&self, owner: DomId) -> impl Iterator<Item = (Mfn, &Frame)> {
        self.frames.iter().filter(move |(_, frame)| frame.owner == owner).map(|(mfn, frame)| (*mfn, frame))
    }

    pub fn all(&self) -> impl Iterator<Item = (Mfn, &Frame)> {
        self.frames.iter().map(|(mfn, frame)| (*mfn, frame))
    }

    /// See [`FakeXen::foreign_entries`](super::FakeXen::foreign_entries).
    pub fn foreign_entries(&mut self) -> Vec<ForeignEntry> {
        let new = self.last_tables.iter().filter(|(_, found)| found.is_none()).map(|(table, _)| *table);
        for table in new.collect::<Vec<_>>() {
            let found = self.foreign_entries_of(table);
            self.last_tables.insert(table, Some(found));
        }
        self.last_tables.values().flatten().flatten().copied().collect()
    }

    fn foreign_entries_of(&self, table: Mfn) -> Vec<ForeignEntry> {
        let Frame { owner: domain, octets: Some(octets), .. } = &self.frames[&table] else { return Vec::new() };
        let entries = octets.as_chunks().0.iter().map(|octets| Pte(u64::from_le_bytes(*octets)));
        let foreign = entries.filter(|entry| entry.is_present()).map(|entry| ForeignEntry {
            domain: *domain,
            mfn: entry.mfn(),
            owner: self.frames[&entry.mfn()].owner,
            writable: entry.flags().contains(PteFlags::WRITABLE),
        });
        foreign.filter(|entry| entry.owner != *domain).collect()
    }

    /// Number of frames of `owner`, special ones left out.
    pub fn pages(&self, owner: DomId) -> u64 {
        self.counts.get(&owner).map_or(0, |(pages, _)| *pages)
    }

    /// `owner` has a frame.
    pub fn has_any(&self, owner: DomId) -> bool {
        self.counts.get(&owner).is_some_and(|counts| *counts != (0, 0))
    }

    /// Frames that are in use and not Xen's own.
    pub fn used(&self) -> u64 {
        self.counts.values().map(|(pages, _)| pages).sum()
    }

    fn counter(&mut self, owner: DomId, special: bool) -> &mut u64 {
        let (pages, specials) = self.counts.entry(owner).or_default();
        if special { specials } else { pages }
    }

    /// The number of references to frames.
    pub fn references(&self) -> usize {
        self.frames.values().map(|frame| frame.refs + frame.table.map_or(0, |table| table.uses)).sum()
    }

    pub fn read(&self, mfn: Mfn, offset: usize, to: &mut [u8]) {
        match &self.frames[&mfn].octets {
            Some(octets) => to.copy_from_slice(&octets[offset..offset + to.len()]),
            None => to.fill(0),
        }
    }

    pub fn write(&mut self, mfn: Mfn, offset: usize, from: &[u8]) {
        let frame = self.frames.get_mut(&mfn).expect("a frame that is in use");
        let octets = frame.octets.get_or_insert_with(|| Box::new([0; PAGE_SIZE]));
        octets[offset..offset + from.len()].copy_from_slice(from);
        if let Some(found) = self.last_tables.get_mut(&mfn) {
            *found = None;
        }
    }

    pub fn pte(&self, mfn: Mfn, index: usize) -> Pte {
        let mut octets = [0; 8];
        self.read(mfn, index * 8, &mut octets);
        Pte(u64::from_le_bytes(octets))
    }

    /// The entries of a table of this level that are present and the guest's.
    fn entries(&self, table: Mfn, level: u32) -> Vec<Pte> {
        let Some(octets) = &self.frames[&table].octets else { return Vec::new() };
        let entries = octets.as_chunks().0.iter().map(|octets| Pte(u64::from_le_bytes(*octets))).enumerate();
        let guests = entries.filter(|(index, entry)| entry.is_present() && (level < 4 || !XEN_SLOTS.contains(index)));
        guests.map(|(_, entry)| entry).collect()
    }

    pub fn set_pfn(&mut self, mfn: Mfn, owner: DomId, pfn: Pfn) -> Result<(), Errno> {
        self.owned(mfn, owner, Errno::EINVAL)?.pfn = pfn;
        Ok(())
    }

    /// The owner gives the frame up. A pin of it stays.
    pub fn give_up(&mut self, mfn: Mfn, owner: DomId) -> Result<(), Errno> {
        let frame = self.owned(mfn, owner, Errno::EINVAL)?;
        // A reference that is left keeps it.
        frame.kept = false;
        self.settle(mfn);
        Ok(())
    }

    /// Adds a reference to a frame of `owner`, as of an entry of an L1 table or of a mapping.
    pub fn refer(&mut self, mfn: Mfn, owner: DomId, writable: bool) -> Result<(), Errno> {
        /// The processor's address space ends here. Numbers without memory below it are devices'.
        const MOST: Mfn = Mfn(1 << 32);
        if mfn >= MOST {
            return Err(Errno::EPERM);
        }
        self.changes += 1;
        let frame = self.owned(mfn, owner, Errno::EBUSY)?;
        if writable && frame.table.is_some() {
            return Err(Errno::EBUSY);
        }
        frame.refs += 1;
        frame.writers += usize::from(writable);
        Ok(())
    }

    /// Takes [`refer`](Self::refer) back.
    pub fn release(&mut self, mfn: Mfn, writable: bool) {
        self.changes += 1;
        let frame = self.frames.get_mut(&mfn).expect("it is referred to");
        frame.refs -= 1;
        frame.writers -= usize::from(writable);
        self.settle(mfn);
    }

    /// Uses a frame as a table. Its entries are checked if it was none.
    pub fn use_table(&mut self, mfn: Mfn, owner: DomId, level: u32) -> Result<(), Errno> {
        let frame = self.owned(mfn, owner, Errno::EINVAL)?;
        match &mut frame.table {
            Some(table) if table.level == level => table.uses += 1,
            None if frame.writers == 0 => {
                // This precedes the check of the entries, because none of them may make the table
                // writable.
                frame.table = Some(Table { level, uses: 1, pinned: false });
                if level == 1 {
                    self.last_tables.insert(mfn, None);
                }
                let entries = self.entries(mfn, level);
                for (place, entry) in entries.iter().enumerate() {
                    if let Err(errno) = self.enter(*entry, level, owner, owner) {
                        entries[..place].iter().for_each(|entered| self.leave(*entered, level));
                        self.end_table(mfn);
                        return Err(errno);
                    }
                }
                if level == 4 {
                    // These entries stay when it is no table any more.
                    let own = Pte::new(Mfn(0), PteFlags::PRESENT | PteFlags::WRITABLE);
                    XEN_SLOTS.for_each(|index| self.write(mfn, index * 8, &own.0.to_le_bytes()));
                }
            }
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }

    /// Takes [`use_table`](Self::use_table) back.
    pub fn leave_table(&mut self, mfn: Mfn) {
        let table = self.frames.get_mut(&mfn).and_then(|frame| frame.table.as_mut()).expect("it is used as a table");
        table.uses -= 1;
        let Table { level, uses, .. } = *table;
        if uses == 0 {
            self.entries(mfn, level).into_iter().for_each(|entry| self.leave(entry, level));
            self.end_table(mfn);
            self.settle(mfn);
        }
    }

    fn end_table(&mut self, mfn: Mfn) {
        self.frames.get_mut(&mfn).expect("found before").table = None;
        self.last_tables.remove(&mfn);
    }

    pub fn pin(&mut self, mfn: Mfn, owner: DomId, level: u32) -> Result<(), Errno> {
        if self.get(mfn).and_then(|frame| frame.table).is_some_and(|table| table.pinned) {
            return Err(Errno::EINVAL);
        }
        self.use_table(mfn, owner, level)?;
        let table = self.frames.get_mut(&mfn).and_then(|frame| frame.table.as_mut());
        table.expect("just used").pinned = true;
        Ok(())
    }

    pub fn unpin(&mut self, mfn: Mfn, owner: DomId) -> Result<(), Errno> {
        match &mut self.owned(mfn, owner, Errno::EINVAL)?.table {
            Some(table) if table.pinned => table.pinned = false,
            _ => return Err(Errno::EINVAL),
        }
        self.leave_table(mfn);
        Ok(())
    }

    /// One entry of `mmu_update`.
    pub fn update(&mut self, pt_owner: DomId, pg_owner: DomId, ptr: u64, val: u64) -> Result<(), Errno> {
        let (command, address) = (MmuCommand(ptr & 7), ptr & !7);
        let (mfn, index) = (Mfn::containing(address), address as usize % PAGE_SIZE / 8);
        let mut new = Pte(val);
        match command {
            MmuCommand::NORMAL_PT_UPDATE | MmuCommand::PT_UPDATE_NO_TRANSLATE => {}
            MmuCommand::PT_UPDATE_PRESERVE_AD => {
                let kept = PteFlags::ACCESSED | PteFlags::DIRTY;
                new.0 |= (self.get(mfn).map_or(PteFlags::empty(), |_| self.pte(mfn, index).flags()) & kept).bits();
            }
            MmuCommand::MACHPHYS_UPDATE if pt_owner == DomId::DOM0 => return self.set_pfn(mfn, pg_owner, Pfn(val)),
            MmuCommand::MACHPHYS_UPDATE => return Err(Errno::EPERM),
            _ => return Err(Errno::ENOSYS),
        }
        let level = self.owned(mfn, pt_owner, Errno::EINVAL)?.table.map(|table| table.level);
        if let Some(level) = level {
            if level > 1 && pg_owner != pt_owner || level == 4 && XEN_SLOTS.contains(&index) {
                return Err(Errno::EINVAL);
            }
            let old = self.pte(mfn, index);
            let checked = PteFlags::PRESENT | PteFlags::WRITABLE;
            // Xen's fast path: if only other flags change, nothing is checked again.
            if old.mfn() != new.mfn() || old.flags() & checked != new.flags() & checked {
                self.enter(new, level, pt_owner, pg_owner)?;
                self.leave(old, level);
            }
        }
        self.write(mfn, index * 8, &new.0.to_le_bytes());
        Ok(())
    }

    /// Counts the reference of an entry in a table of `pt_owner`.
    fn enter(&mut self, pte: Pte, level: u32, pt_owner: DomId, pg_owner: DomId) -> Result<(), Errno> {
        match level {
            _ if !pte.is_present() => Ok(()),
            1 => self.refer(pte.mfn(), pg_owner, pte.flags().contains(PteFlags::WRITABLE)),
            _ => self.use_table(pte.mfn(), pt_owner, level - 1),
        }
    }

    fn leave(&mut self, pte: Pte, level: u32) {
        match level {
            _ if !pte.is_present() => {}
            1 => self.release(pte.mfn(), pte.flags().contains(PteFlags::WRITABLE)),
            _ => self.leave_table(pte.mfn()),
        }
    }

    /// Zeroes a frame, which must be no page table.
    pub fn clear(&mut self, mfn: Mfn, owner: DomId) -> Result<(), Errno> {
        if self.owned(mfn, owner, Errno::EINVAL)?.table.is_some() {
            return Err(Errno::EINVAL);
        }
        self.write(mfn, 0, &[0; PAGE_SIZE]);
        Ok(())
    }

    fn owned(&mut self, mfn: Mfn, owner: DomId, or: Errno) -> Result<&mut Frame, Errno> {
        self.frames.get_mut(&mfn).filter(|frame| frame.owner == owner).ok_or(or)
    }

    /// Frees the frame if it has no owner and no reference.
    fn settle(&mut self, mfn: Mfn) {
        if self.get(mfn).is_some_and(|frame| !frame.kept && frame.refs == 0 && frame.table.is_none()) {
            let frame = self.frames.remove(&mfn).expect("just found");
            *self.counter(frame.owner, frame.special) -= 1;
        }
    }
}
