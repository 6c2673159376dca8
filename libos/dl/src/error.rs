//! Errors.

use alloc::string::String;
use core::fmt;

use zooid_loader::Refusal;
use zooid_manifest::Refusal as RuleRefusal;

/// The reason for which a library was not opened, or a symbol of it not found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// There is no file of this name.
    NotFound(String),
    /// The file, or an object that it needs, cannot be loaded.
    Refused {
        /// Its name.
        object: String,
        /// The reason.
        refusal: Refusal,
    },
    /// The library may not be mapped, by one of the rules.
    Forbidden {
        /// Its name.
        object: String,
        /// The rule, and the reason.
        rule: RuleRefusal,
    },
    /// The host has the library, but gives this pVM none of its versions. `pvm events` names the
    /// rule there.
    Withheld(String),
    /// No frames, or no addresses, are left.
    OutOfMemory,
    /// There is no such symbol.
    NoSymbol(String),
    /// No library is open with this number, or this name.
    NotOpen,
    /// The image does not declare the library with `live!`.
    NotLive(String),
    /// There is no such version of it.
    NoVersion {
        /// The library's name.
        object: String,
        /// The version asked for, if it was not the newest.
        version: Option<String>,
    },
    /// Other threads were in the middle of the old version, or of a section that uses it, until the
    /// time limit.
    TimeLimit(String),
    /// `migrate` of the new version returned an error.
    Migration {
        /// The library's name.
        object: String,
        /// Its error number, not 0.
        code: i32,
    },
    /// The calling thread is itself in the middle of loading or replacing a library.
    Busy,
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(name) => {
                write!(
                    out,
                    "{name}: there is no such library: is it in the archive that ramdisk= names, or in the host's store (`pvm lib list`)?"
                )
            }
            Self::Withheld(name) => {
                write!(out, "{name}: the host's rules do not allow it: `pvm events` in dom0 says which")
            }
            Self::Refused { object, refusal } => write!(out, "{object}: {refusal}"),
            Self::Forbidden { object, rule } => write!(out, "{object}: {rule}"),
            Self::OutOfMemory => out.write_str("not enough memory for a library"),
            Self::NoSymbol(name) => write!(out, "undefined symbol: {name}"),
            Self::NotOpen => out.write_str("no such library is open"),
            Self::NotLive(name) => {
                write!(out, "{name}: the image does not let it be replaced: it needs live!({name:?})")
            }
            Self::NoVersion { object, version: Some(version) } => {
                write!(out, "{object}: there is no version {version}")
            }
            Self::NoVersion { object, version: None } => write!(out, "{object}: there is no version"),
            Self::TimeLimit(name) => write!(out, "{name}: time limit: threads did not leave the old version"),
            Self::Migration { object, code } => write!(out, "{object}: migrate of the new version returned {code}"),
            Self::Busy => out.write_str("not while a library is loaded or replaced by the same thread"),
        }
    }
}

impl core::error::Error for Error {}
