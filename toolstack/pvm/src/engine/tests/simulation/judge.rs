//! Properties that hold after every step.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use xen_abi::{DomId, Errno, Mfn};
use xenctl::DomainInfo;
use zooid_fork_plan::id::{self, Kind, PvmId};
use zooid_fork_plan::wire::{daemon, members, operation};

use super::host::{Found, Host};
use super::instance::{Contents, Doing, Instance, InstanceId, Nature, Request};

/// Longest time that an honest guest waits for an answer, in a family without hostile members,
/// while the daemon runs and nothing fails; below, the added time for each domain of its family,
/// for which work is done as well.
const BOUND: Duration = Duration::from_millis(250);
const EACH: Duration = Duration::from_millis(60);
/// Most refusals in a row without a shortage.
const REFUSALS: u32 = 12;

impl Instance {
    /// It has code that may run.
    pub fn kind_acts(&self) -> bool {
        !matches!(self.kind, Some(Kind::MemoryOwner | Kind::Libraries))
    }
}

impl Host {
    /// Enters a domain that is seen for the first time.
    pub fn meet(&mut self, domain: DomId, nature: Nature) -> InstanceId {
        let number = self.instances.len();
        self.infos = self.fake.guests();
        let info = *self.infos.iter().find(|info| info.id == domain).expect("it is there");
        let handle = id::Handle::parse(domain, &info.handle);
        let id = handle.map(|handle| handle.id).or(PvmId::of_root(domain, &info.handle)).map_or(0, PvmId::raw);
        self.instances.push(Instance {
            number,
            domain,
            identity: info.shared_info_frame,
            guest: self.fake.guest(domain),
            nature,
            kind: None,
            id,
            parent: None,
            root: number,
            tainted: nature == Nature::Hostile,
            doing: Doing::Runs,
            memory: Contents::default(),
            forks: Default::default(),
            protected: BTreeSet::new(),
            last_commit: 0,
            last_commit_before: 0,
            buffer: 0,
            populated: 0,
            replied: 0,
            gave_up: 0,
            maps: false,
            children: BTreeSet::new(),
            ends: Default::default(),
            commit: 0,
            went: false,
            unhooked: None,
            refusals: 0,
        });
        self.by_domain.insert(domain, number);
        self.log(|| format!("instance {number} begins: domain {domain}, {nature:?}"));
        number
    }

    /// Judges the present state.
    pub fn judge(&mut self) -> Result<(), Found> {
        self.observe()?;
        self.judge_frames()?;
        self.judge_unshared()?;
        self.judge_grants()?;
        self.judge_waiting()
    }

    /// Follows the changes of domains.
    pub fn observe(&mut self) -> Result<(), Found> {
        self.infos = self.fake.guests();
        let all = self.infos.clone();
        let gone: Vec<DomId> = self
            .by_domain
            .iter()
            .filter(|(domain, instance)| {
                !all.iter()
                    .any(|info| info.id == **domain && info.shared_info_frame == self.instances[**instance].identity)
            })
            .map(|(domain, _)| *domain)
            .collect();
        for domain in gone {
            let number = self.by_domain.remove(&domain).expect("listed just now");
            self.instances[number].went = true;
            self.served_since.remove(&number);
            self.changed = true;
            self.log(|| format!("instance {number} (domain {domain}) has gone"));
        }
        for info in all {
            let Some(handle) = id::Handle::parse(info.id, &info.handle) else { continue };
            let known = self.by_domain.get(&info.id).copied();
            let number = match known {
                Some(number) => number,
                None => self.meet(info.id, Nature::Honest),
            };
            if self.instances[number].kind.is_none() {
                self.adopt(number, handle)?;
            }
            if self.instances[number].kind == Some(Kind::Prepared) && matches!(handle.kind, Kind::Child | Kind::Ended) {
                self.becomes_child(number, handle)?;
            }
        }
        Ok(())
    }

    /// Enters a domain that the daemon has made, by its handle.
    fn adopt(&mut self, number: InstanceId, handle: id::Handle) -> Result<(), Found> {
        let parent = self
            .instances
            .iter()
            .rev()
            .find(|instance| instance.id == handle.parent.raw())
            .map(|instance| instance.number);
        let (root, nature, tainted) = match parent.map(|parent| &self.instances[parent]) {
            Some(parent) => (parent.root, parent.nature, parent.tainted),
            None => (number, Nature::Honest, true),
        };
        let becomes_hostile = nature == Nature::Hostile || self.random.chance(self.profile.become_hostile, 100);
        let instance = &mut self.instances[number];
        (instance.kind, instance.id, instance.parent, instance.root) =
            (Some(handle.kind), handle.id.raw(), parent, root);
        instance.tainted = tainted;
        instance.doing = Doing::Begins;
        // The nature applies once it is a child. Before, it runs its parent's code.
        instance.nature = nature;
        if becomes_hostile && nature == Nature::Honest {
            instance.commit = u32::MAX;
        }
        let (id, kind) = (instance.id, handle.kind);
        self.log(|| format!("instance {number} is {kind:?} {id} for instance {parent:?}"));
        let new = self.told_ids.insert(id);
        self.found(new, || format!("the id {id} was used before"))
    }

    fn becomes_child(&mut self, number: InstanceId, mut handle: id::Handle) -> Result<(), Found> {
        let parent = self.instances[number].parent.expect("a prepared domain's");
        if handle.kind == Kind::Ended {
            // It has become a child and ended between two looks; the handle has the status.
            handle.commit = self.instances[parent].forks.last_key_value().map_or(0, |(commit, _)| *commit);
        }
        self.made.push_back((self.clock.now(), self.instances[number].root));
        let forks = self.instances[parent].forks.get(&handle.commit).cloned();
        let honest = self.instances[parent].nature == Nature::Honest;
        self.found(!honest || forks.is_some(), || {
            format!(
                "instance {number} becomes a child of instance {parent} by COMMIT {}, which was never asked for",
                handle.commit
            )
        })?;
        let instance = &mut self.instances[number];
        if instance.commit == u32::MAX {
            instance.nature = Nature::Hostile;
            instance.tainted = true;
        }
        instance.kind = Some(Kind::Child);
        instance.commit = handle.commit;
        if let Some(forks) = forks {
            instance.memory = (*forks).clone();
        }
        self.log(|| format!("instance {number} is a child of instance {parent} by COMMIT {}", handle.commit));
        Ok(())
    }

    /// Children that a COMMIT has made.
    pub fn children_of(&self, parent: InstanceId, commit: u32) -> Vec<InstanceId> {
        let made = |instance: &&Instance| {
            instance.parent == Some(parent) && instance.kind == Some(Kind::Child) && instance.commit == commit
        };
        self.instances.iter().filter(made).map(|instance| instance.number).collect()
    }

    /// A parent is told of a child.
    pub fn told_child(&mut self, parent: InstanceId, id: u32, commit: u32) -> Result<(), Found> {
        let child = self.instances.iter().find(|instance| instance.id == id);
        let own = child.is_some_and(|child| child.parent == Some(parent) && child.commit == commit || child.tainted);
        self.found(own, || format!("instance {parent} is told of the child {id}, which is none of COMMIT {commit}"))?;
        let new = self.instances[parent].children.insert(id);
        self.found(new, || format!("instance {parent} is told of the child {id} twice"))
    }

    /// A pVM is told of an end.
    pub fn told_end(&mut self, parent: InstanceId, id: u32, status: u32) -> Result<(), Found> {
        self.log(|| format!("instance {parent} is told that {id} has ended: {status:#x}"));
        self.instances[parent].children.remove(&id);
        self.instances[parent].ends.insert(id, status);
        let Some(child) = self.instances.iter().find(|instance| instance.id == id) else {
            return self.found(false, || format!("instance {parent} is told of the end of {id}, which nobody is"));
        };
        let number = child.number;
        self.found(child.root == self.instances[parent].root, || {
            format!("instance {parent} is told of the end of instance {number}, which is of another family")
        })?;
        self.found(!self.still_runs(number), || {
            format!("instance {parent} is told of the end of instance {number}, which runs")
        })?;
        let asks = self.instances[parent].control().is_some_and(|control| control.get(daemon::MEMBER) != 0);
        self.found(!asks || !self.is_member(number), || {
            format!("instance {parent} is told of the end of instance {number}, which is in the table of members")
        })
    }

    /// The frame of the table of members that a memory owner has.
    fn members_table(&self, owner: &Instance) -> Option<Mfn> {
        let path = format!("/local/domain/{}/members", owner.domain);
        self.store.read(&path).ok()?.parse().ok().map(Mfn)
    }

    /// It stands in its family's table of members.
    fn is_member(&self, number: InstanceId) -> bool {
        let instance = &self.instances[number];
        let mut owners =
            self.instances.iter().filter(|owner| owner.kind == Some(Kind::MemoryOwner) && owner.root == instance.root);
        owners.any(|owner| {
            let Some(table) = self.members_table(owner) else { return false };
            let page = self.fake.guest(owner.domain).page(table);
            (0..members::MAX).map(|at| members::IDS + 4 * at).any(|at| page[at..at + 4] == instance.id.to_le_bytes())
        })
    }

    /// It is honest, can run code, and has not said that it has ended.
    fn still_runs(&self, number: InstanceId) -> bool {
        let instance = &self.instances[number];
        self.runs(number) && instance.doing != Doing::HasEnded && instance.nature == Nature::Honest
    }

    /// Its domain can run code.
    pub fn runs(&self, number: InstanceId) -> bool {
        let identity = self.instances[number].identity;
        self.infos.iter().any(|info| {
            info.shared_info_frame == identity
                && !info.is_dying()
                && !info.is_paused()
                && info.shutdown_reason().is_none()
        })
    }

    /// No domain can read or write a frame of another one that it was not given.
    fn judge_frames(&mut self) -> Result<(), Found> {
        let version = self.fake.entries_version();
        if std::mem::replace(&mut self.version, version) == version {
            return Ok(());
        }
        let entries = self.fake.foreign_entries();
        let mut now = BTreeMap::new();
        let mut new = Vec::new();
        for entry in entries {
            let (Some(instance), Some(owner)) = (self.by_domain.get(&entry.domain), self.by_domain.get(&entry.owner))
            else {
                continue;
            };
            let key = (*instance, entry.mfn, entry.writable);
            now.insert(key, *owner);
            if !self.judged.contains_key(&key) {
                new.push((*instance, *owner, entry.mfn, entry.writable));
            }
        }
        for (instance, owner, mfn, writable) in new {
            self.judge_entry(&now, instance, owner, mfn, writable)?;
        }
        self.judged = now;
        Ok(())
    }

    fn judge_entry(
        &self,
        now: &BTreeMap<(InstanceId, Mfn, bool), InstanceId>,
        number: InstanceId,
        owner: InstanceId,
        mfn: Mfn,
        writable: bool,
    ) -> Result<(), Found> {
        let (instance, owner) = (&self.instances[number], &self.instances[owner]);
        let can = if writable { "write" } else { "read" };
        let whose = || {
            format!(
                "instance {number} (domain {}, {:?}) can {can} frame {:#x} of instance {} (domain {}, {:?}), which it was not given",
                instance.domain, instance.kind, mfn.0, owner.number, owner.domain, owner.kind
            )
        };
        let parent_has = instance.parent.is_some_and(|parent| {
            let has = |writable| {
                now.contains_key(&(parent, mfn, writable)) || self.judged.contains_key(&(parent, mfn, writable))
            };
            has(writable) || !writable && has(true)
        });
        match owner.kind {
            Some(Kind::MemoryOwner) => {
                self.found(owner.root == instance.root, whose)?;
                let is_members = self.members_table(owner) == Some(mfn);
                self.found(!(is_members && writable), whose)?;
                self.found(is_members || parent_has || instance.maps, whose)
            }
            // A prepared domain, or a child, has its parent's frames, and those that its parent can
            // read itself.
            _ => self.found(!writable && (instance.parent == Some(owner.number) || parent_has), whose),
        }
    }

    /// A pVM that is told that its frames are unshared shares them with no domain that runs.
    fn judge_unshared(&mut self) -> Result<(), Found> {
        let shared = self.shared();
        for instance in
            self.instances.iter().filter(|instance| !instance.went && !instance.tainted && instance.is_pvm())
        {
            if instance.last_commit == 0 || matches!(instance.doing, Doing::HasEnded | Doing::Begins) {
                continue;
            }
            // Until the answer, its control page is about the COMMIT before.
            if matches!(&instance.doing, Doing::Asks(request) if request.operation == operation::COMMIT) {
                continue;
            }
            let Some(control) = instance.control() else { continue };
            if control.get(daemon::UNSHARED) != instance.last_commit {
                continue;
            }
            if let Some((other, mfn)) = shared.get(&instance.number) {
                return Err(Found(format!(
                    "instance {} is told that nobody shares its frames, and instance {other} has its frame {:#x}",
                    instance.number, mfn.0
                )));
            }
        }
        Ok(())
    }

    /// The owners of frames that children which run have too, each with one such child and frame.
    fn shared(&self) -> BTreeMap<InstanceId, (InstanceId, Mfn)> {
        let has_it = |number: InstanceId| {
            let child = &self.instances[number];
            child.kind == Some(Kind::Child) && child.doing != Doing::HasEnded && self.runs(number)
        };
        let mut shared = BTreeMap::new();
        // The entries of one domain follow each other.
        let mut last = (InstanceId::MAX, false);
        for ((number, mfn, _), owner) in &self.judged {
            if last.0 != *number {
                last = (*number, has_it(*number));
            }
            if last.1 {
                shared.entry(*owner).or_insert((*number, *mfn));
            }
        }
        shared
    }

    /// dom0 maps no more of guests' grants than they grant now. Each of these guests names one list
    /// of grants.
    fn judge_grants(&self) -> Result<(), Found> {
        let (mapped, most) = (self.fake.maptrack(), 1200 * self.infos.len() + 600);
        self.found(mapped <= most, || format!("dom0 has {mapped} grants mapped, for {} domains", self.infos.len()))
    }

    /// No honest guest waits for long.
    fn judge_waiting(&mut self) -> Result<(), Found> {
        for (number, since) in &self.served_since {
            let instance = &self.instances[*number];
            let Doing::Asks(request) = &instance.doing else { continue };
            let root = &self.instances[instance.root];
            let faults = self.faults.lock().unwrap().last;
            let quiet = faults.is_none_or(|last| self.clock.since(last) > Duration::from_secs(1));
            // Delays by hostile relatives concern its own family alone.
            let alone =
                !self.instances.iter().any(|other| other.root == instance.root && other.nature == Nature::Hostile);
            let waited = self.service - *since;
            let family =
                self.instances.iter().filter(|other| other.root == instance.root && !other.went).count() as u32;
            // In a full family, or on a host with a shortage, refusals are delayed, each behind the
            // one before.
            let is_full = matches!(self.profile.kind, "chain" | "short");
            // A destroyed domain stays for as long as relatives have frames of it.
            let is_it = |info: &&DomainInfo| info.shared_info_frame == instance.identity;
            let is_destroyed = self.infos.iter().find(is_it).is_none_or(DomainInfo::is_dying);
            let served = is_full || !quiet || !alone || root.went || is_destroyed || waited < BOUND + EACH * family;
            self.found(served, || {
                format!(
                    "instance {number} waits for {waited:?} for an answer to request {} ({})",
                    request.number, request.operation
                )
            })?;
        }
        Ok(())
    }

    /// A refused fork of an honest guest has a reason.
    pub fn judge_refusal(&mut self, number: InstanceId, request: &Request, errno: u32) -> Result<(), Found> {
        let now = self.clock.now();
        let second = Duration::from_secs(1);
        while self.made.front().is_some_and(|(when, _)| self.clock.since(*when) > second) {
            self.made.pop_front();
        }
        let root = self.instances[number].root;
        let (family, host) = self.profile.rates;
        let made = self.made.len() as u32 + request.count;
        let own = self.made.iter().filter(|(_, of)| *of == root).count() as u32 + request.count;
        let quiet = self.faults.lock().unwrap().last.is_none_or(|last| now - last > second);
        let short = self.profile.pages < 5000 || self.profile.domains < 30;
        let members = self.instances.iter().filter(|instance| instance.root == root && !instance.went).count() as u32;
        let full = members + request.count + 6 >= self.profile.family;
        let plain = quiet && !short && !full && own * 2 < family && made * 2 < host;
        if plain && request.operation == operation::COMMIT && errno == Errno::EAGAIN.0 {
            return self.found(false, || {
                format!(
                    "instance {number} is refused a COMMIT (EAGAIN), though {made} forks were made of {host} in a second"
                )
            });
        }
        let instance = &mut self.instances[number];
        instance.refusals = if plain { instance.refusals + 1 } else { 0 };
        let refusals = instance.refusals;
        self.found(refusals < REFUSALS, || {
            format!("instance {number} is refused a fork {refusals} times in a row, at last with {errno}, though nothing is short")
        })
    }
}
