//! Libraries in dom0: the store, the trusted keys, and the description and signature of a library.
//! `docs/libraries.md` has the purpose.
//!
//! - [`Store`]: the libraries of this host.
//! - [`Keys`]: the keys whose libraries the store accepts.
//! - [`describe`]: the facts about a file.
//!
//! `pvm` does this without the daemon: a file may be larger than a line of its protocol, or lie
//! where the daemon may not read, and a secret key stays with its owner. The daemon, which serves
//! libraries, reads the same store.

mod keys;
mod steps;
mod store;

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::{fmt, io};

use rustix::fs::OFlags;
use zooid_loader::{Object, red_zone};
use zooid_manifest::{Description, Malformed, RedZone, Refusal, Version, is_name};

pub use keys::{Keys, TrustedKey, generate, read_secret};
pub use store::{Entry, Store};

/// The directory of a host's libraries.
pub const STORE: &str = "/var/lib/zooid/lib";
/// The directory of the trusted keys.
pub const KEYS: &str = "/etc/zooid/keys";

/// Largest library, in octets.
const MAX_SIZE: u64 = 1 << 30;

/// The reason for which an operation on libraries or keys failed.
#[derive(Debug)]
pub enum Error {
    /// The store has no library of this name.
    NoLibrary(String),
    /// The store has another file of this version.
    Exists {
        /// The library's name.
        name: String,
        /// The version that both have.
        version: Version,
    },
    /// A rule does not hold for the library.
    Rule(String, Refusal),
    /// The file is no shared object that a pVM could load.
    Object(String, zooid_loader::Refusal),
    /// The description of the library cannot be written as a manifest.
    Description(Malformed),
    /// A file or a directory is not as it should be, with the remedy.
    Bad(String),
    /// Linux refused the operation that the text names.
    Io(String, io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLibrary(name) => {
                write!(out, "there is no library {name}: `pvm lib list` shows those that there are")
            }
            Self::Exists { name, version } => {
                write!(out, "there is another file that is {name} {version}: give this one a version of its own, or ")?;
                write!(out, "`pvm lib remove {name}@{version}` first")
            }
            Self::Rule(name, rule) => {
                write!(out, "{name}: {rule}")?;
                match rule {
                    Refusal::Unsigned => out.write_str(": sign it with --sign-with, or put its manifest beside it"),
                    Refusal::UnknownSigner(_) | Refusal::NoKeys => {
                        out.write_str(": `pvm key trust` lets the store take what it has signed")
                    }
                    _ => Ok(()),
                }
            }
            Self::Object(name, refusal) => write!(out, "{name}: {refusal}"),
            Self::Description(malformed) => write!(out, "it cannot be signed so: {malformed}"),
            Self::Bad(what) => out.write_str(what),
            Self::Io(what, error) => write!(out, "cannot {what}: {error}"),
        }
    }
}

impl std::error::Error for Error {}

/// The description of a library, made from its file. It includes the first use of a red zone.
///
/// # Errors
/// It is no shared object that a pVM could load.
pub fn describe(name: &str, version: Version, file: &[u8]) -> Result<Description, Error> {
    let refused = |refusal| Error::Object(name.to_owned(), refusal);
    let object = Object::parse(file).map_err(refused)?;
    object.verify(name).map_err(refused)?;
    let mut description = Description::new(name, version, file);
    description.build_id = object.build_id().filter(|id| (1..=64).contains(&id.len())).map(<[u8]>::to_vec);
    description.red_zone = red_zone::find(&object)
        .map(|place| RedZone { address: place.address, function: place.function.filter(|name| is_name(name)) });
    Ok(description)
}

/// A file with at most `most` octets.
pub(crate) fn read(path: &Path, most: u64) -> Result<Vec<u8>, Error> {
    use std::io::Read;
    let failed = |error| Error::Io(format!("read {}", path.display()), error);
    let mut octets = Vec::new();
    open(path).map_err(failed)?.take(most + 1).read_to_end(&mut octets).map_err(failed)?;
    if octets.len() as u64 > most {
        return Err(Error::Bad(format!("{} is larger than {most} octets", path.display())));
    }
    Ok(octets)
}

/// Opens a regular file. Nothing else is waited for, such as the other end of a pipe.
fn open(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")),
    }
}

/// The file of a library.
///
/// # Errors
/// It cannot be read, or is too large.
pub fn read_library(path: &Path) -> Result<Vec<u8>, Error> {
    read(path, MAX_SIZE)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::TemporaryDirectory;
    use std::process::Command;

    /// A library, built by the system's compiler.
    pub fn compile(directory: &TemporaryDirectory, name: &str, source: &str, options: &[&str]) -> Vec<u8> {
        let (source_file, library) = (directory.path().join("source.c"), directory.path().join(name));
        std::fs::write(&source_file, source).unwrap();
        let status = Command::new("gcc")
            .args(["-shared", "-fPIC", "-O2", "-nostdlib", "-o"])
            .args([&library, &source_file])
            .args(options)
            .status();
        assert!(status.unwrap().success());
        std::fs::read(library).unwrap()
    }

    #[test]
    fn a_library_is_described_as_it_is() {
        let directory = TemporaryDirectory::new("describe");
        let source = "int leaf(int a) { volatile int b[4] = {a}; return b[1]; }";
        let version = || Version::new(1, 0, 0);
        let good = describe(
            "a.so",
            version(),
            &compile(&directory, "a.so", source, &["-mno-red-zone", "-Wl,--build-id=0xabcd"]),
        );
        let good = good.unwrap();
        assert_eq!((good.red_zone, good.build_id), (None, Some(vec![0xab, 0xcd])));
        let bad = describe("b.so", version(), &compile(&directory, "b.so", source, &["-mred-zone"])).unwrap();
        assert_eq!(bad.red_zone.unwrap().function.as_deref(), Some("leaf"));
        assert!(matches!(describe("c.so", version(), b"\x7fELF"), Err(Error::Object(..))));
    }
}
