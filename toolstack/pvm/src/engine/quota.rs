//! Limits on the number of pVMs, on memory, and on forks in a second (`Config`). A family's own
//! limit is checked before the host's.

use std::collections::BTreeSet;

use xenctl::Hypervisor;
use zooid_fork_plan::id::PvmId;

use super::books::{Books, Prepared, Pvm};
use super::config::Quota;
use super::core::Host;
use super::failure::Failure;
use super::jobs::Job;
use super::sabotage::{self, Sabotage};

/// KiB of a page.
pub(super) const PAGE_KIB: u64 = 4;

impl<H: Hypervisor> Host<H> {
    /// Takes `count` forks from the rates of the family and of the host.
    pub(super) fn take_forks(&mut self, id: PvmId, count: usize) -> Result<(), Failure> {
        let now = self.clock.now();
        let limit = self.config.family.forks_per_second;
        let (_, family) = self.books.with_family(id).ok_or(Failure::Gone)?;
        if !family.account.forks.take(count, limit, now) {
            return Err(Failure::Quota("forks per second in a family"));
        }
        if !self.rate.take(count, self.config.host.forks_per_second, now) {
            family.account.forks.give_back(count);
            return Err(Failure::Quota("forks per second on this host"));
        }
        Ok(())
    }

    /// Gives back forks that were taken and not made.
    pub(super) fn give_back_forks(&mut self, id: PvmId, count: usize) {
        if sabotage::is(Sabotage::KeepForks) {
            return;
        }
        self.rate.give_back(count);
        if let Some((_, family)) = self.books.with_family(id) {
            family.account.forks.give_back(count);
        }
    }

    /// Checks that a family may have `more` pVMs more.
    pub(super) fn check_quota(&self, id: PvmId, more: usize) -> Result<(), Failure> {
        let root = self.root_of(id)?;
        let count = |root: Option<PvmId>| -> usize {
            // Ends that no parent has taken count, too: else a pVM that never waits would fill the
            // daemon's memory.
            let there: usize = of(&self.books, root).map(|pvm| 1 + pvm.prepared.len() + pvm.ends.len()).sum();
            let parents = self.jobs.iter().filter_map(|job| match job {
                Job::Build(building) => self.books.get(building.parent),
                _ => None,
            });
            // Ended pVMs whose frames are still mapped are domains, too.
            let ancestors = of(&self.books, root).flat_map(Pvm::ancestors);
            let dead: BTreeSet<&PvmId> = ancestors.filter(|id| self.books.get(**id).is_none()).collect();
            let builds = parents.filter(|parent| root.is_none_or(|root| parent.root() == root)).count();
            there + dead.len() + builds
        };
        for (quota, root, what) in
            [(self.config.family, Some(root), "pVMs in a family"), (self.config.host, None, "pVMs on this host")]
        {
            if count(root) + more > quota.pvms as usize {
                return Err(Failure::Quota(what));
            }
        }
        Ok(())
    }

    /// Checks that a domain of `frames` frames may be prepared for a pVM.
    pub(super) fn check_memory(&self, id: PvmId, frames: u64) -> Result<(), Failure> {
        let root = self.root_of(id)?;
        let unlimited = |quota: Quota| quota.memory_kib == u64::MAX;
        if !unlimited(self.config.host) || !unlimited(self.config.family) {
            let all = self.xen.domains()?;
            let used = |root: Option<PvmId>| -> u64 {
                let domains = of(&self.books, root)
                    .flat_map(|pvm| std::iter::once(pvm.domain()).chain(pvm.prepared.iter().map(Prepared::domain)));
                // Memory that relatives share belongs to the memory owner.
                let families = self.books.families().filter(|(family, _)| root.is_none_or(|root| *family == root));
                let memory_owners = families.filter_map(|(_, family)| Some(family.memory_owner.as_ref()?.domain));
                // Memory that all families share belongs to the host.
                let libraries = self.books.libraries().filter(|_| root.is_none()).map(|libraries| libraries.domain);
                domains
                    .chain(memory_owners)
                    .chain(libraries)
                    .filter_map(|domain| all.iter().find(|info| info.id == domain))
                    .map(|info| info.pages * PAGE_KIB)
                    .sum()
            };
            for (quota, root, what) in [
                (self.config.family, Some(root), "memory of a family"),
                (self.config.host, None, "memory on this host"),
            ] {
                if !unlimited(quota) && used(root) + frames * PAGE_KIB > quota.memory_kib {
                    return Err(Failure::Quota(what));
                }
            }
        }
        let free_kib = self.xen.free_pages()? * PAGE_KIB;
        if free_kib < self.config.keep_free_kib + frames * PAGE_KIB {
            return Err(Failure::NoMemory("Xen has too little left"));
        }
        Ok(())
    }

    /// Checks that dom0 may have `tables` page tables of guests more for a family. It keeps a
    /// parent's tables mapped, and a copy of them for each linked domain.
    pub(super) fn check_tables(&self, id: PvmId, tables: usize) -> Result<(), Failure> {
        let root = self.root_of(id)?;
        let of_pvm = |pvm: &Pvm<H::Memory>| {
            let linked = pvm.linkage.iter().chain(pvm.prepared.iter().map(|prepared| &prepared.linkage));
            let linked: usize = linked.map(|linkage| linkage.bases().count()).sum();
            linked + pvm.forking.as_ref().map_or(0, |forking| forking.tables.count())
        };
        let used: usize = self.books.members(root).map(of_pvm).sum();
        if (used + tables) as u64 * PAGE_KIB > self.config.family_tables_kib {
            return Err(Failure::Quota("page tables of a family in dom0"));
        }
        Ok(())
    }
}

/// The living pVMs of a family, or of the host.
fn of<M>(books: &Books<M>, root: Option<PvmId>) -> impl Iterator<Item = &Pvm<M>> {
    books.iter().filter(move |pvm| root.is_none_or(|root| pvm.root() == root))
}
