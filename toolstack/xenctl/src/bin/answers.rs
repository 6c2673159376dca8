//! Gives a long sequence of operations to this Xen, and compares its answers with the recorded
//! ones, which the fake gives, too. With `--print`, prints the answers, to be recorded.
#![forbid(unsafe_code)]

use std::error::Error;
use std::process::ExitCode;

use xenctl::Xen;
use xenctl::answers::{RECORDED, answers, differences};

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("answers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode, Box<dyn Error>> {
    let lines = answers(&Xen::open()?);
    if std::env::args().any(|argument| argument == "--print") {
        lines.iter().for_each(|line| println!("{line}"));
        return Ok(ExitCode::SUCCESS);
    }
    let differences = differences(RECORDED, &lines);
    differences.iter().for_each(|line| println!("{line}"));
    println!("{} operations, {} answers differ", lines.len(), differences.len());
    Ok(if differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
