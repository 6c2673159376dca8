//! UDP, name queries and DHCP over the backend model.

mod common;

use common::lan::{Lan, settings};
use common::server::{arp_server, dhcp_server, name_server};
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
fn a_receiver_that_does_not_exist_holds_up_no_other() {
    let mut lan = pair();
    let server = lan.stack(1).udp_bind(7).unwrap();
    let socket = lan.stack(0).udp_bind(0).unwrap();
    lan.stack(0).udp_send(socket, b"lost", address(99, 7)).unwrap();
    lan.stack(0).udp_send(socket, b"found", address(1, 7)).unwrap();
    lan.go(0);
    let mut buffer = [0; 16];
    assert_eq!(lan.stack(1).udp_receive(server, &mut buffer).map(|(len, _)| len), Ok(5));
}

#[test]
fn names_are_resolved() {
    let mut lan = Lan::new();
    lan.add_with("10.0.0.1/24,dns=10.0.0.254", settings(1));
    lan.others.push(Box::new(arp_server));
    lan.others.push(Box::new(name_server));
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

#[test]
fn an_address_is_leased_renewed_and_lost() {
    let lease = std::rc::Rc::new(std::cell::Cell::new(0));
    let mut lan = Lan::new();
    lan.others.push(Box::new(arp_server));
    lan.others.push(Box::new(dhcp_server(lease.clone(), |_| Ipv4Addr::new(10, 0, 0, 50))));
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
