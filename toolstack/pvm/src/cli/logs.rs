//! Output of pVMs, in the files that xenconsoled writes with `--log=guest`.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

use super::client::Client;
use super::error::{Error, no_such};
use super::lines::Lines;
use crate::engine::Target;
use crate::protocol::{FaultKind, Request};

/// The directory of xenconsoled's files.
const DIRECTORY: &str = "/var/log/xen/console";

/// The file of the pVM with this name.
pub fn path(name: &str) -> PathBuf {
    PathBuf::from(DIRECTORY).join(format!("guest-{name}.log"))
}

/// A console's file, read while xenconsoled writes it.
pub struct Console {
    path: PathBuf,
    file: Option<File>,
    position: u64,
    changes: OwnedFd,
    /// xenconsoled has closed it, and it has not changed since.
    closed: bool,
}

/// Time to wait for xenconsoled to close the file of a domain that has ended. A domain may stay
/// after its end (`on_crash`).
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// The result of [`Console::wait`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// The file may have grown.
    Changed,
    /// The other descriptor has something to read.
    Other,
    /// Nothing happened.
    TimedOut,
}

impl Console {
    /// The file at `path`, which need not exist yet, from `position` on.
    ///
    /// # Errors
    /// Linux has no inotify left, or the file cannot be read.
    pub fn open(path: PathBuf, position: u64) -> Result<Self, Error> {
        let changes = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(|error| Error::Io("watch files".to_owned(), error.into()))?;
        let mut console = Self { path, file: None, position, changes, closed: false };
        // The watch comes before the look, so that no change in between is missed.
        if !console.attach()? {
            let directory = console.path.parent().unwrap_or(&console.path);
            // If there is no directory, there is no recording, and none will come.
            let _ = inotify::add_watch(&console.changes, directory, WatchFlags::CREATE);
            console.attach()?;
        }
        Ok(console)
    }

    /// Opens the file if it exists by now; returns true if it does.
    fn attach(&mut self) -> Result<bool, Error> {
        if self.file.is_some() {
            return Ok(true);
        }
        let failed = |error| Error::Io(format!("read {}", self.path.display()), error);
        match File::open(&self.path) {
            Ok(file) => {
                let flags = WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE;
                inotify::add_watch(&self.changes, &self.path, flags).map_err(|error| failed(error.into()))?;
                self.file = Some(file);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    /// True if there is a file.
    pub fn exists(&self) -> bool {
        self.file.is_some()
    }

    /// The octets written since the last call.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&mut self) -> Result<Vec<u8>, Error> {
        self.attach()?;
        let Some(file) = &mut self.file else { return Ok(Vec::new()) };
        let mut read = || {
            // A truncated file begins anew (`copytruncate` of logrotate).
            self.position = self.position.min(file.metadata()?.len());
            file.seek(SeekFrom::Start(self.position))?;
            let mut octets = Vec::new();
            self.position += file.read_to_end(&mut octets)? as u64;
            Ok(octets)
        };
        read().map_err(|error: io::Error| Error::Io(format!("read {}", self.path.display()), error))
    }

    /// Waits until the file changes, `other` has something to read, or the time is over.
    ///
    /// # Errors
    /// Linux cannot wait.
    pub fn wait(&mut self, other: Option<BorrowedFd<'_>>, timeout: Option<Duration>) -> Result<Woken, Error> {
        let timeout = timeout.map(|time| Timespec {
            tv_sec: time.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: time.subsec_nanos().into(),
        });
        let mut waited = vec![PollFd::new(&self.changes, PollFlags::IN)];
        waited.extend(other.map(|other| PollFd::from_borrowed_fd(other, PollFlags::IN)));
        match poll(&mut waited, timeout.as_ref()) {
            Ok(0) => return Ok(Woken::TimedOut),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Error::Io("wait for a file".to_owned(), error.into())),
        }
        if waited.get(1).is_some_and(|other| !other.revents().is_empty()) {
            return Ok(Woken::Other);
        }
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.changes, &mut buffer);
        while let Ok(event) = events.next() {
            self.closed = event.events().contains(ReadFlags::CLOSE_WRITE);
        }
        Ok(Woken::Changed)
    }

    /// The rest of the output of a domain that has ended. xenconsoled takes a guest's output before
    /// it writes it to the file, so the end of the guest may be known first. It closes the file
    /// when the domain is gone.
    ///
    /// # Errors
    /// As [`read`](Self::read) and [`wait`](Self::wait).
    pub fn read_last(&mut self) -> Result<Vec<u8>, Error> {
        let until = Instant::now() + CLOSE_LIMIT;
        while self.exists() && !self.closed {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.wait(None, Some(left))? == Woken::TimedOut {
                break;
            }
        }
        self.read()
    }
}

/// Shows a log; with `follow`, all of it until the pVM ends.
///
/// # Errors
/// There is no such pVM and no such log.
pub fn show(
    client: Result<Client, Error>,
    pvm: &Target,
    follow: bool,
    tail: Option<usize>,
    mut out: Lines<impl Write>,
) -> Result<(), Error> {
    let mut client = client;
    let found = match &mut client {
        Ok(client) => client.inspect(pvm).map(|info| (info.id, info.name)),
        Err(error) => Err(std::mem::replace(error, Error::Lost)),
    };
    let (id, name) = match (found, pvm) {
        (Ok((id, name)), _) => (Some(id), name),
        // Logs outlive their pVMs and the daemon.
        (Err(error), Target::Name(name)) if without_daemon(&error) && path(name).exists() => (None, name.clone()),
        (Err(error), _) => return Err(error),
    };
    let mut console = Console::open(path(&name), 0)?;
    if !console.exists() && !follow {
        return Err(no_log(&name));
    }
    let text = console.read()?;
    let from = tail.map_or(0, |lines| start_of_last(&text, lines));
    out.put(&text[from..])?;
    if !follow {
        return out.finish();
    }
    let mut end = match (id, client) {
        (Some(id), Ok(mut client)) => {
            client.send(Request::Wait { pvm: Target::Id(id) })?;
            Some(client)
        }
        _ => None,
    };
    loop {
        let other = end.as_ref().map(|client| client.stream().as_fd());
        let woken = console.wait(other, None)?;
        out.put(&console.read()?)?;
        if woken == Woken::Other {
            out.put(&console.read_last()?)?;
            out.finish()?;
            return match end.take().map(|mut client| client.next(None)) {
                // The pVM ended before this request, which waits for its end.
                Some(Err(error)) if !matches!(&error, Error::Fault(fault) if fault.kind == FaultKind::NoSuchPvm) => {
                    Err(error)
                }
                _ => Ok(()),
            };
        }
    }
}

/// True if a log may exist in spite of the error.
fn without_daemon(error: &Error) -> bool {
    matches!(error, Error::NotRunning(_) | Error::Silent(_))
        || matches!(error, Error::Fault(fault) if fault.kind == FaultKind::NoSuchPvm)
}

/// The error for a missing log.
pub fn no_log(name: &str) -> Error {
    let path = path(name);
    if path.parent().is_some_and(|directory| directory.is_dir()) {
        return match no_such(&Target::Name(name.to_owned())) {
            Error::Fault(mut fault) => {
                fault.message = format!("{name} has printed nothing, or xenconsoled does not run with --log=guest");
                Error::Fault(fault)
            }
            other => other,
        };
    }
    Error::Io(
        format!("read {}: does xenconsoled run with --log=guest?", path.display()),
        io::Error::from(ErrorKind::NotFound),
    )
}

/// Writes to standard output, without buffering.
///
/// # Errors
/// It is closed.
pub fn put(out: &mut impl Write, octets: &[u8]) -> Result<(), Error> {
    out.write_all(octets).and_then(|()| out.flush()).map_err(Error::Output)
}

/// The offset of the last `lines` lines.
fn start_of_last(text: &[u8], lines: usize) -> usize {
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    match lines {
        0 => text.len(),
        _ => body
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, octet)| **octet == b'\n')
            .nth(lines - 1)
            .map_or(0, |(at, _)| at + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TemporaryDirectory;
    use std::fs;

    #[test]
    fn the_last_lines() {
        let text = b"a\nb\n\nc\n";
        for (lines, expected) in
            [(0, ""), (1, "c\n"), (2, "\nc\n"), (3, "b\n\nc\n"), (4, "a\nb\n\nc\n"), (9, "a\nb\n\nc\n")]
        {
            assert_eq!(&text[start_of_last(text, lines)..], expected.as_bytes(), "{lines}");
        }
        assert_eq!(&b"a\nb"[start_of_last(b"a\nb", 1)..], b"b");
        assert_eq!(start_of_last(b"", 3), 0);
    }

    #[test]
    fn a_console_is_followed_from_before_its_file_is_there() {
        let directory = TemporaryDirectory::new("console");
        let path = directory.path().join("guest-x.log");
        let mut console = Console::open(path.clone(), 0).unwrap();
        assert!(!console.exists() && console.read().unwrap().is_empty());
        let soon = Some(Duration::from_millis(10));
        assert_eq!(console.wait(None, soon).unwrap(), Woken::TimedOut);

        let mut file = File::create(&path).unwrap();
        assert_eq!(console.wait(None, None).unwrap(), Woken::Changed);
        assert_eq!(console.read().unwrap(), b"");
        file.write_all(b"one").unwrap();
        assert_eq!(console.wait(None, None).unwrap(), Woken::Changed);
        file.write_all(b" two").unwrap();
        assert_eq!(console.read().unwrap(), b"one two");
        assert_eq!(console.read().unwrap(), b"");

        fs::write(&path, "anew").unwrap();
        assert_eq!(console.wait(None, None).unwrap(), Woken::Changed);
        file.set_len(2).unwrap();
        assert_eq!(console.read().unwrap(), b"");
    }

    #[test]
    fn a_console_is_read_from_a_position_on() {
        let directory = TemporaryDirectory::new("position");
        let path = directory.path().join("guest-x.log");
        fs::write(&path, "an earlier life\nnow\n").unwrap();
        assert_eq!(Console::open(path, 16).unwrap().read().unwrap(), b"now\n");
    }

    #[test]
    fn the_last_words_are_waited_for_until_the_file_is_closed() {
        let directory = TemporaryDirectory::new("last");
        let path = directory.path().join("guest-x.log");
        let mut file = File::create(&path).unwrap();
        let mut console = Console::open(path, 0).unwrap();
        let writer = std::thread::spawn(move || {
            file.write_all(b"one ").unwrap();
            std::thread::yield_now();
            file.write_all(b"two").unwrap();
        });
        assert_eq!(console.read_last().unwrap(), b"one two");
        writer.join().unwrap();
        let began = Instant::now();
        assert_eq!(console.read_last().unwrap(), b"");
        assert!(began.elapsed() < CLOSE_LIMIT);
    }

    #[test]
    fn the_other_descriptor_wakes_too() {
        let directory = TemporaryDirectory::new("other");
        let mut console = Console::open(directory.path().join("x"), 0).unwrap();
        let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        theirs.write_all(b"x").unwrap();
        assert_eq!(console.wait(Some(ours.as_fd()), None).unwrap(), Woken::Other);
    }
}
