//! Packets of a guest to itself.

mod common;

use common::lan::{Lan, settings};
use std::net::{Ipv4Addr, SocketAddrV4};
use zooid_net::{Duration, Error};

/// A guest that has said all that it has to say on the wire, and its addresses.
fn alone() -> (Lan, [Ipv4Addr; 2]) {
    let mut lan = Lan::new();
    lan.add(settings(1));
    lan.settle();
    (lan, [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::LOCALHOST])
}

#[test]
fn a_guest_connects_to_itself() {
    let (mut lan, addresses) = alone();
    let packets = lan.packets;
    let listener = lan.stack(0).tcp_listen(80, 8).unwrap();
    for address in addresses {
        let client = lan.stack(0).tcp_connect(SocketAddrV4::new(address, 80)).unwrap();
        lan.go(0);
        assert_eq!(lan.stack(0).tcp_connected(client), Ok(()), "at once");
        let (server, peer) = lan.stack(0).tcp_accept(listener).unwrap();
        assert_eq!((lan.stack(0).tcp_local(client), *peer.ip()), (Ok(peer), address));
        let data: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
        for (from, to) in [(client, server), (server, client)] {
            let (mut sent, mut got, mut buffer) = (0, Vec::new(), vec![0; 65536]);
            while got.len() < data.len() {
                sent += lan.stack(0).tcp_send(from, &data[sent..]).unwrap_or(0);
                lan.go(0);
                match lan.stack(0).tcp_receive(to, &mut buffer) {
                    Ok(len) => got.extend_from_slice(&buffer[..len]),
                    Err(error) => assert_eq!(error, Error::WouldBlock),
                }
                lan.pass(Duration::from_micros(100));
                assert!(lan.now.total_millis() < 600_000, "stalled at {}", got.len());
            }
            assert!(got == data, "data differs");
        }
        lan.stack(0).tcp_close(client);
        lan.stack(0).tcp_close(server);
        lan.go(0);
        lan.pass(Duration::from_secs(11));
    }
    assert_eq!((lan.stack(0).status().sockets, lan.packets), (0, packets), "nothing was sent, not even ARP");
}

#[test]
fn a_guest_sends_itself_datagrams() {
    let (mut lan, addresses) = alone();
    let packets = lan.packets;
    let server = lan.stack(0).udp_bind(7).unwrap();
    let client = lan.stack(0).udp_bind(0).unwrap();
    let port = lan.stack(0).udp_port(client).unwrap();
    for address in addresses {
        lan.stack(0).udp_send(client, b"ping", SocketAddrV4::new(address, 7)).unwrap();
        lan.go(0);
        let mut buffer = [0; 8];
        let from = SocketAddrV4::new(address, port);
        assert_eq!(lan.stack(0).udp_receive(server, &mut buffer), Ok((4, from)));
        lan.stack(0).udp_send(server, b"pong", from).unwrap();
        lan.go(0);
        assert_eq!(lan.stack(0).udp_receive(client, &mut buffer), Ok((4, SocketAddrV4::new(address, 7))));
    }
    assert_eq!(lan.packets, packets);
}

#[test]
fn closed_ports_and_foreign_loopback_addresses_fail_at_once() {
    let (mut lan, addresses) = alone();
    let packets = lan.packets;
    for address in addresses {
        let client = lan.stack(0).tcp_connect(SocketAddrV4::new(address, 81)).unwrap();
        lan.go(0);
        assert_eq!(lan.stack(0).tcp_connected(client), Err(Error::ConnectionRefused));
    }
    let other = "127.0.0.2:80".parse().unwrap();
    assert_eq!(lan.stack(0).tcp_connect(other).unwrap_err(), Error::NetworkUnreachable);
    let socket = lan.stack(0).udp_bind(0).unwrap();
    assert_eq!(lan.stack(0).udp_send(socket, b"x", other), Err(Error::NetworkUnreachable));
    assert_eq!(lan.packets, packets);
}

#[test]
fn a_burst_to_itself_is_bounded() {
    let (mut lan, _) = alone();
    let server = lan.stack(0).udp_bind(7).unwrap();
    let client = lan.stack(0).udp_bind(0).unwrap();
    for _ in 0..5_000 {
        // A full queue is the caller's to wait for.
        let _ = lan.stack(0).udp_send(client, &[1; 1_000], "127.0.0.1:7".parse().unwrap());
        let now = lan.now;
        lan.guests[0].stack.transmit(now);
    }
    lan.go(0);
    let got = (0..).take_while(|_| lan.stack(0).udp_receive(server, &mut [0; 2_000]).is_ok()).count();
    assert!((1..=64).contains(&got), "{got}");
}
