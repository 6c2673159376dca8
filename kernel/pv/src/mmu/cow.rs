//! Copy-on-write of the heap and of variables of libraries: the protection by a fork, and the
//! handling of a write to a shared page.
//!
//! A fork removes the right to write from the entries of level 2, of which a few cover megabytes of
//! heap. The first write below such an entry removes the right from the pages instead and restores
//! it above. Then, and at each further page, the writer gets a copy. All of it happens in the
//! writer's own domain. Nothing of this is linked into an image without the fork component.

use core::sync::atomic::Ordering;

use spin::Once;
use xen_abi::pte::{PTES_PER_TABLE, Pte, PteFlags};
use xen_abi::xen::{MmuUpdate, UvmFlags};
use xen_abi::{Mfn, PAGE_SIZE, Pfn};
use zooid_memory::{ForkRule, PageClass, Zone};

use super::frames::Frames;
use super::tables::{BATCH, OutOfFrames, index, read, submit, update};
use super::{HEAP_END, LIBRARIES_END, Mapped, Memory, flush_tlb, mapped, with_memory};
use crate::events::Masked;
use crate::life::Component;

/// Address range that a table of level 1 covers, in bytes.
const L1_SPAN: usize = PTES_PER_TABLE * PAGE_SIZE;
/// Number of frames that are asked of Xen, or given back, in one hypercall.
const FRAMES_AT_ONCE: usize = 32;

/// The function that the kernel calls for a write to a present, write-protected page. It returns
/// true when the write may be tried again. Set by the fork component.
pub static WRITE_FAULT: Once<fn(usize) -> bool> = Once::new();

/// Buffer for the contents of a page while its address gets another frame.
static BOUNCE: Masked<[u64; PAGE_SIZE / 8]> = Masked::new([0; PAGE_SIZE / 8]);

/// Lets the domain ask Xen for frames when none is free.
pub fn enable() {
    with_memory(|memory| memory.frames.set_populate(populate));
}

/// Removes the right to write from all pages that are copied on write.
pub fn protect() {
    let heap = Zone::Heap.base()..HEAP_END.load(Ordering::Relaxed);
    let libraries = Zone::Libraries.base()..LIBRARIES_END.load(Ordering::Relaxed);
    with_memory(|Memory { frames, tables }| {
        let mut batch = [MmuUpdate::default(); BATCH];
        let mut count = 0;
        for address in heap.step_by(L1_SPAN).chain(libraries.step_by(L1_SPAN)) {
            let Some(table) = tables.table(frames, address, 2) else { continue };
            let entry = read(table, index(address, 2));
            if entry.flags().contains(PteFlags::PRESENT | PteFlags::WRITABLE) {
                batch[count] = update(frames.mfn(table), index(address, 2), without_write(entry));
                count += 1;
            }
            if count == BATCH {
                submit(&batch);
                count = 0;
            }
        }
        submit(&batch[..count]);
        flush_tlb();
    });
}

fn without_write(entry: Pte) -> Pte {
    Pte(entry.0 & !PteFlags::WRITABLE.bits())
}

/// Makes the page at `address` writable after a fault, by a copy if others may read its frame:
/// `shared` is true if they may read frames of this domain. Returns false when no fork has
/// protected the page.
pub fn resolve_write(address: usize, shared: bool) -> Result<bool, OutOfFrames> {
    let page = address & !(PAGE_SIZE - 1);
    if !Zone::Heap.range().contains(&page) && !Zone::Libraries.range().contains(&page) {
        return Ok(false);
    }
    with_memory(|Memory { frames, tables }| {
        let Some(above) = tables.table(frames, page, 2) else { return Ok(false) };
        let Some(table) = tables.table(frames, page, 1) else { return Ok(false) };
        let entry_above = read(above, index(page, 2));
        if !entry_above.flags().contains(PteFlags::WRITABLE) {
            if shared {
                protect_table(frames, table);
            }
            let writable = Pte(entry_above.0 | PteFlags::WRITABLE.bits());
            submit(&[update(frames.mfn(above), index(page, 2), writable)]);
            flush_tlb();
        }
        let entry = read(table, index(page, 1));
        if entry.flags().contains(PteFlags::WRITABLE) {
            return Ok(true);
        }
        if ForkRule::of(entry.flags()) != ForkRule::CopyOnWrite {
            return Ok(false);
        }
        match frames.pfn(entry.mfn()) {
            Some(_) if !shared => remap(page, entry.mfn(), ForkRule::CopyOnWrite),
            own => {
                let copy = frames.alloc().ok_or(OutOfFrames)?;
                let mut bounce = BOUNCE.lock();
                // SAFETY: a present page of the heap, which the fault says can be read; the buffer
                // is a page long.
                unsafe { copy_page(page as *const u64, bounce.as_mut_ptr()) };
                remap(page, frames.mfn(copy), ForkRule::CopyOnWrite);
                mapped(page, Mapped::Pages);
                // SAFETY: the page is this domain's own and writable now; nothing else runs
                // meanwhile.
                unsafe { copy_page(bounce.as_ptr(), page as *mut u64) };
                if let Some(own) = own {
                    frames.lend(own);
                }
            }
        }
        Ok(true)
    })
}

/// Sets the fork rule of a page of the heap: copied at once (`Private`), or on write. `shared` is
/// as for [`resolve_write`]. Returns false, and changes nothing, when the page is not mapped or
/// there is no frame for it.
pub fn set_rule(address: usize, rule: ForkRule, shared: bool) -> bool {
    // A page that is writable is read by this domain alone.
    if !matches!(resolve_write(address, shared), Ok(true)) {
        return false;
    }
    with_memory(|Memory { frames, tables }| remap(address, tables.entry(frames, address).mfn(), rule));
    mapped(address, Mapped::Pages);
    true
}

/// Removes the right to write from all pages of one table of level 1 that are copied on write.
fn protect_table(frames: &Frames, table: Pfn) {
    let mut batch = [MmuUpdate::default(); BATCH];
    let mut count = 0;
    for at in 0..PTES_PER_TABLE {
        let entry = read(table, at);
        let flags = entry.flags();
        if flags.contains(PteFlags::PRESENT | PteFlags::WRITABLE) && ForkRule::of(flags) == ForkRule::CopyOnWrite {
            batch[count] = update(frames.mfn(table), at, without_write(entry));
            count += 1;
        }
        if count == BATCH {
            submit(&batch);
            count = 0;
        }
    }
    submit(&batch[..count]);
}

fn remap(page: usize, frame: Mfn, rule: ForkRule) {
    let entry = Pte::new(frame, PageClass::Heap.protection().pte_flags() | rule.pte_flags());
    // SAFETY: a page that is copied on write and mapped already; the frame holds the page's
    // contents, or gets them before anything else runs.
    unsafe { xen_sys::update_va_mapping(page as u64, entry, UvmFlags::INVLPG) }
        .expect("Xen refuses a page-table entry");
}

/// Copies a page.
///
/// # Safety
/// Both are page-aligned or 8-byte aligned, mapped, a page long, and apart; `to` is writable.
pub unsafe fn copy_page(from: *const u64, to: *mut u64) {
    // SAFETY: the caller's promise; the direction flag is clear at any call (psABI).
    unsafe {
        core::arch::asm!("rep movsq", inout("rcx") PAGE_SIZE / 8 => _, inout("rsi") from => _, inout("rdi") to => _,
            options(nostack, preserves_flags));
    }
}

/// Frees the frames that were left to relatives, once none of them lives any more.
pub fn reclaim() {
    with_memory(|memory| memory.frames.reclaim());
}

/// Gives lent frames back to Xen, which keeps them for their readers, so that their numbers get
/// other frames.
fn hand_back(frames: &mut Frames, needed: u64) {
    let mut given = 0;
    while given < needed {
        let mut list = [Mfn(0); FRAMES_AT_ONCE];
        let mut count = 0;
        let taken = frames.take_lent(FRAMES_AT_ONCE as u64, |frames, frame| {
            list[count] = frames.mfn(frame);
            count += 1;
            frames.vacate(frame);
        });
        if taken == 0 {
            return;
        }
        // SAFETY: nothing here maps a lent frame.
        let done = unsafe { xen_sys::memory_op_decrease_reservation(&list[..count]) };
        debug_assert_eq!(done, Ok(count), "Xen takes back a frame that it gave");
        given += taken;
    }
}

/// Asks Xen for frames, in batches, until `needed` are free or Xen has no more.
fn populate(frames: &mut Frames, needed: u64) {
    if frames.vacant_count() < needed {
        hand_back(frames, needed - frames.vacant_count());
    }
    let mut got = 0;
    while got < needed {
        let mut numbers = [Pfn(0); FRAMES_AT_ONCE];
        let mut machine_frames = [Mfn(0); FRAMES_AT_ONCE];
        let mut count = 0;
        while count < FRAMES_AT_ONCE
            && let Some(number) = frames.take_vacant()
        {
            numbers[count] = number;
            count += 1;
        }
        if count == 0 {
            return;
        }
        let done = xen_sys::memory_op_populate_physmap(&numbers[..count], &mut machine_frames[..count]).unwrap_or(0);
        for (number, machine_frame) in numbers.iter().zip(machine_frames).take(done) {
            frames.settle(*number, machine_frame);
        }
        for number in &numbers[done..count] {
            frames.vacate(*number);
        }
        if done == 0 {
            return;
        }
        got += done as u64;
    }
}

/// A child was given frames of its own, and another root of the page tables.
pub static LIFE: Component = Component { begin: |birth| adopt(birth.root), ..Component::PASSIVE };

/// p2m and bitmaps, at their old addresses, hold what belongs to this domain
/// ([`life::begin`](crate::life::begin)).
fn adopt(root: Pfn) {
    with_memory(|memory| {
        memory.frames.recount();
        memory.tables.set_root(root);
    });
}
