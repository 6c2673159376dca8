//! Snapshots of a booted machine, so that a run pays a restore of half a second and not a boot of ten.
//!
//! A snapshot is a QEMU migration stream. It fits the machine and the dom0 image it was taken from and nothing else, so
//! its name carries a digest of both.

use std::collections::hash_map::DefaultHasher;
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::{Instant, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::machine::{Machine, Model, RunFiles};
use crate::{image, layout};

/// A machine whose dom0 waits for its payload, by the quickest way there is: from a snapshot, which is taken first
/// when there is none.
pub fn ready_machine(model: Model, files: &RunFiles) -> Result<Machine> {
    image::update()?;
    let snapshot = take(model, files)?;
    Machine::restore(model, files, &snapshot).or_else(|error| {
        eprintln!("dom0: the snapshot is no good ({error:#}): taking another ...");
        let _ = std::fs::remove_file(&snapshot);
        Machine::restore(model, files, &take(model, files)?)
    })
}

/// Makes the snapshot of `model` unless it is there.
fn take(model: Model, files: &RunFiles) -> Result<PathBuf> {
    let dir = layout::machine().join("snapshots");
    std::fs::create_dir_all(&dir)?;
    let image = image_digest()?;
    let Model { clock, memory, processors, cpu } = model;
    let name = format!("{image:016x}-{}-{}-{}-{}", clock.name(), memory.mib(), processors.count(), cpu.name());
    let snapshot = dir.join(name);
    let lock = File::create(dir.join("lock"))?;
    lock.lock().context("cannot lock build/dom0/snapshots")?;
    if snapshot.exists() {
        return Ok(snapshot);
    }
    remove_others(&dir, image);
    eprintln!(
        "dom0: first boot with this clock, memory, number and kind of processors: taking a snapshot (10 to 30 s) ..."
    );
    let began = Instant::now();
    let unfinished = dir.join("unfinished");
    Machine::boot_and_save(model, files, &unfinished)?;
    std::fs::rename(&unfinished, &snapshot)?;
    eprintln!("dom0: snapshot taken in {:.1} s", began.elapsed().as_secs_f64());
    Ok(snapshot)
}

/// Removes the snapshots of other images.
fn remove_others(dir: &Path, image: u64) {
    let keep = format!("{image:016x}-");
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name != "lock" && !name.starts_with(&keep) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// A number that changes with the dom0 image, Xen, the emulator or the machine's arguments.
fn image_digest() -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    for file in ["xen", "vmlinuz", image::INITRD].map(|name| layout::machine().join(name)) {
        hash_file(&file, &mut hasher)?;
    }
    hash_file(Path::new("/usr/bin/qemu-system-x86_64"), &mut hasher)?;
    Ok(hasher.finish())
}

/// A file's identity: reading 70 MB in every run would cost more than it finds.
fn hash_file(file: &Path, hasher: &mut DefaultHasher) -> Result<()> {
    let metadata = file.metadata().with_context(|| format!("cannot read {}: run 'make setup'", file.display()))?;
    metadata.len().hash(hasher);
    metadata.modified()?.duration_since(UNIX_EPOCH)?.hash(hasher);
    Ok(())
}
