//! Requests to pvmd and its replies: one at a time, through one type.
//!
//! A value of [`Mailbox`] is the right to the request's half of the control page. A guest keeps it
//! behind a lock, and a fork holds it from before everything stands still: so no request is under
//! way while memory is copied, a COMMIT meets no other request, and a reply is read before another
//! request can change it. In the child the lock is the forking thread's as in the parent, and the
//! page is a new one. A thread that waited for the lock lives on there only if all threads do, and
//! then makes its request in the child, for the child.

use core::sync::atomic::{AtomicU32, Ordering};

use xen_abi::Errno;
use zooid_fork_plan::id::PvmId;
use zooid_fork_plan::wire::{daemon, guest, operation};

use crate::Page;

/// The time that a guest waits for a pvmd that is not there, in nanoseconds. A pvmd that was killed
/// comes back in this time.
const PATIENCE: u64 = 10_000_000_000;
/// The interval at which it looks for pvmd meanwhile, in nanoseconds.
const LOOK: u64 = 500_000_000;

/// The channel to pvmd while a request is under way.
pub trait Channel: Page {
    /// Tells pvmd to look at the page.
    fn notify(&self);
    /// True if a pvmd has bound the channel, even if it is stopped.
    fn daemon_is_there(&self) -> bool;
    /// System time in nanoseconds.
    fn now(&self) -> u64;
    /// Waits until `answered` returns true; `false` when `deadline` came first. `answered` is
    /// called at every event of pvmd.
    fn wait(&self, deadline: u64, answered: &mut dyn FnMut() -> bool) -> bool;
}

/// The right to make requests.
pub struct Mailbox(());

impl Mailbox {
    /// The mailbox of this pVM. The caller makes only one for each control page.
    pub const fn new() -> Self {
        Self(())
    }

    /// Makes a request: `fill` writes its arguments into the page, and `take` reads
    /// the reply.
    ///
    /// # Errors
    /// Those of pvmd; `ENOTCONN` when there is no pvmd and none came. The request may have been
    /// carried out all the same.
    pub fn request<C: Channel + ?Sized, R>(
        &mut self,
        channel: &C,
        operation: u32,
        count: u32,
        fill: impl FnOnce(),
        take: impl FnOnce() -> R,
    ) -> Result<R, Errno> {
        fill();
        let mut posted = self.post(channel, operation, count);
        let answer = loop {
            if let Some(answer) = posted.look(channel) {
                break answer;
            }
            channel.wait(channel.now() + LOOK, &mut || posted.is_answered(channel));
        };
        answer.result().map(|()| take())
    }

    /// Asks pvmd to make `count` prepared domains children of this pVM, as
    /// [`request`](Self::request) does, and puts their ids in `children`, which has room for
    /// `count`. Returns the number of children made, at least one. `sharing` is marked, if they
    /// share memory.
    ///
    /// # Errors
    /// As for [`request`](Self::request); `EIO` for an invalid answer.
    pub fn commit<C: Channel + ?Sized>(
        &mut self,
        channel: &C,
        sharing: Option<&Sharing>,
        children: &mut [Option<PvmId>],
    ) -> Result<usize, Errno> {
        let mut commit = self.begin_commit(channel, sharing, children.len() as u32);
        loop {
            if let Some(answer) = commit.posted.look(channel) {
                return self.end_commit(channel, sharing, &commit, answer, children);
            }
            channel.wait(channel.now() + LOOK, &mut || commit.posted.is_answered(channel));
        }
    }

    pub(crate) fn begin_commit<C: Channel + ?Sized>(
        &mut self,
        channel: &C,
        sharing: Option<&Sharing>,
        count: u32,
    ) -> Commit {
        // The mark comes before pvmd can know of the request.
        let before = sharing.map(|sharing| sharing.begin(next(channel)));
        Commit { posted: self.post(channel, operation::COMMIT, count), before }
    }

    pub(crate) fn end_commit<C: Channel + ?Sized>(
        &mut self,
        channel: &C,
        sharing: Option<&Sharing>,
        commit: &Commit,
        answer: Answer,
        children: &mut [Option<PvmId>],
    ) -> Result<usize, Errno> {
        // Without an answer there may be children, now or later: a pvmd that was killed in the
        // middle of it may have let them run.
        if let (Answer::Refused(_), Some(sharing), Some(before)) = (answer, sharing, commit.before) {
            sharing.take_back(before);
        }
        answer.result()?;
        let made = channel.read(daemon::MADE) as usize;
        if !(1..=children.len()).contains(&made) {
            return Err(Errno::EIO);
        }
        for (at, child) in children[..made].iter_mut().enumerate() {
            *child = Some(PvmId::from_raw(channel.read(daemon::CHILDREN + 4 * at)).ok_or(Errno::EIO)?);
        }
        Ok(made)
    }

    pub(crate) fn post<C: Channel + ?Sized>(&mut self, channel: &C, operation: u32, count: u32) -> Posted {
        let number = next(channel);
        channel.write(guest::OPERATION, operation);
        channel.write(guest::COUNT, count);
        channel.write(guest::REQUEST, number);
        channel.notify();
        Posted { number, give_up: channel.now() + PATIENCE }
    }
}

impl Default for Mailbox {
    fn default() -> Self {
        Self::new()
    }
}

/// The number of the next request.
fn next<P: Page + ?Sized>(page: &P) -> u32 {
    page.read(guest::REQUEST).wrapping_add(1)
}

/// A COMMIT that is under way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Commit {
    pub(crate) posted: Posted,
    /// The value of [`Sharing`] before the request.
    before: Option<u32>,
}

/// The outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    Refused(Errno),
    /// pvmd is not there.
    Absent,
}

impl Answer {
    pub(crate) fn result(self) -> Result<(), Errno> {
        match self {
            Self::Done => Ok(()),
            Self::Refused(errno) => Err(errno),
            Self::Absent => Err(Errno::ENOTCONN),
        }
    }
}

/// A request that is under way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Posted {
    pub(crate) number: u32,
    /// System time until which pvmd may be away.
    give_up: u64,
}

impl Posted {
    pub(crate) fn is_answered<P: Page + ?Sized>(&self, page: &P) -> bool {
        page.read(daemon::REPLY) == self.number
    }

    /// Its outcome, if that is known.
    pub(crate) fn look<C: Channel + ?Sized>(&mut self, channel: &C) -> Option<Answer> {
        if self.is_answered(channel) {
            return Some(match channel.read(daemon::ERRNO) {
                0 => Answer::Done,
                errno => Answer::Refused(Errno(errno)),
            });
        }
        let now = channel.now();
        if now >= self.give_up {
            if !channel.daemon_is_there() {
                // A pvmd that comes back later finds another request.
                channel.write(guest::OPERATION, operation::NONE);
                channel.write(guest::REQUEST, self.number.wrapping_add(1));
                return Some(Answer::Absent);
            }
            self.give_up = now + PATIENCE;
        }
        None
    }
}

/// The mark that other domains may read frames of this one. It is set from the last COMMIT that may
/// have made children until pvmd says that no descendant is left. A fault reads it at any time, so
/// it is apart from the lock.
pub struct Sharing(pub(crate) AtomicU32);

impl Sharing {
    /// No domain may.
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// True if other domains may read frames of this one.
    pub fn is_shared<P: Page + ?Sized>(&self, page: &P) -> bool {
        self.0.load(Ordering::Relaxed) != page.read(daemon::UNSHARED)
    }

    /// Clears the mark in a child: nobody reads its frames yet.
    pub fn begin_life(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn begin(&self, commit: u32) -> u32 {
        self.0.swap(commit, Ordering::Relaxed)
    }

    fn take_back(&self, before: u32) {
        self.0.store(before, Ordering::Relaxed);
    }
}

impl Default for Sharing {
    fn default() -> Self {
        Self::new()
    }
}
