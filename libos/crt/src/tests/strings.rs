//! Strings, and classes of characters.

use core::ffi::{CStr, c_char, c_int};
use std::vec::Vec;

use super::{Random, ours, theirs};

type Two = unsafe extern "C" fn(*const u8, *const u8) -> usize;
type TwoBound = unsafe extern "C" fn(*const u8, *const u8, usize) -> usize;
type Find = unsafe extern "C" fn(*const u8, c_int) -> usize;
type FindBound = unsafe extern "C" fn(*const u8, c_int, usize) -> usize;
type Search = unsafe extern "C" fn(*const u8, usize, *const u8, usize) -> usize;

/// Runs both; compares results and the contents of the buffers. Pointers into the first buffer are
/// compared as such.
fn same(name: &CStr, first: &[u8], second: &[u8], run: impl Fn(*const (), *mut u8, *mut u8) -> usize) {
    let mut buffers = (first.to_vec(), second.to_vec());
    let (a, b) = (buffers.0.as_mut_ptr(), buffers.1.as_mut_ptr());
    let one = run(ours(name), a, b);
    let mine = (buffers.0.clone(), buffers.1.clone());
    // The buffers are the same, so that pointers are the same.
    buffers.0.copy_from_slice(first);
    buffers.1.copy_from_slice(second);
    let other = run(theirs(name), a, b);
    assert_eq!((one, mine), (other, buffers), "{name:?} {first:?} {second:?}");
}

fn cast<F: Copy>(function: *const ()) -> F {
    // SAFETY: the tests name the function's own type.
    unsafe { core::mem::transmute_copy(&function) }
}

/// The sign of a comparison's result, the only part with a meaning.
fn sign(result: usize) -> usize {
    (result as c_int).signum() as usize
}

#[test]
fn strings_are_treated_as_by_the_c_library() {
    let mut random = Random(1);
    for round in 0..20_000 {
        let alphabet: &[u8] = if round % 2 == 0 { b"ab" } else { b"aAbB\xe9 ,;z" };
        let mut first = random.text(12, alphabet);
        first.resize(64, 0x77);
        first[63] = 0;
        let mut second = random.text(6, alphabet);
        second.resize(32, 0x66);
        let (count, octet) = (random.below(14), c_int::from(alphabet[random.below(alphabet.len())]));
        let short = random.below(3);
        // SAFETY, for all calls: the strings end, and there is room behind the first for the
        // second.
        for name in [c"strcmp", c"strcasecmp", c"strcoll"] {
            same(name, &first, &second, |f, a, b| sign(unsafe { cast::<Two>(f)(a, b) }));
        }
        for name in [c"strncmp", c"strncasecmp", c"memcmp", c"bcmp"] {
            same(name, &first, &second, |f, a, b| sign(unsafe { cast::<TwoBound>(f)(a, b, count) }));
        }
        for name in [c"strcpy", c"stpcpy", c"strcat", c"strspn", c"strcspn", c"strpbrk", c"strstr", c"strcasestr"] {
            same(name, &first, &second, |f, a, b| unsafe { cast::<Two>(f)(a, b) });
        }
        for name in [c"strncpy", c"stpncpy", c"strncat", c"memcpy", c"memmove", c"mempcpy"] {
            same(name, &first, &second, |f, a, b| unsafe { cast::<TwoBound>(f)(a, b, count) });
        }
        for name in [c"strchr", c"strrchr", c"strchrnul", c"index", c"rindex"] {
            for octet in [octet, 0, octet + 256] {
                same(name, &first, &second, |f, a, _| unsafe { cast::<Find>(f)(a, octet) });
            }
        }
        for name in [c"memchr", c"memrchr", c"memset"] {
            same(name, &first, &second, |f, a, _| unsafe { cast::<FindBound>(f)(a, octet, count) });
        }
        same(c"memccpy", &first, &second, |f, a, b| unsafe {
            cast::<unsafe extern "C" fn(*mut u8, *const u8, c_int, usize) -> usize>(f)(a, b, octet, count)
        });
        same(c"memmem", &first, &second, |f, a, b| unsafe { cast::<Search>(f)(a, count, b, short) });
        same(c"memmove", &first, &second, |f, a, _| unsafe { cast::<TwoBound>(f)(a.add(short), a.add(2), count) });
        same(c"memmove", &first, &second, |f, a, _| unsafe { cast::<TwoBound>(f)(a.add(2), a.add(short), count) });
        same(c"strlen", &first, &second, |f, a, _| unsafe { cast::<unsafe extern "C" fn(*const u8) -> usize>(f)(a) });
        same(c"strnlen", &first, &second, |f, a, _| unsafe {
            cast::<unsafe extern "C" fn(*const u8, usize) -> usize>(f)(a, count)
        });
        for name in [c"strtok_r", c"__strtok_r"] {
            same(name, &first, &second, |f, a, b| {
                tokens(a, |start, rest| unsafe {
                    cast::<unsafe extern "C" fn(*mut u8, *const u8, *mut *mut u8) -> *mut u8>(f)(start, b, rest)
                })
            });
        }
        same(c"strsep", &first, &second, |f, a, b| {
            let mut place = a;
            let mut sum = 0_usize;
            while !place.is_null() {
                let token =
                    unsafe { cast::<unsafe extern "C" fn(*mut *mut u8, *const u8) -> *mut u8>(f)(&mut place, b) };
                sum = sum.wrapping_mul(31).wrapping_add(token.addr());
            }
            sum
        });
        for name in [c"strdup", c"strndup"] {
            let copies: Vec<Vec<u8>> = [(ours(name), ours(c"free")), (theirs(name), theirs(c"free"))]
                .map(|(f, free): (*const (), *const ())| unsafe {
                    let copy = cast::<unsafe extern "C" fn(*const u8, usize) -> *mut c_char>(f)(first.as_ptr(), count);
                    let text = CStr::from_ptr(copy).to_bytes().to_vec();
                    cast::<unsafe extern "C" fn(*mut c_char)>(free)(copy);
                    text
                })
                .into();
            assert_eq!(copies[0], copies[1]);
        }
    }
}

/// All tokens, as one number.
fn tokens(start: *mut u8, next: impl Fn(*mut u8, *mut *mut u8) -> *mut u8) -> usize {
    let mut rest = core::ptr::null_mut();
    let mut token = next(start, &mut rest);
    let mut sum: usize = 0;
    while !token.is_null() {
        sum = sum.wrapping_mul(31).wrapping_add(token.addr());
        token = next(core::ptr::null_mut(), &mut rest);
    }
    sum
}

#[test]
fn strings_are_copied_only_as_far_as_there_is_room() {
    type Copy = unsafe extern "C" fn(*mut u8, *const u8, usize) -> usize;
    // glibc has them since 2.38; these results are from OpenBSD's manual.
    for (name, size, expected, text) in [
        (c"strlcpy", 0, 5, "ab"),
        (c"strlcpy", 1, 5, ""),
        (c"strlcpy", 4, 5, "hel"),
        (c"strlcpy", 6, 5, "hello"),
        (c"strlcat", 1, 6, "ab"),
        (c"strlcat", 3, 7, "ab"),
        (c"strlcat", 5, 7, "abhe"),
        (c"strlcat", 8, 7, "abhello"),
    ] {
        let mut buffer = *b"ab\0-----------";
        // SAFETY: the strings end, and there is room.
        assert_eq!(
            unsafe { ours::<Copy>(name)(buffer.as_mut_ptr(), c"hello".as_ptr().cast(), size) },
            expected,
            "{name:?} {size}"
        );
        let end = CStr::from_bytes_until_nul(&buffer).unwrap();
        assert_eq!(end.to_str().unwrap(), text, "{name:?} {size}");
    }
}

#[test]
fn characters_have_the_classes_of_the_c_library() {
    type Table<T> = unsafe extern "C" fn() -> *const *const T;
    // SAFETY: the tables have these indices.
    unsafe {
        for index in -128..256 {
            for name in [c"__ctype_tolower_loc", c"__ctype_toupper_loc"] {
                let (mine, other) = (ours::<Table<i32>>(name)(), theirs::<Table<i32>>(name)());
                // glibc's tables for C's locale map -128..-1 as the corresponding octets; programs
                // may only ask for EOF and octets.
                if index >= -1 {
                    assert_eq!((*mine).offset(index).read(), (*other).offset(index).read(), "{name:?} {index}");
                }
            }
            let name = c"__ctype_b_loc";
            let (mine, other) = (ours::<Table<u16>>(name)(), theirs::<Table<u16>>(name)());
            assert_eq!((*mine).offset(index).read(), (*other).offset(index).read(), "{index}");
        }
    }
    type Class = unsafe extern "C" fn(c_int) -> c_int;
    for character in -1..256 {
        for name in [
            c"isalnum",
            c"isalpha",
            c"isblank",
            c"iscntrl",
            c"isdigit",
            c"isgraph",
            c"islower",
            c"isprint",
            c"ispunct",
            c"isspace",
            c"isupper",
            c"isxdigit",
        ] {
            // SAFETY: EOF and octets are allowed.
            let (mine, other) = unsafe { (ours::<Class>(name)(character), theirs::<Class>(name)(character)) };
            assert_eq!(mine != 0, other != 0, "{name:?} {character}");
        }
        for name in [c"tolower", c"toupper", c"toascii"] {
            // SAFETY: as above.
            let (mine, other) = unsafe { (ours::<Class>(name)(character), theirs::<Class>(name)(character)) };
            assert_eq!(mine, other, "{name:?} {character}");
        }
    }
}

#[test]
fn errors_have_the_texts_of_the_c_library() {
    type Message = unsafe extern "C" fn(c_int) -> *const c_char;
    for number in (0..134).filter(|number| ![41, 58].contains(number)) {
        // SAFETY: both return strings.
        let [mine, other] = unsafe {
            [ours::<Message>(c"strerror")(number), theirs::<Message>(c"strerror")(number)]
                .map(|text| CStr::from_ptr(text))
        };
        assert_eq!(mine, other);
    }
}
