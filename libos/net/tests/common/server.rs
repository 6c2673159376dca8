//! A host on the bridge that answers ARP requests for itself, and is a DHCP server and a name
//! server.

use super::back::Packet;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress, EthernetFrame,
    EthernetProtocol, EthernetRepr, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};
use std::cell::Cell;
use std::net::Ipv4Addr;
use std::rc::Rc;

pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
pub const SERVER_MAC: EthernetAddress = EthernetAddress([0x02, 0, 0, 0, 0, 0xfe]);

/// A UDP datagram from the server on the bridge, as from a network card.
pub fn datagram(to_mac: EthernetAddress, to: Ipv4Addr, ports: (u16, u16), payload: &[u8]) -> Packet {
    datagram_from((SERVER_MAC, SERVER), to_mac, to, ports, payload)
}

/// As [`datagram`], from any host.
pub fn datagram_from(
    from: (EthernetAddress, Ipv4Addr),
    to_mac: EthernetAddress,
    to: Ipv4Addr,
    ports: (u16, u16),
    payload: &[u8],
) -> Packet {
    let udp = UdpRepr { src_port: ports.0, dst_port: ports.1 };
    let ip = Ipv4Repr {
        src_addr: from.1,
        dst_addr: to,
        next_header: IpProtocol::Udp,
        payload_len: 8 + payload.len(),
        hop_limit: 64,
    };
    let mut bytes = vec![0; 14 + 20 + 8 + payload.len()];
    let caps = ChecksumCapabilities::default();
    let ethernet = EthernetRepr { src_addr: from.0, dst_addr: to_mac, ethertype: EthernetProtocol::Ipv4 };
    ethernet.emit(&mut EthernetFrame::new_unchecked(&mut bytes));
    ip.emit(&mut Ipv4Packet::new_unchecked(&mut bytes[14..]), &caps);
    let mut packet = UdpPacket::new_unchecked(&mut bytes[34..]);
    udp.emit(&mut packet, &from.1.into(), &to.into(), payload.len(), |p| p.copy_from_slice(payload), &caps);
    Packet::plain(bytes)
}

/// Answers ARP requests for the server.
pub fn arp_server(packet: &Packet) -> Vec<Packet> {
    let frame = EthernetFrame::new_checked(&packet.bytes).unwrap();
    let Ok(arp) = ArpPacket::new_checked(frame.payload()) else { return vec![] };
    let Ok(ArpRepr::EthernetIpv4 { operation: ArpOperation::Request, target_protocol_addr: SERVER, .. }) =
        ArpRepr::parse(&arp)
    else {
        return vec![];
    };
    let asker = EthernetAddress::from_bytes(arp.source_hardware_addr());
    let reply = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: SERVER_MAC,
        source_protocol_addr: SERVER,
        target_hardware_addr: asker,
        target_protocol_addr: Ipv4Addr::from_octets(arp.source_protocol_addr().try_into().unwrap()),
    };
    let mut bytes = vec![0; 14 + reply.buffer_len()];
    let ethernet = EthernetRepr { src_addr: SERVER_MAC, dst_addr: asker, ethertype: EthernetProtocol::Arp };
    ethernet.emit(&mut EthernetFrame::new_unchecked(&mut bytes));
    reply.emit(&mut ArpPacket::new_unchecked(&mut bytes[14..]));
    vec![Packet::plain(bytes)]
}

/// The UDP payload of a packet to `port`, with its sender.
pub fn payload(packet: &Packet, port: u16) -> Option<(EthernetAddress, Ipv4Addr, u16, Vec<u8>)> {
    let frame = EthernetFrame::new_checked(&packet.bytes).unwrap();
    if frame.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let ip = Ipv4Packet::new_checked(frame.payload()).unwrap();
    let udp = (ip.next_header() == IpProtocol::Udp).then(|| UdpPacket::new_checked(ip.payload()).unwrap())?;
    let from = (frame.src_addr(), ip.src_addr(), udp.src_port());
    (udp.dst_port() == port).then(|| (from.0, from.1, from.2, udp.payload().to_vec()))
}

/// A name server: it answers 10.0.0.77 for all names except those with a part that begins with
/// "no".
pub fn name_server(packet: &Packet) -> Vec<Packet> {
    let Some((mac, ip, port, query)) = payload(packet, 53) else { return vec![] };
    // RFC 1035: the same id and question, one answer (or NXDOMAIN).
    let missing = query.windows(3).any(|w| w == b"\x02no");
    let mut answer = query.clone();
    answer[2..4].copy_from_slice(&if missing { [0x81, 0x83] } else { [0x81, 0x80] });
    answer[7] = u8::from(!missing);
    if !missing {
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 0, 77]);
    }
    vec![datagram(mac, ip, (53, port), &answer)]
}

/// A DHCP server that gives each client the address that `address` returns, for `lease` seconds
/// while `lease` is not 0.
pub fn dhcp_server(
    lease: Rc<Cell<u32>>,
    address: impl Fn(EthernetAddress) -> Ipv4Addr,
) -> impl FnMut(&Packet) -> Vec<Packet> {
    move |packet| {
        let Some((mac, _, _, request)) = payload(packet, 67) else { return vec![] };
        let request = DhcpPacket::new_checked(&request).unwrap();
        let request = DhcpRepr::parse(&request).unwrap();
        assert_eq!(request.client_identifier, Some(mac));
        let message_type = match request.message_type {
            _ if lease.get() == 0 => return vec![],
            DhcpMessageType::Discover => DhcpMessageType::Offer,
            DhcpMessageType::Request => DhcpMessageType::Ack,
            _ => return vec![],
        };
        let reply = DhcpRepr {
            message_type,
            your_ip: address(mac),
            server_ip: SERVER,
            router: Some(SERVER),
            subnet_mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
            server_identifier: Some(SERVER),
            dns_servers: Some(core::iter::once(SERVER).collect()),
            lease_duration: Some(lease.get()),
            requested_ip: None,
            client_identifier: None,
            parameter_request_list: None,
            max_size: None,
            ..request
        };
        let mut bytes = vec![0; reply.buffer_len()];
        reply.emit(&mut DhcpPacket::new_unchecked(&mut bytes)).unwrap();
        vec![datagram(mac, Ipv4Addr::BROADCAST, (67, 68), &bytes)]
    }
}
