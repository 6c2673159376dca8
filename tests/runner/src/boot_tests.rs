//! `make boot-test`: many guests in one restored dom0, one verdict each.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::cases::{self, Case};
use crate::machine::{Event, Machine, Model, RunFiles};
use crate::options::BadArgument;
use crate::payload::Payload;
use crate::report::{Parser, Report};
use crate::tally::Tally;
use crate::{guests, layout, snapshot, verdict};

/// How long dom0 may take for a case beyond the case's own limit before it counts as hung.
const GRACE: Duration = Duration::from_secs(60);
/// How much of a failed case's console is shown.
const TAIL_LINES: usize = 40;

/// Runs the registered cases whose name contains `only`.
pub fn run(model: Model, only: &str) -> Result<Tally> {
    let mut waiting: VecDeque<Case> = cases::registered()?.into();
    waiting.retain(|case| case.name.contains(only));
    let mut tally = Tally::registered(waiting.len());
    // One machine does for all unless dom0 hangs; then the rest gets a new one.
    while !waiting.is_empty() {
        run_in_one_machine(model, &mut waiting, &mut tally)?;
    }
    Ok(tally)
}

/// The names of the cases that contain `only`; a usage error when there are none.
pub fn check_names(only: &str) -> Result<()> {
    if cases::registered()?.iter().any(|case| case.name.contains(only)) {
        return Ok(());
    }
    bail!(BadArgument(format!("ONLY={only}: no boot test has that in its name (tests/boot/cases.toml)")))
}

/// Takes cases off `waiting` until all are done or the machine no longer answers.
fn run_in_one_machine(model: Model, waiting: &mut VecDeque<Case>, tally: &mut Tally) -> Result<()> {
    let files = RunFiles::create()?;
    let length = write_payload(&files, waiting.iter())?;
    let mut machine = snapshot::ready_machine(model, &files)?;
    machine.start(length)?;
    let mut stream = Stream { machine, parser: Parser::default(), complete: VecDeque::new() };
    while let Some(case) = waiting.pop_front() {
        Tally::begin(&case.name);
        let began = Instant::now();
        let limit = Duration::from_secs(case.seconds.into()) + GRACE;
        let report = stream.next_report(began + limit);
        let hung = report.is_none();
        let report = report.unwrap_or_else(|| std::mem::take(&mut stream.parser).unfinished());
        let faults = verdict::faults(&case, &report);
        tally.finish(began.elapsed(), &faults);
        if !faults.is_empty() {
            show(&report);
        }
        if hung {
            eprintln!("dom0 no longer answers: the rest of the tests gets a new machine");
            break;
        }
    }
    Ok(())
}

/// The machine's reports, one after the other.
struct Stream {
    machine: Machine,
    parser: Parser,
    complete: VecDeque<Report>,
}

impl Stream {
    /// The next one, unless the machine ends or says nothing until `deadline`.
    fn next_report(&mut self, deadline: Instant) -> Option<Report> {
        loop {
            if let Some(report) = self.complete.pop_front() {
                return Some(report);
            }
            match self.machine.next(deadline) {
                Event::Output(octets) => self.complete.extend(self.parser.push(&octets)),
                Event::Silence | Event::End => return None,
            }
        }
    }
}

fn write_payload<'a>(files: &RunFiles, cases: impl Iterator<Item = &'a Case>) -> Result<u64> {
    let mut payload = Payload::create(&files.payload())?;
    payload.add_file("run/zooid/main", &layout::payload().join("main-boot-test"))?;
    payload.add_file("run/zooid/end.sh", &layout::payload().join("end.sh"))?;
    // The scripts source lib.sh there and start its clients.
    payload.add_directory("run/zooid", &layout::boot_tests())?;
    for client in guests::names_in(&layout::boot_tests(), |path| path.extension().is_some_and(|end| end == "py"))? {
        let file = format!("{client}.py");
        payload.add_file(&format!("run/zooid/{file}"), &layout::boot_tests().join(&file))?;
    }
    payload.add_built()?;
    for (index, case) in cases.enumerate() {
        let dir = format!("run/zooid/cases/{index:04}");
        payload.add_text(&format!("{dir}/name"), case.name.as_bytes())?;
        payload.add_text(&format!("{dir}/seconds"), case.seconds.to_string().as_bytes())?;
        payload.add_text(&format!("{dir}/cfg"), case.config().as_bytes())?;
        if case.script {
            payload.add_file(&format!("{dir}/script"), &cases::script_file(case))?;
        }
    }
    payload.finish()
}

/// What a failed case left behind.
fn show(report: &Report) {
    for (title, text) in [("in dom0", &report.output), ("guest's console", &report.console), ("Xen", &report.dmesg)] {
        let lines: Vec<&str> = text.lines().collect();
        for line in &lines[lines.len().saturating_sub(TAIL_LINES)..] {
            println!("    {title}: {line}");
        }
    }
}
