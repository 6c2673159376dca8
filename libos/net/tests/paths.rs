//! Paths with a smaller MTU than the interface.

mod common;

use common::Host;
use common::back::{Back, Packet};
use common::lan::{Lan, Router, connect, mac_text, pattern, settings, transfer};
use common::server::datagram_from;
use common::strangers::{arp, asked, give, mac_of, syn, too_big, too_big_to};
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv4Packet, IpProtocol, Ipv4Packet, TcpPacket, UdpPacket,
};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;
use zooid_net::stack::UdpSocket;
use zooid_net::{Duration, Error, Settings};

const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const OWN_MAC: EthernetAddress = EthernetAddress([0, 0x16, 0x3e, 0, 0, 1]);
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
const PORT: u16 = 5_000;
/// Octets of the longest datagram in a packet of 1,500 octets.
const LONGEST: usize = 1_472;
/// The lengths of its packets: whole, and on a path with an MTU of 1,280.
const WHOLE: [usize; 1] = [1_500];
const NARROW: [usize; 2] = [1_276, 244];

fn ip(packet: &Packet) -> Option<Ipv4Packet<&[u8]>> {
    let frame = EthernetFrame::new_checked(&packet.bytes[..]).unwrap();
    (frame.ethertype() == EthernetProtocol::Ipv4).then(|| Ipv4Packet::new_checked(frame.payload()).unwrap())
}

/// Puts fragments together (RFC 791, section 3.2). Those of a packet must come in order.
#[derive(Default)]
struct Reassembly {
    parts: BTreeMap<(Ipv4Addr, Ipv4Addr, u8, u16), Vec<u8>>,
    /// Packets that came in fragments, and have come whole.
    whole: Vec<Vec<u8>>,
}

impl Reassembly {
    /// The packet that is complete with this one.
    fn take(&mut self, packet: Packet) -> Option<Packet> {
        let ip = ip(&packet).unwrap();
        let (more, offset) = (ip.more_frags(), usize::from(ip.frag_offset()));
        if !more && offset == 0 {
            return Some(packet);
        }
        assert!(!ip.dont_frag() && ip.verify_checksum());
        assert!(!more || ip.payload().len().is_multiple_of(8) && !ip.payload().is_empty());
        let key = (ip.src_addr(), ip.dst_addr(), ip.next_header().into(), ip.ident());
        let bytes = self.parts.entry(key).or_default();
        if offset == 0 {
            assert!(bytes.is_empty(), "two packets with one identification");
            bytes.extend_from_slice(&packet.bytes[..34]);
        }
        assert_eq!(bytes.len(), 34 + offset, "in order");
        bytes.extend_from_slice(ip.payload());
        if more {
            return None;
        }
        let mut bytes = self.parts.remove(&key).unwrap();
        let total = bytes.len() as u16 - 14;
        let mut ip = Ipv4Packet::new_unchecked(&mut bytes[14..]);
        ip.set_total_len(total);
        ip.clear_flags();
        ip.fill_checksum();
        let ip = Ipv4Packet::new_checked(&bytes[14..]).unwrap();
        let (source, destination) = (ip.src_addr().into(), ip.dst_addr().into());
        assert!(match ip.next_header() {
            IpProtocol::Tcp => TcpPacket::new_checked(ip.payload()).unwrap().verify_checksum(&source, &destination),
            _ => UdpPacket::new_checked(ip.payload()).unwrap().verify_checksum(&source, &destination),
        });
        self.whole.push(bytes.clone());
        Some(Packet::plain(bytes))
    }
}

/// A router to a link with an MTU of `mtu`, and what it knows: the number of packets that were too
/// big, and a host behind it that reassembles.
struct Narrow {
    dropped: Rc<Cell<usize>>,
    reassembly: Rc<RefCell<Reassembly>>,
}

impl Narrow {
    fn new(mtu: u16) -> (Self, Router) {
        let this = Self { dropped: Rc::default(), reassembly: Rc::default() };
        let (dropped, reassembly) = (this.dropped.clone(), this.reassembly.clone());
        let router = Box::new(move |packet: Packet| {
            let Some(ip) = ip(&packet) else { return vec![packet] };
            if ip.total_len() > mtu {
                assert!(ip.dont_frag());
                dropped.set(dropped.get() + 1);
                return vec![too_big(&packet, mtu)];
            }
            reassembly.borrow_mut().take(packet).into_iter().collect()
        });
        (this, router)
    }
}

#[test]
fn bulk_goes_through_a_narrow_path() {
    for offload in [true, false] {
        let mut lan = Lan::new();
        lan.cut = true;
        lan.add(Settings { offload, ..settings(1) });
        lan.add(Settings { offload, ..settings(2) });
        let (narrow, router) = Narrow::new(1_280);
        lan.router = Some(router);
        let (client, server) = connect(&mut lan);
        for (from, to) in [((0, server), (1, client)), ((1, client), (0, server))] {
            transfer(&mut lan, from, to, &pattern(100_000));
            let dropped = narrow.dropped.take();
            assert!((1..=20).contains(&dropped), "{dropped} packets");
            transfer(&mut lan, from, to, &pattern(100_000));
            assert_eq!(narrow.dropped.get(), 0, "the MTU is known");
        }
        let fragmented = narrow.reassembly.borrow().whole.len();
        assert_eq!(fragmented == 0, offload, "the backend cuts TCP: {fragmented} packets in fragments");
    }
}

#[test]
fn each_link_of_a_path_is_found() {
    let mut lan = Lan::new();
    lan.cut = true;
    lan.add(settings(1));
    lan.add(settings(2));
    let (near, mut near_router) = Narrow::new(1_400);
    let (far, mut far_router) = Narrow::new(1_000);
    lan.router = Some(Box::new(move |packet| near_router(packet).into_iter().flat_map(&mut far_router).collect()));
    let (client, server) = connect(&mut lan);
    transfer(&mut lan, (0, server), (1, client), &pattern(100_000));
    let [near, far] = [near, far].map(|narrow| narrow.dropped.take());
    assert!((1..=20).contains(&near) && (1..=40).contains(&far), "{near} and {far} packets");
}

/// Guest 0 with a UDP socket, guest 1, and strangers whose addresses end in 9 and more.
struct Senders {
    lan: Lan,
    socket: UdpSocket,
    /// The packets of guest 0 with UDP datagrams.
    sent: Rc<RefCell<Vec<Packet>>>,
}

impl Senders {
    fn new() -> Self {
        let mut lan = Lan::new();
        lan.add(settings(1));
        lan.add(settings(2));
        lan.others.push(Box::new(arp(|address| address.octets()[3] >= 9)));
        let sent = Rc::new(RefCell::new(Vec::new()));
        let sink = sent.clone();
        lan.others.push(Box::new(move |packet| {
            if ip(packet).is_some_and(|ip| ip.src_addr() == OWN && ip.next_header() == IpProtocol::Udp) {
                sink.borrow_mut().push(packet.clone());
            }
            vec![]
        }));
        let socket = lan.stack(0).udp_bind(PORT).unwrap();
        Self { lan, socket, sent }
    }

    fn give(&mut self, packet: Packet) {
        give(&self.lan, packet);
        self.lan.settle();
    }

    fn send(&mut self, to: Ipv4Addr, data: &[u8]) {
        self.lan.stack(0).udp_send(self.socket, data, SocketAddrV4::new(to, 7)).unwrap();
        self.lan.go(0);
    }

    /// The lengths of the IPv4 packets with guest 0's datagrams since the last call.
    fn lengths(&mut self) -> Vec<usize> {
        self.sent.take().iter().map(|packet| packet.bytes.len() - 14).collect()
    }

    /// The lengths of the packets with the longest datagram to `to`.
    fn lengths_to(&mut self, to: Ipv4Addr) -> Vec<usize> {
        self.sent.take();
        self.send(to, &[7; LONGEST]);
        self.lengths()
    }
}

/// The longest datagram of guest 0 to `to`, as it has sent it.
fn datagram_to(to: Ipv4Addr) -> Packet {
    datagram_from((OWN_MAC, OWN), mac_of(to), to, (PORT, 7), &[7; LONGEST])
}

#[test]
fn datagrams_go_in_fragments() {
    let mut senders = Senders::new();
    let (narrow, router) = Narrow::new(1_280);
    senders.lan.router = Some(router);
    let receiver = senders.lan.stack(1).udp_bind(7).unwrap();
    let peer = Ipv4Addr::new(10, 0, 0, 2);
    let data = pattern(1_400);
    let mut buffer = vec![0; 2_000];
    senders.send(peer, &data);
    assert_eq!(senders.lan.stack(1).udp_receive(receiver, &mut buffer), Err(Error::WouldBlock), "lost");
    assert_eq!(narrow.dropped.get(), 1);
    senders.lengths();
    let mut idents = Vec::new();
    for _ in 0..50 {
        senders.send(peer, &data);
        let from = SocketAddrV4::new(OWN, PORT);
        assert_eq!(senders.lan.stack(1).udp_receive(receiver, &mut buffer), Ok((1_400, from)));
        assert_eq!(buffer[..1_400], data);
        idents.push(ip(&senders.sent.borrow()[0]).unwrap().ident());
        assert_eq!(senders.lengths(), [1_276, 172]);
    }
    idents.sort_unstable();
    idents.dedup();
    assert_eq!((idents.len(), narrow.dropped.get()), (50, 1));
    senders.send(peer, &data[..1_252]);
    assert_eq!(senders.lengths(), [1_280], "a packet that fits is whole");
}

#[test]
fn the_longest_datagram_goes_in_fragments() {
    let mut lan = Lan::new();
    lan.mtu = 65_521;
    for guest in 0..2 {
        let host = Host::new();
        host.set("device/vif/0/mtu", "65521");
        host.attach(&mac_text(guest + 1));
        lan.add_on(host, &format!("10.0.0.{}/24", guest + 1), settings(guest.into()));
    }
    let (_, router) = Narrow::new(1_280);
    lan.router = Some(router);
    let sender = lan.stack(0).udp_bind(0).unwrap();
    let receiver = lan.stack(1).udp_bind(7).unwrap();
    let data = pattern(65_493);
    let mut buffer = vec![0; 65_536];
    for lost in [true, false] {
        lan.stack(0).udp_send(sender, &data, "10.0.0.2:7".parse().unwrap()).unwrap();
        lan.go(0);
        assert_eq!(lan.stack(1).udp_receive(receiver, &mut buffer).is_err(), lost);
    }
    assert_eq!(buffer[..data.len()], data);
}

#[test]
fn messages_tell_the_mtu() {
    let least: &[usize] = &[548, 548, 444];
    // An old router tells 0. The next common MTU below 1,500 is 1,492.
    for (mtu, lengths) in
        [(1_280, &NARROW[..]), (1_499, &[1_492, 28]), (552, least), (60, least), (1, least), (0, &[1_492, 28])]
    {
        let mut senders = Senders::new();
        senders.give(too_big(&datagram_to(STRANGER), mtu));
        assert_eq!(senders.lengths_to(STRANGER), lengths, "{mtu}");
        assert_eq!(senders.lengths_to(Ipv4Addr::new(10, 0, 0, 10)), WHOLE, "another destination");
    }
}

#[test]
fn an_old_router_lowers_the_mtu_step_by_step() {
    let mut senders = Senders::new();
    for longest in [1_492, 1_004, 548, 548] {
        let sent = senders.lengths_to(STRANGER)[0];
        let mut packet = datagram_to(STRANGER);
        Ipv4Packet::new_unchecked(&mut packet.bytes[14..]).set_total_len(sent as u16);
        senders.give(too_big(&packet, 0));
        assert_eq!(senders.lengths_to(STRANGER)[0], longest);
    }
}

#[test]
fn forged_messages_change_nothing() {
    let mut senders = Senders::new();
    let peer = Ipv4Addr::new(10, 0, 0, 2);
    let (client, _server) = connect(&mut senders.lan);
    let client = senders.lan.stack(1).tcp_local(client).unwrap();
    // One connection attempt from each side, to and from hosts that do not answer.
    give(&senders.lan, syn(SocketAddrV4::new(STRANGER, 1_000), SocketAddrV4::new(OWN, 81)));
    let _listener = senders.lan.stack(0).tcp_listen(81, 8).unwrap();
    senders.lan.settle();
    let attempt = senders.lan.stack(0).tcp_connect(SocketAddrV4::new(STRANGER, 82)).unwrap();
    senders.lan.go(0);
    let attempt = senders.lan.stack(0).tcp_local(attempt).unwrap();
    let segment = |port, to| syn(SocketAddrV4::new(OWN, port), to);
    let from = |source, to, port| datagram_from((OWN_MAC, source), mac_of(to), to, (port, 7), &[7; LONGEST]);
    let about = |packet: &Packet| too_big_to((OWN_MAC, OWN), packet, 1_280);
    let edit = |change: &dyn Fn(&mut Vec<u8>), fill: bool| {
        let mut packet = too_big(&datagram_to(STRANGER), 1_280);
        change(&mut packet.bytes);
        if fill {
            Ipv4Packet::new_unchecked(&mut packet.bytes[14..]).fill_checksum();
            Icmpv4Packet::new_unchecked(&mut packet.bytes[34..]).fill_checksum();
        }
        packet
    };
    let broadcast = (EthernetAddress::BROADCAST, Ipv4Addr::BROADCAST);
    let forged = [
        ("another's packet", about(&from(peer, STRANGER, PORT))),
        ("a port without a socket", about(&from(OWN, STRANGER, PORT + 1))),
        ("to all", too_big_to(broadcast, &datagram_to(STRANGER), 1_280)),
        ("about the guest itself", about(&from(OWN, OWN, PORT))),
        ("about the loopback network", about(&from(OWN, Ipv4Addr::LOCALHOST, PORT))),
        ("from the loopback network", about(&from(Ipv4Addr::LOCALHOST, STRANGER, PORT))),
        ("about a broadcast", about(&from(OWN, Ipv4Addr::new(10, 0, 0, 255), PORT))),
        ("about a broadcast to all", about(&from(OWN, Ipv4Addr::BROADCAST, PORT))),
        ("about a multicast", about(&from(OWN, Ipv4Addr::new(224, 0, 0, 9), PORT))),
        ("another peer of a connection", about(&segment(80, SocketAddrV4::new(STRANGER, client.port())))),
        ("another port of a peer", about(&segment(80, SocketAddrV4::new(peer, client.port() ^ 1)))),
        ("a listener alone", about(&segment(81, SocketAddrV4::new(STRANGER, 1_001)))),
        ("a half-open connection", about(&segment(81, SocketAddrV4::new(STRANGER, 1_000)))),
        ("an attempt from here", about(&segment(attempt.port(), SocketAddrV4::new(STRANGER, 82)))),
        ("the interface's own MTU", too_big(&datagram_to(STRANGER), 1_500)),
        ("a larger MTU", too_big(&datagram_to(STRANGER), 65_535)),
        ("a wrong ICMP checksum", edit(&|bytes| bytes[36] ^= 1, false)),
        ("a wrong header checksum", edit(&|bytes| bytes[24] ^= 1, false)),
        ("another type", edit(&|bytes| bytes[34] = 11, true)),
        ("another code", edit(&|bytes| bytes[35] = 3, true)),
        ("a later fragment", edit(&|bytes| bytes[42 + 7] = 1, true)),
        ("another protocol", edit(&|bytes| bytes[42 + 9] = 1, true)),
        ("another version", edit(&|bytes| bytes[42] = 0x65, true)),
        ("a short header", edit(&|bytes| bytes[42] = 0x44, true)),
        ("a long header", edit(&|bytes| bytes[42] = 0x4f, true)),
        ("no MTU and no length", edit(&|bytes| [40, 41, 44, 45].iter().for_each(|&at| bytes[at] = 0), true)),
    ];
    let groups = [[10, 0, 0, 255], [255; 4], [224, 0, 0, 9]].map(Ipv4Addr::from);
    for (name, packet) in forged {
        senders.give(packet);
        for to in [STRANGER, peer].into_iter().chain(groups) {
            assert_eq!(senders.lengths_to(to), WHOLE, "{name}, to {to}");
        }
    }
    // The true one of the connection.
    senders.give(about(&segment(80, client)));
    assert_eq!(senders.lengths_to(peer), NARROW);
}

#[test]
fn messages_that_are_cut_off_change_nothing() {
    let mut senders = Senders::new();
    let message = too_big(&datagram_to(STRANGER), 1_280);
    for len in 15..message.bytes.len() {
        let mut packet = Packet::plain(message.bytes[..len].to_vec());
        senders.give(packet.clone());
        assert_eq!(senders.lengths_to(STRANGER), WHOLE, "{len} octets of a longer packet");
        if len <= 34 {
            continue;
        }
        let mut ip = Ipv4Packet::new_unchecked(&mut packet.bytes[14..]);
        ip.set_total_len(len as u16 - 14);
        ip.fill_checksum();
        if len >= 38 {
            Icmpv4Packet::new_unchecked(&mut packet.bytes[34..]).fill_checksum();
        }
        senders.give(packet);
        // The ports are the last that is needed.
        let expected = if len < 14 + 20 + 8 + 20 + 4 { &WHOLE[..] } else { &NARROW };
        assert_eq!(senders.lengths_to(STRANGER), expected, "{len} octets");
        senders.lan.pass(Duration::from_secs(600));
    }
}

#[test]
fn full_packets_are_tried_again_after_ten_minutes() {
    let mut senders = Senders::new();
    senders.give(too_big(&datagram_to(STRANGER), 1_280));
    senders.lan.pass(Duration::from_secs(599));
    assert_eq!(senders.lengths_to(STRANGER), NARROW);
    senders.lan.pass(Duration::from_secs(1));
    assert_eq!(senders.lengths_to(STRANGER), WHOLE);
}

#[test]
fn a_new_backend_has_new_paths() {
    let mut senders = Senders::new();
    senders.give(too_big(&datagram_to(STRANGER), 1_280));
    assert_eq!(senders.lengths_to(STRANGER), NARROW);
    let host = senders.lan.guests[0].host.clone();
    host.begin_detach();
    senders.lan.settle();
    host.finish_detach();
    senders.lan.settle();
    host.attach(&mac_text(1));
    senders.lan.settle();
    assert_eq!(senders.lengths_to(STRANGER), WHOLE);
}

#[test]
fn ten_thousand_messages_leave_the_last_paths() {
    let mut senders = Senders::new();
    let address = |n: u32| Ipv4Addr::from_bits(STRANGER.to_bits() + n);
    for n in 0..10_000 {
        senders.give(too_big(&datagram_to(Ipv4Addr::from_bits(0xc000_0000 + n)), 1_280));
        senders.lan.now += Duration::from_millis(1);
    }
    for n in 0..65 {
        senders.give(too_big(&datagram_to(address(n)), 1_280));
        senders.lan.now += Duration::from_millis(1);
    }
    assert_eq!(senders.lengths_to(address(0)), WHOLE, "the oldest has given way");
    for n in 1..65 {
        assert_eq!(senders.lengths_to(address(n)), NARROW);
    }
}

#[test]
fn a_datagram_that_waits_for_its_neighbour_goes_in_fragments() {
    let mut senders = Senders::new();
    let lost = Rc::new(Cell::new(true));
    let loses = lost.clone();
    senders.lan.lose = Box::new(move |_, packet| asked(packet).is_some() && loses.get());
    let data = [1, 2, 3].map(|n| vec![n; LONGEST]);
    senders.send(STRANGER, &data[0]);
    senders.give(too_big(&datagram_to(STRANGER), 1_280));
    data[1..].iter().for_each(|data| senders.send(STRANGER, data));
    assert_eq!(senders.lengths(), [0; 0]);
    lost.set(false);
    senders.lan.pass(Duration::from_secs(1));
    let mut reassembly = Reassembly::default();
    let packets = senders.sent.borrow().clone();
    let whole: Vec<Packet> = packets.into_iter().filter_map(|packet| reassembly.take(packet)).collect();
    assert_eq!(senders.lengths(), NARROW.repeat(3));
    assert!(whole.iter().map(|packet| &packet.bytes[42..]).eq(&data));
}

#[test]
fn a_slow_backend_gets_all_fragments_of_a_datagram() {
    let mut senders = Senders::new();
    senders.give(too_big(&datagram_to(STRANGER), 1_280));
    senders.lengths_to(STRANGER);
    let host = senders.lan.guests[0].host.clone();
    let act = |act: &dyn Fn(&mut Back)| act(host.back.borrow_mut().as_mut().unwrap());
    act(&|back| back.habits.hold_answers = true);
    let mut queued = 0;
    let to = SocketAddrV4::new(STRANGER, 7);
    while senders.lan.stack(0).udp_send(senders.socket, &pattern(LONGEST), to).is_ok() {
        queued += 1;
        senders.lan.go(0);
        assert!(queued < 1_000, "it never waits");
    }
    for _ in 0..1_000 {
        act(&|back| back.answer(1));
        senders.lan.settle();
    }
    assert_eq!(senders.lengths(), NARROW.repeat(queued));
}

#[test]
fn random_messages_never_panic() {
    let mut seed = 5u64;
    let mut random = move |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    let mut senders = Senders::new();
    for _ in 0..20_000 {
        let mut packet = too_big(&datagram_to(Ipv4Addr::from_bits(random(1 << 31) as u32)), random(1 << 16) as u16);
        packet.bytes.resize(14 + 20 + random(100), random(256) as u8);
        let len = packet.bytes.len();
        for _ in 0..random(4) {
            packet.bytes[14 + random(len - 14)] = random(256) as u8;
        }
        // Some with a header that is right, and some with a message that is.
        if random(4) > 0 {
            packet.bytes[14] = 0x45;
            let mut ip = Ipv4Packet::new_unchecked(&mut packet.bytes[14..]);
            ip.set_total_len(len as u16 - 14);
            ip.fill_checksum();
        }
        if random(4) > 0 && len >= 38 {
            Icmpv4Packet::new_unchecked(&mut packet.bytes[34..]).fill_checksum();
        }
        senders.give(packet);
    }
    let to = Ipv4Addr::new(10, 0, 0, 2);
    let receiver = senders.lan.stack(1).udp_bind(7).unwrap();
    senders.send(to, b"still there");
    assert_eq!(senders.lan.stack(1).udp_receive(receiver, &mut [0; 16]).map(|(len, _)| len), Ok(11));
}
