//! The image's rules for libraries. They are part of the image, so that a supplier of libraries
//! cannot set them.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use spin::Once;
use zooid_fork::libraries::MAX_TEXT;
use zooid_kernel::sync::Mutex;
use zooid_kernel::{thread, xenstore};
use zooid_manifest::{PublicKey, Rules, Version};

use crate::Error;
use crate::source::File;

/// An entry that [`trust!`](crate::trust), [`require!`](crate::require) or
/// [`live!`](macro@crate::live) leaves in the image.
#[derive(Debug)]
pub enum Rule {
    /// A key whose owner may sign libraries, and the name of the image.
    Trust {
        /// The key itself.
        key: PublicKey,
        /// The name of the image.
        image: &'static str,
    },
    /// The wanted versions of a library.
    Require {
        /// The name of the library.
        library: &'static str,
        /// A range as in `Cargo.toml`.
        versions: &'static str,
    },
    /// A library that may be replaced while it is open.
    Live {
        /// The name of the library.
        library: &'static str,
    },
}

impl Rule {
    /// The key in the content of a key file, read when the image is built.
    #[doc(hidden)]
    pub const fn trust(file: &[u8], image: &'static str) -> Self {
        match PublicKey::parse(file) {
            Some(key) => Self::Trust { key, image },
            None => panic!("trust! needs a file that `pvm key generate` has made: NAME.pub"),
        }
    }
}

/// Lets the image map libraries that the owner of a key has signed. `key` is the content of a
/// `.pub` file of `pvm key generate`. It is used in the image's main file.
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

/// Lets a library be replaced by another version while it is open ([`update`](crate::update)).
/// References from outside to functions of such a library are calls by way of a word of memory.
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
    // SAFETY: between them is the section `.zooid.libraries` (linker.ld), which holds nothing but
    // values of `rule!`.
    unsafe { core::slice::from_raw_parts(start.cast(), (end.addr() - start.addr()) / size_of::<Rule>()) }
}

/// The name of the family's root.
static FAMILY: Once<Option<String>> = Once::new();

/// Runs at boot, in the root: a child belongs to the family of its parent.
pub fn init() {
    FAMILY.call_once(|| xenstore::read("name").ok());
}

/// True if any library may be replaced.
pub fn has_live() -> bool {
    all().iter().any(|rule| matches!(rule, Rule::Live { .. }))
}

/// True if a library may be replaced while it is open.
pub fn is_live(name: &str) -> bool {
    all().iter().any(|rule| matches!(rule, Rule::Live { library } if *library == name))
}

/// True if objects run in guest user mode.
pub fn is_user_mode() -> bool {
    thread::MODE.get().is_some()
}

/// The name of the image, if it trusts a key.
pub fn image() -> &'static str {
    let name = |rule: &Rule| match *rule {
        Rule::Trust { image, .. } => Some(image),
        Rule::Require { .. } | Rule::Live { .. } => None,
    };
    all().iter().find_map(name).unwrap_or_default()
}

/// The request to pvmd for a wanted version (docs/protocols/libraries.md). pvmd's answer is checked
/// in any case, so ranges without room may be left out.
pub fn wanted(name: &str, version: Option<&Version>) -> String {
    let mut text = String::from(name);
    if let Some(version) = version {
        text += &format!("@{version}");
    }
    text = text + "\n" + image();
    for rule in all() {
        if let Rule::Require { library, versions } = *rule
            && library == name
            && text.len() + 1 + versions.len() <= MAX_TEXT
        {
            text = text + "\n" + versions;
        }
    }
    text
}

/// Number of files of one name that are remembered. Each stays mapped.
const REMEMBERED: usize = 4;

/// Files for which all rules hold under a name, and their versions, the latest last. A remembered
/// file does not change, so the next opening needs no digest.
static GOOD: Mutex<BTreeMap<String, Vec<(File, Version)>>> = Mutex::new(BTreeMap::new());

/// Checks that the image may map this file under this name; returns its version.
pub fn judge(name: &str, file: &File) -> Result<Version, Error> {
    if let Some((_, version)) = GOOD.lock().get(name).and_then(|known| known.iter().find(|(good, _)| good.is(file))) {
        return Ok(version.clone());
    }
    let mut rules =
        Rules { family: FAMILY.get().and_then(Option::as_deref), user_mode: is_user_mode(), ..Rules::default() };
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
    let forbidden = |rule| Error::Forbidden { object: name.into(), rule };
    let version = rules.judge(name, file.as_ref(), file.manifest()).map_err(forbidden)?.description.version;
    let mut good = GOOD.lock();
    let known = good.entry(name.into()).or_default();
    let oldest = (known.len() == REMEMBERED).then(|| known.remove(0));
    known.push((file.clone(), version.clone()));
    drop(good);
    // The drop gives the file back to the store.
    drop(oldest);
    Ok(version)
}
