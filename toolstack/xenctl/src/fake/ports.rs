//! Event channels: the ports of all domains.

use std::collections::BTreeMap;

use xen_abi::{DomId, Errno, Port};

/// All ports, by domain and number.
#[derive(Debug, Default)]
pub(super) struct Ports {
    ports: BTreeMap<(DomId, Port), End>,
}

#[derive(Clone, Copy, Debug)]
struct End {
    /// The domain that may bind it, or is bound.
    remote: DomId,
    /// The other end, once there is one.
    bound: Option<Port>,
    pending: bool,
    /// Reported, and not unmasked since; for dom0's ports.
    masked: bool,
    /// The set that it belongs to; for dom0's ports.
    set: u64,
}

impl Ports {
    pub fn count(&self) -> usize {
        self.ports.len()
    }

    /// `EVTCHNOP_alloc_unbound`; the `set` is for ports of dom0.
    pub fn alloc(&mut self, domain: DomId, remote: DomId, limit: u32, set: u64) -> Result<Port, Errno> {
        let free = (1..=limit).map(Port).find(|port| !self.ports.contains_key(&(domain, *port)));
        let port = free.ok_or(Errno::ENOSPC)?;
        self.ports.insert((domain, port), End { remote, bound: None, pending: false, masked: false, set });
        Ok(port)
    }

    /// `EVTCHNOP_bind_interdomain`: an event is pending at once.
    pub fn bind(&mut self, domain: DomId, remote: (DomId, Port), limit: u32, set: u64) -> Result<Port, Errno> {
        let free = self.ports.get(&remote).is_some_and(|end| end.remote == domain && end.bound.is_none());
        if !free {
            return Err(Errno::EINVAL);
        }
        let port = self.alloc(domain, remote.0, limit, set)?;
        let local = self.ports.get_mut(&(domain, port)).expect("just made");
        (local.bound, local.pending) = (Some(remote.1), true);
        self.ports.get_mut(&remote).expect("found before").bound = Some(port);
        Ok(port)
    }

    /// `EVTCHNOP_send`. Without another end the event is lost.
    pub fn send(&mut self, domain: DomId, port: Port) -> Result<(), Errno> {
        let end = *self.ports.get(&(domain, port)).ok_or(Errno::EINVAL)?;
        if let Some(other) = end.bound.and_then(|bound| self.ports.get_mut(&(end.remote, bound))) {
            other.pending = true;
        }
        Ok(())
    }

    /// Closes a port; the other end is then unbound.
    pub fn close(&mut self, domain: DomId, port: Port) -> Result<(), Errno> {
        let end = self.ports.remove(&(domain, port)).ok_or(Errno::EINVAL)?;
        if let Some(other) = end.bound.and_then(|bound| self.ports.get_mut(&(end.remote, bound))) {
            other.bound = None;
        }
        Ok(())
    }

    /// Closes the ports of `domain`; of dom0 only those of a set, when one is named.
    pub fn close_all(&mut self, domain: DomId, set: Option<u64>) {
        let in_set = |end: &End| set.is_none_or(|set| end.set == set);
        let keys = self.ports.iter().filter(|((of, _), end)| *of == domain && in_set(end));
        for (domain, port) in keys.map(|(key, _)| *key).collect::<Vec<_>>() {
            let _ = self.close(domain, port);
        }
    }

    /// The port is one of this set.
    pub fn is_in(&self, domain: DomId, port: Port, set: u64) -> bool {
        self.ports.get(&(domain, port)).is_some_and(|end| end.set == set)
    }

    pub fn unmask(&mut self, domain: DomId, port: Port) {
        if let Some(end) = self.ports.get_mut(&(domain, port)) {
            end.masked = false;
        }
    }

    /// `domain` has an event that [`take`](Self::take) would report.
    pub fn has_events(&self, domain: DomId) -> bool {
        self.ports.iter().any(|((of, _), end)| *of == domain && end.pending && !end.masked)
    }

    /// Takes the events of a domain's ports, or of a set of dom0's, and masks those ports if
    /// `mask`.
    pub fn take(&mut self, domain: DomId, set: u64, mask: bool) -> Vec<Port> {
        let mut taken = Vec::new();
        for ((of, port), end) in &mut self.ports {
            if *of == domain && end.set == set && end.pending && !end.masked {
                (end.pending, end.masked) = (false, mask);
                taken.push(*port);
            }
        }
        taken
    }
}
