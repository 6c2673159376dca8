//! The front half of a shared ring (`public/io/ring.h`), for slots of any whole number of words.
//!
//! The contents of the ring page can change at any time. Only the backend's producer index and the
//! slots are read. The index is refused when it claims more responses than there are requests
//! outstanding, and a slot is copied once. Our own indices are kept here and never read back from
//! the page.

use crate::platform::SharedPage;
use core::sync::atomic::{Ordering, fence};
use xen_abi::PAGE_SIZE;
use xen_abi::io::netif::{NETIF_RX_RING_SIZE, NETIF_TX_RING_SIZE};
use xen_abi::io::ring::{RingIndex, must_notify};

/// Slots of a ring of either direction.
pub const RING_SLOTS: u32 = NETIF_TX_RING_SIZE;
const _: () = assert!(RING_SLOTS == NETIF_RX_RING_SIZE);

// Words of `struct *_sring`: four indices, 48 bytes of padding, then the slots.
const REQ_PROD: usize = 0;
const REQ_EVENT: usize = 1;
const RSP_PROD: usize = 2;
const RSP_EVENT: usize = 3;
const RING: usize = 16;
const PAGE_WORDS: usize = PAGE_SIZE / 4;

/// The backend's producer index lies outside of the outstanding requests (blame: backend).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadProducer {
    /// The index as read.
    pub index: RingIndex,
}

/// Our half of a ring whose slots are `WORDS` 32-bit words wide.
#[derive(Debug)]
pub struct FrontRing<const WORDS: usize> {
    /// The index after the last written request, visible to the backend or not (`req_prod_pvt`).
    req_prod: RingIndex,
    /// The index after the last visible request (`sring->req_prod` as we last set it).
    req_pushed: RingIndex,
    /// The index after the last consumed response.
    rsp_cons: RingIndex,
}

impl<const WORDS: usize> FrontRing<WORDS> {
    /// Initialises `page` as an empty ring (`SHARED_RING_INIT`).
    pub fn new(page: &impl SharedPage) -> Self {
        for index in 0..PAGE_WORDS {
            page.write(index, 0);
        }
        page.write(REQ_EVENT, 1);
        page.write(RSP_EVENT, 1);
        let start = RingIndex(0);
        Self { req_prod: start, req_pushed: start, rsp_cons: start }
    }

    /// Requests that can still be written.
    pub fn free(&self) -> u32 {
        RING_SLOTS - self.req_prod.since(self.rsp_cons)
    }

    /// Requests written but not yet pushed.
    pub fn unpushed(&self) -> u32 {
        self.req_prod.since(self.req_pushed)
    }

    /// Index of the next request to be written.
    pub fn next_request(&self) -> RingIndex {
        self.req_prod
    }

    /// Index of the next response to be consumed.
    pub fn next_response(&self) -> RingIndex {
        self.rsp_cons
    }

    /// Writes one request. The caller has seen a [`free`](Self::free) slot.
    pub fn put(&mut self, page: &impl SharedPage, slot: [u32; WORDS]) {
        debug_assert!(self.free() > 0);
        let first = slot_word::<WORDS>(self.req_prod);
        for (offset, word) in slot.into_iter().enumerate() {
            page.write(first + offset, word);
        }
        self.req_prod = self.req_prod.plus(1);
    }

    /// Makes the written requests visible. Returns true when the backend wants to be notified
    /// (`RING_PUSH_REQUESTS_AND_CHECK_NOTIFY`).
    #[must_use = "the backend may be waiting for a notification"]
    pub fn push(&mut self, page: &impl SharedPage) -> bool {
        let old = self.req_pushed;
        let new = self.req_prod;
        if old == new {
            return false;
        }
        page.write(REQ_PROD, new.0);
        self.req_pushed = new;
        // The backend must see the requests before its req_event is read.
        fence(Ordering::SeqCst);
        must_notify(old, new, RingIndex(page.read(REQ_EVENT)))
    }

    /// Number of responses that wait to be consumed.
    ///
    /// # Errors
    /// The backend's index is impossible.
    pub fn responses(&self, page: &impl SharedPage) -> Result<u32, BadProducer> {
        let index = RingIndex(page.read(RSP_PROD));
        let outstanding = self.req_pushed.since(self.rsp_cons);
        index.ahead_of(self.rsp_cons, outstanding).map_err(|_| BadProducer { index })
    }

    /// Copies the response `ahead` places after the next one, without consuming it.
    pub fn peek(&self, page: &impl SharedPage, ahead: u32) -> [u32; WORDS] {
        let first = slot_word::<WORDS>(self.rsp_cons.plus(ahead));
        core::array::from_fn(|offset| page.read(first + offset))
    }

    /// Consumes `count` responses, which the caller has seen waiting.
    pub fn consume(&mut self, count: u32) {
        self.rsp_cons = self.rsp_cons.plus(count);
    }

    /// Asks to be notified of the response after the `seen` ones that are known to wait, and
    /// counts again (`RING_FINAL_CHECK_FOR_RESPONSES`). Without this call no notification comes.
    ///
    /// # Errors
    /// The backend's index is impossible.
    #[must_use = "a response that is there already causes no notification"]
    pub fn arm(&self, page: &impl SharedPage, seen: u32) -> Result<u32, BadProducer> {
        page.write(RSP_EVENT, self.rsp_cons.plus(seen + 1).0);
        // The backend must see our rsp_event before responses are counted again.
        fence(Ordering::SeqCst);
        self.responses(page)
    }
}

fn slot_word<const WORDS: usize>(index: RingIndex) -> usize {
    RING + index.slot(RING_SLOTS) * WORDS
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::RefCell;

    struct Page(RefCell<[u32; PAGE_WORDS]>);

    impl SharedPage for Page {
        fn read(&self, index: usize) -> u32 {
            self.0.borrow()[index]
        }
        fn write(&self, index: usize, value: u32) {
            self.0.borrow_mut()[index] = value;
        }
    }

    fn ring() -> (Page, FrontRing<3>) {
        let page = Page(RefCell::new([0xdead_beef; PAGE_WORDS]));
        let ring = FrontRing::new(&page);
        (page, ring)
    }

    #[test]
    fn a_new_ring_is_empty_and_asks_for_the_first_event() {
        let (page, ring) = ring();
        assert_eq!(page.0.borrow()[..5], [0, 1, 0, 1, 0]);
        assert_eq!((ring.free(), ring.responses(&page)), (256, Ok(0)));
    }

    #[test]
    fn slots_lie_behind_the_header_and_wrap() {
        let (page, mut ring) = ring();
        for round in 0..300 {
            ring.put(&page, [round, 1, 2]);
            let _ = ring.push(&page);
            page.write(RSP_PROD, round + 1);
            ring.consume(1);
        }
        // Request 256 + n is in slot n.
        assert_eq!(page.read(RING), 256);
        assert_eq!(page.read(RING + 3 * 43), 299);
        assert_eq!(page.read(RING + 3 * 44), 44);
    }

    #[test]
    fn notifies_only_when_the_event_index_is_crossed() {
        let (page, mut ring) = ring();
        assert!(!ring.push(&page), "nothing to push");
        ring.put(&page, [0; 3]);
        assert!(ring.push(&page), "req_event is 1 at first");
        ring.put(&page, [0; 3]);
        assert!(!ring.push(&page), "backend is still awake");
        page.write(REQ_EVENT, 4);
        ring.put(&page, [0; 3]);
        assert!(!ring.push(&page));
        ring.put(&page, [0; 3]);
        ring.put(&page, [0; 3]);
        assert!(ring.push(&page), "3 -> 5 crosses 4");
    }

    #[test]
    fn indices_may_wrap_around_32_bits() {
        let (page, mut ring) = ring();
        let start = RingIndex(u32::MAX - 1);
        (ring.req_prod, ring.req_pushed, ring.rsp_cons) = (start, start, start);
        page.write(RSP_PROD, start.0);
        page.write(REQ_EVENT, u32::MAX);
        for _ in 0..4 {
            ring.put(&page, [7; 3]);
        }
        assert!(ring.push(&page));
        page.write(RSP_PROD, 2);
        assert_eq!(ring.responses(&page), Ok(4));
        page.write(RSP_PROD, 3);
        assert_eq!(ring.responses(&page), Err(BadProducer { index: RingIndex(3) }));
    }

    #[test]
    fn a_producer_behind_us_or_beyond_the_requests_is_refused() {
        let (page, mut ring) = ring();
        for _ in 0..8 {
            ring.put(&page, [0; 3]);
        }
        assert_eq!(ring.responses(&page), Ok(0));
        page.write(RSP_PROD, 1);
        assert!(ring.responses(&page).is_err(), "nothing pushed yet");
        let _ = ring.push(&page);
        page.write(RSP_PROD, 8);
        assert_eq!(ring.responses(&page), Ok(8));
        ring.consume(8);
        for index in [7, 9, 300, u32::MAX] {
            page.write(RSP_PROD, index);
            assert!(ring.arm(&page, 0).is_err(), "{index}");
        }
    }

    #[test]
    fn arming_asks_for_the_next_response() {
        let (page, mut ring) = ring();
        ring.put(&page, [0; 3]);
        ring.put(&page, [0; 3]);
        let _ = ring.push(&page);
        page.write(RSP_PROD, 1);
        assert_eq!(ring.arm(&page, 0), Ok(1));
        assert_eq!(ring.arm(&page, 1), Ok(1));
        ring.consume(1);
        assert_eq!(ring.arm(&page, 0), Ok(0));
        assert_eq!(page.read(RSP_EVENT), 2);
    }
}
