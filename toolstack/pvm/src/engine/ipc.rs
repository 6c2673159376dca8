//! Requests of members for memory that they share, with a name or without one
//! (docs/protocols/ipc.md).
//!
//! Each field of the control page is read once, then judged. Whatever the fields say, a member gets
//! only frames of its own family's memory owner mapped, and only in tables of its own.

use xen_abi::pte::{PTES_PER_TABLE, Pte};
use xen_abi::xen::MmuUpdate;
use xen_abi::{DomId, Errno, Mfn};
use xenctl::{Hypervisor, Memory};
use zooid_fork_plan::id::PvmId;
use zooid_fork_plan::link::Backend;
use zooid_fork_plan::wire::{MAX_NAME, daemon, guest, object_flags, operation};
use zooid_memory::PageClass;

use super::api::{Error, ObjectInfo, Target};
use super::books::{Channel, Pending, Pvm};
use super::core::Host;
use super::executor::Operation;
use super::failure::Failure;
use super::fair_share::Making;
use super::members::AT_ONCE;
use super::memory_owner::{Asker, MemoryOwner, Nameless, Object};
use super::object_records;

/// Most objects of a family. Those without a name do not count once they are wholly mapped.
const MAX_OBJECTS: usize = 1024;
/// Most pages of an object: 256 MiB.
const MAX_PAGES: u32 = 65_536;
/// Frame numbers are below this (`MADDR_BITS` of x86 are 52).
const FRAMES: u64 = 1 << 40;

/// Refuses a member's request with this error number.
pub(super) fn denied<T>(errno: Errno) -> Result<T, Failure> {
    Err(Failure::Denied(errno))
}

/// The fields of a CREATE.
struct Create {
    name: Option<Vec<u8>>,
    pages: u32,
    create: bool,
    exclusive: bool,
}

/// The fields of a MAP or a MAP_LIBRARY.
pub(super) struct Map {
    /// The table of level 1.
    table: Mfn,
    /// Its entries.
    pub entries: std::ops::Range<usize>,
    pub object: u32,
    pub offset: usize,
    pub flags: u32,
}

impl Create {
    fn read<M: Memory>(channel: &Channel<M>) -> Result<Self, Failure> {
        let (pages, flags) = (channel.get(guest::OBJECT_PAGES), channel.get(guest::OBJECT_FLAGS));
        if flags & !(object_flags::CREATE | object_flags::EXCLUSIVE) != 0 {
            return denied(Errno::EINVAL);
        }
        Ok(Self {
            name: name(channel)?,
            pages,
            create: flags & object_flags::CREATE != 0,
            exclusive: flags & object_flags::EXCLUSIVE != 0,
        })
    }
}

impl Map {
    /// Reads the fields; flags other than `known` are refused.
    pub fn read<M: Memory>(channel: &Channel<M>, count: u32, known: u32) -> Result<Self, Failure> {
        let table = Mfn(channel.page.read_u64(guest::MAP_TABLE));
        let index = channel.get(guest::MAP_INDEX) as usize;
        let object = channel.get(guest::OBJECT);
        let offset = channel.get(guest::OBJECT_OFFSET) as usize;
        let flags = channel.get(guest::OBJECT_FLAGS);
        let end = index.saturating_add(count as usize);
        if count == 0 || end > PTES_PER_TABLE || table.0 >= FRAMES || flags & !known != 0 {
            return denied(Errno::EINVAL);
        }
        Ok(Self { table, entries: index..end, object, offset, flags })
    }

    /// The updates that write these entries. `entry` gives the value for each index.
    pub fn updates(&self, entry: impl Fn(usize) -> Pte) -> Vec<MmuUpdate> {
        let address = |index: usize| self.table.addr() + index as u64 * 8;
        self.entries.clone().enumerate().map(|(place, index)| MmuUpdate::pte(address(index), entry(place))).collect()
    }
}

/// The name in a control page; none if it has no octets.
fn name<M: Memory>(channel: &Channel<M>) -> Result<Option<Vec<u8>>, Failure> {
    let length = channel.get(guest::NAME_LENGTH) as usize;
    if length > MAX_NAME {
        return denied(Errno::ENAMETOOLONG);
    }
    let mut name = vec![0; length];
    channel.page.copy_out(guest::NAME, &mut name);
    if name.iter().any(|octet| matches!(octet, 0 | b'/')) {
        return denied(Errno::EINVAL);
    }
    Ok(Some(name).filter(|name| !name.is_empty()))
}

impl<H: Hypervisor> Host<H> {
    /// Serves a request of a member.
    pub(super) fn serve_ipc(&mut self, id: PvmId, operation: u32, count: u32) {
        let result = match operation {
            operation::REFUSED => self.report_refusal(id),
            // If dom0 cannot write entries, no frame can be shared.
            _ if self.backend == Backend::Grant => denied(Errno::ENOSYS),
            operation::CREATE => self.create_object(id),
            operation::MAP => self.map_object(id, count),
            operation::UNLINK => self.unlink_object(id),
            operation::LIBRARY => self.open_library(id),
            operation::MAP_LIBRARY => self.map_library(id, count),
            _ => self.relay(id),
        };
        self.answer_ipc(id, operation, result);
    }

    /// Answers a member's request, unless its object is still being made.
    pub(super) fn answer_ipc(&mut self, id: PvmId, operation: u32, result: Result<(), Failure>) {
        let is_being_made = |pvm: &Pvm<H::Memory>| matches!(pvm.pending, Some(Pending::Create | Pending::Library));
        if result.is_ok() && self.books.get(id).is_some_and(is_being_made) {
            return;
        }
        let errno = match &result {
            Ok(()) => 0,
            Err(Failure::Quota(_)) => Errno::ENOSPC.0,
            Err(failure) => failure.errno(),
        };
        if let Err(failure) = &result {
            log::debug!(id = id.raw(); "request {operation}: {failure}");
        }
        self.executor.before(Operation::Reply);
        self.reply(id, errno, &[]);
        self.executor.after(Operation::Reply);
    }

    /// The root of the asking pVM's family, the request, and the channel that holds it.
    pub(super) fn asker(&self, id: PvmId) -> Result<(PvmId, Asker, &Channel<H::Memory>), Failure> {
        let pvm = self.books.get(id).ok_or(Failure::Gone)?;
        let channel = pvm.channel.as_ref().ok_or(Failure::Gone)?;
        Ok((pvm.root(), Asker { member: id, request: pvm.request }, channel))
    }

    /// The memory owner of a family that has one.
    fn memory_owner(&self, root: PvmId) -> Result<&MemoryOwner<H::Memory>, Failure> {
        self.books.memory_owner(root).ok_or(Failure::Denied(Errno::ENOENT))
    }

    fn create_object(&mut self, id: PvmId) -> Result<(), Failure> {
        let (root, asker, channel) = self.asker(id)?;
        let asked = Create::read(channel)?;
        if let Some(name) = &asked.name {
            let found = self.books.memory_owner(root).and_then(|memory_owner| memory_owner.find(name));
            if let Some((number, object)) = found {
                // An earlier daemon has made it and was killed before it could answer.
                let is_new = object.maker == asker;
                let pages = object.frames.len();
                if asked.exclusive && !is_new {
                    return denied(Errno::EEXIST);
                }
                self.enrol(id)?;
                return self.answer_create(id, number, pages, is_new);
            }
            if !asked.create {
                return denied(Errno::ENOENT);
            }
        }
        match asked.pages {
            0 => return denied(Errno::EINVAL),
            1..=MAX_PAGES => {}
            _ => return denied(Errno::ENOSPC),
        }
        self.check_memory(id, asked.pages.into())?;
        self.ensure_memory_owner(id)?;
        self.enrol(id)?;
        let pages = asked.pages as usize;
        let memory_owner = self.books.memory_owner_mut(root).ok_or(Failure::Gone)?;
        if memory_owner.objects.len() + memory_owner.nameless.len() >= MAX_OBJECTS {
            return denied(Errno::EMFILE);
        }
        let number = memory_owner.new_number();
        let Some(name) = asked.name else {
            memory_owner.nameless.insert(number, Nameless { maker: asker.member, pages, mapped: 0 });
            return self.answer_create(id, number, pages, true);
        };
        let making = Making { maker: asker, name, pages, number, frames: Vec::new(), parts: 0 };
        self.make_part(root, making)
    }

    fn answer_create(&mut self, id: PvmId, number: u32, pages: usize, is_new: bool) -> Result<(), Failure> {
        let (_, _, channel) = self.asker(id)?;
        channel.put(daemon::OBJECT, number);
        channel.put(daemon::OBJECT_PAGES, pages as u32);
        channel.put(daemon::OBJECT_IS_NEW, is_new.into());
        Ok(())
    }

    /// Makes a part of an object. With the last part, the reply has its number.
    fn make_part(&mut self, root: PvmId, mut making: Making) -> Result<(), Failure> {
        if let Err(failure) = self.grow(root, &mut making) {
            self.abandon_making(root, making);
            return Err(failure);
        }
        let Making { maker, name, pages, number, frames, .. } = making;
        if frames.len() < pages {
            let making = Making { maker, name, pages, number, frames, parts: making.parts };
            self.make_later(root, making);
            return Ok(());
        }
        let memory_owner = self.books.memory_owner_mut(root).ok_or(Failure::Gone)?;
        memory_owner.objects.insert(number, Object { name, maker, frames });
        self.answer_create(maker.member, number, pages, true)
    }

    /// Gets frames for an object and records them; with the last ones, records the object.
    fn grow(&mut self, root: PvmId, making: &mut Making) -> Result<(), Failure> {
        let owner = self.memory_owner(root)?.domain;
        self.remove_stale_records(root)?;
        self.give_back(root, Vec::new());
        let count = AT_ONCE.min(making.pages - making.frames.len());
        let mut frames = Vec::with_capacity(count);
        let result = self.hold(owner, count, &mut frames);
        making.frames.extend(&frames);
        result?;
        self.operate(Operation::Record, |engine| {
            // After an error, the nodes that were written are still there.
            let parts = std::mem::replace(&mut making.parts, usize::MAX);
            making.parts = object_records::add(&engine.store, owner, making.number, parts, &frames)?;
            if making.frames.len() == making.pages {
                let Making { name, maker, frames, number, .. } = making;
                let object = Object { name: name.clone(), maker: *maker, frames: frames.clone() };
                object_records::write(&engine.store, owner, *number, &object)?;
            }
            Ok(())
        })
    }

    /// Gives up an object that is being made: returns its frames and removes its record.
    pub(super) fn abandon_making(&mut self, root: PvmId, making: Making) {
        if making.parts > 0 {
            self.forget(root, making.number, making.frames);
        } else {
            self.give_back(root, making.frames);
        }
    }

    /// Returns an object's frames and removes its record.
    fn forget(&mut self, root: PvmId, number: u32, frames: Vec<Mfn>) {
        if let Some(memory_owner) = self.books.memory_owner_mut(root) {
            memory_owner.stale.push(number);
        }
        self.give_back(root, frames);
        if let Err(failure) = self.remove_stale_records(root) {
            // It is tried again before any new frames are taken.
            log::debug!("{failure}");
        }
    }

    /// Makes a part of an object that a member waits for.
    pub(super) fn make_step(&mut self, root: PvmId, making: Making) {
        let id = making.maker.member;
        let waits = |pvm: &Pvm<H::Memory>| pvm.request == making.maker.request && pvm.pending == Some(Pending::Create);
        if !self.books.get(id).is_some_and(waits) {
            return self.abandon_making(root, making);
        }
        if let Some(pvm) = self.books.get_mut(id) {
            pvm.pending = None;
        }
        let result = self.make_part(root, making);
        self.answer_ipc(id, operation::CREATE, result);
    }

    fn map_object(&mut self, id: PvmId, count: u32) -> Result<(), Failure> {
        let (root, asker, channel) = self.asker(id)?;
        let asked = Map::read(channel, count, object_flags::LAST)?;
        let last = asked.flags & object_flags::LAST != 0;
        let memory_owner = self.memory_owner(root)?;
        let pages = asked.offset..asked.offset.saturating_add(asked.entries.len());
        if let Some(object) = memory_owner.objects.get(&asked.object) {
            let Some(frames) = object.frames.get(pages).filter(|_| !last) else {
                return denied(Errno::EINVAL);
            };
            let updates = asked.updates(|place| Pte::new(frames[place], PageClass::Joint.pte_flags()));
            let owner = memory_owner.domain;
            self.enrol(id)?;
            return self.write_entries(id, owner, &asked, &updates);
        }
        // An object without a name is its maker's alone, and its pages are mapped in order.
        let object = memory_owner.nameless.get(&asked.object).filter(|object| object.maker == asker.member);
        let object = object.copied().ok_or(Failure::Denied(Errno::ENOENT))?;
        if pages.start != object.mapped || pages.end > object.pages {
            return denied(Errno::EINVAL);
        }
        self.check_memory(id, pages.len() as u64)?;
        self.remove_stale_records(root)?;
        let owner = self.memory_owner(root)?.domain;
        self.give_back(root, Vec::new());
        let mut frames = Vec::with_capacity(pages.len());
        let result = self.hold(owner, pages.len(), &mut frames).and_then(|()| {
            let updates = asked.updates(|place| Pte::new(frames[place], PageClass::Joint.pte_flags()));
            self.write_entries(id, owner, &asked, &updates)
        });
        // From here on the mappings keep the frames.
        self.give_back(root, frames);
        result?;
        let nameless = &mut self.books.memory_owner_mut(root).ok_or(Failure::Gone)?.nameless;
        if last {
            nameless.remove(&asked.object);
        } else if let Some(object) = nameless.get_mut(&asked.object) {
            object.mapped = pages.end;
        }
        Ok(())
    }

    /// Maps pages of a memory owner, `owner`, at a pVM: all of them or none.
    pub(super) fn write_entries(
        &mut self,
        id: PvmId,
        owner: DomId,
        asked: &Map,
        updates: &[MmuUpdate],
    ) -> Result<(), Failure> {
        self.operate(Operation::MapObject, |engine| {
            let (done, result) = engine.xen.mmu_update(id.domain(), owner, updates);
            let Err(error) = result else {
                // Prepared domains get the pages, too, before the next fork.
                let given: Vec<Mfn> = updates.iter().map(|update| Pte(update.val).mfn()).collect();
                engine.link_given(id, asked.table, &given);
                return Ok(());
            };
            let absent = asked.updates(|_| Pte::ABSENT);
            if let (1.., Err(error)) =
                (done, engine.xen.mmu_update(id.domain(), id.domain(), absent.get(..done).unwrap_or(&absent)).1)
            {
                log::debug!("{error}");
            }
            match error.errno() {
                Some(Errno::ENOMEM) => Err(error.into()),
                // It is no table of level 1, or not the member's.
                Some(_) => denied(Errno::EINVAL),
                None => Err(error.into()),
            }
        })
    }

    fn unlink_object(&mut self, id: PvmId) -> Result<(), Failure> {
        let (root, asker, channel) = self.asker(id)?;
        let Some(name) = name(channel)? else { return denied(Errno::EINVAL) };
        let memory_owner = self.memory_owner(root)?;
        let number = match memory_owner.find(&name) {
            Some((number, _)) => number,
            // An earlier daemon has done it and was killed before it could answer.
            None if memory_owner.last_unlink == Some(asker) => return Ok(()),
            None => return denied(Errno::ENOENT),
        };
        self.enrol(id)?;
        self.remove_name(root, number, Some(asker))
    }

    /// Removes the name of an object. Its memory stays for as long as it is mapped anywhere.
    pub(super) fn remove_name(&mut self, root: PvmId, number: u32, by: Option<Asker>) -> Result<(), Failure> {
        let owner = self.memory_owner(root)?.domain;
        self.operate(Operation::Record, |engine| object_records::strike(&engine.store, owner, number, by))?;
        let Some(memory_owner) = self.books.memory_owner_mut(root) else { return Ok(()) };
        let frames = memory_owner.objects.remove(&number).map(|object| object.frames).unwrap_or_default();
        memory_owner.last_unlink = by.or(memory_owner.last_unlink);
        self.forget(root, number, frames);
        Ok(())
    }

    /// The named objects of a pVM's family, or of all families.
    pub(super) fn list_objects(&self, target: Option<&Target>) -> Result<Vec<ObjectInfo>, Error> {
        let family = match target {
            Some(target) => {
                let id = self.resolve(target)?;
                Some(self.books.get(id).map_or(id, Pvm::root))
            }
            None => None,
        };
        let mut list = Vec::new();
        for (root, members) in self.books.families().filter(|(root, _)| family.is_none_or(|family| family == *root)) {
            let Some(memory_owner) = &members.memory_owner else { continue };
            for object in memory_owner.objects.values() {
                list.push(ObjectInfo {
                    name: String::from_utf8_lossy(&object.name).into_owned(),
                    pages: object.frames.len() as u64,
                    family: root.raw(),
                    memory_owner: memory_owner.domain.0,
                });
            }
        }
        list.sort_by(|one, other| (one.family, &one.name).cmp(&(other.family, &other.name)));
        Ok(list)
    }

    /// Removes a name that [`list_objects`](Self::list_objects) gives for a pVM's family.
    pub(super) fn remove_object(&mut self, target: &Target, name: &str) -> Result<(), Error> {
        let id = self.resolve(target)?;
        let root = self.books.get(id).map_or(id, Pvm::root);
        let is_it = |object: &Object| String::from_utf8_lossy(&object.name) == name;
        let objects = self.books.memory_owner(root).into_iter().flat_map(|memory_owner| &memory_owner.objects);
        let found = objects.into_iter().find(|(_, object)| is_it(object)).map(|(number, _)| *number);
        let number = found.ok_or_else(|| Error::NoSuchObject { target: target.to_string(), name: name.to_owned() })?;
        self.remove_name(root, number, None).map_err(|failure| Error::Refused { what: failure.to_string() })
    }

    fn relay(&mut self, id: PvmId) -> Result<(), Failure> {
        let (root, _, channel) = self.asker(id)?;
        let number = channel.get(guest::OBJECT) as usize;
        let member = self.memory_owner(root)?.members.id(number);
        let other = member.filter(|id| self.books.get(*id).is_some()).ok_or(Failure::Denied(Errno::ENOENT))?;
        self.enrol(id)?;
        self.tell_members(&[other], None);
        Ok(())
    }
}
