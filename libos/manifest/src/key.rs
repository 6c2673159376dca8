//! Ed25519 keys (RFC 8032), and the files that hold them: 64 hexadecimal digits and a line feed.

use core::fmt;

use ed25519_compact::{KeyPair, Seed, Signature};

use crate::hex::{self, Hex};

/// What signatures are checked with; known to all.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

/// What signs; known to its owner.
pub struct SecretKey(KeyPair);

impl PublicKey {
    /// Of the content of a key file. `const`, so that a wrong file stops the build of an image.
    pub const fn parse(file: &[u8]) -> Option<Self> {
        let digits = match file {
            [digits @ .., b'\n'] => digits,
            digits => digits,
        };
        match hex::array(digits) {
            Some(octets) => Some(Self(octets)),
            None => None,
        }
    }

    pub(crate) fn from_octets(octets: [u8; 32]) -> Self {
        Self(octets)
    }

    /// Whether the owner of the key has signed these octets. The group's small part is ignored (RFC 8032, 5.1.7): a key is
    /// one that somebody chose to trust.
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
    /// From 32 octets that nobody can guess.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(KeyPair::from_seed(Seed::new(seed)))
    }

    /// Of the content of a key file, which is the seed.
    pub fn parse(file: &[u8]) -> Option<Self> {
        PublicKey::parse(file).map(|key| Self::from_seed(key.0))
    }

    /// The key that checks what this one signs.
    pub fn public(&self) -> PublicKey {
        PublicKey(*self.0.pk)
    }

    pub(crate) fn sign(&self, octets: &[u8]) -> [u8; 64] {
        *self.0.sk.sign(octets, None)
    }
}

/// Not the secret.
impl fmt::Debug for SecretKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "SecretKey(of {})", self.public())
    }
}
