//! The TCP/IP stack of a guest: sockets over one network device.
//!
//! [`Stack`] has no thread, no clock and no lock. Its owner calls [`Stack::poll`] when the device's
//! event channel fires, at the time that the last call returned, and after socket calls (where
//! [`Stack::transmit`] is cheaper); and [`Stack::xenstore_changed`] when a watch fires. A call that
//! would have to wait returns [`Error::WouldBlock`]; a waker registered for the socket tells when
//! to try again. There is one waker for each direction of a socket: the last one registered.

mod address;
mod buffers;
mod child;
mod dns;
mod ethernet;
mod listen;
mod neighbours;
mod paths;
mod port;
mod table;
mod tcp;
mod udp;

use crate::config::NetConfig;
use crate::device::{Connection, Counters, Device, Fault, Pages};
use crate::dhcp;
use crate::error::Error;
use crate::frame::{Frame, Ip, Payload};
use crate::netfront::{Frontend, FrontendError, Obstacle, Step};
use crate::platform::{Platform, Xenstore};
use alloc::collections::BTreeMap;
use alloc::vec;
use buffers::Buffers;
use child::Origin;
use core::fmt;
use core::net::Ipv4Addr;
use ethernet::Ethernet;
use port::Port;
use smoltcp::iface::{Config, Interface, PollResult, SocketSet};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, HardwareAddress};
use table::{Entry, Handle, Table, sooner};

pub use address::Address;
pub use child::CONFIG_NODE;
pub use dns::NameQuery;
pub use listen::Listener;
pub use tcp::{KEEP_ALIVE_IDLE, TcpSocket};
pub use udp::UdpSocket;

/// Number of packets taken in before the call returns.
const INGRESS_BUDGET: usize = 256;

/// Pause before the next turn of a socket that wants to send but did not.
const STALL_PAUSE: Duration = Duration::from_millis(1);

/// Sizes and choices of a stack.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Number of the device: `device/vif/N`.
    pub device: u32,
    /// Bytes that the buffers of all TCP connections may take together.
    pub tcp_memory: usize,
    /// Bytes of each of the two buffers of a UDP socket.
    pub udp_buffer: usize,
    /// Pages that are granted to the backend.
    pub pages: Pages,
    /// Accept packets of several pages and leave TCP segmentation to the backend.
    pub offload: bool,
    /// Closed connections kept in TIME-WAIT at most, each with its buffers.
    pub time_wait: usize,
    /// Half-open connections of all listeners at most, each with its buffers.
    pub half_open: usize,
    /// Neighbours whose Ethernet addresses are known or asked for, at most.
    pub neighbours: usize,
    /// Randomness for port numbers and initial sequence numbers; different in every guest.
    pub seed: u64,
}

impl Settings {
    /// The settings for a guest of `memory` bytes.
    pub fn for_memory(memory: usize, seed: u64) -> Self {
        const MIB: usize = 1 << 20;
        let (pages, time_wait, half_open, neighbours) = match memory / MIB {
            0..16 => (32, 8, 256, 256),
            16..64 => (64, 16, 512, 512),
            64..256 => (128, 32, 512, 1024),
            _ => (256, 64, 1024, 1024),
        };
        Self {
            device: 0,
            tcp_memory: memory / 4,
            udp_buffer: 64 << 10,
            pages: Pages::new(pages, pages),
            offload: true,
            time_wait,
            half_open,
            neighbours,
            seed,
        }
    }
}

/// The reason for which the network is not usable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotReady {
    /// The configuration says `net=off`.
    Off,
    /// The parent's address was fixed, and dom0 has given this child none of its own (blame: dom0).
    NoAddress,
    /// There is no connection to a backend (blame: configuration or dom0).
    Device(Obstacle),
    /// The device works, but no DHCP server has answered.
    NoLease,
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("the configuration says net=off"),
            Self::NoAddress => {
                write!(
                    f,
                    "the address in the configuration is the parent's, and dom0 gave this child none ({CONFIG_NODE})"
                )
            }
            Self::Device(obstacle) => obstacle.fmt(f),
            Self::NoLease => f.write_str("no DHCP server has answered; start one on the bridge or use net=10.0.0.2/24"),
        }
    }
}

impl core::error::Error for NotReady {}

/// The state of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The interface's Ethernet address, while a backend is connected.
    pub mac: Option<EthernetAddress>,
    /// Large packets are used.
    pub offload: bool,
    /// The address, once there is one.
    pub address: Option<Address>,
    /// Sockets that exist, those that are closing included.
    pub sockets: usize,
    /// Packets counted.
    pub counters: Counters,
}

/// The kind of a socket.
#[derive(Debug)]
enum Kind {
    Tcp(tcp::Tcp),
    Udp(udp::Udp),
}

/// A network interface with its sockets.
#[derive(Debug)]
pub struct Stack<P: Platform + Xenstore> {
    platform: P,
    origin: Origin,
    frontend: Frontend,
    net: Net<P::Link>,
    settings: Settings,
    random: Random,
    buffers: Buffers,
    /// Connections by local port, peer's address and peer's port.
    flows: BTreeMap<tcp::Flow, Handle>,
    listeners: BTreeMap<u16, listen::ListenState>,
    /// Number of listeners made so far. It tells a listener from an earlier one on the same port.
    listeners_made: u32,
    /// Connections on their way to being established with a listener, oldest first.
    half_open: alloc::collections::VecDeque<Handle>,
    time_wait: alloc::collections::VecDeque<Handle>,
    udp_ports: BTreeMap<u16, Handle>,
    queries: dns::Queries,
    /// The DHCP client, once an address is to be leased.
    dhcp: Option<dhcp::Client>,
    address: Option<Address>,
}

/// The part that moves packets between device and sockets.
struct Net<L: crate::platform::Link> {
    device: Device<L>,
    ethernet: Ethernet,
    /// Made with each connection to a backend.
    interface: Option<Interface>,
    /// The Ethernet address of the last connection to a backend.
    mac: Option<EthernetAddress>,
    table: Table<Kind>,
    /// An empty set for packets without a socket, which the interface answers itself.
    nobody: SocketSet<'static>,
    /// A time that is not after the deadline of any socket.
    next_deadline: Option<Instant>,
}

impl<L: crate::platform::Link> fmt::Debug for Net<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net").finish_non_exhaustive()
    }
}

impl<P: Platform + Xenstore> Stack<P> {
    /// A stack whose device is still to be connected. It watches xenstore and takes the first
    /// steps.
    ///
    /// # Errors
    /// As [`Stack::xenstore_changed`].
    pub fn new(platform: P, config: NetConfig, settings: Settings, now: Instant) -> Result<Self, FrontendError> {
        let mut this = Self::with_origin(platform, Origin::Own(config), settings);
        this.configure(config, now);
        this.start(now)?;
        Ok(this)
    }

    /// As [`Stack::new`], in the child of a fork whose parent had the configuration `parents` and
    /// used no network.
    ///
    /// # Errors
    /// As [`Stack::xenstore_changed`].
    pub fn for_child(platform: P, parents: NetConfig, settings: Settings, now: Instant) -> Result<Self, FrontendError> {
        let mut this = Self::with_origin(platform, Origin::parents(parents), settings);
        this.start(now)?;
        Ok(this)
    }

    fn with_origin(platform: P, origin: Origin, settings: Settings) -> Self {
        Self {
            platform,
            origin,
            frontend: Frontend::new(settings.device, settings.pages, settings.offload),
            net: Net {
                device: Device::new(),
                ethernet: Ethernet::new(settings.neighbours),
                interface: None,
                mac: None,
                table: Table::new(),
                nobody: SocketSet::new(vec![]),
                next_deadline: None,
            },
            settings,
            random: Random::new(settings.seed),
            buffers: Buffers::new(settings.tcp_memory),
            flows: BTreeMap::new(),
            listeners: BTreeMap::new(),
            listeners_made: 0,
            half_open: Default::default(),
            time_wait: Default::default(),
            udp_ports: BTreeMap::new(),
            queries: dns::Queries::default(),
            dhcp: None,
            address: None,
        }
    }

    fn start(&mut self, now: Instant) -> Result<(), FrontendError> {
        self.frontend.start(&mut self.platform)?;
        self.xenstore_changed(now)
    }

    /// Handles a change in xenstore: connects to the backend, or gives it up. The caller then calls
    /// [`Stack::poll`], whatever the outcome.
    ///
    /// # Errors
    /// Xenstore or the kernel refused a request, or a node has an invalid value. The device stays
    /// unconnected; the next change is a new attempt.
    pub fn xenstore_changed(&mut self, now: Instant) -> Result<(), FrontendError> {
        if !self.settle_configuration(now)? {
            return Ok(());
        }
        loop {
            match self.frontend.step(&mut self.platform)? {
                Step::Nothing => return Ok(()),
                Step::Ready => {
                    self.ask_for_lease(now);
                    self.net.ethernet.announce();
                    self.net.device.kick();
                }
                Step::Linked(connection) => self.link(connection, now),
                Step::Lost => {
                    log::warn!("net: the backend is gone");
                    self.net.detach();
                }
            }
        }
    }

    /// Checks that the network is usable: connected, and with an address.
    ///
    /// # Errors
    /// The reason for which it is not. The caller decides how long to wait.
    pub fn ready(&self) -> Result<(), NotReady> {
        if let Some(obstacle) = self.origin.obstacle() {
            return Err(obstacle);
        }
        match (self.frontend.obstacle(), self.address) {
            (Some(obstacle), _) => Err(NotReady::Device(obstacle.clone())),
            (None, None) => Err(NotReady::NoLease),
            (None, Some(_)) => Ok(()),
        }
    }

    /// The present state of the interface.
    pub fn status(&self) -> Status {
        let features = self.net.device.features();
        Status {
            mac: features.map(|f| f.mac),
            offload: features.is_some_and(|f| f.gso),
            address: self.address,
            sockets: self.net.table.len(),
            counters: self.net.device.counters(),
        }
    }

    /// The platform, as it was given to [`Stack::new`].
    pub fn platform(&mut self) -> &mut P {
        &mut self.platform
    }

    /// Takes in received packets, sends queued ones, and wakes the waiting tasks. Returns the time
    /// of the next call if nothing happens before; `None`: never.
    pub fn poll(&mut self, now: Instant) -> Option<Instant> {
        let result = self.ingress(now);
        self.finish(result, now)
    }

    /// The sending half of [`Stack::poll`], for use after socket calls. Returns the same.
    pub fn transmit(&mut self, now: Instant) -> Option<Instant> {
        self.finish(Ok(false), now)
    }

    /// True if a call since the last [`Stack::transmit`] has left packets to send. Otherwise that
    /// would change nothing.
    pub fn has_queued(&self) -> bool {
        self.net.has_queued() || self.queries.has_new()
    }

    fn finish(&mut self, ingress: Result<bool, Fault>, now: Instant) -> Option<Instant> {
        self.serve_lease(now);
        self.serve_queries(now);
        let result = ingress.and_then(|more| self.egress(now).map(|()| more));
        match result {
            Ok(true) => Some(now),
            Ok(false) => self.deadline(now),
            Err(fault) => {
                log::error!("net: the backend broke the protocol: {fault}");
                let _ = self.frontend.close(&mut self.platform);
                self.net.detach();
                if let Err(error) = self.xenstore_changed(now) {
                    log::error!("{error}");
                }
                self.deadline(now)
            }
        }
    }

    /// The time of the next call if nothing happens before.
    fn deadline(&mut self, now: Instant) -> Option<Instant> {
        [self.lease_deadline(), self.queries.deadline()].into_iter().fold(self.net.next_turn(now), sooner)
    }

    /// Takes a new connection to a backend: the interface is made anew, the sockets stay.
    fn link(&mut self, connection: Connection<P::Link>, now: Instant) {
        self.net.device.attach(Some(connection));
        let Some(features) = self.net.device.features() else {
            return;
        };
        let moved = self.net.mac.is_some_and(|old| old != features.mac);
        self.net.mac = Some(features.mac);
        self.net.ethernet.attach(Some(features.mac));
        if moved {
            // A lease belongs to the Ethernet address.
            self.drop_lease(now);
        }
        self.apply_address(now);
        for handle in self.net.table.select(|_| true) {
            self.net.table.queue(handle);
        }
        log::info!("net: connected, {}, offload {}", features.mac, features.gso);
    }

    /// Takes in packets; returns true when more are waiting than one call may take.
    fn ingress(&mut self, now: Instant) -> Result<bool, Fault> {
        self.net.device.reclaim()?;
        for turn in 0..INGRESS_BUDGET {
            // Every packet may need an answer at once.
            if !self.net.device.can_send() {
                return self.net.device.arm_send();
            }
            // Packets from outside have every second turn at least.
            if turn % 2 == 0
                && let Some(frame) = self.net.ethernet.take_looped()
            {
                if let Some(Frame::Ip(packet)) = self.net.device.inject(&frame) {
                    self.ip_arrived(packet, now);
                }
                continue;
            }
            match self.net.device.fetch()? {
                None if self.net.ethernet.has_looped() => {}
                None => return Ok(false),
                Some(Frame::Ip(packet)) if self.net.ethernet.accepts(&packet, now) => self.ip_arrived(packet, now),
                Some(Frame::Ip(_)) => {}
                Some(Frame::Arp(arp)) => self.net.ethernet.arp_arrived(arp, now),
            }
        }
        Ok(true)
    }

    fn ip_arrived(&mut self, packet: Ip, now: Instant) {
        match packet.payload {
            // A segment to a broadcast address is for no connection (RFC 9293, section 3.9.2.3).
            Payload::Tcp(_) if !self.net.ethernet.is_own(packet.destination) => {}
            Payload::Tcp(segment) => self.tcp_arrived(packet.source, segment, now),
            Payload::Udp { source, destination } => self.udp_arrived(source, destination, now),
            Payload::TooBig(message) => self.too_big_arrived(packet.destination, message, now),
            Payload::Other => self.net.deliver(None, now),
        }
    }

    /// Sends the packets of queued sockets, as far as the device takes them.
    fn egress(&mut self, now: Instant) -> Result<(), Fault> {
        if self.net.next_deadline.is_some_and(|due| due <= now) {
            self.net.next_deadline = self.net.table.queue_due(now);
        }
        for neighbour in self.net.ethernet.tick(now) {
            self.neighbour_lost(neighbour);
        }
        loop {
            self.net.device.reclaim()?;
            while self.net.device.can_send() {
                if let Some(frame) = self.net.ethernet.take_frame() {
                    self.net.send_frame(&frame);
                } else if let Some(handle) = self.net.table.next() {
                    self.serve(handle, now);
                } else {
                    break;
                }
            }
            self.net.device.flush();
            let waiting = self.net.has_queued() || self.net.ethernet.has_looped();
            if !waiting || !self.net.device.arm_send()? {
                return Ok(());
            }
        }
    }

    /// Ends the connection attempts by way of a neighbour that does not answer. Connections that
    /// were established go on trying (RFC 9293, section 3.9.2.2: the error is soft).
    fn neighbour_lost(&mut self, neighbour: Ipv4Addr) {
        log::debug!("net: {neighbour} does not answer ARP requests");
        let ethernet = &self.net.ethernet;
        let attempts = self.net.table.select(|entry| match &entry.kind {
            Kind::Tcp(tcp) => ethernet.next_hop(*tcp::peer_of(tcp.flow).ip()) == Some(neighbour),
            Kind::Udp(_) => false,
        });
        for handle in attempts {
            self.tcp_unreachable(handle);
        }
    }

    /// Lets one socket send, and handles its change of state.
    fn serve(&mut self, handle: Handle, now: Instant) {
        let before = self.tcp_state(handle);
        if before.is_some() {
            self.tcp_probe(handle, now);
        }
        self.net.send(handle, now);
        if let Some(before) = before {
            self.tcp_settle(handle, before, false);
        }
    }
}

impl<L: crate::platform::Link> Net<L> {
    fn make_interface(&mut self, seed: u64, now: Instant) -> Interface {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        Interface::new(config, &mut Port { device: &mut self.device, ethernet: &mut self.ethernet }, now)
    }

    /// Gives the connection to the backend up.
    fn detach(&mut self) {
        self.device.attach(None);
        self.ethernet.attach(None);
    }

    /// True if there are packets to send.
    fn has_queued(&self) -> bool {
        self.table.has_queued() || self.ethernet.has_frame()
    }

    /// The time of the next turn if nothing happens before.
    fn next_turn(&mut self, now: Instant) -> Option<Instant> {
        if self.ethernet.has_looped() && self.device.can_send() {
            return Some(now);
        }
        sooner(self.next_deadline, self.ethernet.deadline())
    }

    /// Sends a frame, while the device has room.
    fn send_frame(&mut self, frame: &[u8]) {
        if let Some(mut slot) = self.device.transmit() {
            slot.bytes(frame.len()).copy_from_slice(frame);
            slot.send(frame.len(), None);
        }
    }

    /// Gives the packet that the device has fetched to a socket, or to the interface alone.
    fn deliver(&mut self, handle: Option<Handle>, now: Instant) {
        let set = match handle.and_then(|handle| self.table.get(handle)) {
            Some(entry) => &mut entry.set,
            None => &mut self.nobody,
        };
        if let Some(interface) = &mut self.interface {
            let mut port = Port { device: &mut self.device, ethernet: &mut self.ethernet };
            interface.poll_ingress_single(now, &mut port, set);
        }
    }

    /// Sets the deadline of the socket to `deadline` at the latest.
    fn look_again(&mut self, handle: Handle, deadline: Instant) {
        if let Some(entry) = self.table.get(handle) {
            entry.deadline = sooner(entry.deadline, Some(deadline));
            self.next_deadline = sooner(self.next_deadline, Some(deadline));
        }
    }

    /// Lets a socket send until it has no more to send now or the device takes no more.
    fn send(&mut self, handle: Handle, now: Instant) {
        let (Some(entry), Some(interface)) = (self.table.get(handle), &mut self.interface) else { return };
        let deadline = loop {
            let mut port = Port { device: &mut self.device, ethernet: &mut self.ethernet };
            let result = interface.poll_egress(now, &mut port, &mut entry.set);
            match interface.poll_at(now, &entry.set) {
                Some(at) if at <= now => {
                    // Fragments go first, so that no more than one packet of this socket waits.
                    if !self.device.can_send() || self.ethernet.has_frame() {
                        return self.table.queue_first(handle);
                    }
                    if result == PollResult::None {
                        break Some(now + STALL_PAUSE);
                    }
                }
                later => break later,
            }
        };
        entry.deadline = deadline;
        self.next_deadline = sooner(self.next_deadline, deadline);
    }

    fn get(&mut self, handle: Handle) -> Result<&mut Entry<Kind>, Error> {
        self.table.get(handle).ok_or(Error::NotConnected)
    }
}

/// Numbers that a peer cannot guess, even from those that it has seen: SipHash-2-4 of a counter, under
/// a key that each life has for itself.
#[derive(Debug)]
struct Random {
    key: u64,
    counter: u64,
}

impl Random {
    fn new(seed: u64) -> Self {
        Self { key: seed, counter: 0 }
    }

    fn next(&mut self) -> u64 {
        self.counter = self.counter.wrapping_add(1);
        sip_hash([self.key, !self.key], self.counter)
    }

    /// A port of the ephemeral range (RFC 6335, section 6) that is not `taken`, starting from a
    /// random one.
    fn port(&mut self, taken: impl Fn(u16) -> bool) -> Result<u16, Error> {
        const FIRST: u16 = 49152;
        let count = u16::MAX - FIRST + 1;
        let start = (self.next() % u64::from(count)) as u16;
        (0..count).map(|step| FIRST + (start + step) % count).find(|&port| !taken(port)).ok_or(Error::AddrNotAvailable)
    }
}

/// SipHash-2-4 of the eight octets of `word` (Aumasson and Bernstein, 2012).
fn sip_hash(key: [u64; 2], word: u64) -> u64 {
    const LENGTH: u64 = 8 << 56;
    let [a, b] = key;
    let mut v =
        [a ^ 0x736f_6d65_7073_6575, b ^ 0x646f_7261_6e64_6f6d, a ^ 0x6c79_6765_6e65_7261, b ^ 0x7465_6462_7974_6573];
    for word in [word, LENGTH] {
        v[3] ^= word;
        v = sip_round(sip_round(v));
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    let last = (0..4).fold(v, |v, _| sip_round(v));
    last.into_iter().fold(0, |sum, part| sum ^ part)
}

fn sip_round([mut a, mut b, mut c, mut d]: [u64; 4]) -> [u64; 4] {
    a = a.wrapping_add(b);
    c = c.wrapping_add(d);
    b = b.rotate_left(13) ^ a;
    d = d.rotate_left(16) ^ c;
    a = a.rotate_left(32);
    c = c.wrapping_add(b);
    a = a.wrapping_add(d);
    b = b.rotate_left(17) ^ c;
    d = d.rotate_left(21) ^ a;
    [a, b, c.rotate_left(32), d]
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;

    #[test]
    fn random_numbers_are_those_of_the_standard_librarys_siphash() {
        use core::hash::Hasher;
        for word in [0, 1, 0x0706_0504_0302_0100, u64::MAX] {
            #[allow(deprecated)]
            let mut hasher = std::hash::SipHasher::new_with_keys(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
            hasher.write(&u64::to_le_bytes(word));
            assert_eq!(sip_hash([0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908], word), hasher.finish());
        }
    }
}
