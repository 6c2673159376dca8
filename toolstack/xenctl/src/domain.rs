//! Properties of a domain: the parameters of its creation, Xen's report of it, and its settings.

use xen_abi::sched::ShutdownReason;
use xen_abi::{DomId, Mfn};

/// The parameters of a new PV domain, the part of `struct xen_domctl_createdomain` that matters to
/// one.
///
/// `ssidref`, `iommu_opts`, `altp2m`, `vmtrace_size` and `arch` are 0, and the grant table is of
/// version 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateDomain {
    /// `XEN_DOMCTL_CDF_*`; 0 is a plain PV domain.
    pub flags: u32,
    /// vcpus that it may have. [`crate::Hypervisor::max_vcpus`] makes them.
    pub max_vcpus: u32,
    /// Highest port that it may use.
    pub max_evtchn_port: u32,
    /// Frames of its grant table, 512 entries in each; negative: Xen's default. More than that is
    /// `EINVAL` on 4.17, and taken from 4.18 on.
    pub max_grant_frames: i32,
    /// Frames for its mappings of others' grants; negative: Xen's default.
    pub max_maptrack_frames: i32,
    /// Its UUID. Xen stores it for the tools; it has no other meaning.
    pub handle: [u8; 16],
    /// The pool of processors that it runs on.
    pub cpupool: u32,
}

/// Xen's report of a domain, `struct xen_domctl_getdomaininfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainInfo {
    /// The domain.
    pub id: DomId,
    /// `XEN_DOMINF_*`; the methods below read it.
    pub flags: u32,
    /// Pages that it has (`tot_pages`). Pages that it gave back count while another domain maps
    /// them.
    pub pages: u64,
    /// Pages that it may have.
    pub max_pages: u64,
    /// Its shared info frame.
    pub shared_info_frame: Mfn,
    /// Nanoseconds that its vcpus have run.
    pub cpu_time: u64,
    /// vcpus that are up.
    pub nr_online_vcpus: u32,
    /// Highest number of a vcpu; `None` before there is one.
    pub max_vcpu_id: Option<u32>,
    /// Its UUID.
    pub handle: [u8; 16],
    /// The pool of processors that it runs on.
    pub cpupool: u32,
}

impl DomainInfo {
    pub(crate) const DYING: u32 = 1 << 0;
    pub(crate) const SHUTDOWN: u32 = 1 << 2;
    pub(crate) const PAUSED: u32 = 1 << 3;
    pub(crate) const BLOCKED: u32 = 1 << 4;
    const RUNNING: u32 = 1 << 5;
    pub(crate) const SHUTDOWN_SHIFT: u32 = 16;

    /// True if it was destroyed, but its memory is still held: a zombie if that lasts.
    pub fn is_dying(&self) -> bool {
        self.flags & Self::DYING != 0
    }

    /// True if it is held by a [`crate::Hypervisor::pause`], or not started yet.
    pub fn is_paused(&self) -> bool {
        self.flags & Self::PAUSED != 0
    }

    /// True if every vcpu waits for an event.
    pub fn is_blocked(&self) -> bool {
        self.flags & Self::BLOCKED != 0
    }

    /// True if a vcpu is on a processor.
    pub fn is_running(&self) -> bool {
        self.flags & Self::RUNNING != 0
    }

    /// The reason for which it ended; `None` while it has not.
    pub fn shutdown_reason(&self) -> Option<ShutdownReason> {
        let reason = ShutdownReason(self.flags >> Self::SHUTDOWN_SHIFT & 0xff);
        (self.flags & Self::SHUTDOWN != 0).then_some(reason)
    }
}

/// The time-stamp counter of a domain, `struct xen_domctl_tsc_info`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TscInfo {
    /// One of the constants below.
    pub mode: u32,
    /// Frequency that the domain sees, in kHz.
    pub khz: u32,
    /// A number that changes when the domain has to read its clock's parameters anew.
    pub incarnation: u32,
    /// Nanoseconds that the domain has counted.
    pub elapsed_ns: u64,
}

impl TscInfo {
    /// `TSC_MODE_DEFAULT`: emulated unless the processor's counter is reliable.
    pub const DEFAULT: u32 = 0;
    /// `TSC_MODE_ALWAYS_EMULATE`.
    pub const ALWAYS_EMULATE: u32 = 1;
    /// `TSC_MODE_NEVER_EMULATE`: the processor's own.
    pub const NEVER_EMULATE: u32 = 2;
}

/// The processor that a domain sees: CPUID leaves and MSRs as Xen serialises them, to be set for
/// another domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuPolicy {
    /// `xen_cpuid_leaf_t[]`.
    pub(crate) leaves: Vec<u8>,
    /// `xen_msr_entry_t[]`.
    pub(crate) msrs: Vec<u8>,
}

/// The scheduler of a domain, `XEN_SCHEDULER_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheduler(pub u32);

impl Scheduler {
    /// The older scheduler with weights.
    pub const CREDIT: Self = Self(5);
    /// Xen's default.
    pub const CREDIT2: Self = Self(6);
}

/// A domain's share of the processors, `struct xen_domctl_sched_credit` and `struct
/// xen_domctl_sched_credit2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedParams {
    /// The scheduler of the domain's pool. Setting the parameters of another one is `EINVAL`.
    pub scheduler: Scheduler,
    /// Share in relation to those of the other domains; 256 is usual.
    pub weight: u16,
    /// The most that it gets, in percent of one processor; 0: no limit.
    pub cap: u16,
}
