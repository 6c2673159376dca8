//! The libraries of this host: `NAME@VERSION.manifest` for each, and `objects/SHA512`, the file
//! that the manifest describes.
//!
//! The manifest makes the library: its rename adds the library, and its removal takes it out. There
//! may be several versions of one name. Objects never change, so a mapped library stays the one
//! that was checked. Objects that no manifest names are left over from a kill, and are removed with
//! the next change.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use zooid_manifest::{Description, Digest, Hasher, MAX_OCTETS, Manifest, PublicKey, Refusal, SUFFIX, Version, is_name};

use super::steps::{self, Step};
use super::{Error, Keys, describe, read, read_library};

/// The store, in a directory that need not exist.
#[derive(Clone, Debug)]
pub struct Store(PathBuf);

/// The description of a library in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The name by which it is opened.
    pub name: String,
    /// Its version, as in `1.2.3`.
    pub version: String,
    /// The build id of the file in hexadecimal, if it has one.
    pub build_id: Option<String>,
    /// Its size, in octets.
    pub size: u64,
    /// The SHA-512 of the file in hexadecimal.
    pub sha512: String,
    /// The first use of a red zone.
    pub red_zone: Option<String>,
    /// The images that may map it; an empty list allows all.
    pub images: Vec<String>,
    /// The families that may map it; an empty list allows all.
    pub families: Vec<String>,
    /// The manifest revokes this version.
    pub revoked: bool,
    /// The key that has signed it.
    pub signer: String,
    /// The name of that key, if it is trusted.
    pub trusted_as: Option<String>,
    /// The damage of the manifest or of the file, if [`Store::inspect`] or [`Store::list`] has found
    /// one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
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
            damage: None,
        }
    }

    /// A library of which only the name of the manifest's file is known.
    fn unknown(name: String, version: &Version, damage: String) -> Self {
        Self {
            name,
            version: version.to_string(),
            build_id: None,
            size: 0,
            sha512: String::new(),
            red_zone: None,
            images: Vec::new(),
            families: Vec::new(),
            revoked: false,
            signer: String::new(),
            trusted_as: None,
            damage: Some(damage),
        }
    }
}

impl Store {
    /// The store in a directory.
    pub fn new(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    /// Adds a library, beside other versions of its name, if the rules hold that can be checked
    /// here: a trusted key has signed it, and it matches its description. The description of a
    /// present file may be replaced.
    ///
    /// # Errors
    /// A rule does not hold, or that version has another file; the store has not changed.
    pub fn put(&self, manifest: &Manifest, file: &[u8], keys: &Keys) -> Result<Entry, Error> {
        let keys = keys.all()?;
        let Description { name, version, digest, .. } = &manifest.description;
        judge(manifest, name, file, &keys)?;
        let _lock = self.lock()?;
        match self.manifest(name, version) {
            Err(Error::NoLibrary(_)) => {}
            Ok(old) if old.description.digest == *digest => {}
            Ok(_) => return Err(Error::Exists { name: name.clone(), version: version.clone() }),
            Err(error) => return Err(error),
        }
        let put = steps::act(&self.plan_put(manifest, file));
        // Also after a failure: pieces of what had no room leave none for anything else.
        let swept = self.sweep();
        put?;
        swept?;
        Ok(Entry::new(manifest, &keys))
    }

    fn plan_put(&self, manifest: &Manifest, file: &[u8]) -> Vec<Step> {
        let Description { name, version, digest, .. } = &manifest.description;
        let object = steps::put(&self.objects(), &digest.to_string(), file.to_vec(), 0o444);
        let text = steps::put(&self.0, &file_name(name, version), manifest.to_string().into_bytes(), 0o444);
        object.into_iter().chain(text).collect()
    }

    /// Removes a version of a library, or all. Mapped files stay for their users.
    ///
    /// # Errors
    /// There is no library of this name, or no such version.
    pub fn remove(&self, name: &str, version: Option<&Version>) -> Result<(), Error> {
        let _lock = self.lock()?;
        let mut versions = self.versions(name)?;
        versions.retain(|other| version.is_none_or(|version| version == other));
        if versions.is_empty() {
            return Err(no_library(name, version));
        }
        let files = versions.iter().map(|version| Step::Remove(self.0.join(file_name(name, version))));
        steps::act(&files.chain([Step::Sync(self.0.clone())]).collect::<Vec<_>>())?;
        self.sweep()
    }

    /// The description of a version of a library, or of the highest one.
    ///
    /// # Errors
    /// There is no library of this name, or no such version, or its manifest is malformed.
    pub fn inspect(&self, name: &str, version: Option<&Version>, keys: &Keys) -> Result<Entry, Error> {
        let highest = self.versions(name)?.into_iter().next();
        let version = version.cloned().or(highest).ok_or_else(|| no_library(name, None))?;
        Ok(self.entry(name, &self.manifest(name, &version)?, &keys.all()?))
    }

    /// All libraries, in the order of [`all`](Self::all). Those that are damaged are listed, too.
    ///
    /// # Errors
    /// The directory, or a key, cannot be read.
    pub fn list(&self, keys: &Keys) -> Result<Vec<Entry>, Error> {
        let keys = keys.all()?;
        let entry = |(name, version): (String, Version)| match self.manifest(&name, &version) {
            Ok(manifest) => Some(self.entry(&name, &manifest, &keys)),
            // It has been removed meanwhile.
            Err(Error::NoLibrary(_)) => None,
            Err(Error::Rule(_, refusal)) => Some(Entry::unknown(name, &version, refusal.to_string())),
            Err(error) => Some(Entry::unknown(name, &version, error.to_string())),
        };
        Ok(self.all()?.into_iter().filter_map(entry).collect())
    }

    fn entry(&self, name: &str, manifest: &Manifest, keys: &[(String, PublicKey)]) -> Entry {
        Entry { damage: self.damage(name, manifest), ..Entry::new(manifest, keys) }
    }

    /// The difference between a library and what its signer, trusted or not, has signed.
    fn damage(&self, name: &str, manifest: &Manifest) -> Option<String> {
        let Description { size, digest, .. } = &manifest.description;
        if let Err(refusal) = manifest.is_signed(&[manifest.signer], name) {
            return Some(refusal.to_string());
        }
        match self.open(digest).and_then(|file| digest_of(file, *size)) {
            Ok(found) if found == *digest => None,
            Ok(_) => Some(Refusal::OtherFile.to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some("its file is missing".to_owned()),
            Err(error) => Some(format!("its file cannot be read: {error}")),
        }
    }

    /// Checks a version of a library anew: its manifest, its file, and the description of the file.
    ///
    /// # Errors
    /// The fault that was found.
    pub fn verify(&self, name: &str, version: &Version, keys: &Keys) -> Result<Entry, Error> {
        let keys = keys.all()?;
        let manifest = self.manifest(name, version)?;
        let file = read_library(&self.objects().join(manifest.description.digest.to_string()))?;
        judge(&manifest, name, &file, &keys)?;
        Ok(Entry::new(&manifest, &keys))
    }

    /// The names and versions of all libraries, by rising name, the highest version first.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn all(&self) -> Result<Vec<(String, Version)>, Error> {
        let mut all: Vec<_> = names(&self.0)?.iter().filter_map(|name| parse_file_name(name)).collect();
        all.sort_by(|(name, version), (other, lower)| (name, lower).cmp(&(other, version)));
        Ok(all)
    }

    /// The versions of a library, the highest first.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn versions(&self, name: &str) -> Result<Vec<Version>, Error> {
        Ok(self.all()?.into_iter().filter(|(other, _)| other == name).map(|(_, version)| version).collect())
    }

    /// The manifest of a version of a library, for a check.
    ///
    /// # Errors
    /// There is no such version, or its manifest is malformed.
    pub fn manifest(&self, name: &str, version: &Version) -> Result<Manifest, Error> {
        if !is_name(name) {
            return Err(no_library(name, Some(version)));
        }
        let octets = match read(&self.0.join(file_name(name, version)), MAX_OCTETS as u64) {
            Err(Error::Io(_, error)) if error.kind() == io::ErrorKind::NotFound => {
                return Err(no_library(name, Some(version)));
            }
            result => result?,
        };
        let refused = |refusal| Error::Rule(name.to_owned(), refusal);
        let manifest = Manifest::parse(&octets).map_err(|malformed| refused(Refusal::Malformed(malformed)))?;
        if manifest.description.version != *version {
            return Err(refused(Refusal::OtherLibrary(manifest.description.name)));
        }
        Ok(manifest)
    }

    /// The file that a manifest describes. It never changes, and exists as long as it is open.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(&self, digest: &Digest) -> io::Result<File> {
        super::open(&self.objects().join(digest.to_string()))
    }

    fn objects(&self) -> PathBuf {
        self.0.join("objects")
    }

    /// The lock for changes of the store.
    fn lock(&self) -> Result<File, Error> {
        let objects = self.objects();
        fs::create_dir_all(&objects).map_err(|error| Error::Io(format!("make {}", objects.display()), error))?;
        let failed = |error| Error::Io(format!("lock {}", self.0.display()), error);
        let directory = File::open(&self.0).map_err(failed)?;
        flock(&directory, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
        Ok(directory)
    }

    /// Removes the objects that no manifest names. While a manifest cannot be read, nothing is
    /// removed.
    fn sweep(&self) -> Result<(), Error> {
        let mut used = Vec::new();
        for (name, version) in self.all()? {
            match self.manifest(&name, &version) {
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

/// The digest of a file, of which no more is read than `size` octets and one.
fn digest_of(file: File, size: u64) -> io::Result<Digest> {
    let mut file = file.take(size.saturating_add(1));
    let (mut hasher, mut octets) = (Hasher::default(), vec![0; 64 << 10]);
    loop {
        match file.read(&mut octets) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => hasher.update(&octets[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The name of a manifest's file.
fn file_name(name: &str, version: &Version) -> String {
    format!("{name}@{version}{SUFFIX}")
}

fn parse_file_name(file: &str) -> Option<(String, Version)> {
    let (name, version) = file.strip_suffix(SUFFIX)?.split_once('@')?;
    is_name(name).then_some((name.to_owned(), Version::parse(version).ok()?))
}

fn no_library(name: &str, version: Option<&Version>) -> Error {
    Error::NoLibrary(version.map_or_else(|| name.to_owned(), |version| format!("{name}@{version}")))
}

/// Checks the signature rule, and that the file matches its description.
fn judge(manifest: &Manifest, name: &str, file: &[u8], keys: &[(String, PublicKey)]) -> Result<(), Error> {
    let said = &manifest.description;
    let keys: Vec<PublicKey> = keys.iter().map(|(_, key)| *key).collect();
    manifest.vouches(&keys, name, file).map_err(|rule| Error::Rule(name.to_owned(), rule))?;
    let found = describe(name, said.version.clone(), file)?;
    match found.red_zone {
        // The signer has not checked for it.
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

        fn put(&self, (manifest, file): &(Manifest, Vec<u8>)) -> Result<Entry, Error> {
            self.store.put(manifest, file, &self.keys)
        }

        /// The versions of a library, each checked.
        fn versions(&self, name: &str) -> Vec<u64> {
            let versions = self.store.versions(name).unwrap();
            for version in &versions {
                let entry = self.store.verify(name, version, &self.keys).unwrap();
                assert_eq!(entry.version, version.to_string());
            }
            versions.iter().map(|version| version.major).collect()
        }

        /// The numbers of files.
        fn files(&self) -> (usize, usize) {
            (names(&self.store.0).unwrap().len() - 1, names(&self.store.objects()).unwrap().len())
        }
    }

    #[test]
    fn versions_of_libraries_come_and_go() {
        let world = World::new();
        assert!(world.store.all().unwrap().is_empty());
        let [one, two, ten] = [1, 2, 10].map(|version| world.library("a.so", version));
        let entry = world.put(&two).unwrap();
        assert_eq!((entry.version.as_str(), entry.trusted_as.as_deref()), ("2.0.0", Some("shop")));
        assert_eq!(world.store.inspect("a.so", None, &world.keys).unwrap(), entry);
        world.put(&one).unwrap();
        world.put(&ten).unwrap();
        assert_eq!((world.versions("a.so"), world.files()), (vec![10, 2, 1], (3, 3)));
        assert_eq!(world.store.inspect("a.so", None, &world.keys).unwrap().version, "10.0.0");
        let version = Version::new(1, 0, 0);
        assert_eq!(world.store.inspect("a.so", Some(&version), &world.keys).unwrap().version, "1.0.0");
        let mut other = two.clone();
        other.0.description.version = version.clone();
        other.0 = other.0.description.sign(&world.secret).unwrap();
        assert!(matches!(world.put(&other), Err(Error::Exists { .. })), "that version has other octets");
        // The rules of the same file may change.
        let mut revoked = one.clone();
        revoked.0.description.revoked = true;
        revoked.0 = revoked.0.description.sign(&world.secret).unwrap();
        world.put(&revoked).unwrap();
        assert!(world.store.inspect("a.so", Some(&version), &world.keys).unwrap().revoked);
        assert_eq!(world.files(), (3, 3));

        world.put(&world.library("b.so", 1)).unwrap();
        let names: Vec<String> =
            world.store.all().unwrap().iter().map(|(name, version)| format!("{name} {version}")).collect();
        assert_eq!(names, ["a.so 10.0.0", "a.so 2.0.0", "a.so 1.0.0", "b.so 1.0.0"]);
        world.store.remove("a.so", Some(&version)).unwrap();
        let again = world.store.remove("a.so", Some(&version)).unwrap_err();
        assert_eq!(again.to_string(), "there is no library a.so@1.0.0: `pvm lib list` shows those that there are");
        assert_eq!(world.versions("a.so"), [10, 2]);
        world.store.remove("a.so", None).unwrap();
        for name in ["a.so", "../keys/shop"] {
            assert!(matches!(world.store.remove(name, None), Err(Error::NoLibrary(_))));
        }
        assert_eq!((world.versions("b.so"), world.files()), (vec![1], (1, 1)));
    }

    #[test]
    fn a_kill_between_any_steps_leaves_a_whole_library_or_none() {
        for steps in 0..=6 {
            for torn in [false, true] {
                let world = World::new();
                let (one, two) = (world.library("a.so", 1), world.library("a.so", 2));
                world.put(&one).unwrap();
                let plan = world.store.plan_put(&two.0, &two.1);
                assert_eq!(plan.len(), 6);
                steps::act(&plan[..steps]).unwrap();
                if let Some(Step::Write { path, octets, .. }) = plan.get(steps).filter(|_| torn) {
                    fs::write(path, &octets[..octets.len() / 2]).unwrap();
                }
                let versions: &[u64] = if steps < 5 { &[1] } else { &[2, 1] };
                assert_eq!(world.versions("a.so"), versions, "{steps} steps");
                // Nothing of it disturbs later changes, and nothing stays.
                world.put(&world.library("a.so", 3)).unwrap();
                assert_eq!(world.files(), (versions.len() + 1, versions.len() + 1));
            }
        }
    }

    #[test]
    fn what_breaks_a_rule_is_not_taken() {
        let world = World::new();
        let (manifest, file) = world.library("a.so", 1);
        let refused = |manifest: &Manifest, file: &[u8]| {
            let error = world.store.put(manifest, file, &world.keys).unwrap_err();
            assert!(world.store.all().unwrap().is_empty());
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
        // The signer omitted the red zone.
        let leaf = "int leaf(int a) { volatile int b[4] = {a}; return b[1]; }";
        let file = compile(&world.directory, "a.so", leaf, &["-mred-zone"]);
        let mut description = describe("a.so", Version::new(1, 0, 0), &file).unwrap();
        let honest = description.sign(&world.secret).unwrap();
        description.red_zone = None;
        let quiet = description.sign(&world.secret).unwrap();
        assert!(refused(&quiet, &file).contains("in `leaf`, uses the red zone"));
        world.store.put(&honest, &file, &world.keys).unwrap();
    }

    #[test]
    fn damage_is_found() {
        let world = World::new();
        let library = world.library("a.so", 1);
        world.put(&library).unwrap();
        let version = Version::new(1, 0, 0);
        let verify = |keys: &Keys| world.store.verify("a.so", &version, keys);
        let nobody = Keys::new(&world.directory.path().join("nobody"));
        assert!(matches!(verify(&nobody), Err(Error::Rule(_, Refusal::UnknownSigner(_)))));
        let object = world.store.objects().join(library.0.description.digest.to_string());
        let mut octets = library.1.clone();
        octets[100] ^= 1;
        fs::remove_file(&object).unwrap();
        fs::write(&object, octets).unwrap();
        assert!(matches!(verify(&world.keys), Err(Error::Rule(_, Refusal::OtherFile))));
        // The list tells of it, too, and of all others.
        world.put(&world.library("b.so", 2)).unwrap();
        let damages = || -> Vec<Option<String>> {
            world.store.list(&world.keys).unwrap().into_iter().map(|entry| entry.damage).collect()
        };
        let other_file = Some("signature rule: the file is not the one that was signed".to_owned());
        assert_eq!(damages(), [other_file.clone(), None]);
        assert_eq!(world.store.inspect("a.so", None, &world.keys).unwrap().damage, other_file);
        fs::remove_file(&object).unwrap();
        fs::write(&object, "").unwrap();
        assert_eq!(damages(), [other_file, None]);
        fs::remove_file(&object).unwrap();
        assert!(matches!(verify(&world.keys), Err(Error::Io(..))));
        assert_eq!(damages(), [Some("its file is missing".to_owned()), None]);
        let manifest = world.store.0.join("a.so@1.0.0.manifest");
        fs::remove_file(&manifest).unwrap();
        fs::write(&manifest, "").unwrap();
        let all = world.store.list(&world.keys).unwrap();
        assert_eq!((&*all[0].name, all[0].damage.is_some(), &*all[1].name), ("a.so", true, "b.so"));
    }
}
