//! TCP listeners.
//!
//! smoltcp has no backlog: a socket in LISTEN takes one connection, and a SYN that finds none is
//! reset. Here a socket is made for each SYN to a listened port when it arrives, as long as the
//! listener has room. Beyond that the SYN is dropped, and the peer tries again.

use super::tcp::{Flow, Owner, TcpSocket, peer_of};
use super::{Handle, Kind, Stack};
use crate::error::Error;
use crate::platform::{Platform, Xenstore};
use alloc::collections::VecDeque;
use core::net::SocketAddrV4;
use core::task::Waker;

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
    /// Connections half open or not accepted, at most.
    backlog: usize,
    half_open: usize,
    established: VecDeque<Handle>,
    waker: Option<Waker>,
}

impl ListenState {
    /// Drops the parent's connections, in the child of a fork.
    pub(super) fn begin_life(&mut self) {
        self.half_open = 0;
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
    /// Listens on `port` (0: on any free one). At most `backlog` connections are half open or
    /// wait to be accepted; beyond that, attempts are dropped and the peers try again.
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
        let state =
            ListenState { serial, backlog: backlog.max(1), half_open: 0, established: VecDeque::new(), waker: None };
        self.listeners.insert(port, state);
        Ok(Listener { port, serial })
    }

    /// The port of a listener.
    pub fn tcp_listen_port(&self, listener: Listener) -> u16 {
        listener.port
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
            self.abandon(handle, true);
        }
        if let Some(waker) = state.waker {
            waker.wake();
        }
    }

    /// Makes room for a connection attempt.
    pub(super) fn admit(&mut self, port: u16, key: Flow) -> Admission {
        let Some(listener) = self.listeners.get_mut(&port) else {
            return Admission::NotListening;
        };
        if listener.half_open + listener.established.len() >= listener.backlog {
            return Admission::Full;
        }
        let Some(mut socket) = self.buffers.take() else {
            return Admission::Full;
        };
        if socket.listen(port).is_err() {
            self.buffers.give(socket);
            return Admission::NotListening;
        }
        listener.half_open += 1;
        let handle = self.add_tcp(socket, key, Owner::HalfOpen(port));
        self.flows.insert(key, handle);
        Admission::Socket(handle)
    }

    /// Queues an established connection, which was half open, to be accepted.
    pub(super) fn established(&mut self, port: u16, handle: Handle) {
        self.leave_half_open(port);
        if let Some(listener) = self.listeners.get_mut(&port) {
            listener.established.push_back(handle);
            if let Some(waker) = listener.waker.take() {
                waker.wake();
            }
        }
    }

    /// Counts a half-open connection of the listener on `port` as gone.
    pub(super) fn leave_half_open(&mut self, port: u16) {
        if let Some(listener) = self.listeners.get_mut(&port) {
            listener.half_open = listener.half_open.saturating_sub(1);
        }
    }

    fn listener(&mut self, listener: Listener) -> Result<&mut ListenState, Error> {
        let state = self.listeners.get_mut(&listener.port);
        state.filter(|state| state.serial == listener.serial).ok_or(Error::NotConnected)
    }
}
