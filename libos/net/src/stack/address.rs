//! The interface's address, fixed or leased from a DHCP server.

use super::{Kind, Stack};
use crate::config::NetConfig;
use crate::platform::{Platform, Xenstore};
use core::fmt;
use core::net::Ipv4Addr;
use smoltcp::phy::{Device, TxToken};
use smoltcp::socket::dhcpv4;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpCidr, Ipv4Cidr,
};

/// Time between DHCP discoveries while no server has answered.
const DISCOVER_PAUSE: Duration = Duration::from_secs(2);

/// An interface's IPv4 address with its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address itself.
    pub address: Ipv4Addr,
    /// Length of the network prefix in bits.
    pub prefix: u8,
    /// Router for everything outside the prefix.
    pub gateway: Option<Ipv4Addr>,
    /// Name server.
    pub dns: Option<Ipv4Addr>,
}

impl Address {
    /// True if packets to `peer` have a route: it is a neighbour, or there is a gateway.
    pub(super) fn reaches(&self, peer: Ipv4Addr) -> bool {
        self.gateway.is_some() || peer.is_broadcast() || Ipv4Cidr::new(self.address, self.prefix).contains_addr(&peer)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)?;
        if let Some(gateway) = self.gateway {
            write!(f, ", gateway {gateway}")?;
        }
        if let Some(dns) = self.dns {
            write!(f, ", name server {dns}")?;
        }
        Ok(())
    }
}

impl<P: Platform + Xenstore> Stack<P> {
    /// Takes the address from `config`, if it has one.
    pub(super) fn configure(&mut self, config: NetConfig) {
        if let NetConfig::Static(given) = config {
            self.address =
                Some(Address { address: given.address, prefix: given.prefix, gateway: given.gateway, dns: given.dns });
            self.apply_address();
        }
    }

    /// Begins to ask for an address, if one is to be leased and this is the first time. It waits
    /// until the backend is connected: before that the device may not be on its bridge yet, and the
    /// request would be lost.
    pub(super) fn ask_for_lease(&mut self) {
        if self.origin.wants_lease() && self.dhcp.is_none() {
            let mut socket = dhcpv4::Socket::new();
            let mut retry = socket.get_retry_config();
            retry.discover_timeout = DISCOVER_PAUSE;
            socket.set_retry_config(retry);
            let handle = self.net.table.add(socket, Kind::Dhcp);
            self.net.table.queue(handle);
            self.dhcp = Some(handle);
        }
    }

    /// Takes over a change of the lease by the DHCP client.
    pub(super) fn lease_changed(&mut self, now: Instant) {
        let Some(entry) = self.dhcp.and_then(|handle| self.net.table.get(handle)) else {
            return;
        };
        let address = match entry.get::<dhcpv4::Socket>().poll() {
            None => return,
            Some(dhcpv4::Event::Deconfigured) => None,
            Some(dhcpv4::Event::Configured(lease)) => Some(Address {
                address: lease.address.address(),
                prefix: lease.address.prefix_len(),
                gateway: lease.router,
                dns: lease.dns_servers.first().copied(),
            }),
        };
        if address == self.address {
            return;
        }
        match address {
            Some(address) => log::info!("net: leased {address}"),
            None => log::warn!("net: the DHCP lease is lost"),
        }
        self.address = address;
        self.apply_address();
        self.announce(now);
        // Connections from an address that is no longer ours end at their next turn.
        for handle in self.net.table.select(|_| true) {
            self.net.table.queue(handle);
        }
    }

    /// Announces our Ethernet address to the neighbours, as they may remember another one (RFC
    /// 5227, section 2.3). The announcement is sent with the next packets.
    pub(super) fn announce(&mut self, now: Instant) {
        let (Some(features), Some(own)) = (self.net.device.features(), self.address) else {
            return;
        };
        let ethernet = EthernetRepr {
            src_addr: features.mac,
            dst_addr: EthernetAddress::BROADCAST,
            ethertype: EthernetProtocol::Arp,
        };
        let arp = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: features.mac,
            source_protocol_addr: own.address,
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: own.address,
        };
        if let Some(token) = self.net.device.transmit(now) {
            token.consume(ethernet.buffer_len() + arp.buffer_len(), |bytes| {
                let mut frame = EthernetFrame::new_unchecked(bytes);
                ethernet.emit(&mut frame);
                arp.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
            });
        }
    }

    /// Sets the interface to the present address.
    pub(super) fn apply_address(&mut self) {
        let Some(interface) = &mut self.net.interface else {
            return;
        };
        interface.update_ip_addrs(|list| list.clear());
        interface.routes_mut().remove_default_ipv4_route();
        if let Some(address) = self.address {
            let cidr = Ipv4Cidr::new(address.address, address.prefix);
            // There is room: the list has just been cleared.
            interface.update_ip_addrs(|list| _ = list.push(IpCidr::Ipv4(cidr)));
            if let Some(gateway) = address.gateway {
                _ = interface.routes_mut().add_default_ipv4_route(gateway);
            }
        }
        self.apply_name_server();
    }
}
