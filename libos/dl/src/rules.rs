//! What the image asks of libraries. It is part of the image: who gives the libraries cannot give the rules.

use alloc::collections::BTreeMap;
use alloc::string::String;

use spin::Once;
use zooid_kernel::sync::Mutex;
use zooid_kernel::{thread, xenstore};
use zooid_manifest::{PublicKey, Refusal, Rules, SUFFIX};

use crate::source;

/// What [`trust!`](crate::trust) and [`require!`](crate::require) leave in the image.
#[derive(Debug)]
pub enum Rule {
    /// Who may vouch for libraries, and what the image is called.
    Trust { key: PublicKey, image: &'static str },
    /// Which versions of a library are wanted.
    Require { library: &'static str, versions: &'static str },
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
        Rule::Require { .. } => None,
    };
    all().iter().find_map(image).unwrap_or_default()
}

/// Names and files for which all rules hold: neither changes while this pVM lives, and the next opening is spared the digest.
static GOOD: Mutex<BTreeMap<String, &'static [u8]>> = Mutex::new(BTreeMap::new());

/// Whether the image may map this file under this name.
pub fn judge(name: &str, file: &'static [u8]) -> Result<(), Refusal> {
    let is_good = |good: &&'static [u8]| core::ptr::eq(*good, file);
    if GOOD.lock().get(name).is_some_and(is_good) {
        return Ok(());
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
        }
    }
    let manifest = source::find(&(String::from(name) + SUFFIX));
    rules.judge(name, file, manifest)?;
    GOOD.lock().insert(name.into(), file);
    Ok(())
}
