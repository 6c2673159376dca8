//! Sending: slots of the transmit ring over consecutive pages of the transmit buffer.

use super::Fault;
use super::wire;
use crate::frame::Checksum;
use crate::platform::{Link, SharedPage};
use crate::rings::{BadProducer, FrontRing};
use alloc::vec;
use alloc::vec::Vec;
use core::num::NonZeroU16;
use xen_abi::PAGE_SIZE;
use xen_abi::io::netif::{
    NetifExtraFlags, NetifExtraInfo, NetifExtraType, NetifGsoType, NetifStatus, NetifTxRequest, NetifTxResponse,
    NettxFlags, XEN_NETIF_MAX_TX_SIZE,
};

/// The transmit ring and the state of the transmit pages.
///
/// A packet starts at the beginning of a page and fills consecutive ones; each page goes into its
/// own slot with the page's number as id. Answers may come in any order.
#[derive(Debug)]
pub struct TxQueue {
    ring: FrontRing<3>,
    /// True for each page in flight.
    busy: Vec<bool>,
    /// Extra slots in flight; they are answered without an id.
    extras: u32,
    /// The first page of the next packet, if it is free.
    next: usize,
    /// Pages from `next` on that are known to be free.
    run: usize,
    /// Pages of the largest packet.
    frame_pages: usize,
}

impl TxQueue {
    pub fn new(link: &impl Link, pages: usize, frame_pages: usize) -> Self {
        Self {
            ring: FrontRing::new(link.tx_ring()),
            busy: vec![false; pages],
            extras: 0,
            next: 0,
            run: pages,
            frame_pages,
        }
    }

    /// True if the largest packet could be sent now. It would then begin at
    /// [`next_page`](Self::next_page).
    pub fn has_room(&mut self) -> bool {
        // One slot more for the extra info.
        self.ring.free() as usize > self.frame_pages && (self.run >= self.frame_pages || self.find_run())
    }

    /// First page of the next packet.
    pub fn next_page(&self) -> usize {
        self.next
    }

    /// Queues the packet of `len` bytes that was written at [`next_page`](Self::next_page), after
    /// [`has_room`](Self::has_room) has returned true.
    pub fn send(&mut self, link: &impl Link, len: usize, checksum: Checksum, segment: Option<NonZeroU16>) {
        let pages = len.div_ceil(PAGE_SIZE);
        assert!(pages <= self.run && len <= XEN_NETIF_MAX_TX_SIZE);
        let mut flags = match checksum {
            Checksum::Blank => NettxFlags::CSUM_BLANK | NettxFlags::DATA_VALIDATED,
            Checksum::Complete => NettxFlags::DATA_VALIDATED,
            Checksum::None => NettxFlags::empty(),
        };
        flags.set(NettxFlags::EXTRA_INFO, segment.is_some());
        let ring = link.tx_ring();
        for (index, page) in (self.next..self.next + pages).enumerate() {
            flags.set(NettxFlags::MORE_DATA, index + 1 < pages);
            // The first slot has the size of the whole packet, the others their own.
            let size = match index {
                0 => len,
                _ => (len - index * PAGE_SIZE).min(PAGE_SIZE),
            };
            let request =
                NetifTxRequest { gref: link.tx_gref(page), offset: 0, flags, id: page as u16, size: size as u16 };
            self.ring.put(ring, wire::tx_request(request));
            self.busy[page] = true;
            if let Some(segment) = segment
                && index == 0
            {
                let extra = NetifExtraInfo {
                    kind: NetifExtraType::GSO,
                    flags: NetifExtraFlags::empty(),
                    u: [segment.get(), u16::from(NetifGsoType::TCPV4.0), 0],
                };
                self.ring.put(ring, wire::tx_extra(extra));
                self.extras += 1;
            }
            flags = NettxFlags::empty();
        }
        self.next += pages;
        self.run -= pages;
    }

    /// Takes back answered pages. Returns the number of slots that the backend refused.
    pub fn reclaim(&mut self, ring: &impl SharedPage) -> Result<u64, Fault> {
        let mut refused = 0;
        let waiting = self.ring.responses(ring)?;
        for ahead in 0..waiting {
            let NetifTxResponse { id, status } = wire::tx_response(self.ring.peek(ring, ahead));
            if status == NetifStatus::NULL {
                self.extras = self.extras.checked_sub(1).ok_or(Fault::TxExtra)?;
                continue;
            }
            match self.busy.get_mut(usize::from(id)) {
                Some(busy) if *busy => *busy = false,
                _ => return Err(Fault::TxId(id)),
            }
            if status != NetifStatus::OKAY {
                refused += 1;
            }
        }
        self.ring.consume(waiting);
        Ok(refused)
    }

    /// Asks for an event at the next answer; true when one is there already.
    pub fn arm(&self, ring: &impl SharedPage) -> Result<bool, BadProducer> {
        Ok(self.ring.arm(ring, 0)? > 0)
    }

    /// Makes queued packets visible; true when the backend wants to be notified.
    pub fn push(&mut self, ring: &impl SharedPage) -> bool {
        self.ring.push(ring)
    }

    /// Looks for enough free pages in a row, from `next` on, then from the start.
    fn find_run(&mut self) -> bool {
        for from in [self.next, 0] {
            let mut start = from;
            for page in from..=self.busy.len() {
                if self.busy.get(page) == Some(&false) {
                    continue;
                }
                if page - start >= self.frame_pages {
                    (self.next, self.run) = (start, page - start);
                    return true;
                }
                start = page + 1;
            }
        }
        false
    }
}
