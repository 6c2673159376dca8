//! Properties that hold after every step.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use xen_abi::{DomId, Errno, Mfn};
use zooid_fork_plan::id::{self, Kind, PvmId};
use zooid_fork_plan::wire::{daemon, operation};

use super::host::{Found, Host};
use super::life::{Contents, Doing, Life, LifeId, Nature, Request};

/// Longest time that an honest guest waits for an answer, in a family without hostile members,
/// while the daemon runs and nothing fails; below, the added time for each domain of its family,
/// for which work is done as well.
const BOUND: Duration = Duration::from_millis(250);
const EACH: Duration = Duration::from_millis(60);
/// Most refusals in a row without a shortage.
const REFUSALS: u32 = 12;

impl Life {
    /// It has code that may run.
    pub fn kind_acts(&self) -> bool {
        !matches!(self.kind, Some(Kind::MemoryOwner | Kind::Libraries))
    }
}

impl Host {
    /// Enters a domain that is seen for the first time.
    pub fn meet(&mut self, domain: DomId, nature: Nature) -> LifeId {
        let number = self.lives.len();
        self.infos = self.fake.guests();
        let info = *self.infos.iter().find(|info| info.id == domain).expect("it is there");
        let handle = id::Handle::parse(domain, &info.handle);
        let id = handle.map(|handle| handle.id).or(PvmId::of_root(domain, &info.handle)).map_or(0, PvmId::raw);
        self.lives.push(Life {
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
        self.note(|| format!("life {number} begins: domain {domain}, {nature:?}"));
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
            .filter(|(domain, life)| {
                !all.iter().any(|info| info.id == **domain && info.shared_info_frame == self.lives[**life].identity)
            })
            .map(|(domain, _)| *domain)
            .collect();
        for domain in gone {
            let number = self.by_domain.remove(&domain).expect("listed just now");
            self.lives[number].went = true;
            self.served_since.remove(&number);
            self.changed = true;
            self.note(|| format!("life {number} (domain {domain}) has gone"));
        }
        for info in all {
            let Some(handle) = id::Handle::parse(info.id, &info.handle) else { continue };
            let known = self.by_domain.get(&info.id).copied();
            let number = match known {
                Some(number) => number,
                None => self.meet(info.id, Nature::Honest),
            };
            if self.lives[number].kind.is_none() {
                self.adopt(number, handle)?;
            }
            if self.lives[number].kind == Some(Kind::Prepared) && matches!(handle.kind, Kind::Child | Kind::Ended) {
                self.becomes_child(number, handle)?;
            }
        }
        Ok(())
    }

    /// Enters a domain that the daemon has made, by its handle.
    fn adopt(&mut self, number: LifeId, handle: id::Handle) -> Result<(), Found> {
        let parent = self.lives.iter().rev().find(|life| life.id == handle.parent.raw()).map(|life| life.number);
        let (root, nature, tainted) = match parent.map(|parent| &self.lives[parent]) {
            Some(parent) => (parent.root, parent.nature, parent.tainted),
            None => (number, Nature::Honest, true),
        };
        let turns = nature == Nature::Hostile || self.random.chance(self.profile.hostile_turns, 100);
        let life = &mut self.lives[number];
        (life.kind, life.id, life.parent, life.root) = (Some(handle.kind), handle.id.raw(), parent, root);
        life.tainted = tainted;
        life.doing = Doing::Begins;
        // The nature applies once it is a child. Before, it runs its parent's code.
        life.nature = nature;
        if turns && nature == Nature::Honest {
            life.commit = u32::MAX;
        }
        let (id, kind) = (life.id, handle.kind);
        self.note(|| format!("life {number} is {kind:?} {id} for life {parent:?}"));
        let new = self.told_ids.insert(id);
        self.found(new, || format!("the id {id} was used before"))
    }

    fn becomes_child(&mut self, number: LifeId, mut handle: id::Handle) -> Result<(), Found> {
        let parent = self.lives[number].parent.expect("a prepared domain's");
        if handle.kind == Kind::Ended {
            // It has become a child and ended between two looks; the handle has the status.
            handle.commit = self.lives[parent].forks.last_key_value().map_or(0, |(commit, _)| *commit);
        }
        self.made.push_back((self.clock.now(), self.lives[number].root));
        let forks = self.lives[parent].forks.get(&handle.commit).cloned();
        let honest = self.lives[parent].nature == Nature::Honest;
        self.found(!honest || forks.is_some(), || {
            format!(
                "life {number} becomes a child of life {parent} by COMMIT {}, which was never asked for",
                handle.commit
            )
        })?;
        let life = &mut self.lives[number];
        if life.commit == u32::MAX {
            life.nature = Nature::Hostile;
            life.tainted = true;
        }
        life.kind = Some(Kind::Child);
        life.commit = handle.commit;
        if let Some(forks) = forks {
            life.memory = (*forks).clone();
        }
        self.note(|| format!("life {number} is a child of life {parent} by COMMIT {}", handle.commit));
        Ok(())
    }

    /// Children that a COMMIT has made.
    pub fn children_of(&self, parent: LifeId, commit: u32) -> Vec<LifeId> {
        let made =
            |life: &&Life| life.parent == Some(parent) && life.kind == Some(Kind::Child) && life.commit == commit;
        self.lives.iter().filter(made).map(|life| life.number).collect()
    }

    /// A parent is told of a child.
    pub fn told_child(&mut self, parent: LifeId, id: u32, commit: u32) -> Result<(), Found> {
        let child = self.lives.iter().find(|life| life.id == id);
        let own = child.is_some_and(|child| child.parent == Some(parent) && child.commit == commit || child.tainted);
        self.found(own, || format!("life {parent} is told of the child {id}, which is none of COMMIT {commit}"))?;
        let new = self.lives[parent].children.insert(id);
        self.found(new, || format!("life {parent} is told of the child {id} twice"))
    }

    /// A pVM is told of an end.
    pub fn told_end(&mut self, parent: LifeId, id: u32, status: u32) -> Result<(), Found> {
        self.note(|| format!("life {parent} is told that {id} has ended: {status:#x}"));
        self.lives[parent].children.remove(&id);
        self.lives[parent].ends.insert(id, status);
        let Some(child) = self.lives.iter().find(|life| life.id == id) else {
            return self.found(false, || format!("life {parent} is told of the end of {id}, which nobody is"));
        };
        let number = child.number;
        self.found(child.root == self.lives[parent].root, || {
            format!("life {parent} is told of the end of life {number}, which is of another family")
        })?;
        self.found(!self.still_runs(number), || {
            format!("life {parent} is told of the end of life {number}, which runs")
        })
    }

    /// It is honest, can run code, and has not said that it has ended.
    fn still_runs(&self, number: LifeId) -> bool {
        let life = &self.lives[number];
        self.runs(number) && life.doing != Doing::HasEnded && life.nature == Nature::Honest
    }

    /// Its domain can run code.
    pub fn runs(&self, number: LifeId) -> bool {
        let identity = self.lives[number].identity;
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
            let (Some(life), Some(owner)) = (self.by_domain.get(&entry.domain), self.by_domain.get(&entry.owner))
            else {
                continue;
            };
            let key = (*life, entry.mfn, entry.writable);
            now.insert(key, *owner);
            if !self.judged.contains_key(&key) {
                new.push((*life, *owner, entry.mfn, entry.writable));
            }
        }
        for (life, owner, mfn, writable) in new {
            self.judge_entry(&now, life, owner, mfn, writable)?;
        }
        self.judged = now;
        Ok(())
    }

    fn judge_entry(
        &self,
        now: &BTreeMap<(LifeId, Mfn, bool), LifeId>,
        number: LifeId,
        owner: LifeId,
        mfn: Mfn,
        writable: bool,
    ) -> Result<(), Found> {
        let (life, owner) = (&self.lives[number], &self.lives[owner]);
        let can = if writable { "write" } else { "read" };
        let whose = || {
            format!(
                "life {number} (domain {}, {:?}) can {can} frame {:#x} of life {} (domain {}, {:?}), which it was not given",
                life.domain, life.kind, mfn.0, owner.number, owner.domain, owner.kind
            )
        };
        let parent_has = life.parent.is_some_and(|parent| {
            let has = |writable| {
                now.contains_key(&(parent, mfn, writable)) || self.judged.contains_key(&(parent, mfn, writable))
            };
            has(writable) || !writable && has(true)
        });
        match owner.kind {
            Some(Kind::MemoryOwner) => {
                self.found(owner.root == life.root, whose)?;
                let path = format!("/local/domain/{}/members", owner.domain);
                let is_members = self.store.read(&path).is_ok_and(|text| text == mfn.0.to_string());
                self.found(!(is_members && writable), whose)?;
                self.found(is_members || parent_has || life.maps, whose)
            }
            // A prepared domain, or a child, has its parent's frames, and those that its parent can
            // read itself.
            _ => self.found(!writable && (life.parent == Some(owner.number) || parent_has), whose),
        }
    }

    /// A pVM that is told that its frames are unshared shares them with no domain that runs.
    fn judge_unshared(&mut self) -> Result<(), Found> {
        for life in self.lives.iter().filter(|life| !life.went && !life.tainted && life.is_pvm()) {
            if life.last_commit == 0 || matches!(life.doing, Doing::HasEnded | Doing::Begins) {
                continue;
            }
            // Until the answer, its control page is about the COMMIT before.
            if matches!(&life.doing, Doing::Asks(request) if request.operation == operation::COMMIT) {
                continue;
            }
            let Some(control) = life.control() else { continue };
            if control.get(daemon::UNSHARED) != life.last_commit {
                continue;
            }
            let shares = self.judged.iter().find(|((other, ..), owner)| {
                let child = &self.lives[*other];
                **owner == life.number
                    && child.kind == Some(Kind::Child)
                    && self.runs(*other)
                    && child.doing != Doing::HasEnded
            });
            if let Some(((other, mfn, _), _)) = shares {
                return Err(Found(format!(
                    "life {} is told that nobody shares its frames, and life {other} has its frame {:#x}",
                    life.number, mfn.0
                )));
            }
        }
        Ok(())
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
            let life = &self.lives[*number];
            let Doing::Asks(request) = &life.doing else { continue };
            let root = &self.lives[life.root];
            let faults = self.faults.lock().unwrap().last;
            let quiet = faults.is_none_or(|last| self.clock.since(last) > Duration::from_secs(1));
            // Delays by hostile relatives concern its own family alone.
            let alone = !self.lives.iter().any(|other| other.root == life.root && other.nature == Nature::Hostile);
            let waited = self.service - *since;
            let family = self.lives.iter().filter(|other| other.root == life.root && !other.went).count() as u32;
            // In a full family, or on a host with a shortage, refusals are delayed, each behind the
            // one before.
            let is_full = matches!(self.profile.kind, "chain" | "short");
            let served =
                is_full || !quiet || !alone || root.went || self.orphaned(life) || waited < BOUND + EACH * family;
            self.found(served, || {
                format!(
                    "life {number} waits for {waited:?} for an answer to request {} ({})",
                    request.number, request.operation
                )
            })?;
        }
        Ok(())
    }

    /// The daemon has forgotten it, by an operator's order.
    fn orphaned(&self, life: &Life) -> bool {
        life.doing == Doing::HasEnded
    }

    /// A refused fork of an honest guest has a reason.
    pub fn judge_refusal(&mut self, number: LifeId, request: &Request, errno: u32) -> Result<(), Found> {
        let now = self.clock.now();
        let second = Duration::from_secs(1);
        while self.made.front().is_some_and(|(when, _)| self.clock.since(*when) > second) {
            self.made.pop_front();
        }
        let root = self.lives[number].root;
        let (family, host) = self.profile.rates;
        let made = self.made.len() as u32 + request.count;
        let own = self.made.iter().filter(|(_, of)| *of == root).count() as u32 + request.count;
        let quiet = self.faults.lock().unwrap().last.is_none_or(|last| now - last > second);
        let short = self.profile.pages < 5000 || self.profile.domains < 30;
        let members = self.lives.iter().filter(|life| life.root == root && !life.went).count() as u32;
        let full = members + request.count + 6 >= self.profile.family;
        let plain = quiet && !short && !full && own * 2 < family && made * 2 < host;
        if plain && request.operation == operation::COMMIT && errno == Errno::EAGAIN.0 {
            return self.found(false, || {
                format!(
                    "life {number} is refused a COMMIT (EAGAIN), though {made} forks were made of {host} in a second"
                )
            });
        }
        let life = &mut self.lives[number];
        life.refusals = if plain { life.refusals + 1 } else { 0 };
        let refusals = life.refusals;
        self.found(refusals < REFUSALS, || {
            format!("life {number} is refused a fork {refusals} times in a row, at last with {errno}, though nothing is short")
        })
    }
}
