//! The platform of the component under test, on the machine.

use xen_abi::{DomId, Errno, PAGE_SIZE, Port as Number};
use zooid_fork_plan::id::PvmId;
use zooid_ipc::Platform;
use zooid_ipc::object::State;
use zooid_ipc::platform::{Family, Pages, Port, Signal, Threads, Word};

use super::{Channel, Member, Memory, Place, Thread, Touch, Way, World, act, is_over, step, table, world};

/// The machine.
pub enum Sim {}

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
