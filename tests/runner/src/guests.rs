//! The built guest images, each with the configuration that it is started with.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::layout;

/// One image that dom0 gets as `/opt/zooid/guests/NAME`, with `NAME.cfg` beside it.
pub struct Guest {
    pub name: String,
    pub image: PathBuf,
    pub config: String,
}

/// Every example and every test guest whose image is built.
pub fn built() -> Result<Vec<Guest>> {
    let mut guests = Vec::new();
    for name in names_in(&layout::top().join("examples"), |path| path.is_dir())? {
        let config = layout::top().join(format!("examples/{name}/{name}.cfg"));
        guests.extend(guest(name, &config)?);
    }
    for name in test_names()? {
        let config = layout::top().join(format!("tests/guests/{name}.cfg"));
        guests.extend(guest(name, &config)?);
    }
    Ok(guests)
}

/// The names of the test guests, built or not.
pub fn test_names() -> Result<Vec<String>> {
    names_in(&layout::top().join("tests/guests/src/bin"), |path| path.extension().is_some_and(|end| end == "rs"))
}

/// The stems of `dir`'s entries that `wanted` picks, in order; none when there is no such
/// directory.
pub fn names_in(dir: &Path, wanted: impl Fn(&Path) -> bool) -> Result<Vec<String>> {
    let mut names = Vec::new();
    if dir.exists() {
        for entry in std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
            let path = entry?.path();
            if let (true, Some(stem)) = (wanted(&path), path.file_stem().and_then(|stem| stem.to_str())) {
                names.push(stem.to_owned());
            }
        }
    }
    names.sort();
    Ok(names)
}

fn guest(name: String, config: &Path) -> Result<Option<Guest>> {
    let image = layout::top().join("target/x86_64-xen-pv/release").join(&name);
    if !image.exists() {
        return Ok(None);
    }
    let config = if config.exists() {
        std::fs::read_to_string(config).with_context(|| format!("cannot read {}", config.display()))?
    } else {
        format!("name = \"{name}\"\nkernel = \"/opt/zooid/guests/{name}\"\nmemory = 16\n")
    };
    Ok(Some(Guest { name, image, config }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// True if the image `name` has a symbol that names one of these crates.
    fn has(name: &str, crates: &[&str]) -> bool {
        let guests = built().unwrap();
        let guest = guests.iter().find(|guest| guest.name == name).expect("the images are built: run 'make build'");
        let output = std::process::Command::new("nm").arg("--demangle").arg(&guest.image).output().unwrap();
        let symbols = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && symbols.contains("zooid_boot"), "{name} has its symbols");
        crates.iter().any(|part| symbols.contains(part))
    }

    #[test]
    fn an_image_carries_the_network_only_when_it_uses_it() {
        for (name, uses) in [("hello", false), ("echo", true), ("httpd", true)] {
            assert_eq!(has(name, &["smoltcp::", "zooid_net::", "zooid::net::"]), uses, "{name}");
        }
    }

    #[test]
    fn an_image_carries_the_loader_only_when_it_uses_it() {
        for (name, uses) in [("hello", false), ("httpd", false), ("libraries", true)] {
            assert_eq!(has(name, &["zooid_dl::", "zooid_loader::", "zooid_manifest::"]), uses, "{name}");
        }
    }
}
