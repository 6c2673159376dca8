//! DHCP messages (RFC 2131, section 2; options: RFC 2132).

use crate::config::{Route, is_host};
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use smoltcp::wire::EthernetAddress;

/// Length of a message's fixed part, with the cookie before the options.
const FIXED: usize = 240;
/// A message is not shorter than one of BOOTP (RFC 1542, section 2.1).
const SHORTEST: usize = 300;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// The places of the fields `sname` and `file`, which may hold more options.
const SNAME: core::ops::Range<usize> = 44..108;
const FILE: core::ops::Range<usize> = 108..236;

/// Options by their numbers (RFC 2132; 121: RFC 3442).
pub mod option {
    pub const MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const NAME_SERVERS: u8 = 6;
    pub const MTU: u8 = 26;
    pub const REQUESTED: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const OVERLOAD: u8 = 52;
    pub const KIND: u8 = 53;
    pub const SERVER: u8 = 54;
    pub const PARAMETERS: u8 = 55;
    pub const MAX_SIZE: u8 = 57;
    pub const RENEWAL: u8 = 58;
    pub const REBINDING: u8 = 59;
    pub const CLIENT: u8 = 61;
    pub const ROUTES: u8 = 121;
}

/// The kinds of messages that a client sends or takes (RFC 2132, section 9.6).
pub mod kind {
    pub const DISCOVER: u8 = 1;
    pub const OFFER: u8 = 2;
    pub const REQUEST: u8 = 3;
    pub const ACK: u8 = 5;
    pub const NAK: u8 = 6;
}

/// The wanted options. That of routes is before that of the router (RFC 3442, "DHCP Client
/// Behavior").
const WANTED: [u8; 8] = [
    option::MASK,
    option::ROUTES,
    option::ROUTER,
    option::NAME_SERVERS,
    option::MTU,
    option::LEASE_TIME,
    option::RENEWAL,
    option::REBINDING,
];

/// Largest message that the client takes: a packet of 1,500 octets without its headers.
const MAX_SIZE: u16 = 1500 - 20 - 8;

/// A message of the client.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// One of [`kind`].
    pub kind: u8,
    /// The number that the answer repeats.
    pub transaction: u32,
    /// Time since the client began to ask, in seconds.
    pub seconds: u16,
    /// The client's present address, or zero.
    pub own: Ipv4Addr,
    /// The address and the server that were chosen among the offers.
    pub chosen: Option<(Ipv4Addr, Ipv4Addr)>,
}

impl Request {
    /// The message, from the device with the address `mac`.
    pub fn octets(&self, mac: EthernetAddress) -> Vec<u8> {
        const BOOTREQUEST: u8 = 1;
        const ETHERNET: u8 = 1;
        let mut octets = vec![0; FIXED];
        octets[..3].copy_from_slice(&[BOOTREQUEST, ETHERNET, 6]);
        octets[4..8].copy_from_slice(&self.transaction.to_be_bytes());
        octets[8..10].copy_from_slice(&self.seconds.to_be_bytes());
        octets[12..16].copy_from_slice(&self.own.octets());
        octets[28..34].copy_from_slice(mac.as_bytes());
        octets[236..].copy_from_slice(&COOKIE);
        let mut put = |code: u8, data: &[u8]| {
            octets.extend_from_slice(&[code, data.len() as u8]);
            octets.extend_from_slice(data);
        };
        put(option::KIND, &[self.kind]);
        let [a, b, c, d, e, f] = mac.0;
        put(option::CLIENT, &[ETHERNET, a, b, c, d, e, f]);
        if let Some((address, server)) = self.chosen {
            put(option::REQUESTED, &address.octets());
            put(option::SERVER, &server.octets());
        }
        put(option::PARAMETERS, &WANTED);
        put(option::MAX_SIZE, &MAX_SIZE.to_be_bytes());
        octets.push(255);
        if octets.len() < SHORTEST {
            octets.resize(SHORTEST, 0);
        }
        octets
    }
}

/// The options of an answer that are well formed, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options(BTreeMap<u8, Vec<u8>>);

impl Options {
    /// Adds the options of `earlier` that are not here.
    pub fn keep(&mut self, earlier: &Self) {
        for (code, data) in &earlier.0 {
            self.0.entry(*code).or_insert_with(|| data.clone());
        }
    }

    fn octets<const N: usize>(&self, code: u8) -> Option<[u8; N]> {
        self.0.get(&code)?.first_chunk().copied()
    }

    /// An address.
    pub fn address(&self, code: u8) -> Option<Ipv4Addr> {
        self.octets::<4>(code).map(Ipv4Addr::from)
    }

    /// A time in seconds.
    pub fn seconds(&self, code: u8) -> Option<u32> {
        self.octets(code).map(u32::from_be_bytes)
    }

    /// The largest packet on the link, in octets.
    pub fn mtu(&self) -> Option<u16> {
        self.octets(option::MTU).map(u16::from_be_bytes)
    }

    /// The addresses of hosts in a list; others are left out.
    pub fn hosts(&self, code: u8) -> impl Iterator<Item = Ipv4Addr> {
        let (addresses, _) = self.0.get(&code).map_or(&[][..], Vec::as_slice).as_chunks::<4>();
        addresses.iter().map(|octets| Ipv4Addr::from(*octets)).filter(|address| is_host(*address))
    }

    /// Length of the network's prefix.
    pub fn prefix(&self) -> Option<u8> {
        self.seconds(option::MASK).map(|mask| mask.leading_ones() as u8)
    }

    /// The classless routes; `None` if there is no such option.
    pub fn routes(&self) -> Option<Vec<Route>> {
        routes(self.0.get(&option::ROUTES)?)
    }
}

/// An answer of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// One of [`kind`].
    pub kind: u8,
    /// The number of the request.
    pub transaction: u32,
    /// The address that is offered or given.
    pub address: Ipv4Addr,
    /// The server's identifier.
    pub server: Ipv4Addr,
    /// The options.
    pub options: Options,
}

impl Answer {
    /// Reads a message for the device with the address `mac`. `None`: it is malformed, or not for
    /// it.
    pub fn read(message: &[u8], mac: EthernetAddress) -> Option<Self> {
        const BOOTREPLY: u8 = 2;
        let fixed: &[u8; FIXED] = message.first_chunk()?;
        if fixed[..3] != [BOOTREPLY, 1, 6] || fixed[28..34] != mac.0 || fixed[236..] != COOKIE {
            return None;
        }
        let mut options = BTreeMap::new();
        collect(&message[FIXED..], &mut options);
        // RFC 2132, section 9.3. The field `file` is read first (RFC 3396, section 5).
        let overload = options.get(&option::OVERLOAD).and_then(|data| data.first()).copied().unwrap_or(0);
        for (bit, field) in [(1, FILE), (2, SNAME)] {
            if overload & bit != 0 {
                collect(&fixed[field], &mut options);
            }
        }
        options.retain(|code, data| is_sound(*code, data));
        let options = Options(options);
        Some(Self {
            kind: *options.0.get(&option::KIND)?.first()?,
            transaction: u32::from_be_bytes(*fixed[4..].first_chunk()?),
            address: Ipv4Addr::from(*fixed[16..].first_chunk::<4>()?),
            server: options.address(option::SERVER)?,
            options,
        })
    }
}

/// Adds the options in `octets`. The parts of an option that is there more than once belong
/// together (RFC 3396, section 7).
fn collect(octets: &[u8], options: &mut BTreeMap<u8, Vec<u8>>) {
    const PAD: u8 = 0;
    const END: u8 = 255;
    let mut rest = octets;
    while let Some((&code, after)) = rest.split_first() {
        rest = match code {
            PAD => after,
            END => return,
            _ => {
                let Some((&length, after)) = after.split_first() else { return };
                let Some((data, after)) = after.split_at_checked(length.into()) else { return };
                options.entry(code).or_default().extend_from_slice(data);
                after
            }
        };
    }
}

/// True if the option's data can be used. Others are as if they were not there.
fn is_sound(code: u8, data: &[u8]) -> bool {
    let number = |data: &[u8]| data.first_chunk().map(|octets| u32::from_be_bytes(*octets));
    match code {
        option::MASK => number(data).is_some_and(|mask| mask != 0 && mask.leading_ones() == 32 - mask.trailing_zeros()),
        option::ROUTER | option::NAME_SERVERS => data.len() >= 4,
        option::SERVER => number(data).is_some_and(|address| is_host(Ipv4Addr::from_bits(address))),
        option::LEASE_TIME | option::RENEWAL | option::REBINDING => data.len() >= 4,
        // RFC 2132, section 5.1: 68 at least.
        option::MTU => data.first_chunk().is_some_and(|octets| u16::from_be_bytes(*octets) >= 68),
        option::KIND | option::OVERLOAD => !data.is_empty(),
        option::ROUTES => routes(data).is_some(),
        _ => false,
    }
}

/// Reads classless routes (RFC 3442): the length of a prefix, its octets as far as they matter, and
/// the router; zero stands for the link.
fn routes(data: &[u8]) -> Option<Vec<Route>> {
    let mut routes = Vec::new();
    let mut rest = data;
    while let Some((&prefix, after)) = rest.split_first() {
        let (given, after) = after.split_at_checked(usize::from(prefix).div_ceil(8))?;
        let mut network = [0; 4];
        network.get_mut(..given.len())?.copy_from_slice(given);
        let (router, after) = after.split_first_chunk::<4>()?;
        let router = Ipv4Addr::from(*router);
        let router = (!router.is_unspecified()).then_some(router);
        routes.push(Route { network: network.into(), prefix, router });
        rest = after;
    }
    Some(routes).filter(|routes| !routes.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::{String, ToString};
    use smoltcp::wire::{DhcpMessageType, DhcpPacket, DhcpRepr};

    const MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 7]);

    fn answer(options: &[u8]) -> Vec<u8> {
        let mut octets = vec![0; FIXED];
        octets[..3].copy_from_slice(&[2, 1, 6]);
        octets[4..8].copy_from_slice(&[1, 2, 3, 4]);
        octets[16..20].copy_from_slice(&[10, 0, 0, 50]);
        octets[28..34].copy_from_slice(&MAC.0);
        octets[236..].copy_from_slice(&COOKIE);
        octets.extend_from_slice(&[53, 1, 5, 54, 4, 10, 0, 0, 1]);
        octets.extend_from_slice(options);
        octets
    }

    fn options(octets: &[u8]) -> Options {
        Answer::read(&answer(octets), MAC).unwrap().options
    }

    fn routes_of(octets: &[u8]) -> Option<Vec<String>> {
        options(octets).routes().map(|routes| routes.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn smoltcp_reads_the_requests() {
        let (own, server) = (Ipv4Addr::new(10, 0, 0, 5), Ipv4Addr::new(10, 0, 0, 1));
        let request = Request {
            kind: kind::REQUEST,
            transaction: 0x0102_0304,
            seconds: 5,
            own: Ipv4Addr::UNSPECIFIED,
            chosen: Some((own, server)),
        };
        let octets = request.octets(MAC);
        assert!(octets.len() >= SHORTEST);
        let packet = DhcpPacket::new_checked(&octets[..]).unwrap();
        let read = DhcpRepr::parse(&packet).unwrap();
        assert_eq!((read.message_type, read.transaction_id, read.secs), (DhcpMessageType::Request, 0x0102_0304, 5));
        assert_eq!((read.requested_ip, read.server_identifier), (Some(own), Some(server)));
        assert_eq!((read.client_hardware_address, read.client_identifier), (MAC, Some(MAC)));
        assert_eq!((read.max_size, read.parameter_request_list), (Some(1472), Some(&WANTED[..])));
    }

    #[test]
    fn options_are_read_wherever_they_are() {
        let found = options(&[1, 4, 255, 255, 240, 0, 0, 3, 8, 10, 0, 0, 1, 10, 0, 0, 2, 6, 4, 10, 0, 0, 3, 255, 6, 4]);
        assert_eq!((found.prefix(), found.address(option::ROUTER)), (Some(20), Some(Ipv4Addr::new(10, 0, 0, 1))));
        // An option in two parts, with the second one in the field `file`, and one in `sname`.
        let mut octets = answer(&[52, 1, 3, 6, 4, 10, 0, 0, 3, 255]);
        octets[FILE.start..][..7].copy_from_slice(&[6, 4, 10, 0, 0, 4, 255]);
        octets[SNAME.start..][..5].copy_from_slice(&[26, 2, 5, 0x14, 255]);
        let found = Answer::read(&octets, MAC).unwrap().options;
        assert!(found.hosts(option::NAME_SERVERS).eq([3, 4].map(|last| Ipv4Addr::new(10, 0, 0, last))));
        assert_eq!(found.mtu(), Some(1300));
    }

    #[test]
    fn options_without_sense_are_as_if_they_were_not_there() {
        for nonsense in [
            &[1, 4, 255, 0, 255, 0][..],
            &[1, 4, 0, 0, 0, 0],
            &[1, 3, 255, 255, 255],
            &[26, 2, 0, 67],
            &[26, 1, 9],
            &[51, 2, 0, 1],
            &[3, 0],
            &[121, 3, 24, 10, 0],
            &[121, 5, 33, 10, 0, 0, 1],
            &[121, 10, 33, 10, 0, 0, 1, 1, 10, 0, 0, 1],
            &[121, 0],
            &[6, 200, 1],
            &[6],
        ] {
            assert_eq!(options(nonsense), options(&[]), "{nonsense:?}");
        }
        // TP-Link's second server 0.0.0.0.
        assert_eq!(options(&[6, 8, 10, 0, 0, 3, 0, 0, 0, 0]).hosts(option::NAME_SERVERS).count(), 1);
    }

    #[test]
    fn classless_routes_are_those_of_the_rfc() {
        let found = routes_of(&[121, 19, 24, 10, 17, 0, 10, 0, 0, 1, 0, 10, 0, 0, 2, 5, 248, 0, 0, 0, 0]);
        assert_eq!(found.unwrap(), ["10.17.0.0/24 by 10.0.0.1", "0.0.0.0/0 by 10.0.0.2", "248.0.0.0/5 on the link"]);
        // In two parts.
        assert_eq!(routes_of(&[121, 3, 8, 10, 9, 121, 3, 9, 9, 9]).unwrap(), ["10.0.0.0/8 by 9.9.9.9"]);
        assert_eq!(routes_of(&[]), None);
    }

    #[test]
    fn messages_for_others_or_broken_ones_are_refused() {
        let good = answer(&[255]);
        assert!(Answer::read(&good, MAC).is_some());
        for at in [0, 1, 2, 33, 236, 239] {
            let mut other = good.clone();
            other[at] ^= 1;
            assert_eq!(Answer::read(&other, MAC), None, "octet {at}");
        }
        for length in 0..good.len() - 1 {
            assert_eq!(Answer::read(&good[..length], MAC), None, "{length}");
        }
        // Without a kind, without a server.
        let mut other = good.clone();
        other[FIXED] = 0;
        other[FIXED + 1] = 0;
        assert_eq!(Answer::read(&other, MAC), None);
        let mut state = 3u32;
        let full = answer(&[121, 9, 24, 10, 17, 0, 10, 0, 0, 1, 0, 52, 1, 3, 6, 4, 10, 0, 0, 3, 255]);
        for _ in 0..50_000 {
            let mut octets = full.clone();
            for _ in 0..3 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = FIXED + (state >> 8) as usize % (octets.len() - FIXED);
                octets[at] = (state >> 24) as u8;
            }
            let _ = Answer::read(&octets, MAC);
        }
    }
}
