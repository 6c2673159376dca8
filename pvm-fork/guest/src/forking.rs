//! The fork call itself.

use alloc::vec::Vec;
use core::ffi::c_void;
use core::fmt;

use xen_abi::Errno;
use zooid_fork_core::mailbox::Mailbox;
use zooid_fork_plan::id::PvmId;
use zooid_fork_plan::wire::{self, daemon};
use zooid_kernel::events::{self, Masked};
use zooid_kernel::life::{self, Order};
use zooid_kernel::mmu::cow;
use zooid_kernel::sync::Turns;

use crate::control::{Control, control};
use crate::{family, grants, objects, snapshot};

/// Result in a child of the call that returns twice.
pub const IN_CHILD: u64 = 0;
/// Its result in the parent when children were made.
const IN_PARENT: u64 = 1;
/// Its result in the parent when no child was made, plus the error number.
const FAILED: u64 = 1 << 32;
/// The largest number of times that a fork begins anew because the memory's layout changed while
/// pvmd read it.
const ATTEMPTS: usize = 16;
/// Room in the snapshot beyond what was counted before everything stands still.
const SPARE_PAGES: usize = 4;

/// The reason for which no child was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForkError {
    /// A quota, or the limit of forks per second (`EAGAIN`). Trying again later may help.
    Again,
    /// Not enough memory in this pVM, in Xen or in dom0, or no grant table entries are left
    /// (`ENOMEM`).
    OutOfMemory,
    /// There is no pvmd in dom0, or it does not answer: is it running?
    NoDaemon,
    /// The number of children is 0 or above 256.
    BadCount,
    /// A handler of [`at_fork`] has called (`EDEADLK`).
    InHandler,
    /// pvmd or Xen refused for another reason.
    Refused(Errno),
}

impl From<Errno> for ForkError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::EAGAIN => Self::Again,
            Errno::ENOMEM => Self::OutOfMemory,
            Errno::ENOTCONN => Self::NoDaemon,
            Errno::EINVAL => Self::BadCount,
            errno => Self::Refused(errno),
        }
    }
}

impl fmt::Display for ForkError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Again => out.write_str("a quota of pVMs, of memory or of forks per second is used up (EAGAIN)"),
            Self::OutOfMemory => out.write_str("not enough memory for a child (ENOMEM)"),
            Self::NoDaemon => out.write_str("pvmd does not answer: is it running in dom0?"),
            Self::BadCount => write!(out, "a call makes 1 to {} children", wire::MAX_CHILDREN),
            Self::InHandler => out.write_str("a handler of at_fork cannot fork (EDEADLK)"),
            Self::Refused(errno) => write!(out, "fork was refused: {errno}"),
        }
    }
}

impl core::error::Error for ForkError {}

/// The side on which a fork has returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forked {
    /// In the parent: the ids of the children, at least one and at most the number asked for.
    Parent(Vec<PvmId>),
    /// In a child: its number among the children of the call, from 0.
    Child(u32),
}

/// Functions that run around each fork, as those of `pthread_atfork`.
#[derive(Clone, Copy)]
pub struct AtFork {
    /// Runs before the fork, in the parent.
    pub prepare: fn(),
    /// Runs after the fork, in the parent, also when no child was made.
    pub parent: fn(),
    /// Runs after the fork, in the child.
    pub child: fn(),
}

/// A function of C that runs around a fork.
pub type CHandler = unsafe extern "C" fn();

#[derive(Clone, Copy)]
enum Handler {
    Rust(fn()),
    C(Option<CHandler>),
}

impl Handler {
    fn call(self) {
        match self {
            Self::Rust(function) => function(),
            // SAFETY: the caller of `at_fork_c` promised so.
            Self::C(Some(function)) => unsafe { function() },
            Self::C(None) => {}
        }
    }
}

/// Handlers that run before a fork, after it in the parent, and after it in the child.
static HANDLERS: Masked<Vec<[Handler; 3]>> = Masked::new(Vec::new());
/// Forks and their handlers: one at a time.
static TURNS: Turns = Turns::new();

/// Registers functions that run around each fork: `prepare` in the reverse order of registration,
/// the others in the order of registration. A fork in one of them fails with
/// [`ForkError::InHandler`].
pub fn at_fork(handlers: AtFork) {
    let AtFork { prepare, parent, child } = handlers;
    HANDLERS.lock().push([prepare, parent, child].map(Handler::Rust));
}

/// As [`at_fork`], with functions of C, in the order of [`AtFork`]; `None` stands for none.
///
/// # Errors
/// There is no memory: nothing is registered.
///
/// # Safety
/// The functions may be called around every fork from now on.
pub unsafe fn at_fork_c(handlers: [Option<CHandler>; 3]) -> Result<(), ForkError> {
    let mut all = HANDLERS.lock();
    all.try_reserve(1).map_err(|_| ForkError::OutOfMemory)?;
    all.push(handlers.map(Handler::C));
    Ok(())
}

/// Makes a child of this pVM, in which only the calling thread, and the libOS's own, live on.
/// Returns the child's id in the parent, `None` in the child.
pub fn fork() -> Result<Option<PvmId>, ForkError> {
    crate::forks();
    let mut child = [None];
    match fork_sides(&mut child, false, 0)? {
        Side::Parent(_) => Ok(child[0]),
        Side::Child(_) => Ok(None),
    }
}

/// Makes `count` children of this pVM. Only the calling thread, and the libOS's own, live on in
/// them; with `all_threads` all do.
pub fn fork_many(count: u32, all_threads: bool) -> Result<Forked, ForkError> {
    crate::forks();
    fork_as_asked(count, all_threads, 0)
}

/// As [`fork_many`]. `request` is the number of dom0's request for this fork, or 0.
pub(crate) fn fork_as_asked(count: u32, all_threads: bool, request: u32) -> Result<Forked, ForkError> {
    if count > wire::MAX_CHILDREN {
        return Err(ForkError::BadCount);
    }
    // Room for their ids is made before there is a child.
    let mut children = Vec::new();
    children.try_reserve_exact(count as usize).map_err(|_| ForkError::OutOfMemory)?;
    children.resize(count as usize, None);
    match fork_sides(&mut children, all_threads, request)? {
        Side::Parent(_) => Ok(Forked::Parent(children.into_iter().flatten().collect())),
        Side::Child(index) => Ok(Forked::Child(index)),
    }
}

/// Makes as many children as `children` has room for, and puts their ids there.
fn fork_sides(children: &mut [Option<PvmId>], all_threads: bool, request: u32) -> Result<Side, ForkError> {
    crate::present();
    if children.is_empty() {
        return Err(ForkError::BadCount);
    }
    let control = control().ok_or(ForkError::OutOfMemory)?;
    let _turn = TURNS.take().ok_or(ForkError::InHandler)?;
    family::reserve(children.len())?;
    let handlers = HANDLERS.lock().len();
    let call = |index: usize, which: usize| {
        let handler = HANDLERS.lock()[index][which];
        handler.call();
    };
    (0..handlers).rev().for_each(|index| call(index, 0));
    let result = attempts(control, children, all_threads, request);
    match result {
        Ok(Side::Child(_)) => (0..handlers).for_each(|index| call(index, 2)),
        _ => (0..handlers).for_each(|index| call(index, 1)),
    }
    result
}

/// The side on which a fork has returned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    /// In the parent: the number of new children.
    Parent(usize),
    /// In a child: its number among the children of the call.
    Child(u32),
}

fn attempts(
    control: &'static Control,
    children: &mut [Option<PvmId>],
    all_threads: bool,
    request: u32,
) -> Result<Side, ForkError> {
    let count = children.len() as u32;
    let mut prepare = control.ready() < count;
    for _ in 0..ATTEMPTS {
        if prepare {
            have_prepared(control, count)?;
        }
        let needed = snapshot::pages_needed(all_threads);
        if !snapshot::fits(needed) {
            // After a request was answered, no child reads the old buffers any more.
            have_prepared(control, 1)?;
            snapshot::make(control, needed + SPARE_PAGES)?;
            have_prepared(control, count)?;
        }
        if control.copies() {
            grants::update(control)?;
        }
        let mut result = Err(Errno(wire::ESTALE));
        life::quiesced_above(Order::Fork, &mut || {
            // Its owner may wait for pvmd for long: the layers below go on meanwhile.
            let mut mailbox = control.mailbox.lock();
            life::quiesced_below(Order::Fork, &mut || {
                result = attempt(control, &mut mailbox, children, all_threads, request);
            });
        });
        match result {
            Err(Errno(wire::ESTALE)) => prepare = true,
            result => return result.map_err(ForkError::from),
        }
    }
    Err(ForkError::Again)
}

/// Makes a PREPARE, and a second one if only the first answer says that pvmd wants grants.
fn have_prepared(control: &Control, count: u32) -> Result<(), Errno> {
    for _ in 0..ATTEMPTS {
        if control.copies() {
            grants::update(control)?;
        }
        match control.prepare(count) {
            Err(Errno(wire::ESTALE)) => {}
            result => return result,
        }
    }
    Err(Errno::EAGAIN)
}

struct Attempt<'a> {
    control: &'a Control,
    mailbox: &'a mut Mailbox,
    children: &'a mut [Option<PvmId>],
    all_threads: bool,
    request: u32,
    made: usize,
}

/// Tries to fork once. `ESTALE`: the layout has changed meanwhile. The libOS stands still: this
/// thread holds its locks, lives on in the child, and releases them there, too.
fn attempt(
    control: &'static Control,
    mailbox: &mut Mailbox,
    children: &mut [Option<PvmId>],
    all_threads: bool,
    request: u32,
) -> Result<Side, Errno> {
    let _mask = events::mask();
    if !snapshot::fits(snapshot::pages_needed(all_threads)) {
        return Err(Errno(wire::ESTALE));
    }
    let mut attempt = Attempt { control, mailbox, children, all_threads, request, made: 0 };
    // SAFETY: `commit` is given what it expects. The second return finds stack and memory as they
    // are now: that is what a fork is.
    match unsafe { life::returns_twice(commit, (&raw mut attempt).cast()) } {
        IN_CHILD => {
            control.begin_life(all_threads);
            Ok(Side::Child(control.page.read_u32(daemon::INDEX)))
        }
        IN_PARENT => {
            control.catch_up();
            let made = attempt.children[..attempt.made].iter().copied().flatten();
            family::adopt(made.clone());
            objects::adopt(made);
            Ok(Side::Parent(attempt.made))
        }
        failed => Err(Errno((failed - FAILED) as u32)),
    }
}

/// Takes the snapshot and makes the COMMIT, in the parent, while everything stands still. The child
/// resumes at `rsp`.
extern "C" fn commit(rsp: u64, attempt: *mut c_void) -> u64 {
    // SAFETY: `attempt` passes its own local, which lives until this returns.
    let Attempt { control, mailbox, children, all_threads, request, made } = unsafe { &mut *attempt.cast::<Attempt>() };
    let buffer = snapshot::take(rsp, *all_threads);
    if !control.copies() {
        cow::protect();
    }
    match control.commit(mailbox, buffer, *request, children) {
        Ok(count) => {
            *made = count;
            IN_PARENT
        }
        Err(errno) => FAILED + u64::from(errno.0),
    }
}
