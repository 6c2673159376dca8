//! Forks: a COMMIT makes prepared domains children (docs/protocols/fork.md). This path has to be
//! short. Nothing on it speaks with xenstore, maps or unmaps anything, or allocates more than a
//! little.

use std::time::{Duration, Instant};

use xenctl::{Events, Hypervisor, Memory};
use zooid_fork_plan::id::{Handle, Kind, PvmId};
use zooid_fork_plan::status::Status;
use zooid_fork_plan::wire::{self, EARLY_PAGES, daemon, guest};

use super::api::{self, Command, EventKind};
use super::books::{Account, Prepared, Pvm, is_domain_of};
use super::core::{Follow, Host, Peer, Timer};
use super::executor::Operation;
use super::failure::Failure;
use super::home;
use super::jobs::Job;
use super::members::member_field;
use super::relink::Target;
use super::sabotage::{self, Sabotage};
use super::stats::Step;
use super::tables::Change;

/// A fork that is done.
pub(super) struct Forked<M> {
    parent: PvmId,
    children: Vec<Prepared<M>>,
    duration: Duration,
}

impl<H: Hypervisor> Host<H> {
    /// Makes `count` prepared domains children. Afterwards they and their parent run first; the
    /// remaining work waits.
    pub(super) fn commit(&mut self, id: PvmId, count: u32, began: Instant) {
        // A pVM that has ended makes no children.
        if self.books.get(id).is_none_or(|pvm| pvm.killed.is_some()) {
            return;
        }
        let asked = self.books.get(id).and_then(|pvm| pvm.channel.as_ref());
        let request = asked.map_or(0, |channel| channel.get(guest::COMMIT_FOR));
        if request != 0 && !self.is_asked_from_outside(id, request) {
            return self.reply(id, wire::ECANCELED, &[]);
        }
        match self.try_commit(id, count as usize, began) {
            Ok(children) => {
                let now = self.clock.now();
                self.record_outside(id, request, &children);
                self.follow(Follow::Book(Forked { parent: id, children, duration: now - began }));
                self.rest.begin(now);
            }
            Err(Failure::Stale) if self.may_be_stale(id) => self.reply(id, wire::ESTALE, &[]),
            Err(failure) => self.refuse(id, &failure),
        }
    }

    /// A COMMIT may be answered with `ESTALE` at once. Honest guests get it now and then.
    fn may_be_stale(&mut self, id: PvmId) -> bool {
        let (now, limit) = (self.clock.now(), self.config.family.forks_per_second);
        self.books.with_family(id).is_some_and(|(_, family)| family.account.stale.take(1, limit, now))
    }

    fn try_commit(&mut self, id: PvmId, count: usize, began: Instant) -> Result<Vec<Prepared<H::Memory>>, Failure> {
        self.take_forks(id, count)?;
        let result = self.make_children(id, count, began);
        let made = result.as_ref().map_or(0, Vec::len);
        self.give_back_forks(id, count - made.min(count));
        result
    }

    /// The path from the request to the reply; the children.
    fn make_children(&mut self, id: PvmId, count: usize, began: Instant) -> Result<Vec<Prepared<H::Memory>>, Failure> {
        self.update_sources(id)?;
        let memory_owners = self.books.memory_owners_of(self.root_of(id)?);
        let Self { books, xen, events, executor, scratch, counters, .. } = self;
        let (pvm, family) = books.with_family(id).ok_or(Failure::Gone)?;
        let (Some(forking), Some(channel)) = (&pvm.forking, &pvm.channel) else { return Err(Failure::Stale) };
        let mut chosen = Vec::with_capacity(count);
        for (place, prepared) in pvm.prepared.iter().enumerate() {
            if prepared.is_ready() && chosen.len() < count {
                chosen.push(place);
            }
        }
        let counted = channel.get(guest::TABLES);
        if chosen.len() < count || forking.tables.change(counted, scratch.entries()) != Change::None {
            return Err(Failure::Stale);
        }
        let snapshot = channel.snapshot();
        counters.step(Step::Plan, began);

        let (source, all) = pvm.linking(memory_owners).ok_or(Failure::Stale)?;
        executor.before(Operation::Relink);
        let mut relinked = 0;
        let mut result = Ok(());
        for place in &chosen {
            let Some(prepared) = all.get_mut(*place) else { continue };
            let mut target =
                Target { domain: prepared.domain(), linkage: &mut prepared.linkage, bitmaps: Some(&prepared.bitmaps) };
            let linked = (0..source.tables.count()).try_fold(0, |entries, table| {
                Ok(entries + target.commit_table(&**xen, &source, table, scratch, &prepared.copies)?)
            });
            match linked {
                Ok(entries) => relinked += entries,
                Err(failure @ Failure::Stale) => {
                    // Entries for frames of others are linked while the parent stands still, which
                    // a PREPARE does. Others will never fit.
                    log::debug!("a domain cannot be brought up to date: {failure}");
                    result = Err(Failure::Stale);
                    break;
                }
                Err(failure) => {
                    // All of the parent stands still: an entry that does not fit now never will.
                    log::debug!("a domain cannot be brought up to date: {failure}");
                    prepared.broken = true;
                    result = Err(Failure::Stale);
                    break;
                }
            }
        }
        executor.after(Operation::Relink);
        result?;
        counters.relinked(relinked as u64);

        let mut committed = 0;
        for place in &chosen {
            let Some(prepared) = pvm.prepared.get(*place) else { break };
            let handle = Handle { kind: Kind::Child, id: prepared.id, parent: id, commit: pvm.request };
            executor.before(Operation::Commit);
            let result = xen.set_handle(prepared.domain(), &handle.to_octets());
            executor.after(Operation::Commit);
            match result {
                Ok(()) => committed += 1,
                Err(error) if committed == 0 => return Err(error.into()),
                // The fork has those children that could be committed.
                Err(_) => break,
            }
        }
        // From the last one, so that the indices of the others stay valid.
        let places = chosen.iter().take(committed).rev();
        let mut children: Vec<_> = places.map(|place| pvm.prepared.remove(*place)).collect();
        children.reverse();
        // Before they run, so that they are members from the start.
        if let Some(owner) = family.memory_owner.as_mut().filter(|owner| owner.members.number(id).is_some()) {
            for child in &children {
                executor.before(Operation::Enrol);
                let number = owner.members.add(child.id);
                child.channel.put(daemon::MEMBER, member_field(number));
                executor.after(Operation::Enrol);
            }
        }
        for (index, child) in children.iter().enumerate() {
            executor.before(Operation::Go);
            child.channel.put(daemon::INDEX, index as u32);
            child.channel.page.write_u64(daemon::SNAPSHOT, snapshot);
            child.channel.put(daemon::GO, 1);
            let told = events.notify(child.channel.port);
            executor.after(Operation::Go);
            if let Err(error) = told {
                log::warn!("{error}");
            }
        }
        let ids: Vec<u32> = children.iter().map(|child| child.id.raw()).collect();
        pvm.last_commit = pvm.request;
        self.executor.before(Operation::Reply);
        self.reply(id, 0, &ids);
        self.executor.after(Operation::Reply);
        self.counters.step(Step::Total, began);
        Ok(children)
    }

    /// Enters a fork in the books.
    pub(super) fn book(&mut self, forked: Forked<H::Memory>) {
        let Forked { parent: id, children, duration } = forked;
        let Some(parent) = self.books.get(id) else { return self.destroy_unbooked(children) };
        let (root, name, commit) = (parent.root(), parent.name.clone(), parent.last_commit);
        let ancestors = self.living_ancestors(parent.owners());
        let ids = children.iter().map(|child| child.id.raw()).collect();
        self.counters.forks += children.len() as u64;
        self.tell(id, &name, EventKind::Forked { children: ids, duration_ns: duration.as_nanos() as u64 });
        for child in children {
            let (child_id, port) = (child.id, child.channel.port);
            let mut pvm = Pvm::new(child_id, root, &ancestors, child.name, self.clock.now_us()).child_of(id, false);
            pvm.channel = Some(child.channel);
            pvm.linkage = Some(child.linkage);
            pvm.commit = commit;
            (pvm.rings, pvm.has_home) = (Some(child.rings), false);
            if !self.add_pvm(pvm) {
                // Another pVM has its number: no event of it would be taken.
                self.unlisten(port);
                self.remove_domain(root, child_id);
                continue;
            }
            self.listen(port, Peer::Pvm(child_id));
            self.jobs.push(root, Job::Drop(Box::new((child.bitmaps, child.copies))));
            self.after(self.config.start_timeout, Timer::Resumed(child_id));
            // Its domain may have ended while it was a prepared one, or it may have sent an event
            // before its port was listened to.
            if !self.end_if_it_has(child_id) {
                self.follow(Follow::Look(child_id));
            }
        }
        self.follow(Follow::Replenish(id));
        self.refresh_soon(id);
    }

    /// Destroys children whose parent is in no book. There can be none: the queue is drained before
    /// a pVM is removed.
    fn destroy_unbooked(&mut self, children: Vec<Prepared<H::Memory>>) {
        for child in children {
            log::error!(id = child.id.raw(); "a child without a parent is destroyed");
            self.discard(child.id, child);
        }
    }

    /// Enters a pVM in the books, with a new account if it is the first of its family. False, with
    /// a line in the log, if another one has its number there.
    pub(super) fn add_pvm(&mut self, pvm: Pvm<H::Memory>) -> bool {
        let (id, limit, now) = (pvm.id(), self.config.family.forks_per_second, self.clock.now());
        let added = self.books.add(pvm, || Account::new(limit, now));
        if !added {
            log::error!(id = id.raw(); "a pVM with this domain number is in the books already");
        }
        added
    }

    /// The ancestors of a child whose parent has these owners, without those that have ended and
    /// have no frame left.
    fn living_ancestors(&self, owners: &[PvmId]) -> Vec<PvmId> {
        let has_frames = |id: &PvmId| {
            // The domain of an ended pVM exists for as long as a frame of it is mapped.
            self.books.get(*id).is_some()
                || !matches!(self.xen.domain_info(id.domain()), Ok(info) if info.is_none_or(|info| !is_domain_of(&info, *id)))
        };
        owners.iter().copied().filter(has_frames).collect()
    }

    /// Checks that a pVM has few enough ancestors with frames to be a parent.
    pub(super) fn check_ancestors(&self, id: PvmId) -> Result<(), Failure> {
        match self.books.get(id) {
            Some(pvm) if sabotage::is(Sabotage::FewGenerations) && pvm.owners().len() > 3 => Err(Failure::Ancestors),
            Some(pvm) if pvm.ancestors().len() > home::ANCESTORS => Err(Failure::Ancestors),
            _ => Ok(()),
        }
    }

    /// Records that a child has copied the snapshot and runs.
    pub(super) fn has_resumed(&mut self, id: PvmId) {
        let parent = self.books.resumed(id);
        self.forget_timers(|timer| *timer == Timer::Resumed(id));
        if let Some(parent) = parent {
            self.wake(parent);
        }
        self.follow(Follow::Welcome(id));
        // It may have sent a request or ended since.
        self.follow(Follow::Look(id));
    }

    /// A child runs: tells subscribers and its parent.
    pub(super) fn welcome(&mut self, id: PvmId) {
        let Some(pvm) = self.books.get(id) else { return };
        let (name, parent) = (pvm.name.clone(), pvm.parent());
        self.tell(id, &name, EventKind::Started { kind: api::Kind::Child, parent: parent.map(PvmId::raw) });
        self.pass_early(id);
        self.introduce_soon(id);
    }

    /// Gives a child its network device, in a thread, because netback and the script take long.
    pub(super) fn give_network(&self, id: PvmId) {
        let parent = self.books.get(id).and_then(Pvm::forked_by);
        if let (Some(config), Some(parent)) = (&self.config.child_vif, parent) {
            let handle = self.handle.clone();
            let failed = move |reason| {
                // A daemon that is about to end tells nobody.
                let _ = handle.send(Command::NoNetwork { child: id, reason });
            };
            self.toolstack.attach_vif(parent.domain(), id, config, Box::new(failed));
        }
    }

    /// Tells a parent the pages that its child wrote first (docs/protocols/fork.md, "Eager pages").
    pub(super) fn pass_early(&self, id: PvmId) {
        let Some(child) = self.books.get(id) else { return };
        let parent = child.forked_by().and_then(|parent| self.books.get(parent));
        let (Some(from), Some(to)) = (&child.channel, parent.and_then(|parent| parent.channel.as_ref())) else {
            return;
        };
        let count = (from.get(guest::EARLY_COUNT) as usize).min(EARLY_PAGES);
        if count == 0 {
            return;
        }
        (0..count).for_each(|at| to.put(daemon::EARLY + 4 * at, from.get(guest::EARLY + 4 * at)));
        to.put(daemon::EARLY_COUNT, count as u32);
        to.put(daemon::EARLY_NUMBER, to.get(daemon::EARLY_NUMBER).wrapping_add(1));
        if let Err(error) = self.events.notify(to.port) {
            log::debug!("{error}");
        }
    }

    /// Ends a child that has not resumed in time.
    pub(super) fn check_resumed(&mut self, id: PvmId) {
        self.look_at(id);
        if self.books.get(id).is_some_and(|pvm| !pvm.is_resumed()) {
            self.trouble(id, "a child does not resume", &Failure::TimedOut);
            self.follow(Follow::End(id, Status::Crashed));
        }
    }
}
