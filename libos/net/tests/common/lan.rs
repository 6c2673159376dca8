//! Guests on one bridge, with a clock that jumps to the next deadline.

use super::back::Packet;
use super::{Host, TestPlatform};
use smoltcp::wire::{ArpPacket, EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, TcpPacket, UdpPacket};
use std::rc::Rc;
use zooid_net::config::NetConfig;
use zooid_net::stack::TcpSocket;
use zooid_net::{Duration, Error, Instant, Settings, Stack};

pub type Loss = Box<dyn FnMut(usize, &Packet) -> bool>;
pub type Other = Box<dyn FnMut(&Packet) -> Vec<Packet>>;
pub type Router = Box<dyn FnMut(Packet) -> Vec<Packet>>;

pub struct Guest {
    pub host: Rc<Host>,
    pub stack: Stack<TestPlatform>,
    pub deadline: Option<Instant>,
    pub polls: usize,
}

pub struct Lan {
    pub guests: Vec<Guest>,
    pub now: Instant,
    /// If set, the bridge cuts large segments and completes checksums, as on the way to another
    /// machine.
    pub cut: bool,
    /// Octets of the longest IP packet on the bridge.
    pub mtu: usize,
    /// Number of packets seen, and the length of the longest.
    pub packets: usize,
    pub longest: usize,
    /// Returns true if a packet is lost on the way; called with its number.
    pub lose: Loss,
    /// The answers of other hosts on the bridge to a frame.
    pub others: Vec<Other>,
    /// The router between all hosts: the packets that go on in the place of one.
    pub router: Option<Router>,
}

pub fn settings(seed: u64) -> Settings {
    Settings::for_memory(256 << 20, seed)
}

pub fn mac_text(last: u8) -> String {
    format!("00:16:3e:00:00:{last:02x}")
}

impl Lan {
    pub fn new() -> Self {
        Self {
            guests: Vec::new(),
            now: Instant::from_millis(1_000),
            cut: false,
            mtu: 1500,
            packets: 0,
            longest: 0,
            lose: Box::new(|_, _| false),
            others: Vec::new(),
            router: None,
        }
    }

    /// A guest 10.0.0.(index + 1), connected.
    pub fn add(&mut self, settings: Settings) -> usize {
        let index = self.guests.len();
        self.add_with(&format!("10.0.0.{}/24,gw=10.0.0.254", index + 1), settings)
    }

    pub fn add_with(&mut self, config: &str, settings: Settings) -> usize {
        let host = Host::new();
        host.attach(&mac_text(self.guests.len() as u8 + 1));
        self.add_on(host, config, settings)
    }

    pub fn add_on(&mut self, host: Rc<Host>, config: &str, settings: Settings) -> usize {
        let config: NetConfig = config.parse().unwrap();
        let stack = Stack::new(TestPlatform(host.clone()), config, settings, self.now).unwrap();
        self.guests.push(Guest { host, stack, deadline: None, polls: 0 });
        self.settle();
        self.guests.len() - 1
    }

    pub fn stack(&mut self, index: usize) -> &mut Stack<TestPlatform> {
        &mut self.guests[index].stack
    }

    /// Does all steps that need no time to pass.
    pub fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 100_000, "never quiet");
            let mut busy = false;
            let mut sent = Vec::new();
            for (index, guest) in self.guests.iter_mut().enumerate() {
                guest.host.backend_react();
                let changed = guest.host.watch_pending.take();
                if changed {
                    let _ = guest.stack.xenstore_changed(self.now);
                }
                let due = guest.deadline.is_some_and(|due| due <= self.now);
                if guest.host.event_pending.take() || due || changed {
                    guest.deadline = guest.stack.poll(self.now);
                    guest.polls += 1;
                    busy = true;
                }
                if let Some(back) = guest.host.back.borrow_mut().as_mut()
                    && guest.host.kicked.take()
                {
                    busy = true;
                    sent.extend(back.take().into_iter().map(|packet| (index, packet)));
                    back.deliver();
                }
            }
            for (from, packet) in sent {
                self.carry(from, packet);
            }
            if !busy {
                break;
            }
        }
    }

    /// Lets a guest send, after its socket calls.
    pub fn go(&mut self, index: usize) {
        let guest = &mut self.guests[index];
        guest.deadline = guest.stack.transmit(self.now);
        self.settle();
    }

    /// Lets `time` pass.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.settle();
            let next = self.guests.iter().filter_map(|guest| guest.deadline).min();
            match next {
                Some(next) if next <= end => self.now = next.max(self.now),
                _ => break,
            }
        }
        self.now = end;
        self.settle();
    }

    fn carry(&mut self, from: usize, packet: Packet) {
        self.packets += 1;
        self.longest = self.longest.max(packet.bytes.len());
        if (self.lose)(self.packets, &packet) {
            return;
        }
        check(&packet, 14 + self.mtu);
        let mut packets = match self.cut {
            true => cut(&packet),
            false => vec![packet],
        };
        for other in &mut self.others {
            let answers: Vec<Packet> = packets.iter().flat_map(&mut *other).collect();
            for answer in answers {
                deliver(&self.guests, None, &answer);
            }
        }
        let from = match &mut self.router {
            Some(router) => {
                packets = packets.into_iter().flat_map(router).collect();
                None // Its own packets may be for the sender.
            }
            None => Some(from),
        };
        for packet in packets.drain(..) {
            deliver(&self.guests, from, &packet);
        }
    }
}

/// A connection from guest 1 to guest 0: both ends, 1's first.
pub fn connect(lan: &mut Lan) -> (TcpSocket, TcpSocket) {
    let listener = lan.stack(0).tcp_listen(80, 8).unwrap();
    let client = lan.stack(1).tcp_connect("10.0.0.1:80".parse().unwrap()).unwrap();
    assert_eq!(lan.stack(1).tcp_connected(client), Err(Error::WouldBlock));
    lan.go(1);
    lan.pass(Duration::from_millis(2_000));
    assert_eq!(lan.stack(1).tcp_connected(client), Ok(()));
    let (server, peer) = lan.stack(0).tcp_accept(listener).unwrap();
    assert_eq!(lan.stack(1).tcp_local(client), Ok(peer));
    assert_eq!(lan.stack(0).tcp_accept(listener), Err(Error::WouldBlock));
    lan.stack(0).tcp_unlisten(listener);
    (client, server)
}

/// Data in which a part in the wrong place shows.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Sends `data` from one end to the other. Both ends read and write as soon as they can.
pub fn transfer(lan: &mut Lan, from: (usize, TcpSocket), to: (usize, TcpSocket), data: &[u8]) {
    let (mut sent, mut got) = (0, Vec::new());
    let mut buffer = vec![0; 100_000];
    let start = lan.now;
    while got.len() < data.len() {
        assert!(lan.now < start + Duration::from_secs(200), "stalled at {} of {}", got.len(), data.len());
        match lan.stack(from.0).tcp_send(from.1, &data[sent..]) {
            Ok(count) => sent += count,
            Err(error) => assert_eq!(error, Error::WouldBlock),
        }
        lan.go(from.0);
        match lan.stack(to.0).tcp_receive(to.1, &mut buffer) {
            Ok(count) => got.extend_from_slice(&buffer[..count]),
            Err(Error::WouldBlock) => lan.pass(Duration::from_micros(100)),
            Err(error) => panic!("{error}"),
        }
        lan.go(to.0);
    }
    assert!(got == data, "data differs");
}

fn deliver(guests: &[Guest], from: Option<usize>, packet: &Packet) {
    let target: [u8; 6] = packet.bytes[..6].try_into().unwrap();
    for (index, guest) in guests.iter().enumerate() {
        let text = guest.host.node("device/vif/0/mac").unwrap_or_default();
        let octets: Vec<u8> = text.split(':').filter_map(|t| u8::from_str_radix(t, 16).ok()).collect();
        let concerns = target[0] & 1 != 0 || octets == target;
        if Some(index) != from
            && concerns
            && let Some(back) = guest.host.back.borrow_mut().as_mut()
        {
            match packet.gso.is_some() && !back.gso {
                true => cut(packet).into_iter().for_each(|packet| back.give(packet)),
                false => back.give(packet.clone()),
            }
        }
    }
}

/// Checks that a packet is one of a correct frontend, and completes its checksum as hardware would.
fn check(packet: &Packet, longest: usize) {
    let mut bytes = packet.bytes.clone();
    if EthernetFrame::new_unchecked(&bytes).ethertype() != EthernetProtocol::Ipv4 {
        assert!(!packet.csum_blank && !packet.validated && packet.gso.is_none());
        if EthernetFrame::new_unchecked(&bytes).ethertype() == EthernetProtocol::Arp {
            ArpPacket::new_checked(&bytes[14..]).unwrap();
        }
        return;
    }
    complete(&mut bytes, packet.csum_blank);
    let ip = Ipv4Packet::new_checked(&bytes[14..]).unwrap();
    assert!(ip.verify_checksum());
    assert_eq!(usize::from(ip.total_len()), bytes.len() - 14);
    if ip.more_frags() || ip.frag_offset() > 0 {
        assert!(!packet.csum_blank && !packet.validated && packet.gso.is_none() && bytes.len() <= longest);
        return;
    }
    let (source, destination) = (ip.src_addr().into(), ip.dst_addr().into());
    match ip.next_header() {
        IpProtocol::Tcp => {
            let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
            assert!(tcp.verify_checksum(&source, &destination), "pseudo header sum");
            assert!(packet.csum_blank && packet.validated);
            assert!(packet.gso.is_some() || bytes.len() <= longest, "only what is cut may be long");
            if let Some(size) = packet.gso {
                assert!(tcp.payload().len() > usize::from(size));
                assert!(!tcp.syn() && !tcp.rst());
            }
        }
        IpProtocol::Udp => {
            let udp = UdpPacket::new_checked(ip.payload()).unwrap();
            assert!(udp.verify_checksum(&source, &destination) && udp.checksum() != 0);
            assert!(!packet.csum_blank && packet.gso.is_none() && bytes.len() <= longest);
        }
        _ => assert!(!packet.csum_blank && bytes.len() <= longest),
    }
}

/// Adds the sum over the TCP segment to the partial sum in its checksum field, as `csum_blank` asks
/// for.
fn complete(bytes: &mut [u8], blank: bool) {
    if !blank {
        return;
    }
    let start = 14 + usize::from(bytes[14] & 15) * 4;
    let mut sum = 0u64;
    for pair in bytes[start..].chunks(2) {
        sum += u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    bytes[start + 16..start + 18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// Cuts a large segment into the packets on a wire, with complete checksums.
fn cut(packet: &Packet) -> Vec<Packet> {
    // TCP alone, and no fragment of it.
    if !packet.csum_blank {
        return vec![Packet::plain(packet.bytes.clone())];
    }
    let ip_len = usize::from(packet.bytes[14] & 15) * 4;
    let tcp_len = usize::from(packet.bytes[14 + ip_len + 12] >> 4) * 4;
    let (headers, payload) = packet.bytes.split_at(14 + ip_len + tcp_len);
    let size = packet.gso.map_or(payload.len().max(1), usize::from);
    let mut parts: Vec<&[u8]> = payload.chunks(size).collect();
    if parts.is_empty() {
        parts.push(&[]);
    }
    let mut out = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let mut bytes = headers.to_vec();
        bytes.extend_from_slice(part);
        let total = bytes.len() as u16 - 14;
        let mut ip = Ipv4Packet::new_unchecked(&mut bytes[14..]);
        ip.set_total_len(total);
        ip.fill_checksum();
        let (source, destination) = (ip.src_addr().into(), ip.dst_addr().into());
        let mut tcp = TcpPacket::new_unchecked(&mut bytes[14 + ip_len..]);
        tcp.set_seq_number(tcp.seq_number() + index * size);
        if index + 1 < parts.len() {
            tcp.set_psh(false);
            tcp.set_fin(false);
        }
        tcp.fill_checksum(&source, &destination);
        out.push(Packet::plain(bytes));
    }
    out
}
