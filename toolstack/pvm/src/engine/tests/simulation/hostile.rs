//! A guest that writes anything, wherever it can.

use xen_abi::pte::{PTES_PER_TABLE, Pte, PteFlags};
use xen_abi::sched::ShutdownReason;
use xen_abi::xen::MmuUpdate;
use xen_abi::{DomId, GrantRef, Mfn, PAGE_SIZE, Pfn, Port};
use zooid_fork_plan::plan::{L1_SPAN, TABLE_FLAGS, index};
use zooid_fork_plan::wire::{
    ANNOUNCEMENT, CONTROL_GREF, daemon, device_page, directory, guest, object_flags, operation, state,
};
use zooid_memory::{ForkRule, Zone};

use super::host::Host;
use super::instance::{Doing, InstanceId};
use super::memory::{self, Control, heap, table};

/// The acts of a hostile guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evil {
    /// Fork as the protocol has it, to reach states in which harm can be done.
    Prepare,
    Commit,
    /// Nonsense in its control page.
    Field,
    Ask,
    State,
    /// Say that it has ended, or end.
    Ended,
    Shutdown,
    /// Make an ordinary page of a table that dom0 goes on to read, and write entries that Xen has
    /// never seen.
    Unhook,
    Forge,
    Remap,
    Grants,
    GiveBack,
    Announce,
    Ports,
    Objects,
    Kill,
}

impl Host {
    /// Lets a hostile guest run for a moment.
    pub fn hostile_acts(&mut self, number: InstanceId) {
        let Some(control) = self.instances[number].control() else { return };
        let domain = self.instances[number].domain;
        if self.instances[number].doing == Doing::Begins {
            // At its waiting point its own code begins, which is as hostile.
            match (control.get(guest::STATE), control.get(daemon::GO)) {
                (state::STARTING, _) if !self.random.chance(1, 30) => {
                    control.put(guest::STATE, state::WAITING);
                    return control.send();
                }
                (state::WAITING, 1) => {
                    self.instances[number].doing = Doing::Runs;
                    control.describe();
                    if self.random.chance(2, 3) {
                        control.put(guest::STATE, state::RUNNING);
                        control.send();
                    }
                    return;
                }
                (state::WAITING, 0) if !self.random.chance(1, 100) => return,
                _ => {}
            }
        }
        let evil = self.random.weighed(&self.profile.hostile);
        self.log(|| format!("instance {number} (domain {domain}, hostile): {evil:?}"));
        match evil {
            Evil::Prepare => {
                let count = 1 + self.random.below(self.profile.hostile_children) as u32;
                self.hostile_asks(&control, operation::PREPARE, count);
            }
            Evil::Commit => {
                let count =
                    control.get(daemon::READY).clamp(1, 1 + self.random.below(self.profile.hostile_children) as u32);
                control.put_u64(guest::SNAPSHOT, memory::buffer(0) as u64);
                self.hostile_asks(&control, operation::COMMIT, count);
            }
            Evil::Field => {
                for _ in 0..1 + self.random.below(20) {
                    let field = self.random.below(1024) as usize * 4;
                    control.put(field, self.random.nonsense());
                }
                control.send();
            }
            Evil::Ask => {
                let operation = self.random.below(12) as u32;
                let count = self.random.nonsense();
                if operation == operation::MAP {
                    self.instances[number].maps = true;
                }
                self.hostile_asks(&control, operation, count);
            }
            Evil::State => {
                control.put(guest::STATE, self.random.below(5) as u32);
                control.send();
            }
            Evil::Ended => {
                control.put(guest::STATUS, self.random.nonsense());
                control.put(guest::STATE, state::ENDED);
                control.send();
            }
            Evil::Shutdown => {
                let reason = self.random.pick(&[ShutdownReason::POWEROFF, ShutdownReason::CRASH]);
                self.shut_down(number, reason.unwrap_or(ShutdownReason::CRASH));
            }
            Evil::Unhook => self.unhook(number, &control),
            Evil::Forge => self.forge(number, &control),
            Evil::Remap => {
                let frames = self.own_frames(domain);
                let Some(frame) = self.random.pick(&frames) else { return };
                let pages = [heap(self.random.below(500) as usize), device_page(120 + self.random.below(20) as usize)];
                let address = pages[self.random.below(2) as usize];
                let flags = self.random_flags();
                memory::set_entry(&self.instances[number].guest, &control, address, Pte::new(frame, flags));
            }
            Evil::Grants => self.hostile_grants(number, &control),
            Evil::GiveBack => {
                let frames = self.own_frames(domain);
                if let Some(frame) = self.random.pick(&frames) {
                    self.instances[number].guest.decrease_reservation(&[frame]);
                }
            }
            Evil::Announce => {
                let text = match self.random.below(4) {
                    0 => String::from("1 8"),
                    1 => format!("1 {} {}", self.random.nonsense(), self.random.nonsense()),
                    2 => format!("1 {CONTROL_GREF} {}", self.random.below(8)),
                    _ => format!("{} 8 1 \u{7f}", self.random.nonsense()),
                };
                // It can write only below its own home.
                let _ = self.store.write(&format!("/local/domain/{domain}/{ANNOUNCEMENT}"), &text);
            }
            Evil::Ports => {
                let port = Port(self.random.below(6) as u32);
                let guest = &self.instances[number].guest;
                let _ = if self.random.chance(1, 3) { guest.close(port) } else { guest.send(port) };
                if self.random.chance(1, 3) {
                    let _ = self.instances[number].guest.alloc_unbound(DomId::DOM0);
                }
            }
            Evil::Objects => self.hostile_objects(number, &control),
            Evil::Kill => {
                let others: Vec<u32> =
                    self.instances.iter().filter(|instance| !instance.went).map(|instance| instance.id).collect();
                let target = self.random.pick(&others).unwrap_or(0);
                let is_root = self.instances.iter().any(|instance| instance.id == target && instance.is_root());
                control.put(guest::OBJECT, target);
                let signal = if is_root { 15 } else { self.random.pick(&[9, 15, 0, 70]).unwrap_or(9) };
                self.hostile_asks(&control, operation::KILL, signal);
            }
        }
    }

    fn hostile_asks(&mut self, control: &Control, operation: u32, count: u32) {
        control.put(guest::OPERATION, operation);
        control.put(guest::COUNT, count);
        control.count(guest::REQUEST);
        control.send();
    }

    fn own_frames(&self, domain: DomId) -> Vec<Mfn> {
        self.fake.all_frames().into_iter().filter(|(_, owner)| *owner == domain).map(|(mfn, _)| mfn).collect()
    }

    fn random_flags(&mut self) -> PteFlags {
        let rules = [
            ForkRule::Shared,
            ForkRule::CopyOnWrite,
            ForkRule::Private,
            ForkRule::Joint,
            ForkRule::Library,
            ForkRule::Special,
        ];
        let rule = self.random.pick(&rules).unwrap_or(ForkRule::Shared).pte_flags();
        let write = if self.random.chance(1, 2) { PteFlags::WRITABLE } else { PteFlags::empty() };
        PteFlags::PRESENT | PteFlags::NO_EXECUTE | rule | write
    }

    /// Takes its second table of the heap out of its tree without a word; makes one if there is
    /// none.
    fn unhook(&mut self, number: InstanceId, control: &Control) {
        let base = heap(0) + L1_SPAN;
        let guest = self.instances[number].guest.clone();
        let (Some(second), place) = (table(&guest, base, 2), index(base, 2)) else { return };
        let at = second.addr() + place as u64 * 8;
        match memory::word(&guest, second, place * 8).map(Pte) {
            Some(entry) if entry.is_present() => {
                // The frame must have no use as a table that would keep it from being written.
                if guest.mmu_update(&[MmuUpdate::pte(at, Pte::ABSENT)]).1.is_ok() {
                    self.instances[number].unhooked = Some((base, entry.mfn()));
                }
            }
            _ => {
                self.instances[number].populated += 1;
                let Ok(frames) = guest.populate_physmap(&[Pfn(200 + self.instances[number].populated)]) else { return };
                let _ = guest.mmu_update(&[MmuUpdate::pte(at, Pte::new(frames[0], TABLE_FLAGS))]);
                control.count(guest::TABLES);
                self.hostile_asks(control, operation::PREPARE, 1);
            }
        }
    }

    /// Writes entries that name frames of any domain.
    fn forge(&mut self, number: InstanceId, control: &Control) {
        let Some((base, frame)) = self.instances[number].unhooked else { return };
        let guest = self.instances[number].guest.clone();
        if !self.own_frames(self.instances[number].domain).contains(&frame) {
            return;
        }
        let all = self.fake.all_frames();
        let owners: Vec<DomId> = all.iter().map(|(_, owner)| *owner).collect();
        let root = self.instances[number].root;
        // Relatives, about whom it may learn more than about strangers, and memory owners.
        let related =
            |owner: &DomId| self.by_domain.get(owner).is_some_and(|instance| self.instances[*instance].root == root);
        let related: Vec<DomId> = owners.iter().copied().filter(related).collect();
        for _ in 0..1 + self.random.below(6) {
            let owner = if self.random.chance(3, 4) { self.random.pick(&related) } else { self.random.pick(&owners) };
            let frames: Vec<Mfn> =
                all.iter().filter(|(_, other)| Some(*other) == owner).map(|(frame, _)| *frame).collect();
            let Some(target) = self.random.pick(&frames) else { continue };
            let entry = Pte::new(target, self.random_flags());
            let at = self.random.below(PTES_PER_TABLE as u64) as usize * 8;
            guest.write(frame, at, &entry.0.to_le_bytes());
        }
        control.count(guest::changes(base));
        self.hostile_asks(control, operation::PREPARE, 1);
    }

    fn hostile_grants(&mut self, number: InstanceId, control: &Control) {
        let domain = self.instances[number].domain;
        let frames = self.own_frames(domain);
        let Some(frame) = self.random.pick(&frames) else { return };
        let guest = &self.instances[number].guest;
        let reference = 9 + self.random.below(5) as u32;
        guest.grant(GrantRef(reference), DomId::DOM0, frame, self.random.chance(1, 2));
        if !self.backend_is_grant() {
            return;
        }
        // A directory and pages of grants, in which the same ones are repeated.
        let (Some(page), Some(list)) =
            (memory::entry(guest, heap(0)).map(|it| it.mfn()), memory::entry(guest, heap(1)).map(|it| it.mfn()))
        else {
            return;
        };
        guest.grant(GrantRef(20), DomId::DOM0, page, false);
        guest.grant(GrantRef(21), DomId::DOM0, list, false);
        for place in 0..PAGE_SIZE / 4 / 2 {
            guest.write(list, place * 4, &21_u32.to_le_bytes());
        }
        guest.write(page, directory::COUNT, &1_u32.to_le_bytes());
        let base = (Zone::Heap.base() as u64).wrapping_add(self.random.below(1 << 20) * L1_SPAN as u64);
        guest.write(page, directory::ENTRIES, &base.to_le_bytes());
        guest.write(page, directory::ENTRIES + 8, &21_u32.to_le_bytes());
        control.put(guest::GRANTS, 20);
        self.hostile_asks(control, operation::PREPARE, 1);
    }

    fn hostile_objects(&mut self, number: InstanceId, control: &Control) {
        let guest = self.instances[number].guest.clone();
        control.put(guest::OBJECT_PAGES, self.random.below(4) as u32);
        control.put(guest::OBJECT_FLAGS, self.random.pick(&[0, object_flags::CREATE, 3, 4]).unwrap_or(0));
        control.put(guest::NAME_LENGTH, self.random.below(2) as u32);
        control.put_octets(guest::NAME, &[b'a' + self.random.below(3) as u8]);
        let address = device_page(100 + self.random.below(8) as usize);
        let own = table(&guest, address, 1);
        let all = self.fake.all_frames();
        let any = self.random.pick(&all).map(|(frame, _)| frame);
        let table = if self.random.chance(2, 3) { own } else { any };
        control.put_u64(guest::MAP_TABLE, table.map_or(0, |frame| frame.0));
        control.put(
            guest::MAP_INDEX,
            if self.random.chance(3, 4) { index(address, 1) as u32 } else { self.random.nonsense() },
        );
        let object = control.get(daemon::OBJECT);
        control.put(guest::OBJECT, if self.random.chance(3, 4) { object } else { self.random.nonsense() });
        control.put(guest::OBJECT_OFFSET, self.random.below(2) as u32);
        let operations = [operation::CREATE, operation::MAP, operation::UNLINK, operation::RELAY];
        let operation = self.random.pick(&operations).unwrap_or(operation::CREATE);
        self.instances[number].maps |= operation == operation::MAP;
        let count = 1 + self.random.below(2) as u32;
        self.hostile_asks(control, operation, count);
    }
}
