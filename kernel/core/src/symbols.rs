//! Names for addresses, from the symbol table that Xen's domain builder leaves behind the kernel.
//!
//! For a guest whose ELF notes say `XEN_ELFNOTE_BSD_SYMTAB` = "yes", the builder copies the image's
//! symbol and string tables to the first 8-byte boundary behind the last loaded segment
//! (`elf_parse_bsdsyms` and `elf_load_bsdsyms` in Xen's `libelf-loader.c`):
//!
//! ```text
//!   +0    u32 size: bytes from the ELF header to the end of the string table
//!   +4    ELF64 header: e_shoff = 64, e_shnum = 3, no program headers
//!   +68   section header 0: leftovers of the builder's stack, to be ignored
//!   +132  section header 1: SHT_SYMTAB, sh_link = 2
//!   +196  section header 2: SHT_STRTAB
//!   +264  symbols, then, 8-byte aligned, names
//! ```
//!
//! `sh_offset` counts from the ELF header, that is, from +4; so no field is aligned to more than
//! four bytes. [`SymbolTable`] reads only through checked little-endian accessors and is safe on
//! garbage: it is used while a trap is reported, when little can be trusted.

use core::fmt;

const EHDR_SIZE: usize = 64;
const SHDR_SIZE: usize = 64;
const SYM_SIZE: usize = 24;
const SHT_SYMTAB: u32 = 2;
const SHT_STRTAB: u32 = 3;
const STT_FUNC: u8 = 2;

/// A checked view on the symbol and string tables.
#[derive(Clone, Copy, Debug)]
pub struct SymbolTable<'a> {
    symbols: &'a [u8],
    names: &'a [u8],
}

/// The function that holds an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// The name as the compiler mangled it.
    pub name: &'a str,
    /// The address of the function's first byte.
    pub start: u64,
    /// Bytes from the beginning of the function to the address.
    pub offset: u64,
}

/// The reason for which no table could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormatError {
    /// The bytes end before the contents that their headers announce.
    TooShort,
    /// No little-endian ELF64 header stands at +4: the image has no BSD_SYMTAB note, or the place
    /// is wrong.
    NotElf,
    /// There is no symbol table, or it names no string table.
    NoSymbols,
}

impl<'a> SymbolTable<'a> {
    /// Reads the headers. `bytes` begins at the first 8-byte boundary behind the last loaded
    /// segment and may be longer than the table.
    ///
    /// # Errors
    /// See [`FormatError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let size = u32_at(bytes, 0).ok_or(FormatError::TooShort)? as usize;
        let elf = bytes[4..].get(..size).ok_or(FormatError::TooShort)?;
        let header = elf.get(..EHDR_SIZE).ok_or(FormatError::TooShort)?;
        // e_ident: magic, ELFCLASS64, ELFDATA2LSB.
        if !header.starts_with(b"\x7fELF\x02\x01") {
            return Err(FormatError::NotElf);
        }
        let table_at = u64_at(header, 0x28).ok_or(FormatError::TooShort)?;
        let count = u16_at(header, 0x3c).ok_or(FormatError::TooShort)?;
        let section = |index: u32| {
            let at = usize::try_from(table_at).ok()?.checked_add(SHDR_SIZE * index as usize)?;
            elf.get(at..)?.get(..SHDR_SIZE)
        };

        for index in 1..u32::from(count) {
            let symtab = section(index).ok_or(FormatError::TooShort)?;
            if u32_at(symtab, 4) != Some(SHT_SYMTAB) {
                continue;
            }
            let strtab = u32_at(symtab, 40)
                .and_then(section)
                .filter(|strtab| u32_at(strtab, 4) == Some(SHT_STRTAB))
                .ok_or(FormatError::NoSymbols)?;
            return Ok(Self {
                symbols: contents(elf, symtab).ok_or(FormatError::TooShort)?,
                names: contents(elf, strtab).ok_or(FormatError::TooShort)?,
            });
        }
        Err(FormatError::NoSymbols)
    }

    /// The function that `address` lies in. A return address points behind its call, so the caller
    /// looks up the byte before it.
    pub fn lookup(&self, address: u64) -> Option<Symbol<'a>> {
        let holds = |(start, size): (u64, u64)| address >= start && address - start < size;
        let (start, name_at) = self
            .symbols
            .chunks_exact(SYM_SIZE)
            .filter(|symbol| symbol[4] & 0xf == STT_FUNC)
            .filter_map(|symbol| Some((u64_at(symbol, 8)?, u64_at(symbol, 16)?, u32_at(symbol, 0)?)))
            .filter(|&(start, size, _)| holds((start, size)))
            .map(|(start, _, name_at)| (start, name_at))
            .max_by_key(|&(start, _)| start)?;
        Some(Symbol { name: self.name(name_at)?, start, offset: address - start })
    }

    /// Number of symbols of any kind.
    pub fn len(&self) -> usize {
        self.symbols.len() / SYM_SIZE
    }

    /// True when the table holds no symbol.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn name(&self, at: u32) -> Option<&'a str> {
        let bytes = self.names.get(at as usize..)?;
        let len = bytes.iter().position(|&b| b == 0)?;
        core::str::from_utf8(&bytes[..len]).ok().filter(|name| !name.is_empty())
    }
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooShort => "the symbol table is cut off",
            Self::NotElf => "no symbol table behind the image",
            Self::NoSymbols => "the image was stripped of its symbols",
        })
    }
}

impl core::error::Error for FormatError {}

/// The bytes that a section header describes.
fn contents<'a>(elf: &'a [u8], section: &[u8]) -> Option<&'a [u8]> {
    let offset = usize::try_from(u64_at(section, 24)?).ok()?;
    let size = usize::try_from(u64_at(section, 32)?).ok()?;
    elf.get(offset..)?.get(..size)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;
    use std::vec;
    use std::vec::Vec;

    const BASE: u64 = 0xffff_ffff_8000_0000;
    const STT_OBJECT: u8 = 1;

    /// Lays symbols out as `elf_load_bsdsyms` does.
    fn image(symbols: &[(&str, u8, u64, u64)]) -> Vec<u8> {
        let mut names = vec![0u8];
        let mut table = vec![0u8; SYM_SIZE];
        for &(name, kind, value, size) in symbols {
            table.extend((names.len() as u32).to_le_bytes());
            table.extend([0x10 | kind, 0, 1, 0]);
            table.extend(value.to_le_bytes());
            table.extend(size.to_le_bytes());
            names.extend(name.bytes().chain([0]));
        }
        let symbols_at = 260u64;
        let names_at = symbols_at + table.len() as u64;
        let mut elf = vec![0u8; EHDR_SIZE];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[0x28] = 64;
        elf[0x3c] = 3;
        elf.extend([0xa5; SHDR_SIZE]);
        for (kind, offset, size, link) in
            [(SHT_SYMTAB, symbols_at, table.len(), 2u32), (SHT_STRTAB, names_at, names.len(), 0)]
        {
            let mut section = [0u8; SHDR_SIZE];
            section[4..8].copy_from_slice(&kind.to_le_bytes());
            section[24..32].copy_from_slice(&offset.to_le_bytes());
            section[32..40].copy_from_slice(&(size as u64).to_le_bytes());
            section[40..44].copy_from_slice(&link.to_le_bytes());
            elf.extend(section);
        }
        elf.resize(260, 0);
        elf.extend(table);
        elf.extend(names);
        let mut bytes = (elf.len() as u32).to_le_bytes().to_vec();
        bytes.extend(elf);
        bytes
    }

    fn sample() -> Vec<u8> {
        image(&[
            ("second", STT_FUNC, BASE + 0x40, 0x10),
            ("first", STT_FUNC, BASE, 0x20),
            ("data", STT_OBJECT, BASE + 0x60, 0x100),
            ("outer", STT_FUNC, BASE + 0x100, 0x100),
            ("inner", STT_FUNC, BASE + 0x140, 0x10),
            ("label", STT_FUNC, BASE + 0x300, 0),
        ])
    }

    #[test]
    fn finds_the_function_that_holds_an_address() {
        let mut bytes = sample();
        bytes.extend([0xff; 100]);
        let table = SymbolTable::parse(&bytes).unwrap();
        assert_eq!(table.len(), 7);
        let at = |offset| table.lookup(BASE + offset).map(|s| (s.name, s.offset));
        assert_eq!(at(0), Some(("first", 0)));
        assert_eq!(at(0x1f), Some(("first", 0x1f)));
        assert_eq!(at(0x20), None);
        assert_eq!(at(0x4f), Some(("second", 0xf)));
        assert_eq!(at(0x60), None, "data is no function");
        assert_eq!(at(0x141), Some(("inner", 1)));
        assert_eq!(at(0x150), Some(("outer", 0x50)));
        assert_eq!(at(0x300), None, "a label without size holds nothing");
        assert_eq!(table.lookup(0), None);
        assert_eq!(table.lookup(u64::MAX), None);
    }

    #[inline(never)]
    fn somewhere_in_this_program() -> u64 {
        std::hint::black_box(7)
    }

    /// The symbol table of a program that compiler and linker made: this one. Xen's builder leaves
    /// an ELF file without its contents, so a whole file behind its size is read in the same way.
    #[test]
    fn reads_what_a_linker_wrote() {
        let path = std::env::current_exe().unwrap();
        let elf = std::fs::read(&path).unwrap();
        let bytes = [&(elf.len() as u32).to_le_bytes()[..], &elf].concat();
        let table = SymbolTable::parse(&bytes).unwrap();
        assert_eq!(somewhere_in_this_program(), 7);
        // The program is position independent; its first mapping is that of the linker's address 0.
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let first = maps.lines().find(|line| line.ends_with(path.to_str().unwrap())).unwrap();
        let base = u64::from_str_radix(first.split('-').next().unwrap(), 16).unwrap();
        let address = somewhere_in_this_program as *const () as u64 - base;
        let symbol = table.lookup(address + 1).unwrap();
        assert!(symbol.name.contains("somewhere_in_this_program"), "{symbol:?}");
        assert_eq!((symbol.start, symbol.offset), (address, 1));
    }

    #[test]
    fn says_why_there_is_no_table() {
        let bytes = sample();
        assert_eq!(SymbolTable::parse(&[]).unwrap_err(), FormatError::TooShort);
        assert_eq!(SymbolTable::parse(&bytes[..bytes.len() - 1]).unwrap_err(), FormatError::TooShort);
        let mut no_elf = bytes.clone();
        no_elf[5] = b'X';
        assert_eq!(SymbolTable::parse(&no_elf).unwrap_err(), FormatError::NotElf);
        let mut no_symbols = bytes.clone();
        no_symbols[4 + 64 + 64 + 4] = 1;
        assert_eq!(SymbolTable::parse(&no_symbols).unwrap_err(), FormatError::NoSymbols);
        let mut no_names = bytes;
        no_names[4 + 64 + 64 + 40] = 9;
        assert_eq!(SymbolTable::parse(&no_names).unwrap_err(), FormatError::NoSymbols);
    }

    #[test]
    fn garbage_never_panics() {
        let mut random = Random::new(7);
        let good = sample();
        for _ in 0..5000 {
            let mut bytes = good.clone();
            for _ in 0..1 + random.below(8) {
                // Most changes are in the headers, the most sensitive part.
                let bound = if random.chance(4) { bytes.len() } else { 264 };
                bytes[random.below(bound as u64) as usize] = random.next_u64() as u8;
            }
            bytes.truncate(random.below(2 * bytes.len() as u64) as usize);
            if let Ok(table) = SymbolTable::parse(&bytes) {
                table.lookup(BASE + random.below(0x400));
                table.lookup(random.next_u64());
            }
        }
    }
}
