//! The hypervisor.

use std::fs::File;
use std::mem::offset_of;
use std::sync::Arc;

use xen_abi::event_channel::{EventChannelOp, EvtchnAllocUnbound, EvtchnStat, EvtchnStatus};
use xen_abi::memory::MemoryOp;
use xen_abi::xen::{MmuUpdate, MmuextOp};
use xen_abi::{DomId, Errno, GrantRef, Mfn, Pfn, Port};

use crate::control::u32_at;
use crate::domain::{CpuPolicy, CreateDomain, DomainInfo, SchedParams, Scheduler, TscInfo};
use crate::domctl::{self, command};
use crate::error::Error;
use crate::evtchn::EventChannels;
use crate::hypervisor::{Hypervisor, Protection};
use crate::ioctl;
use crate::mapping::{GNTDEV, Mapping};
use crate::privcmd::{CallError, Privcmd};
use crate::release::{Control, Release};
use crate::sysctl;
use crate::vcpu::{self, VcpuGuestContext};

/// The hypervisor below this dom0. Any number of threads may use it; their hypercalls do not wait
/// for each other here.
#[derive(Debug)]
pub struct Xen {
    control: Control<Privcmd>,
    gntdev: Arc<File>,
}

impl Xen {
    /// Opens the devices of the hypervisor and finds its release.
    ///
    /// # Errors
    /// This is no dom0, or the release of this Xen is unknown.
    pub fn open() -> Result<Self, Error> {
        let control = Control::find(Privcmd::open().map_err(Error::Open)?)?;
        let gntdev = Arc::new(ioctl::open(GNTDEV).map_err(Error::Open)?);
        Ok(Xen { control, gntdev })
    }

    /// The release of this Xen.
    pub fn release(&self) -> &'static Release {
        self.control.release
    }

    fn privcmd(&self) -> &Privcmd {
        &self.control.caller
    }

    /// The number of ports of `domain` that are in use.
    pub fn event_channels(&self, domain: DomId) -> Result<usize, Error> {
        let mut octets = [0; size_of::<EvtchnStatus>()];
        let mut in_use = 0;
        for port in 0_u32.. {
            octets[..2].copy_from_slice(&domain.0.to_le_bytes());
            octets[offset_of!(EvtchnStatus, port)..][..4].copy_from_slice(&port.to_le_bytes());
            match self.privcmd().event_channel_op(EventChannelOp::STATUS, &mut octets) {
                // This is behind the last possible port.
                Err(CallError::Refused(Errno::EINVAL)) if port > 0 => break,
                result => result.map_err(|error| error.of("EVTCHNOP_status"))?,
            }
            in_use += usize::from(EvtchnStat(u32_at(&octets, offset_of!(EvtchnStatus, status))) != EvtchnStat::CLOSED);
        }
        Ok(in_use)
    }

    /// Xen's log after `key` was pressed, as by `xl debug-keys`; older text comes before it.
    pub fn debug_key(&self, key: u8) -> Result<Vec<u8>, Error> {
        self.control.sysctl("debug_keys", sysctl::debug_keys(&[key]))?;
        let mut text = Vec::new();
        let mut position = 0;
        loop {
            let answer = self.control.sysctl("readconsole", sysctl::read_console(position))?;
            let (more, next) = sysctl::log(&answer);
            if more.is_empty() {
                return Ok(text);
            }
            text.extend(more);
            position = next;
        }
    }
}

impl Hypervisor for Xen {
    type Memory = Mapping;
    type Events = EventChannels;

    fn free_pages(&self) -> Result<u64, Error> {
        Ok(sysctl::free_pages(&self.control.sysctl("physinfo", sysctl::physinfo())?))
    }

    fn domains(&self) -> Result<Vec<DomainInfo>, Error> {
        let mut all: Vec<DomainInfo> = Vec::new();
        loop {
            let first = DomId(all.last().map_or(0, |last| last.id.0 + 1));
            let more = sysctl::domains(&self.control.sysctl("getdomaininfolist", sysctl::domain_list(first))?);
            if more.is_empty() {
                return Ok(all);
            }
            all.extend(more);
        }
    }

    fn domain_info(&self, domain: DomId) -> Result<Option<DomainInfo>, Error> {
        self.control.domain_info(domain)
    }

    fn create_domain(&self, config: &CreateDomain) -> Result<DomId, Error> {
        self.control.create_domain(config)
    }

    fn max_vcpus(&self, domain: DomId, count: u32) -> Result<(), Error> {
        self.control.domctl("max_vcpus", domctl::max_vcpus(domain, count)).map(drop)
    }

    fn set_max_mem(&self, domain: DomId, kib: u64) -> Result<(), Error> {
        self.control.domctl("max_mem", domctl::max_mem(domain, kib)).map(drop)
    }

    fn pause(&self, domain: DomId) -> Result<(), Error> {
        self.control.command("pausedomain", command::PAUSEDOMAIN, domain)
    }

    fn unpause(&self, domain: DomId) -> Result<(), Error> {
        self.control.command("unpausedomain", command::UNPAUSEDOMAIN, domain)
    }

    fn destroy(&self, domain: DomId) -> Result<(), Error> {
        /// `ERESTART`, which `xen-abi` does not have: Xen returns it to no guest.
        const ERESTART: Errno = Errno(85);
        loop {
            match self.control.command("destroydomain", command::DESTROYDOMAIN, domain) {
                // Xen continues by itself, except in older versions, where each call does a part of
                // the work.
                Err(Error::Refused(_, Errno::EAGAIN | ERESTART)) => {}
                result => return result,
            }
        }
    }

    fn set_handle(&self, domain: DomId, handle: &[u8; 16]) -> Result<(), Error> {
        self.control.domctl("setdomainhandle", domctl::set_handle(domain, handle)).map(drop)
    }

    fn set_vcpu_context(&self, domain: DomId, vcpu: u32, context: &VcpuGuestContext) -> Result<(), Error> {
        let request = domctl::vcpu_context_request(command::SETVCPUCONTEXT, domain, vcpu, &context.encode());
        self.control.domctl("setvcpucontext", request).map(drop)
    }

    fn vcpu_context(&self, domain: DomId, vcpu: u32) -> Result<VcpuGuestContext, Error> {
        let request = domctl::vcpu_context_request(command::GETVCPUCONTEXT, domain, vcpu, &[0; vcpu::SIZE]);
        Ok(VcpuGuestContext::decode(domctl::vcpu_context(&self.control.domctl("getvcpucontext", request)?)))
    }

    fn tsc_info(&self, domain: DomId) -> Result<TscInfo, Error> {
        Ok(domctl::tsc_info(&self.control.domctl("gettscinfo", domctl::plain(command::GETTSCINFO, domain))?))
    }

    fn set_tsc_info(&self, domain: DomId, info: &TscInfo) -> Result<(), Error> {
        self.control.domctl("settscinfo", domctl::set_tsc_info(domain, info)).map(drop)
    }

    fn cpu_policy(&self, domain: DomId) -> Result<CpuPolicy, Error> {
        let ask = |room| self.control.domctl("get_cpu_policy", domctl::get_cpu_policy(domain, room));
        let room = domctl::cpu_policy_counts(&ask((0, 0))?);
        Ok(domctl::cpu_policy(&ask(room)?, room))
    }

    fn set_cpu_policy(&self, domain: DomId, policy: &CpuPolicy) -> Result<(), Error> {
        self.control.domctl("set_cpu_policy", domctl::set_cpu_policy(domain, policy)).map(drop)
    }

    fn sched_params(&self, domain: DomId) -> Result<SchedParams, Error> {
        let ask = |scheduler| self.control.domctl("scheduler_op", domctl::get_sched_params(domain, scheduler));
        let answer = match ask(Scheduler::CREDIT2) {
            Err(Error::Refused(_, Errno::EINVAL)) => ask(Scheduler::CREDIT),
            answer => answer,
        };
        Ok(domctl::sched_params(&answer?))
    }

    fn set_sched_params(&self, domain: DomId, params: &SchedParams) -> Result<(), Error> {
        self.control.domctl("scheduler_op", domctl::set_sched_params(domain, params)).map(drop)
    }

    fn claim_pages(&self, domain: DomId, pages: u64) -> Result<(), Error> {
        self.privcmd().claim_pages(domain, pages).map_err(|error| error.of("claim_pages"))
    }

    fn populate_physmap(&self, domain: DomId, order: u32, pfns: &[Pfn]) -> Result<Vec<Mfn>, Error> {
        const NAME: &str = "populate_physmap";
        let mut numbers: Vec<u64> = pfns.iter().map(|pfn| pfn.0).collect();
        let result = self.privcmd().reservation(MemoryOp::POPULATE_PHYSMAP, domain, order, &mut numbers);
        match result.map_err(|error| error.of(NAME))? {
            done if done == pfns.len() => Ok(numbers.into_iter().map(Mfn).collect()),
            _ => Err(Error::Refused(NAME, Errno::ENOMEM)),
        }
    }

    fn decrease_reservation(&self, domain: DomId, frames: &[Mfn]) -> Result<usize, Error> {
        let mut numbers: Vec<u64> = frames.iter().map(|frame| frame.0).collect();
        let result = self.privcmd().reservation(MemoryOp::DECREASE_RESERVATION, domain, 0, &mut numbers);
        result.map_err(|error| error.of("decrease_reservation"))
    }

    fn mmu_update(&self, pt_owner: DomId, pg_owner: DomId, updates: &[MmuUpdate]) -> (usize, Result<(), Error>) {
        let (done, result) = self.privcmd().mmu_update(pt_owner, pg_owner, updates);
        (done, result.map_err(|error| error.of("mmu_update")))
    }

    fn mmuext_op(&self, domain: DomId, operations: &[MmuextOp]) -> (usize, Result<(), Error>) {
        let (done, result) = self.privcmd().mmuext_op(domain, operations);
        (done, result.map_err(|error| error.of("mmuext_op")))
    }

    fn grant_table_setup(&self, domain: DomId, frames: u32) -> Result<Vec<Mfn>, Error> {
        self.privcmd().grant_table_setup(domain, frames).map_err(|error| error.of("GNTTABOP_setup_table"))
    }

    fn alloc_unbound(&self, domain: DomId, remote: DomId) -> Result<Port, Error> {
        let mut octets = [0; size_of::<EvtchnAllocUnbound>()];
        octets[..2].copy_from_slice(&domain.0.to_le_bytes());
        octets[offset_of!(EvtchnAllocUnbound, remote_dom)..][..2].copy_from_slice(&remote.0.to_le_bytes());
        let result = self.privcmd().event_channel_op(EventChannelOp::ALLOC_UNBOUND, &mut octets);
        result.map_err(|error| error.of("EVTCHNOP_alloc_unbound"))?;
        Ok(Port(u32_at(&octets, offset_of!(EvtchnAllocUnbound, port))))
    }

    fn evtchn_reset(&self, domain: DomId) -> Result<(), Error> {
        let mut octets = domain.0.to_le_bytes();
        let result = self.privcmd().event_channel_op(EventChannelOp::RESET, &mut octets);
        result.map_err(|error| error.of("EVTCHNOP_reset"))
    }

    fn map_foreign(&self, domain: DomId, frames: &[Mfn], protection: Protection) -> Result<Mapping, Error> {
        Mapping::foreign(self.privcmd().device(), domain, frames, protection)
    }

    fn map_grants(&self, domain: DomId, refs: &[GrantRef], protection: Protection) -> Result<Mapping, Error> {
        Mapping::grants(&self.gntdev, domain, refs, protection)
    }

    fn events(&self) -> Result<EventChannels, Error> {
        EventChannels::open().map_err(Error::Open)
    }
}
