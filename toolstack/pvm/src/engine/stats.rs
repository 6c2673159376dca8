//! Counters and times.

use std::collections::BTreeMap;
use std::time::Instant;

use super::api::StepTime;

/// A part of a fork that is no single operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// From the daemon's look at the control page to its decision.
    Plan,
    /// From that look to the reply.
    Total,
}

impl Step {
    const ALL: [Self; 2] = [Self::Plan, Self::Total];

    /// Its name in docs/protocols/fork.md.
    const fn name(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Total => "request to reply",
        }
    }
}

/// The duration and the number of runs of one step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Time {
    count: u64,
    last: u64,
    sum: u64,
    max: u64,
}

impl Time {
    /// Counts a run that began at this moment.
    pub fn add(&mut self, began: Instant) {
        let ns = began.elapsed().as_nanos() as u64;
        self.count += 1;
        self.last = ns;
        self.sum += ns;
        self.max = self.max.max(ns);
    }

    /// The number of runs.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The same for users, under a name.
    pub fn named(&self, step: impl Into<String>) -> StepTime {
        StepTime {
            step: step.into(),
            count: self.count,
            last_ns: self.last,
            mean_ns: self.sum.checked_div(self.count).unwrap_or(0),
            max_ns: self.max,
        }
    }
}

/// Counters since the start.
#[derive(Debug, Default)]
pub struct Counters {
    pub forks: u64,
    pub prepared: u64,
    pub ended: u64,
    relinked: u64,
    refused: BTreeMap<u32, u64>,
    times: [Time; Step::ALL.len()],
}

impl Counters {
    /// Counts a step that began at this moment.
    pub fn step(&mut self, step: Step, began: Instant) {
        self.times[step as usize].add(began);
    }

    /// Counts entries that were brought up to date in a fork.
    pub fn relinked(&mut self, entries: u64) {
        self.relinked += entries;
    }

    /// Counts a refused fork.
    pub fn refuse(&mut self, errno: u32) {
        *self.refused.entry(errno).or_default() += 1;
    }

    /// Entries that were brought up to date in forks.
    pub fn entries(&self) -> u64 {
        self.relinked
    }

    /// Refused forks by error number.
    pub fn refused(&self) -> Vec<(u32, u64)> {
        self.refused.iter().map(|(errno, count)| (*errno, *count)).collect()
    }

    /// The times of all steps.
    pub fn steps(&self) -> impl Iterator<Item = StepTime> {
        Step::ALL.into_iter().map(|step| self.times[step as usize].named(step.name()))
    }
}
