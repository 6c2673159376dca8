//! Effects that no guest, and no order of events, may have. Each test shows a way to one that was
//! once open.

use std::sync::{Arc, Weak, mpsc};
use std::time::{Duration, Instant};

use xen_abi::pte::{Pte, PteFlags};
use xen_abi::xen::MmuUpdate;
use xen_abi::{DomId, Errno, GrantRef, Mfn, Pfn};
use xenctl::Hypervisor;
use xenctl::fake::Fault;
use zooid_fork_plan::id::Kind;
use zooid_fork_plan::plan::index;
use zooid_fork_plan::wire::{
    self, ENDED_SLOTS, daemon, device, device_page, directory, guest, object_flags, operation, state,
};
use zooid_memory::PageClass;

use super::super::api::{Command, Error, EventKind, Target};
use super::super::books::Pending;
use super::super::config::{Announce, ChildVif, Config, Quota};
use super::super::grant_backend::Sources;
use super::world::{Root, World, heap};

fn boot(world: &mut World, name: &str) -> Root {
    let root = world.boot(name);
    root.control();
    world.settle();
    root
}

fn have_children(world: &mut World, parent: DomId, count: usize) -> Vec<DomId> {
    assert_eq!(world.request(parent, operation::PREPARE, count as u32).0, 0);
    let (errno, children) = world.request(parent, operation::COMMIT, count as u32);
    assert_eq!((errno, children.len()), (0, count));
    children.into_iter().map(domain).collect()
}

fn domain(id: u32) -> DomId {
    DomId((id & 0x7fff) as u16)
}

/// A guest takes one of its tables of level 1, which the daemon has mapped and goes on to read, out
/// of its tree, and writes an entry there.
fn forge(world: &World, domain: DomId, place: usize, entry: Pte) -> Mfn {
    let guest = world.fake.guest(domain);
    let (l1, l2) = (world.table(domain, heap(0), 1), world.table(domain, heap(0), 2));
    let clear = MmuUpdate::pte(l2.addr() + index(heap(0), 2) as u64 * 8, Pte::ABSENT);
    guest.mmu_update(&[clear]).1.unwrap();
    guest.write(l1, place * 8, &entry.0.to_le_bytes());
    world.control(domain).count(guest::changes(heap(0)));
    l1
}

/// The entry of a child of `parent` at `address`, if there is a child: a parent with false tables
/// gets none.
fn child_entry(world: &mut World, parent: DomId, address: usize) -> Option<Pte> {
    let _ = world.request(parent, operation::PREPARE, 1);
    let (_, children) = world.request(parent, operation::COMMIT, 1);
    world.entry(domain(*children.first()?), address)
}

#[test]
fn a_parent_and_its_child_end_while_a_commit_waits_for_the_child() {
    let mut world = World::new(Config::default());
    let root = boot(&mut world, "parent");
    assert_eq!(world.request(root.id(), operation::PREPARE, 2).0, 0);
    // From here on the engine alone acts: the child does not say that it runs.
    world.ask(root.id(), operation::COMMIT, 1);
    world.run_engine();
    let child = world.family(Kind::Child)[0].0;
    assert!(world.pvm(child).is_some(), "booked");
    // The second COMMIT waits for the child.
    world.ask(root.id(), operation::COMMIT, 1);
    world.engine().act(true, false);
    assert_eq!(world.pvm(root.id()).unwrap().pending, Some(Pending::Commit(1)));
    world.say_end(child);
    world.engine().act(true, false);
    world.say_end(root.id());
    world.run_engine();
    assert!(world.pvm(child).is_none());
    let other = boot(&mut world, "other");
    world.fork(other.id());
}

#[test]
fn who_shares_frames_is_known_when_children_end_while_a_commit_waits() {
    let mut world = World::new(Config { pool: 3, ..Config::default() });
    let root = boot(&mut world, "parent");
    let older = world.fork(root.id());
    assert!(root.control().get(daemon::READY) >= 2, "{}", root.control().get(daemon::READY));
    // From here on the engine alone acts: the younger child does not run yet.
    world.ask(root.id(), operation::COMMIT, 1);
    world.run_engine();
    let younger = world.family(Kind::Child).iter().map(|(domain, _)| *domain).find(|it| *it != older).unwrap();
    let commit = world.ask(root.id(), operation::COMMIT, 1);
    world.engine().act(true, false);
    assert!(world.pvm(root.id()).unwrap().pending.is_some(), "the second COMMIT waits for the younger child");
    // It runs, and ends at once; so does the older one.
    world.control(younger).put(guest::STATE, state::RUNNING);
    world.say_end(younger);
    world.engine().act(true, false);
    world.say_end(older);
    world.run_engine();
    world.settle();
    assert_eq!(root.control().get(daemon::REPLY), commit);
    assert_eq!(world.host().books.len(), 2, "the parent and the child of its second COMMIT");
    assert_ne!(root.control().get(daemon::UNSHARED), commit, "a child of that COMMIT lives");
}

#[test]
fn the_table_of_members_is_never_writable() {
    let mut world = World::new(Config::default());
    let root = boot(&mut world, "parent");
    let control = world.control(root.id());
    control.put(guest::OBJECT_PAGES, 1);
    control.put(guest::OBJECT_FLAGS, object_flags::CREATE | object_flags::EXCLUSIVE);
    control.put(guest::NAME_LENGTH, 1);
    control.put_octets(guest::NAME, b"q");
    assert_eq!(world.request(root.id(), operation::CREATE, 0).0, 0);
    let members = world.entry(root.id(), device_page(device::MEMBERS)).unwrap();
    assert!(!members.flags().contains(PteFlags::WRITABLE));
    assert_eq!(world.request(root.id(), operation::PREPARE, 1).0, 0);
    let lie = Pte::new(members.mfn(), PageClass::Joint.pte_flags());
    assert!(lie.flags().contains(PteFlags::WRITABLE));
    forge(&world, root.id(), 200, lie);
    let got = child_entry(&mut world, root.id(), heap(200));
    assert!(got.is_none_or(|got| got.mfn() != members.mfn()), "{got:?}");
}

#[test]
fn a_siblings_object_is_not_to_be_had_by_a_forged_entry() {
    for restart in [false, true] {
        let mut world = World::new(Config::default());
        let root = boot(&mut world, "parent");
        let [owner, thief] = [world.fork(root.id()), world.fork(root.id())];
        let control = world.control(owner);
        control.put(guest::OBJECT_PAGES, 1);
        control.put(guest::OBJECT_FLAGS, object_flags::CREATE);
        control.put(guest::NAME_LENGTH, 0);
        assert_eq!(world.request(owner, operation::CREATE, 0).0, 0);
        let object = world.control(owner).get(daemon::OBJECT);
        assert_eq!(world.map(owner, operation::MAP, object, 0, device::MEMBERS + 4, 1, object_flags::LAST), 0);
        let secret = world.entry(owner, device_page(device::MEMBERS + 4)).unwrap();
        assert_eq!(world.request(thief, operation::PREPARE, 1).0, 0);
        if restart {
            world.kill();
        }
        forge(&world, thief, 200, secret);
        let got = child_entry(&mut world, thief, heap(200));
        assert!(got.is_none_or(|got| got.mfn() != secret.mfn()), "restart {restart}: {got:?}");
    }
}

#[test]
fn what_an_ancestor_wrote_after_the_fork_is_not_to_be_had_by_a_forged_entry() {
    for (restart, lie_first) in [(false, true), (true, true), (true, false)] {
        let mut world = World::new(Config::default());
        let root = boot(&mut world, "parent");
        let child = world.fork(root.id());
        // A frame of the parent's own, from after the fork.
        let secret = root.guest.populate_physmap(&[Pfn(950)]).unwrap()[0];
        root.guest.write(secret, 0, &0x5ec2e7_u64.to_le_bytes());
        assert_eq!(world.request(child, operation::PREPARE, 1).0, 0);
        let lie = Pte::new(secret, PageClass::Heap.pte_flags());
        if lie_first {
            forge(&world, child, 210, lie);
        }
        if restart {
            world.kill();
        }
        if !lie_first {
            forge(&world, child, 210, lie);
        }
        let got = child_entry(&mut world, child, heap(210));
        assert!(got.is_none_or(|got| got.mfn() != secret), "restart {restart}, lie first {lie_first}: {got:?}");
    }
}

#[test]
fn a_frame_that_was_given_once_is_not_to_be_had_again() {
    let mut world = World::new(Config::default());
    let root = boot(&mut world, "parent");
    let child = world.fork(root.id());
    assert_eq!(world.request(child, operation::PREPARE, 1).0, 0);
    // By the fork, the child has this frame of its parent's. It gives the frame up, and its parent
    // writes there again.
    let given = world.entry(child, heap(7)).unwrap();
    let table = forge(&world, child, 7, Pte::ABSENT);
    let _ = world.request(child, operation::PREPARE, 1);
    world.fake.guest(child).write(table, 7 * 8, &given.0.to_le_bytes());
    world.control(child).count(guest::changes(heap(0)));
    let got = child_entry(&mut world, child, heap(7));
    assert!(got.is_none_or(|got| got.mfn() != given.mfn()), "{got:?}");
}

#[test]
fn a_domain_number_that_is_given_out_again_is_another_pvm() {
    let mut world = World::new(Config { pool: 0, ..Config::default() });
    let root = boot(&mut world, "first");
    let middle = world.fork(root.id());
    let grandchild = world.fork(middle);
    world.end(middle);
    assert!(!world.fake.guests().iter().any(|info| info.id == middle), "nobody has a frame of it: the number is free");
    world.fake.set_next_domain(middle.0);
    let other = boot(&mut world, "second");
    assert_eq!(other.id(), middle, "the number is used again");
    world.fake.set_next_domain(500);
    let child = world.fork(other.id());
    let commit = other.control().get(guest::REQUEST);
    assert_ne!(other.control().get(daemon::UNSHARED), commit);
    // A command for one family does not reach the other.
    let theirs = world.control(grandchild).get(daemon::ID);
    let (reply, answer) = mpsc::channel();
    let target = Target::Name("second".to_owned());
    world.host().obey(Command::Kill { target, signal: 15, family: true, reply });
    assert!(!answer.try_recv().unwrap().unwrap().contains(&theirs), "kill --family reaches another family");
    // A pVM of the other family ends.
    world.end(grandchild);
    assert!(world.pvm(child).is_some());
    assert_ne!(other.control().get(daemon::UNSHARED), commit, "a child of that COMMIT lives");
    assert_eq!(world.id_of(other.id()).domain(), other.id());
}

#[test]
fn a_domain_with_the_number_of_one_that_was_to_be_destroyed_lives_on() {
    let mut world = World::new(Config { pool: 0, ..Config::default() });
    let root = boot(&mut world, "first");
    let child = world.fork(root.id());
    world.say_end(child);
    world.engine().act(true, false);
    // Before the engine acts, a tool destroys the child, and its number is given out again.
    let id = world.id_of(child);
    world.run_engine();
    world.fake.guest(child).destroy().unwrap();
    world.settle();
    world.fake.set_next_domain(child.0);
    let other = boot(&mut world, "second");
    assert_eq!(other.id(), child);
    // A home in libxl's form.
    world.xenstored.connect_uncounted().write(&format!("/local/domain/{child}/vm"), "/vm/1").unwrap();
    let root_id = world.id_of(root.id());
    world.host().remove_domain(root_id, id);
    world.settle();
    assert!(world.fake.domain_info(other.id()).unwrap().is_some_and(|info| !info.is_dying()));
    assert!(world.xenstored.nodes().contains_key(&format!("/local/domain/{}/name", other.id())));
}

#[test]
fn generations_have_no_end() {
    let mut world = World::new(Config { pool: 0, ..Config::default() });
    let root = boot(&mut world, "parent");
    let mut last = root.id();
    for generation in 1..300 {
        if generation > 250 {
            // It writes a page, and so has a copy of its own, as any pVM that runs on.
            let guest = world.fake.guest(last);
            let copy = guest.populate_physmap(&[Pfn(900)]).unwrap()[0];
            guest.write(copy, 0, &(heap(1) as u64).to_le_bytes());
            let table = world.table(last, heap(1), 1);
            let entry = Pte::new(copy, PageClass::Heap.pte_flags());
            guest.mmu_update(&[MmuUpdate::pte(table.addr() + index(heap(1), 1) as u64 * 8, entry)]).1.unwrap();
            world.control(last).count(guest::changes(heap(1)));
        }
        let (errno, _) = world.request(last, operation::PREPARE, 1);
        assert_eq!(errno, 0, "PREPARE of generation {generation}");
        let (errno, children) = world.request(last, operation::COMMIT, 1);
        assert_eq!((errno, children.len()), (0, 1), "COMMIT of generation {generation}");
        let before = last;
        last = domain(children[0]);
        assert_eq!(world.word(last, heap(3)), Some(heap(3) as u64), "memory of generation {generation}");
        world.end(before);
        let pvm = world.pvm(last).unwrap();
        assert_eq!(pvm.name, format!("parent-{}", pvm.id()), "name of generation {generation}");
    }
    world.restart_with(|_| ());
    let child = world.fork(last);
    let id = world.id_of(child);
    assert_eq!(world.pvm(child).unwrap().name, format!("parent-{id}"));
    let owners = world.pvm(last).unwrap().owners().len();
    assert!(owners < 60, "dead ancestors without frames are forgotten: {owners}");
}

#[test]
fn grants_that_are_named_no_more_are_let_go_of_and_their_number_is_limited() {
    let mut world = World::new(Config::default());
    let root = boot(&mut world, "parent");
    let frames = root.guest.populate_physmap(&[Pfn(950), Pfn(951), Pfn(952)]).unwrap();
    for (gref, frame) in frames.iter().enumerate() {
        root.guest.grant(GrantRef(20 + gref as u32), DomId::DOM0, *frame, false);
    }
    // A list in which all 512 grants are the same.
    for entry in 0..512 {
        root.guest.write(frames[1], entry * 4, &22_u32.to_le_bytes());
    }
    let xen = world.fake.clone();
    let mut sources = Sources::map(&xen, root.id(), GrantRef(20)).unwrap();
    let before = world.fake.census();
    let name = |count: u32, round: u64| {
        root.guest.write(frames[0], directory::COUNT, &count.to_le_bytes());
        for entry in 0..u64::from(count) {
            let at = directory::ENTRIES + entry as usize * directory::ENTRY_SIZE;
            root.guest.write(frames[0], at, &(0x1000_0000 + ((round + entry) << 21)).to_le_bytes());
            root.guest.write(frames[0], at + 8, &21_u32.to_le_bytes());
        }
    };
    for round in 0..50 {
        name(1, round);
        sources.update(&xen, root.id()).unwrap();
    }
    let after = world.fake.census();
    assert!(after.references - before.references <= 513, "{} to {}", before.references, after.references);
    name(100, 0);
    assert!(sources.update(&xen, root.id()).is_err(), "51,300 grants are too many");
    let after = world.fake.census();
    assert!(after.references - before.references <= 32_768 + 1);
    name(0, 0);
    sources.update(&xen, root.id()).unwrap();
    assert_eq!(world.fake.census().references, before.references);
}

#[test]
fn forks_that_are_asked_for_in_vain_are_not_taken_from_others() {
    let family = Quota { forks_per_second: 10, ..Config::default().family };
    let host = Quota { forks_per_second: 20, ..Config::default().host };
    let mut world = World::new(Config { family, host, ..Config::default() });
    let honest = boot(&mut world, "honest");
    let vandal = boot(&mut world, "vandal");
    assert_eq!(honest.control().get(daemon::READY), 1);
    for _ in 0..10 {
        world.ask(vandal.id(), operation::COMMIT, 10);
        world.engine().act(true, false);
    }
    world.ask(honest.id(), operation::COMMIT, 1);
    world.engine().act(true, false);
    assert_eq!((honest.control().get(daemon::ERRNO), honest.control().get(daemon::MADE)), (0, 1));
}

#[test]
fn ends_of_one_family_put_the_work_for_another_off_for_a_moment_only() {
    let mut world = World::new(Config { pool: 0, ..Config::default() });
    let vandal = boot(&mut world, "vandal");
    let children = have_children(&mut world, vandal.id(), 60);
    let honest = boot(&mut world, "honest");
    world.settle();
    // The honest pVM's domain is to be built; meanwhile a child ends every 4 ms.
    world.ask(honest.id(), operation::PREPARE, 1);
    world.engine().act(true, false);
    let mut ends = 0;
    for child in &children {
        if !world.family(Kind::Prepared).is_empty() {
            break;
        }
        ends += 1;
        world.say_end(*child);
        world.engine().act(true, false);
        let until = Instant::now() + Duration::from_millis(4);
        while Instant::now() < until {
            world.engine().act(false, false);
        }
    }
    assert!(ends < children.len(), "nothing was prepared while {ends} children ended");
}

#[test]
fn a_family_that_has_much_built_does_not_keep_others_waiting() {
    let mut world = World::new(Config { pool: 0, ..Config::default() });
    let vandal = boot(&mut world, "vandal");
    let honest = boot(&mut world, "honest");
    world.ask(vandal.id(), operation::PREPARE, 100);
    world.engine().act(true, false);
    for _ in 0..50 {
        world.engine().act(false, false);
    }
    world.ask(honest.id(), operation::PREPARE, 1);
    world.engine().act(true, false);
    let id = world.id_of(honest.id());
    let mut steps = 0;
    while world.pvm(honest.id()).unwrap().prepared.is_empty() {
        steps += 1;
        assert!(steps < 400, "of the vandal's thousands of steps");
        world.engine().act(false, false);
    }
    assert!(world.host().jobs.builds_for(id) <= 1);
}

#[test]
fn a_refusal_is_answered_and_told_less_and_less_often() {
    let family = Quota { pvms: 1, ..Config::default().family };
    let mut world = World::new(Config { pool: 0, family, ..Config::default() });
    let root = boot(&mut world, "bomb");
    let (events, told) = mpsc::sync_channel(4096);
    world.host().subscribe(events);
    let mut at_once = 0;
    for _ in 0..300 {
        let number = world.ask(root.id(), operation::PREPARE, 1);
        world.engine().act(true, false);
        if root.control().get(daemon::REPLY) != number {
            break;
        }
        assert_eq!(root.control().get(daemon::ERRNO), Errno::EAGAIN.0);
        at_once += 1;
    }
    assert!((1..50).contains(&at_once), "{at_once}");
    world.host().tell_subscribers();
    assert!(told.try_iter().count() <= 20, "as many lines as fit a second or two");
    // The request is answered in the end.
    let number = root.control().get(guest::REQUEST);
    let began = Instant::now();
    while root.control().get(daemon::REPLY) != number {
        assert!(began.elapsed() < Duration::from_secs(10));
        world.engine().act(false, false);
    }
}

#[test]
fn a_killed_pvm_stands_still_before_anybody_hears_of_its_end() {
    let mut world = World::new(Config::default());
    let root = boot(&mut world, "parent");
    let child = world.fork(root.id());
    let id = world.control(child).get(daemon::ID);
    root.control().put(guest::OBJECT, id);
    world.ask(root.id(), operation::KILL, 9);
    // At each operation: a parent that was told of the end finds that the child does not run.
    for _ in 0..200 {
        world.engine().act(true, false);
        if root.control().get(daemon::ENDED_PROD) == 1 {
            break;
        }
    }
    assert_eq!(root.control().get(daemon::ENDED_PROD), 1);
    let info = world.fake.domain_info(child).unwrap();
    assert!(info.is_none_or(|info| info.is_paused() || info.is_dying()), "the child runs on");
}

#[test]
fn a_kill_that_the_daemon_did_not_survive_is_carried_out_by_the_next_one() {
    let mut world = World::new(Config::default());
    let root = boot(&mut world, "parent");
    let child = world.fork(root.id());
    let before = world.fake.operations().len();
    let kill = |world: &World, child| {
        root.control().put(guest::OBJECT, world.control(child).get(daemon::ID));
        world.ask(root.id(), operation::KILL, 9);
    };
    kill(&world, child);
    world.settle();
    let operations = world.fake.operations().len() - before;
    for point in 1..operations {
        let child = world.fork(root.id());
        kill(&world, child);
        world.fake.inject(point, Fault::KillAfter);
        world.settle();
        let info = world.fake.domain_info(child).unwrap().filter(|info| !info.is_dying());
        match world.pvm(child).is_some() {
            true => assert!(info.is_some_and(|info| !info.is_paused()), "paused for ever after operation {point}"),
            false => assert!(info.is_none(), "not destroyed after operation {point}"),
        }
        if world.pvm(child).is_some() {
            world.end(child);
        }
    }
}

#[test]
fn a_guest_that_stood_still_when_the_daemon_was_killed_goes_on() {
    let mut world = World::new(Config::default());
    let root = boot(&mut world, "parent");
    let child = world.fork(root.id());
    world.fake.pause(child).unwrap();
    world.xenstored.connect_uncounted().write(&format!("/zooid/standstill/{child}"), "1").unwrap();
    world.kill();
    assert!(!world.fake.domain_info(child).unwrap().unwrap().is_paused());
    assert!(!world.xenstored.nodes().keys().any(|path| path.starts_with("/zooid/standstill/")));
    // A child that a user has paused stays paused.
    world.fake.pause(child).unwrap();
    world.kill();
    assert!(world.fake.domain_info(child).unwrap().unwrap().is_paused());
}

#[test]
fn a_fork_from_outside_that_was_given_up_does_not_happen_later() {
    let mut world = World::new(Config { outside_timeout: Duration::from_millis(1), ..Config::default() });
    let root = boot(&mut world, "parent");
    let (reply, answer) = mpsc::channel();
    let target = Target::Name("parent".to_owned());
    world.host().obey(Command::Fork { target, count: 1, application: Vec::new(), reply });
    let number = root.control().get(daemon::OUTSIDE);
    assert_ne!(number, 0);
    let began = Instant::now();
    let result = loop {
        world.engine().act(false, false);
        if let Ok(result) = answer.try_recv() {
            break result;
        }
        assert!(began.elapsed() < Duration::from_secs(10));
    };
    assert!(matches!(result, Err(Error::NoSafePoint { .. })));
    assert_eq!(root.control().get(daemon::OUTSIDE_COUNT), 0, "a guest that has not looked yet finds nothing to do");
    // A COMMIT that is under way is refused.
    root.control().put(guest::COMMIT_FOR, number);
    assert_eq!(world.request(root.id(), operation::COMMIT, 1).0, wire::ECANCELED);
    root.control().put(guest::COMMIT_FOR, 0);
    world.fork(root.id());
}

#[test]
fn who_may_say_that_it_is_a_pvm_is_said_by_dom0() {
    let mut world = World::new(Config::default());
    world.restart_with(|config| config.announce = Announce::Known);
    let stranger = boot(&mut world, "stranger");
    assert!(world.pvm(stranger.id()).is_none(), "nobody has started it as a pVM");
    let store = world.xenstored.connect_uncounted();
    store.write("/libxl/2/zooid-announce", "1").unwrap();
    let allowed = boot(&mut world, "allowed");
    assert_eq!(allowed.id(), DomId(2));
    assert!(world.pvm(allowed.id()).is_some());
}

#[test]
fn dom0_and_the_daemons_own_domains_cannot_be_adopted() {
    let mut world = World::new(Config::default());
    let root = boot(&mut world, "parent");
    let child = world.fork(root.id());
    let prepared = world.family(Kind::Prepared)[0].0;
    for domain in [DomId::DOM0, prepared] {
        let (reply, answer) = mpsc::channel();
        world.host().obey(Command::Adopt { domain: domain.0, reply });
        assert!(answer.try_recv().unwrap().is_err(), "{domain}");
        assert!(world.pvm(domain).is_none());
    }
    assert!(world.pvm(child).is_some());
}

#[test]
fn the_tables_that_a_guest_claims_cost_dom0_no_more_than_its_family_may() {
    let mut world = World::new(Config::default());
    let root = boot(&mut world, "parent");
    let tables = world.pvm(root.id()).unwrap().forking.as_ref().unwrap().tables.count();
    // The tables are mapped, and there is a copy of each for a prepared domain.
    world.restart_with(|config| config.family_tables_kib = 2 * tables as u64 * 4);
    assert_eq!(world.request(root.id(), operation::PREPARE, 1).0, 0);
    let (errno, _) = world.request(root.id(), operation::PREPARE, 2);
    assert_eq!(errno, Errno::EAGAIN.0, "another copy is too much");
    assert_eq!(world.family(Kind::Prepared).len(), 1);
}

#[test]
fn ends_beyond_the_ring_come_as_soon_as_there_is_room() {
    let mut world = World::new(Config { pool: 0, ..Config::default() });
    let root = boot(&mut world, "parent");
    let count = ENDED_SLOTS as usize + 20;
    for child in have_children(&mut world, root.id(), count) {
        world.say_end(child);
        world.engine().act(true, false);
    }
    assert_eq!(root.control().get(daemon::ENDED_PROD), ENDED_SLOTS, "nobody has taken any");
    world.settle();
    // A guest that takes from a full ring sends an event.
    root.control().send();
    world.settle();
    assert_eq!(world.ends[&root.id()].len(), count);
}

#[test]
fn a_child_without_a_network_device_is_told_of() {
    let vif = ChildVif { bridge: "xenbr0".into(), script: "/etc/xen/scripts/vif-bridge".into(), net: "dhcp".into() };
    let mut world = World::new(Config { child_vif: Some(vif), ..Config::default() });
    let root = boot(&mut world, "parent");
    let (events, told) = mpsc::sync_channel(4096);
    world.host().subscribe(events);
    let child = world.fork(root.id());
    world.settle();
    world.host().tell_subscribers();
    let troubles: Vec<_> = told
        .try_iter()
        .filter_map(|event| match event.kind {
            EventKind::Trouble { message } => Some((event.domid, message)),
            _ => None,
        })
        .collect();
    let message = "no network device for a child: vif-script: not done within 10s: it says nothing".to_owned();
    assert_eq!(troubles, [(child.0, message)]);
    world.fork(root.id());
}

#[test]
fn clients_that_have_left_are_not_kept() {
    let mut world = World::new(Config::default());
    let root = boot(&mut world, "parent");
    let target = Target::Id(root.id().0.into());
    let client = Arc::new(());
    let mut answers = Vec::new();
    for _ in 0..100 {
        for client in [Arc::downgrade(&client), Weak::new()] {
            let (reply, answer) = mpsc::channel();
            world.host().obey(Command::Wait { target: target.clone(), client, reply });
            answers.push(answer);
        }
    }
    // The last has left since.
    assert_eq!(world.host().waiters.len(), 101);
    world.destroy(root.id());
    world.settle();
    assert_eq!(answers.iter().filter(|answer| answer.try_recv().is_ok()).count(), 101);
}

#[test]
fn ages_are_right_after_the_date_was_set() {
    let mut world = World::new(Config::default());
    let root = boot(&mut world, "parent");
    let (reply, answer) = mpsc::channel();
    let target = Target::Id(root.id().0.into());
    world.host().obey(Command::Inspect { target: target.clone(), reply: reply.clone() });
    let before = answer.recv().unwrap().unwrap().since_us;
    world.host().clock.set_forward(1 << 50);
    world.host().obey(Command::Inspect { target, reply });
    assert!(answer.recv().unwrap().unwrap().since_us - before > 1 << 49);
}
