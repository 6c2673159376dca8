//! `math.h`: results within a few units in the last place of the C library's, which are nearly
//! always the best.

use core::ffi::{CStr, c_int, c_long};

use super::{Random, ours, theirs};

/// The number of representable numbers between the two.
fn apart(one: f64, other: f64) -> u64 {
    if one.is_nan() || other.is_nan() {
        return if one.is_nan() == other.is_nan() { 0 } else { u64::MAX };
    }
    order(one).abs_diff(order(other))
}

fn order(value: f64) -> i64 {
    let bits = value.to_bits() as i64;
    if bits < 0 { i64::MIN - bits } else { bits }
}

fn apart_single(one: f32, other: f32) -> u64 {
    if one.is_nan() || other.is_nan() {
        return if one.is_nan() == other.is_nan() { 0 } else { u64::MAX };
    }
    let order = |value: f32| {
        let bits = value.to_bits() as i32;
        i64::from(if bits < 0 { i32::MIN - bits } else { bits })
    };
    order(one).abs_diff(order(other))
}

/// Numbers of all sizes, many near 1, and special values.
fn values(random: &mut Random) -> f64 {
    const CORNERS: [f64; 14] = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        -0.5,
        2.5,
        3.0,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        f64::MAX,
        f64::MIN_POSITIVE,
        5e-324,
    ];
    match random.below(4) {
        0 => CORNERS[random.below(CORNERS.len())],
        // glibc treats signalling NaNs separately.
        1 => Some(f64::from_bits(random.next())).filter(|value| !value.is_nan()).unwrap_or(f64::NAN),
        2 => (random.next() as i64) as f64 / 1e18,
        _ => (random.next() as i64) as f64 / 1e17,
    }
}

type One = unsafe extern "C" fn(f64) -> f64;
type OneSingle = unsafe extern "C" fn(f32) -> f32;
type Two = unsafe extern "C" fn(f64, f64) -> f64;
type TwoSingle = unsafe extern "C" fn(f32, f32) -> f32;

const EXACT: [&CStr; 9] =
    [c"ceil", c"fabs", c"floor", c"rint", c"nearbyint", c"round", c"roundeven", c"sqrt", c"trunc"];
const NEAR: [&CStr; 21] = [
    c"acos", c"acosh", c"asin", c"asinh", c"atan", c"atanh", c"cbrt", c"cos", c"cosh", c"exp", c"exp2", c"expm1",
    c"log", c"log10", c"log1p", c"log2", c"sin", c"sinh", c"tan", c"tanh", c"erf",
];
const EXACT_TWO: [&CStr; 7] = [c"copysign", c"fdim", c"fmax", c"fmin", c"fmod", c"nextafter", c"remainder"];
const NEAR_TWO: [&CStr; 3] = [c"atan2", c"hypot", c"pow"];

fn single(name: &CStr) -> std::ffi::CString {
    std::ffi::CString::new([name.to_bytes(), b"f"].concat()).unwrap()
}

#[test]
fn functions_of_numbers_agree_with_the_c_library() {
    let mut random = Random(21);
    for (names, allowed) in [(&EXACT[..], 0), (&NEAR[..], 4)] {
        for name in names {
            let functions = (ours::<One>(name), theirs::<One>(name));
            let singles = (ours::<OneSingle>(&single(name)), theirs::<OneSingle>(&single(name)));
            for _ in 0..3000 {
                let value = values(&mut random);
                let (one, other) = unsafe { (functions.0(value), functions.1(value)) };
                assert!(apart(one, other) <= allowed, "{name:?}({value:e}): {one:e}, not {other:e}");
                let value = value as f32;
                let (one, other) = unsafe { (singles.0(value), singles.1(value)) };
                assert!(apart_single(one, other) <= allowed, "{name:?}f({value:e}): {one:e}, not {other:e}");
            }
        }
    }
    for (names, allowed) in [(&EXACT_TWO[..], 0), (&NEAR_TWO[..], 4)] {
        for name in names {
            let functions = (ours::<Two>(name), theirs::<Two>(name));
            let singles = (ours::<TwoSingle>(&single(name)), theirs::<TwoSingle>(&single(name)));
            for _ in 0..3000 {
                let (value, by) = (values(&mut random), values(&mut random));
                let (one, other) = unsafe { (functions.0(value, by), functions.1(value, by)) };
                assert!(apart(one, other) <= allowed, "{name:?}({value:e}, {by:e}): {one:e}, not {other:e}");
                let (value, by) = (value as f32, by as f32);
                let (one, other) = unsafe { (singles.0(value, by), singles.1(value, by)) };
                assert!(apart_single(one, other) <= allowed, "{name:?}f({value:e}, {by:e}): {one:e}, not {other:e}");
            }
        }
    }
}

#[test]
fn parts_of_numbers_are_those_of_the_c_library() {
    let mut random = Random(22);
    for _ in 0..5000 {
        let (value, power) = (values(&mut random), random.next() as c_int % 3000);
        unsafe {
            for name in [c"__isnan", c"__isinf", c"__finite", c"__fpclassify", c"__issignaling", c"ilogb"] {
                let function = |f: unsafe extern "C" fn(f64) -> c_int| f(value);
                assert_eq!(function(ours(name)), function(theirs(name)), "{name:?} {value:e}");
            }
            let negative = |f: unsafe extern "C" fn(f64) -> c_int| f(value) != 0;
            assert_eq!(negative(ours(c"__signbit")), negative(theirs(c"__signbit")));
            for name in [c"lrint", c"llround", c"lround"] {
                let function = |f: unsafe extern "C" fn(f64) -> c_long| f(value);
                assert_eq!(function(ours(name)), function(theirs(name)), "{name:?} {value:e}");
            }
            for name in [c"ldexp", c"scalbn", c"scalbln"] {
                let function = |f: unsafe extern "C" fn(f64, c_long) -> f64| f(value, power.into());
                assert_eq!(apart(function(ours(name)), function(theirs(name))), 0, "{name:?} {value:e} {power}");
            }
            let logb = |f: One| f(value);
            assert_eq!(apart(logb(ours(c"logb")), logb(theirs(c"logb"))), 0, "logb {value:e}");
            let frexp = |f: unsafe extern "C" fn(f64, *mut c_int) -> f64| {
                let mut power = 7;
                let fraction = f(value, &mut power);
                (if fraction.is_nan() { 0 } else { fraction.to_bits() }, power)
            };
            assert_eq!(frexp(ours(c"frexp")), frexp(theirs(c"frexp")), "frexp {value:e}");
            let modf = |f: unsafe extern "C" fn(f64, *mut f64) -> f64| {
                let mut whole = 7.0;
                let fraction = f(value, &mut whole);
                [fraction, whole].map(|part: f64| if part.is_nan() { 0 } else { part.to_bits() })
            };
            assert_eq!(modf(ours(c"modf")), modf(theirs(c"modf")), "modf {value:e}");
        }
    }
}
