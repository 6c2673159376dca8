//! What a daemon asks of the hypervisor, as traits: [`Xen`](crate::Xen) is the real one, [`fake::FakeXen`](crate::fake::FakeXen)
//! is one in memory for tests.
//!
//! Errors are those of Xen 4.17 to 4.22; each method names the ones that a caller may want to tell apart.

use std::time::Duration;

use xen_abi::xen::{MmuUpdate, MmuextOp};
use xen_abi::{DomId, GrantRef, Mfn, Pfn, Port};

use crate::domain::{CpuPolicy, CreateDomain, DomainInfo, SchedParams, TscInfo};
use crate::error::Error;
use crate::vcpu::VcpuGuestContext;

/// What may be done with mapped frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Reading.
    Read,
    /// Reading and writing. Xen refuses it for page tables.
    ReadWrite,
}

/// The hypervisor, and dom0's ways to other domains' memory and events.
pub trait Hypervisor: Send + Sync + 'static {
    /// Mapped frames of another domain.
    type Memory: Memory;
    /// dom0's ports.
    type Events: Events;

    /// Pages that Xen has free (`XEN_SYSCTL_physinfo`).
    fn free_pages(&self) -> Result<u64, Error>;

    /// Every domain, dying ones included (`XEN_SYSCTL_getdomaininfolist`).
    fn domains(&self) -> Result<Vec<DomainInfo>, Error>;

    /// What Xen knows of `domain`; nothing when there is no such domain (`XEN_DOMCTL_getdomaininfo`).
    fn domain_info(&self, domain: DomId) -> Result<Option<DomainInfo>, Error>;

    /// Makes a PV domain without memory or vcpus, paused once (`XEN_DOMCTL_createdomain`).
    fn create_domain(&self, config: &CreateDomain) -> Result<DomId, Error>;

    /// Makes its vcpus, as many as it was created for (`XEN_DOMCTL_max_vcpus`). Before that, [`mmu_update`](Self::mmu_update) of
    /// its tables is refused.
    fn max_vcpus(&self, domain: DomId, count: u32) -> Result<(), Error>;

    /// Limits its memory to `kib` KiB (`XEN_DOMCTL_max_mem`). The pages that it gave back while others map them still count.
    fn set_max_mem(&self, domain: DomId, kib: u64) -> Result<(), Error>;

    /// Pauses it, as often as is called, and returns when none of its vcpus runs (`XEN_DOMCTL_pausedomain`).
    fn pause(&self, domain: DomId) -> Result<(), Error>;

    /// Takes back one pause (`XEN_DOMCTL_unpausedomain`); `EINVAL` when there is none.
    fn unpause(&self, domain: DomId) -> Result<(), Error>;

    /// Ends it and frees its memory, in as many steps as Xen needs (`XEN_DOMCTL_destroydomain`). It stays as a dying domain for
    /// as long as anyone maps a frame of it.
    fn destroy(&self, domain: DomId) -> Result<(), Error>;

    /// Sets its UUID (`XEN_DOMCTL_setdomainhandle`).
    fn set_handle(&self, domain: DomId, handle: &[u8; 16]) -> Result<(), Error>;

    /// Loads the state of a vcpu (`XEN_DOMCTL_setvcpucontext`). The second time for a vcpu, cr3 and the descriptor tables must be
    /// those that it has, else `EOPNOTSUPP`.
    fn set_vcpu_context(&self, domain: DomId, vcpu: u32, context: &VcpuGuestContext) -> Result<(), Error>;

    /// The state of a vcpu (`XEN_DOMCTL_getvcpucontext`); `ENODATA` before it was first loaded.
    fn vcpu_context(&self, domain: DomId, vcpu: u32) -> Result<VcpuGuestContext, Error>;

    /// How it sees the time-stamp counter (`XEN_DOMCTL_gettscinfo`).
    fn tsc_info(&self, domain: DomId) -> Result<TscInfo, Error>;

    /// Sets how it sees the time-stamp counter (`XEN_DOMCTL_settscinfo`).
    fn set_tsc_info(&self, domain: DomId, info: &TscInfo) -> Result<(), Error>;

    /// What it is told about its processor (`XEN_DOMCTL_get_cpu_policy`).
    fn cpu_policy(&self, domain: DomId) -> Result<CpuPolicy, Error>;

    /// Sets what it is told about its processor (`XEN_DOMCTL_set_cpu_policy`); `EEXIST` once it has run.
    fn set_cpu_policy(&self, domain: DomId, policy: &CpuPolicy) -> Result<(), Error>;

    /// Its share of the processors (`XEN_DOMCTL_scheduler_op`); `EINVAL` when its scheduler has no weights.
    fn sched_params(&self, domain: DomId) -> Result<SchedParams, Error>;

    /// Sets its share of the processors (`XEN_DOMCTL_scheduler_op`).
    fn set_sched_params(&self, domain: DomId, params: &SchedParams) -> Result<(), Error>;

    /// Reserves free memory so that the domain can grow to `pages` pages (`XENMEM_claim_pages`); `ENOMEM` when there is not so
    /// much, `EINVAL` above its limit or below what it has. 0 ends the claim, as does the domain's end.
    fn claim_pages(&self, domain: DomId, pages: u64) -> Result<(), Error>;

    /// Gives it memory: 2^`order` frames for each of `pfns`, which is the pfn of the first (`XENMEM_populate_physmap`). The first
    /// frame of each comes back. The machine-to-physical table is set.
    ///
    /// # Errors
    /// `ENOMEM` when there was not enough for all of it: what came before stays the domain's.
    fn populate_physmap(&self, domain: DomId, order: u32, pfns: &[Pfn]) -> Result<Vec<Mfn>, Error>;

    /// Takes frames from it (`XENMEM_decrease_reservation`), and returns how many that were: less than asked when one of them is
    /// not its own. Where somebody maps a frame, it is freed when the last one does no longer.
    fn decrease_reservation(&self, domain: DomId, frames: &[Mfn]) -> Result<usize, Error>;

    /// Changes page-table entries in tables of `pt_owner`, which name frames of `pg_owner` (`mmu_update`); both may be one domain.
    /// Returns how many were done, all before the first that was refused, and why that one was.
    ///
    /// An update of the machine-to-physical table needs dom0 as `pt_owner`, and the frame's owner as `pg_owner`.
    ///
    /// The domain's TLB is flushed for levels above 1 only. An L1 entry for another owner's frame can be read-only without more
    /// ado; `EBUSY` means that the frame is not `pg_owner`'s (any more).
    fn mmu_update(&self, pt_owner: DomId, pg_owner: DomId, updates: &[MmuUpdate]) -> (usize, Result<(), Error>);

    /// Pins and unpins its page tables (`mmuext_op`). Returns how many were done, and why the next was not.
    fn mmuext_op(&self, domain: DomId, operations: &[MmuextOp]) -> (usize, Result<(), Error>);

    /// Grows its grant table to `frames` frames and tells all of them (`GNTTABOP_setup_table`).
    fn grant_table_setup(&self, domain: DomId, frames: u32) -> Result<Vec<Mfn>, Error>;

    /// Makes a port in `domain` that `remote` may bind (`EVTCHNOP_alloc_unbound`).
    fn alloc_unbound(&self, domain: DomId, remote: DomId) -> Result<Port, Error>;

    /// Closes all its ports (`EVTCHNOP_reset`); it must be paused, else `EINVAL`.
    fn evtchn_reset(&self, domain: DomId) -> Result<(), Error>;

    /// Maps frames of a domain, one behind the other, until the value is dropped. All or nothing.
    fn map_foreign(&self, domain: DomId, frames: &[Mfn], protection: Protection) -> Result<Self::Memory, Error>;

    /// Maps what a domain granted to dom0, one page behind the other, until the value is dropped. All or nothing. The granting
    /// domain cannot take a mapped grant back, and its end does not take the pages away.
    fn map_grants(&self, domain: DomId, refs: &[GrantRef], protection: Protection) -> Result<Self::Memory, Error>;

    /// A new set of ports, closed when it is dropped.
    fn events(&self) -> Result<Self::Events, Error>;
}

/// Mapped frames of another domain, which may change them at any time: nothing that is read twice need be the same.
///
/// Offsets are octets from the start of the first page.
///
/// # Panics
/// All accesses, when they are not inside the mapping, not aligned to their own size, or write to what is mapped for reading:
/// check offsets that a guest had a say in before.
pub trait Memory: Send + Sync + 'static {
    /// Octets that are mapped.
    fn size(&self) -> usize;

    /// Reads an integer in one access; later accesses stay behind it.
    fn read_u32(&self, offset: usize) -> u32;

    /// Writes an integer in one access; earlier accesses stay before it.
    fn write_u32(&self, offset: usize, value: u32);

    /// As [`read_u32`](Self::read_u32).
    fn read_u64(&self, offset: usize) -> u64;

    /// As [`write_u32`](Self::write_u32).
    fn write_u64(&self, offset: usize, value: u64);

    /// Copies to private memory.
    fn copy_out(&self, offset: usize, to: &mut [u8]);

    /// Copies little-endian words, such as page-table entries, to private memory.
    fn copy_words_out(&self, offset: usize, to: &mut [u64]);

    /// Copies from private memory.
    fn copy_in(&self, offset: usize, from: &[u8]);

    /// Copies one page to a page of another mapping, which may be the same page.
    fn copy_page(&self, from_page: usize, to: &Self, to_page: usize);
}

/// dom0's end of event channels.
pub trait Events: Send + Sync + 'static {
    /// Binds a port to `remote_port` of `domain`, which was made for dom0. An event is pending at once.
    fn bind_interdomain(&self, domain: DomId, remote_port: Port) -> Result<Port, Error>;

    /// Makes a port that `domain` may bind.
    fn bind_unbound_port(&self, domain: DomId) -> Result<Port, Error>;

    /// Sends an event to the other end.
    fn notify(&self, port: Port) -> Result<(), Error>;

    /// Lets the port report again: it does not, after [`wait`](Self::wait) has returned it.
    fn unmask(&self, port: Port) -> Result<(), Error>;

    /// Closes the port. What it has reported and nobody has taken is forgotten.
    fn unbind(&self, port: Port) -> Result<(), Error>;

    /// Waits for events, and returns the ports that have some. None when `timeout` was over first.
    fn wait(&self, timeout: Option<Duration>) -> Result<Vec<Port>, Error>;
}
