//! Descriptions of addresses, for the report of a fault.

use crate::{AddressSpace, PAGE_SIZE, PageClass, Region, Zone};
use core::fmt;

/// The place of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The first page of all, never mapped: the address is a null reference, or a field of one.
    NullPage,
    /// Inside a region, at this distance in bytes from its beginning.
    Inside(Part, usize),
    /// The unmapped page right below a region: a stack has overflowed.
    GuardBelow(Part),
    /// The unmapped page right above a region.
    GuardAbove(Part),
    /// A free part of a zone.
    Unmapped(Zone),
    /// Xen's own part of the address space.
    Xen,
    /// The address has no canonical form; the processor refuses it.
    NonCanonical,
    /// Part of no zone.
    Nowhere,
}

/// A region, as a report names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The class of its pages.
    pub class: PageClass,
    /// Its number among the regions of its class, from 1, in the order of addresses.
    pub number: usize,
}

impl AddressSpace {
    /// The place of an address.
    pub fn describe(&self, address: usize) -> Place {
        if address < PAGE_SIZE {
            return Place::NullPage;
        }
        if let Some(region) = self.lookup(address) {
            return Place::Inside(self.part(region), address - region.range.start);
        }
        // The page's neighbours. A stack above the page counts more than any region below it.
        let page = address - address % PAGE_SIZE;
        if let Some(region) = page.checked_add(PAGE_SIZE).and_then(|next| self.lookup(next)) {
            return Place::GuardBelow(self.part(region));
        }
        if let Some(region) = self.lookup(page - 1) {
            return Place::GuardAbove(self.part(region));
        }
        match (Zone::containing(address), address) {
            (Some(zone), _) => Place::Unmapped(zone),
            // HYPERVISOR_VIRT_START and HYPERVISOR_VIRT_END, public/arch-x86/xen-x86_64.h.
            (None, 0xffff_8000_0000_0000..0xffff_8800_0000_0000) => Place::Xen,
            (None, 0x0000_8000_0000_0000..0xffff_8000_0000_0000) => Place::NonCanonical,
            (None, _) => Place::Nowhere,
        }
    }

    fn part(&self, region: &Region) -> Part {
        let alike = self.regions().filter(|other| other.class == region.class);
        let number = alike.take_while(|other| other.range.start <= region.range.start).count();
        Part { class: region.class, number }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NullPage => f.write_str("null page"),
            Self::Inside(part, offset) => write!(f, "{part}, {offset:#x} bytes in"),
            Self::GuardBelow(part) => write!(f, "guard page below {part}"),
            Self::GuardAbove(part) => write!(f, "guard page above {part}"),
            Self::Unmapped(zone) => write!(f, "unmapped page in the zone \"{zone}\""),
            Self::Xen => f.write_str("Xen's own memory"),
            Self::NonCanonical => f.write_str("not a canonical address"),
            Self::Nowhere => f.write_str("unmapped, in no zone"),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.class {
            PageClass::Stack => write!(f, "stack {}", self.number),
            class => write!(f, "{class}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    fn sample() -> AddressSpace {
        let mut space = AddressSpace::new();
        let image = Zone::Image.base();
        space.insert(image..image + 2 * PAGE_SIZE, PageClass::Text).unwrap();
        space.insert(image + 3 * PAGE_SIZE..image + 4 * PAGE_SIZE, PageClass::Stack).unwrap();
        for _ in 0..3 {
            space.allocate(Zone::Stacks, 4 * PAGE_SIZE, PageClass::Stack).unwrap();
        }
        space
    }

    #[test]
    fn faults_are_told_in_words() {
        let space = sample();
        let stacks = Zone::Stacks.base();
        let third = stacks + 11 * PAGE_SIZE;
        let image = Zone::Image.base();
        for (address, words) in [
            (0, "null page"),
            (PAGE_SIZE - 1, "null page"),
            (PAGE_SIZE, "unmapped, in no zone"),
            (image + 0x1010, "text, 0x1010 bytes in"),
            (image + 2 * PAGE_SIZE, "guard page below stack 4"),
            (image + 4 * PAGE_SIZE, "guard page above stack 4"),
            (third + 8, "stack 3, 0x8 bytes in"),
            (third - 1, "guard page below stack 3"),
            (third + 4 * PAGE_SIZE, "guard page above stack 3"),
            (third + 5 * PAGE_SIZE, "unmapped page in the zone \"stacks\""),
            (Zone::Heap.base(), "unmapped page in the zone \"heap\""),
            (0xffff_8000_0000_0000, "Xen's own memory"),
            (0xffff_8800_0000_0000, "unmapped, in no zone"),
            (0x1234_5678_9abc_def0, "not a canonical address"),
            (usize::MAX, "unmapped, in no zone"),
        ] {
            assert_eq!(space.describe(address).to_string(), words, "{address:#x}");
        }
    }
}
