//! The Ethernet layer between the device and smoltcp's interface, which sees IP packets alone:
//! framing, next hops, ARP (RFC 826), the MTUs of paths, and packets of the guest to itself.
//!
//! A packet whose neighbour is not known yet waits in the table of [`Neighbours`]. Frames that are
//! not written by smoltcp, such as ARP packets, fragments and those that have waited, go through a
//! queue that the stack empties.

use super::Address;
use super::neighbours::{Found, Neighbours};
use super::paths::Paths;
use crate::config::is_host;
use crate::frame::{self, ETHERNET_HEADER, Ip};
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::num::NonZeroU16;
use smoltcp::time::Instant;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, Ipv4Packet,
};

/// ARP packets that wait for room in the device, at most.
const OUTBOX: usize = 256;
/// Octets of packets of the guest to itself that are on their way, at most.
const LOOPED_OCTETS: usize = 512 << 10;
/// Octets of frames that wait for room in the device, beyond which no packet is cut: a datagram of
/// 64 KiB and the packets that waited for a neighbour.
const OUTBOX_OCTETS: usize = 512 << 10;

/// The way of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To the device, to this Ethernet address.
    Wire(EthernetAddress),
    /// To the guest itself.
    Here,
    /// To a neighbour whose Ethernet address is asked for.
    Wait(Ipv4Addr),
    /// There is none: the packet is dropped.
    Nowhere,
}

/// A queue of frames.
#[derive(Debug, Default)]
struct Frames {
    queue: VecDeque<Vec<u8>>,
    octets: usize,
}

impl Frames {
    fn push(&mut self, frame: Vec<u8>) {
        self.octets += frame.len();
        self.queue.push_back(frame);
    }

    fn pop(&mut self) -> Option<Vec<u8>> {
        let frame = self.queue.pop_front()?;
        self.octets -= frame.len();
        Some(frame)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The layer's state.
#[derive(Debug)]
pub(super) struct Ethernet {
    /// The interface's own address, while a backend is connected.
    mac: Option<EthernetAddress>,
    own: Option<Address>,
    neighbours: Neighbours,
    paths: Paths,
    outbox: Frames,
    looped: Frames,
}

impl Ethernet {
    /// A layer with room for `limit` neighbours.
    pub fn new(limit: usize) -> Self {
        Self {
            mac: None,
            own: None,
            neighbours: Neighbours::new(limit),
            paths: Paths::default(),
            outbox: Frames::default(),
            looped: Frames::default(),
        }
    }

    /// Begins anew on a device with the address `mac`, or without one: what was known of the link
    /// is forgotten.
    pub fn attach(&mut self, mac: Option<EthernetAddress>) {
        self.mac = mac;
        self.forget();
    }

    /// Drops all state, in the child of a fork.
    pub fn begin_life(&mut self) {
        self.attach(None);
        self.own = None;
        self.looped.clear();
    }

    fn forget(&mut self) {
        self.neighbours.clear();
        self.paths.clear();
        self.outbox.clear();
    }

    /// Sets the interface's IP address. What waits, to be sent from another one, is dropped.
    pub fn set_address(&mut self, own: Option<Address>) {
        if self.own.map(|own| own.address) != own.map(|own| own.address) {
            self.forget();
        }
        self.own = own;
    }

    /// True if the guest itself has this address.
    pub fn is_own(&self, address: Ipv4Addr) -> bool {
        address == Ipv4Addr::LOCALHOST || self.own.as_ref().is_some_and(|own| own.address == address)
    }

    /// Checks that there is a way to `destination`.
    ///
    /// # Errors
    /// `NetworkUnreachable`: there is none. `HostUnreachable`: the neighbour on it did not answer
    /// lately.
    pub fn has_route(&self, destination: Ipv4Addr) -> Result<(), crate::Error> {
        if self.is_own(destination) {
            return Ok(());
        }
        let hop = self.next_hop(destination).ok_or(crate::Error::NetworkUnreachable)?;
        if self.neighbours.is_unreachable(hop) { Err(crate::Error::HostUnreachable) } else { Ok(()) }
    }

    /// The neighbour by which packets to `destination` leave; `None` also for the guest itself.
    pub fn next_hop(&self, destination: Ipv4Addr) -> Option<Ipv4Addr> {
        match self.is_own(destination) || destination.is_loopback() {
            true => None,
            false => self.own.as_ref()?.next_hop(destination),
        }
    }

    /// True if `address` can be that of one other host. Routers send no errors about packets to
    /// many (RFC 1122, section 3.2.2).
    pub fn is_remote_host(&self, address: Ipv4Addr) -> bool {
        let broadcast = self.own.as_ref().is_some_and(|own| own.is_broadcast(address));
        !broadcast && !address.is_multicast() && self.next_hop(address).is_some()
    }

    /// Decides on the way of the IPv4 packet `packet`, which is sent now.
    pub fn way(&mut self, packet: &[u8], now: Instant) -> Way {
        let Ok(packet) = Ipv4Packet::new_checked(packet) else { return Way::Nowhere };
        let destination = packet.dst_addr();
        if self.is_own(destination) {
            return Way::Here;
        }
        if destination.is_broadcast() || self.own.as_ref().is_some_and(|own| own.is_broadcast(destination)) {
            return Way::Wire(EthernetAddress::BROADCAST);
        }
        if destination.is_multicast() {
            // RFC 1112, section 6.4.
            let [_, b, c, d] = destination.octets();
            return Way::Wire(EthernetAddress([0x01, 0x00, 0x5e, b & 0x7f, c, d]));
        }
        // Packets to other hosts of the loopback network must not leave (RFC 1122, section 3.2.1.3).
        let Some(hop) = self.next_hop(destination) else { return Way::Nowhere };
        let (found, ask) = self.neighbours.look_up(hop, now);
        if ask {
            self.ask(hop);
        }
        match found {
            Found::Known(mac) => Way::Wire(mac),
            Found::Pending => Way::Wait(hop),
            Found::Unreachable => Way::Nowhere,
        }
    }

    /// Writes the header of a frame with an IPv4 packet.
    pub fn write_header(&self, frame: &mut [u8], to: EthernetAddress) {
        let Some(mac) = self.mac else { return };
        let header = EthernetRepr { src_addr: mac, dst_addr: to, ethertype: EthernetProtocol::Ipv4 };
        header.emit(&mut EthernetFrame::new_unchecked(frame));
    }

    /// Lowers the MTU of the path to `destination` to `mtu` octets: [`Paths::lower`].
    pub fn lower_path_mtu(&mut self, destination: Ipv4Addr, mtu: usize, ident: u16, now: Instant) {
        self.paths.lower(destination, mtu, ident, now);
    }

    /// Fits the packet in `frame`, whose Ethernet header is complete, to the MTU of its path. True:
    /// it is to be sent, and the backend is to cut its payload into segments of `segment` octets.
    /// They are made smaller here if the packet is too long, and the backend can cut it (`gso`).
    /// False: its fragments were queued instead, or it was dropped because the queue is full.
    pub fn fit(&mut self, frame: &mut [u8], gso: bool, segment: &mut Option<NonZeroU16>, now: Instant) -> bool {
        if self.paths.is_empty() {
            return true;
        }
        let Some((destination, len)) = frame::extent(frame) else { return true };
        let Some((mtu, ident)) = self.paths.narrow(destination, len, now) else { return true };
        if gso && let Some(room) = frame::segment_room(frame, mtu) {
            *segment = Some(segment.map_or(room, |segment| segment.min(room)));
            return true;
        }
        if self.outbox.octets + frame.len() <= OUTBOX_OCTETS {
            for fragment in frame::fragments(frame, mtu, ident).unwrap_or_default() {
                self.outbox.push(fragment);
            }
        }
        false
    }

    /// Keeps a frame, whose header is not complete, for the neighbour `hop`.
    pub fn hold(&mut self, hop: Ipv4Addr, frame: &[u8]) {
        if !self.neighbours.hold(hop, frame) {
            log::debug!("net: a packet for {hop} was dropped: too many wait for their neighbour");
        }
    }

    /// Hands a frame of the guest to itself over.
    pub fn loop_back(&mut self, frame: &[u8]) {
        let mut copy = Vec::new();
        if self.looped.octets + frame.len() > LOOPED_OCTETS || copy.try_reserve_exact(frame.len()).is_err() {
            return;
        }
        copy.extend_from_slice(frame);
        if let Some(mac) = self.mac {
            self.write_header(&mut copy, mac);
        }
        self.looped.push(copy);
    }

    /// The next frame of the guest to itself.
    pub fn take_looped(&mut self) -> Option<Vec<u8>> {
        self.looped.pop()
    }

    /// True if there are frames of the guest to itself.
    pub fn has_looped(&self) -> bool {
        !self.looped.queue.is_empty()
    }

    /// The next frame to be sent.
    pub fn take_frame(&mut self) -> Option<Vec<u8>> {
        self.outbox.pop()
    }

    /// True if there are frames to be sent.
    pub fn has_frame(&self) -> bool {
        !self.outbox.queue.is_empty()
    }

    /// Checks the addresses of a packet from the device, and notes that its sender was heard. False:
    /// the packet is to be dropped, as nobody outside has such addresses (RFC 1122, section 3.2.1.3)
    /// or it is for another host on the link.
    pub fn accepts(&mut self, packet: &Ip, now: Instant) -> bool {
        if self.is_own(packet.source) || packet.source.is_loopback() || packet.destination.is_loopback() {
            return false;
        }
        if packet.to_mac.is_unicast() && Some(packet.to_mac) != self.mac {
            return false;
        }
        if let Some(hop) = self.own.as_ref().and_then(|own| own.next_hop(packet.source))
            && self.neighbours.heard(hop, packet.from_mac, now)
        {
            self.ask(hop);
        }
        true
    }

    /// Takes in an ARP packet: learns from it, and answers it if it asks for the interface's address
    /// (RFC 826, "Packet Reception").
    pub fn arp_arrived(&mut self, arp: ArpRepr, now: Instant) {
        let ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: mac,
            source_protocol_addr: sender,
            target_protocol_addr: target,
            ..
        } = arp
        else {
            return;
        };
        let Some(own) = self.own else { return };
        let for_us = target == own.address;
        let known = matches!(operation, ArpOperation::Request | ArpOperation::Reply);
        if !known || !mac.is_unicast() || mac.0 == [0; 6] || Some(mac) == self.mac || sender == own.address {
            return;
        }
        // An unspecified sender asks whether the address is free (RFC 5227, section 2.1.1).
        if !sender.is_unspecified() && (!is_host(sender) || own.is_broadcast(sender)) {
            return;
        }
        let is_neighbour = self.next_hop(sender) == Some(sender);
        let answers = for_us && operation == ArpOperation::Reply;
        if is_neighbour && !answers && self.neighbours.knows_another(sender, mac) {
            // Only an answer moves a neighbour: anybody can send requests, and some hosts send them
            // with an Ethernet address that they no longer have.
            if self.neighbours.heard(sender, mac, now) {
                self.ask(sender);
            }
        } else if is_neighbour {
            for mut frame in self.neighbours.learn(sender, mac, for_us, now) {
                self.write_header(&mut frame, mac);
                if self.fit(&mut frame, false, &mut None, now) {
                    // The table has limited their number.
                    self.outbox.push(frame);
                }
            }
        }
        // The sender may be of another network than ours on the same link: a router need not use the
        // address by which we know it.
        if for_us && operation == ArpOperation::Request {
            self.send_arp(ArpOperation::Reply, mac, mac, sender);
        }
    }

    /// The time of the next [`Ethernet::tick`].
    pub fn deadline(&self) -> Option<Instant> {
        self.neighbours.deadline()
    }

    /// Repeats the requests that are due, and returns the neighbours that are unreachable from now
    /// on.
    pub fn tick(&mut self, now: Instant) -> Vec<Ipv4Addr> {
        let mut again = Vec::new();
        let unreachable = self.neighbours.tick(now, |address| again.push(address));
        for address in again {
            self.ask(address);
        }
        unreachable
    }

    /// Announces the interface's Ethernet address to the neighbours, as they may remember another
    /// one (RFC 5227, section 2.3).
    pub fn announce(&mut self) {
        if let Some(own) = self.own {
            self.ask(own.address);
        }
    }

    fn ask(&mut self, address: Ipv4Addr) {
        self.send_arp(ArpOperation::Request, EthernetAddress::BROADCAST, EthernetAddress([0; 6]), address);
    }

    fn send_arp(&mut self, operation: ArpOperation, to: EthernetAddress, target: EthernetAddress, address: Ipv4Addr) {
        let (Some(mac), Some(own)) = (self.mac, self.own) else { return };
        let ethernet = EthernetRepr { src_addr: mac, dst_addr: to, ethertype: EthernetProtocol::Arp };
        let arp = ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: mac,
            source_protocol_addr: own.address,
            target_hardware_addr: target,
            target_protocol_addr: address,
        };
        let mut bytes = vec![0; ETHERNET_HEADER + arp.buffer_len()];
        let mut frame = EthernetFrame::new_unchecked(&mut bytes);
        ethernet.emit(&mut frame);
        arp.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
        if self.outbox.queue.len() < OUTBOX {
            self.outbox.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::tests::{DESTINATION, packet};
    use smoltcp::wire::IpProtocol;

    #[test]
    fn a_full_queue_takes_no_part_of_a_packet() {
        let mut ethernet = Ethernet::new(8);
        let now = Instant::from_millis(1_000);
        ethernet.lower_path_mtu(DESTINATION, 1_280, 0, now);
        let mut frame = packet(IpProtocol::Udp, &[0; 1_480]);
        for _ in 0..1_000 {
            assert!(!ethernet.fit(&mut frame, false, &mut None, now));
        }
        assert!((OUTBOX_OCTETS - frame.len()..OUTBOX_OCTETS + 100).contains(&ethernet.outbox.octets));
        let frames: Vec<usize> = core::iter::from_fn(|| ethernet.take_frame()).map(|frame| frame.len()).collect();
        assert!(frames.chunks(2).all(|packet| packet == [14 + 1_276, 14 + 244]));
        assert_eq!(ethernet.outbox.octets, 0);
    }
}
