//! The layout of the project's files.

use std::path::{Path, PathBuf};

/// The top of the project.
pub fn top() -> PathBuf {
    let mut top = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    top.pop();
    top.pop();
    top
}

/// The folder that `tests/dom0/setup` made: hypervisor, dom0's kernel and image.
pub fn machine() -> PathBuf {
    top().join("build/dom0")
}

/// The part of dom0's side that travels with every run.
pub fn payload() -> PathBuf {
    top().join("tests/dom0/payload")
}

/// The register of boot tests and their scripts.
pub fn boot_tests() -> PathBuf {
    top().join("tests/boot")
}

/// The default folder for the results of runs.
pub fn results() -> PathBuf {
    top().join("target/dom0/out")
}

/// Fails, with advice, when set-up has not run.
pub fn check_machine() -> anyhow::Result<()> {
    for name in ["xen", "vmlinuz", "initramfs.cpio"] {
        let file = machine().join(name);
        if !file.exists() {
            anyhow::bail!("build/dom0/{name} is missing: run 'make setup' first");
        }
    }
    Ok(())
}

/// `path` as QEMU's option parser wants it: a comma is written twice.
pub fn for_qemu(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}
