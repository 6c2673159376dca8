//! Memory owners and members: the pVMs of a family that share memory, and the end of one
//! (docs/protocols/ipc.md).

use std::collections::BTreeMap;

use xen_abi::pte::Pte;
use xen_abi::xen::{MmuUpdate, MmuextCmd, MmuextOp};
use xen_abi::{DomId, Errno, Mfn};
use xenctl::{CreateDomain, Hypervisor, Protection};
use zooid_fork_plan::id::{Handle, Kind, PvmId};
use zooid_fork_plan::plan::index;
use zooid_fork_plan::wire::{daemon, device, device_page, guest};
use zooid_memory::ForkRule;

use super::books::{Family, is_domain_of};
use super::core::Host;
use super::end::Gone;
use super::executor::{Executor, Operation};
use super::failure::Failure;
use super::jobs::Job;
use super::memory_owner::{Members, MemoryOwner};
use super::object_records::Record;
use super::{home, object_records, tables};

/// Frames that one hypercall clears or gives back, and that an object gets at once.
pub(super) const AT_ONCE: usize = 512;

impl<H: Hypervisor> Host<H> {
    /// Does an operation whose result does not concern the executor.
    pub(super) fn operate<T>(&mut self, operation: Operation, body: impl FnOnce(&mut Self) -> T) -> T {
        self.executor.before(operation);
        let result = body(self);
        self.executor.after(operation);
        result
    }

    /// Makes a domain that has frames and never runs, in the cpupool of the pVM that needs it; its
    /// id.
    pub(super) fn make_frame_domain(&mut self, id: PvmId) -> Result<PvmId, Failure> {
        let cpupool = self.xen.domain_info(id.domain())?.ok_or(Failure::Gone)?.cpupool;
        let made = self.operate(Operation::MakeMemoryOwner, |host| {
            host.xen.create_domain(&CreateDomain {
                flags: 0,
                max_vcpus: 1,
                max_evtchn_port: super::build::MAX_PORT,
                max_grant_frames: -1,
                max_maptrack_frames: -1,
                handle: Handle::UNFINISHED,
                cpupool,
            })
        })?;
        Ok(self.books.new_id(made))
    }

    /// Sets the memory limit of such a domain.
    pub(super) fn configure_frame_domain(&mut self, domain: DomId, memory_kib: u64) -> Result<(), Failure> {
        self.operate(Operation::Configure, |engine| {
            // It never runs, but tools read the vcpus of all domains.
            engine.xen.max_vcpus(domain, 1)?;
            engine.xen.set_max_mem(domain, memory_kib)
        })?;
        Ok(())
    }

    /// Makes a memory owner for a pVM's family, if it has none.
    pub(super) fn ensure_memory_owner(&mut self, id: PvmId) -> Result<(), Failure> {
        let root = self.root_of(id)?;
        if self.books.memory_owner(root).is_some() {
            return Ok(());
        }
        let made = self.make_frame_domain(id)?;
        match self.furnish_memory_owner(made, root) {
            Ok(memory_owner) => {
                let family = self.books.family_mut(root).ok_or(Failure::Gone)?;
                family.memory_owner = Some(memory_owner);
                Ok(())
            }
            Err(failure) => {
                self.remove_domain(root, made);
                Err(failure)
            }
        }
    }

    /// Gives a new domain the state of a memory owner. The handle comes last, because a daemon that
    /// starts recognises a memory owner by it.
    fn furnish_memory_owner(&mut self, id: PvmId, root: PvmId) -> Result<MemoryOwner<H::Memory>, Failure> {
        let domain = id.domain();
        let mut frames = Vec::new();
        self.configure_frame_domain(domain, self.config.family.memory_kib)?;
        self.hold(domain, 1, &mut frames)?;
        let table = *frames.first().ok_or(Failure::NoMemory("Xen has none left"))?;
        let page = self.operate(Operation::Map, |host| host.xen.map_foreign(domain, &frames, Protection::ReadWrite))?;
        let name = format!("{}-memory", self.books.family_name(root).ok_or(Failure::Gone)?);
        self.operate(Operation::Home, |host| home::create_memory_owner(&host.store, id, &name, root, Some(table)))?;
        let handle = Handle { kind: Kind::MemoryOwner, id, parent: root, commit: 0 };
        self.operate(Operation::Sign, |host| host.xen.set_handle(domain, &handle.to_octets()))?;
        Ok(new_memory_owner(id, table, Members::read(page), self.clock.now_us()))
    }

    /// Gives a memory owner `count` frames more, filled with zeros. `frames` gets those that Xen
    /// gave, also after an error.
    pub(super) fn hold(&mut self, memory_owner: DomId, count: usize, frames: &mut Vec<Mfn>) -> Result<(), Failure> {
        self.operate(Operation::Hold, |engine| engine.populate(memory_owner, count, frames))?;
        self.operate(Operation::Clear, |engine| {
            for frames in frames.chunks(AT_ONCE) {
                let clear: Vec<MmuextOp> =
                    frames.iter().map(|frame| MmuextOp::on_frame(MmuextCmd::CLEAR_PAGE, *frame)).collect();
                engine.xen.mmuext_op(memory_owner, &clear).1?;
            }
            Ok(())
        })
    }

    /// Gives back frames that are not to be mapped any more. Xen keeps each as long as it is still
    /// mapped.
    pub(super) fn give_back(&mut self, root: PvmId, frames: Vec<Mfn>) {
        let Self { books, xen, executor, .. } = self;
        let Some(memory_owner) = books.memory_owner_mut(root) else { return };
        memory_owner.garbage.extend(frames);
        return_frames(&**xen, executor, memory_owner.domain, &mut memory_owner.garbage);
    }

    /// Makes a pVM a member of its family, if it is none.
    ///
    /// # Errors
    /// The family has no memory owner (`ENOENT`), or as many members as there can be (`ENOSPC`); or
    /// the table cannot be mapped.
    pub(super) fn enrol(&mut self, id: PvmId) -> Result<(), Failure> {
        let root = self.root_of(id)?;
        let memory_owner = self.books.memory_owner(root).ok_or(Failure::Denied(Errno::ENOENT))?;
        if memory_owner.members.number(id).is_some() {
            return Ok(());
        }
        if memory_owner.members.is_full() {
            return Err(Failure::Denied(Errno::ENOSPC));
        }
        let (owner, table) = (memory_owner.domain, memory_owner.table);
        let leaf = self.operate(Operation::MapMembers, |host| host.map_members(id.domain(), owner, table))?;
        let Self { books, jobs, executor, .. } = self;
        let (pvm, family) = books.with_family(id).ok_or(Failure::Gone)?;
        let memory_owner = family.memory_owner.as_mut().ok_or(Failure::Gone)?;
        // Domains that are being built are brought up to date later. The guest has not counted this
        // change.
        let address = device_page(device::MEMBERS);
        for job in jobs.iter_mut() {
            if let Job::Build(building) = job
                && building.parent == id
            {
                building.look_again(address);
            }
        }
        executor.before(Operation::Enrol);
        let number = memory_owner.members.add(id);
        if let Some(channel) = &pvm.channel {
            channel.put(daemon::MEMBER, member_field(number));
        }
        executor.after(Operation::Enrol);
        self.link_given(id, leaf, &[table]);
        Ok(())
    }

    /// Maps the table of members at its place in the DEVICE zone of a pVM. Children get it as they
    /// get any joint page.
    fn map_members(&self, domain: DomId, memory_owner: DomId, table: Mfn) -> Result<Mfn, Failure> {
        let address = device_page(device::MEMBERS);
        let context = self.xen.vcpu_context(domain, 0)?;
        let leaf = tables::leaf_of(&*self.xen, domain, context.ctrlreg[3], address)?;
        let flags = zooid_memory::Protection::ReadOnly.pte_flags().union(ForkRule::Joint.pte_flags());
        let entry = leaf.addr() + index(address, 1) as u64 * 8;
        self.xen.mmu_update(domain, memory_owner, &[MmuUpdate::pte(entry, Pte::new(table, flags))]).1?;
        Ok(leaf)
    }

    /// Makes a member's child a member, if an earlier daemon was killed before it could.
    pub(super) fn enrol_child(&mut self, parent: PvmId, child: PvmId) {
        let Self { books, executor, .. } = self;
        let Some((pvm, family)) = books.with_family(child) else { return };
        let Some(memory_owner) = family.memory_owner.as_mut() else { return };
        if memory_owner.members.number(parent).is_none() || memory_owner.members.number(child).is_some() {
            return;
        }
        executor.before(Operation::Enrol);
        let number = memory_owner.members.add(child);
        if let Some(channel) = &pvm.channel {
            channel.put(daemon::MEMBER, member_field(number));
        }
        executor.after(Operation::Enrol);
    }

    /// A pVM has left the books: tells the members of its family, and drops the state that
    /// concerned it alone. The memory owner ends with the last pVM of the family.
    pub(super) fn leave_family(&mut self, gone: Gone<H::Memory>) {
        let Gone { id, root, family, .. } = gone;
        if let Some(mut family) = family {
            self.leave_libraries(root);
            if let Some(making) = family.share.making.take() {
                log::debug!(id = root.raw(); "object {} is not made: its family has ended", making.number);
            }
            return self.end_memory_owner(root, family.memory_owner);
        }
        let Some(memory_owner) = self.books.memory_owner_mut(root) else { return };
        memory_owner.nameless.retain(|_, object| object.maker != id);
        self.strike_member(root, id, None);
    }

    /// A pVM does not run any more: its family's table of members loses it. Its parent gets no event
    /// for that, because it gets one for the end.
    pub(super) fn leave_members(&mut self, id: PvmId) {
        if let Some((root, parent)) = self.books.get(id).map(|pvm| (pvm.root(), pvm.parent())) {
            self.strike_member(root, id, parent);
        }
    }

    fn strike_member(&mut self, root: PvmId, id: PvmId, later: Option<PvmId>) {
        if self.books.memory_owner(root).is_some_and(|owner| owner.members.number(id).is_some()) {
            self.strike(root, &[id], later);
        }
    }

    /// Takes members out of the table and tells the others. The one that gets an event `later` is
    /// not sent any now.
    fn strike(&mut self, root: PvmId, ids: &[PvmId], later: Option<PvmId>) {
        self.operate(Operation::Strike, |host| {
            if let Some(memory_owner) = host.books.memory_owner_mut(root) {
                ids.iter().for_each(|id| memory_owner.members.remove(*id));
            }
        });
        let Some(memory_owner) = self.books.memory_owner(root) else { return };
        let wants = |id: &PvmId| {
            let channel = self.books.get(*id).and_then(|pvm| pvm.channel.as_ref());
            channel.is_some_and(|channel| channel.get(guest::INTEREST) != 0)
        };
        let told: Vec<PvmId> = memory_owner.members.ids().filter(wants).collect();
        self.tell_members(&told, later);
    }

    /// Sends members an event, but for the one that gets one `later`: there is news in the table.
    pub(super) fn tell_members(&mut self, members: &[PvmId], later: Option<PvmId>) {
        for id in members {
            self.operate(Operation::TellMembers, |host| {
                if let Some(channel) = host.books.get(*id).and_then(|pvm| pvm.channel.as_ref()) {
                    channel.put(daemon::NEWS, channel.get(daemon::NEWS).wrapping_add(1));
                }
                if later != Some(*id) {
                    host.notify(*id);
                }
            });
        }
    }

    /// The pVMs of a family are members of nothing: nobody keeps the table that they read.
    fn forget_members(&self, root: PvmId) {
        for channel in self.books.members(root).filter_map(|pvm| pvm.channel.as_ref()) {
            channel.put(daemon::MEMBER, member_field(None));
        }
    }

    fn end_memory_owner(&mut self, root: PvmId, memory_owner: Option<MemoryOwner<H::Memory>>) {
        self.forget_members(root);
        if let Some(memory_owner) = memory_owner {
            let id = memory_owner.id;
            // A domain whose frames are mapped cannot end.
            drop(memory_owner);
            self.remove_domain(root, id);
        }
    }

    /// Forgets memory owners that a tool has destroyed.
    pub(super) fn find_lost_memory_owners(&mut self, all: &[xenctl::DomainInfo]) {
        let exists = |id: PvmId| all.iter().any(|info| is_domain_of(info, id) && !info.is_dying());
        let families = self.books.families();
        let is_lost = |family: &Family<H::Memory>| family.memory_owner.as_ref().is_some_and(|owner| !exists(owner.id));
        let lost: Vec<PvmId> = families.filter(|(_, family)| is_lost(family)).map(|(root, _)| root).collect();
        for root in lost {
            log::warn!(id = root.raw(); "the memory owner of a family was destroyed: its objects have no names any more");
            let memory_owner = self.books.family_mut(root).and_then(|family| family.memory_owner.take());
            self.end_memory_owner(root, memory_owner);
        }
    }

    /// Takes over the memory owners of an earlier daemon. All pVMs are in the books.
    pub(super) fn recover_memory_owners(&mut self, memory_owners: &[(DomId, Handle)]) {
        for (_, handle) in memory_owners {
            self.books.skip_id(handle.id);
            if self.books.family(handle.parent).is_none() {
                self.remove_domain(handle.parent, handle.id);
                continue;
            }
            let recovered = self.recover_memory_owner(handle).or_else(|_| self.recover_memory_owner(handle));
            if let Err(failure) = recovered {
                self.trouble(handle.parent, "the memory owner of a family cannot be taken over", &failure);
                self.forget_members(handle.parent);
                self.remove_domain(handle.parent, handle.id);
            }
        }
    }

    fn recover_memory_owner(&mut self, handle: &Handle) -> Result<(), Failure> {
        let (root, domain) = (handle.parent, handle.id.domain());
        let table = home::members_table(&self.store, domain).ok_or(Failure::Gone)?;
        let members = Members::read(self.xen.map_foreign(domain, &[table], Protection::ReadWrite)?);
        let mut memory_owner = new_memory_owner(handle.id, table, members, self.clock.now_us());
        memory_owner.last_unlink = object_records::last_unlink(&self.store, domain)?;
        let mut frames = Vec::new();
        for (number, record) in object_records::all(&self.store, domain)? {
            match record {
                Record::Object(object) => drop(memory_owner.objects.insert(number, object)),
                Record::Gone(gone) => {
                    frames.extend(gone);
                    memory_owner.stale.push(number);
                }
                Record::Nonsense => {
                    log::warn!("the record of object {number} of domain {domain} makes no sense")
                }
            }
        }
        let gone: Vec<PvmId> = memory_owner.members.ids().filter(|id| self.books.get(*id).is_none()).collect();
        for pvm in self.books.members(root) {
            if let Some(channel) = &pvm.channel {
                channel.put(daemon::MEMBER, member_field(memory_owner.members.number(pvm.id())));
            }
        }
        self.books.family_mut(root).ok_or(Failure::Gone)?.memory_owner = Some(memory_owner);
        self.give_back(root, frames);
        if let Err(failure) = self.remove_stale_records(root) {
            log::warn!("{failure}");
        }
        if !gone.is_empty() {
            self.strike(root, &gone, None);
        }
        Ok(())
    }

    /// Removes the records of objects that have gone.
    pub(super) fn remove_stale_records(&mut self, root: PvmId) -> Result<(), Failure> {
        while let Some((domain, number)) = self.stale_record(root) {
            self.operate(Operation::Record, |engine| object_records::remove(&engine.store, domain, number))?;
            self.books.memory_owner_mut(root).map(|memory_owner| memory_owner.stale.pop());
        }
        Ok(())
    }

    fn stale_record(&self, root: PvmId) -> Option<(DomId, u32)> {
        let memory_owner = self.books.memory_owner(root)?;
        Some((memory_owner.domain, *memory_owner.stale.last()?))
    }
}

/// Gives frames of a memory owner back. Those that Xen does not take stay in the list for the next
/// attempt.
pub(super) fn return_frames<H: Hypervisor>(
    xen: &H,
    executor: &mut Executor,
    memory_owner: DomId,
    garbage: &mut Vec<Mfn>,
) {
    while !garbage.is_empty() {
        let some = garbage.len().min(AT_ONCE);
        executor.before(Operation::GiveBack);
        let result = xen.decrease_reservation(memory_owner, &garbage[..some]);
        executor.after(Operation::GiveBack);
        match result {
            // A refused frame does not belong to the memory owner any more.
            Ok(done) => drop(garbage.drain(..some.min(done + usize::from(done < some)))),
            Err(error) => return log::warn!("frames of domain {memory_owner} are not given back: {error}"),
        }
    }
}

/// A memory owner without objects.
fn new_memory_owner<M>(id: PvmId, table: Mfn, members: Members<M>, now_us: u64) -> MemoryOwner<M> {
    MemoryOwner {
        domain: id.domain(),
        id,
        table,
        members,
        objects: BTreeMap::new(),
        nameless: BTreeMap::new(),
        // A number that a guest has from an earlier daemon must not name another object.
        last_number: now_us as u32,
        garbage: Vec::new(),
        stale: Vec::new(),
        last_unlink: None,
    }
}

/// A member's number as the control page holds it.
pub(super) fn member_field(number: Option<usize>) -> u32 {
    number.map_or(0, |number| number as u32 + 1)
}
