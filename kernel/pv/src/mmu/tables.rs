//! The live page tables: reading them, and changing them through the hypervisor.
//!
//! A PV guest may read its page tables but not write them; every change is an `mmu_update` that Xen
//! checks. A table must be mapped to be read: if the frame with number `pfn` is a page table, it is
//! mapped read-only at `pfn * 4096` in the TABLES zone. Other frames are not mapped there.

use core::ops::Range;

use xen_abi::pte::{PTES_PER_TABLE, Pte, PteFlags};
use xen_abi::xen::{MmuUpdate, MmuextCmd, MmuextOp};
use xen_abi::{DomId, Mfn, PAGE_SIZE, Pfn};
use zooid_memory::Zone;

use super::frames::Frames;
use super::{Mapped, mapped};

/// Number of entries that one hypercall changes. The batch lies on the stack.
pub const BATCH: usize = 32;
/// Flags of an entry of level 2 to 4. The entries below it decide about writing and execution.
pub const TABLE_FLAGS: PteFlags =
    PteFlags::PRESENT.union(PteFlags::WRITABLE).union(PteFlags::USER).union(PteFlags::ACCESSED);

/// No frame is left for a page table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfFrames;

/// Index of `address` in the table of `level` (1 to 4) that covers it.
pub fn index(address: usize, level: u32) -> usize {
    address >> (12 + 9 * (level - 1)) & (PTES_PER_TABLE - 1)
}

/// The address where the table in frame `table` is mapped to be read.
pub fn window(table: Pfn) -> usize {
    Zone::Tables.base() + table.0 as usize * PAGE_SIZE
}

/// The page tables in use.
pub struct Tables {
    root: Pfn,
}

impl Tables {
    /// The hierarchy whose level 4 table is in frame `root`. All its tables are mapped in the
    /// TABLES zone.
    pub const fn new(root: Pfn) -> Self {
        Self { root }
    }

    /// The frame of the level 4 table.
    pub fn root(&self) -> Pfn {
        self.root
    }

    /// Switches to the hierarchy whose level 4 table is in frame `root`.
    pub fn set_root(&mut self, root: Pfn) {
        self.root = root;
    }

    /// The table of `level` that covers `address`, if there is one.
    pub fn table(&self, frames: &Frames, address: usize, level: u32) -> Option<Pfn> {
        let mut table = self.root;
        for above in (level + 1..=4).rev() {
            table = frames.pfn(frame_of(read(table, index(address, above)))?)?;
        }
        Some(table)
    }

    /// The level 1 entry of `address`.
    pub fn entry(&self, frames: &Frames, address: usize) -> Pte {
        self.table(frames, address, 1).map_or(Pte::ABSENT, |table| read(table, index(address, 1)))
    }

    /// The table of level 1 that covers `address`, made if it is missing.
    pub fn ensure_table(&self, frames: &mut Frames, address: usize) -> Result<Pfn, OutOfFrames> {
        let mut table = self.root;
        for level in (2..=4).rev() {
            let at = index(address, level);
            table = match frame_of(read(table, at)) {
                Some(frame) => frames.pfn(frame).expect("own page tables lie in own frames"),
                None => {
                    let below = self.new_table(frames)?;
                    submit(&[update(frames.mfn(table), at, Pte::new(frames.mfn(below), TABLE_FLAGS))]);
                    mapped(address, Mapped::Table);
                    below
                }
            };
        }
        Ok(table)
    }

    /// Takes a frame for a page table, clears it and makes it readable in the TABLES zone.
    fn new_table(&self, frames: &mut Frames) -> Result<Pfn, OutOfFrames> {
        loop {
            let table = frames.alloc().ok_or(OutOfFrames)?;
            let frame = frames.mfn(table);
            // SAFETY: a free frame, which nothing maps.
            unsafe { xen_sys::mmuext_op(&[MmuextOp::on_frame(MmuextCmd::CLEAR_PAGE, frame)], DomId::SELF) }
                .expect("Xen refuses to clear a frame of ours");
            let address = window(table);
            let leaf = Pte::new(frame, PteFlags::PRESENT | PteFlags::NO_EXECUTE);
            if let Some(covering) = self.table(frames, address, 1) {
                submit(&[update(frames.mfn(covering), index(address, 1), leaf)]);
                return Ok(table);
            }
            // No table covers this part of the TABLES zone yet, so the frame becomes that table,
            // and its own first entry.
            let above = self.table(frames, address, 2).expect("level 2 of the TABLES zone is made at boot");
            submit(&[update(frames.mfn(above), index(address, 2), Pte::new(frame, TABLE_FLAGS))]);
            submit(&[update(frame, index(address, 1), leaf)]);
        }
    }

    /// Makes the entries of the `count` pages from `start` on what `next` yields, and the tables
    /// that they need.
    ///
    /// # Safety
    /// No code relies on the former mapping of these pages, and the new one breaks no promise about
    /// memory in use. If pages were present before, the caller flushes the TLB.
    pub unsafe fn map(
        &self,
        frames: &mut Frames,
        start: usize,
        count: usize,
        mut next: impl FnMut(&mut Frames) -> Pte,
    ) -> Result<(), OutOfFrames> {
        for pages in batches(start, count) {
            let table = self.ensure_table(frames, pages.start)?;
            set(frames, table, pages, |frames, _, _| next(frames));
        }
        Ok(())
    }

    /// Makes each entry of the `count` pages from `start` on what `change` makes of it. Where there
    /// is no table nothing is mapped: such pages are passed over, and none is made.
    ///
    /// # Safety
    /// As for [`map`](Self::map).
    pub unsafe fn change(
        &self,
        frames: &mut Frames,
        start: usize,
        count: usize,
        mut change: impl FnMut(&mut Frames, Pte) -> Pte,
    ) {
        for pages in batches(start, count) {
            if let Some(table) = self.table(frames, pages.start, 1) {
                set(frames, table, pages, |frames, table, at| change(frames, read(table, at)));
            }
        }
    }
}

/// The `count` pages from `start` on, in parts of a batch at most that stay within one table of
/// level 1.
fn batches(start: usize, count: usize) -> impl Iterator<Item = Range<usize>> {
    let end = start + count * PAGE_SIZE;
    let mut page = start;
    core::iter::from_fn(move || {
        let first = page;
        let rest_of_table = (PTES_PER_TABLE - index(first, 1)) * PAGE_SIZE;
        page += (end - first).min(rest_of_table).min(BATCH * PAGE_SIZE);
        (first < page).then_some(first..page)
    })
}

/// Sets the entries of pages that one table covers, a batch at most.
fn set(frames: &mut Frames, table: Pfn, pages: Range<usize>, mut entry: impl FnMut(&mut Frames, Pfn, usize) -> Pte) {
    let mut batch = [MmuUpdate::default(); BATCH];
    let frame = frames.mfn(table);
    let count = pages.len() / PAGE_SIZE;
    for (at, update_of) in (index(pages.start, 1)..).zip(&mut batch[..count]) {
        *update_of = update(frame, at, entry(frames, table, at));
    }
    submit(&batch[..count]);
    mapped(pages.start, Mapped::Pages);
}

/// The frame that an entry leads to, if it is present.
pub fn frame_of(entry: Pte) -> Option<Mfn> {
    entry.is_present().then(|| entry.mfn())
}

/// Entry `index` of a table, which must be one of ours.
pub fn read(table: Pfn, index: usize) -> Pte {
    let address = (window(table) + index * size_of::<u64>()) as *const u64;
    // SAFETY: page tables are mapped in the TABLES zone; Xen sets accessed and dirty bits there,
    // hence volatile.
    Pte(unsafe { address.read_volatile() })
}

/// The request that sets entry `index` of a table to `entry`.
pub fn update(table: Mfn, index: usize, entry: Pte) -> MmuUpdate {
    MmuUpdate::pte(table.addr() + (index * size_of::<Pte>()) as u64, entry)
}

/// Lets Xen apply the updates. A refusal means that our books are wrong.
pub fn submit(updates: &[MmuUpdate]) {
    // SAFETY: `map` and `change` pass their own callers' promise on; the other uses only add page
    // tables where nothing was.
    unsafe { xen_sys::mmu_update(updates, DomId::SELF) }.expect("Xen refuses a page-table entry");
}
