//! Programs of dom0's that pvmd runs: none takes longer than its limit, and nothing of it stays.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid};

/// Interval of looks at a program whose end Linux cannot report (before 5.3).
const LOOK: Duration = Duration::from_millis(20);
/// The part of its words that is kept, in octets from the end.
const KEPT: usize = 1024;
/// Reads of what a program has said before it ended: as much as a pipe holds.
const LAST_READS: usize = 16;

/// Runs a program in a process group of its own, without input, and ends the group when the program
/// has ended or its time is over. A process that is to live on leaves the group (setsid(2)), as
/// daemons do.
///
/// # Errors
/// The reason for which it has not succeeded, in one line, with the last line that it has said.
pub fn run(command: &mut Command, limit: Duration) -> Result<(), String> {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(|error| format!("it cannot be run: {error}"))?;
    let pid = Pid::from_child(&child);
    let mut said = Vec::new();
    let in_time = watch(&mut child, pid, limit, &mut said);
    // Nobody has waited for the program yet, so no other group can have its number.
    let _ = kill_process_group(pid, Signal::KILL);
    let status = child.wait().map_err(|error| format!("its status is not known: {error}"))?;
    let outcome = match in_time {
        true if status.success() => return Ok(()),
        true => status.to_string(),
        false => format!("not done within {}", humantime::format_duration(limit)),
    };
    let said = String::from_utf8_lossy(&said);
    Err(format!("{outcome}: {}", said.lines().last().unwrap_or("it says nothing")))
}

/// Waits until a program has ended; false if its time is over before.
fn watch(child: &mut Child, pid: Pid, limit: Duration, said: &mut Vec<u8>) -> bool {
    let until = Instant::now() + limit;
    let end = pidfd_open(pid, PidfdFlags::empty()).ok();
    let mut stderr = child.stderr.take().filter(|stderr| fcntl_setfl(stderr, OFlags::NONBLOCK).is_ok());
    loop {
        if has_ended(pid) {
            for _ in 0..LAST_READS {
                take_words(&mut stderr, said);
            }
            return true;
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let pause = if end.is_some() { left } else { left.min(LOOK) };
        let pause = Timespec { tv_sec: pause.as_secs() as i64, tv_nsec: pause.subsec_nanos().into() };
        let mut sources: Vec<PollFd<'_>> = end.iter().map(|end| PollFd::new(end, PollFlags::IN)).collect();
        sources.extend(stderr.iter().map(|stderr| PollFd::new(stderr, PollFlags::IN)));
        // After a signal, all is looked at once more.
        let _ = poll(&mut sources, Some(&pause));
        take_words(&mut stderr, said);
    }
}

/// True if a program has ended, for whose end nobody has waited yet.
fn has_ended(pid: Pid) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(waitid(WaitId::Pid(pid), options), Ok(None) | Err(rustix::io::Errno::INTR))
}

/// Takes what a program has said since; at the end of its words, the pipe is closed.
fn take_words(stderr: &mut Option<ChildStderr>, said: &mut Vec<u8>) {
    let Some(pipe) = stderr else { return };
    let mut octets = [0; 4096];
    match pipe.read(&mut octets) {
        Ok(count @ 1..) => {
            said.extend_from_slice(&octets[..count]);
            said.drain(..said.len().saturating_sub(KEPT));
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
        Ok(_) | Err(_) => *stderr = None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TemporaryDirectory;
    use std::fs;

    const LONG: Duration = Duration::from_secs(3600);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    /// Waits until the process whose id a script has written to this file is gone.
    fn is_gone(file: &std::path::Path) {
        let id = fs::read_to_string(file).unwrap().trim().to_owned();
        let state = || fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // Its parent has ended, and whoever takes it over may leave it as a zombie.
        while !matches!(state().rsplit(')').next().and_then(|rest| rest.trim().chars().next()), None | Some('Z')) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_outcome_of_a_script_is_told_with_its_last_words() {
        assert_eq!(run(&mut shell("echo well >&2"), LONG), Ok(()));
        assert_eq!(run(&mut shell("echo one >&2; echo two >&2; exit 3"), LONG), Err("exit status: 3: two".into()));
        assert_eq!(run(&mut shell("exit 1"), LONG), Err("exit status: 1: it says nothing".into()));
        assert!(run(&mut Command::new("/no/such/script"), LONG).unwrap_err().starts_with("it cannot be run: "));
        // More than a pipe holds.
        let much = "i=0; while [ $i -lt 3000 ]; do echo 0123456789012345678901234567890123456789 >&2; i=$((i+1)); done";
        assert_eq!(run(&mut shell(&format!("{much}; echo end >&2; false")), LONG), Err("exit status: 1: end".into()));
    }

    #[test]
    fn a_script_that_hangs_is_ended_with_all_that_it_has_started() {
        let directory = TemporaryDirectory::new("script");
        let file = directory.path().join("pid");
        let script = format!("sleep 1000 & echo $! >{0}.new; mv {0}.new {0}; echo here >&2; wait", file.display());
        // The time is over at some moment; here, one after the script has begun.
        let mut limit = Duration::from_millis(50);
        while !file.exists() {
            let outcome = run(&mut shell(&script), limit).unwrap_err();
            assert!(outcome.starts_with("not done within "), "{outcome}");
            limit *= 2;
        }
        is_gone(&file);
    }

    #[test]
    fn what_a_script_leaves_in_the_background_is_not_waited_for_and_ends() {
        let directory = TemporaryDirectory::new("background");
        let file = directory.path().join("pid");
        assert_eq!(run(&mut shell(&format!("sleep 1000 & echo $! >{}", file.display())), LONG), Ok(()));
        is_gone(&file);
    }
}
