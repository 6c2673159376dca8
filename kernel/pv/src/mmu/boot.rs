//! The change from the domain builder's page tables, in which everything is writable and
//! executable, to our own.
//!
//! The builder maps the image, the data that it put behind the image, and at least 512 KiB more at
//! VIRT_BASE (public/xen.h, "Start-of-day memory layout"). New tables are written into frames of
//! that spare part. Then they are made read-only, pinned and loaded, and the builder's are unpinned
//! and become free memory.

use core::ops::Range;

use xen_abi::pte::{PTES_PER_TABLE, Pte, PteFlags};
use xen_abi::xen::{MmuextCmd, MmuextOp, StartInfo, UvmFlags};
use xen_abi::{DomId, Mfn, PAGE_SIZE, Pfn};
use zooid_core::frames::{FrameAllocator, bitmap_words};
use zooid_memory::{PageClass, Zone};

use super::frames::{Frames, m2p};
use super::tables::{TABLE_FLAGS, Tables, index, window};
use crate::entry::image;

/// Spare memory that the builder guarantees behind its boot stack, in bytes.
const SPARE: usize = 512 << 10;
/// Address range that one table of level 1 covers, in bytes.
const L1_SPAN: usize = PTES_PER_TABLE * PAGE_SIZE;
/// Address range that one table of level 2 covers, in bytes.
const L2_SPAN: usize = PTES_PER_TABLE * L1_SPAN;

/// Frame behind an address in the builder's mapping.
fn boot_pfn(address: usize) -> Pfn {
    Pfn(((address - Zone::Image.base()) / PAGE_SIZE) as u64)
}

/// Address of a frame in the builder's mapping.
fn boot_address(frame: Pfn) -> usize {
    Zone::Image.base() + frame.0 as usize * PAGE_SIZE
}

/// Address of one of this domain's frames in the builder's mapping, for the time before [`switch`].
pub fn boot_address_of(frame: Mfn) -> usize {
    boot_address(m2p(frame))
}

/// The memory that the builder filled, as address ranges in its mapping.
pub struct Layout {
    /// The name table behind the image, and the ramdisk if there is one.
    pub extras: Range<usize>,
    /// The list of mfns.
    p2m: Range<usize>,
    start_info: usize,
    /// The builder's page tables and boot stack, free once they are not used.
    left_over: Range<usize>,
    /// The bitmaps of free frames and of numbers without a frame.
    bitmap: Range<usize>,
}

impl Layout {
    fn new(info: &StartInfo, info_address: usize, boot_stack_top: usize) -> Self {
        let p2m_end = info.mfn_list as usize + (info.nr_pages as usize * size_of::<u64>());
        let bitmap_size = (2 * bitmap_words(info.nr_pages) * size_of::<u64>()).next_multiple_of(PAGE_SIZE);
        Self {
            extras: image::data_end()..info.mfn_list as usize,
            p2m: info.mfn_list as usize..p2m_end.next_multiple_of(PAGE_SIZE),
            start_info: info_address,
            left_over: info.pt_base as usize..boot_stack_top,
            bitmap: boot_stack_top..boot_stack_top + bitmap_size,
        }
    }

    /// The addresses of p2m, bitmaps and start_info.
    pub fn records(&self) -> (usize, usize, usize) {
        (self.p2m.start, self.bitmap.start, self.start_info)
    }

    /// The ranges that are mapped at their old addresses in the new tables, with the protection of
    /// their class.
    pub fn kept(&self) -> [(Range<usize>, PageClass); 8] {
        [
            (image::text_start()..image::text_end(), PageClass::Text),
            (image::rodata_start()..image::rodata_end(), PageClass::RoData),
            (image::data_start()..image::boot_stack_guard(), PageClass::Data),
            (image::boot_stack_guard() + PAGE_SIZE..image::data_end(), PageClass::Stack),
            (self.extras.clone(), PageClass::RoData),
            (self.p2m.clone(), PageClass::Special),
            (self.start_info..self.start_info + PAGE_SIZE, PageClass::Special),
            (self.bitmap.clone(), PageClass::Special),
        ]
    }
}

/// The page tables under construction: frames in a row, written through the builder's mapping.
struct Builder<'a> {
    p2m: &'a [u64],
    first: Pfn,
    next: Pfn,
}

impl Builder<'_> {
    fn new_table(&mut self) -> Pfn {
        let table = self.next;
        self.next = Pfn(table.0 + 1);
        // SAFETY: a frame of the spare part of the builder's mapping, which nothing else uses.
        unsafe { (boot_address(table) as *mut u8).write_bytes(0, PAGE_SIZE) };
        table
    }

    fn mfn(&self, frame: Pfn) -> Mfn {
        Mfn(self.p2m[frame.0 as usize])
    }

    fn entry(&self, table: Pfn, index: usize) -> *mut Pte {
        (boot_address(table) as *mut Pte).wrapping_add(index)
    }

    /// The table of `level` that covers `address`. It and those above are made if they are missing.
    fn ensure_table(&mut self, address: usize, level: u32) -> Pfn {
        let mut table = self.first;
        for above in (level + 1..=4).rev() {
            let entry = self.entry(table, index(address, above));
            // SAFETY: inside a table that `new_table` made.
            let value = unsafe { entry.read() };
            table = if value.is_present() {
                m2p(value.mfn())
            } else {
                let below = self.new_table();
                // SAFETY: as above.
                unsafe { entry.write(Pte::new(self.mfn(below), TABLE_FLAGS)) };
                below
            };
        }
        table
    }

    fn map(&mut self, address: usize, frame: Mfn, flags: PteFlags) {
        let table = self.ensure_table(address, 1);
        // SAFETY: inside a table that `new_table` made.
        unsafe { self.entry(table, index(address, 1)).write(Pte::new(frame, flags)) };
    }
}

/// Builds and loads the page tables.
///
/// `devices` are mapped at the start of the DEVICE zone, in this order.
///
/// # Safety
/// Called once, early in boot, on the image's boot stack, with the values Xen gave at entry: `info`
/// is the start info page, `boot_stack_top` the stack pointer. No references into the builder's
/// page tables or boot stack exist.
pub unsafe fn switch(
    info: &StartInfo,
    info_address: usize,
    boot_stack_top: usize,
    devices: &[Mfn],
) -> (Frames, Tables, Layout) {
    let boot_stack_top = boot_stack_top.next_multiple_of(PAGE_SIZE);
    let layout = Layout::new(info, info_address, boot_stack_top);
    // SAFETY: the builder's list has an entry per page, and is ours from here on.
    let p2m = unsafe { core::slice::from_raw_parts_mut(info.mfn_list as *mut u64, info.nr_pages as usize) };
    let first_table = boot_pfn(layout.bitmap.end);
    let mut builder = Builder { p2m, first: first_table, next: first_table };
    builder.new_table();
    for (pages, class) in layout.kept() {
        for address in pages.step_by(PAGE_SIZE) {
            let frame = builder.mfn(boot_pfn(address));
            builder.map(address, frame, class.pte_flags());
        }
    }
    for (page, frame) in devices.iter().enumerate() {
        builder.map(Zone::Device.base() + page * PAGE_SIZE, *frame, PageClass::Device.pte_flags());
    }
    // Level 2 of the TABLES zone is complete, so that a table can always be mapped there with at
    // most one more table.
    let window_end = window(Pfn(info.nr_pages));
    for address in (Zone::Tables.base()..window_end).step_by(L2_SPAN) {
        builder.ensure_table(address, 2);
    }
    // The tables themselves come last: mapping them may make more of them.
    let mut table = first_table;
    while table < builder.next {
        let frame = builder.mfn(table);
        builder.map(window(table), frame, PageClass::PageTable.pte_flags());
        table = Pfn(table.0 + 1);
    }
    let end = builder.next;
    assert!(boot_address(end) <= boot_stack_top + SPARE, "the page tables do not fit: give the guest less memory");

    for table in first_table.0..end.0 {
        let entry = Pte::new(builder.mfn(Pfn(table)), PageClass::PageTable.pte_flags());
        // SAFETY: the frame was only written through this address, for the last time.
        unsafe { xen_sys::update_va_mapping(boot_address(Pfn(table)) as u64, entry, UvmFlags::NONE) }
            .expect("Xen refuses to make a page table read-only");
    }
    let (root, old_root) = (builder.mfn(first_table), builder.mfn(boot_pfn(info.pt_base as usize)));
    let switch = [
        MmuextOp::on_frame(MmuextCmd::PIN_L4_TABLE, root),
        MmuextOp::on_frame(MmuextCmd::NEW_BASEPTR, root),
        MmuextOp::on_frame(MmuextCmd::UNPIN_TABLE, old_root),
    ];
    // SAFETY: the new tables map all that is in use at the same addresses: image, stack, start
    // info, p2m.
    unsafe { xen_sys::mmuext_op(&switch, DomId::SELF) }.expect("Xen refuses the page tables");

    let words = bitmap_words(info.nr_pages);
    // SAFETY: the bitmaps' range is mapped, ours, and as long as the allocators want it.
    let bitmaps = unsafe { core::slice::from_raw_parts_mut(layout.bitmap.start as *mut u64, 2 * words) };
    let (free, vacant) = bitmaps.split_at_mut(words);
    let mut free = FrameAllocator::new(free, info.nr_pages);
    let vacant = FrameAllocator::new(vacant, info.nr_pages);
    let left_over = boot_pfn(layout.left_over.start)..boot_pfn(layout.left_over.end);
    let guard = boot_pfn(image::boot_stack_guard());
    for range in [end..Pfn(info.nr_pages), left_over, guard..Pfn(guard.0 + 1)] {
        free.free_range(range).expect("free memory is counted once");
    }
    (Frames::new(free, vacant, p2m), Tables::new(first_table), layout)
}
