//! Compiles the C parts of the guests with the system's compiler, as a user would.

use std::env;
use std::path::Path;
use std::process::Command;

/// By guest.
const SOURCES: [(&str, &[&str]); 2] = [
    ("fork_c", &["src/fork_c.c"]),
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

fn main() {
    for folder in ["src", "../posix", "../../libos/c/include"] {
        println!("cargo:rerun-if-changed={folder}");
    }
    let out = env::var("OUT_DIR").expect("cargo sets it");
    for (guest, sources) in SOURCES {
        for source in sources {
            let stem = Path::new(source).file_stem().expect("a file").to_str().expect("plain");
            let object = Path::new(&out).join(format!("{guest}-{stem}.o"));
            let status = Command::new("gcc")
                .args(["-c", "-O2", "-Wall", "-Wextra", "-Werror"])
                .args(["-ffreestanding", "-fno-pic", "-mcmodel=kernel", "-mno-red-zone"])
                .args(["-I../../libos/c/include", source, "-o"])
                .arg(&object)
                .status()
                .expect("gcc runs");
            assert!(status.success(), "gcc compiles {source}");
            println!("cargo:rustc-link-arg-bin={guest}={}", object.display());
        }
    }
}
