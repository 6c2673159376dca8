//! Ed25519 keys (RFC 8032), and the files that hold them: a word for the kind of key, a blank, 64
//! hexadecimal digits and a line feed. Files of earlier versions have the digits only.

use alloc::format;
use alloc::string::String;
use core::fmt;

use ed25519_compact::{KeyPair, Seed, Signature};

use crate::hex::{self, Hex};

/// The words of the two kinds, with the blank.
const PUBLIC: &str = "zooid-public-key ";
const SECRET: &str = "zooid-secret-key ";

/// The public key, by which signatures are checked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

/// The secret key, which makes signatures and is known to its owner only.
pub struct SecretKey(KeyPair);

impl PublicKey {
    /// The key in the content of a key file. A file that says that it holds a secret key is none. It
    /// is `const`, so that a wrong file stops the build of an image.
    pub const fn parse(file: &[u8]) -> Option<Self> {
        match octets(file, PUBLIC.as_bytes()) {
            Some(octets) => Some(Self(octets)),
            None => None,
        }
    }

    /// The content of its key file.
    pub fn to_file(&self) -> String {
        format!("{PUBLIC}{self}\n")
    }

    pub(crate) fn from_octets(octets: [u8; 32]) -> Self {
        Self(octets)
    }

    /// True if the owner of the key has signed these octets. The group's small part is ignored (RFC
    /// 8032, 5.1.7), because a key is trusted by choice.
    pub(crate) fn has_signed(&self, octets: &[u8], signature: &[u8; 64]) -> bool {
        ed25519_compact::PublicKey::new(self.0).verify(octets, &Signature::new(*signature)).is_ok()
    }
}

/// The digits.
impl fmt::Display for PublicKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(out)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "PublicKey({self})")
    }
}

impl SecretKey {
    /// The key from a seed of 32 octets, which must be unpredictable.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(KeyPair::from_seed(Seed::new(seed)))
    }

    /// The key in the content of a key file, which is the seed. A file that says that it holds a
    /// public key is none.
    pub fn parse(file: &[u8]) -> Option<Self> {
        octets(file, SECRET.as_bytes()).map(Self::from_seed)
    }

    /// The content of the key file for a seed.
    pub fn file_of(seed: [u8; 32]) -> String {
        format!("{SECRET}{}\n", Hex(&seed))
    }

    /// The public key for signatures of this one.
    pub fn public(&self) -> PublicKey {
        PublicKey(*self.0.pk)
    }

    pub(crate) fn sign(&self, octets: &[u8]) -> [u8; 64] {
        *self.0.sk.sign(octets, None)
    }
}

/// Hides the secret.
impl fmt::Debug for SecretKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "SecretKey(of {})", self.public())
    }
}

/// The octets in the content of a key file, which may begin with the word of its kind.
const fn octets(file: &[u8], word: &[u8]) -> Option<[u8; 32]> {
    let line = match file {
        [line @ .., b'\n'] => line,
        line => line,
    };
    let digits = match line.split_at_checked(word.len()) {
        Some((start, digits)) if is_same(start, word) => digits,
        _ => line,
    };
    hex::array(digits)
}

/// True if two texts of one length are the same.
const fn is_same(one: &[u8], other: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}
