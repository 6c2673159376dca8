//! A guest that keeps to the protocol, as `pvm-fork/guest` does (docs/protocols/fork.md).

use std::rc::Rc;
use std::time::Duration;

use xen_abi::pte::{PTES_PER_TABLE, Pte, PteFlags};
use xen_abi::{DomId, Errno, GrantRef, PAGE_SIZE, Pfn};
use zooid_fork_plan::id::Kind;
use zooid_fork_plan::link::Copied;
use zooid_fork_plan::status::Status;
use zooid_fork_plan::wire::{
    ENDED_SLOTS, ESTALE, daemon, device_page, directory, guest, object_flags, operation, state,
};
use zooid_memory::{PageClass, Zone};

use super::super::super::sabotage::{self, Sabotage};
use super::host::{Found, Host};
use super::instance::{Doing, InstanceId, Request};
use super::memory::{self, Control, DATA_PAGES, HEAP_PAGES, buffer, data, heap};

/// Time that a guest waits for an absent daemon: less than in reality, so that it gives up at
/// times.
const PATIENCE: Duration = Duration::from_millis(20);
/// Number of tries to fork.
const TRIES: u32 = 8;
/// First page of the DEVICE zone that objects are mapped at.
const PLACE: usize = 100;

impl Host {
    /// Lets an honest guest run for a moment.
    pub fn honest_acts(&mut self, number: InstanceId) -> Result<(), Found> {
        let Some(control) = self.instances[number].control() else { return Ok(()) };
        match self.instances[number].doing.clone() {
            Doing::Begins => self.begin(number, &control),
            Doing::Runs => self.run(number, &control),
            Doing::Asks(request) => self.look_for_reply(number, &control, &request),
            Doing::HasEnded => {
                // It waits for its domain to be destroyed, and shuts down if that does not happen.
                if self.random.chance(1, 200) {
                    self.shut_down(number, xen_abi::sched::ShutdownReason::POWEROFF);
                }
                Ok(())
            }
        }
    }

    fn begin(&mut self, number: InstanceId, control: &Control) -> Result<(), Found> {
        match (control.get(guest::STATE), control.get(daemon::GO)) {
            (state::STARTING, _) => {
                control.put(guest::STATE, state::WAITING);
                control.send();
            }
            (state::WAITING, 1..) => return self.resume(number, control),
            _ => {}
        }
        Ok(())
    }

    /// A child takes its memory over, and checks that it is its parent's.
    fn resume(&mut self, number: InstanceId, control: &Control) -> Result<(), Found> {
        let instance = &self.instances[number];
        let guest = instance.guest.clone();
        self.found(instance.kind == Some(Kind::Child), || {
            "a prepared domain is told to go before it is a child".into()
        })?;
        let from = control.get_u64(daemon::SNAPSHOT) as usize;
        let expected = instance.memory.clone();
        if !instance.tainted {
            self.found(from == buffer(0) || from == buffer(1), || format!("{from:#x} is no snapshot buffer"))?;
            let Some(frame) = memory::entry(&guest, from).map(|entry| entry.mfn()) else {
                return self.found(false, || "a child has no snapshot".into());
            };
            for page in 0..DATA_PAGES {
                let value = memory::word(&guest, frame, 8 * page).unwrap_or(0);
                self.found(value == expected.data[page], || {
                    format!("instance {number} resumes with {value:#x} for {:#x}", expected.data[page])
                })?;
                memory::write(&guest, data(page), value);
            }
        }
        control.describe();
        control.put(guest::STATE, state::RUNNING);
        control.send();
        self.instances[number].doing = Doing::Runs;
        self.log(|| format!("instance {number} runs as a child"));
        self.check_memory(number)?;
        if self.random.chance(1, 4) {
            self.end(number, Status::Exited(number as u8));
        }
        Ok(())
    }

    /// All memory that it reads was written by itself, or by its parent before the fork.
    pub fn check_memory(&self, number: InstanceId) -> Result<(), Found> {
        let instance = &self.instances[number];
        if instance.tainted {
            return Ok(());
        }
        for page in 0..HEAP_PAGES {
            let (value, expected) = (memory::read(&instance.guest, heap(page)), instance.memory.heap[page]);
            self.found(value == Some(expected), || {
                format!("instance {number} reads {value:x?} for {expected:#x} in page {page} of its heap")
            })?;
        }
        for page in 0..DATA_PAGES {
            let (value, expected) = (memory::read(&instance.guest, data(page)), instance.memory.data[page]);
            self.found(value == Some(expected), || {
                format!("instance {number} reads {value:x?} for {expected:#x} in page {page} of its variables")
            })?;
        }
        Ok(())
    }

    fn run(&mut self, number: InstanceId, control: &Control) -> Result<(), Found> {
        self.take_ends(number, control)?;
        let (sent, taken) = (control.get_u64(daemon::SIGNALS), control.get_u64(guest::SIGNALS_TAKEN));
        if sent != taken {
            control.put_u64(guest::SIGNALS_TAKEN, sent);
            if (sent ^ taken) & (1 << 15) != 0 {
                self.end(number, Status::Killed(15));
                return Ok(());
            }
        }
        let outside = control.get(daemon::OUTSIDE);
        if outside != control.get(guest::OUTSIDE_DONE) {
            let count = control.get(daemon::OUTSIDE_COUNT).clamp(1, 4);
            self.ask(number, control, operation::PREPARE, count, TRIES, outside);
            return Ok(());
        }
        let quiet = self.is_quiet();
        match self.random.weighed(&self.profile.honest) {
            Act::Write => self.write_pages(number, control)?,
            Act::Check => self.check_memory(number)?,
            Act::Fork if quiet => {}
            Act::Fork => {
                let count = 1 + self.random.below(2) as u32;
                let ready = control.get(daemon::READY) >= count && self.random.chance(3, 4);
                self.fork(number, control, if ready { operation::COMMIT } else { operation::PREPARE }, count, TRIES, 0);
            }
            Act::Exit => self.end(number, Status::Exited(number as u8)),
            Act::Crash => self.shut_down(number, xen_abi::sched::ShutdownReason::CRASH),
            Act::Create | Act::Map | Act::Unlink if self.backend_is_grant() => {}
            Act::Create => {
                let name = [b'a' + self.random.below(3) as u8];
                let length = self.random.below(2) as u32;
                control.put(guest::OBJECT_PAGES, 1 + self.random.below(3) as u32);
                control.put(guest::OBJECT_FLAGS, object_flags::CREATE);
                control.put(guest::NAME_LENGTH, length);
                control.put_octets(guest::NAME, &name);
                self.ask(number, control, operation::CREATE, 0, 0, 0);
            }
            Act::Map => {
                let place = self.random.below(8) as usize;
                let address = device_page(PLACE + place);
                let Some(table) = memory::table(&self.instances[number].guest, address, 1) else { return Ok(()) };
                control.put_u64(guest::MAP_TABLE, table.0);
                control.put(guest::MAP_INDEX, zooid_fork_plan::plan::index(address, 1) as u32);
                control.put(guest::OBJECT, control.get(daemon::OBJECT));
                control.put(guest::OBJECT_OFFSET, 0);
                control.put(guest::OBJECT_FLAGS, 0);
                self.instances[number].maps = true;
                self.ask(number, control, operation::MAP, 1, 0, 0);
            }
            Act::Unlink => {
                control.put(guest::NAME_LENGTH, 1);
                control.put_octets(guest::NAME, &[b'a' + self.random.below(3) as u8]);
                self.ask(number, control, operation::UNLINK, 0, 0, 0);
            }
            Act::Kill => {
                let children: Vec<u32> = self.instances[number].children.iter().copied().collect();
                if let Some(child) = self.random.pick(&children) {
                    control.put(guest::OBJECT, child);
                    let signal = self.random.pick(&[9, 15, 0]).unwrap_or(0);
                    self.ask(number, control, operation::KILL, signal, 0, 0);
                }
            }
            Act::Early => {
                control.put(guest::EARLY_COUNT, 2);
                control.put(guest::EARLY + 4, 1);
            }
        }
        Ok(())
    }

    /// Writes pages: in place if they are not shared, else to copies.
    fn write_pages(&mut self, number: InstanceId, control: &Control) -> Result<(), Found> {
        for _ in 0..1 + self.random.below(3) {
            let page = self.random.below(HEAP_PAGES as u64) as usize;
            let value = self.random.next();
            if !self.write_heap(number, control, page, value)? {
                self.end(number, Status::OutOfMemory);
                return Ok(());
            }
        }
        let page = self.random.below(DATA_PAGES as u64) as usize;
        let value = self.random.next();
        let instance = &mut self.instances[number];
        if memory::write(&instance.guest, data(page), value) {
            instance.memory.data[page] = value;
        }
        Ok(())
    }

    fn write_heap(&mut self, number: InstanceId, control: &Control, page: usize, value: u64) -> Result<bool, Found> {
        let instance = &mut self.instances[number];
        let (guest, address) = (instance.guest.clone(), heap(page));
        let Some(old) = memory::entry(&guest, address) else { return Ok(true) };
        let own = old.flags().contains(PteFlags::WRITABLE);
        let shared = instance.last_commit != control.get(daemon::UNSHARED);
        if own && !(instance.protected.contains(&page) && shared) {
            instance.protected.remove(&page);
            memory::write(&guest, address, value);
            instance.memory.heap[page] = value;
            return Ok(true);
        }
        instance.populated += 1;
        let Ok(frames) = guest.populate_physmap(&[Pfn(200 + instance.populated)]) else { return Ok(false) };
        guest.write(frames[0], 0, &value.to_le_bytes());
        memory::set_entry(&guest, control, address, Pte::new(frames[0], PageClass::Heap.pte_flags()));
        if own {
            guest.decrease_reservation(&[old.mfn()]);
        }
        let instance = &mut self.instances[number];
        instance.protected.remove(&page);
        instance.memory.heap[page] = value;
        Ok(true)
    }

    fn fork(&mut self, number: InstanceId, control: &Control, operation: u32, count: u32, tries: u32, outside: u32) {
        if operation == operation::COMMIT {
            if !self.own_buffers(number, control) {
                return self.end(number, Status::OutOfMemory);
            }
            let instance = &mut self.instances[number];
            // The snapshot and the write protection.
            instance.buffer ^= 1;
            let at = buffer(instance.buffer as usize);
            if let Some(entry) = memory::entry(&instance.guest, at) {
                for page in 0..DATA_PAGES {
                    instance.guest.write(entry.mfn(), 8 * page, &instance.memory.data[page].to_le_bytes());
                }
            }
            if !self.profile.grants {
                instance.protected = (0..HEAP_PAGES).collect();
            }
            control.put(guest::BUFFER, instance.buffer);
            control.put(guest::COMMIT_FOR, outside);
        }
        self.ask(number, control, operation, count, tries, outside);
        if operation == operation::COMMIT {
            let instance = &mut self.instances[number];
            let Doing::Asks(request) = &instance.doing else { return };
            instance.last_commit_before = instance.last_commit;
            if !self.profile.grants {
                instance.last_commit = request.number;
            }
            instance.forks.insert(request.number, Rc::new(instance.memory.clone()));
        }
    }

    /// Gives itself snapshot buffers of its own, and dom0 the grants that it copies by; false
    /// without memory.
    fn own_buffers(&mut self, number: InstanceId, control: &Control) -> bool {
        for place in 0..2 {
            let instance = &mut self.instances[number];
            let entry = memory::entry(&instance.guest, buffer(place));
            if entry.is_some_and(|entry| entry.flags().contains(PteFlags::WRITABLE)) {
                continue;
            }
            instance.populated += 1;
            let Ok(frames) = instance.guest.populate_physmap(&[Pfn(200 + instance.populated)]) else { return false };
            let new = Pte::new(frames[0], PageClass::Snapshot.pte_flags() | PteFlags::WRITABLE);
            memory::set_entry(&instance.guest, control, buffer(place), new);
        }
        if self.backend_is_grant() && control.get(guest::GRANTS) == 0 {
            self.grant_all(number, control);
        }
        true
    }

    /// Grants dom0 the pages that it copies for children. Their frames do not change.
    fn grant_all(&mut self, number: InstanceId, control: &Control) {
        const FIRST: usize = 90;
        const GREF: u32 = 16;
        let instance = &mut self.instances[number];
        let guest = instance.guest.clone();
        instance.populated += 3;
        let pfns: Vec<Pfn> = (0..3).map(|page| Pfn(197 + instance.populated + page)).collect();
        let Ok(frames) = guest.populate_physmap(&pfns) else { return };
        let mut next = GREF;
        let mut grant = |frame| {
            guest.grant(GrantRef(next), DomId::DOM0, frame, false);
            next += 1;
            next - 1
        };
        for (place, frame) in frames.iter().enumerate() {
            let entry = Pte::new(*frame, PageClass::Device.pte_flags());
            memory::set_entry(&guest, control, device_page(FIRST + place), entry);
        }
        let directory = frames[0];
        guest.write(directory, directory::COUNT, &2_u32.to_le_bytes());
        for (place, base) in [Zone::Heap.base(), Zone::Image.base()].into_iter().enumerate() {
            let list = frames[place + 1];
            for page in 0..PTES_PER_TABLE {
                let entry = memory::entry(&guest, base + page * PAGE_SIZE);
                if let Some(entry) = entry.filter(|entry| Copied::of(*entry) != Copied::Never) {
                    let reference: u32 = grant(entry.mfn());
                    guest.write(list, page * 4, &reference.to_le_bytes());
                }
            }
            let at = directory::ENTRIES + place * directory::ENTRY_SIZE;
            guest.write(directory, at, &(base as u64).to_le_bytes());
            guest.write(directory, at + 8, &grant(list).to_le_bytes());
        }
        control.put(guest::GRANTS, grant(directory));
    }

    fn ask(&mut self, number: InstanceId, control: &Control, operation: u32, count: u32, tries: u32, outside: u32) {
        if matches!(operation, operation::PREPARE | operation::COMMIT) && !self.own_buffers(number, control) {
            return self.end(number, Status::OutOfMemory);
        }
        let request = control.get(guest::REQUEST).wrapping_add(1);
        control.put(guest::OPERATION, operation);
        control.put(guest::COUNT, count);
        control.put(guest::REQUEST, request);
        control.send();
        self.log(|| format!("instance {number} asks: request {request}, operation {operation}, count {count}"));
        let since = self.clock.now();
        self.served_since.insert(number, self.service);
        self.instances[number].doing =
            Doing::Asks(Request { number: request, operation, count, since, tries, outside });
    }

    fn look_for_reply(&mut self, number: InstanceId, control: &Control, request: &Request) -> Result<(), Found> {
        let reply = control.get(daemon::REPLY);
        let before = self.instances[number].replied;
        if reply != request.number {
            self.found(reply == before || reply == self.instances[number].gave_up, || {
                format!("instance {number} sees an answer to {reply} while it waits for {}", request.number)
            })?;
            if self.engine.is_none() && self.clock.since(request.since) > PATIENCE {
                // A daemon that comes back later finds another request. Children of the COMMIT
                // stay.
                let none = control.get(guest::REQUEST).wrapping_add(1);
                control.put(guest::OPERATION, operation::NONE);
                control.put(guest::REQUEST, none);
                self.log(|| format!("instance {number} gives up"));
                if sabotage::is(Sabotage::UnansweredIsUnshared) && request.operation == operation::COMMIT {
                    self.instances[number].last_commit = self.instances[number].last_commit_before;
                }
                self.instances[number].replied = reply;
                self.instances[number].gave_up = none;
                self.instances[number].doing = Doing::Runs;
            } else if sabotage::is(Sabotage::ForkOverRequest) && self.random.chance(1, 4) {
                // Another thread forks without regard to the request, which waits on.
                let other = control.get(guest::REQUEST).wrapping_add(1);
                control.put(guest::OPERATION, operation::PREPARE);
                control.put(guest::COUNT, 1);
                control.put(guest::REQUEST, other);
                control.send();
            } else if self.random.chance(1, 8) {
                // It polls, and sends its event again, because one may have been lost.
                control.send();
            }
            return Ok(());
        }
        self.instances[number].replied = reply;
        self.instances[number].doing = Doing::Runs;
        self.served_since.remove(&number);
        let errno = control.get(daemon::ERRNO);
        let made = control.get(daemon::MADE);
        self.log(|| format!("instance {number} is answered: request {reply}, error {errno}, {made} made"));
        match request.operation {
            operation::PREPARE if errno == 0 => {
                self.fork(number, control, operation::COMMIT, request.count, request.tries, request.outside);
            }
            operation::COMMIT if errno == 0 => {
                self.found((1..=request.count).contains(&made), || format!("{made} children of {}", request.count))?;
                for place in 0..made {
                    let last = self.instances[number].children.last().copied();
                    let own = control.get(daemon::CHILDREN + 4 * place as usize);
                    let id = last.filter(|_| sabotage::is(Sabotage::OthersChildren)).unwrap_or(own);
                    self.told_child(number, id, request.number)?;
                }
                self.instances[number].refusals = 0;
                self.done_outside(control, request.outside, 0);
            }
            operation::PREPARE | operation::COMMIT => {
                if request.operation == operation::COMMIT {
                    // By pvmd's answer, there are no children.
                    let instance = &mut self.instances[number];
                    instance.last_commit = instance.last_commit_before;
                    // A daemon that could not take this pVM over at once may have forgotten a child
                    // that ended.
                    let mut children = self.children_of(number, request.number);
                    children.retain(|child| self.runs(*child));
                    self.found(children.is_empty(), || {
                        format!("COMMIT says error {errno}, but there are {children:?}")
                    })?;
                }
                self.judge_refusal(number, request, errno)?;
                if errno == ESTALE && request.tries > 0 {
                    self.fork(number, control, operation::PREPARE, request.count, request.tries - 1, request.outside);
                } else {
                    self.done_outside(control, request.outside, errno);
                }
            }
            operation::KILL if errno == Errno::ESRCH.0 => {
                let id = control.get(guest::OBJECT);
                self.instances[number].children.remove(&id);
            }
            _ => {}
        }
        Ok(())
    }

    fn done_outside(&self, control: &Control, outside: u32, errno: u32) {
        if outside != 0 {
            control.put(guest::OUTSIDE_ERRNO, errno);
            control.put(guest::OUTSIDE_DONE, outside);
            control.send();
        }
    }

    pub fn take_ends(&mut self, number: InstanceId, control: &Control) -> Result<(), Found> {
        let (mut cons, prod) = (control.get(guest::ENDED_CONS), control.get(daemon::ENDED_PROD));
        self.found(prod.wrapping_sub(cons) <= ENDED_SLOTS, || format!("instance {number}: {prod} ends, {cons} taken"))?;
        let any = cons != prod;
        while cons != prod {
            let slot = daemon::ENDED + 8 * (cons % ENDED_SLOTS) as usize;
            let (id, status) = (control.get(slot), control.get(slot + 4));
            self.told_end(number, id, status)?;
            cons = cons.wrapping_add(1);
        }
        control.put(guest::ENDED_CONS, cons);
        if any {
            control.send();
        }
        Ok(())
    }

    /// Says that it has ended.
    pub fn end(&mut self, number: InstanceId, status: Status) {
        self.log(|| format!("instance {number} ends: {status}"));
        let instance = &mut self.instances[number];
        instance.doing = Doing::HasEnded;
        let Some(control) = instance.control() else { return };
        control.put(guest::STATUS, status.to_raw());
        control.put(guest::STATE, state::ENDED);
        control.send();
        if instance.is_root() {
            self.shut_down(number, xen_abi::sched::ShutdownReason::POWEROFF);
        }
    }
}

/// The acts of an honest guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Write,
    Check,
    Fork,
    Exit,
    Crash,
    Create,
    Map,
    Unlink,
    Kill,
    Early,
}
