//! The libraries of this host: `NAME.manifest` for each, and `objects/SHA512`, the file that the manifest is about.
//!
//! A library is what its manifest says: a rename of the manifest is what puts it in, replaces it, or, with its removal, takes it
//! out. Objects never change, so that who has one mapped keeps what was judged. What no manifest names is left over from a kill, and goes
//! with the next change.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use zooid_manifest::{Description, MAX_OCTETS, Manifest, PublicKey, Refusal, SUFFIX, is_name};

use super::steps::{self, Step};
use super::{Error, Keys, describe, read, read_library};

/// The store, in a directory that need not be there.
#[derive(Clone, Debug)]
pub struct Store(PathBuf);

/// What is said of a library in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What it is opened by.
    pub name: String,
    pub version: String,
    pub build_id: Option<String>,
    /// In octets.
    pub size: u64,
    pub sha512: String,
    /// The first place that uses a red zone.
    pub red_zone: Option<String>,
    /// Those that may map it; empty: all.
    pub images: Vec<String>,
    pub families: Vec<String>,
    pub revoked: bool,
    /// The key that has signed it, and its name where it is trusted.
    pub signer: String,
    pub trusted_as: Option<String>,
}

impl Entry {
    fn new(manifest: &Manifest, keys: &[(String, PublicKey)]) -> Self {
        let Description { name, version, build_id, size, digest, red_zone, images, families, revoked } =
            &manifest.description;
        let known = keys.iter().find(|(_, key)| *key == manifest.signer);
        Self {
            name: name.clone(),
            version: version.to_string(),
            build_id: build_id.as_ref().map(|id| id.iter().map(|octet| format!("{octet:02x}")).collect()),
            size: *size,
            sha512: digest.to_string(),
            red_zone: red_zone.as_ref().map(|place| match &place.function {
                Some(function) => format!("{:#x} {function}", place.address),
                None => format!("{:#x}", place.address),
            }),
            images: images.clone(),
            families: families.clone(),
            revoked: *revoked,
            signer: manifest.signer.to_string(),
            trusted_as: known.map(|(name, _)| name.clone()),
        }
    }
}

impl Store {
    /// The one in a directory.
    pub fn new(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    /// Puts a library in, if the rules hold that can be judged here: it is signed by a key that is trusted, and is what is said of it.
    /// With `replace` it takes the place of an older version.
    ///
    /// # Errors
    /// A rule does not hold; the store is as it was.
    pub fn put(&self, manifest: &Manifest, file: &[u8], keys: &Keys, replace: bool) -> Result<Entry, Error> {
        let keys = keys.all()?;
        let name = &manifest.description.name;
        judge(manifest, name, file, &keys)?;
        let _lock = self.lock()?;
        match (self.manifest(name), replace) {
            (Err(Error::NoLibrary(_)), false) => {}
            (Ok(_), false) => return Err(Error::Exists(name.clone())),
            (Ok(old), true) => {
                let (old, new) = (old.description.version, manifest.description.version.clone());
                if new <= old {
                    return Err(Error::NotNewer { name: name.clone(), old, new });
                }
            }
            (Err(error), _) => return Err(error),
        }
        steps::act(&self.plan_put(manifest, file))?;
        self.sweep()?;
        Ok(Entry::new(manifest, &keys))
    }

    fn plan_put(&self, manifest: &Manifest, file: &[u8]) -> Vec<Step> {
        let Description { name, digest, .. } = &manifest.description;
        let object = steps::put(&self.objects(), &digest.to_string(), file.to_vec(), 0o444);
        let text = steps::put(&self.0, &format!("{name}{SUFFIX}"), manifest.to_string().into_bytes(), 0o444);
        object.into_iter().chain(text).collect()
    }

    /// Takes a library out. Who has it mapped goes on.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        if !self.path(name)?.exists() {
            return Err(Error::NoLibrary(name.to_owned()));
        }
        let _lock = self.lock()?;
        steps::act(&[Step::Remove(self.path(name)?), Step::Sync(self.0.clone())])?;
        self.sweep()
    }

    /// What is said of a library.
    ///
    /// # Errors
    /// There is none of this name, or its manifest is none.
    pub fn inspect(&self, name: &str, keys: &Keys) -> Result<Entry, Error> {
        Ok(Entry::new(&self.manifest(name)?, &keys.all()?))
    }

    /// Judges a library anew: its manifest, its file, and what is said of the file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn verify(&self, name: &str, keys: &Keys) -> Result<Entry, Error> {
        let keys = keys.all()?;
        let manifest = self.manifest(name)?;
        let file = read_library(&self.objects().join(manifest.description.digest.to_string()))?;
        judge(&manifest, name, &file, &keys)?;
        Ok(Entry::new(&manifest, &keys))
    }

    /// The names of all libraries, sorted.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn names(&self) -> Result<Vec<String>, Error> {
        let names = names(&self.0)?;
        let mut names: Vec<String> =
            names.iter().filter_map(|name| name.strip_suffix(SUFFIX)).map(str::to_owned).collect();
        names.retain(|name| is_name(name));
        names.sort();
        Ok(names)
    }

    fn manifest(&self, name: &str) -> Result<Manifest, Error> {
        let path = self.path(name)?;
        let octets = match read(&path, MAX_OCTETS as u64) {
            Err(Error::Io(_, error)) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NoLibrary(name.to_owned()));
            }
            result => result?,
        };
        Manifest::parse(&octets).map_err(|malformed| Error::Rule(name.to_owned(), Refusal::Malformed(malformed)))
    }

    fn path(&self, name: &str) -> Result<PathBuf, Error> {
        if is_name(name) { Ok(self.0.join(format!("{name}{SUFFIX}"))) } else { Err(Error::NoLibrary(name.to_owned())) }
    }

    fn objects(&self) -> PathBuf {
        self.0.join("objects")
    }

    /// Held by who changes the store.
    fn lock(&self) -> Result<File, Error> {
        let objects = self.objects();
        fs::create_dir_all(&objects).map_err(|error| Error::Io(format!("make {}", objects.display()), error))?;
        let failed = |error| Error::Io(format!("lock {}", self.0.display()), error);
        let directory = File::open(&self.0).map_err(failed)?;
        flock(&directory, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
        Ok(directory)
    }

    /// Removes what no manifest names. As long as one cannot be read, nothing goes.
    fn sweep(&self) -> Result<(), Error> {
        let mut used = Vec::new();
        for name in self.names()? {
            match self.manifest(&name) {
                Ok(manifest) => used.push(manifest.description.digest.to_string()),
                Err(_) => return Ok(()),
            }
        }
        let left = |directory: PathBuf, keep: &dyn Fn(&String) -> bool| {
            let names = names(&directory)?.into_iter().filter(|name| !keep(name));
            steps::act(&names.map(|name| Step::Remove(directory.join(name))).collect::<Vec<_>>())
        };
        left(self.objects(), &|name| used.contains(name))?;
        left(self.0.clone(), &|name| !(name.starts_with('.') && name.ends_with(".new")))
    }
}

/// The signature rule, and whether the file is what is said of it.
fn judge(manifest: &Manifest, name: &str, file: &[u8], keys: &[(String, PublicKey)]) -> Result<(), Error> {
    let said = &manifest.description;
    let keys: Vec<PublicKey> = keys.iter().map(|(_, key)| *key).collect();
    manifest.vouches(&keys, name, file).map_err(|rule| Error::Rule(name.to_owned(), rule))?;
    let found = describe(name, said.version.clone(), file)?;
    match found.red_zone {
        // The signer has not looked.
        Some(place) if said.red_zone.is_none() => Err(Error::Rule(name.to_owned(), Refusal::RedZone(place))),
        _ => Ok(()),
    }
}

fn names(directory: &Path) -> Result<Vec<String>, Error> {
    let failed = |error| Error::Io(format!("read {}", directory.display()), error);
    match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries
            .and_then(|entries| entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect())
            .map_err(failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::tests::compile;
    use crate::library::{generate, read_secret};
    use crate::testing::TemporaryDirectory;
    use zooid_manifest::{SecretKey, Version};

    struct World {
        directory: TemporaryDirectory,
        store: Store,
        keys: Keys,
        secret: SecretKey,
    }

    impl World {
        fn new() -> Self {
            let directory = TemporaryDirectory::new("store");
            let keys = Keys::new(&directory.path().join("keys"));
            let [secret, public] = generate(&directory.path().join("shop")).unwrap();
            keys.trust(&public).unwrap();
            let store = Store::new(&directory.path().join("lib"));
            Self { store, keys, secret: read_secret(&secret).unwrap(), directory }
        }

        /// A library whose octets depend on the version.
        fn library(&self, name: &str, version: u64) -> (Manifest, Vec<u8>) {
            let source = format!("int version = {version};");
            let file = compile(&self.directory, name, &source, &["-mno-red-zone"]);
            let description = describe(name, Version::new(version, 0, 0), &file).unwrap();
            (description.sign(&self.secret).unwrap(), file)
        }

        fn put(&self, (manifest, file): &(Manifest, Vec<u8>), replace: bool) -> Result<Entry, Error> {
            self.store.put(manifest, file, &self.keys, replace)
        }

        fn version(&self, name: &str) -> Option<String> {
            match self.store.verify(name, &self.keys) {
                Ok(entry) => Some(entry.version),
                Err(Error::NoLibrary(_)) => None,
                Err(error) => panic!("{error}"),
            }
        }

        /// How many files there are.
        fn files(&self) -> (usize, usize) {
            (names(&self.store.0).unwrap().len() - 1, names(&self.store.objects()).unwrap().len())
        }
    }

    #[test]
    fn libraries_come_are_replaced_and_go() {
        let world = World::new();
        assert!(world.store.names().unwrap().is_empty());
        let (one, two) = (world.library("a.so", 1), world.library("a.so", 2));
        assert!(matches!(world.put(&one, true), Err(Error::NoLibrary(_))));
        let entry = world.put(&one, false).unwrap();
        assert_eq!((entry.version.as_str(), entry.trusted_as.as_deref()), ("1.0.0", Some("shop")));
        assert_eq!(world.store.inspect("a.so", &world.keys).unwrap(), entry);
        assert!(matches!(world.put(&two, false), Err(Error::Exists(_))));
        world.put(&two, true).unwrap();
        assert_eq!((world.version("a.so").as_deref(), world.files()), (Some("2.0.0"), (1, 1)));
        assert!(matches!(world.put(&two, true), Err(Error::NotNewer { .. })));
        assert!(matches!(world.put(&one, true), Err(Error::NotNewer { .. })));
        world.put(&world.library("b.so", 1), false).unwrap();
        assert_eq!(world.store.names().unwrap(), ["a.so", "b.so"]);
        world.store.remove("a.so").unwrap();
        assert!(matches!(world.store.remove("a.so"), Err(Error::NoLibrary(_))));
        assert!(matches!(world.store.remove("../keys/shop"), Err(Error::NoLibrary(_))));
        assert_eq!((world.store.names().unwrap(), world.files()), (vec!["b.so".to_owned()], (1, 1)));
    }

    #[test]
    fn a_kill_between_any_steps_leaves_the_old_or_the_new() {
        for steps in 0..=6 {
            for torn in [false, true] {
                let world = World::new();
                let (one, two) = (world.library("a.so", 1), world.library("a.so", 2));
                world.put(&one, false).unwrap();
                let plan = world.store.plan_put(&two.0, &two.1);
                assert_eq!(plan.len(), 6);
                steps::act(&plan[..steps]).unwrap();
                if let Some(Step::Write { path, octets, .. }) = plan.get(steps).filter(|_| torn) {
                    fs::write(path, &octets[..octets.len() / 2]).unwrap();
                }
                let version = if steps < 5 { "1.0.0" } else { "2.0.0" };
                assert_eq!(world.version("a.so").as_deref(), Some(version), "{steps} steps");
                // Nothing of it is in the way, and nothing stays.
                world.put(&world.library("a.so", 3), true).unwrap();
                assert_eq!((world.version("a.so").as_deref(), world.files()), (Some("3.0.0"), (1, 1)));
            }
        }
    }

    #[test]
    fn what_breaks_a_rule_is_not_taken() {
        let world = World::new();
        let (manifest, file) = world.library("a.so", 1);
        let refused = |manifest: &Manifest, file: &[u8]| {
            let error = world.store.put(manifest, file, &world.keys, false).unwrap_err();
            assert!(world.store.names().unwrap().is_empty());
            error.to_string()
        };
        let mut longer = file.clone();
        longer.push(0);
        assert_eq!(refused(&manifest, &longer), "a.so: signature rule: the file is not the one that was signed");
        let stranger = manifest.description.sign(&SecretKey::from_seed([1; 32])).unwrap();
        let said = refused(&stranger, &file);
        assert!(said.contains("is not trusted: `pvm key trust` lets"), "{said}");
        let mut forged = manifest.clone();
        forged.description.version = Version::new(9, 0, 0);
        assert_eq!(refused(&forged, &file), "a.so: signature rule: the manifest is not what its signer has signed");
        let no_library = Description::new("a.so", Version::new(1, 0, 0), b"text").sign(&world.secret).unwrap();
        assert!(refused(&no_library, b"text").starts_with("a.so: the file ends within the ELF header"));
        // A signer who keeps quiet about a red zone.
        let leaf = "int leaf(int a) { volatile int b[4] = {a}; return b[1]; }";
        let file = compile(&world.directory, "a.so", leaf, &["-mred-zone"]);
        let mut description = describe("a.so", Version::new(1, 0, 0), &file).unwrap();
        let honest = description.sign(&world.secret).unwrap();
        description.red_zone = None;
        let quiet = description.sign(&world.secret).unwrap();
        assert!(refused(&quiet, &file).contains("in `leaf`, uses the red zone"));
        world.store.put(&honest, &file, &world.keys, false).unwrap();
    }

    #[test]
    fn damage_is_found() {
        let world = World::new();
        let library = world.library("a.so", 1);
        world.put(&library, false).unwrap();
        let nobody = Keys::new(&world.directory.path().join("nobody"));
        assert!(matches!(world.store.verify("a.so", &nobody), Err(Error::Rule(_, Refusal::UnknownSigner(_)))));
        let object = world.store.objects().join(library.0.description.digest.to_string());
        let mut octets = library.1.clone();
        octets[100] ^= 1;
        fs::remove_file(&object).unwrap();
        fs::write(&object, octets).unwrap();
        assert!(matches!(world.store.verify("a.so", &world.keys), Err(Error::Rule(_, Refusal::OtherFile))));
        fs::remove_file(&object).unwrap();
        assert!(matches!(world.store.verify("a.so", &world.keys), Err(Error::Io(..))));
    }
}
