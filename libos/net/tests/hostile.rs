//! A backend that breaks the protocol. The frontend must neither panic nor read out of bounds: it
//! gives the connection up and makes a new one.

mod common;

use common::back::{Back, Packet};
use common::lan::{Lan, settings};
use zooid_net::{Duration, Instant};

const NOW: Instant = Instant::from_millis_const(5);

fn guest() -> Lan {
    let mut lan = Lan::new();
    lan.add(settings(1));
    lan.add(settings(2));
    let socket = lan.stack(1).udp_bind(9).unwrap();
    lan.stack(1).udp_send(socket, b"x", "10.0.0.1:9".parse().unwrap()).unwrap();
    lan.go(1);
    lan.pass(Duration::from_secs(2));
    lan
}

fn back(lan: &Lan, act: impl FnOnce(&mut Back)) {
    act(lan.guests[0].host.back.borrow_mut().as_mut().unwrap());
}

/// Lets the backend act, and checks that the guest has made a new connection afterwards.
#[track_caller]
fn resets(name: &str, act: impl FnOnce(&mut Back)) {
    let mut lan = guest();
    back(&lan, act);
    lan.guests[0].deadline = lan.guests[0].stack.poll(NOW);
    lan.settle();
    assert_eq!(lan.guests[0].host.opened.get(), 2, "{name}: a new connection");
    works(&mut lan);
}

/// Lets the backend act, and checks that the guest goes on with the same connection.
#[track_caller]
fn tolerates(name: &str, act: impl FnOnce(&mut Back)) {
    let mut lan = guest();
    back(&lan, act);
    lan.guests[0].deadline = lan.guests[0].stack.poll(NOW);
    lan.settle();
    assert_eq!(lan.guests[0].host.opened.get(), 1, "{name}: the same connection");
    works(&mut lan);
}

#[track_caller]
fn works(lan: &mut Lan) {
    let listener = lan.stack(0).tcp_listen(80, 4).unwrap();
    let client = lan.stack(1).tcp_connect("10.0.0.1:80".parse().unwrap()).unwrap();
    lan.go(1);
    lan.pass(Duration::from_secs(20));
    assert_eq!(lan.stack(1).tcp_connected(client), Ok(()));
    assert!(lan.stack(0).tcp_accept(listener).is_ok());
}

#[test]
fn impossible_indices() {
    for index in [0xffff_ffffu32, 0x8000_0000, 1_000_000] {
        resets("rx", |back| back.memory.rx_ring.0.borrow_mut()[2] = index);
        resets("tx", |back| back.memory.tx_ring.0.borrow_mut()[2] = index);
    }
}

#[test]
fn transmit_answers_that_answer_nothing() {
    let held = |act: fn(&mut Back)| {
        let mut lan = guest();
        back(&lan, |back| back.habits.hold_answers = true);
        let socket = lan.stack(0).udp_bind(10).unwrap();
        for _ in 0..3 {
            lan.stack(0).udp_send(socket, b"y", "10.0.0.2:10".parse().unwrap()).unwrap();
        }
        lan.go(0);
        back(&lan, act);
        lan.guests[0].stack.poll(NOW);
        lan.settle();
        lan.guests[0].host.opened.get()
    };
    assert_eq!(held(|back| back.answer(3)), 1);
    assert_eq!(held(|back| back.put_tx(0xffff, 0)), 2, "no such page");
    assert_eq!(held(|back| back.put_tx(200, 0)), 2, "page not in flight");
    assert_eq!(
        held(|back| {
            back.answer(1);
            back.put_tx(0, 0);
            back.put_tx(0, 0)
        }),
        2,
        "answered twice"
    );
    assert_eq!(held(|back| back.put_tx(1, 1)), 2, "an extra answered that was not sent");
}

#[test]
fn receive_answers_with_wrong_ids() {
    for id in [0xffff, 0x100, 77] {
        resets("id", |back| {
            let old = back.rx_rsp();
            back.put_rx(Some(id), 0, 0, 60);
            back.announce_rx(old);
        });
    }
}

#[test]
fn receive_answers_outside_their_page() {
    for (offset, size) in [(4096, 1), (1, 4096), (0xffff, 0x7fff), (4000, 97), (0, 0x7fff)] {
        resets("range", |back| {
            let old = back.rx_rsp();
            back.put_rx(None, offset, 0, size);
            back.announce_rx(old);
        });
    }
}

#[test]
fn unknown_extras() {
    for kind in [0, 5, 255] {
        resets("extra", |back| {
            let old = back.rx_rsp();
            back.put_rx(None, 0, 8, 60);
            back.put_rx_extra([kind, 0, 0, 0, 0, 0, 0, 0]);
            back.announce_rx(old);
        });
    }
}

#[test]
fn errors_and_nonsense_within_the_protocol_are_dropped() {
    tolerates("negative status", |back| {
        let old = back.rx_rsp();
        back.put_rx(None, 0, 0, -1);
        back.put_rx(None, 0, 4, i16::MIN);
        back.put_rx(None, 0, 0, 60);
        back.announce_rx(old);
    });
    tolerates("no bytes", |back| {
        let old = back.rx_rsp();
        back.put_rx(None, 4096, 0, 0);
        back.put_rx(None, 0, 0xfff0, 0);
        back.announce_rx(old);
    });
    tolerates("too long", |back| {
        let old = back.rx_rsp();
        for _ in 0..40 {
            back.put_rx(None, 0, 4, 4096);
        }
        back.put_rx(None, 0, 0, 4096);
        back.announce_rx(old);
    });
    tolerates("several extras", |back| {
        let old = back.rx_rsp();
        back.put_rx(None, 0, 8, 60);
        back.put_rx_extra([1, 1, 0, 0, 0, 0, 0, 0]);
        back.put_rx_extra([4, 0, 0, 0, 0, 0, 0, 0]);
        back.announce_rx(old);
    });
    tolerates("a packet in two announcements", |back| {
        let old = back.rx_rsp();
        back.put_rx(None, 0, 4 | 8, 60);
        back.announce_rx(old);
        let old = back.rx_rsp();
        back.put_rx_extra([1, 0, 0, 0, 0, 0, 0, 0]);
        back.announce_rx(old);
        let old = back.rx_rsp();
        back.put_rx(None, 0, 0, 60);
        back.announce_rx(old);
    });
    tolerates("refused packets", |back| back.habits.refuse = Some(-1));
}

#[test]
fn answers_in_any_order_are_fine() {
    let mut lan = guest();
    back(&lan, |back| {
        back.habits.hold_answers = true;
        back.habits.reverse = true;
    });
    let listener = lan.stack(1).tcp_listen(80, 4).unwrap();
    let client = lan.stack(0).tcp_connect("10.0.0.2:80".parse().unwrap()).unwrap();
    lan.go(0);
    lan.pass(Duration::from_secs(2));
    let (server, _) = lan.stack(1).tcp_accept(listener).unwrap();
    let data: Vec<u8> = (0..2_000_000u32).map(|i| (i % 251) as u8).collect();
    let (mut sent, mut got) = (0, Vec::new());
    let mut buffer = vec![0; 65536];
    while got.len() < data.len() {
        sent += lan.stack(0).tcp_send(client, &data[sent..]).unwrap_or(0);
        lan.go(0);
        back(&lan, |back| back.answer(2));
        lan.settle();
        if let Ok(len) = lan.stack(1).tcp_receive(server, &mut buffer) {
            got.extend_from_slice(&buffer[..len]);
        }
        lan.go(1);
        lan.pass(Duration::from_micros(100));
        assert!(lan.now < Instant::from_secs(600), "stalled");
    }
    assert!(got == data);
    assert_eq!(lan.guests[0].host.opened.get(), 1);
}

#[test]
fn a_backend_that_never_answers_blocks_but_does_no_harm() {
    let mut lan = guest();
    back(&lan, |back| back.habits.hold_answers = true);
    let socket = lan.stack(0).udp_bind(10).unwrap();
    let mut blocked = false;
    for _ in 0..2_000 {
        blocked |= lan.stack(0).udp_send(socket, &[0; 1000], "10.0.0.2:10".parse().unwrap()).is_err();
        lan.go(0);
    }
    assert!(blocked);
    lan.pass(Duration::from_secs(10));
    let polls = lan.guests[0].polls;
    assert!(polls < 3_000, "{polls} polls");
    back(&lan, |back| back.answer(usize::MAX));
    lan.pass(Duration::from_secs(2));
    assert!(lan.stack(0).udp_send(socket, b"z", "10.0.0.2:10".parse().unwrap()).is_ok());
}

#[test]
fn random_slots_and_frames_never_panic() {
    let mut seed = 1u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as u32
    };
    for _ in 0..300 {
        let mut lan = guest();
        for _ in 0..20 {
            let host = lan.guests[0].host.clone();
            let mut back = host.back.borrow_mut();
            let Some(back) = back.as_mut() else { break };
            match random() % 4 {
                0 => {
                    let old = back.rx_rsp();
                    let octets = (u64::from(random()) << 32 | u64::from(random())).to_le_bytes();
                    back.put_rx_extra(octets);
                    back.announce_rx(old);
                }
                1 => back.put_tx(random() as u16 % 300, random() as i16 % 3),
                2 => {
                    let mut bytes: Vec<u8> = (0..random() % 200 + 14).map(|_| random() as u8).collect();
                    bytes[..6].copy_from_slice(&[0, 0x16, 0x3e, 0, 0, 1]);
                    bytes[12..14].copy_from_slice(if random() % 3 == 0 { &[8, 6] } else { &[8, 0] });
                    if bytes.len() > 40 && random() % 2 == 0 {
                        let len = (bytes.len() as u16 - 14).to_be_bytes();
                        bytes[14..18].copy_from_slice(&[0x45, 0, len[0], len[1]]);
                        bytes[20..22].copy_from_slice(&[0, 0]);
                        bytes[23] = [1, 6, 17][random() as usize % 3];
                        bytes[30..34].copy_from_slice(&[10, 0, 0, 1]);
                        let mut ip = smoltcp::wire::Ipv4Packet::new_unchecked(&mut bytes[14..]);
                        ip.fill_checksum();
                    }
                    back.give(Packet { bytes, csum_blank: random() % 2 == 0, validated: true, gso: None });
                }
                _ => {
                    let old = back.rx_rsp();
                    back.put_rx(None, random() as u16 % 5000, random() as u16 & 15, random() as i16 % 5000);
                    back.announce_rx(old);
                }
            }
            lan.guests[0].deadline = lan.guests[0].stack.poll(NOW);
        }
        lan.settle();
    }
}

#[test]
fn a_checksum_is_verified_unless_the_backend_vouches_for_it() {
    let mut lan = guest();
    let socket = lan.stack(0).udp_bind(10).unwrap();
    let sender = lan.stack(1).udp_bind(11).unwrap();
    // A good datagram is taken off the way, and given again in other forms.
    let seen = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let tap = seen.clone();
    lan.others.push(Box::new(move |packet| {
        tap.borrow_mut().push(packet.bytes.clone());
        vec![]
    }));
    lan.stack(1).udp_send(sender, b"datagram", "10.0.0.1:10".parse().unwrap()).unwrap();
    lan.go(1);
    assert!(lan.stack(0).udp_receive(socket, &mut [0; 16]).is_ok());
    let good = seen.borrow().last().unwrap().clone();
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    let mut fragment = good.clone();
    fragment[20] = 0x20; // more fragments follow
    smoltcp::wire::Ipv4Packet::new_unchecked(&mut fragment[14..]).fill_checksum();
    let given =
        |validated, csum_blank, bytes: &Vec<u8>| Packet { bytes: bytes.clone(), csum_blank, validated, gso: None };
    let mut received = |packet: Packet| {
        back(&lan, |back| back.give(packet));
        lan.settle();
        lan.stack(0).udp_receive(socket, &mut [0; 16]).is_ok()
    };
    assert!(received(given(false, false, &good)));
    assert!(!received(given(false, false, &bad)));
    assert!(received(given(true, false, &bad)));
    assert!(received(given(true, true, &bad)));
    assert!(!received(given(false, false, &fragment)));
    assert_eq!(lan.stack(0).status().counters.receive_dropped, 2);
}
