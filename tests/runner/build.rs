//! Compiles what runs neither in a guest image nor on the build machine: the rules of POSIX (`tests/posix`) for Linux, and the libraries (`tests/libraries`) that
//! guests load.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const POSIX: [&str; 10] =
    ["harness", "linux", "pipes", "signals", "queues", "semaphores", "memory", "objects", "polls", "deaths"];

/// Sources in `tests/libraries`, and what their linking needs besides. `lib` and `.so` are added to the names.
const LIBRARIES: [(&str, &[&str]); 9] = [
    ("base.c", &[]),
    ("middle.c", &["-lbase", "-Wl,-z,lazy"]),
    ("missing.c", &["-lbase"]),
    ("fixed.c", &[]),
    ("large.c", &["-mtls-dialect=gnu2"]),
    ("text.S", &["-Wl,-z,notext"]),
    ("runtime.c", &["-lc", "-lm", "-Wl,-z,lazy"]),
    // The same again, as it must not be.
    ("base.c", &["-Wl,-z,execstack", "-o", "libstack.so"]),
    ("base.c", &["-Wl,--hash-style=sysv", "-Wl,-z,pack-relative-relocs", "-o", "libpacked.so"]),
];

fn main() {
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
    println!("cargo:rerun-if-changed=../posix");
    println!("cargo:rerun-if-changed=../libraries");
    // Static: dom0 has no C library of the build machine's.
    let sources = POSIX.map(|source| format!("../posix/{source}.c"));
    gcc(Path::new("."), |gcc| {
        gcc.args(["-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o"]).arg(out.join("posix")).args(&sources)
    });

    let libraries = out.join("libraries");
    std::fs::create_dir_all(&libraries).expect("OUT_DIR can be written to");
    let folder = std::fs::canonicalize("../libraries").expect("tests/libraries is there");
    for (source, more) in LIBRARIES {
        let name = more
            .iter()
            .skip_while(|word| **word != "-o")
            .nth(1)
            .map_or_else(|| format!("lib{}.so", source.split('.').next().expect("a name")), |name| (*name).to_owned());
        let soname = format!("-Wl,-soname,{name}");
        gcc(&libraries, |gcc| {
            gcc.args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-mno-red-zone", "-nostdlib", "-L."])
                .args(["-o", &name, &soname])
                .arg(folder.join(source))
                .args(more)
        });
    }
    let archive = out.join("libraries.tar");
    let status = Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&libraries).arg(".").status();
    assert!(status.expect("tar runs").success(), "tar packs the libraries");
}

fn gcc(folder: &Path, arguments: impl FnOnce(&mut Command) -> &mut Command) {
    let mut command = Command::new("gcc");
    let command = arguments(command.current_dir(folder));
    let status = command.status().expect("gcc runs");
    assert!(status.success(), "gcc fails: {command:?}");
}
