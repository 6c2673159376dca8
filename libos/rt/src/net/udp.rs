//! UDP sockets.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use zooid_kernel::events::Masked;

use super::{Error, Limit, Network, SocketAddrV4, Waiter, network, readiness};
use crate::poll::{AnyEvent, Events, Pollable};

/// A UDP socket.
pub struct UdpSocket {
    network: &'static Network,
    socket: zooid_net::stack::UdpSocket,
    reader: Waiter,
    writer: Waiter,
    read_timeout: Masked<Limit>,
    nonblocking: AtomicBool,
}

impl UdpSocket {
    /// A socket on `port`, on the address of the network; port 0 takes a free one.
    pub fn bind(port: u16) -> Result<Self, Error> {
        let network = network()?;
        let socket = network.with(|stack| stack.udp_bind(port))?;
        let (reader, writer) = (Waiter::new(), Waiter::new());
        let read_timeout = Masked::new(Limit::None);
        Ok(Self { network, socket, reader, writer, read_timeout, nonblocking: AtomicBool::new(false) })
    }

    /// Sends one datagram to `peer`; waits for room in the queue.
    pub fn send_to(&self, datagram: &[u8], peer: SocketAddrV4) -> Result<(), Error> {
        // In a child, the network may not be up although there are sockets.
        self.network.wait_until_up()?;
        self.network.wait(&self.writer, self.limit(Limit::None), |stack, waker| {
            stack.udp_send(self.socket, datagram, peer).inspect_err(|_| {
                let _ = stack.udp_wake_on_send(self.socket, waker);
            })
        })
    }

    /// Waits for a datagram and takes the part that fits in `buffer`. Returns its length there, and
    /// its sender.
    pub fn recv_from(&self, buffer: &mut [u8]) -> Result<(usize, SocketAddrV4), Error> {
        let limit = self.limit(*self.read_timeout.lock());
        self.network.wait(&self.reader, limit, |stack, waker| {
            stack.udp_receive(self.socket, buffer).inspect_err(|_| {
                let _ = stack.udp_wake_on_receive(self.socket, waker);
            })
        })
    }

    /// Limits the wait of [`UdpSocket::recv_from`], which then fails with `TimedOut`; `None`
    /// removes the limit.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) {
        *self.read_timeout.lock() = Limit::of(timeout);
    }

    /// Lets calls fail with `WouldBlock` rather than wait, if `nonblocking`.
    pub fn set_nonblocking(&self, nonblocking: bool) {
        self.nonblocking.store(nonblocking, Ordering::Relaxed);
    }

    fn limit(&self, otherwise: Limit) -> Limit {
        if self.nonblocking.load(Ordering::Relaxed) { Limit::Now } else { otherwise }
    }

    /// Port of this socket.
    pub fn local_port(&self) -> Result<u16, Error> {
        Ok(self.network.lock().udp_port(self.socket)?)
    }
}

impl Pollable for UdpSocket {
    fn ready(&self, wanted: Events) -> Events {
        let mut stack = self.network.lock();
        readiness(wanted, |direction| {
            if direction == Events::READABLE {
                stack.udp_wake_on_receive(self.socket, &self.reader.waker)?;
                return stack.udp_peek(self.socket, &mut []).map(|_| ());
            }
            stack.udp_wake_on_send(self.socket, &self.writer.waker)?;
            stack.udp_can_send(self.socket)
        })
    }

    fn watch(&self, _: Events, event: &AnyEvent) {
        self.reader.watch(event);
        self.writer.watch(event);
    }

    fn unwatch(&self, event: &AnyEvent) {
        self.reader.unwatch(event);
        self.writer.unwatch(event);
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        self.network.with(|stack| stack.udp_close(self.socket));
    }
}
