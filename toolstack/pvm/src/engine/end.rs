//! Ends: of pVMs, and of domains that were prepared and are not needed.
//!
//! The order is that of docs/protocols/fork.md: the parent is told, the domain is destroyed, its home is removed. What takes time is
//! done in steps.

use xen_abi::sched::ShutdownReason;
use xen_abi::{DomId, Errno};
use xenctl::Hypervisor;
use zooid_fork_plan::id::PvmId;
use zooid_fork_plan::status::Status;
use zooid_fork_plan::wire::{daemon, guest, state};

use super::api::{self, Ended, EventKind};
use super::core::{Engine, Job, REST, Timer};
use super::executor::Operation;
use super::failure::Failure;
use super::pvm::{Prepared, Pvm};
use super::{home, vif};

/// How often it is tried to remove what a pVM has left.
const TRIES: u32 = 5;

/// What is left of a pVM, or of a prepared domain.
#[derive(Debug)]
pub struct Reaping<M> {
    domain: DomId,
    id: PvmId,
    /// Its domain is ours to destroy.
    ours: bool,
    stage: Stage,
    /// How often it may fail still.
    tries: u32,
    mappings: Vec<M>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Unmap,
    Destroy,
    RemoveHome,
}

impl<H: Hypervisor> Engine<H> {
    /// A pVM says that it has ended. Its parent hears of it and runs first; what is left to do waits.
    pub(super) fn has_ended(&mut self, domain: DomId) {
        let Some(pvm) = self.domains.get(&domain) else { return };
        let Some(channel) = &pvm.channel else { return };
        let status = pvm.killed.unwrap_or(Status::from_raw(channel.get(guest::STATUS)));
        if self.unreaped.iter().any(|(unreaped, _)| *unreaped == domain) {
            return;
        }
        let is_child = pvm.is_child();
        self.unreaped.push((domain, status));
        if is_child {
            self.tell_parent(domain, status);
            self.rest = Some(self.clock.now() + REST);
        } else {
            self.reap_told();
        }
    }

    /// Reaps those of whom only their parents know that they have ended.
    pub(super) fn reap_told(&mut self) {
        for (domain, status) in std::mem::take(&mut self.unreaped) {
            let Some(pvm) = self.domains.get(&domain) else { continue };
            if !pvm.resumed {
                let (id, name, parent) = (pvm.id, pvm.name.clone(), pvm.parent);
                self.tell(id, &name, EventKind::Started { kind: api::Kind::Child, parent: parent.map(PvmId::raw) });
                self.pass_early(domain);
            }
            self.remove_ended(domain, status);
        }
    }

    /// Tells a pVM of its child's end.
    fn tell_parent(&mut self, domain: DomId, status: Status) {
        let Some(pvm) = self.domains.get(&domain) else { return };
        let (id, parent) = (pvm.id, pvm.parent);
        self.executor.before(Operation::TellEnd);
        if let Some(parent) = parent.and_then(|parent| self.by_id(parent)) {
            parent.ends.push_back((id, status));
            parent.show_ends();
            let parent = parent.domain;
            self.notify(parent);
        }
        self.executor.after(Operation::TellEnd);
    }

    /// Looks which of the known domains have ended without saying so. `alive` has those that Xen has.
    pub(super) fn find_ended(&mut self, all: &[xenctl::DomainInfo]) {
        let mut ended = Vec::new();
        for pvm in self.domains.values() {
            let info = all.iter().find(|info| info.id == pvm.domain && !info.is_dying());
            let reason = info.and_then(xenctl::DomainInfo::shutdown_reason);
            if info.is_none() || reason.is_some() {
                ended.push((pvm.domain, self.status_of(pvm, reason)));
            }
        }
        for (domain, status) in ended {
            self.reap(domain, status);
        }
        let gone = |domain: DomId| !all.iter().any(|info| info.id == domain && !info.is_dying());
        self.watched.retain(|domain, _| !gone(*domain));
        self.find_lost_memory_owners(all);
        self.find_lost_libraries(all);
        self.strangers.retain(|domain| !gone(*domain));
        let parents: Vec<DomId> = self.domains.keys().copied().collect();
        for parent in parents {
            let Some(pvm) = self.domains.get_mut(&parent) else { continue };
            let ended = |info: &xenctl::DomainInfo| info.is_dying() || info.shutdown_reason().is_some();
            for prepared in &mut pvm.prepared {
                let info = all.iter().find(|info| info.id == prepared.domain);
                prepared.broken |= info.is_none_or(ended);
            }
            if pvm.prepared.iter().any(|prepared| prepared.broken) {
                self.discard_broken(parent);
                self.go_on(parent);
            }
        }
    }

    /// How a pVM has ended, of which Xen says this.
    fn status_of(&self, pvm: &Pvm<H::Memory>, reason: Option<ShutdownReason>) -> Status {
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
            // Without the component that says the status, or when the toolstack has asked for it, this is all that is known.
            Some(ShutdownReason::POWEROFF | ShutdownReason::REBOOT) => Status::Exited(0),
            Some(_) => Status::Crashed,
        }
    }

    /// Destroys a child, which counts as ended with this status.
    pub(super) fn destroy_child(&mut self, domain: DomId, status: Status) {
        self.reap(domain, status);
    }

    /// Tells its parent of the end of a pVM, and lets go of it.
    pub(super) fn reap(&mut self, domain: DomId, status: Status) {
        if self.domains.get(&domain).is_some_and(Pvm::is_child) {
            self.tell_parent(domain, status);
        }
        self.remove_ended(domain, status);
    }

    /// Lets go of a pVM that has ended.
    fn remove_ended(&mut self, domain: DomId, status: Status) {
        let Some(info) = self.info(domain) else { return };
        let Some(mut pvm) = self.domains.remove(&domain) else { return };
        self.forget_updates(domain);
        self.ids.remove(&pvm.id);
        self.watched.remove(&domain);
        let is_child = pvm.is_child();
        let end = Ended {
            id: pvm.id.raw(),
            status: status.into(),
            exit_code: status.exit_code(),
            at_us: self.clock.now_us(),
        };
        if is_child {
            self.disown(&pvm);
        }
        self.timers.retain(|(_, timer)| *timer != Timer::Resumed(domain));
        self.no_longer_resuming(domain);
        self.orphan(&pvm);
        self.leave_family(pvm.id, pvm.root);
        if let Some(channel) = &pvm.channel {
            self.unlisten(channel.port);
        }
        for prepared in std::mem::take(&mut pvm.prepared) {
            self.discard(prepared);
        }
        let mappings = pvm.channel.take().map(|channel| channel.page).into_iter().collect();
        self.jobs.push_front(Job::Reap(Reaping {
            domain,
            id: pvm.id,
            ours: is_child,
            stage: Stage::Unmap,
            tries: TRIES,
            mappings,
        }));
        // Its tables are unmapped with it.
        let name = std::mem::take(&mut pvm.name);
        let id = pvm.id;
        self.jobs.push_front(Job::Drop(Box::new(pvm)));
        self.counters.ended += 1;
        self.remember(api::PvmInfo { state: api::State::Ended, ended: Some(end), ..info });
        log::info!(id = id.raw(), name = name.as_str(); "ended: {status}");
        self.tell(id, &name, EventKind::Ended { status: status.into(), exit_code: status.exit_code() });
        self.answer_waiters(&end);
    }

    /// Its frames' owners have one sharer less; one without any is told so.
    fn disown(&mut self, pvm: &Pvm<H::Memory>) {
        for owner in &pvm.owners[..pvm.owners.len() - 1] {
            let Some(owner) = self.domains.get_mut(owner) else { continue };
            owner.sharers = owner.sharers.saturating_sub(1);
            if owner.sharers == 0
                && let Some(channel) = &owner.channel
            {
                self.executor.before(Operation::Unshare);
                channel.put(daemon::UNSHARED, owner.last_commit);
                self.executor.after(Operation::Unshare);
            }
        }
    }

    /// Gives the children of a pVM that has ended to the root of their family.
    fn orphan(&mut self, pvm: &Pvm<H::Memory>) {
        let root = self.ids.contains_key(&pvm.root).then_some(pvm.root);
        let mut told = Vec::new();
        for child in self.domains.values_mut().filter(|child| child.parent == Some(pvm.id)) {
            child.parent = root;
            if let Some(channel) = &child.channel {
                channel.put(daemon::PARENT, root.map_or(0, PvmId::raw));
                told.push(child.domain);
            }
        }
        for domain in told {
            self.notify(domain);
        }
    }

    /// Does the next part of removing what a pVM has left; again, when that fails, after what else there is to do.
    pub(super) fn reap_step(&mut self, mut reaping: Reaping<H::Memory>) {
        let result = match reaping.stage {
            Stage::Unmap => {
                reaping.mappings.clear();
                // A root is the toolstack's that started it.
                if !reaping.ours {
                    return;
                }
                Ok(Stage::Destroy)
            }
            Stage::Destroy => self.destroy(reaping.domain).map(|()| Stage::RemoveHome),
            Stage::RemoveHome => match self.remove_home(reaping.domain) {
                Ok(()) => return,
                Err(failure) => Err(failure),
            },
        };
        match result {
            Ok(next) => {
                reaping.stage = next;
                self.jobs.push_front(Job::Reap(reaping));
            }
            Err(_) if reaping.tries > 0 => {
                reaping.tries -= 1;
                self.jobs.push_back(Job::Reap(reaping));
            }
            Err(failure) => self.trouble(reaping.id, "what a pVM has left cannot be removed", &failure),
        }
    }

    fn destroy(&mut self, domain: DomId) -> Result<(), Failure> {
        self.executor.before(Operation::Destroy);
        let result = self.xen.destroy(domain);
        self.executor.after(Operation::Destroy);
        match result {
            // Somebody else was faster.
            Err(error) if error.errno() == Some(Errno::ESRCH) => Ok(()),
            result => result.map_err(Failure::from),
        }
    }

    fn remove_home(&mut self, domain: DomId) -> Result<(), Failure> {
        self.executor.before(Operation::RemoveHome);
        let result = vif::remove(&self.store, domain).and_then(|()| home::remove(&self.store, domain));
        self.executor.after(Operation::RemoveHome);
        result.map_err(Failure::from)
    }

    /// Destroys a domain of ours and removes its home.
    pub(super) fn remove_domain(&mut self, domain: DomId, id: PvmId) {
        let mappings = Vec::new();
        self.jobs.push_back(Job::Reap(Reaping {
            domain,
            id,
            ours: true,
            stage: Stage::Destroy,
            tries: TRIES,
            mappings,
        }));
    }

    /// Removes a prepared domain that is in no list any more.
    pub(super) fn discard(&mut self, prepared: Prepared<H::Memory>) {
        let Prepared { id, domain, channel, bitmaps, copies, .. } = prepared;
        self.unlisten(channel.port);
        drop(copies);
        let mappings = vec![channel.page, bitmaps];
        self.jobs.push_back(Job::Reap(Reaping { domain, id, ours: true, stage: Stage::Unmap, tries: TRIES, mappings }));
    }

    /// Discards what is prepared for a pVM and cannot be used.
    pub(super) fn discard_broken(&mut self, domain: DomId) {
        let Some(pvm) = self.domains.get_mut(&domain) else { return };
        let mut broken = Vec::new();
        while let Some(place) = pvm.prepared.iter().position(|prepared| prepared.broken) {
            broken.push(pvm.prepared.remove(place));
        }
        if broken.is_empty() {
            return;
        }
        pvm.show_ready();
        for prepared in broken {
            self.discard(prepared);
        }
    }

    /// At the end: removes all prepared domains, and what is being built.
    pub(super) fn discard_all(&mut self) {
        self.abandon_turns();
        let parents: Vec<DomId> = self.domains.keys().copied().collect();
        for parent in parents {
            let Some(pvm) = self.domains.get_mut(&parent) else { continue };
            pvm.prepared.iter_mut().for_each(|prepared| prepared.broken = true);
            self.discard_broken(parent);
        }
        while let Some(job) = self.jobs.pop_front() {
            match job {
                Job::Build(building) => self.abandon_building(*building),
                Job::Reap(reaping) => self.reap_step(reaping),
                Job::Refresh(..) | Job::Turn(_) | Job::Library | Job::Drop(_) => {}
            }
        }
    }
}
