//! The places of a pVM's own records, parsed from its control page and checked.

use core::fmt;
use core::ops::Range;

use zooid_memory::{PAGE_SIZE, Zone};

use crate::wire::{MAGIC, VERSION, guest};

/// The places of a pVM's own records, all in the IMAGE zone and apart from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The entry of a prepared domain.
    pub entry: u64,
    /// The number of frames that p2m and bitmaps have room for.
    pub p2m_entries: usize,
    /// Address of the p2m list.
    pub p2m: usize,
    /// Address of the bitmaps.
    pub bitmaps: usize,
    /// Address of the start_info page.
    pub start_info: usize,
}

/// The reason for which a control page does not describe a pVM that can be forked. The guest is to
/// blame, or is of another version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutError {
    /// The page is no control page, or not yet one.
    Magic,
    /// The page is of a version that is not known here.
    Version(u32),
    /// The p2m has room for no frame, or for more than the domain may have.
    Size(u64),
    /// The record of this name is at a forbidden place.
    Place(&'static str),
}

impl Layout {
    /// Reads it from a copy of a control page. The domain may have `most_frames` frames.
    ///
    /// # Errors
    /// See [`LayoutError`].
    pub fn parse(page: &[u8; PAGE_SIZE], most_frames: u64) -> Result<Self, LayoutError> {
        if u64_at(page, guest::MAGIC) != MAGIC {
            return Err(LayoutError::Magic);
        }
        let version = u32_at(page, guest::VERSION);
        if version != VERSION {
            return Err(LayoutError::Version(version));
        }
        let frames = u64_at(page, guest::P2M_ENTRIES);
        if frames == 0 || frames > most_frames {
            return Err(LayoutError::Size(frames));
        }
        let layout = Self {
            entry: u64_at(page, guest::ENTRY),
            p2m_entries: frames as usize,
            p2m: u64_at(page, guest::P2M) as usize,
            bitmaps: u64_at(page, guest::BITMAPS) as usize,
            start_info: u64_at(page, guest::START_INFO) as usize,
        };
        layout.check()
    }

    fn check(self) -> Result<Self, LayoutError> {
        let ranges = [
            ("p2m", self.p2m, self.p2m_pages()),
            ("bitmaps", self.bitmaps, self.bitmap_pages()),
            ("start_info", self.start_info, 1),
        ]
        .map(|(name, start, pages)| (name, start..start.saturating_add(pages.saturating_mul(PAGE_SIZE))));
        let inside = |range: &Range<usize>| Zone::Image.base() <= range.start && range.end <= Zone::Image.end();
        for (at, (name, range)) in ranges.iter().enumerate() {
            let apart = ranges[..at].iter().all(|(_, other)| range.end <= other.start || other.end <= range.start);
            if !range.start.is_multiple_of(PAGE_SIZE) || !inside(range) || !apart {
                return Err(LayoutError::Place(name));
            }
        }
        if !Zone::Image.range().contains(&(self.entry as usize)) {
            return Err(LayoutError::Place("entry"));
        }
        Ok(self)
    }

    /// Pages of the p2m list.
    pub const fn p2m_pages(&self) -> usize {
        (self.p2m_entries * 8).div_ceil(PAGE_SIZE)
    }

    /// Words of one of the two bitmaps.
    pub const fn bitmap_words(&self) -> usize {
        self.p2m_entries.div_ceil(64)
    }

    /// Pages of both bitmaps, which lie one right behind the other.
    pub const fn bitmap_pages(&self) -> usize {
        (2 * 8 * self.bitmap_words()).div_ceil(PAGE_SIZE)
    }
}

fn u32_at(page: &[u8; PAGE_SIZE], at: usize) -> u32 {
    u32::from_le_bytes(*page[at..].first_chunk().expect("fields lie in the page"))
}

fn u64_at(page: &[u8; PAGE_SIZE], at: usize) -> u64 {
    u64::from_le_bytes(*page[at..].first_chunk().expect("fields lie in the page"))
}

impl fmt::Display for LayoutError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => out.write_str("the granted page is no control page"),
            Self::Version(version) => write!(out, "the control page is of version {version}; {VERSION} is known"),
            Self::Size(frames) => write!(out, "the control page speaks of {frames} frames"),
            Self::Place(name) => write!(out, "the control page says of {name} that it lies where it must not"),
        }
    }
}

impl core::error::Error for LayoutError {}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: u64 = Zone::Image.base() as u64;

    fn page() -> [u8; PAGE_SIZE] {
        let mut page = [0; PAGE_SIZE];
        let mut put = |at: usize, value: u64| page[at..at + 8].copy_from_slice(&value.to_le_bytes());
        put(guest::MAGIC, MAGIC);
        put(guest::VERSION, VERSION.into());
        put(guest::ENTRY, IMAGE + 0x123);
        put(guest::P2M_ENTRIES, 2048);
        put(guest::P2M, IMAGE + 0x10_0000);
        put(guest::BITMAPS, IMAGE + 0x20_0000);
        put(guest::START_INFO, IMAGE + 0x10_4000);
        page
    }

    fn with(at: usize, value: u64) -> Result<Layout, LayoutError> {
        let mut page = page();
        page[at..at + 8].copy_from_slice(&value.to_le_bytes());
        Layout::parse(&page, 4096)
    }

    #[test]
    fn a_sound_page_is_understood() {
        let layout = Layout::parse(&page(), 2048).unwrap();
        assert_eq!((layout.p2m_entries, layout.p2m_pages(), layout.bitmap_pages()), (2048, 4, 1));
        assert_eq!((layout.entry, layout.start_info as u64), (IMAGE + 0x123, IMAGE + 0x10_4000));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        assert_eq!(with(guest::MAGIC, 1), Err(LayoutError::Magic));
        assert_eq!(with(guest::VERSION, 1), Err(LayoutError::Version(1)));
        for frames in [0, 4097, u64::MAX] {
            assert_eq!(with(guest::P2M_ENTRIES, frames), Err(LayoutError::Size(frames)));
        }
        for place in [0, IMAGE + 8, IMAGE - 0x1000, IMAGE + 0x4000_0000 - 0x1000, !0xfff] {
            assert_eq!(with(guest::P2M, place), Err(LayoutError::Place("p2m")), "{place:#x}");
        }
        assert_eq!(with(guest::BITMAPS, IMAGE + 0x10_3000), Err(LayoutError::Place("bitmaps")));
        assert_eq!(with(guest::START_INFO, IMAGE + 0x20_0000), Err(LayoutError::Place("start_info")));
        assert_eq!(with(guest::ENTRY, 0x1000), Err(LayoutError::Place("entry")));
    }
}
