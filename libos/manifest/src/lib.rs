//! Signatures of libraries, and the rules by which they may be mapped. `docs/libraries.md` has the
//! format and the rules.
//!
//! * [`Description`]: the facts about a library. [`Description::sign`] makes a manifest of it.
//! * [`Manifest`]: the signed text that lies beside the library as `NAME.manifest`. It has one
//!   form: a text is accepted only if it is the text that would be written.
//! * [`Rules`]: the demands of an image, or of the store in dom0, on a library. [`Rules::judge`]
//!   decides.
//! * [`Refusal`]: the rule that does not hold, in one line.
//!
//! Nothing here opens files or maps pages; guests and dom0's tools use the same judgement.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod description;
mod hex;
mod key;
mod manifest;
mod refusal;
mod rules;
#[cfg(test)]
mod tests;

pub use description::{Description, Digest, Hasher, RedZone, is_name};
pub use key::{PublicKey, SecretKey};
pub use manifest::{MAX_OCTETS, Manifest, SUFFIX};
pub use refusal::{Malformed, Refusal};
pub use rules::Rules;
pub use semver::{Version, VersionReq};
