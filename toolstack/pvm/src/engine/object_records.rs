//! Records of named objects in xenstore, below their memory owner's home, for a daemon that starts
//! anew (docs/protocols/ipc.md).

use std::fmt::Write as _;

use xen_abi::{DomId, Mfn};
use xenctl::xenstore::{Error, Store};
use zooid_fork_plan::id::PvmId;

use super::home;
use super::memory_owner::{Asker, Object};

/// Octets of a node with frame numbers. xenstored takes 4,096, the path included.
const NODE: usize = 2048;
/// The record of an object that has gone.
const GONE: &str = "gone";

/// An object as it was recorded.
#[derive(Debug, PartialEq, Eq)]
pub enum Record {
    /// The object exists.
    Object(Object),
    /// The object was not finished, or its name was removed. These frames may not have been given
    /// back.
    Gone(Vec<Mfn>),
    /// The record makes no sense: somebody else has written there.
    Nonsense,
}

fn objects(memory_owner: DomId) -> String {
    format!("{}/objects", home::path(memory_owner))
}

fn unlinked(memory_owner: DomId) -> String {
    format!("{}/unlinked", home::path(memory_owner))
}

/// Records frames of an object that is being made, behind `parts` nodes with others; the number of
/// nodes then.
pub fn add(store: &Store, memory_owner: DomId, number: u32, parts: usize, new: &[Mfn]) -> Result<usize, Error> {
    let node = format!("{}/{number}/frames", objects(memory_owner));
    let texts = frames(new);
    texts.iter().enumerate().try_for_each(|(part, text)| store.write(&format!("{node}/{}", parts + part), text))?;
    Ok(parts + texts.len())
}

/// Records an object whose frames are recorded. From here on it exists.
pub fn write(store: &Store, memory_owner: DomId, number: u32, object: &Object) -> Result<(), Error> {
    let what = format!("{} {} {}", object.frames.len(), asker(object.maker), escape(&object.name));
    store.write(&format!("{}/{number}", objects(memory_owner)), &what)
}

/// Records that an object's name has gone, and the member's request that removed it.
pub fn strike(store: &Store, memory_owner: DomId, number: u32, by: Option<Asker>) -> Result<(), Error> {
    store.transact(|store| {
        store.write(&format!("{}/{number}", objects(memory_owner)), GONE)?;
        by.map_or(Ok(()), |by| store.write(&unlinked(memory_owner), &asker(by)))
    })
}

/// Removes the record of an object.
pub fn remove(store: &Store, memory_owner: DomId, number: u32) -> Result<(), Error> {
    store.remove(&format!("{}/{number}", objects(memory_owner)))
}

/// The request that removed a name last.
pub fn last_unlink(store: &Store, memory_owner: DomId) -> Result<Option<Asker>, Error> {
    match store.read(&unlinked(memory_owner)) {
        Ok(text) => Ok(text.split_once(' ').and_then(|(member, request)| parse_asker(member, request))),
        Err(Error::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// All records.
pub fn all(store: &Store, memory_owner: DomId) -> Result<Vec<(u32, Record)>, Error> {
    let home = objects(memory_owner);
    let mut records = Vec::new();
    for number in list(store, &home)? {
        let node = format!("{home}/{number}");
        let Ok(number) = number.parse() else { continue };
        let what = store.read(&node)?;
        let mut parts = Vec::new();
        for part in 0..list(store, &format!("{node}/frames"))?.len() {
            parts.push(store.read(&format!("{node}/frames/{part}"))?);
        }
        records.push((number, parse(&what, &parts)));
    }
    Ok(records)
}

fn list(store: &Store, path: &str) -> Result<Vec<String>, Error> {
    match store.list(path) {
        Err(Error::NotFound) => Ok(Vec::new()),
        result => result,
    }
}

fn asker(asker: Asker) -> String {
    format!("{} {}", asker.member, asker.request)
}

fn parse_asker(member: &str, request: &str) -> Option<Asker> {
    Some(Asker { member: PvmId::from_raw(member.parse().ok()?)?, request: request.parse().ok()? })
}

fn parse(what: &str, parts: &[String]) -> Record {
    let Some(frames) = parse_frames(parts) else { return Record::Nonsense };
    // xenstored makes an empty node above another one.
    if what == GONE || what.is_empty() {
        return Record::Gone(frames);
    }
    let object = || {
        let mut words = what.split(' ');
        let pages: usize = words.next()?.parse().ok()?;
        let maker = parse_asker(words.next()?, words.next()?)?;
        let name = unescape(words.next()?)?;
        (pages == frames.len() && !name.is_empty()).then_some((name, maker))
    };
    match object() {
        Some((name, maker)) => Record::Object(Object { name, maker, frames }),
        None => Record::Nonsense,
    }
}

/// Runs of frame numbers, `FIRST+COUNT` with a space between them, in texts that fit into a node.
fn frames(frames: &[Mfn]) -> Vec<String> {
    let mut parts = vec![String::new()];
    for run in frames.chunk_by(|one, next| next.0 == one.0 + 1) {
        let text = format!("{}+{}", run[0].0, run.len());
        match parts.last_mut() {
            Some(part) if part.is_empty() => *part = text,
            Some(part) if part.len() + 1 + text.len() <= NODE => {
                part.push(' ');
                part.push_str(&text);
            }
            _ => parts.push(text),
        }
    }
    parts
}

fn parse_frames(parts: &[String]) -> Option<Vec<Mfn>> {
    /// More frames than a machine has.
    const LIMIT: u64 = 1 << 40;
    let mut frames = Vec::new();
    for run in parts.iter().flat_map(|part| part.split(' ')) {
        let (first, count) = run.split_once('+')?;
        let (first, count): (u64, u32) = (first.parse().ok()?, count.parse().ok()?);
        if first >= LIMIT {
            return None;
        }
        frames.extend((first..first + u64::from(count)).map(Mfn));
    }
    Some(frames)
}

/// A name in printable ASCII without spaces. Other octets, and the percent sign, are `%` and two
/// digits.
fn escape(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for octet in name {
        if octet.is_ascii_graphic() && *octet != b'%' {
            text.push(char::from(*octet));
        } else {
            let _ = write!(text, "%{octet:02x}");
        }
    }
    text
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('%');
    let mut name = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2)?;
        name.push(u8::from_str_radix(digits, 16).ok()?);
        name.extend(&part.as_bytes()[2..]);
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_any_octets_comes_back() {
        let every: Vec<u8> = (1..=255).filter(|octet| *octet != b'/').collect();
        for name in [&b"queue.1"[..], b"%41", b" ", &every] {
            let text = escape(name);
            assert!(text.bytes().all(|octet| octet.is_ascii_graphic()), "{text}");
            assert_eq!(unescape(&text).as_deref(), Some(name));
        }
        assert_eq!(escape(b"a b%"), "a%20b%25");
        for text in ["%", "%4", "%zz", "a%é"] {
            assert_eq!(unescape(text), None, "{text}");
        }
    }

    #[test]
    fn frames_are_written_as_runs_and_in_parts() {
        let mfns = |numbers: &[u64]| numbers.iter().map(|number| Mfn(*number)).collect::<Vec<_>>();
        assert_eq!(frames(&mfns(&[7, 8, 9, 3, 5, 6])), ["7+3 3+1 5+2"]);
        let many: Vec<Mfn> = (0..5_000).map(|number| Mfn(0x10_0000 + 2 * number)).collect();
        let parts = frames(&many);
        assert!(parts.len() > 1 && parts.iter().all(|part| part.len() <= NODE));
        assert_eq!(parse_frames(&parts), Some(many));
    }

    #[test]
    fn a_record_that_makes_no_sense_is_none() {
        let frames = ["7+2".to_owned()];
        let Record::Object(object) = parse("2 5 9 a%20b", &frames) else { panic!() };
        assert_eq!((&object.name[..], object.maker.request), (&b"a b"[..], 9));
        for what in ["gone", ""] {
            assert_eq!(parse(what, &frames), Record::Gone(vec![Mfn(7), Mfn(8)]));
        }
        for what in ["3 5 9 a", "2 0 9 a", "2 5 9", "2 5 9 ", "x 5 9 a"] {
            assert_eq!(parse(what, &frames), Record::Nonsense, "{what}");
        }
        for frames in ["7", "7+x", "", "1099511627776+1"] {
            assert_eq!(parse("1 5 9 a", &[frames.to_owned()]), Record::Nonsense, "{frames}");
        }
    }
}
