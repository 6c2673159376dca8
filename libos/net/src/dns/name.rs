//! Domain names in wire form.

use core::fmt;

/// Longest name in wire form, in octets, with the root's empty label (RFC 1035, section 2.3.4).
const NAME_MAX: usize = 255;
/// Longest label, in octets (RFC 1035, section 2.3.4).
const LABEL_MAX: usize = 63;

/// A domain name in wire form: labels with their lengths, and the root's empty label. ASCII letters
/// are small, because their case makes no difference (RFC 4343), so equal names have equal octets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    octets: [u8; NAME_MAX],
    len: u8,
}

impl Name {
    const EMPTY: Self = Self { octets: [0; NAME_MAX], len: 0 };

    /// The name in `text`, such as `www.example.org`; a dot may follow. `None`: a label is empty or
    /// longer than 63 octets, the name is too long, or it has an octet that is no visible ASCII
    /// character.
    pub fn from_text(text: &str) -> Option<Self> {
        let mut name = Self::EMPTY;
        for label in text.strip_suffix('.').unwrap_or(text).split('.') {
            if !label.bytes().all(|octet| octet.is_ascii_graphic()) {
                return None;
            }
            name.push_label(label.as_bytes())?;
        }
        name.push(0)?;
        Some(name)
    }

    /// The name at `at` in `message`, and the offset after it. Compression (RFC 1035, section
    /// 4.1.4) is followed: each pointer must lead to an earlier place than all before it, so that
    /// there is no loop. `None`: the name is malformed.
    pub fn at(message: &[u8], at: usize) -> Option<(Self, usize)> {
        let mut name = Self::EMPTY;
        let (mut at, mut start, mut after) = (at, at, None);
        loop {
            let length = *message.get(at)?;
            match length {
                0 => {
                    name.push(0)?;
                    return Some((name, after.unwrap_or(at + 1)));
                }
                1..=63 => {
                    let end = at + 1 + usize::from(length);
                    name.push_label(message.get(at + 1..end)?)?;
                    at = end;
                }
                0xc0.. => {
                    let target = usize::from(length & 0x3f) << 8 | usize::from(*message.get(at + 1)?);
                    if target >= start {
                        return None;
                    }
                    after = after.or(Some(at + 2));
                    (at, start) = (target, target);
                }
                _ => return None,
            }
        }
    }

    /// This name below `domain`. `None`: the whole would be too long.
    pub fn below(&self, domain: &[u8]) -> Option<Self> {
        let mut name = *self;
        name.len -= 1;
        for &octet in domain {
            name.push(octet)?;
        }
        Some(name)
    }

    /// The wire form.
    pub fn octets(&self) -> &[u8] {
        &self.octets[..self.len.into()]
    }

    fn push_label(&mut self, label: &[u8]) -> Option<()> {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=LABEL_MAX as u8).contains(length))?;
        self.push(length)?;
        label.iter().try_for_each(|octet| self.push(octet.to_ascii_lowercase()))
    }

    fn push(&mut self, octet: u8) -> Option<()> {
        *self.octets.get_mut(usize::from(self.len))? = octet;
        self.len += 1;
        Some(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.", Labels(self.octets()))
    }
}

/// The domains in which a short name is looked for, in this order, and how short it is
/// (resolv.conf(5): `search`, and the option `ndots`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SearchList {
    /// The domains' wire forms, one after the other.
    octets: [u8; Self::SIZE],
    len: u16,
    /// A name with fewer dots than this is looked for in the domains first.
    pub ndots: u8,
}

impl SearchList {
    /// Room for all domains, in octets of their wire forms.
    const SIZE: usize = 256;
    /// Largest number of domains.
    pub const DOMAINS: usize = 6;
    /// Largest `ndots`.
    pub const NDOTS_MAX: u8 = 15;
    /// No domain.
    pub const NONE: Self = Self { octets: [0; Self::SIZE], len: 0, ndots: 1 };

    /// Adds a domain at the end. `None`: there is no room.
    pub fn push(&mut self, domain: &Name) -> Option<()> {
        let (start, octets) = (usize::from(self.len), domain.octets());
        if self.domains().count() == Self::DOMAINS {
            return None;
        }
        self.octets.get_mut(start..start + octets.len())?.copy_from_slice(octets);
        self.len += octets.len() as u16;
        Some(())
    }

    /// The domains, in wire form.
    pub fn domains(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.octets[..self.len.into()];
        core::iter::from_fn(move || {
            let (domain, others) = rest.split_at(wire_length(rest)?);
            rest = others;
            Some(domain)
        })
    }
}

impl fmt::Debug for SearchList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ndots {}", self.ndots)?;
        self.domains().try_for_each(|domain| write!(f, ", {}", Labels(domain)))
    }
}

/// Length of the wire form at the start of `octets`.
fn wire_length(octets: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match octets.get(at)? {
            0 => return Some(at + 1),
            &length => at += 1 + usize::from(length),
        }
    }
}

/// A wire form as text, without the dot at its end.
struct Labels<'a>(&'a [u8]);

impl fmt::Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        let mut dot = "";
        while let Some((&length @ 1.., after)) = rest.split_first()
            && let Some((label, others)) = after.split_at_checked(length.into())
        {
            write!(f, "{dot}{}", label.escape_ascii())?;
            (rest, dot) = (others, ".");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec::Vec;

    #[test]
    fn names_have_labels_of_1_to_63_octets_and_255_in_all() {
        assert_eq!(Name::from_text("a.Bc").unwrap().octets(), b"\x01a\x02bc\0");
        assert_eq!(Name::from_text("a.bc."), Name::from_text("A.BC"));
        let label = "x".repeat(63);
        assert!(Name::from_text(&label).is_some());
        // 3 labels of 63 and one of 61 make 255 octets.
        assert!(Name::from_text(&format!("{label}.{label}.{label}.{}", "x".repeat(61))).is_some());
        assert!(Name::from_text(&format!("{label}.{label}.{label}.{}", "x".repeat(62))).is_none());
        for bad in ["", ".", "..", "a..b", ".a", "a b", "a\0", "ä", &"x".repeat(64), &"a.".repeat(200)] {
            assert!(Name::from_text(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn compressed_names_are_read_and_loops_refused() {
        let message = b"\x03Net\0\x03foo\xc0\x00\x01a\xc0\x05\xc0\x0b";
        let (name, after) = Name::at(message, 11).unwrap();
        assert_eq!((name.octets(), after), (&b"\x01a\x03foo\x03net\0"[..], 15));
        assert_eq!(Name::at(message, 15).unwrap(), (name, 17), "a pointer to a pointer");
        for bad in [
            &b"\xc0\x00"[..],       // to itself
            b"\x01a\xc0\x00",       // to its own start
            b"\xc0\x02\xc0\x00",    // one to the other
            b"\xc0\x04\0\0\x01a\0", // forward
            b"\x40a\0",             // a label type that does not exist
            b"\x80a\0",             // another one
            b"\x05ab",              // over the end
            b"\x01a",               // without an end
            b"\xc0",                // half a pointer
            b"",
        ] {
            assert_eq!(Name::at(bad, 0), None, "{bad:?}");
        }
        // Labels and pointers together may not be longer than a name.
        let mut long: Vec<u8> = [b"\x3f".as_slice(), &[b'x'; 63]].concat().repeat(4);
        long.push(0);
        assert_eq!(Name::at(&long, 0), None);
    }

    #[test]
    fn any_octets_are_read_without_a_panic() {
        let mut state = 1u32;
        for _ in 0..20_000 {
            let octets: Vec<u8> = (0..40)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let octet = (state >> 24) as u8;
                    if octet & 3 == 0 { octet & 7 } else { octet | (0xc0 * (octet >> 1 & 1)) }
                })
                .collect();
            for at in 0..42 {
                if let Some((name, after)) = Name::at(&octets, at) {
                    assert!(name.octets().len() <= NAME_MAX && after <= octets.len() && after > at);
                }
            }
        }
    }

    #[test]
    fn a_search_list_has_six_domains_at_most() {
        let mut list = SearchList::NONE;
        for domain in ["a.example", "b.example", "c", "d", "e", "f"] {
            list.push(&Name::from_text(domain).unwrap()).unwrap();
        }
        assert_eq!(format!("{list:?}"), "ndots 1, a.example, b.example, c, d, e, f");
        assert_eq!(list.push(&Name::from_text("g").unwrap()), None);
        let host = Name::from_text("host").unwrap();
        let first = list.domains().next().unwrap();
        assert_eq!(host.below(first), Name::from_text("host.a.example"));
    }
}
