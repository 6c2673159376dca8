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
use core::num::{NonZeroU16, NonZeroUsize};
use rx::{RX_FRAME_MAX, RxQueue};
use smoltcp::phy::{self, DeviceCapabilities, Medium, PacketMeta};
use smoltcp::time::Instant;
use smoltcp::wire::EthernetAddress;
use tx::TxQueue;
use xen_abi::PAGE_SIZE;
use xen_abi::io::netif::NetifExtraType;

/// IP packet size on the wire (`public/io/netif.h`, section MTU: 1500 unless given otherwise).
pub const MTU: usize = 1500;

/// Largest frame handed to the backend for segmentation: 44 full segments and their headers, so
/// that no short segment ends it. It stays below `XEN_NETIF_MAX_TX_SIZE` and fills 16 pages.
const GSO_FRAME: usize = ETHERNET_HEADER + 40 + 44 * (MTU - 40);

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
        let frame_pages = match features.gso {
            true => GSO_FRAME.div_ceil(PAGE_SIZE),
            false => 1,
        };
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
    /// The received packet that the stack has not taken yet.
    frame: Vec<u8>,
    frame_len: usize,
    counters: Counters,
}

impl<L: Link> Device<L> {
    /// A device without a connection: no packet comes in or goes out.
    pub fn new() -> Self {
        Self { connection: None, frame: vec![0; RX_FRAME_MAX], frame_len: 0, counters: Counters::default() }
    }

    /// Replaces the connection by `connection`; the old one, if any, is dropped.
    pub fn attach(&mut self, connection: Option<Connection<L>>) {
        self.connection = connection;
        self.frame_len = 0;
    }

    /// Drops the parent's connection, in the child of a fork, and resets the counters.
    pub fn begin_life(&mut self) {
        self.attach(None);
        self.counters = Counters::default();
    }

    /// The features agreed with the present backend; `None` without one.
    pub fn features(&self) -> Option<Features> {
        self.connection.as_ref().map(|c| c.features)
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

impl<L: Link> phy::Device for Device<L> {
    type RxToken<'a>
        = RxToken<'a>
    where
        L: 'a;
    type TxToken<'a>
        = TxToken<'a, L>
    where
        L: 'a;

    fn receive(&mut self, _now: Instant) -> Option<(RxToken<'_>, TxToken<'_, L>)> {
        let connection = self.connection.as_mut()?;
        if self.frame_len == 0 || !connection.tx.has_room() {
            return None;
        }
        let bytes = &self.frame[..core::mem::take(&mut self.frame_len)];
        let reply = TxToken { connection, sent: &mut self.counters.sent, segment: None };
        Some((RxToken { bytes }, reply))
    }

    fn transmit(&mut self, _now: Instant) -> Option<TxToken<'_, L>> {
        let connection = self.connection.as_mut()?;
        connection.tx.has_room().then_some(TxToken { connection, sent: &mut self.counters.sent, segment: None })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut caps = DeviceCapabilities::default();
        caps.medium = Medium::Ethernet;
        caps.max_transmission_unit = ETHERNET_HEADER + MTU;
        // Received packets have been checked in `fetch`. Sent UDP datagrams carry a full checksum:
        // they are short, and DHCP servers that read raw packets insist on it.
        caps.checksum.tcp = phy::Checksum::None;
        caps.checksum.udp = phy::Checksum::Tx;
        if self.features().is_some_and(|features| features.gso) {
            caps.segmentation.tcpv4 = NonZeroUsize::new(GSO_FRAME);
        }
        caps
    }
}

/// A received packet.
#[derive(Debug)]
pub struct RxToken<'a> {
    bytes: &'a [u8],
}

impl phy::RxToken for RxToken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.bytes)
    }
}

/// Room for one packet to be sent.
#[derive(Debug)]
pub struct TxToken<'a, L: Link> {
    connection: &'a mut Connection<L>,
    sent: &'a mut u64,
    /// Payload of each segment, when the backend is to cut the packet.
    segment: Option<NonZeroU16>,
}

impl<L: Link> phy::TxToken for TxToken<'_, L> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let Connection { link, tx, .. } = self.connection;
        let start = tx.next_page() * PAGE_SIZE;
        let bytes = link.tx_bytes(start..start + len);
        let result = f(bytes);
        let checksum = frame::prepare(bytes);
        tx.send(link, len, checksum, self.segment);
        *self.sent += 1;
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.segment = meta.segmentation_offload_size;
    }
}
