//! Shared objects with changed octets, also for the boot tests' libraries
//! (tests/runner/damaged.rs).

#![allow(dead_code, reason = "each user takes a part of it")]

pub const ELF_HEADER: usize = 64;
pub const PROGRAM_HEADER: usize = 56;
pub const DYNAMIC: u32 = 2;
pub const LOAD: u32 = 1;
pub const TLS: u32 = 7;
pub const STACK: u32 = 0x6474_e551;
pub const RELRO: u32 = 0x6474_e552;

/// A file to be damaged.
#[derive(Clone)]
pub struct File(pub Vec<u8>);

impl File {
    pub fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.0[at..at + 8].try_into().expect("8 octets"))
    }

    pub fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.0[at..at + 4].try_into().expect("4 octets"))
    }

    pub fn with(&self, at: usize, octets: &[u8]) -> Self {
        let mut file = self.clone();
        file.0[at..at + octets.len()].copy_from_slice(octets);
        file
    }

    pub fn with_u64(&self, at: usize, value: u64) -> Self {
        self.with(at, &value.to_le_bytes())
    }

    /// The offsets of the program headers of a kind.
    pub fn headers(&self, kind: u32) -> Vec<usize> {
        let count = u16::from_le_bytes([self.0[56], self.0[57]]);
        let all = (0..usize::from(count)).map(|number| ELF_HEADER + number * PROGRAM_HEADER);
        all.filter(|at| self.u32(*at) == kind).collect()
    }

    /// The offset of the entry of a dynamic tag.
    pub fn tag(&self, tag: u64) -> usize {
        let section = self.u64(self.headers(DYNAMIC)[0] + 8) as usize;
        (section..).step_by(16).find(|at| self.u64(*at) == tag).expect("the tag is there")
    }

    /// The offset and size of DT_RELA. Text segments have the same offsets in the file and in
    /// memory.
    pub fn rela(&self) -> (usize, usize) {
        (self.u64(self.tag(7) + 8) as usize, self.u64(self.tag(8) + 8) as usize / 24)
    }

    /// The first relocation of a type.
    pub fn relocation(&self, kind: u32) -> usize {
        let (start, count) = self.rela();
        (0..count).map(|number| start + 24 * number).find(|at| self.u32(at + 8) == kind).expect("one is there")
    }
}
