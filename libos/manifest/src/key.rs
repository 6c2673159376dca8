//! Ed25519 keys (RFC 8032), and the files that hold them: 64 hexadecimal digits and a line feed.

use core::fmt;

use ed25519_compact::{KeyPair, Seed, Signature};

use crate::hex::{self, Hex};

/// The public key, by which signatures are checked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

/// The secret key, which makes signatures and is known to its owner only.
pub struct SecretKey(KeyPair);

impl PublicKey {
    /// The key in the content of a key file. It is `const`, so that a wrong file stops the build of
    /// an image.
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

    /// The key in the content of a key file, which is the seed.
    pub fn parse(file: &[u8]) -> Option<Self> {
        PublicKey::parse(file).map(|key| Self::from_seed(key.0))
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
