//! The resources of a process in dom0: mappings and ports.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use xen_abi::{DomId, Errno, PAGE_SIZE, Port};

use super::state::State;
use super::{FakeXen, KILLED};
use crate::error::Error;
use crate::hypervisor::{Events, Memory};

/// Mapped frames. After the end of the process, reads give zeros and writes do nothing.
#[derive(Debug)]
pub struct FakeMapping {
    pub(super) fake: FakeXen,
    pub(super) number: u64,
    pub(super) size: usize,
    pub(super) writable: bool,
}

impl FakeMapping {
    fn check(&self, offset: usize, length: usize, align: usize, writes: bool) {
        assert!(self.writable || !writes, "a write to what is mapped for reading");
        let inside = offset.checked_add(length).is_some_and(|end| end <= self.size);
        assert!(inside && offset.is_multiple_of(align), "{length} octets at {offset} of a mapping of {}", self.size);
    }

    fn read(&self, state: &State, offset: usize, to: &mut [u8]) {
        to.fill(0);
        let Some(mapped) = state.mappings.get(&self.number) else { return };
        for_pages(offset, to, |page, in_page, part| state.frames.read(mapped.frames[page], in_page, part));
    }

    fn write(&self, state: &mut State, offset: usize, from: &[u8]) {
        let Some(mapped) = state.mappings.get(&self.number) else { return };
        let mut octets = from.to_vec();
        let frames = &mut state.frames;
        for_pages(offset, &mut octets, |page, in_page, part| frames.write(mapped.frames[page], in_page, part));
    }
}

/// Calls `each` for every part of `octets` that lies in one page, with the page and the offset in
/// it.
fn for_pages(offset: usize, octets: &mut [u8], mut each: impl FnMut(usize, usize, &mut [u8])) {
    let (mut at, mut rest) = (offset, octets);
    while !rest.is_empty() {
        let length = rest.len().min(PAGE_SIZE - at % PAGE_SIZE);
        let (part, behind) = rest.split_at_mut(length);
        each(at / PAGE_SIZE, at % PAGE_SIZE, part);
        (at, rest) = (at + length, behind);
    }
}

impl Memory for FakeMapping {
    fn size(&self) -> usize {
        self.size
    }

    fn read_u32(&self, offset: usize) -> u32 {
        let mut octets = [0; 4];
        self.check(offset, 4, 4, false);
        self.read(&self.fake.lock(), offset, &mut octets);
        u32::from_le_bytes(octets)
    }

    fn write_u32(&self, offset: usize, value: u32) {
        self.check(offset, 4, 4, true);
        self.write(&mut self.fake.lock(), offset, &value.to_le_bytes());
    }

    fn read_u64(&self, offset: usize) -> u64 {
        let mut octets = [0; 8];
        self.check(offset, 8, 8, false);
        self.read(&self.fake.lock(), offset, &mut octets);
        u64::from_le_bytes(octets)
    }

    fn write_u64(&self, offset: usize, value: u64) {
        self.check(offset, 8, 8, true);
        self.write(&mut self.fake.lock(), offset, &value.to_le_bytes());
    }

    fn copy_out(&self, offset: usize, to: &mut [u8]) {
        self.check(offset, to.len(), 1, false);
        self.read(&self.fake.lock(), offset, to);
    }

    fn copy_words_out(&self, offset: usize, to: &mut [u64]) {
        let mut octets = vec![0; size_of_val(to)];
        self.check(offset, octets.len(), 8, false);
        self.read(&self.fake.lock(), offset, &mut octets);
        to.iter_mut().zip(octets.as_chunks().0).for_each(|(word, octets)| *word = u64::from_le_bytes(*octets));
    }

    fn copy_in(&self, offset: usize, from: &[u8]) {
        self.check(offset, from.len(), 1, true);
        self.write(&mut self.fake.lock(), offset, from);
    }

    fn copy_page(&self, from_page: usize, to: &Self, to_page: usize) {
        let mut page = [0; PAGE_SIZE];
        self.copy_out(from_page * PAGE_SIZE, &mut page);
        to.copy_in(to_page * PAGE_SIZE, &page);
    }
}

impl Drop for FakeMapping {
    fn drop(&mut self) {
        self.fake.with(|state| state.unmap(self.number));
    }
}

/// A set of dom0's ports.
#[derive(Debug)]
pub struct FakeEvents {
    pub(super) fake: FakeXen,
    pub(super) set: u64,
}

impl FakeEvents {
    /// An operation on one of the set's own ports.
    fn on_port<T>(
        &self,
        name: &'static str,
        port: Port,
        body: impl FnOnce(&mut State) -> Result<T, Errno>,
    ) -> Result<T, Error> {
        self.fake.operate(name, |state| {
            // Linux's error for a port that the file does not have.
            if state.ports.is_in(DomId::DOM0, port, self.set) { body(state) } else { Err(Errno::ENOTCONN) }
        })
    }
}

/// dom0's highest port.
const LIMIT: u32 = 4095;

impl Events for FakeEvents {
    fn bind_interdomain(&self, domain: DomId, remote_port: Port) -> Result<Port, Error> {
        self.fake.operate("bind_interdomain", |state| {
            state.domain(domain)?;
            state.ports.bind(DomId::DOM0, (domain, remote_port), LIMIT, self.set)
        })
    }

    fn bind_unbound_port(&self, domain: DomId) -> Result<Port, Error> {
        self.fake.operate("bind_unbound_port", |state| {
            state.domain(domain)?;
            state.ports.alloc(DomId::DOM0, domain, LIMIT, self.set)
        })
    }

    fn notify(&self, port: Port) -> Result<(), Error> {
        self.on_port("notify", port, |state| state.ports.send(DomId::DOM0, port))
    }

    fn unmask(&self, port: Port) -> Result<(), Error> {
        // Linux ignores a port that the file does not have.
        self.fake.operate("unmask", |state| {
            if state.ports.is_in(DomId::DOM0, port, self.set) {
                state.ports.unmask(DomId::DOM0, port);
            }
            Ok(())
        })
    }

    fn unbind(&self, port: Port) -> Result<(), Error> {
        self.on_port("unbind", port, |state| state.ports.close(DomId::DOM0, port))
    }

    fn wait(&self, timeout: Option<Duration>) -> Result<Vec<Port>, Error> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.fake.operate("wait for events", |_| Ok(()))?;
        let mut state = self.fake.lock();
        loop {
            if state.killed {
                return Err(Error::Refused("wait for events", KILLED));
            }
            let taken = state.ports.take(DomId::DOM0, self.set, true);
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if !taken.is_empty() || left.is_some_and(|left| left.is_zero()) {
                return Ok(taken);
            }
            let changed = &self.fake.shared.changed;
            state = match left {
                None => changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) => changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }
}

impl Drop for FakeEvents {
    fn drop(&mut self) {
        self.fake.with(|state| state.ports.close_all(DomId::DOM0, Some(self.set)));
    }
}
