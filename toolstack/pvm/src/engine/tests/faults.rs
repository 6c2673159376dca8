//! A failure or a kill at each operation of a pVM's existence; and guests that write garbage.

use xen_abi::Errno;
use xenctl::fake::Fault;
use zooid_fork_plan::id::Kind;
use zooid_fork_plan::status::Status;
use zooid_fork_plan::wire::{ESTALE, operation, state};

use super::super::config::Config;
use super::world::{Control, HEAP_PAGES, Root, World, heap};

/// Refusals of a request before one that succeeds.
pub const TRIES: usize = 8;

fn world() -> (World, Root) {
    let mut world = World::new(Config::default());
    let root = world.boot("parent");
    root.control();
    world.settle();
    (world, root)
}

/// Forks as a guest that is refused and tries again; true if the child has the parent's memory.
pub fn fork_somehow(world: &mut World, root: &Root) -> bool {
    for _ in 0..TRIES {
        let (errno, _) = world.request(root.id(), operation::PREPARE, 1);
        if errno != 0 {
            continue;
        }
        let (errno, children) = world.request(root.id(), operation::COMMIT, 1);
        if errno == 0 {
            assert_eq!(children.len(), 1);
            return true;
        }
        assert!([ESTALE, Errno::EAGAIN.0, Errno::ENOMEM.0, Errno::EIO.0].contains(&errno), "{errno}");
    }
    false
}

/// A fork, the child's end, and one more fork, with a fault at one operation; false if that comes
/// after all of these.
fn fork_and_end(operation: usize, fault: Fault) -> bool {
    let (mut world, root) = world();
    let before = world.census();
    let operations = world.fake.operations().len();
    world.fake.inject(operation, fault);
    world.fault = Some(operations + operation);
    assert!(fork_somehow(&mut world, &root), "{fault:?} at {operation}: no fork succeeds");
    let children = world.family(Kind::Child);
    assert_eq!(children.len(), 1, "{fault:?} at {operation}");
    for page in 0..HEAP_PAGES {
        assert_eq!(world.word(children[0].0, heap(page)), Some(heap(page) as u64));
    }
    world.children_end = Some(Status::Exited(3));
    world.settle();
    let ends = world.ends.get(&root.id()).cloned().unwrap_or_default();
    assert!(ends.contains(&(children[0].1.id.raw(), Status::Exited(3))), "{fault:?} at {operation}: {ends:?}");
    assert!(fork_somehow(&mut world, &root));
    let hit = world.fake.operations().len() >= operations + operation;
    // Background work that failed is done again with the next request.
    assert_eq!(world.request(root.id(), operation::PREPARE, 1).0, 0);
    assert_eq!(world.census(), before, "{fault:?} at {operation}: {}", world.story());
    hit
}

/// A scenario with a fault at each of its operations, of which there are at least `least`.
pub fn everywhere(fault: Fault, least: usize, scenario: impl Fn(usize, Fault) -> bool) {
    let mut operation = 1;
    while scenario(operation, fault) {
        operation += 1;
    }
    assert!(operation > least, "only {operation} operations");
    println!("{fault:?}: {operation} points");
}

#[test]
fn a_kill_before_any_operation_leaves_nothing() {
    everywhere(Fault::KillBefore, 100, fork_and_end);
}

#[test]
fn a_kill_after_any_operation_leaves_nothing() {
    everywhere(Fault::KillAfter, 100, fork_and_end);
}

#[test]
fn any_operation_may_find_no_memory() {
    everywhere(Fault::Fail(Errno::ENOMEM), 100, fork_and_end);
}

#[test]
fn garbage_in_the_control_page_harms_nobody_else() {
    let mut world = World::new(Config::default());
    let empty = world.census();
    let honest = world.boot("honest");
    honest.control();
    let vandal = world.boot("vandal");
    let control = vandal.control();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..120 {
        world.settle();
        for _ in 0..40 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // All fields but those with the port by which it wakes the daemon.
            let field = (random as usize % 1024) * 4;
            if field != zooid_fork_plan::wire::guest::TIMER_PORT && field != zooid_fork_plan::wire::daemon::PORT {
                control.put(field, if round % 2 == 0 { (random >> 32) as u32 } else { (random >> 32) as u32 % 4 });
            }
        }
        control.put(zooid_fork_plan::wire::guest::STATE, state::RUNNING);
        // Each operation, with large and with small numbers.
        world.ask(vandal.id(), 1 + round / 2 % 10, 1 + round % 3);
    }
    world.settle();
    let child = world.fork(honest.id());
    assert_eq!(world.word(child, heap(2)), Some(heap(2) as u64));
    for (domain, _) in world.family(Kind::Child) {
        Control::of(&world.fake.guest(domain)).unwrap().end(Status::Crashed);
    }
    world.settle();
    for root in [honest.id(), vandal.id()] {
        world.destroy(root);
    }
    assert_eq!(world.census(), empty);
}
