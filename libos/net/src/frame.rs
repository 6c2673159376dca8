//! The kind of an Ethernet frame, as far as the device and the socket lookup need it, its TCP and
//! UDP checksums, and its fragments.

use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::num::NonZeroU16;
use smoltcp::wire::{
    ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv4Packet, IpProtocol, Ipv4Packet,
    TcpPacket, UdpPacket,
};

/// Length of an Ethernet header.
pub const ETHERNET_HEADER: usize = 14;

/// Offset of the checksum in a TCP header (RFC 9293, section 3.1).
const TCP_CHECKSUM: usize = 16;

/// Length of an IPv4 header without options (RFC 791, section 3.1).
const IPV4_HEADER: usize = 20;

/// The MTUs of common links, in octets (RFC 1191, section 7.1).
const PLATEAUS: [u16; 11] = [65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68];

/// A received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// An ARP packet.
    Arp(ArpRepr),
    /// An IPv4 packet.
    Ip(Ip),
}

/// The addresses of a received IPv4 packet, and the part that decides which socket it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Ethernet address of the neighbour that sent it.
    pub from_mac: EthernetAddress,
    /// Ethernet address that it was sent to.
    pub to_mac: EthernetAddress,
    /// Address of the sender.
    pub source: Ipv4Addr,
    /// Address that it was sent to.
    pub destination: Ipv4Addr,
    /// The transport protocol's part.
    pub payload: Payload,
}

/// The part of an IPv4 packet that decides which socket it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A TCP segment.
    Tcp(Segment),
    /// A UDP datagram.
    Udp {
        /// Port of the sender.
        source: u16,
        /// Port here.
        destination: u16,
    },
    /// A router's message about a packet that was too big.
    TooBig(TooBig),
    /// Any other payload.
    Other,
}

/// A router's message that a packet was longer than the next link takes: ICMP's "fragmentation
/// needed and DF set" (RFC 792; RFC 1191, section 4). It quotes the beginning of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooBig {
    /// Sender of the packet.
    pub source: Ipv4Addr,
    /// Address that it was sent to.
    pub destination: Ipv4Addr,
    /// Its transport protocol.
    pub protocol: IpProtocol,
    /// Port of its sender.
    pub source_port: u16,
    /// Port that it was sent to.
    pub destination_port: u16,
    /// Octets of the longest packet that the next link takes. It is an estimate if the router is
    /// too old to tell.
    pub mtu: u16,
}

/// The addressing part of a TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Port of the sender.
    pub source_port: u16,
    /// Port here.
    pub port: u16,
    /// A connection attempt: SYN set, ACK and RST not.
    pub opens: bool,
    /// Octets of data.
    pub len: usize,
}

/// Classifies a received frame. `None`: the frame is to be dropped. It is malformed, of another
/// protocol than IPv4, or a fragment (reassembly is not offered), or its TCP or UDP checksum is
/// wrong. The checksum is not checked if `validated`, the backend's word that it is correct.
pub fn classify(bytes: &[u8], validated: bool) -> Option<Frame> {
    let ethernet = EthernetFrame::new_checked(bytes).ok()?;
    match ethernet.ethertype() {
        EthernetProtocol::Arp => {
            let arp = ArpPacket::new_checked(ethernet.payload()).ok()?;
            Some(Frame::Arp(ArpRepr::parse(&arp).ok()?))
        }
        EthernetProtocol::Ipv4 => {
            let ip = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
            if ip.version() != 4 || ip.more_frags() || ip.frag_offset() != 0 {
                return None;
            }
            Some(Frame::Ip(Ip {
                from_mac: ethernet.src_addr(),
                to_mac: ethernet.dst_addr(),
                source: ip.src_addr(),
                destination: ip.dst_addr(),
                payload: classify_payload(&ip, validated)?,
            }))
        }
        _ => None,
    }
}

fn classify_payload(ip: &Ipv4Packet<&[u8]>, validated: bool) -> Option<Payload> {
    match ip.next_header() {
        IpProtocol::Tcp => {
            let tcp = TcpPacket::new_checked(ip.payload()).ok()?;
            if !validated && !tcp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()) {
                return None;
            }
            Some(Payload::Tcp(Segment {
                source_port: tcp.src_port(),
                port: tcp.dst_port(),
                opens: tcp.syn() && !tcp.ack() && !tcp.rst(),
                len: tcp.payload().len(),
            }))
        }
        IpProtocol::Udp => {
            let udp = UdpPacket::new_checked(ip.payload()).ok()?;
            if !validated && !udp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()) {
                return None;
            }
            Some(Payload::Udp { source: udp.src_port(), destination: udp.dst_port() })
        }
        IpProtocol::Icmp => Some(too_big(ip).map_or(Payload::Other, Payload::TooBig)),
        _ => Some(Payload::Other),
    }
}

/// The message that a packet was too big, in an ICMP packet. `None`: it is another message, is
/// malformed, has a wrong checksum, or quotes too little of the packet.
fn too_big(ip: &Ipv4Packet<&[u8]>) -> Option<TooBig> {
    let message = ip.payload();
    let &[3, 4, _, _, _, _, high, low, ref quoted @ ..] = message else { return None };
    if !ip.verify_checksum() || !Icmpv4Packet::new_unchecked(message).verify_checksum() || quoted.len() < IPV4_HEADER {
        return None;
    }
    let packet = Ipv4Packet::new_unchecked(quoted);
    let header = usize::from(packet.header_len());
    if packet.version() != 4 || header < IPV4_HEADER || packet.frag_offset() != 0 {
        return None;
    }
    let &[a, b, c, d, ..] = quoted.get(header..)? else { return None };
    let mtu = match u16::from_be_bytes([high, low]) {
        0 => *PLATEAUS.iter().find(|&&plateau| plateau < packet.total_len())?,
        mtu => mtu,
    };
    Some(TooBig {
        source: packet.src_addr(),
        destination: packet.dst_addr(),
        protocol: packet.next_header(),
        source_port: u16::from_be_bytes([a, b]),
        destination_port: u16::from_be_bytes([c, d]),
        mtu,
    })
}

/// The state of the checksum of a frame to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// TCP: the field holds the sum of the pseudo header only, the backend completes it.
    Blank,
    /// UDP: complete.
    Complete,
    /// The frame has none of these checksums, or is a fragment.
    None,
}

/// Prepares a frame that the stack has written for sending. In a TCP segment, it puts the sum of
/// the pseudo header into the checksum field, the start of a partial checksum (the meaning of
/// `XEN_NETTXF_csum_blank` in Linux's netback: `CHECKSUM_PARTIAL`).
pub fn prepare(bytes: &mut [u8]) -> Checksum {
    let Some(ip) = ipv4(bytes) else {
        return Checksum::None;
    };
    match ip.next_header() {
        _ if ip.more_frags() || ip.frag_offset() != 0 => Checksum::None,
        IpProtocol::Tcp => {
            let header = usize::from(ip.header_len());
            let length = ip.total_len() - u16::from(ip.header_len());
            let sum = pseudo_header(ip.src_addr(), ip.dst_addr(), 6, length);
            let at = ETHERNET_HEADER + header + TCP_CHECKSUM;
            bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
            Checksum::Blank
        }
        IpProtocol::Udp => Checksum::Complete,
        _ => Checksum::None,
    }
}

/// The destination of the IPv4 packet in a frame, and its length in octets.
pub fn extent(bytes: &[u8]) -> Option<(Ipv4Addr, usize)> {
    let ip = ipv4(bytes)?;
    Some((ip.dst_addr(), ip.total_len().into()))
}

/// Octets of data in a segment with the headers of the TCP segment in a frame, in a packet of `mtu`
/// octets. `None`: it is no TCP segment, or there is no room.
pub fn segment_room(bytes: &[u8], mtu: usize) -> Option<NonZeroU16> {
    let ip = ipv4(bytes)?;
    let tcp = match ip.next_header() {
        IpProtocol::Tcp => TcpPacket::new_checked(ip.payload()).ok()?,
        _ => return None,
    };
    let room = mtu.checked_sub(usize::from(ip.header_len()) + usize::from(tcp.header_len()))?;
    NonZeroU16::new(room.try_into().ok()?)
}

/// Cuts the IPv4 packet in a frame into fragments of `mtu` octets at most, in frames of their own
/// (RFC 791, section 3.2). The packet has no options. The backend cannot complete the checksum of
/// a TCP segment in fragments, so that is done before. `None`: it is no IPv4 packet, `mtu` leaves
/// no room for data, or there is no memory.
pub fn fragments(bytes: &mut [u8], mtu: usize, ident: u16) -> Option<Vec<Vec<u8>>> {
    let ip = ipv4(bytes)?;
    let (source, destination) = (ip.src_addr().into(), ip.dst_addr().into());
    let data = ETHERNET_HEADER + usize::from(ip.header_len());
    let end = ETHERNET_HEADER + usize::from(ip.total_len());
    let step = mtu.checked_sub(ip.header_len().into())? & !7;
    if step == 0 {
        return None;
    }
    if ip.next_header() == IpProtocol::Tcp {
        TcpPacket::new_checked(&mut bytes[data..end]).ok()?.fill_checksum(&source, &destination);
    }
    let (header, payload) = bytes[..end].split_at(data);
    let mut fragments = Vec::new();
    fragments.try_reserve_exact(payload.len().div_ceil(step)).ok()?;
    for (index, part) in payload.chunks(step).enumerate() {
        let mut fragment = Vec::new();
        fragment.try_reserve_exact(header.len() + part.len()).ok()?;
        fragment.extend_from_slice(header);
        fragment.extend_from_slice(part);
        let mut ip = Ipv4Packet::new_unchecked(&mut fragment[ETHERNET_HEADER..]);
        ip.set_total_len((header.len() - ETHERNET_HEADER + part.len()) as u16);
        ip.set_ident(ident);
        ip.set_dont_frag(false);
        ip.set_more_frags((index + 1) * step < payload.len());
        ip.set_frag_offset((index * step) as u16);
        ip.fill_checksum();
        fragments.push(fragment);
    }
    Some(fragments)
}

fn ipv4(bytes: &[u8]) -> Option<Ipv4Packet<&[u8]>> {
    let ethernet = EthernetFrame::new_checked(bytes).ok()?;
    match ethernet.ethertype() {
        EthernetProtocol::Ipv4 => Ipv4Packet::new_checked(ethernet.payload()).ok(),
        _ => None,
    }
}

/// The folded one's complement sum of the IPv4 pseudo header (RFC 9293, section 3.1), not inverted.
fn pseudo_header(source: Ipv4Addr, destination: Ipv4Addr, protocol: u16, length: u16) -> u16 {
    let (source, destination) = (source.to_bits(), destination.to_bits());
    let mut sum = (source >> 16) + (source & 0xffff);
    sum += (destination >> 16) + (destination & 0xffff);
    sum += u32::from(protocol) + u32::from(length);
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use alloc::vec;
    use smoltcp::wire::Ipv4Repr;

    const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    pub const DESTINATION: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

    /// A frame with an IPv4 packet.
    pub fn packet(protocol: IpProtocol, payload: &[u8]) -> Vec<u8> {
        let ip = Ipv4Repr {
            src_addr: SOURCE,
            dst_addr: DESTINATION,
            next_header: protocol,
            payload_len: payload.len(),
            hop_limit: 64,
        };
        let mut bytes = vec![0; ETHERNET_HEADER + IPV4_HEADER];
        bytes[12] = 8;
        bytes.extend_from_slice(payload);
        ip.emit(&mut Ipv4Packet::new_unchecked(&mut bytes[ETHERNET_HEADER..]), &Default::default());
        bytes
    }

    /// A message about `quoted`, with a next-hop MTU of `mtu`.
    fn message(mtu: u16, quoted: &[u8]) -> Vec<u8> {
        let [high, low] = mtu.to_be_bytes();
        let mut bytes = vec![3, 4, 0, 0, 0, 0, high, low];
        bytes.extend_from_slice(quoted);
        Icmpv4Packet::new_unchecked(&mut bytes).fill_checksum();
        packet(IpProtocol::Icmp, &bytes)
    }

    fn payload(bytes: &[u8]) -> Option<Payload> {
        match classify(bytes, true)? {
            Frame::Ip(ip) => Some(ip.payload),
            Frame::Arp(_) => None,
        }
    }

    #[test]
    fn a_message_tells_the_flow_and_the_mtu() {
        let datagram = packet(IpProtocol::Udp, &[0x12, 0x34, 0, 7, 0, 8, 0, 0]);
        let quoted = &datagram[ETHERNET_HEADER..];
        let expected = TooBig {
            source: SOURCE,
            destination: DESTINATION,
            protocol: IpProtocol::Udp,
            source_port: 0x1234,
            destination_port: 7,
            mtu: 1_280,
        };
        assert_eq!(payload(&message(1_280, quoted)), Some(Payload::TooBig(expected)));
        for len in 0..quoted.len() {
            let told = payload(&message(1_280, &quoted[..len]));
            let whole = len >= IPV4_HEADER + 4;
            assert_eq!(told, Some(if whole { Payload::TooBig(expected) } else { Payload::Other }), "{len} octets");
        }
        let mut wrong = message(1_280, quoted);
        wrong[ETHERNET_HEADER + IPV4_HEADER + 7] ^= 1;
        assert_eq!(payload(&wrong), Some(Payload::Other), "a wrong checksum, although validated");
    }

    #[test]
    fn a_message_without_an_mtu_means_the_next_plateau() {
        let mut datagram = packet(IpProtocol::Udp, &[0; 8]);
        for (len, expected) in [
            (0, None),
            (68, None),
            (69, Some(68)),
            (508, Some(296)),
            (1_492, Some(1_006)),
            (1_500, Some(1_492)),
            (9_000, Some(8_166)),
            (65_535, Some(32_000)),
        ] {
            Ipv4Packet::new_unchecked(&mut datagram[ETHERNET_HEADER..]).set_total_len(len);
            let told = match payload(&message(0, &datagram[ETHERNET_HEADER..])) {
                Some(Payload::TooBig(message)) => Some(message.mtu),
                _ => None,
            };
            assert_eq!(told, expected, "{len} octets");
        }
    }

    #[test]
    fn fragments_hold_the_whole_packet() {
        for (len, mtu) in [(1_480, 1_280), (1_480, 552), (65_501, 576), (556, 575), (9, 28), (16, 36), (0, 28)] {
            let data: Vec<u8> = (0..len as u32).map(|i| (i % 251) as u8).collect();
            let mut whole = packet(IpProtocol::Udp, &data);
            let mut got = Vec::new();
            let fragments = fragments(&mut whole, mtu, 0x4321).unwrap();
            for (index, bytes) in fragments.iter().enumerate() {
                let ip = Ipv4Packet::new_checked(&bytes[ETHERNET_HEADER..]).unwrap();
                assert!(ip.verify_checksum() && !ip.dont_frag() && ip.total_len() as usize <= mtu);
                assert_eq!((ip.ident(), usize::from(ip.frag_offset())), (0x4321, got.len()));
                assert_eq!(ip.more_frags(), index + 1 < fragments.len());
                assert_eq!(
                    prepare(&mut bytes.clone()),
                    if fragments.len() > 1 { Checksum::None } else { Checksum::Complete }
                );
                got.extend_from_slice(ip.payload());
            }
            assert_eq!(got, data);
        }
        assert_eq!(fragments(&mut packet(IpProtocol::Udp, &[0; 8]), 27, 0), None, "no room for data");
        assert_eq!(fragments(&mut [], 1_280, 0), None);
    }

    #[test]
    fn random_octets_never_panic() {
        let mut seed = 3u64;
        let mut random = move |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % below
        };
        for _ in 0..50_000 {
            let mut bytes = vec![0; random(120)];
            bytes.fill_with(|| random(256) as u8);
            for (at, octet) in [(12, 8), (13, 0), (14, 0x45), (16, 0), (20, 0), (21, 0), (23, 1), (34, 3), (35, 4)] {
                if at < bytes.len() && random(16) > 0 {
                    bytes[at] = octet;
                }
            }
            if let Some(protocol) = bytes.get_mut(23) {
                *protocol = [1, 1, 6, 17][random(4)];
            }
            classify(&bytes, random(2) == 0);
            extent(&bytes);
            segment_room(&bytes, random(100));
            let ident = random(1 << 16) as u16;
            fragments(&mut bytes, random(100), ident);
        }
    }
}
