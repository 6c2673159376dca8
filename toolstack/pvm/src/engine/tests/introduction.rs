//! Children that end before they are introduced to xenstored and xenconsoled, and those that are.

use std::mem::offset_of;
use std::time::Duration;

use xen_abi::io::console::{XENCONS_OUT_SIZE, XenconsInterface};
use xen_abi::sched::ShutdownReason;
use xen_abi::{DomId, Errno, Mfn};
use xenctl::fake::Fault;
use zooid_fork_plan::id::Kind;
use zooid_fork_plan::status::Status;
use zooid_fork_plan::wire::{daemon, guest, operation};

use super::super::config::Config;
use super::super::core::Timer;
use super::super::introduction::AGAIN;
use super::faults::{everywhere, fork_somehow};
use super::world::{Root, World};

fn world() -> (World, Root) {
    let mut world =
        World::with_young_children(Config { introduce_after: Duration::from_secs(3600), ..Config::default() });
    let root = world.boot("parent");
    root.control();
    world.settle();
    (world, root)
}

fn nodes(world: &World, domain: DomId) -> Vec<String> {
    let home = format!("/local/domain/{domain}/");
    let all = world.xenstored.nodes();
    all.keys().filter_map(|path| path.strip_prefix(&home)).map(str::to_owned).collect()
}

/// The frame of a child's console, as its home says.
fn console(world: &mut World, child: DomId) -> Mfn {
    world.pvm(child).unwrap().rings.expect("it is not introduced").console.0
}

#[test]
fn a_child_that_ends_soon_is_never_introduced() {
    let (mut world, root) = world();
    let before = world.census();
    let child = world.fork(root.id());
    world.settle();
    assert_eq!(nodes(&world, child), ["name", "zooid"]);
    assert!(!world.xenstored.introduced().contains(&child));
    assert_eq!(world.control(child).get(daemon::INTRODUCED), 0);
    world.control(child).end(Status::Exited(3));
    world.settle();
    assert_eq!(world.ends[&root.id()].last().unwrap().1, Status::Exited(3));
    assert_eq!(world.request(root.id(), operation::PREPARE, 1).0, 0);
    assert_eq!(world.census(), before);
    assert!(world.output.lock().unwrap().is_empty(), "it has printed nothing");
}

#[test]
fn its_output_is_kept() {
    let (mut world, root) = world();
    let (text, size) = (b"last words\r\n", XENCONS_OUT_SIZE as usize);
    let write = |world: &World, child: DomId, frame: Mfn, at: usize, octets: &[u8]| {
        world.fake.guest(child).write(frame, at, octets);
    };
    let end = |world: &mut World, child: DomId| {
        world.control(child).put(guest::OUTPUT, 1);
        world.control(child).end(Status::Exited(0));
        world.settle();
        std::mem::take(&mut *world.output.lock().unwrap())
    };
    // The text goes round the end of the ring.
    let child = world.fork(root.id());
    let (frame, first) = (console(&mut world, child), 3 * size as u32 - 5);
    for (number, octet) in text.iter().enumerate() {
        let at = (first as usize + number) % size;
        write(&world, child, frame, offset_of!(XenconsInterface, out) + at, &[*octet]);
    }
    write(&world, child, frame, offset_of!(XenconsInterface, out_cons), &first.to_le_bytes());
    let prod = first + text.len() as u32;
    write(&world, child, frame, offset_of!(XenconsInterface, out_prod), &prod.to_le_bytes());
    let id = world.id_of(child);
    assert_eq!(end(&mut world, child), [(format!("parent-{id}"), text.to_vec())]);
    // One that is killed says nothing of it.
    let child = world.fork(root.id());
    let frame = console(&mut world, child);
    write(&world, child, frame, offset_of!(XenconsInterface, out), b"half a line");
    write(&world, child, frame, offset_of!(XenconsInterface, out_prod), &11_u32.to_le_bytes());
    let id = world.id_of(child);
    world.host().end(id, Status::Killed(9));
    world.settle();
    let kept = std::mem::take(&mut *world.output.lock().unwrap());
    assert_eq!(kept, [(format!("parent-{id}"), b"half a line".to_vec())]);
    // Indices that contradict the ring's size.
    let child = world.fork(root.id());
    let frame = console(&mut world, child);
    write(&world, child, frame, offset_of!(XenconsInterface, out_prod), &(size as u32 + 1).to_le_bytes());
    assert_eq!(end(&mut world, child), []);
}

#[test]
fn a_child_that_lives_is_introduced_once() {
    let (mut world, root) = world();
    let before = world.census();
    let child = world.fork(root.id());
    let id = world.id_of(child);
    for _ in 0..2 {
        world.host().introduce(id, AGAIN);
        world.settle();
        assert!(world.xenstored.introduced().contains(&child));
        assert_eq!(world.control(child).get(daemon::INTRODUCED), 1);
        assert!(nodes(&world, child).contains(&"console/tty".to_owned()));
    }
    world.control(child).end(Status::Exited(0));
    world.settle();
    assert_eq!(world.request(root.id(), operation::PREPARE, 1).0, 0);
    assert_eq!(world.census(), before);
}

#[test]
fn an_end_that_nobody_tells_is_found_when_it_is_introduced() {
    let (mut world, root) = world();
    let child = world.fork(root.id());
    let id = world.id_of(child);
    world.fake.guest(child).shutdown(ShutdownReason::CRASH).unwrap();
    world.host().introduce(id, AGAIN);
    world.settle();
    assert_eq!(world.ends[&root.id()].last(), Some(&(id.raw(), Status::Crashed)));
}

#[test]
fn a_prepared_domain_that_was_destroyed_makes_a_child_that_was() {
    let (mut world, root) = world();
    assert_eq!(world.request(root.id(), operation::PREPARE, 1).0, 0);
    let (domain, handle) = world.family(Kind::Prepared)[0];
    world.fake.guest(domain).destroy().unwrap();
    let (errno, children) = world.request(root.id(), operation::COMMIT, 1);
    assert_eq!((errno, children), (0, vec![handle.id.raw()]));
    assert_eq!(world.ends[&root.id()].last(), Some(&(handle.id.raw(), Status::Destroyed)));
    assert!(fork_somehow(&mut world, &root), "the next one is as ever");
}

#[test]
fn a_child_with_unusable_rings_is_tried_less_and_less_often() {
    let (mut world, root) = world();
    let child = world.fork(root.id());
    let id = world.id_of(child);
    let mut pause = AGAIN;
    for _ in 0..12 {
        // The first operation asks Xen about the domain.
        world.fake.inject(2, Fault::Fail(Errno::ENOMEM));
        world.host().introduce(id, pause);
        let next = world.host().timers().find_map(|timer| match timer {
            Timer::Introduce(other, next) if *other == id && *next > pause => Some(*next),
            _ => None,
        });
        pause = next.unwrap_or(pause);
    }
    assert_eq!(pause, Duration::from_secs(10));
}

/// A fork, the child's introduction and its end, with a fault at one operation.
fn introduce_and_end(operation: usize, fault: Fault) -> bool {
    let (mut world, root) = world();
    let before = world.census();
    assert!(fork_somehow(&mut world, &root));
    world.settle();
    let child = world.family(Kind::Child)[0];
    let operations = world.fake.operations().len();
    world.fake.inject(operation, fault);
    world.fault = Some(operations + operation);
    for _ in 0..3 {
        world.host().introduce(child.1.id, AGAIN);
        world.settle();
    }
    assert_eq!(world.control(child.0).get(daemon::INTRODUCED), 1, "{fault:?} at {operation}");
    assert!(world.xenstored.introduced().contains(&child.0), "{fault:?} at {operation}");
    let hit = world.fake.operations().len() >= operations + operation;
    world.control(child.0).end(Status::Exited(0));
    world.settle();
    assert_eq!(world.request(root.id(), operation::PREPARE, 1).0, 0);
    assert_eq!(world.census(), before, "{fault:?} at {operation}: {}", world.story());
    hit
}

/// A child whose introduction fails at one operation, and which ends before the next attempt.
fn fail_and_end(operation: usize, fault: Fault) -> bool {
    let (mut world, root) = world();
    let before = world.census();
    let child = world.fork(root.id());
    let (id, operations) = (world.id_of(child), world.fake.operations().len());
    world.fake.inject(operation, fault);
    world.fault = Some(operations + operation);
    world.host().introduce(id, AGAIN);
    let hit = world.fake.operations().len() >= operations + operation;
    world.control(child).end(Status::Exited(0));
    world.settle();
    assert_eq!(world.request(root.id(), operation::PREPARE, 1).0, 0);
    assert_eq!(world.census(), before, "{fault:?} at {operation}: {}", world.story());
    hit
}

#[test]
fn a_child_that_ends_after_a_failed_introduction_leaves_nothing() {
    everywhere(Fault::Fail(Errno::ENOMEM), 4, fail_and_end);
}

#[test]
fn a_fault_at_any_operation_of_an_introduction_leaves_nothing() {
    for fault in [Fault::KillBefore, Fault::KillAfter, Fault::Fail(Errno::ENOMEM)] {
        everywhere(fault, 4, introduce_and_end);
    }
}
