//! The frames that Xen gave this domain: which are free, and what their machine frame numbers are.

use xen_abi::{Mfn, Pfn};
use zooid_core::frames::FrameAllocator;

/// Where Xen maps the machine-to-physical table for 64-bit guests (public/arch-x86/xen-x86_64.h, MACH2PHYS_VIRT_START).
const M2P: usize = 0xffff_8000_0000_0000;

/// All frames of the domain.
pub struct Frames {
    free: FrameAllocator<'static>,
    /// The mfn of each pfn: the list that the domain builder made.
    p2m: &'static mut [u64],
}

impl Frames {
    /// Takes the lists over. `p2m` has an entry for each frame of `free`.
    pub fn new(free: FrameAllocator<'static>, p2m: &'static mut [u64]) -> Self {
        Self { free, p2m }
    }

    /// Takes a free frame. What it holds is left over from an earlier use in this domain.
    pub fn alloc(&mut self) -> Option<Pfn> {
        self.free.alloc()
    }

    /// Gives a frame back that nothing maps any more.
    pub fn free(&mut self, frame: Pfn) {
        self.free.free(frame).expect("a frame is freed once");
    }

    /// Frames that can be taken.
    pub fn free_count(&self) -> u64 {
        self.free.free_frames()
    }

    /// Frames that the domain has.
    pub fn total(&self) -> u64 {
        self.free.total()
    }

    /// The machine frame behind a frame of this domain.
    pub fn mfn(&self, frame: Pfn) -> Mfn {
        Mfn(self.p2m[frame.0 as usize])
    }

    /// The frame of this domain that a machine frame is, if it is one. Xen's table is a hint, the p2m decides.
    pub fn pfn(&self, frame: Mfn) -> Option<Pfn> {
        let hint = m2p(frame);
        (self.p2m.get(hint.0 as usize) == Some(&frame.0)).then_some(hint)
    }
}

/// What Xen's machine-to-physical table says of `frame`, which must be a frame of some domain on this host.
pub fn m2p(frame: Mfn) -> Pfn {
    // SAFETY: Xen maps the table read-only in every PV guest, with an entry for each frame of the host.
    Pfn(unsafe { ((M2P as *const u64).add(frame.0 as usize)).read_volatile() })
}
