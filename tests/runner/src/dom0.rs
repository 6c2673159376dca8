//! `make dom0`: brings a script into dom0, runs it there, and brings back its results.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::machine::{Event, Machine, Model, RunFiles};
use crate::options::BadArgument;
use crate::payload::Payload;
use crate::{image, layout, snapshot};

/// Exit status of a run that the time limit ended, as that of `timeout`.
pub const STATUS_TIME_LIMIT: u8 = 124;
/// Exit status when the machine itself failed.
pub const STATUS_MACHINE: u8 = 125;
/// The time that dom0 has to bring back results after its script was stopped.
const GRACE: Duration = Duration::from_secs(20);

/// One script to run in dom0.
pub struct Job {
    pub model: Model,
    pub script: PathBuf,
    pub files: Vec<PathBuf>,
    pub out: PathBuf,
    pub limit: Duration,
    /// True for a boot from nothing, without a snapshot.
    pub cold: bool,
}

/// Runs `job`, and returns the exit status of its script.
pub fn run(job: &Job) -> Result<u8> {
    run_announced(job, |_| {})
}

/// Runs `job` and calls `on_start` with the time that the boot took before the script starts.
pub fn run_announced(job: &Job, on_start: impl FnOnce(Duration)) -> Result<u8> {
    let files = RunFiles::create()?;
    let mut payload = Payload::create(&files.payload())?;
    payload.add_file("run/zooid/main", &layout::payload().join("main-dom0"))?;
    payload.add_file("run/zooid/end.sh", &layout::payload().join("end.sh"))?;
    payload.add_file("run/zooid/script", &job.script)?;
    payload.add_built()?;
    for file in &job.files {
        payload.add_user_file(file)?;
    }
    let length = payload.finish()?;
    std::fs::create_dir_all(&job.out)
        .map_err(|error| BadArgument(format!("OUT: cannot make {}: {error}", job.out.display())))?;

    let began = Instant::now();
    let mut machine = if job.cold {
        image::update()?;
        Machine::boot(job.model, &files)?
    } else {
        snapshot::ready_machine(job.model, &files)?
    };
    let ended = machine.start(length).and_then(|()| {
        on_start(began.elapsed());
        stream(&mut machine, job)
    });
    drop(machine);
    let _ = std::fs::copy(files.serial(), job.out.join("serial.log"));
    let results = collect(&files.results(), &job.out);
    match ended? {
        End::TimeLimit => {
            let limit = job.limit.as_secs();
            eprintln!("dom0: the script did not end within {limit} s and was stopped (TIMEOUT=seconds sets the limit)");
            std::fs::write(job.out.join("status"), format!("{STATUS_TIME_LIMIT}\n"))?;
            Ok(STATUS_TIME_LIMIT)
        }
        End::Itself => results.with_context(|| {
            format!("the machine stopped before the script ended: see {}", job.out.join("serial.log").display())
        }),
    }
}

enum End {
    Itself,
    TimeLimit,
}

/// Copies the script's output to standard output and to OUT/output.log until the machine ends, by
/// itself or because its time is up.
fn stream(machine: &mut Machine, job: &Job) -> Result<End> {
    let mut log = File::create(job.out.join("output.log"))?;
    let mut deadline = Instant::now() + job.limit;
    let mut end = End::Itself;
    loop {
        match machine.next(deadline) {
            Event::Output(octets) => {
                log.write_all(&octets)?;
                let mut stdout = std::io::stdout().lock();
                stdout.write_all(&octets).and_then(|()| stdout.flush()).context("cannot write to standard output")?;
            }
            Event::End => return Ok(end),
            Event::Silence if matches!(end, End::Itself) => {
                // Any line tells dom0 to stop the script and to bring back the results so far.
                machine.send(b"stop\n")?;
                deadline = Instant::now() + GRACE;
                end = End::TimeLimit;
            }
            Event::Silence => return Ok(end),
        }
    }
}

/// Unpacks the results' disk below `out`, and returns the status that dom0 wrote there.
pub fn collect(disk: &Path, out: &Path) -> Result<u8> {
    let mut archive = tar::Archive::new(File::open(disk)?);
    archive.set_preserve_permissions(false);
    let mut status = None;
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        // The script's results come straight into OUT, the rest beside it.
        let target = out.join(path.strip_prefix("out").unwrap_or(&path));
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        entry.unpack(&target).with_context(|| format!("cannot write {}", target.display()))?;
        if path == Path::new("status") {
            status = Some(std::fs::read_to_string(&target)?);
        }
    }
    match status.as_deref().map(|word| word.trim().parse()) {
        Some(Ok(status)) => Ok(status),
        _ => bail!("no results from dom0"),
    }
}
