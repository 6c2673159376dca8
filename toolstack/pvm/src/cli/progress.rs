//! The progress of a long operation: one line on a terminal's standard error, removed when it is
//! done.

use std::io::{IsTerminal, Write, stderr};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::plain::plain;

/// Time before the line appears.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time between updates of the line.
const INTERVAL: Duration = Duration::from_secs(1);

/// Shows a line, from a second after its creation until it is dropped.
#[derive(Debug)]
pub struct Progress(Option<(Sender<()>, JoinHandle<()>)>);

impl Progress {
    /// Shows `what` as the reason for the wait, if standard error is a terminal.
    pub fn new(what: impl Into<String>) -> Self {
        if !stderr().is_terminal() {
            return Self(None);
        }
        let what = plain(&what.into());
        let (sender, done) = channel();
        let shown = move || {
            let began = Instant::now();
            let mut wait = PATIENCE;
            while done.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                let _ = write!(stderr(), "\r\x1b[Kpvm: {what} ... {} s", began.elapsed().as_secs());
                wait = INTERVAL;
            }
            if wait == INTERVAL && began.elapsed() >= PATIENCE {
                let _ = write!(stderr(), "\r\x1b[K");
            }
        };
        Self(thread::Builder::new().spawn(shown).ok().map(|thread| (sender, thread)))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.0.take() {
            drop(sender);
            let _ = thread.join();
        }
    }
}
