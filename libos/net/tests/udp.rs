//! UDP, name queries and DHCP over the backend model.

mod common;

use common::back::Packet;
use common::lan::{Lan, settings};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress, EthernetFrame,
    EthernetProtocol, EthernetRepr, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};
use std::net::{Ipv4Addr, SocketAddrV4};
use zooid_net::stack::NotReady;
use zooid_net::{Duration, Error};

fn pair() -> Lan {
    let mut lan = Lan::new();
    lan.add(settings(1));
    lan.add(settings(2));
    lan
}

fn address(guest: usize, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, guest as u8 + 1), port)
}

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
const SERVER_MAC: EthernetAddress = EthernetAddress([0x02, 0, 0, 0, 0, 0xfe]);

/// A UDP datagram from the server on the bridge, as a network card delivers it.
fn datagram(to_mac: EthernetAddress, to: Ipv4Addr, ports: (u16, u16), payload: &[u8]) -> Packet {
    let udp = UdpRepr { src_port: ports.0, dst_port: ports.1 };
    let ip = Ipv4Repr {
        src_addr: SERVER,
        dst_addr: to,
        next_header: IpProtocol::Udp,
        payload_len: 8 + payload.len(),
        hop_limit: 64,
    };
    let mut bytes = vec![0; 14 + 20 + 8 + payload.len()];
    let caps = ChecksumCapabilities::default();
    let ethernet = EthernetRepr { src_addr: SERVER_MAC, dst_addr: to_mac, ethertype: EthernetProtocol::Ipv4 };
    ethernet.emit(&mut EthernetFrame::new_unchecked(&mut bytes));
    ip.emit(&mut Ipv4Packet::new_unchecked(&mut bytes[14..]), &caps);
    let mut packet = UdpPacket::new_unchecked(&mut bytes[34..]);
    udp.emit(&mut packet, &SERVER.into(), &to.into(), payload.len(), |p| p.copy_from_slice(payload), &caps);
    Packet::plain(bytes)
}

/// Answers ARP requests for the server.
fn arp_server(packet: &Packet) -> Vec<Packet> {
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
fn payload(packet: &Packet, port: u16) -> Option<(EthernetAddress, Ipv4Addr, u16, Vec<u8>)> {
    let frame = EthernetFrame::new_checked(&packet.bytes).unwrap();
    if frame.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let ip = Ipv4Packet::new_checked(frame.payload()).unwrap();
    let udp = (ip.next_header() == IpProtocol::Udp).then(|| UdpPacket::new_checked(ip.payload()).unwrap())?;
    let from = (frame.src_addr(), ip.src_addr(), udp.src_port());
    (udp.dst_port() == port).then(|| (from.0, from.1, from.2, udp.payload().to_vec()))
}

#[test]
fn datagrams_go_both_ways() {
    let mut lan = pair();
    let server = lan.stack(0).udp_bind(7).unwrap();
    let client = lan.stack(1).udp_bind(0).unwrap();
    let port = lan.stack(1).udp_port(client).unwrap();
    assert!(port >= 49152);
    let mut buffer = [0; 2000];
    assert_eq!(lan.stack(0).udp_receive(server, &mut buffer), Err(Error::WouldBlock));
    let long = vec![7; 1472];
    lan.stack(1).udp_send(client, b"ping", address(0, 7)).unwrap();
    lan.stack(1).udp_send(client, &long, address(0, 7)).unwrap();
    lan.stack(1).udp_send(client, b"", address(0, 7)).unwrap();
    lan.go(1);
    lan.pass(Duration::from_secs(2));
    assert_eq!(lan.stack(0).udp_peek(server, &mut buffer), Ok((4, address(1, port))));
    assert_eq!(lan.stack(0).udp_receive(server, &mut buffer), Ok((4, address(1, port))));
    assert_eq!(&buffer[..4], b"ping");
    assert_eq!(lan.stack(0).udp_receive(server, &mut buffer[..10]), Ok((10, address(1, port))), "cut");
    assert_eq!(lan.stack(0).udp_receive(server, &mut buffer), Ok((0, address(1, port))));
    lan.stack(0).udp_send(server, b"pong", address(1, port)).unwrap();
    lan.go(0);
    assert_eq!(lan.stack(1).udp_receive(client, &mut buffer), Ok((4, address(0, 7))));
}

#[test]
fn what_cannot_be_sent_or_bound() {
    let mut lan = pair();
    let socket = lan.stack(0).udp_bind(7).unwrap();
    assert_eq!(lan.stack(0).udp_bind(7), Err(Error::AddrInUse));
    let to = address(1, 7);
    assert_eq!(lan.stack(0).udp_send(socket, &[0; 1473], to), Err(Error::MessageTooLong));
    assert_eq!(lan.stack(0).udp_send(socket, b"x", address(1, 0)), Err(Error::AddrNotAvailable));
    let nowhere = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 7);
    assert_eq!(lan.stack(0).udp_send(socket, b"x", nowhere), Err(Error::AddrNotAvailable));
    lan.stack(0).udp_close(socket);
    assert_eq!(lan.stack(0).udp_send(socket, b"x", to), Err(Error::NotConnected));
    assert!(lan.stack(0).udp_bind(7).is_ok());
}

#[test]
fn a_receiver_that_does_not_exist_blocks_others_for_three_seconds_at_most() {
    let mut lan = pair();
    let server = lan.stack(1).udp_bind(7).unwrap();
    let socket = lan.stack(0).udp_bind(0).unwrap();
    lan.stack(0).udp_send(socket, b"lost", address(99, 7)).unwrap();
    lan.go(0);
    lan.pass(Duration::from_secs(5));
    lan.stack(0).udp_send(socket, b"found", address(1, 7)).unwrap();
    lan.go(0);
    lan.pass(Duration::from_secs(2));
    let mut buffer = [0; 16];
    assert_eq!(lan.stack(1).udp_receive(server, &mut buffer).map(|(len, _)| len), Ok(5));
}

#[test]
fn names_are_resolved() {
    let mut lan = Lan::new();
    lan.add_with("10.0.0.1/24,dns=10.0.0.254", settings(1));
    lan.others.push(Box::new(arp_server));
    lan.others.push(Box::new(|packet| {
        let Some((mac, ip, port, query)) = payload(packet, 53) else { return vec![] };
        // RFC 1035: the same id and question, one answer 10.0.0.77 (or NXDOMAIN for names with "no").
        let missing = query.windows(3).any(|w| w == b"\x02no");
        let mut answer = query.clone();
        answer[2..4].copy_from_slice(&if missing { [0x81, 0x83] } else { [0x81, 0x80] });
        answer[7] = u8::from(!missing);
        if !missing {
            answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 0, 77]);
        }
        vec![datagram(mac, ip, (53, port), &answer)]
    }));
    let good = lan.stack(0).resolve("host.example").unwrap();
    let bad = lan.stack(0).resolve("no.example").unwrap();
    assert_eq!(lan.stack(0).resolve("").map(|_| ()), Err(Error::InvalidInput));
    let (error, good) = lan.stack(0).resolved(good).unwrap_err();
    assert_eq!(error, Error::WouldBlock);
    lan.go(0);
    lan.pass(Duration::from_secs(5));
    assert_eq!(lan.stack(0).resolved(good.unwrap()).unwrap(), [Ipv4Addr::new(10, 0, 0, 77)]);
    assert_eq!(lan.stack(0).resolved(bad).unwrap_err().0, Error::NameNotFound);
}

#[test]
fn no_name_server_no_query() {
    let mut lan = pair();
    assert_eq!(lan.stack(0).resolve("host.example").map(|_| ()), Err(Error::InvalidInput));
}

/// A DHCP server that gives 10.0.0.50 for `lease` seconds while `lease` is not 0.
fn dhcp_server(lease: std::rc::Rc<std::cell::Cell<u32>>) -> impl FnMut(&Packet) -> Vec<Packet> {
    move |packet| {
        let Some((mac, _, _, request)) = payload(packet, 67) else { return vec![] };
        let request = DhcpPacket::new_checked(&request).unwrap();
        let request = DhcpRepr::parse(&request).unwrap();
        let message_type = match request.message_type {
            _ if lease.get() == 0 => return vec![],
            DhcpMessageType::Discover => DhcpMessageType::Offer,
            DhcpMessageType::Request => DhcpMessageType::Ack,
            _ => return vec![],
        };
        let reply = DhcpRepr {
            message_type,
            your_ip: Ipv4Addr::new(10, 0, 0, 50),
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

#[test]
fn an_address_is_leased_renewed_and_lost() {
    let lease = std::rc::Rc::new(std::cell::Cell::new(0));
    let mut lan = Lan::new();
    lan.others.push(Box::new(arp_server));
    lan.others.push(Box::new(dhcp_server(lease.clone())));
    lan.add_with("dhcp", settings(1));
    lan.go(0);
    lan.pass(Duration::from_secs(5));
    assert_eq!(lan.stack(0).ready(), Err(NotReady::NoLease));
    assert_eq!(lan.stack(0).tcp_connect(address(1, 80)).map(|_| ()), Err(Error::NetworkUnreachable));

    lease.set(600);
    lan.pass(Duration::from_secs(3));
    assert_eq!(lan.stack(0).ready(), Ok(()));
    let status = lan.stack(0).status().address.unwrap();
    assert_eq!(status.to_string(), "10.0.0.50/24, gateway 10.0.0.254, name server 10.0.0.254");

    lan.pass(Duration::from_secs(3_000));
    assert_eq!(lan.stack(0).ready(), Ok(()), "renewed");
    lease.set(0);
    let lost = lan.stack(0).tcp_connect("10.0.0.254:80".parse().unwrap()).unwrap();
    lan.go(0);
    lan.pass(Duration::from_secs(3_000));
    assert_eq!(lan.stack(0).ready(), Err(NotReady::NoLease), "lost");
    assert!(lan.stack(0).tcp_connected(lost).is_err());
    lease.set(600);
    lan.pass(Duration::from_secs(10));
    assert_eq!(lan.stack(0).ready(), Ok(()), "and leased again");
}
