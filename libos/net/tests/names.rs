//! The resolver against odd but legal name servers, and against forgers. The servers are guests on
//! the same bridge, so that they answer over TCP, too.

mod common;

use common::lan::{Lan, settings};
use common::server::payload;
use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;
use zooid_net::stack::{Listener, NameQuery, TcpSocket, UdpSocket};
use zooid_net::{Duration, Error};

/// The asking guest, and two name servers.
const CLIENT: usize = 0;
const ONE: usize = 1;
const TWO: usize = 2;

/// A server's reaction to a query: any number of datagrams, each from a port of the server.
type React = Box<dyn FnMut(&[u8], bool) -> Vec<Vec<u8>>>;

struct Server {
    guest: usize,
    udp: UdpSocket,
    listener: Listener,
    streams: Vec<(TcpSocket, Vec<u8>)>,
    react: React,
    /// Queries that came by UDP and TCP.
    asked: (usize, usize),
}

struct World {
    lan: Lan,
    servers: Vec<Server>,
}

impl World {
    fn new(options: &str) -> Self {
        let mut lan = Lan::new();
        lan.add_with(&format!("10.0.0.1/24{options}"), settings(1));
        Self { lan, servers: Vec::new() }
    }

    /// Adds the next server: 10.0.0.2, then 10.0.0.3.
    fn serve(&mut self, react: impl FnMut(&[u8], bool) -> Vec<Vec<u8>> + 'static) {
        let guest = self.lan.guests.len();
        self.lan.add(settings(guest as u64 + 1));
        let stack = self.lan.stack(guest);
        let (udp, listener) = (stack.udp_bind(53).unwrap(), stack.tcp_listen(53, 4).unwrap());
        self.servers.push(Server { guest, udp, listener, streams: vec![], react: Box::new(react), asked: (0, 0) });
    }

    fn asked(&self, guest: usize) -> (usize, usize) {
        self.servers[guest - 1].asked
    }

    /// One step of all servers.
    fn step(&mut self) {
        for server in &mut self.servers {
            let stack = self.lan.stack(server.guest);
            let mut buffer = [0; 2000];
            while let Ok((length, from)) = stack.udp_receive(server.udp, &mut buffer) {
                server.asked.0 += 1;
                for answer in (server.react)(&buffer[..length], false) {
                    stack.udp_send(server.udp, &answer, from).unwrap();
                }
            }
            if let Ok((stream, _)) = stack.tcp_accept(server.listener) {
                server.streams.push((stream, Vec::new()));
            }
            for (stream, input) in &mut server.streams {
                match stack.tcp_receive(*stream, &mut buffer) {
                    Ok(0) => stack.tcp_close(*stream),
                    Ok(count) => input.extend_from_slice(&buffer[..count]),
                    Err(_) => {}
                }
                if input.len() > 2 && input.len() - 2 == usize::from(u16::from_be_bytes([input[0], input[1]])) {
                    server.asked.1 += 1;
                    for answer in (server.react)(&input[2..], true) {
                        let length = (answer.len() as u16).to_be_bytes();
                        stack.tcp_send(*stream, &[&length[..], &answer].concat()).unwrap();
                    }
                    input.clear();
                }
            }
            self.lan.go(server.guest);
        }
    }

    /// Looks a name up, for a minute at most. Returns the result and its time in seconds.
    fn look_up(&mut self, name: &str) -> (Result<Vec<Ipv4Addr>, Error>, i64) {
        let query = self.lan.stack(CLIENT).resolve(name).unwrap();
        self.wait(query)
    }

    fn wait(&mut self, query: NameQuery) -> (Result<Vec<Ipv4Addr>, Error>, i64) {
        let began = self.lan.now;
        let mut query = Some(query);
        self.lan.go(CLIENT);
        while self.lan.now < began + Duration::from_secs(60) {
            match self.lan.stack(CLIENT).resolved(query.take().unwrap()) {
                Err((Error::WouldBlock, still)) => query = still,
                result => {
                    let seconds = (self.lan.now - began).secs() as i64;
                    return (result.map_err(|(error, _)| error), seconds);
                }
            }
            self.step();
            self.lan.pass(Duration::from_millis(20));
            self.lan.go(CLIENT);
        }
        panic!("the look-up does not end");
    }
}

/// An answer to `query` with this status and these records, each an owner, a type and data. The
/// owner is a name, or "" for a pointer to the question.
fn answer(query: &[u8], status: u8, records: &[(&str, u8, Vec<u8>)]) -> Vec<u8> {
    let mut octets = query.to_vec();
    octets[2..4].copy_from_slice(&[0x81, 0x80 | status]);
    octets[7] = records.len() as u8;
    for (owner, kind, data) in records {
        match *owner {
            "" => octets.extend([0xc0, 12]),
            owner => octets.extend(wire(owner)),
        }
        octets.extend([0, *kind, 0, 1, 0, 0, 0, 60]);
        octets.extend((data.len() as u16).to_be_bytes());
        octets.extend(data);
    }
    octets
}

fn wire(text: &str) -> Vec<u8> {
    let labels = text.split('.').flat_map(|label| std::iter::once(label.len() as u8).chain(label.bytes()));
    labels.chain([0]).collect()
}

fn a(last: u8) -> (&'static str, u8, Vec<u8>) {
    ("", 1, vec![10, 0, 0, last])
}

/// The name in a query, as text.
fn asked_name(query: &[u8]) -> String {
    let (mut labels, mut at) = (Vec::new(), 12);
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8(query[at + 1..end].to_vec()).unwrap());
        at = end;
    }
    labels.join(".")
}

fn found(last: u8) -> Result<Vec<Ipv4Addr>, Error> {
    Ok(vec![Ipv4Addr::new(10, 0, 0, last)])
}

#[test]
fn an_alias_behind_its_address_and_other_capitals_are_found() {
    let mut world = World::new(",dns=10.0.0.2");
    world.serve(|query, _| {
        let mut octets = answer(
            query,
            0,
            &[("c.TEST", 1, vec![10, 0, 0, 77]), ("B.test", 5, wire("C.test")), ("hOST.test", 5, wire("b.Test"))],
        );
        // The question in capitals, too (RFC 4343).
        octets[12..20].make_ascii_uppercase();
        vec![octets]
    });
    assert_eq!(world.look_up("Host.test"), (found(77), 0));
    assert_eq!(world.asked(ONE), (1, 0));
}

#[test]
fn an_alias_that_the_answer_does_not_follow_is_asked_for() {
    let mut world = World::new(",dns=10.0.0.2");
    world.serve(|query, _| match asked_name(query).as_str() {
        "host.test" => vec![answer(query, 0, &[("", 5, wire("far.test"))])],
        "far.test" => vec![answer(query, 0, &[a(9)])],
        _ => vec![],
    });
    assert_eq!(world.look_up("host.test"), (found(9), 0));
}

#[test]
fn servers_that_refuse_or_are_silent_give_way_to_the_next() {
    for status in [None, Some(1), Some(2), Some(4), Some(5)] {
        let mut world = World::new(",dns=10.0.0.2,dns=10.0.0.3");
        world.serve(move |query, _| status.map(|status| answer(query, status, &[])).into_iter().collect());
        world.serve(|query, _| vec![answer(query, 0, &[a(1)])]);
        let (result, seconds) = world.look_up("host.test");
        assert_eq!((result, seconds >= 2), (found(1), status.is_none()), "{status:?}");
        assert_eq!((world.asked(ONE), world.asked(TWO)), ((1, 0), (1, 0)));
    }
}

#[test]
fn each_cause_has_its_own_error() {
    let of = |react: fn(&[u8], bool) -> Vec<Vec<u8>>| {
        let mut world = World::new(",dns=10.0.0.2");
        world.serve(react);
        let (result, seconds) = world.look_up("host.test");
        (result, seconds, world.asked(ONE).0)
    };
    assert_eq!(of(|query, _| vec![answer(query, 3, &[])]), (Err(Error::NameNotFound), 0, 1));
    assert_eq!(of(|query, _| vec![answer(query, 0, &[])]), (Err(Error::NameHasNoAddress), 0, 1));
    assert_eq!(of(|query, _| vec![answer(query, 2, &[])]), (Err(Error::NameServerFailed), 0, 2), "one more try");
    assert_eq!(of(|query, _| vec![answer(query, 5, &[])]), (Err(Error::NameServerFailed), 0, 2));
    assert_eq!(of(|_, _| vec![]), (Err(Error::NameServerSilent), 6, 2));
    // Malformed: a record that goes over the end.
    let broken = |query: &[u8], _| {
        let mut octets = answer(query, 0, &[a(1)]);
        octets.pop();
        vec![octets]
    };
    assert_eq!(of(broken), (Err(Error::NameServerFailed), 0, 2));
    // All servers are outside, and there is no router.
    let mut world = World::new(",dns=192.0.2.1");
    assert_eq!(world.look_up("host.test"), (Err(Error::NameServerSilent), 0));
}

/// Answers over TCP alone; a datagram has the truncation bit.
fn truncates(query: &[u8], by_tcp: bool) -> Vec<Vec<u8>> {
    let records: Vec<_> = (1..=100).map(a).collect();
    let mut octets = answer(query, 0, if by_tcp { &records } else { &records[..1] });
    octets[2] |= if by_tcp { 0 } else { 2 };
    vec![octets]
}

#[test]
fn a_truncated_answer_comes_whole_over_tcp() {
    let mut world = World::new(",dns=10.0.0.2");
    world.serve(truncates);
    let (result, _) = world.look_up("host.test");
    let addresses = result.unwrap();
    assert_eq!((addresses.len(), addresses[99]), (100, Ipv4Addr::new(10, 0, 0, 100)));
    assert_eq!(world.asked(ONE), (1, 1));
    world.step();
    world.lan.pass(Duration::from_secs(120));
    assert_eq!(world.lan.stack(CLIENT).status().sockets, 0, "nothing is left");
}

#[test]
fn truncation_without_tcp_is_an_error_of_its_own_unless_another_server_knows() {
    let world = |options| {
        let mut world = World::new(options);
        world.serve(|query, by_tcp| if by_tcp { vec![] } else { truncates(query, false) });
        world
    };
    let mut alone = world(",dns=10.0.0.2");
    assert_eq!(alone.look_up("host.test").0, Err(Error::NameAnswerTruncated));
    // The port is closed.
    let mut closed = world(",dns=10.0.0.2");
    let listener = closed.servers[0].listener;
    closed.lan.stack(ONE).tcp_unlisten(listener);
    assert_eq!(closed.look_up("host.test").0, Err(Error::NameAnswerTruncated));
    let mut two = world(",dns=10.0.0.2,dns=10.0.0.3");
    two.serve(|query, _| vec![answer(query, 0, &[a(3)])]);
    assert_eq!(two.look_up("host.test").0, found(3));
}

/// The ports and the octets of queries.
type Queries = Rc<RefCell<Vec<(u16, Vec<u8>)>>>;

/// All queries on the bridge from now on.
fn record_queries(world: &mut World) -> Queries {
    let queries = Queries::default();
    let seen = queries.clone();
    world.lan.others.push(Box::new(move |packet| {
        seen.borrow_mut().extend(payload(packet, 53).map(|(_, _, port, query)| (port, query)));
        vec![]
    }));
    queries
}

#[test]
fn a_late_answer_of_the_first_server_counts() {
    let mut world = World::new(",dns=10.0.0.2,dns=10.0.0.3");
    world.serve(|_, _| vec![]);
    world.serve(|_, _| vec![]);
    let queries = record_queries(&mut world);
    let query = world.lan.stack(CLIENT).resolve("host.test").unwrap();
    world.lan.go(CLIENT);
    world.lan.pass(Duration::from_millis(3500));
    assert_eq!(queries.borrow().len(), 2, "the second server is being asked");
    let (port, octets) = queries.borrow()[0].clone();
    let client = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), port);
    let socket = world.servers[0].udp;
    world.lan.stack(ONE).udp_send(socket, &answer(&octets, 0, &[a(5)]), client).unwrap();
    world.lan.go(ONE);
    assert_eq!(world.wait(query), (found(5), 0));
}

#[test]
fn forged_answers_are_passed_over() {
    let mut world = World::new(",dns=10.0.0.2");
    world.serve(|query, _| {
        let good = answer(query, 0, &[a(1)]);
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut forged = answer(query, 0, &[a(66)]);
            change(&mut forged);
            forged
        };
        vec![with(&|octets| octets[0] ^= 1), with(&|octets| octets[14] ^= 1), with(&|octets| octets[2] = 1), good]
    });
    // Another host answers at once, too, with id and question right.
    let intruder = world.lan.add_with("10.0.0.9/24", settings(9));
    assert_eq!(intruder, 2);
    let queries = record_queries(&mut world);
    let socket = world.lan.stack(intruder).udp_bind(53).unwrap();
    let query = world.lan.stack(CLIENT).resolve("host.test").unwrap();
    world.lan.go(CLIENT);
    // The server's Ethernet address is asked for first.
    world.lan.pass(Duration::from_millis(1500));
    let (port, octets) = queries.borrow()[0].clone();
    let forged = answer(&octets, 0, &[a(66)]);
    let client = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), port);
    world.lan.stack(intruder).udp_send(socket, &forged, client).unwrap();
    world.lan.go(intruder);
    world.lan.pass(Duration::from_millis(200));
    assert_eq!(world.wait(query).0, found(1));
}

#[test]
fn ports_and_ids_differ_from_query_to_query() {
    let mut world = World::new(",dns=10.0.0.2");
    let queries = record_queries(&mut world);
    world.serve(|query, _| vec![answer(query, 0, &[a(1)])]);
    for _ in 0..8 {
        assert_eq!(world.look_up("host.test").0, found(1));
    }
    let id = |query: &Vec<u8>| u16::from_be_bytes([query[0], query[1]]);
    let seen: Vec<(u16, u16)> = queries.borrow().iter().map(|(port, query)| (*port, id(query))).collect();
    for (index, (port, id)) in seen.iter().enumerate() {
        assert!(*port >= 49152);
        assert!(seen[..index].iter().all(|(earlier, other)| earlier != port && other != id), "{seen:?}");
        // Neither counts up.
        assert!(index == 0 || (seen[index - 1].0.abs_diff(*port) > 1 && seen[index - 1].1.abs_diff(*id) > 1));
    }
}

#[test]
fn short_names_are_searched_for() {
    let mut world = World::new(",dns=10.0.0.2,search=x.test,search=y.test");
    world.serve(|query, _| match asked_name(query).as_str() {
        "host.y.test" => vec![answer(query, 0, &[a(8)])],
        _ => vec![answer(query, 3, &[])],
    });
    assert_eq!(world.look_up("host").0, found(8));
    assert_eq!(world.asked(ONE).0, 2);
    assert_eq!(world.look_up("host.").0, Err(Error::NameNotFound));
    assert_eq!(world.asked(ONE).0, 3);
}

#[test]
fn a_query_that_is_cancelled_leaves_nothing() {
    let mut world = World::new(",dns=10.0.0.2");
    world.serve(truncates);
    let query = world.lan.stack(CLIENT).resolve("host.test").unwrap();
    assert!(world.lan.stack(CLIENT).has_queued());
    world.lan.go(CLIENT);
    world.lan.pass(Duration::from_millis(1200));
    world.lan.stack(CLIENT).cancel_resolve(query);
    assert_eq!(world.lan.stack(CLIENT).status().sockets, 0);
    assert_eq!(world.lan.stack(CLIENT).resolve("").map(drop), Err(Error::InvalidInput));
    assert_eq!(world.lan.stack(CLIENT).status().sockets, 0);
    world.lan.pass(Duration::from_secs(20));
    assert!(world.lan.guests[CLIENT].deadline.is_none(), "nothing to wait for");
}
