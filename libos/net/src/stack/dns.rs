//! Name queries.

use super::{Kind, Stack};
use crate::error::Error;
use crate::platform::{Platform, Xenstore};
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::net::Ipv4Addr;
use core::task::Waker;
use smoltcp::socket::dns;
use smoltcp::wire::{DnsQueryType, IpAddress};

/// A query under way. The caller takes its answer or cancels it.
#[must_use = "a query occupies memory until its answer is taken or it is cancelled"]
#[derive(Debug)]
pub struct NameQuery(u32);

/// The queries under way. Each has a number that no other query of this stack, or of the stack
/// before a fork, has.
#[derive(Default)]
pub(super) struct Queries {
    made: u32,
    by_number: BTreeMap<u32, Query>,
}

struct Query {
    handle: dns::QueryHandle,
    waker: Option<Waker>,
}

impl fmt::Debug for Queries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_number.keys()).finish()
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
        let query = socket.start_query(context, name, DnsQueryType::A).map_err(|_| Error::InvalidInput)?;
        self.net.table.queue(handle);
        let number = self.queries.made;
        self.queries.made = number.wrapping_add(1);
        self.queries.by_number.insert(number, Query { handle: query, waker: None });
        Ok(NameQuery(number))
    }

    /// The answer to a query, which ends with it.
    ///
    /// # Errors
    /// The query comes back with `WouldBlock` while it is under way. `NameNotFound`: there is no
    /// such name, or no server answered. `NotConnected`: it is the parent's query, in the child of
    /// a fork.
    pub fn resolved(&mut self, query: NameQuery) -> Result<Vec<Ipv4Addr>, (Error, Option<NameQuery>)> {
        let Some((socket, under_way)) = self.query(&query) else {
            return Err((Error::NotConnected, None));
        };
        let answer = match socket.get_query_result(under_way.handle) {
            Err(dns::GetQueryResultError::Pending) => return Err((Error::WouldBlock, Some(query))),
            answer => answer,
        };
        self.queries.by_number.remove(&query.0);
        let found = answer.map_err(|_| (Error::NameNotFound, None))?;
        let v4 = |address: &IpAddress| match address {
            IpAddress::Ipv4(address) => Some(*address),
            IpAddress::Ipv6(_) => None,
        };
        Ok(found.iter().filter_map(v4).collect())
    }

    /// Wakes `waker` when the query's answer is there.
    pub fn wake_on_resolved(&mut self, query: &NameQuery, waker: &Waker) {
        if let Some((socket, under_way)) = self.query(query) {
            socket.register_query_waker(under_way.handle, waker);
            under_way.waker = Some(waker.clone());
        }
    }

    /// Cancels a query.
    pub fn cancel_resolve(&mut self, query: NameQuery) {
        if let Some((socket, under_way)) = self.query(&query) {
            socket.cancel_query(under_way.handle);
            self.queries.by_number.remove(&query.0);
        }
    }

    /// Ends all queries, which are those of a fork's parent, and wakes the threads that wait for
    /// them.
    pub(super) fn forget_queries(&mut self) {
        for (_, query) in core::mem::take(&mut self.queries.by_number) {
            if let Some(waker) = query.waker {
                waker.wake();
            }
        }
    }

    /// A query that is under way.
    fn query(&mut self, query: &NameQuery) -> Option<(&mut dns::Socket<'static>, &mut Query)> {
        let entry = self.net.table.get(self.dns?)?;
        Some((entry.get::<dns::Socket>(), self.queries.by_number.get_mut(&query.0)?))
    }

    /// Passes the present name server to the DNS client.
    pub(super) fn apply_name_server(&mut self) {
        let server = self.address.and_then(|address| address.dns);
        if let Some(entry) = self.dns.and_then(|handle| self.net.table.get(handle)) {
            let servers = server.map(IpAddress::Ipv4);
            entry.get::<dns::Socket>().update_servers(servers.as_slice());
        }
    }
}
