//! A family's memory owner: its members and objects (docs/protocols/ipc.md).

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
    /// Objects with a name.
    pub objects: BTreeMap<u32, Object>,
    /// Objects without a name that are not wholly mapped yet.
    pub nameless: BTreeMap<u32, Nameless>,
    /// The number that was given out last.
    pub last_number: u32,
    /// Frames that no object has any more and that could not be given back yet.
    pub garbage: Vec<Mfn>,
    /// Objects that have gone and still have a record in xenstore. While there is one, no frames
    /// are asked of Xen: they could be those that the record names.
    pub stale: Vec<u32>,
    /// The request that removed a name last.
    pub last_unlink: Option<Asker>,
}

/// A request of a member. After a restart of the daemon, the same request may be served again.
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
    /// The request that made it.
    pub maker: Asker,
    pub frames: Vec<Mfn>,
}

/// Memory that only its maker knows. It gets its frames as they are mapped, so a killed daemon
/// leaves none behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nameless {
    pub maker: PvmId,
    pub pages: usize,
    /// Number of pages that are mapped.
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

/// The table of members, which all of them can read.
#[derive(Debug)]
pub struct Members<M> {
    page: M,
    /// The members, by number.
    ids: Vec<Option<PvmId>>,
    /// Their numbers.
    numbers: BTreeMap<PvmId, usize>,
    changes: u32,
    /// Numbers that became free last. Objects may name their former members until all relatives
    /// have heard of the end.
    left: VecDeque<usize>,
}

/// Most numbers that wait in this way.
const LEFT: usize = 32;

impl<M: Memory> Members<M> {
    /// Reads the table, which only the daemon can write.
    pub fn read(page: M) -> Self {
        let id = |number| PvmId::from_raw(page.read_u32(place(number)));
        let ids: Vec<_> = (0..members::MAX).map(id).collect();
        let numbers = ids.iter().enumerate().filter_map(|(number, id)| Some(((*id)?, number))).collect();
        let changes = page.read_u32(members::CHANGES);
        Self { page, ids, numbers, changes, left: VecDeque::new() }
    }

    /// The number of a member.
    pub fn number(&self, id: PvmId) -> Option<usize> {
        self.numbers.get(&id).copied()
    }

    /// The member of this number.
    pub fn id(&self, number: usize) -> Option<PvmId> {
        self.ids.get(number).copied().flatten()
    }

    /// All members.
    pub fn ids(&self) -> impl Iterator<Item = PvmId> {
        self.numbers.keys().copied()
    }

    /// The table has no free place.
    pub fn is_full(&self) -> bool {
        self.numbers.len() == self.ids.len()
    }

    /// Makes a pVM a member and gives it the lowest free number, preferably one that has been free
    /// for a while; none when all are in use.
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
        if let Some(before) = std::mem::replace(&mut self.ids[number], id) {
            self.numbers.remove(&before);
        }
        self.numbers.extend(id.map(|id| (id, number)));
        self.page.write_u32(place(number), id.map_or(0, PvmId::raw));
        self.changes = self.changes.wrapping_add(1);
        self.page.write_u32(members::CHANGES, self.changes);
    }
}

/// Offset of a member's id in the table.
fn place(number: usize) -> usize {
    members::IDS + 4 * number
}
