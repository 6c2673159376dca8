//! The standstill of a pVM while its tables are read.
//!
//! If an entry of a pVM's own, validated page table names a frame of another domain, pvmd wrote it
//! there, and Xen counts a reference for it. So the entry is Xen's record that the pVM was given
//! this frame, with these rights, and still has it. The record outlives the daemon. A table that
//! the guest has taken out of its tree may hold anything. So entries that name frames of others are
//! read while the guest's vcpus are paused, and from a table in the tree of its cr3
//! ([`Tables::is_live`](super::tables::Tables::is_live)).
//!
//! A killed daemon must not leave a guest paused. A node that only dom0 can write says that there
//! is a pause to be taken back.

use xen_abi::DomId;
use xenctl::xenstore::{Error, Store};
use xenctl::{DomainInfo, Hypervisor};

use super::failure::Failure;

/// Pauses a domain when that is needed, until this is dropped.
pub struct Standstill<'a, H: Hypervisor> {
    xen: &'a H,
    store: &'a Store,
    domain: DomId,
    /// The node exists.
    recorded: bool,
    /// The domain is paused.
    stands: bool,
}

impl<'a, H: Hypervisor> Standstill<'a, H> {
    /// A standstill that has not begun.
    pub fn of(xen: &'a H, store: &'a Store, domain: DomId) -> Self {
        Self { xen, store, domain, recorded: false, stands: false }
    }

    /// Pauses the domain, unless it is paused.
    pub fn begin(&mut self) -> Result<(), Failure> {
        if !self.stands {
            self.recorded = true;
            self.store.write(&node(self.domain), "1")?;
            self.xen.pause(self.domain)?;
            self.stands = true;
        }
        Ok(())
    }
}

impl<H: Hypervisor> Drop for Standstill<'_, H> {
    fn drop(&mut self) {
        // A second attempt: a guest that stays paused hangs.
        if self.stands
            && self.xen.unpause(self.domain).is_err()
            && let Err(error) = self.xen.unpause(self.domain)
        {
            // The node stays, for the next daemon.
            return log::warn!("domain {} stays paused: {error}", self.domain);
        }
        if self.recorded
            && let Err(error) = self.store.remove(&node(self.domain)).or_else(|_| self.store.remove(&node(self.domain)))
            && error != Error::NotFound
        {
            log::debug!("xenstore: {error}");
        }
    }
}

/// The nodes of domains that stand still. They are not in the homes, because a toolstack removes
/// its own at any moment.
const NODES: &str = "/zooid/standstill";

fn node(domain: DomId) -> String {
    format!("{NODES}/{domain}")
}

/// Unpauses domains that an earlier daemon has paused. `all` are the domains that Xen has.
pub fn end_old<H: Hypervisor>(xen: &H, store: &Store, all: &[DomainInfo]) {
    let recorded = match store.list(NODES) {
        Ok(recorded) => recorded,
        Err(Error::NotFound) => {
            if let Err(error) = store.mkdir(NODES) {
                log::warn!("xenstore: {error}");
            }
            return;
        }
        Err(error) => return log::warn!("xenstore: {error}"),
    };
    for domain in recorded.iter().filter_map(|name| name.parse().ok().map(DomId)) {
        let paused = all.iter().any(|info| info.id == domain && !info.is_dying() && info.is_paused());
        if paused && let Err(error) = xen.unpause(domain).or_else(|_| xen.unpause(domain)) {
            log::warn!("domain {domain} stays paused: {error}");
        } else if let Err(error) = store.remove(&node(domain)) {
            log::warn!("xenstore: {error}");
        }
    }
}
