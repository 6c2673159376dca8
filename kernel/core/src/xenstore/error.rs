//! Errors of requests to xenstore.

use crate::ring::BadIndex;
use alloc::string::String;
use core::fmt;
use xen_abi::io::xs_wire::XsType;

/// The reason for which a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// `ENOENT`: there is no such node, or no such watch or transaction.
    NotFound,
    /// `EACCES`: the node's permissions, set by its owner, exclude this domain.
    AccessDenied,
    /// `EAGAIN`: the transaction conflicted with another change; repeat it from the start.
    Again,
    /// `EINVAL`: xenstored refuses the path or value; the caller is to blame.
    Invalid,
    /// `EEXIST`: the watch exists already.
    Exists,
    /// `ENOSPC`: a quota that dom0 set for this domain is used up.
    NoSpace,
    /// Another error by xenstored's name for it.
    Other(String),
    /// The request is longer than the protocol allows; the caller is to blame.
    TooLong,
    /// A value is not UTF-8; its writer is to blame.
    NotUtf8,
    /// A path or token contains a NUL, which would end it; the caller is to blame.
    EmbeddedNul,
    /// xenstored broke the protocol; the connection is of no more use.
    Broken(StreamError),
}

/// The way in which xenstored broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamError {
    /// The connection ended: xenstored is gone. Only dom0's connection, a socket, can end.
    Closed,
    /// A payload of this many bytes is announced; the limit is 4096.
    TooLong(usize),
    /// A reply to a request that was not made, or that has been answered.
    UnknownRequest(u32),
    /// A reply of another type than the request.
    WrongType {
        /// The request's type.
        expected: XsType,
        /// The reply's type.
        found: XsType,
    },
    /// A payload does not have the form of its type.
    BadPayload,
    /// The ring's indices contradict its size.
    BadIndex(BadIndex),
}

impl Error {
    /// The error with this name. In the payload of an error message, a NUL follows the name.
    pub(super) fn from_name(payload: &[u8]) -> Self {
        match payload.strip_suffix(&[0]).unwrap_or(payload) {
            b"ENOENT" => Self::NotFound,
            b"EACCES" => Self::AccessDenied,
            b"EAGAIN" => Self::Again,
            b"EINVAL" => Self::Invalid,
            b"EEXIST" => Self::Exists,
            b"ENOSPC" => Self::NoSpace,
            name => Self::Other(String::from_utf8_lossy(name).into_owned()),
        }
    }
}

impl From<StreamError> for Error {
    fn from(error: StreamError) -> Self {
        Self::Broken(error)
    }
}

impl From<BadIndex> for Error {
    fn from(error: BadIndex) -> Self {
        Self::Broken(StreamError::BadIndex(error))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("xenstore has no such entry"),
            Self::AccessDenied => f.write_str("xenstore's permissions forbid it"),
            Self::Again => f.write_str("the xenstore transaction met another change"),
            Self::Invalid => f.write_str("xenstore does not accept the path or value"),
            Self::Exists => f.write_str("it exists in xenstore already"),
            Self::NoSpace => f.write_str("this domain's xenstore quota is used up"),
            Self::Other(name) => write!(f, "xenstore answers {name}"),
            Self::TooLong => f.write_str("longer than a xenstore request can be"),
            Self::NotUtf8 => f.write_str("the value in xenstore is not UTF-8 text"),
            Self::EmbeddedNul => f.write_str("a xenstore path or token contains a NUL"),
            Self::Broken(error) => write!(f, "xenstored breaks the protocol: {error}"),
        }
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the connection has ended"),
            Self::TooLong(len) => write!(f, "a payload of {len} bytes"),
            Self::UnknownRequest(id) => write!(f, "a reply to request {id}, which is not under way"),
            Self::WrongType { expected, found } => write!(f, "a reply of type {found} to {expected}"),
            Self::BadPayload => f.write_str("a payload that makes no sense"),
            Self::BadIndex(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for Error {}
impl core::error::Error for StreamError {}
