//! Requests of guests in their control pages, and the answers (docs/protocols/fork.md, ipc.md,
//! libraries.md).
//!
//! Each field is read once and then judged.

use std::time::Instant;

use xen_abi::Errno;
use xenctl::{Events, Hypervisor};
use zooid_fork_plan::id::PvmId;
use zooid_fork_plan::wire::{MAX_CHILDREN, daemon, guest, operation, state};

use super::api::EventKind;
use super::books::Pending;
use super::core::{Follow, Host, Timer};
use super::failure::Failure;
use super::sabotage::{self, Sabotage};

impl<H: Hypervisor> Host<H> {
    /// Reads the control page of a pVM.
    pub(super) fn look_at(&mut self, id: PvmId) {
        let began = self.clock.now();
        let Some(pvm) = self.books.get_mut(id) else { return };
        let Some(channel) = &pvm.channel else { return };
        let number = channel.get(guest::REQUEST);
        if number != pvm.request && channel.get(guest::STATE) != state::ENDED {
            pvm.request = number;
            // Another request does not bring the answer earlier, and costs nothing more.
            if matches!(pvm.pending, Some(Pending::Refused(_))) {
                return;
            }
            pvm.pending = None;
            let (operation, count) = (channel.get(guest::OPERATION), channel.get(guest::COUNT));
            self.serve(id, operation, count, began);
            // The event may have been for something else, too.
            if !self.outside.is_empty() || !self.updates.is_empty() {
                self.look_at_outside(id);
                self.look_at_update(id);
            }
            return;
        }
        match channel.get(guest::STATE) {
            state::ENDED => return self.has_ended(id),
            state::RUNNING if !pvm.is_resumed() => return self.has_resumed(id),
            _ => {}
        }
        if pvm.show_ends() {
            self.notify(id);
        }
        self.look_at_outside(id);
        self.look_at_update(id);
    }

    fn serve(&mut self, id: PvmId, operation: u32, count: u32, began: Instant) {
        let valid = (1..=MAX_CHILDREN).contains(&count);
        match operation {
            operation::PREPARE | operation::COMMIT if self.quitting.is_some() => {
                self.reply(id, Errno::EAGAIN.0, &[]);
            }
            operation::PREPARE if valid => self.serve_or_defer(id, operation, count),
            operation::COMMIT if valid => {
                let Some(pvm) = self.books.get_mut(id) else { return };
                if pvm.resuming().is_empty() {
                    return self.commit(id, count, began);
                }
                pvm.pending = Some(Pending::Commit(count));
                // They may run already, and send their event when they can.
                let resuming = pvm.resuming().to_vec();
                resuming.into_iter().for_each(|child| self.follow(Follow::Look(child)));
            }
            operation::PREPARE | operation::COMMIT => self.reply(id, Errno::EINVAL.0, &[]),
            operation::CREATE
            | operation::MAP
            | operation::UNLINK
            | operation::RELAY
            | operation::LIBRARY
            | operation::MAP_LIBRARY
            | operation::REFUSED => {
                self.serve_or_defer(id, operation, count);
            }
            operation::KILL => {
                let errno = self.kill_relative(id, count).err().map_or(0, |errno| errno.0);
                self.reply(id, errno, &[]);
            }
            _ => self.reply(id, Errno::ENOSYS.0, &[]),
        }
    }

    /// Goes on with the request that a pVM waits for, after a change of state.
    pub(super) fn go_on(&mut self, id: PvmId) {
        let Some(pvm) = self.books.get_mut(id) else { return };
        match pvm.pending {
            Some(Pending::Commit(_)) if sabotage::is(Sabotage::ForgetCommit) => {}
            Some(Pending::Commit(count)) if pvm.resuming().is_empty() => {
                pvm.pending = None;
                let began = self.clock.now();
                self.commit(id, count, began);
            }
            Some(Pending::Prepare(_)) => self.go_on_preparing(id),
            _ => {}
        }
    }

    /// Answers the request of a pVM.
    pub(super) fn reply(&mut self, id: PvmId, errno: u32, children: &[u32]) {
        let Some(pvm) = self.books.get_mut(id) else { return };
        pvm.pending = None;
        pvm.show_ready();
        let Some(channel) = &pvm.channel else { return };
        for (place, child) in children.iter().enumerate() {
            channel.put(daemon::CHILDREN + 4 * place, *child);
        }
        channel.put(daemon::MADE, children.len() as u32);
        channel.put(daemon::ERRNO, errno);
        channel.put(daemon::REPLY, pvm.request);
        if let Err(error) = self.events.notify(channel.port) {
            log::debug!("{error}");
        }
    }

    /// Answers a PREPARE or a COMMIT with an error. A family that asks again and again is answered
    /// later and later, so that it does not keep dom0 busy.
    pub(super) fn refuse(&mut self, id: PvmId, failure: &Failure) {
        let (now, errno) = (self.clock.now(), failure.errno());
        let Some((pvm, family)) = self.books.with_family(id) else { return };
        let delay = family.account.delay_refusal(now);
        if !delay.is_zero() {
            pvm.pending = Some(Pending::Refused(errno));
        }
        // `Stale` is no refusal: the guest is to prepare first.
        if !matches!(failure, Failure::Stale) {
            self.tell_refusal(id, failure);
        }
        if delay.is_zero() {
            self.reply(id, errno, &[]);
        } else {
            self.after(delay, Timer::Refused(id));
        }
    }

    /// Sends a delayed refusal.
    pub(super) fn answer_refused(&mut self, id: PvmId) {
        if let Some(Pending::Refused(errno)) = self.books.get(id).and_then(|pvm| pvm.pending) {
            self.reply(id, errno, &[]);
        }
    }

    fn tell_refusal(&mut self, id: PvmId, failure: &Failure) {
        let (errno, now) = (failure.errno(), self.clock.now());
        self.counters.refuse(errno);
        let Some((pvm, family)) = self.books.with_family(id) else { return };
        if family.account.may_tell(now) {
            let name = pvm.name.clone();
            log::info!(id = id.raw(), name = name.as_str(), errno; "a fork was refused: {failure}");
            self.tell(id, &name, EventKind::Refused { errno, reason: failure.to_string() });
        }
    }
}
