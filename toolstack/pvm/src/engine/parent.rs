//! A pVM's state as a parent: its layout and its tables.

use xen_abi::{DomId, GrantRef, PAGE_SIZE};
use xenctl::{Hypervisor, Memory};
use zooid_fork_plan::id::PvmId;
use zooid_fork_plan::layout::Layout;
use zooid_fork_plan::link::Backend;
use zooid_fork_plan::wire::{self, guest};

use super::books::{Forking, Profile};
use super::config::Overcommit;
use super::core::Host;
use super::executor::Operation;
use super::failure::Failure;
use super::grant_backend::Sources;
use super::tables::Tables;

impl<H: Hypervisor> Host<H> {
    /// Gives a pVM the state of a parent, if it has none.
    pub(super) fn ensure_forking(&mut self, id: PvmId) -> Result<(), Failure> {
        let domain = id.domain();
        let pvm = self.books.get(id).ok_or(Failure::Gone)?;
        if pvm.forking.is_some() {
            return Ok(());
        }
        let channel = pvm.channel.as_ref().ok_or(Failure::Gone)?;
        let info = self.xen.domain_info(domain)?.ok_or(Failure::Gone)?;
        let mut page = [0; PAGE_SIZE];
        channel.page.copy_out(0, &mut page);
        let layout = Layout::parse(&page, info.max_pages)?;
        let profile = Profile {
            cpupool: info.cpupool,
            tsc: self.xen.tsc_info(domain)?,
            policy: self.xen.cpu_policy(domain)?,
            sched: self.xen.sched_params(domain).ok(),
        };
        let sources = match self.backend {
            Backend::Foreign => None,
            Backend::Grant => match channel.get(guest::GRANTS) {
                // The guest did not know that it has to grant its pages.
                0 => return Err(Failure::Stale),
                reference => Some(Sources::map(&*self.xen, domain, GrantRef(reference))?),
            },
        };
        let tables = self.tables_of(id, layout.p2m_entries)?;
        self.executor.before(Operation::MakeRoom);
        let result = self.make_room(id, layout.p2m_entries as u64);
        self.executor.after(Operation::MakeRoom);
        result?;
        let never_forks =
            self.books.get(id).and_then(|pvm| pvm.channel.as_ref()).is_some_and(|it| it.get(guest::NO_CHILDREN) != 0);
        let pool = if never_forks { 0 } else { self.config.pool };
        let pvm = self.books.get_mut(id).ok_or(Failure::Gone)?;
        pvm.forking = Some(Forking { layout, tables, profile, sources, pool });
        Ok(())
    }

    /// The backend's number in the control page.
    pub(super) fn backend_number(&self) -> u32 {
        match self.backend {
            Backend::Foreign => wire::backend::FOREIGN,
            Backend::Grant => wire::backend::GRANT,
        }
    }

    /// Maps pages that a parent has granted since the last time, if children get copies.
    pub(super) fn update_sources(&mut self, id: PvmId) -> Result<(), Failure> {
        let forking = self.books.get_mut(id).and_then(|pvm| pvm.forking.as_mut()).ok_or(Failure::Gone)?;
        forking.sources.as_mut().map_or(Ok(()), |sources| sources.update(&*self.xen, id.domain()))
    }

    /// Reads the tables of a pVM that has `frames` frames.
    fn tables_of(&self, id: PvmId, frames: usize) -> Result<Tables<H::Memory>, Failure> {
        let channel = self.books.get(id).and_then(|pvm| pvm.channel.as_ref()).ok_or(Failure::Gone)?;
        let counted = channel.get(guest::TABLES);
        let context = self.xen.vcpu_context(id.domain(), 0)?;
        let tables = Tables::read(&*self.xen, id.domain(), context.ctrlreg[3], most_tables(frames), counted)?;
        // They replace the tables that are known of it.
        let known = self.books.get(id).and_then(|pvm| pvm.forking.as_ref()).map_or(0, |it| it.tables.count());
        self.check_tables(id, tables.count().saturating_sub(known))?;
        Ok(tables)
    }

    /// Reads a parent's tables anew.
    pub(super) fn read_tables(&mut self, id: PvmId) -> Result<(), Failure> {
        let limit = self.books.get(id).and_then(|pvm| pvm.forking.as_ref()).ok_or(Failure::Gone)?.layout.p2m_entries;
        let tables = self.tables_of(id, limit)?;
        if let Some(forking) = self.books.get_mut(id).and_then(|pvm| pvm.forking.as_mut()) {
            forking.tables = tables;
        }
        Ok(())
    }

    /// Raises a parent's limit so that it can copy all its `frames`. Those that it copied away from
    /// count for it for as long as a descendant reads them.
    fn make_room(&mut self, id: PvmId, frames: u64) -> Result<(), Failure> {
        let domain = id.domain();
        let info = self.xen.domain_info(domain)?.ok_or(Failure::Gone)?;
        let wanted = info.pages + self.room(frames);
        if info.max_pages < wanted {
            self.xen.set_max_mem(domain, wanted * (PAGE_SIZE as u64 / 1024))?;
        }
        self.claim(domain, wanted)
    }

    /// Frames beyond its own that a domain of `frames` frames may have. Frames that it has copied
    /// away from count as its own while descendants read them, once for each fork after which they
    /// were written.
    pub(super) fn room(&self, frames: u64) -> u64 {
        const GENERATIONS: u64 = 16;
        let quota = self.config.family.memory_kib / (PAGE_SIZE as u64 / 1024);
        match self.config.overcommit {
            Overcommit::Always => (frames * GENERATIONS).min(quota).max(frames),
            Overcommit::Never => frames,
        }
    }

    /// Without overcommitment, has Xen keep enough memory free for the domain to have `pages`
    /// pages.
    pub(super) fn claim(&self, domain: DomId, pages: u64) -> Result<(), Failure> {
        match self.config.overcommit {
            Overcommit::Always => Ok(()),
            Overcommit::Never => Ok(self.xen.claim_pages(domain, pages)?),
        }
    }
}

/// Most tables of level 1 of a guest that has so many frames: 32 times as many as map each of them
/// once, to allow for shared memory and zones that are hardly used. dom0 maps no more than these,
/// whatever the guest claims.
const fn most_tables(frames: usize) -> usize {
    frames / 16 + 64
}
