//! Errors of `pvm`: one line with the remedy, and an exit code for each kind.

use std::path::PathBuf;
use std::{fmt, io};

use serde_json::json;

use crate::engine::{EndStatus, Target};
use crate::library;
use crate::protocol::{Fault, FaultKind};

/// The reason for which `pvm` failed.
#[derive(Debug)]
pub enum Error {
    /// The daemon refused.
    Fault(Fault),
    /// No daemon listens at the socket.
    NotRunning(PathBuf),
    /// The caller may not open the socket.
    NoRight(PathBuf),
    /// The daemon does not answer.
    Silent(PathBuf),
    /// The daemon ended before it answered.
    Lost,
    /// The daemon's answer cannot be understood; it may be of another version.
    NotUnderstood(String),
    /// It took longer than the caller wanted to wait.
    TimedOut(String),
    /// There is no guest of this name.
    NoGuest(String),
    /// A pVM keeps its present version of a library.
    NotUpdated { pvm: String, library: String, reason: String },
    /// A configuration, an image or an argument that no guest can be started from.
    BadGuest(String),
    /// The guest ended before it showed up.
    Died(String, EndStatus),
    /// `xl` failed, with this output.
    Xl(&'static str, String),
    /// `xl` failed for want of memory, with this output.
    NoMemory(&'static str, String),
    /// A signal came before it was done.
    Interrupted,
    /// An error of libraries or keys.
    Library(library::Error),
    /// Linux refused the operation that the text names.
    Io(String, io::Error),
    /// Standard output is closed.
    Output(io::Error),
}

impl Error {
    /// The exit code, from the table in `pvm --help`.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Fault(fault) => match fault.kind {
                FaultKind::NoSuchPvm | FaultKind::Ambiguous | FaultKind::NoSuchObject => 120,
                FaultKind::Busy | FaultKind::Idle | FaultKind::Stopping | FaultKind::Version | FaultKind::Malformed => {
                    121
                }
                FaultKind::CannotFork
                | FaultKind::TakesNoApplication
                | FaultKind::HasEnded
                | FaultKind::Refused
                | FaultKind::Other => 123,
                FaultKind::NoSafePoint => 124,
            },
            Self::NoGuest(_) => 120,
            Self::NotUpdated { .. } | Self::NoMemory(..) => 123,
            Self::Library(error) => match error {
                library::Error::NoLibrary(_) => 120,
                library::Error::Exists { .. } | library::Error::Rule(..) | library::Error::Object(..) => 123,
                library::Error::Description(_) | library::Error::Bad(_) | library::Error::Io(..) => 1,
            },
            Self::NotRunning(_) | Self::Silent(_) | Self::Lost | Self::NotUnderstood(_) => 121,
            Self::NoRight(_) => 122,
            Self::TimedOut(_) => 124,
            Self::BadGuest(_) | Self::Died(..) | Self::Xl(..) | Self::Interrupted | Self::Io(..) | Self::Output(_) => 1,
        }
    }

    /// The error as JSON: kind, message, and further facts.
    pub fn to_json(&self) -> serde_json::Value {
        let kind = match self {
            Self::Fault(fault) => {
                // The daemon's own words. A fault is always an object.
                let mut object = json!(fault);
                object["message"] = self.to_string().into();
                return json!({ "error": object });
            }
            Self::NotRunning(_) => "not-running",
            Self::NoRight(_) => "no-right",
            Self::Silent(_) => "silent",
            Self::Lost => "lost",
            Self::NotUnderstood(_) => "not-understood",
            Self::TimedOut(_) => "timed-out",
            Self::NoGuest(_) => "no-such-guest",
            Self::NotUpdated { .. } => "not-updated",
            Self::BadGuest(_) => "bad-guest",
            Self::Died(..) => "died",
            Self::Xl(..) => "xl",
            Self::NoMemory(..) => "no-memory",
            Self::Interrupted => "interrupted",
            Self::Library(error) => match error {
                library::Error::NoLibrary(_) => "no-such-library",
                library::Error::Exists { .. } => "exists",
                library::Error::Rule(..) | library::Error::Object(..) => "refused",
                library::Error::Description(_) | library::Error::Bad(_) => "bad-library",
                library::Error::Io(..) => "io",
            },
            Self::Io(..) | Self::Output(_) => "io",
        };
        json!({ "error": { "kind": kind, "message": self.to_string() } })
    }
}

impl From<library::Error> for Error {
    fn from(error: library::Error) -> Self {
        Self::Library(error)
    }
}

/// The remedy for a fault of the daemon's.
fn hint(fault: &Fault) -> &'static str {
    match fault.kind {
        FaultKind::NoSuchPvm => ": `pvm list --all` shows those that there are",
        FaultKind::Ambiguous => ": use the id",
        FaultKind::NoSuchObject => ": `pvm ipc list` shows those that there are",
        FaultKind::CannotFork => "; see `pvm inspect`",
        FaultKind::NoSafePoint => ": is it busy, or paused? Try again",
        FaultKind::HasEnded => ": `pvm list --all` shows how",
        FaultKind::Refused if fault.errno == Some(EAGAIN) => ": a quota, or too fast; see pvmd.toml",
        FaultKind::Refused if fault.errno == Some(ENOMEM) => ": see `xl info` for free memory",
        _ => "",
    }
}

const EAGAIN: u32 = 11;
const ENOMEM: u32 = 12;

/// The error for a pVM that the caller has named and that the daemon does not know.
pub fn no_such(target: &Target) -> Error {
    Error::Fault(Fault::new(FaultKind::NoSuchPvm, format!("there is no pVM {target}")))
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault) => write!(out, "{fault}{}", hint(fault)),
            Self::NotRunning(socket) => {
                write!(
                    out,
                    "pvmd is not running (nobody at {}): start it with `systemctl start pvmd`",
                    socket.display()
                )
            }
            Self::NoRight(socket) => {
                write!(out, "no right to use {}: run pvm as root, or see `pvmd --group`", socket.display())
            }
            Self::Silent(socket) => write!(out, "pvmd does not answer at {}: see its log", socket.display()),
            Self::Lost => {
                out.write_str("pvmd ended before it answered: the request may have been carried out, see `pvm list`")
            }
            Self::NotUnderstood(what) => {
                write!(out, "what pvmd answers cannot be understood ({what}): are pvm and pvmd of one version?")
            }
            Self::TimedOut(what) => out.write_str(what),
            Self::NotUpdated { pvm, library, reason } => write!(out, "{pvm} keeps {library} as it is: {reason}"),
            Self::NoGuest(what) | Self::BadGuest(what) => out.write_str(what),
            Self::Died(name, status) => {
                write!(
                    out,
                    "{name} ended before it gave a sign of life ({status}): see `pvm logs {name}` and `xl dmesg`"
                )
            }
            Self::Interrupted => out.write_str("a signal came before it was done: nothing is left of it"),
            Self::Xl(what, said) => write!(out, "xl {what} failed: {said}"),
            Self::NoMemory(what, said) => {
                write!(out, "xl {what} failed for want of memory: {said}: see `xl info` for free memory")
            }
            Self::Library(error) => error.fmt(out),
            Self::Io(what, error) => write!(out, "cannot {what}: {error}"),
            Self::Output(error) => write!(out, "cannot write to standard output: {error}"),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn all() -> Vec<Error> {
        use FaultKind::*;
        let kinds = [
            Malformed,
            Version,
            NoSuchPvm,
            Ambiguous,
            CannotFork,
            TakesNoApplication,
            NoSafePoint,
            HasEnded,
            Refused,
            Busy,
            Idle,
            Stopping,
            Other,
        ];
        let mut all: Vec<_> = kinds.map(|kind| Error::Fault(Fault::new(kind, "no"))).into();
        let path = || PathBuf::from("/run/x.sock");
        let io = || io::Error::from_raw_os_error(28);
        all.extend([
            Error::NotRunning(path()),
            Error::NoRight(path()),
            Error::Silent(path()),
            Error::Lost,
            Error::NotUnderstood("x".into()),
            Error::TimedOut("x".into()),
            Error::NoGuest("x".into()),
            Error::NotUpdated { pvm: "5".into(), library: "x".into(), reason: "y".into() },
            Error::BadGuest("x".into()),
            Error::Died("x".into(), EndStatus::Crash),
            Error::Xl("create", "x".into()),
            Error::NoMemory("create", "x".into()),
            Error::Interrupted,
            Error::Library(library::Error::NoLibrary("x".into())),
            Error::Library(library::Error::Rule("x".into(), zooid_manifest::Refusal::Unsigned)),
            Error::Library(library::Error::Bad("x".into())),
            Error::Io("read x".into(), io()),
            Error::Output(io()),
        ]);
        all
    }

    #[test]
    fn each_is_one_line_with_a_code_that_the_help_names() {
        let help = super::super::Options::command().render_long_help().to_string();
        for error in all() {
            let line = error.to_string();
            assert!(!line.contains('\n') && !line.is_empty(), "{line}");
            assert!(help.contains(&format!("\n  {:<4} ", error.exit_code())), "{line}: {}", error.exit_code());
            assert!(error.to_json()["error"]["kind"].is_string());
        }
    }

    #[test]
    fn the_lines_that_users_see_most() {
        for (error, code, line) in [
            (
                no_such(&Target::Name("web".into())),
                120,
                "there is no pVM web: `pvm list --all` shows those that there are",
            ),
            (
                Error::NotRunning("/run/zooid/pvmd.sock".into()),
                121,
                "pvmd is not running (nobody at /run/zooid/pvmd.sock): start it with `systemctl start pvmd`",
            ),
            (
                Error::NoRight("/run/zooid/pvmd.sock".into()),
                122,
                "no right to use /run/zooid/pvmd.sock: run pvm as root, or see `pvmd --group`",
            ),
            (
                Error::NoMemory("create", "can't allocate low memory".into()),
                123,
                "xl create failed for want of memory: can't allocate low memory: see `xl info` for free memory",
            ),
            (
                Error::Fault(Fault {
                    kind: FaultKind::Refused,
                    message: "the family is full (EAGAIN)".into(),
                    errno: Some(11),
                }),
                123,
                "the family is full (EAGAIN): a quota, or too fast; see pvmd.toml",
            ),
        ] {
            assert_eq!((error.exit_code(), &*error.to_string()), (code, line));
        }
        let object = no_such(&Target::Id(5)).to_json();
        assert_eq!(object["error"]["kind"], "no-such-pvm");
    }
}
