//! The daemon's socket: it ensures a single daemon and limits the access.

use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::{fmt, process};

/// A socket that this process listens on. It is removed with the value.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    listener: UnixListener,
    /// Locked until the daemon ends, in whatever way.
    _lock: File,
}

/// The reason for which there is no socket.
#[derive(Debug)]
pub enum SocketError {
    /// Another daemon has it.
    Taken(PathBuf),
    /// The path has no directory or no name in it.
    BadPath(PathBuf),
    /// `/etc/group` has no such group.
    NoSuchGroup(String),
    /// Linux refused the operation that the text names.
    Io(&'static str, PathBuf, io::Error),
}

impl Socket {
    /// Listens at `path`, for root, and for the members of `group` if there is one.
    ///
    /// The socket appears with its permissions in one step, and replaces one that a killed daemon
    /// may have left.
    ///
    /// # Errors
    /// See [`SocketError`].
    pub fn bind(path: &Path, group: Option<&str>) -> Result<Self, SocketError> {
        let bad = || SocketError::BadPath(path.to_owned());
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).ok_or_else(bad)?;
        path.file_name().ok_or_else(bad)?;
        let group = group.map(group_number).transpose()?;

        let failed = |what, at: &Path| {
            let at = at.to_owned();
            move |error| SocketError::Io(what, at, error)
        };
        DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(failed("make", directory))?;
        let lock_path = path.with_extension("lock");
        let lock = File::options().create(true).append(true).open(&lock_path).map_err(failed("open", &lock_path))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => SocketError::Taken(path.to_owned()),
            TryLockError::Error(error) => SocketError::Io("lock", lock_path, error),
        })?;

        // Only root reaches the socket before it has its permissions.
        let private = Private::make(path.with_extension(process::id().to_string()))?;
        let inside = private.0.join("socket");
        let listener = UnixListener::bind(&inside).map_err(failed("listen at", &inside))?;
        let mode = if group.is_some() { 0o660 } else { 0o600 };
        fs::set_permissions(&inside, Permissions::from_mode(mode)).map_err(failed("set the mode of", &inside))?;
        if group.is_some() {
            chown(&inside, None, group).map_err(failed("set the group of", &inside))?;
        }
        fs::rename(&inside, path).map_err(failed("put a socket at", path))?;
        Ok(Self { path: path.to_owned(), listener, _lock: lock })
    }

    /// The listener, from which connections come.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

/// A directory that root alone reaches, and that is removed with the value, whatever came of it: a
/// daemon that fails may be started again and again.
struct Private(PathBuf);

impl Private {
    fn make(path: PathBuf) -> Result<Self, SocketError> {
        let _ = fs::remove_dir_all(&path);
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Ok(Self(path)),
            Err(error) => Err(SocketError::Io("make", path, error)),
        }
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The number of a group that is given by number or by name.
fn group_number(group: &str) -> Result<u32, SocketError> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let file = Path::new("/etc/group");
    let text = fs::read_to_string(file).map_err(|error| SocketError::Io("read", file.to_owned(), error))?;
    number_in(&text, group).ok_or_else(|| SocketError::NoSuchGroup(group.to_owned()))
}

/// The number of `group` in the text of `/etc/group` (group(5)).
fn number_in(text: &str, group: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

impl fmt::Display for SocketError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken(path) => write!(out, "another pvmd has {}: stop it first", path.display()),
            Self::BadPath(path) => write!(out, "{} cannot be a socket: give an absolute path", path.display()),
            Self::NoSuchGroup(group) => write!(out, "there is no group {group}: make it with groupadd"),
            Self::Io(what, path, error) => write!(out, "cannot {what} {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for SocketError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TemporaryDirectory;
    use std::os::unix::fs::FileTypeExt;
    use std::os::unix::net::UnixStream;

    #[test]
    fn it_is_root_only_and_there_is_one() {
        let directory = TemporaryDirectory::new("socket");
        let path = directory.path().join("run/pvmd.sock");
        let socket = Socket::bind(&path, None).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert!(metadata.file_type().is_socket());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        assert!(matches!(Socket::bind(&path, None), Err(SocketError::Taken(_))));

        drop(socket);
        assert!(!path.exists());
        Socket::bind(&path, None).unwrap();
        let left: Vec<_> =
            fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["pvmd.lock"]);
    }

    #[test]
    fn what_a_killed_daemon_left_is_replaced() {
        let directory = TemporaryDirectory::new("stale");
        let path = directory.path().join("pvmd.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(UnixStream::connect(&path).is_err());
        let _socket = Socket::bind(&path, Some("0")).unwrap();
        UnixStream::connect(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    }

    #[test]
    fn a_daemon_that_cannot_have_its_socket_leaves_nothing() {
        let directory = TemporaryDirectory::new("no-socket");
        let path = directory.path().join("pvmd.sock");
        // Something that a rename does not replace.
        fs::create_dir(&path).unwrap();
        fs::write(path.join("file"), "").unwrap();
        assert!(matches!(Socket::bind(&path, None), Err(SocketError::Io("put a socket at", ..))));
        let mut left: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["pvmd.lock", "pvmd.sock"]);
    }

    #[test]
    fn groups_have_numbers() {
        let text = "root:x:0:\nzooid:x:998:alice,bob\nbroken\n";
        assert_eq!(number_in(text, "zooid"), Some(998));
        assert_eq!(number_in(text, "zoo"), None);
        assert_eq!(number_in(text, "broken"), None);
    }

    #[test]
    fn bad_paths_are_errors() {
        for path in ["pvmd.sock", "/", ""] {
            assert!(matches!(Socket::bind(Path::new(path), None), Err(SocketError::BadPath(_))), "{path}");
        }
    }
}
