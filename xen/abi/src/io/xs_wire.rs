//! `public/io/xs_wire.h`: xenstore's messages and the page that carries them.
//!
//! A message is a [`Header`] and `len` bytes of payload. Most payloads are strings that end in a
//! NUL. Octets are little-endian.

use crate::io::ring::RingIndex;

/// Bytes of each of the two rings.
pub const XENSTORE_RING_SIZE: u32 = 1024;
/// Longest payload, in bytes. xenstored disconnects a guest that sends more.
pub const XENSTORE_PAYLOAD_MAX: usize = 4096;
/// Longest absolute path.
pub const XENSTORE_ABS_PATH_MAX: usize = 3072;
/// Longest path relative to the domain's own.
pub const XENSTORE_REL_PATH_MAX: usize = 2048;

open_enum! {
    /// A message's type, `XS_*`.
    pub struct XsType: u32 {
        /// Commands to xenstored itself.
        CONTROL = 0;
        /// List a node's children.
        DIRECTORY = 1;
        READ = 2;
        GET_PERMS = 3;
        WATCH = 4;
        UNWATCH = 5;
        TRANSACTION_START = 6;
        TRANSACTION_END = 7;
        /// Tell xenstored about a new domain; dom0 only.
        INTRODUCE = 8;
        /// Tell xenstored that a domain is gone; dom0 only.
        RELEASE = 9;
        GET_DOMAIN_PATH = 10;
        WRITE = 11;
        MKDIR = 12;
        RM = 13;
        SET_PERMS = 14;
        /// From xenstored, unasked: a watched node changed.
        WATCH_EVENT = 15;
        /// From xenstored: the request failed; the payload is an error's name.
        ERROR = 16;
        IS_DOMAIN_INTRODUCED = 17;
        RESUME = 18;
        SET_TARGET = 19;
        RESET_WATCHES = 21;
        /// List a part of a node's children, when they are too many for one message.
        DIRECTORY_PART = 22;
        /// Never a valid type.
        INVALID = 0xffff;
    }
}

bitflags::bitflags! {
    /// Abilities of xenstored, `XENSTORE_SERVER_FEATURE_*`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct ServerFeatures: u32 {
        /// The guest may ask for the rings to be reset.
        const RECONNECTION = 1;
        /// `error` is in use.
        const ERROR = 2;
    }
}

open_enum! {
    /// State of the rings, `XENSTORE_*`.
    pub struct Connection: u32 {
        CONNECTED = 0;
        /// The guest asked for the rings to be reset, and xenstored has not yet done it.
        RECONNECT = 1;
    }
}

open_enum! {
    /// The reason for which xenstored gave up on the rings, `XENSTORE_ERROR_*`.
    pub struct RingError: u32 {
        NONE = 0;
        /// Communication failed.
        COMM = 1;
        /// An index was out of range.
        RINGIDX = 2;
        /// A payload was too long.
        PROTO = 3;
    }
}

/// The page that a guest shares with xenstored, `struct xenstore_domain_interface`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct XenstoreDomainInterface {
    /// To xenstored.
    pub req: [u8; XENSTORE_RING_SIZE as usize],
    /// From xenstored.
    pub rsp: [u8; XENSTORE_RING_SIZE as usize],
    /// Octets of requests that xenstored has read.
    pub req_cons: RingIndex,
    /// Octets of requests that the guest has written.
    pub req_prod: RingIndex,
    /// Octets of answers that the guest has read.
    pub rsp_cons: RingIndex,
    /// Octets of answers that xenstored has written.
    pub rsp_prod: RingIndex,
    /// The features of xenstored.
    pub server_features: ServerFeatures,
    /// The state of the connection: rings in use or not.
    pub connection: Connection,
    /// The reason for which xenstored has given the rings up.
    pub error: RingError,
}
assert_layout!(
    XenstoreDomainInterface, 2076,
    req: 0, rsp: 1024, req_cons: 2048, req_prod: 2052, rsp_cons: 2056, rsp_prod: 2060,
    server_features: 2064, connection: 2068, error: 2072,
);

/// The payload is longer than [`XENSTORE_PAYLOAD_MAX`]. On encoding, the caller is at fault. On
/// decoding, xenstored broke the protocol, and the bytes that follow cannot be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadTooLong {
    /// The payload's length in bytes.
    pub len: usize,
}

impl core::fmt::Display for PayloadTooLong {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "a xenstore payload of {} bytes; the limit is {XENSTORE_PAYLOAD_MAX}", self.len)
    }
}

impl core::error::Error for PayloadTooLong {}

/// A message's header, `struct xsd_sockmsg`. Its payload has a valid length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    kind: XsType,
    req_id: u32,
    tx_id: u32,
    len: u32,
}

impl Header {
    /// Bytes of a header.
    pub const SIZE: usize = 16;

    /// The header of a message of type `kind` with `payload_len` bytes of payload. The answer
    /// carries the same `req_id`; `tx_id` is the transaction that the request is part of, 0 for
    /// none.
    ///
    /// # Errors
    /// [`PayloadTooLong`].
    pub const fn new(kind: XsType, req_id: u32, tx_id: u32, payload_len: usize) -> Result<Header, PayloadTooLong> {
        if payload_len > XENSTORE_PAYLOAD_MAX {
            return Err(PayloadTooLong { len: payload_len });
        }
        Ok(Header { kind, req_id, tx_id, len: payload_len as u32 })
    }

    /// The message's type.
    #[must_use]
    pub const fn kind(&self) -> XsType {
        self.kind
    }

    /// The number of the request that this is or answers; 0 in a watch event.
    #[must_use]
    pub const fn req_id(&self) -> u32 {
        self.req_id
    }

    /// The transaction, or 0.
    #[must_use]
    pub const fn tx_id(&self) -> u32 {
        self.tx_id
    }

    /// Bytes of payload that follow.
    #[must_use]
    pub const fn payload_len(&self) -> usize {
        self.len as usize
    }

    /// The header's bytes: type, request, transaction, length.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        for (field, word) in bytes.chunks_exact_mut(4).zip([self.kind.0, self.req_id, self.tx_id, self.len]) {
            field.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The header that `bytes` hold.
    ///
    /// # Errors
    /// [`PayloadTooLong`].
    pub const fn decode(bytes: [u8; Self::SIZE]) -> Result<Header, PayloadTooLong> {
        let [k0, k1, k2, k3, r0, r1, r2, r3, t0, t1, t2, t3, l0, l1, l2, l3] = bytes;
        let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        Header::new(
            XsType(u32::from_le_bytes([k0, k1, k2, k3])),
            u32::from_le_bytes([r0, r1, r2, r3]),
            u32::from_le_bytes([t0, t1, t2, t3]),
            len,
        )
    }
}

/// The strings of a payload, each without the NUL that ends it. A last string without a NUL counts
/// too.
pub fn strings(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    payload.split_inclusive(|byte| *byte == 0).map(|string| string.strip_suffix(&[0]).unwrap_or(string))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    #[test]
    fn a_header_and_its_bytes() {
        let header = Header::new(XsType::WATCH, 0x0102, 7, 21).unwrap();
        let bytes = [4, 0, 0, 0, 2, 1, 0, 0, 7, 0, 0, 0, 21, 0, 0, 0];
        assert_eq!(header.encode(), bytes);
        assert_eq!(Header::decode(bytes), Ok(header));
    }

    #[test]
    fn an_unknown_type_is_kept() {
        let mut bytes = [0; Header::SIZE];
        bytes[0] = 99;
        assert_eq!(Header::decode(bytes).unwrap().kind(), XsType(99));
    }

    #[test]
    fn a_payload_has_a_limit() {
        assert!(Header::new(XsType::WRITE, 1, 0, XENSTORE_PAYLOAD_MAX).is_ok());
        let len = XENSTORE_PAYLOAD_MAX + 1;
        assert_eq!(Header::new(XsType::WRITE, 1, 0, len), Err(PayloadTooLong { len }));
        let mut bytes = [0; Header::SIZE];
        bytes[12..].fill(0xff);
        assert_eq!(Header::decode(bytes), Err(PayloadTooLong { len: u32::MAX as usize }));
    }

    #[test]
    fn strings_of_a_payload() {
        let all = |payload| strings(payload).collect::<Vec<_>>();
        assert_eq!(all(b""), Vec::<&[u8]>::new());
        assert_eq!(all(b"a\0bc\0"), [&b"a"[..], b"bc"]);
        assert_eq!(all(b"a\0\0bc"), [&b"a"[..], b"", b"bc"]);
    }
}
