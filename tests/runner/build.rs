//! Compiles the rules of POSIX (`tests/posix`) for Linux. Static: dom0 has no C library of the build machine's.

use std::env;
use std::path::Path;
use std::process::Command;

const SOURCES: [&str; 10] =
    ["harness", "linux", "pipes", "signals", "queues", "semaphores", "memory", "objects", "polls", "deaths"];

fn main() {
    println!("cargo:rerun-if-changed=../posix");
    let program = Path::new(&env::var("OUT_DIR").expect("cargo sets it")).join("posix");
    let status = Command::new("gcc")
        .args(["-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o"])
        .arg(&program)
        .args(SOURCES.map(|source| format!("../posix/{source}.c")))
        .status()
        .expect("gcc runs");
    assert!(status.success(), "gcc compiles tests/posix");
}
