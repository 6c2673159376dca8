//! The engine: finds pVMs, keeps domains prepared for each, makes them children, and clears away what has ended.
//!
//! It is one thread with one loop over event channels, xenstore and [`Command`]s, because a fork is a race against nobody but its
//! own length: no lock is taken and no thread is woken on the way from the guest's request to the reply.
//! A [`Handle`] is how the rest of the daemon talks to it.

mod api;
mod config;
mod handle;

pub use api::{
    Backend, Command, EndStatus, Ended, Error, Event, EventKind, Kind, PoolInfo, PvmInfo, Reply, State, Stats,
    StepTime, Target,
};
pub use config::{BackendChoice, ChildVif, Config, DieAt, Overcommit, Quota};
pub use handle::{Closed, Handle, Inbox, pair};

use std::fmt;
use std::thread::{self, JoinHandle};

/// Why the engine cannot start.
#[derive(Debug)]
pub enum StartError {
    /// Linux gives no thread, or no eventfd.
    Linux(std::io::Error),
}

/// Starts the engine's thread, which ends after [`Command::Quit`].
///
/// # Errors
/// See [`StartError`].
pub fn start(config: Config) -> Result<(Handle, JoinHandle<()>), StartError> {
    let (handle, inbox) = pair().map_err(StartError::Linux)?;
    let run = move || drop((config, inbox));
    let thread = thread::Builder::new().name("engine".to_owned()).spawn(run).map_err(StartError::Linux)?;
    Ok((handle, thread))
}

impl fmt::Display for StartError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linux(error) => write!(out, "no thread for the engine: {error}"),
        }
    }
}

impl std::error::Error for StartError {}
