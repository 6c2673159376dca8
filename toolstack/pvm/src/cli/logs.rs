//! Output of pVMs, in the files that xenconsoled writes with `--log=guest`.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{XattrFlags, getxattr, setxattr};

use super::client::Client;
use super::error::{Error, no_such};
use super::lines::Lines;
use crate::engine::Target;
use crate::engine::toolstack::CONSOLE_LOGS;
use crate::protocol::{FaultKind, Request};

/// The attribute of a console's file that says which pVM was started last with it, and where its
/// output begins: id and position. It leaves with the file when that is rotated.
const BEGIN: &str = "trusted.zooid.begin";
/// Interval of looks for a change that inotify does not report.
const LOOK: Duration = Duration::from_secs(1);
/// Octets by which a file is known that was truncated and has grown again.
const KNOWN: usize = 256;

/// The file of the pVM with this name.
pub fn path(name: &str) -> PathBuf {
    PathBuf::from(CONSOLE_LOGS).join(format!("guest-{name}.log"))
}

/// Notes that the output of a new pVM begins at `position` of the file. Where this cannot be noted,
/// a reader gets the whole file.
pub fn mark(file: &Path, id: u32, position: u64) {
    let _ = setxattr(file, BEGIN, format!("{id} {position}").as_bytes(), XattrFlags::empty());
}

/// The position at which the output of a pVM begins; of the last one that was started, if its `id`
/// is not known. 0 if nobody has noted it.
fn begin(file: &Path, id: Option<u32>) -> u64 {
    let mut octets = [0; 64];
    let noted = getxattr(file, BEGIN, &mut octets).ok();
    let mark = noted.and_then(|length| std::str::from_utf8(octets.get(..length)?).ok());
    mark.and_then(|mark| noted_position(mark, id)).unwrap_or(0)
}

fn noted_position(mark: &str, id: Option<u32>) -> Option<u64> {
    let (noted, position) = mark.split_once(' ')?;
    let noted: u32 = noted.parse().ok()?;
    if id.is_none_or(|id| id == noted) { position.parse().ok() } else { None }
}

/// A console's file, read while xenconsoled writes it. Rotation is followed: the file may be
/// renamed and made anew, or copied and truncated.
pub struct Console {
    path: PathBuf,
    opened: Option<Opened>,
    /// The position to begin at in the first file that is opened.
    start: u64,
    changes: OwnedFd,
    /// xenconsoled has closed the file, and it has not changed since.
    closed: bool,
}

/// An open file.
struct Opened {
    file: File,
    /// The number of its watch.
    watch: i32,
    position: u64,
    /// The octets in front of the position.
    known: Vec<u8>,
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
    /// Nothing was reported. The file is to be looked at all the same.
    TimedOut,
}

impl Console {
    /// The file at `path`, which need not exist yet, from `position` on; from its beginning if it
    /// is shorter.
    ///
    /// # Errors
    /// Linux has no inotify left, or the file cannot be read.
    pub fn open(path: PathBuf, position: u64) -> Result<Self, Error> {
        let changes = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(|error| Error::Io("watch files".to_owned(), error.into()))?;
        let directory = path.parent().unwrap_or(&path);
        // If there is no directory, there is no recording, and none will come. The watch comes
        // before the look, so that no file in between is missed.
        let _ = inotify::add_watch(&changes, directory, WatchFlags::CREATE | WatchFlags::MOVED_TO);
        let mut console = Self { path, opened: None, start: position, changes, closed: false };
        console.opened = console.attach(position)?;
        Ok(console)
    }

    /// The file that has the name now, if one has.
    fn attach(&self, position: u64) -> Result<Option<Opened>, Error> {
        let failed = |error| Error::Io(format!("read {}", self.path.display()), error);
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            result => result.map_err(failed)?,
        };
        // The watch is the file's, even if its name has gone to another one meanwhile: that is seen
        // at the next look.
        let watch = inotify::add_watch(&self.changes, &self.path, WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE);
        match watch {
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(failed(error.into())),
            Ok(watch) => Ok(Some(Opened { file, watch, position, known: Vec::new() })),
        }
    }

    /// True if there is a file.
    pub fn exists(&self) -> bool {
        self.opened.is_some()
    }

    /// The octets written since the last call.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&mut self) -> Result<Vec<u8>, Error> {
        let mut octets = Vec::new();
        let renewed = self.is_renewed();
        if let Some(opened) = &mut self.opened {
            // This includes what was written to a file after it was renamed.
            opened.read(&mut octets).map_err(|error| Error::Io(format!("read {}", self.path.display()), error))?;
        }
        if self.opened.is_none() || renewed {
            let position = if renewed { 0 } else { self.start };
            if let Some(opened) = self.attach(position)? {
                if let Some(old) = self.opened.replace(opened).filter(|old| !self.is_watch(old.watch)) {
                    let _ = inotify::remove_watch(&self.changes, old.watch);
                }
                self.closed = false;
                octets.extend(self.read()?);
            }
        }
        Ok(octets)
    }

    /// True if another file has the name, and xenconsoled writes to it. One that is empty may have
    /// been made by others, while xenconsoled still writes to the old one.
    fn is_renewed(&self) -> bool {
        let Some(opened) = &self.opened else { return false };
        let identity = |file: &Metadata| (file.dev(), file.ino());
        let (Ok(ours), Ok(now)) = (opened.file.metadata(), fs::metadata(&self.path)) else { return false };
        let is_other = identity(&ours) != identity(&now);
        if is_other && now.len() == 0 {
            // Its first octets are to be reported.
            let _ = inotify::add_watch(&self.changes, &self.path, WatchFlags::MODIFY);
        }
        is_other && now.len() > 0
    }

    fn is_watch(&self, watch: i32) -> bool {
        self.opened.as_ref().is_some_and(|opened| opened.watch == watch)
    }

    /// Waits until the file changes, `other` has something to read, or the time is over, but no
    /// longer than a second.
    ///
    /// # Errors
    /// Linux cannot wait.
    pub fn wait(&mut self, other: Option<BorrowedFd<'_>>, timeout: Option<Duration>) -> Result<Woken, Error> {
        let timeout = timeout.unwrap_or(LOOK).min(LOOK);
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        let mut waited = vec![PollFd::new(&self.changes, PollFlags::IN)];
        waited.extend(other.map(|other| PollFd::from_borrowed_fd(other, PollFlags::IN)));
        match poll(&mut waited, Some(&timeout)) {
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
            if self.opened.as_ref().is_some_and(|opened| opened.watch == event.wd()) {
                self.closed = event.events().contains(ReadFlags::CLOSE_WRITE);
            }
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

impl Opened {
    /// Appends what was written since the last call. A file that was truncated begins anew
    /// (`copytruncate` of logrotate), even if it has grown beyond the old position since.
    fn read(&mut self, octets: &mut Vec<u8>) -> io::Result<()> {
        if self.file.metadata()?.len() < self.position || !self.goes_on() {
            self.position = 0;
            self.known.clear();
        }
        self.file.seek(SeekFrom::Start(self.position))?;
        let before = octets.len();
        self.position += self.file.read_to_end(octets)? as u64;
        self.known.extend(&octets[octets.len().saturating_sub(KNOWN).max(before)..]);
        self.known.drain(..self.known.len().saturating_sub(KNOWN));
        Ok(())
    }

    /// True if the octets in front of the position are still those that were read. xenconsoled only
    /// appends.
    fn goes_on(&self) -> bool {
        let mut now = vec![0; self.known.len()];
        let at = self.position - self.known.len() as u64;
        self.file.read_exact_at(&mut now, at).is_ok() && now == self.known
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
    // The request for the end precedes the output, which may wait for its reader: the connection is
    // not idle meanwhile.
    let mut end = match (id, client) {
        (Some(id), Ok(mut client)) if follow => {
            client.send(Request::Wait { pvm: Target::Id(id) })?;
            Some(client)
        }
        _ => None,
    };
    let file = path(&name);
    let begin = begin(&file, id);
    let mut console = Console::open(file, begin)?;
    if !console.exists() && !follow {
        return Err(no_log(&name));
    }
    let text = console.read()?;
    let from = tail.map_or(0, |lines| start_of_last(&text, lines));
    out.put(&text[from..])?;
    if !follow {
        return out.finish();
    }
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
        assert_eq!(console.read().unwrap(), b"an", "a truncated file begins anew");
    }

    #[test]
    fn a_file_that_is_renamed_and_made_anew_is_followed() {
        let directory = TemporaryDirectory::new("renamed");
        let (path, old) = (directory.path().join("guest-x.log"), directory.path().join("guest-x.log.1"));
        fs::write(&path, "an earlier life\n").unwrap();
        let mut console = Console::open(path.clone(), 16).unwrap();
        let append = |path: &Path, text: &str| {
            let mut file = File::options().create(true).append(true).open(path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        append(&path, "one\n");
        assert_eq!(console.read().unwrap(), b"one\n");
        fs::rename(&path, &old).unwrap();
        // xenconsoled has not heard of it yet; logrotate may have made the next file already.
        append(&old, "two\n");
        assert_eq!(console.read().unwrap(), b"two\n");
        File::create(&path).unwrap();
        append(&old, "three\n");
        assert_eq!(console.read().unwrap(), b"three\n");
        append(&old, "four\n");
        append(&path, "five, which is longer than all before\n");
        assert_eq!(console.read().unwrap(), b"four\nfive, which is longer than all before\n");
        // The new file is watched.
        while console.wait(None, Some(Duration::ZERO)).unwrap() == Woken::Changed {}
        append(&path, "six\n");
        assert_eq!(console.wait(None, None).unwrap(), Woken::Changed);
        assert_eq!(console.read().unwrap(), b"six\n");
        // It is removed, and there is one again.
        fs::remove_file(&path).unwrap();
        assert_eq!(console.read().unwrap(), b"");
        append(&path, "seven\n");
        assert_eq!(console.read().unwrap(), b"seven\n");
    }

    #[test]
    fn a_truncated_file_is_read_from_its_beginning_however_long_it_is_again() {
        let directory = TemporaryDirectory::new("truncated");
        let path = directory.path().join("guest-x.log");
        fs::write(&path, "line 1\nline 2\n").unwrap();
        let mut console = Console::open(path.clone(), 0).unwrap();
        assert_eq!(console.read().unwrap().len(), 14);
        let file = File::options().write(true).open(&path).unwrap();
        for next in ["x\n", "more than fourteen octets in a new line\n", &"long\n".repeat(1000)] {
            file.set_len(0).unwrap();
            file.write_all_at(next.as_bytes(), 0).unwrap();
            assert_eq!(console.read().unwrap(), next.as_bytes());
            assert_eq!(console.read().unwrap(), b"");
        }
    }

    #[test]
    fn a_note_is_for_its_pvm_and_for_who_knows_none() {
        assert_eq!(noted_position("7 100", Some(7)), Some(100));
        assert_eq!(noted_position("7 100", None), Some(100));
        for (mark, id) in [("7 100", Some(8)), ("7", None), ("", None), ("x 5", None), ("7 -5", None)] {
            assert_eq!(noted_position(mark, id), None, "{mark}");
        }
        let directory = TemporaryDirectory::new("mark");
        let path = directory.path().join("guest-x.log");
        assert_eq!(begin(&path, None), 0, "no file");
        fs::write(&path, "an earlier life\nnow\n").unwrap();
        assert_eq!(begin(&path, Some(7)), 0, "no note");
        // Only a privileged user can note it, and not in every file system.
        mark(&path, 7, 16);
        if getxattr(&path, BEGIN, &mut [0; 64]).is_ok() {
            assert_eq!((begin(&path, Some(7)), begin(&path, Some(8)), begin(&path, None)), (16, 0, 16));
        }
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
