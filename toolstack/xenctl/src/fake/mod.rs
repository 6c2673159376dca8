//! A hypervisor in memory, for tests of users of [`Hypervisor`](crate::Hypervisor).
//!
//! [`FakeXen`] has domains, frames with owners and reference counts, page tables, grants and ports.
//! It refuses the same as Xen, with the same errors. [`Guest`] acts as a domain does. Nothing runs:
//! a test does the acts of vcpus.
//!
//! - [`Census`] counts resources in use. If it is the same before and after, nothing leaks.
//! - [`FakeXen::set_plan`] asks a function of the test at each operation for a fault. The function
//!   may let time pass.
//! - [`FakeXen::inject`] lets the n-th operation fail, or ends the process before or after it. Then
//!   all that the process holds is gone, and its operations have no effect, until
//!   [`FakeXen::restart`].
//!
//! [`FakeXenstored`] is a xenstored beside it.
//!
//! It knows nothing of time, of CPUs, of the TLB, or of guest user mode.
//! [`answers`](crate::answers) compares its rules with Xen's.
#![forbid(unsafe_code)]

mod frames;
mod guest;
mod hypervisor;
mod ports;
mod process;
mod state;
#[cfg(test)]
mod store_tests;
#[cfg(test)]
mod tests;
mod xenstored;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use xen_abi::{DomId, Errno};

use crate::error::Error;
pub use guest::Guest;
pub use process::{FakeEvents, FakeMapping};
use state::State;
pub use xenstored::FakeXenstored;

/// The error of all operations of a process that was ended.
pub const KILLED: Errno = Errno::EIO;

/// The hypervisor. Clones are the same one.
#[derive(Clone, Debug)]
pub struct FakeXen {
    shared: Arc<Shared>,
    /// Operations count as the process's; else as another tool's in dom0.
    counted: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Signalled at each change.
    changed: Condvar,
}

/// A fault at an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The operation does nothing and fails with this error.
    Fail(Errno),
    /// The process ends before it.
    KillBefore,
    /// The process ends after it, before it sees the result.
    KillAfter,
}

/// A test's plan of faults.
#[derive(Default)]
struct Plan(Option<Box<dyn FnMut(&'static str) -> Option<Fault> + Send>>);

impl std::fmt::Debug for Plan {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Plan")
    }
}

/// An entry of a domain's level 1 table that names a frame of another domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignEntry {
    /// The domain with the table.
    pub domain: DomId,
    /// The frame.
    pub mfn: xen_abi::Mfn,
    /// The owner of the frame.
    pub owner: DomId,
    /// The domain can write it.
    pub writable: bool,
}

/// Numbers of resources in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Census {
    /// Domains without dom0.
    pub domains: usize,
    /// Those among them that are dying.
    pub dying: usize,
    /// Free pages.
    pub free_pages: u64,
    /// References to frames: page-table entries, pins, vcpus, mappings.
    pub references: usize,
    /// Ports of all domains, dom0 included.
    pub ports: usize,
    /// Mappings of the process.
    pub mappings: usize,
}

impl FakeXen {
    /// A machine with `pages` pages of free memory, and dom0.
    pub fn new(pages: u64) -> Self {
        FakeXen {
            shared: Arc::new(Shared { state: Mutex::new(State::new(pages)), changed: Condvar::new() }),
            counted: true,
        }
    }

    /// The same machine with domain numbers up to `highest`, after which they begin anew.
    pub fn with_domain_numbers(self, highest: u16) -> Self {
        self.lock().highest_domain = highest;
        self
    }

    /// The next domain gets this number, or the first free one behind it.
    pub fn set_next_domain(&self, number: u16) {
        self.lock().last_domain = number.saturating_sub(1);
    }

    /// The same machine for other tools of dom0. Their operations do not count as the process's.
    pub fn uncounted(&self) -> Self {
        FakeXen { counted: false, ..self.clone() }
    }

    /// The domain, for its acts.
    pub fn guest(&self, domain: DomId) -> Guest {
        Guest::new(self.clone(), domain)
    }

    /// Every domain but dom0, as [`Hypervisor::domains`](crate::Hypervisor::domains) has them,
    /// without an operation of the process.
    pub fn guests(&self) -> Vec<crate::DomainInfo> {
        let state = self.lock();
        let ids = state.domains.keys().filter(|id| **id != DomId::DOM0);
        ids.filter_map(|id| state.info(*id)).collect()
    }

    /// The same machine, whose dom0 can map `limit` granted pages at once (`max_maptrack_frames`).
    pub fn with_maptrack(self, limit: usize) -> Self {
        self.lock().maptrack = limit;
        self
    }

    /// Granted pages that dom0 has mapped.
    pub fn maptrack(&self) -> usize {
        self.lock().mappings.values().map(|mapped| mapped.grants.len()).sum()
    }

    /// Entries of all level 1 tables that are in use as such and name another domain's frame.
    pub fn foreign_entries(&self) -> Vec<ForeignEntry> {
        self.lock().frames.foreign_entries()
    }

    /// Changes whenever [`foreign_entries`](Self::foreign_entries) does.
    pub fn entries_version(&self) -> u64 {
        self.lock().frames.changes
    }

    /// All frames that are in use and not Xen's own, with their owners.
    pub fn all_frames(&self) -> Vec<(xen_abi::Mfn, DomId)> {
        self.lock().frames.all().filter(|(_, frame)| !frame.special).map(|(mfn, frame)| (mfn, frame.owner)).collect()
    }

    /// A port of the process has an event that the process was not told.
    pub fn has_events(&self) -> bool {
        self.lock().ports.has_events(DomId::DOM0)
    }

    /// The present numbers.
    pub fn census(&self) -> Census {
        self.lock().census()
    }

    /// Has `fault` happen at an operation: 1 is the next. Only one fault can wait.
    pub fn inject(&self, operation: usize, fault: Fault) {
        let mut state = self.lock();
        state.fault = Some((state.operations.len() + operation, fault));
    }

    /// Asks `plan` for a fault at each later operation, by its name. It must not use this machine.
    pub fn set_plan(&self, plan: impl FnMut(&'static str) -> Option<Fault> + Send + 'static) {
        self.lock().plan = Plan(Some(Box::new(plan)));
    }

    /// The operations of the process so far, by name: the numbers for [`inject`](Self::inject).
    pub fn operations(&self) -> Vec<&'static str> {
        self.lock().operations.clone()
    }

    /// The process was ended.
    pub fn is_killed(&self) -> bool {
        self.lock().killed
    }

    /// Begins a new process. Domains stay as they are.
    pub fn restart(&self) {
        let mut state = self.lock();
        (state.killed, state.fault) = (false, None);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state without an operation of the process.
    fn with<T>(&self, body: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = body(&mut state);
        state.reap();
        self.shared.changed.notify_all();
        result
    }

    /// Does an operation of the process, or its injected fault.
    fn operate<T>(&self, name: &'static str, body: impl FnOnce(&mut State) -> Result<T, Errno>) -> Result<T, Error> {
        let result = self.with(|state| {
            if !self.counted {
                return body(state);
            }
            if state.killed {
                return Err(KILLED);
            }
            state.operations.push(name);
            let fault = match state.fault {
                Some((at, fault)) if at == state.operations.len() => Some(fault),
                _ => state.plan.0.as_mut().and_then(|plan| plan(name)),
            };
            match fault {
                None => return body(state),
                Some(Fault::Fail(errno)) => return Err(errno),
                Some(Fault::KillBefore) => {}
                Some(Fault::KillAfter) => drop(body(state)),
            }
            state.kill();
            Err(KILLED)
        });
        result.map_err(|errno| Error::Refused(name, errno))
    }
}
