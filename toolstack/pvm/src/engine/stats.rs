//! What is counted and timed.

use std::collections::BTreeMap;
use std::time::Instant;

use super::api::StepTime;

/// A part of a fork that is no single operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// From the daemon's look at the control page to where it is known what to do.
    Plan,
    /// From that look to the reply.
    Total,
}

impl Step {
    const ALL: [Self; 2] = [Self::Plan, Self::Total];

    /// In words of docs/protocols/fork.md.
    const fn name(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Total => "request to reply",
        }
    }
}

/// How long something took, and how often it was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Time {
    count: u64,
    last: u64,
    sum: u64,
    max: u64,
}

impl Time {
    /// It was done, and began then.
    pub fn add(&mut self, began: Instant) {
        let ns = began.elapsed().as_nanos() as u64;
        self.count += 1;
        self.last = ns;
        self.sum += ns;
        self.max = self.max.max(ns);
    }

    /// How often it was done.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// For a user, with a name.
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
    /// A step is done that began then.
    pub fn step(&mut self, step: Step, began: Instant) {
        self.times[step as usize].add(began);
    }

    /// So many entries were brought up to date in a fork.
    pub fn relinked(&mut self, entries: u64) {
        self.relinked += entries;
    }

    /// A fork was refused.
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
