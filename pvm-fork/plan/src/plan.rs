//! The plan of a prepared domain: which frames it needs, what its page tables are, and where its
//! records lie.
//!
//! A frame number of the new domain is a place in the plan: page tables first, then special pages,
//! private pages, and a reserve. So all of the plan is known before the domain has a single frame.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use xen_abi::pte::{PTES_PER_TABLE, Pte, PteFlags};
use xen_abi::{Mfn, PAGE_SIZE, Pfn};
use zooid_memory::{PageClass, Zone};

use crate::layout::Layout;
use crate::link::{Backend, Entries, Page};
use crate::wire::{device, device_page};

/// Flags of an entry of level 2 to 4.
pub const TABLE_FLAGS: PteFlags =
    PteFlags::PRESENT.union(PteFlags::WRITABLE).union(PteFlags::USER).union(PteFlags::ACCESSED);
/// Address range that a table of level 1 covers.
pub const L1_SPAN: usize = PTES_PER_TABLE * PAGE_SIZE;
/// Address range that a table of level 2 covers.
pub const L2_SPAN: usize = PTES_PER_TABLE * L1_SPAN;

/// Index of `address` in the table of `level` (1 to 4) that covers it.
pub const fn index(address: usize, level: u32) -> usize {
    address >> (12 + 9 * (level - 1)) & (PTES_PER_TABLE - 1)
}

/// First address that the table of `level` which covers `address` covers.
pub const fn table_base(address: usize, level: u32) -> usize {
    address >> (12 + 9 * level) << (12 + 9 * level)
}

/// A parent's table of level 1.
#[derive(Clone, Debug)]
pub struct ParentTable {
    /// First address that it covers.
    pub base: usize,
    /// A copy of its entries.
    pub entries: Box<Entries>,
}

/// A page that the daemon fills, or leaves for Xen and others to fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// The control page.
    Control,
    /// The stack that it waits on.
    ShellStack,
    /// The console's ring.
    Console,
    /// The xenstore ring.
    Xenstore,
    /// start_info.
    StartInfo,
    /// A page of the p2m list, from 0.
    P2m(usize),
    /// A page of the bitmaps, from 0.
    Bitmaps(usize),
}

/// The frame that an entry of a table of the new domain names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A frame of its own.
    Own(Pfn),
    /// Xen's shared_info of the domain.
    SharedInfo,
}

/// A page table of the new domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// 1 to 4.
    pub level: u32,
    /// First address that it covers.
    pub base: usize,
    /// The entries that are present from the start, by their number: what is linked comes later.
    pub entries: BTreeMap<usize, (Frame, PteFlags)>,
}

/// Everything about a prepared domain that depends on its parent alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The way in which it gets its parent's pages.
    pub backend: Backend,
    /// Frame numbers that its p2m has room for.
    pub p2m_entries: usize,
    /// The page tables, that of level 4 first, from frame 0 up.
    pub tables: Vec<Table>,
    /// The special pages and their addresses, behind the tables.
    pub specials: Vec<(Special, usize)>,
    /// Addresses of the pages that have frames of its own, in order, behind the special ones.
    pub private: Vec<usize>,
    /// Frames behind these that are free.
    pub reserve: usize,
}

/// The parent's tables ask for more frames than the domain's p2m has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

impl Plan {
    /// The plan of a domain whose parent has this layout and these tables of level 1, in the order
    /// of their addresses, and that starts with `reserve` free frames, if there is room. The
    /// parent's pages in the TABLES zone are left out: there a domain has its own. The grant table
    /// is left to the domain itself.
    ///
    /// # Errors
    /// See [`TooLarge`].
    pub fn new(backend: Backend, layout: &Layout, parent: &[ParentTable], reserve: usize) -> Result<Self, TooLarge> {
        let parent = || parent.iter().filter(|table| !Zone::Tables.range().contains(&table.base));
        let mut specials = Vec::new();
        let mut ring = |page: usize, special| specials.push((special, device_page(page)));
        ring(device::CONSOLE, Special::Console);
        ring(device::XENSTORE, Special::Xenstore);
        ring(device::CONTROL, Special::Control);
        ring(device::SHELL_STACK, Special::ShellStack);
        specials.push((Special::StartInfo, layout.start_info));
        specials.extend((0..layout.p2m_pages()).map(|page| (Special::P2m(page), layout.p2m + page * PAGE_SIZE)));
        specials
            .extend((0..layout.bitmap_pages()).map(|page| (Special::Bitmaps(page), layout.bitmaps + page * PAGE_SIZE)));

        let taken: BTreeSet<usize> = specials.iter().map(|(_, address)| *address).collect();
        let mut private = Vec::new();
        for table in parent() {
            for (place, entry) in table.entries.iter().enumerate() {
                let address = table.base + place * PAGE_SIZE;
                if let Page::Private(flags) = Page::of(Pte(*entry), backend)
                    && !taken.contains(&address)
                {
                    private.push((address, flags));
                }
            }
        }

        let mut builder = Builder::default();
        builder.ensure(0, 4);
        for table in parent() {
            builder.ensure(table.base, 1);
        }
        for (_, address) in &specials {
            builder.ensure(*address, 1);
        }
        let windows_end = window(Pfn(layout.p2m_entries as u64));
        for address in (Zone::Tables.base()..windows_end).step_by(L2_SPAN) {
            builder.ensure(address, 2);
        }
        // The window has tables for all frames that there will be, so that any of them can become a
        // table later.
        let mut covered = Zone::Tables.base();
        let (frames, reserve) = loop {
            let used = builder.tables.len() + specials.len() + private.len();
            let reserve = layout.p2m_entries.checked_sub(used).ok_or(TooLarge)?.min(reserve);
            let frames = used + reserve;
            if window(Pfn(frames as u64)) <= covered {
                break (frames, reserve);
            }
            builder.ensure(covered, 1);
            covered += L1_SPAN;
        };

        builder.connect();
        let first_special = builder.tables.len();
        let first_private = first_special + specials.len();
        for (number, (special, address)) in specials.iter().enumerate() {
            let class = match special {
                Special::Control | Special::ShellStack | Special::Console | Special::Xenstore => PageClass::Device,
                Special::StartInfo | Special::P2m(_) | Special::Bitmaps(_) => PageClass::Special,
            };
            builder.map(*address, Frame::Own(Pfn((first_special + number) as u64)), class.pte_flags());
        }
        builder.map(device_page(device::SHARED_INFO), Frame::SharedInfo, PageClass::Device.pte_flags());
        for (number, (address, flags)) in private.iter().enumerate() {
            builder.map(*address, Frame::Own(Pfn((first_private + number) as u64)), *flags);
        }
        let plan = Self {
            backend,
            p2m_entries: layout.p2m_entries,
            tables: builder.finish(),
            specials,
            private: private.into_iter().map(|(address, _)| address).collect(),
            reserve,
        };
        debug_assert_eq!(plan.frames(), frames);
        Ok(plan)
    }

    /// Frames that the domain starts with.
    pub fn frames(&self) -> usize {
        self.reserve_start() + self.reserve
    }

    /// First frame of the special pages.
    pub fn special_start(&self) -> usize {
        self.tables.len()
    }

    /// First frame of the private pages.
    pub fn private_start(&self) -> usize {
        self.special_start() + self.specials.len()
    }

    /// First frame of the reserve.
    pub fn reserve_start(&self) -> usize {
        self.private_start() + self.private.len()
    }

    /// The frame of the page at `address`, if it has one of its own there that is not special.
    pub fn private_frame(&self, address: usize) -> Option<Pfn> {
        let number = self.private.binary_search(&address).ok()?;
        Some(Pfn((self.private_start() + number) as u64))
    }

    /// The frame of a special page.
    pub fn special(&self, special: Special) -> Option<Pfn> {
        let number = self.specials.iter().position(|(other, _)| *other == special)?;
        Some(Pfn((self.special_start() + number) as u64))
    }

    /// The frame of the table of level 1 that covers `address`.
    pub fn l1_table(&self, address: usize) -> Option<Pfn> {
        let base = table_base(address, 1);
        let number = self.tables.iter().position(|table| table.level == 1 && table.base == base)?;
        Some(Pfn(number as u64))
    }

    /// The entries of a table, with `mfns` as frames of the domain, and Xen's frame.
    pub fn table_entries(&self, table: &Table, mfns: &[Mfn], shared_info: Mfn) -> Box<Entries> {
        let mut entries = Box::new([0; PTES_PER_TABLE]);
        for (index, (frame, flags)) in &table.entries {
            let mfn = match frame {
                Frame::Own(pfn) => mfns[pfn.0 as usize],
                Frame::SharedInfo => shared_info,
            };
            entries[*index] = Pte::new(mfn, *flags).0;
        }
        entries
    }
}

/// Address at which the table in frame `table` is mapped to be read.
pub const fn window(table: Pfn) -> usize {
    Zone::Tables.base() + table.0 as usize * PAGE_SIZE
}

/// Page tables that are being planned.
#[derive(Default)]
struct Builder {
    tables: Vec<Table>,
    /// Where the table of a level and base is in the list.
    places: BTreeMap<(u32, usize), usize>,
}

impl Builder {
    /// Makes the table of `level` that covers `address`, and those above it, unless they exist.
    /// There is one table of level 4.
    fn ensure(&mut self, address: usize, level: u32) {
        for level in level..=4 {
            let base = if level == 4 { 0 } else { table_base(address, level) };
            let next = self.tables.len();
            if *self.places.entry((level, base)).or_insert(next) < next {
                return;
            }
            self.tables.push(Table { level, base, entries: BTreeMap::new() });
        }
    }

    /// Makes the table of level 1 that covers `address` map `frame` there.
    fn map(&mut self, address: usize, frame: Frame, flags: PteFlags) {
        let place = self.places[&(1, table_base(address, 1))];
        self.tables[place].entries.insert(index(address, 1), (frame, flags));
    }

    /// Enters each table in the one above it, and in the window.
    fn connect(&mut self) {
        for place in 0..self.tables.len() {
            let (level, base) = (self.tables[place].level, self.tables[place].base);
            let pfn = Pfn(place as u64);
            if level < 4 {
                let above = if level == 3 { 0 } else { table_base(base, level + 1) };
                let above = self.places[&(level + 1, above)];
                self.tables[above].entries.insert(index(base, level + 1), (Frame::Own(pfn), TABLE_FLAGS));
            }
            self.map(window(pfn), Frame::Own(pfn), PageClass::PageTable.pte_flags());
        }
    }

    fn finish(self) -> Vec<Table> {
        self.tables
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use zooid_memory::ForkRule;

    const IMAGE: usize = Zone::Image.base();

    fn layout(p2m_entries: usize) -> Layout {
        Layout {
            entry: IMAGE as u64,
            p2m_entries,
            p2m: IMAGE + 0x30_0000,
            bitmaps: IMAGE + 0x40_0000 - PAGE_SIZE,
            start_info: IMAGE + 0x2f_f000,
        }
    }

    fn table(base: usize, pages: impl IntoIterator<Item = (usize, PageClass)>) -> ParentTable {
        let mut entries = Box::new([0; 512]);
        for (place, class) in pages {
            entries[place] = Pte::new(Mfn(0x1000 + place as u64), class.pte_flags()).0;
        }
        ParentTable { base, entries }
    }

    fn parent() -> Vec<ParentTable> {
        let image = [(0, PageClass::Text), (1, PageClass::RoData), (2, PageClass::Data), (3, PageClass::Special)];
        vec![
            table(Zone::Heap.base(), (0..512).map(|page| (page, PageClass::Heap))),
            table(Zone::Heap.base() + L1_SPAN, (0..10).map(|page| (page, PageClass::Heap))),
            table(Zone::Stacks.base(), (1..65).map(|page| (page, PageClass::Stack))),
            table(Zone::Device.base(), (0..12).map(|page| (page, PageClass::Device))),
            table(Zone::Tables.base(), [(0, PageClass::PageTable)]),
            table(IMAGE, image),
        ]
    }

    fn plan() -> Plan {
        Plan::new(Backend::Foreign, &layout(2048), &parent(), 64).unwrap()
    }

    /// The plan's entry for an address, found as a processor would.
    fn walk(plan: &Plan, address: usize) -> Option<(Frame, PteFlags)> {
        let mut table = &plan.tables[0];
        for level in (2..=4).rev() {
            assert_eq!(table.level, level);
            let Some((Frame::Own(below), flags)) = table.entries.get(&index(address, level)) else { return None };
            assert_eq!(*flags, TABLE_FLAGS);
            table = &plan.tables[below.0 as usize];
        }
        table.entries.get(&index(address, 1)).copied()
    }

    #[test]
    fn each_page_is_where_the_guest_expects_it() {
        let plan = plan();
        assert_eq!(walk(&plan, device_page(device::SHARED_INFO)).unwrap().0, Frame::SharedInfo);
        for (special, address) in &plan.specials {
            let (frame, flags) = walk(&plan, *address).unwrap();
            assert_eq!(frame, Frame::Own(plan.special(*special).unwrap()));
            assert!(flags.contains(PteFlags::WRITABLE) && ForkRule::of(flags) == ForkRule::Special);
        }
        assert_eq!(
            plan.special(Special::P2m(3)).map(|pfn| pfn.0 + 1),
            plan.special(Special::Bitmaps(0)).map(|pfn| pfn.0)
        );
        assert_eq!(plan.special(Special::P2m(4)), None, "2048 frames have four pages of p2m");
    }

    #[test]
    fn private_pages_have_frames_and_the_rest_is_left_out() {
        let plan = plan();
        assert_eq!(plan.private.len(), 65);
        for (number, address) in plan.private.iter().enumerate() {
            let (frame, flags) = walk(&plan, *address).unwrap();
            assert_eq!(frame, Frame::Own(Pfn((plan.private_start() + number) as u64)));
            assert_eq!(flags, PageClass::Stack.pte_flags(), "data has the same");
        }
        for address in [Zone::Heap.base(), IMAGE, IMAGE + PAGE_SIZE, IMAGE + 3 * PAGE_SIZE, device_page(4)] {
            assert_eq!(walk(&plan, address), None, "{address:#x}");
        }
        assert!(plan.l1_table(Zone::Heap.base() + L1_SPAN).is_some(), "but there is a table to link in");
    }

    #[test]
    fn every_table_can_be_read_through_the_window_and_no_other_frame() {
        let plan = plan();
        let read_only = PageClass::PageTable.pte_flags();
        for pfn in 0..plan.frames() as u64 {
            let expected = (pfn < plan.tables.len() as u64).then_some((Frame::Own(Pfn(pfn)), read_only));
            assert_eq!(walk(&plan, window(Pfn(pfn))), expected);
        }
    }

    #[test]
    fn no_frame_is_used_twice() {
        let plan = plan();
        let mut seen = BTreeSet::new();
        for table in plan.tables.iter().filter(|table| table.level == 1 && !Zone::Tables.range().contains(&table.base))
        {
            for (frame, _) in table.entries.values() {
                if let Frame::Own(pfn) = frame {
                    assert!(seen.insert(*pfn) && plan.tables.len() <= pfn.0 as usize);
                    assert!((pfn.0 as usize) < plan.reserve_start());
                }
            }
        }
        assert_eq!(seen.len(), plan.specials.len() + plan.private.len());
    }

    #[test]
    fn a_large_guest_has_as_many_windows_as_it_needs() {
        let stacks = (0..8)
            .map(|number| table(Zone::Stacks.base() + number * L1_SPAN, (0..500).map(|page| (page, PageClass::Stack))));
        let plan = Plan::new(Backend::Foreign, &layout(8192), &stacks.collect::<Vec<_>>(), 64).unwrap();
        assert!(plan.frames() > 4000);
        let windows = plan.tables.iter().filter(|table| table.level == 1 && Zone::Tables.range().contains(&table.base));
        assert_eq!(windows.count(), plan.frames().div_ceil(512));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(Plan::new(Backend::Foreign, &layout(64), &parent(), 64), Err(TooLarge));
    }

    #[test]
    fn a_page_that_is_special_is_not_private_as_well() {
        let stack_in_the_way = [table(Zone::Device.base(), [(device::CONTROL, PageClass::Stack)])];
        let plan = Plan::new(Backend::Foreign, &layout(2048), &stack_in_the_way, 64).unwrap();
        assert_eq!(plan.private, []);
    }

    #[test]
    fn octets_name_the_frames() {
        let plan = plan();
        let mfns: Vec<Mfn> = (0..plan.frames() as u64).map(|pfn| Mfn(0x5000 + pfn)).collect();
        let device = &plan.tables[plan.l1_table(Zone::Device.base()).unwrap().0 as usize];
        let entries = plan.table_entries(device, &mfns, Mfn(0x77));
        assert_eq!(Pte(entries[device::SHARED_INFO]).mfn(), Mfn(0x77));
        assert_eq!(Pte(entries[device::CONTROL]).mfn(), mfns[plan.special(Special::Control).unwrap().0 as usize]);
        assert_eq!(entries[4], 0);
    }
}
