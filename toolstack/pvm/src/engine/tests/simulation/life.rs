//! What the simulation knows of each life of a domain, from what it did itself and from the hypervisor; never from the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Instant;

use xen_abi::{DomId, Mfn};
use xenctl::fake::Guest;
use zooid_fork_plan::id::Kind;

use super::memory::{Control, DATA_PAGES, HEAP_PAGES};

/// Number of a life: each domain that is ever made has its own.
pub type LifeId = usize;

/// What a pVM's memory holds: the first words of its pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    pub heap: [u64; HEAP_PAGES],
    pub data: [u64; DATA_PAGES],
}

/// How a guest behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// It keeps to the protocol.
    Honest,
    /// It writes what it likes.
    Hostile,
}

/// What an honest guest does now.
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
    /// Of a fork: how many tries are left.
    pub tries: u32,
    /// The number of the request from outside that it carries out; 0: none.
    pub outside: u32,
}

#[derive(Debug)]
pub struct Life {
    pub number: LifeId,
    pub domain: DomId,
    /// Xen's frame of it, which no other life has.
    pub identity: Mfn,
    pub guest: Guest,
    pub nature: Nature,
    /// What its handle says; nothing for a root.
    pub kind: Option<Kind>,
    pub id: u32,
    /// Whom it was made for.
    pub parent: Option<LifeId>,
    pub root: LifeId,
    /// It, or one of those that it descends from, is hostile.
    pub tainted: bool,
    pub doing: Doing,
    pub memory: Contents,
    /// What its children have, by the number of the COMMIT.
    pub forks: BTreeMap<u32, Rc<Contents>>,
    /// Pages of the heap that are write-protected since its last COMMIT.
    pub protected: BTreeSet<usize>,
    pub last_commit: u32,
    pub last_commit_before: u32,
    pub buffer: u32,
    /// Frames that it asked for so far.
    pub populated: u64,
    /// The reply that it saw last.
    pub replied: u32,
    /// The request that takes back another one, which a daemon may answer late.
    pub gave_up: u32,
    /// It has asked for an object to be mapped.
    pub maps: bool,
    /// Children whose ids it was told, and whose ends.
    pub children: BTreeSet<u32>,
    pub ends: BTreeMap<u32, u32>,
    /// Its commit's number as its handle has it.
    pub commit: u32,
    pub went: bool,
    /// A table of its own that it has taken out of its tables, of which dom0 may think that it is one still: its base and frame.
    pub unhooked: Option<(usize, Mfn)>,
    /// Refusals in a row that nothing explains.
    pub refusals: u32,
}

impl Life {
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
