//! `wchar.h` and `wctype.h`, in C's locale: only the characters of ASCII have an octet, and each has
//! its own. No state is kept between calls.

use alloc::vec::Vec;
use core::ffi::{CStr, c_int, c_ulong, c_void};
use core::ptr;

use crate::character::{self, tolower, toupper};
use crate::error::{self, EILSEQ};
use crate::export::Export;
use crate::raw;
use crate::stdio::{self, File};
use crate::time::{Broken, strftime};

pub(crate) const WIDE: &[Export] = exports![
    btowc,
    wctob,
    mbrtowc,
    wcrtomb,
    mbsrtowcs,
    mbsnrtowcs,
    wcsrtombs,
    wcsnrtombs,
    wcslen,
    wcscmp,
    wcscoll = wcscmp,
    __wcscoll_l = wcscmp,
    wcsxfrm,
    __wcsxfrm_l = wcsxfrm,
    __wcsftime_l = wcsftime,
    wcsftime,
    wmemchr,
    wmemcmp,
    wmemcpy,
    wmemmove,
    wmemset,
    getwc = fgetwc,
    fgetwc,
    putwc = fputwc,
    fputwc,
    ungetwc,
    wctype,
    __wctype_l = wctype,
    iswctype,
    __iswctype_l = iswctype,
    towlower,
    __towlower_l = towlower,
    towupper,
    __towupper_l = towupper,
];

/// `wchar_t`.
type Wide = i32;
/// `wint_t`, and its value for no character, WEOF.
type WideInt = u32;
const NONE: WideInt = WideInt::MAX;
/// The results of conversions: of a sequence that is no character, and of one that is not whole.
const INVALID: usize = usize::MAX;
const INCOMPLETE: usize = usize::MAX - 1;

fn octet(wide: Wide) -> Option<u8> {
    u8::try_from(wide).ok().filter(u8::is_ascii)
}

fn invalid() -> usize {
    error::set(EILSEQ);
    INVALID
}

unsafe extern "C" fn btowc(octet: c_int) -> WideInt {
    if (0..128).contains(&octet) { octet as WideInt } else { NONE }
}

unsafe extern "C" fn wctob(wide: WideInt) -> c_int {
    octet(wide as Wide).map_or(-1, c_int::from)
}

unsafe extern "C" fn mbrtowc(to: *mut Wide, from: *const u8, count: usize, _state: *mut c_void) -> usize {
    if from.is_null() {
        return 0;
    }
    if count == 0 {
        return INCOMPLETE;
    }
    // SAFETY: as C demands.
    let octet = unsafe { from.read() };
    if !octet.is_ascii() {
        return invalid();
    }
    if !to.is_null() {
        // SAFETY: as C demands.
        unsafe { to.write(Wide::from(octet)) };
    }
    usize::from(octet != 0)
}

unsafe extern "C" fn wcrtomb(to: *mut u8, wide: Wide, _state: *mut c_void) -> usize {
    if to.is_null() {
        return 1;
    }
    let Some(octet) = octet(wide) else { return invalid() };
    // SAFETY: as C demands.
    unsafe { to.write(octet) };
    1
}

/// Converts up to `most` units at `*from`, and its end with them, to at most `room` at `to`, which may
/// be null: then the units are only counted, and `*from` stays.
///
/// # Safety
/// The units up to the end, or `most` of them, can be read; there is room for the result.
unsafe fn convert<A: Copy, B: Default + PartialEq>(
    to: *mut B,
    from: *mut *const A,
    most: usize,
    room: usize,
    one: impl Fn(A) -> Option<B>,
) -> usize {
    // SAFETY: as C demands.
    let start = unsafe { from.read() };
    let writes = !to.is_null();
    let leave = |place: *const A| {
        if writes {
            // SAFETY: as C demands.
            unsafe { from.write(place) };
        }
    };
    let mut count = 0;
    while count < most && (!writes || count < room) {
        // SAFETY: the end has not come yet.
        let Some(unit) = one(unsafe { start.add(count).read() }) else {
            leave(start.wrapping_add(count));
            return invalid();
        };
        let is_end = unit == B::default();
        if writes {
            // SAFETY: `count` is less than `room`.
            unsafe { to.add(count).write(unit) };
        }
        if is_end {
            leave(ptr::null());
            return count;
        }
        count += 1;
    }
    leave(start.wrapping_add(count));
    count
}

unsafe extern "C" fn mbsnrtowcs(
    to: *mut Wide,
    from: *mut *const u8,
    most: usize,
    room: usize,
    _state: *mut c_void,
) -> usize {
    // SAFETY: passed on to the caller.
    unsafe { convert(to, from, most, room, |octet: u8| octet.is_ascii().then_some(Wide::from(octet))) }
}

unsafe extern "C" fn mbsrtowcs(to: *mut Wide, from: *mut *const u8, room: usize, state: *mut c_void) -> usize {
    // SAFETY: passed on to the caller.
    unsafe { mbsnrtowcs(to, from, usize::MAX, room, state) }
}

unsafe extern "C" fn wcsnrtombs(
    to: *mut u8,
    from: *mut *const Wide,
    most: usize,
    room: usize,
    _state: *mut c_void,
) -> usize {
    // SAFETY: passed on to the caller.
    unsafe { convert(to, from, most, room, octet) }
}

unsafe extern "C" fn wcsrtombs(to: *mut u8, from: *mut *const Wide, room: usize, state: *mut c_void) -> usize {
    // SAFETY: passed on to the caller.
    unsafe { wcsnrtombs(to, from, usize::MAX, room, state) }
}

unsafe extern "C" fn wcslen(text: *const Wide) -> usize {
    // SAFETY: as C demands.
    (0..).take_while(|place| unsafe { text.add(*place).read() } != 0).count()
}

unsafe extern "C" fn wcscmp(one: *const Wide, other: *const Wide) -> c_int {
    for place in 0.. {
        // SAFETY: as C demands: no text has ended before.
        let (a, b) = unsafe { (one.add(place).read(), other.add(place).read()) };
        if a != b || a == 0 {
            return a.cmp(&b) as c_int;
        }
    }
    0
}

/// The text itself: it compares as its characters do.
unsafe extern "C" fn wcsxfrm(to: *mut Wide, from: *const Wide, room: usize) -> usize {
    // SAFETY: as C demands.
    let length = unsafe { wcslen(from) };
    // SAFETY: as C demands.
    unsafe { ptr::copy_nonoverlapping(from, to, room.min(length + 1)) };
    length
}

unsafe extern "C" fn wcsftime(to: *mut Wide, size: usize, format: *const Wide, broken: &Broken) -> usize {
    // SAFETY: as C demands.
    let wide = unsafe { core::slice::from_raw_parts(format, wcslen(format)) };
    let narrow: Option<Vec<u8>> = wide.iter().chain(&[0]).map(|wide| octet(*wide)).collect();
    let Some(narrow) = narrow else { return 0 };
    let mut text = alloc::vec![0_u8; size];
    // SAFETY: the format ends, and there is that much room.
    let written = unsafe { strftime(text.as_mut_ptr(), size, narrow.as_ptr(), broken) };
    let all = text.iter().take(if written == 0 { 0 } else { written + 1 });
    for (place, octet) in all.enumerate() {
        // SAFETY: as C demands: there is room for `size`.
        unsafe { to.add(place).write(Wide::from(*octet)) };
    }
    written
}

unsafe extern "C" fn wmemchr(text: *const Wide, wanted: Wide, count: usize) -> *const Wide {
    // SAFETY: as C demands.
    let found = (0..count).find(|place| unsafe { text.add(*place).read() } == wanted);
    found.map_or(ptr::null(), |place| text.wrapping_add(place))
}

unsafe extern "C" fn wmemcmp(one: *const Wide, other: *const Wide, count: usize) -> c_int {
    // SAFETY: as C demands.
    let pair = |place| unsafe { (one.add(place).read(), other.add(place).read()) };
    (0..count).map(pair).find(|(a, b)| a != b).map_or(0, |(a, b)| a.cmp(&b) as c_int)
}

unsafe extern "C" fn wmemcpy(to: *mut Wide, from: *const Wide, count: usize) -> *mut Wide {
    // SAFETY: as C demands.
    unsafe { ptr::copy_nonoverlapping(from, to, count) };
    to
}

unsafe extern "C" fn wmemmove(to: *mut Wide, from: *const Wide, count: usize) -> *mut Wide {
    // SAFETY: as C demands.
    unsafe { ptr::copy(from, to, count) };
    to
}

unsafe extern "C" fn wmemset(to: *mut Wide, value: Wide, count: usize) -> *mut Wide {
    for place in 0..count {
        // SAFETY: as C demands.
        unsafe { to.add(place).write(value) };
    }
    to
}

unsafe extern "C" fn fgetwc(stream: *mut File) -> WideInt {
    // SAFETY: as C demands.
    match unsafe { stdio::fgetc(stream) } {
        octet @ 0..128 => octet as WideInt,
        octet => {
            if octet >= 0 {
                error::set(EILSEQ);
            }
            NONE
        }
    }
}

unsafe extern "C" fn fputwc(wide: Wide, stream: *mut File) -> WideInt {
    let Some(octet) = octet(wide) else {
        error::set(EILSEQ);
        return NONE;
    };
    // SAFETY: as C demands.
    if unsafe { stdio::fputc(c_int::from(octet), stream) } < 0 { NONE } else { wide as WideInt }
}

unsafe extern "C" fn ungetwc(wide: WideInt, stream: *mut File) -> WideInt {
    let Some(octet) = octet(wide as Wide) else { return NONE };
    // SAFETY: as C demands.
    if unsafe { stdio::ungetc(c_int::from(octet), stream) } < 0 { NONE } else { wide }
}

/// The number of a class, from 1 on; 0 if there is none of this name.
unsafe extern "C" fn wctype(name: *const u8) -> c_ulong {
    // SAFETY: as C demands.
    let name = unsafe { raw::string(name) };
    let place = character::CLASSES.iter().position(|(other, _)| CStr::to_bytes(other) == name);
    place.map_or(0, |place| place as c_ulong + 1)
}

unsafe extern "C" fn iswctype(wide: WideInt, class: c_ulong) -> c_int {
    let class = (class as usize).checked_sub(1).and_then(|place| character::CLASSES.get(place));
    match (octet(wide as Wide), class) {
        // SAFETY: they are called with a character of ASCII.
        (Some(octet), Some((_, is_in))) => unsafe { is_in(c_int::from(octet)) },
        _ => 0,
    }
}

unsafe extern "C" fn towlower(wide: WideInt) -> WideInt {
    // SAFETY: it is a character of ASCII.
    octet(wide as Wide).map_or(wide, |octet| unsafe { tolower(c_int::from(octet)) } as WideInt)
}

unsafe extern "C" fn towupper(wide: WideInt) -> WideInt {
    // SAFETY: it is a character of ASCII.
    octet(wide as Wide).map_or(wide, |octet| unsafe { toupper(c_int::from(octet)) } as WideInt)
}
