//! Libraries of the store: the pVMs that get them, and the remains.

use std::fs;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, sync_channel};

use xen_abi::pte::{Pte, PteFlags};
use xen_abi::xen::MmuUpdate;
use xen_abi::{DomId, Errno, Mfn, PAGE_SIZE};
use xenctl::fake::Fault;
use zooid_fork_plan::id::Kind;
use zooid_fork_plan::plan::index;
use zooid_fork_plan::wire::{daemon, device_page, guest, object_flags, operation};
use zooid_manifest::{Description, SecretKey, Version};
use zooid_memory::ForkRule;

use super::super::api::{Event, EventKind};
use super::super::config::{BackendChoice, Config};
use super::faults::{TRIES, everywhere, fork_somehow};
use super::world::{Root, World};
use crate::library::tests::compile;
use crate::library::{Keys, Store, describe, generate, read_secret};
use crate::testing::TemporaryDirectory;

/// First page of the DEVICE zone at which guests map libraries; it has a table.
const PLACE: usize = 100;

/// A store, and its signer.
struct Shelf {
    directory: TemporaryDirectory,
    store: Store,
    keys: Keys,
    secret: SecretKey,
}

impl Shelf {
    fn new() -> Self {
        let directory = TemporaryDirectory::new("shelf");
        let keys = Keys::new(&directory.path().join("keys"));
        let [secret, public] = generate(&directory.path().join("shop")).unwrap();
        keys.trust(&public).unwrap();
        let store = Store::new(&directory.path().join("lib"));
        Self { store, keys, secret: read_secret(&secret).unwrap(), directory }
    }

    /// A shelf that no test changes.
    fn common() -> &'static Self {
        static COMMON: OnceLock<Shelf> = OnceLock::new();
        COMMON.get_or_init(|| {
            let shelf = Shelf::new();
            shelf.add("a.so", 1, |_| ());
            shelf.add("a.so", 2, |_| ());
            shelf
        })
    }

    fn config(&self) -> Config {
        let (libraries, keys) = (self.directory.path().join("lib"), self.directory.path().join("keys"));
        Config { libraries, keys, ..Config::default() }
    }

    fn world(&self) -> (World, Root) {
        let mut world = World::new(self.config());
        let root = boot(&mut world, "parent");
        (world, root)
    }

    /// Adds a library; its file. The octets differ from version to version, and are many if the
    /// name says so.
    fn add(&self, name: &str, version: u64, change: impl FnOnce(&mut Description)) -> Vec<u8> {
        let size = if name.starts_with("large") { 5 << 20 } else { 10_000 };
        let source = format!("const int version = {version}; const char bulk[{size}] = {{{version}}};");
        let file = compile(&self.directory, name, &source, &["-mno-red-zone"]);
        let mut description = describe(name, Version::new(version, 0, 0), &file).unwrap();
        change(&mut description);
        self.store.put(&description.sign(&self.secret).unwrap(), &file, &self.keys).unwrap();
        file
    }

    fn remove(&self, name: &str) {
        self.store.remove(name, None).unwrap();
    }
}

fn boot(world: &mut World, name: &str) -> Root {
    let root = world.boot(name);
    root.control();
    world.settle();
    root
}

fn put_text(world: &World, domain: DomId, text: &str, flags: u32) {
    let control = world.control(domain);
    control.put(guest::NAME_LENGTH, text.len() as u32);
    control.put_octets(guest::NAME, text.as_bytes());
    control.put(guest::OBJECT_FLAGS, flags);
}

/// LIBRARY's answer: number, octets of file and manifest, pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Opened {
    number: u32,
    file: usize,
    manifest: usize,
    pages: u32,
}

fn opened(world: &World, domain: DomId) -> Opened {
    let control = world.control(domain);
    Opened {
        number: control.get(daemon::OBJECT),
        file: control.get(daemon::FILE_SIZE) as usize,
        manifest: control.get(daemon::MANIFEST_SIZE) as usize,
        pages: control.get(daemon::OBJECT_PAGES),
    }
}

/// LIBRARY; or the error number.
fn open(world: &mut World, domain: DomId, text: &str) -> Result<Opened, u32> {
    put_text(world, domain, text, 0);
    match world.request(domain, operation::LIBRARY, 0).0 {
        0 => Ok(opened(world, domain)),
        errno => Err(errno),
    }
}

/// MAP_LIBRARY of pages from `offset` on to pages of the DEVICE zone; the error number. The guest
/// counts the change.
fn map(world: &mut World, domain: DomId, library: u32, offset: u32, place: usize, count: u32, flags: u32) -> u32 {
    world.map(domain, operation::MAP_LIBRARY, library, offset, place, count, flags)
}

fn frame(world: &World, domain: DomId, place: usize) -> Mfn {
    let entry = world.entry(domain, device_page(place)).unwrap();
    assert!(!entry.flags().contains(PteFlags::WRITABLE));
    assert_eq!(ForkRule::of(entry.flags()), ForkRule::Library);
    entry.mfn()
}

/// The octets of pages that a pVM has mapped.
fn octets(world: &World, domain: DomId, place: usize, pages: u32) -> Vec<u8> {
    let guest = world.fake.guest(domain);
    (place..place + pages as usize).flat_map(|page| guest.page(frame(world, domain, page))).collect()
}

fn end(world: &mut World, domain: DomId) {
    world.end(domain);
}

/// Pages that the libraries' domain has.
fn held(world: &World) -> u32 {
    let domain = world.family(Kind::Libraries)[0].0;
    world.fake.guests().into_iter().find(|info| info.id == domain).unwrap().pages as u32
}

fn events(world: &mut World) -> Receiver<Event> {
    let (sender, receiver) = sync_channel(1000);
    world.host().subscribe(sender);
    receiver
}

/// The reported refusals: pVM, library, and reason.
fn refusals(world: &mut World, events: &Receiver<Event>) -> Vec<(String, String, String)> {
    world.host().tell_subscribers();
    let refusal = |event: Event| match event.kind {
        EventKind::LibraryRefused { library, rule } => Some((event.name, library, rule)),
        _ => None,
    };
    events.try_iter().filter_map(refusal).collect()
}

#[test]
fn a_library_is_read_once_and_all_have_its_frames() {
    let shelf = Shelf::new();
    let file = shelf.add("a.so", 1, |_| ());
    let mut world = World::new(shelf.config());
    let empty = world.census();
    let [root, other] = ["parent", "other"].map(|name| boot(&mut world, name).id());
    let library = open(&mut world, root, "a.so\nimage").unwrap();
    let (memory_owner, _) = world.family(Kind::Libraries)[0];
    assert_eq!(world.xenstored.nodes()[&format!("/local/domain/{memory_owner}/name")], "zooid-libraries");
    assert!(world.pvm(memory_owner).is_none());
    let manifest = shelf.store.manifest("a.so", &Version::new(1, 0, 0)).unwrap().to_string();
    assert_eq!((library.file, library.manifest), (file.len(), manifest.len()));
    assert_eq!(library.pages as usize, file.len().div_ceil(PAGE_SIZE) + 1);
    assert_eq!(open(&mut world, other, "a.so@1.0.0\nanother"), Ok(library));
    assert_eq!(held(&world), library.pages);

    assert_eq!(map(&mut world, root, library.number, 0, PLACE, library.pages, 0), 0);
    let mapped = octets(&world, root, PLACE, library.pages);
    assert_eq!(mapped[..file.len()], file);
    let behind = file.len().next_multiple_of(PAGE_SIZE);
    assert!(mapped[file.len()..behind].iter().all(|octet| *octet == 0));
    assert_eq!(&mapped[behind..behind + manifest.len()], manifest.as_bytes());
    // Executable pages are another mapping of the same frames.
    assert_eq!(map(&mut world, other, library.number, 1, PLACE, 2, object_flags::EXECUTE), 0);
    assert_eq!(frame(&world, other, PLACE), frame(&world, root, PLACE + 1));
    let executable = |world: &World, domain| {
        !world.entry(domain, device_page(PLACE)).unwrap().flags().contains(PteFlags::NO_EXECUTE)
    };
    assert!(executable(&world, other) && !executable(&world, root));

    let child = world.fork(other);
    let grandchild = world.fork(child);
    for domain in [child, grandchild] {
        assert_eq!(frame(&world, domain, PLACE), frame(&world, root, PLACE + 1));
        assert!(executable(&world, domain));
        assert_eq!(map(&mut world, domain, library.number, 0, PLACE + 9, 1, 0), 0);
    }
    assert_eq!(held(&world), library.pages);
    for domain in [root, other] {
        world.destroy(domain);
        world.settle();
    }
    assert_eq!(octets(&world, grandchild, PLACE, 2), file[PAGE_SIZE..3 * PAGE_SIZE]);
    for domain in [child, grandchild] {
        end(&mut world, domain);
    }
    assert_eq!(world.census(), empty);
}

#[test]
fn nobody_gets_an_entry_to_write() {
    let (mut world, root) = Shelf::common().world();
    let library = open(&mut world, root.id(), "a.so").unwrap();
    assert_eq!(map(&mut world, root.id(), library.number, 0, PLACE, 1, 0), 0);
    let address = device_page(PLACE);
    let at = world.table(root.id(), address, 1).addr() + index(address, 1) as u64 * 8;
    let entry = world.entry(root.id(), address).unwrap();
    let writable = MmuUpdate::pte(at, Pte(entry.0 | PteFlags::WRITABLE.bits()));
    assert!(world.fake.guest(root.id()).mmu_update(&[writable]).1.is_err());
    // With any flags, the entries are read-only.
    for flags in [1, 2, object_flags::LAST, object_flags::USER_MODE, object_flags::EXECUTE | 1, 1 << 31] {
        assert_eq!(map(&mut world, root.id(), library.number, 0, PLACE + 1, 1, flags), Errno::EINVAL.0);
    }
    assert_eq!(world.entry(root.id(), device_page(PLACE + 1)), None);
}

#[test]
fn the_highest_version_comes_whose_rules_hold() {
    let shelf = Shelf::new();
    shelf.add("a.so", 1, |_| ());
    shelf.add("a.so", 2, |it| it.images = vec!["httpd".into()]);
    shelf.add("a.so", 3, |it| it.families = vec!["parent".into()]);
    shelf.add("a.so", 4, |it| it.revoked = true);
    shelf.add("a.so", 5, |it| it.red_zone = Some(zooid_manifest::RedZone { address: 7, function: None }));
    let (mut world, root) = shelf.world();
    let other = boot(&mut world, "other");
    let events = events(&mut world);
    let mut version = |domain, text: &str, flags| {
        put_text(&world, domain, text, flags);
        let (errno, _) = world.request(domain, operation::LIBRARY, 0);
        if errno != 0 {
            return Err(Errno(errno));
        }
        let number = opened(&world, domain);
        assert_eq!(map(&mut world, domain, number.number, number.pages - 1, PLACE, 1, 0), 0);
        let text = octets(&world, domain, PLACE, 1);
        let text = String::from_utf8_lossy(&text);
        Ok(text.lines().find_map(|line| line.strip_prefix("version ")).unwrap()[..1].parse::<u32>().unwrap())
    };
    let child = root.id();
    for (domain, text, flags, expected) in [
        (root.id(), "a.so\nhttpd", 0, Ok(3)),
        (root.id(), "a.so\nhttpd", object_flags::USER_MODE, Ok(5)),
        (child, "a.so", 0, Ok(3)),
        (other.id(), "a.so\nhttpd", 0, Ok(2)),
        (other.id(), "a.so\nother", 0, Ok(1)),
        (root.id(), "a.so\nhttpd\n<3", 0, Ok(2)),
        (root.id(), "a.so\nhttpd\n<3\n^1", 0, Ok(1)),
        (root.id(), "a.so@1.0.0\nhttpd", 0, Ok(1)),
        (root.id(), "a.so@1.0.0\nhttpd\n^2", 0, Err(Errno::EACCES)),
        (root.id(), "a.so@4.0.0", 0, Err(Errno::EACCES)),
        (other.id(), "a.so@3.0.0", 0, Err(Errno::EACCES)),
        (root.id(), "a.so\nhttpd\nnonsense", 0, Err(Errno::EACCES)),
        (root.id(), "a.so@6.0.0", 0, Err(Errno::ENOENT)),
        (root.id(), "b.so", 0, Err(Errno::ENOENT)),
    ] {
        assert_eq!(version(domain, text, flags), expected, "{text:?} {flags}");
    }
    let told: Vec<String> = refusals(&mut world, &events)
        .into_iter()
        .map(|(name, library, rule)| format!("{name} {library} {rule}"))
        .collect();
    assert_eq!(
        told,
        [
            "parent a.so version rule: it is 1.0.0, wanted is ^2",
            "parent a.so version rule: 4.0.0 is revoked",
            "other a.so loader rule: the family other may not map it",
            "parent a.so version rule: `nonsense` is no range of versions",
        ]
    );
    fs::remove_file(shelf.directory.path().join("keys/shop.pub")).unwrap();
    assert_eq!(open(&mut world, root.id(), "a.so"), Err(Errno::EACCES.0));
    assert!(refusals(&mut world, &events)[0].2.contains("is not trusted"));
}

#[test]
fn damage_takes_nothing_from_what_is_whole() {
    let shelf = Shelf::new();
    shelf.add("a.so", 1, |_| ());
    let (mut world, root) = shelf.world();
    let path = |name: &str| shelf.directory.path().join(name);
    fs::write(path("lib/a.so@9.0.0.manifest"), vec![b'x'; 10_000]).unwrap();
    fs::create_dir(path("lib/a.so@8.0.0.manifest")).unwrap();
    fs::write(path("lib/a.so@7.0.0.manifest"), "nonsense").unwrap();
    fs::write(path("keys/empty.pub"), "").unwrap();
    assert!(open(&mut world, root.id(), "a.so").is_ok());
    for (version, errno) in [(9, Errno::EIO), (8, Errno::EIO), (7, Errno::EACCES), (6, Errno::ENOENT)] {
        assert_eq!(open(&mut world, root.id(), &format!("a.so@{version}.0.0")), Err(errno.0), "{version}");
    }
}

#[test]
fn a_file_that_is_not_what_was_signed_is_not_mapped() {
    let shelf = Shelf::new();
    let file = shelf.add("a.so", 1, |_| ());
    let (mut world, root) = shelf.world();
    let events = events(&mut world);
    let manifest = shelf.store.manifest("a.so", &Version::new(1, 0, 0)).unwrap();
    let object = shelf.directory.path().join("lib/objects").join(manifest.description.digest.to_string());
    let mut changed = file.clone();
    changed[file.len() - 1] ^= 1;
    for content in [&changed[..], &file[..PAGE_SIZE], &[]] {
        fs::remove_file(&object).unwrap();
        fs::write(&object, content).unwrap();
        assert_eq!(open(&mut world, root.id(), "a.so"), Err(Errno::EACCES.0));
        assert_eq!(held(&world), 0);
    }
    let rule = "signature rule: the file is not the one that was signed".to_owned();
    assert_eq!(refusals(&mut world, &events), vec![("parent".into(), "a.so".into(), rule); 3]);
    fs::remove_file(&object).unwrap();
    assert_eq!(open(&mut world, root.id(), "a.so"), Err(Errno::ENOENT.0));
    fs::write(&object, &file).unwrap();
    assert!(open(&mut world, root.id(), "a.so").is_ok());
}

#[test]
fn who_has_not_opened_a_library_does_not_map_it() {
    let (mut world, root) = Shelf::common().world();
    let other = boot(&mut world, "other");
    assert_eq!(map(&mut world, root.id(), 1, 0, PLACE, 1, 0), Errno::ENOENT.0);
    let library = open(&mut world, root.id(), "a.so").unwrap();
    assert_eq!(map(&mut world, other.id(), library.number, 0, PLACE, 1, 0), Errno::ENOENT.0);
    // An object of a family is no library, and the other way round.
    let control = root.control();
    control.put(guest::OBJECT_PAGES, 1);
    put_text(&world, root.id(), "memory", object_flags::CREATE);
    assert_eq!(world.request(root.id(), operation::CREATE, 0).0, 0);
    let object = control.get(daemon::OBJECT);
    assert_eq!(map(&mut world, root.id(), object.wrapping_add(1 << 20), 0, PLACE, 1, 0), Errno::ENOENT.0);
    if object != library.number {
        assert_eq!(map(&mut world, root.id(), object, 0, PLACE, 1, 0), Errno::ENOENT.0);
    }
    control.put(guest::OBJECT, library.number.wrapping_add(1 << 20));
    control.put(guest::OBJECT_FLAGS, 0);
    assert_eq!(world.request(root.id(), operation::MAP, 1).0, Errno::ENOENT.0);

    world.refresh(root.id());
    let before = world.census();
    for (offset, count) in [(0, 0), (0, library.pages + 1), (library.pages, 1), (u32::MAX, 1), (0, 513), (0, u32::MAX)]
    {
        assert_eq!(map(&mut world, root.id(), library.number, offset, PLACE, count, 0), Errno::EINVAL.0);
    }
    // A table of another domain.
    let table = world.table(other.id(), device_page(PLACE), 1);
    control.put_u64(guest::MAP_TABLE, table.0);
    control.put(guest::OBJECT, library.number);
    control.put(guest::OBJECT_OFFSET, 0);
    control.put(guest::OBJECT_FLAGS, 0);
    assert_eq!(world.request(root.id(), operation::MAP_LIBRARY, 1).0, Errno::EINVAL.0);
    for text in ["", "\n", "../a.so", ".so", "a.so@", "a.so@1", "a so", "a.so\n\u{7f}", "a.so\0"] {
        assert_eq!(open(&mut world, root.id(), text), Err(Errno::EINVAL.0), "{text:?}");
    }
    put_text(&world, root.id(), "a.so", 1);
    assert_eq!(world.request(root.id(), operation::LIBRARY, 0).0, Errno::EINVAL.0);
    control.put(guest::NAME_LENGTH, 256);
    assert_eq!(world.request(root.id(), operation::LIBRARY, 0).0, Errno::ENAMETOOLONG.0);
    assert_eq!(world.census(), before);
}

#[test]
fn a_library_that_leaves_the_store_stays_with_who_has_it() {
    let shelf = Shelf::new();
    let file = shelf.add("a.so", 1, |_| ());
    let (mut world, root) = shelf.world();
    shelf.add("b.so", 1, |_| ());
    let other = open(&mut world, root.id(), "b.so").unwrap();
    world.refresh(root.id());
    let before = world.census();
    let library = open(&mut world, root.id(), "a.so").unwrap();
    assert_eq!(map(&mut world, root.id(), library.number, 0, PLACE, 3, 0), 0);
    shelf.remove("a.so");
    world.host().forget_removed_libraries();
    assert_eq!(held(&world), other.pages + 3, "what nobody has is free");
    assert_eq!(map(&mut world, root.id(), library.number, 0, PLACE + 3, 1, 0), Errno::ENOENT.0);
    assert_eq!(open(&mut world, root.id(), "a.so"), Err(Errno::ENOENT.0));
    let child = world.fork(root.id());
    assert_eq!(octets(&world, child, PLACE, 3), file[..3 * PAGE_SIZE]);
    world.unmap(root.id(), PLACE, 3);
    world.refresh(root.id());
    assert_eq!(held(&world), other.pages + 3);
    end(&mut world, child);
    assert_eq!(world.census().0.free_pages, before.0.free_pages);
    // The same file with other rules is another library.
    shelf.add("b.so", 1, |it| it.revoked = true);
    world.host().forget_removed_libraries();
    assert_eq!(held(&world), 0);
}

#[test]
fn a_library_is_let_go_of_with_the_last_family_that_has_opened_it() {
    let (mut world, root) = Shelf::common().world();
    let other = boot(&mut world, "other");
    let one = open(&mut world, root.id(), "a.so@1.0.0").unwrap();
    open(&mut world, root.id(), "a.so").unwrap();
    assert!(open(&mut world, other.id(), "a.so@1.0.0").is_ok());
    world.destroy(root.id());
    world.settle();
    assert_eq!(held(&world), one.pages);
    world.destroy(other.id());
    world.settle();
    assert_eq!(world.family(Kind::Libraries), []);
}

#[test]
fn a_large_library_is_read_in_parts_for_all_who_wait() {
    let shelf = Shelf::new();
    let file = shelf.add("large.so", 1, |_| ());
    let (mut world, root) = shelf.world();
    let other = boot(&mut world, "other");
    let [first, second] = [root.id(), other.id()].map(|domain| {
        put_text(&world, domain, "large.so", 0);
        world.ask(domain, operation::LIBRARY, 0)
    });
    world.engine().act(true, false);
    world.engine().act(false, false);
    assert_eq!(held(&world), 512);
    let is_answered = |world: &World, domain, number| world.control(domain).get(daemon::REPLY) == number;
    assert!(!is_answered(&world, root.id(), first) && !is_answered(&world, other.id(), second));
    world.settle();
    assert!(is_answered(&world, root.id(), first) && is_answered(&world, other.id(), second));
    assert_eq!(opened(&world, root.id()), opened(&world, other.id()));
    let library = opened(&world, root.id());
    assert_eq!((library.file, held(&world)), (file.len(), library.pages));
    for offset in [0, 511, 600, library.pages - 2] {
        assert_eq!(map(&mut world, root.id(), library.number, offset, PLACE, 1, 0), 0);
        let start = offset as usize * PAGE_SIZE;
        let expected = &file[start..file.len().min(start + PAGE_SIZE)];
        assert_eq!(&octets(&world, root.id(), PLACE, 1)[..expected.len()], expected);
    }
}

#[test]
fn who_does_not_wait_for_a_library_does_not_get_it() {
    let shelf = Shelf::new();
    shelf.add("large.so", 1, |_| ());
    shelf.add("a.so", 1, |_| ());
    let (mut world, root) = shelf.world();
    let before = open(&mut world, root.id(), "a.so").unwrap();
    put_text(&world, root.id(), "large.so", 0);
    world.ask(root.id(), operation::LIBRARY, 0);
    world.engine().act(true, false);
    world.engine().act(false, false);
    assert!(held(&world) > before.pages);
    assert_eq!(open(&mut world, root.id(), "a.so"), Ok(before));
    assert_eq!(held(&world), before.pages);
    // The last family ends while the library is read.
    put_text(&world, root.id(), "large.so", 0);
    world.ask(root.id(), operation::LIBRARY, 0);
    world.engine().act(true, false);
    world.destroy(root.id());
    world.settle();
    assert_eq!(world.family(Kind::Libraries), []);
}

#[test]
fn there_is_a_limit_for_the_memory_of_libraries() {
    let shelf = Shelf::new();
    shelf.add("large.so", 1, |_| ());
    shelf.add("a.so", 1, |_| ());
    let mut world = World::new(Config { library_memory_kib: 4 << 10, ..shelf.config() });
    let root = boot(&mut world, "parent");
    assert_eq!(open(&mut world, root.id(), "large.so"), Err(Errno::ENOSPC.0));
    assert!(open(&mut world, root.id(), "a.so").is_ok());
}

#[test]
fn a_daemon_that_starts_anew_reads_anew_and_knows_the_domain() {
    let mut world = World::new(Shelf::common().config());
    let empty = world.census();
    let root = boot(&mut world, "parent");
    let library = open(&mut world, root.id(), "a.so").unwrap();
    assert_eq!(map(&mut world, root.id(), library.number, 0, PLACE, 2, 0), 0);
    let domain = world.family(Kind::Libraries)[0].0;
    world.kill();
    assert_eq!(world.family(Kind::Libraries)[0].0, domain);
    assert_eq!(held(&world), 2, "what is mapped");
    assert_eq!(map(&mut world, root.id(), library.number, 0, PLACE + 2, 1, 0), Errno::ENOENT.0);
    let child = world.fork(root.id());
    assert_eq!(frame(&world, child, PLACE), frame(&world, root.id(), PLACE));
    let again = open(&mut world, child, "a.so").unwrap();
    assert!(again.number != library.number && again.pages == library.pages);
    assert_eq!(map(&mut world, child, again.number, 0, PLACE + 2, 1, 0), 0);
    assert_ne!(frame(&world, child, PLACE + 2), frame(&world, root.id(), PLACE));
    assert_eq!(octets(&world, child, PLACE + 2, 1), octets(&world, root.id(), PLACE, 1));
    // All pVMs have ended when the next daemon comes.
    world.fake.inject(1, Fault::KillBefore);
    world.fake.guest(child).destroy().unwrap();
    world.destroy(root.id());
    assert_eq!(world.census(), empty);
}

#[test]
fn a_domain_that_somebody_destroys_is_made_anew() {
    let (mut world, root) = Shelf::common().world();
    open(&mut world, root.id(), "a.so").unwrap();
    let domain = world.family(Kind::Libraries)[0].0;
    world.fake.guest(domain).destroy().unwrap();
    world.xenstored.domains_changed();
    world.settle();
    assert!(world.host().books.libraries().is_none());
    let library = open(&mut world, root.id(), "a.so").unwrap();
    assert_eq!(map(&mut world, root.id(), library.number, 0, PLACE, 1, 0), 0);
    assert_eq!(world.family(Kind::Libraries).len(), 1);
}

#[test]
fn where_dom0_cannot_write_entries_there_are_no_libraries() {
    let mut world = World::new(Config { backend: BackendChoice::Grant, ..Shelf::common().config() });
    let root = boot(&mut world, "parent");
    for operation in [operation::LIBRARY, operation::MAP_LIBRARY] {
        put_text(&world, root.id(), "a.so", 0);
        assert_eq!(world.request(root.id(), operation, 1).0, Errno::ENOSYS.0);
    }
    put_text(&world, root.id(), "a.so: signature rule: it has no manifest", 0);
    assert_eq!(world.request(root.id(), operation::REFUSED, 1).0, 0, "that can be told all the same");
}

#[test]
fn what_a_guest_refuses_is_told_within_limits() {
    let (mut world, root) = Shelf::common().world();
    let events = events(&mut world);
    let mut tell = |text: &str| {
        put_text(&world, root.id(), text, 0);
        world.request(root.id(), operation::REFUSED, 0).0
    };
    assert_eq!(tell("a.so: version rule: 1.0.0 is revoked"), 0);
    for text in ["", "a.so", "a so: x", ": x", "a.so: \x1b[2J", "a.so: x\ny", "a.so: \u{e9}"] {
        assert_eq!(tell(text), Errno::EINVAL.0, "{text:?}");
    }
    let told = [("parent".to_owned(), "a.so".to_owned(), "version rule: 1.0.0 is revoked".to_owned())];
    assert_eq!(refusals(&mut world, &events), told);
    for _ in 0..40 {
        put_text(&world, root.id(), "a.so: x", 0);
        assert_eq!(world.request(root.id(), operation::REFUSED, 0).0, 0);
    }
    let told = refusals(&mut world, &events).len();
    assert!((9..35).contains(&told), "{told}");
}

#[test]
fn an_image_that_never_forks_gets_no_domain_unasked() {
    let mut world = World::new(Shelf::common().config());
    let root = world.boot("quiet");
    root.control().put(guest::NO_CHILDREN, 1);
    world.settle();
    assert_eq!(world.family(Kind::Prepared), []);
    let child = world.fork(root.id());
    assert_eq!(world.family(Kind::Child)[0].0, child);
    assert_eq!(world.family(Kind::Prepared), []);
}

/// Asks again while the request is refused for a temporary lack.
fn somehow<T>(mut ask: impl FnMut() -> Result<T, u32>) -> T {
    for _ in 0..TRIES {
        match ask() {
            Ok(value) => return value,
            Err(errno) => {
                // A daemon that has started anew does not know the libraries of the earlier one.
                let expected = [Errno::ENOMEM, Errno::EIO, Errno::ENOENT];
                assert!(expected.contains(&Errno(errno)), "{}", Errno(errno));
            }
        }
    }
    panic!("it is refused again and again");
}

/// A library that is opened, mapped, inherited, and mapped by another family, and the end of all,
/// with a fault at one operation; false if that comes after all of these.
fn serving(operation: usize, fault: Fault) -> bool {
    let mut world = World::new(Shelf::common().config());
    let empty = world.census();
    let [root, other] = ["parent", "other"].map(|name| boot(&mut world, name));
    let parent = root.id();
    let operations = world.fake.operations().len();
    world.fake.inject(operation, fault);
    world.fault = Some(operations + operation);
    let context = format!("{fault:?} at {operation}");

    let opens = |world: &mut World, domain, text: &str, place| {
        somehow(|| {
            let library = open(world, domain, text)?;
            match map(world, domain, library.number, 0, place, 2, object_flags::EXECUTE) {
                0 => Ok(()),
                errno => Err(errno),
            }
        });
    };
    opens(&mut world, parent, "a.so", PLACE);
    assert!(fork_somehow(&mut world, &root), "{context}");
    let child = world.family(Kind::Child)[0].0;
    assert_eq!(frame(&world, child, PLACE), frame(&world, parent, PLACE), "{context}");
    opens(&mut world, child, "a.so@1.0.0", PLACE + 2);
    opens(&mut world, other.id(), "a.so", PLACE);
    assert_eq!(octets(&world, other.id(), PLACE, 2), octets(&world, parent, PLACE, 2), "{context}");
    end(&mut world, child);
    let hit = world.fake.operations().len() >= operations + operation;
    for domain in [parent, other.id()] {
        world.destroy(domain);
    }
    assert_eq!(world.census(), empty, "{context}: {}", world.story());
    hit
}

#[test]
fn a_kill_before_any_operation_of_serving_leaves_nothing() {
    everywhere(Fault::KillBefore, 80, serving);
}

#[test]
fn a_kill_after_any_operation_of_serving_leaves_nothing() {
    everywhere(Fault::KillAfter, 80, serving);
}

#[test]
fn any_operation_of_serving_may_find_no_memory() {
    everywhere(Fault::Fail(Errno::ENOMEM), 80, serving);
}
