//! What the image asks of libraries. It is part of the image: who gives the libraries cannot give the rules.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use spin::Once;
use zooid_kernel::sync::Mutex;
use zooid_kernel::{thread, xenstore};
use zooid_manifest::{PublicKey, Refusal, Rules, Version};

/// What [`trust!`](crate::trust), [`require!`](crate::require) and [`live!`](crate::live) leave in the image.
#[derive(Debug)]
pub enum Rule {
    /// Who may vouch for libraries, and what the image is called.
    Trust { key: PublicKey, image: &'static str },
    /// Which versions of a library are wanted.
    Require { library: &'static str, versions: &'static str },
    /// Which library may be replaced while it is open.
    Live { library: &'static str },
}

impl Rule {
    /// Of the content of a key file, when the image is built.
    #[doc(hidden)]
    pub const fn trust(file: &[u8], image: &'static str) -> Self {
        match PublicKey::parse(file) {
            Some(key) => Self::Trust { key, image },
            None => panic!("trust! needs a file that `pvm key generate` has made: NAME.pub"),
        }
    }
}

/// Lets the image map libraries that the owner of a key vouches for: the content of a `.pub` file of `pvm key generate`. For the
/// image's main file.
#[macro_export]
macro_rules! trust {
    ($file:expr) => {
        $crate::rule! { $crate::Rule::trust($file, env!("CARGO_BIN_NAME")) }
    };
}

/// Lets the image map a library only in versions of a range, written as in `Cargo.toml`.
#[macro_export]
macro_rules! require {
    ($library:literal, $versions:literal) => {
        $crate::rule! { $crate::Rule::Require { library: $library, versions: $versions } }
    };
}

/// Lets a library be replaced by another version while it is open ([`update`](crate::update)). References to its functions from outside, of a library that
/// is named so, are calls by way of a word of memory.
#[macro_export]
macro_rules! live {
    ($library:literal) => {
        $crate::rule! { $crate::Rule::Live { library: $library } }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! rule {
    ($rule:expr) => {
        const _: () = {
            #[used]
            // SAFETY: the section is an array of `Rule`.
            #[unsafe(link_section = ".zooid.libraries")]
            static RULE: $crate::Rule = $rule;
        };
    };
}

unsafe extern "C" {
    static __rules_start: u8;
    static __rules_end: u8;
}

fn all() -> &'static [Rule] {
    let (start, end) = (&raw const __rules_start, &raw const __rules_end);
    // SAFETY: between them is the section `.zooid.libraries` (linker.ld), which holds nothing but values of `rule!`.
    unsafe { core::slice::from_raw_parts(start.cast(), (end.addr() - start.addr()) / size_of::<Rule>()) }
}

/// The name of the family's root.
static FAMILY: Once<Option<String>> = Once::new();

/// Runs at boot, in the root: a child is of the family of its parent.
pub fn init() {
    FAMILY.call_once(|| xenstore::read("name").ok());
}

/// What the image is called, if it trusts anybody.
pub fn image() -> &'static str {
    let image = |rule: &Rule| match *rule {
        Rule::Trust { image, .. } => Some(image),
        Rule::Require { .. } | Rule::Live { .. } => None,
    };
    all().iter().find_map(image).unwrap_or_default()
}

/// Whether a library may be replaced while it is open.
pub fn is_live(name: &str) -> bool {
    all().iter().any(|rule| matches!(rule, Rule::Live { library } if *library == name))
}

/// A file and its manifest for which all rules hold, and its version. Neither changes while this pVM lives, and the next opening is spared the digest.
struct Good {
    file: &'static [u8],
    manifest: &'static [u8],
    version: Version,
}

/// By name.
static GOOD: Mutex<BTreeMap<String, Vec<Good>>> = Mutex::new(BTreeMap::new());

/// Whether the image may map this file, with this manifest, under this name; its version.
pub fn judge(name: &str, file: &'static [u8], manifest: Option<&'static [u8]>) -> Result<Version, Refusal> {
    let is_this = |good: &&Good| {
        core::ptr::eq(good.file, file) && manifest.is_some_and(|manifest| core::ptr::eq(good.manifest, manifest))
    };
    if let Some(good) = GOOD.lock().get(name).and_then(|known| known.iter().find(is_this)) {
        return Ok(good.version.clone());
    }
    let mut rules = Rules {
        family: FAMILY.get().and_then(Option::as_deref),
        user_mode: thread::MODE.get().is_some(),
        ..Rules::default()
    };
    for rule in all() {
        match *rule {
            Rule::Trust { key, image } => {
                rules.keys.push(key);
                rules.image = image;
            }
            Rule::Require { library, versions } => rules.versions.push((library, versions)),
            Rule::Live { .. } => {}
        }
    }
    let version = rules.judge(name, file, manifest)?.description.version;
    if let Some(manifest) = manifest {
        let good = Good { file, manifest, version: version.clone() };
        GOOD.lock().entry(name.into()).or_default().push(good);
    }
    Ok(version)
}
