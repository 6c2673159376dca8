//! Ids of pVMs, and the handle that pvmd gives a domain in Xen.

use core::fmt;
use core::num::NonZeroU32;

use xen_abi::DomId;

/// Names one life of one domain: bits 0 to 14 are the domid, bits 15 to 30 a generation. As an
/// `i32` it is positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PvmId(NonZeroU32);

impl PvmId {
    const DOMID_BITS: u32 = 15;

    /// The id of `domain` in its life number `generation`; `None` for domain 0 in generation 0.
    pub const fn new(domain: DomId, generation: u16) -> Option<Self> {
        let value = (generation as u32) << Self::DOMID_BITS | domain.0 as u32 & ((1 << Self::DOMID_BITS) - 1);
        match NonZeroU32::new(value) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// The id with this number, if it is one: not 0, and below 2^31.
    pub const fn from_raw(value: u32) -> Option<Self> {
        match NonZeroU32::new(value) {
            Some(number) if value >> 31 == 0 => Some(Self(number)),
            _ => None,
        }
    }

    /// The number.
    pub const fn raw(self) -> u32 {
        self.0.get()
    }

    /// The domain.
    pub const fn domain(self) -> DomId {
        DomId((self.0.get() & ((1 << Self::DOMID_BITS) - 1)) as u16)
    }

    /// The id of a root pVM, whose handle is the toolstack's: the generation is a hash of it
    /// (FNV-1a, folded to 16 bits).
    pub fn of_root(domain: DomId, handle: &[u8; 16]) -> Option<Self> {
        let hash =
            handle.iter().fold(0x811c_9dc5_u32, |hash, octet| (hash ^ u32::from(*octet)).wrapping_mul(0x0100_0193));
        Self::new(domain, (hash >> 16 ^ hash) as u16)
    }
}

impl fmt::Display for PvmId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// The purpose of a domain of pvmd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It was prepared for its parent and has not become a child yet.
    Prepared,
    /// It is a child.
    Child,
    /// It was a child, has ended, and is to be destroyed.
    Ended,
    /// It holds the memory that a family's members share (docs/protocols/ipc.md).
    MemoryOwner,
    /// It holds the libraries that pVMs of this host have mapped (docs/protocols/libraries.md).
    Libraries,
}

/// The content of the handle (`xen_domain_handle_t`) of a domain that pvmd has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    /// The purpose of the domain.
    pub kind: Kind,
    /// Its id.
    pub id: PvmId,
    /// Its parent at the time of the fork; a memory owner's: the root of its family; that of the
    /// libraries: its own id.
    pub parent: PvmId,
    /// Number of the COMMIT that made it a child; 0 before. The [`Status`](crate::status::Status)
    /// of one that has ended.
    pub commit: u32,
}

impl Handle {
    const MAGIC: [u8; 3] = *b"ZOO";

    /// The handle that a domain is made with, before its number and so its id are known.
    pub const UNFINISHED: [u8; 16] = *b"ZOOn\0\0\0\0\0\0\0\0\0\0\0\0";

    /// The octets.
    pub fn to_octets(self) -> [u8; 16] {
        let mut octets = [0; 16];
        octets[..3].copy_from_slice(&Self::MAGIC);
        octets[3] = match self.kind {
            Kind::Prepared => b'p',
            Kind::Child => b'c',
            Kind::Ended => b'e',
            Kind::MemoryOwner => b'h',
            Kind::Libraries => b'l',
        };
        octets[4..8].copy_from_slice(&self.id.raw().to_be_bytes());
        octets[8..12].copy_from_slice(&self.parent.raw().to_be_bytes());
        octets[12..].copy_from_slice(&self.commit.to_be_bytes());
        octets
    }

    /// The content of the handle of `domain`, if pvmd wrote it.
    pub fn parse(domain: DomId, octets: &[u8; 16]) -> Option<Self> {
        let number = |at: usize| u32::from_be_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]]);
        let kind = match octets[3] {
            b'p' => Kind::Prepared,
            b'c' => Kind::Child,
            b'e' => Kind::Ended,
            b'h' => Kind::MemoryOwner,
            b'l' => Kind::Libraries,
            _ => return None,
        };
        let id = PvmId::from_raw(number(4))?;
        let handle = Self { kind, id, parent: PvmId::from_raw(number(8))?, commit: number(12) };
        (octets[..3] == Self::MAGIC && id.domain() == domain).then_some(handle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_positive_and_hold_the_domid() {
        for (domain, generation) in [(1, 0), (0x7fef, 0xffff), (0, 1)] {
            let id = PvmId::new(DomId(domain), generation).unwrap();
            assert!(id.raw() as i32 > 0);
            assert_eq!(id.domain(), DomId(domain));
            assert_eq!(PvmId::from_raw(id.raw()), Some(id));
        }
        assert_eq!(PvmId::new(DomId(0), 0), None);
        assert_eq!(PvmId::from_raw(0), None);
        assert_eq!(PvmId::from_raw(1 << 31), None);
    }

    #[test]
    fn a_handle_is_read_as_it_was_written() {
        let id = |domain| PvmId::new(DomId(domain), 7).unwrap();
        for kind in [Kind::Prepared, Kind::Child, Kind::Ended, Kind::MemoryOwner, Kind::Libraries] {
            let handle = Handle { kind, id: id(9), parent: id(4), commit: 0x0102_0304 };
            assert_eq!(Handle::parse(DomId(9), &handle.to_octets()), Some(handle));
            assert_eq!(Handle::parse(DomId(8), &handle.to_octets()), None, "another domain's");
        }
    }

    #[test]
    fn other_handles_are_nobodys() {
        assert_eq!(Handle::parse(DomId(0), &[0; 16]), None);
        assert_eq!(Handle::parse(DomId(1), b"ZOOx\0\0\0\x01\0\0\0\x01\0\0\0\0"), None);
        assert_eq!(Handle::parse(DomId(1), b"ZOOc\0\0\0\x01\0\0\0\0\0\0\0\0"), None);
    }
}
