//! The effects of a fork, and its remains.

use xen_abi::pte::{Pte, PteFlags};
use xen_abi::xen::MmuUpdate;
use xen_abi::{Errno, Pfn};
use zooid_fork_plan::id::Kind;
use zooid_fork_plan::plan::{L1_SPAN, TABLE_FLAGS, index, window};
use zooid_fork_plan::status::Status;
use zooid_fork_plan::wire::{EARLY_PAGES, ESTALE, daemon, device, device_page, guest, operation};
use zooid_memory::{ForkRule, PageClass};

use super::super::config::{Config, Quota};
use super::world::{Control, DATA_PAGES, HEAP_PAGES, Root, World, data, heap, text};

fn world() -> (World, Root) {
    let mut world = World::new(Config::default());
    let root = world.boot("parent");
    root.control();
    world.settle();
    (world, root)
}

#[test]
fn a_root_that_announces_itself_gets_a_prepared_domain() {
    let (mut world, root) = world();
    let prepared = world.family(Kind::Prepared);
    assert_eq!(prepared.len(), 1);
    assert_eq!(root.control().get(daemon::READY), 1);
    assert_eq!(prepared[0].1.parent.raw(), root.control().get(daemon::ID));
    assert_eq!(prepared[0].1.parent.domain(), root.id());
    let name = format!("/local/domain/{}/name", prepared[0].0);
    assert_eq!(world.xenstored.nodes()[&name], format!("parent-{}", prepared[0].1.id));
    assert_eq!(world.host().books.len(), 1, "it is no pVM yet");
}

#[test]
fn a_child_reads_its_parents_frames_and_has_its_own_of_the_rest() {
    let (mut world, root) = world();
    let child = world.fork(root.id());
    let pages = (0..HEAP_PAGES).map(heap).chain((0..4).map(text));
    for address in pages {
        let (parents, childs) = (world.entry(root.id(), address).unwrap(), world.entry(child, address).unwrap());
        assert_eq!(parents.mfn(), childs.mfn());
        assert!(!childs.flags().contains(PteFlags::WRITABLE));
        assert_eq!(childs.flags().contains(PteFlags::NO_EXECUTE), parents.flags().contains(PteFlags::NO_EXECUTE));
        assert_eq!(world.word(child, address), Some(address as u64));
    }
    for address in (0..DATA_PAGES).map(data).chain([device_page(device::CONTROL), device_page(device::CONSOLE)]) {
        let (parents, childs) = (world.entry(root.id(), address).unwrap(), world.entry(child, address).unwrap());
        assert_ne!(parents.mfn(), childs.mfn());
        assert!(childs.flags().contains(PteFlags::WRITABLE));
    }
    let control = Control::of(&world.fake.guest(child)).unwrap();
    assert_eq!(control.get(daemon::PARENT), root.control().get(daemon::ID));
    assert_eq!(control.get(daemon::ROOT), root.control().get(daemon::ID));
}

#[test]
fn ends_are_told_and_nothing_is_left() {
    let mut world = World::new(Config::default());
    let empty = world.census();
    let root = world.boot("parent");
    root.control();
    let before = world.census();
    world.children_end = Some(Status::Exited(7));
    for _ in 0..3 {
        let child = world.fork(root.id());
        let (ended, status) = *world.ends[&root.id()].last().unwrap();
        assert_eq!(((ended & 0x7fff) as u16, status), (child.0, Status::Exited(7)));
        assert_eq!(world.census(), before);
    }
    assert_eq!(root.control().get(daemon::UNSHARED), world.replies[&root.id()].last().unwrap().0);
    world.destroy(root.id());
    assert_eq!(world.census(), empty);
}

#[test]
fn what_the_parent_copied_is_followed() {
    let (mut world, root) = world();
    let first = world.fork(root.id());
    // The parent writes two pages after the fork: it has copies now, and the child the old frames.
    let copies = root.guest.populate_physmap(&[Pfn(900), Pfn(901)]).unwrap();
    for (page, copy) in copies.iter().enumerate() {
        let old = world.entry(root.id(), heap(page)).unwrap().mfn();
        root.guest.write(*copy, 0, &7_u64.to_le_bytes());
        set(&world, &root, heap(page), Pte::new(*copy, PageClass::Heap.pte_flags()));
        assert_eq!(root.guest.decrease_reservation(&[old]), 1);
    }
    let (errno, children) = world.request(root.id(), operation::COMMIT, 1);
    assert_eq!(errno, 0, "it is relinked in place");
    let second = xen_abi::DomId((children[0] & 0x7fff) as u16);
    for page in 0..HEAP_PAGES {
        let expected = if page < 2 { 7 } else { heap(page) as u64 };
        assert_eq!(world.word(second, heap(page)), Some(expected));
        assert_eq!(world.word(first, heap(page)), Some(heap(page) as u64));
    }
}

#[test]
fn what_a_child_wrote_early_is_passed_to_its_parent() {
    let (mut world, root) = world();
    assert_eq!(root.control().get(daemon::EARLY_NUMBER), 0);
    for (number, said) in [3_u32, u32::MAX].into_iter().enumerate() {
        let child = world.family(Kind::Prepared)[0].0;
        let control = Control::of(&world.fake.guest(child)).unwrap();
        (0..EARLY_PAGES as u32).for_each(|at| control.put(guest::EARLY + 4 * at as usize, 7 + at));
        // A count beyond the room in the page is a lie.
        control.put(guest::EARLY_COUNT, said);
        assert_eq!(world.fork(root.id()), child);
        assert_eq!(root.control().get(daemon::EARLY_NUMBER), number as u32 + 1);
        let count = root.control().get(daemon::EARLY_COUNT);
        assert_eq!(count, said.min(EARLY_PAGES as u32));
        (0..count).for_each(|at| assert_eq!(root.control().get(daemon::EARLY + 4 * at as usize), 7 + at));
    }
}

#[test]
fn a_page_that_becomes_eager_is_the_childs_own() {
    let (mut world, root) = world();
    let eager = world.entry(root.id(), heap(1)).unwrap();
    let private = PageClass::Heap.protection().pte_flags() | ForkRule::Private.pte_flags();
    set(&world, &root, heap(1), Pte::new(eager.mfn(), private));
    let (errno, children) = world.request(root.id(), operation::COMMIT, 1);
    assert_eq!(errno, 0, "it is relinked in place");
    let child = xen_abi::DomId((children[0] & 0x7fff) as u16);
    let childs = world.entry(child, heap(1)).unwrap();
    assert_ne!(childs.mfn(), eager.mfn());
    assert_eq!(childs.flags().intersection(private), private);
    // And back.
    set(&world, &root, heap(1), eager);
    let child = world.fork(root.id());
    assert_eq!(world.entry(child, heap(1)).unwrap().mfn(), eager.mfn());
}

/// Sets an entry of a root's own tables, and counts the change.
fn set(world: &World, root: &Root, address: usize, entry: Pte) {
    let table = world.table(root.id(), address, 1);
    let update = MmuUpdate::pte(table.addr() + index(address, 1) as u64 * 8, entry);
    root.guest.mmu_update(&[update]).1.unwrap();
    root.control().count(guest::changes(address));
}

#[test]
fn tables_that_came_are_followed() {
    let (mut world, root) = world();
    // The parent's heap grows beyond its table of level 1.
    let frames = root.guest.populate_physmap(&[Pfn(900), Pfn(901)]).unwrap();
    let address = heap(0) + L1_SPAN;
    let read_only = Pte::new(frames[0], PageClass::PageTable.pte_flags());
    set(&world, &root, window(Pfn(0)) + 511 * 4096, read_only);
    let above = world.table(root.id(), address, 2);
    let enter = MmuUpdate::pte(above.addr() + index(address, 2) as u64 * 8, Pte::new(frames[0], TABLE_FLAGS));
    root.guest.mmu_update(&[enter]).1.unwrap();
    root.control().count(guest::TABLES);
    set(&world, &root, address, Pte::new(frames[1], PageClass::Heap.pte_flags()));
    root.guest.write(frames[1], 0, &5_u64.to_le_bytes());
    assert_eq!(world.request(root.id(), operation::COMMIT, 1).0, ESTALE);
    let child = world.fork(root.id());
    assert_eq!(world.word(child, address), Some(5));
    assert_eq!(world.word(child, heap(3)), Some(heap(3) as u64));
}

#[test]
fn a_child_forks_and_its_child_reads_frames_of_both() {
    let (mut world, root) = world();
    let child = world.fork(root.id());
    let guest = world.fake.guest(child);
    // The child writes a page: it has a copy of its own.
    let copy = guest.populate_physmap(&[Pfn(900)]).unwrap()[0];
    guest.write(copy, 0, &9_u64.to_le_bytes());
    let table = world.table(child, heap(1), 1);
    let entry = Pte::new(copy, PageClass::Heap.pte_flags());
    guest.mmu_update(&[MmuUpdate::pte(table.addr() + index(heap(1), 1) as u64 * 8, entry)]).1.unwrap();

    let grandchild = world.fork(child);
    assert_eq!(world.word(grandchild, heap(1)), Some(9));
    assert_eq!(world.entry(grandchild, heap(2)).unwrap().mfn(), world.entry(root.id(), heap(2)).unwrap().mfn());
    let control = Control::of(&world.fake.guest(grandchild)).unwrap();
    assert_eq!(control.get(daemon::ROOT), root.control().get(daemon::ID));

    // The middle of the chain ends: the grandchild reads on, and is the root's now.
    Control::of(&guest).unwrap().end(Status::Exited(0));
    world.settle();
    assert_eq!(control.get(daemon::PARENT), root.control().get(daemon::ID));
    assert_eq!(world.word(grandchild, heap(1)), Some(9));
    let great = world.fork(grandchild);
    assert_eq!(world.word(great, heap(1)), Some(9), "a frame of one that has ended is shared still");
    // The root ends: the survivors have no parent any more.
    world.destroy(root.id());
    world.settle();
    assert_eq!(Control::of(&world.fake.guest(grandchild)).unwrap().get(daemon::PARENT), 0);
    assert_eq!(world.word(great, heap(5)), Some(heap(5) as u64));
}

#[test]
fn several_children_of_one_call() {
    let (mut world, root) = world();
    assert_eq!(world.request(root.id(), operation::COMMIT, 3).0, ESTALE, "one is prepared");
    assert_eq!(world.request(root.id(), operation::PREPARE, 3).0, 0);
    let (errno, children) = world.request(root.id(), operation::COMMIT, 3);
    assert_eq!((errno, children.len()), (0, 3));
    let index = |id: &u32| {
        let guest = world.fake.guest(xen_abi::DomId((id & 0x7fff) as u16));
        Control::of(&guest).unwrap().get(daemon::INDEX)
    };
    assert_eq!(children.iter().map(index).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn quotas_are_kept() {
    let family = Quota { pvms: 3, ..Config::default().family };
    let mut world = World::new(Config { family, ..Config::default() });
    let root = world.boot("parent");
    root.control();
    world.settle();
    world.fork(root.id());
    let (errno, _) = world.request(root.id(), operation::PREPARE, 2);
    assert_eq!(errno, Errno::EAGAIN.0);
    let (errno, _) = world.request(root.id(), operation::COMMIT, 1);
    assert_eq!(errno, 0, "the one that is prepared counts already");
    let (errno, _) = world.request(root.id(), operation::PREPARE, 1);
    assert_eq!(errno, Errno::EAGAIN.0);
}

#[test]
fn nonsense_is_refused() {
    let (mut world, root) = world();
    for count in [0, 257, u32::MAX] {
        for operation in [operation::PREPARE, operation::COMMIT] {
            assert_eq!(world.request(root.id(), operation, count).0, Errno::EINVAL.0);
        }
    }
    assert_eq!(world.request(root.id(), 77, 1).0, Errno::ENOSYS.0);
    world.fork(root.id());
}
