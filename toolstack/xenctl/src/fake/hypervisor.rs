//! [`FakeXen`] as a [`Hypervisor`].

use xen_abi::grant_table::{GrantFlags, GrantStatus};
use xen_abi::xen::{MmuUpdate, MmuextCmd, MmuextOp};
use xen_abi::{DomId, Errno, GrantRef, Mfn, PAGE_SIZE, Pfn, Port};

use super::FakeXen;
use super::process::{FakeEvents, FakeMapping};
use super::state::{GRANT_FRAMES, Mapped, State};
use crate::domain::{CpuPolicy, CreateDomain, DomainInfo, SchedParams, TscInfo};
use crate::error::Error;
use crate::hypervisor::{Hypervisor, Protection};
use crate::vcpu::VcpuGuestContext;

impl FakeXen {
    fn mapping(&self, number: u64, pages: usize, protection: Protection) -> FakeMapping {
        let writable = protection == Protection::ReadWrite;
        FakeMapping { fake: self.clone(), number, size: pages * PAGE_SIZE, writable }
    }

    /// Does an operation that counts its finished parts.
    fn batch(
        &self,
        name: &'static str,
        body: impl FnOnce(&mut State) -> (usize, Result<(), Errno>),
    ) -> (usize, Result<(), Error>) {
        match self.operate(name, |state| Ok(body(state))) {
            Ok((done, result)) => (done, result.map_err(|errno| Error::Refused(name, errno))),
            Err(error) => (0, Err(error)),
        }
    }
}

/// Does `each` until it fails.
pub(super) fn count<T>(items: &[T], mut each: impl FnMut(&T) -> Result<(), Errno>) -> (usize, Result<(), Errno>) {
    for (done, item) in items.iter().enumerate() {
        if let Err(errno) = each(item) {
            return (done, Err(errno));
        }
    }
    (items.len(), Ok(()))
}

impl State {
    pub(super) fn mmuext(&mut self, domain: DomId, operation: &MmuextOp) -> Result<(), Errno> {
        let frame = Mfn(operation.arg1);
        let mut pin = |level| {
            self.frames.pin(frame, domain, level)?;
            // Xen takes it back at once, because no other reference would.
            if self.domain(domain)?.dying { self.frames.unpin(frame, domain) } else { Ok(()) }
        };
        match operation.cmd {
            MmuextCmd::PIN_L1_TABLE => pin(1),
            MmuextCmd::PIN_L2_TABLE => pin(2),
            MmuextCmd::PIN_L3_TABLE => pin(3),
            MmuextCmd::PIN_L4_TABLE => pin(4),
            MmuextCmd::UNPIN_TABLE => self.frames.unpin(frame, domain),
            MmuextCmd::CLEAR_PAGE => self.frames.clear(frame, domain),
            _ => Err(Errno::ENOSYS),
        }
    }

    /// The frame that a grant gives to dom0.
    fn granted(&self, domain: DomId, gref: GrantRef, writable: bool) -> Result<Mfn, Errno> {
        let entry = self.read_grant(self.grant_entry(domain, gref).ok_or(Errno::EINVAL)?);
        let permitted = entry.flags & GrantFlags::TYPE_MASK == GrantFlags::PERMIT_ACCESS
            && entry.domid == DomId::DOM0
            && !(writable && entry.flags.contains(GrantFlags::READONLY));
        if permitted { Ok(Mfn(entry.frame.into())) } else { Err(Errno::EINVAL) }
    }
}

impl Hypervisor for FakeXen {
    type Memory = FakeMapping;
    type Events = FakeEvents;

    fn free_pages(&self) -> Result<u64, Error> {
        self.operate("physinfo", |state| Ok(state.free_pages()))
    }

    fn domains(&self) -> Result<Vec<DomainInfo>, Error> {
        self.operate("getdomaininfolist", |state| Ok(state.domains.keys().filter_map(|id| state.info(*id)).collect()))
    }

    fn domain_info(&self, domain: DomId) -> Result<Option<DomainInfo>, Error> {
        self.operate("getdomaininfo", |state| Ok(state.info(domain)))
    }

    fn create_domain(&self, config: &CreateDomain) -> Result<DomId, Error> {
        self.operate("createdomain", |state| state.create_domain(config))
    }

    fn max_vcpus(&self, domain: DomId, count: u32) -> Result<(), Error> {
        self.operate("max_vcpus", |state| {
            let domain = state.domain(domain)?;
            if count != domain.config.max_vcpus {
                return Err(Errno::EINVAL);
            }
            domain.vcpus = count;
            Ok(())
        })
    }

    fn set_max_mem(&self, domain: DomId, kib: u64) -> Result<(), Error> {
        self.operate("max_mem", |state| {
            state.domain(domain)?.max_pages = kib / 4;
            Ok(())
        })
    }

    fn pause(&self, domain: DomId) -> Result<(), Error> {
        self.operate("pausedomain", |state| {
            /// Xen's limit for a toolstack.
            const MOST: u32 = 255;
            let domain = state.domain(domain)?;
            if domain.pauses == MOST {
                return Err(Errno::EOVERFLOW);
            }
            domain.pauses += 1;
            Ok(())
        })
    }

    fn unpause(&self, domain: DomId) -> Result<(), Error> {
        self.operate("unpausedomain", |state| {
            let domain = state.domain(domain)?;
            domain.pauses = domain.pauses.checked_sub(1).ok_or(Errno::EINVAL)?;
            domain.started |= domain.pauses == 0;
            Ok(())
        })
    }

    fn destroy(&self, domain: DomId) -> Result<(), Error> {
        self.operate("destroydomain", |state| state.destroy(domain))
    }

    fn set_handle(&self, domain: DomId, handle: &[u8; 16]) -> Result<(), Error> {
        self.operate("setdomainhandle", |state| {
            state.domain(domain)?.config.handle = *handle;
            Ok(())
        })
    }

    fn set_vcpu_context(&self, domain: DomId, vcpu: u32, context: &VcpuGuestContext) -> Result<(), Error> {
        self.operate("setvcpucontext", |state| state.set_context(domain, vcpu, context))
    }

    fn vcpu_context(&self, domain: DomId, vcpu: u32) -> Result<VcpuGuestContext, Error> {
        self.operate("getvcpucontext", |state| {
            let domain = state.domain(domain)?;
            domain.contexts.get(&vcpu).cloned().ok_or(if vcpu < domain.vcpus { Errno::ENODATA } else { Errno::EINVAL })
        })
    }

    fn tsc_info(&self, domain: DomId) -> Result<TscInfo, Error> {
        self.operate("gettscinfo", |state| Ok(state.domain(domain)?.tsc))
    }

    fn set_tsc_info(&self, domain: DomId, info: &TscInfo) -> Result<(), Error> {
        self.operate("settscinfo", |state| {
            state.domain(domain)?.tsc = *info;
            Ok(())
        })
    }

    fn cpu_policy(&self, domain: DomId) -> Result<CpuPolicy, Error> {
        self.operate("get_cpu_policy", |state| Ok(state.domain(domain)?.policy.clone()))
    }

    fn set_cpu_policy(&self, domain: DomId, policy: &CpuPolicy) -> Result<(), Error> {
        self.operate("set_cpu_policy", |state| {
            let domain = state.domain(domain)?;
            if domain.started {
                return Err(Errno::EEXIST);
            }
            domain.policy = policy.clone();
            Ok(())
        })
    }

    fn sched_params(&self, domain: DomId) -> Result<SchedParams, Error> {
        self.operate("scheduler_op", |state| Ok(state.domain(domain)?.sched))
    }

    fn set_sched_params(&self, domain: DomId, params: &SchedParams) -> Result<(), Error> {
        self.operate("scheduler_op", |state| {
            let domain = state.domain(domain)?;
            if params.scheduler != domain.sched.scheduler {
                return Err(Errno::EINVAL);
            }
            // Xen leaves a weight of 0 alone.
            let weight = if params.weight == 0 { domain.sched.weight } else { params.weight };
            domain.sched = SchedParams { weight, ..*params };
            Ok(())
        })
    }

    fn claim_pages(&self, domain: DomId, pages: u64) -> Result<(), Error> {
        self.operate("claim_pages", |state| state.claim(domain, pages))
    }

    fn populate_physmap(&self, domain: DomId, order: u32, pfns: &[Pfn]) -> Result<Vec<Mfn>, Error> {
        self.operate("populate_physmap", |state| state.populate(domain, order, pfns))
    }

    fn decrease_reservation(&self, domain: DomId, frames: &[Mfn]) -> Result<usize, Error> {
        self.operate("decrease_reservation", |state| state.decrease(domain, frames))
    }

    fn mmu_update(&self, pt_owner: DomId, pg_owner: DomId, updates: &[MmuUpdate]) -> (usize, Result<(), Error>) {
        self.batch("mmu_update", |state| {
            match (state.domains.get(&pt_owner), state.domains.get(&pg_owner)) {
                // dom0 is no foreign domain to itself.
                _ if pg_owner == DomId::DOM0 => return (0, Err(Errno::ESRCH)),
                (None, _) | (_, None) => return (0, Err(Errno::ESRCH)),
                (Some(domain), _) if domain.vcpus == 0 && pt_owner != DomId::DOM0 => return (0, Err(Errno::EINVAL)),
                _ => {}
            }
            count(updates, |update| state.frames.update(pt_owner, pg_owner, update.ptr, update.val))
        })
    }

    fn mmuext_op(&self, domain: DomId, operations: &[MmuextOp]) -> (usize, Result<(), Error>) {
        self.batch("mmuext_op", |state| match state.domain(domain) {
            Err(errno) => (0, Err(errno)),
            Ok(_) => count(operations, |operation| state.mmuext(domain, operation)),
        })
    }

    fn grant_table_setup(&self, domain: DomId, frames: u32) -> Result<Vec<Mfn>, Error> {
        const NAME: &str = "GNTTABOP_setup_table";
        let grown = self.operate(NAME, |state| {
            let Ok(found) = state.domain(domain) else { return Ok(Err(GrantStatus::BAD_DOMAIN)) };
            let limit = u32::try_from(found.config.max_grant_frames).unwrap_or(GRANT_FRAMES);
            if frames > limit {
                return Ok(Err(GrantStatus::GENERAL_ERROR));
            }
            state.grow_grant_table(domain, frames);
            Ok(Ok(state.domains[&domain].grant_frames[..frames as usize].to_vec()))
        })?;
        grown.map_err(|status| Error::Grant(NAME, status))
    }

    fn alloc_unbound(&self, domain: DomId, remote: DomId) -> Result<Port, Error> {
        self.operate("EVTCHNOP_alloc_unbound", |state| {
            let found = state.domain(domain)?;
            if found.dying {
                return Err(Errno::EINVAL);
            }
            let limit = found.config.max_evtchn_port;
            state.ports.alloc(domain, remote, limit, 0)
        })
    }

    fn evtchn_reset(&self, domain: DomId) -> Result<(), Error> {
        self.operate("EVTCHNOP_reset", |state| {
            if state.domain(domain)?.pauses == 0 {
                return Err(Errno::EINVAL);
            }
            state.ports.close_all(domain, None);
            Ok(())
        })
    }

    fn map_foreign(&self, domain: DomId, frames: &[Mfn], protection: Protection) -> Result<FakeMapping, Error> {
        let number = self.operate("map_foreign", |state| {
            state.domain(domain)?;
            let writable = protection == Protection::ReadWrite;
            state.map(domain, Mapped { frames: frames.to_vec(), writable, grants: Vec::new() })
        })?;
        Ok(self.mapping(number, frames.len(), protection))
    }

    fn map_grants(&self, domain: DomId, refs: &[GrantRef], protection: Protection) -> Result<FakeMapping, Error> {
        let number = self.operate("map_grants", |state| {
            let writable = protection == Protection::ReadWrite;
            let granted = |gref: &GrantRef| state.granted(domain, *gref, writable);
            let frames = refs.iter().map(granted).collect::<Result<_, _>>()?;
            let grants = refs.iter().map(|gref| (domain, *gref)).collect();
            // Linux has one error for all faults of a grant.
            state.map(domain, Mapped { frames, writable, grants }).map_err(|_| Errno::EINVAL)
        })?;
        Ok(self.mapping(number, refs.len(), protection))
    }

    fn events(&self) -> Result<FakeEvents, Error> {
        let set = self.operate("open evtchn", |state| Ok(state.number()))?;
        Ok(FakeEvents { fake: self.clone(), set })
    }
}
