//! Common parts of several unit tests.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use xenctl::CreateDomain;

/// A domain of the fake Xen.
pub fn small_domain(handle: [u8; 16]) -> CreateDomain {
    CreateDomain {
        flags: 0,
        max_vcpus: 1,
        max_evtchn_port: 1023,
        max_grant_frames: 4,
        max_maptrack_frames: 0,
        handle,
        cpupool: 0,
    }
}

/// A directory that is removed with the value.
pub struct TemporaryDirectory(PathBuf);

impl TemporaryDirectory {
    /// A new directory, with `name` in its path.
    pub fn new(name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("pvm-test-{}-{number}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
