//! The engine: finds pVMs, keeps domains prepared for each, makes them children, and removes those
//! that have ended.
//!
//! It is one thread with one loop over event channels, xenstore and [`Command`]s. So no lock is
//! taken and no thread is woken on the way from a guest's request to fork to the reply. The rest of
//! the daemon talks to it by a [`Handle`].

mod api;
mod books;
mod build;
mod clock;
mod commands;
mod config;
mod core;
mod end;
mod executor;
mod failure;
mod fair_share;
mod forks;
mod grant_backend;
mod handle;
pub(crate) mod home;
mod introduction;
mod ipc;
mod jobs;
mod libraries;
mod mac;
mod members;
mod memory_owner;
mod object_records;
mod parent;
mod pool;
mod quiet;
mod quota;
mod relink;
mod requests;
mod rest;
mod sabotage;
mod script;
mod standstill;
mod stats;
mod tables;
#[cfg(test)]
mod tests;
pub(crate) mod toolstack;
mod updates;
pub(crate) mod vif;
mod watch;

pub use api::{
    Backend, Command, EndStatus, Ended, Error, Event, EventKind, Kind, ObjectInfo, PoolInfo, PvmInfo, Reply, State,
    Stats, StepTime, Target, Update,
};
pub use config::{Announce, BackendChoice, ChildVif, Config, DieAt, Overcommit, Point, Quota};
pub use handle::{Closed, Handle, Inbox, pair};

use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::{fmt, io};

use xen_abi::{DomId, Errno};
use xenctl::xenstore::{self, Store};
use xenctl::{Hypervisor, OpenError, Xen};
use zooid_fork_plan::link;

use self::clock::Clock;
use self::core::Engine;

/// The reason for which the engine cannot start.
#[derive(Debug)]
pub enum StartError {
    /// Linux gives no thread, or no eventfd.
    Linux(io::Error),
    /// There is no way to Xen, or its version is unknown.
    Xen(xenctl::Error),
    /// There is no way to xenstore.
    Connect(OpenError),
    /// xenstore refuses a watch.
    Store(xenstore::Error),
}

/// Starts the engine's thread, which ends after [`Command::Quit`].
///
/// # Errors
/// See [`StartError`].
pub fn start(config: Config) -> Result<(Handle, JoinHandle<()>), StartError> {
    let xen = Xen::open().map_err(StartError::Xen)?;
    let store = Store::connect().map_err(StartError::Connect)?;
    start_with(Arc::new(xen), Arc::new(store), config)
}

/// The way by which children get their parents' pages. Only a PV dom0 can make foreign entries: Xen
/// gives others no `mmu_update`.
fn choose_backend<H: Hypervisor>(xen: &H, choice: BackendChoice) -> link::Backend {
    let refusal = || xen.mmu_update(DomId::DOM0, DomId::SELF, &[]).1.err().and_then(|error| error.errno());
    let is_pv = || refusal() != Some(Errno::ENOSYS);
    match choice {
        BackendChoice::Foreign => link::Backend::Foreign,
        BackendChoice::Grant => link::Backend::Grant,
        BackendChoice::Auto if is_pv() => link::Backend::Foreign,
        BackendChoice::Auto => {
            log::warn!(
                "this dom0 cannot write page tables of others (it is not PV): children get copies (backend grant)"
            );
            link::Backend::Grant
        }
    }
}

/// Starts the engine's thread on this hypervisor and xenstore.
fn start_with<H: Hypervisor>(
    xen: Arc<H>,
    store: Arc<Store>,
    config: Config,
) -> Result<(Handle, JoinHandle<()>), StartError>
where
    H::Events: AsFd,
{
    let toolstack = Arc::new(toolstack::Xl { store: store.clone() });
    let (engine, handle) = Engine::new(xen, store, toolstack, Clock::host(), config)?;
    let thread = thread::Builder::new().name("engine".to_owned()).spawn(|| engine.run()).map_err(StartError::Linux)?;
    Ok((handle, thread))
}

impl fmt::Display for StartError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linux(error) => write!(out, "no thread for the engine: {error}"),
            Self::Xen(error) => error.fmt(out),
            Self::Connect(error) => error.fmt(out),
            Self::Store(error) => write!(out, "xenstore: {error}"),
        }
    }
}

impl std::error::Error for StartError {}
