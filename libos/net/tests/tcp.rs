//! TCP between guests over the backend model.

mod common;

use common::lan::{Lan, connect, pattern, settings, transfer};
use common::strangers::arp;
use std::net::{Ipv4Addr, SocketAddrV4};
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
    assert_eq!((lan.stack(0).status().sockets, lan.stack(1).status().sockets), (0, 1));
    lan.pass(Duration::from_secs(11));
    assert_eq!(lan.stack(1).status().sockets, 0, "TIME-WAIT is over");
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

#[test]
fn losses_are_made_good() {
    let mut lan = pair();
    let (client, server) = connect(&mut lan);
    lan.lose = Box::new(|number, _| number % 23 == 0);
    let data = pattern(2_000_000);
    transfer(&mut lan, (1, client), (0, server), &data);
}

#[test]
fn five_hundred_connections_at_once() {
    let mut lan = Lan::new();
    // The memory is that of the smallest guest that has room for them.
    lan.add(zooid_net::Settings::for_memory(16 << 20, 3));
    lan.add(zooid_net::Settings::for_memory(16 << 20, 4));
    let listener = lan.stack(0).tcp_listen(80, 128).unwrap();
    let clients: Vec<_> = (0..500).map(|_| lan.stack(1).tcp_connect(address(0, 80)).unwrap()).collect();
    let mut servers = Vec::new();
    lan.go(1);
    for _ in 0..100 {
        while let Ok((server, _)) = lan.stack(0).tcp_accept(listener) {
            servers.push(server);
        }
        lan.pass(Duration::from_millis(500));
    }
    assert_eq!(servers.len(), 500, "a full backlog drops attempts, which come again");
    for (index, &client) in clients.iter().enumerate() {
        assert_eq!(lan.stack(1).tcp_connected(client), Ok(()));
        let text = format!("from {index}");
        assert_eq!(lan.stack(1).tcp_send(client, text.as_bytes()), Ok(text.len()));
    }
    lan.go(1);
    let mut texts = Vec::new();
    for &server in &servers {
        let mut buffer = [0; 32];
        let len = lan.stack(0).tcp_receive(server, &mut buffer).unwrap();
        texts.push(String::from_utf8(buffer[..len].to_vec()).unwrap());
    }
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), 500);
    for (&client, &server) in clients.iter().zip(&servers) {
        lan.stack(1).tcp_close(client);
        lan.stack(0).tcp_close(server);
    }
    lan.go(0);
    lan.go(1);
    lan.pass(Duration::from_secs(90));
    assert_eq!((lan.stack(0).status().sockets, lan.stack(1).status().sockets), (0, 0));
}

#[test]
fn a_burst_of_200_attempts_meets_no_reset() {
    let mut lan = pair();
    let listener = lan.stack(0).tcp_listen(80, 256).unwrap();
    let clients: Vec<_> = (0..200).map(|_| lan.stack(1).tcp_connect(address(0, 80)).unwrap()).collect();
    lan.go(1);
    lan.pass(Duration::from_millis(1_100)); // one ARP exchange
    for client in clients {
        assert_eq!(lan.stack(1).tcp_connected(client), Ok(()));
    }
    let accepted = (0..).take_while(|_| lan.stack(0).tcp_accept(listener).is_ok()).count();
    assert_eq!(accepted, 200);
}

#[test]
fn a_closed_port_refuses_and_a_missing_host_is_unreachable() {
    let mut lan = pair();
    let refused = lan.stack(1).tcp_connect(address(0, 81)).unwrap();
    let silent = lan.stack(1).tcp_connect(address(9, 80)).unwrap();
    lan.go(1);
    lan.pass(Duration::from_secs(2));
    assert_eq!(lan.stack(1).tcp_connected(refused), Err(Error::ConnectionRefused));
    assert_eq!(lan.stack(1).tcp_connected(silent), Err(Error::WouldBlock));
    lan.pass(Duration::from_secs(2));
    assert_eq!(lan.stack(1).tcp_connected(silent), Err(Error::HostUnreachable));
    for socket in [refused, silent] {
        lan.stack(1).tcp_close(socket);
    }
    lan.go(1);
    assert_eq!(lan.stack(1).status().sockets, 0);
}

#[test]
fn a_host_that_answers_arp_alone_times_out() {
    let mut lan = pair();
    lan.others.push(Box::new(arp(|address| address.octets()[3] == 10)));
    let silent = lan.stack(1).tcp_connect(address(9, 80)).unwrap();
    lan.go(1);
    lan.pass(Duration::from_secs(30));
    assert_eq!(lan.stack(1).tcp_connected(silent), Err(Error::WouldBlock));
    lan.pass(Duration::from_secs(90));
    assert_eq!(lan.stack(1).tcp_connected(silent), Err(Error::TimedOut));
}

/// Lets all packets be lost from now on.
fn cut_off(lan: &mut Lan) {
    lan.lose = Box::new(|_, _| true);
}

#[test]
fn a_dead_peer_is_noticed_after_two_hours_and_some_probes() {
    let mut lan = pair();
    let (client, server) = connect(&mut lan);
    assert_eq!(lan.stack(0).tcp_keep_alive(server), Ok(Some(Duration::from_secs(7_200))));
    assert_eq!(lan.stack(1).tcp_keep_alive(client), Ok(None));
    cut_off(&mut lan);
    let mut buffer = [0; 8];
    lan.pass(Duration::from_secs(7_190));
    let packets = lan.packets;
    lan.pass(Duration::from_secs(9 * 75));
    assert_eq!(lan.stack(0).tcp_receive(server, &mut buffer), Err(Error::WouldBlock));
    assert!(lan.packets > packets, "probes");
    lan.pass(Duration::from_secs(20));
    assert_eq!(lan.stack(0).tcp_receive(server, &mut buffer), Err(Error::TimedOut));
    assert_eq!(lan.stack(1).tcp_receive(client, &mut buffer), Err(Error::WouldBlock), "made from here: for ever");
    lan.stack(0).tcp_close(server);
    lan.go(0);
    assert_eq!(lan.stack(0).status().sockets, 0);
}

#[test]
fn an_idle_connection_to_a_live_peer_lasts_and_costs_little() {
    let mut lan = pair();
    let (client, server) = connect(&mut lan);
    let packets = lan.packets;
    lan.pass(Duration::from_secs(100 * 7_200));
    let cost = lan.packets - packets;
    // A probe, its answer, and ARP for both.
    assert!((100..1_000).contains(&cost), "{cost}");
    transfer(&mut lan, (1, client), (0, server), b"still there");
    transfer(&mut lan, (0, server), (1, client), b"and here");
}

#[test]
fn the_application_chooses_the_idle_time() {
    let mut lan = pair();
    let (client, server) = connect(&mut lan);
    let mut buffer = [0; 8];
    lan.stack(0).tcp_set_keep_alive(server, None).unwrap();
    lan.stack(1).tcp_set_keep_alive(client, Some(Duration::from_secs(10))).unwrap();
    for socket in [(0, server), (1, client)] {
        lan.go(socket.0);
    }
    lan.pass(Duration::from_secs(1_000));
    assert_eq!(lan.stack(1).tcp_receive(client, &mut buffer), Err(Error::WouldBlock), "the peer answers");
    cut_off(&mut lan);
    lan.pass(Duration::from_secs(111));
    assert_eq!(lan.stack(1).tcp_receive(client, &mut buffer), Err(Error::TimedOut), "ten seconds, nine probes");
    lan.pass(Duration::from_secs(1_000_000));
    assert_eq!(lan.stack(0).tcp_receive(server, &mut buffer), Err(Error::WouldBlock), "for ever");
}

#[test]
fn a_listener_gives_its_connections_an_idle_time() {
    let mut lan = pair();
    let listener = lan.stack(0).tcp_listen(80, 512).unwrap();
    lan.stack(0).tcp_listen_keep_alive(listener, Some(Duration::from_secs(60))).unwrap();
    for _ in 0..300 {
        lan.stack(1).tcp_connect(address(0, 80)).unwrap();
    }
    lan.go(1);
    let servers: Vec<_> = (0..300).map(|_| lan.stack(0).tcp_accept(listener).unwrap().0).collect();
    cut_off(&mut lan);
    lan.pass(Duration::from_secs(60 + 9 * 60 + 1));
    for server in servers {
        assert_eq!(lan.stack(0).tcp_receive(server, &mut [0; 8]), Err(Error::TimedOut));
        lan.stack(0).tcp_close(server);
    }
    lan.go(0);
    assert_eq!(lan.stack(0).status().sockets, 0, "their memory is free");
}

#[test]
fn addresses_that_cannot_be_connected_to() {
    let mut lan = pair();
    for peer in ["0.0.0.0:80", "10.0.0.1:0", "224.0.0.1:80", "255.255.255.255:80"] {
        let error = lan.stack(1).tcp_connect(peer.parse().unwrap()).unwrap_err();
        assert_eq!(error, Error::AddrNotAvailable, "{peer}");
    }
    assert_eq!(lan.stack(1).status().sockets, 0);
}

#[test]
fn without_a_gateway_only_neighbours_are_reached() {
    let mut lan = Lan::new();
    lan.add_with("10.0.0.1/24", settings(1));
    let outside = "10.0.1.1:80".parse().unwrap();
    assert_eq!(lan.stack(0).tcp_connect(outside).unwrap_err(), Error::NetworkUnreachable);
    let socket = lan.stack(0).udp_bind(0).unwrap();
    assert_eq!(lan.stack(0).udp_send(socket, b"x", outside), Err(Error::NetworkUnreachable));
    assert_eq!(lan.stack(0).udp_send(socket, b"x", "255.255.255.255:80".parse().unwrap()), Ok(()));
}

#[test]
fn closing_with_unread_data_resets_the_peer() {
    let mut lan = pair();
    let (client, server) = connect(&mut lan);
    lan.stack(1).tcp_send(client, b"nobody reads this").unwrap();
    lan.go(1);
    lan.stack(0).tcp_close(server);
    lan.go(0);
    let mut buffer = [0; 8];
    assert_eq!(lan.stack(1).tcp_receive(client, &mut buffer), Err(Error::ConnectionReset));
    assert_eq!(lan.stack(1).tcp_send(client, b"x"), Err(Error::ConnectionReset));
    assert_eq!(lan.stack(0).status().sockets, 0);
}

#[test]
fn data_after_close_resets_the_peer() {
    let mut lan = pair();
    let (client, server) = connect(&mut lan);
    lan.stack(0).tcp_close(server);
    lan.go(0);
    lan.stack(1).tcp_send(client, b"too late").unwrap();
    lan.go(1);
    assert_eq!(lan.stack(1).tcp_send(client, b"x"), Err(Error::ConnectionReset));
    assert_eq!(lan.stack(0).status().sockets, 0);
}

#[test]
fn half_closed_connections_still_carry_the_other_direction() {
    let mut lan = pair();
    let (client, server) = connect(&mut lan);
    lan.stack(1).tcp_send(client, b"request").unwrap();
    lan.stack(1).tcp_shutdown_send(client).unwrap();
    assert_eq!(lan.stack(1).tcp_send(client, b"x"), Err(Error::BrokenPipe));
    lan.go(1);
    let mut buffer = [0; 16];
    assert_eq!(lan.stack(0).tcp_receive(server, &mut buffer), Ok(7));
    assert_eq!(lan.stack(0).tcp_receive(server, &mut buffer), Ok(0));
    transfer(&mut lan, (0, server), (1, client), &pattern(300_000));
    lan.stack(1).tcp_shutdown_receive(client).unwrap();
    assert_eq!(lan.stack(1).tcp_receive(client, &mut buffer), Ok(0));
}

#[test]
fn listeners_keep_their_port_and_leave_it() {
    let mut lan = pair();
    let listener = lan.stack(0).tcp_listen(80, 8).unwrap();
    assert_eq!(lan.stack(0).tcp_listen(80, 8), Err(Error::AddrInUse));
    let client = lan.stack(1).tcp_connect(address(0, 80)).unwrap();
    lan.go(1);
    lan.pass(Duration::from_secs(2));
    lan.stack(0).tcp_unlisten(listener);
    lan.go(0);
    let mut buffer = [0; 8];
    assert_eq!(lan.stack(1).tcp_receive(client, &mut buffer), Err(Error::ConnectionReset));
    let again = lan.stack(0).tcp_listen(80, 8).unwrap();
    assert_eq!(lan.stack(0).tcp_accept(listener), Err(Error::NotConnected));
    assert_eq!(lan.stack(0).tcp_accept(again), Err(Error::WouldBlock));
    let any = lan.stack(0).tcp_listen(0, 8).unwrap();
    assert!(lan.stack(0).tcp_listen_port(any) >= 49152);
}

#[test]
fn time_wait_is_bounded_and_the_newest_stay() {
    let mut lan = Lan::new();
    lan.add(settings(1));
    lan.add(zooid_net::Settings { time_wait: 10, ..settings(2) });
    let listener = lan.stack(0).tcp_listen(80, 8).unwrap();
    for _ in 0..50 {
        let client = lan.stack(1).tcp_connect(address(0, 80)).unwrap();
        lan.go(1);
        lan.pass(Duration::from_millis(if lan.packets < 10 { 1_100 } else { 1 }));
        let (server, _) = lan.stack(0).tcp_accept(listener).unwrap();
        lan.stack(1).tcp_close(client);
        lan.go(1);
        lan.stack(0).tcp_close(server);
        lan.go(0);
    }
    assert_eq!(lan.stack(0).status().sockets, 0);
    assert_eq!(lan.stack(1).status().sockets, 10);
    lan.pass(Duration::from_secs(11));
    assert_eq!(lan.stack(1).status().sockets, 0);
}
