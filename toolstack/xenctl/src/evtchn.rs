//! dom0's ports, by Linux's `/dev/xen/evtchn` (xen/sys/evtchn.h).
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use xen_abi::{DomId, Port};

use crate::error::{Error, OpenError};
use crate::hypervisor::Events;
use crate::ioctl::{self, ioctl};

const EVTCHN: &str = "/dev/xen/evtchn";
/// All requests take unsigned integers only.
const BIND_INTERDOMAIN: libc::c_ulong = ioctl::request(b'E', 1, 8);
const BIND_UNBOUND_PORT: libc::c_ulong = ioctl::request(b'E', 2, 4);
const UNBIND: libc::c_ulong = ioctl::request(b'E', 3, 4);
const NOTIFY: libc::c_ulong = ioctl::request(b'E', 4, 4);
/// For the comparison with the C headers.
#[cfg(test)]
pub(crate) const REQUESTS: [u64; 4] = [BIND_INTERDOMAIN, BIND_UNBOUND_PORT, UNBIND, NOTIFY];
/// Number of ports that are read at once.
const AT_ONCE: usize = 64;

/// A set of dom0's ports. A caller that waits for other events too polls its file descriptor: when
/// it can be read, [`wait`](Events::wait) returns at once.
#[derive(Debug)]
pub struct EventChannels {
    device: File,
}

impl EventChannels {
    /// An empty set.
    pub(crate) fn open() -> Result<Self, OpenError> {
        ioctl::open_nonblocking(EVTCHN).map(|device| EventChannels { device })
    }

    /// Makes a request, and returns the kernel's number.
    fn request(&self, name: &'static str, request: libc::c_ulong, mut arguments: [u32; 2]) -> Result<u32, Error> {
        // SAFETY: the kernel reads one or two integers and writes none.
        let result = unsafe { ioctl(&self.device, request, arguments.as_mut_ptr()) };
        result.map(|number| number as u32).map_err(|error| Error::os(name, &error))
    }

    /// Waits until there is something to read; returns false if `deadline` came first.
    fn poll(&self, deadline: Option<Instant>) -> io::Result<bool> {
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let left = left.map(|left| libc::timespec {
                tv_sec: left.as_secs().cast_signed(),
                tv_nsec: left.subsec_nanos().into(),
            });
            let mut entry = libc::pollfd { fd: self.device.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            let timeout = left.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
            // SAFETY: one entry and the time live as long as the call; no signal mask is given.
            match unsafe { libc::ppoll(&raw mut entry, 1, timeout, std::ptr::null()) } {
                0 => return Ok(false),
                1.. => return Ok(true),
                _ => match io::Error::last_os_error() {
                    error if error.kind() == ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
            }
        }
    }
}

impl AsFd for EventChannels {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

impl Events for EventChannels {
    fn bind_interdomain(&self, domain: DomId, remote_port: Port) -> Result<Port, Error> {
        self.request("bind_interdomain", BIND_INTERDOMAIN, [domain.0.into(), remote_port.0]).map(Port)
    }

    fn bind_unbound_port(&self, domain: DomId) -> Result<Port, Error> {
        self.request("bind_unbound_port", BIND_UNBOUND_PORT, [domain.0.into(), 0]).map(Port)
    }

    fn notify(&self, port: Port) -> Result<(), Error> {
        self.request("notify", NOTIFY, [port.0, 0]).map(drop)
    }

    fn unmask(&self, port: Port) -> Result<(), Error> {
        (&self.device).write_all(&port.0.to_ne_bytes()).map_err(|error| Error::os("unmask", &error))
    }

    fn unbind(&self, port: Port) -> Result<(), Error> {
        self.request("unbind", UNBIND, [port.0, 0]).map(drop)
    }

    fn wait(&self, timeout: Option<Duration>) -> Result<Vec<Port>, Error> {
        let failed = |error| Error::os("wait for events", &error);
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        // A caller that does not wait mostly knows already that there is something.
        if timeout != Some(Duration::ZERO) && !self.poll(deadline).map_err(failed)? {
            return Ok(Vec::new());
        }
        let mut octets = [0; AT_ONCE * size_of::<u32>()];
        let count = loop {
            match (&self.device).read(&mut octets) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break 0,
                result => break result.map_err(failed)?,
            }
        };
        let ports = octets[..count].as_chunks().0.iter();
        Ok(ports.map(|octets| Port(u32::from_ne_bytes(*octets))).collect())
    }
}
