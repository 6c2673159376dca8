//! The end of pVMs, and of prepared domains that are not needed.
//!
//! The order is that of docs/protocols/fork.md: the domain is stopped, its family's table of
//! members loses it, the parent is told, the domain is destroyed, its home is removed. No end is
//! told while the pVM can still run. Work that takes time is done in steps.

use xen_abi::Errno;
use xen_abi::sched::ShutdownReason;
use xenctl::Hypervisor;
use zooid_fork_plan::id::{Handle, Kind, PvmId};
use zooid_fork_plan::status::Status;
use zooid_fork_plan::wire::{daemon, guest, state};

use super::api::{self, Ended, EventKind};
use super::books::{Family, Pending, Prepared, Pvm, Removed, is_domain_of};
use super::core::{Follow, Host, Timer};
use super::executor::Operation;
use super::failure::Failure;
use super::home;
use super::jobs::Job;
use super::sabotage::{self, Sabotage};

/// Attempts to remove what a pVM has left, before it is given up.
const TRIES: u32 = 5;

/// The remains of a pVM, or of a prepared domain.
#[derive(Debug)]
pub(super) struct Reaping<M> {
    id: PvmId,
    /// Its domain is ours to destroy.
    ours: bool,
    stage: Stage,
    /// Attempts that are left.
    tries: u32,
    mappings: Vec<M>,
    /// Its home may have more than a mark.
    has_home: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    AwaitConsole,
    Unmap,
    Destroy,
    RemoveHome,
}

/// A pVM that has left the books.
#[derive(Debug)]
pub(super) struct Gone<M> {
    pub id: PvmId,
    pub root: PvmId,
    pub end: Ended,
    /// Its family, if it was the last member.
    pub family: Option<Family<M>>,
}

impl<M> Reaping<M> {
    /// The pVM.
    pub(super) fn id(&self) -> PvmId {
        self.id
    }
}

impl<H: Hypervisor> Host<H> {
    /// A pVM says that it has ended. A child's parent is told at once and runs first; the removal of
    /// its remains waits. A root belongs to its toolstack, and has ended when its domain is shut down.
    pub(super) fn has_ended(&mut self, id: PvmId) {
        let Some(pvm) = self.books.get(id).filter(|pvm| pvm.is_child() && pvm.killed.is_none()) else { return };
        let Some(channel) = &pvm.channel else { return };
        let status = Status::from_raw(channel.get(guest::STATUS));
        if let Some(pvm) = self.books.get_mut(id) {
            pvm.killed = Some(status);
        }
        // The status that it wrote stays in its control page, for a daemon that starts anew.
        self.stop(id);
        self.tell_relatives(id, status);
        self.follow(Follow::Reap(id, status));
        self.rest.begin(self.clock.now());
    }

    /// Ends a pVM with this status: stops it, and tells its relatives.
    pub(super) fn end(&mut self, id: PvmId, status: Status) {
        let Some(pvm) = self.books.get_mut(id) else { return };
        if pvm.killed.is_none() {
            pvm.killed = Some(status);
            if let (true, Some(parent)) = (pvm.is_child(), pvm.forked_by()) {
                // A daemon that starts anew goes on from the handle: without it, a child that is
                // paused would be taken for one that runs.
                let handle = Handle { kind: Kind::Ended, id, parent, commit: status.to_raw() }.to_octets();
                let set = || self.xen.set_handle(id.domain(), &handle);
                if self.has_domain(id)
                    && let Err(error) = set().or_else(|_| set())
                {
                    log::debug!(id = id.raw(); "{error}");
                }
                self.stop(id);
                self.tell_relatives(id, status);
            }
        }
        self.follow(Follow::Reap(id, status));
    }

    /// The domain that has a pVM's number is the pVM's. A number is not given out again while a
    /// page of its domain is mapped.
    fn has_domain(&self, id: PvmId) -> bool {
        let is_mapped = self.books.get(id).is_some_and(|pvm| pvm.channel.is_some());
        is_mapped || matches!(self.xen.domain_info(id.domain()), Ok(Some(info)) if is_domain_of(&info, id))
    }

    /// Makes sure that a pVM does not run any more.
    pub(super) fn stop(&self, id: PvmId) {
        if self.has_domain(id)
            && !sabotage::is(Sabotage::NoStop)
            && let Err(error) = self.xen.pause(id.domain()).or_else(|_| self.xen.pause(id.domain()))
        {
            log::debug!(id = id.raw(); "{error}");
        }
    }

    /// Tells the family of the end of a pVM that has been stopped, and its parent last: a lock that
    /// the pVM had is free when its parent's `wait` returns.
    fn tell_relatives(&mut self, id: PvmId, status: Status) {
        if !sabotage::is(Sabotage::LateStrike) {
            self.leave_members(id);
        }
        self.tell_parent(id, status);
    }

    /// Tells a pVM of its child's end.
    fn tell_parent(&mut self, id: PvmId, status: Status) {
        let Some(parent) = self.books.get(id).and_then(Pvm::parent) else { return };
        self.executor.before(Operation::TellEnd);
        if let Some(parent) = self.books.get_mut(parent) {
            parent.ends.push_back((id, status));
            parent.show_ends();
        }
        self.notify(parent);
        self.executor.after(Operation::TellEnd);
    }

    /// Finds known pVMs that have ended without saying so. `all` are the domains that Xen has.
    pub(super) fn find_ended(&mut self, all: &[xenctl::DomainInfo]) {
        let find = |id: PvmId| all.iter().find(|info| is_domain_of(info, id) && !info.is_dying());
        let mut ended = Vec::new();
        for pvm in self.books.iter() {
            let info = find(pvm.id());
            let reason = info.and_then(xenctl::DomainInfo::shutdown_reason);
            if info.is_none() || reason.is_some() {
                ended.push(Follow::End(pvm.id(), status_of(pvm, reason)));
            }
        }
        ended.into_iter().for_each(|end| self.follow(end));
        let is_there = |domain, handle: &[u8; 16]| {
            all.iter().any(|info| info.id == domain && info.handle == *handle && !info.is_dying())
        };
        self.watched.retain(|domain, watched| is_there(*domain, &watched.handle));
        self.strangers.retain(|domain, handle| is_there(*domain, handle));
        self.find_lost_memory_owners(all);
        self.find_lost_libraries(all);
        for parent in self.books.ids() {
            let Some(pvm) = self.books.get_mut(parent) else { continue };
            for prepared in &mut pvm.prepared {
                prepared.broken |= find(prepared.id).is_none_or(|info| info.shutdown_reason().is_some());
            }
            if pvm.prepared.iter().any(|prepared| prepared.broken) {
                self.follow(Follow::DiscardBroken(parent));
            }
        }
    }

    /// Takes a pVM that has ended, and whose parent knows, out of the books.
    pub(super) fn reap(&mut self, id: PvmId, status: Status) {
        let Some(info) = self.info(id) else { return };
        self.keep_output(id);
        if self.books.get(id).is_some_and(|pvm| !pvm.is_resumed()) {
            let parent = info.parent;
            self.tell(id, &info.name, EventKind::Started { kind: api::Kind::Child, parent });
            self.pass_early(id);
        }
        let waits = matches!(self.books.get(id).and_then(|pvm| pvm.pending), Some(Pending::Commit(_)));
        assert!(!(waits && sabotage::is(Sabotage::EndWhileCommitWaits)), "a COMMIT of a pVM that has ended");
        let Some(removed) = self.books.remove(id) else { return };
        let Removed { mut pvm, unshared, orphans, waiting, family } = removed;
        let root = pvm.root();
        unshared.into_iter().for_each(|ancestor| self.unshare(ancestor));
        if sabotage::is(Sabotage::UnshareEarly) {
            pvm.ancestors().iter().for_each(|ancestor| self.unshare(*ancestor));
        }
        orphans.into_iter().for_each(|orphan| self.show_parent(orphan));
        if let Some(parent) = waiting {
            self.wake(parent);
        }
        self.forget_timers(|timer| matches!(timer, Timer::Resumed(other) | Timer::Refused(other) | Timer::Refresh(other, _) | Timer::Introduce(other, _) if *other == id));
        self.watched.remove(&id.domain());
        if let Some(channel) = &pvm.channel
            && !sabotage::is(Sabotage::KeepPorts)
        {
            self.unlisten(channel.port);
        }
        for prepared in std::mem::take(&mut pvm.prepared) {
            self.discard(root, prepared);
        }
        let ours = pvm.is_child();
        let mappings = pvm.channel.take().map(|channel| channel.page).into_iter().collect();
        let has_home = pvm.has_home;
        let stage = if ours && has_home { Stage::AwaitConsole } else { Stage::Unmap };
        let reaping = Reaping { id, ours, stage, tries: TRIES, mappings, has_home };
        self.jobs.push_first(root, Job::Reap(reaping));
        // Its tables are unmapped with it.
        let name = std::mem::take(&mut pvm.name);
        self.jobs.push_first(root, Job::Drop(Box::new(pvm)));
        self.counters.ended += 1;
        let at_us = self.clock.date_now_us();
        let end = Ended { id: id.raw(), status: status.into(), exit_code: status.exit_code(), at_us };
        self.books.remember(api::PvmInfo { state: api::State::Ended, ended: Some(end), ..info });
        log::info!(id = id.raw(), name = name.as_str(); "ended: {status}");
        self.tell(id, &name, EventKind::Ended { status: status.into(), exit_code: status.exit_code() });
        self.follow(Follow::Gone(Box::new(Gone { id, root, end, family })));
    }

    /// Tells a pVM that no living one has frames of it any more.
    fn unshare(&mut self, id: PvmId) {
        let Some(pvm) = self.books.get(id) else { return };
        if let Some(channel) = &pvm.channel {
            self.executor.before(Operation::Unshare);
            channel.put(daemon::UNSHARED, pvm.last_commit);
            self.executor.after(Operation::Unshare);
        }
    }

    /// Tells a pVM its present parent.
    pub(super) fn show_parent(&self, id: PvmId) {
        let Some(pvm) = self.books.get(id) else { return };
        if let Some(channel) = &pvm.channel {
            channel.put(daemon::PARENT, pvm.parent().map_or(0, PvmId::raw));
            self.notify(id);
        }
    }

    /// Does the next step of removing a pVM's remains. After a failure it is tried again behind the
    /// other jobs.
    pub(super) fn reap_step(&mut self, family: PvmId, mut reaping: Reaping<H::Memory>) {
        let result = match reaping.stage {
            Stage::AwaitConsole => match self.await_console(family, reaping) {
                Some(ready) => {
                    reaping = ready;
                    Ok(Stage::Unmap)
                }
                None => return,
            },
            Stage::Unmap => {
                reaping.mappings.clear();
                // A root belongs to the toolstack that started it.
                if !reaping.ours {
                    return;
                }
                Ok(Stage::Destroy)
            }
            Stage::Destroy => self.destroy(reaping.id).map(|()| Stage::RemoveHome),
            Stage::RemoveHome if sabotage::is(Sabotage::KeepHome) => return,
            Stage::RemoveHome => match self.remove_home(reaping.id, reaping.has_home) {
                Ok(()) => return,
                Err(failure) => Err(failure),
            },
        };
        match result {
            Ok(next) => {
                reaping.stage = next;
                self.jobs.push_first(family, Job::Reap(reaping));
            }
            Err(_) if reaping.tries > 0 => {
                reaping.tries -= 1;
                self.jobs.push(family, Job::Reap(reaping));
            }
            Err(failure) => self.trouble(reaping.id, "the remains of a pVM cannot be removed", &failure),
        }
    }

    /// Destroys the domain of an id. Another one that has its number now is left alone.
    fn destroy(&mut self, id: PvmId) -> Result<(), Failure> {
        let is_it = |info: &xenctl::DomainInfo| is_domain_of(info, id) || info.handle == Handle::UNFINISHED;
        if !self.xen.domain_info(id.domain())?.is_some_and(|info| is_it(&info)) {
            return Ok(());
        }
        self.executor.before(Operation::Destroy);
        let result = self.xen.destroy(id.domain());
        self.executor.after(Operation::Destroy);
        match result {
            // It has been destroyed already.
            Err(error) if error.errno() == Some(Errno::ESRCH) => Ok(()),
            result => result.map_err(Failure::from),
        }
    }

    fn remove_home(&mut self, id: PvmId, whole: bool) -> Result<(), Failure> {
        self.executor.before(Operation::RemoveHome);
        let result = match home::is_of_another(&self.store, id) {
            Err(error) => Err(error),
            Ok(true) => Ok(()),
            Ok(false) if whole => home::remove(&self.store, id.domain()),
            Ok(false) => home::remove_mark(&self.store, id.domain()),
        };
        self.executor.after(Operation::RemoveHome);
        result.map_err(Failure::from)
    }

    /// Destroys a domain of ours and removes its home.
    pub(super) fn remove_domain(&mut self, family: PvmId, id: PvmId) {
        let (stage, mappings) = (Stage::Destroy, Vec::new());
        let reaping = Reaping { id, ours: true, stage, tries: TRIES, mappings, has_home: true };
        self.jobs.push(family, Job::Reap(reaping));
    }

    /// Removes a prepared domain that is in no list any more.
    pub(super) fn discard(&mut self, family: PvmId, prepared: Prepared<H::Memory>) {
        let Prepared { id, channel, bitmaps, copies, .. } = prepared;
        self.forget_timers(|timer| matches!(timer, Timer::Waiting(_, other) if *other == id));
        self.unlisten(channel.port);
        drop(copies);
        let mappings = vec![channel.page, bitmaps];
        let stage = Stage::Unmap;
        let reaping = Reaping { id, ours: true, stage, tries: TRIES, mappings, has_home: false };
        self.jobs.push(family, Job::Reap(reaping));
    }

    /// Discards the unusable prepared domains of a pVM, and makes others.
    pub(super) fn discard_broken(&mut self, id: PvmId) {
        self.remove_broken(id);
        self.follow(Follow::GoOn(id));
        self.follow(Follow::Replenish(id));
    }

    /// Discards the unusable prepared domains of a pVM.
    pub(super) fn remove_broken(&mut self, id: PvmId) {
        let Some(pvm) = self.books.get_mut(id) else { return };
        let root = pvm.root();
        let broken: Vec<_> = pvm.prepared.extract_if(.., |prepared| prepared.broken).collect();
        if broken.is_empty() {
            return;
        }
        pvm.show_ready();
        broken.into_iter().for_each(|prepared| self.discard(root, prepared));
    }

    /// At the end: removes all prepared domains.
    pub(super) fn discard_all(&mut self) {
        self.abandon_unfinished();
        for parent in self.books.ids() {
            let Some(pvm) = self.books.get_mut(parent) else { continue };
            pvm.prepared.iter_mut().for_each(|prepared| prepared.broken = true);
            self.remove_broken(parent);
        }
    }

    /// At the end: finishes all removals, and takes back domains that are being built.
    pub(super) fn finish_jobs(&mut self) {
        self.without_consoles = true;
        for (family, reaping) in std::mem::take(&mut self.await_consoles) {
            self.jobs.push(family, Job::Reap(reaping));
        }
        while let Some((family, job)) = self.jobs.pop() {
            match job {
                Job::Build(building) => self.abandon_building(family, *building),
                Job::Reap(reaping) => self.reap_step(family, reaping),
                Job::Refresh(..) | Job::Introduce(..) | Job::Deferred(_) | Job::Library | Job::Drop(_) => {}
            }
        }
    }
}

/// The status of a pVM that Xen says has ended for this reason.
pub(super) fn status_of<M: xenctl::Memory>(pvm: &Pvm<M>, reason: Option<ShutdownReason>) -> Status {
    if let Some(status) = pvm.killed {
        return status;
    }
    if let Some(channel) = &pvm.channel
        && channel.get(guest::STATE) == state::ENDED
    {
        return Status::from_raw(channel.get(guest::STATUS));
    }
    match reason {
        None => Status::Destroyed,
        // Without the fork component, or after a shutdown by the toolstack, this is all that is
        // known.
        Some(ShutdownReason::POWEROFF | ShutdownReason::REBOOT) => Status::Exited(0),
        Some(_) => Status::Crashed,
    }
}
