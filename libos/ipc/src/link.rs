//! Links: the way to each member that this one wakes or is woken by, for all objects.

use alloc::collections::BTreeMap;
use core::sync::atomic::{AtomicU64, Ordering};

use xen_abi::Port;
use zooid_fork::PvmId;
use zooid_fork::objects;
use zooid_kernel::events::Masked;
use zooid_kernel::evtchn::BoundPort;

use crate::layout;
use crate::object::Object;
use crate::wait;

/// Members that a port is offered to at a time, before this pVM waits.
const AT_ONCE: usize = 4;

/// The way to a member. Two members may each accept what the other has offered: so what was offered stays, bound or not, for as long as the member
/// lives. Who closed it could cut the way that the other side has chosen.
struct Link {
    /// Whom it leads to: numbers are given out again.
    id: PvmId,
    offered: Option<BoundPort>,
    /// The other side has bound what was offered, as far as is known.
    bound: bool,
    accepted: Option<BoundPort>,
}

impl Link {
    fn new(id: PvmId) -> Self {
        Self { id, offered: None, bound: false, accepted: None }
    }

    /// The port that leads there, as far as is known.
    fn port(&self) -> Option<&BoundPort> {
        self.accepted.as_ref().or(self.offered.as_ref().filter(|_| self.bound))
    }

    /// As [`port`](Self::port), and looks whether what was offered is bound by now.
    fn port_now(&mut self) -> Option<&BoundPort> {
        if self.port().is_none() {
            self.bound = self.offered.as_ref().is_some_and(BoundPort::is_bound);
        }
        self.port()
    }
}

static LINKS: Masked<BTreeMap<u16, Link>> = Masked::new(BTreeMap::new());

/// Calls `use_it` with the link to a member, a new one if there is none.
fn with_link<R>(member: u16, id: PvmId, use_it: impl FnOnce(&mut Link) -> R) -> R {
    let mut links = LINKS.lock();
    let link = links.entry(member).or_insert_with(|| Link::new(id));
    if link.id != id {
        *link = Link::new(id);
    }
    use_it(link)
}

/// An offer: the port of `from` that `to` may bind.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Offer {
    from: u16,
    to: u16,
    port: Port,
}

impl Offer {
    fn to_word(self) -> u64 {
        // So that 0 is none.
        (u64::from(self.from) + 1) | u64::from(self.to) << 16 | u64::from(self.port.0) << 32
    }

    fn from_word(word: u64) -> Option<Self> {
        let from = (word as u16).checked_sub(1)?;
        Some(Self { from, to: (word >> 16) as u16, port: Port((word >> 32) as u32) })
    }
}

fn offers(object: &Object) -> impl Iterator<Item = &AtomicU64> {
    (0..layout::OFFERS).map(|slot| object.pages().atomic_u64(layout::OFFER + 8 * slot))
}

/// Binds what members have offered to this one in an object.
fn accept(object: &Object, me: u16) {
    for word in offers(object) {
        let value = word.load(Ordering::SeqCst);
        let Some(offer) = Offer::from_word(value).filter(|offer| offer.to == me && offer.from != me) else { continue };
        if word.compare_exchange(value, 0, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            continue;
        }
        let Some(id) = objects::member_id(offer.from) else { continue };
        with_link(offer.from, id, |link| {
            if link.port_now().is_none() {
                // What is offered is a claim; Xen checks that the port is for this domain.
                link.accepted = BoundPort::bind(id.domain(), offer.port, wait::doorbell).ok();
            }
        });
    }
}

/// Offers a port to a member that there is no link to.
fn propose(object: &Object, member: u16, id: PvmId, me: u16) {
    let offered = with_link(member, id, |link| {
        if link.offered.is_none() {
            link.offered = BoundPort::offer(id.domain(), wait::doorbell).ok();
        }
        link.offered.as_ref().map(BoundPort::port)
    });
    let Some(port) = offered else { return };
    let word = Offer { from: me, to: member, port }.to_word();
    let is_there = offers(object).any(|slot| slot.load(Ordering::SeqCst) == word);
    // If it is not, it may have been taken, here or in another object.
    if is_there || with_link(member, id, |link| link.port_now().is_some()) {
        return;
    }
    if !offers(object).any(|slot| slot.compare_exchange(0, word, Ordering::SeqCst, Ordering::SeqCst).is_ok()) {
        // Who misses the one that was there asks pvmd, and offers a port itself.
        let number = usize::from(me).wrapping_add(usize::from(member)) % layout::OFFERS;
        object.pages().atomic_u64(layout::OFFER + 8 * number).store(word, Ordering::SeqCst);
    }
}

/// Sees to it that those can wake this member that take part in an object, a few at a time.
pub fn offer(object: &Object, me: u16) {
    accept(object, me);
    let mut left = AT_ONCE;
    object.for_each_member(|member| {
        if member == me || left == 0 {
            return;
        }
        let Some(id) = objects::member_id(member) else { return };
        if with_link(member, id, |link| link.port().is_none()) {
            left -= 1;
            propose(object, member, id, me);
        }
    });
}

/// Wakes a member that waits at an object.
pub fn send(object: &Object, member: u16, me: u16) {
    let Some(id) = objects::member_id(member) else { return };
    let notify = || with_link(member, id, |link| link.port_now().map(BoundPort::notify).is_some());
    if notify() {
        return;
    }
    accept(object, me);
    if !notify() {
        // For the next time: the other side offers its ports to a few.
        propose(object, member, id, me);
        let _ = objects::relay(member);
    }
}

/// Closes links to members that have ended.
pub fn forget_ended() {
    LINKS.lock().retain(|member, link| objects::member_id(*member) == Some(link.id));
}

/// In a child: the links are its parent's.
pub fn begin_life() {
    LINKS.lock().clear();
}
