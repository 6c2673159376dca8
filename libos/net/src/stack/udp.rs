//! UDP sockets.

use super::buffers::zeroed;
use super::{Handle, Kind, Stack};
use crate::error::Error;
use crate::platform::{Platform, Xenstore};
use alloc::vec;
use core::net::SocketAddrV4;
use core::task::Waker;
use smoltcp::socket::udp::{PacketBuffer, PacketMetadata, SendError, Socket, UdpMetadata};
use smoltcp::time::Instant;
use smoltcp::wire::IpAddress;

/// Octets of the IPv4 and UDP headers of a datagram.
const HEADERS: usize = 20 + 8;

/// Datagrams that each of the two queues holds at most.
const QUEUE: usize = 64;

/// The ports of DHCP (RFC 2131, section 4.1).
pub(super) const DHCP_CLIENT: u16 = 68;
pub(super) const DHCP_SERVER: u16 = 67;

/// A UDP socket; it lives until [`Stack::udp_close`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpSocket(Handle);

/// The stack's data about a UDP socket.
#[derive(Debug)]
pub(super) struct Udp {
    port: u16,
}

impl<P: Platform + Xenstore> Stack<P> {
    /// A socket on `port` (0: on any free one).
    ///
    /// # Errors
    /// `AddrInUse`: there is a socket on that port. `AddrNotAvailable`: no port is free.
    /// `OutOfMemory`: the heap has no room for its buffers.
    pub fn udp_bind(&mut self, port: u16) -> Result<UdpSocket, Error> {
        self.udp_bind_with(port, QUEUE, self.settings.udp_buffer)
    }

    /// As [`Stack::udp_bind`], with room for so many datagrams and octets in each direction.
    pub(super) fn udp_bind_with(&mut self, port: u16, datagrams: usize, bytes: usize) -> Result<UdpSocket, Error> {
        let ports = &self.udp_ports;
        let port = match port {
            0 => self.random.port(|port| ports.contains_key(&port))?,
            DHCP_CLIENT if self.dhcp.is_some() => return Err(Error::AddrInUse),
            port if ports.contains_key(&port) => return Err(Error::AddrInUse),
            port => port,
        };
        let mut socket = Socket::new(queue(datagrams, bytes)?, queue(datagrams, bytes)?);
        socket.bind(port).map_err(|_| Error::AddrNotAvailable)?;
        let handle = self.net.table.add(socket, Kind::Udp(Udp { port }));
        self.udp_ports.insert(port, handle);
        Ok(UdpSocket(handle))
    }

    /// The port of a socket.
    ///
    /// # Errors
    /// `NotConnected`: no such socket.
    pub fn udp_port(&mut self, socket: UdpSocket) -> Result<u16, Error> {
        match &self.net.get(socket.0)?.kind {
            Kind::Udp(udp) => Ok(udp.port),
            _ => Err(Error::NotConnected),
        }
    }

    /// Queues a datagram.
    ///
    /// # Errors
    /// `WouldBlock`: no room now. `MessageTooLong`: longer than a packet of the MTU.
    /// `AddrNotAvailable`: the address or port is invalid. `NetworkUnreachable`: the interface has
    /// no address, or no route. `HostUnreachable`: the neighbour on the way did not answer lately.
    /// `NotConnected`: no such socket.
    pub fn udp_send(&mut self, socket: UdpSocket, data: &[u8], to: SocketAddrV4) -> Result<(), Error> {
        if data.len() > (self.net.device.mtu() - HEADERS).min(self.settings.udp_buffer) {
            return Err(Error::MessageTooLong);
        }
        self.net.ethernet.has_route(*to.ip())?;
        let to = (IpAddress::Ipv4(*to.ip()), to.port());
        match self.udp(socket)?.send_slice(data, to) {
            Ok(()) => self.net.table.queue(socket.0),
            Err(SendError::BufferFull) => return Err(Error::WouldBlock),
            Err(SendError::Unaddressable) => return Err(Error::AddrNotAvailable),
        }
        Ok(())
    }

    /// Takes a datagram into `buffer`, and drops the part that does not fit. Returns its length in
    /// `buffer` and its sender.
    ///
    /// # Errors
    /// `WouldBlock`: none is there. `NotConnected`: no such socket.
    pub fn udp_receive(&mut self, socket: UdpSocket, buffer: &mut [u8]) -> Result<(usize, SocketAddrV4), Error> {
        let (data, from) = self.udp(socket)?.recv().map_err(|_| Error::WouldBlock)?;
        let length = data.len().min(buffer.len());
        buffer[..length].copy_from_slice(&data[..length]);
        Ok((length, sender_of(from)?))
    }

    /// As [`Stack::udp_receive`], but leaves the datagram in the socket.
    ///
    /// # Errors
    /// As [`Stack::udp_receive`].
    pub fn udp_peek(&mut self, socket: UdpSocket, buffer: &mut [u8]) -> Result<(usize, SocketAddrV4), Error> {
        let (data, from) = self.udp(socket)?.peek().map_err(|_| Error::WouldBlock)?;
        let length = data.len().min(buffer.len());
        buffer[..length].copy_from_slice(&data[..length]);
        Ok((length, sender_of(*from)?))
    }

    /// Checks that there is room for a datagram, a small one at least.
    ///
    /// # Errors
    /// `WouldBlock`: no room now. `NotConnected`: no such socket.
    pub fn udp_can_send(&mut self, socket: UdpSocket) -> Result<(), Error> {
        if self.udp(socket)?.can_send() { Ok(()) } else { Err(Error::WouldBlock) }
    }

    /// Wakes `waker` when a datagram arrives.
    ///
    /// # Errors
    /// `NotConnected`: no such socket.
    pub fn udp_wake_on_receive(&mut self, socket: UdpSocket, waker: &Waker) -> Result<(), Error> {
        self.udp(socket)?.register_recv_waker(waker);
        Ok(())
    }

    /// Wakes `waker` when a datagram has left the queue.
    ///
    /// # Errors
    /// `NotConnected`: no such socket.
    pub fn udp_wake_on_send(&mut self, socket: UdpSocket, waker: &Waker) -> Result<(), Error> {
        self.udp(socket)?.register_send_waker(waker);
        Ok(())
    }

    /// Closes the socket; unsent datagrams are dropped.
    pub fn udp_close(&mut self, socket: UdpSocket) {
        if let Ok(port) = self.udp_port(socket) {
            self.udp_ports.remove(&port);
            self.net.table.remove(socket.0);
        }
    }

    /// Resets the socket in the child of a fork. It keeps its port; the parent's datagrams stay
    /// with the parent.
    pub(super) fn udp_begin_life(&mut self, handle: Handle) {
        let Some(entry) = self.net.table.get(handle) else { return };
        let Kind::Udp(Udp { port }) = entry.kind else { return };
        entry.deadline = None;
        let socket = entry.get::<Socket>();
        socket.close();
        // The port is the old one, and not 0.
        let _ = socket.bind(port);
    }

    /// Hands a received datagram to its socket.
    pub(super) fn udp_arrived(&mut self, source: u16, destination: u16, now: Instant) {
        if destination == DHCP_CLIENT && self.dhcp.is_some() {
            if source == DHCP_SERVER {
                self.lease_offered(now);
            }
            return;
        }
        let handle = self.udp_ports.get(&destination).copied();
        self.net.deliver(handle, now);
        if let Some(handle) = handle {
            self.net.table.queue(handle);
        }
    }

    fn udp(&mut self, socket: UdpSocket) -> Result<&mut Socket<'static>, Error> {
        let entry = self.net.get(socket.0)?;
        match entry.kind {
            Kind::Udp(_) => Ok(entry.get()),
            _ => Err(Error::NotConnected),
        }
    }
}

fn queue(packets: usize, bytes: usize) -> Result<PacketBuffer<'static>, Error> {
    let bytes = zeroed(bytes).ok_or(Error::OutOfMemory)?;
    Ok(PacketBuffer::new(vec![PacketMetadata::EMPTY; packets], bytes))
}

fn sender_of(from: UdpMetadata) -> Result<SocketAddrV4, Error> {
    match from.endpoint.addr {
        IpAddress::Ipv4(address) => Ok(SocketAddrV4::new(address, from.endpoint.port)),
        IpAddress::Ipv6(_) => Err(Error::WouldBlock),
    }
}
