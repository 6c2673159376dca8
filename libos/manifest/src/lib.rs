//! Who vouches for a library, and who may map it: `docs/libraries.md` has the format and the rules.
//!
//! * [`Description`]: what is said of a library. [`Description::sign`] makes a manifest of it.
//! * [`Manifest`]: the signed text that lies beside the library as `NAME.manifest`. There is one form of it: a text that is
//!   read is the text that would be written.
//! * [`Rules`]: what an image, or the store in dom0, asks of a library. [`Rules::judge`] decides.
//! * [`Refusal`]: the rule that does not hold, in one line.
//!
//! Nothing here opens files or maps pages: guests and dom0's tools use the same judgement.

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
