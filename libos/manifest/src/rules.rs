//! The rules that a library must meet before it is mapped.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use semver::VersionReq;

use crate::key::PublicKey;
use crate::manifest::Manifest;
use crate::refusal::Refusal;

/// The demands of an image on a library.
#[derive(Clone, Debug, Default)]
pub struct Rules<'a> {
    /// The keys that may sign a library.
    pub keys: Vec<PublicKey>,
    /// The image that is to map it.
    pub image: &'a str,
    /// The family of the pVM that is to map it, by its root's name.
    pub family: Option<&'a str>,
    /// Libraries with the ranges of their versions. If a library has several ranges, all must hold.
    pub versions: Vec<(&'a str, &'a str)>,
    /// True if it is to run in guest user mode, where Xen's frames touch no red zone.
    pub user_mode: bool,
}

impl Rules<'_> {
    /// Checks that the file may be mapped under this name, by the signature rule, the version rule
    /// and the loader rule. Returns the manifest's contents.
    ///
    /// # Errors
    /// The first rule that does not hold.
    pub fn judge(&self, name: &str, file: &[u8], manifest: Option<&[u8]>) -> Result<Manifest, Refusal> {
        if self.keys.is_empty() {
            return Err(Refusal::NoKeys);
        }
        let manifest = Manifest::parse(manifest.ok_or(Refusal::Unsigned)?).map_err(Refusal::Malformed)?;
        manifest.vouches(&self.keys, name, file)?;
        self.admits(name, &manifest)?;
        Ok(manifest)
    }

    /// As [`judge`](Self::judge), for a caller without the file: checks that a file that matches
    /// the manifest may be mapped.
    ///
    /// # Errors
    /// The first rule that does not hold.
    pub fn judge_manifest(&self, name: &str, manifest: &Manifest) -> Result<(), Refusal> {
        manifest.is_signed(&self.keys, name)?;
        self.admits(name, manifest)
    }

    /// The version rule and the loader rule.
    fn admits(&self, name: &str, manifest: &Manifest) -> Result<(), Refusal> {
        let said = &manifest.description;
        if said.revoked {
            return Err(Refusal::Revoked(said.version.clone()));
        }
        for (_, wanted) in self.versions.iter().filter(|(library, _)| *library == name) {
            let range = VersionReq::parse(wanted).map_err(|_| Refusal::NoRange(wanted.to_string()))?;
            if !range.matches(&said.version) {
                return Err(Refusal::Version { version: said.version.clone(), wanted: wanted.to_string() });
            }
        }
        if !admits(&said.images, Some(self.image)) {
            return Err(Refusal::Image(self.image.to_string()));
        }
        if !admits(&said.families, self.family) {
            return Err(Refusal::Family(self.family.map(ToString::to_string)));
        }
        match &said.red_zone {
            Some(place) if !self.user_mode => Err(Refusal::RedZone(place.clone())),
            _ => Ok(()),
        }
    }
}

fn admits(list: &[String], who: Option<&str>) -> bool {
    list.is_empty() || who.is_some_and(|who| list.iter().any(|name| name == who))
}
