//! Page classes: the kind of a page, its protection, and its treatment by a fork.

use core::fmt;
use xen_abi::pte::PteFlags;

/// The use of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PageClass {
    /// Instructions of the image or of a library.
    Text,
    /// Constants of the image or of a library.
    RoData,
    /// Variables of the image.
    Data,
    /// Variables of a library.
    LibraryData,
    /// Memory that the heap hands out.
    Heap,
    /// A thread's stack.
    Stack,
    /// A page table, which a PV guest may only read.
    PageTable,
    /// A page shared with Xen or with another domain: shared_info, grant table, rings.
    Device,
    /// A page of an IpC object, which relatives read and write (docs/protocols/ipc.md).
    Joint,
    /// Data of a fork for the child: copies of private pages. The child reads them at the same
    /// address.
    Snapshot,
    /// The kernel's own books of this domain's frames: p2m, start_info, the frame allocator's
    /// bitmap.
    Special,
}

/// The permitted accesses to a page. A check that no page is both writable and executable is not
/// needed, because no value stands for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Reading only.
    ReadOnly,
    /// Reading and writing.
    ReadWrite,
    /// Reading and executing.
    ReadExecute,
}

/// The treatment of a page by a fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForkRule {
    /// Parent and child use the same frame, which neither writes while both read it.
    Shared,
    /// Parent and child use the same frame until one of them writes; the writer gets a copy.
    CopyOnWrite,
    /// The child gets a copy during the fork. The page must stay writable at every moment, because
    /// Xen itself writes to it: it cannot push an exception frame on a read-only stack.
    Private,
    /// Parent and child go on using the same frame, and each sees the writes of the other.
    Joint,
    /// The frame is that of a library, mapped by many pVMs of the host and written by none. The
    /// child uses it too (docs/protocols/libraries.md).
    Library,
    /// The contents belong to one domain and have no meaning in another. The child makes its own at
    /// the same address.
    Special,
}

impl PageClass {
    /// Every class.
    pub const ALL: [Self; 11] = [
        Self::Text,
        Self::RoData,
        Self::Data,
        Self::LibraryData,
        Self::Heap,
        Self::Stack,
        Self::PageTable,
        Self::Device,
        Self::Joint,
        Self::Snapshot,
        Self::Special,
    ];

    /// The protection of pages of this class.
    pub const fn protection(self) -> Protection {
        match self {
            Self::Text => Protection::ReadExecute,
            Self::RoData | Self::PageTable => Protection::ReadOnly,
            Self::Data | Self::LibraryData | Self::Heap | Self::Stack => Protection::ReadWrite,
            Self::Device | Self::Joint | Self::Snapshot | Self::Special => Protection::ReadWrite,
        }
    }

    /// The fork rule of pages of this class.
    pub const fn fork_rule(self) -> ForkRule {
        match self {
            Self::Text | Self::RoData | Self::Snapshot => ForkRule::Shared,
            Self::Heap | Self::LibraryData => ForkRule::CopyOnWrite,
            // The kernel's own variables are among the data, and the kernel must not fault while it
            // resolves a fault.
            Self::Data | Self::Stack => ForkRule::Private,
            Self::Joint => ForkRule::Joint,
            Self::PageTable | Self::Device | Self::Special => ForkRule::Special,
        }
    }

    /// The flags of a page-table entry that maps a page of this class: protection and fork rule.
    pub const fn pte_flags(self) -> PteFlags {
        self.protection().pte_flags().union(self.fork_rule().pte_flags())
    }
}

impl ForkRule {
    /// The bits of a page-table entry that hold a rule.
    pub const MASK: PteFlags = PteFlags::AVAILABLE_0.union(PteFlags::AVAILABLE_1).union(PteFlags::AVAILABLE_2);

    /// The rule's mark in a page-table entry, in bits that processor and Xen leave alone. The page
    /// tables themselves thus hold the fork rule of each page.
    pub const fn pte_flags(self) -> PteFlags {
        match self {
            Self::Special => PteFlags::empty(),
            Self::Shared => PteFlags::AVAILABLE_0,
            Self::CopyOnWrite => PteFlags::AVAILABLE_1,
            Self::Private => PteFlags::AVAILABLE_0.union(PteFlags::AVAILABLE_1),
            Self::Joint => PteFlags::AVAILABLE_2,
            Self::Library => PteFlags::AVAILABLE_0.union(PteFlags::AVAILABLE_2),
        }
    }

    /// The rule of a page that is mapped with `flags`.
    pub const fn of(flags: PteFlags) -> Self {
        if flags.contains(PteFlags::AVAILABLE_2) {
            return if flags.contains(PteFlags::AVAILABLE_0) { Self::Library } else { Self::Joint };
        }
        match (flags.contains(PteFlags::AVAILABLE_1), flags.contains(PteFlags::AVAILABLE_0)) {
            (false, false) => Self::Special,
            (false, true) => Self::Shared,
            (true, false) => Self::CopyOnWrite,
            (true, true) => Self::Private,
        }
    }
}

impl Protection {
    /// The flags of a page-table entry with this protection. Accessed and dirty are set from the
    /// start, which saves the processor from setting them. `USER` is absent: Xen adds it to a PV
    /// kernel's pages, and takes a page that has it for one of guest user mode.
    pub const fn pte_flags(self) -> PteFlags {
        let readable = PteFlags::PRESENT.union(PteFlags::ACCESSED);
        match self {
            Self::ReadOnly => readable.union(PteFlags::NO_EXECUTE),
            Self::ReadWrite => readable.union(PteFlags::NO_EXECUTE).union(PteFlags::WRITABLE).union(PteFlags::DIRTY),
            Self::ReadExecute => readable,
        }
    }
}

impl fmt::Display for PageClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::RoData => "constants",
            Self::Data => "data",
            Self::LibraryData => "a library's data",
            Self::Heap => "heap",
            Self::Stack => "stack",
            Self::PageTable => "page table",
            Self::Device => "device page",
            Self::Joint => "joint page",
            Self::Snapshot => "snapshot",
            Self::Special => "kernel record",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_page_is_writable_and_executable() {
        for class in PageClass::ALL {
            let flags = class.pte_flags();
            assert!(flags.contains(PteFlags::PRESENT) && !flags.contains(PteFlags::USER));
            assert!(!flags.contains(PteFlags::WRITABLE) || flags.contains(PteFlags::NO_EXECUTE), "{class}");
        }
        assert!(!PageClass::Text.pte_flags().intersects(PteFlags::WRITABLE | PteFlags::NO_EXECUTE));
        assert!(!PageClass::PageTable.pte_flags().contains(PteFlags::WRITABLE), "Xen would refuse it");
    }

    #[test]
    fn only_pages_that_nobody_writes_are_shared_for_ever() {
        for class in PageClass::ALL {
            if class.fork_rule() == ForkRule::Shared && class != PageClass::Snapshot {
                assert_ne!(class.protection(), Protection::ReadWrite, "{class}");
            }
        }
    }

    #[test]
    fn an_entry_says_what_a_fork_does() {
        for class in PageClass::ALL {
            assert_eq!(ForkRule::of(class.pte_flags()), class.fork_rule(), "{class}");
        }
        assert_eq!(ForkRule::of(ForkRule::Library.pte_flags()), ForkRule::Library);
    }

    #[test]
    fn what_xen_writes_is_never_copy_on_write() {
        for class in [PageClass::Stack, PageClass::Device, PageClass::Special, PageClass::PageTable] {
            assert_ne!(class.fork_rule(), ForkRule::CopyOnWrite, "{class}");
        }
    }
}
