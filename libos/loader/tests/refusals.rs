//! Refusals and their words. No input makes the loader do worse than refuse.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;

use common::file::{DYNAMIC, ELF_HEADER, File, LOAD, PROGRAM_HEADER, RELRO, STACK, TLS};
use common::{Bytes, Object, directory, gcc, provider, read};
use zooid_loader::{Binding, ExportTable, Limits, Namespace, Refusal, SegmentFault, TlsPlace, Value};

/// Records the highest amount of memory that this thread had.
struct Counting;

thread_local! {
    static NOW: Cell<usize> = const { Cell::new(0) };
    static MOST: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: all memory is the system allocator's; the counters allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        NOW.set(NOW.get() + layout.size());
        MOST.set(MOST.get().max(NOW.get()));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        NOW.set(NOW.get().saturating_sub(layout.size()));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

impl File {
    fn refusal(&self) -> String {
        let refusal = Object::parse(self.0.clone()).expect_err("to be refused").to_string();
        assert!(!refusal.contains('\n') && !refusal.is_empty());
        refusal
    }

    /// The refusal by steps after `Object::parse`.
    fn late_refusal(&self) -> String {
        let object = Object::parse(self.0.clone()).unwrap_or_else(|refusal| panic!("{refusal}"));
        let verified = object.verify("it").map_err(|refusal| refusal.to_string());
        let planned = plan(object).map_err(|refusal| refusal.to_string()).expect_err("to be refused");
        if let Err(refusal) = verified {
            assert_eq!(refusal, planned);
        }
        planned
    }
}

/// Links and plans an object by itself; all symbols of the tests' objects are exported.
fn plan(object: Object) -> Result<usize, Refusal> {
    let names = ["twice", "chosen", "guarded", "calls_hidden", "provided_data", "__cxa_finalize", "overridden"];
    let exports = ExportTable::new(names.into_iter().zip(0x5000_0000..), &["libprovider.so", "libc.so.6"]);
    let mut world = Namespace::new(exports);
    let id = world.add("it", object, 0x10_0000_0000, Some(TlsPlace { module: 1, below: None }))?;
    let new = world.link(id, false)?;
    let mut count = 0;
    world.plan(&new, Binding::Now, |_| count += 1)?;
    Ok(count)
}

fn features(directory: &Path, name: &str, arguments: &[&str]) -> File {
    let provider = provider(directory, "provider", &[]);
    let mut all = vec![provider.to_str().expect("a path of ours")];
    all.extend(arguments);
    File(read(&gcc(directory, name, "features.c", &all)))
}

/// An object without thread-local variables of others, so that it can be planned alone.
fn plain(directory: &Path, name: &str, arguments: &[&str]) -> File {
    File(read(&provider(directory, name, arguments)))
}

#[test]
fn headers_that_are_wrong_are_refused_by_name() {
    let file = plain(&directory("headers"), "plain", &[]);
    assert!(Object::parse(file.0.clone()).is_ok());
    for (at, octet, words) in [
        (0, 0, "the magic number is 0x454c46"),
        (4, 1, "the class is 0x1"),
        (5, 2, "the order of octets is 0x2"),
        (7, 9, "the ABI is 0x9"),
        (16, 2, "the type is 0x2"),
        (18, 3, "the machine is 0x3"),
        (20, 2, "the version is 0x2"),
        (54, 57, "the size of a program header is 0x39"),
        (56, 0, "the number of program headers is 0x0"),
    ] {
        let refusal = file.with(at, &[octet]).refusal();
        assert!(refusal.contains(words), "{refusal}");
    }
    assert_eq!(
        file.with_u64(32, u64::MAX).refusal(),
        format!("the file ends within the program headers at offset {:#x}", u64::MAX)
    );
    assert_eq!(File(vec![]).refusal(), "the file ends within the ELF header at offset 0x0");
}

#[test]
fn segments_that_cannot_be_mapped_are_refused() {
    let file = features(&directory("segments"), "segments", &[]);
    let loads = file.headers(LOAD);
    let (first, second, last) = (loads[0], loads[1], loads[3]);
    let stack = file.headers(STACK)[0];
    // p_flags 4, p_offset 8, p_vaddr 16, p_filesz 32, p_memsz 40, p_align 48.
    let cases = [
        (file.with(last + 4, &[7]), SegmentFault::WritableAndExecutable),
        (file.with(first + 4, &[0]), SegmentFault::NoRights),
        (file.with_u64(last + 40, 1 << 40), SegmentFault::TooLarge),
        (file.with_u64(last + 40, u64::MAX), SegmentFault::TooLarge),
        (file.with_u64(last + 16, u64::MAX - 100), SegmentFault::TooLarge),
        (file.with_u64(last + 32, file.u64(last + 40) + 1), SegmentFault::LargerInFile),
        (file.with_u64(last + 8, file.u64(last + 8) + 0x10_0000), SegmentFault::OutOfFile),
        (file.with_u64(last + 8, u64::MAX), SegmentFault::OutOfFile),
        (file.with_u64(last + 16, file.u64(last + 16) + 1), SegmentFault::Misaligned),
        (file.with_u64(last + 48, 0x3000), SegmentFault::Misaligned),
        (file.with_u64(last + 48, 1 << 63), SegmentFault::Misaligned),
        (file.with_u64(second + 16, 0), SegmentFault::Unordered),
        (
            file.with_u64(first + 40, 0x2400).with_u64(second + 8, 0x2800).with_u64(second + 16, 0x2800),
            SegmentFault::Overlapping,
        ),
        (file.with_u64(file.headers(DYNAMIC)[0] + 16, 0x100_0000), SegmentFault::NotLoaded),
        (file.with_u64(file.headers(RELRO)[0] + 16, 0), SegmentFault::NotLoaded),
        (file.with_u64(file.headers(TLS)[0] + 16, 0x100_0000), SegmentFault::NotLoaded),
        (file.with_u64(file.headers(TLS)[0] + 40, u64::MAX), SegmentFault::TooLarge),
        (file.with_u64(file.headers(TLS)[0] + 48, 12), SegmentFault::Misaligned),
    ];
    for (number, (file, expected)) in cases.into_iter().enumerate() {
        match Object::parse(file.0) {
            Err(Refusal::Segment { fault, .. }) => assert_eq!(fault, expected, "case {number}"),
            other => panic!("case {number}: {other:?}"),
        }
    }
    // A page in which GNU_RELRO ends stays writable.
    let (relro, object) = (file.headers(RELRO)[0], |file: &File| Object::parse(file.0.clone()).expect("well formed"));
    let whole = object(&file).relro().expect("ld makes one");
    let shorter = object(&file.with_u64(relro + 40, file.u64(relro + 40) - 8)).relro();
    assert_eq!(shorter.map_or(whole.start, |pages| pages.end) + 0x1000, whole.end);
    assert_eq!(file.with(stack + 4, &[7]).refusal(), "GNU_STACK: it asks for an executable stack");
    let limits = Limits { span: 0x2000, ..Limits::default() };
    assert!(matches!(Object::parse_within(file.0.clone(), &limits), Err(Refusal::Segment { .. })));
    let limits = Limits { needed: 1, ..Limits::default() };
    assert!(matches!(Object::parse_within(file.0.clone(), &limits), Err(Refusal::Dynamic { tag: "DT_NEEDED", .. })));
    let limits = Limits { segments: 3, ..Limits::default() };
    assert!(matches!(Object::parse_within(file.0, &limits), Err(Refusal::Header { .. })));
}

#[test]
fn tables_that_are_elsewhere_are_refused_by_tag() {
    let file = features(&directory("tables"), "tables", &["-Wl,--hash-style=both", "-Wl,-z,pack-relative-relocs"]);
    assert!(Object::parse(file.0.clone()).is_ok());
    const TAGS: [(u64, &str); 16] = [
        (4, "DT_HASH"),
        (5, "DT_STRTAB"),
        (6, "DT_SYMTAB"),
        (7, "DT_RELA"),
        (8, "DT_RELASZ"),
        (9, "DT_RELAENT"),
        (10, "DT_STRSZ"),
        (11, "DT_SYMENT"),
        (14, "DT_SONAME"),
        (20, "DT_PLTREL"),
        (25, "DT_INIT_ARRAY"),
        (27, "DT_INIT_ARRAYSZ"),
        (36, "DT_RELR"),
        (0x6fff_fef5, "DT_GNU_HASH"),
        (0x6fff_fff0, "DT_VERSYM"),
        (0x6fff_fffe, "DT_VERNEED"),
    ];
    for (tag, name) in TAGS {
        let value = file.tag(tag) + 8;
        let refusal = file.with_u64(value, 0x7fff_ffff_ffff_fff1).refusal();
        assert!(refusal.starts_with(name), "{name}: {refusal}");
    }
    // Counts within the tables themselves.
    let (hash, gnu) = (file.u64(file.tag(4) + 8) as usize, file.u64(file.tag(0x6fff_fef5) + 8) as usize);
    for at in [hash, hash + 4, gnu, gnu + 8, gnu + 12] {
        let refusal = file.with(at, &[0xff; 4]).refusal();
        assert!(
            refusal.starts_with(if at < gnu && hash < gnu || at < hash + 8 && at >= hash {
                "DT_HASH"
            } else {
                "DT_GNU_HASH"
            }),
            "{refusal}"
        );
    }
    let refusal = file.with(file.headers(DYNAMIC)[0], &[4]).refusal();
    assert_eq!(refusal, "there is no dynamic section");
}

#[test]
fn what_no_library_may_ask_for_is_refused_by_name() {
    let directory = directory("asks");
    let file = plain(&directory, "asks", &[]);
    let flags = plain(&directory, "nodelete", &["-Wl,-z,nodelete"]);
    let at = flags.tag(0x6fff_fffb) + 8;
    assert!(Object::parse(flags.0.clone()).is_ok_and(|object| object.flags().no_delete));
    assert!(flags.with_u64(at, 0x0800_0000).refusal().contains("DF_1_PIE"));
    assert!(flags.with_u64(at, 0x40).refusal().contains("DF_1_NOOPEN"));

    let texts = ["-Wl,-z,notext", "-fno-pic", "-mcmodel=large", "-Wno-attributes"];
    let texts = gcc(&directory, "texts", "traced.c", &[&texts[..], &["-DNUMBER=1"]].concat());
    assert_eq!(File(read(&texts)).refusal(), "DT_TEXTREL: it relocates text; build it with -fPIC");

    let glob_dat = file.relocation(6);
    let refusal = file.with(glob_dat + 8, &[5]).late_refusal();
    assert!(refusal.contains("R_X86_64_COPY of `"), "{refusal}");
    let refusal = file.with(glob_dat + 8, &[200]).late_refusal();
    assert!(
        refusal.starts_with("it: DT_RELA relocation ") && refusal.ends_with("type 200 is not supported"),
        "{refusal}"
    );
    let refusal = file.with(glob_dat + 12, &[0xff; 4]).late_refusal();
    assert!(refusal.ends_with("there is no symbol 4294967295"), "{refusal}");
    for outside in [0, 0x1000, u64::MAX, u64::MAX - 6, file.u64(file.headers(LOAD)[3] + 16) - 1] {
        let refusal = file.with_u64(glob_dat, outside).late_refusal();
        assert!(refusal.ends_with("not in a writable segment"), "{refusal}");
    }
    // PC32 to an export that is farther than 2 GiB.
    let refusal = file.with(file.relocation(6) + 8, &[2]).late_refusal();
    assert!(refusal.ends_with("the value of type 2 does not fit"), "{refusal}");
}

#[test]
fn distances_are_from_the_place_that_is_relocated() {
    // No linker leaves these to the loader without a complaint, so they replace a GLOB_DAT.
    let file = plain(&directory("distances"), "distances", &[]);
    let place = file.relocation(6);
    for (kind, addend, value) in [
        (2, 0, Value::Half(0x5000)),
        (4, -4, Value::Half(0x4ffc)),
        (24, -0x6000, Value::Word(0xffff_ffff_ffff_f000)),
        (33, 5, Value::Word(5)),
        (32, 5, Value::Half(5)),
    ] {
        let changed = file.with(place + 8, &[kind]).with_u64(place + 16, addend as u64);
        let object = Object::parse(changed.0).unwrap_or_else(|refusal| panic!("{refusal}"));
        let target = file.u64(place);
        let base = 0x20_0000_0000 - (target & !0xfff);
        // The first GLOB_DAT has one of these names.
        let names = ["_ITM_registerTMCloneTable", "_ITM_deregisterTMCloneTable", "__gmon_start__", "__cxa_finalize"];
        let symbols = names.map(|name| (name, base + target + 0x5000));
        let mut world = Namespace::new(ExportTable::new(symbols, &["libc.so.6"]));
        let id = world.add("it", object, base, Some(TlsPlace { module: 1, below: None })).expect("there is room");
        let new = world.link(id, false).expect("nothing is needed");
        let mut found = None;
        let planned = world.plan(&new, Binding::Now, |write| {
            if write.address == base + target {
                found = Some(write.value);
            }
        });
        planned.unwrap_or_else(|refusal| panic!("{refusal}"));
        assert_eq!(found, Some(value), "type {kind}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let directory = directory("missing");
    let provider = provider(&directory, "provider", &[]);
    let user = gcc(&directory, "user", "features.c", &[provider.to_str().expect("a path of ours")]);
    let object = |path: &Path| Object::parse(read(path)).unwrap_or_else(|refusal| panic!("{refusal}"));
    let tls = Some(TlsPlace { module: 1, below: None });
    let world = |libraries: &'static [&'static str]| Namespace::new(ExportTable::new([], libraries));

    let mut alone: Namespace<Bytes, _> = world(&["libc.so.6", "ld-linux-x86-64.so.2"]);
    let id = alone.add("user", object(&user), 0, tls).expect("there is room");
    assert_eq!(alone.missing(id), ["libprovider.so"]);
    let refusal = alone.link(id, false).expect_err("to be refused");
    assert_eq!(refusal.to_string(), "user: needs `libprovider.so`, which is not there");

    // The file exists, but is older than the one that the user was linked with.
    let needs = object(&user);
    assert!(needs.needed_versions().any(|needed| needed == ("libprovider.so", "VERS_2")));
    let without = File(read(&provider));
    let name = without.0.windows(7).position(|name| name == b"VERS_2\0").expect("the name of the version");
    let without = Object::parse(without.with(name, b"VERS_3").0).unwrap_or_else(|refusal| panic!("{refusal}"));
    let mut older: Namespace<Bytes, _> = world(&["libc.so.6", "ld-linux-x86-64.so.2"]);
    let id = older.add("user", needs, 0, tls).expect("there is room");
    older.add("older", without, 0x100_0000, tls).expect("there is room");
    let refusal = older.link(id, false).expect_err("to be refused");
    assert_eq!(refusal.to_string(), "user: needs the version `VERS_2` of libprovider.so");

    // Exports have no versions; a missing symbol is named with its own.
    let mut exported: Namespace<Bytes, _> = world(&["libc.so.6", "libprovider.so", "ld-linux-x86-64.so.2"]);
    let id = exported.add("user", object(&user), 0, tls).expect("there is room");
    let new = exported.link(id, false).expect("all is provided");
    let refusal = exported.plan(&new, Binding::Now, |_| ()).expect_err("to be refused").to_string();
    assert!(
        refusal.starts_with("user: needs the symbol `") && refusal.ends_with("@VERS_1`, which nobody defines"),
        "{refusal}"
    );
}

#[test]
fn an_object_gets_a_place_of_its_own() {
    let directory = directory("places");
    let path = provider(&directory, "place", &[]);
    let object = || Object::parse(read(&path)).unwrap_or_else(|refusal| panic!("{refusal}"));
    let tls = Some(TlsPlace { module: 1, below: None });
    let mut world = Namespace::new(ExportTable::new([], &[]));
    let pages = object().span().end;
    assert!(world.add("a", object(), 0x10_0000, tls).is_ok());
    let refusal = world.add("b", object(), 0x10_0000 + pages - 0x1000, tls).expect_err("taken").to_string();
    assert_eq!(refusal, format!("b: at {:#x} lies a", 0x10_0000 + pages - 0x1000));
    assert_eq!(world.add("b", object(), 0x10_0800, tls).expect_err("odd").to_string(), "b: cannot lie at 0x100800");
    assert!(world.add("b", object(), u64::MAX - 0xfff, tls).is_err());
    let refusal = world.add("b", object(), 0x20_0000, None).expect_err("no module").to_string();
    assert_eq!(refusal, "b: has thread-local variables and got no module number");
    assert!(world.add("b", object(), 0x10_0000 + pages, tls).is_ok());
}

#[test]
fn a_fixed_place_is_refused_when_there_is_none() {
    let directory = directory("fixed");
    let provider = provider(&directory, "provider", &[]);
    let user = gcc(&directory, "user", "features.c", &["-DINITIAL_EXEC", provider.to_str().expect("a path of ours")]);
    let object = |path: &Path| Object::parse(read(path)).unwrap_or_else(|refusal| panic!("{refusal}"));
    for below in [None, Some(0x80)] {
        let mut world =
            Namespace::new(ExportTable::new([("__cxa_finalize", 1)], &["libc.so.6", "ld-linux-x86-64.so.2"]));
        let tls = TlsPlace { module: 1, below };
        assert!(object(&user).flags().static_tls);
        let id = world.add("user", object(&user), 0, Some(tls)).expect("there is room");
        world.add("provider", object(&provider), 0x100_0000, Some(tls)).expect("there is room");
        let new = world.link(id, false).expect("all is there");
        let planned = world.plan(&new, Binding::Now, |_| ());
        // `__tls_get_addr` is looked up later than the fixed place.
        match (below, planned.map_err(|refusal| refusal.to_string())) {
            (None, Err(refusal)) => {
                assert!(refusal.ends_with("the thread-local variables of user have no fixed place"), "{refusal}");
            }
            (Some(_), Err(refusal)) => {
                assert_eq!(refusal, "user: needs the symbol `__tls_get_addr@GLIBC_2.3`, which nobody defines")
            }
            (_, Ok(())) => panic!("nobody defines __tls_get_addr"),
        }
    }
}

/// Runs all operations on a file.
fn exercise(bytes: &[u8]) -> bool {
    MOST.set(NOW.get());
    let before = NOW.get();
    let parsed = zooid_loader::Object::parse(bytes);
    let most = MOST.get() - before;
    assert!(most <= 4096 + 16 * bytes.len(), "{most} octets of memory for {}", bytes.len());
    let Ok(object) = parsed else { return false };
    let _ = (object.soname(), object.build_id(), object.init(), object.fini(), object.plt_got(), object.verify("it"));
    let _ = object.needed().count() + object.versions().count() + object.needed_versions().count();
    let names: Vec<String> = object.symbols().map(|symbol| symbol.name.to_string()).take(50).collect();
    for name in &names {
        let _ = (object.symbol(name, None), object.symbol(name, Some("VERS_1")));
    }
    let exports = ExportTable::new(names.iter().step_by(2).map(|name| (name.as_str(), 0x1000)), &["libprovider.so"]);
    let mut world = Namespace::new(exports);
    let tls = Some(TlsPlace { module: 1, below: object.tls().and_then(|tls| tls.below(64)) });
    let spans: Vec<_> = object.segments().iter().map(|segment| segment.memory.clone()).collect();
    let base = object.align() * 4;
    let Ok(id) = world.add("it", object, base, tls) else { return true };
    world.missing(id);
    if let Ok(new) = world.link(id, true) {
        let _ = world.plan(&new, Binding::Lazy, |write| {
            assert!(spans.iter().any(|span| span.contains(&(write.address - base))));
        });
        let _ = world.bind(id, 0);
    }
    for address in [base, base + 0x1234, base + 0x4000] {
        world.address(address);
    }
    assert!(world.remove(id).is_some());
    true
}

#[test]
fn no_end_of_the_file_is_too_early() {
    let directory = directory("truncated");
    let file = features(&directory, "truncated", &["-s", "-Wl,--hash-style=both", "-Wl,-z,pack-relative-relocs"]);
    let content = file.headers(LOAD).iter().map(|at| file.u64(at + 8) + file.u64(at + 32)).max().expect("segments");
    for length in (0..0x1000).chain((0x1000..content as usize).step_by(61)) {
        assert!(!exercise(&file.0[..length]), "{length} of {content} octets");
    }
    assert!(exercise(&file.0[..content as usize]), "sections are not needed");
}

#[test]
fn chains_that_meet_do_not_multiply() {
    const NEEDS: u32 = 300;
    let directory = directory("chains");
    // Records of DT_VERNEED that share one chain of as many versions.
    let needs = (0..NEEDS).map(|number| format!("{:#x},1,{},16,", 1 | NEEDS << 16, 16 * (NEEDS - number)));
    let versions = (0..NEEDS).map(|_| "0,0x20000,1,16,".to_string());
    let source: String = needs.chain(versions).collect();
    let source = format!("const unsigned table[] = {{{}}};", source.replace(",16,0x", ",16,\n0x"));
    std::fs::write(directory.join("chains.c"), source).expect("writable");
    let mut arguments = vec!["-shared", "-fPIC", "-nostdlib", "-o", "libchains.so", "chains.c"];
    arguments.push("-Wl,--hash-style=both");
    common::run("gcc", &directory, &arguments);
    let file = File(read(&directory.join("libchains.so")));
    let object = Object::parse(file.0.clone()).expect("well formed");
    let table = object.symbol("table", None).expect("defined").address;
    // They replace two tags that are not needed.
    let (first, second) = (file.tag(4), file.tag(11));
    let file = file.with_u64(first, 0x6fff_fffe).with_u64(first + 8, table);
    let file = file.with_u64(second, 0x6fff_ffff).with_u64(second + 8, u64::from(NEEDS));
    assert!(!exercise(&file.0));
    let refusal = file.refusal();
    assert!(refusal.ends_with("more records than there is room for"), "{refusal}");
}

#[test]
fn mutated_files_do_no_harm() {
    let directory = directory("mutated");
    let files = [
        features(&directory, "gnu", &["-s", "-Wl,--hash-style=gnu", "-Wl,-z,pack-relative-relocs"]),
        features(&directory, "sysv", &["-s", "-Wl,--hash-style=sysv", "-mtls-dialect=gnu2"]),
        plain(&directory, "versions", &["-s"]),
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % below
    };
    const INTERESTING: [u64; 10] = [0, 1, 8, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, i64::MAX as u64, u64::MAX];
    let mut accepted = 0;
    for round in 0..30_000 {
        let file = &files[round % files.len()];
        let section = file.u64(file.headers(DYNAMIC)[0] + 8) as usize;
        let mut bytes = file.0.clone();
        for _ in 0..=random(4) {
            // The sensitive parts: headers, tables at the beginning, the dynamic section, or
            // anywhere.
            let at = match random(4) {
                0 => random(ELF_HEADER + 11 * PROGRAM_HEADER),
                1 => random(0x1000),
                2 => section + random(0x200),
                _ => random(bytes.len()),
            };
            let value = match random(3) {
                0 => INTERESTING[random(INTERESTING.len())],
                1 => random(bytes.len()) as u64,
                _ => random(usize::MAX >> 1) as u64,
            };
            let length = [1, 2, 4, 8][random(4)].min(bytes.len() - at);
            bytes[at..at + length].copy_from_slice(&value.to_le_bytes()[..length]);
        }
        accepted += usize::from(exercise(&bytes));
    }
    assert!(accepted > 1000 && accepted < 29_000, "{accepted}: the mutations are neither blind nor deadly");
}
