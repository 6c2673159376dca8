//! Where libraries come from: the archive (tar) that `ramdisk=` of the guest's configuration names, and then the host's store, whose files pvmd
//! maps here. Pages of the store belong to dom0's domain for libraries: nobody here can write them, and what is judged is what is mapped.

use alloc::collections::BTreeMap;
use alloc::format;
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

use crate::{Error, rules};

/// The file of a library, and what is said of it.
#[derive(Clone)]
pub enum File {
    Archive {
        octets: &'static [u8],
        manifest: Option<&'static [u8]>,
    },
    /// It is mapped as long as there is a value.
    Store(Arc<Stored>),
}

/// A file of the host's store, mapped to be read.
pub struct Stored {
    library: Opened,
    pages: Library,
}

/// The library with this name, in the highest version whose rules hold.
pub fn find(name: &str) -> Result<File, Error> {
    find_version(name, None)
}

/// A library, in this version if one is named. The archive may have versions beside that of the plain name under `NAME@VERSION`.
pub fn find_version(name: &str, version: Option<&Version>) -> Result<File, Error> {
    in_archive(name, version).map_or_else(|| in_store(name, version), Ok)
}

fn in_archive(name: &str, version: Option<&Version>) -> Option<File> {
    static FILES: Once<BTreeMap<String, &'static [u8]>> = Once::new();
    let files = FILES.call_once(index);
    let file = |name: &str| {
        let octets = files.get(name).copied()?;
        Some(File::Archive { octets, manifest: files.get(&(String::from(name) + SUFFIX)).copied() })
    };
    let Some(version) = version else { return file(name) };
    let is_it = |file: &File| {
        let manifest = file.manifest().and_then(|octets| Manifest::parse(octets).ok());
        manifest.is_some_and(|manifest| manifest.description.version == *version)
    };
    file(&format!("{name}@{version}")).or_else(|| file(name).filter(is_it))
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

/// How often a library is opened anew that pvmd has forgotten meanwhile.
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
        pages.share(0..library.pages, |table, entries, page| libraries::map(library, page, table, entries, false))?;
        Ok(Self { library, pages })
    }

    fn octets(&self, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.library.pages * PAGE_SIZE, "octets of the library");
        // SAFETY: these pages are mapped as long as this value lives, and nobody ever writes them.
        unsafe { core::slice::from_raw_parts((self.pages.start() + range.start) as *const u8, range.len()) }
    }
}

impl File {
    /// What is said of it.
    pub fn manifest(&self) -> Option<&[u8]> {
        match self {
            Self::Archive { manifest, .. } => *manifest,
            Self::Store(stored) => {
                let start = stored.library.size.next_multiple_of(PAGE_SIZE);
                Some(stored.octets(start..start + stored.library.manifest_size))
            }
        }
    }

    /// Maps a segment that nobody writes from the store's own pages, without a copy; false, and nothing is mapped, where that cannot be. Around
    /// its content its pages hold what the file has there.
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
            .share(pages, |table, entries, page| libraries::map(stored.library, first + page, table, entries, execute));
        // It has left the store meanwhile, say: then there is the copy that was judged.
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

/// Runs at boot: a child finds the archive where its parent has found it.
pub fn init() {
    boot::ramdisk();
    rules::init();
}
