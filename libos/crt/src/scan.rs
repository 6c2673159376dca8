//! `sscanf` (ISO C11 7.21.6.2): `d i u x X o p c s [ e f g a n %`, widths, `*` and the sizes.
//! Functions that read from a stream find its end.

use core::ffi::c_int;

use crate::character::space;
use crate::export::Export;
use crate::number::{self, Integer};
use crate::raw::Reader;
use crate::stdio::EOF;
use crate::variadic::VaList;

pub(crate) const SCANF: &[Export] = exports![
    sscanf,
    vsscanf,
    scanf = nothing,
    fscanf = nothing,
    vscanf = nothing,
    vfscanf = nothing,
    __isoc99_sscanf = sscanf,
    __isoc99_vsscanf = vsscanf,
    __isoc99_scanf = nothing,
    __isoc99_fscanf = nothing,
    __isoc23_sscanf = sscanf,
    __isoc23_vsscanf = vsscanf,
    __isoc23_fscanf = nothing,
    __isoc23_scanf = nothing,
];

variadic! {
    sscanf(2) => vsscanf,
}

pub(crate) unsafe extern "C" fn nothing() -> c_int {
    EOF
}

pub(crate) unsafe extern "C" fn vsscanf(input: *const u8, format: *const u8, arguments: *mut VaList) -> c_int {
    // SAFETY: as C demands, the list is the caller's own.
    let arguments = unsafe { &mut *arguments };
    let mut scan = Scan { input, start: input };
    let mut stored = 0;
    // SAFETY: as C demands.
    let end = unsafe { scan.run(format, arguments, &mut stored) };
    if end == End::Input && stored == 0 { EOF } else { stored }
}

/// The reason for the end.
#[derive(PartialEq)]
enum End {
    Format,
    Input,
    Mismatch,
}

struct Scan {
    input: *const u8,
    start: *const u8,
}

/// The part of a conversion between `%` and the letter.
struct Conversion {
    stored: bool,
    width: Option<usize>,
    size: usize,
    long_double: bool,
}

impl Scan {
    fn peek(&self) -> u8 {
        // SAFETY: the input ends; the position moves on only from octets other than the end.
        unsafe { self.input.read() }
    }

    fn skip(&mut self, count: usize) {
        self.input = self.input.wrapping_add(count);
    }

    fn spaces(&mut self) {
        while space(self.peek()) {
            self.skip(1);
        }
    }

    /// # Safety
    /// The format ends, and the arguments are those that it requires.
    unsafe fn run(&mut self, format: *const u8, arguments: &mut VaList, stored: &mut c_int) -> End {
        let mut format = format;
        // SAFETY: the format ends; the position moves on only from octets other than the end.
        let peek = |format: *const u8| unsafe { format.read() };
        loop {
            let octet = peek(format);
            format = format.wrapping_add(1);
            if octet == 0 {
                return End::Format;
            }
            if space(octet) {
                self.spaces();
                continue;
            }
            if octet != b'%' || peek(format) == b'%' {
                if octet == b'%' {
                    self.spaces();
                    format = format.wrapping_add(1);
                }
                if self.peek() != octet {
                    return if self.peek() == 0 { End::Input } else { End::Mismatch };
                }
                self.skip(1);
                continue;
            }
            let mut conversion = Conversion { stored: true, width: None, size: 4, long_double: false };
            if peek(format) == b'*' {
                conversion.stored = false;
                format = format.wrapping_add(1);
            }
            while peek(format).is_ascii_digit() {
                let digit = usize::from(peek(format) - b'0');
                conversion.width = Some(conversion.width.unwrap_or(0).saturating_mul(10).saturating_add(digit));
                format = format.wrapping_add(1);
            }
            loop {
                match peek(format) {
                    b'h' => conversion.size /= 2,
                    b'l' | b'j' | b'z' | b't' | b'q' => conversion.size = 8,
                    b'L' => (conversion.size, conversion.long_double) = (8, true),
                    _ => break,
                }
                format = format.wrapping_add(1);
            }
            let letter = peek(format);
            if letter == 0 {
                return End::Format;
            }
            format = format.wrapping_add(1);
            if !matches!(letter, b'c' | b'C' | b'[' | b'n') {
                self.spaces();
            }
            if letter != b'n' && self.peek() == 0 {
                return End::Input;
            }
            // SAFETY: passed on to the caller.
            match unsafe { self.convert(&conversion, letter, &mut format, arguments) } {
                Ok(counted) => *stored += c_int::from(counted && conversion.stored),
                Err(end) => return end,
            }
        }
    }

    /// Returns true if this counts as a conversion.
    ///
    /// # Safety
    /// As for [`Self::run`].
    unsafe fn convert(
        &mut self,
        conversion: &Conversion,
        letter: u8,
        format: &mut *const u8,
        arguments: &mut VaList,
    ) -> Result<bool, End> {
        let limit = conversion.width.filter(|width| *width > 0).unwrap_or(usize::MAX);
        // SAFETY: the format names a pointer.
        let mut place = || if conversion.stored { unsafe { arguments.pointer::<u8>() } } else { core::ptr::null_mut() };
        // SAFETY: the input ends.
        let reader = unsafe { Reader::new(self.input, limit) };
        match letter {
            b'n' => {
                // SAFETY: the format names an integer of this size.
                unsafe { put(place(), (self.input.addr() - self.start.addr()) as u64, conversion.size) };
                return Ok(false);
            }
            b'd' | b'i' | b'u' | b'x' | b'X' | b'o' | b'p' => {
                let base = match letter {
                    b'i' => 0,
                    b'x' | b'X' | b'p' => 16,
                    b'o' => 8,
                    _ => 10,
                };
                let number @ Integer { end, .. } = number::integer(&reader, base);
                if end == 0 {
                    return Err(End::Mismatch);
                }
                self.skip(end);
                let value = if matches!(letter, b'd' | b'i') { number.signed().0 as u64 } else { number.unsigned().0 };
                let size = if letter == b'p' { 8 } else { conversion.size };
                // SAFETY: the format names an integer of this size.
                unsafe { put(place(), value, size) };
            }
            b'a' | b'A' | b'e' | b'E' | b'f' | b'F' | b'g' | b'G' => {
                let (value, _, end) = number::real::<f64>(&reader);
                if end == 0 {
                    return Err(End::Mismatch);
                }
                self.skip(end);
                let place = place();
                if conversion.long_double {
                    // SAFETY: the format names a `long double`.
                    unsafe { put_long_double(place, value) };
                } else if conversion.size == 8 {
                    // SAFETY: the format names a `double`.
                    unsafe { put(place, value.to_bits(), 8) };
                } else {
                    // SAFETY: the format names a `float`. It is read anew, so that it is rounded
                    // once.
                    unsafe { put(place, u64::from(number::real::<f32>(&reader).0.to_bits()), 4) };
                }
            }
            b'c' | b'C' => {
                let count = conversion.width.unwrap_or(1);
                // SAFETY: the format names room for `count` octets.
                // glibc accepts fewer octets, too.
                unsafe { self.copy(place(), count, |_| true) };
            }
            b's' | b'S' => {
                let place = place();
                // SAFETY: the format names room for `limit` octets and a NUL.
                let copied = unsafe { self.copy(place, limit, |octet| !space(octet)) };
                // SAFETY: as above.
                unsafe { put(place.wrapping_add(if place.is_null() { 0 } else { copied }), 0, 1) };
            }
            b'[' => {
                // SAFETY: passed on to the caller.
                let set = unsafe { set(format) };
                let place = place();
                // SAFETY: the format names room for `limit` octets and a NUL.
                let copied = unsafe { self.copy(place, limit, |octet| set[usize::from(octet)]) };
                if copied == 0 {
                    return Err(End::Mismatch);
                }
                // SAFETY: as above.
                unsafe { put(place.wrapping_add(if place.is_null() { 0 } else { copied }), 0, 1) };
            }
            _ => return Err(End::Mismatch),
        }
        Ok(true)
    }

    /// Skips wanted octets and stores them, if there is a place.
    ///
    /// # Safety
    /// The place is null, or has room for `limit` octets.
    unsafe fn copy(&mut self, place: *mut u8, limit: usize, wanted: impl Fn(u8) -> bool) -> usize {
        let mut count = 0;
        while count < limit && self.peek() != 0 && wanted(self.peek()) {
            if !place.is_null() {
                // SAFETY: the caller's promise.
                unsafe { place.wrapping_add(count).write(self.peek()) };
            }
            self.skip(1);
            count += 1;
        }
        count
    }
}

/// The octets between `[` and `]`.
///
/// # Safety
/// The format ends.
unsafe fn set(format: &mut *const u8) -> [bool; 256] {
    let mut set = [false; 256];
    // SAFETY: the format ends; the position moves on only from octets other than the end.
    let mut next = || unsafe {
        let octet = format.read();
        *format = format.wrapping_add(usize::from(octet != 0));
        octet
    };
    let mut octet = next();
    let inverted = octet == b'^';
    if inverted {
        octet = next();
    }
    // A bracket that comes first belongs to the set.
    let mut previous = None;
    loop {
        match octet {
            0 => break,
            b'-' if previous.is_some() => {
                let last = next();
                if last == b']' || last == 0 {
                    set[usize::from(b'-')] = true;
                    break;
                }
                let first = previous.take().unwrap_or(last);
                for member in first..=last {
                    set[usize::from(member)] = true;
                }
            }
            _ => {
                set[usize::from(octet)] = true;
                previous = Some(octet);
            }
        }
        octet = next();
        if octet == b']' {
            break;
        }
    }
    set.map(|member| member != inverted)
}

/// Stores the lowest octets of a value, if there is a place.
///
/// # Safety
/// The place is null, or has room.
unsafe fn put(place: *mut u8, value: u64, size: usize) {
    if !place.is_null() {
        // SAFETY: the caller's promise.
        unsafe { core::ptr::copy_nonoverlapping(value.to_le_bytes().as_ptr(), place, size) };
    }
}

/// # Safety
/// The place is null, or has room for ten octets.
unsafe fn put_long_double(place: *mut u8, value: f64) {
    if !place.is_null() {
        // SAFETY: eight octets are read from the variable, ten written to the caller's place; the
        // x87's stack is as before.
        unsafe {
            core::arch::asm!("fld qword ptr [{}]", "fstp tbyte ptr [{}]", in(reg) &raw const value, in(reg) place, options(nostack),
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _, out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _);
        }
    }
}
