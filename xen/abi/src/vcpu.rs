//! `public/vcpu.h`: a vcpu's timers, its state, and the areas where Xen publishes them.

use crate::Mfn;

open_enum! {
    /// An operation of `vcpu_op`, `VCPUOP_*`.
    pub struct VcpuOp: u32 {
        INITIALISE = 0;
        UP = 1;
        DOWN = 2;
        IS_UP = 3;
        GET_RUNSTATE_INFO = 4;
        REGISTER_RUNSTATE_MEMORY_AREA = 5;
        SET_PERIODIC_TIMER = 6;
        STOP_PERIODIC_TIMER = 7;
        SET_SINGLESHOT_TIMER = 8;
        STOP_SINGLESHOT_TIMER = 9;
        REGISTER_VCPU_INFO = 10;
        SEND_NMI = 11;
        GET_PHYSID = 12;
        REGISTER_VCPU_TIME_MEMORY_AREA = 13;
    }
}

open_enum! {
    /// The state of a vcpu, `RUNSTATE_*`.
    pub struct Runstate: i32 {
        /// It is on a processor.
        RUNNING = 0;
        /// It waits for a processor.
        RUNNABLE = 1;
        /// It waits for an event.
        BLOCKED = 2;
        /// It may not run.
        OFFLINE = 3;
    }
}

/// The state of a vcpu and the time spent in each state, `struct vcpu_runstate_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VcpuRunstateInfo {
    /// The present one.
    pub state: Runstate,
    /// System time in nanoseconds at which `state` began.
    pub state_entry_time: u64,
    /// Nanoseconds spent in each state, by [`Runstate`].
    pub time: [u64; 4],
}
assert_layout!(VcpuRunstateInfo, 48, state: 0, state_entry_time: 8, time: 16);

/// The argument of `SET_PERIODIC_TIMER`, `struct vcpu_set_periodic_timer`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VcpuSetPeriodicTimer {
    /// Nanoseconds.
    pub period_ns: u64,
}
assert_layout!(VcpuSetPeriodicTimer, 8);

bitflags::bitflags! {
    /// Flags of a single-shot timer, `VCPU_SSHOTTMR_*`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct SshottmrFlags: u32 {
        /// A time in the past gives `ETIME` instead of an immediate event.
        const FUTURE = 1 << 0;
    }
}

/// The argument of `SET_SINGLESHOT_TIMER`, `struct vcpu_set_singleshot_timer`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VcpuSetSingleshotTimer {
    /// System time in nanoseconds.
    pub timeout_abs_ns: u64,
    /// Flags for a time in the past.
    pub flags: SshottmrFlags,
}
assert_layout!(VcpuSetSingleshotTimer, 16, timeout_abs_ns: 0, flags: 8);

/// The argument of `REGISTER_VCPU_INFO`, `struct vcpu_register_vcpu_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VcpuRegisterVcpuInfo {
    /// The frame that gets the `vcpu_info`.
    pub mfn: Mfn,
    /// Offset in the frame; the structure may not cross the frame's end.
    pub offset: u32,
    /// Zero.
    pub rsvd: u32,
}
assert_layout!(VcpuRegisterVcpuInfo, 16, mfn: 0, offset: 8, rsvd: 12);
