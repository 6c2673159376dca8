//! Receiving: answered slots of the receive ring, copied into one private buffer.

use super::{Fault, wire};
use crate::platform::{Link, SharedPage};
use crate::rings::{FrontRing, RING_SLOTS};
use xen_abi::PAGE_SIZE;
use xen_abi::io::netif::{NetifExtraFlags, NetifExtraType, NetifRxRequest, NetrxFlags};
use xen_abi::io::ring::RingIndex;

/// Slots with data that a packet may have; Linux's netback uses up to 17, and one is kept spare.
const DATA_SLOTS_MAX: usize = 18;

/// Bytes of the longest packet: 64 KiB of IP, an Ethernet header, and room for VLAN tags.
pub const RX_FRAME_MAX: usize = 0x1_0000 + 64;

/// Requests given back before the backend is told, so that it never waits for the last one.
const REPOST_BATCH: u32 = 32;

/// The receive ring. Page `n` always belongs to the requests whose index is `n` modulo the number
/// of pages. A slot alone thus determines its page, and the id is only checked.
#[derive(Debug)]
pub struct RxQueue {
    ring: FrontRing<2>,
    pages: u32,
    notify: bool,
}

/// A packet taken from the ring.
pub struct Packet {
    /// Bytes copied into the caller's buffer.
    pub len: usize,
    /// The backend vouches for the TCP or UDP checksum.
    pub validated: bool,
    /// The packet is not to be used: the backend reported an error, or it was too long.
    pub dropped: bool,
}

impl RxQueue {
    pub fn new(link: &impl Link, pages: usize) -> Self {
        let mut this = Self { ring: FrontRing::new(link.rx_ring()), pages: pages as u32, notify: false };
        this.post(link, this.pages);
        this.notify = this.ring.push(link.rx_ring());
        this
    }

    /// Takes the next packet, copying it into `frame`, and posts its pages again. `None`: there
    /// is no whole packet, and an event will follow.
    pub fn next(&mut self, link: &impl Link, frame: &mut [u8]) -> Result<Option<Packet>, Fault> {
        let ring = link.rx_ring();
        let mut waiting = self.ring.responses(ring)?;
        loop {
            if waiting > 0
                && let Some((packet, slots)) = self.read(link, waiting, frame)?
            {
                self.ring.consume(slots);
                self.post(link, slots);
                if self.ring.unpushed() >= REPOST_BATCH {
                    self.notify |= self.ring.push(ring);
                }
                return Ok(Some(packet));
            }
            // Either there is no packet or the rest of one is missing.
            let seen = waiting;
            waiting = self.ring.arm(ring, seen)?;
            if waiting == seen {
                return Ok(None);
            }
        }
    }

    /// Makes posted pages visible; true when the backend wants to be notified.
    pub fn push(&mut self, ring: &impl SharedPage) -> bool {
        let notify = self.notify | self.ring.push(ring);
        self.notify = false;
        notify
    }

    /// Copies the packet at the head of the `waiting` responses. `None`: it is not complete.
    fn read(&self, link: &impl Link, waiting: u32, frame: &mut [u8]) -> Result<Option<(Packet, u32)>, Fault> {
        let ring = link.rx_ring();
        let mut packet = Packet { len: 0, validated: false, dropped: false };
        let mut slot = 0;
        let mut pieces = 0;
        loop {
            if slot == waiting {
                return Ok(None);
            }
            let piece = wire::rx_response(self.ring.peek(ring, slot));
            let index = self.ring.next_response().plus(slot);
            if usize::from(piece.id) != index.slot(RING_SLOTS) {
                return Err(Fault::RxId(piece.id));
            }
            slot += 1;
            pieces += 1;
            if pieces == 1 {
                packet.validated = piece.flags.intersects(NetrxFlags::DATA_VALIDATED | NetrxFlags::CSUM_BLANK);
                if piece.flags.contains(NetrxFlags::EXTRA_INFO) {
                    match self.skip_extras(ring, slot, waiting)? {
                        Some(next) => slot = next,
                        None => return Ok(None),
                    }
                }
            }
            match usize::try_from(piece.status) {
                Err(_) => packet.dropped = true,
                Ok(size) if usize::from(piece.offset) + size > PAGE_SIZE => {
                    return Err(Fault::RxRange { offset: piece.offset, size: size as u16 });
                }
                Ok(size) => match frame.get_mut(packet.len..packet.len + size) {
                    Some(out) if !packet.dropped && pieces <= DATA_SLOTS_MAX => {
                        let page = self.page(index);
                        link.rx_copy(page, usize::from(piece.offset), out);
                        packet.len += size;
                    }
                    _ => packet.dropped = true,
                },
            }
            if !piece.flags.contains(NetrxFlags::MORE_DATA) {
                return Ok(Some((packet, slot)));
            }
        }
    }

    /// The place after the extra slots that start at `slot`. `None`: some are missing.
    fn skip_extras(&self, ring: &impl SharedPage, mut slot: u32, waiting: u32) -> Result<Option<u32>, Fault> {
        while slot < waiting {
            // Nothing in an extra slot is needed: the segment size of a large packet only matters
            // to a host that forwards it.
            let extra = wire::rx_extra(self.ring.peek(ring, slot));
            match extra.kind {
                NetifExtraType::GSO | NetifExtraType::MCAST_ADD | NetifExtraType::MCAST_DEL | NetifExtraType::HASH => {}
                unknown => return Err(Fault::RxExtra(unknown)),
            }
            slot += 1;
            if !extra.flags.contains(NetifExtraFlags::MORE) {
                return Ok(Some(slot));
            }
        }
        Ok(None)
    }

    /// Posts the next `count` pages.
    fn post(&mut self, link: &impl Link, count: u32) {
        for _ in 0..count {
            let index = self.ring.next_request();
            let id = index.slot(RING_SLOTS) as u16;
            let request = NetifRxRequest { id, pad: 0, gref: link.rx_gref(self.page(index)) };
            self.ring.put(link.rx_ring(), wire::rx_request(request));
        }
    }

    fn page(&self, index: RingIndex) -> usize {
        index.slot(self.pages)
    }
}
