//! Whose turn it is: a family that asks for shared memory without end must not keep the daemon from others.
//!
//! What a family asks for is served at once as long as that takes no more than its share of the time. Beyond that its requests wait, where there are
//! other families, until it has not had more than its share: xenstored and others of dom0 work for each request, too, and the guests need the
//! processor. A large object is made in such steps from the start.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use xen_abi::{DomId, Mfn};
use xenctl::Hypervisor;
use zooid_fork_plan::id::PvmId;
use zooid_fork_plan::wire::operation;

use super::core::{Engine, Job, Timer};
use super::memory_owner::Asker;
use super::pvm::Pending;
use super::quota::Rate;

/// For which part of the time a family is served where there are others, and how long at most in a row.
const SHARE: f64 = 0.25;
const BURST: Duration = Duration::from_millis(100);

/// Refusals of libraries that a family may have told in a second.
const REFUSALS: u32 = 10;

/// What a family waits for.
#[derive(Debug)]
pub(super) struct Turns {
    /// Time in seconds for which it is served at once still; less than nothing where it has had more.
    pub(super) left: f64,
    at: Instant,
    /// Who has a request that has to wait, each once.
    pub(super) waiting: VecDeque<DomId>,
    /// What is being made.
    pub(super) making: Option<Making>,
    /// There is a job for it.
    queued: bool,
    /// Refusals of libraries that may be told still.
    told: Rate,
}

/// An object with a name that is being made.
#[derive(Debug)]
pub(super) struct Making {
    /// Where the answer goes.
    pub domain: DomId,
    pub maker: Asker,
    pub name: Vec<u8>,
    pub pages: usize,
    pub number: u32,
    /// Those that it has.
    pub frames: Vec<Mfn>,
    /// Nodes in which they stand.
    pub parts: usize,
}

impl Turns {
    fn new(now: Instant) -> Self {
        let left = BURST.as_secs_f64();
        let told = Rate::full(REFUSALS, now);
        Self { left, at: now, waiting: VecDeque::new(), making: None, queued: false, told }
    }

    /// Counts the time that has gone by.
    fn refill(&mut self, now: Instant) {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * SHARE;
        (self.left, self.at) = ((self.left + gained).min(BURST.as_secs_f64()), now);
    }

    /// Whether a request is to be served now.
    fn is_now(&mut self, operation: u32, now: Instant) -> bool {
        self.refill(now);
        // Two that make something could make the same.
        let makes = operation == operation::CREATE && self.making.is_some();
        self.left > 0.0 && self.waiting.is_empty() && !makes
    }
}

impl<H: Hypervisor> Engine<H> {
    /// A member asks for something: serves it, or puts it off.
    pub(super) fn take_turn(&mut self, domain: DomId, operation: u32, count: u32) {
        let Some(pvm) = self.domains.get_mut(&domain) else { return };
        let root = pvm.root;
        let now = self.clock.now();
        let turns = self.turns.entry(root).or_insert_with(|| Turns::new(now));
        if turns.is_now(operation, now) {
            self.serve_ipc(domain, operation, count);
            return self.spend(root, now);
        }
        pvm.pending = Some(Pending::Turn(operation, count));
        if !turns.waiting.contains(&domain) {
            turns.waiting.push_back(domain);
        }
        self.queue_turn(root);
    }

    /// Does one thing that a family waits for.
    pub(super) fn turn_step(&mut self, root: PvmId) {
        let began = self.clock.now();
        let Some(turns) = self.turns.get_mut(&root) else { return };
        turns.queued = false;
        turns.refill(began);
        if let Some(making) = turns.making.take() {
            self.make_step(root, making);
        } else if let Some(domain) = turns.waiting.pop_front()
            && let Some(Pending::Turn(operation, count)) = self.domains.get(&domain).and_then(|pvm| pvm.pending)
        {
            self.serve_ipc(domain, operation, count);
        }
        self.spend(root, began);
        self.queue_turn(root);
    }

    /// The rest of an object is made later.
    pub(super) fn make_later(&mut self, root: PvmId, making: Making) {
        if let Some(pvm) = self.domains.get_mut(&making.domain) {
            pvm.pending = Some(Pending::Create);
        }
        let now = self.clock.now();
        self.turns.entry(root).or_insert_with(|| Turns::new(now)).making = Some(making);
        self.queue_turn(root);
    }

    /// Whether one more refusal of a library may be told.
    pub(super) fn may_tell(&mut self, root: PvmId) -> bool {
        let now = self.clock.now();
        self.turns.entry(root).or_insert_with(|| Turns::new(now)).told.take(1, REFUSALS, now)
    }

    /// Counts time for a family that has been worked for since `began`.
    pub(super) fn spend(&mut self, root: PvmId, began: Instant) {
        if let Some(turns) = self.turns.get_mut(&root) {
            turns.left -= self.clock.since(began).as_secs_f64();
        }
    }

    fn queue_turn(&mut self, root: PvmId) {
        let has_others = self.domains.values().any(|pvm| pvm.root != root);
        let Some(turns) = self.turns.get_mut(&root) else { return };
        if turns.queued || turns.making.is_none() && turns.waiting.is_empty() {
            return;
        }
        turns.queued = true;
        if has_others && turns.left < 0.0 {
            let wait = Duration::from_secs_f64(-turns.left / SHARE);
            self.after(wait, Timer::Turn(root));
        } else {
            self.jobs.push_back(Job::Turn(root));
        }
    }

    /// A family has waited for its turn.
    pub(super) fn turn_comes(&mut self, root: PvmId) {
        self.jobs.push_back(Job::Turn(root));
    }

    /// At the end: gives back what would have become objects. The next daemon makes them.
    pub(super) fn abandon_turns(&mut self) {
        for (root, turns) in std::mem::take(&mut self.turns) {
            if let Some(making) = turns.making {
                self.abandon_making(root, making);
            }
        }
    }
}
