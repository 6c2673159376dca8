//! The frame allocator: the book of the guest's free page frames.
//!
//! It is a bitmap with one bit per pfn, set while the frame is free. The caller provides its
//! memory, because frames are handed out before there is a heap. Single frames are found by a
//! next-fit scan over words of 64 frames; runs of frames, which are rare, by a first-fit scan from
//! the start.

use core::fmt;
use core::ops::Range;
use xen_abi::Pfn;

/// Hands out page frames.
#[derive(Debug)]
pub struct FrameAllocator<'a> {
    /// Bit `pfn % 64` of word `pfn / 64` is set while the frame is free.
    bitmap: &'a mut [u64],
    total: u64,
    free: u64,
    /// The word at which the next search for a single frame begins.
    next_word: usize,
}

/// A frame that cannot be given back. The caller is to blame: its books are wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreeError {
    /// The frame is free already.
    DoubleFree(Pfn),
    /// The guest has no such frame.
    OutOfRange(Pfn),
}

/// Number of bitmap words that [`FrameAllocator::new`] needs for `nr_pages` frames.
pub const fn bitmap_words(nr_pages: u64) -> usize {
    nr_pages.div_ceil(64) as usize
}

impl<'a> FrameAllocator<'a> {
    /// An allocator for the frames below `nr_pages`, all of them in use. The old contents of
    /// `bitmap` do not matter.
    ///
    /// # Panics
    /// If `bitmap` has fewer than [`bitmap_words`] words.
    pub fn new(bitmap: &'a mut [u64], nr_pages: u64) -> Self {
        let bitmap = &mut bitmap[..bitmap_words(nr_pages)];
        bitmap.fill(0);
        Self { bitmap, total: nr_pages, free: 0, next_word: 0 }
    }

    /// Takes one frame, or `None` when all are in use.
    pub fn alloc(&mut self) -> Option<Pfn> {
        if self.free == 0 {
            return None;
        }
        let (before, from) = self.bitmap.split_at(self.next_word);
        let word = match from.iter().position(|&bits| bits != 0) {
            Some(offset) => self.next_word + offset,
            None => before.iter().position(|&bits| bits != 0)?,
        };
        let bit = self.bitmap[word].trailing_zeros();
        self.bitmap[word] &= !(1 << bit);
        self.free -= 1;
        self.next_word = word;
        Some(Pfn(word as u64 * 64 + u64::from(bit)))
    }

    /// Takes `count` frames in a row and returns the first, or `None` when there is no such run.
    ///
    /// # Panics
    /// If `count` is 0.
    pub fn alloc_contiguous(&mut self, count: u64) -> Option<Pfn> {
        assert!(count > 0, "a run of no frames has no first frame");
        let mut end = 0;
        loop {
            let start = self.find(end, |bits| bits)?;
            end = self.find(start, |bits| !bits).unwrap_or(self.total);
            if end - start >= count {
                for (word, mask) in words(start..start + count) {
                    self.bitmap[word] &= !mask;
                }
                self.free -= count;
                return Some(Pfn(start));
            }
        }
    }

    /// Gives one frame back.
    ///
    /// # Errors
    /// See [`FreeError`]; nothing has changed in that case.
    pub fn free(&mut self, pfn: Pfn) -> Result<(), FreeError> {
        if pfn.0 >= self.total {
            return Err(FreeError::OutOfRange(pfn));
        }
        self.free_range(pfn..Pfn(pfn.0 + 1))
    }

    /// Gives a range of frames back. Boot does so first.
    ///
    /// # Errors
    /// See [`FreeError`], which names the first wrong frame; nothing has changed in that case.
    pub fn free_range(&mut self, frames: Range<Pfn>) -> Result<(), FreeError> {
        let Range { start: Pfn(start), end: Pfn(end) } = frames;
        if start >= end {
            return Ok(());
        }
        if end > self.total {
            return Err(FreeError::OutOfRange(Pfn(start.max(self.total))));
        }
        for (word, mask) in words(start..end) {
            let twice = self.bitmap[word] & mask;
            if twice != 0 {
                let pfn = word as u64 * 64 + u64::from(twice.trailing_zeros());
                return Err(FreeError::DoubleFree(Pfn(pfn)));
            }
        }
        for (word, mask) in words(start..end) {
            self.bitmap[word] |= mask;
        }
        self.free += end - start;
        Ok(())
    }

    /// Counts the free frames of the bitmap anew, after a change by other code.
    pub fn recount(&mut self) {
        self.free = self.bitmap.iter().map(|word| u64::from(word.count_ones())).sum();
        self.next_word = 0;
    }

    /// Number of frames that can be taken.
    pub fn free_frames(&self) -> u64 {
        self.free
    }

    /// Number of all frames, taken or not.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The first frame at or behind `from` whose bit is set in `view` of the bitmap.
    fn find(&self, from: u64, view: impl Fn(u64) -> u64) -> Option<u64> {
        words(from..self.total).find_map(|(word, mask)| {
            let bits = view(self.bitmap[word]) & mask;
            (bits != 0).then(|| word as u64 * 64 + u64::from(bits.trailing_zeros()))
        })
    }
}

impl fmt::Display for FreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DoubleFree(pfn) => write!(f, "the frame with pfn {:#x} was freed twice", pfn.0),
            Self::OutOfRange(pfn) => write!(f, "there is no frame with pfn {:#x}", pfn.0),
        }
    }
}

impl core::error::Error for FreeError {}

/// The bitmap words that a range of bits touches, each with the mask of the bits in the range.
fn words(bits: Range<u64>) -> impl Iterator<Item = (usize, u64)> {
    let Range { start, end } = bits;
    let touched = if start < end { start / 64..end.div_ceil(64) } else { 0..0 };
    touched.map(move |word| {
        let first = start.saturating_sub(word * 64);
        let behind = (end - word * 64).min(64);
        (word as usize, (u64::MAX >> (64 - (behind - first))) << first)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;
    use std::vec;
    use std::vec::Vec;

    #[test]
    fn everything_is_in_use_at_first() {
        let mut bitmap = [u64::MAX; 2];
        let mut frames = FrameAllocator::new(&mut bitmap, 70);
        assert_eq!((frames.total(), frames.free_frames()), (70, 0));
        assert_eq!(frames.alloc(), None);
        assert_eq!(frames.alloc_contiguous(1), None);
    }

    #[test]
    fn hands_out_each_frame_once() {
        let mut bitmap = [0; bitmap_words(200)];
        let mut frames = FrameAllocator::new(&mut bitmap, 200);
        frames.free_range(Pfn(3)..Pfn(200)).unwrap();
        let mut seen: Vec<u64> = core::iter::from_fn(|| frames.alloc()).map(|pfn| pfn.0).collect();
        seen.sort_unstable();
        assert!(seen.into_iter().eq(3..200));
        assert_eq!(frames.free_frames(), 0);
    }

    #[test]
    fn wrong_frees_are_refused_by_name() {
        let mut bitmap = [0; 2];
        let mut frames = FrameAllocator::new(&mut bitmap, 100);
        assert_eq!(frames.free(Pfn(100)), Err(FreeError::OutOfRange(Pfn(100))));
        assert_eq!(frames.free(Pfn(u64::MAX)), Err(FreeError::OutOfRange(Pfn(u64::MAX))));
        assert_eq!(frames.free_range(Pfn(90)..Pfn(101)), Err(FreeError::OutOfRange(Pfn(100))));
        frames.free(Pfn(64)).unwrap();
        assert_eq!(frames.free(Pfn(64)), Err(FreeError::DoubleFree(Pfn(64))));
        assert_eq!(frames.free_range(Pfn(0)..Pfn(100)), Err(FreeError::DoubleFree(Pfn(64))));
        assert_eq!(frames.free_frames(), 1);
        frames.free_range(Pfn(9)..Pfn(9)).unwrap();
        assert_eq!(frames.alloc(), Some(Pfn(64)));
    }

    #[test]
    fn runs_may_cross_words_and_use_the_last_frame() {
        let mut bitmap = [0; 4];
        let mut frames = FrameAllocator::new(&mut bitmap, 250);
        frames.free_range(Pfn(10)..Pfn(30)).unwrap();
        frames.free_range(Pfn(60)..Pfn(250)).unwrap();
        assert_eq!(frames.alloc_contiguous(191), None);
        assert_eq!(frames.alloc_contiguous(190), Some(Pfn(60)));
        assert_eq!(frames.alloc_contiguous(20), Some(Pfn(10)));
        assert_eq!(frames.free_frames(), 0);
    }

    #[test]
    fn behaves_like_a_set() {
        let mut random = Random::new(8);
        for nr_pages in [1, 63, 64, 65, 300] {
            let mut bitmap = vec![0; bitmap_words(nr_pages)];
            let mut frames = FrameAllocator::new(&mut bitmap, nr_pages);
            let mut free = vec![false; nr_pages as usize];
            for _ in 0..5000 {
                let start = random.below(nr_pages) as usize;
                let count = 1 + random.below(40) as usize;
                match random.below(3) {
                    0 => match frames.alloc() {
                        Some(Pfn(pfn)) => assert!(core::mem::take(&mut free[pfn as usize])),
                        None => assert!(!free.contains(&true)),
                    },
                    1 => {
                        let run = free.windows(count).position(|run| !run.contains(&false));
                        assert_eq!(frames.alloc_contiguous(count as u64), run.map(|at| Pfn(at as u64)));
                        if let Some(at) = run {
                            free[at..at + count].fill(false);
                        }
                    }
                    _ => {
                        let end = start + count;
                        let expected = match (start..end).find(|&at| free.get(at) == Some(&true)) {
                            _ if end > free.len() => Err(FreeError::OutOfRange(Pfn(nr_pages))),
                            Some(at) => Err(FreeError::DoubleFree(Pfn(at as u64))),
                            None => {
                                free[start..end].fill(true);
                                Ok(())
                            }
                        };
                        assert_eq!(frames.free_range(Pfn(start as u64)..Pfn(end as u64)), expected);
                    }
                }
                assert_eq!(frames.free_frames(), free.iter().filter(|&&f| f).count() as u64);
            }
        }
    }
}
