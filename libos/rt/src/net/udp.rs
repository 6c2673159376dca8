//! UDP sockets.

use core::time::Duration;

use zooid_kernel::events::Masked;

use super::{Error, Network, SocketAddrV4, Waiter, network};

/// A UDP socket.
pub struct UdpSocket {
    network: &'static Network,
    socket: zooid_net::stack::UdpSocket,
    reader: Waiter,
    writer: Waiter,
    read_timeout: Masked<Option<Duration>>,
}

impl UdpSocket {
    /// A socket on `port`, on the address of the network; port 0 takes a free one.
    pub fn bind(port: u16) -> Result<Self, Error> {
        let network = network()?;
        let socket = network.with(|stack| stack.udp_bind(port))?;
        let (reader, writer) = (Waiter::new(), Waiter::new());
        Ok(Self { network, socket, reader, writer, read_timeout: Masked::new(None) })
    }

    /// Sends one datagram to `peer`; waits for room in the queue.
    pub fn send_to(&self, datagram: &[u8], peer: SocketAddrV4) -> Result<(), Error> {
        // In a child it may not be, though there are sockets.
        self.network.wait_until_up()?;
        self.network.wait(&self.writer, None, |stack, waker| {
            stack.udp_send(self.socket, datagram, peer).inspect_err(|_| {
                let _ = stack.udp_wake_on_send(self.socket, waker);
            })
        })
    }

    /// Waits for a datagram and takes what fits in `buffer`. Returns its length there, and who sent it.
    pub fn recv_from(&self, buffer: &mut [u8]) -> Result<(usize, SocketAddrV4), Error> {
        let timeout = *self.read_timeout.lock();
        self.network.wait(&self.reader, timeout, |stack, waker| {
            stack.udp_receive(self.socket, buffer).inspect_err(|_| {
                let _ = stack.udp_wake_on_receive(self.socket, waker);
            })
        })
    }

    /// How long [`UdpSocket::recv_from`] may wait; `None` for ever. After it that fails with `TimedOut`.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) {
        *self.read_timeout.lock() = timeout;
    }

    /// Port of this socket.
    pub fn local_port(&self) -> Result<u16, Error> {
        Ok(self.network.lock().udp_port(self.socket)?)
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        self.network.with(|stack| stack.udp_close(self.socket));
    }
}
