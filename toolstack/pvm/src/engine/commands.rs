//! Commands of users, which come through the daemon's socket.

use std::sync::{Weak, mpsc};
use std::time::Instant;

use xen_abi::{DomId, Errno};
use xenctl::{DomainInfo, Hypervisor, Memory, xenstore};
use zooid_fork_plan::id::PvmId;
use zooid_fork_plan::status::Status;
use zooid_fork_plan::wire::{MAX_CHILDREN, daemon, guest};

use super::api::{self, Command, Ended, Error, PoolInfo, PvmInfo, Reply, State, Stats, Target};
use super::books::{Prepared, Pvm};
use super::core::{Follow, Host, Timer};
use super::end::Gone;
use super::home;
use super::quota::PAGE_KIB;
use super::sabotage::{self, Sabotage};

/// Signal that no guest can refuse.
const SIGKILL: u8 = 9;
/// The one signal that a pVM without the fork component obeys.
const SIGTERM: u8 = 15;
/// Number of signals: each is a bit of a word.
const SIGNALS: u8 = 64;
/// Most octets of an application's name and arguments.
const MAX_APPLICATION: usize = 2048;

/// A client that waits for the end of a pVM.
#[derive(Debug)]
pub struct Waiter {
    id: PvmId,
    client: Weak<()>,
    reply: Reply<Ended>,
}

/// A client that waits for a fork from outside.
#[derive(Debug)]
pub struct OutsideFork {
    id: PvmId,
    number: u32,
    until: Instant,
    /// The children that its COMMIT has made.
    children: Vec<u32>,
    reply: Reply<Vec<u32>>,
}

impl<H: Hypervisor> Host<H> {
    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::List { ended, reply } => {
                let mut list = self.list();
                if ended {
                    list.extend(self.books.ended().cloned());
                }
                answer(&reply, Ok(list));
            }
            Command::Inspect { target, reply } => answer(&reply, self.inspect(&target)),
            Command::Kill { target, signal, family, reply } => self.kill(&target, signal, family, reply),
            Command::Stop { target, reply } => {
                let result = self.resolve(&target).and_then(|id| self.shut_down(id));
                answer(&reply, result);
            }
            Command::Update { target, library, version, limit, reply } => {
                self.update_library(&target, &library, version.as_ref(), limit, reply);
            }
            Command::Fork { target, count, application, reply } => {
                self.fork_from_outside(&target, count, &application, reply);
            }
            Command::Wait { target, client, reply } => self.wait_for(&target, client, reply),
            Command::NoNetwork { child, reason } => self.trouble(child, "no network device for a child", &reason),
            Command::Adopt { domain, reply } => {
                let result =
                    self.add_root(DomId(domain), None).map_err(|failure| Error::Refused { what: failure.to_string() });
                let info = result.and_then(|id| self.info(id).ok_or(Error::HasEnded { id: id.raw() }));
                answer(&reply, info);
            }
            Command::Stats { reply } => answer(&reply, Ok(self.stats())),
            Command::Pool { reply } => answer(&reply, Ok(self.pool())),
            Command::Objects { target, reply } => answer(&reply, self.list_objects(target.as_ref())),
            Command::RemoveObject { target, name, reply } => answer(&reply, self.remove_object(&target, &name)),
            Command::Subscribe { events } => self.subscribe(events),
            Command::Quit { reply } => self.quitting = Some(reply),
        }
    }

    /// The living pVM that a user names.
    pub(super) fn resolve(&self, target: &Target) -> Result<PvmId, Error> {
        let mut found: Vec<PvmId> = match target {
            Target::Id(number) => {
                let id = PvmId::from_raw(*number).filter(|id| self.books.get(*id).is_some());
                let of_number = || self.books.id_of(u16::try_from(*number).ok().map(DomId)?);
                id.or_else(of_number).into_iter().collect()
            }
            Target::Name(name) => self.books.iter().filter(|pvm| pvm.name == *name).map(Pvm::id).collect(),
        };
        match (found.pop(), found.is_empty()) {
            (Some(id), true) => Ok(id),
            (Some(id), false) => {
                let ids = found.into_iter().chain([id]).map(PvmId::raw).collect();
                Err(Error::Ambiguous { target: target.to_string(), ids })
            }
            (None, _) => match self.find_remembered(target) {
                Some(info) => Err(Error::HasEnded { id: info.id }),
                None => Err(Error::NoSuchPvm { target: target.to_string() }),
            },
        }
    }

    /// The ended pVM that a user names: the last one of that name.
    fn find_remembered(&self, target: &Target) -> Option<&PvmInfo> {
        self.books.ended().rev().find(|info| match target {
            Target::Id(number) => info.id == *number || u32::from(info.domid) == *number,
            Target::Name(name) => info.name == *name,
        })
    }

    fn inspect(&mut self, target: &Target) -> Result<PvmInfo, Error> {
        match self.resolve(target) {
            Ok(id) => self.info(id).ok_or_else(|| Error::NoSuchPvm { target: target.to_string() }),
            Err(error @ Error::HasEnded { .. }) => self.find_remembered(target).cloned().ok_or(error),
            Err(error) => {
                let is_meant = |prepared: &Prepared<H::Memory>| match target {
                    Target::Id(number) => prepared.id.raw() == *number || u32::from(prepared.domain().0) == *number,
                    Target::Name(name) => prepared.name == *name,
                };
                let mut found =
                    self.books.iter().flat_map(|pvm| pvm.prepared.iter().map(move |prepared| (pvm, prepared)));
                let (parent, prepared) = found.find(|(_, prepared)| is_meant(prepared)).ok_or(error)?;
                let info = self.xen.domain_info(prepared.domain()).ok().flatten();
                Ok(self.describe_prepared(parent, prepared, info.as_ref()))
            }
        }
    }

    fn list(&self) -> Vec<PvmInfo> {
        let all = self.xen.domains().unwrap_or_default();
        let describe = |pvm: &Pvm<H::Memory>| {
            let info = all.iter().find(|info| info.id == pvm.domain());
            self.describe(pvm, info)
        };
        self.books.iter().map(describe).collect()
    }

    /// The description of a living pVM.
    pub(super) fn info(&self, id: PvmId) -> Option<PvmInfo> {
        let pvm = self.books.get(id)?;
        let info = self.xen.domain_info(id.domain()).ok().flatten();
        Some(self.describe(pvm, info.as_ref()))
    }

    fn describe(&self, pvm: &Pvm<H::Memory>, info: Option<&DomainInfo>) -> PvmInfo {
        let state = match info {
            Some(info) if info.is_paused() => State::Paused,
            _ if pvm.is_resumed() => State::Running,
            _ => State::Starting,
        };
        let children = self.books.iter().filter(|child| child.parent() == Some(pvm.id())).map(|child| child.id().raw());
        PvmInfo {
            id: pvm.id().raw(),
            domid: pvm.domain().0,
            name: pvm.name.clone(),
            kind: if pvm.is_child() { api::Kind::Child } else { api::Kind::Root },
            state,
            can_fork: pvm.channel.is_some(),
            parent: pvm.parent().map(PvmId::raw),
            root: pvm.root().raw(),
            children: children.collect(),
            prepared: pvm.ready(),
            backend: pvm.channel.as_ref().map(|_| self.backend.into()),
            memory_kib: info.map_or(0, |info| info.pages * PAGE_KIB),
            max_memory_kib: info.map_or(0, |info| info.max_pages * PAGE_KIB),
            cpu_ns: info.map_or(0, |info| info.cpu_time),
            since_us: self.clock.date_us(pvm.since_us),
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
            domid: prepared.domain().0,
            name: prepared.name.clone(),
            kind: api::Kind::Prepared,
            state: if prepared.is_ready() { State::Waiting } else { State::Starting },
            can_fork: false,
            parent: Some(parent.id().raw()),
            root: parent.root().raw(),
            children: Vec::new(),
            prepared: 0,
            backend: Some(self.backend.into()),
            memory_kib: info.map_or(0, |info| info.pages * PAGE_KIB),
            max_memory_kib: info.map_or(0, |info| info.max_pages * PAGE_KIB),
            cpu_ns: info.map_or(0, |info| info.cpu_time),
            since_us: self.clock.date_us(parent.since_us),
            ended: None,
        }
    }

    fn pool(&self) -> Vec<PoolInfo> {
        let all = self.xen.domains().unwrap_or_default();
        let mut list = Vec::new();
        for pvm in self.books.iter() {
            for prepared in &pvm.prepared {
                let info = all.iter().find(|info| info.id == prepared.domain());
                list.push(PoolInfo {
                    id: prepared.id.raw(),
                    domid: prepared.domain().0,
                    parent: pvm.id().raw(),
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
            alive: self.books.len() as u64,
            pool: self.books.iter().map(|pvm| pvm.prepared.len() as u64).sum(),
            operations: self.executor.count(),
            relinked_entries: self.counters.entries(),
            steps: self.counters.steps().chain(self.executor.times()).collect(),
        }
    }

    fn wait_for(&mut self, target: &Target, client: Weak<()>, reply: Reply<Ended>) {
        // Clients that come and leave while a pVM lives must not add up.
        self.waiters.retain(|waiter| waiter.client.strong_count() > 0);
        match self.resolve(target) {
            Ok(id) => self.waiters.push(Waiter { id, client, reply }),
            Err(Error::HasEnded { .. }) => {
                let ended = self.find_remembered(target).and_then(|info| info.ended);
                answer(&reply, ended.ok_or_else(|| Error::NoSuchPvm { target: target.to_string() }));
            }
            Err(error) => answer(&reply, Err(error)),
        }
    }

    /// A pVM has left the books: answers the clients that wait for its end, or for something that
    /// it was to do.
    pub(super) fn forget_commands(&mut self, gone: &Gone<H::Memory>) {
        self.waiters.retain(|waiter| {
            let is_it = waiter.id == gone.id;
            if is_it {
                answer(&waiter.reply, Ok(gone.end));
            }
            !is_it
        });
        self.outside.retain(|fork| {
            let is_it = fork.id == gone.id;
            if is_it {
                answer(&fork.reply, Err(Error::HasEnded { id: gone.end.id }));
            }
            !is_it
        });
        self.forget_updates(gone.id);
    }

    /// A pVM and, if wanted, all its descendants, adopted ones too.
    fn descendants(&self, id: PvmId, family: bool) -> Vec<PvmId> {
        let same =
            |other: &PvmId| *other == id || sabotage::is(Sabotage::NumberForIdentity) && other.domain() == id.domain();
        let is_meant = |pvm: &&Pvm<H::Memory>| pvm.id() == id || family && pvm.ancestors().iter().any(same);
        self.books.iter().filter(is_meant).map(Pvm::id).collect()
    }

    fn kill(&mut self, target: &Target, signal: u8, family: bool, reply: Reply<Vec<u32>>) {
        let id = match self.resolve(target) {
            Ok(id) => id,
            Err(error) => return answer(&reply, Err(error)),
        };
        if signal == 0 || signal >= SIGNALS {
            return answer(&reply, Err(Error::Refused { what: format!("there is no signal {signal}") }));
        }
        let meant = self.descendants(id, family);
        let ids: Vec<u32> = meant.iter().map(|id| id.raw()).collect();
        if signal != SIGKILL {
            let result = meant.into_iter().try_for_each(|id| self.signal(id, signal));
            return answer(&reply, result.map(|()| ids));
        }
        let mut roots = Vec::new();
        for id in meant {
            // A root is left to the toolstack that started it. No frame that is held here may keep
            // it from going.
            if self.books.get(id).is_some_and(|pvm| !pvm.is_child()) {
                self.stop(id);
                roots.push(id.domain());
            }
            self.follow(Follow::End(id, Status::Killed(SIGKILL)));
        }
        if roots.is_empty() {
            return answer(&reply, Ok(ids));
        }
        let (xen, stopped) = (self.xen.clone(), roots.clone());
        let done = move |result: Result<(), String>| {
            if result.is_err() {
                // Those that are still there must not stay paused.
                stopped.into_iter().for_each(|root| drop(xen.unpause(root)));
            }
            answer(&reply, result.map(|()| ids).map_err(|what| Error::Refused { what }));
        };
        self.toolstack.destroy(roots, Box::new(done));
    }

    /// Sends a signal to a pVM of the same family, as one of its members asks; 0 only checks that
    /// it exists.
    pub(super) fn kill_relative(&mut self, id: PvmId, signal: u32) -> Result<(), Errno> {
        let asker = self.books.get(id).ok_or(Errno::ESRCH)?;
        let (root, target) = (asker.root(), asker.channel.as_ref().map_or(0, |channel| channel.get(guest::OBJECT)));
        let target = PvmId::from_raw(target).ok_or(Errno::ESRCH)?;
        if self.books.get(target).is_none_or(|pvm| pvm.root() != root) {
            return Err(Errno::ESRCH);
        }
        match u8::try_from(signal) {
            Ok(0) => Ok(()),
            Ok(signal) if signal < SIGNALS => {
                // No client waits for the answer.
                self.kill(&Target::Id(target.raw()), signal, false, mpsc::channel().0);
                Ok(())
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// Hands a signal to a pVM.
    fn signal(&self, id: PvmId, signal: u8) -> Result<(), Error> {
        let Some(pvm) = self.books.get(id) else { return Ok(()) };
        let Some(channel) = &pvm.channel else {
            if signal == SIGTERM {
                return self.shut_down(id);
            }
            return Err(Error::CannotFork { id: id.raw() });
        };
        let bit = 1 << signal;
        let (sent, taken) = (channel.page.read_u64(daemon::SIGNALS), channel.page.read_u64(guest::SIGNALS_TAKEN));
        if (sent ^ taken) & bit == 0 {
            channel.page.write_u64(daemon::SIGNALS, sent ^ bit);
        }
        self.notify(id);
        Ok(())
    }

    fn shut_down(&self, id: PvmId) -> Result<(), Error> {
        let path = format!("{}/control/shutdown", home::path(id.domain()));
        self.store.write(&path, "poweroff").map_err(|error| Error::Refused { what: format!("xenstore: {error}") })
    }

    fn fork_from_outside(&mut self, target: &Target, count: u32, application: &[String], reply: Reply<Vec<u32>>) {
        if let Err(error) = self.ask_to_fork(target, count, application, &reply) {
            answer(&reply, Err(error));
        }
    }

    fn ask_to_fork(
        &mut self,
        target: &Target,
        count: u32,
        application: &[String],
        reply: &Reply<Vec<u32>>,
    ) -> Result<(), Error> {
        let id = self.resolve(target)?;
        if !(1..=MAX_CHILDREN).contains(&count) {
            return Err(Error::Refused { what: format!("1 to {MAX_CHILDREN} children can be made at once") });
        }
        let is_announced = |pvm: &Pvm<H::Memory>| pvm.channel.is_some();
        if !self.books.get(id).is_some_and(is_announced) {
            return Err(Error::CannotFork { id: id.raw() });
        }
        if self.outside.iter().any(|fork| fork.id == id) {
            let what = format!("pVM {id} is being forked from outside already");
            return Err(Error::Errno { errno: Errno::EBUSY.0, what });
        }
        self.hand_over(id, application)?;
        let Some(channel) = self.books.get(id).and_then(|pvm| pvm.channel.as_ref()) else { return Ok(()) };
        // Not 0, the value in a new control page.
        let number = channel.get(daemon::OUTSIDE).wrapping_add(1).max(1);
        channel.put(daemon::OUTSIDE_COUNT, count);
        channel.put(daemon::OUTSIDE, number);
        self.notify(id);
        let until = self.after(self.config.outside_timeout, Timer::Outside);
        self.outside.push(OutsideFork { id, number, until, children: Vec::new(), reply: reply.clone() });
        Ok(())
    }

    /// A client still waits for this fork from outside.
    pub(super) fn is_asked_from_outside(&self, id: PvmId, number: u32) -> bool {
        self.outside.iter().any(|fork| fork.id == id && fork.number == number)
    }

    /// Writes the application of the next fork from outside to xenstore, for the empty pVM to read.
    fn hand_over(&self, id: PvmId, application: &[String]) -> Result<(), Error> {
        let refused = |error| Error::Refused { what: format!("xenstore: {error}") };
        let home = home::path(id.domain());
        let path = format!("{home}/application");
        if application.is_empty() {
            // One that an earlier daemon has left is not for this fork.
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
        // Only its presence counts: a guest can write any value.
        if self.store.read(&format!("{home}/data/application")).is_err() {
            return Err(Error::TakesNoApplication { id: id.raw() });
        }
        self.store.write(&path, &words).map_err(refused)
    }

    /// Records the children that were made for a fork from outside.
    pub(super) fn record_outside(&mut self, id: PvmId, number: u32, children: &[Prepared<H::Memory>]) {
        if let Some(fork) = self.outside.iter_mut().find(|fork| fork.id == id && fork.number == number) {
            fork.children = children.iter().map(|child| child.id.raw()).collect();
        }
    }

    /// Answers a fork from outside, if it is done.
    pub(super) fn look_at_outside(&mut self, id: PvmId) {
        let Some(place) = self.outside.iter().position(|fork| fork.id == id) else { return };
        let Some(pvm) = self.books.get(id) else { return };
        let Some(channel) = &pvm.channel else { return };
        if self.outside.get(place).is_none_or(|fork| channel.get(guest::OUTSIDE_DONE) != fork.number) {
            return;
        }
        let errno = channel.get(guest::OUTSIDE_ERRNO);
        let fork = self.outside.swap_remove(place);
        let result = match errno {
            0 => Ok(fork.children),
            errno => Err(Error::Errno { errno, what: format!("pVM {id} could not fork") }),
        };
        answer(&fork.reply, result);
    }

    /// Gives up forks from outside whose time is over. A COMMIT that comes for one of them later is
    /// refused.
    pub(super) fn check_outside(&mut self, now: Instant) {
        let over: Vec<PvmId> = self.outside.iter().filter(|fork| fork.until <= now).map(|fork| fork.id).collect();
        for id in over {
            // It may be done by now.
            self.look_at_outside(id);
            let Some(place) = self.outside.iter().position(|fork| fork.id == id) else { continue };
            let fork = self.outside.swap_remove(place);
            if let Some(channel) = self.books.get(id).and_then(|pvm| pvm.channel.as_ref()) {
                channel.put(daemon::OUTSIDE_COUNT, 0);
            }
            if let Err(error) = self.hand_over(id, &[]) {
                log::debug!(id = id.raw(); "{error}");
            }
            answer(&fork.reply, Err(Error::NoSafePoint { id: id.raw() }));
        }
    }
}

/// Sends an answer. A client that has gone is no error.
fn answer<T>(reply: &Reply<T>, result: Result<T, Error>) {
    let _ = reply.send(result);
}
