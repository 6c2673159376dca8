//! All orders in which threads ask for something, fork, and pvmd serves them, dies, comes back, and
//! answers nonsense; on both sides of each fork.
//!
//! A [`World`] is a pVM with its control page. A step is what one thread, or pvmd, does until
//! somebody else can notice. All worlds that steps lead to are looked at, each once.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use xen_abi::Errno;
use zooid_fork_plan::wire::{daemon, guest, operation};

use super::Desk;
use crate::Page;
use crate::mailbox::{Commit, Mailbox, Posted, Sharing};

/// Longer than a guest waits for a pvmd that is away.
const LONG: u64 = 60_000_000_000;
/// The first id of a child.
const FIRST: u32 = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Asks,
    Forks,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum At {
    /// It does not have the lock yet.
    Before,
    /// Holds the lock, and waits for the answer to what it asks for.
    Asking(Posted),
    /// Holds the lock, and waits for the answer to a COMMIT, with everything else standing still.
    Forking(Commit),
    /// In the child: holds the lock still.
    Born,
    After,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Thread {
    kind: Kind,
    at: At,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct World {
    desk: Desk,
    threads: Vec<Thread>,
    /// The thread that holds the mailbox's lock.
    lock: Option<usize>,
    /// [`Sharing`].
    shared: u32,
    /// Children that live: their ids and the numbers of the COMMITs.
    living: Vec<(u32, u32)>,
    /// The thread that has forked each child, the first child's first.
    forkers: Vec<usize>,
    /// pvmd's knowledge: the last request that it has answered, and the last COMMIT that made a
    /// child.
    answered: u32,
    last_commit: u32,
    /// The number of times that pvmd may still die, refuse, or answer nonsense.
    faults: u32,
}

/// The rules of the guest, right ones and broken ones; the test has to notice the broken ones.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rules {
    Kept,
    /// A fork does not wait for the lock.
    ForkWithoutLock,
}

fn tag(thread: usize) -> u32 {
    1000 + thread as u32
}

impl World {
    fn new(threads: &[Kind], faults: u32) -> Self {
        let desk = Desk::default();
        desk.there.set(true);
        let threads = threads.iter().map(|kind| Thread { kind: *kind, at: At::Before }).collect();
        Self {
            desk,
            threads,
            lock: None,
            shared: 0,
            living: Vec::new(),
            forkers: Vec::new(),
            answered: 0,
            last_commit: 0,
            faults,
        }
    }

    /// Lets a thread act on a copy of this world.
    fn with(&self, act: impl FnOnce(&mut Self)) -> Self {
        let mut world = self.clone();
        act(&mut world);
        world
    }

    /// The parent of a child that lives takes its frames for shared.
    fn check(&self) {
        let is_shared = Sharing(AtomicU32::new(self.shared)).is_shared(&self.desk);
        assert!(self.living.is_empty() || is_shared, "memory is apart: {self:#?}");
    }

    fn thread_steps(&self, me: usize, rules: Rules) -> Option<Self> {
        // A fork masks events: nobody else runs.
        let stands_still = self.threads.iter().any(|thread| matches!(thread.at, At::Forking(_)));
        let thread = &self.threads[me];
        if stands_still && !matches!(thread.at, At::Forking(_)) {
            return None;
        }
        let free = self.lock.is_none() || rules == Rules::ForkWithoutLock && thread.kind == Kind::Forks;
        match (&thread.at, thread.kind) {
            (At::Before, _) if !free => None,
            (At::Before, Kind::Asks) => Some(self.with(|world| {
                world.lock = Some(me);
                world.desk.write(guest::OBJECT, tag(me));
                world.threads[me].at = At::Asking(Mailbox::new().post(&world.desk, operation::CREATE, 1));
            })),
            (At::Before, Kind::Forks) => Some(self.with(|world| {
                world.lock = Some(me);
                let sharing = Sharing(AtomicU32::new(world.shared));
                let commit = Mailbox::new().begin_commit(&world.desk, Some(&sharing), 1);
                world.shared = sharing.0.load(Ordering::Relaxed);
                world.threads[me].at = At::Forking(commit);
            })),
            (At::Asking(posted), _) => {
                let mut posted = posted.clone();
                let answer = posted.look(&self.desk)?;
                Some(self.with(|world| {
                    if answer.result().is_ok() {
                        assert_eq!(self.desk.read(daemon::OBJECT), tag(me), "its own answer: {self:#?}");
                    }
                    world.finish(me);
                }))
            }
            (At::Forking(commit), _) => {
                let mut commit = commit.clone();
                let answer = commit.posted.look(&self.desk)?;
                Some(self.with(|world| {
                    let sharing = Sharing(AtomicU32::new(world.shared));
                    let mut child = [None];
                    let result = Mailbox::new().end_commit(&world.desk, Some(&sharing), &commit, answer, &mut child);
                    world.shared = sharing.0.load(Ordering::Relaxed);
                    match result {
                        Ok(_) => {
                            let id = child[0].expect("a child has an id").raw();
                            let forker = self.forkers.get((id - FIRST) as usize);
                            assert_eq!(forker, Some(&me), "its own child: {self:#?}");
                        }
                        Err(error) => {
                            assert!(matches!(error, Errno::EAGAIN | Errno::ENOTCONN | Errno::EIO), "{error}: {self:#?}")
                        }
                    }
                    world.finish(me);
                }))
            }
            (At::Born, _) => Some(self.with(|world| world.finish(me))),
            (At::After, _) => None,
        }
    }

    fn finish(&mut self, me: usize) {
        self.threads[me].at = At::After;
        if self.lock == Some(me) {
            self.lock = None;
        }
    }

    /// The child of the fork that `forker` has under way: the same memory, another page.
    fn child(&self, forker: usize) -> Self {
        let mut child = Self::new(&[], self.faults);
        child.threads = self.threads.clone();
        child.threads[forker].at = At::Born;
        child.lock = self.lock;
        assert!(
            !child.threads.iter().any(|thread| matches!(thread.at, At::Asking(_))),
            "no request of another thread is under way at a fork: {self:#?}"
        );
        child
    }

    /// The worlds after each step of pvmd, and the child that it makes.
    fn daemon_steps(&self) -> (Vec<Self>, Option<Self>) {
        let mut steps = Vec::new();
        let mut born = None;
        if !self.desk.there.get() {
            steps.push(self.with(|world| world.restart()));
            if self.threads.iter().any(|thread| matches!(thread.at, At::Asking(_) | At::Forking(_))) {
                steps.push(self.with(|world| world.desk.now.set(LONG)));
            }
            return (steps, born);
        }
        for place in 0..self.living.len() {
            steps.push(self.with(|world| {
                world.living.remove(place);
                if world.living.is_empty() {
                    world.desk.write(daemon::UNSHARED, world.last_commit);
                }
            }));
        }
        let number = self.desk.read(guest::REQUEST);
        let fault = |act: &dyn Fn(&mut Self)| {
            self.with(|world| {
                world.faults -= 1;
                act(world);
            })
        };
        if self.faults > 0 {
            steps.push(fault(&|world| world.desk.there.set(false)));
        }
        if number == self.answered {
            return (steps, born);
        }
        match self.desk.read(guest::OPERATION) {
            operation::COMMIT => {
                let forker = self.threads.iter().position(|thread| matches!(thread.at, At::Forking(_)));
                if let Some(forker) = forker {
                    let made = self.with(|world| world.make_child(forker, number));
                    born = Some(self.child(forker));
                    steps.push(made.with(|world| world.reply(number, 0, world.last_child())));
                    if self.faults > 0 {
                        // Between GO and the reply.
                        steps.push(made.with(|world| {
                            world.faults -= 1;
                            world.desk.there.set(false);
                        }));
                        // It names no child.
                        steps.push(made.with(|world| {
                            world.faults -= 1;
                            world.reply(number, 0, 0);
                        }));
                    }
                }
                if self.faults > 0 {
                    steps.push(fault(&|world| world.reply(number, Errno::EAGAIN.0, 0)));
                }
            }
            operation::CREATE => {
                steps.push(self.with(|world| {
                    world.desk.write(daemon::OBJECT, world.desk.read(guest::OBJECT));
                    world.reply(number, 0, 0);
                }));
                if self.faults > 0 {
                    steps.push(fault(&|world| world.reply(number, Errno::EAGAIN.0, 0)));
                }
            }
            _ => steps.push(self.with(|world| world.reply(number, Errno::ENOSYS.0, 0))),
        }
        (steps, born)
    }

    fn make_child(&mut self, forker: usize, number: u32) {
        self.forkers.push(forker);
        self.living.push((self.last_child(), number));
        self.last_commit = number;
    }

    fn last_child(&self) -> u32 {
        FIRST + self.forkers.len() as u32 - 1
    }

    fn reply(&mut self, number: u32, errno: u32, child: u32) {
        self.desk.write(daemon::CHILDREN, child);
        self.desk.write(daemon::MADE, 1);
        self.desk.write(daemon::ERRNO, errno);
        self.desk.write(daemon::REPLY, number);
        self.answered = number;
    }

    /// A new pvmd answers an old COMMIT by what children say of themselves.
    fn restart(&mut self) {
        self.desk.there.set(true);
        let number = self.desk.read(guest::REQUEST);
        self.last_commit = self.living.iter().map(|(_, commit)| *commit).max().unwrap_or(0);
        if number == self.answered || self.desk.read(guest::OPERATION) != operation::COMMIT {
            return;
        }
        match self.living.iter().find(|(_, commit)| *commit == number).copied() {
            Some((id, _)) => self.reply(number, 0, id),
            None => self.reply(number, Errno::EAGAIN.0, 0),
        }
    }
}

/// The number of reachable worlds.
#[expect(clippy::mutable_key_type, reason = "a world that is known does not change any more")]
fn explore(first: World, rules: Rules) -> usize {
    let mut known = BTreeSet::from([first.clone()]);
    let mut open = alloc::vec![first];
    while let Some(world) = open.pop() {
        world.check();
        let (mut next, born) = world.daemon_steps();
        next.extend((0..world.threads.len()).filter_map(|thread| world.thread_steps(thread, rules)));
        let is_done = world.threads.iter().all(|thread| thread.at == At::After);
        assert!(is_done || !next.is_empty(), "nobody can go on: {world:#?}");
        next.extend(born);
        open.extend(next.into_iter().filter(|world| known.insert(world.clone())));
    }
    known.len()
}

#[test]
fn requests_and_forks_of_several_threads_get_their_own_answers_whatever_pvmd_does() {
    use Kind::{Asks, Forks};
    for threads in [&[Asks, Forks][..], &[Forks, Forks], &[Asks, Asks, Forks], &[Asks, Forks, Forks]] {
        assert!(explore(World::new(threads, 2), Rules::Kept) > 100);
    }
}

#[test]
#[should_panic(expected = "no request of another thread is under way at a fork")]
fn a_fork_beside_a_request_would_be_noticed() {
    explore(World::new(&[Kind::Asks, Kind::Forks], 0), Rules::ForkWithoutLock);
}
