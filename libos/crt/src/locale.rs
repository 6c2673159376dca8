//! `locale.h`, with locales as objects; `libintl.h` and `iconv.h`. There is C's locale only, no text
//! has a translation, and nothing is converted from one set of characters to another.

use core::ffi::{c_char, c_int, c_void};
use core::ptr;

use crate::character;
use crate::error::{self, EBADF, EINVAL, ENOENT};
use crate::export::Export;
use crate::number::{strtod, strtof, strtold};
use crate::raw;
use crate::string::{strcmp, strxfrm};
use crate::time::strftime;

// A function for a locale gets it as one more argument, which the one for C's locale ignores.
pub(crate) const LOCALE: &[Export] = exports![
    setlocale,
    localeconv,
    nl_langinfo,
    nl_langinfo_l = nl_langinfo,
    __nl_langinfo_l = nl_langinfo,
    newlocale,
    __newlocale = newlocale,
    duplocale = same,
    __duplocale = same,
    freelocale = nothing,
    __freelocale = nothing,
    uselocale,
    __uselocale = uselocale,
    strcoll_l = strcmp,
    __strcoll_l = strcmp,
    strxfrm_l = strxfrm,
    __strxfrm_l = strxfrm,
    strftime_l = strftime,
    __strftime_l = strftime,
    strtod_l = strtod,
    __strtod_l = strtod,
    strtof_l = strtof,
    __strtof_l = strtof,
    strtold_l = strtold,
    __strtold_l = strtold,
];

pub(crate) const TEXTS: &[Export] = exports![
    gettext = same,
    dgettext,
    dcgettext = dgettext,
    bindtextdomain = dgettext,
    bind_textdomain_codeset = none,
    iconv_open,
    iconv = no_converter,
    iconv_close = no_converter,
];

/// True if there is a locale of this name.
///
/// # Safety
/// The name is a string.
unsafe fn is_known(name: *const u8) -> bool {
    // SAFETY: passed on to the caller.
    matches!(unsafe { raw::string(name) }, b"" | b"C" | b"POSIX")
}

unsafe extern "C" fn setlocale(_category: c_int, name: *const u8) -> *const u8 {
    // SAFETY: as C demands: null or a string.
    if name.is_null() || unsafe { is_known(name) } { c"C".as_ptr().cast() } else { ptr::null() }
}

/// `struct lconv` (locale.h): `decimal_point`, nine more texts, fourteen small numbers.
#[repr(C)]
pub(crate) struct Convention {
    texts: [*const c_char; 10],
    numbers: [c_char; 14],
}

// SAFETY: the texts are never changed.
unsafe impl Sync for Convention {}

static CONVENTION: Convention = {
    let mut texts = [c"".as_ptr(); 10];
    texts[0] = c".".as_ptr();
    Convention { texts, numbers: [c_char::MAX; 14] }
};

unsafe extern "C" fn localeconv() -> *const Convention {
    &raw const CONVENTION
}

unsafe extern "C" fn nl_langinfo(item: c_int) -> *const c_char {
    match item {
        // CODESET
        14 => c"ANSI_X3.4-1968".as_ptr(),
        // RADIXCHAR
        0x1_0000 => c".".as_ptr(),
        _ => c"".as_ptr(),
    }
}

/// The first parts of `struct __locale_struct` (glibc's bits/types/__locale_t.h), from which
/// libstdc++ reads the tables of characters.
#[repr(C)]
pub(crate) struct Locale {
    data: [*const c_void; 13],
    classes: *const u16,
    lower: *const i32,
    upper: *const i32,
    names: [*const c_char; 13],
}

// SAFETY: nothing behind the pointers is ever written.
unsafe impl Sync for Locale {}

static C: Locale = Locale {
    data: [ptr::null(); 13],
    classes: character::CLASS_TABLE,
    lower: character::LOWER_TABLE,
    upper: character::UPPER_TABLE,
    names: [c"C".as_ptr(); 13],
};

/// `LC_GLOBAL_LOCALE`.
const GLOBAL: *const Locale = ptr::without_provenance(usize::MAX);

unsafe extern "C" fn newlocale(_mask: c_int, name: *const u8, _base: *const Locale) -> *const Locale {
    if name.is_null() {
        error::set(EINVAL);
        return ptr::null();
    }
    // SAFETY: as C demands.
    if unsafe { is_known(name) } {
        return &raw const C;
    }
    error::set(ENOENT);
    ptr::null()
}

unsafe extern "C" fn same(argument: *const c_void) -> *const c_void {
    argument
}

unsafe extern "C" fn nothing() {}

unsafe extern "C" fn none() -> *const c_void {
    ptr::null()
}

/// All locales are the same, so that of the thread stays the global one.
unsafe extern "C" fn uselocale(_locale: *const Locale) -> *const Locale {
    GLOBAL
}

/// The text, or the folder, that is the second argument.
unsafe extern "C" fn dgettext(_domain: *const c_char, text: *const c_char) -> *const c_char {
    text
}

unsafe extern "C" fn iconv_open() -> isize {
    error::set(EINVAL);
    -1
}

unsafe extern "C" fn no_converter() -> isize {
    error::set(EBADF);
    -1
}
