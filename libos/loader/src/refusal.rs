//! Reasons for which an object is not loaded.

use alloc::string::String;
use core::fmt;

use crate::relocation::Table;

/// The reason for which an object is refused; `Display` is one line with the reason and the place.
/// Unless a variant says otherwise, the file is to blame.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The file ends too early.
    Truncated {
        /// The part that it ends in.
        what: &'static str,
        /// In octets from the begin of the file.
        offset: u64,
    },
    /// A field of the ELF header has a value that no x86-64 shared object of ours has.
    Header {
        /// Its name, as in `Elf64_Ehdr`.
        field: &'static str,
        /// The value found there.
        value: u64,
    },
    /// The segment of this program header cannot be mapped as it asks.
    Segment {
        /// The number of the program header, from 0.
        number: usize,
        /// The address that it asks for, relative to the base.
        address: u64,
        /// The fault.
        fault: SegmentFault,
    },
    /// The stack would have to be executable.
    ExecutableStack,
    /// A part that every shared object has is missing.
    Without(&'static str),
    /// A dynamic tag has an impossible value, or points to impossible data.
    Dynamic {
        /// Its name, as in `DT_...`.
        tag: &'static str,
        /// The value found there.
        value: u64,
        /// The fault.
        why: &'static str,
    },
    /// DT_TEXTREL: relocations of pages that are not writable.
    TextRelocations,
    /// R_X86_64_COPY, which only an executable may hold.
    CopyRelocation {
        /// The relocation.
        place: Place,
        /// The name of the symbol.
        symbol: String,
    },
    /// A type of relocation that no shared object holds, or that is not supported.
    UnknownRelocation {
        /// The relocation.
        place: Place,
        /// Its type, `R_X86_64_...`.
        kind: u32,
    },
    /// The word to be relocated is not in a writable segment of the object.
    NotWritable {
        /// The relocation.
        place: Place,
    },
    /// The value does not fit into 32 bits at this base address.
    OutOfRange {
        /// The relocation.
        place: Place,
        /// Its type, `R_X86_64_...`.
        kind: u32,
    },
    /// The relocation names a symbol that the table does not have.
    NoSuchIndex {
        /// The relocation.
        place: Place,
        /// The number that it names.
        symbol: u32,
    },
    /// A thread-local relocation of a symbol that is not thread-local, or the reverse.
    WrongKind {
        /// The relocation.
        place: Place,
        /// The name of the symbol.
        symbol: String,
    },
    /// The object needs its variable at a fixed distance from the thread pointer, and the loader
    /// has no room for it.
    StaticTls {
        /// The relocation.
        place: Place,
        /// The object that defines it.
        provider: String,
    },
    /// A symbol without a definition.
    MissingSymbol {
        /// The object that refers to it.
        object: String,
        /// The name of the symbol.
        symbol: String,
        /// The version that is wanted, if any.
        version: Option<String>,
    },
    /// The library is present, but does not define this version.
    MissingVersion {
        /// The object that refers to it.
        object: String,
        /// The version that is wanted.
        version: String,
        /// The library that is there.
        provider: String,
    },
    /// A library that was not added. The loader is to blame, or the library does not exist.
    MissingObject {
        /// The object that needs it.
        object: String,
        /// The library's name.
        needed: String,
    },
    /// The base address is not a multiple of the object's alignment, or not in the address space.
    /// The loader is to blame.
    Base {
        /// The object that is refused.
        object: String,
        /// The address that was given.
        base: u64,
    },
    /// The object would overlap another one. The loader is to blame.
    Occupied {
        /// The object that is refused.
        object: String,
        /// The address that was given.
        base: u64,
        /// The one that is there.
        other: String,
    },
    /// The object has thread-local variables, but no module number came with it. The loader is to
    /// blame.
    NoModule {
        /// The object that is refused.
        object: String,
    },
    /// The new version of a library does not fit the users of the old one.
    Mismatch {
        /// The name of the symbol.
        symbol: String,
        /// The fault.
        mismatch: Mismatch,
    },
    /// More functions of a replaceable library are used than it can have entries. The loader's
    /// limit is to blame.
    Entries {
        /// The library.
        object: String,
        /// The number that it can have.
        room: usize,
    },
    /// There is no such object, or no longer. The caller is to blame.
    Stale,
}

/// The fault of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentFault {
    /// Its content does not lie wholly in the file.
    OutOfFile,
    /// It has more content than memory.
    LargerInFile,
    /// It begins below the end of the segment before.
    Unordered,
    /// It shares a page with the segment before.
    Overlapping,
    /// Its address and file offset differ within a page, or its alignment is no power of two.
    Misaligned,
    /// It ends beyond the address space, or is larger than the loader's limit.
    TooLarge,
    /// It is writable and executable.
    WritableAndExecutable,
    /// It has no rights.
    NoRights,
    /// It lies outside the segments that are loaded (GNU_RELRO: outside a writable one).
    NotLoaded,
}

/// The fault of a new version of a library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// The symbol is missing.
    Missing,
    /// A function was a variable, or the reverse.
    OtherKind,
    /// A variable is smaller than it was.
    Smaller,
    /// Other objects use a thread-local variable, which every thread has already.
    ThreadLocal,
}

/// The place of a relocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The object's name.
    pub object: String,
    /// The table of the object.
    pub table: Table,
    /// Its number in the table, from 0; for DT_RELR the number of the word that encodes it.
    pub number: usize,
    /// The address that it relocates, relative to the base.
    pub target: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} relocation {} at {:#x}", self.object, self.table, self.number, self.target)
    }
}

impl fmt::Display for SegmentFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutOfFile => "its content is not all in the file",
            Self::LargerInFile => "it has more content than memory",
            Self::Unordered => "it begins below the end of the one before",
            Self::Overlapping => "it shares a page with the one before",
            Self::Misaligned => "its alignment cannot be had",
            Self::TooLarge => "it is too large",
            Self::WritableAndExecutable => "it is writable and executable",
            Self::NoRights => "it has no rights at all",
            Self::NotLoaded => "it lies outside of what is loaded",
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { what, offset } => write!(f, "the file ends within the {what} at offset {offset:#x}"),
            Self::Header { field, value } => {
                write!(f, "ELF header: {field} is {value:#x}: this is no shared object for x86-64")
            }
            Self::Segment { number, address, fault } => {
                write!(f, "program header {number}, address {address:#x}: {fault}")
            }
            Self::ExecutableStack => f.write_str("GNU_STACK: it asks for an executable stack"),
            Self::Without(what) => write!(f, "there is no {what}"),
            Self::Dynamic { tag, value, why } => write!(f, "{tag} is {value:#x}: {why}"),
            Self::TextRelocations => f.write_str("DT_TEXTREL: it relocates text; build it with -fPIC"),
            Self::CopyRelocation { place, symbol } => write!(f, "{place}: R_X86_64_COPY of `{}`", clean(symbol)),
            Self::UnknownRelocation { place, kind } => write!(f, "{place}: type {kind} is not supported"),
            Self::NotWritable { place } => write!(f, "{place}: not in a writable segment"),
            Self::OutOfRange { place, kind } => write!(f, "{place}: the value of type {kind} does not fit"),
            Self::NoSuchIndex { place, symbol } => write!(f, "{place}: there is no symbol {symbol}"),
            Self::WrongKind { place, symbol } => {
                write!(f, "{place}: `{}` is thread-local, or the relocation is, but not both", clean(symbol))
            }
            Self::StaticTls { place, provider } => {
                write!(f, "{place}: the thread-local variables of {provider} have no fixed place")
            }
            Self::MissingSymbol { object, symbol, version } => {
                write!(f, "{object}: needs the symbol `{}", clean(symbol))?;
                if let Some(version) = version {
                    write!(f, "@{}", clean(version))?;
                }
                f.write_str("`, which nobody defines")
            }
            Self::MissingVersion { object, version, provider } => {
                write!(f, "{object}: needs the version `{}` of {}", clean(version), clean(provider))
            }
            Self::MissingObject { object, needed } => {
                write!(f, "{object}: needs `{}`, which is not there", clean(needed))
            }
            Self::Base { object, base } => write!(f, "{object}: cannot lie at {base:#x}"),
            Self::Occupied { object, base, other } => write!(f, "{object}: at {base:#x} lies {other}"),
            Self::NoModule { object } => write!(f, "{object}: has thread-local variables and got no module number"),
            Self::Mismatch { symbol, mismatch } => {
                let symbol = clean(symbol);
                match mismatch {
                    Mismatch::Missing => write!(f, "missing symbol `{symbol}`"),
                    Mismatch::OtherKind => write!(f, "the symbol `{symbol}` is of another kind than it was"),
                    Mismatch::Smaller => write!(f, "the variable `{symbol}` is smaller than it was"),
                    Mismatch::ThreadLocal => write!(f, "others use the thread-local variable `{symbol}`"),
                }
            }
            Self::Entries { object, room } => write!(f, "{object}: more than {room} of its functions are used"),
            Self::Stale => f.write_str("there is no such object"),
        }
    }
}

impl core::error::Error for Refusal {}

/// A name from a file, which may hold any octets, escaped so that a line stays a line.
fn clean(name: &str) -> core::str::EscapeDebug<'_> {
    name.escape_debug()
}
