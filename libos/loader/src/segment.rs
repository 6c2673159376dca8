//! Program headers: the mapped ranges and their rights.

use core::ops::Range;

use goblin::elf64::program_header::{PF_R, PF_W, PF_X, ProgramHeader};

use crate::refusal::{Refusal, SegmentFault};
use crate::{Limits, PAGE_SIZE};

/// The rights of a segment's pages. No value stands for "writable and executable".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Reading: constants.
    Read,
    /// Reading and writing: variables.
    ReadWrite,
    /// Reading and execution: instructions.
    ReadExecute,
}

/// A part of the object that is mapped (PT_LOAD). Addresses are relative to the base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The rights that it keeps.
    pub rights: Rights,
    /// Its range in memory; the part beyond the content of the file is zero.
    pub memory: Range<u64>,
    /// Its content in the file. It begins at the same offset within a page as `memory`.
    pub file: Range<usize>,
    pub(crate) align: u64,
}

impl Segment {
    /// All pages that it touches. No other segment has one of them.
    pub fn pages(&self) -> Range<u64> {
        page_down(self.memory.start)..page_up(self.memory.end)
    }

    /// The range of the file with the `length` octets of content for `address`.
    pub(crate) fn file_range(&self, address: u64, length: u64) -> Option<Range<usize>> {
        let skip = address.checked_sub(self.memory.start)?;
        let end = skip.checked_add(length)?;
        (end <= self.file.len() as u64).then(|| self.file.start + skip as usize..self.file.start + end as usize)
    }

    /// The address of `length` octets at an offset of the file, if all of them are content.
    pub(crate) fn address_of(&self, offset: u64, length: u64) -> Option<u64> {
        let skip = offset.checked_sub(self.file.start as u64)?;
        (skip.checked_add(length)? <= self.file.len() as u64).then(|| self.memory.start + skip)
    }

    pub(crate) fn holds(&self, address: u64, length: u64) -> bool {
        self.memory.start <= address && address.checked_add(length).is_some_and(|end| end <= self.memory.end)
    }

    pub(crate) fn parse(
        number: usize,
        header: &ProgramHeader,
        file_length: usize,
        before: Option<&Segment>,
        limits: &Limits,
    ) -> Result<Self, Refusal> {
        let refuse = |fault| Refusal::Segment { number, address: header.p_vaddr, fault };
        let rights = match (header.p_flags & PF_R != 0, header.p_flags & PF_W != 0, header.p_flags & PF_X != 0) {
            (_, true, true) => return Err(refuse(SegmentFault::WritableAndExecutable)),
            (_, true, false) => Rights::ReadWrite,
            (_, false, true) => Rights::ReadExecute,
            (true, false, false) => Rights::Read,
            (false, false, false) => return Err(refuse(SegmentFault::NoRights)),
        };
        let end = header.p_vaddr.checked_add(header.p_memsz).filter(|end| *end <= limits.span);
        let memory = header.p_vaddr..end.ok_or(refuse(SegmentFault::TooLarge))?;
        if header.p_filesz > header.p_memsz {
            return Err(refuse(SegmentFault::LargerInFile));
        }
        let file_end = header.p_offset.checked_add(header.p_filesz).filter(|end| *end <= file_length as u64);
        let file = header.p_offset as usize..file_end.ok_or(refuse(SegmentFault::OutOfFile))? as usize;
        let align = header.p_align.max(PAGE_SIZE);
        if !align.is_power_of_two() || align > limits.span || header.p_vaddr % PAGE_SIZE != header.p_offset % PAGE_SIZE
        {
            return Err(refuse(SegmentFault::Misaligned));
        }
        let segment = Self { rights, memory, file, align };
        match before {
            Some(before) if before.memory.end > segment.memory.start => Err(refuse(SegmentFault::Unordered)),
            Some(before) if before.pages().end > segment.pages().start => Err(refuse(SegmentFault::Overlapping)),
            _ => Ok(segment),
        }
    }
}

/// The thread-local variables of an object (PT_TLS). Every thread gets a block of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSegment {
    /// The initial contents of a block, in the file; the rest is zero.
    pub file: Range<usize>,
    /// The address of that content in memory, relative to the base. Relocations may have changed
    /// it.
    pub address: u64,
    /// Size of a block, in octets.
    pub size: u64,
    /// Alignment, a power of two.
    pub align: u64,
}

impl TlsSegment {
    pub(crate) fn parse(
        number: usize,
        header: &ProgramHeader,
        segments: &[Segment],
        limits: &Limits,
    ) -> Result<Self, Refusal> {
        let refuse = |fault| Refusal::Segment { number, address: header.p_vaddr, fault };
        let align = header.p_align.max(1);
        if !align.is_power_of_two() {
            return Err(refuse(SegmentFault::Misaligned));
        }
        if header.p_memsz > limits.span || align > limits.span {
            return Err(refuse(SegmentFault::TooLarge));
        }
        if header.p_filesz > header.p_memsz {
            return Err(refuse(SegmentFault::LargerInFile));
        }
        // With no content, the address only gives the alignment of the block.
        let file = match header.p_filesz {
            0 => 0..0,
            length => segments
                .iter()
                .find_map(|segment| segment.file_range(header.p_vaddr, length))
                .ok_or(refuse(SegmentFault::NotLoaded))?,
        };
        Ok(Self { file, address: header.p_vaddr, size: header.p_memsz, align })
    }

    /// The distance below the thread pointer at which the block begins if `used` octets below it
    /// are taken: the smallest one at which it is aligned as its content (psABI x86-64, 3.4.6). The
    /// block reaches up from there.
    pub fn below(&self, used: u64) -> Option<u64> {
        let first = self.address.wrapping_neg() & (self.align - 1);
        let end = used.checked_add(self.size)?.max(first) - first;
        end.checked_next_multiple_of(self.align)?.checked_add(first)
    }
}

pub(crate) fn page_down(address: u64) -> u64 {
    address & !(PAGE_SIZE - 1)
}

pub(crate) fn page_up(address: u64) -> u64 {
    page_down(address.saturating_add(PAGE_SIZE - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_below_the_thread_pointer_is_aligned_and_overlaps_nothing() {
        for (address, size, align) in
            [(0x1000, 8, 8), (0x3de0, 0x74, 0x10), (0x1008, 5, 64), (0x1234, 1, 4), (7, 100, 1)]
        {
            let tls = TlsSegment { file: 0..0, address, size, align };
            for used in [0_u64, 1, 8, 17, 100, 4096] {
                let below = tls.below(used).expect("small");
                assert!(below >= used + size, "{below:#x}: behind what is used");
                assert_eq!(below.wrapping_neg() % align, address % align);
                assert!(below < used + size + 2 * align, "no more than alignment needs");
            }
        }
        assert_eq!(TlsSegment { file: 0..0, address: 0, size: u64::MAX, align: 1 }.below(1), None);
    }
}
