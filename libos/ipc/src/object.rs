//! An object that this pVM has.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};

use spin::Once;
use zooid_fork::PvmId;
use zooid_fork::objects::{self, Created, Relatives};
use zooid_kernel::events::Masked;
use zooid_kernel::life::{self, Component, Order};
use zooid_kernel::shared::SharedPages;
use zooid_kernel::{at_boot, thread, time};

use crate::error::Error;
use crate::layout::{self, BORN, Kind, MAX_MEMBERS, Role};
use crate::{link, signal, wait};

/// How long an object that has just been made by another may take until it can be used, in nanoseconds.
const PATIENCE: u64 = 1_000_000_000;

/// An object: its pages are mapped for as long as this exists. Who has a part in it is counted apart, by [`Part`].
pub struct Object {
    pages: SharedPages,
    /// Parts of this pVM's, by role.
    parts: [AtomicU32; 2],
    /// Something in it was nonsense.
    broken: AtomicBool,
}

static LIFE: Component = Component { begin: |_| begin_life(), end: |_| ending(), ..Component::PASSIVE };

at_boot! {
    /// In an image that uses objects.
    COMPONENT, "ipc", join
}

fn join() {
    life::join(Order::Ipc, &LIFE);
}

/// The objects in which this pVM has a part.
static OPEN: Masked<Vec<Arc<Object>>> = Masked::new(Vec::new());

/// The object of this kind that has the memory at this address, and the offset there.
pub fn at_address(address: usize, kind: Kind) -> Option<(Arc<Object>, usize)> {
    let open = OPEN.lock();
    let has = |object: &&Arc<Object>| (address.wrapping_sub(object.pages.address())) < object.pages.len();
    let object = open.iter().find(has)?;
    let is_it = object.pages.read_u32(layout::KIND) == kind as u32;
    is_it.then(|| (object.clone(), address - object.pages.address()))
}

/// Makes an object, or opens the one of this name. `details` are written into a new one's header, and `pages` includes it.
pub fn open(kind: Kind, name: Option<&str>, pages: usize, how: How, details: [u32; 2]) -> Result<Arc<Object>, Error> {
    static READY: Once<()> = Once::new();
    if !READY.is_completed() {
        core::hint::black_box(&COMPONENT);
        objects::take_part(Relatives { news, child })?;
        READY.call_once(|| ());
    }
    let is_ours = kind == Kind::Signals;
    if name.is_some_and(|name| name.is_empty() || name.starts_with(signal::RESERVED) && !is_ours) {
        return Err(Error::Invalid);
    }
    let created = objects::create(name, pages, how.create, how.exclusive)?;
    let object = Object {
        pages: objects::map(created)?,
        parts: [AtomicU32::new(0), AtomicU32::new(0)],
        broken: AtomicBool::new(false),
    };
    object.prepare(kind, created, details)?;
    // A name that is open here already is the same object: what this pVM has of it is counted in one place.
    let frame = objects::first_frame(&object.pages);
    let known = OPEN.lock().iter().find(|known| objects::first_frame(&known.pages) == frame).cloned();
    Ok(known.unwrap_or_else(|| Arc::new(object)))
}

/// How a name is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    /// Make it if it is not there.
    pub create: bool,
    /// Fail if it is there.
    pub exclusive: bool,
}

impl How {
    /// For what has no name.
    pub const ANONYMOUS: Self = Self { create: true, exclusive: true };
}

impl Object {
    /// Fills in the header of a new object, or waits until its creator has.
    fn prepare(&self, kind: Kind, created: Created, details: [u32; 2]) -> Result<(), Error> {
        if created.is_new {
            self.pages.write_u32(layout::KIND, kind as u32);
            layout::DETAILS.iter().zip(details).for_each(|(at, detail)| self.pages.write_u32(*at, detail));
            self.pages.write_u32_release(layout::STATE, layout::MAGIC);
            return Ok(());
        }
        let give_up = time::now() + PATIENCE;
        while self.pages.read_u32_acquire(layout::STATE) != layout::MAGIC {
            if time::now() > give_up {
                return Err(Error::Broken);
            }
            thread::sleep_until(time::now() + PATIENCE / 1000);
        }
        if self.pages.read_u32(layout::KIND) == kind as u32 { Ok(()) } else { Err(Error::Invalid) }
    }

    /// Its pages.
    pub fn pages(&self) -> &SharedPages {
        &self.pages
    }

    /// What its creator has written of its size: a claim.
    pub fn detail(&self, number: usize) -> u32 {
        self.pages.read_u32(layout::DETAILS[number])
    }

    /// Says that it holds nonsense.
    pub fn broken(&self) -> Error {
        self.broken.store(true, Ordering::Relaxed);
        Error::Broken
    }

    /// Fails once something was nonsense.
    pub fn check(&self) -> Result<(), Error> {
        if self.broken.load(Ordering::Relaxed) { Err(Error::Broken) } else { Ok(()) }
    }

    /// Whether a member takes part in this role. It may have ended a moment ago.
    pub fn has(&self, role: Role) -> bool {
        let all = role as u32 * 0x0101_0101;
        self.words().any(|word| self.word(word).load(Ordering::SeqCst) & all != 0)
    }

    /// The words of octets that somebody may have written.
    fn words(&self) -> Range<usize> {
        let members = self.pages.read_u32(layout::MEMBERS) as usize;
        0..members.min(MAX_MEMBERS).div_ceil(4)
    }

    fn word(&self, word: usize) -> &AtomicU32 {
        self.pages.atomic_u32(layout::PARTS + 4 * word)
    }

    /// Replaces a member's octet by what `next` makes of it.
    fn update(&self, member: u16, mut next: impl FnMut(u32) -> u32) {
        let (word, shift) = (usize::from(member) / 4, u32::from(member) % 4 * 8);
        if word >= MAX_MEMBERS / 4 {
            return;
        }
        self.pages.atomic_u32(layout::MEMBERS).fetch_max(u32::from(member) + 1, Ordering::SeqCst);
        let _ = self.word(word).fetch_update(Ordering::SeqCst, Ordering::SeqCst, |old| {
            Some(old & !(0xff << shift) | (next(old >> shift & 0xff) & 0xff) << shift)
        });
    }

    /// This pVM's roles, as it knows them itself.
    fn roles(&self) -> u32 {
        let has = |role: Role| self.parts(role).load(Ordering::Relaxed) > 0;
        [Role::Reader, Role::Writer].into_iter().filter(|role| has(*role)).fold(0, |all, role| all | role as u32)
    }

    /// Says so, as member `me`.
    fn show_roles(&self, me: u16) {
        self.update(me, |_| BORN | self.roles());
    }

    fn parts(&self, role: Role) -> &AtomicU32 {
        &self.parts[role as usize / 2]
    }

    /// Whether this member takes part in this role.
    pub fn takes_part(&self, role: Role, member: u16) -> bool {
        let (word, shift) = (usize::from(member) / 4, u32::from(member) % 4 * 8);
        word < MAX_MEMBERS / 4 && self.word(word).load(Ordering::SeqCst) >> shift & role as u32 != 0
    }

    /// Calls `each` with the members that take part.
    pub fn for_each_member(&self, each: impl FnMut(u16)) {
        self.for_each(Role::Reader as u32 | Role::Writer as u32, each);
    }

    /// Calls `each` with the members that have one of these bits in their octets.
    fn for_each(&self, bits: u32, mut each: impl FnMut(u16)) {
        for word in self.words() {
            let octets = self.word(word).load(Ordering::SeqCst);
            for place in 0..4 {
                if octets >> (8 * place) & bits != 0 {
                    each((word * 4 + place) as u16);
                }
            }
        }
    }

    /// Takes those out who have ended.
    fn forget_ended(&self) {
        self.for_each(0xff, |member| {
            if objects::member_id(member).is_none() {
                self.update(member, |_| 0);
                if self.pages.read_u32(layout::KIND) == Kind::Signals as u32 {
                    signal::forget(self, member);
                }
            }
        });
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        objects::unmap(&self.pages);
    }
}

/// A part in an object: the object stays with this pVM for as long as there is one.
pub struct Part {
    object: Arc<Object>,
    role: Role,
}

impl Part {
    /// Takes part.
    pub fn new(object: &Arc<Object>, role: Role) -> Self {
        if object.roles() == 0 {
            OPEN.lock().push(object.clone());
        }
        if object.parts(role).fetch_add(1, Ordering::Relaxed) == 0
            && let Some(me) = objects::member()
        {
            object.show_roles(me);
        }
        Self { object: object.clone(), role }
    }

    /// The object.
    pub fn object(&self) -> &Arc<Object> {
        &self.object
    }
}

impl Clone for Part {
    fn clone(&self) -> Self {
        Self::new(&self.object, self.role)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let object = &self.object;
        if object.parts(self.role).fetch_sub(1, Ordering::Relaxed) != 1 {
            return;
        }
        if let Some(me) = objects::member() {
            object.show_roles(me);
        }
        // Who waits may wait for this part's owner.
        (0..layout::POINTS.len()).for_each(|point| wait::wake(object, point));
        if object.parts.iter().all(|parts| parts.load(Ordering::Relaxed) == 0) {
            let mut open = OPEN.lock();
            let place = open.iter().position(|other| Arc::ptr_eq(other, object));
            let last = place.map(|place| open.swap_remove(place));
            drop(open);
            drop(last);
        }
    }
}

/// The objects that are open now.
fn open_objects() -> Vec<Arc<Object>> {
    OPEN.lock().clone()
}

/// Members have ended, or this one is to look at what it waits for.
fn news() {
    link::forget_ended();
    open_objects().iter().for_each(|object| object.forget_ended());
    wait::wake_all_here();
}

/// In a parent: a child has what it has.
fn child(id: PvmId) {
    if objects::member().is_none() {
        return;
    }
    let Some(number) = objects::member_number(id) else { return };
    for object in open_objects() {
        // It may have run already, and closed what it does not need.
        object.update(number, |old| if old & BORN == 0 { object.roles() } else { old });
        // It may have ended already: then nobody else is told of it again.
        fence(Ordering::SeqCst);
        if objects::member_id(number) != Some(id) {
            objects::look_again();
        }
    }
}

/// This pVM exits: its ends are closed now, and not when pvmd has told everybody.
fn ending() {
    let Some(me) = objects::member() else { return };
    for object in open_objects() {
        object.update(me, |_| BORN);
        (0..layout::POINTS.len()).for_each(|point| wait::wake(&object, point));
    }
}

/// In a child.
fn begin_life() {
    link::begin_life();
    wait::begin_life();
    let Some(me) = objects::member() else { return };
    for object in &*OPEN.lock() {
        object.show_roles(me);
    }
}
