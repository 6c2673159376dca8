//! What users ask for, through the daemon's socket.

use std::process::{Command as Process, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use xen_abi::{DomId, Errno};
use xenctl::{DomainInfo, Hypervisor, Memory, xenstore};
use zooid_fork_plan::id::PvmId;
use zooid_fork_plan::status::Status;
use zooid_fork_plan::wire::{MAX_CHILDREN, daemon, guest};

use super::api::{self, Command, Ended, Error, PoolInfo, PvmInfo, Reply, State, Stats, Target};
use super::core::{Engine, Timer};
use super::home;
use super::pvm::{Prepared, Pvm};

/// Signal that no guest can refuse.
const SIGKILL: u8 = 9;
/// The one signal that a pVM without the fork component obeys.
const SIGTERM: u8 = 15;
/// Signals are bits of a word.
const SIGNALS: u8 = 64;
/// KiB of a page.
const PAGE_KIB: u64 = 4;
/// Octets of an application's name and arguments.
const MAX_APPLICATION: usize = 2048;

/// Somebody waits for the end of a pVM.
#[derive(Debug)]
pub struct Waiter {
    id: PvmId,
    reply: Reply<Ended>,
}

/// Somebody waits for a fork from outside.
#[derive(Debug)]
pub struct OutsideFork {
    domain: DomId,
    id: PvmId,
    number: u32,
    until: Instant,
    reply: Reply<Vec<u32>>,
}

impl<H: Hypervisor> Engine<H> {
    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::List { ended, reply } => {
                let mut list = self.list();
                if ended {
                    list.extend(self.ended.iter().cloned());
                }
                answer(&reply, Ok(list));
            }
            Command::Inspect { target, reply } => answer(&reply, self.inspect(&target)),
            Command::Kill { target, signal, family, reply } => self.kill(&target, signal, family, reply),
            Command::Stop { target, reply } => {
                let result = self.resolve(&target).and_then(|domain| self.shut_down(domain));
                answer(&reply, result);
            }
            Command::Update { target, library, version, limit, reply } => {
                self.update_library(&target, &library, version.as_ref(), limit, reply);
            }
            Command::Fork { target, count, application, reply } => {
                self.fork_from_outside(&target, count, &application, reply);
            }
            Command::Wait { target, reply } => self.wait_for(&target, reply),
            Command::Adopt { domain, reply } => {
                let result =
                    self.add_root(DomId(domain), None).map_err(|failure| Error::Refused { what: failure.to_string() });
                let info = result.map(|_| self.info(DomId(domain)).expect("it was added just now"));
                answer(&reply, info);
            }
            Command::Stats { reply } => answer(&reply, Ok(self.stats())),
            Command::Pool { reply } => answer(&reply, Ok(self.pool())),
            Command::Objects { target, reply } => answer(&reply, self.list_objects(target.as_ref())),
            Command::RemoveObject { target, name, reply } => answer(&reply, self.remove_object(&target, &name)),
            Command::Subscribe { events } => self.subscribers.push(events),
            Command::Quit { reply } => self.quitting = Some(reply),
        }
    }

    /// The living pVM that a user means.
    pub(super) fn resolve(&self, target: &Target) -> Result<DomId, Error> {
        let mut found: Vec<&Pvm<H::Memory>> = match target {
            Target::Id(number) => {
                let id = PvmId::from_raw(*number).and_then(|id| self.ids.get(&id));
                let domid = u16::try_from(*number).ok().map(DomId);
                id.or(domid.as_ref()).and_then(|domain| self.domains.get(domain)).into_iter().collect()
            }
            Target::Name(name) => self.domains.values().filter(|pvm| pvm.name == *name).collect(),
        };
        match (found.pop(), found.is_empty()) {
            (Some(pvm), true) => Ok(pvm.domain),
            (Some(pvm), false) => {
                let ids = found.iter().map(|pvm| pvm.id.raw()).chain([pvm.id.raw()]).collect();
                Err(Error::Ambiguous { target: target.to_string(), ids })
            }
            (None, _) => match self.find_remembered(target) {
                Some(info) => Err(Error::HasEnded { id: info.id }),
                None => Err(Error::NoSuchPvm { target: target.to_string() }),
            },
        }
    }

    /// The pVM that a user means among those that have ended: the last one of a name.
    fn find_remembered(&self, target: &Target) -> Option<&PvmInfo> {
        self.ended.iter().rev().find(|info| match target {
            Target::Id(number) => info.id == *number || u32::from(info.domid) == *number,
            Target::Name(name) => info.name == *name,
        })
    }

    fn inspect(&mut self, target: &Target) -> Result<PvmInfo, Error> {
        match self.resolve(target) {
            Ok(domain) => self.info(domain).ok_or_else(|| Error::NoSuchPvm { target: target.to_string() }),
            Err(Error::HasEnded { .. }) => Ok(self.find_remembered(target).expect("it has ended").clone()),
            Err(error) => {
                let is_meant = |prepared: &Prepared<H::Memory>| match target {
                    Target::Id(number) => prepared.id.raw() == *number || u32::from(prepared.domain.0) == *number,
                    Target::Name(name) => prepared.name == *name,
                };
                let all = self.domains.values();
                let mut found = all.flat_map(|pvm| pvm.prepared.iter().map(move |prepared| (pvm, prepared)));
                let (parent, prepared) = found.find(|(_, prepared)| is_meant(prepared)).ok_or(error)?;
                let info = self.xen.domain_info(prepared.domain).ok().flatten();
                Ok(self.describe_prepared(parent, prepared, info.as_ref()))
            }
        }
    }

    fn list(&self) -> Vec<PvmInfo> {
        let all = self.xen.domains().unwrap_or_default();
        let describe = |pvm: &Pvm<H::Memory>| {
            let info = all.iter().find(|info| info.id == pvm.domain);
            self.describe(pvm, info)
        };
        self.domains.values().map(describe).collect()
    }

    /// What is known of a living pVM.
    pub(super) fn info(&self, domain: DomId) -> Option<PvmInfo> {
        let pvm = self.domains.get(&domain)?;
        let info = self.xen.domain_info(domain).ok().flatten();
        Some(self.describe(pvm, info.as_ref()))
    }

    fn describe(&self, pvm: &Pvm<H::Memory>, info: Option<&DomainInfo>) -> PvmInfo {
        let is_child = pvm.owners.len() > 1;
        let state = match info {
            Some(info) if info.is_paused() => State::Paused,
            _ if pvm.resumed => State::Running,
            _ => State::Starting,
        };
        let children = self.domains.values().filter(|child| child.parent == Some(pvm.id)).map(|child| child.id.raw());
        PvmInfo {
            id: pvm.id.raw(),
            domid: pvm.domain.0,
            name: pvm.name.clone(),
            kind: if is_child { api::Kind::Child } else { api::Kind::Root },
            state,
            can_fork: pvm.channel.is_some(),
            parent: pvm.parent.map(PvmId::raw),
            root: pvm.root.raw(),
            children: children.collect(),
            prepared: pvm.ready(),
            backend: pvm.channel.as_ref().map(|_| self.backend.into()),
            memory_kib: info.map_or(0, |info| info.pages * PAGE_KIB),
            max_memory_kib: info.map_or(0, |info| info.max_pages * PAGE_KIB),
            cpu_ns: info.map_or(0, |info| info.cpu_time),
            since_us: pvm.since_us,
            ended: None,
        }
    }

    fn describe_prepared(
        &self,
        parent: &Pvm<H::Memory>,
        prepared: &Prepared<H::Memory>,
        info: Option<&DomainInfo>,
    ) -> PvmInfo {
        PvmInfo {
            id: prepared.id.raw(),
            domid: prepared.domain.0,
            name: prepared.name.clone(),
            kind: api::Kind::Prepared,
            state: if prepared.is_ready() { State::Waiting } else { State::Starting },
            can_fork: false,
            parent: Some(parent.id.raw()),
            root: parent.root.raw(),
            children: Vec::new(),
            prepared: 0,
            backend: Some(self.backend.into()),
            memory_kib: info.map_or(0, |info| info.pages * PAGE_KIB),
            max_memory_kib: info.map_or(0, |info| info.max_pages * PAGE_KIB),
            cpu_ns: info.map_or(0, |info| info.cpu_time),
            since_us: parent.since_us,
            ended: None,
        }
    }

    fn pool(&self) -> Vec<PoolInfo> {
        let all = self.xen.domains().unwrap_or_default();
        let mut list = Vec::new();
        for pvm in self.domains.values() {
            for prepared in &pvm.prepared {
                let info = all.iter().find(|info| info.id == prepared.domain);
                list.push(PoolInfo {
                    id: prepared.id.raw(),
                    domid: prepared.domain.0,
                    parent: pvm.id.raw(),
                    state: if prepared.is_ready() { State::Waiting } else { State::Starting },
                    memory_kib: info.map_or(0, |info| info.pages * PAGE_KIB),
                    linked_pages: prepared.linkage.linked() as u64,
                });
            }
        }
        list
    }

    fn stats(&self) -> Stats {
        Stats {
            forks: self.counters.forks,
            refused: self.counters.refused(),
            prepared: self.counters.prepared,
            ended: self.counters.ended,
            alive: self.domains.len() as u64,
            pool: self.domains.values().map(|pvm| pvm.prepared.len() as u64).sum(),
            operations: self.executor.count(),
            relinked_entries: self.counters.entries(),
            steps: self.counters.steps().chain(self.executor.times()).collect(),
        }
    }

    fn wait_for(&mut self, target: &Target, reply: Reply<Ended>) {
        match self.resolve(target) {
            Ok(domain) => self.waiters.push(Waiter { id: self.domains[&domain].id, reply }),
            Err(Error::HasEnded { .. }) => {
                let ended = self.find_remembered(target).and_then(|info| info.ended);
                answer(&reply, ended.ok_or_else(|| Error::NoSuchPvm { target: target.to_string() }));
            }
            Err(error) => answer(&reply, Err(error)),
        }
    }

    /// Tells whoever waits for this end.
    pub(super) fn answer_waiters(&mut self, end: &Ended) {
        self.waiters.retain(|waiter| {
            let is_it = waiter.id.raw() == end.id;
            if is_it {
                answer(&waiter.reply, Ok(*end));
            }
            !is_it
        });
        self.outside.retain(|fork| {
            let is_it = fork.id.raw() == end.id;
            if is_it {
                answer(&fork.reply, Err(Error::HasEnded { id: end.id }));
            }
            !is_it
        });
    }

    /// A pVM and, if wanted, all that descend from it, in whoever's care they are now.
    fn members(&self, domain: DomId, family: bool) -> Vec<DomId> {
        let is_member = |pvm: &&Pvm<H::Memory>| pvm.domain == domain || family && pvm.owners.contains(&domain);
        self.domains.values().filter(is_member).map(|pvm| pvm.domain).collect()
    }

    fn kill(&mut self, target: &Target, signal: u8, family: bool, reply: Reply<Vec<u32>>) {
        let domain = match self.resolve(target) {
            Ok(domain) => domain,
            Err(error) => return answer(&reply, Err(error)),
        };
        if signal == 0 || signal >= SIGNALS {
            return answer(&reply, Err(Error::Refused { what: format!("there is no signal {signal}") }));
        }
        let members = self.members(domain, family);
        let ids: Vec<u32> = members.iter().map(|domain| self.domains[domain].id.raw()).collect();
        let mut roots = Vec::new();
        for domain in members {
            if signal == SIGKILL {
                // Its descendants have been dealt with by themselves; the root, which is a toolstack's, is left to that.
                if self.domains.get(&domain).is_some_and(|pvm| pvm.owners.len() == 1) {
                    roots.push(domain);
                } else {
                    self.reap(domain, Status::Killed(SIGKILL));
                }
            } else if let Err(error) = self.signal(domain, signal) {
                return answer(&reply, Err(error));
            }
        }
        for domain in &roots {
            if let Some(pvm) = self.domains.get_mut(domain) {
                pvm.killed = Some(Status::Killed(SIGKILL));
            }
        }
        self.destroy_roots(roots, ids, reply);
    }

    /// Has the toolstack destroy domains that it has started, and answers then. `xl` takes its time.
    fn destroy_roots(&mut self, roots: Vec<DomId>, ids: Vec<u32>, reply: Reply<Vec<u32>>) {
        if roots.is_empty() {
            return answer(&reply, Ok(ids));
        }
        for root in &roots {
            // Nothing of ours may keep it from going.
            self.reap(*root, Status::Killed(SIGKILL));
        }
        let destroy = move || {
            for root in roots {
                let outcome = Process::new("xl").arg("destroy").arg(root.to_string()).stdin(Stdio::null()).output();
                let what = match outcome {
                    Ok(output) if output.status.success() => continue,
                    Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
                    Err(error) => error.to_string(),
                };
                return answer(&reply, Err(Error::Refused { what: format!("xl destroy {root}: {what}") }));
            }
            answer(&reply, Ok(ids));
        };
        if let Err(error) = thread::Builder::new().name("destroy".to_owned()).spawn(destroy) {
            log::error!("no thread to destroy a domain: {error}");
        }
    }

    /// Sends a signal to a pVM of the same family, as one of them asks; 0 only looks whether it lives.
    pub(super) fn kill_relative(&mut self, domain: DomId, signal: u32) -> Result<(), Errno> {
        let asker = self.domains.get(&domain).ok_or(Errno::ESRCH)?;
        let (root, target) = (asker.root, asker.channel.as_ref().map_or(0, |channel| channel.get(guest::OBJECT)));
        let target = PvmId::from_raw(target).ok_or(Errno::ESRCH)?;
        if self.by_id(target).is_none_or(|pvm| pvm.root != root) {
            return Err(Errno::ESRCH);
        }
        match u8::try_from(signal) {
            Ok(0) => Ok(()),
            Ok(signal) if signal < SIGNALS => {
                // Nobody waits for the answer.
                self.kill(&Target::Id(target.raw()), signal, false, mpsc::channel().0);
                Ok(())
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// Hands a signal to a pVM.
    fn signal(&mut self, domain: DomId, signal: u8) -> Result<(), Error> {
        let Some(pvm) = self.domains.get(&domain) else { return Ok(()) };
        let Some(channel) = &pvm.channel else {
            if signal == SIGTERM {
                return self.shut_down(domain);
            }
            return Err(Error::CannotFork { id: pvm.id.raw() });
        };
        let bit = 1 << signal;
        let (sent, taken) = (channel.page.read_u64(daemon::SIGNALS), channel.page.read_u64(guest::SIGNALS_TAKEN));
        if (sent ^ taken) & bit == 0 {
            channel.page.write_u64(daemon::SIGNALS, sent ^ bit);
        }
        self.notify(domain);
        Ok(())
    }

    fn shut_down(&self, domain: DomId) -> Result<(), Error> {
        let path = format!("{}/control/shutdown", home::path(domain));
        self.store.write(&path, "poweroff").map_err(|error| Error::Refused { what: format!("xenstore: {error}") })
    }

    fn fork_from_outside(&mut self, target: &Target, count: u32, application: &[String], reply: Reply<Vec<u32>>) {
        let domain = match self.resolve(target) {
            Ok(domain) => domain,
            Err(error) => return answer(&reply, Err(error)),
        };
        if !(1..=MAX_CHILDREN).contains(&count) {
            let what = format!("1 to {MAX_CHILDREN} children can be made at once");
            return answer(&reply, Err(Error::Refused { what }));
        }
        let pvm = &self.domains[&domain];
        let id = pvm.id;
        if pvm.channel.is_none() {
            return answer(&reply, Err(Error::CannotFork { id: id.raw() }));
        }
        if self.outside.iter().any(|fork| fork.domain == domain) {
            let what = format!("pVM {id} is being forked from outside already");
            return answer(&reply, Err(Error::Errno { errno: Errno::EBUSY.0, what }));
        }
        if let Err(error) = self.hand_over(domain, id, application) {
            return answer(&reply, Err(error));
        }
        let Some(channel) = self.domains.get(&domain).and_then(|pvm| pvm.channel.as_ref()) else { return };
        // Not 0, which is what is done in a new control page.
        let number = channel.get(daemon::OUTSIDE).wrapping_add(1).max(1);
        channel.put(daemon::OUTSIDE_COUNT, count);
        channel.put(daemon::OUTSIDE, number);
        self.notify(domain);
        let until = self.clock.now() + self.config.outside_timeout;
        self.timers.push((until, Timer::Outside));
        self.outside.push(OutsideFork { domain, id, number, until, reply });
    }

    /// Writes down what the children of the next fork from outside are to run, for the empty pVM to read.
    fn hand_over(&self, domain: DomId, id: PvmId, application: &[String]) -> Result<(), Error> {
        let refused = |error| Error::Refused { what: format!("xenstore: {error}") };
        let home = home::path(domain);
        let path = format!("{home}/application");
        if application.is_empty() {
            // One that a daemon before this one has left is not for this fork.
            return match self.store.remove(&path) {
                Ok(()) | Err(xenstore::Error::NotFound) => Ok(()),
                Err(error) => Err(refused(error)),
            };
        }
        let words: String = application.iter().flat_map(|word| [word, "\n"]).collect();
        if words.len() > MAX_APPLICATION || application.iter().any(|word| word.contains(char::is_control)) {
            let what = format!(
                "an application has a name and arguments of {MAX_APPLICATION} octets in all, without control characters"
            );
            return Err(Error::Refused { what });
        }
        // Only whether it is there counts: a guest can write what it likes.
        if self.store.read(&format!("{home}/data/application")).is_err() {
            return Err(Error::TakesNoApplication { id: id.raw() });
        }
        self.store.write(&path, &words).map_err(refused)
    }

    /// Looks whether a fork from outside is done.
    pub(super) fn look_at_outside(&mut self, domain: DomId) {
        if self.outside.is_empty() {
            return;
        }
        let Some(place) = self.outside.iter().position(|fork| fork.domain == domain) else { return };
        let Some(pvm) = self.domains.get(&domain) else { return };
        let Some(channel) = &pvm.channel else { return };
        if channel.get(guest::OUTSIDE_DONE) != self.outside[place].number {
            return;
        }
        let result = match channel.get(guest::OUTSIDE_ERRNO) {
            0 => Ok(pvm.last_children.clone()),
            errno => Err(Error::Errno { errno, what: format!("pVM {} could not fork", pvm.id) }),
        };
        let fork = self.outside.swap_remove(place);
        answer(&fork.reply, result);
    }

    /// Gives up forks from outside whose time is over.
    pub(super) fn check_outside(&mut self, now: Instant) {
        self.outside.retain(|fork| {
            if fork.until <= now {
                answer(&fork.reply, Err(Error::NoSafePoint { id: fork.id.raw() }));
            }
            fork.until > now
        });
    }
}

/// That nobody waits for the answer any more is no error.
fn answer<T>(reply: &Reply<T>, result: Result<T, Error>) {
    let _ = reply.send(result);
}
