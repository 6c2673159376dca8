//! `string.h` and `strings.h`. The locale is C's.

use core::ffi::{c_int, c_long};
use core::ptr;
use core::sync::atomic::{self, AtomicPtr, compiler_fence};

use crate::error::{__xpg_strerror_r, strerror, strerror_r};
use crate::exit;
use crate::export::Export;
use crate::memory::malloc;
use crate::raw::{self, octets, text};

pub(crate) const STRING: &[Export] = exports![
    memcpy,
    memmove,
    mempcpy,
    __mempcpy = mempcpy,
    memccpy,
    memset,
    explicit_bzero,
    memcmp,
    memchr,
    rawmemchr,
    memrchr,
    memmem,
    strlen,
    strnlen,
    strcpy,
    strncpy,
    stpcpy,
    __stpcpy = stpcpy,
    stpncpy,
    strcat,
    strncat,
    strlcpy,
    strlcat,
    strcmp,
    strcoll = strcmp,
    strncmp,
    strxfrm,
    strcasecmp,
    strncasecmp,
    strchr,
    index = strchr,
    strchrnul,
    strrchr,
    rindex = strrchr,
    strspn,
    strcspn,
    strpbrk,
    strstr,
    strcasestr,
    strtok,
    strtok_r,
    __strtok_r = strtok_r,
    strsep,
    strdup,
    __strdup = strdup,
    strndup,
    __strndup = strndup,
    strerror,
    strerror_r,
    __xpg_strerror_r,
    bcmp = memcmp,
    bcopy,
    bzero,
    ffs,
    ffsl,
    ffsll = ffsl,
    __memcpy_chk,
    __memmove_chk,
    __mempcpy_chk,
    __memset_chk,
    __explicit_bzero_chk,
    __strcpy_chk,
    __stpcpy_chk,
    __strncpy_chk,
    __stpncpy_chk,
    __strcat_chk,
    __strncat_chk,
];

pub(crate) unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: as C demands; some compilers copy an object onto itself this way, which only `copy`
    // allows.
    unsafe { ptr::copy(from, to, count) };
    to
}

pub(crate) unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: as C demands.
    unsafe { ptr::copy(from, to, count) };
    to
}

pub(crate) unsafe extern "C" fn mempcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: passed on to the caller.
    unsafe { memcpy(to, from, count) }.wrapping_add(count)
}

pub(crate) unsafe extern "C" fn memccpy(to: *mut u8, from: *const u8, octet: c_int, count: usize) -> *mut u8 {
    // SAFETY: as C demands: the octets up to the match or `count` exist.
    for (index, value) in unsafe { octets(from) }.take(count).enumerate() {
        // SAFETY: as above.
        unsafe { to.wrapping_add(index).write(value) };
        if value == octet as u8 {
            return to.wrapping_add(index + 1);
        }
    }
    ptr::null_mut()
}

pub(crate) unsafe extern "C" fn memset(to: *mut u8, octet: c_int, count: usize) -> *mut u8 {
    // SAFETY: as C demands.
    unsafe { ptr::write_bytes(to, octet as u8, count) };
    to
}

pub(crate) unsafe extern "C" fn explicit_bzero(to: *mut u8, count: usize) {
    // SAFETY: passed on to the caller.
    unsafe { memset(to, 0, count) };
    compiler_fence(atomic::Ordering::SeqCst);
}

pub(crate) unsafe extern "C" fn bzero(to: *mut u8, count: usize) {
    // SAFETY: passed on to the caller.
    unsafe { memset(to, 0, count) };
}

pub(crate) unsafe extern "C" fn bcopy(from: *const u8, to: *mut u8, count: usize) {
    // SAFETY: as C demands.
    unsafe { ptr::copy(from, to, count) };
}

pub(crate) unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, count: usize) -> c_int {
    // SAFETY: as C demands.
    let (one, other) = unsafe { (raw::slice(one, count), raw::slice(other, count)) };
    one.cmp(other) as c_int
}

pub(crate) unsafe extern "C" fn memchr(start: *const u8, octet: c_int, count: usize) -> *const u8 {
    // SAFETY: as C demands: the octets up to the match or `count` exist.
    match unsafe { octets(start) }.take(count).position(|value| value == octet as u8) {
        Some(index) => start.wrapping_add(index),
        None => ptr::null(),
    }
}

pub(crate) unsafe extern "C" fn rawmemchr(start: *const u8, octet: c_int) -> *const u8 {
    // SAFETY: passed on to the caller.
    unsafe { memchr(start, octet, usize::MAX) }
}

pub(crate) unsafe extern "C" fn memrchr(start: *const u8, octet: c_int, count: usize) -> *const u8 {
    // SAFETY: as C demands.
    match unsafe { raw::slice(start, count) }.iter().rposition(|value| *value == octet as u8) {
        Some(index) => start.wrapping_add(index),
        None => ptr::null(),
    }
}

pub(crate) unsafe extern "C" fn memmem(
    start: *const u8,
    count: usize,
    needle: *const u8,
    needle_count: usize,
) -> *const u8 {
    if needle_count == 0 {
        return start;
    }
    // SAFETY: as C demands.
    let (hay, needle) = unsafe { (raw::slice(start, count), raw::slice(needle, needle_count)) };
    match hay.windows(needle_count).position(|window| window == needle) {
        Some(index) => start.wrapping_add(index),
        None => ptr::null(),
    }
}

pub(crate) unsafe extern "C" fn strlen(start: *const u8) -> usize {
    // SAFETY: as C demands.
    unsafe { raw::length(start) }
}

pub(crate) unsafe extern "C" fn strnlen(start: *const u8, limit: usize) -> usize {
    // SAFETY: as C demands.
    unsafe { octets(start) }.take(limit).take_while(|octet| *octet != 0).count()
}

pub(crate) unsafe extern "C" fn stpcpy(to: *mut u8, from: *const u8) -> *mut u8 {
    // SAFETY: as C demands.
    unsafe { raw::put_text(to, text(from)) }
}

pub(crate) unsafe extern "C" fn strcpy(to: *mut u8, from: *const u8) -> *mut u8 {
    // SAFETY: passed on to the caller.
    unsafe { stpcpy(to, from) };
    to
}

pub(crate) unsafe extern "C" fn stpncpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: passed on to the caller.
    let length = unsafe { strnlen(from, count) };
    // SAFETY: as C demands, there is room for `count`.
    unsafe { ptr::copy_nonoverlapping(from, to, length) };
    // SAFETY: as above.
    unsafe { ptr::write_bytes(to.wrapping_add(length), 0, count - length) };
    to.wrapping_add(length)
}

pub(crate) unsafe extern "C" fn strncpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: passed on to the caller.
    unsafe { stpncpy(to, from, count) };
    to
}

pub(crate) unsafe extern "C" fn strcat(to: *mut u8, from: *const u8) -> *mut u8 {
    // SAFETY: as C demands.
    unsafe { stpcpy(to.wrapping_add(raw::length(to)), from) };
    to
}

pub(crate) unsafe extern "C" fn strncat(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: as C demands.
    unsafe {
        raw::put_text(to.wrapping_add(raw::length(to)), octets(from).take(count).take_while(|octet| *octet != 0))
    };
    to
}

pub(crate) unsafe extern "C" fn strlcpy(to: *mut u8, from: *const u8, size: usize) -> usize {
    if size > 0 {
        // SAFETY: as C demands, there is room for `size`.
        unsafe { raw::put_text(to, text(from).take(size - 1)) };
    }
    // SAFETY: as C demands.
    unsafe { raw::length(from) }
}

pub(crate) unsafe extern "C" fn strlcat(to: *mut u8, from: *const u8, size: usize) -> usize {
    // SAFETY: as C demands.
    let length = unsafe { strnlen(to, size) };
    // SAFETY: passed on to the caller.
    length + unsafe { strlcpy(to.wrapping_add(length), from, size - length) }
}

fn compare(one: impl Iterator<Item = u8>, other: impl Iterator<Item = u8>) -> c_int {
    for (one, other) in one.zip(other) {
        if one != other || one == 0 {
            return c_int::from(one) - c_int::from(other);
        }
    }
    0
}

pub(crate) unsafe extern "C" fn strcmp(one: *const u8, other: *const u8) -> c_int {
    // SAFETY: as C demands; nothing is taken behind an end.
    unsafe { compare(octets(one), octets(other)) }
}

pub(crate) unsafe extern "C" fn strncmp(one: *const u8, other: *const u8, count: usize) -> c_int {
    // SAFETY: as C demands; nothing is taken behind an end.
    unsafe { compare(octets(one).take(count), octets(other).take(count)) }
}

pub(crate) unsafe extern "C" fn strcasecmp(one: *const u8, other: *const u8) -> c_int {
    // SAFETY: passed on to the caller.
    unsafe { strncasecmp(one, other, usize::MAX) }
}

pub(crate) unsafe extern "C" fn strncasecmp(one: *const u8, other: *const u8, count: usize) -> c_int {
    // SAFETY: as C demands; nothing is taken behind an end.
    let (one, other) = unsafe { (octets(one).take(count), octets(other).take(count)) };
    compare(one.map(|octet| octet.to_ascii_lowercase()), other.map(|octet| octet.to_ascii_lowercase()))
}

pub(crate) unsafe extern "C" fn strxfrm(to: *mut u8, from: *const u8, size: usize) -> usize {
    // SAFETY: passed on to the caller.
    unsafe { strlcpy(to, from, size) }
}

pub(crate) unsafe extern "C" fn strchrnul(start: *const u8, octet: c_int) -> *const u8 {
    // SAFETY: as C demands; nothing is taken behind the end.
    let index = unsafe { octets(start) }.take_while(|value| *value != 0 && *value != octet as u8).count();
    start.wrapping_add(index)
}

pub(crate) unsafe extern "C" fn strchr(start: *const u8, octet: c_int) -> *const u8 {
    // SAFETY: passed on to the caller.
    let found = unsafe { strchrnul(start, octet) };
    // SAFETY: this is in the string, or its end.
    if unsafe { found.read() } == octet as u8 { found } else { ptr::null() }
}

pub(crate) unsafe extern "C" fn strrchr(start: *const u8, octet: c_int) -> *const u8 {
    // SAFETY: as C demands: the NUL belongs to it.
    unsafe { memrchr(start, octet, raw::length(start) + 1) }
}

/// The set of octets in a string, as a table.
///
/// # Safety
/// The string ends.
unsafe fn set(start: *const u8) -> [bool; 256] {
    let mut set = [false; 256];
    // SAFETY: passed on to the caller.
    for octet in unsafe { text(start) } {
        set[usize::from(octet)] = true;
    }
    set
}

pub(crate) unsafe extern "C" fn strspn(start: *const u8, accepted: *const u8) -> usize {
    // SAFETY: as C demands.
    let (text, set) = unsafe { (text(start), set(accepted)) };
    text.take_while(|octet| set[usize::from(*octet)]).count()
}

pub(crate) unsafe extern "C" fn strcspn(start: *const u8, rejected: *const u8) -> usize {
    // SAFETY: as C demands.
    let (text, set) = unsafe { (text(start), set(rejected)) };
    text.take_while(|octet| !set[usize::from(*octet)]).count()
}

pub(crate) unsafe extern "C" fn strpbrk(start: *const u8, accepted: *const u8) -> *const u8 {
    // SAFETY: passed on to the caller.
    let found = start.wrapping_add(unsafe { strcspn(start, accepted) });
    // SAFETY: this is in the string, or its end.
    if unsafe { found.read() } == 0 { ptr::null() } else { found }
}

pub(crate) unsafe extern "C" fn strstr(start: *const u8, needle: *const u8) -> *const u8 {
    // SAFETY: as C demands.
    unsafe { memmem(start, raw::length(start), needle, raw::length(needle)) }
}

pub(crate) unsafe extern "C" fn strcasestr(start: *const u8, needle: *const u8) -> *const u8 {
    // SAFETY: as C demands.
    let (hay, needle) = unsafe { (raw::string(start), raw::string(needle)) };
    if needle.is_empty() {
        return start;
    }
    match hay.windows(needle.len()).position(|window| window.eq_ignore_ascii_case(needle)) {
        Some(index) => start.wrapping_add(index),
        None => ptr::null(),
    }
}

/// Ends the token that begins here; returns the beginning of the next, or null.
///
/// # Safety
/// Both are strings that end, and the first can be written.
unsafe fn cut(start: *mut u8, separators: *const u8) -> *mut u8 {
    // SAFETY: passed on to the caller.
    let end = unsafe { strpbrk(start, separators) }.cast_mut();
    if end.is_null() {
        return end;
    }
    // SAFETY: it is in the string.
    unsafe { end.write(0) };
    end.wrapping_add(1)
}

pub(crate) unsafe extern "C" fn strtok_r(start: *mut u8, separators: *const u8, rest: *mut *mut u8) -> *mut u8 {
    // SAFETY: as C demands.
    let start = if start.is_null() { unsafe { rest.read() } } else { start };
    if start.is_null() {
        return start;
    }
    // SAFETY: as C demands.
    let token = start.wrapping_add(unsafe { strspn(start, separators) });
    // SAFETY: it is in the string, or its end.
    let ended = unsafe { token.read() } == 0;
    // SAFETY: as C demands.
    let next = if ended { ptr::null_mut() } else { unsafe { cut(token, separators) } };
    // SAFETY: as C demands.
    unsafe { rest.write(next) };
    if ended { ptr::null_mut() } else { token }
}

pub(crate) unsafe extern "C" fn strtok(start: *mut u8, separators: *const u8) -> *mut u8 {
    static REST: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
    // SAFETY: as C demands, which excludes other threads too.
    unsafe { strtok_r(start, separators, REST.as_ptr()) }
}

pub(crate) unsafe extern "C" fn strsep(place: *mut *mut u8, separators: *const u8) -> *mut u8 {
    // SAFETY: as C demands.
    let token = unsafe { place.read() };
    if !token.is_null() {
        // SAFETY: as C demands.
        let next = unsafe { cut(token, separators) };
        // SAFETY: as C demands.
        unsafe { place.write(next) };
    }
    token
}

pub(crate) unsafe extern "C" fn strdup(start: *const u8) -> *mut u8 {
    // SAFETY: passed on to the caller.
    unsafe { strndup(start, usize::MAX) }
}

pub(crate) unsafe extern "C" fn strndup(start: *const u8, limit: usize) -> *mut u8 {
    // SAFETY: passed on to the caller.
    let length = unsafe { strnlen(start, limit) };
    // SAFETY: any size will do.
    let copy = unsafe { malloc(length + 1) };
    if !copy.is_null() {
        // SAFETY: there is room for the text and a NUL.
        unsafe { raw::put_text(copy, octets(start).take(length)) };
    }
    copy
}

pub(crate) unsafe extern "C" fn ffs(value: c_int) -> c_int {
    // SAFETY: every value will do.
    unsafe { ffsl(c_long::from(value)) }
}

pub(crate) unsafe extern "C" fn ffsl(value: c_long) -> c_int {
    if value == 0 { 0 } else { value.trailing_zeros() as c_int + 1 }
}

/// The functions that gcc calls if it knows the size of the destination, but not that it suffices.
macro_rules! checked {
    ($($name:ident => $function:ident($($argument:ident: $type:ty),*) -> $result:ty, $needed:expr;)*) => {$(
        pub(crate) unsafe extern "C" fn $name($($argument: $type,)* room: usize) -> $result {
            if $needed > room {
                exit::overflow();
            }
            // SAFETY: passed on to the caller.
            unsafe { $function($($argument),*) }
        }
    )*};
}

checked! {
    __memcpy_chk => memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8, count;
    __memmove_chk => memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8, count;
    __mempcpy_chk => mempcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8, count;
    __memset_chk => memset(to: *mut u8, octet: c_int, count: usize) -> *mut u8, count;
    __explicit_bzero_chk => explicit_bzero(to: *mut u8, count: usize) -> (), count;
    __strcpy_chk => strcpy(to: *mut u8, from: *const u8) -> *mut u8,
        // SAFETY: as C demands of the function itself.
        unsafe { raw::length(from) } + 1;
    __stpcpy_chk => stpcpy(to: *mut u8, from: *const u8) -> *mut u8,
        // SAFETY: as C demands of the function itself.
        unsafe { raw::length(from) } + 1;
    __strncpy_chk => strncpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8, count;
    __stpncpy_chk => stpncpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8, count;
    __strcat_chk => strcat(to: *mut u8, from: *const u8) -> *mut u8,
        // SAFETY: as C demands of the function itself.
        unsafe { raw::length(to) + raw::length(from) } + 1;
    __strncat_chk => strncat(to: *mut u8, from: *const u8, count: usize) -> *mut u8,
        // SAFETY: as C demands of the function itself.
        unsafe { raw::length(to) + strnlen(from, count) } + 1;
}
