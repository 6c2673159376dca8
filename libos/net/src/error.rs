//! Errors of socket calls.

use core::fmt;

/// The error of a socket call; the kinds are those of `std::io::ErrorKind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The peer answered a connection attempt with a reset.
    ConnectionRefused,
    /// The peer reset an established connection.
    ConnectionReset,
    /// The connection ended because the interface lost the address that it used.
    ConnectionAborted,
    /// The handle's connection does not exist (never made, closed, or another domain's).
    NotConnected,
    /// Another socket has this local port.
    AddrInUse,
    /// The address cannot be used here: port or address zero, or no ephemeral port is left.
    AddrNotAvailable,
    /// There is no interface with an address, or no route from it to the peer.
    NetworkUnreachable,
    /// The neighbour on the way to the peer (the peer itself, or the router) answers no ARP requests.
    HostUnreachable,
    /// The call would have to wait; a registered waker tells when to try again.
    WouldBlock,
    /// The peer did not answer in time.
    TimedOut,
    /// This side has already shut down its sending direction.
    BrokenPipe,
    /// The memory set aside for connections, or the heap, is used up.
    OutOfMemory,
    /// The datagram does not fit into one packet or into the socket's buffer.
    MessageTooLong,
    /// A name server reports that the name does not exist.
    NameNotFound,
    /// A name server reports that the name exists, but has no IPv4 address.
    NameHasNoAddress,
    /// The name servers could not, or did not want to, say whether the name exists (blame: them;
    /// a later query may succeed).
    NameServerFailed,
    /// No name server answered in time.
    NameServerSilent,
    /// The answer does not fit into a datagram, and the name server did not give it over TCP.
    NameAnswerTruncated,
    /// The name is no valid host name, or no name server is configured.
    InvalidInput,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConnectionRefused => "connection refused",
            Self::ConnectionReset => "connection reset by peer",
            Self::ConnectionAborted => "connection aborted: local address lost",
            Self::NotConnected => "not connected",
            Self::AddrInUse => "address in use",
            Self::AddrNotAvailable => "address not available",
            Self::NetworkUnreachable => "network unreachable",
            Self::HostUnreachable => "host unreachable",
            Self::WouldBlock => "operation would block",
            Self::TimedOut => "timed out",
            Self::BrokenPipe => "broken pipe",
            Self::OutOfMemory => "out of memory",
            Self::MessageTooLong => "message too long",
            Self::NameNotFound => "name not found",
            Self::NameHasNoAddress => "the name has no IPv4 address",
            Self::NameServerFailed => "the name server failed",
            Self::NameServerSilent => "no answer from a name server",
            Self::NameAnswerTruncated => "the name server's answer is cut, and TCP to it failed",
            Self::InvalidInput => "invalid input",
        })
    }
}

impl core::error::Error for Error {}
