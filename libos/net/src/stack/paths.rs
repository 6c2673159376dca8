//! The destinations with a path whose MTU is smaller than the interface's (RFC 1191).
//!
//! A router that cannot forward a packet tells the MTU of the next link. Messages of strangers are
//! not believed: the quoted packet must be one of the guest's own address and of a flow that exists
//! (RFC 5927, section 7), and the MTU has a lower bound. The Ethernet layer fits packets to it.

use super::Stack;
use super::tcp::flow;
use crate::frame::TooBig;
use crate::platform::{Platform, Xenstore};
use alloc::collections::BTreeMap;
use core::net::Ipv4Addr;
use smoltcp::socket::tcp::State;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::IpProtocol;

/// Destinations in the table, at most.
const PATHS: usize = 64;
/// Time after which an MTU is forgotten, as the path may have changed (RFC 1191, section 6.3).
const LIFETIME: Duration = Duration::from_secs(10 * 60);
/// The smallest MTU in octets (Linux's `net.ipv4.route.min_pmtu`). Smaller ones are taken as this
/// one, so that a forged message costs little.
const PATH_MTU_MIN: usize = 552;

#[derive(Clone, Copy, Debug)]
struct Path {
    /// Octets of the longest packet.
    mtu: usize,
    /// The time of the last message.
    learned: Instant,
    /// Identification of the next packet in fragments.
    ident: u16,
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct Paths {
    entries: BTreeMap<Ipv4Addr, Path>,
}

impl Paths {
    /// Forgets all paths.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// True if every path that is known has the interface's MTU.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Notes that the path to `destination` has an MTU of `mtu` octets. A known MTU is not raised.
    /// In a full table, the oldest entry gives way. The identifications of a new path begin with
    /// `ident`.
    pub fn lower(&mut self, destination: Ipv4Addr, mtu: usize, ident: u16, now: Instant) {
        let mtu = mtu.max(PATH_MTU_MIN);
        let known = self.get(destination, now).copied();
        if known.is_some_and(|path| path.mtu < mtu) {
            return;
        }
        if known.is_none_or(|path| path.mtu > mtu) {
            log::debug!("net: the path to {destination} has an MTU of {mtu}");
        }
        if known.is_none()
            && self.entries.len() >= PATHS
            && let Some((&oldest, _)) = self.entries.iter().min_by_key(|(_, path)| path.learned)
        {
            self.entries.remove(&oldest);
        }
        let ident = known.map_or(ident, |path| path.ident);
        self.entries.insert(destination, Path { mtu, learned: now, ident });
    }

    /// The MTU of the path to `destination`, if a packet of `len` octets is longer; and the
    /// identification for its fragments. It differs from those of the last 65,535 packets on this
    /// path, and other hosts cannot guess it (RFC 7739, section 5).
    pub fn narrow(&mut self, destination: Ipv4Addr, len: usize, now: Instant) -> Option<(usize, u16)> {
        let path = self.get(destination, now).filter(|path| path.mtu < len)?;
        let ident = path.ident;
        path.ident = ident.wrapping_add(1);
        Some((path.mtu, ident))
    }

    fn get(&mut self, destination: Ipv4Addr, now: Instant) -> Option<&mut Path> {
        let path = self.entries.get(&destination)?;
        if now >= path.learned + LIFETIME {
            self.entries.remove(&destination);
        }
        self.entries.get_mut(&destination)
    }
}

impl<P: Platform + Xenstore> Stack<P> {
    /// Takes in a router's message to the address `to`, that a packet from here was too big.
    pub(super) fn too_big_arrived(&mut self, to: Ipv4Addr, message: TooBig, now: Instant) {
        let TooBig { source, destination, protocol, source_port, destination_port, mtu } = message;
        let own = self.address.map(|own| own.address);
        if own != Some(to) || own != Some(source) || !self.net.ethernet.is_remote_host(destination) {
            return;
        }
        let exists = match protocol {
            IpProtocol::Tcp => {
                let handle = self.flows.get(&flow(source_port, destination, destination_port)).copied();
                let state = handle.and_then(|handle| self.tcp_state(handle));
                // The segments of a handshake are short, and strangers can begin one.
                state.is_some_and(|state| !matches!(state, State::SynSent | State::SynReceived))
            }
            IpProtocol::Udp => self.udp_ports.contains_key(&source_port),
            _ => false,
        };
        if exists && usize::from(mtu) < self.net.device.mtu() {
            let ident = self.random.next() as u16;
            self.net.ethernet.lower_path_mtu(destination, mtu.into(), ident, now);
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

    fn mtu(table: &mut Paths, n: u32, now: Instant) -> Option<usize> {
        table.narrow(address(n), usize::MAX, now).map(|(mtu, _)| mtu)
    }

    #[test]
    fn an_mtu_falls_and_does_not_rise() {
        let mut table = Paths::default();
        assert_eq!(mtu(&mut table, 1, START), None);
        for (told, expected) in [(1_400, 1_400), (1_280, 1_280), (1_300, 1_280), (553, 553), (0, 552), (600, 552)] {
            table.lower(address(1), told, 0, START);
            assert_eq!(mtu(&mut table, 1, START), Some(expected), "after {told}");
        }
        assert_eq!(mtu(&mut table, 2, START), None, "another destination");
        assert_eq!(table.narrow(address(1), 552, START), None, "a packet that fits");
        table.clear();
        assert_eq!(mtu(&mut table, 1, START), None);
    }

    #[test]
    fn an_mtu_lasts_for_ten_minutes_after_the_last_message() {
        let mut table = Paths::default();
        let (minute, moment) = (Duration::from_secs(60), Duration::from_millis(1));
        table.lower(address(1), 1_280, 0, START);
        table.lower(address(1), 1_280, 0, START + minute * 5);
        table.lower(address(1), 1_300, 0, START + minute * 8);
        assert_eq!(mtu(&mut table, 1, START + minute * 15 - moment), Some(1_280));
        assert_eq!(mtu(&mut table, 1, START + minute * 15), None);
        assert!(table.entries.is_empty());
        table.lower(address(1), 1_400, 0, START + minute * 16);
        assert_eq!(mtu(&mut table, 1, START + minute * 16), Some(1_400), "a new one may be greater");
    }

    #[test]
    fn the_oldest_gives_way_in_a_full_table() {
        let mut table = Paths::default();
        for n in 0..10_000 {
            table.lower(address(n), 1_280, 0, START + Duration::from_millis(n.into()));
            assert!(table.entries.len() <= PATHS);
        }
        let now = START + Duration::from_secs(10);
        let known = (0..10_000).filter(|&n| mtu(&mut table, n, now).is_some());
        assert!(known.eq(10_000 - PATHS as u32..10_000));
    }

    #[test]
    fn identifications_follow_each_other_on_each_path() {
        let mut table = Paths::default();
        table.lower(address(1), 1_280, u16::MAX, START);
        table.lower(address(2), 1_280, 7, START);
        let mut next = |n| table.narrow(address(n), 1_500, START).map(|(_, ident)| ident);
        assert_eq!([next(1), next(2), next(1), next(2)], [Some(u16::MAX), Some(7), Some(0), Some(8)]);
        table.lower(address(1), 1_000, 99, START);
        assert_eq!(table.narrow(address(1), 1_500, START), Some((1_000, 1)), "not those of before again");
    }
}
