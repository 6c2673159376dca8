//! The payload that a run brings into dom0: one tar stream, unpacked over `/` there.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use tar::{Archive, Builder, EntryType, Header};
use zooid_manifest::SUFFIX;

use crate::guests::{self, Guest};
use crate::layout;
use crate::machine::DISK_BYTES;
use crate::options::BadArgument;
use crate::signing;

/// Programs of this project that run in dom0.
const TOOLS: [&str; 2] = ["answers", "census"];

/// The program that `build.rs` has made of `tests/posix`.
const POSIX: &str = concat!(env!("OUT_DIR"), "/posix");
/// The archive that it has made of `tests/libraries`.
const LIBRARIES: &str = concat!(env!("OUT_DIR"), "/libraries.tar");
const DAMAGED: &str = concat!(env!("OUT_DIR"), "/damaged.tar");
const DAMAGED_LINES: &str = concat!(env!("OUT_DIR"), "/damaged.txt");

/// A payload being written to the disk that dom0 reads.
pub struct Payload {
    builder: Builder<File>,
}

impl Payload {
    /// Starts a payload on the disk image `disk`.
    pub fn create(disk: &Path) -> Result<Self> {
        let file = File::options().write(true).open(disk).context("cannot open the payload's disk")?;
        let mut builder = Builder::new(file);
        // Busybox's tar knows no sparse entries.
        builder.sparse(false);
        Ok(Payload { builder })
    }

    /// Adds `text` as the executable file `path`.
    pub fn add_text(&mut self, path: &str, text: &[u8]) -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o755);
        self.builder.append_data(&mut header, path, text).context("cannot write the payload")
    }

    /// Adds the host's file `source` as `path`.
    pub fn add_file(&mut self, path: &str, source: &Path) -> Result<()> {
        self.builder
            .append_path_with_name(source, path)
            .with_context(|| format!("cannot take {} along", source.display()))
    }

    /// Adds the files of the host's directory `source` below `path`.
    pub fn add_directory(&mut self, path: &str, source: &Path) -> Result<()> {
        self.builder.append_dir_all(path, source).with_context(|| format!("cannot take {} along", source.display()))
    }

    /// Adds the built programs: guests below `/opt/zooid/guests`, each with its configuration, and
    /// dom0's tools.
    pub fn add_built(&mut self) -> Result<()> {
        for guest in guests::built()? {
            self.add_guest(&guest)?;
        }
        for tool in TOOLS {
            self.add_file(&format!("usr/bin/{tool}"), &layout::top().join("target/dom0").join(tool))?;
        }
        self.add_file("run/zooid/libraries.tar", Path::new(LIBRARIES))?;
        self.add_file("run/zooid/damaged.tar", Path::new(DAMAGED))?;
        self.add_file("run/zooid/damaged.txt", Path::new(DAMAGED_LINES))?;
        let libraries = layout::top().join("build/libraries");
        // Nothing but the tests needs them, so `make run` does not build them.
        if libraries.is_dir() {
            self.add_real_libraries(&libraries)?;
        }
        self.add_file("run/zooid/posix", Path::new(POSIX))
    }

    /// Adds the results of tests/libraries/real/setup: programs for dom0, and an archive of signed
    /// libraries for the guest of each.
    fn add_real_libraries(&mut self, built: &Path) -> Result<()> {
        self.add_directory("run/zooid/real", &built.join("payload"))?;
        self.add_archives("run/zooid/real", &built.join("guest"))?;
        self.add_archives("run/zooid/real/unmodified", &built.join("unmodified"))
    }

    /// Adds an archive of each folder in `folders`, of libraries and their manifests.
    fn add_archives(&mut self, path: &str, folders: &Path) -> Result<()> {
        let key = signing::key();
        for folder in files(folders)? {
            let mut archive = Builder::new(Vec::new());
            for library in files(&folder)? {
                let name = file_name(&library);
                let file = std::fs::read(&library)?;
                let manifest = signing::manifest(name, &file, &key, |_| ());
                for (name, octets) in [(name.to_owned(), &*file), (format!("{name}{SUFFIX}"), manifest.as_bytes())] {
                    let mut header = Header::new_gnu();
                    header.set_size(octets.len() as u64);
                    header.set_mode(0o644);
                    archive.append_data(&mut header, name, octets)?;
                }
            }
            self.add_text(&format!("{path}/{}.tar", file_name(&folder)), &archive.into_inner()?)?;
        }
        Ok(())
    }

    fn add_guest(&mut self, guest: &Guest) -> Result<()> {
        self.add_file(&format!("opt/zooid/guests/{}", guest.name), &guest.image)?;
        self.add_text(&format!("opt/zooid/guests/{}.cfg", guest.name), guest.config.as_bytes())
    }

    /// Adds one of FILES: a `.tar` or `.deb` over `/`, anything else to `/root`.
    pub fn add_user_file(&mut self, source: &Path) -> Result<()> {
        let Some(name) = source.file_name() else {
            bail!(BadArgument(format!("FILES: {} has no name: name a file", source.display())));
        };
        let unusable = || BadArgument(format!("FILES: {} cannot be unpacked: is it whole?", source.display()));
        match source.extension().and_then(|extension| extension.to_str()) {
            Some("tar") => self.add_archive(File::open(source)?).with_context(unusable),
            Some("deb") => {
                let mut unpack = Command::new("dpkg-deb")
                    .arg("--fsys-tarfile")
                    .arg(source)
                    .stdout(Stdio::piped())
                    .stderr(Stdio::null())
                    .spawn()
                    .context("cannot start dpkg-deb")?;
                let stream = unpack.stdout.take().context("dpkg-deb's output")?;
                let added = self.add_archive(stream);
                let whole = unpack.wait()?.success();
                added.with_context(unusable)?;
                if whole { Ok(()) } else { bail!(unusable()) }
            }
            _ if source.is_dir() => {
                self.builder.append_dir_all(Path::new("root").join(name), source).with_context(unusable)
            }
            _ => self.add_file(&format!("root/{}", name.to_string_lossy()), source),
        }
    }

    /// Ends the stream, and returns its length in octets.
    pub fn finish(self) -> Result<u64> {
        let mut file = self.builder.into_inner().context("cannot write the payload: is the disk full?")?;
        let length = file.stream_position()?;
        if length > DISK_BYTES {
            let (length, most) = (length >> 20, DISK_BYTES >> 20);
            bail!(BadArgument(format!("FILES: {length} MiB do not fit: at most {most} MiB travel into dom0")));
        }
        Ok(length)
    }

    fn add_archive(&mut self, stream: impl Read) -> Result<()> {
        let mut archive = Archive::new(stream);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = merged_path(&entry.path()?);
            if path.as_os_str().is_empty() || is_merged_dir(&path) {
                continue;
            }
            let mut header = entry.header().clone();
            match (header.entry_type(), entry.link_name()?) {
                (EntryType::Link, Some(target)) => {
                    self.builder.append_link(&mut header, path, merged_path(&target))?;
                }
                (EntryType::Symlink, Some(target)) => self.builder.append_link(&mut header, path, target)?,
                _ => self.builder.append_data(&mut header, path, &mut entry)?,
            }
        }
        Ok(())
    }
}

/// The content of a folder, in the order of the names.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// Directories that Debian packages still name at the top and that are links to below `usr` in
/// dom0.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// `path` made relative, and below `usr` if dom0 has it there.
fn merged_path(path: &Path) -> PathBuf {
    let plain: PathBuf = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    if MERGED.iter().any(|dir| plain.starts_with(dir)) { Path::new("usr").join(plain) } else { plain }
}

/// True if `path` is one of the merged directories itself, which dom0 has already.
fn is_merged_dir(path: &Path) -> bool {
    MERGED.iter().any(|dir| path == Path::new("usr").join(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_paths_land_below_usr() {
        for (given, expected) in [
            ("./lib/x86_64-linux-gnu/libz.so.1", "usr/lib/x86_64-linux-gnu/libz.so.1"),
            ("/bin/bash", "usr/bin/bash"),
            ("usr/bin/nginx", "usr/bin/nginx"),
            ("./etc/nginx/nginx.conf", "etc/nginx/nginx.conf"),
            ("libexec/x", "libexec/x"),
            ("./", ""),
        ] {
            assert_eq!(merged_path(Path::new(given)), Path::new(expected));
        }
        assert!(is_merged_dir(&merged_path(Path::new("./lib/"))));
    }
}
