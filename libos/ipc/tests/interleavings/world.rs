//! All that can happen to members of a family which run at the same time: an explorer, and the
//! machine that they run on.
//!
//! A member's threads are coroutines that stop before each access to what others can see. Each of
//! these is a choice: the thread that goes on, an event that is delivered, a store that reaches
//! memory, a member that is killed, a pvmd that is away, a write of a hostile member. [`explore`]
//! makes all of them, by depth-first search with replays. Where it comes to a state that it has
//! seen, it turns back. A state is what stands in memory, in store buffers, in Xen and pvmd, and
//! what each member has seen so far, which decides what it does next.
//!
//! A stop is made only before what another member may notice or change: before memory that two use,
//! one of them to write. Such places are found by running: where a run finds one that was not
//! known, everything begins anew with it.
//!
//! The memory is that of x86: plain stores pass through a buffer for each member, so that later
//! loads overtake them; atomic operations and hypercalls empty it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};
use xen_abi::{DomId, Errno, PAGE_SIZE, Port as Number};
use zooid_fork_plan::id::PvmId;
use zooid_ipc::Platform;
use zooid_ipc::object::{State, hooks};
use zooid_ipc::platform::{Family, Pages, Port, Signal, Threads, Word};

/// The body of a thread.
pub type Body = Box<dyn FnOnce()>;
/// The program of a member. It is called before the exploration begins, and returns the bodies of
/// its threads.
pub type Program = Box<dyn FnOnce() -> Vec<Body>>;

/// The scenario to explore.
pub struct Scenario {
    /// The members, each with its number.
    pub members: Vec<(u16, Program)>,
    /// Members that come later, with the number of one that has ended.
    pub later: Vec<(u16, Program)>,
    /// Members, by place, that may be killed at any time.
    pub mortal: Vec<usize>,
    /// The number of times that pvmd is not there when it is asked for a relay.
    pub absences: u32,
    /// The deeds of a hostile member, and how many of them it may do.
    pub hostile: (Vec<Deed>, u32),
    /// Judges how it has ended.
    pub judge: Box<dyn FnOnce(&End)>,
}

/// A deed of a hostile member: a write to an object of its own, or an event.
#[derive(Clone, Copy, Debug)]
pub enum Deed {
    Write { object: usize, offset: usize, octets: usize, value: u64 },
    Ring { member: usize },
}

/// The final state of a run: nothing more can happen.
pub struct End {
    /// Members, by place, that live and have threads which wait.
    pub waiting: Vec<usize>,
    /// Those that were killed.
    pub killed: Vec<usize>,
}

impl Scenario {
    /// Members that live for ever, with a pvmd that is there, and nobody hostile; nobody waits at
    /// the end.
    pub fn new(members: Vec<(u16, Program)>) -> Self {
        let judge = Box::new(|end: &End| assert!(end.waiting.is_empty(), "members {:?} wait for ever", end.waiting));
        Self { members, later: Vec::new(), mortal: Vec::new(), absences: 0, hostile: (Vec::new(), 0), judge }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    /// A thread goes on.
    Run(usize),
    /// A member takes its event.
    Deliver(usize),
    /// A member's oldest store reaches memory.
    Flush(usize),
    /// A thread's deadline comes.
    Expire(usize),
    Kill(usize),
    /// pvmd tells of a member that has stopped.
    Tell(usize),
    /// A member begins, with the number of one that has ended.
    Join(usize),
    Hostile(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Way {
    Ready,
    Blocked {
        expires: bool,
    },
    /// A thread of the system that has nothing to do.
    Idle,
    Done,
}

type Routine = Coroutine<(), (), (), DefaultStack>;

struct Thread {
    member: usize,
    way: Way,
    masks: u32,
    woken: bool,
    /// The application's, and not the kernel's.
    is_application: bool,
    yielder: Cell<*const Yielder<(), ()>>,
}

/// A store that has not reached memory.
#[derive(Clone, Hash)]
struct Store {
    object: usize,
    offset: usize,
    octets: Vec<u8>,
}

struct Member {
    number: u16,
    id: PvmId,
    /// Not yet, yes, not any more.
    alive: Option<bool>,
    told: bool,
    pending: bool,
    has_news: bool,
    takes_part: bool,
    stores: Vec<Store>,
    /// Everything that it has seen.
    history: u64,
    state: Rc<RefCell<State<Sim>>>,
    anonymous: usize,
    /// The thread that runs handlers of events.
    handler: usize,
    /// The thread that the vCPU has run last.
    running: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Channel {
    Unbound(DomId),
    Bound(DomId, u32),
    Closed,
}

#[derive(Default)]
struct World {
    objects: Vec<Memory>,
    names: BTreeMap<String, usize>,
    members: Vec<Member>,
    threads: Vec<Thread>,
    ports: BTreeMap<(u16, u32), Channel>,
    member: usize,
    thread: usize,
    /// The running code prepares the scenario.
    is_setup: bool,
    /// Members from this one on join later.
    first_later: usize,
    /// The run is over, and its threads are unwound.
    over: bool,
    absences: u32,
    deeds: u32,
    choices: Vec<(usize, usize)>,
    at: usize,
    log: Vec<String>,
    is_logged: bool,
    users: Users,
}

struct Memory {
    octets: Vec<u8>,
    hash: u64,
}

impl Memory {
    fn write(&mut self, offset: usize, octets: &[u8]) {
        for (at, new) in (offset..).zip(octets) {
            self.hash ^= mix(at, self.octets[at]) ^ mix(at, *new);
            self.octets[at] = *new;
        }
    }
}

/// Of an octet of memory; of one that is 0, 0.
fn mix(at: usize, octet: u8) -> u64 {
    let mut hash = (at as u64) << 8 | u64::from(octet);
    if octet == 0 {
        return 0;
    }
    for factor in [0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb] {
        hash = (hash ^ hash >> 30).wrapping_mul(factor);
    }
    hash ^ hash >> 31
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::default();
}

fn world<R>(use_it: impl FnOnce(&mut World) -> R) -> R {
    WORLD.with(|world| use_it(&mut world.borrow_mut()))
}

/// True if nothing has an effect any more, because the threads are unwound.
fn is_over() -> bool {
    std::thread::panicking() || world(|world| world.over)
}

/// Lets anything happen that can, before the caller does what others can see.
fn step() {
    if world(|world| world.is_setup) {
        return;
    }
    let yielder = world(|world| world.threads[world.thread].yielder.get());
    // SAFETY: the running thread's own, which its coroutine has stored, and which lives as long as
    // that runs.
    unsafe { &*yielder }.suspend(());
}

/// An access: the verb, the place, and the value.
type What = (&'static str, usize, usize, u64);

/// Does something; `then` returns what the caller learns. Stops before it, if it touches what
/// others use.
fn act<R: Hash + std::fmt::Debug>(what: What, touch: Touch, idle: R, then: impl FnOnce(&mut World) -> R) -> R {
    if is_over() {
        return idle;
    }
    if world(|world| world.is_seen_by_others(touch)) {
        step();
    }
    world(|world| {
        let result = then(world);
        let member = world.member;
        world.see(member, &(what, &result));
        if world.is_logged {
            world.log.push(format!("{member}.{}: {what:?} -> {result:?}", world.thread));
        }
        result
    })
}

/// The place that a step touches.
#[derive(Clone, Copy)]
enum Touch {
    Nothing,
    /// So many octets from a place on.
    Memory {
        object: usize,
        offset: usize,
        octets: usize,
        writes: bool,
    },
    /// Ports, or pvmd.
    Others,
}

/// The entry of a number in the table of members, which pvmd writes.
fn table(number: u16, writes: bool) -> Touch {
    Touch::Memory { object: usize::MAX, offset: 8 * usize::from(number), octets: 8, writes }
}

/// The users of places of memory, by words of 8 octets: bits of the readers, and of the writers.
#[derive(Default)]
struct Users {
    words: BTreeMap<(usize, usize), (u64, u64)>,
    /// Something has become shared that was not.
    has_grown: bool,
}

/// The bit of pvmd and of who is hostile.
const STRANGER: usize = 63;

impl Users {
    /// Notes a use, and says whether others use that place so that the order matters.
    fn touch(&mut self, member: usize, object: usize, offset: usize, octets: usize, writes: bool) -> bool {
        let mut is_shared = false;
        for word in offset / 8..(offset + octets).div_ceil(8) {
            let (readers, writers) = self.words.entry((object, word)).or_default();
            let matters = |readers: u64, writers: u64| writers != 0 && (readers | writers).count_ones() > 1;
            let before = matters(*readers, *writers);
            *(if writes { &mut *writers } else { &mut *readers }) |= 1 << member;
            let now = matters(*readers, *writers);
            self.has_grown |= now && !before;
            is_shared |= now;
        }
        is_shared
    }

    fn is_shared(&self, store: &Store) -> bool {
        let words = store.offset / 8..(store.offset + store.octets.len()).div_ceil(8);
        words.into_iter().any(|word| {
            let users = self.words.get(&(store.object, word));
            users.is_some_and(|(readers, writers)| *writers != 0 && (readers | writers).count_ones() > 1)
        })
    }
}

impl World {
    /// True if others may notice the order of this step and of their own.
    fn is_seen_by_others(&mut self, touch: Touch) -> bool {
        match touch {
            Touch::Nothing => false,
            Touch::Others => true,
            _ if self.is_setup => false,
            Touch::Memory { object, offset, octets, writes } => {
                self.users.touch(self.member, object, offset, octets, writes)
            }
        }
    }

    fn see(&mut self, member: usize, what: &impl Hash) {
        let mut hasher = DefaultHasher::new();
        (self.members[member].history, what).hash(&mut hasher);
        self.members[member].history = hasher.finish();
    }

    fn flush_one(&mut self, member: usize) {
        let Store { object, offset, octets } = self.members[member].stores.remove(0);
        self.objects[object].write(offset, &octets);
    }

    fn flush(&mut self, member: usize) {
        while !self.members[member].stores.is_empty() {
            self.flush_one(member);
        }
    }

    /// The octets that the running member reads there.
    fn read(&self, object: usize, offset: usize, into: &mut [u8]) {
        into.copy_from_slice(&self.objects[object].octets[offset..offset + into.len()]);
        for store in self.members[self.member].stores.iter().filter(|store| store.object == object) {
            for (at, octet) in (store.offset..).zip(&store.octets) {
                if let Some(place) = at.checked_sub(offset).and_then(|at| into.get_mut(at)) {
                    *place = *octet;
                }
            }
        }
    }

    /// A plain store.
    fn store(&mut self, object: usize, offset: usize, octets: &[u8]) {
        assert!(offset + octets.len() <= self.objects[object].octets.len());
        let store = Store { object, offset, octets: octets.to_vec() };
        let stores = &mut self.members[self.member].stores;
        stores.push(store);
        // A store that nobody else looks at may reach memory at once.
        while stores.first().is_some_and(|store| self.is_setup || !self.users.is_shared(store)) {
            let Store { object, offset, octets } = stores.remove(0);
            self.objects[object].write(offset, &octets);
        }
    }

    /// Does something in one step with an integer of so many octets; with `next`, which may leave
    /// it as it is.
    fn atomic(&mut self, place: Place, next: impl FnOnce(u64) -> Option<u64>) -> u64 {
        self.flush(self.member);
        let mut octets = [0; 8];
        self.read(place.object, place.offset, &mut octets[..place.size]);
        let old = u64::from_le_bytes(octets);
        if let Some(new) = next(old) {
            self.objects[place.object].write(place.offset, &new.to_le_bytes()[..place.size]);
        }
        old
    }

    fn id_of(&self, number: u16) -> Option<PvmId> {
        let is_it = |member: &&Member| member.number == number && member.alive.is_some() && !member.told;
        self.members.iter().find(is_it).map(|member| member.id)
    }

    fn member_of(&self, domain: DomId) -> Option<usize> {
        self.members.iter().position(|member| member.id.domain() == domain)
    }

    fn choose(&mut self, count: usize) -> usize {
        if count == 1 {
            return 0;
        }
        if self.at == self.choices.len() {
            self.choices.push((0, count));
        }
        let (chosen, of) = self.choices[self.at];
        assert_eq!(of, count, "a replay goes another way");
        self.at += 1;
        chosen
    }

    /// The thread of a member that runs and cannot be interrupted.
    fn masked(&self, member: usize) -> Option<usize> {
        let running = self.members[member].running;
        let thread = self.threads.get(running)?;
        (thread.member == member && thread.way == Way::Ready && thread.masks > 0).then_some(running)
    }

    /// All that can happen next; first, that the same thread goes on.
    fn actions(&self, scenario: &Fixed) -> Vec<Action> {
        let mut actions = Vec::new();
        let first = self.thread.min(self.threads.len());
        for thread in (first..self.threads.len()).chain(0..first) {
            let Thread { member, way, .. } = self.threads[thread];
            if self.members[member].alive != Some(true) || self.masked(member).is_some_and(|masked| masked != thread) {
                continue;
            }
            match way {
                Way::Ready => actions.push(Action::Run(thread)),
                Way::Blocked { expires: true } => actions.push(Action::Expire(thread)),
                _ => {}
            }
        }
        for (place, member) in self.members.iter().enumerate() {
            if !member.stores.is_empty() {
                actions.push(Action::Flush(place));
            }
            if member.alive == Some(true) {
                if member.pending && self.masked(place).is_none() {
                    actions.push(Action::Deliver(place));
                }
                if scenario.mortal.contains(&place) && self.members.iter().all(|member| member.alive != Some(false)) {
                    actions.push(Action::Kill(place));
                }
            }
            if member.alive == Some(false) && !member.told {
                actions.push(Action::Tell(place));
            }
            if member.alive.is_none() && self.id_of(member.number).is_none() {
                actions.push(Action::Join(place));
            }
        }
        let is_finished = self.threads.iter().all(|thread| thread.way != Way::Ready);
        if self.deeds < scenario.deeds && !(is_finished && actions.is_empty()) {
            actions.extend((0..scenario.hostile.len()).map(Action::Hostile));
        }
        actions
    }

    fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.objects.iter().for_each(|object| object.hash.hash(&mut hasher));
        for member in &self.members {
            let Member { alive, told, pending, has_news, stores, history, .. } = member;
            (alive, told, pending, has_news, stores, history).hash(&mut hasher);
        }
        for thread in &self.threads {
            (thread.way, thread.masks, thread.woken).hash(&mut hasher);
        }
        (&self.ports, self.absences, self.deeds).hash(&mut hasher);
        hasher.finish()
    }
}

/// The constant part of a scenario.
struct Fixed {
    mortal: Vec<usize>,
    hostile: Vec<Deed>,
    deeds: u32,
}

/// Makes all choices that there are; how many states there were.
pub fn explore(name: &str, mut scenario: impl FnMut() -> Scenario) -> usize {
    let mut seen = HashSet::new();
    let mut choices: Vec<(usize, usize)> = Vec::new();
    let mut stacks = Vec::new();
    let mut users = Users::default();
    let mut replays = 0_u64;
    let mut is_logged = false;
    loop {
        replays += 1;
        let first = World { choices, users, is_logged, ..World::default() };
        world(|world| *world = first);
        let mut routines = Vec::new();
        let trouble = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            run(scenario(), &mut seen, &mut routines, &mut stacks);
        }));
        clear_away(routines, &mut stacks);
        if let Err(trouble) = trouble {
            if is_logged {
                eprintln!("{name}, replay {replays}:\n{}", world(|world| world.log.join("\n")));
                std::panic::resume_unwind(trouble);
            }
            // Once more, with what is done.
            is_logged = true;
            (choices, users) = world(|world| (std::mem::take(&mut world.choices), std::mem::take(&mut world.users)));
            continue;
        }
        (choices, users) = world(|world| (std::mem::take(&mut world.choices), std::mem::take(&mut world.users)));
        if std::mem::take(&mut users.has_grown) {
            choices.clear();
            seen.clear();
            continue;
        }
        while choices.last().is_some_and(|(chosen, count)| chosen + 1 == *count) {
            choices.pop();
        }
        match choices.last_mut() {
            Some((chosen, _)) => *chosen += 1,
            None => break,
        }
    }
    eprintln!("{name}: {} states, {replays} replays", seen.len());
    seen.len()
}

fn clear_away(routines: Vec<Routine>, stacks: &mut Vec<DefaultStack>) {
    world(|world| world.over = true);
    for mut routine in routines {
        if !routine.done() {
            routine.force_unwind();
        }
        stacks.push(routine.into_stack());
    }
    let members = world(|world| std::mem::take(&mut world.members));
    drop(members);
}

fn spawn(
    member: usize,
    way: Way,
    is_application: bool,
    body: Body,
    routines: &mut Vec<Routine>,
    stacks: &mut Vec<DefaultStack>,
) -> usize {
    let thread = world(|world| {
        let yielder = Cell::new(std::ptr::null());
        world.threads.push(Thread { member, way, masks: 0, woken: false, is_application, yielder });
        world.threads.len() - 1
    });
    let stack = stacks.pop().unwrap_or_default();
    routines.push(Coroutine::with_stack(stack, move |yielder: &Yielder<(), ()>, ()| {
        world(|world| world.threads[thread].yielder.set(yielder));
        body();
    }));
    thread
}

/// The body of a member's system threads: handlers of events, and news.
fn serve(work: fn(), is_next: fn(&mut Member) -> bool) {
    loop {
        if is_over() {
            return;
        }
        let go = world(|world| {
            let (thread, member) = (world.thread, world.member);
            let go = is_next(&mut world.members[member]);
            if !go {
                world.threads[thread].way = Way::Idle;
            }
            go
        });
        if go {
            work();
        } else {
            step();
        }
    }
}

fn begin(place: usize, program: Program, routines: &mut Vec<Routine>, stacks: &mut Vec<DefaultStack>) {
    world(|world| {
        world.is_setup = true;
        world.member = place;
        if place >= world.first_later {
            let number = usize::from(world.members[place].number);
            world.users.touch(STRANGER, usize::MAX, 8 * number, 8, true);
        }
        world.members[place].alive = Some(true);
    });
    let bodies = program();
    world(|world| world.is_setup = false);
    for body in bodies {
        spawn(place, Way::Ready, true, body, routines, stacks);
    }
    let handle: Body = Box::new(|| {
        serve(zooid_ipc::ring::<Sim>, |member| std::mem::take(&mut member.pending));
    });
    let handler = spawn(place, Way::Idle, false, handle, routines, stacks);
    world(|world| {
        world.members[place].handler = handler;
        // The handler runs with events masked.
        world.threads[handler].masks = 1;
    });
    let news: Body = Box::new(|| serve(hooks::news::<Sim>, |member| std::mem::take(&mut member.has_news)));
    spawn(place, Way::Idle, false, news, routines, stacks);
}

fn run(scenario: Scenario, seen: &mut HashSet<u64>, routines: &mut Vec<Routine>, stacks: &mut Vec<DefaultStack>) {
    let Scenario { members, later, mortal, absences, hostile, judge } = scenario;
    let fixed = Fixed { mortal, hostile: hostile.0, deeds: hostile.1 };
    world(|world| {
        (world.absences, world.first_later) = (absences, members.len());
        for (place, (number, _)) in members.iter().chain(&later).enumerate() {
            world.members.push(Member {
                number: *number,
                id: PvmId::new(DomId(place as u16 + 1), 1).expect("it is not 0"),
                alive: None,
                told: false,
                pending: false,
                has_news: false,
                takes_part: false,
                stores: Vec::new(),
                history: 0,
                state: Rc::default(),
                anonymous: 0,
                handler: 0,
                running: 0,
            });
        }
    });
    let count = members.len();
    for (place, (_, program)) in members.into_iter().enumerate() {
        begin(place, program, routines, stacks);
    }
    let mut later: Vec<_> = later.into_iter().map(|(_, program)| Some(program)).collect();
    loop {
        let actions = world(|world| world.actions(&fixed));
        if actions.is_empty() {
            break;
        }
        let is_old = world(|world| actions.len() > 1 && world.at == world.choices.len() && !seen.insert(world.key()));
        if is_old {
            return;
        }
        let action = world(|world| {
            let action = actions[world.choose(actions.len())];
            if world.is_logged && !matches!(action, Action::Run(_)) {
                world.log.push(format!("{action:?}"));
            }
            action
        });
        match action {
            Action::Join(place) => {
                let program = later[place - count].take().expect("it joins once");
                begin(place, program, routines, stacks);
            }
            Action::Run(thread) => resume(thread, &mut routines[thread]),
            action => world(|world| world.perform(action, &fixed)),
        }
    }
    let end = world(|world| {
        let waits =
            |place: usize, thread: &Thread| thread.member == place && thread.is_application && thread.way != Way::Done;
        let all = 0..world.members.len();
        End {
            waiting: all
                .clone()
                .filter(|place| world.members[*place].alive == Some(true))
                .filter(|place| world.threads.iter().any(|thread| waits(*place, thread)))
                .collect(),
            killed: all.filter(|place| world.members[*place].alive == Some(false)).collect(),
        }
    });
    judge(&end);
}

fn resume(thread: usize, routine: &mut Routine) {
    world(|world| {
        world.thread = thread;
        world.member = world.threads[thread].member;
        let member = world.member;
        world.members[member].running = thread;
        world.see(member, &thread);
    });
    if let CoroutineResult::Return(()) = routine.resume(()) {
        world(|world| world.threads[thread].way = Way::Done);
    }
}

impl World {
    fn perform(&mut self, action: Action, scenario: &Fixed) {
        match action {
            Action::Flush(member) => self.flush_one(member),
            Action::Deliver(member) => {
                let handler = self.members[member].handler;
                self.threads[handler].way = Way::Ready;
                self.members[member].running = handler;
                self.see(member, &"an event");
            }
            Action::Expire(thread) => {
                self.threads[thread].way = Way::Ready;
                self.threads[thread].woken = false;
            }
            Action::Kill(member) => self.members[member].alive = Some(false),
            Action::Tell(ended) => {
                self.flush(ended);
                self.users.touch(STRANGER, usize::MAX, 8 * usize::from(self.members[ended].number), 8, true);
                self.members[ended].told = true;
                let living = |member: &Member| member.alive == Some(true) && member.takes_part;
                let others: Vec<usize> = (0..self.members.len()).filter(|it| living(&self.members[*it])).collect();
                others.into_iter().for_each(|member| self.wake_news(member));
            }
            Action::Hostile(deed) => {
                self.deeds += 1;
                match scenario.hostile[deed] {
                    Deed::Write { object, offset, octets, value } => {
                        self.users.touch(STRANGER, object, offset, octets, true);
                        self.objects[object].write(offset, &value.to_le_bytes()[..octets]);
                    }
                    Deed::Ring { member } => self.members[member].pending = true,
                }
            }
            Action::Run(_) | Action::Join(_) => unreachable!("done by who has the coroutines"),
        }
    }

    /// A member has news, and its thread for them looks.
    fn wake_news(&mut self, member: usize) {
        self.members[member].has_news = true;
        let handler = self.members[member].handler;
        for (place, thread) in self.threads.iter_mut().enumerate() {
            let is_service = thread.member == member && !thread.is_application && place != handler;
            if is_service && thread.way == Way::Idle {
                thread.way = Way::Ready;
            }
        }
    }
}

/// Writes an integer of so many octets while a scenario is prepared.
pub fn poke(object: usize, offset: usize, octets: usize, value: u64) {
    world(|world| world.objects[object].write(offset, &value.to_le_bytes()[..octets]));
}

/// The value of a 16-bit integer now; nobody notices that it is read.
pub fn peek(object: usize, offset: usize) -> u16 {
    world(|world| {
        let octets = &world.objects[object].octets;
        u16::from_le_bytes([octets[offset], octets[offset + 1]])
    })
}

/// The machine.
pub enum Sim {}

/// An integer in an object.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    object: usize,
    offset: usize,
    size: usize,
}

macro_rules! words {
    ($($integer:ty)*) => {$(
        impl Word<$integer> for Place {
            fn load(&self) -> $integer {
                self.read()
            }
            fn store(&self, value: $integer) {
                self.swap(value);
            }
            fn read(&self) -> $integer {
                act(("read", self.object, self.offset, 0), self.touch(false), 0, |world| {
                    let mut octets = [0; size_of::<$integer>()];
                    world.read(self.object, self.offset, &mut octets);
                    <$integer>::from_le_bytes(octets)
                })
            }
            fn write(&self, value: $integer) {
                act(("write", self.object, self.offset, value.into()), self.touch(true), (), |world| {
                    world.store(self.object, self.offset, &value.to_le_bytes());
                });
            }
            fn swap(&self, value: $integer) -> $integer {
                self.change("swap", value, |_| Some(value))
            }
            fn compare_exchange(&self, old: $integer, new: $integer) -> Result<$integer, $integer> {
                let found = self.change("exchange", new, |found| (found == old).then_some(new));
                // Nothing is taken while it is cleared away.
                if found == old && !is_over() { Ok(found) } else { Err(found) }
            }
            fn fetch_or(&self, bits: $integer) -> $integer {
                self.change("or", bits, |old| Some(old | bits))
            }
            fn fetch_and(&self, bits: $integer) -> $integer {
                self.change("and", bits, |old| Some(old & bits))
            }
            fn fetch_add(&self, value: $integer) -> $integer {
                self.change("add", value, |old| Some(old.wrapping_add(value)))
            }
            fn fetch_max(&self, value: $integer) -> $integer {
                self.change("max", value, |old| Some(old.max(value)))
            }
            fn fetch_update(&self, mut next: impl FnMut($integer) -> Option<$integer>) -> Result<$integer, $integer> {
                let mut old: $integer = self.load();
                while let Some(new) = next(old) {
                    match self.compare_exchange(old, new) {
                        Ok(found) => return Ok(found),
                        Err(_) if is_over() => break,
                        Err(found) => old = found,
                    }
                }
                Err(old)
            }
        }

        impl Change<$integer> for Place {
            fn change(
                &self,
                what: &'static str,
                value: $integer,
                next: impl FnOnce($integer) -> Option<$integer>,
            ) -> $integer {
                act((what, self.object, self.offset, value.into()), self.touch(true), 0, |world| {
                    world.atomic(*self, |old| next(old as $integer).map(u64::from)) as $integer
                })
            }
        }
    )*};
}

impl Place {
    fn touch(&self, writes: bool) -> Touch {
        Touch::Memory { object: self.object, offset: self.offset, octets: self.size, writes }
    }
}

trait Change<T> {
    fn change(&self, what: &'static str, value: T, next: impl FnOnce(T) -> Option<T>) -> T;
}

words!(u16 u32 u64);

/// An object's pages.
pub struct Mapping(usize);

impl Pages for Mapping {
    type U16<'a> = Place;
    type U32<'a> = Place;
    type U64<'a> = Place;

    fn u16(&self, offset: usize) -> Place {
        Place { object: self.0, offset, size: 2 }
    }

    fn u32(&self, offset: usize) -> Place {
        Place { object: self.0, offset, size: 4 }
    }

    fn u64(&self, offset: usize) -> Place {
        Place { object: self.0, offset, size: 8 }
    }

    fn copy_out(&self, offset: usize, into: &mut [u8]) {
        let touch = Touch::Memory { object: self.0, offset, octets: into.len(), writes: false };
        let octets = act(("copy out", self.0, offset, 0), touch, Vec::new(), |world| {
            let mut octets = vec![0; into.len()];
            world.read(self.0, offset, &mut octets);
            octets
        });
        if octets.len() == into.len() {
            into.copy_from_slice(&octets);
        }
    }

    fn copy_in(&self, offset: usize, from: &[u8]) {
        if !from.is_empty() {
            let touch = Touch::Memory { object: self.0, offset, octets: from.len(), writes: true };
            act(("copy in", self.0, offset, 0), touch, (), |world| world.store(self.0, offset, from));
        }
    }

    fn size(&self) -> usize {
        world(|world| world.objects[self.0].octets.len())
    }

    fn address(&self) -> usize {
        (self.0 + 1) << 32
    }

    fn frame(&self) -> u64 {
        self.0 as u64
    }
}

/// A port of a member's domain.
pub struct Bound {
    domain: DomId,
    number: u32,
}

impl Port for Bound {
    fn number(&self) -> Number {
        Number(self.number)
    }

    fn notify(&self) {
        act(("notify", 0, 0, self.number.into()), Touch::Others, (), |world| {
            world.flush(world.member);
            if let Some(Channel::Bound(remote, _)) = world.ports.get(&(self.domain.0, self.number))
                && let Some(member) = world.member_of(*remote)
            {
                world.members[member].pending = true;
            }
        });
    }

    fn is_bound(&self) -> bool {
        act(("is bound", 0, 0, self.number.into()), Touch::Others, false, |world| {
            matches!(world.ports.get(&(self.domain.0, self.number)), Some(Channel::Bound(..)))
        })
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        act(("close", 0, 0, self.number.into()), Touch::Others, (), |world| {
            let port = (self.domain.0, self.number);
            if let Some(Channel::Bound(remote, number)) = world.ports.insert(port, Channel::Closed) {
                world.ports.insert((remote.0, number), Channel::Unbound(self.domain));
            }
        });
    }
}

/// Events are masked.
pub struct Mask(());

impl Mask {
    /// Another thread of the application may come first.
    fn new() -> Self {
        let is_contended = |world: &World| {
            let (thread, member) = (world.thread, world.member);
            let is_other = |(place, it): (usize, &Thread)| {
                place != thread && it.member == member && it.is_application && it.way == Way::Ready
            };
            let Thread { masks, is_application, .. } = world.threads[thread];
            masks == 0 && is_application && world.threads.iter().enumerate().any(is_other)
        };
        if !is_over() && world(|world| !world.is_setup && is_contended(world)) {
            step();
        }
        world(|world| {
            if !world.is_setup && !world.over {
                world.threads[world.thread].masks += 1;
            }
        });
        Self(())
    }
}

impl Drop for Mask {
    fn drop(&mut self) {
        world(|world| {
            if !world.is_setup && !world.over {
                world.threads[world.thread].masks -= 1;
            }
        });
    }
}

/// The event that a poll waits for.
#[derive(Default)]
pub struct Event {
    signalled: std::sync::atomic::AtomicBool,
    /// The thread that waits, plus one.
    waiter: std::sync::atomic::AtomicUsize,
}

const RELAXED: std::sync::atomic::Ordering = std::sync::atomic::Ordering::Relaxed;

impl Signal for Event {
    fn signal(&self) {
        self.signalled.store(true, RELAXED);
        if let Some(thread) = self.waiter.load(RELAXED).checked_sub(1) {
            Sim::wake(thread);
        }
    }
}

impl Threads for Sim {
    type Thread = usize;
    type Mask = Mask;
    type Event = Event;

    fn mask() -> Mask {
        Mask::new()
    }

    fn current() -> usize {
        world(|world| world.thread)
    }

    fn block(deadline: Option<u64>) -> bool {
        if is_over() {
            return false;
        }
        world(|world| {
            assert!(!world.is_setup, "a scenario must not wait before it begins");
            let (thread, member) = (world.thread, world.member);
            world.flush(member);
            world.threads[thread].way = Way::Blocked { expires: deadline.is_some() };
            if world.is_logged {
                world.log.push(format!("{member}.{thread}: blocks"));
            }
        });
        step();
        world(|world| world.threads[world.thread].woken)
    }

    fn wake(thread: usize) -> bool {
        world(|world| {
            let Some(sleeper) = world.threads.get_mut(thread) else { return false };
            let is_blocked = matches!(sleeper.way, Way::Blocked { .. });
            if is_blocked {
                (sleeper.way, sleeper.woken) = (Way::Ready, true);
            }
            is_blocked
        })
    }

    fn event() -> Event {
        Event::default()
    }

    fn wait(event: &Event, deadline: Option<u64>) -> bool {
        let _mask = Mask::new();
        while !event.signalled.swap(false, RELAXED) {
            event.waiter.store(Self::current() + 1, RELAXED);
            if !Self::block(deadline) {
                return false;
            }
        }
        true
    }

    fn now() -> u64 {
        0
    }

    fn sleep_until(_: u64) {
        act(("sleep", 0, 0, 0), Touch::Others, (), |_| ());
    }

    fn fence() {
        let has_stores = world(|world| world.members.get(world.member).is_some_and(|it| !it.stores.is_empty()));
        let touch = if has_stores { Touch::Others } else { Touch::Nothing };
        act(("fence", 0, 0, 0), touch, (), |world| world.flush(world.member));
    }
}

impl Family for Sim {
    type Pages = Mapping;
    type Port = Bound;

    fn take_part() -> Result<(), Errno> {
        world(|world| {
            let member = world.member;
            world.members[member].takes_part = true;
        });
        Ok(())
    }

    /// Objects without a name are the same for all members, in the order in which each makes them:
    /// this stands for what children have from their parents.
    fn open(name: Option<&str>, pages: usize, _: bool, _: bool, header: &[(usize, u32)]) -> Result<Mapping, Errno> {
        let (object, is_new) = act(("open", 0, 0, 0), Touch::Others, (0, false), |world| {
            let member = world.member;
            world.flush(member);
            let name = name.map_or_else(
                || {
                    world.members[member].anonymous += 1;
                    format!("/{}", world.members[member].anonymous)
                },
                str::to_owned,
            );
            if let Some(object) = world.names.get(&name) {
                return (*object, false);
            }
            let object = world.objects.len();
            world.objects.push(Memory { octets: vec![0; pages * PAGE_SIZE], hash: 0 });
            world.names.insert(name, object);
            (object, true)
        });
        let mapping = Mapping(object);
        if is_new {
            header.iter().for_each(|(at, word)| mapping.u32(*at).write(*word));
        }
        Ok(mapping)
    }

    fn unlink(_: &str) -> Result<(), Errno> {
        Err(Errno::ENOENT)
    }

    fn relay(number: u16) -> Result<(), Errno> {
        let answer = act(("relay", 0, 0, number.into()), Touch::Others, 0, |world| {
            world.flush(world.member);
            if world.absences > 0 && world.choose(2) == 1 {
                world.absences -= 1;
                return Errno::ENOTCONN.0;
            }
            let is_it = |member: &Member| member.number == number && member.alive.is_some() && !member.told;
            let Some(member) = world.members.iter().position(is_it) else { return Errno::ENOENT.0 };
            world.wake_news(member);
            0
        });
        if answer == 0 { Ok(()) } else { Err(Errno(answer)) }
    }

    fn look_again() {
        world(|world| world.wake_news(world.member));
    }

    fn kill(_: PvmId, _: u8) -> Result<(), Errno> {
        Err(Errno::ESRCH)
    }

    fn member() -> Option<u16> {
        (!is_over()).then(|| world(|world| world.members[world.member].number))
    }

    fn member_id(number: u16) -> Option<PvmId> {
        act(("who is", 0, 0, number.into()), table(number, false), None, |world| world.id_of(number).map(PvmId::raw))
            .and_then(PvmId::from_raw)
    }

    fn member_number(id: PvmId) -> Option<u16> {
        (0..8).find(|number| Self::member_id(*number) == Some(id))
    }

    fn offer(remote: DomId) -> Option<Bound> {
        act(("offer", 0, 0, 0), Touch::Others, None, |world| {
            world.flush(world.member);
            let domain = world.members[world.member].id.domain().0;
            let number = 1 + world.ports.keys().filter(|(owner, _)| *owner == domain).count() as u32;
            world.ports.insert((domain, number), Channel::Unbound(remote));
            Some((domain, number))
        })
        .map(|(domain, number)| Bound { domain: DomId(domain), number })
    }

    fn bind(remote: DomId, port: Number) -> Option<Bound> {
        act(("bind", 0, 0, port.0.into()), Touch::Others, None, |world| {
            world.flush(world.member);
            let domain = world.members[world.member].id.domain();
            if world.ports.get(&(remote.0, port.0)) != Some(&Channel::Unbound(domain)) {
                return None;
            }
            let number = 1 + world.ports.keys().filter(|(owner, _)| *owner == domain.0).count() as u32;
            world.ports.insert((remote.0, port.0), Channel::Bound(domain, number));
            world.ports.insert((domain.0, number), Channel::Bound(remote, port.0));
            Some((domain.0, number))
        })
        .map(|(domain, number)| Bound { domain: DomId(domain), number })
    }
}

impl Platform for Sim {
    fn with<R>(use_it: impl FnOnce(&mut State<Self>) -> R) -> R {
        if is_over() {
            return use_it(&mut State::new());
        }
        let _mask = Mask::new();
        let state = world(|world| world.members[world.member].state.clone());
        use_it(&mut state.borrow_mut())
    }

    fn start_signals() -> bool {
        true
    }

    fn call(handler: fn(u8), signal: u8) {
        handler(signal);
    }

    fn take_default_action(_: u8) {}
}
