//! Signals that ask `pvm` to end. They are put off while it makes something that it would leave
//! half made.

use std::fs;
use std::os::raw::c_int;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use super::error::Error;

/// A part of the program that a signal does not interrupt. When it is dropped, a signal that has
/// come meanwhile ends the program.
#[derive(Debug)]
pub struct Deferred {
    /// The last signal that has come; 0 for none.
    arrived: Arc<AtomicUsize>,
    /// The part is over: signals act as usual.
    over: Arc<AtomicBool>,
}

impl Deferred {
    /// Begins a part. A signal that the program was started to ignore stays ignored.
    ///
    /// # Errors
    /// Linux refuses to have a signal handled.
    pub fn begin() -> Result<Self, Error> {
        let deferred = Self { arrived: Arc::default(), over: Arc::default() };
        for signal in [SIGHUP, SIGINT, SIGTERM].into_iter().filter(|signal| !is_ignored(*signal)) {
            flag::register_conditional_default(signal, deferred.over.clone())
                .and_then(|_| flag::register_usize(signal, deferred.arrived.clone(), signal as usize))
                .map_err(|error| Error::Io("handle signals".to_owned(), error))?;
        }
        Ok(deferred)
    }

    /// Fails when a signal has come: unfinished work is to be undone.
    ///
    /// # Errors
    /// [`Error::Interrupted`]. It is never shown: the program ends by the signal when the value is
    /// dropped.
    pub fn check(&self) -> Result<(), Error> {
        if self.arrived.load(Ordering::SeqCst) == 0 { Ok(()) } else { Err(Error::Interrupted) }
    }
}

impl Drop for Deferred {
    fn drop(&mut self) {
        // In this order: a signal that comes in between ends the program by itself.
        self.over.store(true, Ordering::SeqCst);
        match self.arrived.load(Ordering::SeqCst) as c_int {
            0 => {}
            // It does not return.
            signal => drop(low_level::emulate_default_handler(signal)),
        }
    }
}

/// The program was started with this signal ignored, as by `nohup`.
fn is_ignored(signal: c_int) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
