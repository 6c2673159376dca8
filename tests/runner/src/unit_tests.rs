//! The unit tests of the host crates: `cargo test`, counted.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::layout;
use crate::tally::Tally;

/// Longest that building and running all of them may take.
const LIMIT_SECONDS: &str = "1800";
/// Status of `timeout` when that was over.
const STATUS_TIMEOUT: i32 = 124;

/// Runs the tests of `crates` whose name has one of the words of `only` in it, and shows what they print.
pub fn run(crates: &[String], only: &str) -> Result<Tally> {
    // setpriv: the kernel ends `timeout` when this process ends; `timeout` ends cargo and the tests.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--", "timeout", LIMIT_SECONDS]);
    command.args(["cargo", "test", "--quiet", "--no-fail-fast"]);
    for name in crates {
        command.args(["--package", name]);
    }
    if !only.is_empty() {
        command.arg("--").args(only.split_whitespace());
    }
    let mut cargo = command
        .current_dir(layout::top())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo: run 'make setup'")?;
    let mut tally = Tally::default();
    // The words of the test binary at hand about its failed tests.
    let mut failures = String::new();
    for line in BufReader::new(cargo.stdout.take().context("cargo's output")?).lines() {
        let line = line?;
        println!("{line}");
        if line == "failures:" || !failures.is_empty() {
            failures += &format!("{line}\n");
        }
        if let Some(part) = parse(&line) {
            tally += part;
            tally.failures.extend(Some(std::mem::take(&mut failures)).filter(|said| !said.is_empty()));
        }
    }
    let status = cargo.wait()?;
    if status.code() == Some(STATUS_TIMEOUT) {
        bail!("the unit tests took more than {LIMIT_SECONDS} s: one of them hangs");
    }
    if !status.success() && tally.is_success() {
        bail!("cargo test failed: {status}");
    }
    Ok(tally)
}

/// The counts in libtest's last line of a test binary. An ignored test is registered and has not passed.
fn parse(line: &str) -> Option<Tally> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut tally = Tally::default();
    for part in counts.split("; ") {
        match part.split_once(' ') {
            Some((number, "passed")) => tally.passed = number.parse().ok()?,
            Some((number, "failed")) => tally.failed = number.parse().ok()?,
            Some((number, "ignored")) => tally.registered = number.parse().ok()?,
            _ => {}
        }
    }
    tally.registered += tally.passed + tally.failed;
    Some(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtests_summary_is_read() {
        let line = "test result: FAILED. 12 passed; 1 failed; 2 ignored; 0 measured; 3 filtered out; finished in 0.01s";
        assert_eq!(parse(line), Some(Tally { registered: 15, passed: 12, failed: 1, ..Tally::default() }));
        assert_eq!(parse("test a ... ok"), None);
    }
}
