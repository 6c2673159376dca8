//! The engine's interface: commands, answers, and events.

use std::fmt;
use std::str::FromStr;
use std::sync::Weak;
use std::sync::mpsc::{Sender, SyncSender};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zooid_fork_plan::id::PvmId;
use zooid_fork_plan::link;
use zooid_fork_plan::status::Status;
use zooid_manifest::Version;

/// The channel for the result of a command. It may have no receiver any more.
pub type Reply<T> = Sender<Result<T, Error>>;

/// A command to the engine.
#[derive(Debug)]
pub enum Command {
    /// The living pVMs, without prepared domains.
    List {
        /// pVMs that ended lately are listed, too.
        ended: bool,
        /// The channel of the reply.
        reply: Reply<Vec<PvmInfo>>,
    },
    /// A pVM, which may have ended lately, or a prepared domain.
    Inspect {
        /// The pVM.
        target: Target,
        /// The channel of the reply.
        reply: Reply<PvmInfo>,
    },
    /// Sends a signal to a pVM, or to it and all its descendants; the ids that got it.
    ///
    /// Signal 9 destroys the domain, and its remains are gone when the reply comes. Other signals
    /// are handed to the pVM's own handlers. A pVM without the fork component obeys 15 only, as a
    /// shutdown.
    Kill {
        /// The pVM.
        target: Target,
        /// The signal, 1 to 63.
        signal: u8,
        /// Its descendants get the signal, too.
        family: bool,
        /// The channel of the reply.
        reply: Reply<Vec<u32>>,
    },
    /// Asks a pVM to end in an orderly way (`control/shutdown` = `poweroff`). The reply does not
    /// wait for the end.
    Stop {
        /// The pVM.
        target: Target,
        /// The channel of the reply.
        reply: Reply<()>,
    },
    /// Has a pVM replace a library by another version.
    Update {
        /// The pVM.
        target: Target,
        /// The name of the library.
        library: String,
        /// The version; none for the newest.
        version: Option<Version>,
        /// The time that the pVM may take.
        limit: Duration,
        /// The channel of the reply.
        reply: Reply<Update>,
    },
    /// Has a pVM fork at its next safe point; the ids of the children.
    Fork {
        /// The parent.
        target: Target,
        /// The number of children.
        count: u32,
        /// The application that each child runs: the object's name and the arguments; empty for
        /// none.
        application: Vec<String>,
        /// The channel of the reply.
        reply: Reply<Vec<u32>>,
    },
    /// The end of a pVM, once it has ended; at once if it ended lately.
    Wait {
        /// The pVM.
        target: Target,
        /// Gone when nobody waits any more.
        client: Weak<()>,
        /// The channel of the reply.
        reply: Reply<Ended>,
    },
    /// Makes this domain a pVM though it has not announced itself: its image has no fork component,
    /// or has not booted so far.
    Adopt {
        /// The domain's number.
        domain: u16,
        /// The channel of the reply.
        reply: Reply<PvmInfo>,
    },
    /// Counters and times.
    Stats {
        /// The channel of the reply.
        reply: Reply<Stats>,
    },
    /// The prepared domains.
    Pool {
        /// The channel of the reply.
        reply: Reply<Vec<PoolInfo>>,
    },
    /// The named objects of the family of a pVM; without one, of all families.
    Objects {
        /// A pVM of the family; none for all families.
        target: Option<Target>,
        /// The channel of the reply.
        reply: Reply<Vec<ObjectInfo>>,
    },
    /// Removes the name of an object of a pVM's family. Existing mappings stay.
    RemoveObject {
        /// A pVM of the family.
        target: Target,
        /// The name of the object.
        name: String,
        /// The channel of the reply.
        reply: Reply<()>,
    },
    /// A child has got no network device. Subscribers are told.
    NoNetwork {
        /// The child, which may have ended meanwhile.
        child: PvmId,
        /// The reason, for people.
        reason: String,
    },
    /// Sends all later events to this channel, too. A subscriber whose channel is full is dropped.
    Subscribe {
        /// The channel.
        events: SyncSender<Event>,
    },
    /// Destroys the prepared domains and ends the engine. Children live on.
    Quit {
        /// The channel of the reply.
        reply: Reply<()>,
    },
}

/// A user's name for a pVM: its id, its domid, or its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Target {
    /// An id; below 32768 also a domid.
    Id(u32),
    /// A name, as in `xl list`.
    Name(String),
}

/// A name must not be empty, and must not hold a slash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadTarget;

/// The reason for which a command failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "error", rename_all = "kebab-case")]
pub enum Error {
    /// No pVM has that id or name.
    NoSuchPvm {
        /// The name, id or domid of the command.
        target: String,
    },
    /// Several pVMs have that name.
    Ambiguous {
        /// The name.
        target: String,
        /// Their ids.
        ids: Vec<u32>,
    },
    /// Its image holds no fork component, or has not announced itself yet.
    CannotFork {
        /// Its id.
        id: u32,
    },
    /// It is no empty pVM, or has not said so yet.
    TakesNoApplication {
        /// Its id.
        id: u32,
    },
    /// Its family has no object of that name.
    NoSuchObject {
        /// The pVM of the family.
        target: String,
        /// The name of the object.
        name: String,
    },
    /// It did not reach a safe point in time.
    NoSafePoint {
        /// Its id.
        id: u32,
    },
    /// The guest, or the daemon on its behalf, could not: an error number of Linux.
    Errno {
        /// The error number.
        errno: u32,
        /// The operation that failed.
        what: String,
    },
    /// The pVM ended before it could carry out the command.
    HasEnded {
        /// Its id.
        id: u32,
    },
    /// Xen or xenstore refused something.
    Refused {
        /// The message, for people.
        what: String,
    },
}

/// The outcome of an update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Update {
    /// The library has another version now, or has the wanted one already.
    Updated {
        /// The version before.
        from: String,
        /// The version now.
        to: String,
    },
    /// The pVM keeps its version.
    Kept {
        /// The reason, for people.
        reason: String,
    },
    /// The pVM does not have the library open.
    NotOpen,
}

/// The engine's kinds of domains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Started by a toolstack.
    Root,
    /// Forked.
    Child,
    /// Prepared to become a child.
    Prepared,
}

/// The state of a pVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It boots, or resumes from a fork.
    Starting,
    /// A prepared domain at its waiting point.
    Waiting,
    /// It runs.
    Running,
    /// It is paused.
    Paused,
    /// It has ended.
    Ended,
}

/// The way by which a child gets its parent's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// Foreign page-table entries.
    Foreign,
    /// Grants, copied by the daemon.
    Grant,
}

/// The status with which a pVM ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum EndStatus {
    /// It called `exit`, or its `main` returned.
    Exit {
        /// Its exit code.
        code: u8,
    },
    /// A signal ended it.
    Signal {
        /// The number of the signal.
        signal: u8,
    },
    /// It panicked, or an exception ended it.
    Crash,
    /// It wrote to memory after a fork and no frame was left.
    Oom,
    /// Its domain was destroyed.
    Destroyed,
}

/// The description of a pVM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PvmInfo {
    /// Its id.
    pub id: u32,
    /// Its domain.
    pub domid: u16,
    /// Its name, as in `xl list`.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    /// Its state.
    pub state: State,
    /// It can fork: its image holds the fork component and has announced itself.
    pub can_fork: bool,
    /// Its parent. An orphan's is the family's root. None for a root, and for an orphan whose root
    /// has ended.
    pub parent: Option<u32>,
    /// The family's root, which may have ended.
    pub root: u32,
    /// Its living children.
    pub children: Vec<u32>,
    /// Domains that are prepared for it.
    pub prepared: u32,
    /// The way by which its children get memory; none if it cannot fork.
    pub backend: Option<Backend>,
    /// Memory of its own in KiB, as Xen counts it. Frames that others use too count for their
    /// owner.
    pub memory_kib: u64,
    /// Memory that it may have, in KiB.
    pub max_memory_kib: u64,
    /// Processor time that it has used, in nanoseconds.
    pub cpu_ns: u64,
    /// The time when the daemon first saw it, in microseconds since 1970.
    pub since_us: u64,
    /// Its end, if it has ended.
    pub ended: Option<Ended>,
}

/// The end of a pVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Its id.
    pub id: u32,
    /// The status.
    pub status: EndStatus,
    /// The exit code that a shell would show: the code, or 128 and a signal.
    pub exit_code: u8,
    /// The time, in microseconds since 1970.
    pub at_us: u64,
}

/// A prepared domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolInfo {
    /// The id that it will have as a child.
    pub id: u32,
    /// Its domain.
    pub domid: u16,
    /// The pVM that it is prepared for.
    pub parent: u32,
    /// [`State::Starting`] or [`State::Waiting`].
    pub state: State,
    /// Memory of its own, in KiB.
    pub memory_kib: u64,
    /// Entries of its page tables that name frames of others.
    pub linked_pages: u64,
}

/// Memory that a family shares under a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectInfo {
    /// The name; octets that are no UTF-8 are replaced.
    pub name: String,
    /// Its size, in pages.
    pub pages: u64,
    /// The root of the family, which may have ended.
    pub family: u32,
    /// The domain that holds the memory.
    pub memory_owner: u16,
}

/// Counters and times since the daemon started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Children that were made.
    pub forks: u64,
    /// Forks that were refused, by error number.
    pub refused: Vec<(u32, u64)>,
    /// Domains that were prepared.
    pub prepared: u64,
    /// pVMs that have ended.
    pub ended: u64,
    /// pVMs that live, prepared domains not counted.
    pub alive: u64,
    /// Prepared domains.
    pub pool: u64,
    /// Operations of the executor.
    pub operations: u64,
    /// Page-table entries that were brought up to date between a request to fork and its reply.
    pub relinked_entries: u64,
    /// Times of the steps, in the order in which they happen.
    pub steps: Vec<StepTime>,
}

/// The duration of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepTime {
    /// The step, in words of `docs/protocols/fork.md`.
    pub step: String,
    /// The number of runs.
    pub count: u64,
    /// Nanoseconds of the last run.
    pub last_ns: u64,
    /// Nanoseconds on average.
    pub mean_ns: u64,
    /// Nanoseconds of the longest run.
    pub max_ns: u64,
}

/// An event of a pVM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The time, in microseconds since 1970.
    pub at_us: u64,
    /// The pVM that it happened to.
    pub id: u32,
    /// Its domain.
    pub domid: u16,
    /// Its name.
    pub name: String,
    /// The kind of event, with its fields.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// The kinds of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventKind {
    /// A root pVM was found, also at the daemon's start; or a child has resumed.
    Started {
        /// `Root` or `Child`.
        kind: Kind,
        /// Its parent; none for a root.
        parent: Option<u32>,
    },
    /// It has forked.
    Forked {
        /// The ids of the children.
        children: Vec<u32>,
        /// The time from the request to its answer, in nanoseconds.
        duration_ns: u64,
    },
    /// A domain is prepared for it.
    Prepared {
        /// The number of domains that are prepared for it now.
        prepared: u32,
        /// The domain.
        // The event has a field of this name for the pVM's own.
        #[serde(rename = "prepared_domid")]
        domid: u16,
    },
    /// A fork was refused.
    Refused {
        /// The error number of Linux.
        errno: u32,
        /// The reason, for people.
        reason: String,
    },
    /// A pVM does not get a library, because of a rule.
    LibraryRefused {
        /// The name of the library.
        library: String,
        /// The rule that does not hold.
        rule: String,
    },
    /// A library has been replaced in it.
    LibraryUpdated {
        /// The name of the library.
        library: String,
        /// The version before.
        from: String,
        /// The version now.
        to: String,
    },
    /// An update of a library was asked for and not done.
    LibraryKept {
        /// The name of the library.
        library: String,
        /// The reason, for people.
        reason: String,
    },
    /// It has ended.
    Ended {
        /// Its status.
        status: EndStatus,
        /// The exit code that a shell would show.
        exit_code: u8,
    },
    /// An operation failed that the pVM did not ask for.
    Trouble {
        /// The message, for people.
        message: String,
    },
}

impl From<link::Backend> for Backend {
    fn from(backend: link::Backend) -> Self {
        match backend {
            link::Backend::Foreign => Self::Foreign,
            link::Backend::Grant => Self::Grant,
        }
    }
}

impl From<Status> for EndStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Exited(code) => Self::Exit { code },
            Status::Killed(signal) => Self::Signal { signal },
            Status::Crashed => Self::Crash,
            Status::OutOfMemory => Self::Oom,
            Status::Destroyed => Self::Destroyed,
        }
    }
}

impl From<EndStatus> for Status {
    fn from(status: EndStatus) -> Self {
        match status {
            EndStatus::Exit { code } => Self::Exited(code),
            EndStatus::Signal { signal } => Self::Killed(signal),
            EndStatus::Crash => Self::Crashed,
            EndStatus::Oom => Self::OutOfMemory,
            EndStatus::Destroyed => Self::Destroyed,
        }
    }
}

impl fmt::Display for EndStatus {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        Status::from(*self).fmt(out)
    }
}

impl FromStr for Target {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, BadTarget> {
        match text.parse() {
            Ok(id) => Ok(Self::Id(id)),
            Err(_) if text.is_empty() || text.contains('/') => Err(BadTarget),
            Err(_) => Ok(Self::Name(text.to_owned())),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(out),
            Self::Name(name) => name.fmt(out),
        }
    }
}

impl fmt::Display for BadTarget {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a pVM is named by its id, its domid, or a name without a slash")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchPvm { target } => write!(out, "there is no pVM {target}"),
            Self::Ambiguous { target, ids } => write!(out, "several pVMs are named {target}: {ids:?}"),
            Self::CannotFork { id } => write!(out, "pVM {id} cannot fork: its image does not hold the fork component"),
            Self::TakesNoApplication { id } => {
                write!(out, "pVM {id} takes no application: its image is not one whose main is zooid::app::host")
            }
            Self::NoSuchObject { target, name } => write!(out, "the family of pVM {target} has no object {name:?}"),
            Self::NoSafePoint { id } => write!(out, "pVM {id} did not reach a safe point in time"),
            Self::Errno { errno, what } => write!(out, "{what} ({})", xen_abi::Errno(*errno)),
            Self::HasEnded { id } => write!(out, "pVM {id} has ended"),
            Self::Refused { what } => out.write_str(what),
        }
    }
}

impl std::error::Error for Error {}
impl std::error::Error for BadTarget {}
