//! Errors.

use std::fmt;
use std::io;

use xen_abi::Errno;
use xen_abi::grant_table::GrantStatus;

use crate::release::{SUPPORTED, XenVersion};

/// The hypervisor cannot be reached: this is no dom0, the caller is not root, or a module is not
/// loaded.
#[derive(Debug)]
pub struct OpenError {
    pub(crate) path: &'static str,
    pub(crate) cause: io::Error,
}

/// The reason for which Xen, or Linux on the way to it, did not carry out an operation.
#[derive(Debug)]
pub enum Error {
    /// The hypervisor cannot be reached.
    Open(OpenError),
    /// Linux has no memory for the call.
    Memory(io::Error),
    /// The version of an interface of this Xen is unknown: it is too old or too new.
    UnknownInterface {
        /// The interface: `sysctl` or `domctl`.
        interface: &'static str,
        /// The version of Xen, if it tells.
        xen: Option<XenVersion>,
    },
    /// Xen refused the operation of this name, or Linux did with a similar error number.
    Refused(&'static str, Errno),
    /// Xen refused the grant-table operation of this name.
    Grant(&'static str, GrantStatus),
}

impl Error {
    /// The error number, if Xen or Linux gave one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Open(OpenError { cause, .. }) | Self::Memory(cause) => cause.raw_os_error().map(errno),
            Self::Refused(_, errno) => Some(*errno),
            Self::UnknownInterface { .. } | Self::Grant(..) => None,
        }
    }

    /// Linux refused `operation`.
    pub(crate) fn os(operation: &'static str, error: &io::Error) -> Self {
        Self::Refused(operation, error.raw_os_error().map_or(Errno::EIO, errno))
    }
}

fn errno(number: i32) -> Errno {
    Errno(number.unsigned_abs())
}

impl fmt::Display for OpenError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "cannot open {}: {}", self.path, self.cause)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(error) => error.fmt(out),
            Self::Memory(error) => write!(out, "no memory for a hypercall: {error}"),
            Self::UnknownInterface { interface, xen: Some(xen) } => {
                write!(out, "this is Xen {xen}, whose {interface} interface is unknown: Xen {SUPPORTED} is supported")
            }
            Self::UnknownInterface { interface, xen: None } => {
                write!(out, "this Xen's {interface} interface is unknown: Xen {SUPPORTED} is supported")
            }
            Self::Refused(operation, errno) => write!(out, "Xen refused {operation}: {errno}"),
            Self::Grant(operation, status) => write!(out, "Xen refused {operation}: {status}"),
        }
    }
}

impl std::error::Error for OpenError {}
impl std::error::Error for Error {}
