//! What the engine knows of a family's memory owner: who is a member, and which objects there are (docs/protocols/ipc.md).

use std::collections::{BTreeMap, VecDeque};

use xen_abi::{DomId, Mfn};
use xenctl::Memory;
use zooid_fork_plan::id::PvmId;
use zooid_fork_plan::wire::members;

/// A domain that never runs and has the frames of a family's objects.
#[derive(Debug)]
pub struct MemoryOwner<M> {
    pub domain: DomId,
    pub id: PvmId,
    /// The frame of its table of members.
    pub table: Mfn,
    pub members: Members<M>,
    /// Those with a name.
    pub objects: BTreeMap<u32, Object>,
    /// Those without, until they are wholly mapped.
    pub nameless: BTreeMap<u32, Nameless>,
    /// The last number that was given to an object.
    pub last_number: u32,
    /// Frames that are nobody's any more and could not be given back yet.
    pub garbage: Vec<Mfn>,
    /// Objects that have gone and have a record in xenstore still. As long as there is one, no frames are asked of Xen: they may be
    /// those that the record names.
    pub stale: Vec<u32>,
    /// Whose name was removed last, and by which request.
    pub last_unlink: Option<Asker>,
}

/// A request of a member: after a restart of the daemon, the same one may be served again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    pub member: PvmId,
    /// Number of the request.
    pub request: u32,
}

/// Memory that relatives share under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub name: Vec<u8>,
    /// Who has made it.
    pub maker: Asker,
    pub frames: Vec<Mfn>,
}

/// Memory that only its maker knows, which gets its frames as it is mapped: so there are none that a daemon could lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nameless {
    pub maker: PvmId,
    pub pages: usize,
    /// How many of them are mapped.
    pub mapped: usize,
}

impl<M> MemoryOwner<M> {
    /// The object of this name, and its number.
    pub fn find(&self, name: &[u8]) -> Option<(u32, &Object)> {
        let has_name = |(_, object): &(&u32, &Object)| object.name == name;
        self.objects.iter().find(has_name).map(|(number, object)| (*number, object))
    }

    /// A number that no object has.
    pub fn new_number(&mut self) -> u32 {
        loop {
            self.last_number = self.last_number.wrapping_add(1);
            let number = self.last_number;
            let is_known = self.objects.contains_key(&number) || self.nameless.contains_key(&number);
            if !is_known && !self.stale.contains(&number) {
                return number;
            }
        }
    }
}

/// The table of members, which they all can read.
#[derive(Debug)]
pub struct Members<M> {
    page: M,
    /// What stands there, by number.
    ids: Vec<Option<PvmId>>,
    changes: u32,
    /// Numbers that became free last: objects may name those who had them, until all relatives have heard of the end.
    left: VecDeque<usize>,
}

/// How many of these wait.
const LEFT: usize = 32;

impl<M: Memory> Members<M> {
    /// Reads the table, which nobody but the daemon can write.
    pub fn read(page: M) -> Self {
        let id = |number| PvmId::from_raw(page.read_u32(place(number)));
        let ids = (0..members::MAX).map(id).collect();
        let changes = page.read_u32(members::CHANGES);
        Self { page, ids, changes, left: VecDeque::new() }
    }

    /// The number of a member.
    pub fn number(&self, id: PvmId) -> Option<usize> {
        self.ids.iter().position(|member| *member == Some(id))
    }

    /// The member of this number.
    pub fn id(&self, number: usize) -> Option<PvmId> {
        self.ids.get(number).copied().flatten()
    }

    /// All members.
    pub fn ids(&self) -> impl Iterator<Item = PvmId> {
        self.ids.iter().flatten().copied()
    }

    /// Whether there is no place for another one.
    pub fn is_full(&self) -> bool {
        self.ids.iter().all(Option::is_some)
    }

    /// Makes a pVM a member and gives it the lowest number that is free, and has been so for a while if that can be; nothing when all
    /// are in use.
    pub fn add(&mut self, id: PvmId) -> Option<usize> {
        let free = || self.ids.iter().enumerate().filter(|(_, id)| id.is_none()).map(|(number, _)| number);
        let number = free().find(|number| !self.left.contains(number)).or_else(|| free().next())?;
        self.set(number, Some(id));
        Some(number)
    }

    /// Takes a member out.
    pub fn remove(&mut self, id: PvmId) {
        if let Some(number) = self.number(id) {
            self.set(number, None);
            self.left.push_back(number);
            if self.left.len() > LEFT {
                self.left.pop_front();
            }
        }
    }

    fn set(&mut self, number: usize, id: Option<PvmId>) {
        self.ids[number] = id;
        self.page.write_u32(place(number), id.map_or(0, PvmId::raw));
        self.changes = self.changes.wrapping_add(1);
        self.page.write_u32(members::CHANGES, self.changes);
    }
}

/// Where the id of a member stands.
fn place(number: usize) -> usize {
    members::IDS + 4 * number
}
