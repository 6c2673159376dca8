//! Jobs: work that is not urgent, done in small steps.
//!
//! The time of a step is counted to the family that it is done for. The next step is one of the
//! family that has had the least time. So a family that has the engine build and clear away without
//! end keeps no other one waiting. A family that had no jobs begins level with the others, and
//! cannot save time up.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use zooid_fork_plan::id::PvmId;

use super::build::Building;
use super::end::Reaping;

/// Work that is not urgent.
pub(super) enum Job<M> {
    /// Builds a prepared domain.
    Build(Box<Building<M>>),
    /// Brings the domains that are prepared for this one up to date, from this table on.
    Refresh(PvmId, usize),
    /// Introduces a child to xenstored and xenconsoled. The time from a failure to the next attempt.
    Introduce(PvmId, Duration),
    /// Removes what a pVM has left.
    Reap(Reaping<M>),
    /// Serves a waiting request of the family, or makes a part of an object that one of them asks
    /// for.
    Deferred(PvmId),
    /// Reads a part of a library.
    Library,
    /// Frees memory that is not needed any more, which takes time.
    Drop(Box<dyn Send>),
}

/// Jobs by family.
pub(super) struct Jobs<M> {
    queues: BTreeMap<PvmId, Queue<M>>,
    /// The time that the family served last had had then.
    now: Duration,
    /// Number of steps that were given out.
    steps: u64,
}

struct Queue<M> {
    jobs: VecDeque<Job<M>>,
    /// Time that the family has had.
    had: Duration,
    /// Number of the step that it had last.
    step: u64,
}

impl<M> Jobs<M> {
    pub(super) fn new() -> Self {
        Self { queues: BTreeMap::new(), now: Duration::ZERO, steps: 0 }
    }

    /// Adds a job of the family with this root behind its others.
    pub(super) fn push(&mut self, family: PvmId, job: Job<M>) {
        self.queue(family).jobs.push_back(job);
    }

    /// Adds a job before the others of its family.
    pub(super) fn push_first(&mut self, family: PvmId, job: Job<M>) {
        self.queue(family).jobs.push_front(job);
    }

    fn queue(&mut self, family: PvmId) -> &mut Queue<M> {
        let had = self.now;
        let queue = self.queues.entry(family).or_insert_with(|| Queue { jobs: VecDeque::new(), had, step: 0 });
        if queue.jobs.is_empty() {
            queue.had = queue.had.max(had);
        }
        queue
    }

    /// The next job, and its family.
    pub(super) fn pop(&mut self) -> Option<(PvmId, Job<M>)> {
        let waiting = self.queues.iter_mut().filter(|(_, queue)| !queue.jobs.is_empty());
        let (family, queue) = waiting.min_by_key(|(_, queue)| (queue.had, queue.step))?;
        self.steps += 1;
        queue.step = self.steps;
        self.now = self.now.max(queue.had);
        Some((*family, queue.jobs.pop_front()?))
    }

    /// Counts the time of a step to its family. A family without jobs is forgotten once the others
    /// have had as much.
    pub(super) fn charge(&mut self, family: PvmId, time: Duration) {
        if let Some(queue) = self.queues.get_mut(&family) {
            queue.had += time;
        }
        let now = self.now;
        self.queues.retain(|_, queue| !queue.jobs.is_empty() || queue.had > now);
    }

    /// There is no job.
    pub(super) fn is_empty(&self) -> bool {
        self.queues.values().all(|queue| queue.jobs.is_empty())
    }

    /// All waiting jobs.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Job<M>> {
        self.queues.values().flat_map(|queue| &queue.jobs)
    }

    /// As [`iter`](Self::iter), to be changed.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Job<M>> {
        self.queues.values_mut().flat_map(|queue| &mut queue.jobs)
    }

    /// Number of domains that are being built for a pVM.
    pub(super) fn builds_for(&self, parent: PvmId) -> usize {
        self.iter().filter(|job| matches!(job, Job::Build(building) if building.parent == parent)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xen_abi::DomId;

    fn family(number: u16) -> PvmId {
        PvmId::new(DomId(number), 1).unwrap()
    }

    #[test]
    fn each_family_gets_its_share_however_many_jobs_another_has() {
        let mut jobs: Jobs<()> = Jobs::new();
        (0..1000).for_each(|_| jobs.push(family(1), Job::Library));
        for _ in 0..10 {
            let (family, _) = jobs.pop().unwrap();
            jobs.charge(family, Duration::from_millis(5));
        }
        jobs.push(family(2), Job::Library);
        jobs.push(family(2), Job::Library);
        let mut order = Vec::new();
        for _ in 0..4 {
            let (family, _) = jobs.pop().unwrap();
            jobs.charge(family, Duration::from_millis(5));
            order.push(family.domain().0);
        }
        order.sort_unstable();
        assert_eq!(order, [1, 1, 2, 2]);
    }

    #[test]
    fn time_cannot_be_saved_up() {
        let mut jobs: Jobs<()> = Jobs::new();
        jobs.push(family(1), Job::Library);
        let (first, _) = jobs.pop().unwrap();
        jobs.charge(first, Duration::from_secs(10));
        jobs.push(first, Job::Library);
        assert_eq!(jobs.pop().unwrap().0, first);
        jobs.push(family(2), Job::Library);
        jobs.push(first, Job::Library);
        let (second, _) = jobs.pop().unwrap();
        assert_eq!(second, family(2), "it is where the first one is, and had no step yet");
        jobs.charge(second, Duration::from_millis(1));
        jobs.push(family(2), Job::Library);
        assert_eq!(jobs.pop().unwrap().0, first, "one millisecond more is more");
        assert!(!jobs.is_empty());
    }
}
