//! The description of a library.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use ed25519_compact::sha512;
use semver::Version;

use crate::hex::{self, Hex};
use crate::refusal::Malformed;

/// First line of every manifest. Text that is signed under it cannot be taken for anything else.
const TITLE: &str = "zooid-library 1";
/// Longest name, version or build id, in letters.
const MAX_WORD: usize = 128;
/// Longest list of images or families.
const MAX_LIST: usize = 32;

/// A library, as described by its signer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The name by which it is opened.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// The linker's build id, if there is one.
    pub build_id: Option<Vec<u8>>,
    /// The size of the file, in octets.
    pub size: u64,
    /// The digest of the file.
    pub digest: Digest,
    /// The first use of a red zone. A pVM in guest kernel mode may not run such a library.
    pub red_zone: Option<RedZone>,
    /// The images that may map it, by rising name; an empty list allows all.
    pub images: Vec<String>,
    /// The families that may map it, by the names of their root pVMs, rising; an empty list allows
    /// all.
    pub families: Vec<String>,
    /// True if it may not be mapped any more.
    pub revoked: bool,
}

/// A SHA-512 digest (FIPS 180-4).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest(pub(crate) [u8; 64]);

/// An instruction that uses the red zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedZone {
    /// Relative to the base.
    pub address: u64,
    /// The function that contains it, if it is known and has a plain name.
    pub function: Option<String>,
}

/// True if images, families and libraries can have this name: at least one of letters, digits and
/// `._+-`, and no dot first.
pub fn is_name(text: &str) -> bool {
    let plain = |letter: u8| letter.is_ascii_alphanumeric() || b"._+-".contains(&letter);
    (1..=MAX_WORD).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(plain)
}

impl Digest {
    /// The digest of these octets.
    pub fn of(octets: &[u8]) -> Self {
        Self(sha512::Hash::hash(octets))
    }
}

/// The digest of octets that come in parts.
#[derive(Default)]
pub struct Hasher(sha512::Hash);

impl fmt::Debug for Hasher {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Hasher")
    }
}

impl Hasher {
    /// Adds the next part.
    pub fn update(&mut self, octets: &[u8]) {
        self.0.update(octets);
    }

    /// The digest of all parts.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize())
    }
}

impl Description {
    /// The description of a file: only its octets are known, and every image and family may map it.
    pub fn new(name: &str, version: Version, file: &[u8]) -> Self {
        Self {
            name: name.to_string(),
            version,
            build_id: None,
            size: file.len() as u64,
            digest: Digest::of(file),
            red_zone: None,
            images: Vec::new(),
            families: Vec::new(),
            revoked: false,
        }
    }

    /// Reads the lines. A non-canonical form is left to the comparison with the text that would be
    /// written.
    pub(crate) fn parse<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Result<Self, Malformed> {
        let mut value = |key: &'static str| {
            let line = lines.next().unwrap_or_default();
            line.strip_prefix(key).and_then(|rest| rest.strip_prefix(' ')).ok_or(Malformed(key))
        };
        if value("zooid-library")? != "1" {
            return Err(Malformed("zooid-library"));
        }
        Ok(Self {
            name: name(value("name")?).ok_or(Malformed("name"))?,
            version: version(value("version")?).ok_or(Malformed("version"))?,
            build_id: optional(value("build-id")?, build_id).ok_or(Malformed("build-id"))?,
            size: value("size")?.parse().map_err(|_| Malformed("size"))?,
            digest: hex::array(value("sha512")?.as_bytes()).map(Digest).ok_or(Malformed("sha512"))?,
            red_zone: optional(value("red-zone")?, red_zone).ok_or(Malformed("red-zone"))?,
            images: list(value("images")?).ok_or(Malformed("images"))?,
            families: list(value("families")?).ok_or(Malformed("families"))?,
            revoked: match value("revoked")? {
                "no" => false,
                "yes" => true,
                _ => return Err(Malformed("revoked")),
            },
        })
    }
}

fn name(text: &str) -> Option<String> {
    is_name(text).then(|| text.to_string())
}

fn version(text: &str) -> Option<Version> {
    if text.len() <= MAX_WORD { Version::parse(text).ok() } else { None }
}

fn build_id(text: &str) -> Option<Vec<u8>> {
    if (1..=MAX_WORD).contains(&text.len()) { hex::octets(text) } else { None }
}

/// A value, or `none`.
fn optional<T>(text: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<Option<T>> {
    if text == "none" { Some(None) } else { parse(text).map(Some) }
}

fn red_zone(text: &str) -> Option<RedZone> {
    let mut words = text.split(' ');
    let address = u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()?;
    let function = match words.next() {
        None => None,
        Some(function) => Some(name(function)?),
    };
    words.next().is_none().then_some(RedZone { address, function })
}

/// Names in rising order, or `*` for an empty list.
fn list(text: &str) -> Option<Vec<String>> {
    if text == "*" {
        return Some(Vec::new());
    }
    let names: Vec<String> = text.split(' ').map(name).collect::<Option<_>>()?;
    (names.len() <= MAX_LIST && names.is_sorted_by(|one, next| one < next)).then_some(names)
}

/// The signed lines, except for the last.
impl fmt::Display for Description {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{TITLE}\nname {}\nversion {}", self.name, self.version)?;
        match &self.build_id {
            Some(octets) => writeln!(out, "build-id {}", Hex(octets))?,
            None => writeln!(out, "build-id none")?,
        }
        writeln!(out, "size {}\nsha512 {}", self.size, self.digest)?;
        match &self.red_zone {
            Some(RedZone { address, function: None }) => writeln!(out, "red-zone {address:#x}")?,
            Some(RedZone { address, function: Some(function) }) => writeln!(out, "red-zone {address:#x} {function}")?,
            None => writeln!(out, "red-zone none")?,
        }
        for (key, names) in [("images", &self.images), ("families", &self.families)] {
            if names.is_empty() {
                writeln!(out, "{key} *")?;
            } else {
                writeln!(out, "{key} {}", names.join(" "))?;
            }
        }
        writeln!(out, "revoked {}", if self.revoked { "yes" } else { "no" })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(out)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Digest({self})")
    }
}
