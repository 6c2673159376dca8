//! Numbers from text.

use core::ffi::{c_char, c_int};
use std::ffi::CString;
use std::format;
use std::vec::Vec;

use super::{Random, ours, theirs};
use crate::error;

unsafe extern "C" {
    fn __errno_location() -> *mut c_int;
}

/// Calls both and compares the result, the end of the number, and `errno`.
macro_rules! same {
    ($type:ty, $name:expr, $text:expr, $value:ident => $bits:expr $(, $argument:expr)*) => {{
        let text: &[u8] = $text;
        let run = |function: $type, number: *mut c_int| {
            let mut end: *const c_char = core::ptr::null();
            // SAFETY: the text ends; both variables exist.
            unsafe {
                number.write(0);
                let $value = function(text.as_ptr().cast(), &mut end $(, $argument)*);
                ($bits, end.addr() - text.as_ptr().addr(), number.read())
            }
        };
        // SAFETY: the C library's own.
        let (one, other) = (run(ours($name), our_number()), run(theirs($name), unsafe { __errno_location() }));
        assert_eq!(one, other, "{:?} {}", $name, std::string::String::from_utf8_lossy(text));
    }};
}

fn our_number() -> *mut c_int {
    super::set_up();
    // SAFETY: always.
    unsafe { error::__errno_location() }
}

type Long = unsafe extern "C" fn(*const c_char, *mut *const c_char, c_int) -> i64;
type Double = unsafe extern "C" fn(*const c_char, *mut *const c_char) -> f64;
type Float = unsafe extern "C" fn(*const c_char, *mut *const c_char) -> f32;

fn both_reals(text: &[u8]) {
    // A NaN's payload is not compared.
    same!(Double, c"strtod", text, value => if value.is_nan() { 1 } else { value.to_bits() });
    same!(Float, c"strtof", text, value => if value.is_nan() { 1 } else { value.to_bits() });
}

#[test]
fn integers_are_read_as_by_the_c_library() {
    let mut random = Random(5);
    let mut texts: Vec<Vec<u8>> = [
        "",
        " ",
        "-",
        "+",
        "0",
        "0x",
        "0xg",
        "0x1",
        "-0x1",
        "08",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "-9223372036854775809",
        "18446744073709551615",
        "18446744073709551616",
        "-18446744073709551615",
        "-18446744073709551616",
        "zz",
        "\t\n\x0b\x0c\r 12",
        "99999999999999999999999",
        "--1",
        "+-1",
        "1 2",
    ]
    .iter()
    .map(|text| CString::new(*text).unwrap().into_bytes_with_nul())
    .collect();
    texts.extend((0..5000).map(|_| random.text(24, b"0123456789")));
    texts.extend((0..5000).map(|_| random.text(12, b" +-0x19afzZ")));
    for text in texts {
        for base in [0, 2, 8, 10, 16, 36, 1, 37, -1] {
            // For an invalid base, glibc does not return the end of the number.
            if (2..=36).contains(&base) || base == 0 {
                same!(Long, c"strtol", &text, value => value, base);
                same!(Long, c"strtoul", &text, value => value, base);
            }
        }
    }
}

#[test]
fn fractions_are_read_as_by_the_c_library() {
    for text in [
        "",
        ".",
        "-.",
        "1",
        "1.",
        ".5",
        "-.5e1",
        "1e",
        "1e+",
        "1e5",
        "1e-5x",
        "1.7976931348623157e308",
        "1.7976931348623159e308",
        "1e309",
        "-1e400",
        "1e-400",
        "4.9e-324",
        "2e-324",
        "2.2250738585072014e-308",
        "2.2250738585072011e-308",
        "3.4028235e38",
        "3.4028236e38",
        "1e-46",
        "1.4e-45",
        "inf",
        "-Infinity",
        "infinit",
        "nan",
        "NaN(1_a)",
        "nan(",
        "nan(-)",
        "0x",
        "0x.",
        "0xp1",
        "0x1",
        "0x1p",
        "0x1p1",
        "-0x1.8p-1",
        "0x.8",
        "0x1.fffffffffffff8p0",
        "0x1.fffffffffffff7p0",
        "0x1.fffffffffffff80000000001p0",
        "0x1p1023",
        "0x1.fffffffffffff8p1023",
        "0x1p1024",
        "0x1p-1074",
        "0x1p-1075",
        "0x1.8p-1075",
        "0x1p-1076",
        "0x1.fffffp-1050",
        "0x0p99999999999",
        "0x1p99999999999",
        "0x1p-99999999999",
        "0x00000000000000000000000001p0",
        "0x123456789abcdef123456789abcdef.8p-3",
        "9007199254740993",
        "9007199254740992.9999999999999999999999999",
        "  12.5rest",
        "1e99999999999999999999",
        "1e-99999999999999999999",
        "0e99999999999999999999",
        "0.0000000000000000000000000000000000000000000000000000000000000000001",
    ] {
        both_reals(&CString::new(text).unwrap().into_bytes_with_nul());
    }
    let mut random = Random(6);
    for _ in 0..20_000 {
        both_reals(&random.text(20, b"0123456789.e-"));
        both_reals(&[b"0x".as_slice(), &random.text(24, b"0123456789abcdef.p-")].concat());
    }
    for _ in 0..20_000 {
        let value = f64::from_bits(random.next());
        both_reals(&CString::new(format!("{value:e}")).unwrap().into_bytes_with_nul());
        both_reals(&CString::new(format!("{}", value as f32)).unwrap().into_bytes_with_nul());
    }
}

type Scan = unsafe extern "C" fn(*const c_char, *const c_char, ...) -> c_int;

#[test]
fn text_is_scanned_as_by_the_c_library() {
    let inputs = [
        "",
        " ",
        "12",
        "12 34",
        "-5,6",
        "0x1f 077",
        "abc def",
        "  abc",
        "3.5e2 xyz",
        "1:2:3",
        "[a]",
        "]]x",
        "a-c",
        "99999999999999999999 1",
        "7%8",
        "inf nan",
    ];
    let formats = [
        "%d",
        "%d %d",
        "%d,%d",
        "%i %i",
        "%x %o",
        "%s %s",
        "%3s%s",
        "%c%c",
        "%5c",
        "%lf %s",
        "%f",
        "%d:%d:%d",
        "%[a-c]%n",
        "%[^]]%s",
        "%[]]%s",
        "%*d %d",
        "%ld %n",
        "%hhd",
        "%u%%%u",
        "%2d%2d",
        "%[a-z] %[a-z]",
        " %c",
        "x%d",
        "%n",
        "%lld%*[ ]%hd",
        "%g %g",
        "%[^ ]",
        "%[-a]",
    ];
    for input in inputs {
        for format in formats {
            let (input, format) = (CString::new(input).unwrap(), CString::new(format).unwrap());
            let [one, other] = [ours::<Scan>(c"__isoc99_sscanf"), theirs::<Scan>(c"__isoc99_sscanf")].map(|scan| {
                let mut places = [[0xaa_u8; 64]; 4];
                let [a, b, c, d] = places.each_mut().map(|place| place.as_mut_ptr());
                // SAFETY: no format asks for more than four places, or more room than they have.
                let count = unsafe { scan(input.as_ptr(), format.as_ptr(), a, b, c, d) };
                (count, places)
            });
            assert_eq!(one, other, "{input:?} {format:?}");
        }
    }
}

#[test]
fn a_nan_carries_what_it_is_given() {
    type Double = unsafe extern "C" fn(*const c_char, *mut *const c_char, u8) -> f64;
    type Float = unsafe extern "C" fn(*const c_char, *mut *const c_char, u8) -> f32;
    for text in [
        &b"\0"[..],
        b"0\0",
        b"1\0",
        b"0x123456789abcdef\0",
        b"0777)\0",
        b"5 )\0",
        b"5_)\0",
        b"-1\0",
        b"99999999999999999999\0",
    ] {
        for last in [0, b')'] {
            same!(Double, c"__strtod_nan", text, value => value.to_bits(), last);
            same!(Float, c"__strtof_nan", text, value => value.to_bits(), last);
        }
    }
}
