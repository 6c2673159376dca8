//! A shared object, as its file describes it.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use goblin::elf64::dynamic::SIZEOF_DYN;
use goblin::elf64::header::*;
use goblin::elf64::program_header::*;

use crate::PAGE_SIZE;
use crate::bytes;
use crate::dynamic::{Dynamic, Tags};
use crate::hash::{GnuHash, SysvHash};
use crate::refusal::{Refusal, SegmentFault};
use crate::relocation::{Relocation, Relocations};
use crate::segment::{Rights, Segment, TlsSegment, page_down};
use crate::symbol::{Key, Symbol, SymbolKind, Wanted};
use crate::version::Versions;

const NT_GNU_BUILD_ID: u32 = 3;
const GNU: &[u8] = b"GNU\0";

/// Limits on the size of an object.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Octets from its lowest to its highest address.
    pub span: u64,
    /// The number of mapped segments (PT_LOAD).
    pub segments: usize,
    /// The number of other objects that it may need.
    pub needed: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { span: 1 << 30, segments: 64, needed: 256 }
    }
}

/// The requests of an object to its loader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Every symbol is to be bound before the object runs.
    pub bind_now: bool,
    /// Its own definitions come first in its search.
    pub symbolic: bool,
    /// It reaches its thread-local variables at fixed distances from the thread pointer.
    pub static_tls: bool,
    /// Once loaded, it stays.
    pub no_delete: bool,
    /// Its symbols are global, however it is opened.
    pub global: bool,
}

/// A shared object whose file has been checked. A value proves that each of its tables lies in the
/// file, and that each segment has a valid place. `B` holds the file's octets, which must not
/// change while it lives.
#[derive(Debug)]
pub struct Object<B> {
    bytes: B,
    info: Info,
}

#[derive(Debug)]
pub(crate) struct Info {
    pub segments: Vec<Segment>,
    relro: Option<Range<u64>>,
    tls: Option<TlsSegment>,
    build_id: Option<Range<usize>>,
    headers: Option<(u64, u16)>,
    unwind_table: Option<u64>,
    pub dynamic: Dynamic,
    pub versions: Versions,
    pub gnu_hash: Option<GnuHash>,
    pub hash: Option<SysvHash>,
}

/// An object's octets and the facts found in them, independent of their holder.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub bytes: &'a [u8],
    pub info: &'a Info,
}

impl<B: AsRef<[u8]>> Object<B> {
    /// Checks a file, with the default [`Limits`].
    pub fn parse(bytes: B) -> Result<Self, Refusal> {
        Self::parse_within(bytes, &Limits::default())
    }

    /// Judges a file, with limits of the caller's.
    ///
    /// # Errors
    /// The reason for which it cannot be loaded.
    pub fn parse_within(bytes: B, limits: &Limits) -> Result<Self, Refusal> {
        let info = Info::parse(bytes.as_ref(), limits)?;
        Ok(Self { bytes, info })
    }

    /// The program itself, mapped where its linker has placed it (base 0). `bytes` are text and
    /// constants, from the address `start` on; its variables follow up to `end`; its dynamic
    /// section, among the constants, has the addresses `dynamic`.
    pub fn program(bytes: B, start: u64, end: u64, dynamic: Range<u64>) -> Result<Self, Refusal> {
        let file = bytes.as_ref();
        let constants = start..start.saturating_add(file.len() as u64);
        let align = PAGE_SIZE;
        let variables = constants.end..end.max(constants.end);
        let segments = alloc::vec![
            Segment { rights: Rights::ReadExecute, memory: constants, file: 0..file.len(), align },
            Segment { rights: Rights::ReadWrite, memory: variables, file: file.len()..file.len(), align },
        ];
        let section = segments[0].file_range(dynamic.start, dynamic.end.saturating_sub(dynamic.start));
        let section = section.ok_or(Refusal::Without("dynamic section"))?;
        let tags = Tags::read(file, section, &Limits::default())?;
        let dynamic = Dynamic::parse(&tags, file, &segments)?;
        let info = Info::of(file, segments, dynamic)?;
        Ok(Self { bytes, info })
    }

    /// The name in DT_SONAME.
    pub fn soname(&self) -> Option<&str> {
        self.info.dynamic.soname.map(|name| text(self.view().string_at(name)))
    }

    /// The libraries that it needs, in its order.
    pub fn needed(&self) -> impl Iterator<Item = &str> {
        self.info.dynamic.needed.iter().map(|name| text(self.view().string_at(*name)))
    }

    /// The octets of the linker's build id.
    pub fn build_id(&self) -> Option<&[u8]> {
        self.bytes.as_ref().get(self.info.build_id.clone()?)
    }

    /// The mapped segments, by rising address; no two share a page.
    pub fn segments(&self) -> &[Segment] {
        &self.info.segments
    }

    /// All pages from the first segment to the last, relative to the base.
    pub fn span(&self) -> Range<u64> {
        self.info.span()
    }

    /// The alignment of the base, in octets.
    pub fn align(&self) -> u64 {
        self.info.segments.iter().map(|segment| segment.align).max().unwrap_or(1)
    }

    /// The pages (GNU_RELRO) that are read-only as soon as the object has been relocated.
    pub fn relro(&self) -> Option<Range<u64>> {
        self.info.relro.clone()
    }

    /// Its thread-local variables, if it has any (PT_TLS).
    pub fn tls(&self) -> Option<&TlsSegment> {
        self.info.tls.as_ref()
    }

    /// The flags of DT_FLAGS and DT_FLAGS_1.
    pub fn flags(&self) -> Flags {
        self.info.dynamic.flags
    }

    /// The address of the PLT's table (DT_PLTGOT). Its second and third word are the loader's if it
    /// binds lazily.
    pub fn plt_got(&self) -> Option<u64> {
        self.info.dynamic.plt_got
    }

    /// The function to call first (DT_INIT), and the array of pointers to the functions that
    /// follow, in order.
    pub fn init(&self) -> (Option<u64>, Range<u64>) {
        (self.info.dynamic.init, self.info.dynamic.init_array.clone())
    }

    /// The array of pointers to the functions to call at the end, the last one first, and the
    /// function after them (DT_FINI).
    pub fn fini(&self) -> (Range<u64>, Option<u64>) {
        (self.info.dynamic.fini_array.clone(), self.info.dynamic.fini)
    }

    /// All dynamic symbols but the first, which is reserved.
    pub fn symbols(&self) -> impl Iterator<Item = Symbol<'_>> {
        let view = self.view();
        (1..view.info.dynamic.symbols.count as u32).filter_map(move |index| view.public_symbol(index))
    }

    /// The definition of `name` that a reference would get: with the version, or else the newest.
    pub fn symbol(&self, name: &str, version: Option<&str>) -> Option<Symbol<'_>> {
        let wanted = Wanted::at_run_time(version);
        let (index, _) = self.view().find(&Key::new(name.as_bytes()), wanted)?;
        self.view().public_symbol(index)
    }

    /// The versions that it defines.
    pub fn versions(&self) -> impl Iterator<Item = &str> {
        let view = self.view();
        view.info.versions.defined().map(move |version| text(view.string_at(version.name)))
    }

    /// The versions that it needs, each with the library that is to define it.
    pub fn needed_versions(&self) -> impl Iterator<Item = (&str, &str)> {
        let view = self.view();
        view.info
            .versions
            .needed()
            .map(move |(file, version)| (text(view.string_at(file)), text(view.string_at(version.name))))
    }

    /// All relocations, in the order in which they are applied.
    pub fn relocations(&self) -> impl Iterator<Item = Relocation> {
        Relocations::new(self.view())
    }

    /// Checks that each relocation is of a known type, of a symbol that exists, and in a writable
    /// segment. A plan checks the same, but needs the other objects. `name` is the object's name in
    /// a refusal.
    pub fn verify(&self, name: &str) -> Result<(), Refusal> {
        self.relocations().try_for_each(|relocation| relocation.check(self.view()).map_err(|fault| fault.at(name)))
    }

    /// True if an address, relative to the base, is in a segment or in the rest of its last page.
    /// The address of its program headers and their number, if they lie in a segment.
    pub fn program_headers(&self) -> Option<(u64, u16)> {
        self.info.headers
    }

    /// The address of the table from which the frames of its functions are unwound
    /// (PT_GNU_EH_FRAME).
    pub fn unwind_table(&self) -> Option<u64> {
        self.info.unwind_table
    }

    pub(crate) fn holds(&self, address: u64) -> bool {
        let segments = &self.info.segments;
        let end = segments.last().map_or(0, |segment| segment.memory.end);
        address < end && segments.iter().any(|segment| segment.pages().contains(&address))
    }

    pub(crate) fn view(&self) -> View<'_> {
        View { bytes: self.bytes.as_ref(), info: &self.info }
    }
}

impl Info {
    fn parse(file: &[u8], limits: &Limits) -> Result<Self, Refusal> {
        let header = header(file)?;
        let (mut segments, mut rest) = (Vec::new(), Vec::new());
        for number in 0..usize::from(header.e_phnum) {
            let offset = header.e_phoff.saturating_add((number * SIZEOF_PHDR) as u64);
            let header: ProgramHeader = bytes::record(file, usize::try_from(offset).unwrap_or(usize::MAX))
                .ok_or(Refusal::Truncated { what: "program headers", offset })?;
            match header.p_type {
                PT_LOAD if header.p_memsz == 0 => {}
                PT_LOAD if segments.len() >= limits.segments => {
                    return Err(Refusal::Header { field: "the number of program headers", value: number as u64 });
                }
                PT_LOAD => segments.push(Segment::parse(number, &header, file.len(), segments.last(), limits)?),
                PT_GNU_STACK if header.p_flags & PF_X != 0 => return Err(Refusal::ExecutableStack),
                PT_DYNAMIC | PT_TLS | PT_GNU_RELRO | PT_NOTE | PT_GNU_EH_FRAME => rest.push((number, header)),
                _ => {}
            }
        }
        if segments.is_empty() {
            return Err(Refusal::Without("segment to load"));
        }

        let (mut tags, mut relro, mut tls, mut build_id, mut unwind_table) = (None, None, None, None, None);
        for (number, header) in &rest {
            let refuse = |fault| Refusal::Segment { number: *number, address: header.p_vaddr, fault };
            let content = segments.iter().find_map(|segment| segment.file_range(header.p_vaddr, header.p_filesz));
            match header.p_type {
                PT_DYNAMIC => {
                    let section = content.ok_or(refuse(SegmentFault::NotLoaded))?;
                    if section.len() < SIZEOF_DYN {
                        return Err(Refusal::Truncated { what: "dynamic section", offset: section.end as u64 });
                    }
                    tags = Some(Tags::read(file, section, limits)?);
                }
                PT_TLS if header.p_memsz > 0 => tls = Some(TlsSegment::parse(*number, header, &segments, limits)?),
                PT_GNU_RELRO if header.p_memsz > 0 => {
                    relro = Some(self::relro(header, &segments).ok_or(refuse(SegmentFault::NotLoaded))?);
                }
                PT_GNU_EH_FRAME => unwind_table = content.map(|_| header.p_vaddr),
                // A missing or malformed note is no reason to refuse: nothing depends on it.
                PT_NOTE if build_id.is_none() => build_id = content.and_then(|notes| self::build_id(file, notes)),
                _ => {}
            }
        }
        let dynamic = Dynamic::parse(&tags.ok_or(Refusal::Without("dynamic section"))?, file, &segments)?;
        let headers = (header.e_phoff, (usize::from(header.e_phnum) * SIZEOF_PHDR) as u64);
        let headers = segments.iter().find_map(|segment| segment.address_of(headers.0, headers.1));
        let headers = headers.map(|address| (address, header.e_phnum));
        let info = Self::of(file, segments, dynamic)?;
        Ok(Self { relro: relro.filter(|pages| !pages.is_empty()), tls, build_id, headers, unwind_table, ..info })
    }

    /// The facts that follow from the dynamic section.
    fn of(file: &[u8], segments: Vec<Segment>, dynamic: Dynamic) -> Result<Self, Refusal> {
        Ok(Self {
            versions: Versions::parse(file, &dynamic)?,
            gnu_hash: dynamic.gnu_hash.clone().map(|table| GnuHash::parse(file, table)).transpose()?,
            hash: dynamic.hash.clone().map(|table| SysvHash::parse(file, table)).transpose()?,
            segments,
            relro: None,
            tls: None,
            build_id: None,
            headers: None,
            unwind_table: None,
            dynamic,
        })
    }

    pub fn span(&self) -> Range<u64> {
        let end = self.segments.last().map_or(0, |segment| segment.pages().end);
        self.segments.first().map_or(0, |segment| segment.pages().start)..end
    }

    /// True if `length` octets at `address` may be written while the object is relocated.
    pub fn writable(&self, address: u64, length: u64) -> bool {
        // Data comes last in most objects.
        self.segments.iter().rev().any(|segment| segment.rights == Rights::ReadWrite && segment.holds(address, length))
    }
}

impl<'a> View<'a> {
    /// The string that begins at `offset` of the file. The offset is in the string table, which
    /// ends with a zero.
    pub fn string_at(self, offset: usize) -> &'a [u8] {
        let rest = self.bytes.get(offset..self.info.dynamic.strings.end).unwrap_or_default();
        &rest[..rest.iter().position(|octet| *octet == 0).unwrap_or(rest.len())]
    }

    /// The word that the file has for `address`; zero outside of the file's content.
    pub fn word(self, address: u64) -> u64 {
        let place = self.info.segments.iter().find_map(|segment| segment.file_range(address, 8));
        place.and_then(|place| bytes::u64_at(self.bytes, place.start)).unwrap_or(0)
    }

    fn public_symbol(self, index: u32) -> Option<Symbol<'a>> {
        let symbol = self.symbol(index)?;
        let version = self.version_of(index);
        Some(Symbol {
            name: text(self.name(&symbol)),
            version: version.map(|version| text(self.string_at(version.name))),
            default: !self.hidden_version(index),
            address: symbol.st_value,
            size: symbol.st_size,
            kind: SymbolKind::of(&symbol),
            defined: symbol.st_shndx != 0,
            weak: symbol.st_info >> 4 == goblin::elf::sym::STB_WEAK,
        })
    }
}

fn header(file: &[u8]) -> Result<Header, Refusal> {
    let header: Header = bytes::record(file, 0).ok_or(Refusal::Truncated { what: "ELF header", offset: 0 })?;
    let magic = u32::from_be_bytes([header.e_ident[0], header.e_ident[1], header.e_ident[2], header.e_ident[3]]);
    for (field, value, good) in [
        ("the magic number", u64::from(magic), magic.to_be_bytes() == *ELFMAG),
        ("the class", u64::from(header.e_ident[EI_CLASS]), header.e_ident[EI_CLASS] == ELFCLASS64),
        ("the order of octets", u64::from(header.e_ident[EI_DATA]), header.e_ident[EI_DATA] == ELFDATA2LSB),
        ("the version", u64::from(header.e_version), header.e_version == u32::from(EV_CURRENT)),
        (
            "the ABI",
            u64::from(header.e_ident[EI_OSABI]),
            matches!(header.e_ident[EI_OSABI], ELFOSABI_NONE | ELFOSABI_GNU),
        ),
        ("the type", u64::from(header.e_type), header.e_type == ET_DYN),
        ("the machine", u64::from(header.e_machine), header.e_machine == EM_X86_64),
        ("the size of a program header", u64::from(header.e_phentsize), usize::from(header.e_phentsize) == SIZEOF_PHDR),
        // PN_XNUM: the number is stored elsewhere.
        ("the number of program headers", u64::from(header.e_phnum), !matches!(header.e_phnum, 0 | 0xffff)),
    ] {
        if !good {
            return Err(Refusal::Header { field, value });
        }
    }
    Ok(header)
}

/// The whole pages of GNU_RELRO, if all of it is in one writable segment: its linker may have
/// rounded up its end.
fn relro(header: &ProgramHeader, segments: &[Segment]) -> Option<Range<u64>> {
    let end = header.p_vaddr.checked_add(header.p_memsz)?;
    let inside = |segment: &&Segment| segment.pages().start <= header.p_vaddr && end <= segment.pages().end;
    segments.iter().find(|segment| segment.rights == Rights::ReadWrite && inside(segment))?;
    Some(page_down(header.p_vaddr)..page_down(end))
}

fn build_id(file: &[u8], notes: Range<usize>) -> Option<Range<usize>> {
    let (mut offset, notes) = (notes.start, file.get(..notes.end)?);
    loop {
        let name = offset.checked_add(12)?;
        let name_size = bytes::u32_at(notes, offset)? as usize;
        let size = bytes::u32_at(notes, offset + 4)? as usize;
        let content = name.checked_add(name_size.checked_next_multiple_of(4)?)?;
        let end = content.checked_add(size)?;
        if bytes::u32_at(notes, offset + 8)? == NT_GNU_BUILD_ID && notes.get(name..name + name_size) == Some(GNU) {
            return notes.get(content..end).map(|_| content..end);
        }
        offset = end.checked_next_multiple_of(4)?;
    }
}

/// A name as text. Names are ASCII in practice; one that is not UTF-8 cannot be looked up, only
/// shown.
pub(crate) fn text(name: &[u8]) -> &str {
    core::str::from_utf8(name).unwrap_or("(not text)")
}

pub(crate) fn owned(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
