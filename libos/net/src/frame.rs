//! The kind of an Ethernet frame, as far as the device and the socket lookup need it, and its TCP
//! and UDP checksums.

use core::net::Ipv4Addr;
use smoltcp::wire::{
    ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, TcpPacket, UdpPacket,
};

/// Length of an Ethernet header.
pub const ETHERNET_HEADER: usize = 14;

/// Offset of the checksum in a TCP header (RFC 9293, section 3.1).
const TCP_CHECKSUM: usize = 16;

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
    /// Of any other protocol.
    Other,
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
        _ => Some(Payload::Other),
    }
}

/// The state of the checksum of a frame to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// TCP: the field holds the sum of the pseudo header only, the backend completes it.
    Blank,
    /// UDP: complete.
    Complete,
    /// The frame has none of these checksums.
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
