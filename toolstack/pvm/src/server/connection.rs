//! One client: reads its requests, asks the engine, writes the answers.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendFlags, send};
use serde::Serialize;
use zooid_manifest::Version;

use super::history::History;
use super::places::{Begun, Full, Place};
use crate::engine::{Command, Event, Handle, Reply};
use crate::protocol::{Call, CallVersion, DaemonVersion, Fault, FaultKind, Line, MAX_LINE, Request, VERSION};

/// Time that a client may take to read an answer.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// The times of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest from an answer, or the beginning, to a request's first octet.
    pub idle: Duration,
    /// Longest from a request's first octet to its last.
    pub line: Duration,
    /// Between two looks, during a long request, at whether the client is still there.
    pub look: Duration,
}

/// The limits of the daemon.
pub const LIMITS: Limits =
    Limits { idle: Duration::from_secs(60), line: Duration::from_secs(10), look: Duration::from_secs(1) };

/// The socket of a connection, which the table of places shares.
pub type Stream = Arc<UnixStream>;

/// A client's connection.
pub struct Connection {
    input: BufReader<Input>,
    output: Stream,
    place: Place<Stream>,
    limits: Limits,
    engine: Handle,
    history: History,
}

/// The readable side of a socket.
struct Input(Stream);

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(buffer)
    }
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
    /// Linux refuses a time limit.
    pub fn new(
        stream: Stream,
        place: Place<Stream>,
        limits: Limits,
        engine: Handle,
        history: History,
    ) -> io::Result<Self> {
        stream.set_write_timeout(Some(WRITE_LIMIT))?;
        Ok(Self { input: BufReader::new(Input(stream.clone())), output: stream, place, limits, engine, history })
    }

    /// Serves it until it closes the connection, or its sending side and has its answers.
    ///
    /// # Errors
    /// The connection failed. No action is needed.
    pub fn serve(mut self) -> io::Result<()> {
        loop {
            let line = match self.next_line()? {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(()),
                Err(fault) => return self.write(&Line::Error(fault)),
            };
            let request = understand(&line);
            match self.place.begin(request.as_ref().is_ok_and(Request::waits)) {
                Begun::Go => {}
                Begun::Gone => return Ok(()),
                Begun::Full => {
                    let fault = Fault::new(FaultKind::Busy, "as many clients wait as pvmd takes: try again later");
                    return self.write(&Line::Error(fault));
                }
            }
            match request.map_err(Trouble::Fault).and_then(|request| self.answer(request)) {
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
            match self.place.end(Instant::now()) {
                Ok(None) => {}
                Ok(Some(gone)) => dismiss(&gone, gave_way()),
                Err(Full) => return self.write(&Line::Error(gave_way())),
            }
        }
    }

    /// The next line, without its line feed; none when the client has ended its side. The inner
    /// error is the last that the client is told.
    fn next_line(&mut self) -> io::Result<Result<Option<Vec<u8>>, Fault>> {
        let mut line = Vec::new();
        let mut until = Instant::now() + self.limits.idle;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Err(too_slow(&line)));
            }
            self.output.set_read_timeout(Some(left))?;
            let octets = match self.input.fill_buf() {
                Ok(octets) => octets,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => continue,
                Err(error) => return Err(error),
            };
            if octets.is_empty() {
                let unfinished = || malformed("a line ends with a line feed".to_owned());
                return Ok(if line.is_empty() { Ok(None) } else { Err(unfinished()) });
            }
            if line.is_empty() {
                until = Instant::now() + self.limits.line;
            }
            let end = octets.iter().position(|octet| *octet == b'\n');
            let taken = end.unwrap_or(octets.len());
            line.extend_from_slice(&octets[..taken]);
            self.input.consume(taken + usize::from(end.is_some()));
            if line.len() > MAX_LINE {
                return Ok(Err(malformed(format!("a line has at most {MAX_LINE} octets"))));
            }
            if end.is_some() {
                return Ok(Ok(Some(line)));
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
            Request::Wait { pvm } => {
                let client = Arc::new(());
                self.ask(|reply| Command::Wait { target: pvm, client: Arc::downgrade(&client), reply })
            }
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
                Err(Trouble::Fault(Fault::new(
                    FaultKind::Busy,
                    "events are missing: they come faster than they are read",
                )))
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
            match channel.recv_timeout(self.limits.look) {
                Ok(item) => return Ok(Some(item)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) if self.is_gone() => return Err(Trouble::Gone),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// True if the client has closed its end. One that has only shut down its sending side still
    /// reads (shutdown(2)): Linux reports `POLLHUP` when both directions are closed.
    fn is_gone(&self) -> bool {
        let mut polled = [PollFd::new(&*self.output, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0)
    }

    fn write_events(&mut self, events: impl IntoIterator<Item = Event>) -> Result<serde_json::Value, Trouble> {
        for event in events {
            self.write(&Line::Event(event)).map_err(Trouble::Io)?;
        }
        Ok(serde_json::Value::Null)
    }

    fn write(&self, line: &Line) -> io::Result<()> {
        (&*self.output).write_all(&octets(line)?)
    }
}

/// Tells a client why it is not served, and closes its connection. Nothing waits for the client:
/// the line fits into the socket's buffer, unless the client does not read.
pub fn dismiss(stream: &UnixStream, fault: Fault) {
    if let Ok(octets) = octets(&Line::Error(fault)) {
        let _ = send(stream, &octets, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }
    let _ = stream.shutdown(Shutdown::Both);
}

/// The fault of a client whose place another one has.
pub fn gave_way() -> Fault {
    Fault::new(FaultKind::Idle, "an idle connection gave way to another")
}

/// A line in one piece.
fn octets(line: &Line) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    Ok(text)
}

/// The fault of a client whose time for a request is over.
fn too_slow(line: &[u8]) -> Fault {
    let what = if line.is_empty() { "nothing was asked for too long" } else { "a request took too long to come" };
    Fault::new(FaultKind::Idle, what)
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
