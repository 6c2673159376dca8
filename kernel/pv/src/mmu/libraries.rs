//! Pages of shared objects, in the LIBRARIES zone.
//!
//! A page begins as [`PageClass::LibraryData`], writable and not executable, to be filled.
//! [`Library::set_class`] then gives it its final rights, so no page is ever writable and
//! executable, not even while an object is loaded. [`Library::share`] maps frames of dom0 that
//! other pVMs use too, by the fork rule [`Library`](ForkRule::Library).

use core::ops::Range;
use core::sync::atomic::Ordering;

use xen_abi::pte::{PTES_PER_TABLE, Pte};
use xen_abi::{Errno, Mfn, PAGE_SIZE};
use zooid_memory::{ForkRule, PageClass, Zone};

use super::cow::copy_page;
use super::frames::Frames;
use super::{LIBRARIES_END, Mapped, Memory, allocate, flush_tlb, map_new, mapped, release, tables, unmap, with_memory};

/// A range of addresses for a shared object, with its mapped pages. Dropping it unmaps them.
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
        // The class of the range does not matter: each page has a class of its own.
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

    /// The frames of its pages, in order; none for a page that is not mapped.
    pub fn frames(&self) -> impl Iterator<Item = Option<Mfn>> {
        let entry = |page| with_memory(|Memory { frames, tables }| tables::frame_of(tables.entry(frames, page)));
        self.range().step_by(PAGE_SIZE).map(entry)
    }

    fn addresses(&self, pages: Range<usize>) -> Range<usize> {
        assert!(pages.start <= pages.end && pages.end <= self.pages, "pages of the object");
        self.start + pages.start * PAGE_SIZE..self.start + pages.end * PAGE_SIZE
    }

    /// Maps new pages at unmapped addresses, all or none. They hold `content` from octet `from` on,
    /// and zeros behind it.
    pub fn map(&mut self, pages: Range<usize>, from: usize, content: &[u8]) -> Result<(), OutOfMemory> {
        let range = self.addresses(pages);
        let rest = range.len().checked_sub(from + content.len()).expect("room for the content");
        map_new(range.start, range.len() / PAGE_SIZE, PageClass::LibraryData).map_err(|_| OutOfMemory)?;
        let start = range.start as *mut u8;
        // SAFETY: the pages were mapped just now, and no other code uses them.
        unsafe {
            start.write_bytes(0, from);
            start.add(from).copy_from_nonoverlapping(content.as_ptr(), content.len());
            start.add(from + content.len()).write_bytes(0, rest);
        }
        Ok(())
    }

    /// Makes constants writable until the next [`set_class`](Self::set_class). Each page gets a
    /// frame of its own first, because relatives may read its present one. If it fails, all pages
    /// keep their contents.
    pub fn make_writable(&mut self, pages: Range<usize>) -> Result<(), OutOfMemory> {
        let mut content = alloc::vec![0_u64; PAGE_SIZE / 8];
        for page in self.addresses(pages).step_by(PAGE_SIZE) {
            with_memory(|Memory { frames, tables }| {
                let before = tables::frame_of(tables.entry(frames, page)).ok_or(OutOfMemory)?;
                let frame = frames.alloc().ok_or(OutOfMemory)?;
                // SAFETY: a mapped page, and a buffer that is as long.
                unsafe { copy_page(page as *const u64, content.as_mut_ptr()) };
                let entry = Pte::new(frames.mfn(frame), PageClass::LibraryData.pte_flags());
                // SAFETY: a page of the object, which gets its content back below, before anything
                // else runs.
                unsafe { tables.change(frames, page, 1, |_, _| entry) };
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

    /// Lets `map` map another domain's frames at unmapped addresses, all or none. `map` is called
    /// with an address, a number of pages that one table of level 1 covers, and the first of the
    /// pages, counted from the start of `pages`. The pages that it maps cannot be written and never
    /// change.
    pub fn share(
        &mut self,
        pages: Range<usize>,
        mut map: impl FnMut(usize, usize, usize) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let range = self.addresses(pages);
        let mut page = range.start;
        while page < range.end {
            let first = tables::index(page, 1);
            let count = ((range.end - page) / PAGE_SIZE).min(PTES_PER_TABLE - first);
            let table = with_memory(|Memory { frames, tables }| {
                tables.ensure_table(frames, page).map(|_| ()).map_err(|_| Errno::ENOMEM)
            });
            let done = (page - range.start) / PAGE_SIZE;
            let made = if table.is_ok() { done + count } else { done };
            if let Err(error) = table.and_then(|()| map(page, count, done)) {
                // This includes pages that were mapped before a failure.
                unmap(range.start, made, Frames::retire);
                return Err(error);
            }
            mapped(page, Mapped::Pages);
            page += count * PAGE_SIZE;
        }
        Ok(())
    }

    /// Gives mapped pages their final class: text, constants, or variables. Shared ones have theirs
    /// already.
    pub fn set_class(&mut self, pages: Range<usize>, class: PageClass) {
        assert!(Zone::Libraries.admits(class), "a class of libraries");
        let range = self.addresses(pages);
        with_memory(|Memory { frames, tables }| {
            let change = |_: &mut Frames, entry: Pte| match tables::frame_of(entry) {
                _ if ForkRule::of(entry.flags()) == ForkRule::Library => entry,
                Some(frame) => Pte::new(frame, class.pte_flags()),
                // A hole stays one.
                None => Pte::ABSENT,
            };
            // SAFETY: the pages are the object's, and its loader promises that no code relies on
            // other rights.
            unsafe { tables.change(frames, range.start, range.len() / PAGE_SIZE, change) };
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
