//! Compiles the C parts of the guests with the system's compiler, as a user would.

use std::env;
use std::path::Path;
use std::process::Command;

/// Sources of each guest.
const SOURCES: [(&str, &[&str]); 3] = [
    ("fork_c", &["src/fork_c.c"]),
    ("needed", &["src/needed.c"]),
    (
        "posix",
        &[
            "../posix/guest.c",
            "../posix/harness.c",
            "../posix/pipes.c",
            "../posix/signals.c",
            "../posix/queues.c",
            "../posix/semaphores.c",
            "../posix/memory.c",
            "../posix/objects.c",
            "../posix/polls.c",
            "../posix/deaths.c",
        ],
    ),
];

/// Shared objects of tests/libraries, by guest that is linked with them; each may need those before
/// it.
const LIBRARIES: [(&str, &[&str]); 1] = [("needed", &["base", "middle"])];

fn main() {
    // Without the guests' own sources: every image would be linked anew for a change in one.
    for folder in ["../posix", "../libraries/libraries.h", "../../libos/c/include"] {
        println!("cargo:rerun-if-changed={folder}");
    }
    let out = env::var("OUT_DIR").expect("cargo sets it");
    for (guest, sources) in SOURCES {
        for source in sources {
            println!("cargo:rerun-if-changed={source}");
            let stem = Path::new(source).file_stem().expect("a file").to_str().expect("plain");
            let object = Path::new(&out).join(format!("{guest}-{stem}.o"));
            // Code of a shared object has no fixed address yet.
            let model: &[&str] = match LIBRARIES.iter().any(|(other, _)| *other == guest) {
                true => &["-fPIC"],
                false => &["-fno-pic", "-mcmodel=kernel"],
            };
            gcc(&object, model, &["-c", "-ffreestanding", "-mno-red-zone", "-I../../libos/c/include", source]);
            println!("cargo:rustc-link-arg-bin={guest}={}", object.display());
        }
    }
    for (guest, libraries) in LIBRARIES {
        println!("cargo:rustc-link-arg-bin={guest}=-Bdynamic");
        for library in libraries {
            let name = format!("lib{library}.so");
            let (soname, folder) = (format!("-Wl,-soname,{name}"), format!("-L{out}"));
            let source = format!("../libraries/{library}.c");
            println!("cargo:rerun-if-changed={source}");
            let object = Path::new(&out).join(name);
            let needed: &[&str] = if *library == "base" { &[] } else { &["-lbase"] };
            gcc(&object, needed, &["-shared", "-fPIC", "-nostdlib", "-mno-red-zone", &folder, &soname, &source]);
            println!("cargo:rustc-link-arg-bin={guest}={}", object.display());
        }
    }
}

fn gcc(output: &Path, last: &[&str], arguments: &[&str]) {
    let mut command = Command::new("gcc");
    command.args(["-O2", "-Wall", "-Wextra", "-Werror", "-o"]).arg(output).args(arguments).args(last);
    let status = command.status().expect("gcc runs");
    assert!(status.success(), "gcc fails: {command:?}");
}
