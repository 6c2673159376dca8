//! Relocations: one sequence from three tables, each relocation checked by itself.

use alloc::string::ToString;
use core::fmt;

use goblin::elf::reloc::*;
use goblin::elf64::reloc::{Rela, SIZEOF_RELA};

use crate::bytes;
use crate::dynamic::Entries;
use crate::object::{View, owned};
use crate::refusal::{Place, Refusal};

/// The table of a relocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// DT_RELR: packed addresses of words to which the base is added.
    Relr,
    /// DT_RELA: relocations that are applied when the object is loaded.
    Rela,
    /// DT_JMPREL: relocations of the PLT, which may be left for later.
    JmpRel,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Relr => "DT_RELR",
            Self::Rela => "DT_RELA",
            Self::JmpRel => "DT_JMPREL",
        })
    }
}

/// A word of the object that depends on the place of this object, or of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// The table of the object that it stands in.
    pub table: Table,
    /// Its number in the table, from 0; for DT_RELR the number of the word that encodes it.
    pub number: usize,
    /// Its type, R_X86_64_*.
    pub kind: u32,
    /// The address that it relocates, relative to the base.
    pub target: u64,
    /// The index of its symbol in the object's own table; 0 for none.
    pub symbol: u32,
    /// The number that is added to the symbol's value; for REL and RELR the word that stood there.
    pub addend: i64,
}

/// The fault of one relocation, without its place.
pub enum Fault {
    Copy(Relocation, alloc::string::String),
    Unknown(Relocation),
    NotWritable(Relocation),
    NoSuchIndex(Relocation),
}

impl Fault {
    pub fn at(self, object: &str) -> Refusal {
        match self {
            Self::Copy(relocation, symbol) => Refusal::CopyRelocation { place: relocation.place(object), symbol },
            Self::Unknown(relocation) => {
                Refusal::UnknownRelocation { place: relocation.place(object), kind: relocation.kind }
            }
            Self::NotWritable(relocation) => Refusal::NotWritable { place: relocation.place(object) },
            Self::NoSuchIndex(relocation) => {
                Refusal::NoSuchIndex { place: relocation.place(object), symbol: relocation.symbol }
            }
        }
    }
}

impl Relocation {
    /// Its place, for a message about `object`.
    pub fn place(&self, object: &str) -> Place {
        Place { object: object.to_string(), table: self.table, number: self.number, target: self.target }
    }

    /// The number of octets that it changes, if it is of a type that a shared object may have.
    pub fn length(&self) -> Option<u64> {
        Some(match self.kind {
            R_X86_64_NONE => 0,
            R_X86_64_PC32 | R_X86_64_PLT32 | R_X86_64_SIZE32 => 4,
            R_X86_64_64 | R_X86_64_PC64 | R_X86_64_SIZE64 | R_X86_64_GLOB_DAT | R_X86_64_JUMP_SLOT
            | R_X86_64_RELATIVE | R_X86_64_IRELATIVE | R_X86_64_DTPMOD64 | R_X86_64_DTPOFF64 | R_X86_64_TPOFF64 => 8,
            R_X86_64_TLSDESC => 16,
            _ => return None,
        })
    }

    pub(crate) fn check(&self, view: View) -> Result<(), Fault> {
        if self.kind == R_X86_64_COPY {
            let symbol = view.symbol(self.symbol).map(|symbol| owned(view.name(&symbol)));
            return Err(Fault::Copy(*self, symbol.unwrap_or_default()));
        }
        let length = self.length().ok_or(Fault::Unknown(*self))?;
        if length > 0 && !view.info.writable(self.target, length) {
            return Err(Fault::NotWritable(*self));
        }
        if self.symbol as usize >= view.info.dynamic.symbols.count.max(1) {
            return Err(Fault::NoSuchIndex(*self));
        }
        Ok(())
    }
}

/// All relocations of an object, beginning with those that depend on the base alone.
pub struct Relocations<'a> {
    view: View<'a>,
    table: Table,
    next: usize,
    /// The state of DT_RELR: the address of the next bitmap, the bits of the present one that are
    /// left, and its beginning.
    base: u64,
    bits: u64,
    first: u64,
}

impl<'a> Relocations<'a> {
    pub fn new(view: View<'a>) -> Self {
        Self { view, table: Table::Relr, next: 0, base: 0, bits: 0, first: 0 }
    }

    /// The relocation with this number in the PLT's table.
    pub fn of_plt(view: View, number: usize) -> Option<Relocation> {
        rela(view, Table::JmpRel, &view.info.dynamic.jmprel, number)
    }

    fn relative(&self, target: u64) -> Relocation {
        let (table, number) = (Table::Relr, self.next - 1);
        let addend = self.view.word(target) as i64;
        Relocation { table, number, kind: R_X86_64_RELATIVE, target, symbol: 0, addend }
    }

    /// gABI, "Relative Relocation Table": an even word is the address of a word; an odd one is a
    /// bitmap of the 63 words behind.
    fn relr(&mut self) -> Option<Relocation> {
        loop {
            if self.bits != 0 {
                let bit = self.bits.trailing_zeros();
                self.bits &= self.bits - 1;
                return Some(self.relative(self.first.wrapping_add(8 * u64::from(bit))));
            }
            let entries = &self.view.info.dynamic.relr;
            let word = (self.next < entries.count)
                .then(|| bytes::u64_at(self.view.bytes, entries.offset + 8 * self.next))
                .flatten()?;
            self.next += 1;
            if word & 1 == 0 {
                self.base = word.wrapping_add(8);
                return Some(self.relative(word));
            }
            (self.first, self.bits) = (self.base, word >> 1);
            self.base = self.base.wrapping_add(8 * 63);
        }
    }
}

impl Iterator for Relocations<'_> {
    type Item = Relocation;

    fn next(&mut self) -> Option<Relocation> {
        if self.table == Table::Relr {
            if let Some(relocation) = self.relr() {
                return Some(relocation);
            }
            (self.table, self.next) = (Table::Rela, 0);
        }
        if self.table == Table::Rela {
            if let Some(relocation) = rela(self.view, Table::Rela, &self.view.info.dynamic.rela, self.next) {
                self.next += 1;
                return Some(relocation);
            }
            (self.table, self.next) = (Table::JmpRel, 0);
        }
        let relocation = Self::of_plt(self.view, self.next)?;
        self.next += 1;
        Some(relocation)
    }
}

fn rela(view: View, table: Table, entries: &Entries, number: usize) -> Option<Relocation> {
    if number >= entries.count {
        return None;
    }
    let rela: Rela = bytes::record(view.bytes, entries.offset + number * SIZEOF_RELA)?;
    Some(Relocation {
        table,
        number,
        kind: rela.r_info as u32,
        target: rela.r_offset,
        symbol: (rela.r_info >> 32) as u32,
        addend: rela.r_addend,
    })
}
