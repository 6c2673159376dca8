//! Holders and members: who of a family takes part in what it shares, and what happens when one ends (docs/protocols/ipc.md).

use std::collections::BTreeMap;

use xen_abi::pte::Pte;
use xen_abi::xen::{MmuUpdate, MmuextCmd, MmuextOp};
use xen_abi::{DomId, Errno, Mfn};
use xenctl::{CreateDomain, Hypervisor, Protection};
use zooid_fork_plan::id::{Handle, Kind, PvmId};
use zooid_fork_plan::plan::index;
use zooid_fork_plan::wire::{daemon, device, device_page, guest};
use zooid_memory::ForkRule;

use super::core::{Engine, Job, now_us};
use super::executor::{Executor, Operation};
use super::failure::Failure;
use super::holder::{Holder, Members};
use super::records::Record;
use super::{home, mend, records, tables};

/// Frames that one hypercall clears or gives back, and that an object gets at once.
pub(super) const AT_ONCE: usize = 512;

impl<H: Hypervisor> Engine<H> {
    /// Does an operation, whose result does not matter to the executor.
    pub(super) fn operate<T>(&mut self, operation: Operation, body: impl FnOnce(&mut Self) -> T) -> T {
        self.executor.before(operation);
        let result = body(self);
        self.executor.after(operation);
        result
    }

    /// Makes a domain that has frames and never runs, in the cpupool of the pVM that needs it; and an id for it.
    pub(super) fn make_frame_domain(&mut self, domain: DomId) -> Result<(DomId, PvmId), Failure> {
        let cpupool = self.xen.domain_info(domain)?.ok_or(Failure::Gone)?.cpupool;
        let made = self.operate(Operation::MakeHolder, |engine| {
            engine.xen.create_domain(&CreateDomain {
                flags: 0,
                max_vcpus: 1,
                max_evtchn_port: super::build::MAX_PORT,
                max_grant_frames: -1,
                max_maptrack_frames: -1,
                handle: Handle::UNFINISHED,
                cpupool,
            })
        })?;
        let id = self.new_id(made);
        Ok((made, id))
    }

    /// Lets it have so much memory.
    pub(super) fn configure_frame_domain(&mut self, domain: DomId, memory_kib: u64) -> Result<(), Failure> {
        self.operate(Operation::Configure, |engine| {
            // It never runs, but tools look at the vcpus of all domains.
            engine.xen.max_vcpus(domain, 1)?;
            engine.xen.set_max_mem(domain, memory_kib)
        })?;
        Ok(())
    }

    /// Sees to it that the family of a pVM has a holder.
    pub(super) fn ensure_holder(&mut self, domain: DomId) -> Result<(), Failure> {
        let root = self.domains.get(&domain).ok_or(Failure::Gone)?.root;
        if self.holders.contains_key(&root) {
            return Ok(());
        }
        let (holder, id) = self.make_frame_domain(domain)?;
        match self.furnish_holder(holder, id, root) {
            Ok(holder) => {
                self.holders.insert(root, holder);
                Ok(())
            }
            Err(failure) => {
                self.remove_domain(holder, id);
                Err(failure)
            }
        }
    }

    /// Gives a domain that was made for it what a holder has. Its handle comes last: a daemon that starts anew takes it for one by that.
    fn furnish_holder(&mut self, domain: DomId, id: PvmId, root: PvmId) -> Result<Holder<H::Memory>, Failure> {
        let mut frames = Vec::new();
        self.configure_frame_domain(domain, self.config.family.memory_kib)?;
        self.hold(domain, 1, &mut frames)?;
        let table = frames[0];
        let page =
            self.operate(Operation::Map, |engine| engine.xen.map_foreign(domain, &frames, Protection::ReadWrite))?;
        let name = format!("{}-holder", self.name_of(root));
        self.operate(Operation::Home, |engine| home::create_holder(&engine.store, domain, &name, root, Some(table)))?;
        let handle = Handle { kind: Kind::Holder, id, parent: root, commit: 0 };
        self.operate(Operation::Sign, |engine| engine.xen.set_handle(domain, &handle.to_octets()))?;
        Ok(new_holder(domain, id, table, Members::read(page)))
    }

    /// Gives a holder `count` frames more, filled with zeros; `frames` has those that it got, also after an error.
    pub(super) fn hold(&mut self, holder: DomId, count: usize, frames: &mut Vec<Mfn>) -> Result<(), Failure> {
        self.operate(Operation::Hold, |engine| engine.populate(holder, count, frames))?;
        self.operate(Operation::Clear, |engine| {
            for frames in frames.chunks(AT_ONCE) {
                let clear: Vec<MmuextOp> =
                    frames.iter().map(|frame| MmuextOp::on_frame(MmuextCmd::CLEAR_PAGE, *frame)).collect();
                engine.xen.mmuext_op(holder, &clear).1?;
            }
            Ok(())
        })
    }

    /// Gives frames back that nobody is to map any more. They live on as long as somebody has them mapped.
    pub(super) fn give_back(&mut self, root: PvmId, frames: Vec<Mfn>) {
        let Self { holders, xen, executor, .. } = self;
        let Some(holder) = holders.get_mut(&root) else { return };
        holder.garbage.extend(frames);
        return_frames(&**xen, executor, holder.domain, &mut holder.garbage);
    }

    /// Makes a pVM a member of its family, if it is none.
    ///
    /// # Errors
    /// The family has no holder (`ENOENT`), or as many members as there can be (`ENOSPC`); or the table cannot be mapped.
    pub(super) fn enrol(&mut self, domain: DomId) -> Result<(), Failure> {
        let pvm = self.domains.get(&domain).ok_or(Failure::Gone)?;
        let (id, root) = (pvm.id, pvm.root);
        let holder = self.holders.get(&root).ok_or(Failure::Denied(Errno::ENOENT))?;
        if holder.members.number(id).is_some() {
            return Ok(());
        }
        if holder.members.is_full() {
            return Err(Failure::Denied(Errno::ENOSPC));
        }
        let (owner, table) = (holder.domain, holder.table);
        self.operate(Operation::MapMembers, |engine| engine.map_members(domain, owner, table))?;
        let Self { domains, holders, jobs, executor, .. } = self;
        let (Some(pvm), Some(holder)) = (domains.get_mut(&domain), holders.get_mut(&root)) else {
            return Err(Failure::Gone);
        };
        // The guest has not counted that change.
        let address = device_page(device::MEMBERS);
        pvm.prepared.iter_mut().for_each(|prepared| mend::look_again(&mut prepared.linkage, address));
        for job in jobs {
            if let Job::Build(building) = job
                && building.parent == domain
            {
                building.look_again(address);
            }
        }
        executor.before(Operation::Enrol);
        let number = holder.members.add(id);
        if let Some(channel) = &pvm.channel {
            channel.put(daemon::MEMBER, member_field(number));
        }
        executor.after(Operation::Enrol);
        Ok(())
    }

    /// Maps the table of members at its place in the DEVICE zone of a pVM. The children get it as they get any joint page.
    fn map_members(&self, domain: DomId, holder: DomId, table: Mfn) -> Result<(), Failure> {
        let address = device_page(device::MEMBERS);
        let context = self.xen.vcpu_context(domain, 0)?;
        let leaf = tables::leaf_of(&*self.xen, domain, context.ctrlreg[3], address)?;
        let flags = zooid_memory::Protection::ReadOnly.pte_flags().union(ForkRule::Joint.pte_flags());
        let entry = leaf.addr() + index(address, 1) as u64 * 8;
        self.xen.mmu_update(domain, holder, &[MmuUpdate::pte(entry, Pte::new(table, flags))]).1?;
        Ok(())
    }

    /// Makes a child of a member one, if a daemon before this one died before it could.
    pub(super) fn enrol_child(&mut self, parent: DomId, child: PvmId) {
        let Some(parent) = self.domains.get(&parent) else { return };
        let Some(holder) = self.holders.get_mut(&parent.root) else { return };
        if holder.members.number(parent.id).is_none() || holder.members.number(child).is_some() {
            return;
        }
        self.executor.before(Operation::Enrol);
        let number = holder.members.add(child);
        if let Some(channel) = self.ids.get(&child).and_then(|child| self.domains.get(child)?.channel.as_ref()) {
            channel.put(daemon::MEMBER, member_field(number));
        }
        self.executor.after(Operation::Enrol);
    }

    /// A pVM has ended, and is in no list any more: those of its family that want to know are told, and what only it knew is forgotten.
    /// The holder ends with the last of the family.
    pub(super) fn leave_family(&mut self, id: PvmId, root: PvmId) {
        if !self.has_family(root) {
            self.turns.remove(&root);
            self.leave_libraries(root);
            return self.end_holder(root);
        }
        let Some(holder) = self.holders.get_mut(&root) else { return };
        holder.nameless.retain(|_, object| object.maker != id);
        if holder.members.number(id).is_some() {
            self.strike(root, &[id]);
        }
    }

    /// Takes members out of the table and tells the others.
    fn strike(&mut self, root: PvmId, ids: &[PvmId]) {
        self.operate(Operation::Strike, |engine| {
            if let Some(holder) = engine.holders.get_mut(&root) {
                ids.iter().for_each(|id| holder.members.remove(*id));
            }
        });
        let Some(holder) = self.holders.get(&root) else { return };
        let members = holder.members.ids().filter_map(|id| self.ids.get(&id)).copied();
        let wants = |domain: &DomId| {
            let channel = self.domains.get(domain).and_then(|pvm| pvm.channel.as_ref());
            channel.is_some_and(|channel| channel.get(guest::INTEREST) != 0)
        };
        let told: Vec<DomId> = members.filter(wants).collect();
        self.tell_members(&told);
    }

    /// Tells members that there is something to look at.
    pub(super) fn tell_members(&mut self, members: &[DomId]) {
        for domain in members {
            self.operate(Operation::TellMembers, |engine| {
                if let Some(channel) = engine.domains.get(domain).and_then(|pvm| pvm.channel.as_ref()) {
                    channel.put(daemon::NEWS, channel.get(daemon::NEWS).wrapping_add(1));
                }
                engine.notify(*domain);
            });
        }
    }

    fn has_family(&self, root: PvmId) -> bool {
        self.domains.values().any(|pvm| pvm.root == root)
    }

    fn end_holder(&mut self, root: PvmId) {
        if let Some(holder) = self.holders.remove(&root) {
            let (domain, id) = (holder.domain, holder.id);
            // Unmapped, else it could not end.
            drop(holder);
            self.remove_domain(domain, id);
        }
    }

    /// Lets go of holders that somebody has destroyed.
    pub(super) fn find_lost_holders(&mut self, all: &[xenctl::DomainInfo]) {
        let lives = |domain: DomId| all.iter().any(|info| info.id == domain && !info.is_dying());
        let lost: Vec<PvmId> =
            self.holders.iter().filter(|(_, holder)| !lives(holder.domain)).map(|(root, _)| *root).collect();
        for root in lost {
            log::warn!(id = root.raw(); "the holder of a family was destroyed: its objects have no names any more");
            self.end_holder(root);
        }
    }

    /// Takes over the holders that a daemon before this one has left. All pVMs are known.
    pub(super) fn recover_holders(&mut self, holders: &[(DomId, Handle)]) {
        for (domain, handle) in holders {
            self.generation = self.generation.max((handle.id.raw() >> 15) as u16);
            if !self.has_family(handle.parent) {
                self.remove_domain(*domain, handle.id);
            } else if let Err(failure) = self.recover_holder(*domain, handle) {
                self.trouble(handle.parent, "the holder of a family cannot be taken over", &failure);
                self.remove_domain(*domain, handle.id);
            }
        }
    }

    fn recover_holder(&mut self, domain: DomId, handle: &Handle) -> Result<(), Failure> {
        let root = handle.parent;
        let table = home::members_table(&self.store, domain).ok_or(Failure::Gone)?;
        let members = Members::read(self.xen.map_foreign(domain, &[table], Protection::ReadWrite)?);
        let mut holder = new_holder(domain, handle.id, table, members);
        holder.last_unlink = records::last_unlink(&self.store, domain)?;
        let mut frames = Vec::new();
        for (number, record) in records::all(&self.store, domain)? {
            match record {
                Record::Object(object) => drop(holder.objects.insert(number, object)),
                Record::Gone(gone) => {
                    frames.extend(gone);
                    holder.stale.push(number);
                }
                Record::Nonsense => {
                    log::warn!("what xenstore says of object {number} of domain {domain} makes no sense")
                }
            }
        }
        let gone: Vec<PvmId> = holder.members.ids().filter(|id| !self.ids.contains_key(id)).collect();
        for pvm in self.domains.values().filter(|pvm| pvm.root == root) {
            if let Some(channel) = &pvm.channel {
                channel.put(daemon::MEMBER, member_field(holder.members.number(pvm.id)));
            }
        }
        self.holders.insert(root, holder);
        self.give_back(root, frames);
        if let Err(failure) = self.remove_stale_records(root) {
            log::warn!("{failure}");
        }
        if !gone.is_empty() {
            self.strike(root, &gone);
        }
        Ok(())
    }

    /// Removes the records of objects that have gone.
    pub(super) fn remove_stale_records(&mut self, root: PvmId) -> Result<(), Failure> {
        while let Some((domain, number)) = self.stale_record(root) {
            self.operate(Operation::Record, |engine| records::remove(&engine.store, domain, number))?;
            self.holders.get_mut(&root).map(|holder| holder.stale.pop());
        }
        Ok(())
    }

    fn stale_record(&self, root: PvmId) -> Option<(DomId, u32)> {
        let holder = self.holders.get(&root)?;
        Some((holder.domain, *holder.stale.last()?))
    }
}

/// Gives frames of a holder back. Those that Xen does not take stay in the list, for the next time.
pub(super) fn return_frames<H: Hypervisor>(xen: &H, executor: &mut Executor, holder: DomId, garbage: &mut Vec<Mfn>) {
    while !garbage.is_empty() {
        let some = garbage.len().min(AT_ONCE);
        executor.before(Operation::GiveBack);
        let result = xen.decrease_reservation(holder, &garbage[..some]);
        executor.after(Operation::GiveBack);
        match result {
            // One that was refused is not the holder's any more.
            Ok(done) => drop(garbage.drain(..some.min(done + usize::from(done < some)))),
            Err(error) => return log::warn!("frames of domain {holder} are not given back: {error}"),
        }
    }
}

/// A holder without objects.
fn new_holder<M>(domain: DomId, id: PvmId, table: Mfn, members: Members<M>) -> Holder<M> {
    Holder {
        domain,
        id,
        table,
        members,
        objects: BTreeMap::new(),
        nameless: BTreeMap::new(),
        // So that a number that a guest has from a daemon before this one is not that of another object.
        last_number: (now_us() >> 10) as u32,
        garbage: Vec::new(),
        stale: Vec::new(),
        last_unlink: None,
    }
}

/// What a control page says of a member's number.
pub(super) fn member_field(number: Option<usize>) -> u32 {
    number.map_or(0, |number| number as u32 + 1)
}
