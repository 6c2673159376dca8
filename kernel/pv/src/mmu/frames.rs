//! The frames that Xen gave this domain: the free ones, and their machine frame numbers.

use xen_abi::{Mfn, Pfn};
use zooid_core::frames::FrameAllocator;

/// Where Xen maps the machine-to-physical table for 64-bit guests (public/arch-x86/xen-x86_64.h,
/// MACH2PHYS_VIRT_START).
const M2P: usize = 0xffff_8000_0000_0000;
/// The p2m's entry for a frame number without a frame.
const NO_FRAME: u64 = u64::MAX;
/// Marks, in the p2m, a frame that is no longer mapped here, but that relatives may read.
const LENT: u64 = 1 << 62;

/// All frames of the domain.
pub struct Frames {
    free: FrameAllocator<'static>,
    /// Numbers without a frame, because Xen has it or never gave one. Only forks make such numbers.
    vacant: FrameAllocator<'static>,
    /// The mfn of each pfn: the list that the domain builder made.
    p2m: &'static mut [u64],
    /// Frames that are lent.
    lent: u64,
    /// Gets frames for vacant numbers; set with the fork component.
    populate: Option<fn(&mut Self, u64)>,
}

impl Frames {
    /// Takes the lists over. `p2m` has an entry for each number of `free` and `vacant`.
    pub fn new(free: FrameAllocator<'static>, vacant: FrameAllocator<'static>, p2m: &'static mut [u64]) -> Self {
        Self { free, vacant, p2m, lent: 0, populate: None }
    }

    /// Takes a free frame. Its contents are left over from an earlier use in this domain.
    pub fn alloc(&mut self) -> Option<Pfn> {
        self.free.alloc().or_else(|| {
            self.ensure(1);
            self.free.alloc()
        })
    }

    /// Tries to have `count` free frames; returns false when there are fewer, and Xen gives no
    /// more.
    pub fn ensure(&mut self, count: u64) -> bool {
        if self.free_count() < count
            && let Some(populate) = self.populate
        {
            populate(self, count - self.free_count());
        }
        self.free_count() >= count
    }

    /// Gives a frame back that is no longer mapped.
    pub fn free(&mut self, frame: Pfn) {
        self.free.free(frame).expect("a frame is freed once");
    }

    /// Frames that can be taken without asking Xen.
    pub fn free_count(&self) -> u64 {
        self.free.free_frames()
    }

    /// Frames that can be taken, if Xen gives all that it may.
    pub fn obtainable(&self) -> u64 {
        self.free_count() + self.vacant_count() + self.lent
    }

    /// Numbers without a frame.
    pub fn vacant_count(&self) -> u64 {
        self.vacant.free_frames()
    }

    /// Frames that the domain has, or may have.
    pub fn total(&self) -> u64 {
        self.free.total()
    }

    /// The machine frame behind a frame of this domain.
    pub fn mfn(&self, frame: Pfn) -> Mfn {
        Mfn(self.p2m[frame.0 as usize])
    }

    /// The frame of this domain behind a machine frame, if it belongs to it. Xen's table is a hint,
    /// the p2m decides.
    pub fn pfn(&self, frame: Mfn) -> Option<Pfn> {
        let hint = m2p(frame);
        (self.p2m.get(hint.0 as usize) == Some(&frame.0)).then_some(hint)
    }

    /// Sets the function that is asked for frames when none is free.
    pub fn set_populate(&mut self, populate: fn(&mut Self, u64)) {
        self.populate = Some(populate);
    }

    /// Takes a number without a frame.
    pub fn take_vacant(&mut self) -> Option<Pfn> {
        self.vacant.alloc()
    }

    /// Records that `frame`, taken with [`take_vacant`](Self::take_vacant) or in use, has no frame
    /// behind it.
    pub fn vacate(&mut self, frame: Pfn) {
        self.p2m[frame.0 as usize] = NO_FRAME;
        self.vacant.free(frame).expect("a number is vacated once");
    }

    /// Puts a new, free frame behind a number taken with [`take_vacant`](Self::take_vacant).
    pub fn settle(&mut self, frame: Pfn, machine_frame: Mfn) {
        self.p2m[frame.0 as usize] = machine_frame.0;
        self.free(frame);
    }

    /// Keeps a frame that is no longer mapped here for the relatives that may read it.
    pub fn lend(&mut self, frame: Pfn) {
        self.p2m[frame.0 as usize] |= LENT;
        self.lent += 1;
    }

    /// Gives a frame back that is no longer mapped here. Relatives may read it if this image can
    /// have some.
    pub fn retire(&mut self, frame: Pfn) {
        if self.populate.is_some() { self.lend(frame) } else { self.free(frame) }
    }

    /// Frees all lent frames: no relative reads them any more.
    pub fn reclaim(&mut self) {
        if self.lent > 0 {
            self.take_lent(u64::MAX, |frames, frame| frames.free(frame));
        }
    }

    /// Calls `take` with up to `count` lent frames, which are lent no longer. Returns their number.
    pub fn take_lent(&mut self, count: u64, mut take: impl FnMut(&mut Self, Pfn)) -> u64 {
        let wanted = count.min(self.lent);
        let mut taken = 0;
        for number in 0..self.p2m.len() {
            if taken == wanted {
                break;
            }
            let entry = self.p2m[number];
            if entry != NO_FRAME && entry & LENT != 0 {
                self.p2m[number] = entry & !LENT;
                taken += 1;
                take(self, Pfn(number as u64));
            }
        }
        self.lent -= taken;
        taken
    }

    /// Counts anew, after bitmaps and p2m were replaced in place, in a child.
    pub fn recount(&mut self) {
        self.free.recount();
        self.vacant.recount();
        self.lent = 0;
    }
}

/// The pfn that Xen's machine-to-physical table has for `frame`, which must be a frame of some
/// domain on this host.
pub fn m2p(frame: Mfn) -> Pfn {
    // SAFETY: Xen maps the table read-only in every PV guest, with an entry for each frame of the
    // host.
    Pfn(unsafe { ((M2P as *const u64).add(frame.0 as usize)).read_volatile() })
}
