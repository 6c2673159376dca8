//! Failures of the engine's operations, as its parts report them to each other.

use std::fmt;

use xen_abi::Errno;
use xenctl::xenstore;
use zooid_fork_plan::layout::LayoutError;
use zooid_fork_plan::plan::TooLarge;
use zooid_fork_plan::relink::Stale;
use zooid_fork_plan::wire;

/// The reason for which an operation failed.
#[derive(Debug)]
pub enum Failure {
    /// Xen refused it.
    Xen(xenctl::Error),
    /// xenstore refused it.
    Store(xenstore::Error),
    /// The guest's control page makes no sense.
    Layout(LayoutError),
    /// The guest's page tables make no sense; the fault in them.
    Tables(&'static str),
    /// A child would need more frames than its p2m has room for.
    TooLarge,
    /// A prepared domain does not fit the parent any more.
    Stale,
    /// It has frames of more ancestors than can be told apart.
    Ancestors,
    /// This limit is reached.
    Quota(&'static str),
    /// There is not enough memory, for this reason.
    NoMemory(&'static str),
    /// The object of a guest's request does not exist, or is not allowed: the error number for the
    /// guest.
    Denied(Errno),
    /// The domain has ended meanwhile.
    Gone,
    /// It took too long.
    TimedOut,
}

impl Failure {
    /// The error number for the guest.
    pub fn errno(&self) -> u32 {
        match self {
            Self::Xen(error) => match error.errno() {
                Some(errno @ (Errno::ENOMEM | Errno::EPERM)) => errno.0,
                // createdomain: all domain numbers are in use; claim: a limit of the domain.
                Some(Errno::E2BIG | Errno::ENOSPC) => Errno::ENOMEM.0,
                _ => Errno::EIO.0,
            },
            Self::Store(xenstore::Error::NoSpace) | Self::NoMemory(_) | Self::TooLarge => Errno::ENOMEM.0,
            Self::Store(_) | Self::TimedOut => Errno::EIO.0,
            Self::Layout(_) | Self::Tables(_) => Errno::ENOSYS.0,
            Self::Stale => wire::ESTALE,
            Self::Ancestors => Errno::E2BIG.0,
            Self::Denied(errno) => errno.0,
            Self::Quota(_) | Self::Gone => Errno::EAGAIN.0,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Xen(error) => error.fmt(out),
            Self::Store(error) => write!(out, "xenstore: {error}"),
            Self::Layout(error) => error.fmt(out),
            Self::Tables(what) => write!(out, "its page tables make no sense: {what}"),
            Self::TooLarge => {
                out.write_str("a child would need more frames than there are numbers for in its p2m list")
            }
            Self::Stale => out.write_str("its memory has changed too much since the domains were prepared"),
            Self::Ancestors => out.write_str("it has frames of too many ancestors"),
            Self::Quota(which) => write!(out, "quota: {which}"),
            Self::NoMemory(reason) => write!(out, "no memory: {reason}"),
            Self::Denied(errno) => write!(out, "denied: {errno}"),
            Self::Gone => out.write_str("it has ended"),
            Self::TimedOut => out.write_str("it took too long"),
        }
    }
}

impl From<xenctl::Error> for Failure {
    fn from(error: xenctl::Error) -> Self {
        Self::Xen(error)
    }
}

impl From<xenstore::Error> for Failure {
    fn from(error: xenstore::Error) -> Self {
        Self::Store(error)
    }
}

impl From<LayoutError> for Failure {
    fn from(error: LayoutError) -> Self {
        Self::Layout(error)
    }
}

impl From<TooLarge> for Failure {
    fn from(_: TooLarge) -> Self {
        Self::TooLarge
    }
}

impl From<Stale> for Failure {
    fn from(_: Stale) -> Self {
        Self::Stale
    }
}
