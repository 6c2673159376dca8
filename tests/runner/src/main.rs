//! Drives the emulated Xen host: scripts in dom0, an interactive prompt, the boot tests, the
//! demonstration.
#![forbid(unsafe_code)]

mod bench;
mod boot_tests;
mod cases;
mod dom0;
mod guests;
mod image;
mod layout;
mod machine;
mod options;
mod payload;
mod report;
mod run;
mod shell;
mod signing;
mod snapshot;
mod soak;
mod tally;
mod unit_tests;
mod verdict;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand};

use crate::machine::Model;
use crate::options::{BadArgument, Cpu, Memory, Processors};
use crate::tally::Tally;

/// Exit status for arguments that cannot be followed.
const STATUS_USAGE: u8 = 2;

#[derive(Parser)]
#[command(about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a script in dom0 and bring back what it left under /root/out
    Dom0 {
        /// The script
        #[arg(long, env = "SCRIPT", default_value = "", hide_default_value = true)]
        script: String,
        /// Files to bring along, separated by blanks: copied to /root; .tar and .deb are unpacked
        /// over /
        #[arg(long, env = "FILES", default_value = "", hide_default_value = true)]
        files: String,
        /// Where to put what comes back [default: target/dom0/out]
        #[arg(long, env = "OUT", default_value = "", hide_default_value = true)]
        out: String,
        /// Longest that the script may take, in seconds [default: 600]
        #[arg(long, env = "TIMEOUT", default_value = "", hide_default_value = true)]
        timeout: String,
        /// Boot from nothing instead of from a snapshot
        #[arg(long)]
        cold: bool,
        #[command(flatten)]
        machine: MachineArguments,
    },
    /// Run the boot tests, and with --unit the unit tests before them; the last line is
    /// `N passed, N failed`
    Test {
        /// Host crate whose unit tests are run too; may be repeated
        #[arg(long = "unit", value_name = "CRATE")]
        unit: Vec<String>,
        /// Leave the boot tests out
        #[arg(long)]
        no_boot: bool,
        /// The boot tests that have larger numbers, with these
        #[arg(long, conflicts_with_all = ["unit", "no_boot"])]
        scale: bool,
        /// Of the long boot tests only a third, another one at each commit, unless ONLY picks some
        #[arg(long, conflicts_with = "scale")]
        turns: bool,
        /// Only tests that have one of these words in their name
        #[arg(long, env = "ONLY", default_value = "", hide_default_value = true)]
        only: String,
        #[command(flatten)]
        machine: MachineArguments,
    },
    /// Measure ours beside others in the same boot, print a table and write target/bench.json
    Bench {
        /// Only rows that have one of these words in their name
        #[arg(long, env = "ONLY", default_value = "", hide_default_value = true)]
        only: String,
        /// Memory of the machine in MiB [default: 2048]
        #[arg(long, env = "MEM", default_value = "", hide_default_value = true)]
        mem: String,
    },
    /// Start a web server as a guest, fetch pages from it and shut it down
    Run(MachineArguments),
    /// Print the sizes of the built guest images
    Images,
    /// Give an interactive dom0 prompt
    Shell(MachineArguments),
    /// Fork without number, update libraries and kill the daemon, and see that nothing is left
    Soak {
        /// Forks [default: 100000]
        #[arg(long, env = "FORKS", default_value = "", hide_default_value = true)]
        forks: String,
        /// Seconds of updates and deaths of the daemon [default: 3600]
        #[arg(long, env = "SECONDS_EACH", default_value = "", hide_default_value = true)]
        seconds: String,
        #[command(flatten)]
        machine: MachineArguments,
    },
}

/// The arguments of every command that boots a machine. An empty word stands for the default,
/// because that is what `make` passes on for a variable nobody set.
#[derive(Args)]
struct MachineArguments {
    /// wall: the host's time; icount: one instruction is one nanosecond [default: wall]
    #[arg(long, env = "CLOCK", default_value = "", hide_default_value = true)]
    clock: String,
    /// Memory of the machine in MiB [default: 2048]
    #[arg(long, env = "MEM", default_value = "", hide_default_value = true)]
    mem: String,
    /// Processors of the machine: 1, 2 or 4 [default: 1; each boot test has its own default]
    #[arg(long, env = "CPUS", default_value = "", hide_default_value = true)]
    cpus: String,
    /// Kind of processor: qemu64, or Haswell-noTSX, which has AVX [default: qemu64; each boot test
    /// has its own default]
    #[arg(long, env = "CPU", default_value = "", hide_default_value = true)]
    cpu: String,
}

impl MachineArguments {
    fn model(&self) -> Result<Model, BadArgument> {
        Ok(Model {
            clock: self.clock.parse()?,
            memory: Memory::parse(&self.mem, host_memory())?,
            processors: self.processors()?.unwrap_or(Processors::ONE),
            cpu: Cpu::parse(&self.cpu)?.unwrap_or_default(),
        })
    }

    /// The number of processors asked for, if any.
    fn processors(&self) -> Result<Option<Processors>, BadArgument> {
        Processors::parse(&self.cpus)
    }
}

fn main() -> ExitCode {
    match dispatch(Cli::parse().command) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("error: {error:#}");
            let usage = error.downcast_ref::<BadArgument>().is_some();
            ExitCode::from(if usage { STATUS_USAGE } else { dom0::STATUS_MACHINE })
        }
    }
}

fn dispatch(command: Command) -> Result<u8> {
    match command {
        Command::Dom0 { script, files, out, timeout, cold, machine } => {
            let usage = r#"make dom0 SCRIPT=f.sh [FILES="a b"] [OUT=dir] [CLOCK=wall|icount] [MEM=MiB] [CPUS=1|2|4] [TIMEOUT=s]"#;
            if script.is_empty() {
                bail!(BadArgument(format!("SCRIPT is missing: {usage}")));
            }
            let status = dom0::run(&dom0::Job {
                model: machine.model()?,
                script: existing("SCRIPT", &script)?,
                files: files.split_whitespace().map(|file| existing("FILES", file)).collect::<Result<_, _>>()?,
                out: if out.is_empty() { layout::results() } else { out.into() },
                limit: seconds(&timeout)?,
                cold,
            })?;
            if status != 0 {
                eprintln!("dom0: status {status}");
            }
            Ok(status)
        }
        Command::Test { unit, no_boot, scale, turns, only, machine } => {
            let model = machine.model()?;
            let selection = boot_tests::Selection {
                only: &only,
                scale,
                turns,
                processors: machine.processors()?,
                cpu: Cpu::parse(&machine.cpu)?,
            };
            let mut tally = Tally::default();
            if !no_boot {
                selection.check()?;
            }
            let began = Instant::now();
            if !unit.is_empty() {
                tally += unit_tests::run(&unit, &only)?;
                println!("the unit tests took {} s", began.elapsed().as_secs());
            }
            let began = Instant::now();
            if !no_boot {
                tally += boot_tests::run(model, &selection)?;
                println!("the boot tests took {} s", began.elapsed().as_secs());
            }
            println!("{tally}");
            Ok(u8::from(!tally.is_success()))
        }
        Command::Bench { only, mem } => bench::run(Memory::parse(&mem, host_memory())?, &only),
        Command::Run(machine) => run::run(machine.model()?),
        Command::Images => {
            for guest in guests::built()? {
                println!("{:>9} bytes  {}", guest.image.metadata()?.len(), guest.name);
            }
            Ok(0)
        }
        Command::Shell(machine) => shell::run(machine.model()?),
        Command::Soak { forks, seconds, machine } => soak::run(machine.model()?, &forks, &seconds),
    }
}

/// `path`, which the variable `name` says is a readable file.
fn existing(name: &str, path: &str) -> Result<PathBuf, BadArgument> {
    match std::fs::metadata(path) {
        Ok(found) if name == "SCRIPT" && !found.is_file() => {
            Err(BadArgument(format!("{name}: {path} is not a file: name a shell script")))
        }
        Ok(_) => Ok(path.into()),
        Err(error) => Err(BadArgument(format!("{name}: cannot read {path}: {error}"))),
    }
}

fn seconds(word: &str) -> Result<Duration, BadArgument> {
    match if word.is_empty() { Ok(600) } else { word.parse() } {
        Ok(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err(BadArgument(format!("TIMEOUT={word} is not a time: use whole seconds from 1 to 86400"))),
    }
}

/// Memory that the host has to give, in MiB.
fn host_memory() -> u64 {
    let report = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = report.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.map_or(u64::MAX, |kib| kib >> 10)
}
