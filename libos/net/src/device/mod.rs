//! The network device: packets in and out of the rings of one connection.
//!
//! Both buffers are granted once and reused. A packet to be sent is written by the stack straight
//! into granted pages, which the backend only reads. A received packet is copied once into a
//! private buffer and checked there.

mod rx;
mod tx;
mod wire;

use crate::frame::{self, ETHERNET_HEADER, Frame};
use crate::platform::Link;
use crate::rings::BadProducer;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroU16;
use rx::{RX_FRAME_MAX, RxQueue};
use smoltcp::wire::EthernetAddress;
use tx::TxQueue;
use xen_abi::PAGE_SIZE;
use xen_abi::io::netif::{NetifExtraType, XEN_NETIF_MAX_TX_SIZE};

/// IP packet size on the wire unless the toolstack gives another (`public/io/netif.h`, section MTU).
pub const MTU: usize = 1500;

/// The smallest MTU that is taken: the packet that every host accepts (RFC 791, section 3.1).
pub const MTU_MIN: usize = 576;

/// The largest MTU that is taken.
pub const MTU_MAX: usize = XEN_NETIF_MAX_TX_SIZE - ETHERNET_HEADER;

/// Octets of the headers of a TCP segment over IPv4.
const HEADERS: usize = 40;

/// A violation of the protocol by the backend. The connection is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A ring's response producer index is impossible.
    Producer(BadProducer),
    /// A transmit response names a page that is not in flight.
    TxId(u16),
    /// A transmit response is of the kind that answers extra slots, but none is in flight.
    TxExtra,
    /// A receive response does not carry the id of the request in its slot.
    RxId(u16),
    /// A received piece does not lie within its page.
    RxRange {
        /// Its offset in the page, as given.
        offset: u16,
        /// Its length in bytes, as given.
        size: u16,
    },
    /// An extra slot of a type that does not exist.
    RxExtra(NetifExtraType),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Producer(bad) => write!(f, "impossible response index {}", bad.index.0),
            Self::TxId(id) => write!(f, "transmit response for page {id}, which is not in flight"),
            Self::TxExtra => f.write_str("transmit response for an extra slot that was not sent"),
            Self::RxId(id) => write!(f, "receive response with the wrong id {id}"),
            Self::RxRange { offset, size } => {
                write!(f, "receive response of {size} bytes at offset {offset}")
            }
            Self::RxExtra(kind) => write!(f, "receive extra slot of unknown type {kind}"),
        }
    }
}

impl core::error::Error for Fault {}

impl From<BadProducer> for Fault {
    fn from(bad: BadProducer) -> Self {
        Self::Producer(bad)
    }
}

/// The features agreed with the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// The interface's own address.
    pub mac: EthernetAddress,
    /// Both sides take packets of several pages and large TCP segments.
    pub gso: bool,
    /// Octets of the longest IP packet on the wire, [`MTU_MIN`] to [`MTU_MAX`].
    pub mtu: usize,
}

/// Counts of packets, delivered and not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets sent.
    pub sent: u64,
    /// Packets handed to the stack.
    pub received: u64,
    /// Packets that the backend refused to send.
    pub send_refused: u64,
    /// Received packets dropped: malformed, fragments, too long, or with a wrong checksum.
    pub receive_dropped: u64,
}

/// The rings and buffers of one connection to one backend.
#[derive(Debug)]
pub struct Connection<L: Link> {
    link: L,
    tx: TxQueue,
    rx: RxQueue,
    features: Features,
}

impl<L: Link> Connection<L> {
    /// Initialises the rings of `link` and posts all receive pages. It must come before the backend
    /// maps the rings.
    ///
    /// # Panics
    /// When `tx_pages` or `rx_pages` is not a result of [`Pages::new`].
    pub fn new(link: L, pages: Pages, features: Features) -> Self {
        let largest = ETHERNET_HEADER + if features.gso { MTU_MAX } else { features.mtu };
        let frame_pages = largest.div_ceil(PAGE_SIZE);
        let tx = TxQueue::new(&link, pages.tx, frame_pages);
        let rx = RxQueue::new(&link, pages.rx);
        Self { link, tx, rx, features }
    }

    /// The link, for its grant references and port.
    pub fn link(&self) -> &L {
        &self.link
    }
}

/// Sizes of the two granted buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages {
    /// Pages of the transmit buffer.
    pub tx: usize,
    /// Receive pages.
    pub rx: usize,
}

impl Pages {
    /// Sizes rounded to those that the rings take: powers of two from 32 (one largest packet and
    /// more) to 256 (the slots of a ring).
    pub fn new(tx: usize, rx: usize) -> Self {
        let fit = |pages: usize| pages.clamp(32, 256).next_power_of_two();
        Self { tx: fit(tx), rx: fit(rx) }
    }
}

/// The device below the stack, connected or not.
#[derive(Debug)]
pub struct Device<L: Link> {
    connection: Option<Connection<L>>,
    /// The MTU that a network's own administration wants, [`MTU_MIN`] at least.
    mtu_limit: Option<usize>,
    /// The received packet that the stack has not taken yet.
    frame: Vec<u8>,
    frame_len: usize,
    counters: Counters,
}

impl<L: Link> Device<L> {
    /// A device without a connection: no packet comes in or goes out.
    pub fn new() -> Self {
        let frame = vec![0; RX_FRAME_MAX];
        Self { connection: None, mtu_limit: None, frame, frame_len: 0, counters: Counters::default() }
    }

    /// Replaces the connection by `connection`; the old one, if any, is dropped.
    pub fn attach(&mut self, connection: Option<Connection<L>>) {
        self.connection = connection;
        self.frame_len = 0;
    }

    /// Drops the parent's connection, in the child of a fork, and resets the counters.
    pub fn begin_life(&mut self) {
        self.attach(None);
        self.mtu_limit = None;
        self.counters = Counters::default();
    }

    /// The features agreed with the present backend; `None` without one.
    pub fn features(&self) -> Option<Features> {
        self.connection.as_ref().map(|c| c.features)
    }

    /// Octets of the longest IP packet on the wire.
    pub fn mtu(&self) -> usize {
        let own = self.features().map_or(MTU, |features| features.mtu);
        self.mtu_limit.map_or(own, |limit| own.min(limit))
    }

    /// Lowers the MTU to `limit`, but not below [`MTU_MIN`]: for an Ethernet that is a mistake, and
    /// an attack where each packet costs the same. `None`: the device's own counts.
    pub fn limit_mtu(&mut self, limit: Option<usize>) {
        self.mtu_limit = limit.map(|limit| limit.max(MTU_MIN));
    }

    /// Octets of the largest IP packet handed to the backend for segmentation: full segments and
    /// their headers, so that no short segment ends it. `None`: the backend cuts no packets.
    pub fn gso_packet(&self) -> Option<usize> {
        let segment = self.mtu() - HEADERS;
        self.features()?.gso.then_some(HEADERS + (MTU_MAX - HEADERS) / segment * segment)
    }

    /// The counts since the device was made.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Takes back the transmit pages that the backend is done with.
    ///
    /// # Errors
    /// The backend broke the protocol.
    pub fn reclaim(&mut self) -> Result<(), Fault> {
        let Some(c) = &mut self.connection else {
            return Ok(());
        };
        self.counters.send_refused += c.tx.reclaim(c.link.tx_ring())?;
        Ok(())
    }

    /// True if a packet of any size could be sent now.
    pub fn can_send(&mut self) -> bool {
        self.connection.as_mut().is_some_and(|c| c.tx.has_room())
    }

    /// Asks for an event when the backend gives transmit pages back. Returns true when some are
    /// back already.
    ///
    /// # Errors
    /// The backend broke the protocol.
    pub fn arm_send(&mut self) -> Result<bool, Fault> {
        match &self.connection {
            Some(c) => Ok(c.tx.arm(c.link.tx_ring())?),
            None => Ok(false),
        }
    }

    /// Fetches the next received packet for the stack and returns its kind. `None`: there is none
    /// now, and an event will follow the next one.
    ///
    /// # Errors
    /// The backend broke the protocol.
    pub fn fetch(&mut self) -> Result<Option<Frame>, Fault> {
        self.frame_len = 0;
        let Some(c) = &mut self.connection else {
            return Ok(None);
        };
        while let Some(packet) = c.rx.next(&c.link, &mut self.frame)? {
            let bytes = self.frame.get(..packet.len).unwrap_or_default();
            match frame::classify(bytes, packet.validated) {
                Some(frame) if !packet.dropped => {
                    self.counters.received += 1;
                    self.frame_len = packet.len;
                    return Ok(Some(frame));
                }
                _ => self.counters.receive_dropped += 1,
            }
        }
        Ok(None)
    }

    /// The packet that [`Device::fetch`] has fetched; empty when the stack has taken it.
    pub fn fetched(&self) -> &[u8] {
        &self.frame[..self.frame_len]
    }

    /// Takes a frame of the guest to itself in the place of a received one, and returns its kind.
    pub fn inject(&mut self, frame: &[u8]) -> Option<Frame> {
        self.frame.get_mut(..frame.len())?.copy_from_slice(frame);
        self.frame_len = frame.len();
        frame::classify(frame, true)
    }

    /// The packet that was fetched, which is taken by that, and room for an answer.
    pub fn receive(&mut self) -> Option<(&[u8], Slot<'_, L>)> {
        let connection = self.connection.as_mut()?;
        if self.frame_len == 0 || !connection.tx.has_room() {
            return None;
        }
        let bytes = &self.frame[..core::mem::take(&mut self.frame_len)];
        Some((bytes, Slot { connection, sent: &mut self.counters.sent }))
    }

    /// Room for one packet of any size.
    pub fn transmit(&mut self) -> Option<Slot<'_, L>> {
        let connection = self.connection.as_mut()?;
        connection.tx.has_room().then_some(Slot { connection, sent: &mut self.counters.sent })
    }

    /// Makes all written requests visible to the backend, and notifies it once if it asked for
    /// that.
    pub fn flush(&mut self) {
        if let Some(c) = &mut self.connection {
            let tx = c.tx.push(c.link.tx_ring());
            let rx = c.rx.push(c.link.rx_ring());
            if tx || rx {
                c.link.notify();
            }
        }
    }

    /// Notifies the backend even if it did not ask: it may have connected after the requests.
    pub fn kick(&self) {
        if let Some(c) = &self.connection {
            c.link.notify();
        }
    }
}

impl<L: Link> Default for Device<L> {
    fn default() -> Self {
        Self::new()
    }
}

/// Room for one packet to be sent.
pub struct Slot<'a, L: Link> {
    connection: &'a mut Connection<L>,
    sent: &'a mut u64,
}

impl<L: Link> Slot<'_, L> {
    /// True if the backend cuts TCP packets into segments.
    pub fn gso(&self) -> bool {
        self.connection.features.gso
    }

    /// The place for a frame of `len` octets, no more than the largest.
    pub fn bytes(&mut self, len: usize) -> &mut [u8] {
        let Connection { link, tx, .. } = &mut *self.connection;
        let start = tx.next_page() * PAGE_SIZE;
        link.tx_bytes(start..start + len)
    }

    /// Queues the frame of `len` octets that was written there. The backend cuts its payload into
    /// segments of `segment` octets.
    pub fn send(mut self, len: usize, segment: Option<NonZeroU16>) {
        let checksum = frame::prepare(self.bytes(len));
        let Connection { link, tx, .. } = self.connection;
        tx.send(link, len, checksum, segment);
        *self.sent += 1;
    }
}
