use super::*;
use crate::testing::Random;
use std::collections::BTreeMap;
use std::vec::Vec;

const FLAGS: PteFlags = PteFlags::PRESENT.union(PteFlags::WRITABLE);
const HEAP: usize = 0xffff_ff80_0000_0000;
const L1_SPAN: usize = Level::L2.span();

/// Memory that holds page tables, and a processor that walks them. mfns are pfns upside down, so that taking one for the
/// other is noticed.
struct Machine {
    root: Frame,
    tables: BTreeMap<u64, [Pte; 512]>,
    next_pfn: u64,
}

fn frame(pfn: u64) -> Frame {
    Frame { pfn: Pfn(pfn), mfn: Mfn(0xf_ffff - pfn) }
}

fn page(number: u64) -> Pte {
    Pte::new(Mfn(0x10_0000 + number), FLAGS)
}

impl Machine {
    fn new() -> Self {
        let root = frame(0);
        Self { root, tables: BTreeMap::from([(root.mfn.0, [Pte::ABSENT; 512])]), next_pfn: 1 }
    }

    /// A processor's walk; it knows nothing of the planner.
    fn translate(&self, address: usize) -> Option<Mfn> {
        let mut mfn = self.root.mfn;
        for shift in [39, 30, 21, 12] {
            let entry = self.tables[&mfn.0][address >> shift & 511];
            if !entry.is_present() {
                return None;
            }
            mfn = entry.mfn();
        }
        Some(mfn)
    }

    fn apply(&mut self, ops: &[Op]) {
        for op in ops {
            match op {
                Op::NewTable(frame, _) => {
                    assert!(self.tables.insert(frame.mfn.0, [Pte::ABSENT; 512]).is_none(), "{frame:?} twice");
                }
                Op::Write(write) => self.write(*write),
            }
        }
    }

    fn write(&mut self, write: Write) {
        let table = self.tables.get_mut(&(write.maddr() >> 12)).expect("writes go to tables");
        table[write.maddr() as usize % 4096 / 8] = write.entry;
    }

    fn map(&mut self, address: usize, entries: impl IntoIterator<Item = Pte>) -> Result<Vec<Op>, PlanError> {
        let mut ops = Vec::new();
        let mut next_pfn = self.next_pfn;
        let alloc = || {
            next_pfn += 1;
            Some(frame(next_pfn - 1))
        };
        Planner::new(self).map(address, entries, alloc, |op| ops.push(op))?;
        self.next_pfn = next_pfn;
        self.apply(&ops);
        Ok(ops)
    }

    fn update(&mut self, range: Range<usize>, change: impl FnMut(usize, Pte) -> Pte) -> Vec<Write> {
        let mut writes = Vec::new();
        update(self, range, change, |write| writes.push(write));
        for write in &writes {
            self.write(*write);
        }
        writes
    }
}

impl Tables for Machine {
    fn root(&self) -> Frame {
        self.root
    }

    fn table(&self, mfn: Mfn) -> Frame {
        frame(0xf_ffff - mfn.0)
    }

    fn entry(&self, table: Frame, index: usize) -> Pte {
        self.tables[&table.mfn.0][index]
    }
}

#[test]
fn one_page_takes_three_tables_from_the_top() {
    let mut machine = Machine::new();
    let address = HEAP + 3 * PAGE_SIZE;
    let write = |table, index, entry| Op::Write(Write { table: frame(table), index, entry });
    let to_table = |pfn| Pte::new(frame(pfn).mfn, TABLE_FLAGS);
    let plan = [
        Op::NewTable(frame(1), Level::L3),
        write(0, 511, to_table(1)),
        Op::NewTable(frame(2), Level::L2),
        write(1, 0, to_table(2)),
        Op::NewTable(frame(3), Level::L1),
        write(2, 0, to_table(3)),
        write(3, 3, page(0)),
    ];
    assert_eq!(machine.map(address, [page(0)]).unwrap(), plan);
    assert_eq!(machine.translate(address), Some(page(0).mfn()));
    assert_eq!(machine.translate(address + PAGE_SIZE), None);
    // The second page finds its tables.
    assert_eq!(machine.map(address + PAGE_SIZE, [page(1)]).unwrap(), [write(3, 4, page(1))]);
}

#[test]
fn entries_have_machine_addresses() {
    let write = Write { table: frame(0), index: 3, entry: Pte::ABSENT };
    assert_eq!(write.maddr(), 0xffff_f018);
}

#[test]
fn a_boot_plan_is_complete_before_anything_is_written() {
    let mut machine = Machine::new();
    let mut ops = Vec::new();
    let mut pfn = 0;
    let tables = NewHierarchy { root: machine.root };
    let mut planner = Planner::new(&tables);
    let parts = [(HEAP, 1200), (HEAP + 2 * L1_SPAN + 700 * PAGE_SIZE, 30), (0xffff_ffff_8000_0000, 600)];
    for (address, pages) in parts {
        let alloc = || {
            pfn += 1;
            Some(frame(pfn))
        };
        planner.map(address, (0..pages).map(page), alloc, |op| ops.push(op)).unwrap();
    }
    machine.apply(&ops);
    for (address, pages) in parts {
        for number in 0..pages {
            assert_eq!(machine.translate(address + number as usize * PAGE_SIZE), Some(page(number).mfn()));
        }
    }
    let tables = ops.iter().filter(|op| matches!(op, Op::NewTable(..))).count();
    assert_eq!(tables, 1 + (1 + 4) + (1 + 2), "a level 3 table; 4 and 2 of level 1 below one of level 2 each");
}

#[test]
fn absent_entries_make_tables_only() {
    let mut machine = Machine::new();
    let ops = machine.map(HEAP, [Pte::ABSENT; 513]).unwrap();
    assert_eq!(ops.iter().filter(|op| matches!(op, Op::NewTable(..))).count(), 4);
    assert_eq!(machine.translate(HEAP), None);
    assert_eq!(machine.map(HEAP, [page(0)]).unwrap().len(), 1);
}

#[test]
fn bad_mappings_are_refused() {
    let mut machine = Machine::new();
    let bad = |machine: &mut Machine, address| machine.map(address, [page(0)]).unwrap_err();
    for address in
        [HEAP + 1, 0x0000_8000_0000_0000, 0xffff_7fff_ffff_f000, 0xffff_8000_0000_0000, 0xffff_87ff_ffff_f000]
    {
        assert_eq!(bad(&mut machine, address), PlanError::BadAddress(address));
    }
    assert!(machine.map(0xffff_8800_0000_0000, [page(0)]).is_ok());
    assert!(machine.map(0x0000_7fff_ffff_f000, [page(0)]).is_ok());
    let edge = machine.map(0x0000_7fff_ffff_e000, [Pte::ABSENT, page(1)]).unwrap_err();
    assert_eq!(edge, PlanError::AlreadyMapped(0x0000_7fff_ffff_f000));
    let last = usize::MAX - PAGE_SIZE + 1;
    assert_eq!(machine.map(last, [page(0), page(1)]).unwrap_err(), PlanError::BadAddress(0));
    assert!(machine.map(last, [page(0)]).is_ok());
}

#[test]
fn one_planner_goes_upwards_only() {
    let machine = Machine::new();
    let mut planner = Planner::new(&machine);
    let mut map = |address| planner.map(address, [page(0)], || Some(frame(9)), |_| {});
    map(HEAP + PAGE_SIZE).unwrap();
    assert_eq!(map(HEAP + PAGE_SIZE), Err(PlanError::NotAscending(HEAP + PAGE_SIZE)));
    assert_eq!(map(HEAP), Err(PlanError::NotAscending(HEAP)));
    map(HEAP + 2 * PAGE_SIZE).unwrap();
}

#[test]
fn running_out_of_frames_is_an_error() {
    let machine = Machine::new();
    let mut frames = [frame(1), frame(2)].into_iter();
    let result = Planner::new(&machine).map(HEAP, [page(0)], || frames.next(), |_| {});
    assert_eq!(result, Err(PlanError::OutOfFrames));
}

#[test]
fn updates_touch_present_pages_only() {
    let mut machine = Machine::new();
    machine.map(HEAP, (0..4).map(page)).unwrap();
    let far = HEAP + (1 << 30) + 5 * PAGE_SIZE;
    machine.map(far, [page(4)]).unwrap();
    let mut seen = Vec::new();
    let writes = machine.update(HEAP + PAGE_SIZE..far + PAGE_SIZE, |address, entry| {
        seen.push(address);
        Pte::new(entry.mfn(), PteFlags::PRESENT)
    });
    assert_eq!(seen, [HEAP + PAGE_SIZE, HEAP + 2 * PAGE_SIZE, HEAP + 3 * PAGE_SIZE, far]);
    assert_eq!(writes.len(), 4);
    assert_eq!(machine.update(HEAP..far, |_, entry| entry), []);
    machine.update(HEAP..usize::MAX, |_, _| Pte::ABSENT);
    assert_eq!(machine.translate(far), None);
}

#[test]
fn a_walk_says_where_it_ends() {
    let mut machine = Machine::new();
    machine.map(HEAP, [page(0)]).unwrap();
    let at = |address, target| {
        let (level, found) = walk(&machine, address, target);
        (level, found.index, found.entry.is_present())
    };
    assert_eq!(at(HEAP, Level::L1), (Level::L1, 0, true));
    assert_eq!(at(HEAP, Level::L3), (Level::L3, 0, true));
    assert_eq!(at(HEAP + PAGE_SIZE, Level::L1), (Level::L1, 1, false));
    assert_eq!(at(HEAP + L1_SPAN, Level::L1), (Level::L2, 1, false));
    assert_eq!(at(0, Level::L1), (Level::L4, 0, false));
}

#[test]
fn behaves_like_a_map_of_pages() {
    let mut random = Random::new(12);
    let mut machine = Machine::new();
    let mut model: BTreeMap<usize, Mfn> = BTreeMap::new();
    // Pages on both sides of boundaries of all levels.
    let bases = [HEAP + L1_SPAN, HEAP + (1 << 30), HEAP + (300 << 30), 0x80_0000_0000];
    for step in 0..400 {
        let base = bases[random.below(4) as usize] - 20 * PAGE_SIZE;
        let start = base + random.below(40) as usize * PAGE_SIZE;
        let pages = 1 + random.below(12);
        let range = start..start + pages as usize * PAGE_SIZE;
        if random.chance(2) {
            let entries = (0..pages).map(|number| page(step * 100 + number));
            let taken = model.range(range.clone()).next().map(|(&address, _)| address);
            match machine.map(start, entries.clone()) {
                Ok(_) => model.extend(range.step_by(PAGE_SIZE).zip(entries.map(Pte::mfn))),
                Err(error) => assert_eq!(Some(error), taken.map(PlanError::AlreadyMapped)),
            }
        } else {
            machine.update(range.clone(), |_, _| Pte::ABSENT);
            model.retain(|address, _| !range.contains(address));
        }
        for base in bases {
            for address in (base - 20 * PAGE_SIZE..base + 40 * PAGE_SIZE).step_by(PAGE_SIZE) {
                assert_eq!(machine.translate(address), model.get(&address).copied(), "{address:#x}");
            }
        }
    }
}
