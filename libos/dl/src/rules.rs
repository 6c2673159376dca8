//! What the image asks of libraries. It is part of the image: who gives the libraries cannot give the rules.

use alloc::string::String;

use spin::Once;
use zooid_kernel::{thread, xenstore};
use zooid_manifest::{Description, PublicKey, Refusal, Rules};

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

/// Whether a library may be replaced while it is open.
pub fn is_live(name: &str) -> bool {
    all().iter().any(|rule| matches!(rule, Rule::Live { library } if *library == name))
}

/// Whether the image may map this file, with this manifest, under this name; what is said of it.
pub fn judge(name: &str, file: &[u8], manifest: Option<&[u8]>) -> Result<Description, Refusal> {
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
    rules.judge(name, file, manifest).map(|manifest| manifest.description)
}
