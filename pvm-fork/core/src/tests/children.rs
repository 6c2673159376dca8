//! Children, and a pvmd that tells of their ends by a ring.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use zooid_fork_plan::id::PvmId;
use zooid_fork_plan::status::Status;
use zooid_fork_plan::wire::{ENDED_SLOTS, daemon, guest};

use super::Desk;
use crate::Page;
use crate::children::{Children, Ended, WaitError};

fn id(raw: u32) -> PvmId {
    PvmId::from_raw(raw).expect("an id")
}

fn family(ids: core::ops::Range<u32>) -> Children {
    let mut children = Children::NONE;
    children.reserve(ids.len()).expect("room");
    children.adopt(ids.map(id));
    children
}

/// Tells of as many ends as the ring has room for.
fn tell(desk: &Desk, waiting: &mut VecDeque<u32>, cons: u32) {
    let mut prod = desk.read(daemon::ENDED_PROD);
    while prod.wrapping_sub(cons) < ENDED_SLOTS
        && let Some(id) = waiting.pop_front()
    {
        let at = daemon::ENDED + 8 * (prod % ENDED_SLOTS) as usize;
        desk.write(at, id);
        desk.write(at + 4, Status::Exited(id as u8).to_raw());
        prod = prod.wrapping_add(1);
    }
    desk.write(daemon::ENDED_PROD, prod);
}

#[test]
fn each_child_is_waited_for_once() {
    let desk = Desk::default();
    let mut children = family(1..41);
    tell(&desk, &mut (1..41).collect(), 0);
    assert!(!children.collect(&desk));
    assert_eq!(children.take(Some(id(9))), Ok(Some(Ended { id: id(9), status: Status::Exited(9) })));
    assert_eq!(children.take(Some(id(9))), Err(WaitError));
    let others: Vec<u32> =
        core::iter::from_fn(|| children.take(None).ok().flatten()).map(|ended| ended.id.raw()).collect();
    assert_eq!(others, (1..41).filter(|other| *other != 9).collect::<Vec<_>>());
    assert_eq!(children.take(None), Err(WaitError));
}

#[test]
fn an_end_that_is_told_twice_or_is_nobodys_changes_nothing() {
    let desk = Desk::default();
    let mut children = family(1..3);
    tell(&desk, &mut [1, 1, 99].into_iter().collect(), 0);
    let _ = children.collect(&desk);
    assert_eq!(children.take(None), Ok(Some(Ended { id: id(1), status: Status::Exited(1) })));
    assert_eq!(children.take(None), Ok(None), "the other one lives");
}

#[test]
fn a_child_has_none_of_its_parents_children() {
    let mut children = family(1..41);
    children.begin_life();
    assert_eq!(children.take(None), Err(WaitError));
}

#[test]
fn indices_that_make_no_sense_are_passed_over_in_a_rings_length() {
    let desk = Desk::default();
    let mut children = family(1..2);
    desk.write(daemon::ENDED_PROD, u32::MAX - 5);
    let _ = children.collect(&desk);
    assert_eq!(desk.read(guest::ENDED_CONS), u32::MAX - 5);
    assert_eq!(children.take(None), Ok(None));
}

/// pvmd looks at the guest's index, and puts entries in the ring by what it has seen, at any two
/// moments of the guest's, and looks again only when it is notified.
#[test]
fn more_ends_than_the_ring_has_room_for_are_all_told_whenever_the_guest_looks() {
    const ENDS: u32 = 3 * ENDED_SLOTS + 8;
    for start in [0, 63, u32::MAX - 70] {
        // The guest looks after the first `early` entries, and at any moment between pvmd's look at
        // its index and what follows.
        for early in 0..=ENDED_SLOTS {
            let desk = Desk::default();
            desk.write(daemon::ENDED_PROD, start);
            desk.write(guest::ENDED_CONS, start);
            let mut children = family(1..ENDS + 1);
            let mut waiting: VecDeque<u32> = (1..=ENDS).collect();
            let seen = desk.read(guest::ENDED_CONS);
            let mut first: VecDeque<u32> = waiting.drain(..early as usize).collect();
            tell(&desk, &mut first, seen);
            let mut notified = children.collect(&desk);
            // pvmd goes on by the index that it has seen.
            tell(&desk, &mut waiting, seen);
            let mut ended = 0;
            loop {
                notified |= children.collect(&desk);
                while let Ok(Some(_)) = children.take(None) {
                    ended += 1;
                }
                if !core::mem::take(&mut notified) {
                    break;
                }
                tell(&desk, &mut waiting, desk.read(guest::ENDED_CONS));
            }
            assert_eq!(ended, ENDS, "from {start}, {early} first");
            assert_eq!(children.take(None), Err(WaitError));
        }
    }
}
