//! `printf`, over a grid of formats and values.

use core::ffi::{CStr, c_char, c_int, c_void};
use std::ffi::CString;
use std::format;
use std::string::String;
use std::vec::Vec;

use super::{Random, ours, theirs};

type Print = unsafe extern "C" fn(*mut c_char, usize, *const c_char, ...) -> c_int;

/// Calls both with the same arguments, and compares text and result.
macro_rules! same {
    ($size:expr, $format:expr $(, $argument:expr)*) => {{
        let format: &CStr = $format;
        let size: usize = $size;
        let [(one, text), (other, expected)] = [ours::<Print>(c"snprintf"), theirs::<Print>(c"snprintf")].map(|print| {
            let mut text = std::vec![0x55_u8; 6000];
            // SAFETY: the arguments are those of the format, and there is room.
            let length = unsafe { print(text.as_mut_ptr().cast(), size, format.as_ptr() $(, $argument)*) };
            (length, text)
        });
        assert!(
            one == other && text == expected,
            "{format:?} {:?}: {one} {:?} instead of {other} {:?}", Vec::<String>::from([$(format!("{:?}", $argument)),*]), shown(&text), shown(&expected)
        );
    }};
}

fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(text.split(|octet| *octet == 0).next().unwrap_or_default()).into_owned()
}

fn specifications() -> Vec<String> {
    let mut all = Vec::new();
    for flags in 0..32 {
        let set: String =
            "-+ #0".chars().enumerate().filter(|(bit, _)| flags >> bit & 1 == 1).map(|(_, flag)| flag).collect();
        for width in ["", "1", "7", "25"] {
            for precision in ["", ".", ".0", ".1", ".3", ".10", ".17", ".30"] {
                all.push(format!("%{set}{width}{precision}"));
            }
        }
    }
    all
}

#[test]
fn integers_are_printed_as_by_the_c_library() {
    let mut values: Vec<u64> =
        std::vec![0, 1, 7, 8, 9, 10, 127, 128, 255, 256, 32767, 32768, 65535, 65536, u64::MAX, 1 << 31, (1 << 31) - 1];
    values.extend([i64::MAX as u64, i64::MIN as u64, 0xffff_ffff, 0x1_0000_0000]);
    for specification in specifications() {
        for letter in ["d", "i", "u", "x", "X", "o", "c"] {
            for size in ["", "hh", "h", "l", "ll", "z", "j", "t"] {
                if letter == "c" && !size.is_empty() {
                    continue;
                }
                let format = CString::new(format!("<{specification}{size}{letter}>")).unwrap();
                for value in &values {
                    same!(100, &format, *value);
                }
            }
        }
        let format = CString::new(format!("<{specification}p>")).unwrap();
        for value in [core::ptr::null::<c_void>(), &raw const format as *const c_void] {
            same!(100, &format, value);
        }
    }
}

fn precision_of(specification: &str) -> usize {
    specification.split_once('.').map_or(6, |(_, digits)| digits.parse().unwrap_or(0))
}

fn reals() -> Vec<f64> {
    let mut values = std::vec![
        0.0,
        0.5,
        1.0,
        1.5,
        2.5,
        0.25,
        0.125,
        0.375,
        9.5,
        9.995,
        99.5,
        0.1,
        1.0 / 3.0,
        123456.0,
        1234567.0,
        999999.5,
        9999995.0,
        1e-4,
        1e-5,
        0.00009999995,
        1e15,
        1e16,
        1e17,
        1e22,
        1e23,
        1e100,
        1e300,
        f64::MAX,
        f64::MIN_POSITIVE,
        5e-324,
        2.225073858507201e-308,
        f64::EPSILON,
        4503599627370496.5,
        9007199254740993.0,
        f64::INFINITY,
        f64::NAN,
        1.0625,
        8.5,
        0.03125,
    ];
    let mut random = Random(11);
    values.extend((0..40).map(|_| f64::from_bits(random.next())));
    values.extend((0..40).map(|_| (random.next() % 100_000) as f64 / 64.0));
    values.extend((0..20).map(|_| f64::from_bits(random.next() >> 12)));
    let negative: Vec<f64> = values.iter().map(|value| -value).collect();
    values.extend(negative);
    values
}

#[test]
fn fractions_are_printed_as_by_the_c_library() {
    let values = reals();
    for specification in specifications() {
        for letter in ["f", "F", "e", "E", "g", "G", "a", "A"] {
            let format = CString::new(format!("<{specification}{letter}>")).unwrap();
            for value in &values {
                // glibc 2.36 drops zeros here: `%#g` of 999999.5 is `1.e+06` there.
                if letter == "g" || letter == "G" {
                    let count = precision_of(&specification).max(1) - 1;
                    let power = |text: String| text.rsplit('e').next().map(String::from);
                    if specification.contains('#') && power(format!("{value:e}")) != power(format!("{value:.count$e}"))
                    {
                        continue;
                    }
                }
                same!(6000, &format, *value);
            }
        }
    }
}

#[test]
fn very_long_fractions_are_exact() {
    for value in reals() {
        for letter in ["f", "e", "g", "#g", "a"] {
            for precision in [60, 400, 1073, 1074, 1075, 1100, 1101, 1500, 4000] {
                let (flag, letter) = letter.split_at(letter.len() - 1);
                let format = CString::new(format!("%{flag}.{precision}{letter}")).unwrap();
                same!(6000, &format, value);
                same!(precision / 2, &format, value);
            }
        }
    }
}

#[test]
fn text_is_cut_padded_and_counted() {
    for size in [0, 1, 2, 5, 6, 7, 20, 200] {
        same!(size, c"hello %s!", c"world".as_ptr());
        same!(
            size,
            c"%10s|%-10s|%.2s|%.0s|%*s|%-*s|%.*s",
            c"ab".as_ptr(),
            c"cd".as_ptr(),
            c"efg".as_ptr(),
            c"h".as_ptr(),
            4,
            c"i".as_ptr(),
            -5,
            c"j".as_ptr(),
            -1,
            c"klm".as_ptr()
        );
        same!(size, c"%s %.3s %.6s %10s", 0_usize, 0_usize, 0_usize, 0_usize);
        same!(size, c"%c%c%%%5c%-5c|", 65, 0, 66, 67);
        same!(size, c"%5%|%y|%d", 1);
        same!(size, c"%hhd %lu %lld %zu %jd %td", 300, 1_u64, -1_i64, 5_usize, 6_i64, 7_isize);
        same!(size, c"%ls|%6ls|%.2ls", [97, 98, 99, 0].as_ptr(), [97, 0].as_ptr(), [97, 98, 99, 0].as_ptr());
    }
    let unended = *b"abcdef";
    same!(100, c"%.6s", unended.as_ptr());
}

#[test]
fn many_arguments_come_from_registers_and_from_the_stack() {
    same!(
        1000,
        c"%d %f %d %f %d %f %d %f %d %f %d %f %d %f %d %f %d %f %d %f",
        1,
        1.5,
        2,
        2.5,
        3,
        3.5,
        4,
        4.5,
        5,
        5.5,
        6,
        6.5,
        7,
        7.5,
        8,
        8.5,
        9,
        9.5,
        10,
        10.5
    );
    same!(1000, c"%s %d %s %d %s %d %.1f", c"a".as_ptr(), 1, c"b".as_ptr(), 2, c"c".as_ptr(), 3, 0.5);
}
