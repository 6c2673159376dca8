//! The introduction of children to xenstored and xenconsoled.
//!
//! Both daemons look at every domain that they know, and xenstored tells all that watch for domains
//! of each one that comes and goes. A child that ends soon after its fork is spared all this: it is
//! introduced when it has lived for [`Config::introduce_after`](super::config::Config), or at once
//! if it gets a network device. Before, its rings have no other side, its kernel sends nothing to
//! xenstored, and its console's ring keeps what it prints. If it ends, pvmd takes the output.

use std::mem::offset_of;
use std::time::Duration;

use xen_abi::DomId;
use xen_abi::io::console::{XENCONS_OUT_SIZE, XenconsInterface};
use xenctl::{DomainInfo, Hypervisor, Memory, Protection};
use zooid_fork_plan::id::PvmId;
use zooid_fork_plan::wire::{daemon, guest, state};

use super::books::{Rings, is_domain_of};
use super::core::{Follow, Host, Timer};
use super::end::{Reaping, status_of};
use super::executor::Operation;
use super::failure::Failure;
use super::home;
use super::jobs::Job;

/// Time from a failed introduction to the next attempt. It doubles each time, up to the second
/// constant.
pub(super) const AGAIN: Duration = Duration::from_millis(100);
const SELDOM: Duration = Duration::from_secs(10);
/// Number of checks for a console by xenconsoled; below, the time between them.
const CONSOLE_TRIES: u32 = 500;
const CONSOLE_PAUSE: Duration = Duration::from_millis(4);

impl<H: Hypervisor> Host<H> {
    /// A child runs from now on.
    pub(super) fn introduce_soon(&mut self, id: PvmId) {
        let has_device = self.config.child_vif.is_some();
        let time = if has_device { Duration::ZERO } else { self.config.introduce_after };
        self.after(time, Timer::Introduce(id, AGAIN));
    }

    /// Its time has come. `pause` is the time to the next attempt, should this one fail.
    pub(super) fn introduce_now(&mut self, id: PvmId, pause: Duration) {
        if let Ok(root) = self.root_of(id) {
            self.jobs.push(root, Job::Introduce(id, pause));
        }
    }

    /// Introduces a child, unless it has been. After a failure it is tried again, less and less
    /// often: a guest can make its rings unusable.
    pub(super) fn introduce(&mut self, id: PvmId, pause: Duration) {
        let Some(rings) = self.books.get(id).filter(|pvm| pvm.killed.is_none()).and_then(|pvm| pvm.rings) else {
            return;
        };
        if self.end_if_it_has(id) {
            return;
        }
        if let Some(pvm) = self.books.get_mut(id) {
            pvm.has_home = true;
        }
        if let Err(failure) = self.try_to_introduce(id.domain(), &rings) {
            self.trouble(id, "a child is not introduced to xenstored", &failure);
            self.after(pause, Timer::Introduce(id, SELDOM.min(pause * 2)));
            return;
        }
        self.say_introduced(id);
    }

    /// Introduces all children that were not, before the daemon ends.
    pub(super) fn introduce_all(&mut self) {
        for id in self.books.ids() {
            self.introduce(id, AGAIN);
        }
    }

    /// Ends a child whose domain has ended: nobody tells of one that xenstored does not know. False
    /// if it goes on.
    pub(super) fn end_if_it_has(&mut self, id: PvmId) -> bool {
        let Some(pvm) = self.books.get(id) else { return true };
        let Ok(info) = self.xen.domain_info(id.domain()) else { return false };
        let info = info.filter(|info| is_domain_of(info, id) && !info.is_dying());
        let reason = info.as_ref().and_then(DomainInfo::shutdown_reason);
        let has_ended = info.is_none() || reason.is_some();
        if has_ended {
            let status = status_of(pvm, reason);
            self.follow(Follow::End(id, status));
        }
        has_ended
    }

    fn try_to_introduce(&mut self, domain: DomId, rings: &Rings) -> Result<(), Failure> {
        self.operate(Operation::FillHome, |host| home::fill(&host.store, domain, rings))?;
        // An earlier attempt, or an earlier daemon, may have come further.
        if !self.store.is_introduced(domain)? {
            let (ring, port) = rings.store;
            self.operate(Operation::Introduce, |host| host.store.introduce(domain, ring, port))?;
        }
        self.operate(Operation::ShowConsole, |host| home::show_console(&host.store, domain, rings.console))?;
        Ok(())
    }

    /// Tells a child that was introduced, and gives it its network device.
    fn say_introduced(&mut self, id: PvmId) {
        let Some(pvm) = self.books.get_mut(id) else { return };
        pvm.rings = None;
        if let Some(channel) = &pvm.channel {
            channel.put(daemon::INTRODUCED, 1);
        }
        self.notify(id);
        self.give_network(id);
    }

    /// Takes what a child has printed that has ended without an introduction. Whoever hears of its
    /// end finds it in the log.
    pub(super) fn keep_output(&mut self, id: PvmId) {
        let Some(pvm) = self.books.get(id) else { return };
        let Some(rings) = pvm.rings else { return };
        let says = |field| pvm.channel.as_ref().map(|channel| channel.get(field));
        // If it has ended by itself, it knows.
        if says(guest::STATE) == Some(state::ENDED) && says(guest::OUTPUT) == Some(0) {
            return;
        }
        let (root, began) = (pvm.root(), self.clock.now());
        match self.xen.map_foreign(id.domain(), &[rings.console.0], Protection::Read) {
            Ok(page) => match output(&page) {
                octets if octets.is_empty() => {}
                octets => self.toolstack.keep_output(&pvm.name, &octets),
            },
            Err(error) => log::debug!(id = id.raw(); "its output is lost: {error}"),
        }
        self.spend(root, began);
    }

    /// Waits until xenconsoled has made the console of a child that was introduced and has ended: it
    /// would write to the child's home after that is removed. The reaping goes on afterwards; it is
    /// given back if there is nothing to wait for.
    pub(super) fn await_console(&mut self, family: PvmId, reaping: Reaping<H::Memory>) -> Option<Reaping<H::Memory>> {
        if !self.lacks_console(reaping.id()) {
            return Some(reaping);
        }
        self.after(CONSOLE_PAUSE, Timer::Console(reaping.id(), CONSOLE_TRIES));
        self.await_consoles.push((family, reaping));
        None
    }

    /// xenconsoled is about to make the console of an introduced domain, which still exists.
    fn lacks_console(&self, id: PvmId) -> bool {
        !self.without_consoles
            && home::awaits_console(&self.store, id.domain())
            && matches!(self.xen.domain_info(id.domain()), Ok(Some(info)) if is_domain_of(&info, id) && !info.is_dying())
    }

    /// Looks again for the console of a child that has ended.
    pub(super) fn look_for_console(&mut self, id: PvmId, tries: u32) {
        let Some(place) = self.await_consoles.iter().position(|(_, reaping)| reaping.id() == id) else { return };
        if self.lacks_console(id) {
            if tries > 0 {
                self.after(CONSOLE_PAUSE, Timer::Console(id, tries - 1));
                return;
            }
            log::warn!("xenconsoled makes no console for domain {}: is it running?", id.domain());
            self.without_consoles = true;
        }
        let (family, reaping) = self.await_consoles.swap_remove(place);
        self.jobs.push_first(family, Job::Reap(reaping));
    }
}

/// The output in a console's ring. The guest may write there meanwhile: each index is read once.
fn output<M: Memory>(page: &M) -> Vec<u8> {
    const SIZE: usize = XENCONS_OUT_SIZE as usize;
    let cons = page.read_u32(offset_of!(XenconsInterface, out_cons));
    let count = page.read_u32(offset_of!(XenconsInterface, out_prod)).wrapping_sub(cons) as usize;
    // Indices that contradict each other are the guest's fault.
    if count == 0 || count > SIZE {
        return Vec::new();
    }
    let mut ring = [0; SIZE];
    page.copy_out(offset_of!(XenconsInterface, out), &mut ring);
    ring.rotate_left(cons as usize % SIZE);
    ring[..count].to_vec()
}
