//! Limits: how many pVMs, how much memory, how many forks a second (`Config`).

use std::time::Instant;

use xen_abi::DomId;
use xenctl::Hypervisor;
use zooid_fork_plan::id::PvmId;

use super::config::Quota;
use super::core::{Engine, Job};
use super::failure::Failure;

/// KiB of a page.
const PAGE_KIB: u64 = 4;

/// Forks that are left: so many a second come back, up to that many.
#[derive(Debug)]
pub struct Rate {
    left: f64,
    at: Instant,
}

impl Rate {
    /// One at which all are left.
    pub(super) fn full(limit: u32, now: Instant) -> Self {
        Self { left: limit.into(), at: now }
    }

    /// Takes `count`, if there are so many at a limit of `limit` a second.
    pub(super) fn take(&mut self, count: usize, limit: u32, now: Instant) -> bool {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * f64::from(limit);
        (self.left, self.at) = ((self.left + gained).min(limit.into()), now);
        let enough = self.left >= count as f64;
        if enough {
            self.left -= count as f64;
        }
        enough
    }
}

impl<H: Hypervisor> Engine<H> {
    /// Whether `count` more children may be made now.
    pub(super) fn check_rate(&mut self, domain: DomId, count: usize) -> Result<(), Failure> {
        let root = self.domains.get(&domain).ok_or(Failure::Gone)?.root;
        let now = self.clock.now();
        let limits = [
            (None, self.config.host.forks_per_second, "forks per second on this host"),
            (Some(root), self.config.family.forks_per_second, "forks per second in a family"),
        ];
        for (whose, limit, what) in limits {
            let rate = self.rates.entry(whose).or_insert_with(|| Rate::full(limit, now));
            if !rate.take(count, limit, now) {
                return Err(Failure::Quota(what));
            }
        }
        Ok(())
    }

    /// Whether a family may have `more` pVMs more.
    pub(super) fn check_quota(&self, domain: DomId, more: usize) -> Result<(), Failure> {
        let root = self.domains.get(&domain).ok_or(Failure::Gone)?.root;
        let count = |root: Option<PvmId>| -> usize {
            let members = self.domains.values().filter(|pvm| root.is_none_or(|root| pvm.root == root));
            // Ends that nobody has waited for count: else a pVM that never waits would fill the daemon's memory.
            let there: usize = members.map(|pvm| 1 + pvm.prepared.len() + pvm.ends.len()).sum();
            let parents = self.jobs.iter().filter_map(|job| match job {
                Job::Build(building) => self.domains.get(&building.parent),
                _ => None,
            });
            there + parents.filter(|parent| root.is_none_or(|root| parent.root == root)).count()
        };
        for (quota, root, what) in
            [(self.config.host, None, "pVMs on this host"), (self.config.family, Some(root), "pVMs in a family")]
        {
            if count(root) + more > quota.pvms as usize {
                return Err(Failure::Quota(what));
            }
        }
        Ok(())
    }

    /// Whether a domain of `frames` frames may be prepared for a pVM.
    pub(super) fn check_memory(&self, domain: DomId, frames: u64) -> Result<(), Failure> {
        let pvm = self.domains.get(&domain).ok_or(Failure::Gone)?;
        let free_kib = self.xen.free_pages()? * PAGE_KIB;
        if free_kib < self.config.keep_free_kib + frames * PAGE_KIB {
            return Err(Failure::NoMemory("Xen has too little left"));
        }
        let unlimited = |quota: Quota| quota.memory_kib == u64::MAX;
        if unlimited(self.config.host) && unlimited(self.config.family) {
            return Ok(());
        }
        let all = self.xen.domains()?;
        let used = |root: Option<PvmId>| -> u64 {
            let members = self.domains.values().filter(|pvm| root.is_none_or(|root| pvm.root == root));
            let domains = members
                .flat_map(|pvm| std::iter::once(pvm.domain).chain(pvm.prepared.iter().map(|prepared| prepared.domain)));
            // What relatives share is the memory owner's.
            let memory_owners =
                self.memory_owners.iter().filter(|(family, _)| root.is_none_or(|root| **family == root));
            // What all share is the host's.
            let libraries = self.libraries.as_ref().filter(|_| root.is_none()).map(|libraries| libraries.domain);
            domains
                .chain(memory_owners.map(|(_, memory_owner)| memory_owner.domain))
                .chain(libraries)
                .filter_map(|domain| all.iter().find(|info| info.id == domain))
                .map(|info| info.pages * PAGE_KIB)
                .sum()
        };
        for (quota, root, what) in [
            (self.config.host, None, "memory on this host"),
            (self.config.family, Some(pvm.root), "memory of a family"),
        ] {
            if !unlimited(quota) && used(root) + frames * PAGE_KIB > quota.memory_kib {
                return Err(Failure::Quota(what));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_rate_lets_a_second_through_at_once_and_then_as_many_as_come_back() {
        let start = Instant::now();
        let mut rate = Rate::full(10, start);
        assert!(rate.take(10, 10, start));
        assert!(!rate.take(1, 10, start));
        assert!(!rate.take(2, 10, start + Duration::from_millis(150)));
        assert!(rate.take(1, 10, start + Duration::from_millis(150)));
        assert!(!rate.take(11, 10, start + Duration::from_secs(100)), "never more than a second's");
        assert!(rate.take(10, 10, start + Duration::from_secs(100)));
    }
}
