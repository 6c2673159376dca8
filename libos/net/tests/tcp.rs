//! TCP between guests over the backend model.

mod common;

use common::lan::{Lan, settings};
use std::net::{Ipv4Addr, SocketAddrV4};
use zooid_net::stack::TcpSocket;
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

/// A connection from guest 1 to guest 0: both ends, 1's first.
fn connect(lan: &mut Lan) -> (TcpSocket, TcpSocket) {
    let listener = lan.stack(0).tcp_listen(80, 8).unwrap();
    let client = lan.stack(1).tcp_connect(address(0, 80)).unwrap();
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

fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Sends `data` from one end to the other, both reading and writing as soon as they can.
fn transfer(lan: &mut Lan, from: (usize, TcpSocket), to: (usize, TcpSocket), data: &[u8]) {
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

#[test]
fn a_connection_carries_data_both_ways_and_closes() {
    let mut lan = pair();
    let (client, server) = connect(&mut lan);
    transfer(&mut lan, (1, client), (0, server), b"hello");
    transfer(&mut lan, (0, server), (1, client), b"and back");
    let mut buffer = [0; 8];
    lan.stack(1).tcp_close(client);
    assert_eq!(lan.stack(1).tcp_receive(client, &mut buffer), Err(Error::NotConnected));
    lan.go(1);
    assert_eq!(lan.stack(0).tcp_receive(server, &mut buffer), Ok(0), "end of stream");
    lan.stack(0).tcp_close(server);
    lan.go(0);
    lan.pass(Duration::from_secs(20));
}

#[test]
fn bulk_goes_in_large_packets_both_ways() {
    let mut lan = pair();
    let (client, server) = connect(&mut lan);
    let data = pattern(20_000_000);
    transfer(&mut lan, (1, client), (0, server), &data);
    assert!(lan.longest > 60_000, "{}", lan.longest);
    let packets = lan.packets;
    assert!(packets < 2_000, "{packets} packets for 20 MB");
    transfer(&mut lan, (0, server), (1, client), &data);
}

#[test]
fn bulk_to_the_wire_and_without_offload() {
    for (cut, offload) in [(true, true), (false, false)] {
        let mut lan = Lan::new();
        lan.cut = cut;
        lan.add(settings(1));
        lan.add(zooid_net::Settings { offload, ..settings(2) });
        let (client, server) = connect(&mut lan);
        let data = pattern(3_000_000);
        transfer(&mut lan, (1, client), (0, server), &data);
        transfer(&mut lan, (0, server), (1, client), &data);
    }
}
