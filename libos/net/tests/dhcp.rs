//! The DHCP client against odd but legal servers.

mod common;

use common::Host;
use common::back::Packet;
use common::lan::{Lan, mac_text, settings};
use common::server::{SERVER, SERVER_MAC, arp_server, datagram_from, name_server, payload};
use common::strangers::{SYN, announced, arp};
use smoltcp::wire::EthernetAddress;
use std::cell::{Cell, RefCell};
use std::net::Ipv4Addr;
use std::rc::Rc;
use zooid_net::stack::NotReady;
use zooid_net::{Duration, Error};

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;

const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 253);
const FULL: &[u8] = &[1, 4, 255, 255, 240, 0, 3, 4, 10, 0, 0, 254, 6, 8, 10, 0, 0, 253, 10, 0, 0, 254, 26, 2, 5, 0x14];

/// A message of the client, as a server sees it.
#[derive(Clone, Debug)]
struct Seen {
    mac: EthernetAddress,
    kind: u8,
    transaction: [u8; 4],
    /// The address that it has.
    own: Ipv4Addr,
    /// The server that it has chosen.
    chosen: Option<Ipv4Addr>,
    /// To one server, not to all.
    unicast: bool,
}

impl Seen {
    fn of(packet: &Packet) -> Option<Self> {
        let (mac, _, _, octets) = payload(packet, 67)?;
        let (mut kind, mut chosen, mut at) = (0, None, 240);
        while octets[at] != 255 {
            let data = &octets[at + 2..][..usize::from(octets[at + 1])];
            match octets[at] {
                53 => kind = data[0],
                54 => chosen = Some(Ipv4Addr::from(<[u8; 4]>::try_from(data).unwrap())),
                _ => {}
            }
            at += 2 + data.len();
        }
        let own = <[u8; 4]>::try_from(&octets[12..16]).unwrap().into();
        let unicast = packet.bytes[0] & 1 == 0;
        Some(Self { mac, kind, transaction: octets[4..8].try_into().unwrap(), own, chosen, unicast })
    }

    /// An answer of `server` with these options, built octet by octet from RFC 2131.
    fn answer(&self, server: Ipv4Addr, kind: u8, address: [u8; 4], options: &[u8]) -> Packet {
        let mut octets = vec![0; 240];
        octets[..3].copy_from_slice(&[2, 1, 6]);
        octets[4..8].copy_from_slice(&self.transaction);
        octets[16..20].copy_from_slice(&address);
        octets[28..34].copy_from_slice(&self.mac.0);
        octets[236..].copy_from_slice(&[99, 130, 83, 99]);
        octets.extend([53, 1, kind, 54, 4]);
        octets.extend(server.octets());
        octets.extend(options);
        octets.push(255);
        let to = if self.own.is_unspecified() { Ipv4Addr::BROADCAST } else { self.own };
        datagram_from((SERVER_MAC, server), self.mac, to, (67, 68), &octets)
    }
}

type Log = Rc<RefCell<Vec<Seen>>>;

/// A guest with `net=dhcp` and servers that `react` stands for. Returns what they see, too.
fn world(react: impl FnMut(&Seen) -> Vec<Packet> + 'static) -> (Lan, Log) {
    world_with(None, react)
}

/// A server that leases 10.0.0.50 for 100 s, refuses to renew it, and leases 10.0.0.51 from then on.
fn renewals_refused() -> impl FnMut(&Seen) -> Vec<Packet> {
    let mut last = 50;
    move |message| {
        if !message.own.is_unspecified() {
            last = 51;
            return vec![message.answer(SERVER, NAK, [0; 4], &[])];
        }
        let kind = if message.kind == DISCOVER { OFFER } else { ACK };
        vec![message.answer(SERVER, kind, [10, 0, 0, last], &[51, 4, 0, 0, 0, 100])]
    }
}

/// As [`world`], where the toolstack gives the guest's device this MTU.
fn world_with(mtu: Option<u16>, mut react: impl FnMut(&Seen) -> Vec<Packet> + 'static) -> (Lan, Log) {
    let log = Log::default();
    let seen = log.clone();
    let mut lan = Lan::new();
    lan.others.push(Box::new(arp_server));
    lan.others.push(Box::new(move |packet| {
        let Some(message) = Seen::of(packet) else { return vec![] };
        seen.borrow_mut().push(message.clone());
        react(&message)
    }));
    let host = Host::new();
    if let Some(mtu) = mtu {
        host.set("device/vif/0/mtu", &mtu.to_string());
    }
    host.attach(&mac_text(1));
    lan.add_on(host, "dhcp", settings(1));
    lan.go(0);
    lan.pass(Duration::from_secs(1));
    (lan, log)
}

/// A server that gives 10.0.0.50 for `lease` seconds, with `options` at first, and afterwards
/// answers as `renew` does.
fn server(
    lease: u8,
    options: &'static [u8],
    mut renew: impl FnMut(&Seen) -> Vec<Packet> + 'static,
) -> impl FnMut(&Seen) -> Vec<Packet> {
    move |message| {
        let kind = match message.kind {
            DISCOVER => OFFER,
            REQUEST if message.own.is_unspecified() => ACK,
            _ => return renew(message),
        };
        vec![message.answer(SERVER, kind, [10, 0, 0, 50], &[options, &[51, 4, 0, 0, 0, lease]].concat())]
    }
}

fn address(lan: &mut Lan) -> Option<String> {
    lan.stack(0).status().address.map(|address| address.to_string())
}

/// The address that a lease with these options leads to.
fn leased(options: &'static [u8]) -> String {
    let (mut lan, _) = world(server(200, options, |_| vec![]));
    address(&mut lan).unwrap()
}

/// Lets time pass, during which the address must be there all the time.
fn keeps(lan: &mut Lan, seconds: u64) {
    let had = address(lan);
    assert!(had.is_some());
    for _ in 0..seconds {
        lan.pass(Duration::from_secs(1));
        assert_eq!(address(lan), had);
    }
}

#[test]
fn a_renewal_keeps_what_it_does_not_repeat() {
    let renew = |message: &Seen| vec![message.answer(SERVER, ACK, [10, 0, 0, 50], &[])];
    let (mut lan, log) = world(server(100, FULL, renew));
    let expected = "10.0.0.50/20, gateway 10.0.0.254, name server 10.0.0.253, name server 10.0.0.254, MTU 1300";
    assert_eq!(address(&mut lan).unwrap(), expected);
    keeps(&mut lan, 500);
    let log = log.borrow();
    assert!(log[2..].iter().all(|message| message.unicast && message.own == Ipv4Addr::new(10, 0, 0, 50)));
    // Every 50 s, which is half of the lease's time.
    assert_eq!(log.len(), 2 + 10);
}

#[test]
fn a_renewal_changes_what_it_repeats() {
    let renew = |message: &Seen| vec![message.answer(SERVER, ACK, [10, 0, 0, 50], &[6, 4, 10, 0, 0, 9])];
    let (mut lan, _) = world(server(100, FULL, renew));
    lan.pass(Duration::from_secs(60));
    assert_eq!(address(&mut lan).unwrap(), "10.0.0.50/20, gateway 10.0.0.254, name server 10.0.0.9, MTU 1300");
}

#[test]
fn an_acknowledgement_keeps_what_the_offer_said() {
    let (mut lan, _) = world(|message| {
        let (kind, options) = if message.kind == DISCOVER { (OFFER, FULL) } else { (ACK, &[][..]) };
        vec![message.answer(SERVER, kind, [10, 0, 0, 50], options)]
    });
    assert!(address(&mut lan).unwrap().starts_with("10.0.0.50/20, gateway 10.0.0.254"));
}

#[test]
fn a_nak_ends_the_lease_at_once() {
    let (mut lan, _) = world(renewals_refused());
    assert!(address(&mut lan).unwrap().starts_with("10.0.0.50/8"));
    lan.pass(Duration::from_secs(48));
    assert!(address(&mut lan).unwrap().starts_with("10.0.0.50/8"));
    lan.pass(Duration::from_secs(2));
    assert!(address(&mut lan).unwrap().starts_with("10.0.0.51/8"));
}

#[test]
fn a_server_that_is_silent_until_rebinding_costs_nothing() {
    let renew = |message: &Seen| match message.unicast {
        true => vec![],
        // Another server has taken over.
        false => vec![message.answer(OTHER, ACK, [10, 0, 0, 50], &[])],
    };
    let (mut lan, log) = world(server(200, FULL, renew));
    keeps(&mut lan, 199);
    let log = log.borrow();
    assert!(log.iter().any(|message| message.unicast));
    assert!(!log.last().unwrap().unicast);
}

#[test]
fn a_lease_that_nobody_renews_ends_and_is_asked_for_again() {
    let (mut lan, log) = world(server(20, FULL, |_| vec![]));
    lan.pass(Duration::from_secs(17));
    assert!(address(&mut lan).is_some());
    let before = log.borrow().len();
    lan.pass(Duration::from_secs(3));
    assert_eq!(log.borrow()[before..].iter().map(|message| message.kind).filter(|kind| *kind == DISCOVER).count(), 1);
    assert!(address(&mut lan).is_some());
}

#[test]
fn a_server_that_does_not_give_what_it_offers_gives_way_to_another() {
    for refusal in [None, Some(NAK)] {
        let (mut lan, _) = world(move |message| match message.kind {
            // The first one is always faster.
            DISCOVER => vec![
                message.answer(OTHER, OFFER, [10, 0, 0, 49], FULL),
                message.answer(SERVER, OFFER, [10, 0, 0, 50], FULL),
            ],
            _ if message.chosen == Some(OTHER) => {
                refusal.map(|kind| message.answer(OTHER, kind, [0; 4], &[])).into_iter().collect()
            }
            _ => vec![message.answer(SERVER, ACK, [10, 0, 0, 50], FULL)],
        });
        lan.pass(Duration::from_secs(16));
        assert!(address(&mut lan).unwrap().starts_with("10.0.0.50/20"), "{refusal:?}");
    }
}

#[test]
fn only_the_chosen_server_may_answer() {
    let (mut lan, _) = world(|message| match message.kind {
        DISCOVER => vec![message.answer(SERVER, OFFER, [10, 0, 0, 50], FULL)],
        _ => vec![
            message.answer(OTHER, NAK, [0; 4], &[]),
            message.answer(OTHER, ACK, [10, 0, 0, 66], FULL),
            message.answer(SERVER, ACK, [10, 0, 0, 50], FULL),
        ],
    });
    assert!(address(&mut lan).unwrap().starts_with("10.0.0.50/20"));
    // Neither in a renewal.
    keeps(&mut lan, 4000);
}

#[test]
fn an_only_server_that_failed_once_is_asked_again() {
    let mut requests = 0;
    let (mut lan, _) = world(move |message| match message.kind {
        DISCOVER => vec![message.answer(SERVER, OFFER, [10, 0, 0, 50], FULL)],
        _ => {
            requests += 1;
            (requests > 3).then(|| message.answer(SERVER, ACK, [10, 0, 0, 50], FULL)).into_iter().collect()
        }
    });
    assert_eq!(lan.stack(0).ready(), Err(NotReady::NoLease));
    lan.pass(Duration::from_secs(20));
    assert_eq!(lan.stack(0).ready(), Ok(()));
}

#[test]
fn servers_that_refuse_always_or_give_no_time_are_not_flooded() {
    let (mut lan, log) = world(|message| match message.kind {
        DISCOVER => vec![message.answer(SERVER, OFFER, [10, 0, 0, 50], FULL)],
        _ => vec![message.answer(SERVER, NAK, [0; 4], &[])],
    });
    lan.pass(Duration::from_secs(60));
    assert!(log.borrow().len() <= 60, "{}", log.borrow().len());
    let (mut lan, log) = world(server(0, FULL, |_| vec![]));
    lan.pass(Duration::from_secs(60));
    assert!(log.borrow().len() <= 60, "{}", log.borrow().len());
}

#[test]
fn both_name_servers_of_a_lease_are_asked() {
    // 10.0.0.253, the first one, does not exist.
    let (mut lan, _) = world(server(200, FULL, |_| vec![]));
    lan.others.push(Box::new(name_server));
    let query = lan.stack(0).resolve("host.example").unwrap();
    lan.go(0);
    lan.pass(Duration::from_secs(7));
    assert_eq!(lan.stack(0).resolved(query).unwrap(), [Ipv4Addr::new(10, 0, 0, 77)]);
}

#[test]
fn the_forms_of_a_lease() {
    const FORMS: &[(&[u8], &str)] = &[
        (&[], "10.0.0.50/8"),
        (&[1, 4, 255, 255, 255, 0, 3, 8, 10, 0, 0, 1, 10, 0, 0, 2], "10.0.0.50/24, gateway 10.0.0.1"),
        // A router outside of the network.
        (&[1, 4, 255, 255, 255, 255, 3, 4, 172, 31, 1, 1], "10.0.0.50/32, gateway 172.31.1.1"),
        // Google's: a route on the link to the router, and by the router to all others; the option
        // of the router is ignored (RFC 3442).
        (
            &[1, 4, 255, 255, 255, 255, 3, 4, 10, 9, 9, 9, 121, 14, 32, 10, 128, 0, 1, 0, 0, 0, 0, 0, 10, 128, 0, 1],
            "10.0.0.50/32, gateway 10.128.0.1, route 10.128.0.1/32 on the link",
        ),
        // Only the routes are there, without a default.
        (&[1, 4, 255, 255, 255, 0, 121, 8, 24, 10, 7, 7, 10, 0, 0, 3], "10.0.0.50/24, route 10.7.7.0/24 by 10.0.0.3"),
        // Routers that cannot be: itself, and a broadcast address.
        (&[1, 4, 255, 255, 255, 0, 3, 4, 10, 0, 0, 50], "10.0.0.50/24"),
        (&[1, 4, 255, 255, 255, 0, 121, 8, 24, 10, 7, 7, 10, 0, 0, 50], "10.0.0.50/24"),
        (&[1, 4, 255, 255, 255, 0, 3, 8, 255, 255, 255, 255, 10, 0, 0, 1], "10.0.0.50/24, gateway 10.0.0.1"),
        (&[1, 4, 255, 255, 255, 0, 26, 2, 0, 20], "10.0.0.50/24"),
    ];
    for (options, expected) in FORMS {
        assert_eq!(leased(options), *expected);
    }
}

#[test]
fn a_route_decides_what_can_be_reached() {
    let (mut lan, _) = world(server(200, &[1, 4, 255, 255, 255, 0, 121, 8, 24, 10, 7, 7, 10, 0, 0, 254], |_| vec![]));
    let sent = Rc::new(RefCell::new(Vec::new()));
    let sink = sent.clone();
    lan.others.push(Box::new(move |packet| {
        sink.borrow_mut().extend(payload(packet, 9).map(|_| packet.bytes[..6].to_vec()));
        vec![]
    }));
    let socket = lan.stack(0).udp_bind(0).unwrap();
    assert_eq!(lan.stack(0).udp_send(socket, b"x", "10.7.8.1:9".parse().unwrap()), Err(Error::NetworkUnreachable));
    lan.stack(0).udp_send(socket, b"x", "10.7.7.1:9".parse().unwrap()).unwrap();
    lan.go(0);
    lan.pass(Duration::from_secs(2));
    assert_eq!(*sent.borrow(), [SERVER_MAC.0.to_vec()], "by the router");
}

#[test]
fn a_lease_of_one_address_reaches_others_by_a_router_outside() {
    let (mut lan, _) = world(server(200, &[1, 4, 255, 255, 255, 255, 3, 4, 10, 0, 0, 254], |_| vec![]));
    let sent = Rc::new(RefCell::new(0));
    let sink = sent.clone();
    lan.others.push(Box::new(move |packet| {
        *sink.borrow_mut() += payload(packet, 9).iter().count();
        vec![]
    }));
    let socket = lan.stack(0).udp_bind(0).unwrap();
    lan.stack(0).udp_send(socket, b"x", "192.0.2.1:9".parse().unwrap()).unwrap();
    lan.go(0);
    lan.pass(Duration::from_secs(2));
    assert_eq!(*sent.borrow(), 1);
}

#[test]
fn what_waits_for_a_neighbour_is_not_sent_from_an_address_that_is_lost() {
    let (mut lan, _) = world(renewals_refused());
    let exists = Rc::new(Cell::new(false));
    let answers = exists.clone();
    lan.others.push(Box::new(arp(move |address| answers.get() && address == Ipv4Addr::new(10, 0, 0, 9))));
    let senders = Rc::new(RefCell::new(Vec::new()));
    let seen = senders.clone();
    lan.others.push(Box::new(move |packet| {
        seen.borrow_mut().extend(payload(packet, 9).map(|(_, from, ..)| from));
        vec![]
    }));
    let socket = lan.stack(0).udp_bind(0).unwrap();
    lan.pass(Duration::from_secs(48));
    for _ in 0..2 {
        lan.stack(0).udp_send(socket, b"x", "10.0.0.9:9".parse().unwrap()).unwrap();
        lan.go(0);
        lan.pass(Duration::from_millis(1500));
        exists.set(true);
    }
    assert_eq!(*senders.borrow(), [Ipv4Addr::new(10, 0, 0, 51)]);
}

fn connect(lan: &mut Lan) {
    lan.stack(0).tcp_connect(std::net::SocketAddrV4::new(SERVER, 80)).unwrap();
    lan.go(0);
}

#[test]
fn a_leases_mtu_counts_below_that_of_the_device_and_not_below_576() {
    const CASES: &[(Option<u16>, &[u8], u16)] = &[
        (None, &[26, 2, 0x05, 0x14], 1300),
        (None, &[26, 2, 0x05, 0xdd], 1500),
        (Some(1400), &[26, 2, 0x23, 0x28], 1400),
        (Some(9000), &[26, 2, 0x1f, 0x40], 8000),
        (Some(9000), &[], 9000),
        (None, &[26, 2, 0, 100], 576),
        // Less than RFC 2132 (5.1) allows.
        (None, &[26, 2, 0, 67], 1500),
    ];
    for &(device, options, mtu) in CASES {
        let (mut lan, _) = world_with(device, server(200, options, |_| vec![]));
        let size = announced(&mut lan, SYN);
        connect(&mut lan);
        assert_eq!(size.get() + 40, mtu);
        let socket = lan.stack(0).udp_bind(0).unwrap();
        let to = std::net::SocketAddrV4::new(SERVER, 9);
        let longest = usize::from(mtu) - 28;
        assert_eq!(lan.stack(0).udp_send(socket, &vec![0; longest + 1], to), Err(Error::MessageTooLong));
        assert_eq!(lan.stack(0).udp_send(socket, &vec![0; longest], to), Ok(()));
    }
}

#[test]
fn a_leases_mtu_ends_with_it() {
    let mut first = true;
    let (mut lan, _) = world(move |message| {
        if !message.own.is_unspecified() {
            first = false;
            return vec![message.answer(SERVER, NAK, [0; 4], &[])];
        }
        let kind = if message.kind == DISCOVER { OFFER } else { ACK };
        let options: &[u8] = if first { &[26, 2, 5, 0x14, 51, 4, 0, 0, 0, 100] } else { &[51, 4, 0, 0, 0, 200] };
        vec![message.answer(SERVER, kind, [10, 0, 0, 50], options)]
    });
    let size = announced(&mut lan, SYN);
    connect(&mut lan);
    assert_eq!(size.get(), 1260);
    lan.pass(Duration::from_secs(60));
    connect(&mut lan);
    assert_eq!(size.get(), 1460);
}

/// The backend is given packets for full segments of the lowered size, which are longer than the
/// largest with the device's own MTU.
#[test]
fn a_leases_mtu_on_a_device_for_long_packets_leaves_bulk_data_in_order() {
    let (mut lan, _) = world_with(Some(40_000), server(200, &[26, 2, 5, 0x14], |_| vec![]));
    lan.mtu = 1300;
    lan.add_with("10.0.0.2/8", settings(2));
    let listener = lan.stack(1).tcp_listen(80, 8).unwrap();
    let client = lan.stack(0).tcp_connect("10.0.0.2:80".parse().unwrap()).unwrap();
    lan.go(0);
    let (server, _) = lan.stack(1).tcp_accept(listener).unwrap();
    let data: Vec<u8> = (0..2_000_000u32).map(|i| (i % 251) as u8).collect();
    let (mut sent, mut got, mut buffer) = (0, Vec::new(), vec![0; 65536]);
    while got.len() < data.len() {
        sent += lan.stack(0).tcp_send(client, &data[sent..]).unwrap_or(0);
        lan.go(0);
        let count = lan.stack(1).tcp_receive(server, &mut buffer).unwrap_or(0);
        got.extend_from_slice(&buffer[..count]);
        lan.pass(Duration::from_micros(100));
        assert!(lan.now.total_millis() < 600_000, "stalled at {}", got.len());
    }
    assert!(got == data, "data differs");
    assert!(lan.longest > 60_000, "{}", lan.longest);
}
