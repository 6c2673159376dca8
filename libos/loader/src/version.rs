//! Symbol versions: those that an object defines (DT_VERDEF) and those that it needs of others
//! (DT_VERNEED).
//!
//! The records are those of "ELF Symbol Versioning" (LSB Core, chapter 10.7).

use alloc::vec::Vec;
use core::ops::Range;

use crate::bytes::{u16_at, u32_at};
use crate::dynamic::Dynamic;
use crate::object::View;
use crate::refusal::Refusal;

/// VER_FLG_BASE: the version is the name of the object itself.
const BASE: u16 = 1;
/// VER_FLG_WEAK: the version may be missing.
const WEAK: u16 = 2;
const SIZEOF_VERDEF: usize = 20;
const SIZEOF_VERNEED: usize = 16;
const SIZEOF_VERNAUX: usize = 16;
/// DT_VERSYM has 15 bits for a version's number.
const MOST: usize = 0x7fff;

#[derive(Clone, Copy, Debug)]
pub struct Version {
    /// Its number in DT_VERSYM.
    number: u16,
    pub hash: u32,
    /// Its name in the file.
    pub name: usize,
    /// The name of the library that is to define it; `None` if it is defined here.
    pub file: Option<usize>,
    pub weak: bool,
    pub hidden: bool,
    /// True if it stands for "no version".
    pub base: bool,
}

/// All versions of an object.
#[derive(Debug, Default)]
pub struct Versions(Vec<Version>);

impl Versions {
    pub fn parse(file: &[u8], dynamic: &Dynamic) -> Result<Self, Refusal> {
        let mut versions = Vec::new();
        if let Some(table) = dynamic.verdef.clone() {
            let reader = Reader { tag: "DT_VERDEF", file, table, strings: dynamic.strings.clone() };
            reader.definitions(dynamic.verdef_count, &mut versions)?;
        }
        if let Some(table) = dynamic.verneed.clone() {
            let reader = Reader { tag: "DT_VERNEED", file, table, strings: dynamic.strings.clone() };
            reader.needs(dynamic.verneed_count, &mut versions)?;
        }
        versions.sort_unstable_by_key(|version| version.number);
        Ok(Self(versions))
    }

    pub fn get(&self, number: u16) -> Option<&Version> {
        self.0.binary_search_by_key(&number, |version| version.number).ok().map(|place| &self.0[place])
    }

    pub fn defined(&self) -> impl Iterator<Item = &Version> {
        self.0.iter().filter(|version| version.file.is_none() && !version.base)
    }

    /// The needed versions, each with its library's name.
    pub fn needed(&self) -> impl Iterator<Item = (usize, &Version)> {
        self.0.iter().filter_map(|version| Some((version.file?, version)))
    }
}

impl<'a> View<'a> {
    pub fn version_of(self, index: u32) -> Option<&'a Version> {
        self.info.versions.get(self.versym(index)? & 0x7fff).filter(|version| !version.base)
    }

    pub fn defines_version(self, hash: u32, name: &[u8]) -> bool {
        let mut defined = self.info.versions.0.iter().filter(|version| version.file.is_none());
        defined.any(|version| version.hash == hash && self.string_at(version.name) == name)
    }
}

struct Reader<'a> {
    tag: &'static str,
    file: &'a [u8],
    table: Range<usize>,
    strings: Range<usize>,
}

impl Reader<'_> {
    fn definitions(&self, count: u64, versions: &mut Vec<Version>) -> Result<(), Refusal> {
        let mut at = self.table.start;
        for _ in 0..count {
            self.room(at, SIZEOF_VERDEF, versions)?;
            let name = self.u32(at + self.u32(at + 12)? as usize)?;
            let flags = self.u16(at + 2)?;
            versions.push(Version {
                number: self.u16(at + 4)? & 0x7fff,
                hash: self.u32(at + 8)?,
                name: self.name(name)?,
                file: None,
                weak: flags & WEAK != 0,
                hidden: false,
                base: flags & BASE != 0,
            });
            match self.u32(at + 16)? {
                0 => break,
                next => at += next as usize,
            }
        }
        Ok(())
    }

    fn needs(&self, count: u64, versions: &mut Vec<Version>) -> Result<(), Refusal> {
        let mut at = self.table.start;
        for _ in 0..count {
            self.room(at, SIZEOF_VERNEED, versions)?;
            let file = self.name(self.u32(at + 4)?)?;
            let mut aux = at + self.u32(at + 8)? as usize;
            for _ in 0..self.u16(at + 2)? {
                self.room(aux, SIZEOF_VERNAUX, versions)?;
                let number = self.u16(aux + 6)?;
                versions.push(Version {
                    number: number & 0x7fff,
                    hash: self.u32(aux)?,
                    name: self.name(self.u32(aux + 8)?)?,
                    file: Some(file),
                    weak: self.u16(aux + 4)? & WEAK != 0,
                    hidden: number & 0x8000 != 0,
                    base: false,
                });
                match self.u32(aux + 12)? {
                    0 => break,
                    next => aux += next as usize,
                }
            }
            match self.u32(at + 12)? {
                0 => break,
                next => at += next as usize,
            }
        }
        Ok(())
    }

    /// Checks that a record is in the table. Chains may cross, so the number of records is limited
    /// by the room, not by their length.
    fn room(&self, at: usize, size: usize, versions: &[Version]) -> Result<(), Refusal> {
        if at + size > self.table.end {
            return Err(self.refuse(at, "a record ends outside of its segment's content"));
        }
        if versions.len() > MOST.min(self.file.len() / SIZEOF_VERNAUX) {
            return Err(self.refuse(at, "more records than there is room for"));
        }
        Ok(())
    }

    fn name(&self, offset: u32) -> Result<usize, Refusal> {
        let name = self.strings.start + offset as usize;
        if name < self.strings.end { Ok(name) } else { Err(self.refuse(name, "a name is not in the string table")) }
    }

    fn u16(&self, at: usize) -> Result<u16, Refusal> {
        u16_at(&self.file[..self.table.end], at).ok_or_else(|| self.refuse(at, "a record is not all in the file"))
    }

    fn u32(&self, at: usize) -> Result<u32, Refusal> {
        u32_at(&self.file[..self.table.end], at).ok_or_else(|| self.refuse(at, "a record is not all in the file"))
    }

    fn refuse(&self, at: usize, why: &'static str) -> Refusal {
        Refusal::Dynamic { tag: self.tag, value: at as u64, why }
    }
}
