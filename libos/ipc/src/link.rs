//! Links: one port to each member that this one wakes or is woken by, for all objects.

use alloc::collections::BTreeMap;

use xen_abi::Port;
use zooid_fork::PvmId;
use zooid_fork::objects;
use zooid_kernel::events::Masked;
use zooid_kernel::evtchn::BoundPort;

use crate::layout;
use crate::object::Object;
use crate::wait;
use core::sync::atomic::Ordering;

/// Members that a port is offered to at a time, before this pVM waits.
const AT_ONCE: usize = 4;

struct Link {
    /// Whom it leads to: numbers are given out again.
    id: PvmId,
    port: BoundPort,
    /// The other side has bound it, as far as is known.
    bound: bool,
}

static LINKS: Masked<BTreeMap<u16, Link>> = Masked::new(BTreeMap::new());

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

/// Takes the offer that `from` has made to this member in an object.
fn take_offer(object: &Object, from: u16, me: u16) -> Option<Port> {
    (0..layout::OFFERS).find_map(|slot| {
        let word = object.pages().atomic_u64(layout::OFFER + 8 * slot);
        let value = word.load(Ordering::SeqCst);
        let offer = Offer::from_word(value).filter(|offer| offer.from == from && offer.to == me)?;
        word.compare_exchange(value, 0, Ordering::SeqCst, Ordering::SeqCst).ok().map(|_| offer.port)
    })
}

fn make_offer(object: &Object, offer: Offer) {
    let slots = || (0..layout::OFFERS).map(|slot| object.pages().atomic_u64(layout::OFFER + 8 * slot));
    let word = offer.to_word();
    let put = |slot: &&core::sync::atomic::AtomicU64| {
        slot.compare_exchange(0, word, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    };
    let is_there = |slot: &core::sync::atomic::AtomicU64| slot.load(Ordering::SeqCst) == word;
    if !slots().any(is_there) && !slots().any(|slot| put(&slot)) {
        // Who misses an offer asks pvmd.
        let number = usize::from(offer.from).wrapping_add(usize::from(offer.to)) % layout::OFFERS;
        object.pages().atomic_u64(layout::OFFER + 8 * number).store(word, Ordering::SeqCst);
    }
}

/// Binds what a member has offered in this object; whether there is a link now.
fn accept(object: &Object, member: u16, id: PvmId, me: u16) -> bool {
    let Some(port) = take_offer(object, member, me) else { return false };
    // What is offered is a claim; Xen checks that the port is for this domain.
    let Ok(port) = BoundPort::bind(id.domain(), port, wait::doorbell) else { return false };
    LINKS.lock().insert(member, Link { id, port, bound: true });
    true
}

/// Sees to it that those can wake this member that take part in an object, a few at a time.
pub fn offer(object: &Object, me: u16) {
    let mut left = AT_ONCE;
    object.for_each_member(|member| {
        if member == me || left == 0 {
            return;
        }
        let Some(id) = objects::member_id(member) else { return };
        let link = |link: &Link| (link.bound, link.port.port());
        let made = LINKS.lock().get(&member).filter(|link| link.id == id).map(link);
        if made.is_some_and(|(bound, _)| bound) || accept(object, member, id, me) {
            return;
        }
        left -= 1;
        if let Some((_, port)) = made {
            // It may be offered elsewhere, where the other side has no need to look.
            return make_offer(object, Offer { from: me, to: member, port });
        }
        if let Ok(port) = BoundPort::offer(id.domain(), wait::doorbell) {
            make_offer(object, Offer { from: me, to: member, port: port.port() });
            LINKS.lock().insert(member, Link { id, port, bound: false });
        }
    });
}

/// Wakes a member that waits at an object.
pub fn send(object: &Object, member: u16, me: u16) {
    let Some(id) = objects::member_id(member) else { return };
    let linked = || {
        let mut links = LINKS.lock();
        let Some(link) = links.get_mut(&member).filter(|link| link.id == id) else { return false };
        link.bound = link.bound || link.port.is_bound();
        if link.bound {
            link.port.notify();
        }
        link.bound
    };
    if linked() || accept(object, member, id, me) && linked() {
        return;
    }
    let _ = objects::relay(member);
}

/// Closes links to members that have ended.
pub fn forget_ended() {
    LINKS.lock().retain(|member, link| objects::member_id(*member) == Some(link.id));
}

/// In a child: the links are its parent's.
pub fn begin_life() {
    LINKS.lock().clear();
}
