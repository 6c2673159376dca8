//! Prepared domains: PREPARE, their number for each pVM, and keeping them up to date
//! (docs/protocols/fork.md).

use std::time::Duration;

use xen_abi::Mfn;
use xenctl::Hypervisor;
use zooid_fork_plan::id::PvmId;
use zooid_fork_plan::wire::{guest, state};

use super::api::EventKind;
use super::books::{Pending, Prepared};
use super::build::Building;
use super::core::{Follow, Host, Timer};
use super::failure::Failure;
use super::jobs::Job;
use super::relink::{Target, is_race};
use super::standstill::Standstill;
use super::tables::Change;

/// Attempts to link a table that the parent changes meanwhile.
const TRIES: usize = 4;
/// Time from a fork, or from the end of preparing a domain, to the first check that prepared
/// domains are up to date. It doubles each time, up to the second constant.
const FIRST_REFRESH: Duration = Duration::from_millis(2);
const LAST_REFRESH: Duration = Duration::from_secs(2);
/// Tables that are brought up to date at once in the background.
const TABLES_AT_ONCE: usize = 8;

impl<H: Hypervisor> Host<H> {
    /// Answers a PREPARE if it can be answered; else starts what it needs.
    pub(super) fn go_on_preparing(&mut self, id: PvmId) {
        let Some(Pending::Prepare(count)) = self.books.get(id).and_then(|pvm| pvm.pending) else { return };
        match self.try_to_prepare(id, count as usize) {
            // A guest waits for it.
            Ok(false) => self.rest.end(),
            Ok(true) => self.reply(id, 0, &[]),
            Err(failure) => self.refuse(id, &failure),
        }
    }

    /// True if `count` domains are prepared and up to date. Missing ones are being built.
    fn try_to_prepare(&mut self, id: PvmId, count: usize) -> Result<bool, Failure> {
        self.check_ancestors(id)?;
        self.ensure_forking(id)?;
        self.update_sources(id)?;
        self.refresh(id)?;
        if self.books.get(id).ok_or(Failure::Gone)?.ready() as usize >= count {
            return Ok(true);
        }
        self.prepare(id, count).map(|()| false)
    }

    /// Reads the control page of a prepared domain, which may be at its waiting point.
    pub(super) fn look_at_prepared(&mut self, parent: PvmId, id: PvmId) {
        let Some(prepared) = self.prepared(parent, id) else { return };
        if prepared.waiting || prepared.channel.get(guest::STATE) != state::WAITING {
            return;
        }
        prepared.waiting = true;
        self.forget_timers(|timer| *timer == Timer::Waiting(parent, id));
        let Some(pvm) = self.books.get(parent) else { return };
        pvm.show_ready();
        let (name, prepared) = (pvm.name.clone(), pvm.ready());
        self.counters.prepared += 1;
        self.tell(parent, &name, EventKind::Prepared { prepared, domid: id.domain().0 });
        self.wake(parent);
        self.notify(parent);
        self.refresh_soon(parent);
    }

    fn prepared(&mut self, parent: PvmId, id: PvmId) -> Option<&mut Prepared<H::Memory>> {
        self.books.get_mut(parent)?.prepared.iter_mut().find(|prepared| prepared.id == id)
    }

    /// Discards a prepared domain that has not come to its waiting point in time.
    pub(super) fn check_waiting(&mut self, parent: PvmId, id: PvmId) {
        self.look_at_prepared(parent, id);
        let Some(pvm) = self.books.get_mut(parent) else { return };
        let is_it = |prepared: &Prepared<H::Memory>| prepared.id == id && !prepared.waiting;
        let Some(place) = pvm.prepared.iter().position(is_it) else { return };
        let prepared = pvm.prepared.remove(place);
        let root = pvm.root();
        self.discard(root, prepared);
        self.follow(Follow::CannotPrepare(parent, Failure::TimedOut));
    }

    /// Has at least `count` domains prepared, or being built, for a pVM.
    fn prepare(&mut self, id: PvmId, count: usize) -> Result<(), Failure> {
        let pvm = self.books.get(id).ok_or(Failure::Gone)?;
        let (root, have) = (pvm.root(), pvm.prepared.iter().filter(|prepared| !prepared.broken).count());
        let missing = count.saturating_sub(have + self.jobs.builds_for(id));
        // All or none: a refused request must build nothing.
        if missing > 0 {
            self.check_quota(id, missing)?;
        }
        for _ in 0..missing {
            self.jobs.push(root, Job::Build(Box::new(Building::new(id))));
        }
        Ok(())
    }

    /// Has as many domains prepared as a pVM is to have.
    pub(super) fn replenish(&mut self, id: PvmId) {
        let Some(pool) = self.books.get(id).and_then(|pvm| pvm.forking.as_ref()).map(|forking| forking.pool) else {
            return;
        };
        if self.quitting.is_none()
            && let Err(failure) = self.check_ancestors(id).and_then(|()| self.prepare(id, pool as usize))
        {
            log::debug!("no domain is prepared: {failure}");
        }
    }

    /// A domain could not be prepared: refuses the PREPARE of the pVM, if one waits for it.
    pub(super) fn cannot_prepare(&mut self, parent: PvmId, failure: &Failure) {
        match self.books.get(parent).map(|pvm| pvm.pending) {
            None => {}
            Some(Some(Pending::Prepare(_))) => self.refuse(parent, failure),
            Some(_) => self.trouble(parent, "no domain can be prepared", failure),
        }
    }

    /// Brings all domains that are prepared for a pVM up to date. Those that cannot be are
    /// discarded.
    fn refresh(&mut self, id: PvmId) -> Result<(), Failure> {
        self.follow_tables(id)?;
        let forking = self.books.get(id).and_then(|pvm| pvm.forking.as_ref());
        let count = forking.map_or(0, |forking| forking.tables.count());
        self.refresh_tables(id, 0..count);
        self.remove_broken(id);
        Ok(())
    }

    /// Brings these tables of all domains that are prepared for a pVM up to date; the number of
    /// entries set.
    fn refresh_tables(&mut self, id: PvmId, tables: std::ops::Range<usize>) -> usize {
        let Ok(root) = self.root_of(id) else { return 0 };
        let memory_owners = self.books.memory_owners_of(root);
        let Self { books, xen, store, scratch, .. } = self;
        let Some((source, all)) = books.get_mut(id).and_then(|pvm| pvm.linking(memory_owners)) else { return 0 };
        let mut still = Standstill::of(&**xen, store, id.domain());
        let mut changed = 0;
        for place in tables {
            for prepared in all.iter_mut() {
                let mut target = Target {
                    domain: prepared.domain(),
                    linkage: &mut prepared.linkage,
                    bitmaps: Some(&prepared.bitmaps),
                };
                for _ in 0..TRIES {
                    match target.relink(&**xen, &source, place, scratch, Some(&mut still)) {
                        Ok(entries) => {
                            changed += entries;
                            break;
                        }
                        // The parent has copied a page meanwhile. If it goes on, the next refresh
                        // links it.
                        Err(failure) if is_race(&failure) => {}
                        Err(failure) => {
                            log::debug!("a domain cannot be brought up to date: {failure}");
                            prepared.broken = true;
                            break;
                        }
                    }
                }
            }
        }
        changed
    }

    /// Links pages that the daemon has just mapped in a table of a pVM, in the domains that are
    /// prepared for it. After a failure, a PREPARE links them.
    pub(super) fn link_given(&mut self, id: PvmId, table: Mfn, given: &[Mfn]) {
        let Ok(root) = self.root_of(id) else { return };
        let memory_owners = self.books.memory_owners_of(root);
        let Self { books, xen, scratch, .. } = self;
        let Some((source, all)) = books.get_mut(id).and_then(|pvm| pvm.linking(memory_owners)) else { return };
        let Some(place) = source.tables.number_of(table) else { return };
        for prepared in all {
            let mut target =
                Target { domain: prepared.domain(), linkage: &mut prepared.linkage, bitmaps: Some(&prepared.bitmaps) };
            if let Err(failure) = target.link_given(&**xen, &source, place, scratch, given) {
                log::debug!("pages are not linked at once: {failure}");
            }
        }
        self.refresh_soon(id);
    }

    /// Does a step of bringing prepared domains up to date in the background.
    pub(super) fn refresh_step(&mut self, id: PvmId, place: usize) {
        if place == 0
            && let Err(failure) = self.follow_tables(id)
        {
            self.follow(Follow::DiscardBroken(id));
            return log::debug!("tables cannot be followed: {failure}");
        }
        let Some(pvm) = self.books.get(id) else { return };
        let (root, Some(forking)) = (pvm.root(), pvm.forking.as_ref()) else { return };
        let count = forking.tables.count();
        let end = count.min(place + TABLES_AT_ONCE);
        let changed = self.refresh_tables(id, place..end);
        if changed > 0 {
            log::trace!("{changed} entries of {id} were brought up to date");
        }
        if end == count {
            self.follow(Follow::DiscardBroken(id));
        } else {
            self.jobs.push(root, Job::Refresh(id, end));
        }
    }

    /// Checks again and again, less and less often, for pages that a pVM has changed: after a fork
    /// it copies them.
    pub(super) fn refresh_soon(&mut self, id: PvmId) {
        self.forget_timers(|timer| matches!(timer, Timer::Refresh(other, _) if *other == id));
        self.after(FIRST_REFRESH, Timer::Refresh(id, FIRST_REFRESH));
    }

    pub(super) fn refresh_later(&mut self, id: PvmId, pause: Duration) {
        let Some(pvm) = self.books.get(id).filter(|pvm| pvm.forking.is_some()) else { return };
        let root = pvm.root();
        if !self.jobs.iter().any(|job| matches!(job, Job::Refresh(other, _) if *other == id)) {
            self.jobs.push(root, Job::Refresh(id, 0));
        }
        let pause = LAST_REFRESH.min(pause * 2);
        self.after(pause, Timer::Refresh(id, pause));
    }

    /// Follows a parent's tables that came or went, in its own list and in the domains that are
    /// prepared for it.
    pub(super) fn follow_tables(&mut self, id: PvmId) -> Result<(), Failure> {
        let memory_owners = self.books.memory_owners_of(self.root_of(id)?);
        let Self { books, xen, scratch, .. } = self;
        let pvm = books.get_mut(id).ok_or(Failure::Gone)?;
        let forking = pvm.forking.as_mut().ok_or(Failure::Gone)?;
        let counted = pvm.channel.as_ref().map_or(0, |channel| channel.get(guest::TABLES));
        let gone = match forking.tables.change(counted, scratch.entries()) {
            Change::None => return Ok(()),
            Change::Grown => forking.tables.grow(&**xen, id.domain(), counted).is_err(),
            Change::Gone => true,
        };
        if gone {
            pvm.prepared.iter_mut().for_each(|prepared| prepared.broken = true);
            return self.read_tables(id);
        }
        let (source, all) = pvm.linking(memory_owners).ok_or(Failure::Gone)?;
        for prepared in all {
            let mut target =
                Target { domain: prepared.domain(), linkage: &mut prepared.linkage, bitmaps: Some(&prepared.bitmaps) };
            prepared.broken |= target.add_tables(&**xen, &source).is_err();
        }
        Ok(())
    }
}
