//! Changes of files as lists of steps. A test carries out only some of them, as after a kill.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::Error;

/// A step. No other process sees half of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Writes a file that no process reads yet, and syncs it to the disk.
    Write { path: PathBuf, octets: Vec<u8>, mode: u32 },
    /// Gives a file its name, and replaces the one that had it.
    Rename { from: PathBuf, to: PathBuf },
    /// Syncs the names of a directory to the disk.
    Sync(PathBuf),
    /// Removes a file, if it exists.
    Remove(PathBuf),
}

impl Step {
    fn act(&self) -> io::Result<()> {
        match self {
            Self::Write { path, octets, mode } => {
                remove(path)?;
                let mut file = OpenOptions::new().write(true).create_new(true).mode(*mode).open(path)?;
                file.write_all(octets)?;
                file.sync_all()
            }
            Self::Rename { from, to } => fs::rename(from, to),
            Self::Sync(directory) => File::open(directory)?.sync_all(),
            Self::Remove(path) => remove(path),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Write { path, .. } | Self::Sync(path) | Self::Remove(path) => path,
            Self::Rename { to, .. } => to,
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Carries out the steps, until one fails.
pub fn act(steps: &[Step]) -> Result<(), Error> {
    steps
        .iter()
        .try_for_each(|step| step.act().map_err(|error| Error::Io(format!("write {}", step.path().display()), error)))
}

/// The steps that put a file in place. If they are interrupted, the old file, if any, remains.
pub fn put(directory: &Path, name: &str, octets: Vec<u8>, mode: u32) -> [Step; 3] {
    let (temporary, path) = (directory.join(format!(".{name}.new")), directory.join(name));
    [
        Step::Write { path: temporary.clone(), octets, mode },
        Step::Rename { from: temporary, to: path },
        Step::Sync(directory.to_owned()),
    ]
}
