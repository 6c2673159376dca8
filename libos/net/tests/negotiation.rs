//! The xenstore side: connecting, the written nodes, and the loss and return of the backend.

mod common;

use common::lan::{Lan, mac_text, settings};
use common::strangers::{ACK, SYN, announced};
use common::{BACKEND, Host, TestPlatform};
use std::rc::Rc;
use zooid_net::config::NetConfig;
use zooid_net::netfront::{FrontendError, Obstacle};
use zooid_net::stack::NotReady;
use zooid_net::{Duration, Error, Instant, Stack};

const NOW: Instant = Instant::from_millis_const(5);

fn stack(host: &Rc<Host>) -> Result<Stack<TestPlatform>, FrontendError> {
    let config: NetConfig = "10.0.0.1/24".parse().unwrap();
    Stack::new(TestPlatform(host.clone()), config, settings(1), NOW)
}

/// Lets the backend follow, and returns the state again.
fn ready_at_last(host: &Host, stack: &mut Stack<TestPlatform>) -> Result<(), NotReady> {
    host.backend_react();
    stack.xenstore_changed(NOW).unwrap();
    stack.ready()
}

#[test]
fn everything_is_written_before_the_state() {
    let host = Host::new();
    host.attach(&mac_text(1));
    let mut stack = stack(&host).unwrap();
    let expected = [
        ("device/vif/0/tx-ring-ref", "10000"),
        ("device/vif/0/rx-ring-ref", "10001"),
        ("device/vif/0/event-channel", "10002"),
        ("device/vif/0/request-rx-copy", "1"),
        ("device/vif/0/feature-rx-notify", "1"),
        ("device/vif/0/feature-sg", "1"),
        ("device/vif/0/feature-gso-tcpv4", "1"),
        ("device/vif/0/state", "4"),
    ];
    let written: Vec<_> = host.writes.borrow().clone();
    assert_eq!(written, expected.map(|(path, value)| (path.to_string(), value.to_string())));
    // The backend has all nodes that it needs, and has not connected.
    assert_eq!(stack.ready(), Err(NotReady::Device(Obstacle::Backend(Some("2".into())))));
    assert_eq!(ready_at_last(&host, &mut stack), Ok(()));
    let status = stack.status();
    assert_eq!((status.mac.unwrap().to_string(), status.offload), ("00-16-3e-00-00-01".into(), true));
    // Further calls change nothing.
    for _ in 0..3 {
        stack.xenstore_changed(NOW).unwrap();
        host.backend_react();
    }
    assert_eq!((host.opened.get(), host.writes.borrow().len()), (1, 8));
}

#[test]
fn a_lease_is_asked_for_once_the_backend_is_connected() {
    let host = Host::new();
    host.attach(&mac_text(1));
    let mut stack = Stack::new(TestPlatform(host.clone()), NetConfig::Dhcp, settings(1), NOW).unwrap();
    stack.poll(NOW);
    // Before that, the device may not be on its bridge.
    assert_eq!(stack.status().counters.sent, 0);
    assert_eq!(ready_at_last(&host, &mut stack), Err(NotReady::NoLease));
    stack.poll(NOW);
    assert_eq!(stack.status().counters.sent, 1);
}

#[test]
fn a_backend_without_gso_gets_none() {
    let host = Host::new();
    host.features.set(&["feature-rx-copy", "feature-sg"]);
    host.attach(&mac_text(1));
    let stack = stack(&host).unwrap();
    assert_eq!(host.node("device/vif/0/feature-gso-tcpv4").as_deref(), Some("0"));
    assert!(!stack.status().offload);
}

#[test]
fn a_missing_device_or_backend_is_said_to_be_missing() {
    let host = Host::new();
    let mut stack = stack(&host).unwrap();
    assert_eq!(stack.ready(), Err(NotReady::Device(Obstacle::NoDevice)));
    assert!(stack.ready().unwrap_err().to_string().contains("vif="));
    host.set("device/vif/0/state", "1");
    host.set("device/vif/0/backend", BACKEND);
    stack.xenstore_changed(NOW).unwrap();
    assert_eq!(stack.ready(), Err(NotReady::Device(Obstacle::Backend(None))));
    host.set_backend_state("1");
    stack.xenstore_changed(NOW).unwrap();
    assert_eq!(stack.ready(), Err(NotReady::Device(Obstacle::Backend(Some("1".into())))));
    // The device comes after all.
    host.attach(&mac_text(1));
    assert!(host.watch_pending.get());
    stack.xenstore_changed(NOW).unwrap();
    assert_eq!(ready_at_last(&host, &mut stack), Ok(()));
}

#[test]
fn malformed_nodes_are_typed_errors_and_no_connection() {
    for (node, value) in [
        ("device/vif/0/mac", ""),
        ("device/vif/0/mac", "00:16:3e:00:00"),
        ("device/vif/0/mac", "00:16:3e:00:00:0g"),
        ("device/vif/0/mac", "00:16:3e:00:00:00:01"),
        ("device/vif/0/mac", "ff:ff:ff:ff:ff:ff"),
        ("device/vif/0/mac", "00:00:00:00:00:00"),
        ("device/vif/0/backend-id", "-1"),
        ("device/vif/0/backend-id", "65536"),
        ("device/vif/0/backend-id", ""),
        ("device/vif/0/mtu", ""),
        ("device/vif/0/mtu", "575"),
        ("device/vif/0/mtu", "65522"),
        ("device/vif/0/mtu", "1500 "),
    ] {
        let host = Host::new();
        host.attach(&mac_text(1));
        host.set(node, value);
        let error = stack(&host).err();
        assert!(matches!(error, Some(FrontendError::Malformed { .. })), "{node} {value} {error:?}");
        assert_eq!(host.opened.get(), 0);
        assert!(host.writes.borrow().is_empty());
    }
    for state in ["", "banana", "99999999999", "-2", "7"] {
        let host = Host::new();
        host.attach(&mac_text(1));
        host.set_backend_state(state);
        let mut stack = stack(&host).unwrap();
        assert_eq!(stack.ready(), Err(NotReady::Device(Obstacle::Backend(Some(state.into())))));
        host.set_backend_state("2");
        stack.xenstore_changed(NOW).unwrap();
        assert_eq!(ready_at_last(&host, &mut stack), Ok(()));
    }
}

#[test]
fn a_failed_attempt_is_repeated_at_the_next_event() {
    let host = Host::new();
    host.attach(&mac_text(1));
    host.fail_open.set(true);
    assert_eq!(stack(&host).err(), Some(FrontendError::Resources));
    host.fail_open.set(false);
    assert_eq!(ready_at_last(&host, &mut stack(&host).unwrap()), Ok(()));
}

/// Lets two guests whose devices have an MTU of `mtu` talk, and returns the maximum segment size that
/// one of them announces.
fn announced_by(mtu: usize, offload: bool) -> u16 {
    let mut lan = Lan::new();
    lan.mtu = mtu;
    for guest in 0..2 {
        let host = Host::new();
        host.set("device/vif/0/mtu", &mtu.to_string());
        host.attach(&mac_text(guest + 1));
        let settings = zooid_net::Settings { offload, ..settings(guest.into()) };
        lan.add_on(host, &format!("10.0.0.{}/24", guest + 1), settings);
    }
    let said = announced(&mut lan, SYN | ACK);
    let listener = lan.stack(0).tcp_listen(80, 8).unwrap();
    let client = lan.stack(1).tcp_connect("10.0.0.1:80".parse().unwrap()).unwrap();
    lan.go(1);
    let (server, _) = lan.stack(0).tcp_accept(listener).unwrap();
    // The bridge checks the length of each packet, and the segment size of large ones.
    let (mut sent, mut got, mut buffer) = (0, 0, vec![0; 65536]);
    while got < 500_000 {
        sent += lan.stack(1).tcp_send(client, &vec![1; 500_000 - sent]).unwrap_or(0);
        lan.go(1);
        got += lan.stack(0).tcp_receive(server, &mut buffer).unwrap_or(0);
        lan.pass(Duration::from_micros(100));
        assert!(lan.now < Instant::from_secs(600), "stalled");
    }
    let socket = lan.stack(0).udp_bind(0).unwrap();
    let to = "10.0.0.2:7".parse().unwrap();
    let longest = lan.mtu.min(if offload { mtu } else { 1500 }) - 28;
    assert_eq!(lan.stack(0).udp_send(socket, &vec![0; longest], to), Ok(()));
    assert_eq!(lan.stack(0).udp_send(socket, &vec![0; longest + 1], to), Err(Error::MessageTooLong));
    lan.go(0);
    said.get()
}

#[test]
fn the_mtu_of_the_toolstack_decides_the_segment_size() {
    for mtu in [576, 1400, 1500, 9000, 65521] {
        assert_eq!(announced_by(mtu, true), mtu as u16 - 40);
    }
    assert_eq!(announced_by(1400, false), 1360);
}

#[test]
fn a_backend_without_long_packets_gets_none() {
    assert_eq!(announced_by(9000, false), 1460);
}

/// Two guests with a connection between them, whose end in guest 0 is being detached and attached.
fn connected() -> (Lan, zooid_net::stack::TcpSocket, zooid_net::stack::TcpSocket) {
    let mut lan = Lan::new();
    lan.add(settings(1));
    lan.add(settings(2));
    let listener = lan.stack(0).tcp_listen(80, 8).unwrap();
    let client = lan.stack(1).tcp_connect("10.0.0.1:80".parse().unwrap()).unwrap();
    lan.go(1);
    lan.pass(Duration::from_secs(2));
    let (server, _) = lan.stack(0).tcp_accept(listener).unwrap();
    (lan, client, server)
}

fn still_works(lan: &mut Lan, client: zooid_net::stack::TcpSocket, server: zooid_net::stack::TcpSocket) {
    let mut buffer = [0; 64];
    lan.stack(1).tcp_send(client, b"after").unwrap();
    lan.go(1);
    lan.pass(Duration::from_secs(30));
    assert_eq!(lan.stack(0).tcp_receive(server, &mut buffer), Ok(5));
    lan.stack(0).tcp_send(server, b"answer").unwrap();
    lan.go(0);
    lan.pass(Duration::from_secs(30));
    assert_eq!(lan.stack(1).tcp_receive(client, &mut buffer), Ok(6));
}

#[test]
fn connections_survive_detach_and_attach() {
    let (mut lan, client, server) = connected();
    let host = lan.guests[0].host.clone();
    let old = host.memory.borrow().clone().unwrap();
    host.begin_detach();
    lan.settle();
    assert_eq!(host.node("device/vif/0/state").as_deref(), Some("6"));
    assert_eq!(host.backend_state().as_deref(), Some("6"), "the removal can go on");
    assert!(old.ended.get(), "grants are ended");
    host.finish_detach();
    lan.settle();
    assert_eq!(lan.stack(0).ready(), Err(NotReady::Device(Obstacle::NoDevice)));
    // Socket calls work without a device.
    lan.stack(0).tcp_send(server, b"before").unwrap();
    lan.go(0);
    lan.pass(Duration::from_secs(3));
    host.attach(&mac_text(1));
    lan.settle();
    assert_eq!(lan.stack(0).ready(), Ok(()));
    assert_eq!(host.backend_state().as_deref(), Some("4"));
    lan.pass(Duration::from_secs(30));
    let mut buffer = [0; 64];
    assert_eq!(lan.stack(1).tcp_receive(client, &mut buffer), Ok(6));
    still_works(&mut lan, client, server);
}

#[test]
fn a_detach_and_attach_seen_as_one_event_is_a_new_connection() {
    let (mut lan, client, server) = connected();
    let host = lan.guests[0].host.clone();
    *host.back.borrow_mut() = None;
    host.begin_detach();
    host.finish_detach();
    host.attach(&mac_text(9));
    lan.settle();
    assert_eq!(host.opened.get(), 2);
    assert_eq!(lan.stack(0).status().mac.unwrap().0[5], 9);
    assert_eq!(host.backend_state().as_deref(), Some("4"));
    let _ = (client, server);
}

#[test]
fn a_driver_that_is_unbound_and_bound_again_is_found_again() {
    let (mut lan, client, server) = connected();
    let host = lan.guests[0].host.clone();
    *host.back.borrow_mut() = None;
    host.set_backend_state("5");
    host.set_backend_state("6");
    lan.settle();
    // online is still 1: the frontend goes back to Initialising, the backend to InitWait, and so
    // on.
    assert_eq!(host.backend_state().as_deref(), Some("4"));
    assert_eq!(host.opened.get(), 2);
    still_works(&mut lan, client, server);
}

#[test]
fn a_backend_that_restarts_without_a_word_is_found_again() {
    let (mut lan, client, server) = connected();
    let host = lan.guests[0].host.clone();
    *host.back.borrow_mut() = None;
    host.set_backend_state("2");
    let now = lan.now;
    lan.stack(0).xenstore_changed(now).unwrap();
    lan.settle();
    assert_eq!(host.backend_state().as_deref(), Some("4"));
    assert_eq!(host.opened.get(), 2);
    still_works(&mut lan, client, server);
}

#[test]
fn a_device_that_disappears_at_once_is_given_up_and_sockets_stay_usable() {
    let (mut lan, _, server) = connected();
    let host = lan.guests[0].host.clone();
    host.finish_detach();
    lan.settle();
    assert_eq!(lan.stack(0).ready(), Err(NotReady::Device(Obstacle::NoDevice)));
    assert_eq!(lan.stack(0).tcp_receive(server, &mut [0; 4]), Err(Error::WouldBlock));
    lan.pass(Duration::from_secs(600));
    assert_eq!(lan.stack(0).status().sockets, 1);
}
