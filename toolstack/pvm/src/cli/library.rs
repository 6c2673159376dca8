//! `pvm lib` and `pvm key`.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;
use zooid_manifest::{MAX_OCTETS, Manifest, Refusal, SUFFIX, Version, is_name};

use super::client::Client;
use super::error::Error;
use super::logs::put;
use super::options::{Key, KeyOptions, Lib, LibOptions, NewLibrary, Which};
use super::progress::Progress;
use super::{print_json, render, report, say};
use crate::engine::{Kind, PvmInfo, Target, Update};
use crate::library::{self, Keys, Store, TrustedKey};
use crate::plain::plain;
use crate::protocol::{FaultKind, Request};

/// Carries out `pvm lib`.
pub fn lib(socket: &Path, json: bool, options: LibOptions, out: &mut impl Write) -> Result<u8, Error> {
    let (store, keys) = (Store::new(&options.store), Keys::new(&options.keys));
    warn_of_damage(&keys)?;
    match options.command {
        Lib::Add(new) => add(json, &store, &keys, new, out)?,
        Lib::List => {
            let entries = store.list(&keys)?;
            if json { print_json(out, &entries)? } else { put(out, render::libraries(&entries).as_bytes())? }
        }
        Lib::Inspect { library } => {
            let entry = store.inspect(&library.name, library.version.as_ref(), &keys)?;
            if json { print_json(out, &entry)? } else { put(out, render::library(&entry).as_bytes())? }
        }
        Lib::Update { library, to, family, all, timeout, pvms } => {
            let named = !all && family.is_none();
            let targets = if named { pvms } else { running(socket, family)? };
            let request = UpdateRequest { library, to, limit_ms: timeout * 1000, named };
            return request.update(socket, &targets, json, out);
        }
        Lib::Remove { library } => store.remove(&library.name, library.version.as_ref())?,
        Lib::Verify { libraries } => {
            let mut code = 0;
            for (name, version) in chosen(&store, libraries)? {
                match store.verify(&name, &version, &keys) {
                    Ok(entry) if json => print_json(out, &entry)?,
                    Ok(_) => put(out, format!("{name} {version}: good\n").as_bytes())?,
                    Err(error) => {
                        let error = Error::from(error);
                        report(json, &error);
                        code = if code == 0 { error.exit_code() } else { code };
                    }
                }
            }
            return Ok(code);
        }
    }
    Ok(0)
}

/// Names the files that should hold keys, and do not.
fn warn_of_damage(keys: &Keys) -> Result<(), Error> {
    keys.damaged()?
        .iter()
        .for_each(|error| say(&format!("pvm: warning: {}: it counts for nothing", plain(&error.to_string()))));
    Ok(())
}

/// All pVMs, or those of a family, the oldest first.
fn running(socket: &Path, family: Option<Target>) -> Result<Vec<Target>, Error> {
    let mut client = Client::connect(socket)?;
    let root = family.map(|member| client.inspect(&member)).transpose()?.map(|info| info.root);
    let mut pvms: Vec<PvmInfo> = client.ask(Request::List { all: false })?;
    pvms.retain(|pvm| pvm.kind != Kind::Prepared && root.is_none_or(|root| pvm.root == root));
    pvms.sort_by_key(|pvm| (pvm.since_us, pvm.id));
    Ok(pvms.into_iter().map(|pvm| Target::Id(pvm.id)).collect())
}

/// A request to pVMs for an update.
struct UpdateRequest {
    library: String,
    to: Option<Version>,
    limit_ms: u32,
    /// True if the pVMs were named: each has to do it. Otherwise those with the library open have
    /// to.
    named: bool,
}

impl UpdateRequest {
    /// Asks one pVM after the other. The exit code is that of the first failure.
    fn update(&self, socket: &Path, pvms: &[Target], json: bool, out: &mut impl Write) -> Result<u8, Error> {
        let mut client = Client::connect(socket)?;
        let (mut code, mut done) = (0, 0);
        for pvm in pvms {
            let request = Request::Update {
                pvm: pvm.clone(),
                library: self.library.clone(),
                version: self.to.as_ref().map(Version::to_string),
                limit_ms: self.limit_ms,
            };
            let progress = Progress::new(format!("waiting for {pvm} to leave {}", self.library));
            let answer = client.ask::<Update>(request);
            drop(progress);
            let kept = |reason| Error::NotUpdated { pvm: pvm.to_string(), library: self.library.clone(), reason };
            let error = match answer {
                Ok(Update::Updated { from, to }) => {
                    done += 1;
                    if json {
                        let line = json!({ "pvm": pvm.to_string(), "library": self.library, "from": from, "to": to });
                        print_json(out, &line)?;
                    } else {
                        let change = if from == to { format!("is {to} already") } else { format!("{from} -> {to}") };
                        put(out, format!("{}\n", plain(&format!("{pvm}: {} {change}", self.library))).as_bytes())?;
                    }
                    continue;
                }
                Ok(Update::NotOpen) if !self.named => continue,
                // This pVM replaces no libraries, or has ended meanwhile.
                Err(Error::Fault(fault))
                    if !self.named
                        && matches!(fault.kind, FaultKind::Refused | FaultKind::HasEnded | FaultKind::NoSuchPvm) =>
                {
                    continue;
                }
                Ok(Update::NotOpen) => kept("it does not have it open".to_owned()),
                Ok(Update::Kept { reason }) => kept(reason),
                Err(error @ Error::Fault(_)) => error,
                Err(other) => return Err(other),
            };
            report(json, &error);
            code = if code == 0 { error.exit_code() } else { code };
        }
        if done == 0 && code == 0 {
            return Err(Error::NotUpdated {
                pvm: "no pVM".to_owned(),
                library: self.library.clone(),
                reason: "none has it open as one that can be replaced (dl::live!)".to_owned(),
            });
        }
        Ok(code)
    }
}

/// These libraries, with all versions of those without one; all libraries if none is named.
fn chosen(store: &Store, libraries: Vec<Which>) -> Result<Vec<(String, Version)>, Error> {
    let all = store.all()?;
    if libraries.is_empty() {
        return Ok(all);
    }
    let mut chosen = Vec::new();
    for Which { name, version } in libraries {
        let is_it = |(other, at): &&(String, Version)| *other == name && version.as_ref().is_none_or(|it| it == at);
        let before = chosen.len();
        chosen.extend(all.iter().filter(is_it).cloned());
        if chosen.len() == before {
            let version = version.map(|version| format!("@{version}")).unwrap_or_default();
            return Err(library::Error::NoLibrary(name + &version).into());
        }
    }
    Ok(chosen)
}

fn add(json: bool, store: &Store, keys: &Keys, new: NewLibrary, out: &mut impl Write) -> Result<(), Error> {
    let file = library::read_library(&new.file)?;
    let name = match new.name {
        Some(name) => name,
        None => file_name(&new.file)?,
    };
    let manifest = match (&new.sign_with, new.lib_version) {
        (Some(key), Some(version)) => {
            let mut description = library::describe(&name, version, &file)?;
            description.images = sorted(new.images);
            description.families = sorted(new.families);
            description.revoked = new.revoked;
            description.sign(&library::read_secret(key)?).map_err(library::Error::Description)?
        }
        _ => beside(&new.file, &name)?,
    };
    let entry = store.put(&manifest, &file, keys)?;
    if let Some(place) = &entry.red_zone {
        say(&format!(
            "pvm: {name}: pVMs in guest kernel mode will refuse it, those in guest user mode take it: the code at {place} uses the red zone (-mno-red-zone builds it without)"
        ));
    }
    if json { print_json(out, &entry) } else { put(out, format!("{name} {}\n", entry.version).as_bytes()) }
}

fn file_name(path: &Path) -> Result<String, Error> {
    let name = path.file_name().and_then(|name| name.to_str()).filter(|name| is_name(name));
    let bad =
        || library::Error::Bad(format!("{}: no library can have this name: choose one with --name", path.display()));
    Ok(name.ok_or_else(bad)?.to_owned())
}

/// The manifest beside a file.
fn beside(file: &Path, name: &str) -> Result<Manifest, library::Error> {
    let mut path = file.as_os_str().to_owned();
    path.push(SUFFIX);
    let path = PathBuf::from(path);
    let refused = |rule| library::Error::Rule(name.to_owned(), rule);
    match library::read(&path, MAX_OCTETS as u64) {
        Err(library::Error::Io(_, error)) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(refused(Refusal::Unsigned))
        }
        octets => Manifest::parse(&octets?).map_err(|malformed| refused(Refusal::Malformed(malformed))),
    }
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names.dedup();
    names
}

/// Carries out `pvm key`.
pub fn key(json: bool, options: KeyOptions, out: &mut impl Write) -> Result<u8, Error> {
    let keys = Keys::new(&options.keys);
    match options.command {
        Key::Generate { name } => {
            let [secret, public] = library::generate(&name)?.map(|path| path.display().to_string());
            if json {
                print_json(out, &json!({ "secret": secret, "public": public }))?;
            } else {
                put(out, format!("{secret}\n{public}\n").as_bytes())?;
            }
        }
        Key::Trust { file } => {
            let trusted = keys.trust(&file)?;
            if json {
                print_json(out, &trusted)?;
            }
        }
        Key::List => {
            warn_of_damage(&keys)?;
            let trusted = keys.all()?.into_iter().map(|(name, key)| TrustedKey { name, key: key.to_string() });
            let trusted: Vec<TrustedKey> = trusted.collect();
            if json { print_json(out, &trusted)? } else { put(out, render::keys(&trusted).as_bytes())? }
        }
    }
    Ok(0)
}
