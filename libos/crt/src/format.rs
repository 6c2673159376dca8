//! `printf`: the format and the conversion of the arguments (ISO C11 7.21.6.1). Positions (`%1$d`)
//! are not supported; `%n` writes nothing.

use core::ffi::c_int;

use crate::error::{self, EILSEQ, EOVERFLOW};
use crate::float::{self, Parts};
use crate::raw::{self, octets, text};
use crate::variadic::VaList;

/// The receiver of the text.
pub(crate) trait Sink {
    fn put(&mut self, octets: &[u8]);
}

/// A receiver that keeps the part that fits into a buffer.
pub(crate) struct Cut<'a> {
    pub(crate) room: &'a mut [u8],
    pub(crate) used: usize,
}

impl Sink for Cut<'_> {
    fn put(&mut self, octets: &[u8]) {
        let octets = &octets[..octets.len().min(self.room.len() - self.used)];
        self.room[self.used..self.used + octets.len()].copy_from_slice(octets);
        self.used += octets.len();
    }
}

struct Counted<'a> {
    sink: &'a mut dyn Sink,
    count: usize,
}

impl Counted<'_> {
    fn put(&mut self, octets: &[u8]) {
        self.sink.put(octets);
        self.count += octets.len();
    }

    fn fill(&mut self, count: usize, octet: u8) {
        let block = [octet; 64];
        let mut left = count;
        while left > 0 {
            let now = left.min(block.len());
            self.put(&block[..now]);
            left -= now;
        }
    }
}

/// The part of a conversion between `%` and the letter.
#[derive(Default)]
struct Conversion {
    left: bool,
    plus: bool,
    space: bool,
    alternative: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
    size: Size,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum Size {
    Char,
    Short,
    #[default]
    Int,
    Long,
    LongDouble,
}

/// Returns the number of octets of the text, or -1 with `errno`.
///
/// # Safety
/// The format ends, and the arguments are those that it requires.
pub(crate) unsafe fn format(sink: &mut dyn Sink, format: *const u8, arguments: &mut VaList) -> c_int {
    let mut out = Counted { sink, count: 0 };
    let mut rest = format;
    loop {
        // SAFETY: by the caller's promise, the format ends; nothing behind its end is taken.
        let plain = unsafe { text(rest) }.take_while(|octet| *octet != b'%').count();
        // SAFETY: these were just read.
        out.put(unsafe { raw::slice(rest, plain) });
        let start = rest.wrapping_add(plain);
        // SAFETY: it is in the string, or its end.
        if unsafe { start.read() } == 0 {
            break;
        }
        let mut format = start.wrapping_add(1);
        // SAFETY: passed on to the caller.
        let conversion = unsafe { conversion(&mut format, arguments) };
        // SAFETY: `conversion` stops at the end at the latest.
        let letter = unsafe { format.read() };
        if letter == 0 {
            error::set(crate::error::EINVAL);
            return -1;
        }
        rest = format.wrapping_add(1);
        // SAFETY: passed on to the caller.
        match unsafe { convert(&mut out, &conversion, letter, arguments) } {
            Ok(true) => {}
            // SAFETY: from `%` to the letter, which were just read.
            Ok(false) => out.put(unsafe { raw::slice(start, rest.addr() - start.addr()) }),
            Err(number) => {
                error::set(number);
                return -1;
            }
        }
    }
    c_int::try_from(out.count).unwrap_or_else(|_| {
        error::set(EOVERFLOW);
        -1
    })
}

/// # Safety
/// As for [`format`].
unsafe fn conversion(format: &mut *const u8, arguments: &mut VaList) -> Conversion {
    let mut conversion = Conversion::default();
    // SAFETY: the format ends; the position moves on only from octets other than the end.
    let peek = |format: &*const u8| unsafe { format.read() };
    loop {
        match peek(format) {
            b'-' => conversion.left = true,
            b'+' => conversion.plus = true,
            b' ' => conversion.space = true,
            b'#' => conversion.alternative = true,
            b'0' => conversion.zero = true,
            // Thousands have no separator in C's locale.
            b'\'' => {}
            _ => break,
        }
        *format = format.wrapping_add(1);
    }
    let number = |format: &mut *const u8| {
        let mut value = 0_usize;
        while peek(format).is_ascii_digit() {
            value = value.saturating_mul(10).saturating_add(usize::from(peek(format) - b'0'));
            *format = format.wrapping_add(1);
        }
        value.min(c_int::MAX as usize)
    };
    if peek(format) == b'*' {
        *format = format.wrapping_add(1);
        // SAFETY: the format names an `int`.
        let width = unsafe { arguments.integer() } as c_int;
        conversion.left |= width < 0;
        conversion.width = width.unsigned_abs() as usize;
    } else {
        conversion.width = number(format);
    }
    if peek(format) == b'.' {
        *format = format.wrapping_add(1);
        if peek(format) == b'*' {
            *format = format.wrapping_add(1);
            // SAFETY: the format names an `int`.
            conversion.precision = usize::try_from(unsafe { arguments.integer() } as c_int).ok();
        } else {
            conversion.precision = Some(number(format));
        }
    }
    loop {
        conversion.size = match (peek(format), conversion.size) {
            (b'h', Size::Short) => Size::Char,
            (b'h', _) => Size::Short,
            (b'l' | b'j' | b'z' | b'Z' | b't' | b'q', _) => Size::Long,
            (b'L', _) => Size::LongDouble,
            _ => break,
        };
        *format = format.wrapping_add(1);
    }
    conversion
}

/// Converts; returns false if there is no such conversion.
///
/// # Safety
/// As for [`format`].
unsafe fn convert(
    out: &mut Counted,
    conversion: &Conversion,
    letter: u8,
    arguments: &mut VaList,
) -> Result<bool, c_int> {
    match letter {
        b'%' => out.put(b"%"),
        b'd' | b'i' => {
            // SAFETY: the format names an integer.
            let value = unsafe { arguments.integer() };
            let value = match conversion.size {
                Size::Char => i64::from(value as i8),
                Size::Short => i64::from(value as i16),
                Size::Int => i64::from(value as i32),
                Size::Long | Size::LongDouble => value as i64,
            };
            let sign = sign(conversion, value < 0);
            integer(out, conversion, sign, value.unsigned_abs(), 10, false);
        }
        b'u' | b'o' | b'x' | b'X' => {
            // SAFETY: the format names an integer.
            let value = unsafe { arguments.integer() };
            let value = match conversion.size {
                Size::Char => u64::from(value as u8),
                Size::Short => u64::from(value as u16),
                Size::Int => u64::from(value as u32),
                Size::Long | Size::LongDouble => value,
            };
            let (base, prefix): (u64, &[u8]) = match letter {
                b'o' => (8, b""),
                b'x' => (16, b"0x"),
                b'X' => (16, b"0X"),
                _ => (10, b""),
            };
            let prefix = if conversion.alternative && value != 0 { prefix } else { b"" };
            integer(out, conversion, prefix, value, base, letter == b'X');
        }
        b'p' => {
            // SAFETY: the format names a pointer.
            match unsafe { arguments.integer() } {
                0 => padded(out, conversion, b"(nil)"),
                value => {
                    let prefix: &[u8] = match (conversion.plus, conversion.space) {
                        (true, _) => b"+0x",
                        (false, true) => b" 0x",
                        (false, false) => b"0x",
                    };
                    integer(out, conversion, prefix, value, 16, false);
                }
            }
        }
        b'c' | b'C' => {
            // SAFETY: the format names an `int`.
            let value = unsafe { arguments.integer() } as u32;
            if (letter == b'C' || conversion.size == Size::Long) && value > 0x7f {
                return Err(EILSEQ);
            }
            padded(out, conversion, &[value as u8]);
        }
        b's' if conversion.size != Size::Long => {
            // SAFETY: the format names a string.
            let start = unsafe { arguments.pointer::<u8>() };
            let limit = conversion.precision.unwrap_or(usize::MAX);
            if start.is_null() {
                padded(out, conversion, if limit >= 6 { b"(null)" } else { b"" });
            } else {
                // SAFETY: by the caller's promise, it ends, or has as many octets as the precision.
                let length = unsafe { octets(start) }.take(limit).take_while(|octet| *octet != 0).count();
                // SAFETY: these were just read.
                padded(out, conversion, unsafe { raw::slice(start, length) });
            }
        }
        b's' | b'S' => {
            // SAFETY: the format names a wide string.
            unsafe { wide(out, conversion, arguments.pointer())? };
        }
        b'm' => padded(out, conversion, error::message(error::get()).to_bytes()),
        b'n' => {
            // SAFETY: the format names a pointer. Nothing is written through it: a format from
            // outside could otherwise write anywhere.
            unsafe { arguments.integer() };
        }
        b'e' | b'E' | b'f' | b'F' | b'g' | b'G' | b'a' | b'A' => {
            let value = match conversion.size {
                // SAFETY: the format names a `long double`.
                Size::LongDouble => unsafe { arguments.long_double() },
                // SAFETY: the format names a `double`.
                _ => unsafe { arguments.double() },
            };
            real(out, conversion, value, letter);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn sign(conversion: &Conversion, negative: bool) -> &'static [u8] {
    match conversion {
        _ if negative => b"-",
        Conversion { plus: true, .. } => b"+",
        Conversion { space: true, .. } => b" ",
        _ => b"",
    }
}

/// Text in a field.
fn padded(out: &mut Counted, conversion: &Conversion, text: &[u8]) {
    let pad = conversion.width.saturating_sub(text.len());
    if !conversion.left {
        out.fill(pad, b' ');
    }
    out.put(text);
    if conversion.left {
        out.fill(pad, b' ');
    }
}

/// A number in a field: sign or prefix, zeros, digits, zeros, exponent.
fn number(
    out: &mut Counted,
    conversion: &Conversion,
    zero: bool,
    prefix: &[u8],
    zeros: usize,
    parts: (&[u8], usize, &[u8]),
) {
    let (digits, more, end) = parts;
    let pad = conversion.width.saturating_sub(prefix.len() + zeros + digits.len() + more + end.len());
    let zero = zero && !conversion.left;
    if !conversion.left && !zero {
        out.fill(pad, b' ');
    }
    out.put(prefix);
    out.fill(zeros + if zero { pad } else { 0 }, b'0');
    out.put(digits);
    out.fill(more, b'0');
    out.put(end);
    if conversion.left {
        out.fill(pad, b' ');
    }
}

fn integer(out: &mut Counted, conversion: &Conversion, prefix: &[u8], value: u64, base: u64, capitals: bool) {
    let alphabet = if capitals { b"0123456789ABCDEF" } else { b"0123456789abcdef" };
    let mut digits = [0; 22];
    let mut first = digits.len();
    let mut left = value;
    while left > 0 {
        first -= 1;
        digits[first] = alphabet[(left % base) as usize];
        left /= base;
    }
    let digits = &digits[first..];
    let mut zeros = conversion.precision.unwrap_or(1).saturating_sub(digits.len());
    if base == 8 && conversion.alternative && zeros == 0 {
        zeros = 1;
    }
    number(out, conversion, conversion.zero && conversion.precision.is_none(), prefix, zeros, (digits, 0, b""));
}

fn real(out: &mut Counted, conversion: &Conversion, value: f64, letter: u8) {
    let sign = sign(conversion, value.is_sign_negative());
    let capitals = letter.is_ascii_uppercase();
    if !value.is_finite() {
        let text: &[u8] = match (value.is_nan(), capitals) {
            (true, false) => b"nan",
            (true, true) => b"NAN",
            (false, false) => b"inf",
            (false, true) => b"INF",
        };
        return number(out, conversion, false, sign, 0, (text, 0, b""));
    }
    let (value, precision) = (value.abs(), conversion.precision.unwrap_or(6));
    let mut prefix = [0; 3];
    let mut prefix_length = sign.len();
    prefix[..sign.len()].copy_from_slice(sign);
    let Parts { mut text, zeros, mut end } = match letter.to_ascii_lowercase() {
        b'f' => float::fixed(value, precision, conversion.alternative),
        b'e' => float::scientific(value, precision, conversion.alternative),
        b'g' => float::general(value, precision, conversion.alternative),
        _ => {
            prefix[prefix_length..prefix_length + 2].copy_from_slice(if capitals { b"0X" } else { b"0x" });
            prefix_length += 2;
            float::hexadecimal(value, conversion.precision, conversion.alternative)
        }
    };
    if capitals {
        text.octets_mut().make_ascii_uppercase();
        end.octets_mut().make_ascii_uppercase();
    }
    number(out, conversion, conversion.zero, &prefix[..prefix_length], 0, (text.octets(), zeros, end.octets()));
}

/// A string of `wchar_t`. C's locale can only write its ASCII characters.
///
/// # Safety
/// It is null, ends, or has as many characters as the precision.
unsafe fn wide(out: &mut Counted, conversion: &Conversion, start: *const u32) -> Result<(), c_int> {
    if start.is_null() {
        padded(out, conversion, if conversion.precision.unwrap_or(6) >= 6 { b"(null)" } else { b"" });
        return Ok(());
    }
    // SAFETY: passed on to the caller; characters are taken up to the end or the precision.
    let characters = (0..conversion.precision.unwrap_or(usize::MAX))
        .map(|index| unsafe { start.wrapping_add(index).read() })
        .take_while(|character| *character != 0);
    if characters.clone().any(|character| character > 0x7f) {
        return Err(EILSEQ);
    }
    let pad = conversion.width.saturating_sub(characters.clone().count());
    out.fill(if conversion.left { 0 } else { pad }, b' ');
    for character in characters {
        out.put(&[character as u8]);
    }
    out.fill(if conversion.left { pad } else { 0 }, b' ');
    Ok(())
}
