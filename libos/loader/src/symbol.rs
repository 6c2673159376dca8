//! Dynamic symbols, and the search for one in an object.

use goblin::elf::sym::*;
use goblin::elf64::sym::Sym;

use crate::bytes;
use crate::hash;
use crate::object::View;

/// The kind of a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SymbolKind {
    /// A variable (STT_OBJECT, STT_COMMON).
    Object,
    /// A function (STT_FUNC).
    Function,
    /// A function that returns the address of the function (STT_GNU_IFUNC).
    Resolver,
    /// A thread-local variable. Its address is a distance from the beginning of its object's block.
    ThreadLocal,
    /// A kind that cannot be referred to by name, or an unspecified one.
    Other(u8),
}

impl SymbolKind {
    pub(crate) fn of(symbol: &Sym) -> Self {
        match symbol.st_info & 0xf {
            STT_OBJECT | STT_COMMON => Self::Object,
            STT_FUNC => Self::Function,
            STT_GNU_IFUNC => Self::Resolver,
            STT_TLS => Self::ThreadLocal,
            other => Self::Other(other),
        }
    }
}

/// A symbol of an object's dynamic symbol table, for inspection.
#[derive(Clone, Copy, Debug)]
pub struct Symbol<'a> {
    /// The name in the string table.
    pub name: &'a str,
    /// The version that it is defined in, or wanted of.
    pub version: Option<&'a str>,
    /// True if a reference without a version may get it.
    pub default: bool,
    /// Its address relative to the base, except for an absolute symbol and a thread-local one.
    pub address: u64,
    /// In octets; 0 where it is not said.
    pub size: u64,
    /// Its type.
    pub kind: SymbolKind,
    /// True if this object defines it, and does not only refer to it.
    pub defined: bool,
    /// True if it may be missing (STB_WEAK).
    pub weak: bool,
}

/// A name to search for, with its hash.
pub struct Key<'a> {
    pub name: &'a [u8],
    pub gnu: u32,
}

impl<'a> Key<'a> {
    pub fn new(name: &'a [u8]) -> Self {
        Self { name, gnu: hash::gnu(name) }
    }
}

/// The wanted version.
#[derive(Clone, Copy)]
pub enum Wanted<'a> {
    /// A reference that was linked before its library had versions. It gets the oldest.
    Unversioned,
    /// A request at run time, as of `dlsym`. It gets the default.
    Newest,
    Version {
        hash: u32,
        name: &'a [u8],
        /// True if no other version will do.
        strict: bool,
    },
}

impl<'a> Wanted<'a> {
    pub fn version(name: &'a [u8]) -> Self {
        Self::Version { hash: hash::sysv(name), name, strict: true }
    }

    /// A request at run time: of this version, or of the default.
    pub fn at_run_time(version: Option<&'a str>) -> Self {
        version.map_or(Self::Newest, |version| Self::version(version.as_bytes()))
    }
}

/// The judgement of a symbol with the right name.
enum Match {
    Yes,
    /// It fits if it is the only one of its kind.
    Perhaps,
    No,
}

impl<'a> View<'a> {
    pub fn symbol(self, index: u32) -> Option<Sym> {
        let table = &self.info.dynamic.symbols;
        if index as usize >= table.count {
            return None;
        }
        bytes::record(self.bytes, table.offset + index as usize * SIZEOF_SYM)
    }

    pub fn name(self, symbol: &Sym) -> &'a [u8] {
        let strings = &self.info.dynamic.strings;
        self.string_at(strings.start.saturating_add(symbol.st_name as usize))
    }

    fn has_name(self, symbol: &Sym, name: &[u8]) -> bool {
        let strings = &self.info.dynamic.strings;
        let rest = self.bytes.get(strings.start.saturating_add(symbol.st_name as usize)..strings.end);
        rest.and_then(|rest| rest.strip_prefix(name)).is_some_and(|rest| rest.first() == Some(&0))
    }

    /// The definition of a name that other objects may use.
    pub fn find(self, key: &Key, wanted: Wanted) -> Option<(u32, Sym)> {
        let mut perhaps = None;
        let mut several = false;
        let mut judge = |index: u32| {
            let symbol =
                self.symbol(index).filter(|symbol| is_definition(symbol) && self.has_name(symbol, key.name))?;
            match self.fits(index, wanted) {
                Match::Yes => return Some((index, symbol)),
                Match::Perhaps if perhaps.is_none() => perhaps = Some((index, symbol)),
                Match::Perhaps => several = true,
                Match::No => {}
            }
            None
        };
        let found = match (&self.info.gnu_hash, &self.info.hash) {
            (Some(table), _) => table.candidates(self.bytes, key.gnu).find_map(&mut judge),
            (None, Some(table)) => table.candidates(self.bytes, hash::sysv(key.name)).find_map(&mut judge),
            (None, None) => (1..self.info.dynamic.symbols.count as u32).find_map(&mut judge),
        };
        found.or(perhaps.filter(|_| !several))
    }

    /// The judgement by glibc's rules (`check_match`), which also serve objects that were linked
    /// before, or without, versions.
    fn fits(self, index: u32, wanted: Wanted) -> Match {
        let Some(entry) = self.versym(index) else { return Match::Yes };
        let (number, hidden) = (entry & 0x7fff, entry & 0x8000 != 0);
        let defined = self.info.versions.get(number).filter(|version| !version.base);
        match wanted {
            Wanted::Version { hash, name, strict } => match defined {
                Some(version) if version.hash == hash && self.string_at(version.name) == name => Match::Yes,
                None if !strict && !hidden => Match::Yes,
                _ => Match::No,
            },
            // Version 0 is local, 1 global without a version, 2 the first version of the library.
            Wanted::Unversioned if number < 3 => Match::Yes,
            Wanted::Newest if number < 2 => Match::Yes,
            _ if hidden => Match::No,
            _ => Match::Perhaps,
        }
    }

    /// The symbol that covers an address relative to the base; of several, the one that begins
    /// last.
    pub fn covering(self, address: u64) -> Option<(u32, Sym)> {
        let mut best: Option<(u32, Sym)> = None;
        for index in 1..self.info.dynamic.symbols.count as u32 {
            let Some(symbol) = self.symbol(index) else { break };
            let covers =
                symbol.st_value == address || symbol.st_value < address && address - symbol.st_value < symbol.st_size;
            let visible = is_definition(&symbol) && symbol.st_shndx != ABSOLUTE && symbol.st_info & 0xf != STT_TLS;
            if covers && visible && best.is_none_or(|(_, best)| best.st_value < symbol.st_value) {
                best = Some((index, symbol));
            }
        }
        best
    }

    /// The version that a reference with this index asks for.
    pub fn wanted(self, index: u32) -> Wanted<'a> {
        let version = self.versym(index).and_then(|entry| self.info.versions.get(entry & 0x7fff));
        match version.filter(|version| !version.base) {
            Some(version) => {
                Wanted::Version { hash: version.hash, name: self.string_at(version.name), strict: version.hidden }
            }
            None => Wanted::Unversioned,
        }
    }

    pub fn hidden_version(self, index: u32) -> bool {
        self.versym(index).is_some_and(|entry| entry & 0x8000 != 0)
    }

    pub fn versym(self, index: u32) -> Option<u16> {
        bytes::u16_at(self.bytes, self.info.dynamic.versym? + 2 * index as usize)
    }
}

/// SHN_ABS: the value is an absolute address.
pub const ABSOLUTE: u16 = 0xfff1;

/// True if other objects may be bound to it.
pub fn is_definition(symbol: &Sym) -> bool {
    let thread_local = symbol.st_info & 0xf == STT_TLS;
    symbol.st_shndx != 0
        && (symbol.st_value != 0 || symbol.st_shndx == ABSOLUTE || thread_local)
        && matches!(symbol.st_info & 0xf, STT_NOTYPE | STT_OBJECT | STT_FUNC | STT_COMMON | STT_TLS | STT_GNU_IFUNC)
        && matches!(symbol.st_info >> 4, STB_GLOBAL | STB_WEAK | STB_GNU_UNIQUE)
        && matches!(symbol.st_other & 3, STV_DEFAULT | STV_PROTECTED)
}

/// True if the process has one definition of it, whatever the scopes (STB_GNU_UNIQUE).
pub fn is_unique(symbol: &Sym) -> bool {
    symbol.st_info >> 4 == STB_GNU_UNIQUE
}

/// True if a reference to it is bound within its own object: it is a local symbol, or one that no
/// other can replace.
pub fn binds_locally(symbol: &Sym) -> bool {
    let defined = symbol.st_shndx != 0;
    symbol.st_info >> 4 == STB_LOCAL
        || matches!(symbol.st_other & 3, STV_HIDDEN | STV_INTERNAL)
        || defined && symbol.st_other & 3 == STV_PROTECTED
}

pub const SIZEOF_SYM: usize = goblin::elf64::sym::SIZEOF_SYM;
