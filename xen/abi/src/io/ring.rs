//! `public/io/ring.h`: the arithmetic of rings in shared pages, as pure functions on values that
//! the caller has read.
//!
//! Indices run freely over all 32 bits and are reduced only where a slot is touched. A ring's size
//! is a power of two. The other end can write anything into the shared indices;
//! [`RingIndex::ahead_of`] checks them.

use crate::PAGE_SIZE;

/// A free-running index into a ring, `RING_IDX`.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RingIndex(pub u32);

/// The other end moved its index further than the ring is long. It is broken or hostile, and the
/// ring is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingOverflow;

impl core::fmt::Display for RingOverflow {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the other end's ring index is out of range")
    }
}

impl core::error::Error for RingOverflow {}

impl RingIndex {
    /// The index `count` further on.
    #[must_use]
    pub const fn plus(self, count: u32) -> RingIndex {
        RingIndex(self.0.wrapping_add(count))
    }

    /// The distance from `behind` to this index, modulo 2^32.
    #[must_use]
    pub const fn since(self, behind: RingIndex) -> u32 {
        self.0.wrapping_sub(behind.0)
    }

    /// The distance from `behind` to this index in a ring of `size`. For a producer's index, it is
    /// the number of entries to consume.
    ///
    /// # Errors
    /// [`RingOverflow`] if the distance is greater than `size`.
    pub const fn ahead_of(self, behind: RingIndex, size: u32) -> Result<u32, RingOverflow> {
        let count = self.since(behind);
        if count <= size { Ok(count) } else { Err(RingOverflow) }
    }

    /// The slot of a ring of `size` that this index names.
    #[must_use]
    pub const fn slot(self, size: u32) -> usize {
        debug_assert!(size.is_power_of_two());
        (self.0 & (size - 1)) as usize
    }

    /// The number of the next `count` slots that come before the ring of `size` wraps round.
    #[must_use]
    pub const fn contiguous(self, count: u32, size: u32) -> usize {
        let to_end = size as usize - self.slot(size);
        if (count as usize) < to_end { count as usize } else { to_end }
    }
}

/// True if a producer that moved from `old` to `new` must notify the other end, which asked for an
/// event at `event` (`RING_PUSH_REQUESTS_AND_CHECK_NOTIFY`). The caller reads `event` after it has
/// made `new` visible, with a full barrier between the two.
#[must_use]
pub const fn must_notify(old: RingIndex, new: RingIndex, event: RingIndex) -> bool {
    new.since(event) < new.since(old)
}

/// Start of the shared page of a request/response ring (`struct *_sring` of `DEFINE_RING_TYPES`);
/// its slots follow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Sring {
    /// Requests that the frontend has written.
    pub req_prod: RingIndex,
    /// The backend wants an event when `req_prod` reaches this.
    pub req_event: RingIndex,
    /// Responses that the backend has written.
    pub rsp_prod: RingIndex,
    /// The frontend wants an event when `rsp_prod` reaches this.
    pub rsp_event: RingIndex,
    /// Private to one end; this crate does not use it.
    pub pvt: [u8; 4],
    /// Zero.
    pub pad: [u8; 44],
}
assert_layout!(Sring, 64, req_prod: 0, req_event: 4, rsp_prod: 8, rsp_event: 12);

impl Sring {
    /// An unused ring (`SHARED_RING_INIT`): both ends want an event for the first entry.
    pub const EMPTY: Sring = Sring {
        req_prod: RingIndex(0),
        req_event: RingIndex(1),
        rsp_prod: RingIndex(0),
        rsp_event: RingIndex(1),
        pvt: [0; 4],
        pad: [0; 44],
    };

    /// Slots in a ring of one page whose larger entry has `entry_size` bytes (`__CONST_RING_SIZE`).
    #[must_use]
    pub const fn slots(entry_size: usize) -> u32 {
        1 << ((PAGE_SIZE - size_of::<Sring>()) / entry_size).ilog2()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_wrap() {
        let cons = RingIndex(u32::MAX - 1);
        let prod = cons.plus(4);
        assert_eq!(prod, RingIndex(2));
        assert_eq!(prod.ahead_of(cons, 8), Ok(4));
        assert_eq!((cons.slot(8), prod.slot(8)), (6, 2));
        assert_eq!((cons.contiguous(4, 8), cons.contiguous(1, 8)), (2, 1));
        assert_eq!(RingIndex(8).contiguous(8, 8), 8);
    }

    #[test]
    fn an_impossible_producer_is_refused() {
        assert_eq!(RingIndex(8).ahead_of(RingIndex(0), 8), Ok(8));
        assert_eq!(RingIndex(9).ahead_of(RingIndex(0), 8), Err(RingOverflow));
        assert_eq!(RingIndex(0).ahead_of(RingIndex(1), 8), Err(RingOverflow), "a producer never goes back");
    }

    #[test]
    fn notify_when_the_event_index_was_passed() {
        let i = |n: u32| RingIndex(n.wrapping_sub(3));
        assert!(must_notify(i(4), i(5), i(5)));
        assert!(must_notify(i(0), i(5), i(3)));
        assert!(!must_notify(i(4), i(5), i(6)), "not reached");
        assert!(!must_notify(i(4), i(5), i(4)), "passed before");
        assert!(!must_notify(i(5), i(5), i(5)), "nothing new");
    }
}
