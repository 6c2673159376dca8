//! The PV clock and the one-shot timer.
//!
//! The clock is Xen's system time: nanoseconds since the host booted, the same for all domains of
//! it, computed from the TSC and the parameters in the shared info page (public/xen.h,
//! `vcpu_time_info`).

use core::arch::x86_64::_rdtsc;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use xen_abi::Port;
use xen_abi::xen::VcpuTimeInfo;
use xen_abi::xen::Virq;
use zooid_core::clock::{self, Latest};

use crate::life::Component;
use crate::{events, evtchn, thread};

/// System time for which the timer is set; `u64::MAX` when it is not.
static ARMED: AtomicU64 = AtomicU64::new(u64::MAX);

/// Stops the periodic timer that Xen starts a vCPU with, and takes the timer's interrupt.
pub fn init() {
    START.store(now(), Ordering::Relaxed);
    let _ = xen_sys::vcpu_op_stop_periodic_timer(0);
    evtchn::bind_virq(Virq::TIMER, timer_fired).expect("Xen refuses the timer's interrupt");
}

fn timer_fired() {
    ARMED.store(u64::MAX, Ordering::Relaxed);
    thread::timer_expired();
}

/// A child has a timer of its own.
pub static LIFE: Component = Component { begin: |birth| begin_life(birth.timer), ..Component::PASSIVE };

fn begin_life(port: Port) {
    ARMED.store(u64::MAX, Ordering::Relaxed);
    evtchn::adopt_virq(port, timer_fired);
    thread::arm_timer();
}

/// System time when this guest's clock was set up.
static START: AtomicU64 = AtomicU64::new(0);

/// Nanoseconds since this guest booted; 0 while boot has not set up the clock.
pub fn uptime() -> u64 {
    match START.load(Ordering::Relaxed) {
        0 => 0,
        start => now() - start,
    }
}

/// As [`now`], but 0 while boot has not set up the clock.
pub fn now_or_zero() -> u64 {
    if events::shared_info().is_null() { 0 } else { now() }
}

/// The last result of [`now`].
static LATEST: Latest = Latest::new();

/// The last result of [`now`], which may be old. It is for callers that accept a lag for speed:
/// reading the clock costs an exception where Xen emulates the TSC.
pub fn recent() -> u64 {
    LATEST.get()
}

/// Nanoseconds since the host booted; never goes back.
pub fn now() -> u64 {
    let info = events::vcpu_info();
    loop {
        // SAFETY: a mapped structure that Xen updates only while this vCPU is in Xen; the version
        // check below finds a change in between.
        let parameters: VcpuTimeInfo = unsafe { (&raw const (*info).time).read_volatile() };
        // SAFETY: every x86-64 CPU has the instruction.
        let tsc = unsafe { _rdtsc() };
        // SAFETY: as above.
        let version = unsafe { (&raw const (*info).time.version).read_volatile() };
        if clock::is_whole(version, parameters.version) {
            return LATEST.tell(clock::system_time(&parameters, tsc));
        }
    }
}

/// System time `duration` from now; saturates at a point that is never reached.
pub fn after(duration: Duration) -> u64 {
    now().saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

/// Nanoseconds since 1970-01-01 00:00 UTC, at a system time.
pub fn wall_clock(system_time: u64) -> u64 {
    let page = events::shared_info();
    loop {
        // SAFETY: mapped words that Xen writes; the version check finds out a change in between.
        let (before, seconds, seconds_high, nanoseconds, after) = unsafe {
            (
                (&raw const (*page).wc_version).read_volatile(),
                (&raw const (*page).wc_sec).read_volatile(),
                (&raw const (*page).wc_sec_hi).read_volatile(),
                (&raw const (*page).wc_nsec).read_volatile(),
                (&raw const (*page).wc_version).read_volatile(),
            )
        };
        if clock::is_whole(before, after) {
            return clock::wall_clock(seconds_high, seconds, nanoseconds, system_time);
        }
    }
}

/// Sees to it that the timer's interrupt comes at `deadline` or before.
///
/// A timer that is set for an earlier time is left alone: it costs one needless interrupt, and
/// setting it a hypercall.
pub fn arm(deadline: u64) {
    if deadline < ARMED.load(Ordering::Relaxed) {
        ARMED.store(deadline, Ordering::Relaxed);
        let _ = xen_sys::set_timer_op(deadline);
    }
}
