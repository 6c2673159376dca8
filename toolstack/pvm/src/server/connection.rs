//! One client: reads its requests, asks the engine, writes the answers.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use zooid_manifest::Version;

use super::history::History;
use crate::engine::{Command, Event, Handle, Reply};
use crate::protocol::{Call, CallVersion, DaemonVersion, Fault, FaultKind, Line, MAX_LINE, Request, VERSION};

/// Interval at which a long request checks that its client is still there.
const LOOK: Duration = Duration::from_secs(1);
/// Time that a client may take to read an answer.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// A client's connection.
pub struct Connection {
    input: BufReader<UnixStream>,
    output: UnixStream,
    engine: Handle,
    history: History,
}

/// The reason for which a request has no answer.
enum Trouble {
    /// A fault, of which the client is told.
    Fault(Fault),
    /// The client is gone.
    Gone,
    /// The connection failed.
    Io(io::Error),
}

impl Connection {
    /// Takes a client over.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub fn new(stream: UnixStream, engine: Handle, history: History) -> io::Result<Self> {
        stream.set_write_timeout(Some(WRITE_LIMIT))?;
        Ok(Self { input: BufReader::new(stream.try_clone()?), output: stream, engine, history })
    }

    /// Serves it until it closes the connection.
    ///
    /// # Errors
    /// The connection failed. No action is needed.
    pub fn serve(mut self) -> io::Result<()> {
        loop {
            let mut line = Vec::new();
            self.input.by_ref().take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') {
                return match line.len() {
                    0..=MAX_LINE => Ok(()),
                    _ => self.write(&Line::Error(malformed(format!("a line has at most {MAX_LINE} octets")))),
                };
            }
            let answer = match understand(&line) {
                Ok(request) => self.answer(request),
                Err(fault) => Err(Trouble::Fault(fault)),
            };
            match answer {
                Ok(value) => self.write(&Line::Answer(value))?,
                Err(Trouble::Fault(fault)) => {
                    let last = fault.kind == FaultKind::Busy;
                    self.write(&Line::Error(fault))?;
                    if last {
                        return Ok(());
                    }
                }
                Err(Trouble::Gone) => return Ok(()),
                Err(Trouble::Io(error)) => return Err(error),
            }
        }
    }

    fn answer(&mut self, request: Request) -> Result<serde_json::Value, Trouble> {
        match request {
            Request::Version => json(DaemonVersion {
                version: VERSION,
                program: concat!("pvmd ", env!("CARGO_PKG_VERSION")).to_owned(),
                pid: std::process::id(),
            }),
            Request::List { all } => self.ask(|reply| Command::List { ended: all, reply }),
            Request::Inspect { pvm } => self.ask(|reply| Command::Inspect { target: pvm, reply }),
            Request::Wait { pvm } => self.ask(|reply| Command::Wait { target: pvm, reply }),
            Request::Kill { pvm, signal, family } => {
                self.ask(|reply| Command::Kill { target: pvm, signal, family, reply })
            }
            Request::Stop { pvm } => self.ask(|reply| Command::Stop { target: pvm, reply }),
            Request::Fork { pvm, count, application } => {
                self.ask(|reply| Command::Fork { target: pvm, count, application, reply })
            }
            Request::Update { pvm, library, version, limit_ms } => {
                let version = version.map(|text| Version::parse(&text)).transpose().map_err(|error| {
                    Trouble::Fault(Fault::new(FaultKind::Malformed, format!("the version: {error}")))
                })?;
                let limit = Duration::from_millis(limit_ms.into());
                self.ask(|reply| Command::Update { target: pvm, library, version, limit, reply })
            }
            Request::Adopt { domain } => self.ask(|reply| Command::Adopt { domain, reply }),
            Request::Stats => self.ask(|reply| Command::Stats { reply }),
            Request::Pool => self.ask(|reply| Command::Pool { reply }),
            Request::Objects { family } => self.ask(|reply| Command::Objects { target: family, reply }),
            Request::RemoveObject { pvm, name } => self.ask(|reply| Command::RemoveObject { target: pvm, name, reply }),
            Request::Events { follow: false } => self.write_events(self.history.past()),
            Request::Events { follow: true } => {
                let (past, future) = self.history.follow();
                self.write_events(past)?;
                while let Some(event) = self.next(&future)? {
                    self.write_events([event])?;
                }
                Err(Trouble::Fault(Fault::new(FaultKind::Busy, "events come faster than this client reads them")))
            }
        }
    }

    /// Lets the engine carry out a command, and gives up when the client does.
    fn ask<T: Serialize>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<serde_json::Value, Trouble> {
        let (reply, answer) = mpsc::channel();
        self.engine.send(command(reply)).map_err(|closed| Trouble::Fault(closed.into()))?;
        match self.next(&answer)? {
            Some(Ok(value)) => json(value),
            Some(Err(error)) => Err(Trouble::Fault(error.into())),
            None => Err(Trouble::Fault(crate::engine::Closed.into())),
        }
    }

    /// The next value from a channel; `None` when the channel has ended.
    fn next<T>(&self, channel: &Receiver<T>) -> Result<Option<T>, Trouble> {
        loop {
            match channel.recv_timeout(LOOK) {
                Ok(item) => return Ok(Some(item)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) if self.is_gone() => return Err(Trouble::Gone),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// True if the client has closed its end.
    fn is_gone(&self) -> bool {
        let mut polled = [PollFd::new(&self.output, PollFlags::RDHUP)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0)
    }

    fn write_events(&mut self, events: impl IntoIterator<Item = Event>) -> Result<serde_json::Value, Trouble> {
        for event in events {
            self.write(&Line::Event(event)).map_err(Trouble::Io)?;
        }
        Ok(serde_json::Value::Null)
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        write_line(&mut self.output, line)
    }
}

/// Writes a line in one piece.
pub fn write_line(output: &mut UnixStream, line: &Line) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    output.write_all(&text)
}

/// The request in a line.
fn understand(line: &[u8]) -> Result<Request, Fault> {
    let CallVersion { version } = serde_json::from_slice(line).map_err(|error| malformed(error.to_string()))?;
    if version != VERSION {
        let message =
            format!("this pvmd speaks version {VERSION} of the protocol, not {version}: restart it or update pvm");
        return Err(Fault::new(FaultKind::Version, message));
    }
    let call: Call = serde_json::from_slice(line).map_err(|error| malformed(error.to_string()))?;
    Ok(call.request)
}

fn malformed(what: String) -> Fault {
    Fault::new(FaultKind::Malformed, format!("not a request: {what}"))
}

fn json(value: impl Serialize) -> Result<serde_json::Value, Trouble> {
    serde_json::to_value(value).map_err(|error| Trouble::Io(error.into()))
}
