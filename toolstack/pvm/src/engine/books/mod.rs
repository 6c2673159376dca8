//! The books: the engine's knowledge of pVMs, families, memory owners, libraries and ended pVMs.
//!
//! A pVM is known by its [`PvmId`]. A domain number is looked up and never kept as an identity,
//! because Xen gives numbers out again. Each change is one method here, which keeps these facts:
//!
//! - a number leads to the living pVM that has it, and to no other;
//! - [`Pvm::sharers`] is the number of living pVMs that name a pVM among their ancestors;
//! - [`Pvm::resuming`] lists the children of a pVM that have not resumed;
//! - a family is there for as long as it has a living member.
//!
//! Nothing here calls Xen or xenstore, and nothing indexes: an absent entry is `None`.

mod family;
mod pvm;

use std::collections::{BTreeMap, VecDeque};

use xen_abi::DomId;
use zooid_fork_plan::id::{Handle, PvmId};

pub use self::family::{Account, Family, Rate};
pub use self::pvm::{Channel, Forking, Pending, Prepared, Profile, Pvm, Rings};
use super::api::PvmInfo;
use super::libraries::Libraries;
use super::memory_owner::MemoryOwner;
use super::relink::MemoryOwners;
use super::sabotage::{self, Sabotage};

/// Ended pVMs that are remembered.
const REMEMBERED: usize = 256;

/// See the module's description.
#[derive(Debug)]
pub struct Books<M> {
    pvms: BTreeMap<PvmId, Pvm<M>>,
    /// The living pVM that has each number.
    numbers: BTreeMap<DomId, PvmId>,
    /// Families by their roots' ids. A root may have ended.
    families: BTreeMap<PvmId, Family<M>>,
    /// Libraries that pVMs have opened, from the first time on.
    libraries: Option<Libraries<M>>,
    /// pVMs that have ended, the last one last.
    ended: VecDeque<PvmInfo>,
    /// Generation of the last id that was given out.
    generation: u16,
}

/// A pVM that has left the books, and the consequences.
#[derive(Debug)]
pub struct Removed<M> {
    /// The pVM.
    pub pvm: Pvm<M>,
    /// Its ancestors that share frames with no living pVM any more.
    pub unshared: Vec<PvmId>,
    /// Its children, which have another parent now.
    pub orphans: Vec<PvmId>,
    /// Its parent at the fork, if that lives and waited for it to resume.
    pub waiting: Option<PvmId>,
    /// Its family, if it was the last member.
    pub family: Option<Family<M>>,
}

impl<M> Books<M> {
    /// Empty books, whose ids begin behind this generation.
    pub fn new(generation: u16) -> Self {
        Self {
            pvms: BTreeMap::new(),
            numbers: BTreeMap::new(),
            families: BTreeMap::new(),
            libraries: None,
            ended: VecDeque::new(),
            generation,
        }
    }

    /// The living pVM with this id.
    pub fn get(&self, id: PvmId) -> Option<&Pvm<M>> {
        self.pvms.get(&id)
    }

    /// As [`get`](Self::get), to be changed.
    pub fn get_mut(&mut self, id: PvmId) -> Option<&mut Pvm<M>> {
        self.pvms.get_mut(&id)
    }

    /// The id of the living pVM that has this number now.
    pub fn id_of(&self, domain: DomId) -> Option<PvmId> {
        self.numbers.get(&domain).copied()
    }

    /// All living pVMs.
    pub fn iter(&self) -> impl Iterator<Item = &Pvm<M>> {
        self.pvms.values()
    }

    /// Their ids, as they are now.
    pub fn ids(&self) -> Vec<PvmId> {
        self.pvms.keys().copied().collect()
    }

    /// Their number.
    pub fn len(&self) -> usize {
        self.pvms.len()
    }

    /// Living members of a family.
    pub fn members(&self, root: PvmId) -> impl Iterator<Item = &Pvm<M>> {
        self.pvms.values().filter(move |pvm| pvm.root() == root)
    }

    /// A living pVM and its family.
    pub fn with_family(&mut self, id: PvmId) -> Option<(&mut Pvm<M>, &mut Family<M>)> {
        let pvm = self.pvms.get_mut(&id)?;
        let family = self.families.get_mut(&pvm.root())?;
        Some((pvm, family))
    }

    /// A family that has a living member, by its root's id.
    pub fn family(&self, root: PvmId) -> Option<&Family<M>> {
        self.families.get(&root)
    }

    /// As [`family`](Self::family), to be changed.
    pub fn family_mut(&mut self, root: PvmId) -> Option<&mut Family<M>> {
        self.families.get_mut(&root)
    }

    /// All families, with their roots' ids.
    pub fn families(&self) -> impl Iterator<Item = (PvmId, &Family<M>)> {
        self.families.iter().map(|(root, family)| (*root, family))
    }

    /// The domain that holds a family's shared memory.
    pub fn memory_owner(&self, root: PvmId) -> Option<&MemoryOwner<M>> {
        self.families.get(&root)?.memory_owner.as_ref()
    }

    /// As [`memory_owner`](Self::memory_owner), to be changed.
    pub fn memory_owner_mut(&mut self, root: PvmId) -> Option<&mut MemoryOwner<M>> {
        self.families.get_mut(&root)?.memory_owner.as_mut()
    }

    /// The domains that never run and whose frames members of a family map.
    pub fn memory_owners_of(&self, root: PvmId) -> MemoryOwners {
        let family = self.memory_owner(root);
        MemoryOwners {
            family: family.map(|owner| owner.domain),
            members: family.map(|owner| owner.table),
            libraries: self.libraries.as_ref().map(|libraries| libraries.domain),
        }
    }

    /// The host's libraries.
    pub fn libraries(&self) -> Option<&Libraries<M>> {
        self.libraries.as_ref()
    }

    /// As [`libraries`](Self::libraries), to be changed.
    pub fn libraries_mut(&mut self) -> Option<&mut Libraries<M>> {
        self.libraries.as_mut()
    }

    /// Sets, or with `None` removes, the host's libraries; the previous ones.
    pub fn set_libraries(&mut self, libraries: Option<Libraries<M>>) -> Option<Libraries<M>> {
        std::mem::replace(&mut self.libraries, libraries)
    }

    /// An id for a domain that was made just now.
    pub fn new_id(&mut self, domain: DomId) -> PvmId {
        loop {
            self.generation = self.generation.wrapping_add(1);
            if sabotage::is(Sabotage::SameIds) {
                self.generation = self.generation % 4 + 1;
            }
            if let Some(id) = PvmId::new(domain, self.generation)
                && self.generation != 0
                && !self.pvms.contains_key(&id)
                && !self.ended.iter().any(|ended| ended.id == id.raw())
            {
                return id;
            }
        }
    }

    /// Has later ids come behind this one, which an earlier daemon gave out.
    pub fn skip_id(&mut self, id: PvmId) {
        self.generation = self.generation.max((id.raw() >> 15) as u16);
    }

    /// Adds a pVM. An earlier one of its number has to be removed before: false while it is there.
    #[must_use]
    pub fn add(&mut self, pvm: Pvm<M>, account: impl FnOnce() -> Account) -> bool {
        let (id, mut pvm) = (pvm.id(), pvm);
        if self.pvms.contains_key(&id) || self.numbers.contains_key(&id.domain()) {
            return false;
        }
        for ancestor in pvm.ancestors() {
            if let Some(ancestor) = self.pvms.get_mut(ancestor) {
                ancestor.sharers += 1;
            }
        }
        // Only a root can be seen after its descendants, when it announces itself to a daemon that
        // had missed it.
        if !pvm.is_child() {
            let descends = |other: &&Pvm<M>| other.ancestors().contains(&id);
            pvm.sharers = self.pvms.values().filter(descends).count() as u32;
            let resumes = |other: &&Pvm<M>| !other.resumed && other.forked_by() == Some(id);
            pvm.resuming = self.pvms.values().filter(resumes).map(Pvm::id).collect();
        }
        if let (false, Some(parent)) = (pvm.resumed, pvm.forked_by().and_then(|parent| self.pvms.get_mut(&parent))) {
            parent.resuming.push(id);
        }
        let family = self.families.entry(pvm.root()).or_insert_with(|| {
            // The name of a child is its family's, and its id.
            let suffix = format!("-{id}");
            let name = if pvm.is_child() { pvm.name.strip_suffix(&suffix) } else { None };
            Family::new(name.unwrap_or(&pvm.name).to_owned(), account())
        });
        family.members += 1;
        self.numbers.insert(id.domain(), id);
        self.pvms.insert(id, pvm);
        true
    }

    /// Records that a child runs; its parent at the fork, if that lives.
    pub fn resumed(&mut self, id: PvmId) -> Option<PvmId> {
        let pvm = self.pvms.get_mut(&id)?;
        pvm.resumed = true;
        let parent = pvm.forked_by()?;
        self.pvms.get_mut(&parent)?.resuming.retain(|child| *child != id);
        Some(parent)
    }

    /// Removes a pVM that has ended. Its children get the root of the family for their parent, or
    /// none if that has ended.
    pub fn remove(&mut self, id: PvmId) -> Option<Removed<M>> {
        let pvm = self.pvms.remove(&id)?;
        self.numbers.remove(&id.domain());
        let mut unshared = Vec::new();
        for ancestor in pvm.ancestors() {
            let Some(ancestor) = self.pvms.get_mut(ancestor) else { continue };
            ancestor.sharers -= 1;
            if ancestor.sharers == 0 {
                unshared.push(ancestor.id());
            }
        }
        let waiting = pvm.forked_by().filter(|parent| {
            let Some(parent) = self.pvms.get_mut(parent) else { return false };
            let before = parent.resuming.len();
            parent.resuming.retain(|child| *child != id);
            parent.resuming.len() != before
        });
        let root = Some(pvm.root()).filter(|root| self.pvms.contains_key(root));
        let mut orphans = Vec::new();
        for child in self.pvms.values_mut().filter(|child| child.parent == Some(id)) {
            child.parent = root;
            orphans.push(child.id());
        }
        let family = self.families.get_mut(&pvm.root()).is_some_and(|family| {
            family.members -= 1;
            family.members == 0
        });
        let family = if family { self.families.remove(&pvm.root()) } else { None };
        Some(Removed { pvm, unshared, orphans, waiting, family })
    }

    /// Completes the books after pVMs of an earlier daemon were added in any order. A pVM whose
    /// parent has ended gets the root of its family for a parent.
    pub fn after_recovery(&mut self) {
        let Self { pvms, numbers, .. } = self;
        let is_living = |id: &PvmId| numbers.get(&id.domain()) == Some(id);
        let mut ancestors = Vec::new();
        let mut resuming = Vec::new();
        for pvm in pvms.values_mut() {
            if pvm.parent.is_some_and(|parent| !is_living(&parent)) {
                pvm.parent = Some(pvm.root()).filter(is_living);
            }
            (pvm.sharers, pvm.resuming) = (0, Vec::new());
            ancestors.extend_from_slice(pvm.ancestors());
            resuming.extend(pvm.forked_by().filter(|_| !pvm.resumed).map(|parent| (parent, pvm.id())));
        }
        for ancestor in ancestors {
            if let Some(ancestor) = pvms.get_mut(&ancestor) {
                ancestor.sharers += 1;
            }
        }
        for (parent, child) in resuming {
            if let Some(parent) = pvms.get_mut(&parent) {
                parent.resuming.push(child);
            }
        }
    }

    /// Remembers a pVM that has ended.
    pub fn remember(&mut self, info: PvmInfo) {
        if self.ended.len() == REMEMBERED {
            self.ended.pop_front();
        }
        self.ended.push_back(info);
    }

    /// pVMs that ended lately, the last one last.
    pub fn ended(&self) -> impl DoubleEndedIterator<Item = &PvmInfo> {
        self.ended.iter()
    }

    /// The name of a pVM that lives, or ended lately.
    pub fn name_of(&self, id: PvmId) -> Option<String> {
        let living = self.pvms.get(&id).map(|pvm| &pvm.name);
        living.or_else(|| self.ended().rev().find(|info| info.id == id.raw()).map(|info| &info.name)).cloned()
    }

    /// The name of a family: its root's, even if that has ended.
    pub fn family_name(&self, root: PvmId) -> Option<&str> {
        self.families.get(&root).map(|family| family.name.as_str())
    }

    /// Compares derived facts with their sources.
    ///
    /// # Panics
    /// They differ.
    #[cfg(test)]
    pub fn check(&self) {
        assert_eq!(self.numbers.len(), self.pvms.len());
        for (domain, id) in &self.numbers {
            assert_eq!((id.domain(), self.pvms.contains_key(id)), (*domain, true));
        }
        for (id, pvm) in &self.pvms {
            assert_eq!(*id, pvm.id());
            let sharers = self.pvms.values().filter(|other| other.ancestors().contains(id)).count();
            assert_eq!(pvm.sharers() as usize, sharers, "sharers of {id}");
            let resuming = self.pvms.values().filter(|child| child.forked_by() == Some(*id) && !child.is_resumed());
            let mut resuming: Vec<PvmId> = resuming.map(Pvm::id).collect();
            let mut listed = pvm.resuming().to_vec();
            resuming.sort();
            listed.sort();
            assert_eq!(listed, resuming, "children of {id} that have not resumed");
            assert!(pvm.parent().is_none_or(|parent| self.pvms.contains_key(&parent)), "the parent of {id} lives");
        }
        for (root, family) in &self.families {
            assert_eq!(family.members as usize, self.members(*root).count(), "members of {root}");
            assert!(family.members > 0);
        }
    }
}

/// The id that a domain's handle stands for, be it one of ours or a toolstack's.
pub fn id_of_handle(domain: DomId, handle: &[u8; 16]) -> Option<PvmId> {
    match Handle::parse(domain, handle) {
        Some(handle) => Some(handle.id),
        None => PvmId::of_root(domain, handle),
    }
}

/// The domain has, or had, this id: it is no other one with its number.
pub fn is_domain_of(info: &xenctl::DomainInfo, id: PvmId) -> bool {
    info.id == id.domain() && id_of_handle(info.id, &info.handle) == Some(id)
}
