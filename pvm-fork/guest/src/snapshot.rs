//! The snapshot: the pages that a fork copies at once, because Xen writes to them (stacks), because
//! the kernel must not fault on them (variables of the image), or because it is cheaper (eager
//! pages).
//!
//! It lies in buffers that the child reads at the same address until it has copied them. There are
//! two, so that a parent need not wait for its child.

use core::ops::Range;

use xen_abi::{Errno, PAGE_SIZE};
use zooid_fork_plan::wire::{self, BUFFERS, guest, snapshot};
use zooid_kernel::events::Masked;
use zooid_kernel::gnttab::{GrantError, ReadablePages};
use zooid_kernel::mmu;
use zooid_kernel::mmu::cow::copy_page;
use zooid_kernel::thread;

use crate::control::Control;
use crate::eager;

/// The number of pages of stacks that the first buffers have room for.
const STACK_PAGES: usize = 8;
/// The number of eager pages that they have room for.
const EAGER_PAGES: usize = wire::EARLY_PAGES;

struct Buffers {
    pages: ReadablePages,
    /// Pages of one buffer.
    size: usize,
    next: u32,
    /// Set while they are the parent's, because this pVM has not forked yet.
    inherited: bool,
}

static SNAPSHOTS: Masked<Option<Buffers>> = Masked::new(None);

/// Makes buffers with room for at least `pages` pages, unless they exist. Nobody may read the old
/// ones any more.
pub fn make(control: &Control, pages: usize) -> Result<(), Errno> {
    let wanted = pages.max(mmu::data_pages().len() / PAGE_SIZE + STACK_PAGES + EAGER_PAGES);
    let size = wire::header_pages(wanted) + wanted;
    let old = SNAPSHOTS.lock().take_if(|buffers| buffers.inherited || buffers.size < size);
    if SNAPSHOTS.lock().is_some() {
        return Ok(());
    }
    drop(old);
    let pages = ReadablePages::for_snapshot(size * BUFFERS as usize).map_err(|error| match error {
        GrantError::TableFull => Errno::ENOSPC,
        GrantError::OutOfMemory => Errno::ENOMEM,
    })?;
    control.page.write_u32(guest::SNAPSHOT_PAGES, size as u32);
    control.page.write_u64(guest::SNAPSHOT, pages.address() as u64);
    *SNAPSHOTS.lock() = Some(Buffers { pages, size, next: 0, inherited: false });
    Ok(())
}

/// Marks the buffers as the parent's, in a child. They are kept until this pVM forks, because
/// freeing them takes time.
pub fn inherit(control: &Control) {
    if let Some(buffers) = &mut *SNAPSHOTS.lock() {
        buffers.inherited = true;
    }
    control.page.write_u64(guest::SNAPSHOT, 0);
    control.page.write_u32(guest::SNAPSHOT_PAGES, 0);
}

/// The largest number of pages of a snapshot taken now. The calling thread's stack grows a little
/// until it is taken.
pub fn pages_needed(all_threads: bool) -> usize {
    let here = 0_u8;
    pages(&raw const here as u64 - PAGE_SIZE as u64, all_threads)
}

fn pages(rsp: u64, all_threads: bool) -> usize {
    let mut count = mmu::data_pages().len() / PAGE_SIZE + eager::count();
    thread::for_each_stack(rsp, all_threads, |pages| count += pages.len() / PAGE_SIZE);
    count
}

/// True if `pages` pages have room in the buffers of this pVM.
pub fn fits(pages: usize) -> bool {
    SNAPSHOTS
        .lock()
        .as_ref()
        .is_some_and(|buffers| !buffers.inherited && wire::header_pages(pages) + pages <= buffers.size)
}

/// Fills the next buffer, for a child that resumes at `rsp` in the calling thread. Returns its
/// number. Events are masked, and the pages fit.
pub fn take(rsp: u64, all_threads: bool) -> u32 {
    let thread_block = thread::thread_block();
    let needed = pages(rsp, all_threads);
    let (start, size, index) = {
        let mut buffers = SNAPSHOTS.lock();
        let buffers = buffers.as_mut().expect("the buffers were made before");
        let index = buffers.next;
        buffers.next = (index + 1) % BUFFERS;
        (buffers.pages.address() + index as usize * buffers.size * PAGE_SIZE, buffers.size, index)
    };
    let header = wire::header_pages(needed);
    assert!(header + needed <= size, "the snapshot fits");
    let mut count = 0;
    let mut copy = |pages: Range<usize>| {
        for page in pages.step_by(PAGE_SIZE) {
            assert!(count < needed, "nothing has changed since the pages were counted");
            // SAFETY: inside the header, which has room for a target of each page; buffers are
            // private but for readers.
            unsafe { write(start + snapshot::TARGETS + count * 8, page as u64) };
            // SAFETY: a page of this domain that is mapped; the buffer's page is mapped, writable
            // and nobody's yet.
            unsafe { copy_page(page as *const u64, (start + (header + count) * PAGE_SIZE) as *mut u64) };
            count += 1;
        }
    };
    thread::for_each_stack(rsp, all_threads, &mut copy);
    eager::for_each(&mut copy);
    // The variables come last: the stack holds the closure's state and all else that was written
    // until here.
    copy(mmu::data_pages());
    for (at, value) in [
        (snapshot::RSP, rsp),
        (snapshot::THREAD_BLOCK, thread_block),
        (snapshot::HEADER_PAGES, header as u64),
        (snapshot::COUNT, count as u64),
    ] {
        // SAFETY: inside the header.
        unsafe { write(start + at, value) };
    }
    index
}

/// # Safety
/// `address` is aligned and in a buffer.
unsafe fn write(address: usize, value: u64) {
    // SAFETY: the caller's promise.
    unsafe { (address as *mut u64).write(value) }
}
