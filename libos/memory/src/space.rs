//! The map of the address space: the ranges in use, each with the class of its pages.

use crate::{PAGE_SIZE, PageClass, Zone};
use alloc::collections::BTreeMap;
use core::fmt;
use core::ops::Range;

/// A range of pages of one class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// The first address, and the first address behind.
    pub range: Range<usize>,
    /// The class of the pages.
    pub class: PageClass,
}

/// The reason for which the map refuses a region. The caller is to blame, except for
/// [`NoRoom`](Self::NoRoom).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegionError {
    /// The range is empty, or does not begin and end at page boundaries.
    BadRange,
    /// The range does not lie in one zone.
    OutsideZones,
    /// Pages of this class must not lie in this zone.
    WrongZone(PageClass, Zone),
    /// The range has a page in common with a region in use.
    Overlap(Range<usize>),
    /// The zone has no free range of the size, with its guard pages, left.
    NoRoom(Zone),
}

/// All regions of the address space.
///
/// A region given out by [`allocate`](Self::allocate) has at least one unmapped page, a *guard
/// page*, on either side, so that an access beyond its ends is a fault.
#[derive(Debug, Default)]
pub struct AddressSpace {
    /// The regions by first address; no two overlap.
    regions: BTreeMap<usize, Region>,
}

impl AddressSpace {
    /// An address space in which nothing is in use.
    pub const fn new() -> Self {
        Self { regions: BTreeMap::new() }
    }

    /// Marks a given range as in use. It may touch its neighbours.
    ///
    /// # Errors
    /// Any [`RegionError`] but `NoRoom`.
    pub fn insert(&mut self, range: Range<usize>, class: PageClass) -> Result<(), RegionError> {
        if range.is_empty() || !(range.start | range.end).is_multiple_of(PAGE_SIZE) {
            return Err(RegionError::BadRange);
        }
        let zone =
            Zone::containing(range.start).filter(|zone| range.end <= zone.end()).ok_or(RegionError::OutsideZones)?;
        if !zone.admits(class) {
            return Err(RegionError::WrongZone(class, zone));
        }
        if let Some(other) = self.last_before(range.end).filter(|other| other.range.end > range.start) {
            return Err(RegionError::Overlap(other.range.clone()));
        }
        self.regions.insert(range.start, Region { range, class });
        Ok(())
    }

    /// Finds the first free range of `length` bytes in a zone, with room for guard pages on both
    /// sides, marks it as in use and returns its first address.
    ///
    /// # Errors
    /// `BadRange` unless `length` is one or more whole pages; `WrongZone`; `NoRoom`.
    pub fn allocate(&mut self, zone: Zone, length: usize, class: PageClass) -> Result<usize, RegionError> {
        // The region and the guard page above it end where the gap ends, or before.
        let fits = |start: usize, end: usize| end.saturating_sub(start) > length;
        let mut start = zone.base() + PAGE_SIZE;
        for (_, region) in self.regions.range(zone.range()) {
            if fits(start, region.range.start) {
                break;
            }
            start = region.range.end + PAGE_SIZE;
        }
        if !fits(start, zone.end()) {
            return Err(RegionError::NoRoom(zone));
        }
        self.insert(start..start + length, class)?;
        Ok(start)
    }

    /// Forgets the region that begins at `start` and returns it.
    pub fn remove(&mut self, start: usize) -> Option<Region> {
        self.regions.remove(&start)
    }

    /// The region that an address lies in.
    pub fn lookup(&self, address: usize) -> Option<&Region> {
        let (_, region) = self.regions.range(..=address).next_back()?;
        region.range.contains(&address).then_some(region)
    }

    /// All regions in the order of their addresses.
    pub fn regions(&self) -> impl Iterator<Item = &Region> {
        self.regions.values()
    }

    /// The last region that begins before an address.
    fn last_before(&self, address: usize) -> Option<&Region> {
        self.regions.range(..address).next_back().map(|(_, region)| region)
    }
}

impl fmt::Display for RegionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadRange => f.write_str("a region consists of one or more whole pages"),
            Self::OutsideZones => f.write_str("a region lies in one zone"),
            Self::WrongZone(class, zone) => write!(f, "the zone \"{zone}\" takes no {class}"),
            Self::Overlap(other) => {
                write!(f, "the range from {:#x} to {:#x} is in use already", other.start, other.end)
            }
            Self::NoRoom(zone) => write!(f, "the zone \"{zone}\" is full"),
        }
    }
}

impl core::error::Error for RegionError {}

#[cfg(test)]
mod tests;
