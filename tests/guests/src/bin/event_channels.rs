//! Event channels: a signal reaches its port's event, is kept until somebody waits, and ends with the port; ports are
//! used again; and when there are no more, asking for one is an error.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::sync::Arc;
use alloc::vec::Vec;

use test_guests::{check, check_eq, expect, success};
use xen_abi::{DomId, Errno};
use zooid::{println, thread};
use zooid_kernel::evtchn::{BoundPort, Event};
use zooid_kernel::time;

zooid::main!(main);

const MILLISECOND: u64 = 1_000_000;

fn main() {
    signals();
    ping_pong();
    exhaustion();
    success();
}

/// Both ends of a channel from this domain to itself.
fn pair() -> [(BoundPort, Arc<Event>); 2] {
    let events = [Arc::new(Event::new()), Arc::new(Event::new())];
    let first = expect!(BoundPort::alloc_unbound(DomId::SELF, events[0].clone()));
    let second = expect!(xen_sys::event_channel_op_bind_interdomain(DomId::SELF, first.port()));
    let second = BoundPort::adopt(second, events[1].clone());
    let [one, other] = events;
    [(first, one), (second, other)]
}

fn signals() {
    let [(first, first_event), (second, second_event)] = pair();
    let soon = || Some(time::now() + 5 * MILLISECOND);
    // Binding signals the other end once.
    first_event.wait(soon());
    check!(!first_event.wait(soon()));
    check!(!second_event.wait(soon()));
    // Three signals are one, and it waits for who comes late.
    (0..3).for_each(|_| first.notify());
    check!(second_event.wait(soon()));
    check!(!second_event.wait(soon()));
    check!(!first_event.wait(soon()));
    // The other end may be gone.
    let number = second.port();
    drop(second);
    first.notify();
    check!(!second_event.wait(soon()));
    // Its number is used again, and the new port has nothing pending.
    let event = Arc::new(Event::new());
    let again = expect!(BoundPort::alloc_unbound(DomId::SELF, event.clone()));
    check_eq!(again.port(), number);
    check!(!event.wait(soon()));
}

fn ping_pong() {
    const ROUNDS: u32 = 5_000;
    let [(first, first_event), (second, second_event)] = pair();
    first_event.wait(Some(time::now() + 5 * MILLISECOND));
    let partner = thread::spawn(move || {
        for _ in 0..ROUNDS {
            second_event.wait(None);
            second.notify();
        }
    });
    for _ in 0..ROUNDS {
        first.notify();
        check!(first_event.wait(Some(time::now() + 10_000 * MILLISECOND)));
    }
    partner.join();
}

fn exhaustion() {
    let fill = || {
        let event = Arc::new(Event::new());
        let mut ports = Vec::new();
        loop {
            match BoundPort::alloc_unbound(DomId::SELF, event.clone()) {
                Ok(port) => ports.push(port),
                Err(error) => break (ports, error),
            }
        }
    };
    let (ports, error) = fill();
    check_eq!(error, Errno::ENOSPC);
    println!("{} ports", ports.len());
    check!(ports.len() > 500);
    let count = ports.len();
    drop(ports);
    let (ports, _) = fill();
    check_eq!(ports.len(), count);
    drop(ports);
    // A handler of the last port works as one of the first does.
    signals();
}
