//! The page that a domain shares with Xen: events, time, and the guest's p2m for the tools.

use crate::arch_x86::{ArchSharedInfo, ArchVcpuInfo};

/// vcpus that have a place in [`SharedInfo`]. Others register a place of their own.
pub const XEN_LEGACY_MAX_VCPUS: usize = 32;

bitflags::bitflags! {
    /// Flags of [`VcpuTimeInfo`], `XEN_PVCLOCK_*`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct PvclockFlags: u8 {
        /// The TSC is in step on all processors.
        const TSC_STABLE_BIT = 1 << 0;
        /// The guest was stopped by its host.
        const GUEST_STOPPED = 1 << 1;
    }
}

/// The conversion of a vcpu's TSC to system time, `struct vcpu_time_info`.
///
/// Time in nanoseconds since Xen booted is `system_time + ((((tsc - tsc_timestamp) << tsc_shift) *
/// tsc_to_system_mul) >> 32)`, where a negative shift is to the right.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VcpuTimeInfo {
    /// Odd while Xen is writing. A reader that finds it changed starts again.
    pub version: u32,
    /// Not used.
    pub pad0: u32,
    /// The TSC when `system_time` was taken.
    pub tsc_timestamp: u64,
    /// Nanoseconds since Xen booted.
    pub system_time: u64,
    /// Nanoseconds per shifted tick, times 2^32.
    pub tsc_to_system_mul: u32,
    /// Shift of the tick count before it is multiplied.
    pub tsc_shift: i8,
    /// Flags for the reliability of the TSC.
    pub flags: PvclockFlags,
    /// Not used.
    pub pad1: [u8; 2],
}
assert_layout!(VcpuTimeInfo, 32, tsc_timestamp: 8, system_time: 16, tsc_to_system_mul: 24, tsc_shift: 28);

/// The part of the page that belongs to one vcpu, `struct vcpu_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VcpuInfo {
    /// Set by Xen when an event is pending. The guest clears it *before* it looks for pending
    /// ports.
    pub evtchn_upcall_pending: u8,
    /// Non-zero: Xen makes no upcall. Only this vcpu changes it.
    pub evtchn_upcall_mask: u8,
    /// A bit for each word of [`SharedInfo::evtchn_pending`] that may have a bit set.
    pub evtchn_pending_sel: u64,
    /// x86's part.
    pub arch: ArchVcpuInfo,
    /// This vcpu's clock.
    pub time: VcpuTimeInfo,
}
assert_layout!(
    VcpuInfo, 64,
    evtchn_upcall_pending: 0, evtchn_upcall_mask: 1, evtchn_pending_sel: 8, arch: 16, time: 32,
);

/// The page at `start_info.shared_info`, `struct shared_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SharedInfo {
    /// Parts of the first vcpus; others register a place of their own.
    pub vcpu_info: [VcpuInfo; XEN_LEGACY_MAX_VCPUS],
    /// A bit for each port, set while an event is pending; the guest clears it.
    pub evtchn_pending: [u64; 64],
    /// A bit for each port, set by the guest: Xen makes no upcall for that port.
    pub evtchn_mask: [u64; 64],
    /// Version of the wall clock below, as [`VcpuTimeInfo::version`].
    pub wc_version: u32,
    /// The wall clock when system time was 0: seconds since 1970, low half.
    pub wc_sec: u32,
    /// Nanoseconds of the same.
    pub wc_nsec: u32,
    /// Seconds, high half.
    pub wc_sec_hi: u32,
    /// x86's part.
    pub arch: ArchSharedInfo,
}
assert_layout!(SharedInfo, 3136, evtchn_pending: 2048, evtchn_mask: 2560, wc_version: 3072, arch: 3088);
