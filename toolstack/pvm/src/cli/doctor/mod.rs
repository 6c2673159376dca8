//! `pvm doctor`: what this host offers and lacks, and what does not fit together between
//! hypervisor, xenstore and pvmd.
//!
//! [`host`] gathers facts and judges them, [`books`] compares the three lists of domains. Both hand
//! over [`Finding`]s; those that can be mended without harm to anybody carry a [`Mend`].

mod books;
mod host;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use xenctl::Xen;
use xenctl::xenstore::Store;

use super::client::Client;
use super::error::Error;
use super::logs::put;
use super::options;
use super::progress::Progress;
use crate::protocol::Request;
use books::{Known, Look, Mismatch};
use host::{Facts, Places};

/// Time between the two looks at the domains. A mismatch in both is no change under way.
const PAUSE: Duration = Duration::from_secs(1);
/// Time that xenstored may take for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The exit codes, from the table in docs/real-host.md.
const WRONG: u8 = 1;
const NO_DAEMON: u8 = 121;
const NO_RIGHT: u8 = 122;

/// The weight of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Level {
    /// It is as it should be.
    Good,
    /// It works, and an operator should know.
    Note,
    /// Something is missing, or does not fit.
    Bad,
}

/// One result.
#[derive(Debug, Serialize)]
struct Finding {
    /// The subject, one word.
    check: &'static str,
    level: Level,
    /// The fact, one line.
    message: String,
    /// The advice, one line; none if there is nothing to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
    /// `--repair` has mended it.
    repaired: bool,
    /// The exit code if this is the gravest.
    #[serde(skip)]
    code: u8,
    #[serde(skip)]
    mend: Option<Mend>,
}

impl Finding {
    fn new(check: &'static str, level: Level, message: impl Into<String>, remedy: Option<String>) -> Self {
        Self { check, level, message: message.into(), remedy, repaired: false, code: WRONG, mend: None }
    }

    fn good(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Level::Good, message, None)
    }

    fn note(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(check, Level::Note, message, Some(remedy.into()))
    }

    fn bad(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(check, Level::Bad, message, Some(remedy.into()))
    }

    fn code(self, code: u8) -> Self {
        Self { code, ..self }
    }

    fn mended_by(self, mend: Mend) -> Self {
        Self { mend: Some(mend), ..self }
    }
}

/// An act of `--repair`. Each checks again before it acts.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mend {
    /// Remove a file, or a directory with what is in it, that a daemon left which has ended.
    File(PathBuf),
    /// Remove the socket, if no daemon has it.
    Socket(PathBuf),
    /// Remove or destroy what a mismatch is about.
    Mismatch(Mismatch),
}

/// Examines the host; the exit code of `pvm`.
///
/// # Errors
/// Standard output is closed.
pub fn run(socket: &Path, json: bool, options: &options::Doctor, out: &mut impl Write) -> Result<u8, Error> {
    let progress = Progress::new("examining this host");
    let places = Places::of_host(socket);
    let xen = Xen::open();
    let store = connect_store();
    let mut daemon = Client::connect(socket);
    let facts = Facts::gather(&places, &xen, store.as_ref().map(|_| ()), &mut daemon);
    let mut findings = facts.judge();

    // Without a daemon, domains in no list belong to nobody; of one that does not answer, nothing
    // is known.
    let connected = daemon.is_ok();
    let mut known = || match &mut daemon {
        Ok(client) if facts.daemon.answers() => {
            let pvms = client.ask(Request::List { all: false }).ok()?;
            Some(Some(Known { pvms, pool: client.ask(Request::Pool).ok()? }))
        }
        Err(Error::NotRunning(_)) => Some(None),
        _ => None,
    };
    if let (Ok(xen), Ok(store)) = (&xen, &store) {
        let mut look = || Some(Look::take(xen, store, known()?).map_err(|error| error.to_string()));
        let first = look();
        if first.is_some() {
            thread::sleep(PAUSE);
        }
        match (first, look()) {
            (Some(Ok(first)), Some(Ok(second))) => findings.extend(books::judge(&first, &second)),
            (Some(Err(error)), _) | (_, Some(Err(error))) => {
                findings.push(Finding::bad(
                    "domains",
                    format!("domains and homes cannot be compared: {error}"),
                    "see `xl list` and `xenstore-ls`",
                ));
            }
            _ => {}
        }
        if options.repair {
            let lock = DaemonLock::take(socket, connected);
            repair(&mut findings, |mend| act(mend, xen, store, lock.as_ref()));
        }
    } else if options.repair {
        let lock = DaemonLock::take(socket, connected);
        repair(&mut findings, |mend| match mend {
            Mend::Mismatch(_) => Err("there is no way to Xen or xenstore".to_owned()),
            mend => act_on_file(mend, lock.as_ref()),
        });
    }
    drop(progress);

    let status = status(&findings);
    if json {
        super::print_json(out, &to_json(&findings, status))?;
    } else {
        put(out, render(&findings, options.repair).as_bytes())?;
    }
    Ok(status)
}

/// A connection to xenstored that has answered in time.
fn connect_store() -> Result<Store, String> {
    let (sender, answer) = mpsc::sync_channel(1);
    let ask = move || {
        let connected = Store::connect().map_err(|error| error.to_string());
        let asked = connected.and_then(|store| match store.list("/local/domain") {
            Ok(_) => Ok(store),
            Err(error) => Err(error.to_string()),
        });
        let _ = sender.send(asked);
    };
    thread::Builder::new().name("xenstore".to_owned()).spawn(ask).map_err(|error| error.to_string())?;
    let late = |_| Err(format!("it does not answer within {} s", PATIENCE.as_secs()));
    answer.recv_timeout(PATIENCE).unwrap_or_else(late)
}

/// The lock that each daemon holds: as long as this has it, none runs and none can start.
struct DaemonLock {
    _file: File,
}

impl DaemonLock {
    /// Takes it, unless there is a daemon.
    fn take(socket: &Path, connected: bool) -> Option<Self> {
        if connected {
            return None;
        }
        let file = File::options().append(true).create(true).open(socket.with_extension("lock")).ok()?;
        file.try_lock().ok()?;
        Some(Self { _file: file })
    }
}

/// Mends what can be, and notes it.
fn repair(findings: &mut [Finding], mut act: impl FnMut(&Mend) -> Result<(), String>) {
    for finding in findings {
        let Some(mend) = &finding.mend else { continue };
        match act(mend) {
            Ok(()) => (finding.repaired, finding.remedy) = (true, None),
            Err(why) => finding.remedy = Some(format!("it was not repaired: {why}")),
        }
    }
}

fn act(mend: &Mend, xen: &Xen, store: &Store, lock: Option<&DaemonLock>) -> Result<(), String> {
    match mend {
        Mend::Mismatch(mismatch) => mismatch.mend(xen, store, lock.is_some()),
        mend => act_on_file(mend, lock),
    }
}

fn act_on_file(mend: &Mend, lock: Option<&DaemonLock>) -> Result<(), String> {
    let said = |error: std::io::Error| error.to_string();
    match mend {
        Mend::File(path) => match path.symlink_metadata() {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path).map_err(said),
            Ok(_) => fs::remove_file(path).map_err(said),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(said(error)),
        },
        Mend::Socket(path) if lock.is_some() => fs::remove_file(path).map_err(said),
        Mend::Socket(_) | Mend::Mismatch(_) => Err("a daemon has started meanwhile".to_owned()),
    }
}

/// The exit code: 0 if nothing is wrong, or no longer.
fn status(findings: &[Finding]) -> u8 {
    let wrong = || findings.iter().filter(|finding| finding.level == Level::Bad && !finding.repaired);
    let has = |code| wrong().any(|finding| finding.code == code);
    [NO_RIGHT, WRONG, NO_DAEMON].into_iter().find(|code| has(*code)).unwrap_or(0)
}

fn to_json(findings: &[Finding], status: u8) -> Value {
    json!({ "status": status, "findings": findings })
}

/// The text for people: a line for each finding, and one for what to do about it.
fn render(findings: &[Finding], repair: bool) -> String {
    let mut text = String::new();
    for finding in findings {
        let level = match finding.level {
            _ if finding.repaired => "mended",
            Level::Good => "good",
            Level::Note => "note",
            Level::Bad => "BAD",
        };
        text += &format!("{level:<7} {:<12} {}\n", finding.check, finding.message);
        if let Some(remedy) = &finding.remedy {
            text += &format!("{:<20} -> {remedy}\n", "");
        }
    }
    let mendable = findings.iter().filter(|finding| finding.mend.is_some() && !finding.repaired).count();
    if mendable > 0 && !repair {
        text += &format!("`pvm doctor --repair` mends {mendable} of these.\n");
    }
    text
}
