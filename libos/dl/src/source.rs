//! Where libraries come from: the archive (tar) that `ramdisk=` of the guest's configuration names.

use tar_no_std::TarArchiveRef;
use zooid_kernel::boot;

/// The file of the library with this name. Of a path, the last part counts.
pub fn find(name: &str) -> Option<&'static [u8]> {
    let archive = TarArchiveRef::new(boot::ramdisk()).ok()?;
    let last = |path: &str| path.rsplit('/').next().map_or_else(Default::default, alloc::string::ToString::to_string);
    let wanted = last(name);
    let mut entries = archive.entries();
    entries.find(|entry| entry.filename().as_str().is_ok_and(|path| last(path) == wanted)).map(|entry| entry.data())
}

/// Runs at boot: a child finds the archive where its parent has found it.
pub fn init() {
    boot::ramdisk();
}
