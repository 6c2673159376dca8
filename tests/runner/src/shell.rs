//! `make shell`: an interactive dom0 prompt on this terminal.

use std::io::{IsTerminal, Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::machine::{Event, Model, RunFiles};
use crate::payload::Payload;
use crate::{layout, snapshot};

/// The key that leaves at once: Ctrl-\, because Ctrl-] leaves `xl console`.
const LEAVE: u8 = 0x1c;
/// The input that the shell gets when standard input ends. Not Ctrl-D: it is lost when it arrives
/// while a command runs.
const END_OF_INPUT: &[u8] = b"\nexit\n";
/// The interval at which the leave key is looked for.
const TICK: Duration = Duration::from_millis(100);

/// Gives the user a shell in dom0 until it is left. The status is always 0.
pub fn run(model: Model) -> Result<u8> {
    let files = RunFiles::create()?;
    let mut payload = Payload::create(&files.payload())?;
    payload.add_file("run/zooid/main", &layout::payload().join("main-shell"))?;
    payload.add_file("run/zooid/end.sh", &layout::payload().join("end.sh"))?;
    payload.add_text("run/zooid/window", stty(&["size"]).unwrap_or_default().as_bytes())?;
    payload.add_built()?;
    let length = payload.finish()?;
    let mut machine = snapshot::ready_machine(model, &files)?;
    machine.start(length)?;
    eprintln!(
        "dom0: 'exit' or Ctrl-\\ leaves; a guest: xl create -c /opt/zooid/guests/NAME.cfg (Ctrl-] leaves its console)"
    );

    let _raw = RawTerminal::enter();
    let leave = Arc::new(AtomicBool::new(false));
    let mut input = machine.take_input()?;
    let seen = Arc::clone(&leave);
    std::thread::spawn(move || {
        let mut buffer = [0; 256];
        while let Ok(length @ 1..) = std::io::stdin().read(&mut buffer) {
            if buffer[..length].contains(&LEAVE) {
                seen.store(true, Ordering::Relaxed);
                return;
            }
            if input.write_all(&buffer[..length]).is_err() {
                return;
            }
        }
        // The pipe stays open for as long as the machine runs: this thread ends with the process.
        let _ = input.write_all(END_OF_INPUT);
        std::thread::park();
    });
    while !leave.load(Ordering::Relaxed) {
        match machine.next(Instant::now() + TICK) {
            Event::Output(octets) => {
                let mut stdout = std::io::stdout().lock();
                stdout.write_all(&octets).and_then(|()| stdout.flush()).context("cannot write to standard output")?;
            }
            Event::Silence => {}
            Event::End => break,
        }
    }
    Ok(0)
}

/// The terminal in raw mode. Dropping it restores the former mode.
struct RawTerminal {
    before: String,
}

impl RawTerminal {
    /// `None` if standard input is no terminal.
    fn enter() -> Option<Self> {
        let before = stty(&["-g"])?;
        stty(&["raw", "-echo"])?;
        Some(RawTerminal { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        stty(&[self.before.trim()]);
    }
}

/// The output of `stty` for the terminal on standard input, if that is one.
fn stty(arguments: &[&str]) -> Option<String> {
    if !std::io::stdin().is_terminal() {
        return None;
    }
    let output = Command::new("stty").args(arguments).stdin(Stdio::inherit()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
