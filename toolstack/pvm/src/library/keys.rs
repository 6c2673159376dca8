//! Keys for signing, and the keys that the store trusts.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
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
/// The path does not end with a name that a key can have, one of the files exists already, or the
/// directory cannot be written to. Neither file is made.
pub fn generate(name: &Path) -> Result<[PathBuf; 2], Error> {
    let ends_with_name = name.file_name().is_some_and(|last| name.as_os_str().as_bytes().ends_with(last.as_bytes()));
    if !ends_with_name || !name.file_name().and_then(|last| last.to_str()).is_some_and(is_name) {
        let what = "no key can have this name: use letters, digits and . _ + -, without a dot first";
        return Err(Error::Bad(format!("{}: {what}", name.display())));
    }
    let mut seed = [0; 32];
    let urandom = fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut seed));
    urandom.map_err(|error| Error::Io("read /dev/urandom".to_owned(), error))?;
    let with = |suffix: &str| {
        let mut path = name.as_os_str().to_owned();
        path.push(suffix);
        PathBuf::from(path)
    };
    let [secret, public] = [with(".key"), with(".pub")];
    create(&secret, &SecretKey::file_of(seed), 0o600)?;
    if let Err(error) = create(&public, &SecretKey::from_seed(seed).public().to_file(), 0o644) {
        // Nothing has been signed with it.
        let _ = fs::remove_file(&secret);
        return Err(error);
    }
    Ok([secret, public])
}

fn create(path: &Path, content: &str, mode: u32) -> Result<(), Error> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Error::Bad(format!("{} is there already: a key that was used is not overwritten", path.display()))
        }
        _ => Error::Io(format!("write {}", path.display()), error),
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    let written = file.write_all(content.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written.map_err(failed)
}

/// The secret key in a file. Files of earlier versions do not say of which kind their key is; their
/// names do.
///
/// # Errors
/// There is none, or a public one.
pub fn read_secret(path: &Path) -> Result<SecretKey, Error> {
    let file = read(path, MAX_FILE)?;
    let bad = |what: &str| Error::Bad(format!("{} holds {what}", path.display()));
    let public = || bad("a public key: sign with the secret one of the pair, NAME.key");
    match (SecretKey::parse(&file), PublicKey::parse(&file)) {
        (Some(_), Some(_)) if path.extension().is_some_and(|suffix| suffix == "pub") => Err(public()),
        (Some(key), _) => Ok(key),
        (None, Some(_)) => Err(public()),
        (None, None) => Err(bad("no key: `pvm key generate` makes one")),
    }
}

fn read_public(path: &Path) -> Result<PublicKey, Error> {
    let file = read(path, MAX_FILE)?;
    let bad = |what: &str| Error::Bad(format!("{} holds {what}", path.display()));
    match (PublicKey::parse(&file), SecretKey::parse(&file)) {
        (Some(key), _) => Ok(key),
        (None, Some(_)) => Err(bad("a secret key, which is to be kept: trust the public one of the pair, NAME.pub")),
        (None, None) => Err(bad("no public key: `pvm key generate` makes one")),
    }
}

/// The public keys that the store trusts: files `NAME.pub` in a directory.
#[derive(Clone, Debug)]
pub struct Keys(PathBuf);

/// The keys by name, and the reasons for which other files hold none.
pub type Files = (Vec<(String, PublicKey)>, Vec<Error>);

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

    /// All, by name. A file that holds none takes nothing from the others:
    /// [`damaged`](Self::damaged) names it.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn all(&self) -> Result<Vec<(String, PublicKey)>, Error> {
        Ok(self.files()?.0)
    }

    /// The reason for each file that should hold a key, and does not.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn damaged(&self) -> Result<Vec<Error>, Error> {
        Ok(self.files()?.1)
    }

    /// Both.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn files(&self) -> Result<Files, Error> {
        let failed = |error| Error::Io(format!("read {}", self.0.display()), error);
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), Vec::new())),
            result => result.map_err(failed)?,
        };
        let (mut keys, mut damaged) = (Vec::new(), Vec::new());
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".pub"));
            let Some(name) = name.filter(|name| is_name(name)) else { continue };
            match read_public(&path) {
                Ok(key) => keys.push((name.to_owned(), key)),
                Err(error) => damaged.push(error),
            }
        }
        keys.sort();
        Ok((keys, damaged))
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
        steps::act(&steps::put(&self.0, &format!("{name}.pub"), key.to_file().into_bytes(), 0o644))?;
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
    fn a_key_is_not_taken_for_the_other_of_its_pair() {
        let directory = TemporaryDirectory::new("kinds");
        let keys = Keys::new(&directory.path().join("trusted"));
        let [secret, public] = generate(&directory.path().join("shop")).unwrap();
        let said = read_secret(&public).unwrap_err().to_string();
        assert!(
            said.ends_with("shop.pub holds a public key: sign with the secret one of the pair, NAME.key"),
            "{said}"
        );
        let renamed = directory.path().join("renamed.pub");
        fs::copy(&secret, &renamed).unwrap();
        let said = keys.trust(&renamed).unwrap_err().to_string();
        assert!(said.contains("renamed.pub holds a secret key, which is to be kept"), "{said}");
        assert!(keys.all().unwrap().is_empty());
        // Those of earlier versions are read as before; the name of a public one is enough.
        let old = |path: &Path| fs::read_to_string(path).unwrap().split_once(' ').unwrap().1.to_owned();
        let (digits, seed) = (old(&public), old(&secret));
        let key = read_public(&public).unwrap();
        fs::write(&public, digits).unwrap();
        fs::write(&secret, seed).unwrap();
        assert_eq!(read_secret(&secret).unwrap().public(), key);
        assert!(read_secret(&public).unwrap_err().to_string().contains("holds a public key"));
        assert_eq!(keys.trust(&public).unwrap().key, key.to_string());
    }

    #[test]
    fn a_pair_has_a_name() {
        let directory = TemporaryDirectory::new("names");
        for name in ["", "./", ".", "..", "sub/", "sub/.", ".shop", "a b", "a\u{202e}"] {
            assert!(matches!(generate(&directory.path().join(name)), Err(Error::Bad(_))), "{name}");
        }
        assert!(matches!(generate(Path::new("./")), Err(Error::Bad(_))));
        // A pair of which one is there already is not made in part.
        fs::write(directory.path().join("shop.pub"), "").unwrap();
        assert!(matches!(generate(&directory.path().join("shop")), Err(Error::Bad(_))));
        let left: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["shop.pub"]);
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

    #[test]
    fn a_damaged_key_takes_nothing_from_the_others() {
        let directory = TemporaryDirectory::new("damaged-key");
        let trusted = directory.path().join("trusted");
        let keys = Keys::new(&trusted);
        let [secret, public] = generate(&directory.path().join("shop")).unwrap();
        let key = read_secret(&secret).unwrap().public();
        keys.trust(&public).unwrap();
        fs::write(trusted.join("empty.pub"), "").unwrap();
        fs::write(trusted.join("long.pub"), vec![b'x'; 1 << 20]).unwrap();
        fs::create_dir(trusted.join("directory.pub")).unwrap();
        fs::copy(&secret, trusted.join("secret.pub")).unwrap();
        assert_eq!(keys.all().unwrap(), [("shop".to_owned(), key)]);
        let damaged: Vec<_> = keys.damaged().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(damaged.len(), 4, "{damaged:?}");
        for name in ["empty", "long", "directory", "secret"] {
            assert!(damaged.iter().any(|line| line.contains(&format!("{name}.pub"))), "{damaged:?}");
        }
    }
}
