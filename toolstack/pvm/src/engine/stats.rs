//! What is counted and timed.

use std::collections::BTreeMap;
use std::time::Instant;

use super::api::StepTime;

/// A step of a fork, from the daemon's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// From the daemon's waking up to where the request is understood.
    Wake,
    /// Bringing the prepared domains up to date.
    Mend,
    /// Making them children.
    Commit,
    /// From waking up to the reply.
    Total,
}

impl Step {
    const ALL: [Self; 4] = [Self::Wake, Self::Mend, Self::Commit, Self::Total];

    /// In words of docs/protocols/fork.md.
    const fn name(self) -> &'static str {
        match self {
            Self::Wake => "plan",
            Self::Mend => "apply",
            Self::Commit => "commit and go",
            Self::Total => "request to reply",
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Time {
    count: u64,
    last: u64,
    sum: u64,
    max: u64,
}

/// Counters since the start.
#[derive(Debug, Default)]
pub struct Counters {
    pub forks: u64,
    pub prepared: u64,
    pub ended: u64,
    mended: u64,
    refused: BTreeMap<u32, u64>,
    times: [Time; Step::ALL.len()],
}

impl Counters {
    /// A step is done that began then.
    pub fn step(&mut self, step: Step, began: Instant) {
        let ns = began.elapsed().as_nanos() as u64;
        let time = &mut self.times[step as usize];
        time.count += 1;
        time.last = ns;
        time.sum += ns;
        time.max = time.max.max(ns);
    }

    /// So many entries were brought up to date in a fork.
    pub fn mended(&mut self, entries: u64) {
        self.mended += entries;
    }

    /// A fork was refused.
    pub fn refuse(&mut self, errno: u32) {
        *self.refused.entry(errno).or_default() += 1;
    }

    /// Entries that were brought up to date in forks.
    pub fn entries(&self) -> u64 {
        self.mended
    }

    /// Refused forks by error number.
    pub fn refused(&self) -> Vec<(u32, u64)> {
        self.refused.iter().map(|(errno, count)| (*errno, *count)).collect()
    }

    /// The times of all steps.
    pub fn steps(&self) -> Vec<StepTime> {
        let time = |step: Step| {
            let time = &self.times[step as usize];
            StepTime {
                step: step.name().to_owned(),
                count: time.count,
                last_ns: time.last,
                mean_ns: time.sum.checked_div(time.count).unwrap_or(0),
                max_ns: time.max,
            }
        };
        Step::ALL.into_iter().map(time).collect()
    }
}
