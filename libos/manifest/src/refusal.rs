//! Reasons for which a library may not be mapped.

use alloc::string::String;
use core::fmt;

use semver::Version;

use crate::description::RedZone;
use crate::key::PublicKey;

/// The line of a manifest, by its first word, that is missing or malformed; or `length`, `text` or
/// `form`, for the whole text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// The rule that does not hold; `Display` is one line that begins with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The image trusts no key. Its author is to blame.
    NoKeys,
    /// There is no manifest.
    Unsigned,
    /// The manifest is malformed.
    Malformed(Malformed),
    /// The signer is not one that the image trusts.
    UnknownSigner(PublicKey),
    /// The signature is not one of this text.
    NotSigned,
    /// The manifest is that of another library.
    OtherLibrary(String),
    /// The file is not the one in the manifest.
    OtherFile,
    /// Its signer has revoked it.
    Revoked(Version),
    /// The image requires another version.
    Version {
        /// The one that the manifest has.
        version: Version,
        /// The range that the image wants.
        wanted: String,
    },
    /// The image's requirement is no range of versions. Its author is to blame.
    NoRange(String),
    /// The image is not on the list of those that may map it.
    Image(String),
    /// The pVM's family is not on the list of those that may map it.
    Family(Option<String>),
    /// Xen's frames would overwrite its data in guest kernel mode.
    RedZone(RedZone),
}

impl fmt::Display for Malformed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "length" => out.write_str("the manifest is too long"),
            "text" => out.write_str("the manifest is no text"),
            "form" => out.write_str("the manifest is not in the one form that it can have"),
            line => write!(out, "the manifest's line `{line}` is not there, or not well formed"),
        }
    }
}

impl core::error::Error for Malformed {}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKeys => out.write_str("signature rule: the image trusts no key; name one with dl::trust!"),
            Self::Unsigned => out.write_str("signature rule: it has no manifest"),
            Self::Malformed(malformed) => write!(out, "signature rule: {malformed}"),
            Self::UnknownSigner(key) => write!(out, "signature rule: the key {key} is not trusted"),
            Self::NotSigned => out.write_str("signature rule: the manifest is not what its signer has signed"),
            Self::OtherLibrary(name) => write!(out, "signature rule: the manifest is that of {name}"),
            Self::OtherFile => out.write_str("signature rule: the file is not the one that was signed"),
            Self::Revoked(version) => write!(out, "version rule: {version} is revoked"),
            Self::Version { version, wanted } => write!(out, "version rule: it is {version}, wanted is {wanted}"),
            Self::NoRange(wanted) => {
                write!(out, "version rule: `{}` is no range of versions", wanted.escape_debug())
            }
            Self::Image(image) => write!(out, "loader rule: the image {} may not map it", image.escape_debug()),
            Self::Family(Some(family)) => {
                write!(out, "loader rule: the family {} may not map it", family.escape_debug())
            }
            Self::Family(None) => out.write_str("loader rule: a pVM of an unknown family may not map it"),
            Self::RedZone(RedZone { address, function }) => {
                write!(out, "loader rule: the code at {address:#x}")?;
                if let Some(function) = function {
                    write!(out, ", in `{function}`,")?;
                }
                out.write_str(" uses the red zone; build it with -mno-red-zone, or run the image in user mode")
            }
        }
    }
}

impl core::error::Error for Refusal {}
