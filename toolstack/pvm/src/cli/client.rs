//! The client's end of the daemon's socket.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::Error;
use crate::engine::{Event, PvmInfo, Target};
use crate::protocol::{Call, FaultKind, Line, Request, VERSION};

/// Time that a daemon may take for an answer that needs no waiting.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    input: BufReader<UnixStream>,
    output: UnixStream,
    /// The part of a line that came before a deadline.
    partial: Vec<u8>,
}

impl Client {
    /// Connects to the daemon at `path`.
    ///
    /// # Errors
    /// There is none, or the caller has no right to it.
    pub fn connect(path: &Path) -> Result<Self, Error> {
        let stream = UnixStream::connect(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => Error::NotRunning(path.to_owned()),
            ErrorKind::PermissionDenied => Error::NoRight(path.to_owned()),
            _ => Error::Io(format!("connect to {}", path.display()), error),
        })?;
        let output = stream.try_clone().map_err(|error| Error::Io("use the socket".to_owned(), error))?;
        Ok(Self { path: path.to_owned(), input: BufReader::new(stream), output, partial: Vec::new() })
    }

    /// Sends a request and waits for the answer without a limit, because the daemon may have to
    /// wait itself. If the daemon has closed the connection because it was idle, a new one is made.
    ///
    /// # Errors
    /// The daemon's fault, or the reason for which it did not answer.
    pub fn ask_value(&mut self, request: Request) -> Result<Value, Error> {
        match self.ask_once(request.clone()) {
            Err(Error::Fault(fault)) if fault.kind == FaultKind::Idle => {
                *self = Self::connect(&self.path)?;
                self.ask_once(request)
            }
            other => other,
        }
    }

    fn ask_once(&mut self, request: Request) -> Result<Value, Error> {
        let waits = matches!(
            request,
            Request::Wait { .. } | Request::Fork { .. } | Request::Kill { .. } | Request::Update { .. }
        );
        self.send(request)?;
        let deadline = (!waits).then(|| Instant::now() + PATIENCE);
        match self.next(deadline)? {
            Some(Answer::Final(value)) => Ok(value),
            Some(Answer::Event(_)) => Err(Error::NotUnderstood("an event that was not asked for".to_owned())),
            None => Err(Error::Silent(self.path.clone())),
        }
    }

    /// As [`ask_value`](Self::ask_value), for an answer of a known type.
    ///
    /// # Errors
    /// As there.
    pub fn ask<T: DeserializeOwned>(&mut self, request: Request) -> Result<T, Error> {
        understand(self.ask_value(request)?)
    }

    /// The facts about a pVM.
    ///
    /// # Errors
    /// As [`ask_value`](Self::ask_value)'s.
    pub fn inspect(&mut self, pvm: &Target) -> Result<PvmInfo, Error> {
        self.ask(Request::Inspect { pvm: pvm.clone() })
    }

    /// Sends a request. [`next`](Self::next) fetches the answer.
    ///
    /// # Errors
    /// The daemon has ended.
    pub fn send(&mut self, request: Request) -> Result<(), Error> {
        let call = Call { version: VERSION, request };
        let mut line = serde_json::to_vec(&call).map_err(|error| Error::NotUnderstood(error.to_string()))?;
        line.push(b'\n');
        // A daemon that turns a client away closes before it reads; its line says why.
        let _ = self.output.write_all(&line);
        Ok(())
    }

    /// The next line; `None` when the deadline has passed.
    ///
    /// # Errors
    /// The daemon's fault, or the failure of the connection.
    pub fn next(&mut self, deadline: Option<Instant>) -> Result<Option<Answer>, Error> {
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            self.output.set_read_timeout(left).map_err(|error| Error::Io("use the socket".to_owned(), error))?;
            match self.input.read_until(b'\n', &mut self.partial) {
                Ok(_) if self.partial.last() == Some(&b'\n') => break,
                Ok(_) => return Err(Error::Lost),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Err(Error::Lost),
                Err(error) => return Err(Error::Io("read from pvmd".to_owned(), error)),
            }
        }
        let line = std::mem::take(&mut self.partial);
        match serde_json::from_slice(&line).map_err(|error| Error::NotUnderstood(error.to_string()))? {
            Line::Answer(value) => Ok(Some(Answer::Final(value))),
            Line::Event(event) => Ok(Some(Answer::Event(event))),
            Line::Error(fault) => Err(Error::Fault(fault)),
        }
    }

    /// A stream that becomes readable when [`next`](Self::next) has something to read, once it has
    /// read all that was there.
    pub fn stream(&self) -> &UnixStream {
        &self.output
    }
}

/// A line that is no error.
#[derive(Debug)]
pub enum Answer {
    /// The answer.
    Final(Value),
    /// An event; more lines follow.
    Event(Event),
}

/// Decodes an answer of a known type.
///
/// # Errors
/// The answer has another type.
pub fn understand<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    serde_json::from_value(value).map_err(|error| Error::NotUnderstood(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TemporaryDirectory;
    use std::io::Read;
    use std::os::unix::net::UnixListener;
    use std::thread;

    /// Connects to a daemon that answers every request with `words`.
    fn client(words: &'static [u8]) -> Client {
        let directory = TemporaryDirectory::new("client");
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 4096];
            let _ = stream.read(&mut asked).unwrap();
            stream.write_all(words).unwrap();
        });
        Client::connect(&path).unwrap()
    }

    #[test]
    fn what_the_daemon_may_say() {
        let ids: Vec<u32> = client(b"{\"answer\":[5,6]}\n").ask(Request::Stats).unwrap();
        assert_eq!(ids, [5, 6]);
        let refused = client(b"{\"error\":{\"kind\":\"busy\",\"message\":\"no\"}}\n").ask_value(Request::Stats);
        assert!(matches!(refused, Err(Error::Fault(fault)) if fault.kind == FaultKind::Busy));
        for words in [&b"{\"answer\":"[..], b""] {
            assert!(matches!(client(words).ask_value(Request::Stats), Err(Error::Lost)));
        }
        for words in [&b"hello\n"[..], b"{}\n", b"{\"answer\":\"x\"}\n"] {
            assert!(matches!(client(words).ask::<Vec<u32>>(Request::Stats), Err(Error::NotUnderstood(_))));
        }
    }

    #[test]
    fn a_connection_that_was_closed_as_idle_is_made_anew() {
        let directory = TemporaryDirectory::new("idle");
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let mut client = Client::connect(&path).unwrap();
        let (mut first, _) = listener.accept().unwrap();
        first.write_all(b"{\"error\":{\"kind\":\"idle\",\"message\":\"no\"}}\n").unwrap();
        drop(first);
        let daemon = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut asked = String::new();
            BufReader::new(&stream).read_line(&mut asked).unwrap();
            (&stream).write_all(b"{\"answer\":[7]}\n").unwrap();
            asked
        });
        assert_eq!(client.ask::<Vec<u32>>(Request::Stats).unwrap(), [7]);
        assert_eq!(daemon.join().unwrap(), "{\"version\":1,\"request\":\"stats\"}\n");
    }

    #[test]
    fn without_a_daemon() {
        let directory = TemporaryDirectory::new("nobody");
        let path = directory.path().join("socket");
        assert!(matches!(Client::connect(&path), Err(Error::NotRunning(_))));
        drop(UnixListener::bind(&path).unwrap());
        assert!(matches!(Client::connect(&path), Err(Error::NotRunning(_))));
    }

    #[test]
    fn a_deadline_passes() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut client = Client {
            path: PathBuf::new(),
            input: BufReader::new(ours.try_clone().unwrap()),
            output: ours,
            partial: Vec::new(),
        };
        assert!(client.next(Some(Instant::now() + Duration::from_millis(20))).unwrap().is_none());
    }
}
