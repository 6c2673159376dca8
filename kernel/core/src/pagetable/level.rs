//! The four levels of the page-table hierarchy (Intel SDM volume 3A, section 4.5).

use xen_abi::PAGE_SHIFT;
use xen_abi::pte::PTES_PER_TABLE;

/// A level; level 4 is the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Entries map pages.
    L1 = 1,
    /// Entries point to level 1 tables, 2 MiB each.
    L2,
    /// Entries point to level 2 tables, 1 GiB each.
    L3,
    /// Entries point to level 3 tables, 512 GiB each.
    L4,
}

impl Level {
    /// Which entry of a table of this level decides about an address.
    pub const fn index(self, address: usize) -> usize {
        address >> self.shift() & (PTES_PER_TABLE - 1)
    }

    /// Bytes that one entry of this level covers.
    pub const fn span(self) -> usize {
        1 << self.shift()
    }

    /// The first address under the same entry of this level.
    pub const fn align_down(self, address: usize) -> usize {
        address & !(self.span() - 1)
    }

    /// The level of the tables that entries of this one point to; `None` for level 1.
    pub const fn below(self) -> Option<Self> {
        match self {
            Self::L1 => None,
            Self::L2 => Some(Self::L1),
            Self::L3 => Some(Self::L2),
            Self::L4 => Some(Self::L3),
        }
    }

    const fn shift(self) -> u32 {
        PAGE_SHIFT + PTES_PER_TABLE.ilog2() * (self as u32 - 1)
    }
}
