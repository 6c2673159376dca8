//! Pages of shared objects, in the LIBRARIES zone.
//!
//! A page begins as [`PageClass::LibraryData`], writable and not executable, to be filled; [`Library::set_class`] then gives it its rights for
//! good. So no page is ever writable and executable, also while an object is loaded.

use core::ops::Range;
use core::sync::atomic::Ordering;

use xen_abi::PAGE_SIZE;
use xen_abi::pte::Pte;
use zooid_memory::{PageClass, Zone};

use super::cow::copy_page;
use super::frames::Frames;
use super::{LIBRARIES_END, allocate, flush_tlb, map_new, release, tables, unmap, with_memory};
use crate::mmu::Memory;

/// A range of addresses for a shared object, and what is mapped there. Dropping it unmaps all.
#[derive(Debug)]
pub struct Library {
    start: usize,
    pages: usize,
}

/// No frames or no addresses are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

impl Library {
    /// Addresses for `pages` pages; nothing is mapped there.
    pub fn new(pages: usize) -> Result<Self, OutOfMemory> {
        // What lies there at first decides nothing: each page has a class of its own.
        let start = allocate(Zone::Libraries, pages, PageClass::RoData).ok_or(OutOfMemory)?;
        LIBRARIES_END.fetch_max(start + pages * PAGE_SIZE, Ordering::Relaxed);
        Ok(Self { start, pages })
    }

    /// Its first address.
    pub fn start(&self) -> usize {
        self.start
    }

    /// Its addresses.
    pub fn range(&self) -> Range<usize> {
        self.start..self.start + self.pages * PAGE_SIZE
    }

    fn addresses(&self, pages: Range<usize>) -> Range<usize> {
        assert!(pages.start <= pages.end && pages.end <= self.pages, "pages of the object");
        self.start + pages.start * PAGE_SIZE..self.start + pages.end * PAGE_SIZE
    }

    /// Maps new, zeroed pages, where nothing is mapped; all or none.
    pub fn map(&mut self, pages: Range<usize>) -> Result<(), OutOfMemory> {
        let range = self.addresses(pages);
        map_new(range.start, range.len() / PAGE_SIZE, PageClass::LibraryData).map_err(|_| OutOfMemory)?;
        // SAFETY: mapped just now, and nobody else's.
        unsafe { (range.start as *mut u8).write_bytes(0, range.len()) };
        Ok(())
    }

    /// Makes constants writable, which is over with the next [`set_class`](Self::set_class): each page gets a frame of its own first, because relatives may read
    /// the one that it has. If it fails, all pages hold what they held.
    pub fn make_writable(&mut self, pages: Range<usize>) -> Result<(), OutOfMemory> {
        let mut content = alloc::vec![0_u64; PAGE_SIZE / 8];
        for page in self.addresses(pages).step_by(PAGE_SIZE) {
            with_memory(|Memory { frames, tables }| {
                let before = tables::frame_of(tables.entry(frames, page)).ok_or(OutOfMemory)?;
                let frame = frames.alloc().ok_or(OutOfMemory)?;
                // SAFETY: a mapped page, and a buffer that is as long.
                unsafe { copy_page(page as *const u64, content.as_mut_ptr()) };
                let mut entry = Some(Pte::new(frames.mfn(frame), PageClass::LibraryData.pte_flags()));
                // SAFETY: a page of the object, which gets its content back below, before anything else runs.
                unsafe { tables.set(frames, page, |_| entry.take()) }.expect("tables of mapped pages exist");
                flush_tlb();
                // SAFETY: as above; it can be written now.
                unsafe { copy_page(content.as_ptr(), page as *mut u64) };
                if let Some(own) = frames.pfn(before) {
                    frames.retire(own);
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Gives mapped pages their class for good: text, constants, or variables.
    pub fn set_class(&mut self, pages: Range<usize>, class: PageClass) {
        assert!(Zone::Libraries.admits(class), "a class of libraries");
        let range = self.addresses(pages);
        let mut page = range.start;
        with_memory(|Memory { frames, tables }| {
            let next = |frames: &mut Frames| {
                (page < range.end).then(|| {
                    let entry = tables.entry(frames, page);
                    page += PAGE_SIZE;
                    // A hole stays one.
                    tables::frame_of(entry).map_or(Pte::ABSENT, |frame| Pte::new(frame, class.pte_flags()))
                })
            };
            // SAFETY: the pages are the object's, whose loader says that nobody relies on other rights.
            unsafe { tables.set(frames, range.start, next) }.expect("tables of mapped pages exist");
            flush_tlb();
        });
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        unmap(self.start, self.pages, Frames::retire);
        release(self.start);
    }
}
