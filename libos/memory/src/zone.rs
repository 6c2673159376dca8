//! The fixed division of the address space.

use crate::PageClass;
use core::fmt;
use core::ops::Range;

/// The first address under level 4 entry 511, which holds all zones.
const BASE: usize = 0xffff_ff80_0000_0000;
/// The bytes that one level 3 entry covers.
const L3_SPAN: usize = 1 << 30;

/// A part of the address space with one purpose.
///
/// All zones lie under level 4 entry 511; each is a run of whole level 3 entries (1 GiB each):
///
/// | zone | level 3 entries | begins at |
/// |---|---|---|
/// | heap | 0 to 255 | `0xffff_ff80_0000_0000` |
/// | stacks | 256 | `0xffff_ffc0_0000_0000` |
/// | devices | 257 | `0xffff_ffc0_4000_0000` |
/// | tables | 264 to 391 | `0xffff_ffc2_0000_0000` |
/// | libraries | 400 to 439 | `0xffff_ffe4_0000_0000` |
/// | image | 510 | `0xffff_ffff_8000_0000` |
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Zone {
    /// Memory that the heap hands out.
    Heap,
    /// Stacks of threads.
    Stacks,
    /// Pages shared with Xen or with another domain.
    Device,
    /// Page tables, mapped to be read: the table in the frame with number `pfn` is at `pfn * 4096`
    /// from the zone's base.
    Tables,
    /// Shared objects.
    Libraries,
    /// The image, and the data that Xen's domain builder puts behind it, at the addresses it was
    /// linked for.
    Image,
}

impl Zone {
    /// Every zone, in the order of their addresses.
    pub const ALL: [Self; 6] = [Self::Heap, Self::Stacks, Self::Device, Self::Tables, Self::Libraries, Self::Image];

    /// The level 3 entries that map the zone.
    pub const fn l3_entries(self) -> Range<usize> {
        match self {
            Self::Heap => 0..256,
            Self::Stacks => 256..257,
            Self::Device => 257..258,
            Self::Tables => 264..392,
            Self::Libraries => 400..440,
            Self::Image => 510..511,
        }
    }

    /// The zone's first address.
    pub const fn base(self) -> usize {
        BASE + self.l3_entries().start * L3_SPAN
    }

    /// The first address behind the zone.
    pub const fn end(self) -> usize {
        BASE + self.l3_entries().end * L3_SPAN
    }

    /// The zone's addresses.
    pub const fn range(self) -> Range<usize> {
        self.base()..self.end()
    }

    /// The zone that an address lies in.
    pub fn containing(address: usize) -> Option<Self> {
        Self::ALL.into_iter().find(|zone| zone.range().contains(&address))
    }

    /// True if pages of this class may lie in the zone. A fork acts on level 3 entries, so pages
    /// that it treats differently are under different entries: the heap zone holds nothing but
    /// heap.
    pub const fn admits(self, class: PageClass) -> bool {
        match self {
            Self::Heap => matches!(class, PageClass::Heap),
            Self::Stacks => matches!(class, PageClass::Stack),
            Self::Device => matches!(class, PageClass::Device | PageClass::Joint | PageClass::Snapshot),
            Self::Tables => matches!(class, PageClass::PageTable),
            Self::Libraries => {
                matches!(class, PageClass::Text | PageClass::RoData | PageClass::LibraryData)
            }
            Self::Image => matches!(
                class,
                PageClass::Text | PageClass::RoData | PageClass::Data | PageClass::Stack | PageClass::Special
            ),
        }
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Heap => "heap",
            Self::Stacks => "stacks",
            Self::Device => "devices",
            Self::Tables => "page tables",
            Self::Libraries => "libraries",
            Self::Image => "image",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ForkRule;

    #[test]
    fn zones_are_in_order_and_apart() {
        for pair in Zone::ALL.windows(2) {
            assert!(pair[0].end() <= pair[1].base(), "{} {}", pair[0], pair[1]);
        }
        assert!(Zone::Image.end() > Zone::Image.base(), "the last zone does not wrap");
    }

    #[test]
    fn addresses_are_as_documented() {
        let bases = [
            0xffff_ff80_0000_0000,
            0xffff_ffc0_0000_0000,
            0xffff_ffc0_4000_0000,
            0xffff_ffc2_0000_0000,
            0xffff_ffe4_0000_0000,
            0xffff_ffff_8000_0000,
        ];
        assert_eq!(Zone::ALL.map(Zone::base), bases);
        assert_eq!(Zone::Tables.range().len(), 128 << 30);
    }

    #[test]
    fn an_address_has_at_most_one_zone() {
        for zone in Zone::ALL {
            assert_eq!(Zone::containing(zone.base()), Some(zone));
            assert_eq!(Zone::containing(zone.end() - 1), Some(zone));
        }
        assert_eq!(Zone::containing(0), None);
        assert_eq!(Zone::containing(Zone::Device.end()), None);
        assert_eq!(Zone::containing(usize::MAX), None);
    }

    #[test]
    fn the_heap_zone_can_be_write_protected_as_a_whole() {
        for class in PageClass::ALL.into_iter().filter(|&class| Zone::Heap.admits(class)) {
            assert_eq!(class.fork_rule(), ForkRule::CopyOnWrite);
        }
    }

    #[test]
    fn every_class_has_a_zone() {
        for class in PageClass::ALL {
            assert!(Zone::ALL.into_iter().any(|zone| zone.admits(class)), "{class}");
        }
    }
}
