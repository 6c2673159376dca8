//! Keys for signing, and the keys that the store trusts.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zooid_manifest::{PublicKey, SecretKey, is_name};

use super::{Error, read, steps};

/// Longest key file that is read, in octets.
const MAX_FILE: u64 = 1024;

/// Makes a pair of keys, `NAME.key` and `NAME.pub`. Returns their paths, the secret one first.
///
/// # Errors
/// One of them exists already, or the directory cannot be written to.
pub fn generate(name: &Path) -> Result<[PathBuf; 2], Error> {
    let mut seed = [0; 32];
    let urandom = fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut seed));
    urandom.map_err(|error| Error::Io("read /dev/urandom".to_owned(), error))?;
    let with = |suffix: &str| {
        let mut path = name.as_os_str().to_owned();
        path.push(suffix);
        PathBuf::from(path)
    };
    let [secret, public] = [with(".key"), with(".pub")];
    let digits: String = seed.iter().map(|octet| format!("{octet:02x}")).collect();
    create(&secret, &digits, 0o600)?;
    create(&public, &SecretKey::from_seed(seed).public().to_string(), 0o644)?;
    Ok([secret, public])
}

fn create(path: &Path, digits: &str, mode: u32) -> Result<(), Error> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Error::Bad(format!("{} is there already: a key that was used is not overwritten", path.display()))
        }
        _ => Error::Io(format!("write {}", path.display()), error),
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    writeln!(file, "{digits}").and_then(|()| file.sync_all()).map_err(failed)
}

/// The secret key in a file.
///
/// # Errors
/// There is none.
pub fn read_secret(path: &Path) -> Result<SecretKey, Error> {
    let key = SecretKey::parse(&read(path, MAX_FILE)?);
    key.ok_or_else(|| Error::Bad(format!("{} holds no key: `pvm key generate` makes one", path.display())))
}

fn read_public(path: &Path) -> Result<PublicKey, Error> {
    let key = PublicKey::parse(&read(path, MAX_FILE)?);
    key.ok_or_else(|| Error::Bad(format!("{} holds no public key: `pvm key generate` makes one", path.display())))
}

/// The public keys that the store trusts: files `NAME.pub` in a directory.
#[derive(Clone, Debug)]
pub struct Keys(PathBuf);

/// A trusted key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustedKey {
    /// The name of its file.
    pub name: String,
    /// Its digits.
    pub key: String,
}

impl Keys {
    /// The keys in a directory, which need not exist.
    pub fn new(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    /// All, by name.
    ///
    /// # Errors
    /// The directory, or a key in it, cannot be read.
    pub fn all(&self) -> Result<Vec<(String, PublicKey)>, Error> {
        let failed = |error| Error::Io(format!("read {}", self.0.display()), error);
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            result => result.map_err(failed)?,
        };
        let mut keys = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".pub"));
            if let Some(name) = name.filter(|name| is_name(name)) {
                keys.push((name.to_owned(), read_public(&path)?));
            }
        }
        keys.sort();
        Ok(keys)
    }

    /// Trusts the public key in a file, by the file's name.
    ///
    /// # Errors
    /// The file has no key, or another key has that name.
    pub fn trust(&self, file: &Path) -> Result<TrustedKey, Error> {
        let name = file.file_name().and_then(|name| name.to_str()?.strip_suffix(".pub")).filter(|name| is_name(name));
        let name = name.ok_or_else(|| {
            Error::Bad(format!("{} is not called NAME.pub: trust the public key of a pair", file.display()))
        })?;
        let key = read_public(file)?;
        if let Some((_, other)) = self.all()?.into_iter().find(|(other, _)| other == name)
            && other != key
        {
            let path = self.0.join(format!("{name}.pub"));
            return Err(Error::Bad(format!("another key is trusted by this name: remove {} first", path.display())));
        }
        fs::create_dir_all(&self.0).map_err(|error| Error::Io(format!("make {}", self.0.display()), error))?;
        steps::act(&steps::put(&self.0, &format!("{name}.pub"), format!("{key}\n").into_bytes(), 0o644))?;
        Ok(TrustedKey { name: name.to_owned(), key: key.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TemporaryDirectory;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_pair_is_made_once_and_the_secret_is_its_owners() {
        let directory = TemporaryDirectory::new("keys");
        let [secret, public] = generate(&directory.path().join("shop")).unwrap();
        assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read_secret(&secret).unwrap().public(), read_public(&public).unwrap());
        let before = fs::read(&secret).unwrap();
        assert!(matches!(generate(&directory.path().join("shop")), Err(Error::Bad(_))));
        assert_eq!(fs::read(&secret).unwrap(), before);
        let [other, _] = generate(&directory.path().join("other")).unwrap();
        assert_ne!(fs::read(other).unwrap(), before);
    }

    #[test]
    fn what_is_trusted_is_listed_and_a_name_stays_a_keys() {
        let directory = TemporaryDirectory::new("trust");
        let keys = Keys::new(&directory.path().join("trusted"));
        assert!(keys.all().unwrap().is_empty());
        let [secret, public] = generate(&directory.path().join("shop")).unwrap();
        let key = read_secret(&secret).unwrap().public();
        for _ in 0..2 {
            assert_eq!(keys.trust(&public).unwrap(), TrustedKey { name: "shop".into(), key: key.to_string() });
            assert_eq!(keys.all().unwrap(), [("shop".to_owned(), key)]);
        }
        assert!(matches!(keys.trust(&secret), Err(Error::Bad(_))));
        fs::remove_file(&secret).unwrap();
        fs::remove_file(&public).unwrap();
        generate(&directory.path().join("shop")).unwrap();
        assert!(matches!(keys.trust(&public), Err(Error::Bad(_))), "another key of that name");
        assert_eq!(keys.all().unwrap(), [("shop".to_owned(), key)]);
    }
}
