//! What can be asked of Xen.

use std::fmt;
use std::io;

use xen_abi::event_channel::EvtchnStat;
use xen_abi::{DomId, Errno};

use crate::privcmd::{CallError, OpenError, Privcmd};
use crate::sysctl::{self, DomainInfo, Request, VERSIONS};

/// Why Xen did not answer.
#[derive(Debug)]
pub enum Error {
    /// No way to the hypervisor.
    Open(OpenError),
    /// Linux has no memory for the call.
    Memory(io::Error),
    /// This Xen's sysctl interface is none of [`VERSIONS`].
    UnknownInterface,
    /// Xen refused the operation.
    Refused(&'static str, Errno),
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(error) => error.fmt(out),
            Self::Memory(error) => write!(out, "no memory for a hypercall: {error}"),
            Self::UnknownInterface => out.write_str("this Xen is too old or too new: 4.17 to 4.22 are known"),
            Self::Refused(operation, errno) => write!(out, "Xen refused {operation}: {errno}"),
        }
    }
}

impl std::error::Error for Error {}

impl Error {
    fn new(operation: &'static str, error: CallError) -> Self {
        match error {
            CallError::Memory(error) => Self::Memory(error),
            CallError::Refused(errno) => Self::Refused(operation, errno),
        }
    }
}

/// The hypervisor.
#[derive(Debug)]
pub struct Xen {
    privcmd: Privcmd,
    /// Of the sysctl interface.
    version: u32,
}

impl Xen {
    /// Opens the way to the hypervisor and finds out which interface it has.
    ///
    /// # Errors
    /// This is no dom0, or Xen's interface is not known.
    pub fn open() -> Result<Self, Error> {
        let mut xen = Xen { privcmd: Privcmd::open().map_err(Error::Open)?, version: 0 };
        for version in VERSIONS {
            xen.version = version;
            match xen.free_pages() {
                Ok(_) => return Ok(xen),
                // What Xen says to another version than its own (xen/common/sysctl.c).
                Err(Error::Refused(_, Errno::EACCES)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::UnknownInterface)
    }

    /// Pages that Xen has free.
    pub fn free_pages(&self) -> Result<u64, Error> {
        Ok(sysctl::free_pages(&self.sysctl("physinfo", Request::physinfo())?))
    }

    /// Every domain, dying ones included.
    pub fn domains(&self) -> Result<Vec<DomainInfo>, Error> {
        let mut all: Vec<DomainInfo> = Vec::new();
        loop {
            let first = DomId(all.last().map_or(0, |last| last.id.0 + 1));
            let more = sysctl::domains(&self.sysctl("getdomaininfolist", Request::domain_list(first))?);
            if more.is_empty() {
                return Ok(all);
            }
            all.extend(more);
        }
    }

    /// Ports of `domain` that are in use.
    pub fn event_channels(&self, domain: DomId) -> Result<usize, Error> {
        let states = self.privcmd.port_states(domain).map_err(|error| Error::new("EVTCHNOP_status", error))?;
        Ok(states.iter().filter(|state| **state != EvtchnStat::CLOSED).count())
    }

    /// What Xen's log says after `key` was pressed, as `xl debug-keys` does; older text comes before it.
    pub fn debug_key(&self, key: u8) -> Result<Vec<u8>, Error> {
        self.sysctl("debug_keys", Request::debug_keys(&[key]))?;
        let mut text = Vec::new();
        let mut position = 0;
        loop {
            let answer = self.sysctl("readconsole", Request::read_console(position))?;
            let (more, next) = sysctl::log(&answer);
            if more.is_empty() {
                return Ok(text);
            }
            text.extend(more);
            position = next;
        }
    }

    /// The answered `request`; `name` is for the error.
    fn sysctl(&self, name: &'static str, mut request: Request) -> Result<Request, Error> {
        self.privcmd.sysctl(self.version, &mut request).map_err(|error| Error::new(name, error))?;
        Ok(request)
    }
}
