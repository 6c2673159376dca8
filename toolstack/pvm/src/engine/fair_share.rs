//! A family's fair share of the daemon's time. A family that asks for domains, shared memory or
//! libraries without end must not keep the daemon from others.
//!
//! A family's requests are served at once while they take no more than its share of the time.
//! Beyond that, if there are other families, they wait until the share has grown again. The share
//! is small, because xenstored and others in dom0 work for each request, too, and the guests need
//! the processor. A large object is made in steps, which count as requests do.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use xen_abi::Mfn;
use xenctl::Hypervisor;
use zooid_fork_plan::id::PvmId;
use zooid_fork_plan::wire::operation;

use super::books::{Pending, Rate};
use super::core::{Host, Timer};
use super::jobs::Job;
use super::memory_owner::Asker;

/// The share of the time of a family where there are others, and the longest time in a row.
const SHARE: f64 = 0.25;
const BURST: Duration = Duration::from_millis(100);

/// Refusals of libraries, in a second, that are reported for a family.
const REFUSALS: u32 = 10;

/// A family's share of the time, and the requests that wait for it.
#[derive(Debug)]
pub struct FairShare {
    /// Seconds for which the family is still served at once; negative after more than its share.
    pub(super) left: f64,
    at: Instant,
    /// Members with a request that waits, each once.
    pub(super) waiting: VecDeque<PvmId>,
    /// The object that is being made.
    pub(super) making: Option<Making>,
    /// A job or a timer for the next waiting request exists.
    queued: bool,
    /// The rate of reported refusals of libraries.
    told: Rate,
}

/// A named object that is being made.
#[derive(Debug)]
pub struct Making {
    pub maker: Asker,
    pub name: Vec<u8>,
    pub pages: usize,
    pub number: u32,
    /// The frames that it has.
    pub frames: Vec<Mfn>,
    /// Number of nodes that record them.
    pub parts: usize,
}

impl FairShare {
    /// The share of a new family.
    pub fn new(now: Instant) -> Self {
        let left = BURST.as_secs_f64();
        let told = Rate::full(REFUSALS, now);
        Self { left, at: now, waiting: VecDeque::new(), making: None, queued: false, told }
    }

    /// Adds the share of the time since the last call.
    fn refill(&mut self, now: Instant) {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * SHARE;
        (self.left, self.at) = ((self.left + gained).min(BURST.as_secs_f64()), now);
    }

    /// A request may be served now.
    fn may_serve(&mut self, operation: u32, now: Instant) -> bool {
        self.refill(now);
        // Two requests could make the same object.
        let makes = operation == operation::CREATE && self.making.is_some();
        self.left > 0.0 && self.waiting.is_empty() && !makes
    }
}

impl<H: Hypervisor> Host<H> {
    /// Serves a member's request, or defers it.
    pub(super) fn serve_or_defer(&mut self, id: PvmId, operation: u32, count: u32) {
        let now = self.clock.now();
        let Some((pvm, family)) = self.books.with_family(id) else { return };
        let root = pvm.root();
        if family.share.may_serve(operation, now) {
            self.serve_request(id, operation, count);
            return self.spend(root, now);
        }
        pvm.pending = Some(Pending::Deferred(operation, count));
        if !family.share.waiting.contains(&id) {
            family.share.waiting.push_back(id);
        }
        self.queue_deferred(root);
    }

    /// Serves a request now.
    fn serve_request(&mut self, id: PvmId, operation: u32, count: u32) {
        if operation != operation::PREPARE {
            return self.serve_ipc(id, operation, count);
        }
        if let Some(pvm) = self.books.get_mut(id) {
            pvm.pending = Some(Pending::Prepare(count));
        }
        self.go_on_preparing(id);
    }

    /// Serves a waiting request, or makes a part of an object.
    pub(super) fn serve_deferred(&mut self, root: PvmId) {
        let began = self.clock.now();
        let Some(family) = self.books.family_mut(root) else { return };
        let share = &mut family.share;
        share.queued = false;
        share.refill(began);
        if let Some(making) = share.making.take() {
            self.make_step(root, making);
        } else if let Some(id) = share.waiting.pop_front()
            && let Some(Pending::Deferred(operation, count)) = self.books.get(id).and_then(|pvm| pvm.pending)
        {
            self.serve_request(id, operation, count);
        }
        self.spend(root, began);
        self.queue_deferred(root);
    }

    /// Defers the rest of an object.
    pub(super) fn make_later(&mut self, root: PvmId, making: Making) {
        if let Some(pvm) = self.books.get_mut(making.maker.member) {
            pvm.pending = Some(Pending::Create);
        }
        if let Some(family) = self.books.family_mut(root) {
            family.share.making = Some(making);
        }
        self.queue_deferred(root);
    }

    /// One more refusal of a library may be reported.
    pub(super) fn may_tell(&mut self, root: PvmId) -> bool {
        let now = self.clock.now();
        self.books.family_mut(root).is_some_and(|family| family.share.told.take(1, REFUSALS, now))
    }

    /// Counts the time since `began` to a family.
    pub(super) fn spend(&mut self, root: PvmId, began: Instant) {
        let time = self.clock.since(began);
        if let Some(family) = self.books.family_mut(root) {
            family.share.left -= time.as_secs_f64();
        }
    }

    fn queue_deferred(&mut self, root: PvmId) {
        let has_others = self.books.families().any(|(family, _)| family != root);
        let Some(family) = self.books.family_mut(root) else { return };
        let share = &mut family.share;
        if share.queued || share.making.is_none() && share.waiting.is_empty() {
            return;
        }
        share.queued = true;
        if has_others && share.left < 0.0 {
            let wait = Duration::from_secs_f64(-share.left / SHARE);
            self.after(wait, Timer::Deferred(root));
        } else {
            self.jobs.push(root, Job::Deferred(root));
        }
    }

    /// A family's share has grown again: serves its next request as a job.
    pub(super) fn share_has_grown(&mut self, root: PvmId) {
        self.jobs.push(root, Job::Deferred(root));
    }

    /// At the end: gives back the frames of unfinished objects. The next daemon makes them anew.
    pub(super) fn abandon_unfinished(&mut self) {
        let roots: Vec<PvmId> = self.books.families().map(|(root, _)| root).collect();
        for root in roots {
            let making = self.books.family_mut(root).and_then(|family| family.share.making.take());
            if let Some(making) = making {
                self.abandon_making(root, making);
            }
        }
    }
}
