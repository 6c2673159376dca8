//! Libraries of the host's store, which pVMs map without a copy (docs/protocols/libraries.md).
//!
//! A library's frames belong to a domain that never runs. They are given back as soon as the daemon
//! has mapped them, so each stays for as long as the daemon or a pVM maps it, and a killed daemon
//! leaves none behind. No pVM ever gets an entry by which it can write them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use xen_abi::pte::Pte;
use xen_abi::{DomId, Errno, Mfn, PAGE_SIZE};
use xenctl::{Hypervisor, Memory, Protection};
use zooid_fork_plan::id::{Handle, Kind, PvmId};
use zooid_fork_plan::wire::{MAX_NAME, daemon, guest, object_flags};
use zooid_manifest::{Hasher, Manifest, PublicKey, Refusal, Rules, Version, is_name};
use zooid_memory::ForkRule;

use super::api::EventKind;
use super::books::{Channel, Pending, Pvm, is_domain_of};
use super::core::{Host, Timer};
use super::executor::Operation;
use super::failure::Failure;
use super::home;
use super::ipc::{Map, denied};
use super::jobs::Job;
use super::members::{AT_ONCE, return_frames};
use super::memory_owner::Asker;
use crate::library::{Error, Keys, Store};

/// Time between two looks for libraries that have left the store.
const LOOK: Duration = Duration::from_secs(2);

/// The libraries that pVMs have opened.
#[derive(Debug)]
pub struct Libraries<M> {
    /// The domain that their frames belong to.
    pub domain: DomId,
    id: PvmId,
    /// Libraries that are wholly read, by number.
    objects: BTreeMap<u32, Object<M>>,
    /// Libraries that are being read.
    reading: VecDeque<Reading<M>>,
    /// Families that may have mapped one, by their roots' ids.
    users: BTreeSet<PvmId>,
    /// The number that was given out last.
    last_number: u32,
    /// Frames that could not be given back yet.
    garbage: Vec<Mfn>,
}

/// A library: its file and, from the next page on, its manifest.
#[derive(Debug)]
struct Object<M> {
    manifest: Manifest,
    frames: Vec<Mfn>,
    /// The mappings that keep the frames.
    _maps: Vec<M>,
    /// Families that may map it.
    families: BTreeSet<PvmId>,
}

/// A library whose file is being read.
#[derive(Debug)]
struct Reading<M> {
    manifest: Manifest,
    file: File,
    hasher: Hasher,
    frames: Vec<Mfn>,
    maps: Vec<M>,
    /// The root of the first family that asked; the work is counted to it.
    root: PvmId,
    waiting: Vec<Asker>,
}

/// The content of a LIBRARY: lines of text, `NAME` or `NAME@VERSION`, the name of the image, and
/// ranges of versions.
struct Wanted {
    name: String,
    version: Option<Version>,
    image: String,
    ranges: Vec<String>,
    user_mode: bool,
}

impl Wanted {
    fn read<M: Memory>(channel: &Channel<M>) -> Result<Self, Failure> {
        let flags = channel.get(guest::OBJECT_FLAGS);
        let text = text(channel, true)?;
        let mut lines = text.split('\n').map(str::to_owned);
        let (first, image) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let (name, version) = match first.split_once('@') {
            Some((name, version)) => (name.to_owned(), Some(Version::parse(version))),
            None => (first, None),
        };
        match version.transpose() {
            Ok(version) if is_name(&name) && flags & !object_flags::USER_MODE == 0 => {
                Ok(Self { name, version, image, ranges: lines.collect(), user_mode: flags != 0 })
            }
            _ => denied(Errno::EINVAL),
        }
    }
}

/// The text in a control page: printable ASCII, in one line or several.
fn text<M: Memory>(channel: &Channel<M>, lines: bool) -> Result<String, Failure> {
    let length = channel.get(guest::NAME_LENGTH) as usize;
    if length > MAX_NAME {
        return denied(Errno::ENAMETOOLONG);
    }
    let mut octets = vec![0; length];
    channel.page.copy_out(guest::NAME, &mut octets);
    let is_plain = |octet: &u8| matches!(octet, b' '..=b'~') || lines && *octet == b'\n';
    let text = String::from_utf8(octets).ok().filter(|text| text.bytes().all(|octet| is_plain(&octet)));
    text.ok_or(Failure::Denied(Errno::EINVAL))
}

/// Pages of a file, and of the manifest behind it.
fn pages_of(manifest: &Manifest) -> (usize, usize) {
    ((manifest.description.size as usize).div_ceil(PAGE_SIZE), manifest.to_string().len().div_ceil(PAGE_SIZE))
}

impl<M> Libraries<M> {
    fn new(id: PvmId, users: BTreeSet<PvmId>, now_us: u64) -> Self {
        Self {
            domain: id.domain(),
            id,
            objects: BTreeMap::new(),
            reading: VecDeque::new(),
            users,
            // A number that a guest has from an earlier daemon must not name another library.
            last_number: now_us as u32,
            garbage: Vec::new(),
        }
    }

    fn new_number(&mut self) -> u32 {
        loop {
            self.last_number = self.last_number.wrapping_add(1);
            if !self.objects.contains_key(&self.last_number) {
                return self.last_number;
            }
        }
    }
}

impl<H: Hypervisor> Host<H> {
    /// LIBRARY: finds a library whose rules hold for the asker, and reads it if it is the first one
    /// to ask.
    pub(super) fn open_library(&mut self, id: PvmId) -> Result<(), Failure> {
        let (root, asker, channel) = self.asker(id)?;
        let wanted = Wanted::read(channel)?;
        let manifest = self.choose_library(id, root, &wanted)?;
        self.ensure_libraries(id)?;
        let libraries = self.books.libraries_mut().ok_or(Failure::Gone)?;
        libraries.users.insert(root);
        if let Some((number, object)) = libraries.objects.iter_mut().find(|(_, object)| object.manifest == manifest) {
            object.families.insert(root);
            let number = *number;
            return self.answer_library(id, number);
        }
        if let Some(reading) = libraries.reading.iter_mut().find(|reading| reading.manifest == manifest) {
            reading.waiting.push(asker);
        } else {
            let (file, text) = pages_of(&manifest);
            self.check_library_memory((file + text) as u64)?;
            let file = Store::new(&self.config.libraries).open(&manifest.description.digest).map_err(|error| {
                log::warn!("the file of {} cannot be read: {error}", manifest.description.name);
                Failure::Denied(if error.kind() == io::ErrorKind::NotFound { Errno::ENOENT } else { Errno::EIO })
            })?;
            let (hasher, frames, maps, waiting) = (Hasher::default(), Vec::new(), Vec::new(), vec![asker]);
            let reading = Reading { manifest, file, hasher, frames, maps, root, waiting };
            self.books.libraries_mut().ok_or(Failure::Gone)?.reading.push_back(reading);
            self.jobs.push(root, Job::Library);
        }
        if let Some(pvm) = self.books.get_mut(id) {
            pvm.pending = Some(Pending::Library);
        }
        Ok(())
    }

    /// The highest version of those wanted whose rules hold, as far as pvmd can judge them.
    fn choose_library(&mut self, id: PvmId, root: PvmId, wanted: &Wanted) -> Result<Manifest, Failure> {
        let cannot = |error: Error| {
            log::warn!("no library is served: {error}");
            Failure::Denied(Errno::EIO)
        };
        let store = Store::new(&self.config.libraries);
        let (keys, no_keys) = Keys::new(&self.config.keys).files().map_err(cannot)?;
        let keys: Vec<PublicKey> = keys.into_iter().map(|(_, key)| key).collect();
        let family = self.books.family_name(root);
        let rules = Rules {
            keys,
            image: &wanted.image,
            family,
            versions: wanted.ranges.iter().map(|range| (wanted.name.as_str(), range.as_str())).collect(),
            user_mode: wanted.user_mode,
        };
        let (mut found, mut refused, mut damaged) = (None, None::<Refusal>, None::<Error>);
        let mut versions = store.versions(&wanted.name).map_err(cannot)?;
        versions.retain(|version| wanted.version.as_ref().is_none_or(|wanted| wanted == version));
        for version in versions {
            let judged = match store.manifest(&wanted.name, &version) {
                Ok(manifest) => rules.judge_manifest(&wanted.name, &manifest).map(|()| manifest),
                Err(Error::Rule(_, refusal)) => Err(refusal),
                // It has left the store meanwhile.
                Err(Error::NoLibrary(_)) => continue,
                // Lower versions may be whole.
                Err(error) => {
                    damaged = damaged.or(Some(error));
                    continue;
                }
            };
            match judged {
                Ok(manifest) => {
                    found = Some(manifest);
                    break;
                }
                Err(refusal) => refused = refused.or(Some(refusal)),
            }
        }
        if (damaged.is_some() || found.is_none()) && self.may_tell(root) {
            damaged.iter().chain(&no_keys).for_each(|error| log::warn!("{error}: it counts for nothing"));
        }
        match (found, refused) {
            (Some(manifest), _) => Ok(manifest),
            (None, Some(refusal)) => {
                self.tell_of_library(id, &wanted.name, &refusal.to_string());
                denied(Errno::EACCES)
            }
            (None, None) => denied(if damaged.is_some() { Errno::EIO } else { Errno::ENOENT }),
        }
    }

    fn answer_library(&mut self, id: PvmId, number: u32) -> Result<(), Failure> {
        let object =
            self.books.libraries().and_then(|libraries| libraries.objects.get(&number)).ok_or(Failure::Gone)?;
        let channel = self.books.get(id).and_then(|pvm| pvm.channel.as_ref()).ok_or(Failure::Gone)?;
        channel.put(daemon::OBJECT, number);
        channel.put(daemon::OBJECT_PAGES, object.frames.len() as u32);
        channel.put(daemon::MANIFEST_SIZE, object.manifest.to_string().len() as u32);
        channel.page.write_u64(daemon::FILE_SIZE, object.manifest.description.size);
        Ok(())
    }

    /// MAP_LIBRARY: maps pages of a library that the asker's family has opened, never to be
    /// written.
    pub(super) fn map_library(&mut self, id: PvmId, count: u32) -> Result<(), Failure> {
        let (root, _, channel) = self.asker(id)?;
        let asked = Map::read(channel, count, object_flags::EXECUTE)?;
        let libraries = self.books.libraries().ok_or(Failure::Denied(Errno::ENOENT))?;
        let object = libraries.objects.get(&asked.object).filter(|object| object.families.contains(&root));
        let object = object.ok_or(Failure::Denied(Errno::ENOENT))?;
        let pages = asked.offset..asked.offset.saturating_add(asked.entries.len());
        let frames = object.frames.get(pages).ok_or(Failure::Denied(Errno::EINVAL))?;
        let protection = if asked.flags & object_flags::EXECUTE != 0 {
            zooid_memory::Protection::ReadExecute
        } else {
            zooid_memory::Protection::ReadOnly
        };
        let flags = protection.pte_flags().union(ForkRule::Library.pte_flags());
        let updates = asked.updates(|place| Pte::new(frames[place], flags));
        self.write_entries(id, libraries.domain, &asked, &updates)
    }

    /// REFUSED: a pVM says that a rule does not hold for a library.
    pub(super) fn report_refusal(&mut self, id: PvmId) -> Result<(), Failure> {
        let (_, _, channel) = self.asker(id)?;
        let text = text(channel, false)?;
        match text.split_once(": ") {
            Some((name, rule)) if is_name(name) => {
                self.tell_of_library(id, name, rule);
                Ok(())
            }
            _ => denied(Errno::EINVAL),
        }
    }

    /// Reports that a pVM does not get a library, at a limited rate per family.
    fn tell_of_library(&mut self, id: PvmId, library: &str, rule: &str) {
        let Some(pvm) = self.books.get(id) else { return };
        let (root, name) = (pvm.root(), pvm.name.clone());
        if !self.may_tell(root) {
            return log::debug!(id = id.raw(); "{library} was refused: {rule}");
        }
        log::info!(id = id.raw(), name = name.as_str(); "{library} was refused: {rule}");
        self.tell(id, &name, EventKind::LibraryRefused { library: library.to_owned(), rule: rule.to_owned() });
    }

    /// Reads the next part of a library that a family was the first to ask for.
    pub(super) fn library_step(&mut self, family: PvmId) {
        let Some(libraries) = self.books.libraries_mut() else { return };
        let place = libraries.reading.iter().position(|reading| reading.root == family);
        let Some(mut reading) = place.and_then(|place| libraries.reading.remove(place)) else { return };
        let began = self.clock.now();
        reading.waiting.retain(|asker| self.waits_for_library(asker));
        if reading.waiting.is_empty() {
            return;
        }
        let root = reading.root;
        match self.read_part(&mut reading) {
            Ok(false) => {
                if let Some(libraries) = self.books.libraries_mut() {
                    libraries.reading.push_back(reading);
                }
                self.jobs.push(root, Job::Library);
                return self.spend(root, began);
            }
            Ok(true) => {}
            Err(failure) => {
                let errno = Errno(failure.errno());
                for asker in reading.waiting {
                    self.answer_reading(asker.member, denied(errno));
                }
                return self.spend(root, began);
            }
        }
        let Reading { manifest, hasher, frames, maps, waiting, .. } = reading;
        if hasher.finish() != manifest.description.digest {
            for Asker { member: id, .. } in waiting {
                self.tell_of_library(id, &manifest.description.name, &Refusal::OtherFile.to_string());
                self.answer_reading(id, denied(Errno::EACCES));
            }
            return self.spend(root, began);
        }
        let roots = waiting.iter().filter_map(|asker| self.books.get(asker.member)).map(Pvm::root);
        let object = Object { manifest, frames, _maps: maps, families: roots.collect() };
        let Some(libraries) = self.books.libraries_mut() else { return };
        let number = libraries.new_number();
        libraries.objects.insert(number, object);
        for Asker { member: id, .. } in waiting {
            let answer = self.answer_library(id, number);
            self.answer_reading(id, answer);
        }
        self.spend(root, began);
    }

    /// The asker still waits for this library.
    fn waits_for_library(&self, asker: &Asker) -> bool {
        let is_it = |pvm: &Pvm<H::Memory>| pvm.request == asker.request && pvm.pending == Some(Pending::Library);
        self.books.get(asker.member).is_some_and(is_it)
    }

    fn answer_reading(&mut self, id: PvmId, result: Result<(), Failure>) {
        if let Some(pvm) = self.books.get_mut(id) {
            pvm.pending = None;
        }
        self.answer_ipc(id, zooid_fork_plan::wire::operation::LIBRARY, result);
    }

    /// Reads a part of a library into new frames; true if it was the last.
    fn read_part(&mut self, reading: &mut Reading<H::Memory>) -> Result<bool, Failure> {
        let (file_pages, text_pages) = pages_of(&reading.manifest);
        let left = file_pages + text_pages - reading.frames.len();
        let owner = self.books.libraries().ok_or(Failure::Gone)?.domain;
        self.return_library_frames(Vec::new());
        let mut frames = Vec::with_capacity(AT_ONCE.min(left));
        let filled = self.hold(owner, AT_ONCE.min(left), &mut frames).and_then(|()| {
            let octets = reading.next_octets(frames.len())?;
            self.operate(Operation::FillLibrary, |engine| {
                engine.xen.map_foreign(owner, &frames, Protection::ReadWrite)?.copy_in(0, &octets);
                // The mapping that keeps them is read-only.
                Ok(engine.xen.map_foreign(owner, &frames, Protection::Read)?)
            })
        });
        // From here on the mappings keep the frames.
        self.return_library_frames(frames.clone());
        reading.maps.push(filled?);
        reading.frames.extend(frames);
        Ok(reading.frames.len() == file_pages + text_pages)
    }

    fn return_library_frames(&mut self, frames: Vec<Mfn>) {
        let Self { books, xen, executor, .. } = self;
        if let Some(libraries) = books.libraries_mut() {
            libraries.garbage.extend(frames);
            return_frames(&**xen, executor, libraries.domain, &mut libraries.garbage);
        }
    }

    /// Makes a domain for the frames of libraries, if there is none.
    fn ensure_libraries(&mut self, id: PvmId) -> Result<(), Failure> {
        if self.books.libraries().is_some() {
            return Ok(());
        }
        let made = self.make_frame_domain(id)?;
        if let Err(failure) = self.furnish_libraries(made) {
            self.remove_domain(made, made);
            return Err(failure);
        }
        self.begin_libraries(Libraries::new(made, BTreeSet::new(), self.clock.now_us()));
        Ok(())
    }

    /// Gives a new domain the state of the libraries' domain. The handle comes last, because a
    /// daemon that starts recognises the domain by it.
    fn furnish_libraries(&mut self, id: PvmId) -> Result<(), Failure> {
        let domain = id.domain();
        self.configure_frame_domain(domain, self.config.library_memory_kib)?;
        self.operate(Operation::Home, |engine| {
            home::create_memory_owner(&engine.store, id, "zooid-libraries", id, None)
        })?;
        let handle = Handle { kind: Kind::Libraries, id, parent: id, commit: 0 };
        self.operate(Operation::Sign, |engine| engine.xen.set_handle(domain, &handle.to_octets()))?;
        Ok(())
    }

    fn begin_libraries(&mut self, libraries: Libraries<H::Memory>) {
        self.books.set_libraries(Some(libraries));
        self.after(LOOK, Timer::Libraries);
    }

    /// Takes over the libraries' domain of an earlier daemon. All pVMs are in the books, and each
    /// may have mapped a library that is not known any more.
    pub(super) fn recover_libraries(&mut self, id: PvmId) {
        self.books.skip_id(id);
        let users: BTreeSet<PvmId> = self.books.families().map(|(root, _)| root).collect();
        if users.is_empty() || self.books.libraries().is_some() {
            self.remove_domain(id, id);
        } else {
            self.begin_libraries(Libraries::new(id, users, self.clock.now_us()));
        }
    }

    /// A family has ended: forgets libraries that only it has opened, and with the last family
    /// their domain.
    pub(super) fn leave_libraries(&mut self, root: PvmId) {
        let Some(libraries) = self.books.libraries_mut() else { return };
        libraries.users.remove(&root);
        libraries.objects.retain(|_, object| {
            object.families.remove(&root);
            !object.families.is_empty()
        });
        if libraries.users.is_empty() {
            self.end_libraries();
        }
    }

    fn end_libraries(&mut self) {
        self.forget_timers(|timer| *timer == Timer::Libraries);
        if let Some(Libraries { id, objects, reading, .. }) = self.books.set_libraries(None) {
            // A domain whose frames are mapped cannot end.
            drop(objects);
            let mut waiting: Vec<Asker> = reading.into_iter().flat_map(|reading| reading.waiting).collect();
            waiting.retain(|asker| self.waits_for_library(asker));
            self.remove_domain(id, id);
            waiting.into_iter().for_each(|asker| self.answer_reading(asker.member, denied(Errno::EIO)));
        }
    }

    /// Forgets the libraries' domain if a tool has destroyed it.
    pub(super) fn find_lost_libraries(&mut self, all: &[xenctl::DomainInfo]) {
        let exists = |id: PvmId| all.iter().any(|info| is_domain_of(info, id) && !info.is_dying());
        if self.books.libraries().is_some_and(|libraries| !exists(libraries.id)) {
            log::warn!("the domain of the libraries was destroyed: pVMs that have mapped one cannot fork any more");
            self.end_libraries();
        }
    }

    /// Forgets libraries that have left the store, or have another manifest now. A pVM that has
    /// mapped one keeps its pages.
    pub(super) fn forget_removed_libraries(&mut self) {
        let store = Store::new(&self.config.libraries);
        if let Some(libraries) = self.books.libraries_mut() {
            libraries.objects.retain(|_, object| {
                let said = &object.manifest.description;
                match store.manifest(&said.name, &said.version) {
                    Ok(manifest) => manifest == object.manifest,
                    Err(Error::NoLibrary(_) | Error::Rule(..)) => false,
                    // It is looked for again later.
                    Err(_) => true,
                }
            });
            self.after(LOOK, Timer::Libraries);
        }
    }

    /// Checks that there is room for `pages` pages more.
    fn check_library_memory(&self, pages: u64) -> Result<(), Failure> {
        const PAGE_KIB: u64 = PAGE_SIZE as u64 / 1024;
        let libraries = self.books.libraries().ok_or(Failure::Gone)?;
        let is_it = |info: &xenctl::DomainInfo| is_domain_of(info, libraries.id);
        let has = self.xen.domain_info(libraries.domain)?.filter(is_it).ok_or(Failure::Gone)?.pages;
        if (has + pages) * PAGE_KIB > self.config.library_memory_kib {
            return Err(Failure::Quota("memory of libraries"));
        }
        if self.xen.free_pages()? * PAGE_KIB < self.config.keep_free_kib + pages * PAGE_KIB {
            return Err(Failure::NoMemory("Xen has too little left"));
        }
        Ok(())
    }
}

impl<M> Reading<M> {
    /// The octets of the next `pages` pages.
    fn next_octets(&mut self, pages: usize) -> Result<Vec<u8>, Failure> {
        let start = self.frames.len() * PAGE_SIZE;
        let mut octets = vec![0; pages * PAGE_SIZE];
        let of_file = (self.manifest.description.size as usize).saturating_sub(start).min(octets.len());
        // A file that is too short fails at the digest.
        let mut from_file = (&mut self.file).take(of_file as u64);
        let mut read = 0;
        while read < of_file {
            match from_file.read(&mut octets[read..of_file]) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    log::warn!("the file of {} cannot be read: {error}", self.manifest.description.name);
                    return denied(Errno::EIO);
                }
            }
        }
        self.hasher.update(&octets[..read]);
        let text = self.manifest.to_string();
        let text_at = pages_of(&self.manifest).0 * PAGE_SIZE;
        for (at, octet) in text.bytes().enumerate().map(|(at, octet)| (text_at + at, octet)) {
            if let Some(place) = at.checked_sub(start).and_then(|at| octets.get_mut(at)) {
                *place = octet;
            }
        }
        Ok(octets)
    }
}
