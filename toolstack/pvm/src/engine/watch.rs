//! How the engine learns of domains: from xenstore while it runs, from Xen's list when it starts.

use std::path::Path;
use std::sync::mpsc::Sender;

use xen_abi::{DomId, Errno, GrantRef, Port};
use xenctl::xenstore::{self, Store, Watch};
use xenctl::{DomainInfo, Events, Hypervisor, Protection};
use zooid_fork_plan::id::{Handle, Kind, PvmId};
use zooid_fork_plan::status::Status;
use zooid_fork_plan::wire::{self, ANNOUNCEMENT, CONTROL_GREF, daemon, guest, operation, state};

use super::api::{self, EventKind};
use super::core::{Engine, Timer};
use super::failure::Failure;
use super::handle::Waker;
use super::home;
use super::pvm::{Channel, Pvm};
use crate::image;

/// News from xenstore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// Domains came or went.
    Domains,
    /// This domain may have announced itself.
    Announced(DomId),
}

/// Hands news to the engine's thread.
#[derive(Clone, Debug)]
pub struct Notes {
    pub sender: Sender<Note>,
    pub waker: Waker,
}

impl Notes {
    fn send(&self, note: Note) {
        // When the engine has ended, nobody wants news.
        if self.sender.send(note).is_ok() {
            self.waker.wake();
        }
    }

    /// Watches for domains that come and go.
    pub fn watch_domains(&self, store: &Store) -> Result<[Watch; 2], xenstore::Error> {
        let watch = |path| {
            let notes = self.clone();
            store.watch(path, move |_| notes.send(Note::Domains))
        };
        Ok([watch("@introduceDomain")?, watch("@releaseDomain")?])
    }

    /// Watches for the announcement of a domain.
    fn watch_announcement(&self, store: &Store, domain: DomId) -> Result<Watch, xenstore::Error> {
        let notes = self.clone();
        store.watch(&announcement(domain), move |_| notes.send(Note::Announced(domain)))
    }
}

fn announcement(domain: DomId) -> String {
    format!("{}/{ANNOUNCEMENT}", home::path(domain))
}

impl<H: Hypervisor> Engine<H> {
    pub(super) fn take_note(&mut self, note: Note) {
        match note {
            Note::Domains => match self.xen.domains() {
                Ok(all) => {
                    self.find_ended(&all);
                    self.find_new(&all);
                }
                Err(error) => log::error!("{error}"),
            },
            Note::Announced(domain) => self.hear_announcement(domain),
        }
    }

    /// Watches domains that are not known yet for their announcement.
    fn find_new(&mut self, all: &[DomainInfo]) {
        for info in all {
            let known = self.domains.contains_key(&info.id) || self.watched.contains_key(&info.id);
            let ours = Handle::parse(info.id, &info.handle).is_some() || info.handle == Handle::UNFINISHED;
            if info.id == DomId::DOM0 || info.is_dying() || known || ours {
                continue;
            }
            match self.watches.watch_announcement(&self.store, info.id) {
                Ok(watch) => {
                    self.watched.insert(info.id, watch);
                }
                Err(error) => log::warn!("domain {} is not watched: {error}", info.id),
            }
        }
        let unknown: Vec<DomId> = self.watched.keys().copied().collect();
        for domain in unknown {
            if !self.domains.contains_key(&domain) && !self.strangers.contains(&domain) {
                self.look_at_kernel(domain);
            }
        }
    }

    /// Takes a domain for a pVM that does not announce itself if its kernel is Zooid's.
    fn look_at_kernel(&mut self, domain: DomId) {
        // libxl writes it before it introduces the domain (`libxl__build_post`).
        let kernel = self.store.read(&format!("{}/vm", home::path(domain)));
        let Ok(kernel) = kernel.and_then(|vm| self.store.read(&format!("{vm}/image/kernel"))) else { return };
        if !image::is_zooid(Path::new(&kernel)) {
            self.strangers.insert(domain);
        } else if let Err(failure) = self.add_root(domain, None)
            && !matches!(failure, Failure::Gone)
        {
            log::warn!("domain {domain} cannot be taken as a pVM: {failure}");
        }
    }

    /// A domain may have announced itself as a pVM that can fork.
    fn hear_announcement(&mut self, domain: DomId) {
        if self.domains.get(&domain).is_some_and(|pvm| pvm.channel.is_some()) {
            return;
        }
        let text = match self.store.read(&announcement(domain)) {
            Ok(text) => text,
            Err(xenstore::Error::NotFound) => return,
            Err(error) => return log::warn!("domain {domain}: {error}"),
        };
        let numbers: Option<Vec<u32>> = text.split(' ').map(|number| number.parse().ok()).collect();
        let Some(&[version, gref, port]) = numbers.as_deref() else {
            return log::warn!("domain {domain} announces itself with {text:?}");
        };
        if version != wire::VERSION {
            return log::warn!(
                "domain {domain} speaks version {version} of the fork protocol; {} is known",
                wire::VERSION
            );
        }
        match self.add_root(domain, Some((GrantRef(gref), Port(port)))) {
            Ok(_) | Err(Failure::Gone) => {}
            Err(failure) => log::warn!("domain {domain} cannot be taken as a pVM: {failure}"),
        }
    }

    /// Takes a domain that a toolstack started as a root pVM; with its control page and port if it has announced itself.
    pub(super) fn add_root(&mut self, domain: DomId, announced: Option<(GrantRef, Port)>) -> Result<PvmId, Failure> {
        let info = self.xen.domain_info(domain)?.filter(|info| !info.is_dying()).ok_or(Failure::Gone)?;
        let id = PvmId::of_root(domain, &info.handle).ok_or(Failure::Gone)?;
        // A domain may stay for long after its pVM has ended (`on_crash`).
        let has_ended = self.ended.iter().any(|info| info.id == id.raw());
        if has_ended || info.shutdown_reason().is_some() {
            return Err(Failure::Gone);
        }
        if !self.domains.contains_key(&domain) {
            let name = self.store.read(&format!("{}/name", home::path(domain)));
            let name = name.unwrap_or_else(|_| format!("domain-{domain}"));
            self.ids.insert(id, domain);
            self.domains.insert(domain, new_pvm(id, domain, name.clone(), None, id, vec![domain], self.clock.now_us()));
            self.tell(id, &name, EventKind::Started { kind: api::Kind::Root, parent: None });
        }
        if let Some((gref, port)) = announced {
            self.attach(domain, gref, port)?;
            self.watched.remove(&domain);
            // A root gets its first prepared domain unasked.
            match self.ensure_forking(domain) {
                Ok(()) => self.replenish(domain),
                // It has to be told first that copies are wanted.
                Err(Failure::Stale) => {}
                Err(failure) => self.trouble(id, "no domain can be prepared", &failure),
            }
        }
        Ok(id)
    }

    /// Maps a pVM's control page, binds its port, and takes up what it waits for.
    fn attach(&mut self, domain: DomId, gref: GrantRef, port: Port) -> Result<(), Failure> {
        let page = self.xen.map_grants(domain, &[gref], Protection::ReadWrite)?;
        let local = self.events.bind_interdomain(domain, port)?;
        let channel = Channel { page, port: local };
        let backend = self.backend_number();
        let pvm = self.domains.get_mut(&domain).ok_or(Failure::Gone)?;
        channel.put(daemon::ID, pvm.id.raw());
        channel.put(daemon::PARENT, pvm.parent.map_or(0, PvmId::raw));
        channel.put(daemon::ROOT, pvm.root.raw());
        channel.put(daemon::BACKEND, backend);
        channel.put(daemon::READY, 0);
        pvm.request = channel.get(daemon::REPLY);
        pvm.channel = Some(channel);
        self.listen(local, domain, None);
        Ok(())
    }

    /// Takes over what a daemon before this one has left.
    pub(super) fn recover(&mut self) {
        let all = match self.xen.domains() {
            Ok(all) => all,
            Err(error) => return log::error!("{error}"),
        };
        let alive = || all.iter().filter(|info| info.id != DomId::DOM0 && !info.is_dying());
        let mut children = Vec::new();
        let mut memory_owners = Vec::new();
        let mut libraries = Vec::new();
        for info in alive() {
            match Handle::parse(info.id, &info.handle) {
                Some(handle) if handle.kind == Kind::Child => children.push((info.id, handle)),
                Some(handle) if handle.kind == Kind::MemoryOwner => memory_owners.push((info.id, handle)),
                Some(handle) if handle.kind == Kind::Libraries => libraries.push((info.id, handle)),
                Some(handle) => {
                    log::info!("domain {} was prepared by a daemon before: it is removed", info.id);
                    self.remove_domain(info.id, handle.id);
                }
                None if info.handle == Handle::UNFINISHED => {
                    if let Some(id) = PvmId::new(info.id, 1) {
                        log::info!("domain {} was begun by a daemon before: it is removed", info.id);
                        self.remove_domain(info.id, id);
                    }
                }
                None => {}
            }
        }
        self.find_new(&all);
        // Roots that have announced themselves are needed before their children.
        for info in alive().filter(|info| Handle::parse(info.id, &info.handle).is_none()) {
            self.hear_announcement(info.id);
        }
        for (domain, handle) in children {
            if let Err(failure) = self.add_child(domain, handle) {
                self.trouble(handle.id, "a child cannot be taken over", &failure);
            }
        }
        self.recover_memory_owners(&memory_owners);
        libraries.into_iter().for_each(|(domain, handle)| self.recover_libraries(domain, handle.id));
        self.count_sharers();
        self.answer_old_requests();
        self.remove_old_homes(&all);
        if let Ok(all) = self.xen.domains() {
            self.find_ended(&all);
        }
        let known: Vec<DomId> = self.domains.keys().copied().collect();
        for domain in known {
            self.look_at(domain);
        }
    }

    /// Removes homes of domains that are no more.
    fn remove_old_homes(&mut self, all: &[DomainInfo]) {
        let alive = |domain: DomId| all.iter().any(|info| info.id == domain && !info.is_dying());
        let homes = match home::all(&self.store) {
            Ok(homes) => homes,
            Err(error) => return log::error!("xenstore: {error}"),
        };
        for domain in homes.into_iter().filter(|domain| !alive(*domain)) {
            log::info!("domain {domain} has gone: its home is removed");
            if let Some(id) = PvmId::new(domain, 1) {
                self.remove_domain(domain, id);
            }
        }
    }

    /// Takes over a child of a daemon before.
    fn add_child(&mut self, domain: DomId, handle: Handle) -> Result<(), Failure> {
        let (root, owners) = home::family(&self.store, domain).unwrap_or((handle.parent, vec![domain]));
        let name = self.store.read(&format!("{}/name", home::path(domain)));
        let name = name.unwrap_or_else(|_| format!("domain-{domain}"));
        let mut pvm = new_pvm(handle.id, domain, name, Some(handle.parent), root, owners, self.clock.now_us());
        pvm.resumed = false;
        pvm.commit = handle.commit;
        self.generation = self.generation.max((handle.id.raw() >> 15) as u16);
        self.ids.insert(handle.id, domain);
        self.domains.insert(domain, pvm);
        // Where its port is stands in the daemon's half of the page; a guest that has changed it harms itself.
        let page = self.xen.map_grants(domain, &[GrantRef(CONTROL_GREF)], Protection::ReadWrite)?;
        let port = Port(xenctl::Memory::read_u32(&page, daemon::PORT));
        drop(page);
        self.attach(domain, GrantRef(CONTROL_GREF), port)
    }

    /// Counts for each pVM how many descend from it, and gives orphans their new parents.
    fn count_sharers(&mut self) {
        let owners: Vec<Vec<DomId>> = self.domains.values().map(|pvm| pvm.owners.clone()).collect();
        for owners in owners {
            for owner in &owners[..owners.len() - 1] {
                if let Some(owner) = self.domains.get_mut(owner) {
                    owner.sharers += 1;
                }
            }
        }
        let mut resuming = Vec::new();
        for pvm in self.domains.values_mut() {
            let runs = |channel: &Channel<H::Memory>| channel.get(guest::STATE) != state::WAITING;
            pvm.resumed |= pvm.channel.as_ref().is_none_or(runs);
            if let (false, Some(parent)) = (pvm.resumed, pvm.parent) {
                resuming.push((parent, pvm.domain));
            }
        }
        for (parent, child) in resuming {
            if let Some(parent) = self.by_id(parent) {
                parent.resuming.push(child);
            }
            self.after(self.config.start_timeout, Timer::Resumed(child));
        }
        let commits: Vec<(PvmId, u32)> =
            self.domains.values().filter_map(|pvm| pvm.parent.map(|parent| (parent, pvm.commit))).collect();
        for (parent, commit) in commits {
            if let Some(parent) = self.by_id(parent) {
                parent.last_commit = parent.last_commit.max(commit);
            }
        }
        let ids = &self.ids;
        for pvm in self.domains.values_mut() {
            if pvm.parent.is_some_and(|parent| !ids.contains_key(&parent)) {
                pvm.parent = Some(pvm.root).filter(|root| ids.contains_key(root));
            }
            if let Some(channel) = &pvm.channel {
                channel.put(daemon::PARENT, pvm.parent.map_or(0, PvmId::raw));
            }
        }
    }

    /// Answers requests that a daemon before this one has left unanswered. A PREPARE is served as any other; whether a COMMIT was done,
    /// the children's handles tell.
    fn answer_old_requests(&mut self) {
        let mut waiting = Vec::new();
        for pvm in self.domains.values() {
            let Some(channel) = &pvm.channel else { continue };
            let number = channel.get(guest::REQUEST);
            if number != pvm.request && channel.get(guest::OPERATION) == operation::COMMIT {
                let is_child = |child: &&Pvm<H::Memory>| child.parent == Some(pvm.id) && child.commit == number;
                let children: Vec<u32> = self.domains.values().filter(is_child).map(|child| child.id.raw()).collect();
                waiting.push((pvm.domain, number, children));
            }
        }
        for (domain, number, children) in waiting {
            if let Some(pvm) = self.domains.get_mut(&domain) {
                pvm.request = number;
                if !children.is_empty() {
                    pvm.last_commit = number;
                }
            }
            let errno = if children.is_empty() { Errno::EAGAIN.0 } else { 0 };
            // A daemon that died between the commit and the word to go has left the children waiting.
            for (index, child) in children.iter().enumerate() {
                self.send_off(domain, *child, index as u32);
            }
            self.reply(domain, errno, &children);
        }
        // Children that nobody has told, and whose parents do not wait for them any more.
        let waits =
            |channel: &Channel<H::Memory>| channel.get(daemon::GO) == 0 && channel.get(guest::STATE) == state::WAITING;
        let children = self.domains.values().filter(|pvm| pvm.owners.len() > 1);
        let forgotten: Vec<DomId> =
            children.filter(|child| child.channel.as_ref().is_some_and(waits)).map(|child| child.domain).collect();
        for domain in forgotten {
            self.reap(domain, Status::Destroyed);
        }
    }

    /// Tells a child that it is one, if nobody has.
    fn send_off(&mut self, parent: DomId, child: u32, index: u32) {
        let Some(channel) = self.domains.get(&parent).and_then(|pvm| pvm.channel.as_ref()) else { return };
        let snapshot = channel.snapshot();
        let Some(id) = PvmId::from_raw(child) else { return };
        self.enrol_child(parent, id);
        let Some(child) = self.by_id(id) else { return };
        let domain = child.domain;
        let Some(channel) = &child.channel else { return };
        if channel.get(daemon::GO) == 0 {
            xenctl::Memory::write_u64(&channel.page, daemon::SNAPSHOT, snapshot);
            channel.put(daemon::INDEX, index);
            channel.put(daemon::GO, 1);
            self.notify(domain);
        }
    }
}

/// A pVM of which nothing is known but who it is.
pub(super) fn new_pvm<M>(
    id: PvmId,
    domain: DomId,
    name: String,
    parent: Option<PvmId>,
    root: PvmId,
    owners: Vec<DomId>,
    since_us: u64,
) -> Pvm<M> {
    Pvm {
        id,
        domain,
        name,
        parent,
        root,
        owners,
        since_us,
        channel: None,
        linkage: None,
        forking: None,
        prepared: Vec::new(),
        request: 0,
        pending: None,
        last_commit: 0,
        last_children: Vec::new(),
        resuming: Vec::new(),
        refusals: 0,
        sharers: 0,
        ends: Default::default(),
        resumed: true,
        killed: None,
        commit: 0,
    }
}
