//! The directory of grants, for the backend that copies: each page that a child gets a copy of is
//! granted to domain 0 once.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use xen_abi::pte::{PTES_PER_TABLE, Pte};
use xen_abi::{DomId, Errno, GrantRef, Mfn, PAGE_SIZE};
use zooid_fork_plan::wire::{directory, guest};
use zooid_kernel::gnttab::{self, GrantError, ReadablePages};
use zooid_kernel::mmu;
use zooid_kernel::sync::Mutex;
use zooid_memory::{ForkRule, Zone};

use crate::control::Control;

/// Address range that a table of level 1 covers, in bytes.
const SPAN: usize = PTES_PER_TABLE * PAGE_SIZE;

struct Directory {
    page: ReadablePages,
    /// Tables of grants, by the first address of each table of level 1.
    tables: BTreeMap<usize, Table>,
    /// Grants of pages that were unmapped while pvmd had them mapped.
    lingering: Vec<GrantRef>,
    /// Set while the directory is the parent's: nothing of it is granted here.
    inherited: bool,
}

/// The grants of the pages that one table of level 1 maps.
struct Table {
    /// The page of grants that pvmd reads. A child does not have it.
    page: ReadablePages,
    /// The grants by page; 0 where there is none.
    references: Vec<u32>,
}

static DIRECTORY: Mutex<Option<Directory>> = Mutex::new(None);

/// Marks the directory as the parent's, in a child.
pub fn begin_life() {
    // Nobody holds the lock: a fork updates the directory itself, before everything stands still.
    if let Some(mut directory) = DIRECTORY.try_lock()
        && let Some(directory) = &mut *directory
    {
        directory.inherited = true;
    }
}

/// Grants the pages that were mapped since the last call.
pub fn update(control: &Control) -> Result<(), Errno> {
    let mut slot = DIRECTORY.lock();
    if let Some(old) = slot.take_if(|directory| directory.inherited) {
        old.release();
    }
    if slot.is_none() {
        let page = ReadablePages::new(DomId::DOM0, 1).map_err(refused)?;
        control.page.write_u32(guest::GRANTS, page.reference(0).0);
        *slot = Some(Directory { page, tables: BTreeMap::new(), lingering: Vec::new(), inherited: false });
    }
    let Some(directory) = &mut *slot else { return Ok(()) };
    directory.lingering.retain(|reference| !gnttab::forget(*reference));
    let known: Vec<usize> = directory.tables.keys().copied().collect();
    let mut wanted = survey();
    for base in known {
        wanted.entry(base).or_default();
    }
    for (base, frames) in wanted {
        directory.ensure_table(base)?;
        directory.grant(base, &frames)?;
    }
    Ok(())
}

/// The pages to be granted, by the first address of the table that maps them: place in the table,
/// and frame.
fn survey() -> BTreeMap<usize, Vec<(usize, Mfn)>> {
    let mut wanted: BTreeMap<usize, Vec<(usize, Mfn)>> = BTreeMap::new();
    for zone in [Zone::Image, Zone::Device, Zone::Heap] {
        mmu::for_each_page(zone, |address, entry: Pte| {
            if matches!(ForkRule::of(entry.flags()), ForkRule::Shared | ForkRule::CopyOnWrite) {
                wanted.entry(address & !(SPAN - 1)).or_default().push((address % SPAN / PAGE_SIZE, entry.mfn()));
            }
        });
    }
    wanted
}

impl Directory {
    /// Makes a page of grants for a table of level 1 if there is none.
    fn ensure_table(&mut self, base: usize) -> Result<(), Errno> {
        if self.tables.contains_key(&base) {
            return Ok(());
        }
        let at = self.tables.len();
        if at == directory::MAX_ENTRIES {
            return Err(Errno::ENOMEM);
        }
        let page = ReadablePages::new(DomId::DOM0, 1).map_err(refused)?;
        let entry = directory::ENTRIES + at * directory::ENTRY_SIZE;
        let bytes = self.page.bytes(0..PAGE_SIZE);
        bytes[entry..entry + 8].copy_from_slice(&(base as u64).to_le_bytes());
        bytes[entry + 8..entry + 12].copy_from_slice(&page.reference(0).0.to_le_bytes());
        bytes[directory::COUNT..directory::COUNT + 4].copy_from_slice(&(at as u32 + 1).to_le_bytes());
        self.tables.insert(base, Table { page, references: vec![0; PTES_PER_TABLE] });
        Ok(())
    }

    /// Updates the grants of a table to the pages that it maps now.
    fn grant(&mut self, base: usize, frames: &[(usize, Mfn)]) -> Result<(), Errno> {
        let table = self.tables.get_mut(&base).expect("made before");
        let mut frames = frames.iter().peekable();
        for (number, reference) in table.references.iter_mut().enumerate() {
            let frame = frames.next_if(|(at, _)| *at == number).map(|(_, frame)| *frame);
            let old = GrantRef(core::mem::take(reference));
            if old.0 != 0 {
                if frame == Some(gnttab::granted_frame(old)) {
                    *reference = old.0;
                    continue;
                }
                if !gnttab::forget(old) {
                    self.lingering.push(old);
                }
            }
            if let Some(frame) = frame {
                *reference = gnttab::let_read(frame).map_err(refused)?.0;
            }
        }
        let words = table.page.bytes(0..PTES_PER_TABLE * size_of::<u32>()).chunks_exact_mut(size_of::<u32>());
        for (word, reference) in words.zip(&table.references) {
            word.copy_from_slice(&reference.to_le_bytes());
        }
        Ok(())
    }

    /// Frees, in a child, the numbers of its parent's grants.
    fn release(mut self) {
        let granted = self.tables.values().flat_map(|table| table.references.iter().copied().map(GrantRef));
        for reference in granted.chain(self.lingering.drain(..)) {
            if reference.0 != 0 && gnttab::exists(reference) {
                gnttab::forget(reference);
            }
        }
    }
}

fn refused(error: GrantError) -> Errno {
    if error == GrantError::TableFull {
        log::warn!("fork: the grant table is full: Xen's option gnttab_max_frames sets its size");
    }
    Errno::ENOMEM
}
