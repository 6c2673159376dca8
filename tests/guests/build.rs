//! Compiles the C part of the guest `fork_c` with the system's compiler, as a user would.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    let out = Path::new(&env::var("OUT_DIR").expect("cargo sets it")).join("fork_c.o");
    println!("cargo:rerun-if-changed=src/fork_c.c");
    println!("cargo:rerun-if-changed=../../libos/c/include/zooid.h");
    let status = Command::new("gcc")
        .args([
            "-c",
            "-O2",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-ffreestanding",
            "-fno-pic",
            "-mcmodel=kernel",
            "-mno-red-zone",
        ])
        .args(["-I../../libos/c/include", "src/fork_c.c", "-o"])
        .arg(&out)
        .status()
        .expect("gcc runs");
    assert!(status.success(), "gcc compiles src/fork_c.c");
    println!("cargo:rustc-link-arg-bin=fork_c={}", out.display());
}
