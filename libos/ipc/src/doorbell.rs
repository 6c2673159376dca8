//! Doorbells: an event channel to each member that this one wakes or is woken by, for all objects.

use alloc::collections::BTreeSet;
use core::mem;

use xen_abi::{Errno, Port as Number};
use zooid_fork_plan::id::PvmId;

use crate::layout;
use crate::object::Object;
use crate::platform::{Family, Pages, Platform, Port, Word};

/// Members that a port is offered to at a time, before this pVM waits.
const AT_ONCE: usize = 4;

/// The event channel to a member. Two members may each accept the other's offer. So an offered port
/// stays open, bound or not, for as long as the member lives. Closing it could cut the channel that
/// the other side has chosen.
pub struct Doorbell<P: Family> {
    /// The member that it leads to: numbers are given out again.
    id: PvmId,
    offered: Option<P::Port>,
    /// True if the other side is known to have bound `offered`.
    bound: bool,
    accepted: Option<P::Port>,
}

impl<P: Family> Doorbell<P> {
    fn new(id: PvmId) -> Self {
        Self { id, offered: None, bound: false, accepted: None }
    }

    /// True if it leads to the member `id`, which has its number now.
    pub fn leads_to(&self, id: Option<PvmId>) -> bool {
        id == Some(self.id)
    }

    /// The port that leads there, if one is known.
    fn port(&self) -> Option<&P::Port> {
        self.accepted.as_ref().or(self.offered.as_ref().filter(|_| self.bound))
    }

    /// As [`port`](Self::port), after a look if the offered port is bound by now.
    fn port_now(&mut self) -> Option<&P::Port> {
        if self.port().is_none() {
            self.bound = self.offered.as_ref().is_some_and(P::Port::is_bound);
        }
        self.port()
    }
}

/// Calls `use_it` with the doorbell of a member, a new one if there is none.
fn with<P: Platform, R>(member: u16, id: PvmId, use_it: impl FnOnce(&mut Doorbell<P>) -> R) -> R {
    P::with(|state| {
        let doorbell = state.doorbells.entry(member).or_insert_with(|| Doorbell::new(id));
        if doorbell.id != id {
            *doorbell = Doorbell::new(id);
        }
        use_it(doorbell)
    })
}

/// An offer: the port of `from` that `to` may bind.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Offer {
    from: u16,
    to: u16,
    port: Number,
}

impl Offer {
    fn to_word(self) -> u64 {
        // The number is plus one, so that 0 means no offer.
        (u64::from(self.from) + 1) | u64::from(self.to) << 16 | u64::from(self.port.0) << 32
    }

    fn from_word(word: u64) -> Option<Self> {
        let from = (word as u16).checked_sub(1)?;
        Some(Self { from, to: (word >> 16) as u16, port: Number((word >> 32) as u32) })
    }
}

/// The words of an object that hold offers.
fn offers<P: Platform>(object: &Object<P>) -> impl Iterator<Item = <P::Pages as Pages>::U64<'_>> {
    (0..layout::OFFERS).map(|slot| object.pages().u64(layout::OFFER + 8 * slot))
}

/// Binds the ports that members have offered to this one in an object.
fn accept<P: Platform>(object: &Object<P>, me: u16) {
    for word in offers(object) {
        let value = word.load();
        if value == 0 {
            continue;
        }
        let Some(offer) = Offer::from_word(value).filter(|offer| offer.to == me && offer.from != me) else { continue };
        if word.compare_exchange(value, 0).is_err() {
            continue;
        }
        let Some(id) = P::member_id(offer.from) else { continue };
        with::<P, _>(offer.from, id, |doorbell| {
            if doorbell.port_now().is_none() {
                // The offer is a claim; Xen checks that the port is for this domain.
                doorbell.accepted = P::bind(id.domain(), offer.port);
            }
        });
    }
}

/// Offers a port to a member that has no doorbell here.
fn propose<P: Platform>(object: &Object<P>, member: u16, id: PvmId, me: u16) {
    let offered = with::<P, _>(member, id, |doorbell| {
        if doorbell.offered.is_none() {
            doorbell.offered = P::offer(id.domain());
        }
        doorbell.offered.as_ref().map(Port::number)
    });
    let Some(port) = offered else { return };
    let word = Offer { from: me, to: member, port }.to_word();
    let is_there = offers(object).any(|slot| slot.load() == word);
    // A missing offer may have been taken, here or in another object.
    if is_there || with::<P, _>(member, id, |doorbell| doorbell.port_now().is_some()) {
        return;
    }
    if !offers(object).any(|slot| slot.compare_exchange(0, word).is_ok()) {
        // The member that misses the overwritten offer asks pvmd, and offers a port itself.
        let number = usize::from(me).wrapping_add(usize::from(member)) % layout::OFFERS;
        object.pages().u64(layout::OFFER + 8 * number).store(word);
    }
}

/// Offers ports to members of an object that have no doorbell here, a few at a time, so that they
/// can wake this member.
pub fn offer<P: Platform>(object: &Object<P>, me: u16) {
    accept(object, me);
    let mut left = AT_ONCE;
    object.for_each_member(|member| {
        if member == me || left == 0 {
            return;
        }
        let Some(id) = P::member_id(member) else { return };
        if with::<P, _>(member, id, |doorbell| doorbell.port().is_none()) {
            left -= 1;
            propose(object, member, id, me);
        }
    });
}

/// Wakes a member over its doorbell; `false` if it has none here.
pub fn notify<P: Platform>(member: u16) -> bool {
    let Some(id) = P::member_id(member) else { return true };
    with::<P, _>(member, id, |doorbell| doorbell.port_now().map(Port::notify).is_some())
}

/// Wakes a member that waits at an object: by its doorbell, or by pvmd if it has none.
pub fn send<P: Platform>(object: &Object<P>, member: u16, me: u16) {
    if notify::<P>(member) {
        return;
    }
    accept(object, me);
    if notify::<P>(member) {
        return;
    }
    // The offer is for the next time: the other side offers its own ports to a few members only.
    if let Some(id) = P::member_id(member) {
        propose(object, member, id, me);
        relay::<P>(member);
    }
}

/// Asks pvmd to wake a member. Without a pvmd the wake-up is owed. If this pVM ends first, the
/// waiters hear of its end.
fn relay<P: Platform>(member: u16) {
    if P::relay(member) == Err(Errno::ENOTCONN) {
        P::with(|state| state.owed.insert(member));
        P::look_again();
    }
}

/// Asks pvmd for the wake-ups that are owed. May wait.
pub fn pay<P: Platform>() {
    let owed: BTreeSet<u16> = P::with(|state| mem::take(&mut state.owed));
    owed.into_iter().for_each(relay::<P>);
}
