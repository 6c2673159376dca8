//! dom0's initial file system: the archive that set-up has made of Debian's packages, and behind it
//! this project's programs that run from dom0's boot on.
//!
//! Linux unpacks archives that stand one behind the other
//! (`Documentation/driver-api/early-userspace/buffer-format.rst`). So a changed daemon costs a
//! boot, but no new set-up.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

use crate::layout;

/// The initial file system that dom0 boots with, in [`layout::machine`].
pub const INITRD: &str = "initrd";

/// Programs that dom0 has before any payload comes, with their places.
const PROGRAMS: [(&str, &str); 2] = [("pvm", "usr/bin/pvm"), ("pvmd", "usr/sbin/pvmd")];

/// Makes the initial file system anew if a part of it has changed.
pub fn update() -> Result<()> {
    layout::check_machine()?;
    let base = layout::machine().join("initramfs.cpio");
    let initrd = layout::machine().join(INITRD);
    let sources = PROGRAMS.map(|(name, target)| (layout::top().join("target/dom0").join(name), target));
    let changed = |file: &Path| -> Result<SystemTime> {
        let metadata = file.metadata().with_context(|| format!("{} is missing: run 'make build'", file.display()))?;
        Ok(metadata.modified()?)
    };
    let mut newest = changed(&base)?;
    for (source, _) in &sources {
        newest = newest.max(changed(source)?);
    }
    if initrd.metadata().and_then(|file| file.modified()).is_ok_and(|made| made > newest) {
        return Ok(());
    }
    // The file gets a name of this process's own first: other processes may do the same, and QEMU
    // may be reading the old one.
    let unfinished = PathBuf::from(format!("{}.{}", initrd.display(), std::process::id()));
    write(&base, &sources, &unfinished).with_context(|| format!("cannot write {}", unfinished.display()))?;
    fs::rename(&unfinished, &initrd)?;
    Ok(())
}

fn write(base: &Path, programs: &[(PathBuf, &str)], to: &Path) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(to)?);
    io::copy(&mut File::open(base)?, &mut out)?;
    for (number, (source, target)) in (1..).zip(programs) {
        out.write_all(&entry(number, target, 0o100_755, &fs::read(source)?))?;
    }
    out.write_all(&entry(0, "TRAILER!!!", 0, &[]))?;
    out.flush()
}

/// A file in an archive of the format "newc".
fn entry(inode: u32, name: &str, mode: u32, data: &[u8]) -> Vec<u8> {
    let name_size = name.len() + 1;
    // inode, mode, uid, gid, links, time, size, device and special device (major, minor), size of
    // the name, no checksum
    let fields = [inode, mode, 0, 0, 1, 0, data.len() as u32, 0, 0, 0, 0, name_size as u32, 0];
    let mut octets = b"070701".to_vec();
    octets.extend(fields.iter().flat_map(|field| format!("{field:08X}").into_bytes()));
    octets.extend(name.as_bytes());
    octets.push(0);
    octets.resize(octets.len().next_multiple_of(4), 0);
    octets.extend(data);
    octets.resize(octets.len().next_multiple_of(4), 0);
    octets
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn cpio_reads_what_is_written() {
        let directory = std::env::temp_dir().join(format!("zooid-runner-cpio-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let mut archive = entry(1, "usr/bin/a", 0o100_755, b"hello");
        archive.extend(entry(2, "b", 0o100_755, b""));
        archive.extend(entry(0, "TRAILER!!!", 0, &[]));
        let mut cpio = Command::new("cpio")
            .args(["-i", "-d", "-v", "--quiet"])
            .current_dir(&directory)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        cpio.stdin.take().unwrap().write_all(&archive).unwrap();
        let output = cpio.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "usr/bin/a\nb\n");
        assert_eq!(fs::read(directory.join("usr/bin/a")).unwrap(), b"hello");
        assert_eq!(fs::read(directory.join("b")).unwrap(), b"");
        fs::remove_dir_all(&directory).unwrap();
    }
}
