//! `make boot-test`: many guests in a restored dom0, one verdict each. If the host has
//! processors for it, two machines run side by side.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::cases::{self, Case, Turn};
use crate::machine::{Event, Machine, Model, RunFiles};
use crate::options::{BadArgument, Cpu, Processors, picks};
use crate::payload::Payload;
use crate::report::{Parser, Report};
use crate::tally::Tally;
use crate::{guests, image, layout, snapshot, verdict};

/// The time that dom0 has for a case beyond the case's own limit before it counts as hung.
const GRACE: Duration = Duration::from_secs(60);

/// Most machines at a time: each has 2 GiB of memory unless told otherwise.
const MACHINES: usize = 2;
/// The least number of cases for a second machine: fewer take less time than its start.
const WORTH_IT: usize = 8;

/// Factor by which a case may take longer at scale.
const AT_SCALE: u32 = 10;

/// Parts of the cases for each machine: whoever is done early takes the next one.
const PARTS: usize = 3;

/// Cases that run one after the other in machines of one model.
type Part = (Model, VecDeque<Case>);

/// The boot tests to run.
pub struct Selection<'a> {
    /// Words, one of which is in the names of the cases; empty: all.
    pub only: &'a str,
    /// The cases that have larger numbers, with these.
    pub scale: bool,
    /// Of the long cases only those whose turn it is.
    pub turns: bool,
    /// Processors for each case; `None`: those of the register.
    pub processors: Option<Processors>,
    /// Kind of processor for each case; `None`: that of the register.
    pub cpu: Option<Cpu>,
}

impl Selection<'_> {
    fn cases(&self) -> Result<Vec<Case>> {
        let mut cases = cases::registered()?;
        cases.retain(|case| picks(self.only, &case.name) && (case.scale || !self.scale));
        if self.turns && self.only.is_empty() {
            let (all, turn) = (cases.len(), turn());
            cases.retain(|case| turn.holds(case));
            println!("{} of {all} boot tests have their turn at this commit; `make boot-test` runs all", cases.len());
        }
        if self.scale {
            cases.iter_mut().for_each(|case| case.seconds *= AT_SCALE);
        }
        Ok(cases)
    }

    /// A usage error when no case is picked.
    pub fn check(&self) -> Result<()> {
        if self.cases()?.is_empty() {
            let only = self.only;
            bail!(BadArgument(format!("ONLY={only}: no such boot test has that in its name (tests/boot/cases.toml)")))
        }
        Ok(())
    }
}

/// Runs boot tests.
pub fn run(model: Model, selection: &Selection<'_>) -> Result<Tally> {
    let waiting = selection.cases()?;
    let machines = MACHINES.min(std::thread::available_parallelism().map_or(1, usize::from));
    image::update()?;
    let machines = machines.min(waiting.len() / WORTH_IT).max(1);
    let parts = parts(model, machines, &waiting, selection, turn());
    let parts = Mutex::new(parts);
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..machines).map(|_| scope.spawn(|| run_parts(&parts, selection.scale))).collect();
        let mut all = Tally::default();
        for run in runs {
            all += run.join().unwrap_or_else(|_| bail!("the runner has failed"))?;
        }
        Ok(all)
    })
}

/// The cases by their machines, those with the fewest processors last, where they are taken first.
/// So many machines run at a time, but one with two processors by default.
fn parts(model: Model, machines: usize, cases: &[Case], selection: &Selection<'_>, turn: Turn) -> Vec<Part> {
    let mut groups: BTreeMap<(Processors, Cpu), Vec<Case>> = BTreeMap::new();
    for case in cases {
        let by_default = [Processors::ONE, Processors::TWO].into_iter().filter(|it| case.runs_with(*it, turn));
        let processors = selection.processors.map_or_else(|| by_default.collect(), |chosen| vec![chosen]);
        for processors in processors {
            let cpu = selection.cpu.unwrap_or(case.cpu());
            groups.entry((processors, cpu)).or_default().push(case.clone());
        }
    }
    let part = |((processors, cpu), cases): (_, Vec<Case>)| {
        let shared_out = machines > 1 && (processors == Processors::ONE || selection.processors.is_some());
        let count = if shared_out { (cases.len() / WORTH_IT).clamp(1, machines * PARTS) } else { 1 };
        split(cases, count).into_iter().map(move |part| (Model { processors, cpu, ..model }, part))
    };
    groups.into_iter().rev().flat_map(part).collect()
}

/// The turn at the commit at hand.
fn turn() -> Turn {
    let id = Command::new("git").args(["rev-parse", "HEAD"]).current_dir(layout::top()).output();
    Turn::of_commit(&id.map(|id| String::from_utf8_lossy(&id.stdout).into_owned()).unwrap_or_default())
}

/// Runs parts until none is left.
fn run_parts(parts: &Mutex<Vec<Part>>, scale: bool) -> Result<Tally> {
    let mut tally = Tally::default();
    let next = || parts.lock().unwrap_or_else(PoisonError::into_inner).pop();
    while let Some((model, part)) = next() {
        tally += run_part(model, part, scale)?;
    }
    Ok(tally)
}

/// Shares the cases out to machines, so that the sums of their time limits are about equal. Each
/// part keeps their old order.
fn split(cases: Vec<Case>, machines: usize) -> Vec<VecDeque<Case>> {
    let mut longest_first: Vec<usize> = (0..cases.len()).collect();
    longest_first.sort_by_key(|place| std::cmp::Reverse(cases[*place].seconds));
    let mut sums = vec![0; machines];
    let mut machine_of = vec![0; cases.len()];
    for place in longest_first {
        let least = (0..machines).min_by_key(|machine| sums[*machine]).unwrap_or(0);
        sums[least] += cases[place].seconds;
        machine_of[place] = least;
    }
    let mut parts = vec![VecDeque::new(); machines];
    for (case, machine) in cases.into_iter().zip(machine_of) {
        parts[machine].push_back(case);
    }
    parts
}

fn run_part(model: Model, mut waiting: VecDeque<Case>, scale: bool) -> Result<Tally> {
    let mut tally = Tally::registered(waiting.len());
    // One machine runs all cases unless dom0 hangs; then the rest gets a new one.
    while !waiting.is_empty() {
        run_in_one_machine(model, &mut waiting, scale, &mut tally)?;
    }
    Ok(tally)
}

/// Takes cases off `waiting` until all are done or the machine no longer answers.
fn run_in_one_machine(model: Model, waiting: &mut VecDeque<Case>, scale: bool, tally: &mut Tally) -> Result<()> {
    let files = RunFiles::create()?;
    let length = write_payload(&files, waiting.iter(), scale)?;
    let mut machine = snapshot::ready_machine(model, &files)?;
    machine.start(length)?;
    let mut stream = Stream { machine, parser: Parser::default(), complete: VecDeque::new() };
    while let Some(case) = waiting.pop_front() {
        let began = Instant::now();
        let limit = Duration::from_secs(case.limit().into()) + GRACE;
        let report = stream.next_report(began + limit);
        let hung = report.is_none();
        let report = report.unwrap_or_else(|| std::mem::take(&mut stream.parser).unfinished());
        let faults = verdict::faults(&case, &report);
        let last = |lines| last_lines(&report, lines);
        print!("{}", tally.finish(&title(&case, model.processors), began.elapsed(), &faults, last));
        if hung {
            eprintln!("dom0 no longer answers: the rest of the tests gets a new machine");
            break;
        }
    }
    Ok(())
}

/// The name of a case in its verdict.
fn title(case: &Case, processors: Processors) -> String {
    match processors {
        Processors::ONE => case.name.clone(),
        _ => format!("{} with {} processors", case.name, processors.count()),
    }
}

/// The machine's reports, one after the other.
struct Stream {
    machine: Machine,
    parser: Parser,
    complete: VecDeque<Report>,
}

impl Stream {
    /// The next report; `None` if the machine ends, or says nothing until `deadline`.
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

fn write_payload<'a>(files: &RunFiles, cases: impl Iterator<Item = &'a Case>, scale: bool) -> Result<u64> {
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
    if scale {
        payload.add_text("run/zooid/scale", b"")?;
    }
    for (index, case) in cases.enumerate() {
        let dir = format!("run/zooid/cases/{index:04}");
        payload.add_text(&format!("{dir}/name"), case.name.as_bytes())?;
        payload.add_text(&format!("{dir}/limit"), case.limit().to_string().as_bytes())?;
        payload.add_text(&format!("{dir}/cfg"), case.config().as_bytes())?;
        if case.script {
            payload.add_file(&format!("{dir}/script"), &cases::script_file(case))?;
        }
    }
    payload.finish()
}

/// The last `count` lines of each log of a case.
fn last_lines(report: &Report, count: usize) -> String {
    let mut all = String::new();
    for (title, text) in [("in dom0", &report.output), ("guest's console", &report.console), ("Xen", &report.dmesg)] {
        let lines: Vec<&str> = text.lines().collect();
        for line in &lines[lines.len().saturating_sub(count)..] {
            let _ = writeln!(all, "    {title}: {line}");
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Clock, Memory};

    #[test]
    fn each_case_runs_in_a_machine_of_its_own_kind() {
        let memory = Memory::parse("", u64::MAX).unwrap();
        let model = Model { clock: Clock::Wall, memory, processors: Processors::ONE, cpu: Cpu::Qemu64 };
        let case = |name: &str, both| Case { name: name.into(), both, ..Case::default() };
        let cases = [case("hello", false), case("user_x", false), case("fork_x", false), case("ipc_b", true)];
        let parts = |processors, cpu| {
            let selection = Selection { only: "", scale: false, turns: false, processors, cpu };
            let parts = parts(model, 1, &cases, &selection, Turn { quarter: 0, third: 0 });
            let names = |(model, cases): &Part| {
                (model.cpu, cases.iter().map(|case| title(case, model.processors)).collect::<Vec<_>>().join(", "))
            };
            parts.iter().map(names).collect::<Vec<_>>()
        };
        assert_eq!(
            parts(None, None),
            [
                (Cpu::Qemu64, "ipc_b with 2 processors".into()),
                (Cpu::Haswell, "user_x".into()),
                (Cpu::Qemu64, "hello, fork_x, ipc_b".into())
            ]
        );
        let all = ["hello", "user_x", "fork_x", "ipc_b"].map(|name| format!("{name} with 2 processors")).join(", ");
        assert_eq!(parts(Some(Processors::TWO), Some(Cpu::Haswell)), [(Cpu::Haswell, all)]);
    }

    #[test]
    fn each_case_is_in_one_part_and_long_ones_are_shared_out() {
        let case = |number: u32, seconds| Case { name: number.to_string(), seconds, ..Case::default() };
        let cases =
            || [60, 20, 20, 600, 20, 60, 300, 240].into_iter().zip(0..).map(|(seconds, number)| case(number, seconds));
        let parts = split(cases().collect(), 2);
        let sums: Vec<u32> = parts.iter().map(|part| part.iter().map(|case| case.seconds).sum()).collect();
        assert_eq!(sums, [660, 660]);
        for part in &parts {
            assert!(part.iter().map(|case| &case.name).is_sorted());
        }
        let mut names: Vec<_> = parts.into_iter().flatten().map(|case| case.name).collect();
        names.sort();
        assert_eq!(names, cases().map(|case| case.name).collect::<Vec<_>>());
        assert_eq!(split(cases().collect(), 1)[0].len(), 8);
    }
}
