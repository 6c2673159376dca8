//! TCP connections.

use super::listen::Admission;
use super::table::sooner;
use super::{Handle, Kind, Stack};
use crate::error::Error;
use crate::frame::Segment;
use crate::platform::{Platform, Xenstore};
use core::net::{Ipv4Addr, SocketAddrV4};
use core::task::Waker;
use smoltcp::socket::tcp::{RecvError, Socket, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{IpAddress, IpEndpoint};

/// Time that an acknowledgement waits for data to go with it.
const ACK_DELAY: Duration = Duration::from_millis(10);
/// Number of octets, a small segment's, above which an acknowledgement does not wait.
const DELAYED_MAX: usize = 536;
/// A connection attempt, in either direction, ends after this time without an answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// A connection ends when data stays unacknowledged, and the peer silent, for this time
/// (RFC 9293, section 3.9.1: the user timeout, five minutes).
const SEND_TIMEOUT: Duration = Duration::from_secs(300);
/// A connection that the application has closed ends when the peer is silent for this time.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(60);

/// Idle time after which an accepted connection is probed unless the application chooses (RFC 9293,
/// section 3.8.4: no less than two hours).
pub const KEEP_ALIVE_IDLE: Duration = Duration::from_secs(2 * 60 * 60);
/// The shortest idle time.
pub(super) const KEEP_ALIVE_IDLE_MIN: Duration = Duration::from_secs(1);
/// Time between two probes of an idle connection, at most, and the probes without an answer after
/// which the connection ends (Linux's `tcp_keepalive_intvl` and `tcp_keepalive_probes`).
const PROBE_PAUSE_MAX: Duration = Duration::from_secs(75);
const PROBES: u32 = 9;

/// A connection; it lives until [`Stack::tcp_close`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpSocket(pub(super) Handle);

/// A connection's local port, peer's port and peer's address in one number.
pub(super) type Flow = u64;

pub(super) fn flow(port: u16, peer: Ipv4Addr, peer_port: u16) -> Flow {
    u64::from(port) << 48 | u64::from(peer_port) << 32 | u64::from(peer.to_bits())
}

/// The stack's data about a TCP socket, beside the socket.
#[derive(Debug)]
pub(super) struct Tcp {
    pub(super) flow: Flow,
    pub(super) owner: Owner,
    /// The reason for which the connection ended, unless both sides closed it.
    error: Option<Error>,
    /// The application has shut down the receive direction.
    deaf: bool,
    /// Octets received since the socket could last acknowledge any.
    unacknowledged: usize,
    keep_alive: KeepAlive,
}

/// The watch over an idle connection. smoltcp sends the probes, once there is a reason for one: it
/// would send the first at once.
#[derive(Clone, Copy, Debug, Default)]
struct KeepAlive {
    /// Time without a packet of the peer after which it is probed.
    idle: Option<Duration>,
    /// Time of the peer's last packet.
    heard: Option<Instant>,
    probing: bool,
}

impl KeepAlive {
    /// Time of the first probe, if there is none under way.
    fn due(&self) -> Option<Instant> {
        if self.probing { None } else { Some(self.heard? + self.idle?) }
    }

    fn pause(idle: Duration) -> Duration {
        idle.min(PROBE_PAUSE_MAX)
    }

    /// Time since the peer's last packet after which the connection ends.
    fn limit(&self) -> Option<Duration> {
        let idle = self.idle.filter(|_| self.probing)?;
        Some(idle + Self::pause(idle) * PROBES)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// On its way to being accepted from this port's listener: not established yet.
    HalfOpen(u16),
    /// The application's, or in a listener's queue.
    Application,
    /// Without an owner: it is closing.
    Nobody,
}

impl<P: Platform + Xenstore> Stack<P> {
    /// Begins to connect to `peer`. [`Stack::tcp_connected`] returns the outcome.
    ///
    /// # Errors
    /// `AddrNotAvailable`: the address or port is invalid, or all local ports are used.
    /// `NetworkUnreachable`: the interface has no address, or no route. `HostUnreachable`: the
    /// neighbour on the way did not answer lately. `OutOfMemory`: there are too many connections.
    pub fn tcp_connect(&mut self, peer: SocketAddrV4) -> Result<TcpSocket, Error> {
        let (address, peer_port) = (*peer.ip(), peer.port());
        if peer_port == 0 || !is_unicast(address) {
            return Err(Error::AddrNotAvailable);
        }
        self.net.ethernet.has_route(address)?;
        // With its own port, a connection of the guest to itself would have one end.
        let single = self.net.ethernet.is_own(address).then_some(peer_port);
        let (flows, listeners) = (&self.flows, &self.listeners);
        let taken = |port| {
            let flow = flow(port, address, peer_port);
            Some(port) == single || listeners.contains_key(&port) || flows.contains_key(&flow)
        };
        let port = self.random.port(taken)?;
        let mut socket = self.take_socket().ok_or(Error::OutOfMemory)?;
        let Some(interface) = &mut self.net.interface else {
            self.buffers.give(socket);
            return Err(Error::NetworkUnreachable);
        };
        let context = interface.context();
        if socket.connect(context, (IpAddress::Ipv4(address), peer_port), port).is_err() {
            self.buffers.give(socket);
            return Err(Error::NetworkUnreachable);
        }
        let flow = flow(port, address, peer_port);
        let handle = self.add_tcp(socket, flow, Owner::Application);
        self.flows.insert(flow, handle);
        self.net.table.queue(handle);
        Ok(TcpSocket(handle))
    }

    /// Checks that the connection is established. The send direction's waker is woken by a change.
    ///
    /// # Errors
    /// `WouldBlock`: not yet. `ConnectionRefused`, `HostUnreachable`, `TimedOut`: it failed.
    pub fn tcp_connected(&mut self, socket: TcpSocket) -> Result<(), Error> {
        let (tcp, socket) = self.tcp(socket)?;
        match (socket.state(), tcp.error) {
            (State::SynSent | State::SynReceived, _) => Err(Error::WouldBlock),
            (State::Closed, Some(error)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Queues as much of `data` as there is room for, and returns the number of octets.
    ///
    /// # Errors
    /// `WouldBlock`: no room now. `BrokenPipe`: this direction was shut down. `NotConnected`, or
    /// the reason for which the connection ended.
    pub fn tcp_send(&mut self, socket: TcpSocket, data: &[u8]) -> Result<usize, Error> {
        let handle = socket.0;
        let (tcp, socket) = self.tcp(socket)?;
        let sent = match (socket.send_slice(data), socket.state()) {
            (Ok(0), _) if !data.is_empty() => return Err(Error::WouldBlock),
            (Ok(sent), _) => sent,
            (Err(_), State::SynSent | State::SynReceived) => return Err(Error::WouldBlock),
            (Err(_), _) => return Err(tcp.error.unwrap_or(Error::BrokenPipe)),
        };
        self.net.table.queue(handle);
        Ok(sent)
    }

    /// Takes received data into `buffer`. Returns 0 when the peer has shut down its direction and
    /// all data has been taken (or when `buffer` is empty).
    ///
    /// # Errors
    /// `WouldBlock`: there is no data. `NotConnected`, or the reason for which the connection
    /// ended.
    pub fn tcp_receive(&mut self, socket: TcpSocket, buffer: &mut [u8]) -> Result<usize, Error> {
        let handle = socket.0;
        let (tcp, socket) = self.tcp(socket)?;
        if tcp.deaf {
            return Ok(0);
        }
        let crowded = socket.recv_queue() > socket.recv_capacity() / 2;
        let taken = match (socket.recv_slice(buffer), socket.state()) {
            (Ok(0), _) if !buffer.is_empty() => return Err(Error::WouldBlock),
            (Ok(taken), _) => taken,
            (Err(RecvError::Finished), _) => return Ok(0),
            (Err(_), State::SynSent | State::SynReceived) => return Err(Error::WouldBlock),
            (Err(_), _) => return Err(tcp.error.unwrap_or(Error::NotConnected)),
        };
        if crowded {
            // The peer may be waiting for the new window.
            self.net.table.queue(handle);
        }
        Ok(taken)
    }

    /// As [`Stack::tcp_receive`], but leaves the data in the socket.
    ///
    /// # Errors
    /// As [`Stack::tcp_receive`].
    pub fn tcp_peek(&mut self, socket: TcpSocket, buffer: &mut [u8]) -> Result<usize, Error> {
        let (tcp, socket) = self.tcp(socket)?;
        if tcp.deaf {
            return Ok(0);
        }
        match (socket.peek(buffer.len()).map(<[u8]>::len), socket.state()) {
            (Ok(0), _) if !buffer.is_empty() => Err(Error::WouldBlock),
            (Ok(_), _) => Ok(socket.peek_slice(buffer).unwrap_or(0)),
            (Err(RecvError::Finished), _) => Ok(0),
            (Err(_), State::SynSent | State::SynReceived) => Err(Error::WouldBlock),
            (Err(_), _) => Err(tcp.error.unwrap_or(Error::NotConnected)),
        }
    }

    /// Checks that there is room for [`Stack::tcp_send`].
    ///
    /// # Errors
    /// As [`Stack::tcp_send`].
    pub fn tcp_can_send(&mut self, socket: TcpSocket) -> Result<(), Error> {
        let (tcp, socket) = self.tcp(socket)?;
        match socket.state() {
            _ if socket.can_send() => Ok(()),
            State::SynSent | State::SynReceived => Err(Error::WouldBlock),
            _ if socket.may_send() => Err(Error::WouldBlock),
            _ => Err(tcp.error.unwrap_or(Error::BrokenPipe)),
        }
    }

    /// Wakes `waker` when a receive call may succeed.
    ///
    /// # Errors
    /// `NotConnected`: no such socket.
    pub fn tcp_wake_on_receive(&mut self, socket: TcpSocket, waker: &Waker) -> Result<(), Error> {
        self.tcp(socket)?.1.register_recv_waker(waker);
        Ok(())
    }

    /// Wakes `waker` when a send call may succeed, or a connection attempt ends.
    ///
    /// # Errors
    /// `NotConnected`: no such socket.
    pub fn tcp_wake_on_send(&mut self, socket: TcpSocket, waker: &Waker) -> Result<(), Error> {
        self.tcp(socket)?.1.register_send_waker(waker);
        Ok(())
    }

    /// Shuts down the send direction. Queued data is still sent.
    ///
    /// # Errors
    /// `NotConnected`: there is no connection.
    pub fn tcp_shutdown_send(&mut self, socket: TcpSocket) -> Result<(), Error> {
        let handle = socket.0;
        let (tcp, socket) = self.tcp(socket)?;
        if matches!(socket.state(), State::Closed | State::SynSent) {
            return Err(tcp.error.unwrap_or(Error::NotConnected));
        }
        socket.close();
        self.net.table.queue(handle);
        Ok(())
    }

    /// Shuts down the receive direction. From now on the peer seems to have shut down its own.
    ///
    /// # Errors
    /// `NotConnected`: no such socket.
    pub fn tcp_shutdown_receive(&mut self, socket: TcpSocket) -> Result<(), Error> {
        self.tcp(socket)?.0.deaf = true;
        Ok(())
    }

    /// Sends small pieces at once instead of gathering them while others are unacknowledged.
    ///
    /// # Errors
    /// `NotConnected`: no such socket.
    pub fn tcp_set_nodelay(&mut self, socket: TcpSocket, on: bool) -> Result<(), Error> {
        self.tcp(socket)?.1.set_nagle_enabled(!on);
        Ok(())
    }

    /// True if [`Stack::tcp_set_nodelay`] is on.
    ///
    /// # Errors
    /// `NotConnected`: no such socket.
    pub fn tcp_nodelay(&mut self, socket: TcpSocket) -> Result<bool, Error> {
        Ok(!self.tcp(socket)?.1.nagle_enabled())
    }

    /// Probes the peer when it has been silent for `idle` (at least a second), and ends the connection
    /// with `TimedOut` if it does not answer nine probes, which come every 75 seconds, or every `idle`
    /// if that is less (RFC 9293, section 3.8.4). `None`: an idle connection lasts for ever.
    ///
    /// # Errors
    /// `NotConnected`: no such socket.
    pub fn tcp_set_keep_alive(&mut self, socket: TcpSocket, idle: Option<Duration>) -> Result<(), Error> {
        let handle = socket.0;
        let (tcp, socket) = self.tcp(socket)?;
        socket.set_keep_alive(None);
        let idle = idle.map(|idle| idle.max(KEEP_ALIVE_IDLE_MIN));
        tcp.keep_alive = KeepAlive { idle, probing: false, ..tcp.keep_alive };
        self.net.table.queue(handle);
        Ok(())
    }

    /// The idle time of [`Stack::tcp_set_keep_alive`]. It is [`KEEP_ALIVE_IDLE`] for an accepted
    /// connection unless [`Stack::tcp_listen_keep_alive`] says otherwise, and `None` for one that was
    /// made from here.
    ///
    /// # Errors
    /// `NotConnected`: no such socket.
    pub fn tcp_keep_alive(&mut self, socket: TcpSocket) -> Result<Option<Duration>, Error> {
        Ok(self.tcp(socket)?.0.keep_alive.idle)
    }

    /// Address and port of this side.
    ///
    /// # Errors
    /// `NotConnected`: there is no connection.
    pub fn tcp_local(&mut self, socket: TcpSocket) -> Result<SocketAddrV4, Error> {
        let (_, socket) = self.tcp(socket)?;
        socket.local_endpoint().and_then(v4).ok_or(Error::NotConnected)
    }

    /// Address and port of the peer.
    ///
    /// # Errors
    /// `NotConnected`: no such socket.
    pub fn tcp_peer(&mut self, socket: TcpSocket) -> Result<SocketAddrV4, Error> {
        Ok(peer_of(self.tcp(socket)?.0.flow))
    }

    /// Closes the socket. Queued data is still sent and acknowledged. If received data was never
    /// taken, a reset tells the peer so (RFC 2525, section 2.17).
    pub fn tcp_close(&mut self, socket: TcpSocket) {
        let Ok((_, inner)) = self.tcp(socket) else {
            return;
        };
        let unread = inner.recv_queue() > 0;
        self.abandon(socket.0, unread);
    }

    /// Hands a received segment to its connection, or to a new one.
    pub(super) fn tcp_arrived(&mut self, source: Ipv4Addr, segment: Segment, now: Instant) {
        let key = flow(segment.port, source, segment.source_port);
        let mut found = self.flows.get(&key).copied();
        if segment.opens
            && let Some(handle) = found
            && self.tcp_state(handle) == Some(State::TimeWait)
        {
            // The peer begins anew with the same ports (RFC 9293, section 3.6.1).
            self.flows.remove(&key);
            if self.owner(handle) == Some(Owner::Nobody) {
                self.forget(handle);
            }
            found = None;
        }
        let handle = match found {
            Some(handle) => handle,
            None if segment.opens => match self.admit(segment.port, key) {
                Admission::Socket(handle) => handle,
                Admission::Full => return,
                Admission::NotListening => return self.net.deliver(None, now),
            },
            None => return self.net.deliver(None, now),
        };
        let mtu = self.net.device.mtu();
        let Some((tcp, socket)) = self.tcp_any(handle) else {
            return;
        };
        tcp.keep_alive.heard = Some(now);
        if core::mem::take(&mut tcp.keep_alive.probing) {
            socket.set_keep_alive(None);
        }
        let before = socket.state();
        // More than a segment at once calls for an acknowledgement at once (RFC 9293, SHLD-19).
        let bulk = segment.len > mtu;
        socket.set_ack_delay(Some(if bulk { Duration::ZERO } else { ACK_DELAY }));
        self.net.deliver(Some(handle), now);
        match self.acknowledges_later(handle, before, segment.len) {
            true => self.net.look_again(handle, now + ACK_DELAY),
            false => self.net.table.queue(handle),
        }
        self.tcp_settle(handle, before, true);
    }

    /// Begins to probe the peer of a connection that has been idle for long.
    pub(super) fn tcp_probe(&mut self, handle: Handle, now: Instant) {
        let Some((tcp, socket)) = self.tcp_any(handle) else {
            return;
        };
        let keep = &mut tcp.keep_alive;
        if let Some(idle) = keep.idle
            && keep.due().is_some_and(|due| due <= now)
            && is_open(socket.state())
        {
            keep.probing = true;
            socket.set_keep_alive(Some(KeepAlive::pause(idle)));
            socket.set_timeout(keep.limit());
        }
    }

    /// True if a socket that has taken in a segment of `len` octets in state `before` has nothing
    /// to send but an acknowledgement that may wait. This saves most requests a turn, because the
    /// answer comes first.
    fn acknowledges_later(&mut self, handle: Handle, before: State, len: usize) -> bool {
        let Some((tcp, socket)) = self.tcp_any(handle) else {
            return false;
        };
        tcp.unacknowledged += len;
        (before, socket.state()) == (State::Established, State::Established)
            && socket.send_queue() == 0
            && tcp.unacknowledged < DELAYED_MAX
    }

    /// Acts on the change of a socket's state since `before`.
    pub(super) fn tcp_settle(&mut self, handle: Handle, before: State, by_packet: bool) {
        let Some(entry) = self.net.table.get(handle) else {
            return;
        };
        let socket = entry.set.get_mut::<Socket>(entry.socket);
        let Kind::Tcp(tcp) = &mut entry.kind else {
            return;
        };
        if !by_packet {
            tcp.unacknowledged = 0;
        }
        let state = socket.state();
        if state == State::Closed && before != State::Closed && tcp.error.is_none() {
            tcp.error = ended(before, by_packet, self.address.is_some());
        }
        socket.set_timeout(match (tcp.owner, state) {
            (_, State::SynSent | State::SynReceived) => Some(CONNECT_TIMEOUT),
            (Owner::Nobody, _) => Some(CLOSE_TIMEOUT),
            (_, _) if socket.send_queue() > 0 => Some(SEND_TIMEOUT),
            (_, _) => tcp.keep_alive.limit(),
        });
        if !by_packet
            && is_open(state)
            && let Some(due) = tcp.keep_alive.due()
        {
            // The deadline of the socket's turn, which has just been set, is smoltcp's.
            entry.deadline = sooner(entry.deadline, Some(due));
            self.net.next_deadline = sooner(self.net.next_deadline, Some(due));
        }
        match tcp.owner {
            Owner::Application => {}
            Owner::HalfOpen(port) => match state {
                State::SynReceived => {}
                State::Listen | State::Closed => {
                    self.leave_half_open(handle);
                    self.forget(handle);
                }
                _ => {
                    tcp.owner = Owner::Application;
                    tcp.keep_alive.idle = self.listeners.get(&port).and_then(|listener| listener.keep_alive);
                    self.established(port, handle);
                }
            },
            Owner::Nobody => match state {
                // The socket was closed before its turn: the reset is sent, or could not be.
                State::Closed if before == State::Closed || socket.local_endpoint().is_none() => {
                    self.forget(handle);
                }
                State::Closed => {}
                _ if socket.recv_queue() > 0 => {
                    // Data for a socket without an owner: the peer must be told (RFC 1122, section
                    // 4.2.2.13).
                    socket.abort();
                    self.net.table.queue(handle);
                }
                State::TimeWait if before != State::TimeWait => self.limit_time_wait(handle),
                _ => {}
            },
        }
    }

    /// Ends a connection attempt, in either direction, to a peer that cannot be reached.
    pub(super) fn tcp_unreachable(&mut self, handle: Handle) {
        let Some((tcp, socket)) = self.tcp_any(handle) else {
            return;
        };
        match (socket.state(), tcp.owner) {
            (State::SynSent, _) => {
                tcp.error = Some(Error::HostUnreachable);
                socket.abort();
                self.net.table.queue(handle);
            }
            (_, Owner::HalfOpen(_)) => {
                self.leave_half_open(handle);
                self.forget(handle);
            }
            _ => {}
        }
    }

    /// The state of a TCP socket; `None` for any other.
    pub(super) fn tcp_state(&mut self, handle: Handle) -> Option<State> {
        Some(self.tcp_any(handle)?.1.state())
    }

    /// Takes a socket from its owner. It closes, by a reset if `reset`, and then disappears.
    pub(super) fn abandon(&mut self, handle: Handle, reset: bool) {
        let Some((tcp, socket)) = self.tcp_any(handle) else {
            return;
        };
        tcp.owner = Owner::Nobody;
        let before = socket.state();
        match reset {
            true => socket.abort(),
            false => socket.close(),
        }
        if before == State::TimeWait {
            self.limit_time_wait(handle);
        }
        // A socket with no more to send disappears at its next turn.
        self.net.table.queue(handle);
    }

    /// Keeps the number of connections in TIME-WAIT within its limit, at the cost of the oldest.
    fn limit_time_wait(&mut self, handle: Handle) {
        self.time_wait.push_back(handle);
        if self.time_wait.len() > self.settings.time_wait
            && let Some(oldest) = self.time_wait.pop_front()
        {
            self.forget(oldest);
        }
    }

    /// Removes a socket without a packet to the peer.
    pub(super) fn forget(&mut self, handle: Handle) {
        let Some(mut entry) = self.net.table.remove(handle) else {
            return;
        };
        if let Kind::Tcp(tcp) = entry.kind
            && self.flows.get(&tcp.flow) == Some(&handle)
        {
            self.flows.remove(&tcp.flow);
        }
        if let smoltcp::socket::Socket::Tcp(socket) = entry.set.remove(entry.socket) {
            self.buffers.give(socket);
        }
    }

    fn owner(&mut self, handle: Handle) -> Option<Owner> {
        Some(self.tcp_any(handle)?.0.owner)
    }

    /// The application's socket.
    fn tcp(&mut self, socket: TcpSocket) -> Result<(&mut Tcp, &mut Socket<'static>), Error> {
        let found = self.tcp_any(socket.0);
        found.filter(|(tcp, _)| tcp.owner != Owner::Nobody).ok_or(Error::NotConnected)
    }

    /// Any TCP socket.
    fn tcp_any(&mut self, handle: Handle) -> Option<(&mut Tcp, &mut Socket<'static>)> {
        let entry = self.net.table.get(handle)?;
        match &mut entry.kind {
            Kind::Tcp(tcp) => Some((tcp, entry.set.get_mut(entry.socket))),
            _ => None,
        }
    }

    pub(super) fn add_tcp(&mut self, socket: Socket<'static>, flow: Flow, owner: Owner) -> Handle {
        let keep_alive = KeepAlive::default();
        let kind = Kind::Tcp(Tcp { flow, owner, error: None, deaf: false, unacknowledged: 0, keep_alive });
        self.net.table.add(socket, kind)
    }
}

/// The reason for which a connection that was in state `before` is closed now.
fn ended(before: State, by_packet: bool, has_address: bool) -> Option<Error> {
    match (before, by_packet) {
        (State::SynSent, true) => Some(Error::ConnectionRefused),
        // The peer has acknowledged our FIN after its own.
        (State::LastAck, true) | (State::TimeWait, false) => None,
        (_, true) => Some(Error::ConnectionReset),
        (_, false) if !has_address => Some(Error::ConnectionAborted),
        (_, false) => Some(Error::TimedOut),
    }
}

/// True in the states in which a connection may be idle.
fn is_open(state: State) -> bool {
    matches!(state, State::Established | State::CloseWait | State::FinWait2)
}

pub(super) fn peer_of(flow: Flow) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from_bits(flow as u32), (flow >> 32) as u16)
}

fn v4(endpoint: IpEndpoint) -> Option<SocketAddrV4> {
    match endpoint.addr {
        IpAddress::Ipv4(address) => Some(SocketAddrV4::new(address, endpoint.port)),
        IpAddress::Ipv6(_) => None,
    }
}

fn is_unicast(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_multicast() || address.is_broadcast())
}
