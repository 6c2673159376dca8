//! The two kinds of hash tables over symbols' names, DT_GNU_HASH and DT_HASH.

use core::ops::Range;

use crate::bytes::{u32_at, u64_at};
use crate::refusal::Refusal;

/// The hash of DT_GNU_HASH, glibc's `_dl_new_hash`.
pub fn gnu(name: &[u8]) -> u32 {
    name.iter().fold(5381, |hash: u32, octet| hash.wrapping_mul(33).wrapping_add(u32::from(*octet)))
}

/// The hash of DT_HASH (gABI, figure 5-13), which versions carry too.
pub fn sysv(name: &[u8]) -> u32 {
    name.iter().fold(0, |hash: u32, octet| {
        let hash = (hash << 4).wrapping_add(u32::from(*octet));
        let high = hash & 0xf000_0000;
        (hash ^ (high >> 24)) & !high
    })
}

/// A table with a Bloom filter. For most names that an object does not define, one word of memory
/// is read.
#[derive(Debug)]
pub struct GnuHash {
    buckets: u32,
    /// The first symbol in the table.
    first: u32,
    filter_mask: u32,
    shift: u32,
    filter_at: usize,
    buckets_at: usize,
    chains_at: usize,
    end: usize,
}

impl GnuHash {
    pub fn parse(file: &[u8], table: Range<usize>) -> Result<Self, Refusal> {
        let refuse = |value, why| Refusal::Dynamic { tag: "DT_GNU_HASH", value: u64::from(value), why };
        let field = |number: usize| {
            u32_at(&file[..table.end], table.start + 4 * number).ok_or(refuse(0, "its header is not all in the file"))
        };
        let (buckets, first, words, shift) = (field(0)?, field(1)?, field(2)?, field(3)?);
        if buckets == 0 || !words.is_power_of_two() || shift >= 64 {
            return Err(refuse(words, "its sizes make no sense"));
        }
        let filter_at = table.start + 16;
        // Neither sum can overflow: both counts have 32 bits.
        let buckets_at = filter_at + 8 * words as usize;
        let chains_at = buckets_at + 4 * buckets as usize;
        if chains_at > table.end {
            return Err(refuse(buckets, "more buckets than its segment has in the file"));
        }
        Ok(Self { buckets, first, filter_mask: words - 1, shift, filter_at, buckets_at, chains_at, end: table.end })
    }

    /// The symbols whose name has this hash.
    pub fn candidates<'a>(&self, file: &'a [u8], hash: u32) -> impl Iterator<Item = u32> + 'a {
        let start = match self.may_hold(file, hash) {
            true => u32_at(file, self.buckets_at + 4 * (hash % self.buckets) as usize).unwrap_or(0),
            false => 0,
        };
        // A chain is a run of the table and ends with it at the latest. Bucket 0 is an empty one.
        let chain = start.checked_sub(self.first).filter(|_| start != 0);
        let at = chain.map_or(self.end, |chain| self.chains_at + 4 * chain as usize);
        let chain = file.get(at..self.end).unwrap_or_default().as_chunks().0;
        let mut last = false;
        let entries = chain.iter().map(|entry| u32::from_le_bytes(*entry)).take_while(move |entry| {
            let go_on = !last;
            last = entry & 1 != 0;
            go_on
        });
        entries.zip(start..).filter_map(move |(entry, index)| ((entry ^ hash) >> 1 == 0).then_some(index))
    }

    fn may_hold(&self, file: &[u8], hash: u32) -> bool {
        let word = self.filter_at + 8 * ((hash / 64) & self.filter_mask) as usize;
        let bits = 1 << (hash % 64) | 1 << (hash.checked_shr(self.shift).unwrap_or(0) % 64);
        u64_at(file, word).is_some_and(|word| word & bits == bits)
    }
}

/// The gABI's table. Its chains may be endless, so no walk is longer than the table.
#[derive(Debug)]
pub struct SysvHash {
    buckets: u32,
    chains: u32,
    buckets_at: usize,
}

impl SysvHash {
    pub fn parse(file: &[u8], table: Range<usize>) -> Result<Self, Refusal> {
        let refuse = |value, why| Refusal::Dynamic { tag: "DT_HASH", value: u64::from(value), why };
        let field = |number: usize| {
            u32_at(&file[..table.end], table.start + 4 * number).ok_or(refuse(0, "its header is not all in the file"))
        };
        let (buckets, chains) = (field(0)?, field(1)?);
        if buckets == 0 || table.len() / 4 - 2 < buckets as usize + chains as usize {
            return Err(refuse(buckets, "its sizes make no sense"));
        }
        Ok(Self { buckets, chains, buckets_at: table.start + 8 })
    }

    /// The symbols whose name may have this hash.
    pub fn candidates<'a>(&self, file: &'a [u8], hash: u32) -> impl Iterator<Item = u32> + 'a {
        let (buckets_at, chains_at) = (self.buckets_at, self.buckets_at + 4 * self.buckets as usize);
        let entry = move |at: usize, number: u32| u32_at(file, at + 4 * number as usize).unwrap_or(0);
        let first = entry(buckets_at, hash % self.buckets);
        let chains = self.chains;
        let next = move |index: &u32| (*index < chains).then(|| entry(chains_at, *index));
        core::iter::successors(Some(first), next)
            .take_while(move |index| *index != 0 && *index < chains)
            .take(self.chains as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_functions_are_those_of_the_linkers() {
        // The values in binutils' own tables for `readelf` and `nm`.
        assert_eq!((gnu(b""), gnu(b"printf"), gnu(b"exit")), (5381, 0x156b_2bb8, 0x7c96_7e3f));
        assert_eq!((sysv(b""), sysv(b"printf"), sysv(b"GLIBC_2.2.5")), (0, 0x077905a6, 0x0969_1a75));
    }
}
