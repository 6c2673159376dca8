//! What can be asked of the engine, what it answers, and what it tells of its own accord.

use std::fmt;
use std::str::FromStr;
use std::sync::mpsc::{Sender, SyncSender};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zooid_fork_plan::link;
use zooid_fork_plan::status::Status;
use zooid_manifest::Version;

/// Where the engine sends what a command asked for. That nobody waits any more is no error.
pub type Reply<T> = Sender<Result<T, Error>>;

/// What can be asked of the engine.
#[derive(Debug)]
pub enum Command {
    /// The pVMs that live, prepared domains left out; with `ended`, those too that ended lately.
    List {
        /// pVMs that ended lately are listed, too.
        ended: bool,
        /// The channel of the reply.
        reply: Reply<Vec<PvmInfo>>,
    },
    /// One pVM, which may have ended lately, or a prepared domain.
    Inspect {
        /// The pVM.
        target: Target,
        /// The channel of the reply.
        reply: Reply<PvmInfo>,
    },
    /// Sends a signal to a pVM, or to it and all its descendants (`family`); answers the ids that got it.
    ///
    /// Signal 9 destroys the domain, and what it leaves behind is gone when the reply comes. Another one is handed to the
    /// pVM's own handlers; one whose image has no fork component obeys 15 only, as a shutdown.
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
    /// Asks a pVM to end in an orderly way (`control/shutdown` = `poweroff`). The reply does not wait for the end.
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
    /// Has a pVM fork at its next safe point, and answers the ids of the children.
    Fork {
        /// The parent.
        target: Target,
        /// The number of children.
        count: u32,
        /// The application that each child runs: the object's name and the arguments; empty for none.
        application: Vec<String>,
        /// The channel of the reply.
        reply: Reply<Vec<u32>>,
    },
    /// Answers when the pVM has ended; at once if it ended lately.
    Wait {
        /// The pVM.
        target: Target,
        /// The channel of the reply.
        reply: Reply<Ended>,
    },
    /// Says that this domain is a pVM, though it may not say so itself: its image has no fork component, or has not come that far.
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
    /// Removes the name of an object of a pVM's family. Who has it mapped goes on.
    RemoveObject {
        /// A pVM of the family.
        target: Target,
        /// The name of the object.
        name: String,
        /// The channel of the reply.
        reply: Reply<()>,
    },
    /// From now on, all events go to this channel too. A subscriber that lets its channel become full is dropped.
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

/// How a user names a pVM: by id, by domid, or by name.
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

/// Why a command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "error", rename_all = "kebab-case")]
pub enum Error {
    /// No pVM has that id or name.
    NoSuchPvm {
        /// The caller's word for it.
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
    /// The pVM ended before it could.
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

/// What has become of the request for an update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Update {
    /// It is another version now; or the same, if that is the one that is asked for.
    Updated {
        /// The version before.
        from: String,
        /// The version now.
        to: String,
    },
    /// The pVM goes on with the version that it has.
    Kept {
        /// The reason, for people.
        reason: String,
    },
    /// The pVM does not have it open.
    NotOpen,
}

/// What a domain is to the engine.
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

/// What a pVM is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It boots, or resumes from a fork.
    Starting,
    /// A prepared domain at its waiting point.
    Waiting,
    /// It lives.
    Running,
    /// It lives, and somebody has paused it.
    Paused,
    /// It has ended.
    Ended,
}

/// How a child gets its parent's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// Foreign page-table entries.
    Foreign,
    /// Grants, copied by the daemon.
    Grant,
}

/// How a pVM ended.
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

/// What is known of a pVM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PvmInfo {
    /// Its id.
    pub id: u32,
    /// Its domain.
    pub domid: u16,
    /// Its name, as in `xl list`.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// What it does.
    pub state: State,
    /// Whether it can fork: its image holds the fork component and has announced itself.
    pub can_fork: bool,
    /// Its parent; of an orphan, the family's root; nothing for a root, and for an orphan whose root has ended.
    pub parent: Option<u32>,
    /// The family's root, which may have ended.
    pub root: u32,
    /// Its living children.
    pub children: Vec<u32>,
    /// Domains that are prepared for it.
    pub prepared: u32,
    /// How it forks; nothing when it cannot.
    pub backend: Option<Backend>,
    /// Memory of its own in KiB, as Xen counts it: frames that others use too are counted for their owner.
    pub memory_kib: u64,
    /// Memory that it may have, in KiB.
    pub max_memory_kib: u64,
    /// Processor time that it has used, in nanoseconds.
    pub cpu_ns: u64,
    /// When the daemon first saw it, in microseconds since 1970.
    pub since_us: u64,
    /// How it ended, if it has.
    pub ended: Option<Ended>,
}

/// The end of a pVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Its id.
    pub id: u32,
    /// How.
    pub status: EndStatus,
    /// What a shell would show for it: the code, or 128 and a signal.
    pub exit_code: u8,
    /// When, in microseconds since 1970.
    pub at_us: u64,
}

/// A prepared domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolInfo {
    /// The id that it will have as a child.
    pub id: u32,
    /// Its domain.
    pub domid: u16,
    /// Whom it is prepared for.
    pub parent: u32,
    /// [`State::Starting`] or [`State::Waiting`].
    pub state: State,
    /// Memory of its own, in KiB.
    pub memory_kib: u64,
    /// Entries of its page tables that name frames of others.
    pub linked_pages: u64,
}

/// Memory that a family shares by a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectInfo {
    /// The name; octets that are no UTF-8 are replaced.
    pub name: String,
    /// Its size.
    pub pages: u64,
    /// The root of the family, which may have ended.
    pub family: u32,
    /// The domain that has the memory.
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

/// How long a step took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepTime {
    /// What is done, in words of `docs/protocols/fork.md`.
    pub step: String,
    /// How often it was.
    pub count: u64,
    /// Nanoseconds the last time.
    pub last_ns: u64,
    /// Nanoseconds on average.
    pub mean_ns: u64,
    /// The most nanoseconds.
    pub max_ns: u64,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in microseconds since 1970.
    pub at_us: u64,
    /// The pVM that it happened to.
    pub id: u32,
    /// Its domain.
    pub domid: u16,
    /// Its name.
    pub name: String,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventKind {
    /// A root pVM was found, or was there when the daemon started; or a child has resumed.
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
    /// It does not get a library: which rule does not hold.
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
    /// A library should have been replaced, and was not.
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
    /// Something went wrong that the pVM did not ask for.
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
