//! Where libraries come from: the archive (tar) that `ramdisk=` of the guest's configuration names.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};

use spin::Once;
use tar_no_std::TarArchiveRef;
use zooid_kernel::boot;

use crate::{program, rules};

/// The file of the library with this name.
pub fn find(name: &str) -> Option<&'static [u8]> {
    static FILES: Once<BTreeMap<String, &'static [u8]>> = Once::new();
    FILES.call_once(index).get(name).copied()
}

fn index() -> BTreeMap<String, &'static [u8]> {
    let Ok(archive) = TarArchiveRef::new(boot::ramdisk()) else { return BTreeMap::new() };
    let file = |entry: tar_no_std::ArchiveEntry<'static>| {
        let name = entry.filename();
        let name = name.as_str().ok()?.rsplit('/').next().unwrap_or_default().to_string();
        Some((name, entry.data()))
    };
    archive.entries().filter_map(file).collect()
}

/// Runs at boot: a child finds the archive where its parent has found it.
pub fn init() {
    boot::ramdisk();
    rules::init();
    boot::BEFORE_MAIN.call_once(|| program::start);
}
