//! The kernel's services for a network device, as traits; `libos/rt` implements them.

use alloc::string::String;
use core::ops::Range;
use xen_abi::{DomId, Errno, GrantRef, Port};

/// One page that the backend can read and write at any moment.
///
/// Only whole 32-bit words are moved, each exactly once. No reference into the page ever exists,
/// and a checked value is the value that is used.
pub trait SharedPage {
    /// The word at `index` (0 to 1023). Later reads are not moved before it (acquire).
    fn read(&self, index: usize) -> u32;

    /// Sets the word at `index` (0 to 1023). Earlier accesses are not moved after it (release).
    fn write(&self, index: usize, value: u32);
}

/// Memory and event channel that serve one connection to one backend.
///
/// Dropping it ends the access of the backend: it closes the event channel and ends the grants.
/// A page that the backend still has mapped must not be used for anything else until it lets go.
pub trait Link {
    /// The pages that hold the rings.
    type Ring: SharedPage;

    /// The ring of packets to the backend.
    fn tx_ring(&self) -> &Self::Ring;

    /// The ring of packets from the backend.
    fn rx_ring(&self) -> &Self::Ring;

    /// Grant references of the two ring pages: tx, rx (both writable for the backend).
    fn ring_grefs(&self) -> (GrantRef, GrantRef);

    /// Port of the event channel that the backend is to bind.
    fn port(&self) -> Port;

    /// Grant reference of page `page` of the transmit buffer (read-only for the backend).
    fn tx_gref(&self, page: usize) -> GrantRef;

    /// Grant reference of receive page `page` (writable for the backend).
    fn rx_gref(&self, page: usize) -> GrantRef;

    /// A part of the transmit buffer, whose pages are contiguous here. The backend only reads it,
    /// so a slice of it may exist.
    fn tx_bytes(&mut self, range: Range<usize>) -> &mut [u8];

    /// Copies from receive page `page`, starting at `offset`, into `out`. Each byte is read
    /// once. The caller keeps `offset + out.len()` within the page.
    fn rx_copy(&self, page: usize, offset: usize, out: &mut [u8]);

    /// Notifies the backend over the event channel.
    fn notify(&self);
}

/// Makes links.
pub trait Platform {
    /// The link that [`Platform::open`] makes.
    type Link: Link;

    /// Allocates two ring pages, `tx_pages` contiguous transmit pages and `rx_pages` receive
    /// pages, grants them all to domain `backend`, and allocates an event channel for it.
    /// Every event on that channel must lead to a call of [`crate::Stack::poll`].
    ///
    /// # Errors
    /// Memory, grant references or event channels have run out, or Xen refused.
    fn open(&mut self, backend: DomId, tx_pages: usize, rx_pages: usize) -> Result<Self::Link, OutOfResources>;
}

/// The kernel has no resources for a connection to the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfResources;

/// The part of xenstore that a frontend uses. Paths that do not start with `/` are relative to
/// the domain's own directory.
pub trait Xenstore {
    /// The value of the node, or `None` where there is no such node.
    ///
    /// # Errors
    /// Xenstore answered with anything but a value or ENOENT.
    fn read(&mut self, path: &str) -> Result<Option<String>, Errno>;

    /// Sets the value of the node, creating it when needed.
    ///
    /// # Errors
    /// Xenstore answered with an error: EACCES and ENOENT when the toolstack has removed the
    /// device.
    fn write(&mut self, path: &str, value: &str) -> Result<(), Errno>;

    /// Watches the node and all below it. Every event must lead to a call of
    /// [`crate::Stack::xenstore_changed`], and one comes at once. A second watch of the same node
    /// changes nothing.
    ///
    /// # Errors
    /// Xenstore answered with an error.
    fn watch(&mut self, path: &str) -> Result<(), Errno>;

    /// Ends the watch of `path`, if there is one.
    fn unwatch(&mut self, path: &str);
}
