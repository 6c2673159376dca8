//! `make bench`: our costs beside those of a peer in the same boot, as a table and as
//! `target/bench.json`.
//!
//! `tests/bench/measure.py`, with the modules beside it, takes the samples in dom0 under the
//! instruction clock; here they become figures. `docs/benchmarks.md` says what each row means.

mod figures;
mod rows;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::dom0::{self, Job};
use crate::machine::Model;
use crate::options::{BadArgument, Clock, Cpu, Memory, Processors, picks};
use crate::{guests, layout};
use figures::{Figure, Samples};
use rows::{ROWS, Row, Source};

/// The modules that the script imports.
const MODULES: [&str; 4] = ["common.py", "forks.py", "ipc.py", "dl.py"];
/// Longest that dom0's part may take, on a busy build machine.
const LIMIT: Duration = Duration::from_secs(3600);

/// Measures the rows that `only` picks. Status 1 when one of them could not be measured.
pub fn run(memory: Memory, only: &str) -> Result<u8> {
    let chosen: Vec<&Row> = ROWS.iter().filter(|row| picks(only, row.name)).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        bail!(BadArgument(format!("ONLY={only}: no row has that in its name; there are {}", names.join(", "))));
    }
    let mut samples = image_samples(&chosen)?;
    samples.extend(dom0_samples(memory, &chosen)?);
    let figures: Vec<Figure> = chosen.iter().filter_map(|row| Figure::of(row, &samples)).collect();
    print!("{}", figures::table(&figures));
    let file = layout::top().join("target/bench.json");
    let json = serde_json::to_string_pretty(&figures)?;
    std::fs::write(&file, json + "\n").with_context(|| format!("cannot write {}", file.display()))?;
    Ok(u8::from(figures.len() < chosen.len()))
}

/// The sizes of the images themselves.
fn image_samples(rows: &[&Row]) -> Result<Samples> {
    let images = guests::built()?;
    let mut samples = Samples::default();
    for row in rows {
        let Source::Image(name) = row.source else { continue };
        let Some(guest) = images.iter().find(|guest| guest.name == name) else {
            bail!("the image {name} is missing: run 'make build'");
        };
        samples.add_ours(row.name, guest.image.metadata()?.len() as f64);
    }
    Ok(samples)
}

/// Measures the rows of dom0. A run that fails in its middle still gives the rows before.
fn dom0_samples(memory: Memory, rows: &[&Row]) -> Result<Samples> {
    let mut names = Vec::new();
    let mut anchors: BTreeSet<&str> = BTreeSet::new();
    for row in rows {
        if let Source::Dom0(files) = row.source {
            names.push(row.name);
            anchors.extend(files.iter().copied());
        }
    }
    if names.is_empty() {
        return Ok(Samples::default());
    }
    let out = layout::top().join("target/bench");
    std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let list = out.join("rows");
    std::fs::write(&list, names.join("\n"))?;
    let taken = out.join("samples");
    let _ = std::fs::remove_file(&taken);
    let built = layout::top().join("build/bench");
    let mut files: Vec<PathBuf> = anchors.into_iter().map(|name| built.join(name)).collect();
    files.push(list);
    files.extend(MODULES.map(|name| layout::top().join("tests/bench").join(name)));
    let status = dom0::run(&Job {
        model: Model { clock: Clock::Icount, memory, processors: Processors::ONE, cpu: Cpu::default() },
        script: layout::top().join("tests/bench/measure.py"),
        files,
        out,
        limit: LIMIT,
        cold: false,
    })?;
    if status != 0 {
        eprintln!("bench: dom0's part failed with status {status}: see target/bench/output.log");
    }
    Samples::parse(&std::fs::read_to_string(&taken).unwrap_or_default())
}
