//! PV clock arithmetic (`public/xen.h`, `struct vcpu_time_info` and `struct shared_info`).
//!
//! *System time* is nanoseconds since the host booted. It is computed from the TSC and a record
//! that Xen refreshes now and then. The *wall clock* is the date at which system time was 0; Xen
//! keeps it in shared_info. Both records carry a version, which makes a torn copy visible: see
//! [`is_whole`].

use core::sync::atomic::{AtomicU64, Ordering};

use xen_abi::xen::VcpuTimeInfo;

const NS_PER_SEC: u64 = 1_000_000_000;

/// True if a record was copied while Xen did not write it. `before` and `after` are its version,
/// read before and after everything else. If this is false, the caller copies again.
pub const fn is_whole(before: u32, after: u32) -> bool {
    before == after && before & 1 == 0
}

/// System time in nanoseconds when the TSC is `tsc`, from a whole record.
///
/// The difference wraps: if Xen emulates the TSC, it starts at 0 with the domain, and the record of
/// a young domain is from a "negative" time. A `tsc` from before the record counts as equal to it,
/// so that time does not jump forward by centuries.
pub const fn system_time(record: &VcpuTimeInfo, tsc: u64) -> u64 {
    let ticks = tsc.wrapping_sub(record.tsc_timestamp);
    let ticks = if ticks as i64 >= 0 { ticks } else { 0 };
    record.system_time.wrapping_add(scale(ticks, record.tsc_to_system_mul, record.tsc_shift))
}

/// Nanoseconds since 1970-01-01 00:00 UTC at a system time. The other three arguments are
/// shared_info's `wc_sec_hi`, `wc_sec` and `wc_nsec`, from a whole copy.
pub const fn wall_clock(seconds_high: u32, seconds: u32, nanoseconds: u32, system_time: u64) -> u64 {
    let seconds = (seconds_high as u64) << 32 | seconds as u64;
    seconds.wrapping_mul(NS_PER_SEC).wrapping_add(nanoseconds as u64).wrapping_add(system_time)
}

/// `((ticks << shift) * multiplier) >> 32`; a negative `shift` goes to the right. Bits are lost
/// only above the 64th, as in Xen's own `scale_delta`.
const fn scale(ticks: u64, multiplier: u32, shift: i8) -> u64 {
    let distance = shift.unsigned_abs() as u32;
    let shifted = if shift < 0 { ticks.checked_shr(distance) } else { ticks.checked_shl(distance) };
    let Some(shifted) = shifted else { return 0 };
    ((shifted as u128 * multiplier as u128) >> 32) as u64
}

/// The latest time that was told. The records of two processors differ by a little, so that a
/// reader that goes from one to the other could see time go back (Linux keeps such a value for the
/// same reason: arch/x86/kernel/pvclock.c, `last_value`).
pub struct Latest(AtomicU64);

impl Latest {
    /// None was told yet.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// The time to tell when a record says `now`: not before what was told.
    pub fn tell(&self, now: u64) -> u64 {
        self.0.fetch_max(now, Ordering::Relaxed).max(now)
    }

    /// The last time that was told.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Default for Latest {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(tsc_timestamp: u64, system_time: u64, tsc_to_system_mul: u32, tsc_shift: i8) -> VcpuTimeInfo {
        VcpuTimeInfo { tsc_timestamp, system_time, tsc_to_system_mul, tsc_shift, ..Default::default() }
    }

    #[test]
    fn time_that_is_told_does_not_go_back() {
        let latest = Latest::new();
        assert_eq!([5, 9, 7, 9, 10].map(|now| latest.tell(now)), [5, 9, 9, 9, 10]);
        assert_eq!(latest.get(), 10);
    }

    #[test]
    fn one_gigahertz_counts_nanoseconds() {
        // 1 tick << 1, times 2^31, >> 32 = 1 ns.
        let record = record(1000, 5_000_000, 1 << 31, 1);
        assert_eq!(system_time(&record, 1000), 5_000_000);
        assert_eq!(system_time(&record, 1007), 5_000_007);
        assert_eq!(system_time(&record, 999), 5_000_000, "never before the record");
    }

    #[test]
    fn a_record_from_before_the_counter_began() {
        let record = record(0u64.wrapping_sub(684_542_288), 9_942_350_736, 1 << 31, 1);
        assert_eq!(system_time(&record, 113_931_678), 9_942_350_736 + 113_931_678 + 684_542_288);
    }

    #[test]
    fn fast_and_slow_counters() {
        // 4 GHz: a quarter of a nanosecond per tick, by a shift to the right.
        assert_eq!(system_time(&record(0, 0, 1 << 31, -1), 4_000_000_000), 1_000_000_000);
        // 1 MHz: 1000 ns per tick.
        assert_eq!(system_time(&record(0, 0, 1000 << 22, 10), 3), 3000);
        // 2.6 GHz over 100 years does not overflow on the way: at most 1 ns in 4 s is lost to
        // rounding.
        let century = 100 * 365 * 86_400u64;
        let multiplier = ((1u128 << 32) * 1_000_000_000 / 2_600_000_000) as u32;
        let elapsed = system_time(&record(0, 0, multiplier, 0), century * 2_600_000_000);
        assert!((century * NS_PER_SEC).abs_diff(elapsed) < century);
    }

    #[test]
    fn senseless_shifts_do_not_panic() {
        for shift in [i8::MIN, -64, 64, i8::MAX] {
            assert_eq!(system_time(&record(0, 7, u32::MAX, shift), u64::MAX), 7);
        }
    }

    #[test]
    fn wall_clock_adds_system_time() {
        assert_eq!(wall_clock(0, 1_700_000_000, 999_999_999, 2), 1_700_000_001_000_000_001);
        assert_eq!(wall_clock(1, 0, 0, 0), (1 << 32) * NS_PER_SEC);
    }

    #[test]
    fn versions_tell_a_torn_copy() {
        assert!(is_whole(4, 4));
        assert!(!is_whole(4, 6));
        assert!(!is_whole(5, 5), "Xen was writing");
    }
}
