//! Xen's C headers, of this machine and of other releases, and programs that print what is in them.
//! The tests of xenctl have this file, too.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The directories of the headers: this machine's, and those of other releases that `make setup` has
/// unpacked below `build/xen-headers`.
pub fn includes() -> Vec<PathBuf> {
    let system = PathBuf::from("/usr/include");
    assert!(system.join("xen/xen.h").exists(), "Xen's C headers are missing: install the package libxen-dev");
    let others = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build/xen-headers");
    let others =
        std::fs::read_dir(others).into_iter().flatten().flatten().map(|entry| entry.path().join("usr/include"));
    std::iter::once(system).chain(others.filter(|include| include.join("xen/xen.h").exists())).collect()
}

/// The output of a C program, compiled with these headers of Xen's and with further arguments. `name`
/// is no other test's.
pub fn output_of(name: &str, program: &str, include: &Path, arguments: &[&str]) -> String {
    let path = |ending: &str| std::env::temp_dir().join(format!("{name}-{}{ending}", std::process::id()));
    let (source, binary) = (path(".c"), path(""));
    std::fs::write(&source, program).unwrap();
    let compiled = Command::new("cc")
        .arg("-isystem")
        .arg(include)
        .arg("-std=gnu11")
        .args(arguments)
        .arg("-o")
        .args([&binary, &source])
        .output()
        .unwrap_or_else(|error| panic!("cannot run `cc` ({error}): install the packages gcc and libc6-dev"));
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let ran = Command::new(&binary).output().unwrap();
    assert!(ran.status.success(), "the C program ended with {}", ran.status);
    [source, binary].into_iter().for_each(|path| std::fs::remove_file(path).unwrap());
    String::from_utf8(ran.stdout).unwrap()
}
