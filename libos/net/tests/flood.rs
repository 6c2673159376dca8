//! Strangers that begin connections and say no more.

mod common;

use common::lan::{Lan, settings};
use common::strangers::{arp, give, syn};
use std::net::{Ipv4Addr, SocketAddrV4};
use zooid_net::{Duration, Error, Settings};

const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, 1), 80);

/// A server, 10.1.0.1, and a client.
fn pair() -> Lan {
    let mut lan = Lan::new();
    lan.add_with("10.1.0.1/16", settings(1));
    lan.add_with("10.1.0.2/16", settings(2));
    lan
}

/// The attempt `n` of a stranger, of whom there are 2,500.
fn attempt(n: u32) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from_bits(0x0a01_1000 + n % 2_500), 1024 + (n / 2_500) as u16)
}

/// Floods the server with 10,000 attempts in a second, while a client connects again and again.
fn flood(mut lan: Lan) {
    let limit = settings(1).half_open;
    let listener = lan.stack(0).tcp_listen(80, 8).unwrap();
    let (mut served, mut servers) = (Vec::new(), Vec::new());
    for n in 0..10_000 {
        give(&lan, syn(attempt(n), SERVER));
        if n % 10 != 0 {
            continue;
        }
        lan.pass(Duration::from_millis(1));
        if n % 500 == 0 {
            let client = lan.stack(1).tcp_connect(SERVER).unwrap();
            lan.go(1);
            lan.pass(Duration::from_millis(1));
            assert_eq!(lan.stack(1).tcp_connected(client), Ok(()), "attempt {n}: a few round trips");
            servers.push(lan.stack(0).tcp_accept(listener).unwrap().0);
            served.push(client);
        }
        assert!(lan.stack(0).status().sockets <= limit + servers.len());
    }
    for (&client, &server) in served.iter().zip(&servers) {
        assert_eq!(lan.stack(1).tcp_send(client, b"hello"), Ok(5));
        lan.go(1);
        assert_eq!(lan.stack(0).tcp_receive(server, &mut [0; 8]), Ok(5));
    }
    lan.pass(Duration::from_secs(90));
    assert_eq!(lan.stack(0).status().sockets, servers.len(), "nothing stays");
    assert_eq!(lan.stack(0).tcp_accept(listener).unwrap_err(), Error::WouldBlock);
}

#[test]
fn half_open_connections_of_strangers_do_not_close_a_port() {
    let mut lan = pair();
    lan.others.push(Box::new(arp(|address| address.octets()[2] >= 0x10)));
    flood(lan);
}

#[test]
fn strangers_without_an_ethernet_address_do_not_close_a_port() {
    flood(pair());
}

#[test]
fn half_open_connections_give_way_when_memory_is_short() {
    let mut lan = Lan::new();
    // There is room for 16 connections.
    lan.add_with("10.1.0.1/16", Settings { tcp_memory: 64 << 10, ..settings(1) });
    lan.add_with("10.1.0.2/16", settings(2));
    lan.others.push(Box::new(arp(|address| address.octets()[2] >= 0x10)));
    let listener = lan.stack(0).tcp_listen(80, 8).unwrap();
    for n in 0..100 {
        give(&lan, syn(attempt(n), SERVER));
    }
    lan.settle();
    assert_eq!(lan.stack(0).status().sockets, 16);
    let client = lan.stack(1).tcp_connect(SERVER).unwrap();
    lan.go(1);
    assert_eq!(lan.stack(1).tcp_connected(client), Ok(()));
    assert!(lan.stack(0).tcp_accept(listener).is_ok());
    // Connections from here find room, too.
    let back = lan.stack(0).tcp_connect("10.1.0.2:81".parse().unwrap()).unwrap();
    lan.go(0);
    assert_eq!(lan.stack(0).tcp_connected(back), Err(Error::ConnectionRefused));
}

#[test]
fn attempts_from_impossible_addresses_are_dropped() {
    let mut lan = pair();
    lan.stack(0).tcp_listen(80, 8).unwrap();
    let sent = lan.stack(0).status().counters.sent;
    for from in ["127.0.0.1:1024", "127.0.0.9:1024", "10.1.0.1:1024"] {
        give(&lan, syn(from.parse().unwrap(), SERVER));
    }
    // No connection has a broadcast address (RFC 9293, section 3.9.2.3).
    for to in ["10.1.255.255:80", "255.255.255.255:80", "127.0.0.1:80", "10.1.0.9:80"] {
        give(&lan, syn(attempt(0), to.parse().unwrap()));
    }
    lan.pass(Duration::from_secs(1));
    let status = lan.stack(0).status();
    assert_eq!((status.sockets, status.counters.sent), (0, sent));
}
