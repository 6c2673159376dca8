//! Memory that relatives share: the requests of members, and the remains.

use xen_abi::pte::PteFlags;
use xen_abi::{DomId, Errno, Mfn};
use xenctl::fake::Fault;
use zooid_fork_plan::id::Kind;
use zooid_fork_plan::wire::{daemon, device, device_page, guest, members, object_flags, operation};
use zooid_memory::ForkRule;

use super::super::api::{Error, Target};
use super::super::config::{Config, Quota};
use super::faults::{TRIES, everywhere, fork_somehow};
use super::world::{Root, World, heap};

const NEW: u32 = object_flags::CREATE | object_flags::EXCLUSIVE;
/// First page of the DEVICE zone at which guests map objects.
const PLACE: usize = 100;

fn world() -> (World, Root) {
    let mut world = World::new(Config::default());
    let root = boot(&mut world, "parent");
    (world, root)
}

fn boot(world: &mut World, name: &str) -> Root {
    let root = world.boot(name);
    root.control();
    world.settle();
    root
}

/// CREATE: number and pages of the object, and true if it is new; or the error number.
fn create(world: &mut World, domain: DomId, name: &[u8], pages: u32, flags: u32) -> Result<(u32, u32, bool), u32> {
    let control = world.control(domain);
    control.put(guest::OBJECT_PAGES, pages);
    control.put(guest::OBJECT_FLAGS, flags);
    put_name(world, domain, name);
    match world.request(domain, operation::CREATE, 0).0 {
        0 => {
            let [number, pages, new] =
                [daemon::OBJECT, daemon::OBJECT_PAGES, daemon::OBJECT_IS_NEW].map(|field| control.get(field));
            Ok((number, pages, new == 1))
        }
        errno => Err(errno),
    }
}

fn put_name(world: &World, domain: DomId, name: &[u8]) {
    let control = world.control(domain);
    control.put(guest::NAME_LENGTH, name.len() as u32);
    control.put_octets(guest::NAME, name);
}

/// MAP of pages from `offset` on to pages of the DEVICE zone; the error number. The guest counts
/// the change.
fn map(world: &mut World, domain: DomId, object: u32, offset: u32, place: usize, count: u32, flags: u32) -> u32 {
    world.map(domain, operation::MAP, object, offset, place, count, flags)
}

fn unlink(world: &mut World, domain: DomId, name: &[u8]) -> u32 {
    put_name(world, domain, name);
    world.request(domain, operation::UNLINK, 0).0
}

fn frame(world: &World, domain: DomId, place: usize) -> Mfn {
    world.entry(domain, device_page(place)).unwrap().mfn()
}

fn write(world: &World, domain: DomId, place: usize, value: u64) {
    let entry = world.entry(domain, device_page(place)).unwrap();
    assert!(entry.flags().contains(PteFlags::WRITABLE));
    world.fake.guest(domain).write(entry.mfn(), 0, &value.to_le_bytes());
}

fn end(world: &mut World, domain: DomId) {
    world.end(domain);
}

/// The ids in the table of members, as a member reads them, and the number of its changes.
fn table(world: &World, domain: DomId) -> (Vec<u32>, u32) {
    let entry = world.entry(domain, device_page(device::MEMBERS)).expect("the table is mapped");
    assert!(!entry.flags().contains(PteFlags::WRITABLE));
    let page = world.fake.guest(domain).page(entry.mfn());
    let word = |at: usize| u32::from_le_bytes(page[at..at + 4].try_into().unwrap());
    let mut ids: Vec<u32> = (0..members::MAX).map(|number| word(members::IDS + 4 * number)).collect();
    let end = ids.iter().rposition(|id| *id != 0).map_or(0, |last| last + 1);
    ids.truncate(end);
    (ids, word(members::CHANGES))
}

fn id(world: &World, domain: DomId) -> u32 {
    world.control(domain).get(daemon::ID)
}

#[test]
fn a_family_that_shares_nothing_has_no_memory_owner() {
    let (mut world, root) = world();
    assert_eq!(map(&mut world, root.id(), 1, 0, PLACE, 1, 0), Errno::ENOENT.0);
    assert_eq!(unlink(&mut world, root.id(), b"queue"), Errno::ENOENT.0);
    assert_eq!(create(&mut world, root.id(), b"queue", 1, 0), Err(Errno::ENOENT.0));
    assert_eq!(world.request(root.id(), operation::RELAY, 0).0, Errno::ENOENT.0);
    assert_eq!(world.family(Kind::MemoryOwner), []);
    assert_eq!(root.control().get(daemon::MEMBER), 0);
}

#[test]
fn the_memory_owner_is_no_pvm_and_ends_with_the_last_of_its_family() {
    let mut world = World::new(Config::default());
    let empty = world.census();
    let root = boot(&mut world, "parent");
    create(&mut world, root.id(), b"queue", 3, NEW).unwrap();
    let memory_owners = world.family(Kind::MemoryOwner);
    assert_eq!(memory_owners.len(), 1);
    let (memory_owner, handle) = memory_owners[0];
    assert_eq!(handle.parent.raw(), id(&world, root.id()));
    assert_eq!(world.xenstored.nodes()[&format!("/local/domain/{memory_owner}/name")], "parent-memory");
    assert_eq!(world.xenstored.permissions(&format!("/local/domain/{memory_owner}/objects")).as_deref(), Some("n0"));
    assert!(world.pvm(memory_owner).is_none());
    let child = world.fork(root.id());
    world.destroy(root.id());
    world.settle();
    assert_eq!(world.family(Kind::MemoryOwner).len(), 1, "the child lives still");
    assert!(matches!(create(&mut world, child, b"queue", 0, 0), Ok((_, 3, false))));
    end(&mut world, child);
    assert_eq!(world.census(), empty);
}

#[test]
fn relatives_write_to_one_frame() {
    let (mut world, root) = world();
    let (object, pages, new) = create(&mut world, root.id(), b"", 3, 0).unwrap();
    assert_eq!((pages, new), (3, true));
    world.refresh(root.id());
    let before = world.census();
    assert_eq!(map(&mut world, root.id(), object, 0, PLACE, 1, 0), 0);
    assert_eq!(map(&mut world, root.id(), object, 1, PLACE + 1, 2, object_flags::LAST), 0);
    write(&world, root.id(), PLACE, 5);
    let child = world.fork(root.id());
    let grandchild = world.fork(child);
    for (value, domain) in [(6, child), (7, grandchild), (8, root.id())] {
        for page in PLACE..PLACE + 3 {
            let entry = world.entry(domain, device_page(page)).unwrap();
            assert_eq!(entry.mfn(), frame(&world, root.id(), page));
            assert_eq!(ForkRule::of(entry.flags()), ForkRule::Joint);
        }
        write(&world, domain, PLACE, value);
        for reader in [root.id(), child, grandchild] {
            assert_eq!(world.word(reader, device_page(PLACE)), Some(value));
        }
    }
    // The mappings keep the frames.
    world.unmap(root.id(), PLACE, 3);
    world.refresh(root.id());
    assert_eq!(world.word(grandchild, device_page(PLACE)), Some(8));
    end(&mut world, grandchild);
    end(&mut world, child);
    assert_eq!(world.census().0.free_pages, before.0.free_pages);
    assert_eq!(map(&mut world, root.id(), object, 0, PLACE, 1, 0), Errno::ENOENT.0, "it is forgotten");
}

#[test]
fn a_name_leads_to_the_same_object() {
    let (mut world, root) = world();
    let child = world.fork(root.id());
    let name = b"a name, 100% \xff".as_slice();
    let (object, ..) = create(&mut world, root.id(), name, 2, NEW).unwrap();
    let before = world.census();
    assert_eq!(create(&mut world, child, name, 9, object_flags::CREATE), Ok((object, 2, false)));
    assert_eq!(create(&mut world, child, name, 9, 0), Ok((object, 2, false)));
    assert_eq!(create(&mut world, child, name, 2, NEW), Err(Errno::EEXIST.0));
    assert_eq!(map(&mut world, root.id(), object, 0, PLACE, 2, 0), 0);
    assert_eq!(map(&mut world, child, object, 1, PLACE + 7, 1, 0), 0);
    assert_eq!(frame(&world, child, PLACE + 7), frame(&world, root.id(), PLACE + 1));
    assert_eq!(map(&mut world, child, object, 0, PLACE, 1, object_flags::LAST), Errno::EINVAL.0);

    assert_eq!(unlink(&mut world, child, name), 0);
    assert_eq!(unlink(&mut world, child, name), Errno::ENOENT.0);
    assert_eq!(map(&mut world, child, object, 0, PLACE, 1, 0), Errno::ENOENT.0);
    write(&world, root.id(), PLACE + 1, 3);
    assert_eq!(world.word(child, device_page(PLACE + 7)), Some(3));
    let (other, ..) = create(&mut world, child, name, 1, NEW).unwrap();
    assert_ne!(other, object);
    assert_eq!(unlink(&mut world, root.id(), name), 0);
    world.unmap(root.id(), PLACE, 2);
    world.unmap(child, PLACE + 7, 1);
    world.refresh(root.id());
    assert_eq!(world.census().0.free_pages, before.0.free_pages + 2);
    let objects = world.xenstored.nodes().into_keys().filter(|path| path.contains("/objects/")).count();
    assert_eq!(objects, 0);
}

#[test]
fn users_see_names_and_remove_them() {
    let (mut world, root) = world();
    let stranger = boot(&mut world, "stranger");
    for (domain, name, pages) in [(root.id(), &b"two"[..], 2), (root.id(), b"\xff", 1), (stranger.id(), b"two", 3)] {
        create(&mut world, domain, name, pages, NEW).unwrap();
    }
    create(&mut world, root.id(), b"", 1, 0).unwrap();
    let target = Target::Name("parent".into());
    let list = |world: &mut World, target| {
        let list = world.host().list_objects(target).unwrap();
        list.into_iter().map(|object| (object.name, object.pages, object.family)).collect::<Vec<_>>()
    };
    let family = id(&world, root.id());
    assert_eq!(list(&mut world, None).len(), 3);
    assert_eq!(list(&mut world, Some(&target)), [("two".into(), 2, family), ("\u{fffd}".into(), 1, family)]);
    for name in ["two", "\u{fffd}"] {
        world.host().remove_object(&target, name).unwrap();
        assert!(matches!(world.host().remove_object(&target, name), Err(Error::NoSuchObject { .. })));
    }
    assert_eq!(list(&mut world, None).len(), 1);
    assert_eq!(create(&mut world, root.id(), b"two", 1, 0), Err(Errno::ENOENT.0));
}

#[test]
fn a_stranger_gets_nothing() {
    let (mut world, root) = world();
    let stranger = boot(&mut world, "stranger");
    let (object, ..) = create(&mut world, root.id(), b"queue", 1, NEW).unwrap();
    assert_eq!(create(&mut world, stranger.id(), b"queue", 1, 0), Err(Errno::ENOENT.0));
    assert_eq!(map(&mut world, stranger.id(), object, 0, PLACE, 1, 0), Errno::ENOENT.0);
    let (own, ..) = create(&mut world, stranger.id(), b"queue", 2, NEW).unwrap();
    assert_eq!(map(&mut world, stranger.id(), own, 0, PLACE, 2, 0), 0);
    assert_eq!(map(&mut world, root.id(), object, 0, PLACE, 1, 0), 0);
    assert_ne!(frame(&world, stranger.id(), PLACE), frame(&world, root.id(), PLACE));
    // A table of another domain.
    let table = world.table(root.id(), device_page(PLACE), 1);
    let control = stranger.control();
    control.put_u64(guest::MAP_TABLE, table.0);
    assert_eq!(world.request(stranger.id(), operation::MAP, 1).0, Errno::EINVAL.0);
    assert_eq!(unlink(&mut world, stranger.id(), b"queue"), 0);
    assert!(create(&mut world, root.id(), b"queue", 0, 0).is_ok());
}

#[test]
fn an_object_without_a_name_is_its_makers() {
    let (mut world, root) = world();
    let child = world.fork(root.id());
    assert!(create(&mut world, root.id(), b"other", 1, NEW).is_ok());
    let before = world.census();
    let (object, ..) = create(&mut world, child, b"", 4, 0).unwrap();
    assert_eq!(map(&mut world, root.id(), object, 0, PLACE, 1, 0), Errno::ENOENT.0);
    assert_eq!(map(&mut world, child, object, 0, PLACE, 2, 0), 0);
    assert!(world.census().0.free_pages < before.0.free_pages);
    // The object was never finished.
    end(&mut world, child);
    world.refresh(root.id());
    let memory_owner = world.family(Kind::MemoryOwner)[0].0;
    let pages = world.fake.guests().into_iter().find(|info| info.id == memory_owner).unwrap().pages;
    assert_eq!(pages, 2, "the table of members, and the other object");
}

#[test]
fn what_makes_no_sense_is_refused_and_costs_nothing() {
    let (mut world, root) = world();
    let (object, ..) = create(&mut world, root.id(), b"queue", 2, NEW).unwrap();
    world.refresh(root.id());
    let before = world.census();
    let einval = Errno::EINVAL.0;
    let long = [b'x'; 255];
    for (name, pages, flags, errno) in [
        (&b""[..], 0, 0, einval),
        (b"new", 0, NEW, einval),
        (b"new", 1, 4, einval),
        (b"new", 1, u32::MAX, einval),
        (b"a/b", 1, NEW, einval),
        (b"a\0b", 1, NEW, einval),
        (b"new", 65_537, NEW, Errno::ENOSPC.0),
        (b"", u32::MAX, 0, Errno::ENOSPC.0),
        (b"new", 60_000, NEW, Errno::ENOMEM.0),
    ] {
        assert_eq!(create(&mut world, root.id(), name, pages, flags), Err(errno), "{name:?} {pages} {flags}");
    }
    for length in [256, u32::MAX] {
        root.control().put(guest::NAME_LENGTH, length);
        for operation in [operation::CREATE, operation::UNLINK] {
            assert_eq!(world.request(root.id(), operation, 0).0, Errno::ENAMETOOLONG.0);
        }
    }
    assert_eq!(unlink(&mut world, root.id(), b""), einval);
    for (offset, count, flags) in
        [(0, 0, 0), (0, 3, 0), (1, 2, 0), (2, 1, 0), (u32::MAX, 1, 0), (0, 513, 0), (0, u32::MAX, 0), (0, 1, 1)]
    {
        assert_eq!(map(&mut world, root.id(), object, offset, PLACE, count, flags), einval, "{offset} {count} {flags}");
    }
    let control = root.control();
    for (table, index, count) in [
        (world.table(root.id(), device_page(PLACE), 1).0, 511, 2),
        (world.table(root.id(), device_page(PLACE), 1).0, 512, 1),
        (world.table(root.id(), device_page(PLACE), 1).0, u32::MAX, 1),
        // A table of level 2, to which no frame of others fits; no frame; no number of a frame.
        (world.table(root.id(), device_page(PLACE), 2).0, 500, 1),
        (0, 0, 1),
        (u64::MAX, 0, 1),
    ] {
        control.put_u64(guest::MAP_TABLE, table);
        control.put(guest::MAP_INDEX, index);
        control.put(guest::OBJECT, object);
        control.put(guest::OBJECT_OFFSET, 0);
        control.put(guest::OBJECT_FLAGS, 0);
        assert_eq!(world.request(root.id(), operation::MAP, count).0, einval, "{table:#x} {index} {count}");
    }
    for member in [1, 1022, u32::MAX] {
        control.put(guest::OBJECT, member);
        assert_eq!(world.request(root.id(), operation::RELAY, 0).0, Errno::ENOENT.0);
    }
    assert_eq!(world.census(), before);
    assert!(create(&mut world, root.id(), &long, 1, NEW).is_ok());
}

#[test]
fn what_was_mapped_before_xen_refused_is_unmapped() {
    let (mut world, root) = world();
    let (object, ..) = create(&mut world, root.id(), b"queue", 2, NEW).unwrap();
    assert_eq!(map(&mut world, root.id(), object, 0, PLACE, 1, 0), 0);
    let mapped = frame(&world, root.id(), PLACE);
    // The second frame is not the memory owner's any more.
    let root_id = world.id_of(root.id());
    let memory_owner = world.host().books.memory_owner_mut(root_id).unwrap();
    memory_owner.objects.get_mut(&object).unwrap().frames = vec![mapped, Mfn(0x77_7777)];
    world.refresh(root.id());
    let before = world.census();
    assert_eq!(map(&mut world, root.id(), object, 0, PLACE + 1, 2, 0), Errno::EINVAL.0);
    assert_eq!(world.entry(root.id(), device_page(PLACE + 1)), None);
    assert_eq!(world.census(), before);
}

#[test]
fn members_have_numbers_and_are_told_of_ends() {
    let (mut world, root) = world();
    let stranger = world.fork(root.id());
    create(&mut world, root.id(), b"queue", 1, NEW).unwrap();
    let [first, second] = [0, 0].map(|_| world.fork(root.id()));
    let number = |world: &World, domain| world.control(domain).get(daemon::MEMBER);
    assert_eq!([root.id(), first, second, stranger].map(|domain| number(&world, domain)), [1, 2, 3, 0]);
    let ids = [root.id(), first, second].map(|domain| id(&world, domain));
    assert_eq!(table(&world, root.id()), (ids.to_vec(), 3));
    assert_eq!(table(&world, second), table(&world, root.id()));
    // An older pVM becomes a member by its request.
    assert!(create(&mut world, stranger, b"queue", 1, 0).is_ok());
    assert_eq!((number(&world, stranger), table(&world, stranger).0.len()), (4, 4));

    let news = |world: &World, domain| world.control(domain).get(daemon::NEWS);
    world.control(second).put(guest::INTEREST, 1);
    let _ = world.fake.guest(second).take_events();
    end(&mut world, first);
    assert_eq!(table(&world, second), (vec![ids[0], 0, ids[2], id(&world, stranger)], 5));
    assert_eq!([root.id(), second].map(|domain| news(&world, domain)), [0, 1]);
    assert!(!world.fake.guest(second).take_events().is_empty());
    // A number that became free a moment ago is not given out.
    let third = world.fork(second);
    assert_eq!(number(&world, third), 5);
    // Members wake each other.
    let control = world.control(third);
    control.put(guest::OBJECT, 0);
    assert_eq!(world.request(third, operation::RELAY, 0).0, 0);
    assert_eq!(news(&world, root.id()), 1);
}

#[test]
fn what_was_prepared_before_there_was_a_memory_owner_is_kept() {
    let (mut world, root) = world();
    let prepared = world.family(Kind::Prepared)[0].0;
    let (object, ..) = create(&mut world, root.id(), b"", 1, 0).unwrap();
    assert_eq!(map(&mut world, root.id(), object, 0, PLACE, 1, object_flags::LAST), 0);
    // Entries that the daemon itself has written are linked while the parent stands still, which a
    // COMMIT does not do.
    world.refresh(root.id());
    let (errno, _) = world.request(root.id(), operation::COMMIT, 1);
    assert_eq!(errno, 0);
    assert_eq!(world.family(Kind::Child)[0].0, prepared);
    assert_eq!(frame(&world, prepared, PLACE), frame(&world, root.id(), PLACE));
    assert_eq!(table(&world, prepared).0.len(), 2);
}

#[test]
fn a_daemon_that_starts_anew_knows_names_and_members() {
    let (mut world, root) = world();
    let (object, ..) = create(&mut world, root.id(), b"queue", 600, NEW).unwrap();
    let (gone, ..) = create(&mut world, root.id(), b"", 1, 0).unwrap();
    assert_eq!(map(&mut world, root.id(), object, 599, PLACE, 1, 0), 0);
    let child = world.fork(root.id());
    let other = world.fork(root.id());
    world.control(child).put(guest::INTEREST, 1);
    let before = table(&world, root.id());
    world.kill();
    assert_eq!(table(&world, root.id()), before);
    assert_eq!(world.family(Kind::MemoryOwner).len(), 1);
    assert_eq!(create(&mut world, child, b"queue", 1, object_flags::CREATE), Ok((object, 600, false)));
    assert_eq!(map(&mut world, child, object, 599, PLACE + 1, 1, 0), 0);
    assert_eq!(frame(&world, child, PLACE + 1), frame(&world, root.id(), PLACE));
    assert_eq!(map(&mut world, root.id(), gone, 0, PLACE, 1, 0), Errno::ENOENT.0);
    assert_eq!(world.control(child).get(daemon::MEMBER), 2);
    let grandchild = world.fork(child);
    assert_eq!(world.control(grandchild).get(daemon::MEMBER), 4);
    // A member ends while there is no daemon.
    world.fake.inject(1, Fault::KillBefore);
    world.fake.guest(other).destroy().unwrap();
    world.settle();
    assert_eq!(table(&world, child).0[2], 0);
    assert_eq!(world.control(child).get(daemon::NEWS), 1);
    assert_eq!(unlink(&mut world, child, b"queue"), 0);
    world.kill();
    assert_eq!(create(&mut world, child, b"queue", 1, 0), Err(Errno::ENOENT.0));
}

#[test]
fn a_memory_owner_whose_family_ended_meanwhile_is_removed() {
    let mut world = World::new(Config::default());
    let empty = world.census();
    let root = boot(&mut world, "parent");
    create(&mut world, root.id(), b"queue", 3, NEW).unwrap();
    world.fake.inject(1, Fault::KillBefore);
    world.destroy(root.id());
    assert_eq!(world.census(), empty);
}

#[test]
fn a_memory_owner_that_somebody_destroys_is_made_anew() {
    let (mut world, root) = world();
    create(&mut world, root.id(), b"queue", 3, NEW).unwrap();
    let memory_owner = world.family(Kind::MemoryOwner)[0].0;
    world.fake.guest(memory_owner).destroy().unwrap();
    world.xenstored.domains_changed();
    world.settle();
    assert!(world.host().books.families().all(|(_, family)| family.memory_owner.is_none()));
    assert!(matches!(create(&mut world, root.id(), b"queue", 1, NEW), Ok((_, 1, true))));
    assert_eq!(table(&world, root.id()).0, [id(&world, root.id())]);
}

#[test]
fn shared_memory_counts_for_the_family() {
    let family = Quota { memory_kib: 8 << 10, ..Config::default().family };
    let mut world = World::new(Config { family, ..Config::default() });
    let root = boot(&mut world, "parent");
    assert_eq!(create(&mut world, root.id(), b"large", 2048, NEW), Err(Errno::ENOSPC.0));
    assert_eq!(world.family(Kind::MemoryOwner), [], "for nothing there is no memory owner");
    assert!(create(&mut world, root.id(), b"first", 700, NEW).is_ok());
    assert!(create(&mut world, root.id(), b"second", 700, NEW).is_ok());
    assert_eq!(create(&mut world, root.id(), b"third", 700, NEW), Err(Errno::ENOSPC.0));
    assert_eq!(unlink(&mut world, root.id(), b"first"), 0);
    assert!(create(&mut world, root.id(), b"third", 700, NEW).is_ok());
}

#[test]
fn a_family_has_so_many_objects_and_no_more() {
    let (mut world, root) = world();
    let root_id = {
        create(&mut world, root.id(), b"first", 1, NEW).unwrap();
        world.id_of(root.id())
    };
    // Making them all takes long.
    let memory_owner = world.host().books.memory_owner_mut(root_id).unwrap();
    let object = memory_owner.objects.values().next().unwrap().clone();
    for number in 0..1023 {
        memory_owner.objects.insert(number, super::super::memory_owner::Object { name: vec![b'x'], ..object.clone() });
    }
    assert_eq!(create(&mut world, root.id(), b"more", 1, NEW), Err(Errno::EMFILE.0));
}

/// Pages that the only memory owner has.
fn held(world: &World) -> u64 {
    let memory_owner = world.family(Kind::MemoryOwner)[0].0;
    world.fake.guests().into_iter().find(|info| info.id == memory_owner).unwrap().pages
}

/// CREATE, which may be answered later.
fn ask_to_create(world: &World, domain: DomId, name: &[u8], pages: u32) -> u32 {
    let control = world.control(domain);
    control.put(guest::OBJECT_PAGES, pages);
    control.put(guest::OBJECT_FLAGS, object_flags::CREATE);
    put_name(world, domain, name);
    world.ask(domain, operation::CREATE, 0)
}

fn is_answered(world: &World, domain: DomId, number: u32) -> bool {
    world.control(domain).get(daemon::REPLY) == number
}

#[test]
fn a_large_object_is_made_in_steps_and_others_are_served_meanwhile() {
    let (mut world, root) = world();
    let child = world.fork(root.id());
    let other = boot(&mut world, "other");
    let large = ask_to_create(&world, root.id(), b"large", 2000);
    world.engine().act(true, false);
    assert!(!is_answered(&world, root.id(), large));
    assert_eq!(held(&world), 1 + 512);
    let small = ask_to_create(&world, other.id(), b"small", 1);
    let same = ask_to_create(&world, child, b"large", 2000);
    world.engine().act(true, false);
    assert!(is_answered(&world, other.id(), small), "another family does not wait");
    assert!(!is_answered(&world, root.id(), large) && !is_answered(&world, child, same));
    world.settle();
    let answers = [root.id(), child].map(|domain| {
        let control = world.control(domain);
        assert_eq!(control.get(daemon::ERRNO), 0);
        [daemon::OBJECT, daemon::OBJECT_PAGES, daemon::OBJECT_IS_NEW].map(|field| control.get(field))
    });
    assert_eq!((answers[0][1], answers[0][2]), (2000, 1));
    assert_eq!(answers[1], [answers[0][0], 2000, 0], "it is made once");
    for domain in [root.id(), child] {
        assert_eq!(map(&mut world, domain, answers[0][0], 1999, PLACE, 1, 0), 0);
    }
    write(&world, root.id(), PLACE, 3);
    assert_eq!(world.word(child, device_page(PLACE)), Some(3));
}

#[test]
fn a_daemon_that_starts_anew_makes_a_large_object_from_the_start() {
    let (mut world, root) = world();
    assert!(create(&mut world, root.id(), b"other", 1, NEW).is_ok());
    let before = (held(&world), world.xenstored.nodes().len());
    let large = ask_to_create(&world, root.id(), b"large", 2000);
    world.engine().act(true, false);
    assert_eq!(held(&world), before.0 + 512);
    world.kill();
    assert!(is_answered(&world, root.id(), large));
    assert_eq!(held(&world), before.0 + 2000);
    assert_eq!(unlink(&mut world, root.id(), b"large"), 0);
    assert_eq!((held(&world), world.xenstored.nodes().len() - 1), before, "one node says which UNLINK was the last");
}

#[test]
fn who_does_not_wait_for_a_large_object_does_not_get_it() {
    let (mut world, root) = world();
    let child = world.fork(root.id());
    assert!(create(&mut world, root.id(), b"other", 1, NEW).is_ok());
    let before = (held(&world), world.xenstored.nodes().len());
    for ends in [false, true] {
        ask_to_create(&world, child, b"large", 2000);
        world.engine().act(true, false);
        assert_eq!(held(&world), before.0 + 512);
        if ends {
            end(&mut world, child);
        } else {
            assert_eq!(world.request(child, operation::RELAY, 0).0, 0);
            assert_eq!((held(&world), world.xenstored.nodes().len()), before);
        }
    }
    assert_eq!(held(&world), before.0);
    // The family ends, and with it the unfinished object.
    ask_to_create(&world, root.id(), b"large", 2000);
    world.engine().act(true, false);
    end(&mut world, root.id());
    assert_eq!(world.family(Kind::MemoryOwner), []);
}

#[test]
fn an_object_without_a_name_has_no_frames_but_those_that_are_mapped() {
    let (mut world, root) = world();
    let (object, ..) = create(&mut world, root.id(), b"", 4, 0).unwrap();
    assert_eq!(held(&world), 1);
    assert_eq!(map(&mut world, root.id(), object, 0, PLACE, 2, 0), 0);
    for (offset, count) in [(0, 1), (1, 1), (3, 1), (2, 3)] {
        assert_eq!(map(&mut world, root.id(), object, offset, PLACE + 2, count, 0), Errno::EINVAL.0);
    }
    assert_eq!(held(&world), 3);
    // No later daemon can finish it.
    world.kill();
    assert_eq!(map(&mut world, root.id(), object, 2, PLACE + 2, 2, object_flags::LAST), Errno::ENOENT.0);
    world.unmap(root.id(), PLACE, 2);
    world.refresh(root.id());
    assert_eq!(held(&world), 1, "the table of members");
}

#[test]
fn who_asks_without_end_waits_for_others() {
    let (mut world, root) = world();
    let child = world.fork(root.id());
    let other = boot(&mut world, "other");
    for domain in [root.id(), child, other.id()] {
        assert!(create(&mut world, domain, b"queue", 1, object_flags::CREATE).is_ok());
    }
    // The family has used more than its share.
    let family = world.id_of(root.id());
    world.host().books.family_mut(family).unwrap().share.left = -0.02;
    let storm = [root.id(), child].map(|domain| {
        world.control(domain).put(guest::OBJECT, 0);
        (domain, world.ask(domain, operation::RELAY, 0))
    });
    world.control(other.id()).put(guest::OBJECT, 0);
    let honest = world.ask(other.id(), operation::RELAY, 0);
    world.engine().act(true, false);
    assert!(is_answered(&world, other.id(), honest));
    let answered = |world: &World| storm.iter().filter(|(domain, number)| is_answered(world, *domain, *number)).count();
    assert_eq!(answered(&world), 0);
    // The requests wait, and are answered all the same.
    world.host().rest.end();
    while answered(&world) < 2 {
        world.engine().act(false, false);
    }
    // A guest that does not wait for its answers is in the list once.
    for _ in 0..3 {
        world.ask(root.id(), operation::RELAY, 0);
        world.host().books.family_mut(family).unwrap().share.left = -0.02;
        let id = world.id_of(root.id());
        world.host().look_at(id);
    }
    assert_eq!(world.host().books.family(family).unwrap().share.waiting.len(), 1);
}

/// Asks again while the request is refused for a temporary lack.
fn somehow<T>(mut ask: impl FnMut() -> Result<T, u32>) -> T {
    for _ in 0..TRIES {
        match ask() {
            Ok(value) => return value,
            Err(errno) => assert!([Errno::ENOMEM.0, Errno::EIO.0].contains(&errno), "{}", Errno(errno)),
        }
    }
    panic!("it is refused again and again");
}

fn done(errno: u32) -> Result<(), u32> {
    if errno == 0 { Ok(()) } else { Err(errno) }
}

/// A named object and one without a name, a fork, the removal of the name, and the end of all, with
/// a fault at one operation; false if that comes after all of these.
fn sharing(operation: usize, fault: Fault) -> bool {
    let mut world = World::new(Config::default());
    let empty = world.census();
    let root = boot(&mut world, "parent");
    let parent = root.id();
    let operations = world.fake.operations().len();
    world.fake.inject(operation, fault);
    world.fault = Some(operations + operation);
    let context = format!("{fault:?} at {operation}");

    let (object, pages, new) = somehow(|| create(&mut world, parent, b"queue", 2, NEW));
    assert_eq!((pages, new), (2, true), "{context}");
    somehow(|| done(map(&mut world, parent, object, 0, PLACE, 2, 0)));
    // A daemon that has started anew does not know it any more.
    while let Err(errno) = {
        let (pipe, ..) = somehow(|| create(&mut world, parent, b"", 1, 0));
        done(map(&mut world, parent, pipe, 0, PLACE + 2, 1, object_flags::LAST))
    } {
        assert!([Errno::ENOENT.0, Errno::ENOMEM.0, Errno::EIO.0].contains(&errno), "{context}: {}", Errno(errno));
    }
    assert!(fork_somehow(&mut world, &root), "{context}");
    let child = world.family(Kind::Child)[0].0;
    assert_eq!(world.word(child, heap(1)), Some(heap(1) as u64));
    for place in PLACE..PLACE + 3 {
        write(&world, child, place, place as u64);
        assert_eq!(world.word(parent, device_page(place)), Some(place as u64), "{context}");
    }
    let member = world.control(child).get(daemon::MEMBER);
    assert_eq!(member, 2, "{context}");
    assert_eq!(table(&world, child).0, [parent, child].map(|domain| id(&world, domain)), "{context}");
    assert_eq!(somehow(|| create(&mut world, child, b"queue", 2, 0)), (object, 2, false), "{context}");
    somehow(|| done(unlink(&mut world, child, b"queue")));
    assert_eq!(create(&mut world, child, b"queue", 2, 0), Err(Errno::ENOENT.0), "{context}");
    end(&mut world, child);
    let hit = world.fake.operations().len() >= operations + operation;
    world.destroy(parent);
    assert_eq!(world.census(), empty, "{context}: {}", world.story());
    hit
}

#[test]
fn a_kill_before_any_operation_of_sharing_leaves_nothing() {
    everywhere(Fault::KillBefore, 100, sharing);
}

#[test]
fn a_kill_after_any_operation_of_sharing_leaves_nothing() {
    everywhere(Fault::KillAfter, 100, sharing);
}

#[test]
fn any_operation_of_sharing_may_find_no_memory() {
    everywhere(Fault::Fail(Errno::ENOMEM), 100, sharing);
}
