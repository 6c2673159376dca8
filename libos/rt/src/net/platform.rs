//! The kernel's services for the network component.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use xen_abi::{DomId, Errno, GrantRef, PAGE_SIZE, Port};
use zooid_kernel::evtchn::{BoundPort, Event};
use zooid_kernel::gnttab::{GrantedPages, ReadablePages};
use zooid_kernel::xenstore::{self, Error, Watch};
use zooid_net::platform::{Link, OutOfResources, Platform, SharedPage, Xenstore};

/// The kernel, as a network device uses it. All sources signal one event.
pub struct Kernel {
    attention: Arc<Event>,
    watches: Vec<(String, Watch)>,
}

impl Kernel {
    /// Signals `attention` for events of the device and for changes in xenstore.
    pub fn new(attention: Arc<Event>) -> Self {
        Self { attention, watches: Vec::new() }
    }

    /// True if a watched node has changed since the last call.
    pub fn take_changes(&mut self) -> bool {
        let mut changed = false;
        for (_, watch) in &mut self.watches {
            while watch.take().is_some() {
                changed = true;
            }
        }
        changed
    }
}

impl Platform for Kernel {
    type Link = DeviceLink;

    fn open(&mut self, backend: DomId, tx_pages: usize, rx_pages: usize) -> Result<DeviceLink, OutOfResources> {
        let ring = || GrantedPages::new(backend, 1).map(Ring).map_err(|_| OutOfResources);
        Ok(DeviceLink {
            port: BoundPort::alloc_unbound(backend, self.attention.clone()).map_err(|_| OutOfResources)?,
            tx_ring: ring()?,
            rx_ring: ring()?,
            tx: ReadablePages::new(backend, tx_pages).map_err(|_| OutOfResources)?,
            rx: GrantedPages::new(backend, rx_pages).map_err(|_| OutOfResources)?,
        })
    }
}

impl Xenstore for Kernel {
    fn read(&mut self, path: &str) -> Result<Option<String>, Errno> {
        match xenstore::read(path) {
            Ok(value) => Ok(Some(value)),
            Err(Error::NotFound) => Ok(None),
            Err(error) => Err(errno(&error)),
        }
    }

    fn write(&mut self, path: &str, value: &str) -> Result<(), Errno> {
        xenstore::write(path, value).map_err(|error| errno(&error))
    }

    fn watch(&mut self, path: &str) -> Result<(), Errno> {
        if self.watches.iter().all(|(watched, _)| watched != path) {
            let watch = xenstore::watch_with(path, self.attention.clone()).map_err(|error| errno(&error))?;
            self.watches.push((path.into(), watch));
        }
        Ok(())
    }

    fn unwatch(&mut self, path: &str) {
        self.watches.retain(|(watched, _)| watched != path);
    }
}

fn errno(error: &Error) -> Errno {
    match error {
        Error::NotFound => Errno::ENOENT,
        Error::AccessDenied => Errno::EACCES,
        Error::Again => Errno::EAGAIN,
        Error::Exists => Errno::EEXIST,
        Error::NoSpace => Errno::ENOSPC,
        Error::TooLong | Error::Invalid | Error::EmbeddedNul | Error::NotUtf8 => Errno::EINVAL,
        Error::Broken(_) | Error::Other(_) => Errno::EIO,
    }
}

/// Pages and port of one connection to a backend. The port closes first.
pub struct DeviceLink {
    port: BoundPort,
    tx_ring: Ring,
    rx_ring: Ring,
    tx: ReadablePages,
    rx: GrantedPages,
}

/// A page with one ring.
pub struct Ring(GrantedPages);

impl SharedPage for Ring {
    fn read(&self, index: usize) -> u32 {
        self.0.pages().read_u32_acquire(index * size_of::<u32>())
    }

    fn write(&self, index: usize, value: u32) {
        self.0.pages().write_u32_release(index * size_of::<u32>(), value);
    }
}

impl Link for DeviceLink {
    type Ring = Ring;

    fn tx_ring(&self) -> &Ring {
        &self.tx_ring
    }

    fn rx_ring(&self) -> &Ring {
        &self.rx_ring
    }

    fn ring_grefs(&self) -> (GrantRef, GrantRef) {
        (self.tx_ring.0.reference(0), self.rx_ring.0.reference(0))
    }

    fn port(&self) -> Port {
        self.port.port()
    }

    fn tx_gref(&self, page: usize) -> GrantRef {
        self.tx.reference(page)
    }

    fn rx_gref(&self, page: usize) -> GrantRef {
        self.rx.reference(page)
    }

    fn tx_bytes(&mut self, range: Range<usize>) -> &mut [u8] {
        self.tx.bytes(range)
    }

    fn rx_copy(&self, page: usize, offset: usize, out: &mut [u8]) {
        self.rx.pages().copy_out(page * PAGE_SIZE + offset, out);
    }

    fn notify(&self) {
        self.port.notify();
    }
}
