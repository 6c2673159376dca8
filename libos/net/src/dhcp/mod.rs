//! The thinking half of a DHCP client (RFC 2131). It has no socket and no clock: [`crate::stack`]
//! carries its messages.
//!
//! Options that a later answer does not repeat keep their values, as with other clients: servers
//! may leave out of a renewal whatever did not change.

mod message;

use crate::config::{Route, is_host};
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use message::{Answer, Options, Request, kind, option};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::EthernetAddress;

/// Time between two discoveries while no server has answered.
const DISCOVER_PAUSE: Duration = Duration::from_secs(2);
/// Times that a chosen server has for its answer; then others are asked for.
const REQUEST_PAUSES: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8)];
/// The least time between two requests to renew a lease (RFC 2131, section 4.4.5).
const RENEWAL_PAUSE: Duration = Duration::from_secs(60);
/// The time of a lease whose server gives none.
const DEFAULT_LEASE: u32 = 3600;
/// The shortest lease, in seconds: with a shorter one the client would do nothing else.
const SHORTEST_LEASE: u32 = 10;

/// A DHCP client for one interface.
#[derive(Debug)]
pub struct Client {
    state: State,
    transaction: u32,
    /// The time of the next message, or of the lease's end.
    next: Instant,
    /// The time of the first message.
    began: Instant,
    /// A server that offered an address and then did not give it. Others are preferred once.
    shunned: Option<Ipv4Addr>,
}

#[derive(Debug)]
enum State {
    /// Looks for servers; with an offer of the shunned one.
    Selecting(Option<Answer>),
    /// Has chosen an offer, and asked for it so many times.
    Requesting(Answer, usize),
    /// Has a lease.
    Bound(Lease),
}

/// An address that a server has given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    options: Options,
    server: Ipv4Addr,
    /// The Ethernet address from which the server, or the relay before it, has answered.
    mac: EthernetAddress,
    rebinding: Instant,
    end: Instant,
}

/// A message to be sent.
#[derive(Debug)]
pub struct Outgoing {
    /// Its payload.
    pub octets: Vec<u8>,
    /// The sender's address.
    pub source: Ipv4Addr,
    /// The receiver, unless the message is for all servers.
    pub server: Option<(Ipv4Addr, EthernetAddress)>,
}

/// The effect of an event on the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// There is a lease, new or renewed.
    Leased(Lease),
    /// The lease is over.
    Lost,
}

impl Lease {
    /// Length of the network's prefix; that of the address's class where the server gives none.
    pub fn prefix(&self) -> u8 {
        self.options.prefix().unwrap_or(match self.address.octets()[0] {
            ..128 => 8,
            128..192 => 16,
            192.. => 24,
        })
    }

    /// The routes. Classless ones replace that by the router (RFC 3442, "DHCP Client Behavior").
    pub fn routes(&self) -> Vec<Route> {
        let default = |router| Route { network: Ipv4Addr::UNSPECIFIED, prefix: 0, router: Some(router) };
        self.options.routes().unwrap_or_else(|| self.options.hosts(option::ROUTER).map(default).collect())
    }

    /// The name servers.
    pub fn name_servers(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.options.hosts(option::NAME_SERVERS)
    }

    /// The largest packet on the link, in octets, if the server gives it.
    pub fn mtu(&self) -> Option<u16> {
        self.options.mtu()
    }
}

impl Client {
    /// A client that begins to look for servers at `now`.
    pub fn new(now: Instant) -> Self {
        Self { state: State::Selecting(None), transaction: 0, next: now, began: now, shunned: None }
    }

    /// The time of the next [`Client::poll`].
    pub fn deadline(&self) -> Instant {
        self.next
    }

    /// Does what is due at `now`, from the device with the address `mac`. `random` is a number that
    /// others do not know.
    pub fn poll(&mut self, now: Instant, mac: EthernetAddress, random: u32) -> (Option<Outgoing>, Option<Change>) {
        if now < self.next {
            return (None, None);
        }
        match &mut self.state {
            State::Selecting(spare) => match spare.take() {
                Some(offer) => {
                    self.state = State::Requesting(offer, 0);
                    self.poll(now, mac, random)
                }
                None => {
                    self.transaction = random;
                    self.next = now + DISCOVER_PAUSE;
                    (Some(self.message(kind::DISCOVER, now, mac)), None)
                }
            },
            State::Requesting(offer, tries) => match REQUEST_PAUSES.get(*tries) {
                Some(pause) => {
                    *tries += 1;
                    self.next = now + *pause;
                    (Some(self.message(kind::REQUEST, now, mac)), None)
                }
                None => {
                    self.shunned = Some(offer.server);
                    self.select(now);
                    self.poll(now, mac, random)
                }
            },
            State::Bound(lease) if now >= lease.end => {
                self.select(now);
                let (message, _) = self.poll(now, mac, random);
                (message, Some(Change::Lost))
            }
            State::Bound(lease) => {
                // Half of the time that is left (RFC 2131, section 4.4.5).
                let limit = if now < lease.rebinding { lease.rebinding } else { lease.end };
                self.next = limit.min(now + RENEWAL_PAUSE.max((limit - now) / 2));
                self.transaction = random;
                (Some(self.message(kind::REQUEST, now, mac)), None)
            }
        }
    }

    /// Takes in a datagram from a server's port, which came from `from` to the device with the
    /// address `mac`. Others than the awaited answers are ignored.
    pub fn receive(
        &mut self,
        now: Instant,
        mac: EthernetAddress,
        from: EthernetAddress,
        octets: &[u8],
    ) -> Option<Change> {
        let answer = Answer::read(octets, mac)?;
        if answer.transaction != self.transaction || answer.kind != kind::NAK && !is_host(answer.address) {
            return None;
        }
        match (&mut self.state, answer.kind) {
            (State::Selecting(spare), kind::OFFER) => {
                if self.shunned == Some(answer.server) {
                    *spare = Some(answer);
                } else {
                    self.next = now;
                    self.state = State::Requesting(answer, 0);
                }
                None
            }
            (State::Requesting(offer, 1..), kind::ACK) if answer.server == offer.server => {
                let earlier = (answer.address == offer.address).then(|| offer.options.clone());
                Some(self.bind(now, from, answer, earlier.as_ref()))
            }
            (State::Requesting(offer, 1..), kind::NAK) if answer.server == offer.server => {
                self.shunned = Some(answer.server);
                self.select(now + DISCOVER_PAUSE);
                None
            }
            (State::Bound(lease), kind::ACK | kind::NAK) if answer.server == lease.server || now >= lease.rebinding => {
                if answer.kind == kind::NAK {
                    self.select(now);
                    return Some(Change::Lost);
                }
                let earlier = (answer.address == lease.address).then(|| lease.options.clone());
                Some(self.bind(now, from, answer, earlier.as_ref()))
            }
            _ => None,
        }
    }

    /// Begins to look for servers at `at`.
    fn select(&mut self, at: Instant) {
        self.state = State::Selecting(None);
        // No answer to an earlier message counts.
        self.transaction = self.transaction.wrapping_add(0x8000_0000);
        (self.next, self.began) = (at, at);
    }

    /// Takes the lease of `answer`, which was given at `now`.
    fn bind(&mut self, now: Instant, mac: EthernetAddress, answer: Answer, earlier: Option<&Options>) -> Change {
        let mut options = answer.options;
        if let Some(earlier) = earlier {
            options.keep(earlier);
        }
        let length = options.seconds(option::LEASE_TIME).unwrap_or(DEFAULT_LEASE).max(SHORTEST_LEASE);
        // RFC 2131, section 4.4.5: T1 and T2, in this order.
        let renewal = options.seconds(option::RENEWAL).filter(|time| *time < length && *time > 0);
        let renewal = renewal.unwrap_or(length / 2);
        let rebinding = options.seconds(option::REBINDING).filter(|time| *time < length && *time > renewal);
        let rebinding = rebinding.unwrap_or(renewal + (length - renewal) / 4 * 3);
        let after = |seconds: u32| now + Duration::from_secs(seconds.into());
        self.next = after(renewal);
        self.shunned = None;
        let (address, server) = (answer.address, answer.server);
        let lease = Lease { address, options, server, mac, rebinding: after(rebinding), end: after(length) };
        self.state = State::Bound(lease.clone());
        Change::Leased(lease)
    }

    /// The message of the present state (RFC 2131, section 4.3.6).
    fn message(&self, kind: u8, now: Instant, mac: EthernetAddress) -> Outgoing {
        let (own, chosen, server) = match &self.state {
            State::Selecting(_) => (None, None, None),
            State::Requesting(offer, _) => (None, Some((offer.address, offer.server)), None),
            State::Bound(lease) => {
                let server = (now < lease.rebinding).then_some((lease.server, lease.mac));
                (Some(lease.address), None, server)
            }
        };
        let own = own.unwrap_or(Ipv4Addr::UNSPECIFIED);
        let seconds = (now - self.began).secs().try_into().unwrap_or(u16::MAX);
        let request = Request { kind, transaction: self.transaction, seconds, own, chosen };
        Outgoing { octets: request.octets(mac), source: own, server }
    }
}
