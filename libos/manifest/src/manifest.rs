//! The signed text.

use alloc::string::{String, ToString};
use core::fmt;

use crate::description::{Description, Digest};
use crate::hex::{self, Hex};
use crate::key::{PublicKey, SecretKey};
use crate::refusal::{Malformed, Refusal};

/// Longest manifest, in octets.
pub const MAX_OCTETS: usize = 8192;
/// The suffix that makes a library's name the name of its manifest.
pub const SUFFIX: &str = ".manifest";

/// A description and its signer. A value proves only that it is well formed, not that the signature
/// is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The description.
    pub description: Description,
    /// The key of the claimed signature.
    pub signer: PublicKey,
    signature: [u8; 64],
}

impl Description {
    /// The signed manifest of this description.
    ///
    /// # Errors
    /// The description cannot be written: it has a name with a blank, or a list that is too long.
    pub fn sign(&self, key: &SecretKey) -> Result<Manifest, Malformed> {
        let signer = key.public();
        let manifest =
            Manifest { signature: key.sign(signed(self, &signer).as_bytes()), description: self.clone(), signer };
        let read = Manifest::parse(manifest.to_string().as_bytes())?;
        // A name with a line feed could read as other lines.
        if read == manifest { Ok(read) } else { Err(Malformed("form")) }
    }
}

impl Manifest {
    /// Reads a text, which must be exactly the one that would be written.
    ///
    /// # Errors
    /// The first wrong line.
    pub fn parse(octets: &[u8]) -> Result<Self, Malformed> {
        if octets.len() > MAX_OCTETS {
            return Err(Malformed("length"));
        }
        let text = core::str::from_utf8(octets).map_err(|_| Malformed("text"))?;
        let mut lines = text.split('\n');
        let description = Description::parse(&mut lines)?;
        let mut digits = |key: &'static str| {
            let line = lines.next().unwrap_or_default();
            line.strip_prefix(key).and_then(|rest| rest.strip_prefix(' ')).map(str::as_bytes).ok_or(Malformed(key))
        };
        let signer = hex::array::<32>(digits("signer")?).ok_or(Malformed("signer"))?;
        let signer = PublicKey::from_octets(signer);
        let signature = hex::array(digits("signature")?).ok_or(Malformed("signature"))?;
        let manifest = Self { description, signer, signature };
        // This refuses other forms of a number, more blanks, and more lines.
        if manifest.to_string() == text { Ok(manifest) } else { Err(Malformed("form")) }
    }

    /// Checks that one of these keys has signed this file under this name.
    ///
    /// # Errors
    /// The part of the signature rule that does not hold.
    pub fn vouches(&self, keys: &[PublicKey], name: &str, file: &[u8]) -> Result<(), Refusal> {
        self.is_signed(keys, name)?;
        if self.description.size != file.len() as u64 || self.description.digest != Digest::of(file) {
            return Err(Refusal::OtherFile);
        }
        Ok(())
    }

    /// Checks that one of these keys has signed this description of a library of this name: the
    /// signature rule without the file.
    ///
    /// # Errors
    /// The part of the signature rule that does not hold.
    pub fn is_signed(&self, keys: &[PublicKey], name: &str) -> Result<(), Refusal> {
        if !keys.contains(&self.signer) {
            return Err(Refusal::UnknownSigner(self.signer));
        }
        if !self.signer.has_signed(signed(&self.description, &self.signer).as_bytes(), &self.signature) {
            return Err(Refusal::NotSigned);
        }
        if self.description.name != name {
            return Err(Refusal::OtherLibrary(self.description.name.clone()));
        }
        Ok(())
    }
}

/// The octets that are signed: all lines but the signature's.
fn signed(description: &Description, signer: &PublicKey) -> String {
    description.to_string() + "signer " + &signer.to_string() + "\n"
}

/// The file.
impl fmt::Display for Manifest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}signer {}\nsignature {}", self.description, self.signer, Hex(&self.signature))
    }
}
