//! `time.h`. The local time is UTC.

use core::ffi::{CStr, c_char, c_int, c_long};
use core::fmt::{self, Write};
use core::ptr;
use core::time::Duration;

use crate::error::{self, EINVAL, EOVERFLOW};
use crate::export::Export;
use crate::format::{Cut, Sink};
use crate::raw;
use crate::system::system;

pub(crate) const TIME: &[Export] = exports![
    time,
    clock,
    clock_gettime,
    clock_getres,
    clock_nanosleep,
    gettimeofday,
    timespec_get,
    nanosleep,
    difftime,
    gmtime,
    gmtime_r,
    localtime = gmtime,
    localtime_r = gmtime_r,
    mktime = timegm,
    timegm,
    timelocal = timegm,
    strftime,
    asctime,
    asctime_r,
    ctime,
    ctime_r,
    tzset,
    timezone = &raw const TIMEZONE,
    __timezone = &raw const TIMEZONE,
    daylight = &raw const DAYLIGHT,
    __daylight = &raw const DAYLIGHT,
    tzname = &raw const NAMES.0,
    __tzname = &raw const NAMES.0,
];

pub(crate) const CLOCK_REALTIME: c_int = 0;
pub(crate) const CLOCK_MONOTONIC: c_int = 1;

static TIMEZONE: c_long = 0;
static DAYLIGHT: c_int = 0;

struct Names([*const c_char; 2]);
// SAFETY: the texts are never changed.
unsafe impl Sync for Names {}
static NAMES: Names = Names([UTC.as_ptr(), UTC.as_ptr()]);
const UTC: &CStr = c"UTC";

#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct TimeSpec {
    pub(crate) seconds: c_long,
    pub(crate) nanoseconds: c_long,
}

impl TimeSpec {
    fn new(time: Duration) -> Self {
        Self { seconds: time.as_secs() as c_long, nanoseconds: c_long::from(time.subsec_nanos()) }
    }

    /// The time as a duration; `None` if it is invalid.
    pub(crate) fn duration(&self) -> Option<Duration> {
        let nanoseconds = u32::try_from(self.nanoseconds).ok().filter(|nanoseconds| *nanoseconds < 1_000_000_000)?;
        Some(Duration::new(u64::try_from(self.seconds).ok()?, nanoseconds))
    }
}

/// The time of a clock (linux/time.h): of the wall clock, or of a monotonic one.
pub(crate) fn read_clock(clock: c_int) -> Option<Duration> {
    match clock {
        CLOCK_REALTIME | 5 | 11 => Some((system().now)()),
        CLOCK_MONOTONIC..=4 | 6 | 7 => Some((system().monotonic)()),
        _ => None,
    }
}

unsafe extern "C" fn time(place: *mut c_long) -> c_long {
    let now = (system().now)().as_secs() as c_long;
    // SAFETY: as C demands.
    unsafe { raw::store(place, now) };
    now
}

unsafe extern "C" fn clock() -> c_long {
    (system().monotonic)().as_micros() as c_long
}

unsafe extern "C" fn clock_gettime(clock: c_int, place: *mut TimeSpec) -> c_int {
    let Some(time) = read_clock(clock) else {
        error::set(EINVAL);
        return -1;
    };
    // SAFETY: as C demands.
    unsafe { raw::store(place, TimeSpec::new(time)) };
    0
}

unsafe extern "C" fn clock_getres(clock: c_int, place: *mut TimeSpec) -> c_int {
    if read_clock(clock).is_none() {
        error::set(EINVAL);
        return -1;
    }
    // SAFETY: as C demands.
    unsafe { raw::store(place, TimeSpec { seconds: 0, nanoseconds: 1 }) };
    0
}

unsafe extern "C" fn timespec_get(place: *mut TimeSpec, base: c_int) -> c_int {
    // TIME_UTC
    if base != 1 {
        return 0;
    }
    // SAFETY: as C demands.
    unsafe { raw::store(place, TimeSpec::new((system().now)())) };
    base
}

unsafe extern "C" fn gettimeofday(place: *mut [c_long; 2], _zone: *mut u8) -> c_int {
    let now = (system().now)();
    // SAFETY: as C demands.
    unsafe { raw::store(place, [now.as_secs() as c_long, c_long::from(now.subsec_micros())]) };
    0
}

unsafe extern "C" fn nanosleep(time: &TimeSpec, left: *mut TimeSpec) -> c_int {
    let Some(time) = time.duration() else {
        error::set(EINVAL);
        return -1;
    };
    (system().sleep)(time);
    // SAFETY: as C demands.
    unsafe { raw::store(left, TimeSpec { seconds: 0, nanoseconds: 0 }) };
    0
}

/// Returns the error's number, or 0.
unsafe extern "C" fn clock_nanosleep(clock: c_int, flags: c_int, time: &TimeSpec, left: *mut TimeSpec) -> c_int {
    let (Some(time), Some(now)) = (time.duration(), read_clock(clock)) else {
        return EINVAL;
    };
    // TIMER_ABSTIME
    if flags & 1 != 0 {
        (system().sleep)(time.saturating_sub(now));
        return 0;
    }
    (system().sleep)(time);
    // SAFETY: as C demands.
    unsafe { raw::store(left, TimeSpec { seconds: 0, nanoseconds: 0 }) };
    0
}

unsafe extern "C" fn difftime(one: c_long, other: c_long) -> f64 {
    (i128::from(one) - i128::from(other)) as f64
}

unsafe extern "C" fn tzset() {}

/// `struct tm` (bits/types/struct_tm.h).
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Broken {
    second: c_int,
    minute: c_int,
    hour: c_int,
    /// Day of the month, from 1.
    day: c_int,
    /// Month, from 0.
    month: c_int,
    /// Years since 1900.
    year: c_int,
    /// Day of the week, from Sunday as 0.
    week_day: c_int,
    /// Day of the year, from 0.
    year_day: c_int,
    summer: c_int,
    offset: c_long,
    zone: *const c_char,
}

// SAFETY: the zone is a constant text, or the caller's duty.
unsafe impl Send for Broken {}

const DAY: i64 = 86_400;

/// Days since 1970 of a day of the Gregorian calendar; the month is from 0. Years are counted from
/// March here, so that the leap day comes last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month < 2);
    let from_march = (month + 10) % 12;
    let before = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    before + (153 * from_march + 2) / 5 + day - 1 - 719_468
}

impl Broken {
    fn new(time: i64) -> Option<Self> {
        let (number, rest) = (time.div_euclid(DAY), time.rem_euclid(DAY));
        // Within 400 years, or 146097 days, the estimate is off by one at most.
        let mut year = 1970 + (i128::from(number) * 400 / 146_097) as i64;
        // No year that a `tm` can hold is near the limits of the arithmetic.
        if !(i64::from(i32::MIN)..=i64::from(i32::MAX) + 1900).contains(&year) {
            return None;
        }
        while days(year, 0, 1) > number {
            year -= 1;
        }
        while days(year + 1, 0, 1) <= number {
            year += 1;
        }
        let month = (0..12).rev().find(|month| days(year, *month, 1) <= number).unwrap_or(0);
        Some(Self {
            second: (rest % 60) as c_int,
            minute: (rest / 60 % 60) as c_int,
            hour: (rest / 3600) as c_int,
            day: (number - days(year, month, 1) + 1) as c_int,
            month: month as c_int,
            year: c_int::try_from(year - 1900).ok()?,
            week_day: (number + 4).rem_euclid(7) as c_int,
            year_day: (number - days(year, 0, 1)) as c_int,
            summer: 0,
            offset: 0,
            zone: UTC.as_ptr(),
        })
    }

    /// Seconds since 1970; the parts may be out of range.
    fn seconds(&self) -> i64 {
        let months = i64::from(self.month);
        let year = i64::from(self.year) + 1900 + months.div_euclid(12);
        let day = days(year, months.rem_euclid(12), 1) + i64::from(self.day) - 1;
        day * DAY + i64::from(self.hour) * 3600 + i64::from(self.minute) * 60 + i64::from(self.second)
    }
}

unsafe extern "C" fn gmtime_r(time: &c_long, place: *mut Broken) -> *mut Broken {
    match Broken::new(*time) {
        Some(broken) => {
            // SAFETY: as C demands.
            unsafe { place.write(broken) };
            place
        }
        None => {
            error::set(EOVERFLOW);
            ptr::null_mut()
        }
    }
}

/// The results of functions without a place of the caller's. As in C, the next call overwrites
/// them.
struct Shared<T>(core::cell::UnsafeCell<T>);
// SAFETY: C forbids calls at the same time.
unsafe impl<T> Sync for Shared<T> {}

unsafe extern "C" fn gmtime(time: &c_long) -> *mut Broken {
    static PLACE: Shared<core::mem::MaybeUninit<Broken>> =
        Shared(core::cell::UnsafeCell::new(core::mem::MaybeUninit::uninit()));
    // SAFETY: passed on to the caller.
    unsafe { gmtime_r(time, PLACE.0.get().cast()) }
}

/// Normalises its argument.
unsafe extern "C" fn timegm(broken: &mut Broken) -> c_long {
    let seconds = broken.seconds();
    match Broken::new(seconds) {
        Some(normal) => *broken = normal,
        None => {
            error::set(EOVERFLOW);
            return -1;
        }
    }
    seconds
}

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

fn name(names: &[&'static str], index: c_int, length: usize) -> &'static str {
    let name = usize::try_from(index).ok().and_then(|index| names.get(index)).copied().unwrap_or("?");
    &name[..name.len().min(length)]
}

/// Text into a buffer; an overflow is recorded.
struct Out<'a> {
    cut: Cut<'a>,
    wanted: usize,
}

impl Write for Out<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.wanted += text.len();
        self.cut.put(text.as_bytes());
        Ok(())
    }
}

pub(crate) unsafe extern "C" fn strftime(to: *mut u8, size: usize, format: *const u8, broken: &Broken) -> usize {
    if size == 0 {
        return 0;
    }
    // SAFETY: as C demands.
    let (room, format) = unsafe { (raw::slice_mut(to, size), raw::string(format)) };
    let mut out = Out { cut: Cut { room, used: 0 }, wanted: 0 };
    // `Out` never fails.
    let _ = broken.format(&mut out, format);
    if out.wanted >= size {
        return 0;
    }
    out.cut.put(b"\0");
    out.wanted
}

impl Broken {
    fn format(&self, out: &mut Out, format: &[u8]) -> fmt::Result {
        let mut rest = format;
        while let Some((octet, after)) = rest.split_first() {
            rest = after;
            if *octet != b'%' {
                out.wanted += 1;
                out.cut.put(&[*octet]);
                continue;
            }
            // `E` and `O` ask for the form of another era or alphabet, which C's locale does not
            // have.
            if let [b'E' | b'O', after @ ..] = rest {
                rest = after;
            }
            let Some((letter, after)) = rest.split_first() else {
                return out.write_str("%");
            };
            rest = after;
            self.convert(out, *letter)?;
        }
        Ok(())
    }

    fn convert(&self, out: &mut Out, letter: u8) -> fmt::Result {
        let year = i64::from(self.year) + 1900;
        let hour = match self.hour % 12 {
            0 => 12,
            hour => hour,
        };
        match letter {
            b'a' => write!(out, "{}", name(&DAYS, self.week_day, 3)),
            b'A' => write!(out, "{}", name(&DAYS, self.week_day, usize::MAX)),
            b'b' | b'h' => write!(out, "{}", name(&MONTHS, self.month, 3)),
            b'B' => write!(out, "{}", name(&MONTHS, self.month, usize::MAX)),
            b'c' => self.format(out, b"%a %b %e %H:%M:%S %Y"),
            b'C' => write!(out, "{:02}", year.div_euclid(100)),
            b'd' => write!(out, "{:02}", self.day),
            b'D' | b'x' => self.format(out, b"%m/%d/%y"),
            b'e' => write!(out, "{:2}", self.day),
            b'F' => self.format(out, b"%Y-%m-%d"),
            b'g' => write!(out, "{:02}", self.iso_week().0.rem_euclid(100)),
            b'G' => write!(out, "{}", self.iso_week().0),
            b'H' => write!(out, "{:02}", self.hour),
            b'I' => write!(out, "{hour:02}"),
            b'j' => write!(out, "{:03}", self.year_day + 1),
            b'k' => write!(out, "{:2}", self.hour),
            b'l' => write!(out, "{hour:2}"),
            b'm' => write!(out, "{:02}", self.month + 1),
            b'M' => write!(out, "{:02}", self.minute),
            b'n' => out.write_str("\n"),
            b'p' => out.write_str(if self.hour < 12 { "AM" } else { "PM" }),
            b'P' => out.write_str(if self.hour < 12 { "am" } else { "pm" }),
            b'r' => self.format(out, b"%I:%M:%S %p"),
            b'R' => self.format(out, b"%H:%M"),
            b's' => write!(out, "{}", self.seconds()),
            b'S' => write!(out, "{:02}", self.second),
            b't' => out.write_str("\t"),
            b'T' | b'X' => self.format(out, b"%H:%M:%S"),
            b'u' => write!(out, "{}", (self.week_day + 6) % 7 + 1),
            b'U' => write!(out, "{:02}", (self.year_day + 7 - self.week_day) / 7),
            b'V' => write!(out, "{:02}", self.iso_week().1),
            b'w' => write!(out, "{}", self.week_day),
            b'W' => write!(out, "{:02}", (self.year_day + 7 - (self.week_day + 6) % 7) / 7),
            b'y' => write!(out, "{:02}", year.rem_euclid(100)),
            b'Y' => write!(out, "{year}"),
            b'z' => out.write_str("+0000"),
            b'Z' => out.write_str("UTC"),
            b'%' => out.write_str("%"),
            other => write!(out, "%{}", char::from(other)),
        }
    }

    /// ISO 8601: weeks begin on Mondays, and belong to the year that has their Thursday.
    fn iso_week(&self) -> (i64, i64) {
        let year = i64::from(self.year) + 1900;
        let start = days(year, 0, 1);
        let today = start + i64::from(self.year_day);
        let thursday = today - i64::from((self.week_day + 6) % 7) + 3;
        let year = match thursday {
            _ if thursday < start => year - 1,
            _ if thursday >= days(year + 1, 0, 1) => year + 1,
            _ => year,
        };
        (year, (thursday - days(year, 0, 1)) / 7 + 1)
    }
}

unsafe extern "C" fn asctime_r(broken: &Broken, place: *mut u8) -> *mut u8 {
    // SAFETY: as C demands: 26 octets, which hold every year of four digits.
    if unsafe { strftime(place, 26, c"%a %b %e %H:%M:%S %Y\n".as_ptr().cast(), broken) } == 0 {
        error::set(EOVERFLOW);
        return ptr::null_mut();
    }
    place
}

static TEXT: Shared<[u8; 26]> = Shared(core::cell::UnsafeCell::new([0; 26]));

unsafe extern "C" fn asctime(broken: &Broken) -> *mut u8 {
    // SAFETY: passed on to the caller.
    unsafe { asctime_r(broken, TEXT.0.get().cast()) }
}

unsafe extern "C" fn ctime_r(time: &c_long, place: *mut u8) -> *mut u8 {
    match Broken::new(*time) {
        // SAFETY: passed on to the caller.
        Some(broken) => unsafe { asctime_r(&broken, place) },
        None => ptr::null_mut(),
    }
}

unsafe extern "C" fn ctime(time: &c_long) -> *mut u8 {
    // SAFETY: passed on to the caller.
    unsafe { ctime_r(time, TEXT.0.get().cast()) }
}
