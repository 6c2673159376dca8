//! The guest images that are built, with the configuration that each is started by.

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

/// The stems of `dir`'s entries that `wanted` picks, in order; none when there is no such directory.
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
