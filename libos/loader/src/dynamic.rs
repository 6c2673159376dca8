//! The dynamic section: the places of the tables, checked against the file.

use alloc::vec::Vec;
use core::ops::Range;

use goblin::elf64::dynamic::*;
use goblin::elf64::reloc::SIZEOF_RELA;
use goblin::elf64::sym::SIZEOF_SYM;

use crate::bytes;
use crate::object::{Flags, Limits};
use crate::refusal::Refusal;
use crate::segment::{Rights, Segment};

// gABI, chapter "Dynamic Section"; not in goblin.
const DT_RELRSZ: u64 = 35;
const DT_RELR: u64 = 36;
const DT_RELRENT: u64 = 37;
const DT_AUXILIARY: u64 = 0x7fff_fffd;
const DT_FILTER: u64 = 0x7fff_ffff;

const SIZEOF_RELR: usize = 8;

/// The tags that matter, with the values in the file.
#[derive(Default)]
pub struct Tags {
    found: Vec<(u64, u64)>,
    needed: Vec<u64>,
}

impl Tags {
    pub fn read(file: &[u8], section: Range<usize>, limits: &Limits) -> Result<Self, Refusal> {
        let mut tags = Self::default();
        for offset in section.clone().step_by(SIZEOF_DYN) {
            let entry: Dyn = bytes::record(file, offset)
                .filter(|_| offset + SIZEOF_DYN <= section.end)
                .ok_or(Refusal::Truncated { what: "dynamic section", offset: offset as u64 })?;
            match entry.d_tag {
                DT_NULL => return Ok(tags),
                DT_NEEDED if tags.needed.len() >= limits.needed => {
                    return Err(refuse("DT_NEEDED", entry.d_val, "more libraries than the loader's limit"));
                }
                DT_NEEDED => tags.needed.push(entry.d_val),
                _ => tags.found.push((entry.d_tag, entry.d_val)),
            }
        }
        Ok(tags)
    }

    fn get(&self, tag: u64) -> Option<u64> {
        // As with glibc, the last one counts.
        self.found.iter().rev().find(|(found, _)| *found == tag).map(|(_, value)| *value)
    }

    fn bits(&self, tag: u64) -> u64 {
        self.get(tag).unwrap_or(0)
    }
}

/// A table that lies wholly in the file.
#[derive(Clone, Debug, Default)]
pub struct Entries {
    pub offset: usize,
    pub count: usize,
}

/// The checked contents of the dynamic section. Addresses are relative to the base; offsets are
/// into the file.
#[derive(Debug)]
pub struct Dynamic {
    pub flags: Flags,
    pub soname: Option<usize>,
    pub needed: Vec<usize>,
    pub strings: Range<usize>,
    pub symbols: Entries,
    /// One u16 for each symbol.
    pub versym: Option<usize>,
    pub verdef: Option<Range<usize>>,
    pub verdef_count: u64,
    pub verneed: Option<Range<usize>>,
    pub verneed_count: u64,
    /// From its beginning to the end of the segment's content in the file.
    pub gnu_hash: Option<Range<usize>>,
    pub hash: Option<Range<usize>>,
    pub rela: Entries,
    pub relr: Entries,
    pub jmprel: Entries,
    pub plt_got: Option<u64>,
    pub init: Option<u64>,
    pub fini: Option<u64>,
    pub init_array: Range<u64>,
    pub fini_array: Range<u64>,
}

impl Dynamic {
    pub fn parse(tags: &Tags, file: &[u8], segments: &[Segment]) -> Result<Self, Refusal> {
        let reader = Reader { tags, segments };
        let flags = reader.flags()?;

        let strings = reader.bytes(("DT_STRTAB", DT_STRTAB), ("DT_STRSZ", DT_STRSZ))?;
        let strings = strings.ok_or(Refusal::Without("string table (DT_STRTAB)"))?;
        // The string table ends with a NUL, so that every name in it does.
        if file.get(strings.clone()).and_then(<[u8]>::last) != Some(&0) {
            return Err(refuse("DT_STRSZ", strings.len() as u64, "the last string has no end"));
        }
        let name = |tag, offset: u64| {
            let name = strings.start + usize::try_from(offset).unwrap_or(usize::MAX).min(strings.len());
            if name < strings.end { Ok(name) } else { Err(refuse(tag, offset, "not in the string table")) }
        };
        let soname = tags.get(DT_SONAME).map(|offset| name("DT_SONAME", offset)).transpose()?;
        let needed = tags.needed.iter().map(|offset| name("DT_NEEDED", *offset)).collect::<Result<_, _>>()?;

        let hash = reader.rest("DT_HASH", DT_HASH)?;
        let symbols = reader.symbols(file, hash.as_ref())?;
        let versym = reader.rest("DT_VERSYM", DT_VERSYM)?;
        if let Some(versym) = &versym
            && versym.len() / 2 < symbols.count
        {
            return Err(refuse("DT_VERSYM", versym.start as u64, "fewer entries than symbols in the file"));
        }
        if tags.get(DT_REL).is_some() {
            return Err(refuse("DT_REL", tags.bits(DT_REL), "relocations without addends do not exist on x86-64"));
        }
        let (mut rela, jmprel) = (
            reader.table(("DT_RELA", DT_RELA), ("DT_RELASZ", DT_RELASZ), SIZEOF_RELA)?,
            reader.table(("DT_JMPREL", DT_JMPREL), ("DT_PLTRELSZ", DT_PLTRELSZ), SIZEOF_RELA)?,
        );
        // Some linkers count the relocations of the PLT in DT_RELASZ too; they are then the last.
        let end = rela.offset + rela.count * SIZEOF_RELA;
        if jmprel.count > 0 && rela.offset <= jmprel.offset && end == jmprel.offset + jmprel.count * SIZEOF_RELA {
            rela.count = (jmprel.offset - rela.offset) / SIZEOF_RELA;
        }
        Ok(Self {
            flags,
            soname,
            needed,
            strings,
            symbols,
            versym: versym.map(|range| range.start),
            verdef: reader.rest("DT_VERDEF", DT_VERDEF)?,
            verdef_count: tags.bits(DT_VERDEFNUM),
            verneed: reader.rest("DT_VERNEED", DT_VERNEED)?,
            verneed_count: tags.bits(DT_VERNEEDNUM),
            gnu_hash: reader.rest("DT_GNU_HASH", DT_GNU_HASH)?,
            hash,
            rela,
            relr: reader.table(("DT_RELR", DT_RELR), ("DT_RELRSZ", DT_RELRSZ), SIZEOF_RELR)?,
            jmprel,
            plt_got: reader.address("DT_PLTGOT", DT_PLTGOT, |segment| segment.rights == Rights::ReadWrite)?,
            init: reader.address("DT_INIT", DT_INIT, |segment| segment.rights == Rights::ReadExecute)?,
            fini: reader.address("DT_FINI", DT_FINI, |segment| segment.rights == Rights::ReadExecute)?,
            init_array: reader.pointers(("DT_INIT_ARRAY", DT_INIT_ARRAY), ("DT_INIT_ARRAYSZ", DT_INIT_ARRAYSZ))?,
            fini_array: reader.pointers(("DT_FINI_ARRAY", DT_FINI_ARRAY), ("DT_FINI_ARRAYSZ", DT_FINI_ARRAYSZ))?,
        })
    }
}

/// A tag with its name, for refusals.
type Tag = (&'static str, u64);

struct Reader<'a> {
    tags: &'a Tags,
    segments: &'a [Segment],
}

impl Reader<'_> {
    fn flags(&self) -> Result<Flags, Refusal> {
        let (flags, flags_1) = (self.tags.bits(DT_FLAGS), self.tags.bits(DT_FLAGS_1));
        if self.tags.get(DT_TEXTREL).is_some() || flags & DF_TEXTREL != 0 {
            return Err(Refusal::TextRelocations);
        }
        if flags_1 & DF_1_PIE != 0 {
            return Err(refuse("DT_FLAGS_1", flags_1, "an executable is no library (DF_1_PIE)"));
        }
        if flags_1 & DF_1_NOOPEN != 0 {
            return Err(refuse("DT_FLAGS_1", flags_1, "it does not want to be loaded (DF_1_NOOPEN)"));
        }
        for (name, tag) in [("DT_AUXILIARY", DT_AUXILIARY), ("DT_FILTER", DT_FILTER)] {
            if let Some(value) = self.tags.get(tag) {
                return Err(refuse(name, value, "filters are not supported"));
            }
        }
        for (name, tag, size) in [
            ("DT_SYMENT", DT_SYMENT, SIZEOF_SYM as u64),
            ("DT_RELAENT", DT_RELAENT, SIZEOF_RELA as u64),
            ("DT_RELRENT", DT_RELRENT, SIZEOF_RELR as u64),
            ("DT_PLTREL", DT_PLTREL, DT_RELA),
        ] {
            if let Some(value) = self.tags.get(tag).filter(|value| *value != size) {
                return Err(refuse(name, value, "not what x86-64 has"));
            }
        }
        Ok(Flags {
            bind_now: self.tags.get(DT_BIND_NOW).is_some() || flags & DF_BIND_NOW != 0 || flags_1 & DF_1_NOW != 0,
            symbolic: self.tags.get(DT_SYMBOLIC).is_some() || flags & DF_SYMBOLIC != 0,
            static_tls: flags & DF_STATIC_TLS != 0,
            no_delete: flags_1 & DF_1_NODELETE != 0,
            global: flags_1 & DF_1_GLOBAL != 0,
        })
    }

    /// The range of the file from the address in `tag` to the end of the segment's content.
    fn rest(&self, name: &'static str, tag: u64) -> Result<Option<Range<usize>>, Refusal> {
        let Some(address) = self.tags.get(tag) else { return Ok(None) };
        self.segments
            .iter()
            .find_map(|segment| Some(segment.file_range(address, 1)?.start..segment.file.end))
            .ok_or(refuse(name, address, "not in the content of a segment"))
            .map(Some)
    }

    fn bytes(&self, start: Tag, size: Tag) -> Result<Option<Range<usize>>, Refusal> {
        let length = self.tags.bits(size.1);
        if length == 0 {
            return Ok(None);
        }
        let rest = self.rest(start.0, start.1)?.ok_or(Refusal::Without(start.0))?;
        if length > rest.len() as u64 {
            return Err(refuse(size.0, length, "more than its segment has in the file"));
        }
        Ok(Some(rest.start..rest.start + length as usize))
    }

    fn table(&self, start: Tag, size: Tag, entry: usize) -> Result<Entries, Refusal> {
        let range = self.bytes(start, size)?.unwrap_or(0..0);
        if range.len() % entry != 0 {
            return Err(refuse(size.0, range.len() as u64, "not a whole number of entries"));
        }
        Ok(Entries { offset: range.start, count: range.len() / entry })
    }

    /// The number of symbols, which no tag has: DT_HASH has it; else the table ends at the latest
    /// where the next one begins.
    fn symbols(&self, file: &[u8], hash: Option<&Range<usize>>) -> Result<Entries, Refusal> {
        let rest = self.rest("DT_SYMTAB", DT_SYMTAB)?.ok_or(Refusal::Without("symbol table (DT_SYMTAB)"))?;
        let address = self.tags.bits(DT_SYMTAB);
        let chains = hash.and_then(|hash| bytes::u32_at(file, hash.start.checked_add(4)?));
        if let Some(count) = chains {
            if count as usize > rest.len() / SIZEOF_SYM {
                return Err(refuse("DT_HASH", u64::from(count), "more symbols than the file has"));
            }
            return Ok(Entries { offset: rest.start, count: count as usize });
        }
        let next = [DT_STRTAB, DT_GNU_HASH, DT_VERSYM, DT_VERDEF, DT_VERNEED, DT_RELA, DT_JMPREL, DT_RELR, DT_INIT]
            .into_iter()
            .filter_map(|tag| self.tags.get(tag).filter(|next| *next > address))
            .min();
        let room = next.map_or(rest.len(), |next| rest.len().min((next - address) as usize));
        Ok(Entries { offset: rest.start, count: room / SIZEOF_SYM })
    }

    fn address(&self, name: &'static str, tag: u64, fits: impl Fn(&Segment) -> bool) -> Result<Option<u64>, Refusal> {
        // glibc and linkers take 0 for a missing table.
        let Some(address) = self.tags.get(tag).filter(|address| *address != 0) else { return Ok(None) };
        match self.segments.iter().any(|segment| segment.holds(address, 1) && fits(segment)) {
            true => Ok(Some(address)),
            false => Err(refuse(name, address, "not in a segment with the rights for that")),
        }
    }

    /// An array of pointers in memory. Its contents are known once it has been relocated.
    fn pointers(&self, start: Tag, size: Tag) -> Result<Range<u64>, Refusal> {
        let (address, length) = (self.tags.bits(start.1), self.tags.bits(size.1));
        if length == 0 {
            return Ok(0..0);
        }
        if length % 8 != 0 || address % 8 != 0 {
            return Err(refuse(size.0, length, "not a whole number of pointers"));
        }
        match self.segments.iter().any(|segment| segment.holds(address, length)) {
            true => Ok(address..address + length),
            false => Err(refuse(start.0, address, "not in one segment")),
        }
    }
}

fn refuse(tag: &'static str, value: u64, why: &'static str) -> Refusal {
    Refusal::Dynamic { tag, value, why }
}
