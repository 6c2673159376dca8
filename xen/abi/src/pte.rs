//! Page-table entries of x86-64 with 4 KiB pages (Intel SDM volume 3A, section 4.5; AMD APM volume
//! 2, section 5.3). In a PV guest they hold machine frame numbers, and Xen checks every one that
//! the guest writes.

use crate::{Mfn, PAGE_SHIFT};

/// Entries in a page table of any level.
pub const PTES_PER_TABLE: usize = 512;

bitflags::bitflags! {
    /// The bits of a page-table entry beside the frame's number. Bits 52 to 58 are left to
    /// software. Xen keeps its own marks there in entries that it has checked, so an entry read
    /// back may show more bits than were written.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct PteFlags: u64 {
        /// The entry is valid.
        const PRESENT = 1 << 0;
        /// Writes are allowed.
        const WRITABLE = 1 << 1;
        /// Ring 3 may use the page. Xen sets it on a 64-bit PV guest's pages, whose kernel also
        /// runs in ring 3.
        const USER = 1 << 2;
        /// Write-through caching (PWT).
        const WRITE_THROUGH = 1 << 3;
        /// No caching (PCD).
        const CACHE_DISABLE = 1 << 4;
        /// The processor has used the entry.
        const ACCESSED = 1 << 5;
        /// The processor has written to the page; leaf entries only.
        const DIRTY = 1 << 6;
        /// A large page, in an entry of level 2 or 3. Xen gives it to no PV guest.
        const LARGE = 1 << 7;
        /// Kept in the TLB when cr3 changes; leaf entries only.
        const GLOBAL = 1 << 8;
        /// Free for the guest's use.
        const AVAILABLE_0 = 1 << 9;
        /// Free for the guest's use.
        const AVAILABLE_1 = 1 << 10;
        /// Free for the guest's use.
        const AVAILABLE_2 = 1 << 11;
        /// Instructions may not be fetched from the page (NX).
        const NO_EXECUTE = 1 << 63;
    }
}

/// A page-table entry.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Pte(pub u64);

impl Pte {
    /// An entry that maps nothing.
    pub const ABSENT: Pte = Pte(0);

    /// Bits 12 to 51: the frame's machine address.
    const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

    /// The entry for `mfn` with `flags`.
    #[must_use]
    pub const fn new(mfn: Mfn, flags: PteFlags) -> Pte {
        Pte((mfn.0 << PAGE_SHIFT) & Self::ADDRESS | flags.bits())
    }

    /// The frame that the entry names. It has a meaning only if the entry is present.
    #[must_use]
    pub const fn mfn(self) -> Mfn {
        Mfn((self.0 & Self::ADDRESS) >> PAGE_SHIFT)
    }

    /// All bits beside the frame's number, unknown ones included.
    #[must_use]
    pub const fn flags(self) -> PteFlags {
        PteFlags::from_bits_retain(self.0 & !Self::ADDRESS)
    }

    /// True if the processor follows the entry.
    #[must_use]
    pub const fn is_present(self) -> bool {
        self.flags().contains(PteFlags::PRESENT)
    }
}

impl core::fmt::Debug for Pte {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Pte({:#x})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_an_entry() {
        let flags = PteFlags::PRESENT | PteFlags::WRITABLE | PteFlags::NO_EXECUTE;
        let pte = Pte::new(Mfn(0x12345), flags);
        assert_eq!(pte.0, 0x8000_0000_1234_5003);
        assert_eq!((pte.mfn(), pte.flags()), (Mfn(0x12345), flags));
        assert!(pte.is_present() && !Pte::ABSENT.is_present());
    }

    #[test]
    fn bits_that_xen_adds_are_kept() {
        let pte = Pte(1 << 52 | 0x1000 | 1);
        assert_eq!(pte.mfn(), Mfn(1));
        assert_eq!(pte.flags().bits(), 1 << 52 | 1);
    }
}
