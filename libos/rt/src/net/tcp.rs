//! TCP: listening and connected sockets.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use zooid_kernel::events::Masked;
use zooid_net::stack::{Listener, TcpSocket};

use super::{Error, Limit, Network, SocketAddrV4, Waiter, network, readiness};
use crate::io;
use crate::poll::{AnyEvent, Events, Pollable};

/// Connections that may wait to be accepted.
const BACKLOG: usize = 128;

/// The longest idle time in microseconds: a century. The stack adds it to its clock.
const STACK_TIME_MAX: u64 = 100 * 365 * 24 * 3_600 * 1_000_000;

/// A socket that accepts connections. Dropping it stops that; accepted connections go on.
pub struct TcpListener {
    network: &'static Network,
    listener: Listener,
    waiter: Waiter,
    nonblocking: AtomicBool,
}

impl TcpListener {
    /// Listens on `port`, on the address of the network; port 0 takes a free one.
    pub fn bind(port: u16) -> Result<Self, Error> {
        let network = network()?;
        let listener = network.with(|stack| stack.tcp_listen(port, BACKLOG))?;
        Ok(Self { network, listener, waiter: Waiter::new(), nonblocking: AtomicBool::new(false) })
    }

    /// Waits for a connection and takes it.
    pub fn accept(&self) -> Result<(TcpStream, SocketAddrV4), Error> {
        let limit = if self.nonblocking.load(Ordering::Relaxed) { Limit::Now } else { Limit::None };
        let (socket, peer) = self.network.wait(&self.waiter, limit, |stack, waker| {
            stack.tcp_accept(self.listener).inspect_err(|_| {
                let _ = stack.tcp_wake_on_accept(self.listener, waker);
            })
        })?;
        Ok((TcpStream::new(self.network, socket), peer))
    }

    /// Lets [`accept`](Self::accept) fail with `WouldBlock` rather than wait, if `nonblocking`.
    pub fn set_nonblocking(&self, nonblocking: bool) {
        self.nonblocking.store(nonblocking, Ordering::Relaxed);
    }

    /// Sets the idle time of [`TcpStream::set_keepalive`] for the connections that arrive from now
    /// on. It is two hours at first.
    pub fn set_keepalive(&self, idle: Option<Duration>) -> Result<(), Error> {
        Ok(self.network.lock().tcp_listen_keep_alive(self.listener, idle.map(stack_time))?)
    }

    /// An endless iterator over the connections that arrive.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming(self)
    }

    /// Port on which this socket listens.
    pub fn local_port(&self) -> u16 {
        self.network.lock().tcp_listen_port(self.listener)
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        self.network.with(|stack| stack.tcp_unlisten(self.listener));
    }
}

impl Pollable for TcpListener {
    fn ready(&self, wanted: Events) -> Events {
        let mut stack = self.network.lock();
        readiness(wanted & Events::READABLE, |_| {
            stack.tcp_wake_on_accept(self.listener, &self.waiter.waker)?;
            stack.tcp_can_accept(self.listener)
        })
    }

    fn watch(&self, _: Events, event: &AnyEvent) {
        self.waiter.watch(event);
    }

    fn unwatch(&self, event: &AnyEvent) {
        self.waiter.unwatch(event);
    }
}

/// The iterator of [`TcpListener::incoming`].
pub struct Incoming<'a>(&'a TcpListener);

impl Iterator for Incoming<'_> {
    type Item = Result<TcpStream, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.0.accept().map(|(stream, _)| stream))
    }
}

/// The directions that [`TcpStream::shutdown`] closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Receive no more.
    Read,
    /// Send no more: the peer sees the end of the stream.
    Write,
    /// Both.
    Both,
}

/// A TCP connection. Dropping it closes it; written data is still sent.
///
/// All methods take `&self`, so that one thread may read while another writes.
pub struct TcpStream {
    network: &'static Network,
    socket: TcpSocket,
    reader: Waiter,
    writer: Waiter,
    timeouts: Masked<Timeouts>,
}

#[derive(Clone, Copy, Default)]
struct Timeouts {
    read: Limit,
    write: Limit,
    nonblocking: bool,
}

impl TcpStream {
    fn new(network: &'static Network, socket: TcpSocket) -> Self {
        let timeouts = Masked::new(Timeouts::default());
        Self { network, socket, reader: Waiter::new(), writer: Waiter::new(), timeouts }
    }

    /// Connects to `peer`; fails when the network gives up.
    pub fn connect(peer: SocketAddrV4) -> Result<Self, Error> {
        Self::connect_within(peer, Limit::None)
    }

    /// Connects to `peer`, or fails with `TimedOut` after `timeout`.
    pub fn connect_timeout(peer: SocketAddrV4, timeout: Duration) -> Result<Self, Error> {
        Self::connect_within(peer, Limit::Within(timeout))
    }

    fn connect_within(peer: SocketAddrV4, limit: Limit) -> Result<Self, Error> {
        let network = network()?;
        let stream = Self::new(network, network.with(|stack| stack.tcp_connect(peer))?);
        network.wait(&stream.writer, limit, |stack, waker| {
            stack.tcp_connected(stream.socket).inspect_err(|_| {
                let _ = stack.tcp_wake_on_send(stream.socket, waker);
            })
        })?;
        Ok(stream)
    }

    /// Reads the available bytes, at least one; returns 0 when the peer has closed its direction.
    pub fn read(&self, buffer: &mut [u8]) -> Result<usize, Error> {
        self.network.wait(&self.reader, self.read_limit(), |stack, waker| {
            stack.tcp_receive(self.socket, buffer).inspect_err(|_| {
                let _ = stack.tcp_wake_on_receive(self.socket, waker);
            })
        })
    }

    /// As [`TcpStream::read`], but leaves the bytes to be read again.
    pub fn peek(&self, buffer: &mut [u8]) -> Result<usize, Error> {
        self.network.wait(&self.reader, self.read_limit(), |stack, waker| {
            stack.tcp_peek(self.socket, buffer).inspect_err(|_| {
                let _ = stack.tcp_wake_on_receive(self.socket, waker);
            })
        })
    }

    /// Writes as much as there is room for, at least one byte, and returns the number of bytes.
    pub fn write(&self, bytes: &[u8]) -> Result<usize, Error> {
        self.network.wait(&self.writer, self.write_limit(), |stack, waker| {
            stack.tcp_send(self.socket, bytes).inspect_err(|_| {
                let _ = stack.tcp_wake_on_send(self.socket, waker);
            })
        })
    }

    /// Writes all of `bytes`.
    pub fn write_all(&self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let count = self.write(bytes)?;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Closes one direction or both.
    pub fn shutdown(&self, how: Shutdown) -> Result<(), Error> {
        self.network.with(|stack| {
            if how != Shutdown::Write {
                stack.tcp_shutdown_receive(self.socket)?;
            }
            if how != Shutdown::Read {
                stack.tcp_shutdown_send(self.socket)?;
            }
            Ok(())
        })
    }

    /// Limits the wait of a read, which then fails with `TimedOut`; `None` removes the limit.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) {
        self.timeouts.lock().read = Limit::of(timeout);
    }

    /// Limits the wait of a write, which then fails with `TimedOut`; `None` removes the limit.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) {
        self.timeouts.lock().write = Limit::of(timeout);
    }

    /// Lets reads and writes fail with `WouldBlock` rather than wait, if `nonblocking`.
    pub fn set_nonblocking(&self, nonblocking: bool) {
        self.timeouts.lock().nonblocking = nonblocking;
    }

    fn read_limit(&self) -> Limit {
        let timeouts = *self.timeouts.lock();
        if timeouts.nonblocking { Limit::Now } else { timeouts.read }
    }

    fn write_limit(&self) -> Limit {
        let timeouts = *self.timeouts.lock();
        if timeouts.nonblocking { Limit::Now } else { timeouts.write }
    }

    /// Sends small pieces at once, instead of gathering them while others are unacknowledged.
    pub fn set_nodelay(&self, nodelay: bool) -> Result<(), Error> {
        Ok(self.network.lock().tcp_set_nodelay(self.socket, nodelay)?)
    }

    /// Probes the other side when it has been silent for `idle`, a second at least. If it does not
    /// answer nine probes, which come every 75 seconds, or every `idle` if that is less, reads and
    /// writes fail with `TimedOut` (RFC 9293, section 3.8.4). `None`: an idle connection lasts for
    /// ever. An accepted connection begins with two hours, and one that was made by
    /// [`connect`](Self::connect) with `None`.
    pub fn set_keepalive(&self, idle: Option<Duration>) -> Result<(), Error> {
        Ok(self.network.with(|stack| stack.tcp_set_keep_alive(self.socket, idle.map(stack_time)))?)
    }

    /// The idle time of [`TcpStream::set_keepalive`].
    pub fn keepalive(&self) -> Result<Option<Duration>, Error> {
        let idle = self.network.lock().tcp_keep_alive(self.socket)?;
        Ok(idle.map(|idle| Duration::from_micros(idle.total_micros())))
    }

    /// Address and port of the other side.
    pub fn peer_addr(&self) -> Result<SocketAddrV4, Error> {
        Ok(self.network.lock().tcp_peer(self.socket)?)
    }

    /// Address and port of this side.
    pub fn local_addr(&self) -> Result<SocketAddrV4, Error> {
        Ok(self.network.lock().tcp_local(self.socket)?)
    }
}

/// The stack's form of a time, which has microseconds.
fn stack_time(time: Duration) -> zooid_net::Duration {
    zooid_net::Duration::from_micros(u64::try_from(time.as_micros()).unwrap_or(u64::MAX).min(STACK_TIME_MAX))
}

impl Pollable for TcpStream {
    fn ready(&self, wanted: Events) -> Events {
        let mut stack = self.network.lock();
        readiness(wanted, |direction| {
            if direction == Events::READABLE {
                stack.tcp_wake_on_receive(self.socket, &self.reader.waker)?;
                return stack.tcp_peek(self.socket, &mut [0]).map(|_| ());
            }
            stack.tcp_wake_on_send(self.socket, &self.writer.waker)?;
            stack.tcp_can_send(self.socket)
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

impl Drop for TcpStream {
    fn drop(&mut self) {
        self.network.with(|stack| stack.tcp_close(self.socket));
    }
}

impl io::Read for &TcpStream {
    type Error = Error;
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        TcpStream::read(self, buffer)
    }
}

impl io::Write for &TcpStream {
    type Error = Error;
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        TcpStream::write(self, bytes)
    }
}
