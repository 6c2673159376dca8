//! The engine: the host's state that services work on, and the one loop that calls them.
//!
//! A **service** is a method of [`Host`] that does one thing for an event, a command, a timer or a
//! job. It may change the books and call the hypervisor, but no other service. Consequences go into
//! a queue ([`Host::follow`]), which the loop drains before it takes in anything else. So a service
//! always finds books in which everything that has happened is entered.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use xen_abi::{DomId, Port};
use xenctl::xenstore::{Store, Watch};
use xenctl::{Events, Hypervisor};
use zooid_fork_plan::id::PvmId;
use zooid_fork_plan::link::Backend;
use zooid_fork_plan::status::Status;

use super::api::{Event, EventKind, Reply};
use super::books::{Books, Pvm, Rate};
use super::clock::Clock;
use super::commands::{OutsideFork, Waiter};
use super::config::Config;
use super::end::{Gone, Reaping};
use super::executor::Executor;
use super::failure::Failure;
use super::forks::Forked;
use super::handle::{Handle, Inbox, pair};
use super::jobs::{Job, Jobs};
use super::quiet::Quiet;
use super::relink::Scratch;
use super::rest::Rest;
use super::stats::Counters;
use super::toolstack::Toolstack;
use super::updates::UpdateRequest;
use super::watch::{StoreChange, StoreChanges, Watched};
use super::{StartError, choose_backend};

/// Most times in a row that jobs are put off for events. Guests that send requests without end must
/// not keep others from getting theirs done.
const PUT_OFF: u32 = 8;
/// Time from a failure to list the domains to the next attempt.
const AGAIN: Duration = Duration::from_millis(100);

/// The state that services work on.
pub struct Host<H: Hypervisor> {
    pub(super) xen: Arc<H>,
    pub(super) store: Arc<Store>,
    pub(super) toolstack: Arc<dyn Toolstack>,
    pub(super) clock: Clock,
    pub(super) events: H::Events,
    pub(super) config: Config,
    /// The way by which children get their parents' pages.
    pub(super) backend: Backend,
    pub(super) books: Books<H::Memory>,
    /// Consequences of services, in order.
    follows: VecDeque<Follow<H::Memory>>,
    pub(super) jobs: Jobs<H::Memory>,
    pub(super) rest: Rest,
    timers: Vec<(Instant, Timer)>,
    /// The peer of each port of dom0, by the port's number.
    ports: Vec<Option<Peer>>,
    /// Ports that have reported an event and could not be unmasked.
    taken: Vec<Port>,
    /// Changes in xenstore that the engine has not taken yet; below, the watches for domains.
    pub(super) store_changes: StoreChanges,
    _watched: [Watch; 2],
    /// Domains that have not announced themselves.
    pub(super) watched: BTreeMap<DomId, Watched>,
    /// Domains that dom0 does not take for pVMs, with their handles.
    pub(super) strangers: BTreeMap<DomId, [u8; 16]>,
    pub(super) executor: Executor,
    pub(super) scratch: Scratch,
    pub(super) counters: Counters,
    /// Forks that the host has left at its rate.
    pub(super) rate: Rate,
    pub(super) waiters: Vec<Waiter>,
    pub(super) outside: Vec<OutsideFork>,
    pub(super) updates: Vec<UpdateRequest>,
    subscribers: Vec<SyncSender<Event>>,
    /// Events that subscribers have not been told yet.
    untold: Vec<Event>,
    /// No xenconsoled runs here.
    pub(super) without_consoles: bool,
    /// Children that have ended while xenconsoled was about to make their consoles.
    pub(super) await_consoles: Vec<(PvmId, Reaping<H::Memory>)>,
    pub(super) quitting: Option<Reply<()>>,
    /// The way back for the threads of others' work.
    pub(super) handle: Handle,
}

/// The engine's thread: the host and the sources of its work.
pub struct Engine<H: Hypervisor> {
    pub(super) host: Host<H>,
    inbox: Inbox,
    /// Times in a row that jobs were put off for events.
    put_off: u32,
    quiet: Quiet,
}

/// A consequence of a service.
pub(super) enum Follow<M> {
    /// A fork is to be entered in the books.
    Book(Forked<M>),
    /// A pVM's control page is to be read.
    Look(PvmId),
    /// A pVM that waits may go on.
    GoOn(PvmId),
    /// A pVM is to end: it is stopped, and its parent is told.
    End(PvmId, Status),
    /// A pVM has ended, and its parent knows. It leaves the books.
    Reap(PvmId, Status),
    /// A pVM has left the books.
    Gone(Box<Gone<M>>),
    /// A child runs. Its parent learns which pages it wrote first, and it gets its network device.
    Welcome(PvmId),
    /// A pVM may have too few prepared domains.
    Replenish(PvmId),
    /// Some prepared domains of a pVM are unusable.
    DiscardBroken(PvmId),
    /// No domain could be prepared for a pVM.
    CannotPrepare(PvmId, Failure),
}

/// The domain at the other end of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// A pVM.
    Pvm(PvmId),
    /// A domain, the second, that is prepared for the first.
    Prepared(PvmId, PvmId),
}

/// A check at a later time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// A domain that is prepared for a pVM should be at its waiting point.
    Waiting(PvmId, PvmId),
    /// A child has lived for long enough to be introduced to xenstored. The time from a failure to
    /// the next attempt.
    Introduce(PvmId, Duration),
    /// A child that has ended should have its console. The number counts the checks that are left.
    Console(PvmId, u32),
    /// A child should have resumed.
    Resumed(PvmId),
    /// The domains that are prepared for a pVM may be out of date. The time since the last check.
    Refresh(PvmId, Duration),
    /// A request of a pVM is to be answered with an error.
    Refused(PvmId),
    /// A family that has used up its share of the time is served again.
    Deferred(PvmId),
    /// A domain that announces itself too often is heard again.
    Announced(DomId),
    /// Xen could not list the domains.
    Domains,
    /// Libraries may have left the store.
    Libraries,
    /// An update's time may be over.
    Update,
    /// The time of a fork from outside may be over.
    Outside,
}

impl<H: Hypervisor> Engine<H>
where
    H::Events: AsFd,
{
    /// Runs until [`Command::Quit`](super::Command::Quit).
    pub fn run(mut self) {
        self.recover();
        while !self.iterate() {}
        let reply = self.host.quitting.take();
        self.drain();
        self.host.introduce_all();
        self.host.discard_all();
        self.drain();
        self.host.finish_jobs();
        self.host.tell_subscribers();
        if let Some(reply) = reply {
            let _ = reply.send(Ok(()));
        }
    }

    /// Waits for work and does it; true at the end.
    fn iterate(&mut self) -> bool {
        let (event, woken) = self.wait();
        self.act(event, woken)
    }

    /// Waits for events of guests, for commands and for changes in xenstore. Does not wait while
    /// there is work.
    fn wait(&self) -> (bool, bool) {
        let timeout = self.timeout();
        let host = &self.host;
        let timeout =
            timeout.map(|time| Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() });
        let events = host.events.as_fd();
        let mut sources = [PollFd::new(&events, PollFlags::IN), PollFd::new(self.inbox.wake(), PollFlags::IN)];
        match poll(&mut sources, timeout.as_ref()) {
            Ok(_) => (!sources[0].revents().is_empty(), !sources[1].revents().is_empty()),
            // A signal came, or Linux had no memory, which it may have the next time.
            Err(_) => (false, false),
        }
    }
}

impl<H: Hypervisor> Engine<H> {
    /// The longest time to wait; none if there is no limit.
    pub(super) fn timeout(&self) -> Option<Duration> {
        let host = &self.host;
        let later = !host.follows.is_empty() || !host.jobs.is_empty() || !host.untold.is_empty();
        let rest = host.rest.until().max(self.quiet.until()).filter(|_| later);
        match host.timers.iter().map(|(when, _)| *when).chain(rest).min() {
            _ if later && rest.is_none() => Some(Duration::ZERO),
            Some(when) => Some(when.saturating_duration_since(host.clock.now())),
            None => None,
        }
    }

    /// The queue of commands and changes.
    #[cfg(test)]
    pub(super) fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    /// An engine that knows nothing yet, and the handle to it.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn new(
        xen: Arc<H>,
        store: Arc<Store>,
        toolstack: Arc<dyn Toolstack>,
        clock: Clock,
        config: Config,
    ) -> Result<(Self, Handle), StartError> {
        let (handle, inbox) = pair().map_err(StartError::Linux)?;
        let store_changes = StoreChanges::new(inbox.waker());
        let now = clock.now();
        // Ids are to differ from those that an earlier daemon gave to domains of the same number.
        let generation = (clock.now_us() >> 10) as u16;
        let host = Host {
            events: xen.events().map_err(StartError::Xen)?,
            _watched: store_changes.watch_domains(&store).map_err(StartError::Store)?,
            backend: choose_backend(&*xen, config.backend),
            xen,
            store,
            toolstack,
            clock,
            executor: Executor::new(config.die_at.clone()),
            rate: Rate::full(config.host.forks_per_second, now),
            config,
            books: Books::new(generation),
            follows: VecDeque::new(),
            jobs: Jobs::new(),
            rest: Rest::default(),
            timers: Vec::new(),
            ports: Vec::new(),
            taken: Vec::new(),
            store_changes,
            watched: BTreeMap::new(),
            strangers: BTreeMap::new(),
            scratch: Scratch::default(),
            counters: Counters::default(),
            waiters: Vec::new(),
            outside: Vec::new(),
            updates: Vec::new(),
            subscribers: Vec::new(),
            untold: Vec::new(),
            without_consoles: false,
            await_consoles: Vec::new(),
            quitting: None,
            handle: handle.clone(),
        };
        Ok((Engine { host, inbox, put_off: 0, quiet: Quiet::default() }, handle))
    }

    /// Takes over the pVMs of an earlier daemon.
    pub(super) fn recover(&mut self) {
        self.host.recover();
        self.drain();
    }

    /// Does the work that there is. A guest may have sent an `event`; there may be commands or
    /// changes in xenstore (`woken`). True at the end.
    pub(super) fn act(&mut self, event: bool, woken: bool) -> bool {
        if event || !self.host.taken.is_empty() {
            self.take_events();
        }
        if woken {
            self.drain();
            // Subscribers get all earlier events before a command is carried out.
            self.host.tell_subscribers();
            self.inbox.clear();
            for change in self.host.store_changes.take() {
                self.take_change(change);
            }
            while let Some(command) = self.inbox.take() {
                self.host.obey(command);
                self.drain();
            }
        }
        self.take_timers();
        let now = self.host.clock.now();
        if !self.host.rest.lasts(now) {
            self.drain();
            self.host.tell_subscribers();
            self.put_off += 1;
            if (!event && !woken || self.put_off > PUT_OFF) && !self.quiet.lasts(now) {
                self.put_off = 0;
                self.work();
            }
        }
        let reaps =
            !self.host.await_consoles.is_empty() || self.host.jobs.iter().any(|job| matches!(job, Job::Reap(_)));
        self.host.quitting.is_some() && !reaps
    }

    fn take_change(&mut self, change: StoreChange) {
        match change {
            StoreChange::Domains => match self.host.xen.domains() {
                Ok(all) => {
                    self.host.find_ended(&all);
                    // A new domain may have the number of one that has ended.
                    self.drain();
                    self.host.find_new(&all);
                }
                Err(error) => {
                    log::error!("{error}");
                    self.host.after(AGAIN, Timer::Domains);
                }
            },
            StoreChange::Announced(domain) => self.host.hear_announcement(domain),
        }
        self.drain();
    }

    /// Carries out all consequences, until none is left.
    fn drain(&mut self) {
        while let Some(follow) = self.host.follows.pop_front() {
            self.carry_out(follow);
        }
    }

    fn carry_out(&mut self, follow: Follow<H::Memory>) {
        let host = &mut self.host;
        match follow {
            Follow::Book(forked) => host.book(forked),
            Follow::Look(id) => host.look_at(id),
            Follow::GoOn(id) => host.go_on(id),
            Follow::End(id, status) => host.end(id, status),
            Follow::Reap(id, status) => host.reap(id, status),
            Follow::Gone(gone) => {
                host.forget_commands(&gone);
                host.leave_family(*gone);
            }
            Follow::Welcome(id) => host.welcome(id),
            Follow::Replenish(id) => host.replenish(id),
            Follow::DiscardBroken(id) => host.discard_broken(id),
            Follow::CannotPrepare(id, failure) => host.cannot_prepare(id, &failure),
        }
        #[cfg(test)]
        self.host.books.check();
    }

    fn take_events(&mut self) {
        let mut taken = std::mem::take(&mut self.host.taken);
        match self.host.events.wait(Some(Duration::ZERO)) {
            Ok(ports) => taken.extend(ports),
            Err(error) => log::error!("{error}"),
        }
        for port in taken {
            self.drain();
            match self.host.peer(port) {
                Some(Peer::Pvm(id)) => self.host.look_at(id),
                Some(Peer::Prepared(parent, id)) => self.host.look_at_prepared(parent, id),
                None => {}
            }
            // A port that was closed meanwhile is left alone. One that cannot be unmasked would
            // never report again, so it is tried later.
            if self.host.peer(port).is_some() && self.host.events.unmask(port).is_err() {
                self.host.taken.push(port);
            }
        }
    }

    fn take_timers(&mut self) {
        if self.host.timers.is_empty() {
            return;
        }
        let now = self.host.clock.now();
        while let Some(place) = self.host.timers.iter().position(|(when, _)| *when <= now) {
            let timer = self.host.timers.swap_remove(place).1;
            self.drain();
            let host = &mut self.host;
            match timer {
                Timer::Waiting(parent, id) => host.check_waiting(parent, id),
                Timer::Introduce(id, pause) => host.introduce_now(id, pause),
                Timer::Console(id, tries) => host.look_for_console(id, tries),
                Timer::Resumed(id) => host.check_resumed(id),
                Timer::Refresh(id, pause) => host.refresh_later(id, pause),
                Timer::Refused(id) => host.answer_refused(id),
                Timer::Announced(domain) => host.hear_again(domain),
                Timer::Domains => host.store_changes.domains_changed(),
                Timer::Deferred(root) => host.share_has_grown(root),
                Timer::Libraries => host.forget_removed_libraries(),
                Timer::Outside => host.check_outside(now),
                Timer::Update => host.check_updates(now),
            }
            // The consequences of this timer are not put off by a rest that another begins.
            self.drain();
        }
    }

    /// Does a step of the first job.
    fn work(&mut self) {
        let Some((family, job)) = self.host.jobs.pop() else { return };
        let began = self.host.clock.now();
        self.host.do_step(family, job);
        let time = self.host.clock.since(began);
        self.quiet.worked(began, began + time);
        self.host.jobs.charge(family, time);
        self.drain();
    }
}

impl<H: Hypervisor> Host<H> {
    /// Puts a consequence into the queue. A fork goes to its front: no service may find books
    /// without it.
    pub(super) fn follow(&mut self, follow: Follow<H::Memory>) {
        match follow {
            Follow::Book(_) => self.follows.push_front(follow),
            _ => self.follows.push_back(follow),
        }
    }

    /// A pVM's state has changed: if it waits, it goes on, without a rest before.
    pub(super) fn wake(&mut self, id: PvmId) {
        if self.books.get(id).is_some_and(|pvm| pvm.pending.is_some()) {
            self.rest.end();
            self.follow(Follow::GoOn(id));
        }
    }

    /// True while the books lag behind the consequences.
    #[cfg(test)]
    pub(super) fn is_behind(&self) -> bool {
        !self.follows.is_empty()
    }

    /// Does a step of a job.
    pub(super) fn do_step(&mut self, family: PvmId, job: Job<H::Memory>) {
        match job {
            Job::Build(building) => self.build_step(family, building),
            Job::Refresh(id, place) => self.refresh_step(id, place),
            Job::Introduce(id, pause) => self.introduce(id, pause),
            Job::Reap(reaping) => self.reap_step(family, reaping),
            Job::Deferred(root) => self.serve_deferred(root),
            Job::Library => self.library_step(family),
            Job::Drop(rest) => drop(rest),
        }
    }

    /// Sets a timer; the moment at which it fires.
    pub(super) fn after(&mut self, time: Duration, timer: Timer) -> Instant {
        let when = self.clock.now() + time;
        self.timers.push((when, timer));
        when
    }

    /// Removes timers.
    pub(super) fn forget_timers(&mut self, is_it: impl Fn(&Timer) -> bool) {
        self.timers.retain(|(_, timer)| !is_it(timer));
    }

    /// The timers that are set.
    #[cfg(test)]
    pub(super) fn timers(&self) -> impl Iterator<Item = &Timer> {
        self.timers.iter().map(|(_, timer)| timer)
    }

    fn peer(&self, port: Port) -> Option<Peer> {
        self.ports.get(port.0 as usize).copied().flatten()
    }

    /// Takes events at `port` from now on as those of this peer.
    pub(super) fn listen(&mut self, port: Port, peer: Peer) {
        let number = port.0 as usize;
        if self.ports.len() <= number {
            self.ports.resize(number + 1, None);
        }
        let before = self.ports.get_mut(number).and_then(|place| place.replace(peer));
        // Events since the port was bound were not taken, and have left it masked.
        if before.is_none() && self.events.unmask(port).is_err() {
            self.taken.push(port);
        }
    }

    /// Closes a port. One that stays open would keep the peer's end busy.
    pub(super) fn unlisten(&mut self, port: Port) {
        if let Some(peer) = self.ports.get_mut(port.0 as usize) {
            *peer = None;
        }
        if self.events.unbind(port).is_err()
            && let Err(error) = self.events.unbind(port)
        {
            log::warn!("{error}");
        }
    }

    /// Tells a pVM that its control page has changed.
    pub(super) fn notify(&self, id: PvmId) {
        if let Some(channel) = self.books.get(id).and_then(|pvm| pvm.channel.as_ref())
            && let Err(error) = self.events.notify(channel.port)
        {
            log::debug!("{error}");
        }
    }

    /// The name of a pVM that lives or has ended.
    pub(super) fn name_of(&self, id: PvmId) -> String {
        self.books.name_of(id).unwrap_or_else(|| "pvm".to_owned())
    }

    /// The family of a pVM.
    pub(super) fn root_of(&self, id: PvmId) -> Result<PvmId, Failure> {
        self.books.get(id).map(Pvm::root).ok_or(Failure::Gone)
    }

    /// Tells all subscribers of an event. After a fork they are told when both sides have had time
    /// to go on, because other threads wake up for it.
    pub(super) fn tell(&mut self, id: PvmId, name: &str, kind: EventKind) {
        let event =
            Event { at_us: self.clock.date_now_us(), id: id.raw(), domid: id.domain().0, name: name.to_owned(), kind };
        log::debug!(id = event.id, name = event.name.as_str(); "{:?}", event.kind);
        // Without subscribers, nothing is kept.
        if !self.subscribers.is_empty() {
            self.untold.push(event);
        }
    }

    pub(super) fn tell_subscribers(&mut self) {
        for event in self.untold.drain(..) {
            self.subscribers.retain(|subscriber| subscriber.try_send(event.clone()).is_ok());
        }
    }

    pub(super) fn subscribe(&mut self, events: SyncSender<Event>) {
        self.subscribers.push(events);
    }

    /// Reports a failure that no request has caused, at a limited rate per family.
    pub(super) fn trouble(&mut self, id: PvmId, what: &str, failure: &dyn fmt::Display) {
        let now = self.clock.now();
        let root = self.books.get(id).map_or(id, Pvm::root);
        if self.books.family_mut(root).is_some_and(|family| !family.account.may_tell(now)) {
            return log::debug!(id = id.raw(); "{what}: {failure}");
        }
        let name = self.name_of(id);
        log::warn!(id = id.raw(), name = name.as_str(); "{what}: {failure}");
        self.tell(id, &name, EventKind::Trouble { message: format!("{what}: {failure}") });
    }
}
