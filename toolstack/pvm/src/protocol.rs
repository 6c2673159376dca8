//! The protocol between `pvm` and `pvmd` on the daemon's socket: lines of JSON, described in
//! `docs/protocols/pvmd.md`.
//!
//! The types of the answers are in [`engine`](crate::engine).

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::engine::{Closed, Error, Event, Target};
use crate::plain::plain;

/// Version of the protocol.
pub const VERSION: u32 = 1;
/// The default path of the daemon's socket.
pub const SOCKET: &str = "/run/zooid/pvmd.sock";
/// Longest line that the daemon reads, in octets.
pub const MAX_LINE: usize = 65_536;
/// Domids are below this number, so that a smaller one names a domain.
pub const FIRST_GENERATION: u32 = 1 << 15;

/// A line from a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// The version of the protocol: [`VERSION`].
    pub version: u32,
    /// The request.
    pub request: Request,
}

/// The part of a [`Call`] that every version has. It is read first, so that another version is
/// reported as such.
#[derive(Deserialize)]
pub struct CallVersion {
    /// The client's version of the protocol.
    pub version: u32,
}

/// A request. Its answer is named for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// The daemon's version: [`DaemonVersion`].
    Version,
    /// The pVMs, as a list of [`PvmInfo`](crate::engine::PvmInfo); with `all`, those too that ended
    /// lately.
    List {
        /// pVMs that ended lately are listed, too.
        all: bool,
    },
    /// One [`PvmInfo`](crate::engine::PvmInfo).
    Inspect {
        /// The pVM.
        pvm: Target,
    },
    /// [`Ended`](crate::engine::Ended), once the pVM has ended.
    Wait {
        /// The pVM.
        pvm: Target,
    },
    /// The ids of the pVMs that got the signal.
    Kill {
        /// The pVM.
        pvm: Target,
        /// The signal, 1 to 63.
        signal: u8,
        /// Its descendants get the signal, too.
        family: bool,
    },
    /// Nothing; the pVM has been asked to end.
    Stop {
        /// The pVM.
        pvm: Target,
    },
    /// The outcome, an [`Update`](crate::engine::Update): the pVM replaces a library by another
    /// version.
    Update {
        /// The pVM.
        pvm: Target,
        /// The name of the library.
        library: String,
        /// The version; none for the newest.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<String>,
        /// The time that the pVM may take, in milliseconds.
        limit_ms: u32,
    },
    /// The ids of the children.
    Fork {
        /// The parent.
        pvm: Target,
        /// The number of children.
        count: u32,
        /// The application that each child runs: the object's name and the arguments. Empty if the
        /// children only return from the fork.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        application: Vec<String>,
    },
    /// The [`PvmInfo`](crate::engine::PvmInfo) of a domain that counts as a pVM from now on.
    Adopt {
        /// The domain's number.
        domain: u16,
    },
    /// [`Stats`](crate::engine::Stats).
    Stats,
    /// A list of [`PoolInfo`](crate::engine::PoolInfo).
    Pool,
    /// A list of [`ObjectInfo`](crate::engine::ObjectInfo): the named objects of the family of a
    /// pVM, or of all.
    Objects {
        /// A pVM of the family; none for all families.
        family: Option<Target>,
    },
    /// Nothing; the family of the pVM has no object of this name any more.
    RemoveObject {
        /// A pVM of the family.
        pvm: Target,
        /// The name of the object.
        name: String,
    },
    /// [`Line::Event`] for each event that the daemon remembers; with `follow`, also for each later
    /// one.
    Events {
        /// Later events follow.
        follow: bool,
    },
}

impl Request {
    /// True if the answer may be as long in coming as guests like.
    pub fn waits(&self) -> bool {
        matches!(self, Self::Wait { .. } | Self::Update { .. } | Self::Events { follow: true })
    }
}

/// A line from the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// The answer; final.
    Answer(Value),
    /// The reason for a failure; final.
    Error(Fault),
    /// An event; more lines follow.
    Event(Event),
}

/// The answer to [`Request::Version`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonVersion {
    /// Version of the protocol.
    pub version: u32,
    /// Name and version of the program.
    pub program: String,
    /// Its process id.
    pub pid: u32,
}

/// The reason for which the daemon did not carry out a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The kind, for programs.
    pub kind: FaultKind,
    /// The message, for people: one line.
    pub message: String,
    /// An error number of Linux, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<u32>,
}

/// Kinds of [`Fault`], by the party that can remedy it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// The client: the line is no request.
    Malformed,
    /// The installation: client and daemon are of different versions.
    Version,
    /// The caller: no pVM has that id or name.
    NoSuchPvm,
    /// The caller: several pVMs have that name.
    Ambiguous,
    /// The caller: the family has no object of that name.
    NoSuchObject,
    /// The pVM: its image has no fork component, or has not announced itself yet.
    CannotFork,
    /// The pVM: it is no empty one, or has not announced itself as such yet.
    TakesNoApplication,
    /// The pVM: it did not reach a safe point in time.
    NoSafePoint,
    /// No party: the pVM ended before it could.
    HasEnded,
    /// The operator (a quota) or the host (memory; Xen's error).
    Refused,
    /// The client: too many connections, or it reads too slowly.
    Busy,
    /// The client: it has asked for nothing for too long, or another connection needed its place. No
    /// request was lost; the client may connect again.
    Idle,
    /// The daemon is about to end.
    Stopping,
    /// A kind that this version does not know.
    #[serde(other)]
    Other,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let (kind, errno) = match &error {
            Error::NoSuchPvm { .. } => (FaultKind::NoSuchPvm, None),
            Error::Ambiguous { .. } => (FaultKind::Ambiguous, None),
            Error::NoSuchObject { .. } => (FaultKind::NoSuchObject, None),
            Error::CannotFork { .. } => (FaultKind::CannotFork, None),
            Error::TakesNoApplication { .. } => (FaultKind::TakesNoApplication, None),
            Error::NoSafePoint { .. } => (FaultKind::NoSafePoint, None),
            Error::Errno { errno, .. } => (FaultKind::Refused, Some(*errno)),
            Error::HasEnded { .. } => (FaultKind::HasEnded, None),
            Error::Refused { .. } => (FaultKind::Refused, None),
        };
        Self { kind, message: error.to_string(), errno }
    }
}

impl From<Closed> for Fault {
    fn from(_: Closed) -> Self {
        Self::new(FaultKind::Stopping, "the daemon is about to end")
    }
}

impl Fault {
    /// A fault without an error number.
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), errno: None }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The message is from another program: it may hold characters that command a terminal.
        out.write_str(&plain(&self.message))
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{EndStatus, Ended, EventKind, Kind, ObjectInfo, PoolInfo, PvmInfo, Stats, Update};

    const PAGE: &str = include_str!("../../../docs/protocols/pvmd.md");

    /// The lines of the page's examples.
    fn examples() -> Vec<Value> {
        let blocks = PAGE.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("json\n"));
        blocks.flat_map(str::lines).map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    #[test]
    fn the_examples_of_the_page_are_read_and_written_as_they_stand() {
        let (mut calls, mut lines) = (0, 0);
        for example in examples() {
            if example.get("version").is_some() {
                let call: Call = serde_json::from_value(example.clone()).unwrap();
                assert_eq!(serde_json::to_value(&call).unwrap(), example);
                calls += 1;
            } else {
                let line: Line = serde_json::from_value(example.clone()).unwrap();
                assert_eq!(serde_json::to_value(&line).unwrap(), example);
                lines += 1;
            }
        }
        assert_eq!((calls, lines), (16, 10));
    }

    #[test]
    fn the_answers_of_the_page_are_what_the_engine_gives() {
        let answers = examples().into_iter().filter_map(|example| example.get("answer").cloned());
        let mut known = 0;
        for answer in answers {
            let written = if answer.get("domid").is_some() {
                serde_json::to_value(serde_json::from_value::<PvmInfo>(answer.clone()).unwrap())
            } else if answer.get("status").is_some() {
                serde_json::to_value(serde_json::from_value::<Ended>(answer.clone()).unwrap())
            } else if answer.get("steps").is_some() {
                serde_json::to_value(serde_json::from_value::<Stats>(answer.clone()).unwrap())
            } else if answer.get("updated").is_some() {
                serde_json::to_value(serde_json::from_value::<Update>(answer.clone()).unwrap())
            } else if answer.get(0).is_some_and(|first| first.get("memory_owner").is_some()) {
                serde_json::to_value(serde_json::from_value::<Vec<ObjectInfo>>(answer.clone()).unwrap())
            } else {
                serde_json::to_value(serde_json::from_value::<Vec<PoolInfo>>(answer.clone()).unwrap())
            };
            assert_eq!(written.unwrap(), answer);
            known += 1;
        }
        assert_eq!(known, 6);
    }

    #[test]
    fn the_page_names_every_kind_of_error() {
        use FaultKind::*;
        for kind in [
            Malformed,
            Version,
            NoSuchPvm,
            Ambiguous,
            NoSuchObject,
            CannotFork,
            TakesNoApplication,
            NoSafePoint,
            HasEnded,
            Refused,
            Busy,
            Idle,
            Stopping,
        ] {
            let word = serde_json::to_value(kind).unwrap();
            assert!(PAGE.contains(&format!("\n| `{}` | ", word.as_str().unwrap())), "{word}");
            assert_eq!(serde_json::from_value::<FaultKind>(word).unwrap(), kind);
        }
    }

    #[test]
    fn every_kind_of_event_comes_back() {
        let status = EndStatus::Signal { signal: 9 };
        for kind in [
            EventKind::Started { kind: Kind::Child, parent: Some(5) },
            EventKind::Forked { children: vec![6, 7], duration_ns: 8 },
            EventKind::Prepared { prepared: 9, domid: 10 },
            EventKind::Refused { errno: 11, reason: "x".into() },
            EventKind::LibraryRefused { library: "x".into(), rule: "y".into() },
            EventKind::LibraryUpdated { library: "x".into(), from: "1.0.0".into(), to: "2.0.0".into() },
            EventKind::LibraryKept { library: "x".into(), reason: "y".into() },
            EventKind::Ended { status, exit_code: 137 },
            EventKind::Trouble { message: "y".into() },
        ] {
            let line = Line::Event(Event { at_us: 1, id: 2, domid: 3, name: "z".into(), kind });
            let text = serde_json::to_string(&line).unwrap();
            assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line, "{text}");
        }
    }

    #[test]
    fn what_is_not_known_is_refused_in_a_call_and_ignored_in_a_line() {
        for call in [
            r#"{"version":1,"request":{"list":{"all":true,"long":true}}}"#,
            r#"{"version":1,"request":{"list":{}}}"#,
            r#"{"version":1,"request":"dance"}"#,
            r#"{"version":1,"request":"stats","more":1}"#,
            r#"{"version":1,"request":{"kill":{"pvm":5,"signal":256,"family":false}}}"#,
            r#"{"version":1,"request":{"inspect":{"pvm":-1}}}"#,
        ] {
            assert!(serde_json::from_str::<Call>(call).is_err(), "{call}");
        }
        let line = r#"{"error":{"kind":"from-the-future","message":"x","colour":"red"}}"#;
        let Ok(Line::Error(fault)) = serde_json::from_str(line) else { panic!("{line}") };
        assert_eq!(fault.kind, FaultKind::Other);
    }

    #[test]
    fn a_message_cannot_command_a_terminal() {
        let fault = Fault::new(FaultKind::Refused, "a\x1b[2Jb\nc");
        assert_eq!(fault.to_string(), "a[2Jbc");
    }
}
