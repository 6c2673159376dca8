//! `ctype.h`, in C's locale.

use core::ffi::{CStr, c_int};

use crate::export::Export;

pub(crate) const CTYPE: &[Export] = exports![
    __ctype_b_loc,
    __ctype_tolower_loc,
    __ctype_toupper_loc,
    __ctype_get_mb_cur_max,
    isalnum,
    isalpha,
    isblank,
    iscntrl,
    isdigit,
    isgraph,
    islower,
    isprint,
    ispunct,
    isspace,
    isupper,
    isxdigit,
    isascii,
    toascii,
    tolower,
    toupper
];

/// The masks of glibc's ctype.h: `_ISbit`, with bits in the order of the names here, for a
/// little-endian processor.
const fn bit(number: u32) -> u16 {
    (1_u16 << number).swap_bytes()
}

const UPPER: u16 = bit(0);
const LOWER: u16 = bit(1);
const ALPHA: u16 = bit(2);
const DIGIT: u16 = bit(3);
const XDIGIT: u16 = bit(4);
const SPACE: u16 = bit(5);
const PRINT: u16 = bit(6);
const GRAPH: u16 = bit(7);
const BLANK: u16 = bit(8);
const CNTRL: u16 = bit(9);
const PUNCT: u16 = bit(10);
const ALNUM: u16 = bit(11);

/// The indices of C's tables are -128..256: an octet, an octet taken as `signed char`, or EOF.
const BELOW: usize = 128;
const SIZE: usize = BELOW + 256;

struct Tables {
    classes: [u16; SIZE],
    classes_start: Start<u16>,
    lower: [i32; SIZE],
    lower_start: Start<i32>,
    upper: [i32; SIZE],
    upper_start: Start<i32>,
}

/// The tables' elements with index 0.
pub(crate) const CLASS_TABLE: *const u16 = (&raw const TABLES.classes).cast::<u16>().wrapping_add(BELOW);
pub(crate) const LOWER_TABLE: *const i32 = (&raw const TABLES.lower).cast::<i32>().wrapping_add(BELOW);
pub(crate) const UPPER_TABLE: *const i32 = (&raw const TABLES.upper).cast::<i32>().wrapping_add(BELOW);

/// A variable with the address of index 0, for C.
#[repr(transparent)]
struct Start<T>(*const T);

// SAFETY: the tables, and these pointers to them, are never written.
unsafe impl<T> Sync for Start<T> {}

static TABLES: Tables = Tables {
    classes: classes(),
    classes_start: Start(CLASS_TABLE),
    lower: mapped(false),
    lower_start: Start(LOWER_TABLE),
    upper: mapped(true),
    upper_start: Start(UPPER_TABLE),
};

const fn classes() -> [u16; SIZE] {
    let mut classes = [0; SIZE];
    let mut octet = 0_u8;
    while octet < 128 {
        let mut class = 0;
        if octet.is_ascii_uppercase() {
            class |= UPPER;
        }
        if octet.is_ascii_lowercase() {
            class |= LOWER;
        }
        if octet.is_ascii_alphabetic() {
            class |= ALPHA;
        }
        if octet.is_ascii_digit() {
            class |= DIGIT;
        }
        if octet.is_ascii_hexdigit() {
            class |= XDIGIT;
        }
        if space(octet) {
            class |= SPACE;
        }
        if octet.is_ascii_graphic() {
            class |= GRAPH;
        }
        if octet.is_ascii_graphic() || octet == b' ' {
            class |= PRINT;
        }
        if octet == b' ' || octet == b'\t' {
            class |= BLANK;
        }
        if octet.is_ascii_control() {
            class |= CNTRL;
        }
        if octet.is_ascii_punctuation() {
            class |= PUNCT;
        }
        if octet.is_ascii_alphanumeric() {
            class |= ALNUM;
        }
        classes[BELOW + octet as usize] = class;
        octet += 1;
    }
    classes
}

const fn mapped(upper: bool) -> [i32; SIZE] {
    let mut mapped = [0; SIZE];
    let mut index = 0;
    while index < SIZE {
        let octet = index.wrapping_sub(BELOW) as u8;
        let value = if upper { octet.to_ascii_uppercase() } else { octet.to_ascii_lowercase() };
        // EOF maps to itself.
        mapped[index] = if index == BELOW - 1 { -1 } else { value as i32 };
        index += 1;
    }
    mapped
}

/// Rust's own function leaves out the vertical tabulator.
pub(crate) const fn space(octet: u8) -> bool {
    octet == b' ' || (octet >= b'\t' && octet <= b'\r')
}

pub(crate) unsafe extern "C" fn __ctype_b_loc() -> *const *const u16 {
    (&raw const TABLES.classes_start).cast()
}

pub(crate) unsafe extern "C" fn __ctype_tolower_loc() -> *const *const i32 {
    (&raw const TABLES.lower_start).cast()
}

pub(crate) unsafe extern "C" fn __ctype_toupper_loc() -> *const *const i32 {
    (&raw const TABLES.upper_start).cast()
}

pub(crate) unsafe extern "C" fn __ctype_get_mb_cur_max() -> usize {
    1
}

fn index(character: c_int) -> Option<usize> {
    usize::try_from(character + BELOW as c_int).ok().filter(|index| *index < SIZE)
}

macro_rules! classes {
    ($($name:ident $class:ident)*) => {$(
        pub(crate) unsafe extern "C" fn $name(character: c_int) -> c_int {
            index(character).map_or(0, |index| c_int::from(TABLES.classes[index] & $class))
        }
    )*};
}

classes! {
    isalnum ALNUM isalpha ALPHA isblank BLANK iscntrl CNTRL isdigit DIGIT isgraph GRAPH islower LOWER isprint PRINT ispunct PUNCT
    isspace SPACE isupper UPPER isxdigit XDIGIT
}

/// A function that tells if a character is in a class.
type IsIn = unsafe extern "C" fn(c_int) -> c_int;

/// The names of the classes, for `wctype`.
pub(crate) const CLASSES: [(&CStr, IsIn); 12] = [
    (c"alnum", isalnum),
    (c"alpha", isalpha),
    (c"blank", isblank),
    (c"cntrl", iscntrl),
    (c"digit", isdigit),
    (c"graph", isgraph),
    (c"lower", islower),
    (c"print", isprint),
    (c"punct", ispunct),
    (c"space", isspace),
    (c"upper", isupper),
    (c"xdigit", isxdigit),
];

pub(crate) unsafe extern "C" fn isascii(character: c_int) -> c_int {
    c_int::from((0..128).contains(&character))
}

pub(crate) unsafe extern "C" fn toascii(character: c_int) -> c_int {
    character & 0x7f
}

pub(crate) unsafe extern "C" fn tolower(character: c_int) -> c_int {
    index(character).map_or(character, |index| TABLES.lower[index])
}

pub(crate) unsafe extern "C" fn toupper(character: c_int) -> c_int {
    index(character).map_or(character, |index| TABLES.upper[index])
}
