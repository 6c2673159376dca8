//! What is shown while something takes long: one line on a terminal's standard error, gone when it is done.

use std::io::{IsTerminal, Write, stderr};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Before this much time nobody wants to know.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the line is written anew.
const INTERVAL: Duration = Duration::from_secs(1);

/// Shows a line from a second after it was made until it is dropped.
#[derive(Debug)]
pub struct Progress(Option<(Sender<()>, JoinHandle<()>)>);

impl Progress {
    /// Says `what` is being waited for, if there is a terminal to say it on.
    pub fn new(what: impl Into<String>) -> Self {
        if !stderr().is_terminal() {
            return Self(None);
        }
        let what = what.into();
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
