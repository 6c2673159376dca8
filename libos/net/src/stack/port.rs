//! The device as smoltcp sees it: IP packets, which go through the Ethernet layer.

use super::ethernet::{Ethernet, Way};
use crate::device::{Device, Slot};
use crate::frame::ETHERNET_HEADER;
use crate::platform::Link;
use core::num::{NonZeroU16, NonZeroUsize};
use smoltcp::phy::{self, DeviceCapabilities, Medium, PacketMeta};
use smoltcp::time::Instant;

/// A device of IP packets.
pub(super) struct Port<'a, L: Link> {
    pub device: &'a mut Device<L>,
    pub ethernet: &'a mut Ethernet,
}

impl<L: Link> phy::Device for Port<'_, L> {
    type RxToken<'a>
        = RxToken<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = TxToken<'a, L>
    where
        Self: 'a;

    fn receive(&mut self, now: Instant) -> Option<(RxToken<'_>, TxToken<'_, L>)> {
        let (frame, slot) = self.device.receive()?;
        let bytes = frame.get(ETHERNET_HEADER..).unwrap_or_default();
        Some((RxToken { bytes }, TxToken { slot, ethernet: self.ethernet, segment: None, now }))
    }

    fn transmit(&mut self, now: Instant) -> Option<TxToken<'_, L>> {
        let slot = self.device.transmit()?;
        Some(TxToken { slot, ethernet: self.ethernet, segment: None, now })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut caps = DeviceCapabilities::default();
        caps.medium = Medium::Ip;
        caps.max_transmission_unit = self.device.mtu();
        // Received packets have been checked in `fetch`. Sent UDP datagrams carry a full checksum:
        // they are short.
        caps.checksum.tcp = phy::Checksum::None;
        caps.checksum.udp = phy::Checksum::Tx;
        caps.segmentation.tcpv4 = self.device.gso_packet().and_then(NonZeroUsize::new);
        caps
    }
}

/// A received packet.
pub(super) struct RxToken<'a> {
    bytes: &'a [u8],
}

impl phy::RxToken for RxToken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.bytes)
    }
}

/// Room for one packet to be sent.
pub(super) struct TxToken<'a, L: Link> {
    slot: Slot<'a, L>,
    ethernet: &'a mut Ethernet,
    /// Payload of each segment, when the backend is to cut the packet.
    segment: Option<NonZeroU16>,
    now: Instant,
}

impl<L: Link> phy::TxToken for TxToken<'_, L> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let Self { mut slot, ethernet, mut segment, now } = self;
        let gso = slot.gso();
        let len = ETHERNET_HEADER + len;
        let frame = slot.bytes(len);
        let result = f(&mut frame[ETHERNET_HEADER..]);
        match ethernet.way(&frame[ETHERNET_HEADER..], now) {
            Way::Wire(mac) => {
                ethernet.write_header(frame, mac);
                if ethernet.fit(frame, gso, &mut segment, now) {
                    slot.send(len, segment);
                }
            }
            Way::Here => ethernet.loop_back(frame),
            // TCP sends again what was too large to be kept.
            Way::Wait(hop) if segment.is_none() => ethernet.hold(hop, frame),
            Way::Wait(_) | Way::Nowhere => {}
        }
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.segment = meta.segmentation_offload_size;
    }
}
