//! The engine itself: what it holds, and its loop.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use xen_abi::{DomId, Port};
use xenctl::xenstore::{Store, Watch};
use xenctl::{Events, Hypervisor};
use zooid_fork_plan::id::PvmId;
use zooid_fork_plan::link::Backend;
use zooid_fork_plan::status::Status;

use super::api::{Event, EventKind, PvmInfo, Reply};
use super::build::Building;
use super::clock::Clock;
use super::commands::{OutsideFork, Waiter};
use super::config::Config;
use super::end::Reaping;
use super::executor::Executor;
use super::failure::Failure;
use super::handle::{Handle, Inbox, pair};
use super::libraries::Libraries;
use super::memory_owner::MemoryOwner;
use super::pvm::Pvm;
use super::quota::Rate;
use super::relink::Scratch;
use super::requests::Forked;
use super::stats::Counters;
use super::turns::Turns;
use super::updates::UpdateRequest;
use super::watch::{Note, Notes};
use super::{StartError, choose_backend};

/// How many times in a row a job is put off: guests that ask without end must not keep others from getting what they wait for.
const PUT_OFF: u32 = 8;
/// How long pvmd stands back after a fork, or after the end of a child: on a host with one processor, parent and children could not
/// run while it does what can wait.
pub(super) const REST: Duration = Duration::from_millis(5);
/// Ends that are remembered.
const REMEMBERED: usize = 256;

/// Everything that the engine's thread has.
pub struct Engine<H: Hypervisor> {
    pub(super) xen: Arc<H>,
    pub(super) store: Arc<Store>,
    pub(super) clock: Clock,
    pub(super) events: H::Events,
    pub(super) config: Config,
    /// How children get their parents' pages.
    pub(super) backend: Backend,
    pub(super) inbox: Inbox,
    pub(super) notes: Receiver<Note>,
    /// Living pVMs that are known.
    pub(super) domains: BTreeMap<DomId, Pvm<H::Memory>>,
    /// Where the domains of ids are.
    pub(super) ids: BTreeMap<PvmId, DomId>,
    /// Of families that share memory, by their roots' ids.
    pub(super) memory_owners: BTreeMap<PvmId, MemoryOwner<H::Memory>>,
    /// What pVMs have opened of the host's store, from the first time on.
    pub(super) libraries: Option<Libraries<H::Memory>>,
    /// By number of dom0's port: who is at the other end.
    pub(super) ports: Vec<Option<Peer>>,
    /// How more is watched for, and what is.
    pub(super) watches: Notes,
    pub(super) _watched: [Watch; 2],
    /// Ports that have reported and could not be unmasked.
    taken: Vec<Port>,
    /// Watches of domains that have not announced themselves.
    pub(super) watched: BTreeMap<DomId, Watch>,
    /// Domains whose kernel is another system's.
    pub(super) strangers: BTreeSet<DomId>,
    pub(super) jobs: VecDeque<Job<H::Memory>>,
    /// How many times in a row there was something more urgent than they.
    put_off: u32,
    /// Before this, jobs wait.
    pub(super) rest: Option<Instant>,
    /// The last fork, as long as it has not been taken into the books.
    pub(super) unbooked: Option<Forked<H::Memory>>,
    /// Who has ended and is in the books still, and how.
    pub(super) unreaped: Vec<(DomId, Status)>,
    pub(super) timers: Vec<(Instant, Timer)>,
    pub(super) executor: Executor,
    pub(super) scratch: Scratch,
    pub(super) counters: Counters,
    pub(super) rates: BTreeMap<Option<PvmId>, Rate>,
    /// Of families that share memory, by their roots' ids.
    pub(super) turns: BTreeMap<PvmId, Turns>,
    pub(super) waiters: Vec<Waiter>,
    pub(super) outside: Vec<OutsideFork>,
    pub(super) updates: Vec<UpdateRequest>,
    pub(super) subscribers: Vec<SyncSender<Event>>,
    /// What they have not been told yet.
    untold: Vec<Event>,
    /// pVMs that have ended, the last one last.
    pub(super) ended: VecDeque<PvmInfo>,
    /// Of the last id that was given out.
    pub(super) generation: u16,
    /// Nobody makes consoles for domains here.
    pub(super) without_consoles: bool,
    pub(super) quitting: Option<Reply<()>>,
}

/// Who is at the other end of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    domain: DomId,
    /// Of a prepared domain: whom it is prepared for.
    parent: Option<DomId>,
}

/// Work that is not urgent, done in small steps.
pub(super) enum Job<M> {
    /// Builds a prepared domain.
    Build(Box<Building<M>>),
    /// Brings the domains that are prepared for this one up to date, from this table on.
    Refresh(DomId, usize),
    /// Removes what a pVM has left.
    Reap(Reaping<M>),
    /// Serves a request of this family, or makes a part of what one of them asks for.
    Turn(PvmId),
    /// Reads a part of a library.
    Library,
    /// Frees what is not needed any more, which takes time.
    Drop(Box<dyn Send>),
}

/// What is to be looked at later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// A prepared domain should be at its waiting point.
    Waiting(DomId, DomId),
    /// A prepared domain's console should be there; so often it is looked again.
    Console(DomId, DomId, u32),
    /// A child should have resumed.
    Resumed(DomId),
    /// The domains that are prepared for this one may not be up to date; so long after the last time it was looked.
    Refresh(DomId, Duration),
    /// A refused request is to be answered: whose, its number, and the error.
    Refused(DomId, u32, u32),
    /// A family that has had more than its share may ask again.
    Turn(PvmId),
    /// Libraries may have left the store.
    Libraries,
    /// An update should be done.
    Update,
    /// A fork from outside should be done.
    Outside,
}

impl<H: Hypervisor> Engine<H>
where
    H::Events: AsFd,
{
    /// Runs until it is asked to quit.
    pub fn run(mut self) {
        self.recover();
        while !self.turn() {}
        let reply = self.quitting.take();
        self.catch_up();
        self.discard_all();
        self.tell_subscribers();
        if let Some(reply) = reply {
            let _ = reply.send(Ok(()));
        }
    }

    /// Waits for something to do and does it; true at the end.
    fn turn(&mut self) -> bool {
        let (event, woken) = self.wait();
        self.act(event, woken)
    }

    /// Waits for events of guests, and for commands and notes. Does not wait while there is work.
    fn wait(&self) -> (bool, bool) {
        let later = self.unbooked.is_some() || !self.unreaped.is_empty();
        let rest = self.rest.filter(|_| later || !self.jobs.is_empty() || !self.untold.is_empty());
        let timeout = match self.timers.iter().map(|(when, _)| *when).chain(rest).min() {
            _ if !self.jobs.is_empty() && rest.is_none() => Some(Duration::ZERO),
            Some(when) => Some(when.saturating_duration_since(self.clock.now())),
            None => None,
        };
        let timeout =
            timeout.map(|time| Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() });
        let events = self.events.as_fd();
        let mut sources = [PollFd::new(&events, PollFlags::IN), PollFd::new(self.inbox.wake(), PollFlags::IN)];
        match poll(&mut sources, timeout.as_ref()) {
            Ok(_) => (!sources[0].revents().is_empty(), !sources[1].revents().is_empty()),
            // A signal; or no memory, which the next turn may find.
            Err(_) => (false, false),
        }
    }
}

impl<H: Hypervisor> Engine<H> {
    /// An engine that knows nothing yet, and the handle to it.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn new(xen: Arc<H>, store: Arc<Store>, clock: Clock, config: Config) -> Result<(Self, Handle), StartError> {
        let (handle, inbox) = pair().map_err(StartError::Linux)?;
        let (sender, notes) = mpsc::channel();
        let watches = Notes { sender, waker: inbox.waker() };
        // So that ids are not those that a daemon before this one gave to domains of the same number.
        let generation = (clock.now_us() >> 10) as u16;
        let engine = Engine {
            events: xen.events().map_err(StartError::Xen)?,
            _watched: watches.watch_domains(&store).map_err(StartError::Store)?,
            backend: choose_backend(&*xen, config.backend),
            xen,
            store,
            clock,
            executor: Executor::new(config.die_at.clone()),
            config,
            inbox,
            notes,
            watches,
            domains: BTreeMap::new(),
            ids: BTreeMap::new(),
            memory_owners: BTreeMap::new(),
            libraries: None,
            ports: Vec::new(),
            taken: Vec::new(),
            watched: BTreeMap::new(),
            strangers: BTreeSet::new(),
            jobs: VecDeque::new(),
            put_off: 0,
            rest: None,
            unbooked: None,
            unreaped: Vec::new(),
            timers: Vec::new(),
            scratch: Scratch::default(),
            counters: Counters::default(),
            rates: BTreeMap::new(),
            turns: BTreeMap::new(),
            waiters: Vec::new(),
            outside: Vec::new(),
            updates: Vec::new(),
            subscribers: Vec::new(),
            untold: Vec::new(),
            ended: VecDeque::new(),
            generation,
            without_consoles: false,
            quitting: None,
        };
        Ok((engine, handle))
    }

    /// Does what is to be done, where a guest may have sent an event and there may be notes or commands (`woken`); true at the end.
    pub(super) fn act(&mut self, event: bool, woken: bool) -> bool {
        if event || !self.taken.is_empty() {
            self.take_events();
        }
        if woken {
            self.catch_up();
            // Who asks for something knows at least what it has led to.
            self.tell_subscribers();
            self.inbox.clear();
            while let Ok(note) = self.notes.try_recv() {
                self.take_note(note);
            }
            while let Some(command) = self.inbox.take() {
                self.obey(command);
            }
        }
        self.take_timers();
        if !self.rests() {
            self.catch_up();
            self.tell_subscribers();
            self.put_off += 1;
            if !event && !woken || self.put_off > PUT_OFF {
                self.put_off = 0;
                self.work();
            }
        }
        self.quitting.is_some() && !self.jobs.iter().any(|job| matches!(job, Job::Reap(_)))
    }

    /// Takes into the books what was put off.
    fn catch_up(&mut self) {
        self.book();
        self.reap_told();
    }

    /// Whether jobs have to wait still.
    fn rests(&mut self) -> bool {
        let now = self.clock.now();
        self.rest = self.rest.filter(|until| *until > now);
        self.rest.is_some()
    }

    fn take_events(&mut self) {
        let mut taken = std::mem::take(&mut self.taken);
        match self.events.wait(Some(Duration::ZERO)) {
            Ok(ports) => taken.extend(ports),
            Err(error) => log::error!("{error}"),
        }
        for port in taken {
            self.book();
            if let Some(peer) = self.peer(port) {
                match peer.parent {
                    None => self.look_at(peer.domain),
                    Some(parent) => self.look_at_prepared(parent, peer.domain),
                }
            }
            // It may be closed by now; then nobody wants to hear of it. One that cannot be unmasked would never report again.
            if self.peer(port).is_some() && self.events.unmask(port).is_err() {
                self.taken.push(port);
            }
        }
    }

    fn take_timers(&mut self) {
        if self.timers.is_empty() {
            return;
        }
        let now = self.clock.now();
        while let Some(place) = self.timers.iter().position(|(when, _)| *when <= now) {
            let timer = self.timers.swap_remove(place).1;
            self.catch_up();
            match timer {
                Timer::Waiting(parent, domain) => self.check_waiting(parent, domain),
                Timer::Console(parent, domain, tries) => self.look_for_console(parent, domain, tries),
                Timer::Resumed(domain) => self.check_resumed(domain),
                Timer::Refresh(domain, pause) => self.refresh_later(domain, pause),
                Timer::Refused(domain, request, errno) => self.answer_refused(domain, request, errno),
                Timer::Turn(root) => self.turn_comes(root),
                Timer::Libraries => self.forget_removed_libraries(),
                Timer::Outside => self.check_outside(now),
                Timer::Update => self.check_updates(now),
            }
        }
    }

    /// Does a step of the first job.
    fn work(&mut self) {
        match self.jobs.pop_front() {
            None => {}
            Some(Job::Build(mut building)) => match self.build_step(&mut building) {
                Ok(false) => self.jobs.push_front(Job::Build(building)),
                Ok(true) => self.after_build(*building),
                Err(failure) => self.after_failed_build(*building, &failure),
            },
            Some(Job::Refresh(domain, place)) => self.refresh_step(domain, place),
            Some(Job::Reap(reaping)) => self.reap_step(reaping),
            Some(Job::Turn(root)) => self.turn_step(root),
            Some(Job::Library) => self.library_step(),
            Some(Job::Drop(rest)) => drop(rest),
        }
    }

    pub(super) fn after(&mut self, time: Duration, timer: Timer) {
        self.timers.push((self.clock.now() + time, timer));
    }

    fn peer(&self, port: Port) -> Option<Peer> {
        self.ports.get(port.0 as usize).copied().flatten()
    }

    /// From now on, events at `port` are of `domain`; for a prepared domain, with its parent.
    pub(super) fn listen(&mut self, port: Port, domain: DomId, parent: Option<DomId>) {
        let number = port.0 as usize;
        if self.ports.len() <= number {
            self.ports.resize(number + 1, None);
        }
        let before = self.ports[number].replace(Peer { domain, parent });
        // What came since it was bound was not listened to, and is masked since.
        if before.is_none() && self.events.unmask(port).is_err() {
            self.taken.push(port);
        }
    }

    /// Closes a port. One that stays would keep a domain's end of it busy.
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

    /// Tells a pVM that there is news in its control page.
    pub(super) fn notify(&self, domain: DomId) {
        if let Some(channel) = self.domains.get(&domain).and_then(|pvm| pvm.channel.as_ref())
            && let Err(error) = self.events.notify(channel.port)
        {
            log::debug!("{error}");
        }
    }

    /// An id for a domain that was made just now.
    pub(super) fn new_id(&mut self, domain: DomId) -> PvmId {
        self.generation = self.generation.wrapping_add(1).max(1);
        PvmId::new(domain, self.generation).expect("the generation is not 0")
    }

    /// The pVM with this id, if it lives.
    pub(super) fn by_id(&mut self, id: PvmId) -> Option<&mut Pvm<H::Memory>> {
        self.domains.get_mut(self.ids.get(&id)?)
    }

    /// The name of a pVM that lives or has lived.
    pub(super) fn name_of(&self, id: PvmId) -> String {
        self.family_name(id).unwrap_or_else(|| "pvm".to_owned())
    }

    /// The name of a family's root, if it lives, or it is not too long ago.
    pub(super) fn family_name(&self, id: PvmId) -> Option<String> {
        let living = self.ids.get(&id).and_then(|domain| self.domains.get(domain)).map(|pvm| &pvm.name);
        let ended = || self.ended.iter().rev().find(|info| info.id == id.raw()).map(|info| &info.name);
        living.or_else(ended).cloned()
    }

    /// Tells all subscribers of something that happened to a pVM; after a fork when both sides have had their time to go on, because
    /// other threads wake up for it.
    pub(super) fn tell(&mut self, id: PvmId, name: &str, kind: EventKind) {
        let event =
            Event { at_us: self.clock.now_us(), id: id.raw(), domid: id.domain().0, name: name.to_owned(), kind };
        log::debug!(id = event.id, name = event.name.as_str(); "{:?}", event.kind);
        self.untold.push(event);
    }

    pub(super) fn tell_subscribers(&mut self) {
        for event in self.untold.drain(..) {
            self.subscribers.retain(|subscriber| subscriber.try_send(event.clone()).is_ok());
        }
    }

    /// Tells of something that went wrong without being asked for.
    pub(super) fn trouble(&mut self, id: PvmId, what: &str, failure: &Failure) {
        let name = self.name_of(id);
        log::warn!(id = id.raw(), name = name.as_str(); "{what}: {failure}");
        self.tell(id, &name, EventKind::Trouble { message: format!("{what}: {failure}") });
    }

    /// Remembers a pVM that has ended.
    pub(super) fn remember(&mut self, info: PvmInfo) {
        if self.ended.len() == REMEMBERED {
            self.ended.pop_front();
        }
        self.ended.push_back(info);
    }
}
