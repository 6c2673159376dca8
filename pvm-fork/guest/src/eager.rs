//! Eager pages (`zooid_fork_plan::eager`): a child's reports of its first writes, the list that its
//! parent makes of them, and the place of such pages in the snapshot.

use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use zooid_fork_plan::eager::{EagerPages, Heat};
use zooid_fork_plan::wire::{EARLY_PAGES, daemon, guest};
use zooid_kernel::events::Masked;
use zooid_kernel::mmu::cow;
use zooid_kernel::{evtchn, mmu};
use zooid_memory::{ForkRule, PAGE_SIZE, Zone};

use crate::control::Control;

struct Eager {
    pages: EagerPages,
    /// Number of the last report that was taken in.
    number: u32,
}

static EAGER: Masked<Eager> = Masked::new(Eager { pages: EagerPages::NONE, number: 0 });

/// In a child: the number of upcalls when it began to run.
static BORN: AtomicU64 = AtomicU64::new(u64::MAX);
/// The number of upcalls until which writes are early: one comes at once, the next one when the
/// child sleeps, or after a slice.
const EARLY_UPCALLS: u64 = 1;

/// The address of a page of the heap with a child's number; `None` for a number beyond the zone.
fn address(page: u32) -> Option<usize> {
    let zone = Zone::Heap.range();
    (page as usize).checked_mul(PAGE_SIZE).filter(|offset| *offset < zone.len()).map(|offset| zone.start + offset)
}

/// Notes a page that this pVM has copied to write it, if it is a child and has just begun to run.
pub fn note(control: &Control, address: usize) {
    if evtchn::upcalls().checked_sub(BORN.load(Ordering::Relaxed)).is_none_or(|upcalls| upcalls > EARLY_UPCALLS) {
        return;
    }
    let count = control.page.read_u32(guest::EARLY_COUNT);
    if (count as usize) < EARLY_PAGES {
        let page = (address - Zone::Heap.base()) / PAGE_SIZE;
        control.page.write_u32(guest::EARLY + 4 * count as usize, page as u32);
        control.page.write_u32(guest::EARLY_COUNT, count + 1);
    }
}

/// True if a child has reported since the last look.
pub fn has_news(control: &Control) -> bool {
    EAGER.lock().number != control.page.read_u32_acquire(daemon::EARLY_NUMBER)
}

/// Takes in what a child has reported.
pub fn learn(control: &Control) {
    let page = &control.page;
    let mut eager = EAGER.lock();
    let number = page.read_u32_acquire(daemon::EARLY_NUMBER);
    if eager.number == number {
        return;
    }
    eager.number = number;
    let mut early = [0; EARLY_PAGES];
    let count = (page.read_u32(daemon::EARLY_COUNT) as usize).min(EARLY_PAGES);
    early.iter_mut().enumerate().for_each(|(at, early)| *early = page.read_u32(daemon::EARLY + 4 * at));
    let shared = control.is_shared();
    eager.pages.learn(&early[..count], |page, heat| {
        let rule = match heat {
            Heat::Eager => ForkRule::Private,
            Heat::Cold => ForkRule::CopyOnWrite,
        };
        address(page).is_some_and(|address| cow::set_rule(address, rule, shared))
    });
}

/// Starts a child's list and reports: it has no children yet, and its first writes come now.
pub fn begin_life() {
    EAGER.lock().number = 0;
    BORN.store(evtchn::upcalls(), Ordering::Relaxed);
}

/// The largest number of pages that a snapshot holds because they are eager.
pub fn count() -> usize {
    EAGER.lock().pages.pages().len()
}

/// Calls `each` with each eager page. Pages that were unmapped since are left out.
pub fn for_each(mut each: impl FnMut(Range<usize>)) {
    let eager = EAGER.lock();
    let pages = eager.pages.pages().iter().filter_map(|page| address(*page));
    mmu::with_rule(ForkRule::Private, pages, |page| each(page..page + PAGE_SIZE));
}
