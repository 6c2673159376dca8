//! Compiles code that runs neither in a guest image nor on the build machine: the rules of POSIX
//! (`tests/posix`) for Linux, and the libraries (`tests/libraries`) that guests load. They are
//! signed with a key that everybody knows.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use zooid_manifest::{Description, SUFFIX, SecretKey, Version};

mod damaged;
#[path = "src/signing.rs"]
mod signing;

const POSIX: [&str; 10] =
    ["harness", "linux", "pipes", "signals", "queues", "semaphores", "memory", "objects", "polls", "deaths"];

/// Sources in `tests/libraries`, with further arguments for their linking. `lib` and `.so` are
/// added to the names. The text behind `@` is the library's version, which is 1.0.0 otherwise.
const LIBRARIES: [(&str, &[&str]); 28] = [
    ("base.c", &[]),
    ("middle.c", &["-lbase", "-Wl,-z,lazy"]),
    ("missing.c", &["-lbase"]),
    ("fixed.c", &[]),
    ("large.c", &["-mtls-dialect=gnu2"]),
    ("text.S", &["-Wl,-z,notext"]),
    ("runtime.c", &["-lc", "-lm", "-Wl,-z,lazy"]),
    ("base.c", &["-o", "liballowed.so"]),
    ("app.c", &["-lc"]),
    ("secret.c", &["-lc"]),
    ("search.c", &["-lc", "-Wno-uninitialized", "-Wno-maybe-uninitialized"]),
    ("redzone.c", &["-mred-zone"]),
    ("bulk.c", &[]),
    ("bulk.c", &["-DVERSION=2", "-o", "libbulk.so@2.0.0"]),
    // The same source again, linked in forbidden ways.
    ("base.c", &["-Wl,-z,execstack", "-o", "libstack.so"]),
    ("base.c", &["-Wl,--hash-style=sysv", "-Wl,-z,pack-relative-relocs", "-o", "libpacked.so"]),
    ("base.c", &["-Wl,--hash-style=both", "-Wl,-z,pack-relative-relocs", "-Wl,--default-symver", "-o", "libwhole.so"]),
    ("live.c", &["-DMIGRATES"]),
    ("live.c", &["-DVERSION=2", "-o", "liblive.so@2.0.0"]),
    ("live.c", &["-DVERSION=3", "-DMISSING", "-o", "liblive.so@3.0.0"]),
    ("live.c", &["-DVERSION=4", "-DSMALLER", "-o", "liblive.so@4.0.0"]),
    ("live.c", &["-DVERSION=5", "-DREFUSES=7", "-o", "liblive.so@5.0.0"]),
    ("live.c", &["-DVERSION=6", "-o", "liblive.so@6.0.0"]),
    ("live.c", &["-DVERSION=7", "-o", "liblive.so@7.0.0"]),
    ("live.c", &["-DVERSION=8", "-o", "liblive.so@8.0.0"]),
    ("user.c", &["-llive"]),
    ("page.c", &["-o", "libpage.so.1"]),
    ("page.c", &["-DVERSION=2", "-o", "libpage.so.1@2.0.0"]),
];

fn main() {
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
    println!("cargo:rerun-if-changed=../posix");
    println!("cargo:rerun-if-changed=../libraries");
    // The program is static, because dom0 does not have the build machine's C library.
    let sources = POSIX.map(|source| format!("../posix/{source}.c"));
    gcc(Path::new("."), |gcc| {
        gcc.args(["-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o"]).arg(out.join("posix")).args(&sources)
    });

    let libraries = out.join("libraries");
    // Files of an earlier build are not packed.
    let _ = fs::remove_dir_all(&libraries);
    fs::create_dir_all(&libraries).expect("OUT_DIR can be written to");
    let folder = fs::canonicalize("../libraries").expect("tests/libraries is there");
    for (source, more) in LIBRARIES {
        let name = more
            .iter()
            .skip_while(|word| **word != "-o")
            .nth(1)
            .map_or_else(|| format!("lib{}.so", source.split('.').next().expect("a name")), |name| (*name).to_owned());
        let soname = format!("-Wl,-soname,{}", name.split('@').next().expect("a name"));
        gcc(&libraries, |gcc| {
            gcc.args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-mno-red-zone", "-nostdlib", "-L."])
                .args(["-o", &name, &soname])
                .arg(folder.join(source))
                .args(more)
        });
    }
    let library = libraries.join("librust_app.so");
    run(Command::new("../../.cargo/rustc-xen")
        .arg(env::var("RUSTC").expect("cargo sets it"))
        .args(["--target", "x86_64-xen-pv-so", "--edition", "2024", "--crate-type", "cdylib", "-Copt-level=2", "-o"])
        .arg(&library)
        .arg("../libraries/rust_app.rs"));
    let key = signing::key();
    for entry in fs::read_dir(&libraries).expect("the libraries are there") {
        sign(&entry.expect("a library").path(), &key, |_| ());
    }
    sign_wrongly(&libraries, &key);
    pack(&libraries);
    damage(&libraries.join("libwhole.so"), &out.join("damaged"), &key);
}

/// Makes `folder.tar` of the files in `folder`.
fn pack(folder: &Path) {
    let names = fs::read_dir(folder).expect("it was made").map(|entry| entry.expect("one").file_name());
    let archive = folder.with_extension("tar");
    run(Command::new("tar").arg("-cf").arg(archive).arg("-C").arg(folder).args(names));
}

/// Makes `folder.tar` of a library, and of damaged and signed copies; `folder.txt` has a line for
/// each, with its name and words of the refusal.
fn damage(library: &Path, folder: &Path, key: &SecretKey) {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).expect("OUT_DIR can be written to");
    let good = fs::read(library).expect("it is built");
    let mut lines = String::new();
    let put = |name: &str, file: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, file).expect("OUT_DIR can be written to");
        sign(&path, key, |_| ());
    };
    put("libwhole.so", &good);
    for (name, refusal, file) in damaged::damaged(&damaged::File(good)) {
        put(name, &file.0);
        lines += &format!("{name}: {refusal}\n");
    }
    fs::write(folder.with_extension("txt"), lines).expect("OUT_DIR can be written to");
    pack(folder);
}

fn gcc(folder: &Path, arguments: impl FnOnce(&mut Command) -> &mut Command) {
    run(arguments(Command::new("gcc").current_dir(folder)));
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "it fails: {command:?}");
}

/// Puts a manifest beside a library.
fn sign(library: &Path, key: &SecretKey, change: impl FnOnce(&mut Description)) {
    let file = fs::read(library).expect("a library");
    let name = library.file_name().and_then(|name| name.to_str()).expect("plain");
    let (library_name, version) = name.split_once('@').unwrap_or((name, "1.0.0"));
    let manifest = signing::manifest(library_name, &file, key, |it| {
        it.version = version.parse().expect("a version");
        change(it);
    });
    fs::write(library.with_file_name(format!("{name}{SUFFIX}")), manifest).expect("OUT_DIR can be written to");
}

/// Makes copies of `libbase.so` with signed manifests. Each copy but `liballowed.so` breaks one
/// rule (tests/guests/src/bin/libraries.rs).
fn sign_wrongly(folder: &Path, key: &SecretKey) {
    let base = fs::read(folder.join("libbase.so")).expect("it is built");
    let copy = |name: &str| {
        let path = folder.join(name);
        fs::write(&path, &base).expect("OUT_DIR can be written to");
        path
    };
    let only = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    sign(&folder.join("liballowed.so"), key, |it| {
        it.images = only(&["httpd", "libraries"]);
        it.families = only(&["library_signed"]);
        it.version = Version::new(1, 2, 3);
    });
    copy("libunsigned.so");
    fs::remove_file(folder.join(format!("liblive.so@6.0.0{SUFFIX}"))).expect("it was there");
    sign(&folder.join("liblive.so@7.0.0"), &SecretKey::from_seed([1; 32]), |_| ());
    sign(&copy("libstranger.so"), &SecretKey::from_seed([1; 32]), |_| ());
    sign(&copy("libold.so"), key, |it| it.version = Version::new(0, 9, 9));
    sign(&copy("libnew.so"), key, |it| it.version = Version::new(2, 0, 0));
    sign(&copy("librevoked.so"), key, |it| it.revoked = true);
    sign(&copy("libelsewhere.so"), key, |it| it.images = only(&["httpd"]));
    sign(&copy("libforeign.so"), key, |it| it.families = only(&["httpd"]));
    sign(&copy("librenamed.so"), key, |it| it.name = "libbase.so".to_owned());

    let mutate = |path: PathBuf, change: &dyn Fn(&mut Vec<u8>)| {
        let mut octets = fs::read(&path).expect("it is there");
        change(&mut octets);
        fs::write(path, octets).expect("OUT_DIR can be written to");
    };
    let manifest = |name: &str| folder.join(format!("{name}{SUFFIX}"));
    for (name, change) in [
        ("libmutated.so", (|file| file[0x1000] ^= 1) as fn(&mut Vec<u8>)),
        ("libshort.so", |file| file.truncate(0x1000)),
        ("liblong.so", |file| file.push(0)),
    ] {
        let path = copy(name);
        sign(&path, key, |_| ());
        mutate(path, &change);
    }
    let line = |text: &mut Vec<u8>, from: &str, to: &str| {
        *text = String::from_utf8_lossy(text).replacen(from, to, 1).into_bytes();
    };
    sign(&copy("libforged.so"), key, |it| it.revoked = true);
    mutate(manifest("libforged.so"), &|text| line(text, "revoked yes", "revoked no"));
    sign(&copy("libmore.so"), key, |_| ());
    mutate(manifest("libmore.so"), &|text| line(text, "signer", "colour red\nsigner"));
}
