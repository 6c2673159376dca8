//! A prepared domain's link to its parent: what its tables hold, and the steps that make them what
//! the parent's say.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use xen_abi::pte::Pte;
use xen_abi::xen::MmuUpdate;
use xen_abi::{Mfn, PAGE_SIZE, Pfn};
use zooid_memory::{PageClass, Zone};

use crate::id::PvmId;
use crate::link::{Backend, Change, Entries, Owner, Page, Shadow};
use crate::plan::{L1_SPAN, ParentTable, Plan, TABLE_FLAGS, index, table_base, window};

/// The pVMs whose frames the tables of one of them may name: its ancestors, the root first, and
/// itself last.
pub type Owners = Arc<[PvmId]>;

/// A prepared domain as it is linked to its parent.
#[derive(Clone, Debug)]
pub struct Linkage {
    backend: Backend,
    /// The tables of level 1 that mirror the parent's, in the order of their addresses.
    tables: Vec<Linked>,
    /// The tables of level 2, by the first address that they cover.
    l2: BTreeMap<usize, Mfn>,
    /// The tables of level 1 in the TABLES zone, from its start.
    windows: Vec<Mfn>,
    /// Frames of the private pages, by address.
    private: BTreeMap<usize, Pfn>,
    /// Frames that are free.
    reserve: Vec<Pfn>,
    /// The machine frames of all frames that it has, by frame number.
    mfns: Vec<Mfn>,
    /// The list in which an [`Owner`] is a place.
    owners: Owners,
}

#[derive(Clone, Debug)]
struct Linked {
    base: usize,
    frame: Mfn,
    shadow: Shadow,
    /// The parent's counter of changes when it was up to date last.
    changes: Option<u32>,
}

/// One entry to be set in the new domain's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The request to Xen.
    pub update: MmuUpdate,
    /// The owner of the frame that it names; `None` if the frame is the new domain's own, or if it
    /// names none.
    pub owner: Option<Owner>,
    table: u32,
    change: Change,
    parent: Pte,
    frame: Option<Pfn>,
}

/// A table of level 1 to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewTable {
    /// The frame, which is to be cleared before anything else.
    pub frame: Mfn,
    /// Its number.
    pub pfn: Pfn,
    /// The entry of level 2 that leads to it, and the one by which it is read, both with frames of
    /// the new domain.
    pub updates: [MmuUpdate; 2],
    base: usize,
}

/// A frame that became used or free by a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The frame.
    pub pfn: Pfn,
    /// True if it is free now.
    pub free: bool,
}

/// The child cannot be relinked in place: the domain has to be made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// A table of the parent's has gone, or one came where there is no table of level 2.
    Tables,
    /// The reserve is used up.
    Reserve,
    /// A page came or went, and the child would need a copy.
    Pages,
}

impl Linkage {
    /// The linkage of a domain that was built by `plan` for a parent with these tables, and has
    /// these frames. Nothing is linked yet. `owners` are the parent's.
    pub fn new(plan: &Plan, parent: &[ParentTable], mfns: Vec<Mfn>, owners: Owners) -> Self {
        let mut private: BTreeMap<usize, Pfn> = BTreeMap::new();
        for (number, address) in plan.private.iter().enumerate() {
            private.insert(*address, Pfn((plan.private_start() + number) as u64));
        }
        let mut tables = Vec::new();
        for table in parent {
            let Some(pfn) = plan.l1_table(table.base) else { continue };
            let mut shadow = Shadow::empty(plan.backend);
            // The last table of an address space ends where numbers do.
            let last = table.base + (table.entries.len() * PAGE_SIZE - 1);
            for (address, _) in private.range(table.base..=last) {
                let place = (address - table.base) / PAGE_SIZE;
                shadow.set(place as u16, Pte(table.entries[place]), Owner(0));
            }
            tables.push(Linked { base: table.base, frame: mfns[pfn.0 as usize], shadow, changes: None });
        }
        let frames = |level| plan.tables.iter().zip(&mfns).filter(move |(table, _)| table.level == level);
        let in_window = |base: usize| Zone::Tables.range().contains(&base);
        Self {
            backend: plan.backend,
            tables,
            l2: frames(2).map(|(table, mfn)| (table.base, *mfn)).collect(),
            windows: frames(1).filter(|(table, _)| in_window(table.base)).map(|(_, mfn)| *mfn).collect(),
            private,
            reserve: (plan.reserve_start()..plan.frames()).rev().map(|pfn| Pfn(pfn as u64)).collect(),
            mfns,
            owners,
        }
    }

    /// The pVM that an owner stands for.
    pub fn owner(&self, owner: Owner) -> Option<PvmId> {
        self.owners.get(usize::from(owner.0)).copied()
    }

    /// First addresses of the tables, in order.
    pub fn bases(&self) -> impl Iterator<Item = usize> {
        self.tables.iter().map(|table| table.base)
    }

    /// First address of the table with this number.
    pub fn base(&self, place: usize) -> Option<usize> {
        self.tables.get(place).map(|table| table.base)
    }

    /// The parent's counter of changes when table number `place` was up to date last, as far as
    /// that was noted.
    pub fn changes(&self, place: usize) -> Option<u32> {
        self.tables[place].changes
    }

    /// Notes that table number `place` is up to date, and what the parent's counter was before it
    /// was looked at.
    pub fn note_changes(&mut self, place: usize, changes: u32) {
        self.tables[place].changes = Some(changes);
    }

    /// The shadow of the table with this first address.
    pub fn shadow(&self, base: usize) -> Option<&Shadow> {
        let place = self.tables.binary_search_by_key(&base, |table| table.base).ok()?;
        Some(&self.tables[place].shadow)
    }

    /// Entries that name frames of others.
    pub fn linked(&self) -> usize {
        self.tables.iter().map(|table| table.shadow.linked()).sum()
    }

    /// Frames of the reserve that are free.
    pub fn reserve(&self) -> &[Pfn] {
        &self.reserve
    }

    /// The machine frame of a frame.
    pub fn mfn(&self, pfn: Pfn) -> Mfn {
        self.mfns[pfn.0 as usize]
    }

    /// Plans the steps for table number `place`, now that the parent's is `now`. `owner` returns
    /// the owner of a frame that an entry of the parent's table names. The steps are added to
    /// `steps`; each has to be [`note`](Self::note)d once it is done, or
    /// [`abandon`](Self::abandon)ed.
    ///
    /// # Errors
    /// There are not enough frames. Steps that were added have to be abandoned.
    pub fn compare(
        &mut self,
        place: usize,
        now: &Entries,
        owner: impl Fn(u16, Pte) -> Owner,
        steps: &mut Vec<Step>,
    ) -> Result<(), Stale> {
        let Self { tables, reserve, mfns, private, backend, .. } = self;
        let table = &tables[place];
        table.shadow.compare(now, |change| {
            let is_copy = |page| matches!(page, Page::Private(_));
            if *backend == Backend::Grant && (is_copy(change.before) || is_copy(change.after)) {
                return Err(Stale::Pages);
            }
            let address = table.base + usize::from(change.index) * PAGE_SIZE;
            let parent = Pte(now[usize::from(change.index)]);
            let (entry, whose, frame) = match change.after {
                Page::Nothing => (Pte::ABSENT, None, None),
                Page::Linked(entry) => (entry, Some(owner(change.index, entry)), None),
                Page::Joint(entry) => (entry, Some(Owner::MEMORY_OWNER), None),
                Page::Library(entry) => (entry, Some(Owner::LIBRARIES), None),
                Page::Private(flags) => {
                    let frame = match private.get(&address) {
                        Some(frame) => *frame,
                        None => reserve.pop().ok_or(Stale::Reserve)?,
                    };
                    (Pte::new(mfns[frame.0 as usize], flags), None, Some(frame))
                }
            };
            let update = MmuUpdate::pte(table.frame.addr() + u64::from(change.index) * 8, entry);
            steps.push(Step { update, owner: whose, table: place as u32, change, parent, frame });
            Ok(())
        })
    }

    /// Notes that a step was done. Returns the frame that it took into use or freed, if any.
    pub fn note(&mut self, step: &Step) -> Option<Moved> {
        let table = &mut self.tables[step.table as usize];
        let address = table.base + usize::from(step.change.index) * PAGE_SIZE;
        table.shadow.set(step.change.index, step.parent, step.owner.unwrap_or(Owner(0)));
        match step.frame {
            Some(frame) => self.private.insert(address, frame).is_none().then_some(Moved { pfn: frame, free: false }),
            None => {
                let pfn = self.private.remove(&address)?;
                self.reserve.push(pfn);
                Some(Moved { pfn, free: true })
            }
        }
    }

    /// Forgets a step that was not done.
    pub fn abandon(&mut self, step: &Step) {
        if let Some(frame) = step.frame
            && !matches!(step.change.before, Page::Private(_))
        {
            self.reserve.push(frame);
        }
    }

    /// The next missing table. `parent` yields the first addresses of the parent's tables, in
    /// order.
    ///
    /// # Errors
    /// It cannot be relinked: a table has gone, or there is no frame or no table of level 2 for a
    /// new one.
    pub fn missing(&mut self, parent: impl Iterator<Item = usize>) -> Result<Option<NewTable>, Stale> {
        let mut ours = self.tables.iter().map(|table| table.base).peekable();
        for base in parent {
            if ours.next_if_eq(&base).is_none() {
                if ours.peek().is_some_and(|own| *own < base) {
                    return Err(Stale::Tables);
                }
                return self.new_table(base).map(Some);
            }
        }
        if ours.next().is_some() { Err(Stale::Tables) } else { Ok(None) }
    }

    fn new_table(&self, base: usize) -> Result<NewTable, Stale> {
        if self.backend == Backend::Grant {
            return Err(Stale::Tables);
        }
        let above = *self.l2.get(&table_base(base, 2)).ok_or(Stale::Tables)?;
        let pfn = *self.reserve.last().ok_or(Stale::Reserve)?;
        let frame = self.mfn(pfn);
        let window = window(pfn);
        let reader = self.windows[(window - Zone::Tables.base()) / L1_SPAN];
        let entry = |table: Mfn, at: usize, entry| MmuUpdate::pte(table.addr() + at as u64 * 8, entry);
        let updates = [
            entry(above, index(base, 2), Pte::new(frame, TABLE_FLAGS)),
            entry(reader, index(window, 1), Pte::new(frame, PageClass::PageTable.pte_flags())),
        ];
        Ok(NewTable { frame, pfn, updates, base })
    }

    /// Notes that a table was added. The frame is in use now.
    pub fn note_table(&mut self, table: &NewTable) -> Moved {
        self.reserve.retain(|pfn| *pfn != table.pfn);
        let place = self.tables.partition_point(|other| other.base < table.base);
        let shadow = Shadow::empty(self.backend);
        self.tables.insert(place, Linked { base: table.base, frame: table.frame, shadow, changes: None });
        Moved { pfn: table.pfn, free: false }
    }

    /// The words of the p2m list: the frames that it has, and none behind them.
    pub fn p2m(&self, entries: usize) -> impl Iterator<Item = u64> {
        (0..entries).map(|pfn| self.mfns.get(pfn).map_or(u64::MAX, |mfn| mfn.0))
    }

    /// The words of the two bitmaps: free frames, and numbers without a frame.
    pub fn bitmaps(&self, entries: usize) -> Box<[u64]> {
        let words = entries.div_ceil(64);
        let mut bits = alloc::vec![0_u64; 2 * words].into_boxed_slice();
        let mut set = |start: usize, number: usize| bits[start + number / 64] |= 1 << (number % 64);
        for pfn in &self.reserve {
            set(0, pfn.0 as usize);
        }
        for number in self.mfns.len()..entries {
            set(words, number);
        }
        bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Layout;
    use std::vec;
    use xen_abi::pte::PteFlags;

    const HEAP: usize = Zone::Heap.base();

    fn entry(class: PageClass, frame: u64) -> u64 {
        Pte::new(Mfn(frame), class.pte_flags()).0
    }

    fn parent() -> Vec<ParentTable> {
        let mut heap = Box::new([0; 512]);
        heap[..100].iter_mut().enumerate().for_each(|(at, slot)| *slot = entry(PageClass::Heap, 1000 + at as u64));
        let mut stacks = Box::new([0; 512]);
        stacks[1] = entry(PageClass::Stack, 2000);
        stacks[2] = entry(PageClass::Stack, 2001);
        vec![ParentTable { base: HEAP, entries: heap }, ParentTable { base: Zone::Stacks.base(), entries: stacks }]
    }

    fn linkage(reserve: usize) -> Linkage {
        let image = Zone::Image.base();
        let layout = Layout {
            entry: image as u64,
            p2m_entries: 2048,
            p2m: image + 0x10_0000,
            bitmaps: image + 0x20_0000,
            start_info: image + 0x30_0000,
        };
        let plan = Plan::new(Backend::Foreign, &layout, &parent(), reserve).unwrap();
        let mfns = (0..plan.frames() as u64).map(|pfn| Mfn(0x8000 + pfn)).collect();
        Linkage::new(&plan, &parent(), mfns, Arc::from([]))
    }

    fn compare(linkage: &mut Linkage, place: usize, now: &Entries) -> Vec<Step> {
        let mut steps = Vec::new();
        linkage.compare(place, now, |_, _| Owner(1), &mut steps).unwrap();
        steps
    }

    fn relinked() -> (Linkage, Vec<ParentTable>) {
        let (mut linkage, parent) = (linkage(4), parent());
        for (place, table) in parent.iter().enumerate() {
            for step in compare(&mut linkage, place, &table.entries) {
                linkage.note(&step);
            }
        }
        (linkage, parent)
    }

    #[test]
    fn everything_is_linked_at_first_and_then_nothing_is_left_to_do() {
        let (mut linkage, parent) = (linkage(4), parent());
        let steps = compare(&mut linkage, 0, &parent[0].entries);
        assert_eq!(steps.len(), 100);
        assert!(
            steps.iter().all(|step| step.owner == Some(Owner(1)) && step.update.val & PteFlags::WRITABLE.bits() == 0)
        );
        assert_eq!(steps[7].update.ptr, linkage.tables[0].frame.addr() + 7 * 8);
        assert_eq!(compare(&mut linkage, 1, &parent[1].entries), [], "private pages are mapped from the start");
        for step in steps {
            assert_eq!(linkage.note(&step), None);
        }
        assert_eq!(linkage.linked(), 100);
        assert_eq!(compare(&mut linkage, 0, &parent[0].entries), []);
    }

    #[test]
    fn copies_of_the_parents_are_followed() {
        let (mut linkage, parent) = relinked();
        let mut now = parent[0].entries.clone();
        now[5] = entry(PageClass::Heap, 7777);
        now[6] = 0;
        let steps = compare(&mut linkage, 0, &now);
        assert_eq!(steps.iter().map(|step| Pte(step.update.val).mfn()).collect::<Vec<_>>(), [Mfn(7777), Mfn(0)]);
        assert_eq!(steps[1].update.val, 0, "nothing but zero is a safe absent entry");
        for step in &steps {
            linkage.note(step);
        }
        assert_eq!(linkage.linked(), 99);
        assert_eq!(linkage.shadow(HEAP).unwrap().owner(5, Pte(now[5])), Some(Owner(1)));
    }

    #[test]
    fn private_pages_come_from_the_reserve_and_go_back() {
        let (mut linkage, parent) = relinked();
        let mut now = parent[1].entries.clone();
        now[3] = entry(PageClass::Stack, 2002);
        let steps = compare(&mut linkage, 1, &now);
        assert_eq!((steps.len(), steps[0].owner, linkage.reserve().len()), (1, None, 3));
        let moved = linkage.note(&steps[0]).unwrap();
        assert!(!moved.free && Pte(steps[0].update.val).mfn() == linkage.mfn(moved.pfn));
        assert_eq!(compare(&mut linkage, 1, &now), []);

        now[3] = 0;
        let steps = compare(&mut linkage, 1, &now);
        assert_eq!(linkage.note(&steps[0]), Some(Moved { pfn: moved.pfn, free: true }));
        assert_eq!(linkage.reserve().len(), 4);

        // A page that becomes another kind of page.
        now[1] = entry(PageClass::Text, 3000);
        let steps = compare(&mut linkage, 1, &now);
        assert!(linkage.note(&steps[0]).unwrap().free);
    }

    #[test]
    fn what_was_not_done_is_forgotten() {
        let (mut linkage, parent) = relinked();
        let mut now = parent[1].entries.clone();
        now[10..14].fill(entry(PageClass::Stack, 2100));
        for _ in 0..3 {
            for step in compare(&mut linkage, 1, &now).iter().rev() {
                linkage.abandon(step);
            }
            assert_eq!(linkage.reserve().len(), 4);
        }
        now[14] = now[13];
        assert_eq!(linkage.compare(1, &now, |_, _| Owner(0), &mut Vec::new()), Err(Stale::Reserve));
    }

    #[test]
    fn a_table_that_came_is_added_and_one_that_went_is_not_relinked() {
        let (mut linkage, _) = relinked();
        let bases = [HEAP, HEAP + L1_SPAN, Zone::Stacks.base()];
        let new = linkage.missing(bases.into_iter()).unwrap().unwrap();
        assert_eq!(new.frame, linkage.mfn(new.pfn));
        assert_eq!(new.updates.map(|update| Pte(update.val).mfn()), [new.frame; 2]);
        assert_eq!(new.updates[0].ptr, linkage.l2[&HEAP].addr() + 8);
        assert_eq!(new.updates[1].ptr, linkage.windows[0].addr() + new.pfn.0 * 8);
        assert_eq!(linkage.note_table(&new), Moved { pfn: new.pfn, free: false });
        assert_eq!(linkage.missing(bases.into_iter()), Ok(None));
        assert!(linkage.bases().eq(bases));
        assert!(!linkage.reserve().contains(&new.pfn));

        assert_eq!(linkage.missing(bases[1..].iter().copied()), Err(Stale::Tables));
        assert_eq!(linkage.missing(bases[..2].iter().copied()), Err(Stale::Tables));
        let far = [HEAP, HEAP + L1_SPAN, HEAP + (4 << 30), Zone::Stacks.base()];
        assert_eq!(linkage.missing(far.into_iter()), Err(Stale::Tables), "no table of level 2 there");
    }

    #[test]
    fn the_records_say_which_frames_there_are() {
        let linkage = linkage(4);
        let frames = linkage.mfns.len();
        let p2m: Vec<u64> = linkage.p2m(2048).collect();
        assert_eq!(p2m.len(), 2048);
        assert_eq!((p2m[0], p2m[frames - 1], p2m[frames]), (0x8000, 0x8000 + frames as u64 - 1, u64::MAX));
        let bitmaps = linkage.bitmaps(2048);
        let (free, vacant) = bitmaps.split_at(32);
        let count = |words: &[u64]| words.iter().map(|word| word.count_ones() as usize).sum::<usize>();
        assert_eq!((count(free), count(vacant)), (4, 2048 - frames));
        for pfn in linkage.reserve() {
            assert!(free[pfn.0 as usize / 64] >> (pfn.0 % 64) & 1 == 1);
        }
    }
}
