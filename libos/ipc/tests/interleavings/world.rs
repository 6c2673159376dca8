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

mod explore;
mod sim;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, Yielder};
use xen_abi::DomId;
use zooid_fork_plan::id::PvmId;
use zooid_ipc::object::State;

pub use explore::explore;
pub use sim::Sim;

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

/// The constant part of a scenario.
struct Fixed {
    mortal: Vec<usize>,
    hostile: Vec<Deed>,
    deeds: u32,
}

/// An integer in an object.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    object: usize,
    offset: usize,
    size: usize,
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
