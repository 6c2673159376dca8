//! The network in parent and child of a fork.
//!
//! A test cannot copy a stack as a fork does. But all here is deterministic: the same steps are
//! done in two worlds, and the parent in one becomes the child of the parent in the other.

mod common;

use common::back::Packet;
use common::lan::{Lan, mac_text, settings};
use common::server::{SERVER, arp_server, dhcp_server, name_server};
use common::strangers::too_big;
use common::{BACKEND, Host};
use smoltcp::wire::{ArpPacket, EthernetAddress, EthernetFrame, EthernetProtocol, Ipv4Packet};
use std::cell::{Cell, RefCell};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use zooid_net::netfront::{FrontendError, Obstacle};
use zooid_net::stack::{CONFIG_NODE, Listener, NameQuery, NotReady, TcpSocket, UdpSocket};
use zooid_net::{Duration, Error};

const PARENT: usize = 0;
const CLIENT: usize = 1;
const CHILD: usize = 2;
const CHILD_MAC: u8 = 0x33;
const CHILD_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 33);

fn address(guest: usize, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, guest as u8 + 1), port)
}

fn pair() -> Lan {
    let mut lan = Lan::new();
    lan.add(settings(1));
    lan.add(settings(2));
    lan
}

/// Runs `scenario` twice, and puts the parent of the second world into the first one as its own
/// child, without a device.
fn fork<T>(scenario: impl Fn() -> (Lan, T)) -> (Lan, T, T) {
    let (mut lan, parents) = scenario();
    let (mut twin, childs) = scenario();
    assert_eq!((twin.now, twin.packets), (lan.now, lan.packets), "the same in both worlds");
    let mut child = twin.guests.remove(PARENT);
    let memory = child.host.memory.borrow().clone();
    child.host = Host::new();
    child.stack.platform().0 = child.host.clone();
    // The kernel renews the watches in the child.
    child.host.watches.borrow_mut().push("device/vif/0".into());
    child.host.watch_pending.set(true);
    child.stack.begin_life(99);
    child.deadline = None;
    if let Some(memory) = memory {
        assert!(memory.ended.get(), "the child has let go of its parent's rings");
    }
    assert_eq!(lan.guests.len(), CHILD);
    lan.guests.push(child);
    lan.settle();
    (lan, parents, childs)
}

/// The steps of dom0 for a child: its configuration, then its device.
fn give_device(lan: &mut Lan, config: Option<&str>) {
    if let Some(config) = config {
        lan.guests[CHILD].host.set(CONFIG_NODE, config);
    }
    lan.guests[CHILD].host.attach(&mac_text(CHILD_MAC));
    lan.settle();
}

/// Collects the packets that the child sends.
fn listen_to_child(lan: &mut Lan) -> Rc<RefCell<Vec<Packet>>> {
    let sent = Rc::new(RefCell::new(Vec::new()));
    let sink = sent.clone();
    lan.lose = Box::new(move |_, packet| {
        if packet.bytes[11] == CHILD_MAC {
            sink.borrow_mut().push(packet.clone());
        }
        false
    });
    sent
}

/// The sender's IPv4 address in a frame.
fn sender(packet: &Packet) -> Ipv4Addr {
    let frame = EthernetFrame::new_checked(&packet.bytes).unwrap();
    match frame.ethertype() {
        EthernetProtocol::Arp => {
            let arp = ArpPacket::new_checked(frame.payload()).unwrap();
            Ipv4Addr::from_octets(arp.source_protocol_addr().try_into().unwrap())
        }
        _ => Ipv4Packet::new_checked(frame.payload()).unwrap().src_addr(),
    }
}

fn is_arp(packet: &Packet) -> bool {
    EthernetFrame::new_checked(&packet.bytes).unwrap().ethertype() == EthernetProtocol::Arp
}

#[derive(Debug, Clone, Copy)]
struct Sockets {
    listener: Listener,
    /// The client's end.
    client: TcpSocket,
    /// Accepted, with data to be read and unsent data.
    accepted: TcpSocket,
    /// Connected to a listener of the client's.
    outgoing: TcpSocket,
    /// Connecting to an address without a host, so unanswered.
    connecting: TcpSocket,
    /// Closed with data under way, so that it lingers.
    closed: TcpSocket,
    /// A socket with a datagram in each queue.
    udp: UdpSocket,
    clients_udp: UdpSocket,
}

/// A parent with a socket in every state.
fn busy() -> (Lan, Sockets) {
    let mut lan = pair();
    let listener = lan.stack(PARENT).tcp_listen(80, 8).unwrap();
    let clients_listener = lan.stack(CLIENT).tcp_listen(81, 8).unwrap();
    let client = lan.stack(CLIENT).tcp_connect(address(PARENT, 80)).unwrap();
    let outgoing = lan.stack(PARENT).tcp_connect(address(CLIENT, 81)).unwrap();
    let closed = lan.stack(PARENT).tcp_connect(address(CLIENT, 81)).unwrap();
    lan.go(CLIENT);
    lan.go(PARENT);
    lan.pass(Duration::from_secs(2));
    let (accepted, _) = lan.stack(PARENT).tcp_accept(listener).unwrap();
    for _ in 0..2 {
        lan.stack(CLIENT).tcp_accept(clients_listener).unwrap();
    }
    // A further connection, established and not accepted.
    lan.stack(CLIENT).tcp_connect(address(PARENT, 80)).unwrap();
    lan.stack(CLIENT).tcp_send(client, b"a request").unwrap();
    let udp = lan.stack(PARENT).udp_bind(7).unwrap();
    let clients_udp = lan.stack(CLIENT).udp_bind(9).unwrap();
    lan.stack(CLIENT).udp_send(clients_udp, b"for the parent", address(PARENT, 7)).unwrap();
    lan.go(CLIENT);
    lan.pass(Duration::from_secs(2));
    let connecting = lan.stack(PARENT).tcp_connect(address(77, 80)).unwrap();
    lan.go(PARENT);
    // From here on it has no turn to send.
    lan.stack(PARENT).tcp_send(accepted, b"an answer").unwrap();
    lan.stack(PARENT).udp_send(udp, b"from the parent", address(CLIENT, 9)).unwrap();
    lan.stack(PARENT).tcp_send(closed, b"last words").unwrap();
    lan.stack(PARENT).tcp_close(closed);
    (lan, Sockets { listener, client, accepted, outgoing, connecting, closed, udp, clients_udp })
}

/// Checks every call on a connection that the child has from its parent.
fn assert_dead(lan: &mut Lan, socket: TcpSocket) {
    let stack = lan.stack(CHILD);
    let mut buffer = [0; 64];
    let waker = Waker::noop();
    assert_eq!(stack.tcp_connected(socket), Err(Error::NotConnected));
    assert_eq!(stack.tcp_receive(socket, &mut buffer), Err(Error::NotConnected));
    assert_eq!(stack.tcp_peek(socket, &mut buffer), Err(Error::NotConnected));
    assert_eq!(stack.tcp_send(socket, b"x"), Err(Error::NotConnected));
    assert_eq!(stack.tcp_shutdown_send(socket), Err(Error::NotConnected));
    assert_eq!(stack.tcp_shutdown_receive(socket), Err(Error::NotConnected));
    assert_eq!(stack.tcp_set_nodelay(socket, true), Err(Error::NotConnected));
    assert_eq!(stack.tcp_nodelay(socket), Err(Error::NotConnected));
    assert_eq!(stack.tcp_local(socket), Err(Error::NotConnected));
    assert_eq!(stack.tcp_peer(socket), Err(Error::NotConnected));
    assert_eq!(stack.tcp_wake_on_receive(socket, waker), Err(Error::NotConnected));
    assert_eq!(stack.tcp_wake_on_send(socket, waker), Err(Error::NotConnected));
}

#[test]
fn inherited_connections_are_dead_in_the_child_and_say_nothing() {
    let (mut lan, _, childs) = fork(busy);
    let sent = listen_to_child(&mut lan);
    let all = [childs.accepted, childs.outgoing, childs.connecting, childs.closed];
    for socket in all {
        assert_dead(&mut lan, socket);
    }
    assert_eq!(lan.stack(CHILD).tcp_accept(childs.listener), Err(Error::WouldBlock), "that one is the parent's");
    assert_eq!(lan.stack(CHILD).status().sockets, 1, "the UDP socket");
    lan.stack(CHILD).tcp_close(childs.accepted);
    lan.go(CHILD);
    give_device(&mut lan, Some("10.0.0.33/24"));
    lan.pass(Duration::from_secs(5));
    assert_eq!(lan.stack(CHILD).ready(), Ok(()));
    for socket in all {
        assert_dead(&mut lan, socket);
        lan.stack(CHILD).tcp_close(socket);
    }
    lan.go(CHILD);
    lan.pass(Duration::from_secs(400));
    for packet in sent.borrow().iter() {
        assert!(is_arp(packet) && sender(packet) == CHILD_ADDRESS, "{packet:?}");
    }
    assert_eq!(sent.borrow().len(), 1, "its address, announced");
    assert_eq!(lan.stack(CHILD).status().counters.sent, 1);
}

#[test]
fn the_parent_and_its_peers_notice_nothing() {
    let (mut lan, parents, childs) = fork(busy);
    lan.stack(CHILD).tcp_close(childs.accepted);
    lan.go(CHILD);
    give_device(&mut lan, Some("10.0.0.33/24"));
    lan.go(PARENT);
    lan.pass(Duration::from_secs(2));
    let mut buffer = [0; 64];
    assert_eq!(lan.stack(CLIENT).tcp_receive(parents.client, &mut buffer), Ok(9));
    assert_eq!(&buffer[..9], b"an answer");
    assert_eq!(lan.stack(PARENT).tcp_receive(parents.accepted, &mut buffer), Ok(9));
    assert_eq!(&buffer[..9], b"a request");
    let (length, from) = lan.stack(CLIENT).udp_receive(parents.clients_udp, &mut buffer).unwrap();
    assert_eq!((&buffer[..length], from), (&b"from the parent"[..], address(PARENT, 7)));
    assert_eq!(lan.stack(CLIENT).udp_receive(parents.clients_udp, &mut buffer), Err(Error::WouldBlock), "once");
    assert_eq!(lan.stack(PARENT).udp_receive(parents.udp, &mut buffer).map(|(length, _)| length), Ok(14));
    assert!(lan.stack(PARENT).tcp_accept(parents.listener).is_ok());
    for round in 0..100 {
        lan.stack(CLIENT).tcp_send(parents.client, &[round; 1000]).unwrap();
        lan.go(CLIENT);
        lan.pass(Duration::from_millis(50));
        let mut piece = [0; 2000];
        assert_eq!(lan.stack(PARENT).tcp_receive(parents.accepted, &mut piece), Ok(1000));
        assert!(piece[..1000].iter().all(|octet| *octet == round));
    }
}

#[test]
fn listeners_are_reached_on_the_childs_own_address() {
    let (mut lan, parents, childs) = fork(busy);
    give_device(&mut lan, Some("10.0.0.33/24,gw=10.0.0.254"));
    let to_child = lan.stack(CLIENT).tcp_connect(SocketAddrV4::new(CHILD_ADDRESS, 80)).unwrap();
    let to_parent = lan.stack(CLIENT).tcp_connect(address(PARENT, 80)).unwrap();
    lan.go(CLIENT);
    lan.pass(Duration::from_secs(2));
    for (guest, listener, client, own) in
        [(CHILD, childs.listener, to_child, CHILD_ADDRESS), (PARENT, parents.listener, to_parent, *address(0, 0).ip())]
    {
        assert_eq!(lan.stack(CLIENT).tcp_connected(client), Ok(()));
        let peer = lan.stack(CLIENT).tcp_local(client).unwrap();
        let mut accepted = lan.stack(guest).tcp_accept(listener).unwrap();
        if guest == PARENT {
            // Before it comes the connection that was not accepted when the parent forked.
            accepted = lan.stack(guest).tcp_accept(listener).unwrap();
        }
        assert_eq!(accepted.1, peer);
        assert_eq!(lan.stack(guest).tcp_local(accepted.0), Ok(SocketAddrV4::new(own, 80)));
        lan.stack(guest).tcp_send(accepted.0, b"welcome").unwrap();
        lan.go(guest);
        let mut buffer = [0; 16];
        assert_eq!(lan.stack(CLIENT).tcp_receive(client, &mut buffer), Ok(7));
    }
    assert_eq!(lan.stack(CHILD).tcp_listen(80, 8), Err(Error::AddrInUse));
    lan.stack(CHILD).tcp_unlisten(childs.listener);
    assert_eq!(lan.stack(CHILD).tcp_accept(childs.listener), Err(Error::NotConnected));
    assert_eq!(lan.stack(PARENT).tcp_accept(parents.listener), Err(Error::WouldBlock), "that one still listens");
}

#[test]
fn udp_sockets_keep_their_port_and_nothing_else() {
    let (mut lan, _, childs) = fork(busy);
    let sent = listen_to_child(&mut lan);
    let mut buffer = [0; 64];
    assert_eq!(lan.stack(CHILD).udp_port(childs.udp), Ok(7));
    assert_eq!(lan.stack(CHILD).udp_receive(childs.udp, &mut buffer), Err(Error::WouldBlock));
    assert_eq!(lan.stack(CHILD).udp_send(childs.udp, b"x", address(CLIENT, 9)), Err(Error::NetworkUnreachable));
    give_device(&mut lan, Some("10.0.0.33/24"));
    lan.pass(Duration::from_secs(5));
    assert!(sent.borrow().iter().all(is_arp));
    assert!(lan.stack(CLIENT).udp_receive(childs.clients_udp, &mut buffer).is_ok(), "the parent's");
    lan.stack(CHILD).udp_send(childs.udp, b"hello", address(CLIENT, 9)).unwrap();
    lan.go(CHILD);
    lan.pass(Duration::from_secs(2));
    let (length, from) = lan.stack(CLIENT).udp_receive(childs.clients_udp, &mut buffer).unwrap();
    assert_eq!((&buffer[..length], from), (&b"hello"[..], SocketAddrV4::new(CHILD_ADDRESS, 7)));
    lan.stack(CLIENT).udp_send(childs.clients_udp, b"hello yourself", from).unwrap();
    lan.go(CLIENT);
    lan.pass(Duration::from_secs(2));
    assert_eq!(lan.stack(CHILD).udp_receive(childs.udp, &mut buffer), Ok((14, address(CLIENT, 9))));
    assert!(sent.borrow().iter().all(|packet| sender(packet) == CHILD_ADDRESS));
}

struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn who_waits_for_the_parents_peers_is_told() {
    let mut lan = Lan::new();
    lan.add_with("10.0.0.1/24,dns=10.0.0.254", settings(1));
    lan.add(settings(2));
    let listener = lan.stack(PARENT).tcp_listen(80, 8).unwrap();
    let client = lan.stack(CLIENT).tcp_connect(address(PARENT, 80)).unwrap();
    lan.go(CLIENT);
    lan.pass(Duration::from_secs(2));
    let (accepted, _) = lan.stack(PARENT).tcp_accept(listener).unwrap();
    let query = lan.stack(PARENT).resolve("host.example").unwrap();
    let udp = lan.stack(PARENT).udp_bind(0).unwrap();
    let counts = [(); 5].map(|()| Arc::new(Count(AtomicUsize::new(0))));
    let wakers = counts.clone().map(Waker::from);
    let stack = lan.stack(PARENT);
    stack.tcp_wake_on_receive(accepted, &wakers[0]).unwrap();
    stack.tcp_wake_on_send(accepted, &wakers[1]).unwrap();
    stack.wake_on_resolved(&query, &wakers[2]);
    stack.udp_wake_on_receive(udp, &wakers[3]).unwrap();
    stack.tcp_wake_on_accept(listener, &wakers[4]).unwrap();
    stack.begin_life(5);
    let woken = counts.each_ref().map(|count| count.0.load(Ordering::Relaxed).min(1));
    assert_eq!(woken, [1, 1, 1, 1, 0], "who accepts goes on waiting, for the child's clients");
    assert_eq!(stack.tcp_connected(accepted), Err(Error::NotConnected));
    assert_eq!(lan.stack(CLIENT).tcp_connected(client), Ok(()));
}

#[test]
fn name_queries_are_the_parents_too() {
    let (mut lan, parents, childs) = fork(|| {
        let mut lan = Lan::new();
        lan.add_with("10.0.0.1/24,dns=10.0.0.254", settings(1));
        lan.add(settings(2));
        let queries: [NameQuery; 2] = ["a.example", "b.example"].map(|name| lan.stack(PARENT).resolve(name).unwrap());
        (lan, queries)
    });
    let [first, second] = childs;
    lan.stack(CHILD).wake_on_resolved(&first, Waker::noop());
    assert_eq!(lan.stack(CHILD).resolved(first).map_err(|(error, _)| error), Err(Error::NotConnected));
    assert_eq!(lan.stack(CHILD).resolve("c.example").map(drop), Err(Error::InvalidInput), "no name server is known");
    lan.others.push(Box::new(arp_server));
    lan.others.push(Box::new(name_server));
    give_device(&mut lan, Some("10.0.0.33/24,dns=10.0.0.254"));
    let own = lan.stack(CHILD).resolve("c.example").unwrap();
    lan.stack(CHILD).cancel_resolve(second);
    lan.go(CHILD);
    lan.go(PARENT);
    lan.pass(Duration::from_secs(5));
    assert_eq!(lan.stack(CHILD).resolved(own).unwrap(), [Ipv4Addr::new(10, 0, 0, 77)]);
    for query in parents {
        assert_eq!(lan.stack(PARENT).resolved(query).unwrap(), [Ipv4Addr::new(10, 0, 0, 77)]);
    }
}

#[test]
fn a_child_leases_an_address_of_its_own() {
    let lease = Rc::new(Cell::new(600));
    let scenario = || {
        let mut lan = Lan::new();
        let by_mac = |mac: EthernetAddress| Ipv4Addr::new(10, 0, 0, mac.0[5]);
        lan.others.push(Box::new(arp_server));
        lan.others.push(Box::new(dhcp_server(lease.clone(), by_mac)));
        lan.add_with("dhcp", settings(1));
        lan.add(settings(2));
        lan.go(PARENT);
        lan.pass(Duration::from_secs(5));
        let listener = lan.stack(PARENT).tcp_listen(80, 8).unwrap();
        (lan, listener)
    };
    let (mut lan, _, listener) = fork(scenario);
    let sent = listen_to_child(&mut lan);
    assert_eq!(lan.stack(CHILD).ready(), Err(NotReady::Device(Obstacle::NoDevice)));
    assert_eq!(lan.stack(CHILD).tcp_connect(address(CLIENT, 80)).map(drop), Err(Error::NetworkUnreachable));
    give_device(&mut lan, None);
    lan.pass(Duration::from_secs(5));
    assert_eq!(lan.stack(CHILD).ready(), Ok(()));
    assert_eq!(lan.stack(CHILD).status().address.unwrap().address, Ipv4Addr::new(10, 0, 0, CHILD_MAC));
    assert_eq!(lan.stack(CHILD).status().mac.unwrap().0[5], CHILD_MAC);
    assert_eq!(lan.stack(PARENT).status().address.unwrap().address, Ipv4Addr::new(10, 0, 0, 1));
    let to_child = lan.stack(CLIENT).tcp_connect(SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, CHILD_MAC), 80)).unwrap();
    lan.go(CLIENT);
    lan.pass(Duration::from_secs(1_000));
    assert_eq!(lan.stack(CLIENT).tcp_connected(to_child), Ok(()));
    assert!(lan.stack(CHILD).tcp_accept(listener).is_ok());
    assert!(lan.guests.iter_mut().all(|guest| guest.stack.ready().is_ok()), "all leases are renewed");
    let own = [Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(10, 0, 0, CHILD_MAC)];
    assert!(sent.borrow().iter().all(|packet| own.contains(&sender(packet))), "never the parent's address");
    assert_ne!(SERVER, own[1]);
}

#[test]
fn the_childs_configuration_is_dom0s_word() {
    let no_device = NotReady::Device(Obstacle::NoDevice);
    for (parents, own, device, ready) in [
        ("10.0.0.1/24", None, false, Err(no_device.clone())),
        ("10.0.0.1/24", None, true, Err(NotReady::NoAddress)),
        ("10.0.0.1/24", Some("10.0.0.33/24"), false, Err(no_device.clone())),
        ("10.0.0.1/24", Some("10.0.0.33/24"), true, Ok(())),
        ("10.0.0.1/24", Some("off"), false, Err(NotReady::Off)),
        ("10.0.0.1/24", Some("off"), true, Err(NotReady::Off)),
        ("10.0.0.1/24", Some("dhcp"), true, Err(NotReady::NoLease)),
        ("10.0.0.1/24", Some("nonsense"), false, Err(no_device.clone())),
        ("dhcp", None, false, Err(no_device.clone())),
        ("dhcp", None, true, Err(NotReady::NoLease)),
        ("dhcp", Some("off"), true, Err(NotReady::Off)),
        ("dhcp", Some("10.0.0.33/24"), true, Ok(())),
    ] {
        let (mut lan, ..) = fork(|| {
            let mut lan = Lan::new();
            lan.add_with(parents, settings(1));
            lan.add(settings(2));
            (lan, ())
        });
        match device {
            true => give_device(&mut lan, own),
            false => own.iter().for_each(|own| lan.guests[CHILD].host.set(CONFIG_NODE, own)),
        }
        lan.pass(Duration::from_secs(3));
        let child = &lan.guests[CHILD];
        assert_eq!(child.stack.ready(), ready, "{parents} {own:?} {device}");
        let linked = child.host.opened.get() > 0;
        assert_eq!(linked, device && !matches!(ready, Err(NotReady::Off | NotReady::NoAddress)), "else left alone");
    }
}

#[test]
fn a_wrong_configuration_is_told_and_can_be_put_right() {
    let (mut lan, ..) = fork(|| (pair(), ()));
    lan.guests[CHILD].host.set(CONFIG_NODE, "10.0.0.33");
    let now = lan.now;
    let error = lan.stack(CHILD).xenstore_changed(now).unwrap_err();
    assert_eq!(error, FrontendError::Malformed { node: CONFIG_NODE, value: "10.0.0.33".into() });
    give_device(&mut lan, Some("10.0.0.33/24"));
    assert_eq!(lan.stack(CHILD).ready(), Ok(()));
    assert!(lan.guests[CHILD].host.watches.borrow().iter().all(|watch| watch != CONFIG_NODE), "it is settled");
}

#[test]
fn a_grandchild_begins_anew_like_a_child() {
    let (mut lan, _, childs) = fork(busy);
    // Its parent forks before it has a device, and then with one.
    lan.stack(CHILD).begin_life(100);
    assert_dead(&mut lan, childs.accepted);
    give_device(&mut lan, Some("10.0.0.33/24"));
    assert_eq!(lan.stack(CHILD).ready(), Ok(()));
    let inherited = lan.stack(CHILD).tcp_connect(address(CLIENT, 81)).unwrap();
    lan.go(CHILD);
    lan.guests[CHILD].host.remove("device/vif/0");
    lan.guests[CHILD].host.remove(BACKEND);
    lan.guests[CHILD].host.remove(CONFIG_NODE);
    lan.stack(CHILD).begin_life(101);
    assert_dead(&mut lan, inherited);
    lan.settle();
    assert_eq!(lan.stack(CHILD).ready(), Err(NotReady::Device(Obstacle::NoDevice)));
    give_device(&mut lan, None);
    assert_eq!(lan.stack(CHILD).ready(), Err(NotReady::NoAddress), "its parent's address was given, too");
}

#[test]
fn a_child_may_be_the_first_to_use_the_network() {
    use common::TestPlatform;
    use zooid_net::Stack;
    let mut lan = pair();
    let host = Host::new();
    let config = "10.0.0.7/24".parse().unwrap();
    let stack = Stack::for_child(TestPlatform(host.clone()), config, settings(3), lan.now).unwrap();
    lan.guests.push(common::lan::Guest { host, stack, deadline: None, polls: 0 });
    lan.settle();
    assert_eq!(lan.stack(CHILD).ready(), Err(NotReady::Device(Obstacle::NoDevice)));
    give_device(&mut lan, Some("10.0.0.33/24"));
    assert_eq!(lan.stack(CHILD).status().address.unwrap().address, CHILD_ADDRESS);
}

#[test]
fn a_child_knows_no_path_of_its_parent() {
    let longest = |lan: &mut Lan, guest: usize, udp: UdpSocket| {
        lan.longest = 0;
        lan.stack(guest).udp_send(udp, &[1; 1_472], address(CLIENT, 9)).unwrap();
        lan.go(guest);
        lan.pass(Duration::from_secs(1));
        lan.longest
    };
    let (mut lan, parents, childs) = fork(|| {
        let mut lan = pair();
        let udp = lan.stack(PARENT).udp_bind(7).unwrap();
        lan.router = Some(Box::new(|packet| match packet.bytes.len() > 14 + 1_280 {
            true => vec![too_big(&packet, 1_280)],
            false => vec![packet],
        }));
        assert_eq!(longest(&mut lan, PARENT, udp), 14 + 1_500);
        assert_eq!(longest(&mut lan, PARENT, udp), 14 + 1_276);
        (lan, udp)
    });
    give_device(&mut lan, Some("10.0.0.33/24"));
    lan.pass(Duration::from_secs(1));
    assert_eq!(longest(&mut lan, CHILD, childs), 14 + 1_500);
    assert_eq!(longest(&mut lan, CHILD, childs), 14 + 1_276, "it learns its own");
    assert_eq!(longest(&mut lan, PARENT, parents), 14 + 1_276);
}
