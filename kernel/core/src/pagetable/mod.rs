//! The page-table planner: which entries are written so that a range of addresses is mapped.
//!
//! A PV guest's page tables hold mfns and are read-only to the guest; Xen writes the entries for it (`mmu_update`). So
//! nothing here writes: a plan is a sequence of [`Op`]s, plain data in the order in which they are to be carried out. The
//! same [`Planner`] serves both moments:
//!
//! * *boot*: [`NewHierarchy`] stands for tables that do not exist yet. The shell carries the writes out by plain stores,
//!   then makes the tables read-only and pins the root.
//! * *running*: the shell's own [`Tables`] reads the live tables, and each write becomes one `mmu_update` of
//!   [`Write::maddr`].
//!
//! Planning takes no heap. Superpages do not exist for PV guests, so a present entry of levels 2 to 4 always points to a
//! table.

mod level;

pub use level::Level;

use core::fmt;
use core::ops::Range;
use xen_abi::pte::{Pte, PteFlags};
use xen_abi::{Mfn, PAGE_SIZE, Pfn};

/// Flags of an entry that points to a table. What they allow, the entries below restrict.
pub const TABLE_FLAGS: PteFlags =
    PteFlags::PRESENT.union(PteFlags::WRITABLE).union(PteFlags::USER).union(PteFlags::ACCESSED);

/// A frame of this guest under both of its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The guest's number for it.
    pub pfn: Pfn,
    /// The machine's number for it.
    pub mfn: Mfn,
}

/// The page tables as they are before any operation of a plan is carried out.
pub trait Tables {
    /// The level 4 table.
    fn root(&self) -> Frame;
    /// The table that a present entry with this mfn points to.
    fn table(&self, mfn: Mfn) -> Frame;
    /// What a table holds at `index`.
    fn entry(&self, table: Frame, index: usize) -> Pte;
}

/// Tables that are still to be made below an empty root.
#[derive(Clone, Copy, Debug)]
pub struct NewHierarchy {
    /// The frame of the empty level 4 table.
    pub root: Frame,
}

impl Tables for NewHierarchy {
    fn root(&self) -> Frame {
        self.root
    }

    fn table(&self, mfn: Mfn) -> Frame {
        unreachable!("an empty root points to no table, so not to mfn {mfn} either")
    }

    fn entry(&self, _: Frame, _: usize) -> Pte {
        Pte::ABSENT
    }
}

/// One step of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A frame becomes a table of this level: from here on it holds zeros where the plan writes nothing, and has no
    /// writable mapping. The write that points to it follows.
    NewTable(Frame, Level),
    /// An entry changes.
    Write(Write),
}

/// The change of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// The table that holds the entry.
    pub table: Frame,
    /// Which of the table's entries it is.
    pub index: usize,
    /// The new value.
    pub entry: Pte,
}

impl Write {
    /// The machine address of the entry, as `mmu_update` wants it.
    pub const fn maddr(&self) -> u64 {
        self.table.mfn.addr() + (self.index * size_of::<Pte>()) as u64
    }
}

/// Why a mapping cannot be planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanError {
    /// The address is not at a page boundary, not canonical, or in the part that belongs to Xen.
    BadAddress(usize),
    /// The address lies before one that the same planner has mapped.
    NotAscending(usize),
    /// Something is mapped at the address.
    AlreadyMapped(usize),
    /// No frame is left for a table.
    OutOfFrames,
}

/// Plans mappings in ascending order of their addresses.
///
/// It remembers the tables on its way, so it does not matter which of the operations emitted so far have been carried
/// out. A new plan, after the operations of the last one, needs a new planner.
#[derive(Debug)]
pub struct Planner<'a, T> {
    tables: &'a T,
    /// The tables of levels 1, 2 and 3 that were used last.
    path: [Option<Node>; 3],
    /// The first page number that may be mapped next.
    next_page: usize,
}

/// A table on the way to a page.
#[derive(Clone, Copy, Debug)]
struct Node {
    frame: Frame,
    /// The first address that the table covers.
    base: usize,
    /// The plan makes the table; [`Tables`] does not know it.
    new: bool,
}

impl<'a, T: Tables> Planner<'a, T> {
    /// Begins a plan.
    pub const fn new(tables: &'a T) -> Self {
        Self { tables, path: [None; 3], next_page: 0 }
    }

    /// Maps consecutive pages from `address` on, one for each of `entries`. An absent entry leaves its page unmapped but
    /// makes the tables for it.
    ///
    /// `alloc` gives a frame for a new table; `emit` takes the operations.
    ///
    /// # Errors
    /// See [`PlanError`]. The operations emitted before are valid but incomplete: drop them all, with the frames that
    /// `alloc` gave, or carry them out and unmap the range again.
    pub fn map(
        &mut self,
        address: usize,
        entries: impl IntoIterator<Item = Pte>,
        mut alloc: impl FnMut() -> Option<Frame>,
        mut emit: impl FnMut(Op),
    ) -> Result<(), PlanError> {
        if !address.is_multiple_of(PAGE_SIZE) {
            return Err(PlanError::BadAddress(address));
        }
        if address / PAGE_SIZE < self.next_page {
            return Err(PlanError::NotAscending(address));
        }
        for (page, entry) in (address / PAGE_SIZE..).zip(entries) {
            // Behind the last page there is none; its number times the page's size is 0.
            let address = page.wrapping_mul(PAGE_SIZE);
            if address / PAGE_SIZE != page {
                return Err(PlanError::BadAddress(address));
            }
            let table = self.leaf_table(address, &mut alloc, &mut emit)?;
            let index = Level::L1.index(address);
            if self.existing(table, index).is_present() {
                return Err(PlanError::AlreadyMapped(address));
            }
            if entry.is_present() {
                emit(Op::Write(Write { table: table.frame, index, entry }));
            }
            self.next_page = page + 1;
        }
        Ok(())
    }

    /// The level 1 table for an address. It and those above it are planned if they are missing.
    fn leaf_table(
        &mut self,
        address: usize,
        alloc: &mut impl FnMut() -> Option<Frame>,
        emit: &mut impl FnMut(Op),
    ) -> Result<Node, PlanError> {
        if let Some(leaf) = self.path[0].filter(|leaf| leaf.base == Level::L2.align_down(address)) {
            return Ok(leaf);
        }
        if !belongs_to_guest(address) {
            return Err(PlanError::BadAddress(address));
        }
        let mut parent = Node { frame: self.tables.root(), base: 0, new: false };
        for (level, below) in [(Level::L4, Level::L3), (Level::L3, Level::L2), (Level::L2, Level::L1)] {
            let base = level.align_down(address);
            let slot = below as usize - 1;
            parent = match self.path[slot].filter(|node| node.base == base) {
                Some(known) => known,
                None => {
                    let (frame, new) = self.child(parent, level.index(address), below, alloc, emit)?;
                    *self.path[slot].insert(Node { frame, base, new })
                }
            };
        }
        Ok(parent)
    }

    /// The table of level `below` that an entry points to, and whether the plan makes it.
    fn child(
        &self,
        parent: Node,
        index: usize,
        below: Level,
        alloc: &mut impl FnMut() -> Option<Frame>,
        emit: &mut impl FnMut(Op),
    ) -> Result<(Frame, bool), PlanError> {
        let entry = self.existing(parent, index);
        if entry.is_present() {
            return Ok((self.tables.table(entry.mfn()), false));
        }
        let frame = alloc().ok_or(PlanError::OutOfFrames)?;
        emit(Op::NewTable(frame, below));
        emit(Op::Write(Write { table: parent.frame, index, entry: Pte::new(frame.mfn, TABLE_FLAGS) }));
        Ok((frame, true))
    }

    /// What a table held before the plan.
    fn existing(&self, table: Node, index: usize) -> Pte {
        if table.new { Pte::ABSENT } else { self.tables.entry(table.frame, index) }
    }
}

/// Plans new values for the present entries of a range of pages: `change` gets each page's address and entry and returns
/// the entry it wants, [`Pte::ABSENT`] to unmap. Tables stay, even empty ones.
pub fn update<T: Tables>(
    tables: &T,
    range: Range<usize>,
    mut change: impl FnMut(usize, Pte) -> Pte,
    mut emit: impl FnMut(Write),
) {
    let mut address = Level::L1.align_down(range.start);
    while address < range.end {
        let (level, found) = walk(tables, address, Level::L1);
        if found.entry.is_present() {
            let entry = change(address, found.entry);
            if entry != found.entry {
                emit(Write { entry, ..found });
            }
        }
        // An absent entry of a higher level leaves out everything below it.
        let Some(next) = level.align_down(address).checked_add(level.span()) else { break };
        address = next;
    }
}

/// Finds the entry of level `target` that decides about an address, or the absent one above it at which the walk ends.
/// Returns the level it is of, with its place and value.
pub fn walk<T: Tables>(tables: &T, address: usize, target: Level) -> (Level, Write) {
    let mut level = Level::L4;
    let mut table = tables.root();
    loop {
        let index = level.index(address);
        let entry = tables.entry(table, index);
        match level.below() {
            Some(below) if level != target && entry.is_present() => {
                level = below;
                table = tables.table(entry.mfn());
            }
            _ => return (level, Write { table, index, entry }),
        }
    }
}

/// True if the address is canonical and not in Xen's part, which is entries 256 to 271 of level 4
/// (`HYPERVISOR_VIRT_START` to `HYPERVISOR_VIRT_END`, public/arch-x86/xen-x86_64.h).
fn belongs_to_guest(address: usize) -> bool {
    const UNUSED_BITS: u32 = 16;
    let canonical = (address << UNUSED_BITS) as isize >> UNUSED_BITS == address as isize;
    canonical && !(256..272).contains(&Level::L4.index(address))
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadAddress(address) => write!(f, "nothing can be mapped at {address:#x}"),
            Self::NotAscending(address) => write!(f, "{address:#x} comes too late in the plan"),
            Self::AlreadyMapped(address) => write!(f, "something is mapped at {address:#x} already"),
            Self::OutOfFrames => f.write_str("no frame is left for a page table"),
        }
    }
}

impl core::error::Error for PlanError {}

#[cfg(test)]
mod tests;
