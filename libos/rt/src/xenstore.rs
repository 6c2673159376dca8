//! xenstore: the configuration database that all domains of a host share.
//!
//! A path without a leading `/` is relative to this domain's home, `/local/domain/<domid>`; a
//! domain may write below its `data`. A request blocks only the thread that makes it.

use alloc::string::String;

use zooid_kernel::xenstore;
pub use zooid_kernel::xenstore::{
    Access, Error, Permission, Transaction, list, make_directory, read, remove, set_permissions, transact, write,
};

use crate::time::{Duration, Instant};

/// A watch of a path and the paths below it. Dropping it ends the watch.
pub struct Watch(xenstore::Watch);

/// Watches `path`. The first event comes at once.
///
/// # Errors
/// xenstored's, such as [`Error::NoSpace`] when the domain has too many watches.
pub fn watch(path: &str) -> Result<Watch, Error> {
    xenstore::watch(path).map(Watch)
}

impl Watch {
    /// Waits for the next event and returns the path that changed. Returns `None` when there will
    /// be no more, because xenstored broke the protocol.
    pub fn wait(&mut self) -> Option<String> {
        self.0.wait(None)
    }

    /// As [`Watch::wait`], but returns `None` also when there was no change for `timeout`.
    pub fn wait_timeout(&mut self, timeout: Duration) -> Option<String> {
        self.0.wait(Some((Instant::now() + timeout).system_time()))
    }
}
