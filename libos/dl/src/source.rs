//! Where libraries come from: the archive (tar) that `ramdisk=` of the guest's configuration names.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use spin::Once;
use tar_no_std::TarArchiveRef;
use zooid_kernel::boot;
use zooid_manifest::{Manifest, SUFFIX, Version};

use crate::{program, rules};

type Files = BTreeMap<String, &'static [u8]>;

fn files() -> &'static Files {
    static FILES: Once<Files> = Once::new();
    FILES.call_once(index)
}

/// The file of the library with this name.
pub fn find(name: &str) -> Option<&'static [u8]> {
    files().get(name).copied()
}

/// The manifest of the file that is called so.
pub fn manifest(file: &str) -> Option<&'static [u8]> {
    find(&(file.to_string() + SUFFIX))
}

/// The file and the manifest of a version of a library, or of the newest one: the manifest's word counts, and is not judged here. What is not the
/// first version in an archive is called `NAME@VERSION`.
pub fn find_version(name: &str, version: Option<&Version>) -> Option<(&'static [u8], Option<&'static [u8]>)> {
    let versions = files().keys().filter_map(|file| {
        let (stem, at) = file.split_once('@').map_or((file.as_str(), None), |(stem, version)| (stem, Some(version)));
        if stem != name || file.ends_with(SUFFIX) {
            return None;
        }
        let said = manifest(file).and_then(|text| Manifest::parse(text).ok()).map(|it| it.description.version);
        Some((said.or_else(|| Version::parse(at?).ok())?, file))
    });
    let mut wanted = versions.filter(|(said, _)| version.is_none_or(|version| version == said)).collect::<Vec<_>>();
    wanted.sort();
    let (_, file) = wanted.pop()?;
    Some((find(file)?, manifest(file)))
}

fn index() -> Files {
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
