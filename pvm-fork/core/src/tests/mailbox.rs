//! Single requests, without interleaving.

use core::sync::atomic::{AtomicU32, Ordering};

use xen_abi::Errno;
use zooid_fork_plan::id::PvmId;
use zooid_fork_plan::wire::{daemon, guest, operation};

use super::Desk;
use crate::Page;
use crate::mailbox::{Channel, Mailbox, Sharing};

/// A desk with a pvmd that does `answer` at the first wait after a request.
struct Served<F: Fn(&Desk)> {
    desk: Desk,
    answer: F,
}

impl<F: Fn(&Desk)> Page for Served<F> {
    fn read(&self, at: usize) -> u32 {
        self.desk.read(at)
    }

    fn write(&self, at: usize, value: u32) {
        self.desk.write(at, value);
    }
}

impl<F: Fn(&Desk)> Channel for Served<F> {
    fn notify(&self) {}

    fn daemon_is_there(&self) -> bool {
        self.desk.daemon_is_there()
    }

    fn now(&self) -> u64 {
        self.desk.now()
    }

    fn wait(&self, deadline: u64, answered: &mut dyn FnMut() -> bool) -> bool {
        (self.answer)(&self.desk);
        self.desk.wait(deadline, answered)
    }
}

fn reply(desk: &Desk, errno: u32, ids: &[u32]) {
    desk.write(daemon::MADE, ids.len() as u32);
    ids.iter().enumerate().for_each(|(at, id)| desk.write(daemon::CHILDREN + 4 * at, *id));
    desk.write(daemon::ERRNO, errno);
    desk.write(daemon::REPLY, desk.read(guest::REQUEST));
}

fn commit(answer: impl Fn(&Desk), room: usize) -> (Result<usize, Errno>, bool, alloc::vec::Vec<Option<PvmId>>) {
    let served = Served { desk: Desk::default(), answer };
    let sharing = Sharing::new();
    let mut children = alloc::vec![None; room];
    let result = Mailbox::new().commit(&served, Some(&sharing), &mut children);
    (result, sharing.is_shared(&served), children)
}

#[test]
fn a_commit_gives_the_ids_of_its_children_and_shares() {
    let (result, shared, children) = commit(|desk| reply(desk, 0, &[7, 8]), 3);
    assert_eq!(result, Ok(2));
    assert!(shared);
    assert_eq!(children, [PvmId::from_raw(7), PvmId::from_raw(8), None]);
}

#[test]
fn a_refused_commit_shares_nothing() {
    let (result, shared, _) = commit(|desk| reply(desk, Errno::EAGAIN.0, &[]), 1);
    assert_eq!(result, Err(Errno::EAGAIN));
    assert!(!shared);
}

#[test]
fn after_a_commit_without_an_answer_frames_count_as_shared() {
    let (result, shared, _) = commit(|_| (), 1);
    assert_eq!(result, Err(Errno::ENOTCONN));
    assert!(shared, "there may be a child");
}

#[test]
fn nothing_is_shared_with_children_that_have_copies() {
    let served = Served { desk: Desk::default(), answer: |desk: &Desk| reply(desk, 0, &[7]) };
    let sharing = Sharing::new();
    assert_eq!(Mailbox::new().commit(&served, None, &mut [None]), Ok(1));
    assert!(!sharing.is_shared(&served));
}

#[test]
fn an_answer_that_makes_no_sense_makes_no_parent_a_child() {
    for ids in [&[][..], &[0], &[1 << 31], &[7, 8]] {
        let (result, shared, _) = commit(|desk| reply(desk, 0, ids), 1);
        assert_eq!(result, Err(Errno::EIO), "{ids:?}");
        assert!(shared, "pvmd says that there is a child");
    }
}

#[test]
fn a_pvmd_that_is_stopped_is_waited_for() {
    let waits = AtomicU32::new(0);
    let served = Served {
        desk: Desk::default(),
        // Half a minute.
        answer: |desk: &Desk| {
            if waits.fetch_add(1, Ordering::Relaxed) == 60 {
                reply(desk, 0, &[]);
            }
        },
    };
    served.desk.there.set(true);
    assert_eq!(Mailbox::new().request(&served, operation::KILL, 1, || (), || 5), Ok(5));
}

#[test]
fn a_request_that_was_given_up_is_taken_back_and_its_late_answer_is_nobodys() {
    let served = Served { desk: Desk::default(), answer: |_: &Desk| () };
    let mut mailbox = Mailbox::new();
    assert_eq!(mailbox.request(&served, operation::CREATE, 1, || (), || ()), Err(Errno::ENOTCONN));
    assert_eq!(served.read(guest::OPERATION), operation::NONE);
    // The answer to the first one comes now.
    served.write(daemon::REPLY, 1);
    assert_eq!(mailbox.request(&served, operation::KILL, 1, || (), || ()), Err(Errno::ENOTCONN));
}
