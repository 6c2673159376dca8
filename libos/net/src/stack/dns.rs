//! Name queries.

use super::{Kind, Stack};
use crate::error::Error;
use crate::platform::{Platform, Xenstore};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::net::Ipv4Addr;
use core::task::Waker;
use smoltcp::socket::dns;
use smoltcp::wire::{DnsQueryType, IpAddress};

/// A query under way. Its answer must be taken, or the query cancelled.
#[must_use = "a query occupies memory until its answer is taken or it is cancelled"]
pub struct NameQuery(dns::QueryHandle);

impl fmt::Debug for NameQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NameQuery")
    }
}

impl<P: Platform + Xenstore> Stack<P> {
    /// Asks the name server for the IPv4 addresses of `name`.
    ///
    /// # Errors
    /// `InvalidInput`: no valid name, or no name server is known. `NetworkUnreachable`: the
    /// interface has never been up.
    pub fn resolve(&mut self, name: &str) -> Result<NameQuery, Error> {
        if self.address.is_none_or(|address| address.dns.is_none()) {
            return Err(Error::InvalidInput);
        }
        if self.dns.is_none() {
            let socket = dns::Socket::new(&[], vec![]);
            self.dns = Some(self.net.table.add(socket, Kind::Dns));
            self.apply_name_server();
        }
        let handle = self.dns.ok_or(Error::InvalidInput)?;
        let interface = self.net.interface.as_mut();
        let context = interface.ok_or(Error::NetworkUnreachable)?.context();
        let entry = self.net.table.get(handle).ok_or(Error::InvalidInput)?;
        let socket = entry.get::<dns::Socket>();
        let query = socket.start_query(context, name, DnsQueryType::A);
        self.net.table.queue(handle);
        query.map(NameQuery).map_err(|_| Error::InvalidInput)
    }

    /// The answer to a query, which ends with it.
    ///
    /// # Errors
    /// The query comes back with `WouldBlock` while it is under way. `NameNotFound`: there is no
    /// such name, or no server answered.
    pub fn resolved(&mut self, query: NameQuery) -> Result<Vec<Ipv4Addr>, (Error, Option<NameQuery>)> {
        let Some(entry) = self.dns.and_then(|handle| self.net.table.get(handle)) else {
            return Err((Error::NameNotFound, None));
        };
        match entry.get::<dns::Socket>().get_query_result(query.0) {
            Ok(found) => Ok(found
                .iter()
                .filter_map(|address| match address {
                    IpAddress::Ipv4(address) => Some(*address),
                    IpAddress::Ipv6(_) => None,
                })
                .collect()),
            Err(dns::GetQueryResultError::Pending) => Err((Error::WouldBlock, Some(query))),
            Err(dns::GetQueryResultError::Failed) => Err((Error::NameNotFound, None)),
        }
    }

    /// Wakes `waker` when the query's answer is there.
    pub fn wake_on_resolved(&mut self, query: &NameQuery, waker: &Waker) {
        if let Some(entry) = self.dns.and_then(|handle| self.net.table.get(handle)) {
            entry.get::<dns::Socket>().register_query_waker(query.0, waker);
        }
    }

    /// Gives a query up.
    pub fn cancel_resolve(&mut self, query: NameQuery) {
        if let Some(entry) = self.dns.and_then(|handle| self.net.table.get(handle)) {
            entry.get::<dns::Socket>().cancel_query(query.0);
        }
    }

    /// Tells the DNS client the present name server.
    pub(super) fn apply_name_server(&mut self) {
        let server = self.address.and_then(|address| address.dns);
        if let Some(entry) = self.dns.and_then(|handle| self.net.table.get(handle)) {
            let servers = server.map(IpAddress::Ipv4);
            entry.get::<dns::Socket>().update_servers(servers.as_slice());
        }
    }
}
