//! The engine's knowledge of one pVM, and of one prepared domain.

use std::collections::VecDeque;

use xen_abi::{DomId, Mfn, PAGE_SIZE, Port};
use xenctl::{CpuPolicy, Memory, SchedParams, TscInfo};
use zooid_fork_plan::id::PvmId;
use zooid_fork_plan::layout::Layout;
use zooid_fork_plan::relink::Linkage;
use zooid_fork_plan::status::Status;
use zooid_fork_plan::wire::{ENDED_SLOTS, daemon, guest};

use super::super::grant_backend::{Copies, Sources};
use super::super::relink::{MemoryOwners, Owners, Source};
use super::super::tables::Tables;

/// The channel to a guest: its control page and the port. Offsets are those of `wire::guest` and
/// `wire::daemon`.
#[derive(Debug)]
pub struct Channel<M> {
    /// The control page.
    pub page: M,
    /// dom0's port.
    pub port: Port,
}

impl<M: Memory> Channel<M> {
    /// Reads a field.
    pub fn get(&self, field: usize) -> u32 {
        self.page.read_u32(field)
    }

    /// Writes a field.
    pub fn put(&self, field: usize, value: u32) {
        self.page.write_u32(field, value);
    }

    /// Address of the snapshot buffer that the guest's COMMIT names. pvmd does not read there, so a
    /// wrong one harms only the guest.
    pub fn snapshot(&self) -> u64 {
        let size = u64::from(self.get(guest::SNAPSHOT_PAGES)) * PAGE_SIZE as u64;
        self.page.read_u64(guest::SNAPSHOT).wrapping_add(size.wrapping_mul(self.get(guest::BUFFER).into()))
    }
}

/// A pVM that has not ended: a root, or a child. Its identity does not change; the books keep the
/// fields that depend on others.
#[derive(Debug)]
pub struct Pvm<M> {
    id: PvmId,
    root: PvmId,
    /// Its ancestors, the root first, and itself last. An ancestor that had ended and had no frame
    /// left when it began is left out.
    owners: Owners,
    pub(super) parent: Option<PvmId>,
    pub(super) sharers: u32,
    pub(super) resumed: bool,
    pub(super) resuming: Vec<PvmId>,
    pub name: String,
    /// The time when it was first seen, in microseconds since 1970.
    pub since_us: u64,
    /// None until its image has announced itself.
    pub channel: Option<Channel<M>>,
    /// The frames of its ancestors that a child was linked to.
    pub linkage: Option<Linkage>,
    /// Its state as a parent, from its first fork or a root's announcement on.
    pub forking: Option<Forking<M>>,
    /// Domains that are prepared for it.
    pub prepared: Vec<Prepared<M>>,
    /// Number of the last request that was taken.
    pub request: u32,
    /// The request that it waits for.
    pub pending: Option<Pending>,
    /// Number of the COMMIT that made it.
    pub commit: u32,
    /// Number of the last COMMIT that made children.
    pub last_commit: u32,
    /// Ends of children for which its ring had no room.
    pub ends: VecDeque<(PvmId, Status)>,
    /// The status with which it has ended or is to end.
    pub killed: Option<Status>,
    /// The rings of a child that was not introduced to xenstored and xenconsoled.
    pub rings: Option<Rings>,
    /// Its home may have more than a mark.
    pub has_home: bool,
}

/// The frames and ports of a child's rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rings {
    /// The console's.
    pub console: (Mfn, Port),
    /// xenstore's.
    pub store: (Mfn, Port),
}

/// The state of a pVM as a parent.
#[derive(Debug)]
pub struct Forking<M> {
    pub layout: Layout,
    pub tables: Tables<M>,
    pub profile: Profile,
    /// The pages that it has granted, if children get copies.
    pub sources: Option<Sources<M>>,
    /// Number of domains to be prepared for it.
    pub pool: u32,
}

/// Properties that children take over from their parent's domain.
#[derive(Clone, Debug)]
pub struct Profile {
    pub cpupool: u32,
    pub tsc: TscInfo,
    pub policy: CpuPolicy,
    /// None if the scheduler has no weights.
    pub sched: Option<SchedParams>,
}

/// A request that is not answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// A PREPARE, until so many domains are prepared.
    Prepare(u32),
    /// A COMMIT of so many children, until the children of the last one have resumed.
    Commit(u32),
    /// A refusal with this error, until its delay is over. A request that comes meanwhile gets it,
    /// too.
    Refused(u32),
    /// A request, by operation and count, until its family is served again.
    Deferred(u32, u32),
    /// A CREATE, until the object is made.
    Create,
    /// A LIBRARY, until the library is read.
    Library,
}

/// A domain that is prepared for a parent.
#[derive(Debug)]
pub struct Prepared<M> {
    pub id: PvmId,
    pub name: String,
    pub channel: Channel<M>,
    pub linkage: Linkage,
    /// Its bitmaps, changed when frames come into use before it is a child.
    pub bitmaps: M,
    /// Destinations of copies of the parent's pages; empty if there are none.
    pub copies: Copies<M>,
    pub rings: Rings,
    /// It is at its waiting point.
    pub waiting: bool,
    /// A relink failed: it is to be destroyed.
    pub broken: bool,
}

impl<M> Prepared<M> {
    /// Its domain.
    pub fn domain(&self) -> DomId {
        self.id.domain()
    }

    /// It can become a child.
    pub fn is_ready(&self) -> bool {
        self.waiting && !self.broken
    }
}

impl<M> Pvm<M> {
    /// A pVM of which only the identity is known. A root has no `ancestors`; their order is the
    /// root first, the parent at the fork last.
    pub fn new(id: PvmId, root: PvmId, ancestors: &[PvmId], name: String, since_us: u64) -> Self {
        Self {
            id,
            root,
            owners: ancestors.iter().copied().chain([id]).collect(),
            parent: None,
            sharers: 0,
            resumed: true,
            resuming: Vec::new(),
            name,
            since_us,
            channel: None,
            linkage: None,
            forking: None,
            prepared: Vec::new(),
            request: 0,
            pending: None,
            commit: 0,
            last_commit: 0,
            ends: VecDeque::new(),
            killed: None,
            rings: None,
            has_home: true,
        }
    }

    /// Makes it a child of `parent`; `resumed` is true if it has resumed already.
    pub fn child_of(self, parent: PvmId, resumed: bool) -> Self {
        Self { parent: Some(parent), resumed, ..self }
    }

    /// Its id.
    pub fn id(&self) -> PvmId {
        self.id
    }

    /// Its domain.
    pub fn domain(&self) -> DomId {
        self.id.domain()
    }

    /// The root of its family; a root's own id.
    pub fn root(&self) -> PvmId {
        self.root
    }

    /// Its parent, or the pVM that adopted it; none for a root, and for an orphan without a root.
    pub fn parent(&self) -> Option<PvmId> {
        self.parent
    }

    /// Its parent at the fork, which may have ended; none for a root.
    pub fn forked_by(&self) -> Option<PvmId> {
        self.ancestors().last().copied()
    }

    /// The pVMs whose frames its tables may name: its ancestors, the root first, and itself last.
    pub fn owners(&self) -> &Owners {
        &self.owners
    }

    /// Its ancestors, the root first.
    pub fn ancestors(&self) -> &[PvmId] {
        self.owners.split_last().map_or(&[], |(_, ancestors)| ancestors)
    }

    /// pvmd has made it, and not a toolstack.
    pub fn is_child(&self) -> bool {
        self.id != self.root
    }

    /// Number of living descendants, adopted ones left out: those that may read its frames.
    #[cfg(test)]
    pub fn sharers(&self) -> u32 {
        self.sharers
    }

    /// It has resumed from its fork; true for a root.
    pub fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// Children that have not resumed yet.
    pub fn resuming(&self) -> &[PvmId] {
        &self.resuming
    }
}

impl<M: Memory> Pvm<M> {
    /// Number of prepared domains that can become children.
    pub fn ready(&self) -> u32 {
        self.prepared.iter().filter(|prepared| prepared.is_ready()).count() as u32
    }

    /// The source that prepared domains are linked to, and these domains; none while it cannot
    /// fork.
    pub fn linking(&mut self, memory_owners: MemoryOwners) -> Option<(Source<'_, M>, &mut [Prepared<M>])> {
        let forking = self.forking.as_ref()?;
        let source = Source {
            domain: self.id.domain(),
            control: self.channel.as_ref().map(|channel| &channel.page),
            tables: &forking.tables,
            owners: &self.owners,
            memory_owners,
            linkage: self.linkage.as_ref(),
            sources: forking.sources.as_ref(),
        };
        Some((source, &mut self.prepared))
    }

    /// Writes their number to its control page.
    pub fn show_ready(&self) {
        if let Some(channel) = &self.channel {
            channel.put(daemon::READY, self.ready());
        }
    }

    /// Puts ends of children into its ring, as far as there is room; true if any was put.
    pub fn show_ends(&mut self) -> bool {
        let Some(channel) = &self.channel else { return false };
        let mut prod = channel.get(daemon::ENDED_PROD);
        let first = prod;
        // The guest's index may be nonsense; then its ring counts as full, to its own harm.
        while prod.wrapping_sub(channel.get(guest::ENDED_CONS)) < ENDED_SLOTS {
            let Some((id, status)) = self.ends.pop_front() else { break };
            let slot = daemon::ENDED + 8 * (prod % ENDED_SLOTS) as usize;
            channel.put(slot, id.raw());
            channel.put(slot + 4, status.to_raw());
            prod = prod.wrapping_add(1);
            channel.put(daemon::ENDED_PROD, prod);
        }
        prod != first
    }
}
