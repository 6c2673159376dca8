//! Index arithmetic of the byte rings that the console and xenstore use.
//!
//! A ring of `size` bytes (a power of two) has two free-running 32-bit indices: `prod`, moved by
//! the writer, and `cons`, moved by the reader. `prod - cons` (wrapping) bytes are waiting; an
//! index masked with `size - 1` is a position in the buffer. See Xen's `public/io/console.h`
//! (`MASK_XENCONS_IDX`) and `public/io/xs_wire.h` (`MASK_XENSTORE_IDX`).
//!
//! One of the two indices belongs to the peer, which may write anything there. [`ByteRing`] refuses
//! a pair that no honest peer can produce. It touches no memory: the caller copies the returned
//! spans, with the barriers that the protocol asks for, and then publishes its own index advanced
//! by the number of bytes copied.

use core::fmt;
use core::ops::Range;
use xen_abi::io::ring::{RingIndex, RingOverflow};

/// The geometry of one byte ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRing {
    size: u32,
}

/// Up to two pieces of the ring's buffer, to be copied in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spans {
    /// Byte positions from the masked index up to, at most, the end of the buffer.
    pub first: Range<usize>,
    /// The part that continues at the start of the buffer; empty when nothing wraps.
    pub second: Range<usize>,
}

/// The peer wrote an index that contradicts the ring's size: more bytes in it than it can hold.
/// The peer is to blame; the ring cannot be used any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadIndex {
    /// The writer's index as found.
    pub prod: u32,
    /// The reader's index as found.
    pub cons: u32,
}

impl ByteRing {
    /// A ring with a buffer of `size` bytes.
    ///
    /// # Panics
    /// If `size` is not a power of two.
    pub const fn new(size: u32) -> Self {
        assert!(size.is_power_of_two(), "a ring's size is a power of two");
        Self { size }
    }

    /// The spans of the next unread bytes, at most `limit`.
    pub fn readable(self, prod: u32, cons: u32, limit: usize) -> Result<Spans, BadIndex> {
        let waiting = self.waiting(prod, cons)?;
        Ok(self.spans(cons, waiting, limit))
    }

    /// The spans for the next bytes to write, at most `limit`.
    pub fn writable(self, prod: u32, cons: u32, limit: usize) -> Result<Spans, BadIndex> {
        let space = self.size - self.waiting(prod, cons)?;
        Ok(self.spans(prod, space, limit))
    }

    /// Number of bytes written and not yet read.
    pub fn waiting(self, prod: u32, cons: u32) -> Result<u32, BadIndex> {
        RingIndex(prod).ahead_of(RingIndex(cons), self.size).map_err(|RingOverflow| BadIndex { prod, cons })
    }

    fn spans(self, index: u32, available: u32, limit: usize) -> Spans {
        let start = RingIndex(index).slot(self.size);
        let first = RingIndex(index).contiguous(available, self.size).min(limit);
        let second = (available as usize).min(limit) - first;
        Spans { first: start..start + first, second: 0..second }
    }
}

impl Spans {
    /// Number of bytes in both pieces.
    pub fn len(&self) -> usize {
        self.first.len() + self.second.len()
    }

    /// True when there is nothing to copy.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for BadIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the peer of a ring wrote impossible indices (prod {}, cons {})", self.prod, self.cons)
    }
}

impl core::error::Error for BadIndex {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;
    use std::collections::VecDeque;
    use std::vec::Vec;

    const RING: ByteRing = ByteRing::new(16);

    #[test]
    fn empty_full_and_wrapped() {
        assert!(RING.readable(7, 7, 100).unwrap().is_empty());
        assert_eq!(RING.writable(7, 7, 100).unwrap(), Spans { first: 7..16, second: 0..7 });
        assert!(RING.writable(23, 7, 100).unwrap().is_empty());
        assert_eq!(RING.readable(23, 7, 100).unwrap(), Spans { first: 7..16, second: 0..7 });
        assert_eq!(RING.readable(23, 7, 10).unwrap(), Spans { first: 7..16, second: 0..1 });
        assert_eq!(RING.readable(23, 7, 3).unwrap(), Spans { first: 7..10, second: 0..0 });
    }

    #[test]
    fn indices_run_freely_over_the_32_bit_edge() {
        assert_eq!(RING.waiting(3, u32::MAX - 4), Ok(8));
        assert_eq!(RING.readable(3, u32::MAX - 4, 100).unwrap(), Spans { first: 11..16, second: 0..3 });
    }

    #[test]
    fn impossible_indices_are_refused() {
        assert_eq!(RING.waiting(17, 0), Err(BadIndex { prod: 17, cons: 0 }));
        assert_eq!(RING.writable(0, 1, 1), Err(BadIndex { prod: 0, cons: 1 }));
    }

    #[test]
    fn behaves_like_a_queue() {
        let mut random = Random::new(1);
        let mut buffer = [0u8; 16];
        let (mut prod, mut cons) = (u32::MAX - 100, u32::MAX - 100);
        let mut model = VecDeque::new();
        for round in 0..2000u32 {
            let limit = random.below(20) as usize;
            if random.chance(2) {
                let spans = RING.writable(prod, cons, limit).unwrap();
                assert_eq!(spans.len(), limit.min(16 - model.len()));
                for position in spans.first.chain(spans.second) {
                    buffer[position] = round as u8;
                    model.push_back(round as u8);
                    prod = prod.wrapping_add(1);
                }
            } else {
                let spans = RING.readable(prod, cons, limit).unwrap();
                let read: Vec<u8> = spans.first.chain(spans.second).map(|at| buffer[at]).collect();
                cons = cons.wrapping_add(read.len() as u32);
                assert!(read.iter().eq(model.drain(..read.len()).collect::<Vec<_>>().iter()));
            }
            assert_eq!(RING.waiting(prod, cons), Ok(model.len() as u32));
        }
    }
}
