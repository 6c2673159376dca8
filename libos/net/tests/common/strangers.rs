//! Hosts on the bridge that exist by their packets alone.

use super::back::Packet;
use super::lan::Lan;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, Icmpv4Packet,
    IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};
use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;

/// Flags of a TCP segment.
pub const SYN: u8 = 0x02;
pub const ACK: u8 = 0x10;

/// The Ethernet address of a stranger.
pub fn mac_of(address: Ipv4Addr) -> EthernetAddress {
    let [a, b, c, d] = address.octets();
    EthernetAddress([0x02, 1, a, b, c, d])
}

/// A connection attempt to guest 0 of a bridge.
pub fn syn(from: SocketAddrV4, to: SocketAddrV4) -> Packet {
    let tcp = TcpRepr {
        src_port: from.port(),
        dst_port: to.port(),
        control: TcpControl::Syn,
        seq_number: TcpSeqNumber(1),
        ack_number: None,
        window_len: 1000,
        window_scale: None,
        max_seg_size: Some(1460),
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let ip = Ipv4Repr {
        src_addr: *from.ip(),
        dst_addr: *to.ip(),
        next_header: IpProtocol::Tcp,
        payload_len: tcp.buffer_len(),
        hop_limit: 64,
    };
    let guest = EthernetAddress([0, 0x16, 0x3e, 0, 0, 1]);
    let ethernet = EthernetRepr { src_addr: mac_of(*from.ip()), dst_addr: guest, ethertype: EthernetProtocol::Ipv4 };
    let caps = ChecksumCapabilities::default();
    let mut bytes = vec![0; 14 + 20 + tcp.buffer_len()];
    ethernet.emit(&mut EthernetFrame::new_unchecked(&mut bytes));
    ip.emit(&mut Ipv4Packet::new_unchecked(&mut bytes[14..]), &caps);
    let (source, destination) = (IpAddress::Ipv4(*from.ip()), IpAddress::Ipv4(*to.ip()));
    tcp.emit(&mut TcpPacket::new_unchecked(&mut bytes[34..]), &source, &destination, &caps);
    Packet::plain(bytes)
}

/// The message of a router to the sender of `packet` that it is longer than `mtu`, the next link's
/// (RFC 1191, section 4): it quotes the header and eight octets more.
pub fn too_big(packet: &Packet, mtu: u16) -> Packet {
    let sender = EthernetFrame::new_unchecked(&packet.bytes).src_addr();
    too_big_to((sender, Ipv4Packet::new_unchecked(&packet.bytes[14..]).src_addr()), packet, mtu)
}

/// As [`too_big`], to any host.
pub fn too_big_to(to: (EthernetAddress, Ipv4Addr), packet: &Packet, mtu: u16) -> Packet {
    let router = Ipv4Addr::new(10, 0, 0, 254);
    let ethernet = EthernetRepr { src_addr: mac_of(router), dst_addr: to.0, ethertype: EthernetProtocol::Ipv4 };
    let (src_addr, dst_addr, next_header) = (router, to.1, IpProtocol::Icmp);
    let ip = Ipv4Repr { src_addr, dst_addr, next_header, payload_len: 8 + 28, hop_limit: 64 };
    let mut bytes = vec![0; 14 + 20 + 8 + 28];
    ethernet.emit(&mut EthernetFrame::new_unchecked(&mut bytes));
    ip.emit(&mut Ipv4Packet::new_unchecked(&mut bytes[14..]), &ChecksumCapabilities::default());
    bytes[34..36].copy_from_slice(&[3, 4]);
    bytes[40..42].copy_from_slice(&mtu.to_be_bytes());
    bytes[42..].copy_from_slice(&packet.bytes[14..42]);
    Icmpv4Packet::new_unchecked(&mut bytes[34..]).fill_checksum();
    Packet::plain(bytes)
}

/// Gives a packet to guest 0.
pub fn give(lan: &Lan, packet: Packet) {
    lan.guests[0].host.back.borrow_mut().as_mut().unwrap().give(packet);
}

/// The address that an ARP request asks for, and who asks.
pub fn asked(packet: &Packet) -> Option<(Ipv4Addr, EthernetAddress, Ipv4Addr)> {
    let frame = EthernetFrame::new_checked(&packet.bytes).unwrap();
    let arp = ArpPacket::new_checked(frame.payload()).ok()?;
    match ArpRepr::parse(&arp).ok()? {
        ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr,
            source_protocol_addr,
            target_protocol_addr,
            ..
        } if frame.ethertype() == EthernetProtocol::Arp => {
            Some((target_protocol_addr, source_hardware_addr, source_protocol_addr))
        }
        _ => None,
    }
}

/// Answers ARP requests for the strangers' addresses for which `exists` returns true.
pub fn arp(exists: impl Fn(Ipv4Addr) -> bool) -> impl FnMut(&Packet) -> Vec<Packet> {
    move |packet| {
        let Some((target, mac, asker)) = asked(packet).filter(|(target, ..)| exists(*target)) else { return vec![] };
        vec![arp_packet(ArpOperation::Reply, target, mac, mac, asker)]
    }
}

/// An ARP request of a stranger for `target`.
pub fn asks(stranger: Ipv4Addr, target: Ipv4Addr) -> Packet {
    arp_packet(ArpOperation::Request, stranger, EthernetAddress::BROADCAST, EthernetAddress([0; 6]), target)
}

fn arp_packet(
    operation: ArpOperation,
    from: Ipv4Addr,
    to: EthernetAddress,
    target_hardware_addr: EthernetAddress,
    target_protocol_addr: Ipv4Addr,
) -> Packet {
    let arp = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: mac_of(from),
        source_protocol_addr: from,
        target_hardware_addr,
        target_protocol_addr,
    };
    let mut bytes = vec![0; 14 + arp.buffer_len()];
    let ethernet = EthernetRepr { src_addr: mac_of(from), dst_addr: to, ethertype: EthernetProtocol::Arp };
    ethernet.emit(&mut EthernetFrame::new_unchecked(&mut bytes));
    arp.emit(&mut ArpPacket::new_unchecked(&mut bytes[14..]));
    Packet::plain(bytes)
}

/// Records the maximum segment size that the last TCP segment with these flags, SYN and perhaps ACK,
/// announced: its first option (RFC 9293, section 3.1).
pub fn announced(lan: &mut Lan, flags: u8) -> Rc<Cell<u16>> {
    let size = Rc::new(Cell::new(0));
    let seen = size.clone();
    lan.others.push(Box::new(move |packet| {
        if packet.bytes.get(23) == Some(&6) && packet.bytes[47] & (SYN | ACK) == flags {
            assert_eq!(packet.bytes[54..56], [2, 4]);
            seen.set(u16::from_be_bytes([packet.bytes[56], packet.bytes[57]]));
        }
        vec![]
    }));
    size
}
