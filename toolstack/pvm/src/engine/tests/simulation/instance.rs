//! The simulation's knowledge of each domain, from its own acts and from the hypervisor; never from
//! the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Instant;

use xen_abi::{DomId, Mfn};
use xenctl::fake::Guest;
use zooid_fork_plan::id::Kind;

use super::memory::{Control, DATA_PAGES, HEAP_PAGES};

/// Number of an instance. Each domain that is ever made has its own, while domids come again.
pub type InstanceId = usize;

/// The memory of a pVM: the first words of its pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    pub heap: [u64; HEAP_PAGES],
    pub data: [u64; DATA_PAGES],
}

/// The behaviour of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// It keeps to the protocol.
    Honest,
    /// It writes anything.
    Hostile,
}

/// The present act of an honest guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doing {
    /// A prepared domain that boots, waits, or resumes.
    Begins,
    /// Nothing, or writing.
    Runs,
    /// It waits for the answer to a request.
    Asks(Request),
    /// It has said that it has ended.
    HasEnded,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub number: u32,
    pub operation: u32,
    pub count: u32,
    pub since: Instant,
    /// Tries to fork that are left.
    pub tries: u32,
    /// The number of the request from outside that it carries out; 0 for none.
    pub outside: u32,
}

#[derive(Debug)]
pub struct Instance {
    pub number: InstanceId,
    pub domain: DomId,
    /// The frame of its shared info, which no other instance has.
    pub identity: Mfn,
    pub guest: Guest,
    pub nature: Nature,
    /// The kind in its handle; none for a root.
    pub kind: Option<Kind>,
    pub id: u32,
    /// The instance that it was made for.
    pub parent: Option<InstanceId>,
    pub root: InstanceId,
    /// It, or one of its ancestors, is hostile.
    pub tainted: bool,
    pub doing: Doing,
    pub memory: Contents,
    /// The memory of its children, by the number of the COMMIT.
    pub forks: BTreeMap<u32, Rc<Contents>>,
    /// Pages of the heap that are write-protected since its last COMMIT.
    pub protected: BTreeSet<usize>,
    pub last_commit: u32,
    pub last_commit_before: u32,
    pub buffer: u32,
    /// Number of frames that it has asked for.
    pub populated: u64,
    /// The last reply that it saw.
    pub replied: u32,
    /// The request that replaces one it has given up, which a daemon may answer late.
    pub gave_up: u32,
    /// It has asked for an object to be mapped.
    pub maps: bool,
    /// Children whose ids it was told; below, the ends that it was told.
    pub children: BTreeSet<u32>,
    pub ends: BTreeMap<u32, u32>,
    /// The number of the COMMIT in its handle.
    pub commit: u32,
    pub went: bool,
    /// The base and frame of a table that it has taken out of its tree, and that dom0 may still
    /// take for a table.
    pub unhooked: Option<(usize, Mfn)>,
    /// Unexplained refusals in a row.
    pub refusals: u32,
}

impl Instance {
    pub fn control(&self) -> Option<Control> {
        Control::of(&self.guest)
    }

    pub fn is_root(&self) -> bool {
        self.kind.is_none()
    }

    /// It is a pVM: a root or a child.
    pub fn is_pvm(&self) -> bool {
        matches!(self.kind, None | Some(Kind::Child))
    }
}
