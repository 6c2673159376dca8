//! An object that this pVM has.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use zooid_fork_plan::id::PvmId;

use crate::doorbell::Doorbell;
use crate::error::Error;
use crate::layout::{self, BORN, Kind, MAX_MEMBERS, Role};
use crate::platform::{Pages, Platform, Word};
use crate::signal::{self, Signals};
use crate::wait::{self, Waiter};

/// The time that the creator of an object has to fill in its header, in nanoseconds.
const PATIENCE: u64 = 1_000_000_000;

/// This pVM's knowledge of its objects and of its relatives.
pub struct State<P: Platform> {
    /// The objects in which this pVM has a part.
    open: Vec<Arc<Object<P>>>,
    takes_part: bool,
    pub(crate) doorbells: BTreeMap<u16, Doorbell<P>>,
    /// Members that are to be woken by pvmd as soon as there is one.
    pub(crate) owed: BTreeSet<u16>,
    pub(crate) waiters: Vec<Waiter<P>>,
    pub(crate) signals: Signals<P>,
}

impl<P: Platform> State<P> {
    /// The state of a pVM that has no object.
    pub const fn new() -> Self {
        Self {
            open: Vec::new(),
            takes_part: false,
            doorbells: BTreeMap::new(),
            owed: BTreeSet::new(),
            waiters: Vec::new(),
            signals: Signals::new(),
        }
    }
}

impl<P: Platform> Default for State<P> {
    fn default() -> Self {
        Self::new()
    }
}

/// An object: its pages are mapped for as long as this exists. The parts in it are counted apart,
/// by [`Part`].
pub struct Object<P: Platform> {
    pages: P::Pages,
    kind: Kind,
    /// Parts of this pVM's, by role; changed with access to [`State`].
    parts: [AtomicU32; 2],
    /// Set once a value in it was invalid.
    broken: AtomicBool,
}

/// The object of this kind that has the memory at this address, and the offset there.
pub(crate) fn at_address<P: Platform>(address: usize, kind: Kind) -> Option<(Arc<Object<P>>, usize)> {
    let has = |object: &&Arc<Object<P>>| (address.wrapping_sub(object.pages.address())) < object.pages.size();
    let object = P::with(|state| state.open.iter().find(has).cloned())?;
    (object.kind == kind).then(|| (object.clone(), address - object.pages.address()))
}

/// Makes an object, or opens the one of this name, and takes part in it. `details` are written into
/// a new one's header, and `pages` includes it.
pub(crate) fn open<P: Platform>(
    kind: Kind,
    name: Option<&str>,
    pages: usize,
    how: How,
    details: [u32; 2],
    role: Role,
) -> Result<Part<P>, Error> {
    if !P::with(|state| state.takes_part) {
        P::take_part()?;
        P::with(|state| state.takes_part = true);
    }
    let is_ours = kind == Kind::Signals;
    if name.is_some_and(|name| name.is_empty() || name.starts_with(signal::RESERVED) && !is_ours) {
        return Err(Error::Invalid);
    }
    let [first, second] = layout::DETAILS;
    let header =
        [(layout::KIND, kind as u32), (first, details[0]), (second, details[1]), (layout::STATE, layout::MAGIC)];
    let pages = P::open(name, pages, how.create, how.exclusive, &header)?;
    let mapped: Arc<Object<P>> =
        Arc::new(Object { pages, kind, parts: [AtomicU32::new(0), AtomicU32::new(0)], broken: AtomicBool::new(false) });
    mapped.wait_for_header()?;
    // A name that is open here already is the same object: this pVM's parts in it are counted in
    // one place.
    let object = P::with(|state| {
        let known = state.open.iter().find(|known| known.pages.frame() == mapped.pages.frame());
        let object = known.unwrap_or(&mapped).clone();
        enter(state, &object, role);
        object
    });
    Ok(Part { object, role })
}

/// The flags for opening a name.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    /// Make the object if it does not exist.
    pub create: bool,
    /// Fail if the object exists.
    pub exclusive: bool,
}

impl How {
    /// The flags for an object without a name.
    pub const ANONYMOUS: Self = Self { create: true, exclusive: true };
}

impl<P: Platform> Object<P> {
    /// Waits until the header's creator has filled it in.
    fn wait_for_header(&self) -> Result<(), Error> {
        let (kind, state) = (self.pages.u32(layout::KIND), self.pages.u32(layout::STATE));
        let give_up = P::now() + PATIENCE;
        while state.read() != layout::MAGIC {
            if P::now() > give_up {
                return Err(Error::Broken);
            }
            P::sleep_until(P::now() + PATIENCE / 1000);
        }
        if kind.read() == self.kind as u32 { Ok(()) } else { Err(Error::Invalid) }
    }

    /// Its pages.
    pub(crate) fn pages(&self) -> &P::Pages {
        &self.pages
    }

    /// Its size as its creator has written it: a claim.
    pub(crate) fn detail(&self, number: usize) -> u32 {
        self.pages.u32(layout::DETAILS[number]).read()
    }

    /// Marks it as broken. The caller has read an invalid value while no honest member could change
    /// it.
    pub(crate) fn broken(&self) -> Error {
        self.broken.store(true, Ordering::Relaxed);
        Error::Broken
    }

    /// Fails once it was marked as broken.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.broken.load(Ordering::Relaxed) { Err(Error::Broken) } else { Ok(()) }
    }

    /// True if a member takes part in this role. One that has ended does not.
    pub(crate) fn has(&self, role: Role) -> bool {
        self.members().any(|member| P::member_id(member).is_some_and(|id| self.takes_part(role, member, id)))
    }

    /// Numbers of those that may have written their parts.
    fn members(&self) -> Range<u16> {
        0..self.pages.u32(layout::MEMBERS).load().min(MAX_MEMBERS as u32) as u16
    }

    /// A member's part.
    fn part(&self, member: u16) -> <P::Pages as Pages>::U16<'_> {
        self.pages.u16(layout::PARTS + 2 * (usize::from(member) % MAX_MEMBERS))
    }

    /// This pVM's roles, as it knows them itself.
    fn roles(&self) -> u16 {
        let has = |role: Role| self.parts(role).load(Ordering::Relaxed) > 0;
        [Role::Reader, Role::Writer].into_iter().filter(|role| has(*role)).fold(0, |all, role| all | role as u16)
    }

    /// Writes this pVM's roles into its part. Nobody else writes the part from then on.
    fn show(&self, roles: u16) {
        let Some((me, id)) = P::member().and_then(|me| Some((me, P::member_id(me)?))) else { return };
        self.pages.u32(layout::MEMBERS).fetch_max(u32::from(me) + 1);
        self.part(me).store(layout::tag(id) | BORN | roles);
    }

    /// Writes a child's roles into its part, unless it has done so itself: it may have run already,
    /// and closed its unused ends.
    fn show_child(&self, number: u16, id: PvmId) {
        self.pages.u32(layout::MEMBERS).fetch_max(u32::from(number) + 1);
        let roles = self.roles();
        let next = |old| (!layout::is_of(old, id) || old & BORN == 0).then_some(layout::tag(id) | roles);
        let _ = self.part(number).fetch_update(next);
    }

    fn parts(&self, role: Role) -> &AtomicU32 {
        &self.parts[role as usize / 2]
    }

    /// True if this member takes part in this role.
    pub(crate) fn takes_part(&self, role: Role, member: u16, id: PvmId) -> bool {
        let part = self.part(member).load();
        layout::is_of(part, id) && part & role as u16 != 0
    }

    /// Calls `each` with the members that take part.
    pub(crate) fn for_each_member(&self, mut each: impl FnMut(u16)) {
        for member in self.members() {
            if self.part(member).load() & (Role::Reader as u16 | Role::Writer as u16) != 0 {
                each(member);
            }
        }
    }

    /// Clears the parts of members that have ended. A new owner of such a number has another tag.
    fn forget_ended(&self) {
        for member in self.members() {
            let part = self.part(member);
            let found = part.load();
            if found != 0 && P::member_id(member).is_none_or(|id| !layout::is_of(found, id)) {
                let _ = part.compare_exchange(found, 0);
            }
        }
    }

    fn wake_all(&self) {
        (0..layout::POINTS.len()).for_each(|point| wait::wake(self, point));
    }
}

/// A part in an object: the object stays with this pVM for as long as there is one.
pub(crate) struct Part<P: Platform> {
    object: Arc<Object<P>>,
    role: Role,
}

/// Counts one more part.
fn enter<P: Platform>(state: &mut State<P>, object: &Arc<Object<P>>, role: Role) {
    if object.roles() == 0 {
        state.open.push(object.clone());
    }
    if object.parts(role).fetch_add(1, Ordering::Relaxed) == 0 {
        object.show(object.roles());
    }
}

impl<P: Platform> Part<P> {
    /// Takes part.
    pub(crate) fn new(object: &Arc<Object<P>>, role: Role) -> Self {
        P::with(|state| enter(state, object, role));
        Self { object: object.clone(), role }
    }

    /// The object.
    pub(crate) fn object(&self) -> &Arc<Object<P>> {
        &self.object
    }
}

impl<P: Platform> Clone for Part<P> {
    fn clone(&self) -> Self {
        Self::new(&self.object, self.role)
    }
}

impl<P: Platform> Drop for Part<P> {
    fn drop(&mut self) {
        let object = &self.object;
        let is_last = P::with(|state| {
            if object.parts(self.role).fetch_sub(1, Ordering::Relaxed) != 1 {
                return false;
            }
            object.show(object.roles());
            if object.roles() == 0 {
                // This part still holds the object.
                state.open.retain(|other| !Arc::ptr_eq(other, object));
            }
            true
        });
        if is_last {
            // A waiter may wait for this part's owner.
            object.wake_all();
        }
    }
}

fn open_objects<P: Platform>() -> Vec<Arc<Object<P>>> {
    P::with(|state| state.open.clone())
}

/// The functions that the fork component calls.
pub mod hooks {
    use super::*;

    /// Handles news: members have ended, or this one is to check its waits again. May wait.
    pub fn news<P: Platform>() {
        P::with(|state| state.doorbells.retain(|member, doorbell| doorbell.leads_to(P::member_id(*member))));
        open_objects::<P>().iter().for_each(|object| object.forget_ended());
        wait::wake_all_here::<P>();
        crate::doorbell::pay::<P>();
    }

    /// Gives a new child its parent's parts. Called in the parent, before its threads go on.
    pub fn child<P: Platform>(id: PvmId) {
        let Some(number) = P::member().and_then(|_| P::member_number(id)) else { return };
        open_objects::<P>().iter().for_each(|object| object.show_child(number, id));
        // The child may have ended already: then nobody is told of it again.
        P::fence();
        if P::member_id(number) != Some(id) {
            P::look_again();
        }
    }

    /// Closes this pVM's ends when it exits, before pvmd tells everybody. Other threads
    /// do not run any more, so that nothing comes after the end. This one does not wait for pvmd,
    /// which tells the members that have no doorbell here.
    pub fn ending<P: Platform>() {
        core::mem::forget(P::mask());
        for object in open_objects::<P>() {
            object.show(0);
            (0..layout::POINTS.len()).for_each(|point| {
                wait::take_waiting(&object, point, |member| {
                    crate::doorbell::notify::<P>(member);
                });
            });
        }
    }

    /// Gives a child its parent's parts, under its own number. Called in the child, with events
    /// masked.
    pub fn begin_life<P: Platform>() {
        P::with(|state| {
            wait::begin_life(state);
            // Doorbells and owed wake-ups are the parent's.
            state.doorbells.clear();
            state.owed.clear();
            state.open.iter().for_each(|object| object.show(object.roles()));
        });
    }
}
