//! `%f`, `%e`, `%g` and `%a`. The digits come from `core::fmt`, which computes them exactly.

use core::fmt::{self, Write};

/// Number of digits behind the point beyond which a `double` has only zeros, which are not made
/// here.
const MOST: usize = 1100;

/// A number without its sign, in parts: the text, zeros, the end.
pub(crate) struct Parts {
    pub(crate) text: Buffer,
    pub(crate) zeros: usize,
    pub(crate) end: Buffer<8>,
}

/// 309 digits, a point, and [`MOST`].
pub(crate) struct Buffer<const SIZE: usize = 1416> {
    octets: [u8; SIZE],
    length: usize,
}

impl<const SIZE: usize> Buffer<SIZE> {
    fn new() -> Self {
        Self { octets: [0; SIZE], length: 0 }
    }

    fn put(&mut self, octets: &[u8]) {
        self.octets[self.length..self.length + octets.len()].copy_from_slice(octets);
        self.length += octets.len();
    }

    fn format(arguments: fmt::Arguments) -> Self {
        let mut buffer = Self::new();
        buffer.write_fmt(arguments).expect("the buffer holds the longest number");
        buffer
    }

    pub(crate) fn octets(&self) -> &[u8] {
        &self.octets[..self.length]
    }

    pub(crate) fn octets_mut(&mut self) -> &mut [u8] {
        &mut self.octets[..self.length]
    }
}

impl<const SIZE: usize> Write for Buffer<SIZE> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.len() > SIZE - self.length {
            return Err(fmt::Error);
        }
        self.put(text.as_bytes());
        Ok(())
    }
}

/// `%f` of a finite non-negative number.
pub(crate) fn fixed(value: f64, precision: usize, point: bool) -> Parts {
    let made = precision.min(MOST);
    let mut text = Buffer::format(format_args!("{value:.made$}"));
    if precision == 0 && point {
        text.put(b".");
    }
    Parts { text, zeros: precision - made, end: Buffer::new() }
}

/// The first `count` significant digits, and the power of ten of the first.
fn digits(value: f64, count: usize) -> (Buffer, i32) {
    let written: Buffer = Buffer::format(format_args!("{value:.*e}", count - 1));
    let text = written.octets();
    let split = text.iter().position(|octet| *octet == b'e').expect("an exponent is written");
    let power = core::str::from_utf8(&text[split + 1..]).ok().and_then(|power| power.parse().ok());
    let mut digits = Buffer::new();
    digits.put(&text[..1]);
    digits.put(text[..split].get(2..).unwrap_or_default());
    (digits, power.expect("an exponent is a number"))
}

fn exponent(power: i32) -> Buffer<8> {
    Buffer::format(format_args!("e{}{:02}", if power < 0 { '-' } else { '+' }, power.unsigned_abs()))
}

/// `%e`.
pub(crate) fn scientific(value: f64, precision: usize, point: bool) -> Parts {
    let made = precision.min(MOST);
    let (digits, power) = digits(value, made + 1);
    let mut text = Buffer::new();
    text.put(&digits.octets()[..1]);
    if precision > 0 || point {
        text.put(b".");
    }
    text.put(&digits.octets()[1..]);
    Parts { text, zeros: precision - made, end: exponent(power) }
}

/// `%g`; if `all`, zeros at the end stay.
pub(crate) fn general(value: f64, precision: usize, all: bool) -> Parts {
    let precision = precision.max(1);
    let made = precision.min(MOST);
    let (digits, power) = digits(value, made);
    let digits = digits.octets();
    let kept =
        if all { digits.len() } else { digits.iter().rposition(|digit| *digit != b'0').map_or(1, |last| last + 1) };
    let mut text = Buffer::new();
    let mut end = Buffer::new();
    if power < -4 || usize::try_from(power).is_ok_and(|power| power >= precision) {
        text.put(&digits[..1]);
        if kept > 1 || all {
            text.put(b".");
        }
        text.put(&digits[1..kept]);
        end = exponent(power);
    } else if let Ok(power) = usize::try_from(power) {
        text.put(&digits[..=power]);
        if kept > power + 1 || all {
            text.put(b".");
            text.put(digits.get(power + 1..kept).unwrap_or_default());
        }
    } else {
        text.put(b"0.");
        text.put(&b"000"[..power.unsigned_abs() as usize - 1]);
        text.put(&digits[..kept]);
    }
    Parts { text, zeros: if all { precision - made } else { 0 }, end }
}

/// `%a`, without the `0x`.
pub(crate) fn hexadecimal(value: f64, precision: Option<usize>, point: bool) -> Parts {
    const FRACTION: u32 = f64::MANTISSA_DIGITS - 1;
    let bits = value.to_bits();
    let biased = (bits >> FRACTION) as i32;
    let mut mantissa = bits & ((1 << FRACTION) - 1);
    if biased > 0 {
        mantissa |= 1 << FRACTION;
    }
    let power = match (biased, mantissa) {
        (0, 0) => 0,
        (0, _) => f64::MIN_EXP - 1,
        _ => biased - (f64::MAX_EXP - 1),
    };
    // The digits that are needed, 13 at most.
    let needed = (FRACTION - mantissa.trailing_zeros().min(FRACTION)).div_ceil(4) as usize;
    let count = precision.unwrap_or(needed);
    let made = count.min(13);
    let drop = FRACTION - 4 * made as u32;
    if drop > 0 {
        let (gone, half) = (mantissa & ((1 << drop) - 1), 1 << (drop - 1));
        mantissa >>= drop;
        mantissa += u64::from(gone > half || gone == half && mantissa & 1 == 1);
    }
    let fraction = mantissa & ((1 << (4 * made)) - 1);
    let mut text = Buffer::format(format_args!("{:x}", mantissa >> (4 * made)));
    if count > 0 || point {
        text.put(b".");
    }
    if made > 0 {
        text.write_fmt(format_args!("{fraction:0made$x}")).expect("14 digits fit");
    }
    let end = Buffer::format(format_args!("p{power:+}"));
    Parts { text, zeros: count - made, end }
}
