//! Neighbours that answer and those that do not.

mod common;

use common::back::Packet;
use common::lan::{Lan, settings};
use common::strangers::{arp, asked, asks, give, mac_of, syn};
use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;
use zooid_net::{Duration, Error};

fn at(address: u32, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from_bits(0x0a01_0000 + address), port)
}

/// Guest 0, and `live` others, 10.1.0.1 and so on.
fn lan(live: usize) -> Lan {
    let mut lan = Lan::new();
    for guest in 0..=live {
        lan.add_with(&format!("10.1.0.{}/16", guest + 1), settings(guest as u64));
    }
    lan
}

#[test]
fn dead_neighbours_delay_no_live_one() {
    let mut seed = 7u64;
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for dead in [0, 1, 4, 16, 200] {
        let mut lan = lan(4);
        let listeners: Vec<_> = (1..=4).map(|guest| lan.stack(guest).tcp_listen(80, 8).unwrap()).collect();
        let receivers: Vec<_> = (1..=4).map(|guest| lan.stack(guest).udp_bind(7).unwrap()).collect();
        let sender = lan.stack(0).udp_bind(0).unwrap();
        let mut order: Vec<Option<usize>> = (1..=4).map(Some).chain((0..dead).map(|_| None)).collect();
        for place in (1..order.len()).rev() {
            order.swap(place, random(place as u64 + 1) as usize);
        }
        let mut attempts = Vec::new();
        for (number, neighbour) in order.into_iter().enumerate() {
            lan.pass(Duration::from_millis(random(40)));
            let Some(guest) = neighbour else {
                let address = 1_000 + number as u32;
                attempts.push(lan.stack(0).tcp_connect(at(address, 80)).unwrap());
                lan.stack(0).udp_send(sender, b"lost", at(address, 7)).unwrap();
                lan.go(0);
                continue;
            };
            // Not a moment passes.
            let address = guest as u32 + 1;
            let client = lan.stack(0).tcp_connect(at(address, 80)).unwrap();
            lan.stack(0).udp_send(sender, b"found", at(address, 7)).unwrap();
            lan.go(0);
            assert_eq!(lan.stack(0).tcp_connected(client), Ok(()), "{dead} dead neighbours");
            assert!(lan.stack(guest).tcp_accept(listeners[guest - 1]).is_ok());
            assert!(lan.stack(guest).udp_receive(receivers[guest - 1], &mut [0; 8]).is_ok());
        }
        lan.pass(Duration::from_secs(3));
        for attempt in attempts {
            assert_eq!(lan.stack(0).tcp_connected(attempt), Err(Error::HostUnreachable));
            lan.stack(0).tcp_close(attempt);
        }
        lan.go(0);
        assert_eq!(lan.stack(0).status().sockets, 4 + 1, "the live connections and the UDP socket");
    }
}

#[test]
fn an_address_that_answers_no_request_is_unreachable_for_a_while() {
    let mut lan = lan(1);
    let requests = Rc::new(Cell::new(0));
    let count = requests.clone();
    lan.others.push(Box::new(move |packet| {
        count.set(count.get() + usize::from(asked(packet).is_some()));
        vec![]
    }));
    let (peer, socket) = (at(99, 80), lan.stack(0).udp_bind(0).unwrap());
    let client = lan.stack(0).tcp_connect(peer).unwrap();
    lan.go(0);
    lan.pass(Duration::from_millis(2_999));
    assert_eq!((lan.stack(0).tcp_connected(client), requests.get()), (Err(Error::WouldBlock), 3));
    lan.pass(Duration::from_millis(1));
    assert_eq!(lan.stack(0).tcp_connected(client), Err(Error::HostUnreachable));
    assert_eq!(lan.stack(0).tcp_connect(peer).unwrap_err(), Error::HostUnreachable);
    assert_eq!(lan.stack(0).udp_send(socket, b"x", peer), Err(Error::HostUnreachable));
    lan.pass(Duration::from_secs(3));
    assert_eq!(requests.get(), 3, "nobody asks meanwhile");
    assert_eq!(lan.stack(0).udp_send(socket, b"x", peer), Ok(()));
    lan.go(0);
    assert_eq!(requests.get(), 4);
}

#[test]
fn datagrams_wait_for_a_slow_neighbour() {
    let mut lan = lan(1);
    let receiver = lan.stack(1).udp_bind(7).unwrap();
    let sender = lan.stack(0).udp_bind(0).unwrap();
    // The first two requests are lost.
    let lost = Rc::new(Cell::new(2));
    lan.lose = Box::new(move |_, packet| {
        let loses = asked(packet).is_some() && lost.get() > 0;
        lost.set(lost.get() - u32::from(loses));
        loses
    });
    for n in 0..40u8 {
        lan.stack(0).udp_send(sender, &[n], at(2, 7)).unwrap();
    }
    lan.go(0);
    lan.pass(Duration::from_secs(2));
    for n in 0..40u8 {
        let mut buffer = [0; 4];
        assert_eq!(lan.stack(1).udp_receive(receiver, &mut buffer).map(|(len, _)| len), Ok(1));
        assert_eq!(buffer[0], n);
    }
}

#[test]
fn a_thousand_neighbours_are_looked_up_once_each() {
    let mut lan = lan(0);
    let (requests, datagrams) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let (asks, gets) = (requests.clone(), datagrams.clone());
    lan.others.push(Box::new(arp(|address| address.octets()[2] >= 1)));
    lan.others.push(Box::new(move |packet| {
        asks.set(asks.get() + usize::from(asked(packet).is_some()));
        gets.set(gets.get() + usize::from(packet.bytes.get(23) == Some(&17)));
        vec![]
    }));
    let socket = lan.stack(0).udp_bind(0).unwrap();
    for round in 1..=5 {
        for n in 0..1_000 {
            lan.stack(0).udp_send(socket, b"x", at(256 + n, 7)).unwrap();
            lan.go(0);
        }
        assert_eq!((requests.get(), datagrams.get()), (1_000, round * 1_000));
        lan.pass(Duration::from_secs(10));
    }
}

#[test]
fn a_neighbour_that_vanishes_is_asked_for_and_its_connections_go_on_trying() {
    let mut lan = lan(1);
    let listener = lan.stack(1).tcp_listen(80, 8).unwrap();
    let client = lan.stack(0).tcp_connect(at(2, 80)).unwrap();
    lan.go(0);
    let (server, _) = lan.stack(1).tcp_accept(listener).unwrap();
    let away = Rc::new(Cell::new(true));
    let gone = away.clone();
    lan.lose = Box::new(move |_, _| gone.get());
    lan.pass(Duration::from_secs(100));
    lan.stack(0).tcp_send(client, b"hello").unwrap();
    lan.go(0);
    lan.pass(Duration::from_secs(3));
    assert_eq!(lan.stack(0).tcp_connect(at(2, 80)).unwrap_err(), Error::HostUnreachable);
    lan.pass(Duration::from_secs(30));
    assert_eq!(lan.stack(0).tcp_receive(client, &mut [0; 8]), Err(Error::WouldBlock));
    away.set(false);
    lan.pass(Duration::from_secs(70));
    assert_eq!(lan.stack(1).tcp_receive(server, &mut [0; 8]), Ok(5));
}

#[test]
fn a_guest_of_a_network_of_one_answers_all_hosts_on_the_link() {
    let mut lan = Lan::new();
    let (own, router) = (Ipv4Addr::new(192, 0, 2, 9), Ipv4Addr::new(10, 0, 0, 1));
    lan.add_with("192.0.2.9/32,gw=10.0.0.1", settings(1));
    let (answered, requests, datagrams) = (Rc::new(Cell::new(None)), Rc::new(Cell::new(0)), Rc::new(Cell::new(None)));
    let (answers, asks_seen, gets) = (answered.clone(), requests.clone(), datagrams.clone());
    lan.others.push(Box::new(move |packet| {
        let to = Some(packet.bytes[..6].to_vec());
        match &packet.bytes[12..14] {
            // A reply.
            [8, 6] if packet.bytes[21] == 2 => answers.set(to),
            [8, 6] => asks_seen.set(asks_seen.get() + 1),
            _ => gets.set(to),
        }
        vec![]
    }));
    // The router by one of its other addresses, and as a neighbour that looks for a free address.
    for asker in [Ipv4Addr::new(172, 31, 0, 1), Ipv4Addr::new(192, 0, 2, 8), Ipv4Addr::UNSPECIFIED, router] {
        give(&lan, asks(asker, own));
        lan.settle();
        assert_eq!(answered.take(), Some(mac_of(asker).0.to_vec()), "{asker}");
    }
    // Nobody has such an address, and another's is not ours to answer for.
    for asker in [Ipv4Addr::BROADCAST, Ipv4Addr::LOCALHOST, Ipv4Addr::new(224, 0, 0, 1), own] {
        give(&lan, asks(asker, own));
    }
    give(&lan, asks(router, Ipv4Addr::new(192, 0, 2, 10)));
    lan.settle();
    assert_eq!(answered.take(), None);
    // It knows the router, which has asked, and goes by it to those who have.
    let socket = lan.stack(0).udp_bind(0).unwrap();
    lan.stack(0).udp_send(socket, b"x", "192.0.2.8:7".parse().unwrap()).unwrap();
    lan.go(0);
    assert_eq!((datagrams.take(), requests.get()), (Some(mac_of(router).0.to_vec()), 0));
}

/// An ARP request of `stranger` for `target`, from another Ethernet address than its own.
fn asks_elsewhere(stranger: Ipv4Addr, target: Ipv4Addr) -> Packet {
    let mut packet = asks(stranger, target);
    for octet in [6, 22] {
        packet.bytes[octet..octet + 6].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
    }
    packet
}

#[test]
fn a_neighbour_that_has_moved_is_found_again() {
    let mut lan = lan(0);
    let _listener = lan.stack(0).tcp_listen(80, 8).unwrap();
    let (stranger, own) = (*at(256, 1000).ip(), *at(1, 80).ip());
    let answered = Rc::new(Cell::new(false));
    let answers = answered.clone();
    lan.others.push(Box::new(arp(move |address| address == stranger)));
    lan.others.push(Box::new(move |packet| {
        answers.set(answers.get() || packet.bytes[..6] == mac_of(stranger).0 && packet.bytes.get(23) == Some(&6));
        vec![]
    }));
    give(&lan, asks_elsewhere(stranger, own));
    lan.settle();
    give(&lan, syn(at(256, 1000), at(1, 80)));
    lan.settle();
    assert!(!answered.get(), "the answer goes to the address that is known");
    lan.pass(Duration::from_secs(2));
    assert!(answered.get());
}

#[test]
fn requests_lead_no_packets_astray() {
    let mut lan = lan(0);
    let (stranger, own) = (*at(256, 7).ip(), *at(1, 7).ip());
    let (right, requests) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let (arrives, asks_seen) = (right.clone(), requests.clone());
    lan.others.push(Box::new(arp(move |address| address == stranger)));
    lan.others.push(Box::new(move |packet| {
        asks_seen.set(asks_seen.get() + u32::from(asked(packet).is_some()));
        arrives.set(
            arrives.get()
                + u32::from(packet.bytes[..6] == mac_of(stranger).0 && packet.bytes[12] == 8 && packet.bytes[13] == 0),
        );
        vec![]
    }));
    let socket = lan.stack(0).udp_bind(0).unwrap();
    for round in 1..=100 {
        lan.stack(0).udp_send(socket, b"x", at(256, 7)).unwrap();
        lan.go(0);
        assert_eq!(right.get(), round);
        // To all, as a DHCP server asks whether an address is free, and to the guest.
        for target in [*at(257, 7).ip(), own] {
            give(&lan, asks_elsewhere(stranger, target));
            lan.settle();
        }
        lan.pass(Duration::from_millis(10));
    }
    assert!(requests.get() <= 1 + 10, "{} requests in a second", requests.get());
}
