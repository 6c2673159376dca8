//! A library that is damaged in all ways that loaders have fallen for, with the refusal of each.
//! The copies are properly signed, so that nothing else keeps them out.

#[path = "../../libos/loader/tests/common/file.rs"]
mod file;

pub use file::File;
use file::{DYNAMIC, LOAD, RELRO, STACK, TLS};

/// The offset of a field in a program header.
const FLAGS: usize = 4;
const OFFSET: usize = 8;
const ADDRESS: usize = 16;
const FILE_SIZE: usize = 32;
const MEMORY_SIZE: usize = 40;
const ALIGNMENT: usize = 48;

/// Tags of the dynamic section.
const HASH: u64 = 4;
const STRTAB: u64 = 5;
const SYMTAB: u64 = 6;
const RELA: u64 = 7;
const RELASZ: u64 = 8;
const STRSZ: u64 = 10;
const INIT_ARRAY: u64 = 25;
const INIT_ARRAYSZ: u64 = 27;
const RELR: u64 = 36;
const GNU_HASH: u64 = 0x6fff_fef5;
const VERSYM: u64 = 0x6fff_fff0;
const VERDEF: u64 = 0x6fff_fffc;
const OF_NOBODY: u64 = 0x7000_0000;

/// Types of relocations.
const COPY: u8 = 5;
const GLOB_DAT: u32 = 6;

/// Damaged copies of a library with hash tables of both kinds, RELR and versions: names, words of
/// the refusal, and the files.
pub fn damaged(good: &File) -> Vec<(&'static str, &'static str, File)> {
    let loads = good.headers(LOAD);
    let (text, last) = (loads[1], loads[3]);
    let header = |kind| good.headers(kind)[0];
    let cut = |length: usize| File(good.0[..length].to_vec());
    let moved = |tag| good.with_u64(good.tag(tag) + 8, 0x7fff_ffff_ffff_fff1);
    let table = |tag| good.u64(good.tag(tag) + 8) as usize;
    let reference = good.relocation(GLOB_DAT);
    let (hash, gnu_hash) = (table(HASH), table(GNU_HASH));
    let dynamic = good.u64(header(DYNAMIC) + OFFSET) as usize;
    // Each symbol is followed by itself where others have the same bucket.
    let buckets = good.u32(hash) as usize;
    let chains = hash + 8 + 4 * buckets;
    let cycles = (0..good.u32(hash + 4))
        .fold(good.clone(), |file, symbol| file.with(chains + 4 * symbol as usize, &symbol.to_le_bytes()));
    vec![
        ("empty", "the file ends within the ELF header", cut(0)),
        ("magic", "ELF header: the magic number is", good.with(0, &[0])),
        ("class", "ELF header: the class is", good.with(4, &[1])),
        ("machine", "ELF header: the machine is", good.with(18, &[3])),
        ("program", "ELF header: the type is", good.with(16, &[2])),
        ("head", "the file ends within the ELF header", cut(63)),
        ("headers", "its content is not all in the file", cut(200)),
        ("half", "its content is not all in the file", cut(0x1800)),
        ("data", "its content is not all in the file", cut(dynamic + 64)),
        ("many", "the number of program headers is 0xffff", good.with(56, &[0xff, 0xff])),
        ("far", "the file ends within the program headers", good.with_u64(32, u64::MAX)),
        ("huge", "it is too large", good.with_u64(last + MEMORY_SIZE, 1 << 40)),
        ("wraps", "it is too large", good.with_u64(last + ADDRESS, u64::MAX - 100)),
        (
            "larger",
            "it has more content than memory",
            good.with_u64(last + FILE_SIZE, good.u64(last + MEMORY_SIZE) + 1),
        ),
        (
            "outside",
            "its content is not all in the file",
            good.with_u64(last + OFFSET, good.u64(last + OFFSET) + 0x10_0000),
        ),
        ("odd", "its alignment cannot be had", good.with_u64(last + ALIGNMENT, 0x3000)),
        ("order", "it begins below the end of the one before", good.with_u64(text + ADDRESS, 0)),
        (
            "overlap",
            "it shares a page with the one before",
            good.with_u64(loads[0] + MEMORY_SIZE, 0x1400)
                .with_u64(text + OFFSET, 0x1800)
                .with_u64(text + ADDRESS, 0x1800),
        ),
        ("writable", "it is writable and executable", good.with(text + FLAGS, &[7])),
        ("stack", "it asks for an executable stack", good.with(header(STACK) + FLAGS, &[7])),
        ("relro", "it lies outside of what is loaded", good.with_u64(header(RELRO) + ADDRESS, 0)),
        ("tls", "it lies outside of what is loaded", good.with_u64(header(TLS) + ADDRESS, 0x100_0000)),
        ("tls-huge", "it is too large", good.with_u64(header(TLS) + MEMORY_SIZE, u64::MAX)),
        ("no-tables", "there is no dynamic section", good.with(header(DYNAMIC), &[4])),
        ("endless", "it lies outside of what is loaded", good.with_u64(header(DYNAMIC) + FILE_SIZE, 1 << 40)),
        ("strings", "DT_STRTAB is", moved(STRTAB)),
        ("string-end", "DT_STRSZ is 0x3: the last string has no end", good.with_u64(good.tag(STRSZ) + 8, 3)),
        ("symbols", "DT_SYMTAB is", moved(SYMTAB)),
        ("rela", "DT_RELA is", moved(RELA)),
        ("rela-size", "DT_RELASZ is 0x77: not a whole number of entries", good.with_u64(good.tag(RELASZ) + 8, 119)),
        ("relr", "DT_RELR is", moved(RELR)),
        ("init", "DT_INIT_ARRAY", moved(INIT_ARRAY)),
        ("init-size", "DT_INIT_ARRAYSZ is", moved(INIT_ARRAYSZ)),
        ("hash", "DT_HASH is 0xffffffff: more symbols than the file has", good.with(hash + 4, &[0xff; 4])),
        ("gnu-hash", "DT_GNU_HASH is 0xffffffff: more buckets than", good.with(gnu_hash, &[0xff; 4])),
        ("cycle", "`, which nobody defines", cycles.with_u64(good.tag(GNU_HASH), OF_NOBODY)),
        ("versym", "DT_VERSYM is", moved(VERSYM)),
        ("verdef", "DT_VERDEF is", moved(VERDEF)),
        ("versions", "a record ends outside of its segment's content", good.with(table(VERDEF) + 16, &[0xff; 4])),
        ("copy", "R_X86_64_COPY of `base_numbers`", good.with(reference + 8, &[COPY])),
        ("unknown", "type 200 is not supported", good.with(reference + 8, &[200])),
        ("index", "there is no symbol 4294967295", good.with(reference + 12, &[0xff; 4])),
        ("into-text", "not in a writable segment", good.with_u64(reference, 0x1000)),
        ("nowhere", "not in a writable segment", good.with_u64(reference, u64::MAX - 6)),
    ]
}
