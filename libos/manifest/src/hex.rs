//! Octets as hexadecimal digits, in small letters.

use alloc::vec::Vec;
use core::fmt;

/// Octets that `Display` writes as digits.
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(out, "{octet:02x}"))
    }
}

const fn digit(letter: u8) -> Option<u8> {
    match letter {
        b'0'..=b'9' => Some(letter - b'0'),
        b'a'..=b'f' => Some(letter - b'a' + 10),
        _ => None,
    }
}

/// Exactly `N` octets. It is `const`, so that a key can be read when an image is built.
pub const fn array<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let mut octets = [0; N];
    let mut at = 0;
    while at < N {
        let (Some(high), Some(low)) = (digit(text[2 * at]), digit(text[2 * at + 1])) else { return None };
        octets[at] = high << 4 | low;
        at += 1;
    }
    Some(octets)
}

/// Any number of octets.
pub fn octets(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let octet = |pair: &[u8; 2]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
    if rest.is_empty() { pairs.iter().map(octet).collect() } else { None }
}
