//! The libraries that tests/libraries/real builds for guests are fit to run there, and those of
//! tests/libraries/features are what they are for.

use std::path::Path;
use std::process::Command;

use zooid_loader::{Object, red_zone};

#[test]
fn libraries_for_guests_hold_no_red_zone() {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build/libraries/guest");
    for (folder, library) in
        [("zlib", "libz.so.1"), ("lz4", "liblz4.so.1"), ("brotli", "libbrotli.so.1"), ("sqlite", "libsqlite3.so.0")]
    {
        for file in [library.to_owned(), format!("{folder}_tests.so")] {
            let path = built.join(folder).join(&file);
            let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let object = Object::parse(&bytes).unwrap_or_else(|refusal| panic!("{file}: {refusal}"));
            if let Some(place) = red_zone::find(&object) {
                panic!("{file}: {place}");
            }
        }
    }
}

/// Words that `readelf` prints for at least one object, whichever the compiler.
const EVERYWHERE: [&str; 17] = [
    "(HASH)",
    "(GNU_HASH)",
    "(RELR)",
    "(JMPREL)",
    "Flags: NOW",
    "SYMBOLIC",
    "STATIC_TLS",
    "(INIT_ARRAY)",
    "(FINI_ARRAY)",
    "GNU_RELRO",
    "R_X86_64_64 ",
    "R_X86_64_GLOB_DAT",
    "R_X86_64_JUMP_SLOT",
    "R_X86_64_RELATIVE",
    "R_X86_64_DTPMOD64",
    "R_X86_64_DTPOFF64",
    "R_X86_64_TPOFF64",
];
/// Words that it prints for at least one object from C.
const OF_C: [&str; 8] = [
    "(VERDEF)",
    "(INIT)",
    "(FINI)",
    "NODELETE",
    "PROTECTED",
    // An IFUNC, in an object that names no system's ABI.
    "<OS specific>: 10",
    "R_X86_64_IRELATIV",
    "R_X86_64_SIZE64",
];

#[test]
fn objects_of_the_tests_have_every_feature() {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build/libraries/guest");
    for (compiler, more) in [("gcc", &["R_X86_64_TLSDESC"][..]), ("clang", &[]), ("rust", &[])] {
        let folder = built.join(format!("features_{compiler}"));
        let of_each: Vec<String> = std::fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .filter_map(|file| Some(file.ok()?.path()))
            // C's objects beside rustc's would hide what these lack.
            .filter(|path| compiler != "rust" || path.to_string_lossy().contains("libobject_"))
            .map(|path| {
                let output = Command::new("readelf").args(["-Wdlr", "--dyn-syms"]).arg(&path).output();
                String::from_utf8_lossy(&output.expect("readelf runs").stdout).into_owned()
            })
            .collect();
        let has = |word: &str| of_each.iter().any(|said| said.contains(word));
        let of_c = if compiler == "rust" { &[][..] } else { &OF_C };
        for word in EVERYWHERE.iter().chain(of_c).chain(more) {
            assert!(has(word), "no object of {compiler} has {word}");
        }
        let without = |word: &str, other: &str| of_each.iter().any(|said| said.contains(word) && !said.contains(other));
        assert!(without("(HASH)", "(GNU_HASH)") && without("(GNU_HASH)", "(HASH)"), "{compiler}: one table of names");
        assert!(without("(JMPREL)", "Flags: NOW"), "{compiler}: lazy");
    }
}
