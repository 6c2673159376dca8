//! The interface's address, fixed or leased from a DHCP server, and its routes.

use super::Stack;
use super::udp::{DHCP_CLIENT, DHCP_SERVER};
use crate::config::{List, NAME_SERVERS, NetConfig, ROUTES, Route, StaticAddress, in_network};
use crate::dhcp::{Change, Client, Lease, Outgoing};
use crate::dns::SearchList;
use crate::frame::ETHERNET_HEADER;
use crate::platform::{Platform, Xenstore};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::net::Ipv4Addr;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::time::Instant;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpAddress, IpCidr, IpProtocol, Ipv4Cidr,
    Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};

/// An interface's IPv4 address with its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address itself.
    pub address: Ipv4Addr,
    /// Length of the network prefix in bits.
    pub prefix: u8,
    /// Router for everything without another route. It is on the link, whatever its address is.
    pub gateway: Option<Ipv4Addr>,
    /// Further routes.
    pub routes: List<Route, ROUTES>,
    /// Name servers, in the order in which they are asked.
    pub dns: List<Ipv4Addr, NAME_SERVERS>,
    /// Domains in which short names are looked for.
    pub search: SearchList,
    /// Largest packet on the link, in octets, as the DHCP server says (RFC 2132, section 5.1).
    pub mtu: Option<u16>,
}

impl Address {
    /// The neighbour to which a packet for `peer` goes: `peer` itself, or a router. `None`: there is
    /// no route. Of several networks that `peer` is in, the smallest one decides.
    pub(super) fn next_hop(&self, peer: Ipv4Addr) -> Option<Ipv4Addr> {
        let mut routers = self.routes.iter().filter_map(|route| route.router).chain(self.gateway);
        if peer.is_broadcast() || routers.any(|router| router == peer) {
            return Some(peer);
        }
        let own = Route { network: self.address, prefix: self.prefix, router: None };
        let default = self.gateway.map(|_| Route { network: peer, prefix: 0, router: self.gateway });
        let ways = default.into_iter().chain(self.routes.iter()).chain([own]);
        let best = ways.filter(|way| way.contains(peer)).max_by_key(|way| way.prefix)?;
        Some(best.router.unwrap_or(peer))
    }

    /// True if `peer` is the broadcast address of the network, or of all.
    pub(super) fn is_broadcast(&self, peer: Ipv4Addr) -> bool {
        let host = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
        let is_last = self.prefix < 31 && peer.to_bits() & host == host;
        peer.is_broadcast() || is_last && in_network(peer, self.address, self.prefix)
    }
}

impl From<StaticAddress> for Address {
    fn from(given: StaticAddress) -> Self {
        let StaticAddress { address, prefix, gateway, routes, dns, search } = given;
        Self { address, prefix, gateway, routes, dns, search, mtu: None }
    }
}

impl From<&Lease> for Address {
    /// Takes over what can work of a lease, and says what cannot.
    fn from(lease: &Lease) -> Self {
        let address = lease.address;
        let mut gateway = None;
        let mut routes = List::EMPTY;
        for route in lease.routes() {
            if !route.works_from(address) {
                log::warn!("net: the lease's route {route} cannot work, and is left out");
            } else if route.prefix == 0 && route.router.is_some() {
                // Servers give routers in the order of preference (RFC 2132, section 3.5).
                gateway = gateway.or(route.router);
            } else if routes.push(route).is_none() {
                log::warn!("net: the lease's route {route} is left out: there are more than {ROUTES}");
            }
        }
        let (dns, search) = (lease.name_servers().collect(), SearchList::NONE);
        Self { address, prefix: lease.prefix(), gateway, routes, dns, search, mtu: lease.mtu() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)?;
        if let Some(gateway) = self.gateway {
            write!(f, ", gateway {gateway}")?;
        }
        self.routes.iter().try_for_each(|route| write!(f, ", route {route}"))?;
        self.dns.iter().try_for_each(|server| write!(f, ", name server {server}"))?;
        match self.mtu {
            Some(mtu) => write!(f, ", MTU {mtu}"),
            None => Ok(()),
        }
    }
}

impl<P: Platform + Xenstore> Stack<P> {
    /// Takes the address from `config`, if it has one.
    pub(super) fn configure(&mut self, config: NetConfig, now: Instant) {
        if let NetConfig::Static(given) = config {
            self.address = Some(given.into());
            self.apply_address(now);
        }
    }

    /// Begins to ask for an address, if one is to be leased and this is the first time. It waits
    /// until the backend is connected: before that the device may not be on its bridge yet, and the
    /// request would be lost.
    pub(super) fn ask_for_lease(&mut self, now: Instant) {
        if self.origin.wants_lease() && self.dhcp.is_none() {
            self.dhcp = Some(Client::new(now));
        }
    }

    /// Gives up the lease, and asks for another one.
    pub(super) fn drop_lease(&mut self, now: Instant) {
        if self.dhcp.is_some() {
            self.dhcp = Some(Client::new(now));
            self.lease_changed(Some(Change::Lost), now);
        }
    }

    /// The time of the next [`Stack::serve_lease`].
    pub(super) fn lease_deadline(&self) -> Option<Instant> {
        self.net.device.features()?;
        self.dhcp.as_ref().map(Client::deadline)
    }

    /// Sends the DHCP client's messages that are due. Without a backend it stands still.
    pub(super) fn serve_lease(&mut self, now: Instant) {
        let (Some(client), Some(features)) = (&mut self.dhcp, self.net.device.features()) else { return };
        if client.deadline() > now {
            return;
        }
        let (message, change) = client.poll(now, features.mac, self.random.next() as u32);
        if let Some(message) = message {
            self.send_to_server(&message, features.mac);
        }
        self.lease_changed(change, now);
    }

    /// Takes in the fetched datagram, which came from the port of DHCP servers.
    pub(super) fn lease_offered(&mut self, now: Instant) {
        let (Some(client), Some(features)) = (&mut self.dhcp, self.net.device.features()) else { return };
        let Ok(frame) = EthernetFrame::new_checked(self.net.device.fetched()) else { return };
        let Ok(packet) = Ipv4Packet::new_checked(frame.payload()) else { return };
        let Ok(datagram) = UdpPacket::new_checked(packet.payload()) else { return };
        if packet.verify_checksum() {
            let change = client.receive(now, features.mac, frame.src_addr(), datagram.payload());
            self.lease_changed(change, now);
        }
    }

    /// Takes over a change of the lease.
    fn lease_changed(&mut self, change: Option<Change>, now: Instant) {
        let address = match &change {
            None => return,
            Some(Change::Leased(lease)) => Some(Address::from(lease)),
            Some(Change::Lost) => None,
        };
        if address == self.address {
            return;
        }
        match address {
            Some(address) => {
                log::info!("net: leased {address}");
                if address.prefix == 32 && address.gateway.is_none() && address.routes.is_empty() {
                    log::warn!("net: the lease has the prefix 32 and no route: nobody can be reached");
                }
            }
            None => log::warn!("net: the DHCP lease is lost"),
        }
        self.address = address;
        self.apply_address(now);
        self.net.ethernet.announce();
        // Connections from an address that is no longer ours end at their next turn.
        for handle in self.net.table.select(|_| true) {
            self.net.table.queue(handle);
        }
    }

    /// Sends a message of the DHCP client. It needs no address and no neighbour, so it does not pass
    /// through the interface. If the device has no room, it is lost, and sent again in time.
    fn send_to_server(&mut self, message: &Outgoing, mac: EthernetAddress) {
        self.net.send_frame(&frame_of(message, mac));
    }

    /// Sets the interface to the present address. It is made anew, as smoltcp asks for the MTU then.
    pub(super) fn apply_address(&mut self, now: Instant) {
        self.net.ethernet.set_address(self.address);
        self.net.device.limit_mtu(self.address.and_then(|own| own.mtu).map(usize::from));
        if self.net.mac.is_none() {
            return;
        }
        let mut interface = self.net.make_interface(self.random.next(), now);
        let own = self.address.map(|own| IpCidr::Ipv4(Ipv4Cidr::new(own.address, own.prefix)));
        let local = IpCidr::new(IpAddress::Ipv4(Ipv4Addr::LOCALHOST), 8);
        // There is room for two.
        interface.update_ip_addrs(|list| list.extend(own.into_iter().chain([local])));
        self.net.interface = Some(interface);
    }
}

/// The frame, from the device with the address `mac`, with a message of the DHCP client.
fn frame_of(message: &Outgoing, mac: EthernetAddress) -> Vec<u8> {
    let (server, server_mac) = message.server.unwrap_or((Ipv4Addr::BROADCAST, EthernetAddress::BROADCAST));
    let udp = UdpRepr { src_port: DHCP_CLIENT, dst_port: DHCP_SERVER };
    let payload = &message.octets;
    let ip = Ipv4Repr {
        src_addr: message.source,
        dst_addr: server,
        next_header: IpProtocol::Udp,
        payload_len: udp.header_len() + payload.len(),
        hop_limit: 64,
    };
    let ethernet = EthernetRepr { src_addr: mac, dst_addr: server_mac, ethertype: EthernetProtocol::Ipv4 };
    let caps = ChecksumCapabilities::default();
    let mut bytes = vec![0; ETHERNET_HEADER + ip.buffer_len() + ip.payload_len];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
    ethernet.emit(&mut frame);
    let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
    ip.emit(&mut packet, &caps);
    let mut datagram = UdpPacket::new_unchecked(packet.payload_mut());
    let (source, target) = (ip.src_addr.into(), ip.dst_addr.into());
    udp.emit(&mut datagram, &source, &target, payload.len(), |room| room.copy_from_slice(payload), &caps);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse::<StaticAddress>().unwrap().into()
    }

    fn hop(own: &Address, peer: &str) -> Option<Ipv4Addr> {
        own.next_hop(peer.parse().unwrap())
    }

    fn some(text: &str) -> Option<Ipv4Addr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn a_router_outside_the_network_is_on_the_link() {
        let own = address("192.0.2.9/32,gw=10.0.0.1");
        assert_eq!(hop(&own, "10.0.0.1"), some("10.0.0.1"));
        for peer in ["10.0.0.2", "192.0.2.8", "203.0.113.1"] {
            assert_eq!(hop(&own, peer), some("10.0.0.1"), "{peer}");
        }
        assert_eq!(hop(&own, "255.255.255.255"), some("255.255.255.255"));
    }

    #[test]
    fn the_smallest_network_decides() {
        let text = "10.0.0.2/24,gw=10.0.0.1,route=192.168.0.0/16:10.0.0.3,route=192.168.7.0/24:10.0.0.4";
        let mut own = address(&alloc::format!("{text},route=10.0.0.128/25:10.0.0.5"));
        for (peer, expected) in [
            ("10.0.0.7", "10.0.0.7"),
            ("10.0.0.200", "10.0.0.5"),
            ("192.168.1.1", "10.0.0.3"),
            ("192.168.7.1", "10.0.0.4"),
            ("8.8.8.8", "10.0.0.1"),
        ] {
            assert_eq!(hop(&own, peer), some(expected), "{peer}");
        }
        own.routes.push(Route { network: Ipv4Addr::new(172, 16, 0, 0), prefix: 12, router: None }).unwrap();
        own.gateway = None;
        assert_eq!(hop(&own, "172.20.1.1"), some("172.20.1.1"), "a network on the link");
        assert_eq!(hop(&own, "8.8.8.8"), None);
    }

    #[test]
    fn networks_of_two_and_one_have_no_broadcast_address() {
        let is = |own: &str, peer: &str| address(own).is_broadcast(peer.parse().unwrap());
        assert!(is("10.0.0.2/24", "10.0.0.255") && is("10.0.0.2/24", "255.255.255.255"));
        assert!(!is("10.0.0.2/24", "10.0.1.255") && !is("10.0.0.2/31", "10.0.0.3"));
        assert!(!is("10.0.0.3/32,gw=10.0.0.1", "10.0.0.3"));
    }
}
