//! The origin of libraries: the archive (tar) that `ramdisk=` of the guest's configuration names,
//! and then the host's store, whose files pvmd maps here. Pages of the store belong to dom0's
//! domain for libraries. No guest can write them, so the checked octets are the mapped ones.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::ops::Range;

use spin::Once;
use tar_no_std::TarArchiveRef;
use xen_abi::{Errno, PAGE_SIZE};
use zooid_fork::libraries::{self, Opened};
use zooid_kernel::boot;
use zooid_kernel::mmu::libraries::Library;
use zooid_loader::{Rights, Segment};
use zooid_manifest::{Manifest, SUFFIX, Version, is_name};

use crate::{Error, program, rules};

/// The file of a library, with its manifest.
#[derive(Clone)]
pub enum File {
    Archive {
        octets: &'static [u8],
        manifest: Option<&'static [u8]>,
    },
    /// A file of the store, mapped as long as a value exists.
    Store(Arc<Stored>),
}

/// A file of the host's store, mapped to be read.
pub struct Stored {
    library: Opened,
    pages: Library,
}

/// The library of this name in the archive; else that of the store, in the highest version whose
/// rules hold.
pub fn find(name: &str) -> Result<File, Error> {
    in_archive(name).map_or_else(|| in_store(name, None), Ok)
}

/// A version of a library, or the newest one. The version is that of the manifest, which is not
/// checked here. In an archive, a further version of a library is named `NAME@VERSION`.
pub fn find_version(name: &str, version: Option<&Version>) -> Result<File, Error> {
    let versions = files().keys().filter_map(|file| {
        let (stem, at) = file.split_once('@').map_or((file.as_str(), None), |(stem, version)| (stem, Some(version)));
        if stem != name || file.ends_with(SUFFIX) {
            return None;
        }
        let found = in_archive(file)?;
        let said = found.manifest().and_then(|text| Manifest::parse(text).ok()).map(|it| it.description.version);
        Some((said.or_else(|| Version::parse(at?).ok())?, found))
    });
    let wanted = versions.filter(|(said, _)| version.is_none_or(|version| version == said));
    match wanted.max_by(|(one, _), (other, _)| one.cmp(other)) {
        Some((_, file)) => Ok(file),
        None => in_store(name, version),
    }
}

fn in_archive(file: &str) -> Option<File> {
    let octets = files().get(file).copied()?;
    Some(File::Archive { octets, manifest: files().get(&(String::from(file) + SUFFIX)).copied() })
}

fn files() -> &'static BTreeMap<String, &'static [u8]> {
    static FILES: Once<BTreeMap<String, &'static [u8]>> = Once::new();
    FILES.call_once(index)
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

/// Attempts to open a library that pvmd forgets in between.
const TRIES: usize = 3;

fn in_store(name: &str, version: Option<&Version>) -> Result<File, Error> {
    let missing = || Error::NotFound(name.to_string());
    if !is_name(name) {
        return Err(missing());
    }
    let wanted = rules::wanted(name, version);
    for _ in 0..TRIES {
        let opened = libraries::open(&wanted, rules::is_user_mode());
        let is_open = opened.is_ok();
        return match opened.and_then(Stored::map) {
            Ok(stored) => Ok(File::Store(Arc::new(stored))),
            Err(Errno::ENOENT) if is_open => continue,
            Err(Errno::EACCES) => Err(Error::Withheld(name.to_string())),
            Err(Errno::ENOMEM | Errno::ENOSPC) => Err(Error::OutOfMemory),
            Err(error) => {
                log::debug!("{name}: pvmd has none: {error}");
                Err(missing())
            }
        };
    }
    Err(missing())
}

impl Stored {
    fn map(library: Opened) -> Result<Self, Errno> {
        let mut pages = Library::new(library.pages).map_err(|_| Errno::ENOMEM)?;
        pages.share(0..library.pages, |address, count, page| libraries::map(library, page, address, count, false))?;
        Ok(Self { library, pages })
    }

    fn octets(&self, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.library.pages * PAGE_SIZE, "octets of the library");
        // SAFETY: these pages are mapped as long as this value lives, and are never written.
        unsafe { core::slice::from_raw_parts((self.pages.start() + range.start) as *const u8, range.len()) }
    }
}

impl File {
    /// Its manifest.
    pub fn manifest(&self) -> Option<&[u8]> {
        match self {
            Self::Archive { manifest, .. } => *manifest,
            Self::Store(stored) => {
                let start = stored.library.size.next_multiple_of(PAGE_SIZE);
                Some(stored.octets(start..start + stored.library.manifest_size))
            }
        }
    }

    /// True if it is the same file, octet by octet, as far as can be known without reading it.
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Archive { octets, manifest }, Self::Archive { octets: others, manifest: of_other }) => {
                core::ptr::eq(*octets, *others) && manifest.map(<[u8]>::as_ptr) == of_other.map(<[u8]>::as_ptr)
            }
            // As long as frames are mapped here, they belong to no other file.
            (Self::Store(stored), Self::Store(other)) => {
                let layout = |stored: &Stored| (stored.library.size, stored.library.manifest_size);
                layout(stored) == layout(other) && stored.pages.frames().eq(other.pages.frames())
            }
            _ => false,
        }
    }

    /// Maps a read-only segment from the store's own pages, without a copy. Returns false, with
    /// nothing mapped, if that is not possible. Its pages hold the file's octets around the
    /// content.
    pub fn share(&self, segment: &Segment, to: &mut Library, pages: Range<usize>) -> bool {
        let Self::Store(stored) = self else { return false };
        let execute = match segment.rights {
            Rights::ReadExecute => true,
            Rights::Read => false,
            Rights::ReadWrite => return false,
        };
        let begins_alike = segment.memory.start as usize % PAGE_SIZE == segment.file.start % PAGE_SIZE;
        if !begins_alike || segment.memory.end - segment.memory.start != segment.file.len() as u64 {
            return false;
        }
        let first = segment.file.start / PAGE_SIZE;
        let shared = to
            .share(pages, |address, count, page| libraries::map(stored.library, first + page, address, count, execute));
        // The file may have left the store meanwhile; then the checked copy is used.
        shared.is_ok()
    }
}

impl AsRef<[u8]> for File {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Archive { octets, .. } => octets,
            Self::Store(stored) => stored.octets(0..stored.library.size),
        }
    }
}

/// Runs at boot. A child finds the archive at the address where its parent found it.
pub fn init() {
    boot::ramdisk();
    rules::init();
    boot::BEFORE_MAIN.call_once(|| program::start);
}
