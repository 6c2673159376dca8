//! Requests to xenstored.

use super::Error;
use alloc::vec::Vec;
use core::fmt;
use xen_abi::io::xs_wire::{XENSTORE_ABS_PATH_MAX, XENSTORE_PAYLOAD_MAX, XENSTORE_REL_PATH_MAX, XsType};
use xen_abi::{DomId, Mfn, Port};

/// A request: a command, inside a transaction or not.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The transaction that the command is part of.
    pub transaction: TransactionId,
    /// The command.
    pub command: Command<'a>,
}

/// A transaction's identifier, chosen by xenstored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionId(pub u32);

impl TransactionId {
    /// Outside of any transaction.
    pub const NONE: Self = Self(0);
}

/// A command. A path without a leading `/` is relative to the domain's home.
#[derive(Clone, Copy, Debug)]
pub enum Command<'a> {
    /// The names of a node's children, for [`names`](super::names) to read.
    Directory(&'a str),
    /// A part of the names of a node's children, for [`NameList`](super::NameList) to collect.
    DirectoryPart {
        /// The node.
        path: &'a str,
        /// Bytes of the list that come before the part.
        offset: usize,
    },
    /// A node's value.
    Read(&'a str),
    /// Sets a node's value; makes the node, and those above it, if they are missing.
    Write(&'a str, &'a [u8]),
    /// Makes a node, and those above it, if they are missing.
    Mkdir(&'a str),
    /// Removes a node and all below it.
    Remove(&'a str),
    /// A node's permissions, for [`permissions`](super::permissions) to read.
    GetPermissions(&'a str),
    /// Sets a node's permissions. The first one names the owner, and the access of domains that are
    /// not listed.
    SetPermissions(&'a str, &'a [Permission]),
    /// Asks for an event at every change at or below a path. One event comes at once.
    Watch {
        /// The path, or `@introduceDomain` or `@releaseDomain`.
        path: &'a str,
        /// The token that the events repeat.
        token: &'a str,
    },
    /// Ends the watch with this path and token.
    Unwatch {
        /// The path of the watch.
        path: &'a str,
        /// The token of the watch.
        token: &'a str,
    },
    /// Begins a transaction; [`transaction`](super::transaction) reads its number from the reply.
    StartTransaction,
    /// Ends the request's transaction.
    EndTransaction {
        /// True if its changes are to be made, which may fail with [`Error::Again`]; false if they
        /// are to be dropped.
        commit: bool,
    },
    /// Tells xenstored of a domain, which it serves from then on. Only dom0 may send this and the
    /// next two.
    Introduce {
        /// The domain.
        domain: DomId,
        /// The frame of its ring.
        ring: Mfn,
        /// Its port for the ring, which dom0 may bind.
        port: Port,
    },
    /// Ends the service of a domain.
    Release(DomId),
    /// Asks whether a domain is served; [`introduced`](super::introduced) reads the reply.
    IsDomainIntroduced(DomId),
}

/// The access of one domain to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission {
    /// The domain.
    pub domain: DomId,
    /// Its access.
    pub access: Access,
}

/// Kinds of access to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// None at all (`n`).
    None,
    /// Reading (`r`).
    Read,
    /// Writing (`w`).
    Write,
    /// Reading and writing (`b`).
    ReadWrite,
}

impl<'a> From<Command<'a>> for Request<'a> {
    /// The command outside of any transaction.
    fn from(command: Command<'a>) -> Self {
        Self { transaction: TransactionId::NONE, command }
    }
}

impl Command<'_> {
    /// The type of its message.
    pub(super) fn kind(&self) -> XsType {
        match self {
            Self::Directory(_) => XsType::DIRECTORY,
            Self::DirectoryPart { .. } => XsType::DIRECTORY_PART,
            Self::Read(_) => XsType::READ,
            Self::Write(..) => XsType::WRITE,
            Self::Mkdir(_) => XsType::MKDIR,
            Self::Remove(_) => XsType::RM,
            Self::GetPermissions(_) => XsType::GET_PERMS,
            Self::SetPermissions(..) => XsType::SET_PERMS,
            Self::Watch { .. } => XsType::WATCH,
            Self::Unwatch { .. } => XsType::UNWATCH,
            Self::StartTransaction => XsType::TRANSACTION_START,
            Self::EndTransaction { .. } => XsType::TRANSACTION_END,
            Self::Introduce { .. } => XsType::INTRODUCE,
            Self::Release(_) => XsType::RELEASE,
            Self::IsDomainIntroduced(_) => XsType::IS_DOMAIN_INTRODUCED,
        }
    }

    /// The payload of its message.
    pub(super) fn payload(&self) -> Result<Vec<u8>, Error> {
        let mut payload = Payload::default();
        match *self {
            Self::Directory(path)
            | Self::Read(path)
            | Self::Mkdir(path)
            | Self::Remove(path)
            | Self::GetPermissions(path) => payload.path(path)?,
            Self::DirectoryPart { path, offset } => {
                payload.path(path)?;
                payload.number(offset as u64)?;
            }
            Self::Write(path, value) => {
                payload.path(path)?;
                payload.bytes.extend_from_slice(value);
            }
            Self::SetPermissions(path, permissions) => {
                payload.path(path)?;
                for permission in permissions {
                    payload.string(&alloc::format!("{permission}"))?;
                }
            }
            Self::Watch { path, token } | Self::Unwatch { path, token } => {
                payload.path(path)?;
                payload.string(token)?;
            }
            Self::StartTransaction => payload.string("")?,
            Self::EndTransaction { commit } => payload.string(if commit { "T" } else { "F" })?,
            Self::Introduce { domain, ring, port } => {
                payload.number(domain.0.into())?;
                payload.number(ring.0)?;
                payload.number(port.0.into())?;
            }
            Self::Release(domain) | Self::IsDomainIntroduced(domain) => payload.number(domain.0.into())?,
        }
        if payload.bytes.len() > XENSTORE_PAYLOAD_MAX {
            return Err(Error::TooLong);
        }
        Ok(payload.bytes)
    }
}

#[derive(Default)]
struct Payload {
    bytes: Vec<u8>,
}

impl Payload {
    fn path(&mut self, path: &str) -> Result<(), Error> {
        let limit = if path.starts_with('/') { XENSTORE_ABS_PATH_MAX } else { XENSTORE_REL_PATH_MAX };
        if path.len() > limit {
            return Err(Error::TooLong);
        }
        self.string(path)
    }

    /// Appends a number as decimal digits.
    fn number(&mut self, number: u64) -> Result<(), Error> {
        self.string(&alloc::format!("{number}"))
    }

    /// Appends a string and the NUL that ends it.
    fn string(&mut self, string: &str) -> Result<(), Error> {
        if string.contains('\0') {
            return Err(Error::EmbeddedNul);
        }
        self.bytes.extend_from_slice(string.as_bytes());
        self.bytes.push(0);
        Ok(())
    }
}

impl Access {
    /// Every kind of access.
    pub(super) const ALL: [Self; 4] = [Self::None, Self::Read, Self::Write, Self::ReadWrite];

    /// Its letter in the protocol.
    pub(super) const fn letter(self) -> char {
        match self {
            Self::None => 'n',
            Self::Read => 'r',
            Self::Write => 'w',
            Self::ReadWrite => 'b',
        }
    }
}

impl fmt::Display for Permission {
    /// The form of the protocol: a letter and a domid.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.access.letter(), self.domain.0)
    }
}
