//! `public/sched.h`: yielding, waiting and ending.

use crate::Port;

open_enum! {
    /// An operation of `sched_op`, `SCHEDOP_*`.
    pub struct SchedOp: u32 {
        /// Let others run.
        YIELD = 0;
        /// Unmask events and wait for one.
        BLOCK = 1;
        /// End, or suspend, this domain.
        SHUTDOWN = 2;
        /// Wait for events on some ports, masked or not.
        POLL = 3;
        /// End another domain.
        REMOTE_SHUTDOWN = 4;
        /// Set the reason with which a later end is reported.
        SHUTDOWN_CODE = 5;
        /// Set, feed or remove a watchdog timer.
        WATCHDOG = 6;
        /// Tie a vcpu to a processor for a while; dom0 only.
        PIN_OVERRIDE = 7;
    }
}

open_enum! {
    /// The reason for which a domain ends, `SHUTDOWN_*`. The tools act on it.
    pub struct ShutdownReason: u32 {
        /// Done.
        POWEROFF = 0;
        /// To be started again.
        REBOOT = 1;
        /// To be saved.
        SUSPEND = 2;
        /// Failed.
        CRASH = 3;
        /// The watchdog's time was over.
        WATCHDOG = 4;
        /// To be reset inside Xen, with its memory kept.
        SOFT_RESET = 5;
    }
}

/// The argument of `SHUTDOWN` and `SHUTDOWN_CODE`, `struct sched_shutdown`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedShutdown {
    /// The reason that the tools are told.
    pub reason: ShutdownReason,
}
assert_layout!(SchedShutdown, 4);

/// The argument of `POLL`, `struct sched_poll`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SchedPoll {
    /// Ports of which one pending event is enough.
    pub ports: *const Port,
    /// At most 128.
    pub nr_ports: u32,
    /// System time in nanoseconds at which to give up; 0: never.
    pub timeout: u64,
}
assert_layout!(SchedPoll, 24, ports: 0, nr_ports: 8, timeout: 16);

/// The argument of `WATCHDOG`, `struct sched_watchdog`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedWatchdog {
    /// The watchdog's number; 0 makes a new one.
    pub id: u32,
    /// Seconds; 0 removes the watchdog `id`.
    pub timeout: u32,
}
assert_layout!(SchedWatchdog, 8, id: 0, timeout: 4);
