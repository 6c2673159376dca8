//! Text to numbers: `strtol`, `strtod` and their kin. Decimal fractions are parsed by Rust, which
//! rounds correctly.

use core::arch::naked_asm;
use core::ffi::{c_int, c_long};

use crate::character::space;
use crate::error::{self, EINVAL, ERANGE};
use crate::export::Export;
use crate::raw::{self, Reader};

pub(crate) const NUMBERS: &[Export] = exports![
    strtol,
    strtoll = strtol,
    strtoimax = strtol,
    strtoq = strtol,
    __strtol_internal = strtol,
    __isoc23_strtol = strtol,
    __isoc23_strtoll = strtol,
    strtoul,
    strtoull = strtoul,
    strtoumax = strtoul,
    strtouq = strtoul,
    __strtoul_internal = strtoul,
    __isoc23_strtoul = strtoul,
    __isoc23_strtoull = strtoul,
    strtod,
    strtof,
    strtold,
    atoi,
    atol,
    atoll = atol,
    atof,
    abs,
    labs,
    llabs = labs,
    imaxabs = labs,
    div,
    ldiv,
    lldiv = ldiv,
    imaxdiv = ldiv,
];

/// Symbols that glibc's libm takes from glibc's libc, and from its dynamic linker.
pub(crate) const PRIVATE: &[Export] =
    exports![__strtod_nan, __strtof_nan, __strtold_nan, __strtof128_nan, _rtld_global_ro = &raw const RTLD_GLOBAL_RO];

/// The processor's features (`cpu_features`), as libm reads them. With zeros only, it takes the
/// functions that any x86-64 can run. No others may run, because threads save only the registers of
/// those. glibc 2.36 has 896 octets.
static RTLD_GLOBAL_RO: [u8; 2048] = [0; 2048];

/// An integer as it was written.
pub(crate) struct Integer {
    pub(crate) negative: bool,
    /// The magnitude, or the largest number if it does not fit.
    pub(crate) magnitude: u64,
    pub(crate) fits: bool,
    /// Index behind the number, spaces included; 0 if there is no number.
    pub(crate) end: usize,
}

impl Integer {
    /// The value as a `long`, and true if it fits.
    pub(crate) fn signed(&self) -> (i64, bool) {
        match (self.negative, self.fits) {
            (false, true) if self.magnitude <= i64::MAX as u64 => (self.magnitude as i64, true),
            (false, _) => (i64::MAX, false),
            (true, true) if self.magnitude <= i64::MIN.unsigned_abs() => ((self.magnitude as i64).wrapping_neg(), true),
            (true, _) => (i64::MIN, false),
        }
    }

    /// The value as an `unsigned long`, in which C negates it, and true if it fits.
    pub(crate) fn unsigned(&self) -> (u64, bool) {
        match (self.negative, self.fits) {
            (_, false) => (u64::MAX, false),
            (true, true) => (self.magnitude.wrapping_neg(), true),
            (false, true) => (self.magnitude, true),
        }
    }
}

/// Skips spaces and a sign; returns true for a minus.
fn sign(reader: &Reader) -> (usize, bool) {
    let mut index = 0;
    while space(reader.at(index)) {
        index += 1;
    }
    match reader.at(index) {
        b'-' => (index + 1, true),
        b'+' => (index + 1, false),
        _ => (index, false),
    }
}

fn digit(octet: u8, base: u32) -> Option<u32> {
    char::from(octet).to_digit(base)
}

/// An integer (ISO C11 7.22.1.4). The base is 0, or 2 to 36.
pub(crate) fn integer(reader: &Reader, base: u32) -> Integer {
    let (mut index, negative) = sign(reader);
    let prefixed = reader.at(index) == b'0'
        && matches!(reader.at(index + 1), b'x' | b'X')
        && digit(reader.at(index + 2), 16).is_some();
    let base = match base {
        0 if prefixed => 16,
        0 if reader.at(index) == b'0' => 8,
        0 => 10,
        base => base,
    };
    if base == 16 && prefixed {
        index += 2;
    }
    let first = index;
    let (mut magnitude, mut fits) = (0_u64, true);
    while let Some(digit) = digit(reader.at(index), base) {
        match magnitude.checked_mul(u64::from(base)).and_then(|value| value.checked_add(u64::from(digit))) {
            Some(value) if fits => magnitude = value,
            _ => (magnitude, fits) = (u64::MAX, false),
        }
        index += 1;
    }
    Integer { negative, magnitude, fits, end: if index == first { 0 } else { index } }
}

/// `float` and `double`.
pub(crate) trait Real: Copy + core::str::FromStr + core::ops::Neg<Output = Self> {
    const NAN: Self;
    const INFINITY: Self;
    /// Digits of the significand, the implied one included.
    const DIGITS: i32;
    /// The exponent of the smallest number, a power of 2.
    const LEAST: i32;
    const GREATEST: i32;
    /// `mantissa * 2^exponent`, which must need no rounding.
    fn exact(mantissa: u64, exponent: i32) -> Self;
    fn is_zero(self) -> bool;
    fn is_tiny(self) -> bool;
    fn is_infinite(self) -> bool;
}

macro_rules! real {
    ($type:ident, $scale:path) => {
        impl Real for $type {
            const NAN: Self = $type::NAN;
            const INFINITY: Self = $type::INFINITY;
            const DIGITS: i32 = $type::MANTISSA_DIGITS as i32;
            const LEAST: i32 = $type::MIN_EXP - $type::MANTISSA_DIGITS as i32;
            const GREATEST: i32 = $type::MAX_EXP;
            fn exact(mantissa: u64, exponent: i32) -> Self {
                $scale(mantissa as $type, exponent)
            }
            fn is_zero(self) -> bool {
                self == 0.0
            }
            fn is_tiny(self) -> bool {
                self.abs() < $type::MIN_POSITIVE
            }
            fn is_infinite(self) -> bool {
                $type::is_infinite(self)
            }
        }
    };
}

real!(f32, libm::scalbnf);
real!(f64, libm::scalbn);

/// Reads a number (ISO C11 7.22.1.3). Returns it, true if it is in range, and its end: 0 if there
/// is none.
pub(crate) fn real<T: Real>(reader: &Reader) -> (T, bool, usize) {
    let (start, negative) = sign(reader);
    let (magnitude, in_range, end) = unsigned::<T>(reader, start);
    (if negative && end > 0 { -magnitude } else { magnitude }, in_range, end)
}

/// True if the word stands here, in capitals or not.
fn word(reader: &Reader, start: usize, word: &[u8]) -> bool {
    word.iter().enumerate().all(|(index, octet)| reader.at(start + index).to_ascii_lowercase() == *octet)
}

fn unsigned<T: Real>(reader: &Reader, start: usize) -> (T, bool, usize) {
    if word(reader, start, b"inf") {
        let end = if word(reader, start + 3, b"inity") { start + 8 } else { start + 3 };
        return (T::INFINITY, true, end);
    }
    if word(reader, start, b"nan") {
        let mut end = start + 3;
        if reader.at(end) == b'(' {
            let mut close = end + 1;
            while reader.at(close).is_ascii_alphanumeric() || reader.at(close) == b'_' {
                close += 1;
            }
            if reader.at(close) == b')' {
                end = close + 1;
            }
        }
        return (T::NAN, true, end);
    }
    if reader.at(start) == b'0' && matches!(reader.at(start + 1), b'x' | b'X') {
        let second = reader.at(start + 2);
        if digit(second, 16).is_some() || second == b'.' && digit(reader.at(start + 3), 16).is_some() {
            return hexadecimal(reader, start + 2);
        }
    }
    decimal(reader, start)
}

fn decimal<T: Real>(reader: &Reader, start: usize) -> (T, bool, usize) {
    let (mut index, mut digits, mut nonzero) = (start, 0, false);
    let mut point = false;
    loop {
        match reader.at(index) {
            octet @ b'0'..=b'9' => {
                digits += 1;
                nonzero |= octet != b'0';
            }
            b'.' if !point => point = true,
            _ => break,
        }
        index += 1;
    }
    if digits == 0 {
        return (T::exact(0, 0), true, 0);
    }
    let end = exponent(reader, index, b'e').map_or(index, |(_, end)| end);
    let value =
        core::str::from_utf8(reader.range(start, end)).ok().and_then(|text| text.parse().ok()).unwrap_or(T::NAN);
    (value, !(value.is_infinite() || nonzero && value.is_tiny()), end)
}

/// The optional exponent, as far as it matters, and its end.
fn exponent(reader: &Reader, start: usize, letter: u8) -> Option<(i32, usize)> {
    if reader.at(start).to_ascii_lowercase() != letter {
        return None;
    }
    let (mut index, negative) = match reader.at(start + 1) {
        b'-' => (start + 2, true),
        b'+' => (start + 2, false),
        _ => (start + 1, false),
    };
    let first = index;
    let mut value = 0_i32;
    while let Some(digit) = digit(reader.at(index), 10) {
        value = value.saturating_mul(10).saturating_add(digit as i32);
        index += 1;
    }
    (index > first).then_some((if negative { -value } else { value }, index))
}

fn hexadecimal<T: Real>(reader: &Reader, start: usize) -> (T, bool, usize) {
    // 60 bits of the digits, and true if any other digit follows.
    let (mut mantissa, mut rest, mut scale) = (0_u64, false, 0_i32);
    let (mut index, mut point) = (start, false);
    loop {
        let octet = reader.at(index);
        if let Some(digit) = digit(octet, 16) {
            if mantissa >> 56 == 0 {
                mantissa = mantissa << 4 | u64::from(digit);
                scale -= if point { 4 } else { 0 };
            } else {
                rest |= digit != 0;
                scale = scale.saturating_add(if point { 0 } else { 4 });
            }
        } else if octet == b'.' && !point {
            point = true;
        } else {
            break;
        }
        index += 1;
    }
    let (power, end) = exponent(reader, index, b'p').unwrap_or((0, index));
    let (value, in_range) = compose(mantissa, rest, scale.saturating_add(power));
    (value, in_range, end)
}

/// `mantissa * 2^exponent`, and a little more if there is a rest, rounded to the nearest number.
fn compose<T: Real>(mantissa: u64, rest: bool, exponent: i32) -> (T, bool) {
    if mantissa == 0 {
        return (T::exact(0, 0), true);
    }
    let bits = 64 - mantissa.leading_zeros() as i32;
    let top = exponent.saturating_add(bits);
    if top > T::GREATEST {
        return (T::INFINITY, false);
    }
    if top < T::LEAST {
        return (T::exact(0, 0), false);
    }
    // The bits below the last digit are dropped.
    let last = (top - T::DIGITS).max(T::LEAST);
    let drop = last - exponent;
    if drop <= 0 {
        return (T::exact(mantissa, exponent), true);
    }
    // These are no more than the 60 bits of the mantissa, because `top` is not below `LEAST`.
    let (kept, gone) = (mantissa >> drop, mantissa & ((1 << drop) - 1));
    let half = 1 << (drop - 1);
    let up = gone > half || gone == half && (rest || kept & 1 == 1);
    let value = T::exact(kept + u64::from(up), last);
    let inexact = gone != 0 || rest;
    (value, !(value.is_infinite() || inexact && (value.is_tiny() || value.is_zero())))
}

/// # Safety
/// The string ends; the place is null, or can be written.
unsafe fn convert(start: *const u8, end: *mut *const u8, base: c_int) -> Integer {
    let number = match u32::try_from(base) {
        Ok(base @ (0 | 2..=36)) => {
            // SAFETY: passed on to the caller; `integer` reads onwards, up to the end.
            integer(&unsafe { Reader::new(start, usize::MAX) }, base)
        }
        _ => {
            error::set(EINVAL);
            Integer { negative: false, magnitude: 0, fits: true, end: 0 }
        }
    };
    // SAFETY: passed on to the caller.
    unsafe { raw::store(end, start.wrapping_add(number.end)) };
    number
}

fn in_range<T>((value, in_range): (T, bool)) -> T {
    if !in_range {
        error::set(ERANGE);
    }
    value
}

pub(crate) unsafe extern "C" fn strtol(start: *const u8, end: *mut *const u8, base: c_int) -> c_long {
    // SAFETY: as C demands.
    in_range(unsafe { convert(start, end, base) }.signed())
}

pub(crate) unsafe extern "C" fn strtoul(start: *const u8, end: *mut *const u8, base: c_int) -> u64 {
    // SAFETY: as C demands.
    in_range(unsafe { convert(start, end, base) }.unsigned())
}

/// # Safety
/// The string ends; the place is null, or can be written.
unsafe fn convert_real<T: Real>(start: *const u8, end: *mut *const u8) -> T {
    // SAFETY: passed on to the caller; `real` reads onwards, up to the end.
    let (value, fits, length) = real::<T>(&unsafe { Reader::new(start, usize::MAX) });
    // SAFETY: passed on to the caller.
    unsafe { raw::store(end, start.wrapping_add(length)) };
    in_range((value, fits))
}

pub(crate) unsafe extern "C" fn strtod(start: *const u8, end: *mut *const u8) -> f64 {
    // SAFETY: as C demands.
    unsafe { convert_real(start, end) }
}

pub(crate) unsafe extern "C" fn strtof(start: *const u8, end: *mut *const u8) -> f32 {
    // SAFETY: as C demands.
    unsafe { convert_real(start, end) }
}

/// A `long double` with a `double`'s digits. It is returned in a register that Rust does not
/// support.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn strtold() {
    naked_asm!(
        "push rbp",
        "mov rbp, rsp",
        "sub rsp, 16",
        "call {strtod}",
        "movsd [rsp], xmm0",
        "fld qword ptr [rsp]",
        "leave",
        "ret",
        strtod = sym strtod,
    )
}

/// The payload of `nan("0x123")`, from text that ends with the octet `last`; 0 without a number.
/// Stores the end of the text, if `end` is not null.
unsafe extern "C" fn payload(start: *const u8, end: *mut *const u8, last: u8) -> u64 {
    // SAFETY: as C demands, the text ends.
    let reader = unsafe { Reader::new(start, usize::MAX) };
    let mut length = 0;
    while reader.at(length).is_ascii_alphanumeric() || reader.at(length) == b'_' {
        length += 1;
    }
    // SAFETY: as C demands: the place is null, or can be written.
    unsafe { raw::store(end, start.wrapping_add(length)) };
    if reader.at(length) != last {
        return 0;
    }
    let number = integer(&reader, 0);
    let value = in_range(number.unsigned());
    if number.end == length { value } else { 0 }
}

unsafe extern "C" fn __strtod_nan(start: *const u8, end: *mut *const u8, last: u8) -> f64 {
    // SAFETY: as C demands.
    let payload = unsafe { payload(start, end, last) };
    f64::from_bits(f64::NAN.to_bits() | (payload & ((1 << 51) - 1)))
}

unsafe extern "C" fn __strtof_nan(start: *const u8, end: *mut *const u8, last: u8) -> f32 {
    // SAFETY: as C demands.
    let payload = unsafe { payload(start, end, last) };
    f32::from_bits(f32::NAN.to_bits() | (payload as u32 & ((1 << 22) - 1)))
}

/// A `long double`: exponent, the integer bit and that of a quiet NaN, 62 bits.
#[unsafe(naked)]
unsafe extern "C" fn __strtold_nan(start: *const u8, end: *mut *const u8, last: u8) {
    naked_asm!(
        "push rbp",
        "mov rbp, rsp",
        "sub rsp, 16",
        "call {payload}",
        "shl rax, 2",
        "or rax, 3",
        "ror rax, 2",
        "mov [rsp], rax",
        "mov qword ptr [rsp + 8], 0x7fff",
        "fld tbyte ptr [rsp]",
        "leave",
        "ret",
        payload = sym payload,
    )
}

/// An `_Float128`.
#[unsafe(naked)]
unsafe extern "C" fn __strtof128_nan(start: *const u8, end: *mut *const u8, last: u8) {
    naked_asm!(
        "push rbp",
        "mov rbp, rsp",
        "call {payload}",
        "movq xmm0, rax",
        "mov rax, 0x7fff800000000000",
        "movq xmm1, rax",
        "punpcklqdq xmm0, xmm1",
        "pop rbp",
        "ret",
        payload = sym payload,
    )
}

pub(crate) unsafe extern "C" fn atof(start: *const u8) -> f64 {
    // SAFETY: as C demands.
    unsafe { strtod(start, core::ptr::null_mut()) }
}

pub(crate) unsafe extern "C" fn atol(start: *const u8) -> c_long {
    // SAFETY: as C demands.
    unsafe { strtol(start, core::ptr::null_mut(), 10) }
}

pub(crate) unsafe extern "C" fn atoi(start: *const u8) -> c_int {
    // SAFETY: as C demands.
    unsafe { atol(start) as c_int }
}

pub(crate) unsafe extern "C" fn abs(value: c_int) -> c_int {
    value.wrapping_abs()
}

pub(crate) unsafe extern "C" fn labs(value: c_long) -> c_long {
    value.wrapping_abs()
}

#[repr(C)]
pub(crate) struct Divided<T> {
    quotient: T,
    remainder: T,
}

pub(crate) unsafe extern "C" fn div(value: c_int, by: c_int) -> Divided<c_int> {
    Divided { quotient: value.wrapping_div(by), remainder: value.wrapping_rem(by) }
}

pub(crate) unsafe extern "C" fn ldiv(value: c_long, by: c_long) -> Divided<c_long> {
    Divided { quotient: value.wrapping_div(by), remainder: value.wrapping_rem(by) }
}
