//! What guests ask for: PREPARE and COMMIT (docs/protocols/fork.md); what else they do is in [`ipc`](super::ipc). COMMIT is the way that has to be short: nothing on it speaks with
//! xenstore, maps or unmaps anything, or allocates more than a little.

use std::thread;
use std::time::{Duration, Instant};

use xen_abi::{DomId, Errno};
use xenctl::{Events, Hypervisor, Memory};
use zooid_fork_plan::id::{Handle, Kind, PvmId};
use zooid_fork_plan::wire::{self, EARLY_PAGES, MAX_CHILDREN, daemon, guest, operation, state};

use super::api::{self, EventKind};
use super::build::Building;
use super::core::{Engine, Job, REST, Timer};
use super::executor::Operation;
use super::failure::Failure;
use super::members::member_field;
use super::pvm::{Pending, Prepared, Pvm};
use super::relink::{MemoryOwners, Target, is_race};
use super::stats::Step;
use super::tables::Change;
use super::watch::new_pvm;
use super::{home, vif};

/// How often a table is looked at again when the parent changed it meanwhile.
const TRIES: usize = 4;
/// How long after a fork, or after a domain was prepared, it is first looked whether prepared domains are up to date; twice as long each
/// time, up to the second.
const FIRST_REFRESH: Duration = Duration::from_millis(2);
const LAST_REFRESH: Duration = Duration::from_secs(2);
/// Tables that are brought up to date at once in the background.
const TABLES_AT_ONCE: usize = 8;
/// How many times, and how often, it is looked whether xenconsoled has made a console.
const CONSOLE_TRIES: u32 = 500;
const CONSOLE_PAUSE: Duration = Duration::from_millis(4);

/// How much later a refusal is answered than the one before, and after how many of them no more.
const REFUSAL: Duration = Duration::from_millis(10);
const LAST_REFUSAL: u32 = 20;

/// A fork that is done.
pub(super) struct Forked<M> {
    parent: DomId,
    children: Vec<Prepared<M>>,
    duration: Duration,
}

impl<H: Hypervisor> Engine<H> {
    /// Looks what a pVM has to say.
    pub(super) fn look_at(&mut self, domain: DomId) {
        let began = self.clock.now();
        let Some(pvm) = self.domains.get_mut(&domain) else { return };
        let Some(channel) = &pvm.channel else { return };
        let number = channel.get(guest::REQUEST);
        if number != pvm.request {
            pvm.request = number;
            pvm.pending = None;
            let (operation, count) = (channel.get(guest::OPERATION), channel.get(guest::COUNT));
            return self.serve(domain, operation, count, began);
        }
        match channel.get(guest::STATE) {
            state::ENDED => return self.has_ended(domain),
            state::RUNNING if !pvm.resumed => return self.has_resumed(domain),
            _ => {}
        }
        if pvm.show_ends() {
            self.notify(domain);
        }
        self.look_at_outside(domain);
        self.look_at_update(domain);
    }

    fn serve(&mut self, domain: DomId, operation: u32, count: u32, began: Instant) {
        let valid = (1..=MAX_CHILDREN).contains(&count);
        if operation != operation::COMMIT {
            self.reap_told();
        }
        match operation {
            operation::PREPARE if valid => {
                if let Some(pvm) = self.domains.get_mut(&domain) {
                    pvm.pending = Some(Pending::Prepare(count));
                }
                self.go_on_preparing(domain);
            }
            operation::COMMIT if valid => {
                // They may run by now, and tell of it when they have time.
                let resuming = self.domains.get(&domain).map(|pvm| pvm.resuming.clone()).unwrap_or_default();
                resuming.into_iter().for_each(|child| self.look_at(child));
                if self.domains.get(&domain).is_some_and(|pvm| !pvm.resuming.is_empty()) {
                    if let Some(pvm) = self.domains.get_mut(&domain) {
                        pvm.pending = Some(Pending::Commit);
                    }
                    return;
                }
                self.commit(domain, count, began);
            }
            operation::PREPARE | operation::COMMIT => self.reply(domain, Errno::EINVAL.0, &[]),
            operation::CREATE
            | operation::MAP
            | operation::UNLINK
            | operation::RELAY
            | operation::LIBRARY
            | operation::MAP_LIBRARY
            | operation::REFUSED => {
                self.take_turn(domain, operation, count);
            }
            operation::KILL => {
                let errno = self.kill_relative(domain, count).err().map_or(0, |errno| errno.0);
                self.reply(domain, errno, &[]);
            }
            _ => self.reply(domain, Errno::ENOSYS.0, &[]),
        }
    }

    /// Goes on with what a pVM waits for, after something has changed.
    pub(super) fn go_on(&mut self, domain: DomId) {
        let Some(pvm) = self.domains.get_mut(&domain) else { return };
        match pvm.pending {
            Some(Pending::Commit) if pvm.resuming.is_empty() => {
                pvm.pending = None;
                let count = pvm.channel.as_ref().map_or(0, |channel| channel.get(guest::COUNT));
                self.serve(domain, operation::COMMIT, count, self.clock.now());
            }
            Some(Pending::Prepare(_)) => self.go_on_preparing(domain),
            _ => {}
        }
    }

    /// Answers a PREPARE, if it can be; else sees to it that it can be later.
    fn go_on_preparing(&mut self, domain: DomId) {
        // Somebody waits for it.
        self.rest = None;
        let Some(Pending::Prepare(count)) = self.domains.get(&domain).and_then(|pvm| pvm.pending) else { return };
        let ready = self.ensure_forking(domain).and_then(|()| self.update_sources(domain));
        let result = ready.and_then(|()| self.refresh(domain)).and_then(|()| {
            if self.domains[&domain].ready() >= count {
                return Ok(true);
            }
            self.prepare(domain, count as usize).map(|()| false)
        });
        match result {
            Ok(false) => {}
            Ok(true) => self.reply(domain, 0, &[]),
            Err(Failure::Stale) => self.reply(domain, wire::ESTALE, &[]),
            Err(failure) => self.refuse_in_time(domain, &failure),
        }
    }

    /// Answers a PREPARE with an error; the more often in a row, the later, so that a pVM that asks without end does not keep dom0 busy.
    fn refuse_in_time(&mut self, domain: DomId, failure: &Failure) {
        let Some(pvm) = self.domains.get_mut(&domain) else { return };
        let delay = REFUSAL * pvm.refusals.min(LAST_REFUSAL);
        pvm.refusals += 1;
        if delay.is_zero() {
            return self.refuse(domain, failure);
        }
        pvm.pending = Some(Pending::Refused);
        let request = pvm.request;
        self.tell_refusal(domain, failure);
        self.after(delay, Timer::Refused(domain, request, failure.errno()));
    }

    /// A pVM that was refused something is told so.
    pub(super) fn answer_refused(&mut self, domain: DomId, request: u32, errno: u32) {
        let waits = |pvm: &Pvm<H::Memory>| pvm.request == request && pvm.pending == Some(Pending::Refused);
        if self.domains.get(&domain).is_some_and(waits) {
            self.reply(domain, errno, &[]);
        }
    }

    /// Answers the request of a pVM with an error.
    pub(super) fn refuse(&mut self, domain: DomId, failure: &Failure) {
        self.tell_refusal(domain, failure);
        self.reply(domain, failure.errno(), &[]);
    }

    fn tell_refusal(&mut self, domain: DomId, failure: &Failure) {
        let errno = failure.errno();
        if let Some(pvm) = self.domains.get(&domain) {
            let (id, name) = (pvm.id, pvm.name.clone());
            self.counters.refuse(errno);
            log::info!(id = id.raw(), name = name.as_str(), errno; "a fork was refused: {failure}");
            self.tell(id, &name, EventKind::Refused { errno, reason: failure.to_string() });
        }
    }

    /// Answers the request of a pVM.
    pub(super) fn reply(&mut self, domain: DomId, errno: u32, children: &[u32]) {
        let Some(pvm) = self.domains.get_mut(&domain) else { return };
        pvm.pending = None;
        pvm.show_ready();
        let Some(channel) = &pvm.channel else { return };
        for (place, child) in children.iter().enumerate() {
            channel.put(daemon::CHILDREN + 4 * place, *child);
        }
        channel.put(daemon::MADE, children.len() as u32);
        channel.put(daemon::ERRNO, errno);
        channel.put(daemon::REPLY, pvm.request);
        if let Err(error) = self.events.notify(channel.port) {
            log::debug!("{error}");
        }
    }

    /// Makes `count` prepared domains children. Afterwards they run, and their parent: what is left to do waits.
    fn commit(&mut self, domain: DomId, count: u32, began: Instant) {
        self.book();
        let children = match self.try_commit(domain, count as usize, began) {
            Ok(children) => children,
            Err(failure) => {
                if matches!(failure, Failure::Stale) {
                    self.reply(domain, failure.errno(), &[]);
                } else {
                    self.refuse(domain, &failure);
                }
                return;
            }
        };
        let now = self.clock.now();
        self.unbooked = Some(Forked { parent: domain, children, duration: now - began });
        self.rest = Some(now + REST);
    }

    /// The way from the request to the reply; the children.
    fn try_commit(&mut self, domain: DomId, count: usize, began: Instant) -> Result<Vec<Prepared<H::Memory>>, Failure> {
        self.check_rate(domain, count)?;
        self.update_sources(domain)?;
        let Self { domains, memory_owners, libraries, xen, events, executor, scratch, counters, .. } = self;
        let pvm = domains.get_mut(&domain).ok_or(Failure::Gone)?;
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

        let memory_owners_of = MemoryOwners::of(pvm.root, memory_owners, libraries.as_ref());
        let (source, prepared) = pvm.linking(memory_owners_of).ok_or(Failure::Stale)?;
        executor.before(Operation::Relink);
        let mut relinked = 0;
        let mut result = Ok(());
        'all: for place in &chosen {
            let prepared = &mut prepared[*place];
            let mut target =
                Target { domain: prepared.domain, linkage: &mut prepared.linkage, bitmaps: Some(&prepared.bitmaps) };
            for table in 0..source.tables.count() {
                match target.commit_table(&**xen, &source, table, scratch, &prepared.copies) {
                    Ok(entries) => relinked += entries,
                    Err(failure) => {
                        // All of the parent stands still: what does not fit now never will.
                        log::debug!("a domain cannot be brought up to date: {failure}");
                        prepared.broken = true;
                        result = Err(Failure::Stale);
                        break 'all;
                    }
                }
            }
        }
        executor.after(Operation::Relink);
        result?;
        counters.relinked(relinked as u64);

        let mut committed = 0;
        for place in &chosen {
            let prepared = &pvm.prepared[*place];
            let handle = Handle { kind: Kind::Child, id: prepared.id, parent: pvm.id, commit: pvm.request };
            executor.before(Operation::Commit);
            let result = xen.set_handle(prepared.domain, &handle.to_octets());
            executor.after(Operation::Commit);
            match result {
                Ok(()) => committed += 1,
                Err(error) if committed == 0 => return Err(error.into()),
                // There are as many children as there are.
                Err(_) => break,
            }
        }
        chosen.truncate(committed);
        // Before they run, so that they can act as members at once.
        if let Some(memory_owner) =
            memory_owners.get_mut(&pvm.root).filter(|memory_owner| memory_owner.members.number(pvm.id).is_some())
        {
            for place in &chosen {
                let prepared = &pvm.prepared[*place];
                executor.before(Operation::Enrol);
                let number = memory_owner.members.add(prepared.id);
                prepared.channel.put(daemon::MEMBER, member_field(number));
                executor.after(Operation::Enrol);
            }
        }
        let mut ids = Vec::with_capacity(count);
        for (index, place) in chosen.iter().enumerate() {
            let prepared = &pvm.prepared[*place];
            executor.before(Operation::Go);
            prepared.channel.put(daemon::INDEX, index as u32);
            prepared.channel.page.write_u64(daemon::SNAPSHOT, snapshot);
            prepared.channel.put(daemon::GO, 1);
            let told = events.notify(prepared.channel.port);
            executor.after(Operation::Go);
            if let Err(error) = told {
                log::warn!("{error}");
            }
            ids.push(prepared.id.raw());
        }
        // From the last, so that the places of the others stay what they are.
        let mut children: Vec<_> = chosen.iter().rev().map(|place| pvm.prepared.remove(*place)).collect();
        children.reverse();
        pvm.last_commit = pvm.request;
        pvm.last_children.clone_from(&ids);
        pvm.resuming.extend(children.iter().map(|child| child.domain));
        self.executor.before(Operation::Reply);
        self.reply(domain, 0, &ids);
        self.executor.after(Operation::Reply);
        self.counters.step(Step::Total, began);
        Ok(children)
    }

    /// Takes the last fork into the books. Comes before anything else that is looked at or changed there.
    pub(super) fn book(&mut self) {
        let Some(Forked { parent: domain, children, duration }) = self.unbooked.take() else { return };
        let duration_ns = duration.as_nanos() as u64;
        let parent = &self.domains[&domain];
        let (parent_id, root, name, commit) = (parent.id, parent.root, parent.name.clone(), parent.last_commit);
        let owners = parent.owners.clone();
        let ids = children.iter().map(|child| child.id.raw()).collect();
        self.counters.forks += children.len() as u64;
        if let Some(parent) = self.domains.get_mut(&domain) {
            parent.refusals = 0;
        }
        for owner in &owners {
            if let Some(owner) = self.domains.get_mut(owner) {
                owner.sharers += children.len() as u32;
            }
        }
        self.tell(parent_id, &name, EventKind::Forked { children: ids, duration_ns });
        for child in children {
            self.listen(child.channel.port, child.domain, None);
            self.jobs.push_back(Job::Drop(Box::new((child.bitmaps, child.copies))));
            self.ids.insert(child.id, child.domain);
            let owners = owners.iter().copied().chain([child.domain]).collect();
            let mut pvm =
                new_pvm(child.id, child.domain, child.name, Some(parent_id), root, owners, self.clock.now_us());
            pvm.channel = Some(child.channel);
            pvm.linkage = Some(child.linkage);
            pvm.commit = commit;
            pvm.resumed = false;
            self.domains.insert(child.domain, pvm);
            self.after(self.config.start_timeout, Timer::Resumed(child.domain));
            // It may have told that it runs before it was listened to.
            self.look_at(child.domain);
        }
        self.replenish(domain);
        self.refresh_soon(domain);
    }

    /// A child has copied the snapshot and runs.
    fn has_resumed(&mut self, domain: DomId) {
        let Some(pvm) = self.domains.get_mut(&domain) else { return };
        pvm.resumed = true;
        self.timers.retain(|(_, timer)| *timer != Timer::Resumed(domain));
        let (id, name, parent) = (pvm.id, pvm.name.clone(), pvm.parent);
        self.tell(id, &name, EventKind::Started { kind: api::Kind::Child, parent: parent.map(|id| id.raw()) });
        self.no_longer_resuming(domain);
        self.pass_early(domain);
        self.give_vif(domain, id);
        // It may have asked for something or ended since.
        self.look_at(domain);
    }

    /// Tells a parent which pages its child wrote first (docs/protocols/fork.md, "Eager pages").
    pub(super) fn pass_early(&self, domain: DomId) {
        let Some(child) = self.domains.get(&domain) else { return };
        let parent = child.owners.iter().nth_back(1).and_then(|parent| self.domains.get(parent));
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

    /// Gives a child its network device, if the configuration says so: in a thread, because netback and the script take their time.
    fn give_vif(&self, domain: DomId, id: PvmId) {
        let Some(config) = self.config.child_vif.clone() else { return };
        let Some(parent) = self.domains.get(&domain).and_then(|pvm| pvm.owners.iter().nth_back(1).copied()) else {
            return;
        };
        let store = self.store.clone();
        let attach = move || {
            if let Err(error) = vif::attach(&store, parent, domain, id, &config) {
                log::warn!(id = id.raw(); "no network device for a child: {error}");
            }
        };
        if let Err(error) = thread::Builder::new().name("vif".to_owned()).spawn(attach) {
            log::warn!(id = id.raw(); "no thread for a child's network device: {error}");
        }
    }

    /// A child does not need its parent's snapshot any more.
    pub(super) fn no_longer_resuming(&mut self, domain: DomId) {
        let is_parent = |pvm: &&mut Pvm<H::Memory>| pvm.resuming.contains(&domain);
        let Some(parent) = self.domains.values_mut().find(is_parent) else { return };
        parent.resuming.retain(|child| *child != domain);
        let parent = parent.domain;
        self.go_on(parent);
    }

    /// Looks what a prepared domain has to say: that it is at its waiting point.
    pub(super) fn look_at_prepared(&mut self, parent: DomId, domain: DomId) {
        let Some(pvm) = self.domains.get_mut(&parent) else { return };
        let Some(prepared) = pvm.prepared.iter_mut().find(|prepared| prepared.domain == domain) else { return };
        if prepared.waiting || prepared.channel.get(guest::STATE) != state::WAITING {
            return;
        }
        prepared.waiting = true;
        self.timers.retain(|(_, timer)| *timer != Timer::Waiting(parent, domain));
        self.look_for_console(parent, domain, CONSOLE_TRIES);
    }

    /// Looks whether xenconsoled has made the console of a prepared domain that is at its waiting point: with that it is ready. Where
    /// xenconsoled does not do it in time, the domain is ready without.
    pub(super) fn look_for_console(&mut self, parent: DomId, domain: DomId, tries: u32) {
        let has_console = self.without_consoles || tries == 0 || home::has_console(&self.store, domain);
        let Some(pvm) = self.domains.get_mut(&parent) else { return };
        let Some(prepared) = pvm.prepared.iter_mut().find(|prepared| prepared.domain == domain) else { return };
        if !has_console {
            return self.after(CONSOLE_PAUSE, Timer::Console(parent, domain, tries - 1));
        }
        if tries == 0 && !self.without_consoles {
            log::warn!("xenconsoled makes no console for domain {domain}: is it running?");
            self.without_consoles = true;
        }
        prepared.console = true;
        pvm.show_ready();
        let (id, name, prepared) = (pvm.id, pvm.name.clone(), pvm.ready());
        self.counters.prepared += 1;
        self.tell(id, &name, EventKind::Prepared { prepared, domid: domain.0 });
        self.go_on(parent);
        self.notify(parent);
        self.refresh_soon(parent);
    }

    /// A prepared domain has had its time to come to its waiting point.
    pub(super) fn check_waiting(&mut self, parent: DomId, domain: DomId) {
        self.look_at_prepared(parent, domain);
        let Some(pvm) = self.domains.get_mut(&parent) else { return };
        let Some(place) = pvm.prepared.iter().position(|prepared| prepared.domain == domain && !prepared.waiting)
        else {
            return;
        };
        let prepared = pvm.prepared.remove(place);
        self.discard(prepared);
        self.cannot_prepare(parent, &Failure::TimedOut);
    }

    /// A child has had its time to resume.
    pub(super) fn check_resumed(&mut self, domain: DomId) {
        self.look_at(domain);
        if let Some(pvm) = self.domains.get(&domain).filter(|pvm| !pvm.resumed) {
            let id = pvm.id;
            self.trouble(id, "a child does not resume", &Failure::TimedOut);
            self.destroy_child(domain, zooid_fork_plan::status::Status::Crashed);
        }
    }

    /// Sees to it that at least `count` domains are prepared, or being built, for a pVM.
    pub(super) fn prepare(&mut self, domain: DomId, count: usize) -> Result<(), Failure> {
        let under_way =
            self.jobs.iter().filter(|job| matches!(job, Job::Build(other) if other.parent == domain)).count();
        let have = self.domains[&domain].prepared.iter().filter(|prepared| !prepared.broken).count();
        for _ in have + under_way..count {
            self.check_quota(domain, 1)?;
            self.jobs.push_back(Job::Build(Box::new(Building::new(domain))));
        }
        Ok(())
    }

    /// Prepares as many domains as a pVM is to have.
    pub(super) fn replenish(&mut self, domain: DomId) {
        let Some(pool) = self.domains.get(&domain).and_then(|pvm| pvm.forking.as_ref()).map(|forking| forking.pool)
        else {
            return;
        };
        if self.quitting.is_none()
            && let Err(failure) = self.prepare(domain, pool as usize)
        {
            log::debug!("no domain is prepared: {failure}");
        }
    }

    pub(super) fn after_build(&mut self, building: Building<H::Memory>) {
        let parent = building.parent;
        if let Some(domain) = building.number() {
            self.after(self.config.start_timeout, Timer::Waiting(parent, domain));
        }
    }

    pub(super) fn after_failed_build(&mut self, building: Building<H::Memory>, failure: &Failure) {
        let parent = building.parent;
        self.abandon_building(building);
        self.cannot_prepare(parent, failure);
    }

    fn cannot_prepare(&mut self, parent: DomId, failure: &Failure) {
        let Some(pvm) = self.domains.get(&parent) else { return };
        let (id, pending) = (pvm.id, pvm.pending);
        match pending {
            Some(Pending::Prepare(_)) => self.refuse(parent, failure),
            _ => self.trouble(id, "no domain can be prepared", failure),
        }
    }

    /// Brings all domains that are prepared for a pVM up to date. What cannot be is discarded.
    fn refresh(&mut self, domain: DomId) -> Result<(), Failure> {
        self.follow_tables(domain)?;
        let count = self.domains[&domain].forking.as_ref().map_or(0, |forking| forking.tables.count());
        for place in 0..count {
            self.refresh_table(domain, place);
        }
        self.discard_broken(domain);
        Ok(())
    }

    /// Brings one table of all domains that are prepared for a pVM up to date; how many entries that were.
    fn refresh_table(&mut self, domain: DomId, place: usize) -> usize {
        let Self { domains, memory_owners, libraries, xen, scratch, .. } = self;
        let Some(pvm) = domains.get_mut(&domain) else { return 0 };
        let memory_owners_of = MemoryOwners::of(pvm.root, memory_owners, libraries.as_ref());
        let Some((source, all)) = pvm.linking(memory_owners_of) else { return 0 };
        let mut changed = 0;
        for prepared in all {
            let mut target =
                Target { domain: prepared.domain, linkage: &mut prepared.linkage, bitmaps: Some(&prepared.bitmaps) };
            for _ in 0..TRIES {
                match target.relink(&**xen, &source, place, scratch) {
                    Ok(entries) => {
                        changed += entries;
                        break;
                    }
                    // The parent copied a page in between; if it goes on, it is for the next time.
                    Err(failure) if is_race(&failure) => {}
                    Err(failure) => {
                        log::debug!("a domain cannot be brought up to date: {failure}");
                        prepared.broken = true;
                        break;
                    }
                }
            }
        }
        changed
    }

    /// A part of bringing prepared domains up to date in the background.
    pub(super) fn refresh_step(&mut self, domain: DomId, place: usize) {
        if place == 0
            && let Err(failure) = self.follow_tables(domain)
        {
            return log::debug!("tables cannot be followed: {failure}");
        }
        let Some(forking) = self.domains.get(&domain).and_then(|pvm| pvm.forking.as_ref()) else { return };
        let end = forking.tables.count().min(place + TABLES_AT_ONCE);
        let all = end == forking.tables.count();
        let changed: usize = (place..end).map(|place| self.refresh_table(domain, place)).sum();
        if changed > 0 {
            log::trace!("{changed} entries of domain {domain} were brought up to date");
        }
        if all {
            self.discard_broken(domain);
            self.replenish(domain);
        } else {
            self.jobs.push_back(Job::Refresh(domain, end));
        }
    }

    /// Looks again and again, less and less often, whether a pVM has changed pages: after a fork it copies them.
    pub(super) fn refresh_soon(&mut self, domain: DomId) {
        self.timers.retain(|(_, timer)| !matches!(timer, Timer::Refresh(other, _) if *other == domain));
        self.after(FIRST_REFRESH, Timer::Refresh(domain, FIRST_REFRESH));
    }

    pub(super) fn refresh_later(&mut self, domain: DomId, pause: Duration) {
        if self.domains.get(&domain).is_none_or(|pvm| pvm.forking.is_none()) {
            return;
        }
        self.jobs.push_back(Job::Refresh(domain, 0));
        let pause = LAST_REFRESH.min(pause * 2);
        self.after(pause, Timer::Refresh(domain, pause));
    }

    /// Takes in which tables of a parent came or went, in itself and in the domains that are prepared for it.
    pub(super) fn follow_tables(&mut self, domain: DomId) -> Result<(), Failure> {
        let Self { domains, memory_owners, libraries, xen, scratch, .. } = self;
        let pvm = domains.get_mut(&domain).ok_or(Failure::Gone)?;
        let forking = pvm.forking.as_mut().ok_or(Failure::Gone)?;
        let counted = pvm.channel.as_ref().map_or(0, |channel| channel.get(guest::TABLES));
        match forking.tables.change(counted, scratch.entries()) {
            Change::None => return Ok(()),
            Change::Grown => {}
            Change::Gone => {
                pvm.prepared.iter_mut().for_each(|prepared| prepared.broken = true);
                return self.read_tables(domain);
            }
        }
        if forking.tables.grow(&**xen, domain, counted).is_err() {
            pvm.prepared.iter_mut().for_each(|prepared| prepared.broken = true);
            return self.read_tables(domain);
        }
        let memory_owners_of = MemoryOwners::of(pvm.root, memory_owners, libraries.as_ref());
        let (source, all) = pvm.linking(memory_owners_of).ok_or(Failure::Gone)?;
        for prepared in all {
            let mut target =
                Target { domain: prepared.domain, linkage: &mut prepared.linkage, bitmaps: Some(&prepared.bitmaps) };
            prepared.broken |= target.add_tables(&**xen, &source).is_err();
        }
        Ok(())
    }
}
