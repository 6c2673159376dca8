//! A fork: whatever control page and page tables a parent has, its child's layout, plan and links
//! are sound, or it is refused. Sound means: records lie apart, no frame has two uses, page tables
//! are never writable, and what is linked is not, unless the family's memory owner has it.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};

use libfuzzer_sys::fuzz_target;
use xen_abi::pte::{Pte, PteFlags};
use xen_abi::{Mfn, PAGE_SIZE};
use zooid_fork_plan::layout::Layout;
use zooid_fork_plan::link::{Backend, Entries, Owner};
use zooid_fork_plan::plan::{Frame, L1_SPAN, ParentTable, Plan, index};
use zooid_fork_plan::relink::Linkage;
use zooid_fork_plan::wire::{MAGIC, VERSION, guest};
use zooid_memory::Zone;

/// Frames that the parent may have.
const MOST: u64 = 4096;
/// The machine frame of the child's first frame.
const FIRST: u64 = 1 << 30;

/// A run of words of the control page, or of entries of a table: start and number.
type Run = (u16, u8, u64);

fuzz_target!(|input: (Vec<Run>, Vec<(u8, u8, Run)>, Vec<(u8, Run)>, bool, u8)| {
    let (page, tables, later, grant, reserve) = input;
    let Ok(layout) = Layout::parse(&control_page(&page), MOST) else { return };
    assert!(layout.p2m_entries as u64 <= MOST);
    let mut parent = parent(&tables);
    let backend = if grant { Backend::Grant } else { Backend::Foreign };
    let Ok(plan) = Plan::new(backend, &layout, &parent, reserve.into()) else { return };
    check_plan(&layout, &plan);
    let mfns = (0..plan.frames() as u64).map(|pfn| Mfn(FIRST + pfn)).collect();
    let mut child = Child { linkage: Linkage::new(&plan, &parent, mfns, Arc::from([])), free: BTreeSet::new(), plan: &plan };
    child.free.extend(child.linkage.reserve().iter().map(|pfn| pfn.0));
    child.follow(&parent, usize::MAX);
    if parent.is_empty() {
        return;
    }
    for (table, run) in later {
        let number = usize::from(table) % parent.len();
        write(&mut parent[number].entries[..], run);
    }
    // Some steps fail in the middle; then all of them are done.
    child.follow(&parent, 3);
    child.follow(&parent, usize::MAX);
});

/// A control page that is sound, but for these words.
fn control_page(changes: &[Run]) -> [u8; PAGE_SIZE] {
    let mut words = [0; PAGE_SIZE / 8];
    let image = Zone::Image.base() as u64;
    for (at, value) in [
        (guest::MAGIC, MAGIC),
        (guest::VERSION, VERSION.into()),
        (guest::ENTRY, image),
        (guest::P2M_ENTRIES, 1024),
        (guest::P2M, image + 0x1_0000),
        (guest::BITMAPS, image + 0x2_0000),
        (guest::START_INFO, image + 0x3_0000),
    ] {
        words[at / 8] = value;
    }
    changes.iter().for_each(|run| write(&mut words, *run));
    let mut page = [0; PAGE_SIZE];
    page.chunks_exact_mut(8).zip(words).for_each(|(octets, word)| octets.copy_from_slice(&word.to_le_bytes()));
    page
}

fn write(words: &mut [u64], (first, count, value): Run) {
    let first = usize::from(first) % words.len();
    for (number, word) in words[first..].iter_mut().take(usize::from(count) + 1).enumerate() {
        *word = value.wrapping_add((number * PAGE_SIZE) as u64);
    }
}

/// The tables of level 1 that a walk may find.
fn parent(tables: &[(u8, u8, Run)]) -> Vec<ParentTable> {
    let zones: Vec<Zone> = Zone::ALL.into_iter().filter(|zone| *zone != Zone::Tables).collect();
    let mut found: BTreeMap<usize, Box<Entries>> = BTreeMap::new();
    for (zone, number, run) in tables {
        let base = zones[usize::from(*zone) % zones.len()].base() + usize::from(*number) * L1_SPAN;
        write(&mut found.entry(base).or_insert_with(|| Box::new([0; 512]))[..], *run);
    }
    found.into_iter().map(|(base, entries)| ParentTable { base, entries }).collect()
}

fn check_plan(layout: &Layout, plan: &Plan) {
    assert!(plan.frames() <= layout.p2m_entries);
    let mut used = BTreeSet::new();
    let mut bases = BTreeSet::new();
    for table in &plan.tables {
        assert!(bases.insert((table.level, table.base)));
        for (frame, flags) in table.entries.values() {
            let Frame::Own(pfn) = frame else { continue };
            let is_table = (pfn.0 as usize) < plan.tables.len();
            assert!((pfn.0 as usize) < plan.reserve_start());
            if table.level == 1 {
                assert!(!(is_table && flags.contains(PteFlags::WRITABLE)), "a page table that can be written");
                assert!(used.insert(*pfn), "a frame that is mapped twice");
            } else {
                assert!(is_table);
            }
        }
    }
    for address in plan.specials.iter().map(|(_, address)| address).chain(&plan.private) {
        let mut table = &plan.tables[0];
        for level in (2..=4).rev() {
            let (Frame::Own(below), _) = table.entries[&index(*address, level)] else { panic!("no table") };
            table = &plan.tables[below.0 as usize];
        }
        assert!(table.entries.contains_key(&index(*address, 1)));
    }
}

/// The child, and which of its frames are free.
struct Child<'a> {
    plan: &'a Plan,
    linkage: Linkage,
    free: BTreeSet<u64>,
}

impl Child<'_> {
    /// Makes it what the parent's tables say, but for steps from number `most` on, which fail.
    fn follow(&mut self, parent: &[ParentTable], most: usize) {
        for (place, table) in parent.iter().enumerate() {
            assert_eq!(self.linkage.base(place), Some(table.base));
            let mut steps = Vec::new();
            let compared = self.linkage.compare(place, &table.entries, |_, _| Owner(0), &mut steps);
            let own = self.linkage.mfn(self.plan.l1_table(table.base).expect("it was planned"));
            for (number, step) in steps.iter().enumerate() {
                let entry = Pte(step.update.val);
                assert_eq!(step.update.ptr & !0xfff, own.addr(), "a table that is not its own");
                match step.owner {
                    Some(Owner::MEMORY_OWNER) => {}
                    Some(_) => assert!(!entry.flags().contains(PteFlags::WRITABLE), "another's frame, to be written"),
                    None if entry.is_present() => {
                        let pfn = entry.mfn().0.checked_sub(FIRST).expect("a frame of its own");
                        assert!((self.plan.private_start() as u64..self.plan.frames() as u64).contains(&pfn));
                    }
                    None => {}
                }
                if compared.is_err() || number >= most {
                    self.linkage.abandon(step);
                } else if let Some(moved) = self.linkage.note(step) {
                    let changed =
                        if moved.free { self.free.insert(moved.pfn.0) } else { self.free.remove(&moved.pfn.0) };
                    assert!(changed, "a frame that is used twice, or freed twice");
                }
            }
            let reserve: BTreeSet<u64> = self.linkage.reserve().iter().map(|pfn| pfn.0).collect();
            assert_eq!(reserve.len(), self.linkage.reserve().len());
            assert_eq!(reserve, self.free);
            if compared.is_ok() && most == usize::MAX {
                let mut left = Vec::new();
                self.linkage.compare(place, &table.entries, |_, _| Owner(0), &mut left).expect("nothing is left");
                assert_eq!(left, [], "the child is not what the parent's tables say");
            }
        }
    }
}
