//! The neighbours of the interface: which Ethernet address an IP address has on the link.
//!
//! Each address is looked up by itself (RFC 1122, section 2.3.2; the states and times are those of
//! RFC 4861, section 7.3.2): three requests, a second apart, after which it counts as unreachable.
//! Packets wait with the address that they need, so that one neighbour that does not answer holds
//! up nobody else. The table has no protocol: its owner sends the requests that it calls for.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::EthernetAddress;

use super::table::sooner;

/// Time between two requests (RFC 4861, section 10: `RETRANS_TIMER`).
const REQUEST_PAUSE: Duration = Duration::from_secs(1);
/// Requests without an answer after which an address is unreachable (`MAX_MULTICAST_SOLICIT`).
const REQUESTS: u8 = 3;
/// A neighbour that was not heard for this time is asked again when it is used.
const REACHABLE_TIME: Duration = Duration::from_secs(60);
/// Least time between two requests for a neighbour that seems to have moved.
const DOUBT_PAUSE: Duration = Duration::from_millis(100);
/// Time for which an unreachable address is not looked up again.
const FAILED_TIME: Duration = Duration::from_secs(3);
/// Octets of waiting packets for each place in the table.
const HELD_OCTETS_EACH: usize = 256;

/// The knowledge about one address.
#[derive(Debug)]
enum State {
    /// Asked for, without an answer yet.
    Incomplete { requests: u8, again: Instant },
    /// Known.
    Reachable(EthernetAddress),
    /// Known, but not heard for long: used on, and asked for.
    Probe { mac: EthernetAddress, requests: u8, again: Instant },
    /// It did not answer.
    Failed { until: Instant },
}

#[derive(Debug)]
struct Neighbour {
    state: State,
    /// The last time at which something came from it.
    heard: Option<Instant>,
    /// The last time at which it was asked for because it seemed to have moved.
    doubted: Option<Instant>,
    /// The last time at which a packet was sent to it.
    used: Option<Instant>,
    /// Packets that wait for the address, oldest first.
    held: Vec<Vec<u8>>,
}

impl Neighbour {
    fn mac(&self) -> Option<EthernetAddress> {
        match self.state {
            State::Reachable(mac) | State::Probe { mac, .. } => Some(mac),
            State::Incomplete { .. } | State::Failed { .. } => None,
        }
    }

    /// The next moment at which something is to be done.
    fn due(&self) -> Option<Instant> {
        match self.state {
            State::Incomplete { again, .. } | State::Probe { again, .. } => Some(again),
            State::Failed { until } => Some(until),
            State::Reachable(_) => None,
        }
    }

    /// The place in the order in which neighbours give way to others, least first: those in use,
    /// which were sent to in the last minute, come last.
    fn rank(&self, now: Instant) -> (bool, Option<Instant>) {
        let in_use = self.mac().is_some() && self.used.is_some_and(|used| now < used + REACHABLE_TIME);
        (in_use, self.heard.max(self.used))
    }

    fn held_octets(&self) -> usize {
        self.held.iter().map(Vec::len).sum()
    }
}

/// The answer to a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Known(EthernetAddress),
    /// The packet may wait: [`Neighbours::hold`].
    Pending,
    Unreachable,
}

/// The table.
#[derive(Debug)]
pub(super) struct Neighbours {
    limit: usize,
    entries: BTreeMap<Ipv4Addr, Neighbour>,
    held_octets: usize,
    /// A time that is not after that of any entry.
    deadline: Option<Instant>,
}

impl Neighbours {
    /// A table with room for `limit` neighbours.
    pub fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), entries: BTreeMap::new(), held_octets: 0, deadline: None }
    }

    pub fn clear(&mut self) {
        *self = Self::new(self.limit);
    }

    /// Finds the neighbour that a packet is sent to now. If the second value is true, a request is
    /// to be sent.
    pub fn look_up(&mut self, address: Ipv4Addr, now: Instant) -> (Found, bool) {
        let again = now + REQUEST_PAUSE;
        let Some(neighbour) = self.entries.get_mut(&address) else {
            self.make_room(true, now);
            let state = State::Incomplete { requests: 1, again };
            self.entries
                .insert(address, Neighbour { state, heard: None, doubted: None, used: Some(now), held: Vec::new() });
            self.deadline = sooner(self.deadline, Some(again));
            return (Found::Pending, true);
        };
        neighbour.used = Some(now);
        match neighbour.state {
            State::Reachable(mac) if neighbour.heard.is_none_or(|heard| now >= heard + REACHABLE_TIME) => {
                neighbour.state = State::Probe { mac, requests: 1, again };
                self.deadline = sooner(self.deadline, Some(again));
                (Found::Known(mac), true)
            }
            State::Reachable(mac) | State::Probe { mac, .. } => (Found::Known(mac), false),
            State::Incomplete { .. } => (Found::Pending, false),
            State::Failed { .. } => (Found::Unreachable, false),
        }
    }

    /// True if the address did not answer lately.
    pub fn is_unreachable(&self, address: Ipv4Addr) -> bool {
        self.entries.get(&address).is_some_and(|neighbour| matches!(neighbour.state, State::Failed { .. }))
    }

    /// Keeps a packet until its address is known. If there are too many, one of those that wait for
    /// the address with the most is dropped. Returns false if it is this one.
    pub fn hold(&mut self, address: Ipv4Addr, packet: &[u8]) -> bool {
        while self.held_octets + packet.len() > self.limit * HELD_OCTETS_EACH {
            let most = self.entries.iter_mut().max_by_key(|(_, neighbour)| neighbour.held_octets());
            match most {
                Some((&other, neighbour)) if other != address => match neighbour.held.pop() {
                    Some(dropped) => self.held_octets -= dropped.len(),
                    None => return false,
                },
                _ => return false,
            }
        }
        let Some(neighbour) = self.entries.get_mut(&address) else { return false };
        let mut copy = Vec::new();
        if neighbour.held.try_reserve(1).is_err() || copy.try_reserve_exact(packet.len()).is_err() {
            return false;
        }
        copy.extend_from_slice(packet);
        neighbour.held.push(copy);
        self.held_octets += packet.len();
        true
    }

    /// Notes that `address` has the Ethernet address `mac`, as it says itself. If it is not in the
    /// table, it is added where `add` is set and nobody in use has to give way. Returns the packets
    /// that waited for it.
    pub fn learn(&mut self, address: Ipv4Addr, mac: EthernetAddress, add: bool, now: Instant) -> Vec<Vec<u8>> {
        if let Some(neighbour) = self.entries.get_mut(&address) {
            neighbour.state = State::Reachable(mac);
            neighbour.heard = Some(now);
            let held = core::mem::take(&mut neighbour.held);
            self.held_octets -= held.iter().map(Vec::len).sum::<usize>();
            return held;
        }
        if add && self.make_room(false, now) {
            let state = State::Reachable(mac);
            let neighbour = Neighbour { state, heard: Some(now), doubted: None, used: None, held: Vec::new() };
            self.entries.insert(address, neighbour);
        }
        Vec::new()
    }

    /// True if `address` is known, by another Ethernet address than `mac`.
    pub fn knows_another(&self, address: Ipv4Addr, mac: EthernetAddress) -> bool {
        self.entries.get(&address).and_then(Neighbour::mac).is_some_and(|known| known != mac)
    }

    /// Notes that a packet from `address` came from the Ethernet address `mac`. If the neighbour is
    /// known by another one, it may have moved: that one is used on until the neighbour says so
    /// itself. Returns true if a request is to be sent, ten times a second at most.
    pub fn heard(&mut self, address: Ipv4Addr, mac: EthernetAddress, now: Instant) -> bool {
        let Some(neighbour) = self.entries.get_mut(&address) else { return false };
        match neighbour.mac() {
            Some(known) if known == mac => {
                neighbour.state = State::Reachable(mac);
                neighbour.heard = Some(now);
                false
            }
            Some(_) if neighbour.doubted.is_none_or(|doubted| now >= doubted + DOUBT_PAUSE) => {
                neighbour.doubted = Some(now);
                true
            }
            _ => false,
        }
    }

    /// The time of the next [`Neighbours::tick`].
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Does what is due: calls `ask` for each address that is to be asked for again, and returns
    /// those that are unreachable from now on.
    pub fn tick(&mut self, now: Instant, mut ask: impl FnMut(Ipv4Addr)) -> Vec<Ipv4Addr> {
        let mut unreachable = Vec::new();
        if self.deadline.is_none_or(|due| now < due) {
            return unreachable;
        }
        self.deadline = None;
        self.entries.retain(|&address, neighbour| {
            if neighbour.due().is_some_and(|due| due <= now) {
                match &mut neighbour.state {
                    State::Failed { .. } => return false,
                    State::Incomplete { requests, again } | State::Probe { requests, again, .. }
                        if *requests < REQUESTS =>
                    {
                        *requests += 1;
                        *again = now + REQUEST_PAUSE;
                        ask(address);
                    }
                    _ => {
                        self.held_octets -= neighbour.held_octets();
                        neighbour.held = Vec::new();
                        neighbour.state = State::Failed { until: now + FAILED_TIME };
                        unreachable.push(address);
                    }
                }
            }
            self.deadline = sooner(self.deadline, neighbour.due());
            true
        });
        unreachable
    }

    /// Makes room for one neighbour more. Returns false if all are in use, and none may give way to
    /// a neighbour that is not.
    fn make_room(&mut self, in_use: bool, now: Instant) -> bool {
        if self.entries.len() < self.limit {
            return true;
        }
        let least = self.entries.iter().map(|(address, neighbour)| (neighbour.rank(now), *address)).min();
        match least {
            Some(((used, _), address)) if in_use || !used => {
                if let Some(neighbour) = self.entries.remove(&address) {
                    self.held_octets -= neighbour.held_octets();
                }
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_millis_const(1_000);

    fn address(n: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(0x0a00_0000 + n)
    }

    fn mac(n: u8) -> EthernetAddress {
        EthernetAddress([2, 0, 0, 0, 0, n])
    }

    /// Does all that is due until `end`, and returns the requests and the unreachable addresses.
    fn run(table: &mut Neighbours, end: Instant) -> (Vec<(Instant, Ipv4Addr)>, Vec<Ipv4Addr>) {
        let (mut asked, mut lost) = (Vec::new(), Vec::new());
        while let Some(now) = table.deadline().filter(|&due| due <= end) {
            lost.extend(table.tick(now, |address| asked.push((now, address))));
        }
        (asked, lost)
    }

    #[test]
    fn three_requests_a_second_apart_then_the_address_is_unreachable() {
        let mut table = Neighbours::new(8);
        assert_eq!(table.look_up(address(1), START), (Found::Pending, true));
        assert_eq!(table.look_up(address(1), START), (Found::Pending, false));
        assert!(table.hold(address(1), b"packet"));
        let second = Duration::from_secs(1);
        let (asked, lost) = run(&mut table, START + second * 3);
        assert_eq!(asked, [(START + second, address(1)), (START + second * 2, address(1))]);
        assert_eq!((lost, table.held_octets), (alloc::vec![address(1)], 0));
        assert!(table.is_unreachable(address(1)));
        assert_eq!(table.look_up(address(1), START + second * 4), (Found::Unreachable, false));
        run(&mut table, START + second * 7);
        assert_eq!(table.look_up(address(1), START + second * 7), (Found::Pending, true), "it is tried anew");
    }

    #[test]
    fn packets_wait_for_their_own_address_alone() {
        let mut table = Neighbours::new(8);
        for n in 1..=2 {
            table.look_up(address(n), START);
            assert!(table.hold(address(n), &[n as u8]));
        }
        assert_eq!(table.learn(address(2), mac(2), true, START), [[2]]);
        assert_eq!(table.look_up(address(2), START), (Found::Known(mac(2)), false));
        assert_eq!(table.look_up(address(1), START), (Found::Pending, false));
        assert_eq!(table.held_octets, 1);
    }

    #[test]
    fn a_silent_neighbour_is_used_on_while_it_is_asked_again() {
        let mut table = Neighbours::new(8);
        table.learn(address(1), mac(1), true, START);
        let later = START + REACHABLE_TIME;
        assert_eq!(table.look_up(address(1), later), (Found::Known(mac(1)), true));
        assert_eq!(table.look_up(address(1), later), (Found::Known(mac(1)), false));
        assert!(table.heard(address(1), mac(9), later), "it may have moved");
        assert!(!table.heard(address(1), mac(9), later), "once in a while");
        assert!(table.heard(address(1), mac(9), later + DOUBT_PAUSE));
        assert!(matches!(table.entries[&address(1)].state, State::Probe { .. }), "another sender is no answer");
        assert!(!table.heard(address(1), mac(1), later));
        assert!(run(&mut table, later + REACHABLE_TIME).0.is_empty());
        let later = later + REACHABLE_TIME;
        table.look_up(address(1), later);
        assert_eq!(run(&mut table, later + REACHABLE_TIME).1, [address(1)]);
    }

    #[test]
    fn those_in_use_do_not_give_way_to_strangers() {
        let mut table = Neighbours::new(100);
        for n in 0..90 {
            table.learn(address(n), mac(n as u8), true, START);
            table.look_up(address(n), START);
        }
        // Strangers that ask, and others that do not answer.
        for n in 0..10_000 {
            table.learn(address(1_000 + n), mac(1), true, START + Duration::from_millis(1));
            table.look_up(address(100_000 + n), START + Duration::from_millis(1));
            assert!(table.entries.len() <= 100);
        }
        for n in 0..90 {
            assert_eq!(table.look_up(address(n), START).0, Found::Known(mac(n as u8)));
        }
        // All are in use: one that we talk to finds room, and one that only asks does not.
        for n in 90..100 {
            table.look_up(address(n), START);
            table.learn(address(n), mac(n as u8), true, START);
        }
        table.learn(address(500), mac(5), true, START);
        assert!(!table.entries.contains_key(&address(500)));
        assert_eq!(table.look_up(address(500), START), (Found::Pending, true));
    }

    #[test]
    fn waiting_packets_have_a_limit() {
        let mut table = Neighbours::new(16);
        for n in 0..32 {
            table.look_up(address(n), START);
            for _ in 0..100 {
                table.hold(address(n), &[0; 50]);
                assert!(table.held_octets <= 16 * HELD_OCTETS_EACH);
            }
        }
        let held: usize = table.entries.values().map(Neighbour::held_octets).sum();
        assert_eq!(held, table.held_octets);
        // Those with many give way to one with few.
        table.look_up(address(100), START);
        assert!(table.hold(address(100), &[0; 50]));
        assert_eq!(table.learn(address(100), mac(1), true, START), [[0; 50]]);
        run(&mut table, START + Duration::from_secs(60));
        assert_eq!((table.held_octets, table.entries.len()), (0, 1), "one has answered");
    }
}
