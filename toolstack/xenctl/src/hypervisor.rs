//! The services of the hypervisor for a daemon, as traits. [`Xen`](crate::Xen) is the real one,
//! [`fake::FakeXen`](crate::fake::FakeXen) is one in memory for tests.
//!
//! Errors are the same on all [`RELEASES`](crate::RELEASES). Each method names those that a caller may want to
//! distinguish.

use std::time::Duration;

use xen_abi::xen::{MmuUpdate, MmuextOp};
use xen_abi::{DomId, GrantRef, Mfn, Pfn, Port};

use crate::domain::{CpuPolicy, CreateDomain, DomainInfo, SchedParams, TscInfo};
use crate::error::Error;
use crate::vcpu::VcpuGuestContext;

/// The access to mapped frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Reading.
    Read,
    /// Reading and writing. Xen refuses it for page tables.
    ReadWrite,
}

/// The hypervisor, and dom0's access to other domains' memory and events.
pub trait Hypervisor: Send + Sync + 'static {
    /// Mapped frames of another domain.
    type Memory: Memory;
    /// dom0's ports.
    type Events: Events;

    /// Pages that Xen has free (`XEN_SYSCTL_physinfo`).
    fn free_pages(&self) -> Result<u64, Error>;

    /// Every domain, dying ones included (`XEN_SYSCTL_getdomaininfolist`).
    fn domains(&self) -> Result<Vec<DomainInfo>, Error>;

    /// Xen's report of `domain`; `None` if there is no such domain (`XEN_DOMCTL_getdomaininfo`).
    fn domain_info(&self, domain: DomId) -> Result<Option<DomainInfo>, Error>;

    /// Makes a PV domain without memory or vcpus, paused once (`XEN_DOMCTL_createdomain`). `ENOMEM`
    /// if there is no memory, or no number left.
    fn create_domain(&self, config: &CreateDomain) -> Result<DomId, Error>;

    /// Makes its vcpus, as many as it was created for (`XEN_DOMCTL_max_vcpus`). Before that, Xen
    /// refuses [`mmu_update`](Self::mmu_update) of its tables.
    fn max_vcpus(&self, domain: DomId, count: u32) -> Result<(), Error>;

    /// Limits its memory to `kib` KiB (`XEN_DOMCTL_max_mem`). Pages that it gave back while other
    /// domains map them still count.
    fn set_max_mem(&self, domain: DomId, kib: u64) -> Result<(), Error>;

    /// Pauses it, once per call, and returns when none of its vcpus runs
    /// (`XEN_DOMCTL_pausedomain`).
    fn pause(&self, domain: DomId) -> Result<(), Error>;

    /// Undoes one pause (`XEN_DOMCTL_unpausedomain`); `EINVAL` if there is none.
    fn unpause(&self, domain: DomId) -> Result<(), Error>;

    /// Ends it and frees its memory, in as many steps as Xen needs (`XEN_DOMCTL_destroydomain`). It
    /// stays as a dying domain for as long as any of its frames is mapped.
    fn destroy(&self, domain: DomId) -> Result<(), Error>;

    /// Sets its UUID (`XEN_DOMCTL_setdomainhandle`).
    fn set_handle(&self, domain: DomId, handle: &[u8; 16]) -> Result<(), Error>;

    /// Loads the state of a vcpu (`XEN_DOMCTL_setvcpucontext`). The second time for a vcpu, cr3 and
    /// the descriptor tables must be its present ones, else `EOPNOTSUPP`.
    fn set_vcpu_context(&self, domain: DomId, vcpu: u32, context: &VcpuGuestContext) -> Result<(), Error>;

    /// The state of a vcpu (`XEN_DOMCTL_getvcpucontext`); `ENODATA` before it was first loaded.
    fn vcpu_context(&self, domain: DomId, vcpu: u32) -> Result<VcpuGuestContext, Error>;

    /// Its time-stamp counter (`XEN_DOMCTL_gettscinfo`).
    fn tsc_info(&self, domain: DomId) -> Result<TscInfo, Error>;

    /// Sets its time-stamp counter (`XEN_DOMCTL_settscinfo`).
    fn set_tsc_info(&self, domain: DomId, info: &TscInfo) -> Result<(), Error>;

    /// The processor that it sees (`XEN_DOMCTL_get_cpu_policy`).
    fn cpu_policy(&self, domain: DomId) -> Result<CpuPolicy, Error>;

    /// Sets the processor that it sees (`XEN_DOMCTL_set_cpu_policy`); `EEXIST` once it has run.
    fn set_cpu_policy(&self, domain: DomId, policy: &CpuPolicy) -> Result<(), Error>;

    /// Its share of the processors (`XEN_DOMCTL_scheduler_op`); `EINVAL` if its scheduler has no
    /// weights.
    fn sched_params(&self, domain: DomId) -> Result<SchedParams, Error>;

    /// Sets its share of the processors (`XEN_DOMCTL_scheduler_op`).
    fn set_sched_params(&self, domain: DomId, params: &SchedParams) -> Result<(), Error>;

    /// Reserves free memory so that the domain can grow to `pages` pages (`XENMEM_claim_pages`).
    /// `ENOMEM` if there is not enough, `EINVAL` above its limit or below its present size. 0 ends
    /// the claim, as does the domain's end. Pages that the domain gives back raise what is left of
    /// its claim on 4.17 and 4.18, and do not from 4.19 on.
    fn claim_pages(&self, domain: DomId, pages: u64) -> Result<(), Error>;

    /// Gives it memory: 2^`order` frames for each of `pfns`, which is the pfn of the first
    /// (`XENMEM_populate_physmap`). Returns the first frame of each. The machine-to-physical table
    /// is set.
    ///
    /// # Errors
    /// `ENOMEM` if there was not enough memory for all of them; the frames before stay the
    /// domain's.
    fn populate_physmap(&self, domain: DomId, order: u32, pfns: &[Pfn]) -> Result<Vec<Mfn>, Error>;

    /// Takes frames from it (`XENMEM_decrease_reservation`), and returns their number, which is
    /// lower than asked for if one of them is not its own. A mapped frame is freed when it is no
    /// longer mapped.
    fn decrease_reservation(&self, domain: DomId, frames: &[Mfn]) -> Result<usize, Error>;

    /// Changes page-table entries in tables of `pt_owner`, which name frames of `pg_owner`
    /// (`mmu_update`). Both may be one domain. Returns the number of updates before the first
    /// refused one, and the error of that one.
    ///
    /// An update of the machine-to-physical table needs dom0 as `pt_owner`, and the frame's owner
    /// as `pg_owner`.
    ///
    /// The domain's TLB is flushed only for levels above 1. An L1 entry for another owner's frame
    /// can be read-only without further steps; `EBUSY` means that the frame is not `pg_owner`'s
    /// (any more).
    fn mmu_update(&self, pt_owner: DomId, pg_owner: DomId, updates: &[MmuUpdate]) -> (usize, Result<(), Error>);

    /// Pins and unpins its page tables (`mmuext_op`). Returns the number of operations before the
    /// first refused one, and the error of that one.
    fn mmuext_op(&self, domain: DomId, operations: &[MmuextOp]) -> (usize, Result<(), Error>);

    /// Grows its grant table to `frames` frames and returns all of them (`GNTTABOP_setup_table`).
    fn grant_table_setup(&self, domain: DomId, frames: u32) -> Result<Vec<Mfn>, Error>;

    /// Makes a port in `domain` that `remote` may bind (`EVTCHNOP_alloc_unbound`).
    fn alloc_unbound(&self, domain: DomId, remote: DomId) -> Result<Port, Error>;

    /// Closes all its ports (`EVTCHNOP_reset`); it must be paused, else `EINVAL`.
    fn evtchn_reset(&self, domain: DomId) -> Result<(), Error>;

    /// Maps frames of a domain, in a row, until the value is dropped; all or nothing.
    fn map_foreign(&self, domain: DomId, frames: &[Mfn], protection: Protection) -> Result<Self::Memory, Error>;

    /// Maps pages that a domain granted to dom0, in a row, until the value is dropped; all or
    /// nothing. The granting domain cannot take a mapped grant back, and its end does not take the
    /// pages away.
    fn map_grants(&self, domain: DomId, refs: &[GrantRef], protection: Protection) -> Result<Self::Memory, Error>;

    /// A new set of ports, closed when it is dropped.
    fn events(&self) -> Result<Self::Events, Error>;
}

/// Mapped frames of another domain, which may change them at any time. Two reads of the same octets
/// may differ.
///
/// Offsets are octets from the start of the first page.
///
/// # Panics
/// All accesses, if they are not inside the mapping, not aligned to their own size, or write to a
/// mapping for reading. The caller first checks offsets that depend on a guest.
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
    /// Binds a port to `remote_port` of `domain`, which was made for dom0. An event is pending at
    /// once.
    fn bind_interdomain(&self, domain: DomId, remote_port: Port) -> Result<Port, Error>;

    /// Makes a port that `domain` may bind.
    fn bind_unbound_port(&self, domain: DomId) -> Result<Port, Error>;

    /// Sends an event to the other end.
    fn notify(&self, port: Port) -> Result<(), Error>;

    /// Lets the port report again. It does not report after [`wait`](Self::wait) has returned it.
    fn unmask(&self, port: Port) -> Result<(), Error>;

    /// Closes the port. A pending report is dropped.
    fn unbind(&self, port: Port) -> Result<(), Error>;

    /// Waits for events, and returns the ports that have some; none if `timeout` was over first.
    fn wait(&self, timeout: Option<Duration>) -> Result<Vec<Port>, Error>;
}
