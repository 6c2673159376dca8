//! Memory: frames, page tables, and who has which part of the address space.
//!
//! A frame that is in use is mapped once, in the zone of its use (`zooid_memory::Zone`); there is no mapping of all memory.
//! Two locks: [`FRAMES`] never allocates from the heap, so that the heap can grow under it; [`SPACE`] may.

mod boot;
pub mod cow;
mod frames;
pub mod libraries;
mod stack;
mod tables;

use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering};

use spin::Once;
use xen_abi::pte::{PTES_PER_TABLE, Pte};
use xen_abi::xen::{MmuextOp, StartInfo};
use xen_abi::{DomId, Errno, Mfn, PAGE_SIZE, Pfn};
use zooid_memory::{AddressSpace, ForkRule, PageClass, device};

use crate::entry::image;
use crate::events::Masked;
use crate::shared::SharedPages;
use crate::thread;
use frames::Frames;
use tables::{OutOfFrames, Tables};

pub use boot::{Layout, boot_address_of};
pub use stack::{Stack, StackError};
pub use zooid_memory::Zone;

struct Memory {
    frames: Frames,
    tables: Tables,
}

static FRAMES: Masked<Option<Memory>> = Masked::new(None);
static SPACE: Once<Masked<AddressSpace>> = Once::new();
/// End of what the heap has so far.
static HEAP_END: AtomicUsize = AtomicUsize::new(0);
/// No library has ever been mapped behind this.
static LIBRARIES_END: AtomicUsize = AtomicUsize::new(0);

/// What has changed in the page tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapped {
    /// What one table of level 1 maps.
    Pages,
    /// There is a new table.
    Table,
}

/// What the kernel calls after a change, with an address that the table covers; it must not map anything. Set by the fork component. A
/// change of the right to write, which copy-on-write gives and takes, is none.
pub static MAPPED: Once<fn(usize, Mapped)> = Once::new();

fn mapped(address: usize, change: Mapped) {
    if let Some(tell) = MAPPED.get() {
        tell(address, change);
    }
}

/// How many frames the domain has, and how many of them are in use by nobody.
#[derive(Clone, Copy, Debug)]
pub struct MemoryStatistics {
    /// Frames of the domain, or that it may ask of Xen, 4 KiB each.
    pub total: u64,
    /// Frames that are free.
    pub free: u64,
}

/// How many frames there are, and are free, now.
pub fn statistics() -> MemoryStatistics {
    with_memory(|memory| MemoryStatistics { total: memory.frames.total(), free: memory.frames.obtainable() })
}

fn with_memory<R>(act: impl FnOnce(&mut Memory) -> R) -> R {
    act(FRAMES.lock().as_mut().expect("memory is used after it is set up"))
}

/// Leaves the builder's page tables for our own. `devices` are mapped at the start of the DEVICE zone.
///
/// Returns what lies where in the image zone.
///
/// # Safety
/// As for `boot::switch`.
pub unsafe fn init(info: &StartInfo, info_address: usize, boot_stack_top: usize, devices: &[Mfn]) -> Layout {
    // SAFETY: passed on to the caller.
    let (frames, tables, layout) = unsafe { boot::switch(info, info_address, boot_stack_top, devices) };
    *FRAMES.lock() = Some(Memory { frames, tables });
    RECORDS.call_once(|| layout.records());
    HEAP_END.store(Zone::Heap.base(), Ordering::Relaxed);
    layout
}

/// Where p2m, bitmaps and start_info lie.
static RECORDS: Once<(usize, usize, usize)> = Once::new();

/// Where the p2m, the bitmaps of frames and start_info lie: for who builds a child.
pub fn records() -> (usize, usize, usize) {
    *RECORDS.get().expect("memory is used after it is set up")
}

/// The pages of variables of the image.
pub fn data_pages() -> Range<usize> {
    image::data_start()..image::boot_stack_guard()
}

/// Sets up the map of the address space; needs the heap.
pub fn init_space(layout: &Layout) {
    let mut space = AddressSpace::new();
    let zones = [
        // The whole zone, so that growing needs no entry: the map must not be locked when the heap grows.
        (Zone::Heap.range(), PageClass::Heap),
        (Zone::Device.base()..Zone::Device.base() + device::RESERVED * PAGE_SIZE, PageClass::Device),
    ];
    // A stripped image has no name table: nothing lies behind it.
    for (range, class) in layout.kept().into_iter().chain(zones).filter(|(range, _)| !range.is_empty()) {
        space.insert(range, class).expect("the regions of the image are disjoint");
    }
    SPACE.call_once(|| Masked::new(space));
}

/// Frees the boot stack, which nothing runs on any more.
pub fn free_boot_stack() {
    let start = image::boot_stack_guard() + PAGE_SIZE;
    unmap_and_free(start, (image::boot_stack_end() - start) / PAGE_SIZE);
    release(start);
}

fn space() -> &'static Masked<AddressSpace> {
    SPACE.get().expect("the address space is used after it is set up")
}

/// Finds a range of addresses for `count` pages.
fn allocate(zone: Zone, count: usize, class: PageClass) -> Option<usize> {
    space().lock().allocate(zone, count * PAGE_SIZE, class).ok()
}

/// Gives a range of addresses back that begins at `start`; nothing is mapped there any more.
fn release(start: usize) {
    space().lock().remove(start).expect("what is released was allocated");
}

/// Maps new frames at the end of the heap: at least `length` bytes. Returns start and length, or `None` when there are
/// not enough frames.
pub fn extend_heap(length: usize) -> Option<(usize, usize)> {
    let length = length.checked_next_multiple_of(PAGE_SIZE)?;
    let start = HEAP_END.load(Ordering::Relaxed);
    if length > Zone::Heap.end() - start {
        return None;
    }
    map_new(start, length / PAGE_SIZE, PageClass::Heap).ok()?;
    HEAP_END.store(start + length, Ordering::Relaxed);
    Some((start, length))
}

/// Frames that only a service may map: an application that takes all memory, and copes with it, does not end the kernel's own threads.
const KEPT_FOR_SERVICES: u64 = 4;

/// Maps `count` new frames from `start` on, where nothing is mapped; none when there are not enough.
fn map_new(start: usize, count: usize, class: PageClass) -> Result<(), OutOfFrames> {
    with_memory(|Memory { frames, tables }| {
        // Page tables are paid from the same frames: at most so many of level 1 and 2, and for each of them, so that it can
        // be read, one more in the TABLES zone.
        let most_tables = count.div_ceil(PTES_PER_TABLE) + count.div_ceil(PTES_PER_TABLE * PTES_PER_TABLE) + 2;
        let needed = (count + 2 * most_tables) as u64;
        let kept = if thread::is_service() { 0 } else { KEPT_FOR_SERVICES };
        if frames.obtainable() < needed + kept || !frames.ensure(needed) {
            return Err(OutOfFrames);
        }
        let next = |frames: &mut Frames| {
            let frame = frames.alloc().expect("frames were counted above");
            Pte::new(frames.mfn(frame), class.pte_flags())
        };
        // SAFETY: the caller owns the range, and nothing is mapped there.
        unsafe { tables.map(frames, start, count, next) }
    })
}

/// Unmaps `count` pages from `start` on and frees their frames.
fn unmap_and_free(start: usize, count: usize) {
    unmap(start, count, Frames::free);
}

/// Unmaps `count` pages from `start` on and calls `give` with those of their frames that are this domain's.
fn unmap(start: usize, count: usize, give: impl Fn(&mut Frames, Pfn)) {
    with_memory(|Memory { frames, tables }| {
        // Each frame is freed only after the flush below: until then nothing else runs, as the lock masks events.
        let unmap = |frames: &mut Frames, entry| {
            if let Some(frame) = tables::frame_of(entry).and_then(|frame| frames.pfn(frame)) {
                give(frames, frame);
            }
            Pte::ABSENT
        };
        // SAFETY: the caller owns the pages and uses them no more.
        unsafe { tables.change(frames, start, count, unmap) };
        flush_tlb();
    });
}

fn flush_tlb() {
    // SAFETY: forgets cached translations only.
    unsafe { xen_sys::mmuext_op(&[MmuextOp::tlb_flush_local()], DomId::SELF) }.expect("Xen flushes a TLB when asked");
}

/// Maps frames that Xen or another domain also uses, for ever, from page `number` of the DEVICE zone on: one of those with a
/// fixed place (`zooid_memory::device`).
pub fn map_reserved(number: usize, frames: &[Mfn]) -> Result<SharedPages, Errno> {
    assert!(number + frames.len() <= device::RESERVED, "pages with a fixed place");
    let start = Zone::Device.base() + number * PAGE_SIZE;
    let mut entries = frames.iter().map(|frame| Pte::new(*frame, PageClass::Device.pte_flags()));
    with_memory(|memory| {
        let next = |_: &mut Frames| entries.next().unwrap_or(Pte::ABSENT);
        // SAFETY: the caller's range, where nothing else is.
        unsafe { memory.tables.map(&mut memory.frames, start, frames.len(), next) }
    })
    .map_err(|_| Errno::ENOMEM)?;
    // SAFETY: mapped above, for ever; no references point there.
    Ok(unsafe { SharedPages::new(start as *mut u8, frames.len()) })
}

/// A new, zeroed page of this domain's own at page `number` of the DEVICE zone, which is one of those with a fixed place
/// (`zooid_memory::device`) and not in use. It stays.
pub fn new_reserved_page(number: usize) -> Result<SharedPages, Errno> {
    assert!(number < device::RESERVED, "a page with a fixed place");
    let address = Zone::Device.base() + number * PAGE_SIZE;
    map_new(address, 1, PageClass::Device).map_err(|_| Errno::ENOMEM)?;
    // SAFETY: a private, mapped page.
    unsafe { (address as *mut u8).write_bytes(0, PAGE_SIZE) };
    // SAFETY: mapped for ever; no references point there.
    Ok(unsafe { SharedPages::new(address as *mut u8, 1) })
}

/// New, zeroed pages of this domain's own that will be shared with another domain: of the class `Device` or `Snapshot`.
pub fn new_shared_pages(count: usize, class: PageClass) -> Result<SharedPages, Errno> {
    let start = allocate(Zone::Device, count, class).ok_or(Errno::ENOMEM)?;
    if map_new(start, count, class).is_err() {
        release(start);
        return Err(Errno::ENOMEM);
    }
    // SAFETY: private, mapped pages of the right length.
    unsafe { (start as *mut u8).write_bytes(0, count * PAGE_SIZE) };
    // SAFETY: mapped until `free_shared_pages` takes this value; no references point there.
    Ok(unsafe { SharedPages::new(start as *mut u8, count) })
}

/// Frees pages that [`new_shared_pages`] made and that no other domain can reach any more.
pub fn free_shared_pages(pages: SharedPages) {
    unmap_and_free(pages.address(), pages.len() / PAGE_SIZE);
    release(pages.address());
}

/// Addresses for `count` joint pages (`PageClass::Joint`), where nothing is mapped yet, but page tables are there: the frames are
/// another domain's, and dom0 maps them.
pub fn allocate_joint(count: usize) -> Option<usize> {
    let start = allocate(Zone::Device, count, PageClass::Joint)?;
    let made = with_memory(|Memory { frames, tables }| {
        first_in_tables(start, count).all(|page| tables.ensure_table(frames, page).is_ok())
    });
    if !made {
        release(start);
        return None;
    }
    Some(start)
}

/// Of `count` pages from `start` on, the first one in each table of level 1.
fn first_in_tables(start: usize, count: usize) -> impl Iterator<Item = usize> {
    let pages = (start..start + count * PAGE_SIZE).step_by(PAGE_SIZE);
    pages.filter(move |page| *page == start || tables::index(*page, 1) == 0)
}

/// The frame of the table of level 1 that covers an address, and the place of its entry there.
pub fn place_of(address: usize) -> Option<(Mfn, usize)> {
    with_memory(|Memory { frames, tables }| {
        let table = tables.table(frames, address, 1)?;
        Some((frames.mfn(table), tables::index(address, 1)))
    })
}

/// Takes joint pages over that dom0 has mapped at what [`allocate_joint`] has returned.
///
/// # Safety
/// All `count` of them are mapped.
pub unsafe fn adopt_joint(start: usize, count: usize) -> SharedPages {
    first_in_tables(start, count).for_each(|page| mapped(page, Mapped::Pages));
    // SAFETY: the caller's promise; they stay until `free_joint`, and no references point there.
    unsafe { SharedPages::new(start as *mut u8, count) }
}

/// Unmaps joint pages, whether dom0 has mapped them or not, and frees their addresses.
pub fn free_joint(start: usize, count: usize) {
    unmap_and_free(start, count);
    release(start);
}

/// The level 4 table of the address space.
pub fn root() -> Mfn {
    with_memory(|memory| memory.frames.mfn(memory.tables.root()))
}

/// The machine frame behind a mapped address.
pub fn mfn_of(address: usize) -> Option<Mfn> {
    with_memory(|memory| tables::frame_of(memory.tables.entry(&memory.frames, address)))
}

/// Calls `each` with every page that is mapped in a zone, in the order of addresses, and its entry. It must not map or unmap
/// anything; pages that come or go meanwhile may be missed.
pub fn for_each_page(zone: Zone, mut each: impl FnMut(usize, Pte)) {
    let span = PTES_PER_TABLE * PAGE_SIZE;
    let end = match zone {
        Zone::Heap => HEAP_END.load(Ordering::Relaxed),
        zone => zone.end(),
    };
    for base in (zone.base()..end).step_by(span) {
        let mut entries = [Pte::ABSENT; PTES_PER_TABLE];
        let covered = with_memory(|Memory { frames, tables }| {
            let table = tables.table(frames, base, 1);
            table.map(|table| entries.iter_mut().enumerate().for_each(|(at, entry)| *entry = tables::read(table, at)))
        });
        if covered.is_none() {
            continue;
        }
        for (at, entry) in entries.iter().enumerate().filter(|(_, entry)| entry.is_present()) {
            each(base + at * PAGE_SIZE, *entry);
        }
    }
}

/// Calls `each` with those of the pages that are mapped and that a fork treats by `rule`. It must not map or unmap anything.
pub fn with_rule(rule: ForkRule, pages: impl Iterator<Item = usize>, mut each: impl FnMut(usize)) {
    let mut last = (usize::MAX, None);
    for page in pages {
        let span = page / (PTES_PER_TABLE * PAGE_SIZE);
        let entry = with_memory(|Memory { frames, tables }| {
            if last.0 != span {
                last = (span, tables.table(frames, page, 1));
            }
            last.1.map_or(Pte::ABSENT, |table| tables::read(table, tables::index(page, 1)))
        });
        if entry.is_present() && ForkRule::of(entry.flags()) == rule {
            each(page);
        }
    }
}

/// Reads a word that a frame pointer names, if it is mapped: for back traces, which trust nothing.
pub fn read_stack_word(address: u64) -> Option<u64> {
    let lock = FRAMES.try_lock()?;
    let memory = lock.as_ref()?;
    let canonical = (Zone::Heap.base()..=usize::MAX - PAGE_SIZE).contains(&(address as usize));
    if !canonical || !address.is_multiple_of(8) || !memory.tables.entry(&memory.frames, address as usize).is_present() {
        return None;
    }
    // SAFETY: aligned, and mapped as the page tables say.
    Some(unsafe { (address as *const u64).read_volatile() })
}

/// What lies at an address, in words for a report.
pub fn describe(address: u64) -> impl fmt::Display {
    struct Description(usize);
    impl fmt::Display for Description {
        fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            let heap_end = HEAP_END.load(Ordering::Relaxed);
            if (heap_end..Zone::Heap.end()).contains(&self.0) {
                return write!(out, "heap zone, {:#x} bytes beyond its end", self.0 - heap_end);
            }
            match SPACE.get().and_then(Masked::try_lock) {
                Some(space) => write!(out, "{}", space.describe(self.0)),
                None => out.write_str("unknown"),
            }
        }
    }
    Description(address as usize)
}
