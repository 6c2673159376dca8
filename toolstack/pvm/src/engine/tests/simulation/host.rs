//! The simulated host: the real engine, a hypervisor and a xenstored in memory, guests, dom0's
//! other tools, time, and faults. One seed decides every order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use xen_abi::sched::ShutdownReason;
use xen_abi::{DomId, Errno, Mfn, Port};
use xenctl::DomainInfo;
use xenctl::fake::{Census, FakeXen, FakeXenstored, Fault};
use xenctl::xenstore::Store;
use zooid_fork_plan::id::PvmId;
use zooid_fork_plan::wire::{ANNOUNCEMENT, CONTROL_GREF, VERSION};

use super::super::super::api::{Command, Error, Target};
use super::super::super::clock::Clock;
use super::super::super::config::{Announce, BackendChoice, ChildVif, Config};
use super::super::super::core::Engine;
use super::super::super::handle::Handle;
use super::super::super::toolstack::{Done, Failed, Toolstack};
use super::inspect;
use super::instance::{Doing, Instance, InstanceId, Nature};
use super::memory;
use super::profile::Profile;
use super::random::Random;

/// A violated property.
#[derive(Debug)]
pub struct Found(pub String);

/// Faults of the daemon's operations, decided at each of them.
pub struct Faults {
    random: Random,
    /// Operations of 100,000 that fail.
    rate: u64,
    /// The time of the last fault.
    pub last: Option<Instant>,
    pub count: u64,
    /// The operation before has made a domain a child.
    made: bool,
    /// Number of children that were told to go.
    children: u32,
    story: Vec<String>,
}

/// If operations fail, the daemon is killed each time after telling so many children to go.
const KILLED_CHILD: u32 = 4;

/// The toolstack that started the roots. It destroys them when it gets to run.
#[derive(Default)]
struct Destroyer(Mutex<Vec<(Vec<DomId>, Done)>>);

impl Toolstack for Destroyer {
    fn destroy(&self, roots: Vec<DomId>, done: Done) {
        self.0.lock().unwrap().push((roots, done));
    }

    fn attach_vif(&self, _: DomId, _: PvmId, _: &ChildVif, _: Failed) {}

    fn keep_output(&self, _: &str, _: &[u8]) {}
}

/// The answer to an operator's `kill`.
type Killed = Receiver<Result<Vec<u32>, Error>>;

pub struct Host {
    pub random: Random,
    pub profile: Profile,
    pub clock: Clock,
    pub fake: FakeXen,
    pub tools: FakeXen,
    pub xenstored: FakeXenstored,
    pub store: Store,
    pub engine: Option<Engine<FakeXen>>,
    pub handle: Option<Handle>,
    /// The time at which the next daemon begins.
    restart: Option<Instant>,
    toolstack: Arc<Destroyer>,
    pub faults: Arc<Mutex<Faults>>,
    pub instances: Vec<Instance>,
    pub by_domain: BTreeMap<DomId, InstanceId>,
    /// The domains as Xen has them.
    pub infos: Vec<DomainInfo>,
    /// Judged entries for frames of others: the domain, the frame, and true if it is writable; then
    /// the frame's owner.
    pub judged: BTreeMap<(InstanceId, Mfn, bool), InstanceId>,
    /// The fake's version at that time.
    pub version: u64,
    pub told_ids: BTreeSet<u32>,
    /// The times at which children were made, and their families.
    pub made: VecDeque<(Instant, InstanceId)>,
    /// The time for which the daemon has been in service. Requests of honest guests record it.
    pub service: Duration,
    pub served_since: BTreeMap<InstanceId, Duration>,
    /// A domain has gone or shut down, and xenstored has not looked yet.
    pub changed: bool,
    /// No more forks: all pVMs end.
    pub closing: bool,
    kills: Vec<(InstanceId, Killed)>,
    config: Config,
    empty: (Census, BTreeSet<String>, usize),
    pub trace: VecDeque<String>,
    /// The trace is printed, too.
    pub talks: bool,
    pub steps: u64,
}

/// Lines of the trace that are kept.
const TRACE: usize = 400;

impl Host {
    pub fn new(seed: u64, talks: bool) -> Self {
        let mut random = Random::new(seed);
        let profile = Profile::choose(&mut random);
        let clock = Clock::manual();
        let fake = FakeXen::new(profile.pages).with_domain_numbers(profile.domains).with_maptrack(profile.maptrack);
        let tools = fake.uncounted();
        let xenstored = FakeXenstored::direct(&fake);
        let store = xenstored.connect_uncounted();
        for path in ["/local/domain", "/libxl"] {
            store.mkdir(path).unwrap();
        }
        let faults = Arc::new(Mutex::new(Faults {
            random: Random::new(random.next()),
            rate: 0,
            last: None,
            count: 0,
            made: false,
            children: 0,
            story: Vec::new(),
        }));
        let plan = (faults.clone(), clock.clone());
        fake.set_plan(move |name| plan.0.lock().unwrap().at(name, &plan.1));
        let mut config = Config {
            pool: profile.pool,
            start_timeout: Duration::from_millis(60),
            outside_timeout: Duration::from_millis(200),
            keep_free_kib: 64,
            announce: Announce::Any,
            libraries: "/nonexistent".into(),
            keys: "/nonexistent".into(),
            backend: if profile.grants { BackendChoice::Grant } else { BackendChoice::Foreign },
            ..Config::default()
        };
        (config.family.forks_per_second, config.host.forks_per_second) = profile.rates;
        config.family.pvms = profile.family;
        let mut host = Host {
            random,
            profile,
            clock,
            fake,
            tools,
            xenstored,
            store,
            engine: None,
            handle: None,
            restart: None,
            toolstack: Arc::default(),
            faults,
            instances: Vec::new(),
            by_domain: BTreeMap::new(),
            infos: Vec::new(),
            judged: BTreeMap::new(),
            version: 0,
            told_ids: BTreeSet::new(),
            made: VecDeque::new(),
            service: Duration::ZERO,
            served_since: BTreeMap::new(),
            changed: false,
            closing: false,
            kills: Vec::new(),
            config,
            empty: (
                Census { domains: 0, dying: 0, free_pages: 0, references: 0, ports: 0, mappings: 0 },
                BTreeSet::new(),
                0,
            ),
            trace: VecDeque::new(),
            talks,
            steps: 0,
        };
        host.start_engine();
        host.empty = host.left();
        let what = format!("seed {seed}: {:?}", host.profile);
        host.log(|| what);
        host
    }

    pub fn backend_is_grant(&self) -> bool {
        self.profile.grants
    }

    pub fn is_quiet(&self) -> bool {
        self.closing
    }

    pub fn log(&mut self, line: impl FnOnce() -> String) {
        let line = format!("{:>9} us: {}", (self.clock.now_us() - (1 << 50)), line());
        if self.talks {
            println!("{line}");
        }
        if self.trace.len() == TRACE {
            self.trace.pop_front();
        }
        self.trace.push_back(line);
    }

    /// Fails with this text if a property does not hold.
    pub fn found(&self, holds: bool, what: impl FnOnce() -> String) -> Result<(), Found> {
        if holds { Ok(()) } else { Err(Found(what())) }
    }

    /// Runs the host from its start to its end. A panic of the simulation is a violation, too.
    pub fn run_caught(&mut self) -> Result<(), Found> {
        catch_unwind(AssertUnwindSafe(|| self.run_to_end()))
            .unwrap_or_else(|_| Err(Found("the simulation panics".into())))
    }

    /// Runs the host from its start to its end.
    fn run_to_end(&mut self) -> Result<(), Found> {
        for _ in 0..self.profile.roots {
            self.boot();
        }
        self.faults.lock().unwrap().rate = self.profile.faults;
        while self.steps < self.profile.steps {
            self.steps += 1;
            self.step()?;
        }
        self.close()
    }

    fn step(&mut self) -> Result<(), Found> {
        let pause = 1 + self.random.below(self.profile.pause_us);
        self.pass(Duration::from_micros(pause));
        if self.random.chance(self.profile.engine, 100) {
            self.engine_acts()?;
        } else {
            match self.random.below(40) {
                0 => self.tools_act()?,
                1 => self.consoles_act(),
                2 => {
                    let pauses = self.random.below(40);
                    self.pass(Duration::from_micros(self.profile.pause_us * pauses));
                }
                _ => self.somebody_acts()?,
            }
        }
        if self.changed && self.random.chance(1, 6) {
            self.changed = false;
            self.xenstored.domains_changed();
        }
        self.judge()
    }

    pub fn pass(&mut self, time: Duration) {
        self.clock.advance(time);
        if self.engine.is_some() {
            self.service += time;
        }
    }

    /// Lets the daemon run one iteration of its loop.
    pub fn engine_acts(&mut self) -> Result<(), Found> {
        if self.fake.is_killed() && self.engine.is_some() {
            let after =
                Duration::from_micros(self.random.below(30_000) * if self.random.chance(1, 60) { 400 } else { 1 });
            self.log(|| format!("pvmd is killed, and begins again after {after:?}"));
            (self.engine, self.handle) = (None, None);
            self.restart = Some(self.clock.now() + after);
        }
        if self.engine.is_none() {
            if self.restart.is_none_or(|when| when <= self.clock.now()) {
                self.fake.restart();
                self.log(|| "pvmd begins".into());
                let begun = catch_unwind(AssertUnwindSafe(|| self.start_engine()));
                self.found(begun.is_ok(), || "pvmd panics at its start".into())?;
            }
            return self.tell_faults();
        }
        let event = self.fake.has_events();
        let Some(engine) = &mut self.engine else { return Ok(()) };
        let woken = inspect::is_woken(engine);
        if event || woken || inspect::wait(engine).is_some_and(|time| time.is_zero()) {
            let acted = catch_unwind(AssertUnwindSafe(|| engine.act(event, woken)));
            self.found(acted.is_ok(), || "pvmd panics".into())?;
        }
        self.tell_faults()?;
        self.observe()
    }

    fn tell_faults(&mut self) -> Result<(), Found> {
        let story = std::mem::take(&mut self.faults.lock().unwrap().story);
        story.into_iter().for_each(|line| self.log(|| line));
        Ok(())
    }

    fn start_engine(&mut self) {
        let store = Arc::new(self.xenstored.connect());
        let xen = Arc::new(self.fake.clone());
        let (toolstack, clock) = (self.toolstack.clone(), self.clock.clone());
        if let Ok((mut engine, handle)) = Engine::new(xen, store, toolstack, clock, self.config.clone()) {
            engine.recover();
            (self.engine, self.handle) = (Some(engine), Some(handle));
        }
    }

    /// A toolstack boots a root.
    pub fn boot(&mut self) {
        let mut handle = [0x4b; 16];
        handle[8..].copy_from_slice(&self.random.next().to_le_bytes());
        let nature = if self.random.chance(self.profile.hostile_roots, 100) { Nature::Hostile } else { Nature::Honest };
        if self.infos.len() + 2 >= usize::from(self.profile.domains) || self.fake.census().free_pages < 200 {
            return;
        }
        let (guest, port) = memory::boot(&self.tools, handle);
        let number = self.meet(guest.id(), nature);
        self.announce(number, port);
    }

    fn announce(&mut self, number: InstanceId, port: Port) {
        let domain = self.instances[number].domain;
        let home = format!("/local/domain/{domain}");
        // As libxl does (`libxl__domain_make`): older nodes are of an earlier domain.
        let _ = self.store.remove(&home);
        self.store.write(&format!("{home}/name"), &format!("root{number}")).unwrap();
        self.store.write(&format!("{home}/vm"), &format!("/vm/{number}")).unwrap();
        // dom0 allows it to announce itself as a pVM.
        self.store.write(&format!("/libxl/{domain}/zooid-announce"), "1").unwrap();
        self.store.write(&format!("{home}/{ANNOUNCEMENT}"), &format!("{VERSION} {CONTROL_GREF} {}", port.0)).unwrap();
        self.store.introduce(domain, Mfn(0), Port(0)).unwrap();
    }

    /// A toolstack destroys a domain, and removes its home if it is its own.
    pub fn destroy(&mut self, number: InstanceId) {
        let instance = &self.instances[number];
        let (domain, is_root) = (instance.domain, instance.is_root());
        self.log(|| format!("instance {number} (domain {domain}) is destroyed"));
        let _ = self.fake.guest(domain).destroy();
        self.changed = true;
        if is_root {
            let _ = self.store.remove(&format!("/local/domain/{domain}"));
            let _ = self.store.remove(&format!("/libxl/{domain}"));
        }
    }

    pub fn shut_down(&mut self, number: InstanceId, reason: ShutdownReason) {
        let instance = &mut self.instances[number];
        instance.doing = Doing::HasEnded;
        let _ = instance.guest.shutdown(reason);
        self.changed = true;
        self.log(|| format!("instance {number} shuts down: {reason:?}"));
    }

    /// xenconsoled makes consoles.
    pub fn consoles_act(&mut self) {
        let nodes = self.xenstored.nodes();
        for domain in self.xenstored.introduced() {
            let path = format!("/local/domain/{domain}/console");
            if nodes.contains_key(&format!("{path}/ring-ref")) && !nodes.contains_key(&format!("{path}/tty")) {
                self.store.write(&format!("{path}/tty"), "/dev/pts/0").unwrap();
            }
        }
    }

    /// The toolstack destroys the roots that the daemon has named.
    fn destroyer_acts(&mut self) {
        let asked = std::mem::take(&mut *self.toolstack.0.lock().unwrap());
        for (roots, done) in asked {
            for root in roots {
                if let Some(instance) = self.by_domain.get(&root).copied() {
                    self.destroy(instance);
                }
            }
            done(Ok(()));
        }
    }

    /// Lets operators and toolstacks act.
    fn tools_act(&mut self) -> Result<(), Found> {
        self.destroyer_acts();
        let living: Vec<InstanceId> =
            self.instances.iter().filter(|instance| !instance.went).map(|instance| instance.number).collect();
        match self.random.below(10) {
            0..=1 => self.boot(),
            2 => {
                let ended = |number: &InstanceId| {
                    self.instances[*number].is_root() && self.instances[*number].doing == Doing::HasEnded
                };
                let roots: Vec<InstanceId> = living.into_iter().filter(ended).collect();
                if let Some(root) = self.random.pick(&roots) {
                    self.destroy(root);
                }
            }
            3 if self.random.chance(1, 6) => {
                // A family without its memory owner cannot fork while it has that memory mapped.
                let acts = |number: &InstanceId| self.instances[*number].kind_acts();
                let all: Vec<InstanceId> = living.into_iter().filter(acts).collect();
                if let Some(instance) = self.random.pick(&all) {
                    self.destroy(instance);
                }
            }
            4 => self.operator_kills(&living),
            5 if self.random.chance(1, 3) => {
                let pvms: Vec<InstanceId> =
                    living.into_iter().filter(|number| self.instances[*number].is_pvm()).collect();
                if let (Some(instance), Some(handle)) = (self.random.pick(&pvms), &self.handle) {
                    let (target, count) = (Target::Id(self.instances[instance].id), 1 + instance as u32 % 2);
                    let command = Command::Fork { target, count, application: Vec::new(), reply: channel().0 };
                    let _ = handle.send(command);
                    self.log(|| format!("an operator forks instance {instance}"));
                }
            }
            6 => {
                if let Some(handle) = &self.handle {
                    let _ = handle.send(Command::List { ended: true, reply: channel().0 });
                    let _ = handle.send(Command::Pool { reply: channel().0 });
                    let _ = handle.send(Command::Stats { reply: channel().0 });
                    let _ = handle.send(Command::Objects { target: None, reply: channel().0 });
                }
            }
            _ => {}
        }
        self.judge_kills()
    }

    fn operator_kills(&mut self, living: &[InstanceId]) {
        let pvms: Vec<InstanceId> = living.iter().copied().filter(|number| self.instances[*number].is_pvm()).collect();
        let (Some(instance), Some(handle)) = (self.random.pick(&pvms), self.handle.clone()) else { return };
        let family = self.random.chance(1, 2);
        let signal = if self.instances[instance].is_root() || !self.random.chance(1, 3) { 15 } else { 9 };
        let (reply, answer) = channel();
        self.log(|| format!("an operator sends {signal} to instance {instance}, family: {family}"));
        let _ = handle.send(Command::Kill { target: Target::Id(self.instances[instance].id), signal, family, reply });
        self.kills.push((instance, answer));
    }

    /// All signalled pVMs are of the family that was meant.
    fn judge_kills(&mut self) -> Result<(), Found> {
        for (target, answer) in std::mem::take(&mut self.kills) {
            match answer.try_recv() {
                Ok(Ok(ids)) => {
                    for id in ids {
                        let Some(instance) = self.instances.iter().find(|instance| instance.id == id) else { continue };
                        let (number, mut at) = (instance.number, Some(instance.number));
                        while let Some(other) = at.filter(|other| *other != target) {
                            at = self.instances[other].parent;
                        }
                        self.found(at.is_some(), || {
                            format!("instance {number} is signalled, which does not descend from instance {target}")
                        })?;
                    }
                }
                Err(std::sync::mpsc::TryRecvError::Empty) => self.kills.push((target, answer)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Lets one guest run.
    fn somebody_acts(&mut self) -> Result<(), Found> {
        let runs = |instance: &&Instance| !instance.went && instance.kind_acts();
        let all: Vec<InstanceId> = self.instances.iter().filter(runs).map(|instance| instance.number).collect();
        match self.random.pick(&all) {
            Some(number) => self.guest_acts(number),
            None => Ok(()),
        }
    }

    pub fn guest_acts(&mut self, number: InstanceId) -> Result<(), Found> {
        match self.instances[number].nature {
            _ if !self.runs(number) => Ok(()),
            Nature::Honest => self.honest_acts(number),
            Nature::Hostile => {
                self.hostile_acts(number);
                Ok(())
            }
        }
    }

    /// All resources in use.
    pub fn left(&self) -> (Census, BTreeSet<String>, usize) {
        (self.fake.census(), self.xenstored.nodes().into_keys().collect(), self.xenstored.lost_consoles())
    }

    /// Ends all pVMs; then no resource is in use.
    fn close(&mut self) -> Result<(), Found> {
        self.closing = true;
        self.faults.lock().unwrap().rate = 0;
        self.restart = self.restart.map(|_| self.clock.now());
        self.log(|| "all end".into());
        // Honest guests first finish their work.
        for round in 0..6000 {
            self.pass(Duration::from_micros(200));
            self.engine_acts()?;
            self.engine_acts()?;
            if round % 10 == 0 {
                self.destroyer_acts();
                self.consoles_act();
                self.xenstored.domains_changed();
            }
            let living: Vec<InstanceId> =
                self.instances.iter().filter(|instance| !instance.went).map(|instance| instance.number).collect();
            let honest = living.iter().copied().filter(|number| self.instances[*number].nature == Nature::Honest);
            for number in honest.collect::<Vec<_>>() {
                match self.instances[number].doing {
                    _ if !self.runs(number) => {}
                    Doing::Runs if round > 50 && self.instances[number].is_pvm() => {
                        self.check_memory(number)?;
                        self.end(number, zooid_fork_plan::status::Status::Exited(0));
                    }
                    _ => self.guest_acts(number)?,
                }
            }
            if round == 100 {
                let hostile = |number: &InstanceId| self.instances[*number].nature == Nature::Hostile;
                let all: Vec<InstanceId> = living.iter().copied().filter(hostile).collect();
                for number in all.into_iter().filter(|number| self.instances[*number].is_pvm()).collect::<Vec<_>>() {
                    self.shut_down(number, ShutdownReason::CRASH);
                }
            }
            if round > 150 && round % 20 == 0 {
                let ended = |number: &InstanceId| {
                    self.instances[*number].is_root() && self.instances[*number].doing == Doing::HasEnded
                };
                living.into_iter().filter(ended).collect::<Vec<_>>().into_iter().for_each(|root| self.destroy(root));
            }
            self.judge()?;
            if round > 200 && self.infos.is_empty() {
                break;
            }
        }
        for _ in 0..100 {
            self.pass(Duration::from_millis(100));
            self.engine_acts()?;
            self.xenstored.domains_changed();
        }
        let left = self.left();
        let (census, nodes, consoles) = &left;
        let more: Vec<&String> = nodes.difference(&self.empty.1).collect();
        self.found(*census == self.empty.0 && more.is_empty() && *consoles == self.empty.2, || {
            let instances: Vec<_> = self
                .instances
                .iter()
                .filter(|instance| !instance.went)
                .map(|instance| (instance.number, instance.domain, instance.kind))
                .collect();
            format!(
                "something is left: {census:?} for {:?}, nodes {more:?}, {consoles} consoles, instances {instances:?}",
                self.empty.0
            )
        })
    }
}

impl Faults {
    fn at(&mut self, name: &'static str, clock: &Clock) -> Option<Fault> {
        // The time between the event to a child and the answer to its parent is rarely met by
        // chance.
        let told = std::mem::replace(&mut self.made, name == "setdomainhandle") && name == "notify";
        self.children += u32::from(told);
        if told && self.rate > 0 && self.children.is_multiple_of(KILLED_CHILD) {
            self.last = Some(clock.now());
            self.count += 1;
            self.story.push(format!("{name}: KillAfter"));
            return Some(Fault::KillAfter);
        }
        if !self.random.chance(self.rate, 100_000) {
            return None;
        }
        self.last = Some(clock.now());
        self.count += 1;
        let errno = self.random.pick(&[
            Errno::ENOMEM,
            Errno::EAGAIN,
            Errno::EBUSY,
            Errno::EINVAL,
            Errno::ENOSPC,
            Errno::EIO,
            Errno::EPERM,
        ]);
        let fault = match self.random.below(10) {
            0..=4 => errno.map(Fault::Fail),
            5..=6 => Some(Fault::KillBefore),
            7..=8 => Some(Fault::KillAfter),
            _ => {
                clock.advance(Duration::from_micros(self.random.below(40_000)));
                None
            }
        };
        let what = fault.map_or("it is slow".to_owned(), |fault| format!("{fault:?}"));
        self.story.push(format!("    {name}: {what}"));
        // The process would take this error for its own end.
        fault.filter(|fault| *fault != Fault::Fail(Errno::EIO)).or(fault.map(|_| Fault::Fail(Errno::EPERM)))
    }
}
