//! TCP listeners.
//!
//! smoltcp has no backlog: a socket in LISTEN takes one connection, and a SYN that finds none is
//! reset. Here a socket is made for each SYN to a listened port when it arrives. The half-open
//! connections of all listeners have a common limit, and the oldest gives way to a new one (RFC
//! 4987, section 3.3): strangers that send SYNs and no more cannot close a port. While a listener
//! has its fill of connections that wait to be accepted, SYNs are dropped, and the peers try again.

use super::tcp::{Flow, KEEP_ALIVE_IDLE, KEEP_ALIVE_IDLE_MIN, Owner, TcpSocket, peer_of};
use super::{Handle, Kind, Stack};
use crate::error::Error;
use crate::platform::{Platform, Xenstore};
use alloc::collections::VecDeque;
use core::net::SocketAddrV4;
use core::task::Waker;
use smoltcp::socket::tcp::Socket;
use smoltcp::time::Duration;

/// A listening port; it lives until [`Stack::tcp_unlisten`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    port: u16,
    serial: u32,
}

/// A listening port's queue.
#[derive(Debug)]
pub(super) struct ListenState {
    serial: u32,
    /// Connections that wait to be accepted, beyond which no attempts are taken.
    backlog: usize,
    established: VecDeque<Handle>,
    waker: Option<Waker>,
    /// The idle time of accepted connections.
    pub(super) keep_alive: Option<Duration>,
}

impl ListenState {
    /// Drops the parent's connections, in the child of a fork.
    pub(super) fn begin_life(&mut self) {
        self.established.clear();
    }
}

/// The treatment of a SYN for a listened port.
pub(super) enum Admission {
    Socket(Handle),
    Full,
    NotListening,
}

impl<P: Platform + Xenstore> Stack<P> {
    /// Listens on `port` (0: on any free one). While `backlog` connections wait to be accepted,
    /// attempts are dropped, and the peers try again.
    ///
    /// # Errors
    /// `AddrInUse`: there is a listener on that port. `AddrNotAvailable`: no port is free.
    pub fn tcp_listen(&mut self, port: u16, backlog: usize) -> Result<Listener, Error> {
        let port = match port {
            0 => {
                let listeners = &self.listeners;
                self.random.port(|port| listeners.contains_key(&port))?
            }
            port => port,
        };
        if self.listeners.contains_key(&port) {
            return Err(Error::AddrInUse);
        }
        self.listeners_made = self.listeners_made.wrapping_add(1);
        let serial = self.listeners_made;
        let state = ListenState {
            serial,
            backlog: backlog.max(1),
            established: VecDeque::new(),
            waker: None,
            keep_alive: Some(KEEP_ALIVE_IDLE),
        };
        self.listeners.insert(port, state);
        Ok(Listener { port, serial })
    }

    /// The port of a listener.
    pub fn tcp_listen_port(&self, listener: Listener) -> u16 {
        listener.port
    }

    /// Sets the idle time of [`Stack::tcp_set_keep_alive`] for the connections that are established
    /// from now on. It is [`KEEP_ALIVE_IDLE`] at first.
    ///
    /// # Errors
    /// `NotConnected`: the listener is gone.
    pub fn tcp_listen_keep_alive(&mut self, listener: Listener, idle: Option<Duration>) -> Result<(), Error> {
        self.listener(listener)?.keep_alive = idle.map(|idle| idle.max(KEEP_ALIVE_IDLE_MIN));
        Ok(())
    }

    /// Takes the next established connection.
    ///
    /// # Errors
    /// `WouldBlock`: there is none. `NotConnected`: the listener is gone.
    pub fn tcp_accept(&mut self, listener: Listener) -> Result<(TcpSocket, SocketAddrV4), Error> {
        let state = self.listener(listener)?;
        let handle = state.established.pop_front().ok_or(Error::WouldBlock)?;
        let peer = match &self.net.get(handle)?.kind {
            Kind::Tcp(tcp) => peer_of(tcp.flow),
            _ => return Err(Error::NotConnected),
        };
        Ok((TcpSocket(handle), peer))
    }

    /// Checks that there is a connection to accept.
    ///
    /// # Errors
    /// As [`Stack::tcp_accept`].
    pub fn tcp_can_accept(&mut self, listener: Listener) -> Result<(), Error> {
        if self.listener(listener)?.established.is_empty() { Err(Error::WouldBlock) } else { Ok(()) }
    }

    /// Wakes `waker` when there is a connection to accept.
    ///
    /// # Errors
    /// `NotConnected`: the listener is gone.
    pub fn tcp_wake_on_accept(&mut self, listener: Listener, waker: &Waker) -> Result<(), Error> {
        self.listener(listener)?.waker = Some(waker.clone());
        Ok(())
    }

    /// Stops listening; connections that were not accepted are reset.
    pub fn tcp_unlisten(&mut self, listener: Listener) {
        if self.listener(listener).is_err() {
            return;
        }
        let Some(state) = self.listeners.remove(&listener.port) else {
            return;
        };
        let half_open = self.net.table.select(|entry| match &entry.kind {
            Kind::Tcp(tcp) => tcp.owner == Owner::HalfOpen(listener.port),
            _ => false,
        });
        for handle in half_open.into_iter().chain(state.established) {
            self.leave_half_open(handle);
            self.abandon(handle, true);
        }
        if let Some(waker) = state.waker {
            waker.wake();
        }
    }

    /// Makes room for a connection attempt.
    pub(super) fn admit(&mut self, port: u16, key: Flow) -> Admission {
        let Some(listener) = self.listeners.get(&port) else {
            return Admission::NotListening;
        };
        if listener.established.len() >= listener.backlog {
            return Admission::Full;
        }
        if self.half_open.len() >= self.settings.half_open {
            self.drop_oldest_half_open();
        }
        let Some(mut socket) = self.take_socket() else {
            return Admission::Full;
        };
        if socket.listen(port).is_err() {
            self.buffers.give(socket);
            return Admission::NotListening;
        }
        let handle = self.add_tcp(socket, key, Owner::HalfOpen(port));
        self.flows.insert(key, handle);
        self.half_open.push_back(handle);
        Admission::Socket(handle)
    }

    /// A socket for a new connection. Half-open connections give way to it if memory is short.
    pub(super) fn take_socket(&mut self) -> Option<Socket<'static>> {
        loop {
            let socket = self.buffers.take();
            if socket.is_some() || !self.drop_oldest_half_open() {
                return socket;
            }
        }
    }

    /// Forgets the oldest half-open connection; false if there is none.
    fn drop_oldest_half_open(&mut self) -> bool {
        let oldest = self.half_open.pop_front();
        if let Some(handle) = oldest {
            self.forget(handle);
        }
        oldest.is_some()
    }

    /// Queues an established connection, which was half open, to be accepted.
    pub(super) fn established(&mut self, port: u16, handle: Handle) {
        self.leave_half_open(handle);
        if let Some(listener) = self.listeners.get_mut(&port) {
            listener.established.push_back(handle);
            if let Some(waker) = listener.waker.take() {
                waker.wake();
            }
        }
    }

    /// Takes a connection from the half-open ones.
    pub(super) fn leave_half_open(&mut self, handle: Handle) {
        if let Some(place) = self.half_open.iter().position(|&other| other == handle) {
            self.half_open.remove(place);
        }
    }

    fn listener(&mut self, listener: Listener) -> Result<&mut ListenState, Error> {
        let state = self.listeners.get_mut(&listener.port);
        state.filter(|state| state.serial == listener.serial).ok_or(Error::NotConnected)
    }
}
