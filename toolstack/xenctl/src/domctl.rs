//! `public/domctl.h`: the octets of a `xen_domctl_t`, of its data and its answers.
//!
//! The layouts used here are the same in all of [`RELEASES`](crate::RELEASES), except for what is
//! noted below. `c_octets.rs` compares them with the C headers of those releases that the build
//! machine has.

use xen_abi::DomId;
use xen_abi::xen::Hypercall;

use crate::control::{Request, mfn_at, u16_at, u32_at, u64_at};
use crate::domain::{CpuPolicy, CreateDomain, DomainInfo, SchedParams, Scheduler, TscInfo};
use crate::vcpu;

/// The first version in which `createdomain` has a field `altp2m` before `vmtrace_size`: Xen 4.19.
const HAS_ALTP2M: u32 = 0x17;
/// The first version in which `createdomain` chooses a number for `DOMID_ANY` and not for 0, which
/// is dom0's (Xen 4.22; commit 23e2479ff9).
const HAS_DOMID_ANY: u32 = 0x18;

/// Size of `struct xen_domctl`.
pub const SIZE: usize = 144;
/// Offset of `domain`.
const DOMAIN: usize = 8;
/// Offset of its union `u`.
const U: usize = 16;
/// Size of `struct xen_domctl_getdomaininfo`.
pub const DOMAIN_INFO_SIZE: usize = 112;
/// Size of `xen_cpuid_leaf_t`.
pub const CPUID_LEAF_SIZE: usize = 24;
/// Size of `xen_msr_entry_t`.
pub const MSR_ENTRY_SIZE: usize = 16;

/// `XEN_INVALID_MAX_VCPU_ID`.
pub(crate) const INVALID_MAX_VCPU_ID: u32 = !0;

/// `XEN_DOMCTL_*`.
pub(crate) mod command {
    pub const CREATEDOMAIN: u32 = 1;
    pub const DESTROYDOMAIN: u32 = 2;
    pub const PAUSEDOMAIN: u32 = 3;
    pub const UNPAUSEDOMAIN: u32 = 4;
    pub const GETDOMAININFO: u32 = 5;
    pub const MAX_MEM: u32 = 11;
    pub const SETVCPUCONTEXT: u32 = 12;
    pub const GETVCPUCONTEXT: u32 = 13;
    pub const MAX_VCPUS: u32 = 15;
    pub const SCHEDULER_OP: u32 = 16;
    pub const SETDOMAINHANDLE: u32 = 17;
    pub const GETTSCINFO: u32 = 59;
    pub const SETTSCINFO: u32 = 60;
    pub const GET_CPU_POLICY: u32 = 82;
    pub const SET_CPU_POLICY: u32 = 83;
}

/// `XEN_DOMCTL_SCHEDOP_*`.
mod schedop {
    pub const PUTINFO: u32 = 0;
    pub const GETINFO: u32 = 1;
}

/// A command whose only argument is the domain: destroy, pause, unpause, getdomaininfo, gettscinfo.
pub(crate) fn plain(command: u32, domain: DomId) -> Request {
    let mut request = Request::new(Hypercall::DOMCTL, SIZE, command);
    request.put(DOMAIN, &domain.0.to_le_bytes());
    request
}

/// The domain that the structure names, or that Xen wrote into it.
pub(crate) fn domain(answer: &Request) -> DomId {
    DomId(u16_at(answer.octets(), DOMAIN))
}

/// `XEN_DOMCTL_createdomain`, in the layout of interface `version`. Xen writes the new domain's
/// number; see [`domain`].
pub(crate) fn create(version: u32, config: &CreateDomain) -> Request {
    const GRANT_VERSION: u32 = 1;
    let choose = if version < HAS_DOMID_ANY { DomId(0) } else { DomId::ANY };
    let mut request = plain(command::CREATEDOMAIN, choose);
    request.put(U + 4, &config.handle);
    request.put_u32(U + 20, config.flags);
    request.put_u32(U + 28, config.max_vcpus);
    request.put_u32(U + 32, config.max_evtchn_port);
    request.put(U + 36, &config.max_grant_frames.to_le_bytes());
    request.put(U + 40, &config.max_maptrack_frames.to_le_bytes());
    request.put_u32(U + 44, GRANT_VERSION);
    request.put_u32(if version < HAS_ALTP2M { U + 52 } else { U + 56 }, config.cpupool);
    request
}

/// `XEN_DOMCTL_max_vcpus`.
pub(crate) fn max_vcpus(domain: DomId, count: u32) -> Request {
    let mut request = plain(command::MAX_VCPUS, domain);
    request.put_u32(U, count);
    request
}

/// `XEN_DOMCTL_max_mem`.
pub(crate) fn max_mem(domain: DomId, kib: u64) -> Request {
    let mut request = plain(command::MAX_MEM, domain);
    request.put(U, &kib.to_le_bytes());
    request
}

/// `XEN_DOMCTL_setdomainhandle`.
pub(crate) fn set_handle(domain: DomId, handle: &[u8; 16]) -> Request {
    let mut request = plain(command::SETDOMAINHANDLE, domain);
    request.put(U, handle);
    request
}

/// Xen's answer to a [`plain`] `GETDOMAININFO`.
pub(crate) fn info(answer: &Request) -> DomainInfo {
    parse_info(&answer.octets()[U..U + DOMAIN_INFO_SIZE])
}

/// A `struct xen_domctl_getdomaininfo`.
pub(crate) fn parse_info(octets: &[u8]) -> DomainInfo {
    let max_vcpu_id = u32_at(octets, 68);
    DomainInfo {
        id: DomId(u16_at(octets, 0)),
        flags: u32_at(octets, 4),
        pages: u64_at(octets, 8),
        max_pages: u64_at(octets, 16),
        shared_info_frame: mfn_at(octets, 48),
        cpu_time: u64_at(octets, 56),
        nr_online_vcpus: u32_at(octets, 64),
        max_vcpu_id: (max_vcpu_id != INVALID_MAX_VCPU_ID).then_some(max_vcpu_id),
        handle: octets[76..92].try_into().expect("sixteen octets"),
        cpupool: u32_at(octets, 92),
    }
}

/// `XEN_DOMCTL_setvcpucontext`, or `getvcpucontext`, whose answer [`vcpu_context`] reads.
pub(crate) fn vcpu_context_request(command: u32, domain: DomId, vcpu: u32, context: &[u8; vcpu::SIZE]) -> Request {
    let mut request = plain(command, domain);
    request.put_u32(U, vcpu);
    request.add_data(U + 8, context);
    request
}

/// The `struct vcpu_guest_context` that Xen wrote.
pub(crate) fn vcpu_context(answer: &Request) -> &[u8; vcpu::SIZE] {
    answer.data().first_chunk().expect("the request has the whole structure")
}

/// `XEN_DOMCTL_settscinfo`.
pub(crate) fn set_tsc_info(domain: DomId, info: &TscInfo) -> Request {
    let mut request = plain(command::SETTSCINFO, domain);
    request.put_u32(U, info.mode);
    request.put_u32(U + 4, info.khz);
    request.put_u32(U + 8, info.incarnation);
    request.put(U + 16, &info.elapsed_ns.to_le_bytes());
    request
}

/// Xen's answer to a [`plain`] `GETTSCINFO`.
pub(crate) fn tsc_info(answer: &Request) -> TscInfo {
    let octets = answer.octets();
    TscInfo {
        mode: u32_at(octets, U),
        khz: u32_at(octets, U + 4),
        incarnation: u32_at(octets, U + 8),
        elapsed_ns: u64_at(octets, U + 16),
    }
}

/// `XEN_DOMCTL_get_cpu_policy` with room for these numbers of leaves and MSRs. Without room, Xen
/// answers with the numbers.
pub(crate) fn get_cpu_policy(domain: DomId, (leaves, msrs): (usize, usize)) -> Request {
    let policy = CpuPolicy { leaves: vec![0; leaves * CPUID_LEAF_SIZE], msrs: vec![0; msrs * MSR_ENTRY_SIZE] };
    cpu_policy_request(command::GET_CPU_POLICY, domain, &policy)
}

/// `XEN_DOMCTL_set_cpu_policy`.
pub(crate) fn set_cpu_policy(domain: DomId, policy: &CpuPolicy) -> Request {
    cpu_policy_request(command::SET_CPU_POLICY, domain, policy)
}

fn cpu_policy_request(command: u32, domain: DomId, policy: &CpuPolicy) -> Request {
    let mut request = plain(command, domain);
    request.put_u32(U, (policy.leaves.len() / CPUID_LEAF_SIZE) as u32);
    request.put_u32(U + 4, (policy.msrs.len() / MSR_ENTRY_SIZE) as u32);
    // A null handle asks for the number only.
    if !policy.leaves.is_empty() {
        request.add_data(U + 8, &policy.leaves);
    }
    if !policy.msrs.is_empty() {
        request.add_data(U + 16, &policy.msrs);
    }
    request
}

/// The numbers of leaves and MSRs in Xen's answer.
pub(crate) fn cpu_policy_counts(answer: &Request) -> (usize, usize) {
    (u32_at(answer.octets(), U) as usize, u32_at(answer.octets(), U + 4) as usize)
}

/// The policy in the answer to a [`get_cpu_policy`] that had room for `room`.
pub(crate) fn cpu_policy(answer: &Request, room: (usize, usize)) -> CpuPolicy {
    let (leaves, msrs) = cpu_policy_counts(answer);
    let (leaf_room, msr_room) = answer.data().split_at(room.0 * CPUID_LEAF_SIZE);
    CpuPolicy {
        leaves: leaf_room[..leaves.min(room.0) * CPUID_LEAF_SIZE].to_vec(),
        msrs: msr_room[..msrs.min(room.1) * MSR_ENTRY_SIZE].to_vec(),
    }
}

/// `XEN_DOMCTL_scheduler_op`, `getinfo`. Xen refuses it for another scheduler than the domain's.
pub(crate) fn get_sched_params(domain: DomId, scheduler: Scheduler) -> Request {
    scheduler_op(domain, schedop::GETINFO, &SchedParams { scheduler, weight: 0, cap: 0 })
}

/// `XEN_DOMCTL_scheduler_op`, `putinfo`.
pub(crate) fn set_sched_params(domain: DomId, params: &SchedParams) -> Request {
    scheduler_op(domain, schedop::PUTINFO, params)
}

fn scheduler_op(domain: DomId, operation: u32, params: &SchedParams) -> Request {
    let mut request = plain(command::SCHEDULER_OP, domain);
    request.put_u32(U, params.scheduler.0);
    request.put_u32(U + 4, operation);
    request.put(U + 8, &params.weight.to_le_bytes());
    request.put(U + 10, &params.cap.to_le_bytes());
    request
}

/// The parameters in the answer to a [`get_sched_params`].
pub(crate) fn sched_params(answer: &Request) -> SchedParams {
    let octets = answer.octets();
    SchedParams { scheduler: Scheduler(u32_at(octets, U)), weight: u16_at(octets, U + 8), cap: u16_at(octets, U + 10) }
}
