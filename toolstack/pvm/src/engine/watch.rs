//! The discovery of domains: from xenstore while the engine runs, from Xen's list when it starts.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use xen_abi::{DomId, Errno, GrantRef, Port};
use xenctl::xenstore::{self, Store, Watch};
use xenctl::{DomainInfo, Events, Hypervisor, Memory, Protection};
use zooid_fork_plan::id::{Handle, Kind, PvmId};
use zooid_fork_plan::status::Status;
use zooid_fork_plan::wire::{self, ANNOUNCEMENT, CONTROL_GREF, daemon, guest, operation, state};

use super::api::{self, EventKind};
use super::books::{Channel, Pvm, Rate, is_domain_of};
use super::config::Announce;
use super::core::{Follow, Host, Peer, Timer};
use super::failure::Failure;
use super::handle::Waker;
use super::sabotage::{self, Sabotage};
use super::{home, standstill};
use crate::image;

/// Most looks at a domain's announcement in a second; below, the pause after one too many.
const ANNOUNCEMENTS: u32 = 4;
const AGAIN: Duration = Duration::from_secs(1);
/// The first pause after a failure.
const RETRY: Duration = Duration::from_millis(50);

/// Attempts without a pause.
const TRIES: u32 = 5;
/// Attempts to take a domain, less and less often: for half an hour.
const PATIENCE: u32 = 250;

/// A domain that may announce itself.
#[derive(Debug)]
pub(super) struct Watched {
    /// Its handle.
    pub handle: [u8; 16],
    /// The rate of looks at its announcement.
    heard: Rate,
    /// There is a timer for the next look.
    waits: bool,
    /// Failed attempts to take it.
    failures: u32,
    _watch: Watch,
}

/// A change in xenstore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StoreChange {
    /// Domains came or went.
    Domains,
    /// This domain may have announced itself.
    Announced(DomId),
}

/// The changes that the engine's thread has not taken yet. The same change is kept once.
#[derive(Clone, Debug)]
pub struct StoreChanges {
    waiting: Arc<Mutex<BTreeSet<StoreChange>>>,
    waker: Waker,
}

impl StoreChanges {
    /// No change yet; `waker` wakes the engine.
    pub fn new(waker: Waker) -> Self {
        Self { waiting: Arc::default(), waker }
    }

    fn send(&self, change: StoreChange) {
        if self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(change) {
            self.waker.wake();
        }
    }

    /// Has the engine list the domains.
    pub fn domains_changed(&self) {
        self.send(StoreChange::Domains);
    }

    /// The changes since the last call.
    pub fn take(&self) -> BTreeSet<StoreChange> {
        std::mem::take(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Watches for domains that come and go.
    pub fn watch_domains(&self, store: &Store) -> Result<[Watch; 2], xenstore::Error> {
        let watch = |path| {
            let changes = self.clone();
            store.watch(path, move |_| changes.send(StoreChange::Domains))
        };
        Ok([watch("@introduceDomain")?, watch("@releaseDomain")?])
    }

    /// Watches for the announcement of a domain.
    fn watch_announcement(&self, store: &Store, domain: DomId) -> Result<Watch, xenstore::Error> {
        let changes = self.clone();
        store.watch(&announcement(domain), move |_| changes.send(StoreChange::Announced(domain)))
    }
}

fn announcement(domain: DomId) -> String {
    format!("{}/{ANNOUNCEMENT}", home::path(domain))
}

impl<H: Hypervisor> Host<H> {
    /// Watches domains that are not known yet for their announcement.
    pub(super) fn find_new(&mut self, all: &[DomainInfo]) {
        for info in all {
            let known = self.books.id_of(info.id).is_some() || self.watched.contains_key(&info.id);
            let ours = Handle::parse(info.id, &info.handle).is_some() || info.handle == Handle::UNFINISHED;
            if info.id == DomId::DOM0 || info.is_dying() || known || ours {
                continue;
            }
            match self.store_changes.watch_announcement(&self.store, info.id) {
                Ok(watch) => {
                    let heard = Rate::full(ANNOUNCEMENTS, self.clock.now());
                    let watched = Watched { handle: info.handle, heard, waits: false, failures: 0, _watch: watch };
                    self.watched.insert(info.id, watched);
                }
                Err(error) => log::warn!("domain {} is not watched: {error}", info.id),
            }
        }
        let unknown: Vec<DomId> = self.watched.keys().copied().collect();
        for domain in unknown {
            if self.books.id_of(domain).is_none() && !self.strangers.contains_key(&domain) {
                self.look_at_kernel(domain);
            }
        }
    }

    /// Takes a domain that does not announce itself for a pVM, if its kernel is Zooid's.
    fn look_at_kernel(&mut self, domain: DomId) {
        let Some(is_zooid) = self.is_zooid(domain) else { return };
        if !is_zooid {
            // It may still be allowed to announce itself.
            if let (Some(watched), Ok(false)) = (self.watched.get(&domain), self.may_announce(domain)) {
                self.strangers.insert(domain, watched.handle);
            }
        } else if let Err(failure) = self.add_root(domain, None)
            && !matches!(failure, Failure::Gone)
        {
            log::warn!("domain {domain} cannot be taken as a pVM: {failure}");
        }
    }

    /// The kernel of a domain is a Zooid image, by the node of the toolstack that started it, which
    /// the domain can only read. None while that is not known.
    fn is_zooid(&self, domain: DomId) -> Option<bool> {
        // libxl writes it before it introduces the domain (`libxl__build_post`).
        let kernel = self.store.read(&format!("{}/vm", home::path(domain)));
        let kernel = kernel.and_then(|vm| self.store.read(&format!("{vm}/image/kernel"))).ok()?;
        Some(image::is_zooid(Path::new(&kernel)))
    }

    /// A domain may announce itself as a pVM. dom0 has to allow it first, by the kernel that the
    /// domain was started with, or by a node that only dom0 can write.
    ///
    /// # Errors
    /// xenstore does not answer.
    fn may_announce(&self, domain: DomId) -> Result<bool, xenstore::Error> {
        Ok(self.config.announce == Announce::Any
            || home::is_allowed(&self.store, domain)?
            || self.is_zooid(domain) == Some(true))
    }

    /// Hears a domain again that announced itself too often.
    pub(super) fn hear_again(&mut self, domain: DomId) {
        if let Some(watched) = self.watched.get_mut(&domain) {
            watched.waits = false;
        }
        self.hear_announcement(domain);
        // It may have waited for longer than this daemon has run.
        if let Some(id) = self.books.id_of(domain) {
            self.answer_old_commit(id);
            self.follow(Follow::Look(id));
        }
    }

    /// Reads a domain's announcement as a pVM that can fork. It is read at a limited rate.
    pub(super) fn hear_announcement(&mut self, domain: DomId) {
        let now = self.clock.now();
        let known = self.books.id_of(domain).and_then(|id| self.books.get(id));
        if self.strangers.contains_key(&domain) || known.is_some_and(|pvm| pvm.channel.is_some()) {
            return;
        }
        let is_known = known.is_some();
        if let Some(watched) = self.watched.get_mut(&domain) {
            if watched.waits {
                return;
            }
            if !watched.heard.take(1, ANNOUNCEMENTS, now) {
                watched.waits = true;
                self.after(AGAIN, Timer::Announced(domain));
                return;
            }
        }
        let text = match self.store.read(&announcement(domain)) {
            Ok(text) => text,
            Err(xenstore::Error::NotFound) => return,
            Err(error) => return self.hear_later(domain, &error),
        };
        match self.may_announce(domain) {
            Ok(allowed) if allowed || is_known => {}
            Ok(_) => {
                log::info!("domain {domain} announces itself, but was not started as a pVM: it is left alone");
                if let Some(watched) = self.watched.get(&domain) {
                    self.strangers.insert(domain, watched.handle);
                }
                return;
            }
            Err(error) => return self.hear_later(domain, &error),
        }
        let numbers: Option<Vec<u32>> = text.split(' ').map(|number| number.parse().ok()).collect();
        let Some(&[version, gref, port]) = numbers.as_deref() else {
            return log::warn!("domain {domain} announces itself with {:?}", text.get(..40).unwrap_or(&text));
        };
        if version != wire::VERSION {
            return log::warn!(
                "domain {domain} speaks version {version} of the fork protocol; {} is known",
                wire::VERSION
            );
        }
        match self.add_root(domain, Some((GrantRef(gref), Port(port)))) {
            Ok(_) => {
                if self.config.announce == Announce::Known
                    && let Err(error) = home::allow(&self.store, domain)
                {
                    log::debug!("xenstore: {error}");
                }
            }
            Err(Failure::Gone) => {}
            Err(failure) => {
                log::warn!("domain {domain} cannot be taken as a pVM: {failure}");
                self.look_later(domain);
            }
        }
    }

    /// xenstore did not answer: the announcement is read once more.
    fn hear_later(&mut self, domain: DomId, error: &xenstore::Error) {
        log::warn!("domain {domain}: {error}");
        self.look_later(domain);
    }

    /// Reads a domain's announcement again after a pause, unless that has failed too often.
    fn look_later(&mut self, domain: DomId) {
        if let Some(watched) = self.watched.get_mut(&domain).filter(|it| !it.waits && it.failures < PATIENCE) {
            watched.waits = true;
            watched.failures += 1;
            let pause = RETRY * watched.failures;
            self.after(pause, Timer::Announced(domain));
        }
    }

    /// Enters a domain that a toolstack started as a root pVM, with its control page and port if it
    /// has announced itself.
    pub(super) fn add_root(&mut self, domain: DomId, announced: Option<(GrantRef, Port)>) -> Result<PvmId, Failure> {
        let info = self.xen.domain_info(domain)?.filter(|info| !info.is_dying()).ok_or(Failure::Gone)?;
        // dom0 is no pVM, nor is a domain that pvmd has made.
        if domain == DomId::DOM0 || Handle::parse(domain, &info.handle).is_some() || info.handle == Handle::UNFINISHED {
            return Err(Failure::Denied(Errno::EPERM));
        }
        let id = PvmId::of_root(domain, &info.handle).ok_or(Failure::Gone)?;
        // A domain may stay for long after its pVM has ended (`on_crash`).
        let has_ended = self.books.ended().any(|info| info.id == id.raw());
        if has_ended || info.shutdown_reason().is_some() {
            return Err(Failure::Gone);
        }
        if self.books.get(id).is_none() {
            let name = self.store.read(&format!("{}/name", home::path(domain)));
            let name = name.unwrap_or_else(|_| format!("domain-{domain}"));
            // An earlier pVM of this number, whose end was not heard of yet, has ended.
            if let Some(other) = self.books.id_of(domain) {
                self.follow(Follow::End(other, Status::Destroyed));
                return Err(Failure::Gone);
            }
            if !self.add_pvm(Pvm::new(id, id, &[], name.clone(), self.clock.now_us())) {
                return Err(Failure::Gone);
            }
            self.tell(id, &name, EventKind::Started { kind: api::Kind::Root, parent: None });
        }
        if let Some((gref, port)) = announced {
            self.attach(id, gref, port)?;
            self.watched.remove(&domain);
            // A root gets its first prepared domain unasked.
            match self.ensure_forking(id) {
                Ok(()) => self.follow(Follow::Replenish(id)),
                // It has to learn first that it has to grant pages.
                Err(Failure::Stale) => {}
                Err(failure) => self.trouble(id, "no domain can be prepared", &failure),
            }
        }
        Ok(id)
    }

    /// Maps a pVM's control page, binds its port, and takes up its request.
    fn attach(&mut self, id: PvmId, gref: GrantRef, port: Port) -> Result<(), Failure> {
        let page = self.xen.map_grants(id.domain(), &[gref], Protection::ReadWrite)?;
        let local = self.events.bind_interdomain(id.domain(), port)?;
        let channel = Channel { page, port: local };
        let backend = self.backend_number();
        let Some(pvm) = self.books.get_mut(id) else {
            self.unlisten(local);
            return Err(Failure::Gone);
        };
        channel.put(daemon::ID, id.raw());
        channel.put(daemon::PARENT, pvm.parent().map_or(0, PvmId::raw));
        channel.put(daemon::ROOT, pvm.root().raw());
        channel.put(daemon::BACKEND, backend);
        channel.put(daemon::READY, 0);
        pvm.request = channel.get(daemon::REPLY);
        pvm.channel = Some(channel);
        self.listen(local, Peer::Pvm(id));
        Ok(())
    }

    /// Takes over the pVMs of an earlier daemon.
    pub(super) fn recover(&mut self) {
        // Without the list, no pVM would be served: it is asked for until it comes, or Xen has
        // refused it often enough.
        let all = match (1..TRIES).find_map(|_| self.xen.domains().ok()).map_or_else(|| self.xen.domains(), Ok) {
            Ok(all) => all,
            Err(error) => return log::error!("{error}"),
        };
        let alive = || all.iter().filter(|info| info.id != DomId::DOM0 && !info.is_dying());
        // This comes first: pvmd has paused them.
        standstill::end_old(&*self.xen, &self.store, &all);
        let mut children = Vec::new();
        let mut memory_owners = Vec::new();
        let mut libraries = Vec::new();
        for info in alive() {
            match Handle::parse(info.id, &info.handle) {
                Some(handle) if matches!(handle.kind, Kind::Child | Kind::Ended) => children.push((info.id, handle)),
                Some(handle) if handle.kind == Kind::MemoryOwner => memory_owners.push((info.id, handle)),
                Some(handle) if handle.kind == Kind::Libraries => libraries.push((info.id, handle)),
                Some(_) if sabotage::is(Sabotage::KeepPrepared) => {}
                Some(handle) => {
                    log::info!("domain {} was prepared by an earlier daemon: it is removed", info.id);
                    self.remove_domain(handle.id, handle.id);
                }
                None if info.handle == Handle::UNFINISHED => {
                    if let Some(id) = PvmId::new(info.id, 1) {
                        log::info!("domain {} was begun by an earlier daemon: it is removed", info.id);
                        self.remove_domain(id, id);
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
        // A child whose home cannot be read gets its parent's family.
        children
            .sort_by_key(|(_, handle)| home::family(&self.store, handle.id).map_or(usize::MAX, |(_, all)| all.len()));
        for (domain, handle) in children {
            if let Err(failure) = self.add_child(domain, handle) {
                self.trouble(handle.id, "a child cannot be taken over", &failure);
                self.books.resumed(handle.id);
                self.follow(Follow::End(handle.id, Status::Destroyed));
            }
        }
        self.books.after_recovery();
        self.recover_memory_owners(&memory_owners);
        libraries.into_iter().for_each(|(_, handle)| self.recover_libraries(handle.id));
        self.show_families();
        self.answer_old_requests();
        self.remove_old_homes(&all);
        if let Ok(all) = self.xen.domains() {
            self.find_ended(&all);
        }
        for id in self.books.ids() {
            self.follow(Follow::Look(id));
        }
    }

    /// Removes homes of domains that have gone.
    fn remove_old_homes(&mut self, all: &[DomainInfo]) {
        let alive = |id: PvmId| all.iter().any(|info| is_domain_of(info, id) && !info.is_dying());
        let homes = match home::all(&self.store) {
            Ok(homes) => homes,
            Err(error) => return log::error!("xenstore: {error}"),
        };
        for id in homes.into_iter().filter(|id| !alive(*id)) {
            log::info!("domain {} has gone: its home is removed", id.domain());
            self.remove_domain(id, id);
        }
    }

    /// Takes over a child of an earlier daemon.
    fn add_child(&mut self, domain: DomId, handle: Handle) -> Result<(), Failure> {
        self.books.skip_id(handle.id);
        let of_parent = || self.books.get(handle.parent).map(|parent| (parent.root(), parent.owners().to_vec()));
        let family = home::family(&self.store, handle.id).or_else(of_parent);
        let (root, ancestors) = family.unwrap_or((handle.parent, vec![handle.parent]));
        let name = self.store.read(&format!("{}/name", home::path(domain)));
        let name = name.unwrap_or_else(|_| format!("domain-{domain}"));
        let mut pvm = Pvm::new(handle.id, root, &ancestors, name, self.clock.now_us()).child_of(handle.parent, false);
        if handle.kind == Kind::Child {
            pvm.commit = handle.commit;
        } else {
            self.follow(Follow::End(handle.id, Status::from_raw(handle.commit)));
        }
        if !self.add_pvm(pvm) {
            return Err(Failure::Gone);
        }
        let rings = home::rings(&self.store, handle.id).or_else(|_| home::rings(&self.store, handle.id))?;
        if let Some(pvm) = self.books.get_mut(handle.id) {
            pvm.rings = rings;
        }
        // Its port is in the daemon's half of the page. A guest that has changed it harms itself.
        let page = self.xen.map_grants(domain, &[GrantRef(CONTROL_GREF)], Protection::ReadWrite)?;
        let port = Port(page.read_u32(daemon::PORT));
        drop(page);
        self.attach(handle.id, GrantRef(CONTROL_GREF), port)?;
        let channel = self.books.get(handle.id).and_then(|pvm| pvm.channel.as_ref());
        if let (None, Some(channel)) = (rings, channel) {
            channel.put(daemon::INTRODUCED, 1);
        }
        let state = channel.map(|channel| channel.get(guest::STATE));
        if state == Some(state::WAITING) || state == Some(state::STARTING) {
            self.after(self.config.start_timeout, Timer::Resumed(handle.id));
        } else {
            self.books.resumed(handle.id);
            self.introduce_soon(handle.id);
        }
        Ok(())
    }

    /// Tells pVMs that were taken over their present parents, and the last of their COMMITs.
    fn show_families(&mut self) {
        let commits: Vec<(PvmId, u32)> =
            self.books.iter().filter_map(|pvm| Some((pvm.forked_by()?, pvm.commit))).collect();
        for (parent, commit) in commits {
            if let Some(parent) = self.books.get_mut(parent) {
                parent.last_commit = parent.last_commit.max(commit);
            }
        }
        self.books.ids().into_iter().for_each(|id| self.show_parent(id));
    }

    /// Answers requests that an earlier daemon has left unanswered. A PREPARE is served as any
    /// other. The children's handles tell if a COMMIT was done.
    fn answer_old_requests(&mut self) {
        if sabotage::is(Sabotage::NoOldAnswers) {
            return;
        }
        self.books.ids().into_iter().for_each(|id| self.answer_old_commit(id));
        // Children that were not told that they are children, and whose parents do not wait for
        // them any more.
        let waits =
            |channel: &Channel<H::Memory>| channel.get(daemon::GO) == 0 && channel.get(guest::STATE) == state::WAITING;
        let children = self.books.iter().filter(|pvm| pvm.is_child());
        let forgotten = children.filter(|child| child.channel.as_ref().is_some_and(waits)).map(Pvm::id);
        for id in forgotten.collect::<Vec<_>>() {
            self.follow(Follow::End(id, Status::Destroyed));
        }
    }

    /// Answers the COMMIT of a pVM that an earlier daemon has left unanswered, if there is one.
    fn answer_old_commit(&mut self, id: PvmId) {
        let Some(pvm) = self.books.get(id) else { return };
        let Some(channel) = &pvm.channel else { return };
        let number = channel.get(guest::REQUEST);
        if number == pvm.request || channel.get(guest::OPERATION) != operation::COMMIT {
            return;
        }
        let is_child =
            |child: &&Pvm<H::Memory>| child.forked_by() == Some(id) && child.is_child() && child.commit == number;
        let children: Vec<PvmId> = self.books.iter().filter(is_child).map(Pvm::id).collect();
        if let Some(pvm) = self.books.get_mut(id) {
            pvm.request = number;
            if !children.is_empty() {
                pvm.last_commit = number;
            }
        }
        let errno = if children.is_empty() { Errno::EAGAIN.0 } else { 0 };
        // A daemon that was killed between the commit and the go-ahead has left the children
        // waiting.
        for (index, child) in children.iter().enumerate() {
            self.send_off(id, *child, index as u32);
        }
        let children: Vec<u32> = children.into_iter().map(PvmId::raw).collect();
        self.reply(id, errno, &children);
    }

    /// Tells a child that it is one, if it was not told.
    fn send_off(&mut self, parent: PvmId, child: PvmId, index: u32) {
        let Some(channel) = self.books.get(parent).and_then(|pvm| pvm.channel.as_ref()) else { return };
        let snapshot = channel.snapshot();
        self.enrol_child(parent, child);
        let Some(channel) = self.books.get(child).and_then(|pvm| pvm.channel.as_ref()) else { return };
        if channel.get(daemon::GO) == 0 {
            channel.page.write_u64(daemon::SNAPSHOT, snapshot);
            channel.put(daemon::INDEX, index);
            channel.put(daemon::GO, 1);
            self.notify(child);
        }
    }
}
