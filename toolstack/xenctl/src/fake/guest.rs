//! The acts of a domain, done by a test.

use xen_abi::grant_table::{GrantEntryV1, GrantFlags};
use xen_abi::pte::Pte;
use xen_abi::sched::ShutdownReason;
use xen_abi::xen::{MmuUpdate, MmuextOp};
use xen_abi::{DomId, Errno, GrantRef, Mfn, PAGE_SIZE, Pfn, Port};

use super::FakeXen;
use super::hypervisor::count;

/// A domain. Its acts are no operations of the process, so no injected fault happens at them.
#[derive(Clone, Debug)]
pub struct Guest {
    fake: FakeXen,
    domain: DomId,
}

impl Guest {
    pub(super) fn new(fake: FakeXen, domain: DomId) -> Self {
        Guest { fake, domain }
    }

    /// The domain.
    pub fn id(&self) -> DomId {
        self.domain
    }

    /// Reads a frame of any owner. [`translate`](Self::translate) tells if the domain could.
    ///
    /// # Panics
    /// It is not in use, or that is not inside it.
    pub fn read(&self, mfn: Mfn, offset: usize, to: &mut [u8]) {
        self.fake.lock().frames.read(mfn, offset, to);
    }

    /// Writes a frame, as [`read`](Self::read).
    pub fn write(&self, mfn: Mfn, offset: usize, from: &[u8]) {
        self.fake.lock().frames.write(mfn, offset, from);
    }

    /// The L4 table that its first vcpu runs on, once that has a state.
    pub fn root_table(&self) -> Option<Mfn> {
        let state = self.fake.lock();
        let context = state.domains.get(&self.domain)?.contexts.get(&0)?;
        Some(Mfn::containing(context.ctrlreg[3]))
    }

    /// Destroys the domain, as a toolstack does.
    pub fn destroy(&self) -> Result<(), Errno> {
        self.fake.with(|state| state.destroy(self.domain))
    }

    /// The L1 entry for `vaddr` below the L4 table `l4`, if there is one.
    pub fn translate(&self, l4: Mfn, vaddr: u64) -> Option<Pte> {
        let state = self.fake.lock();
        let mut table = l4;
        for level in (1..=4).rev() {
            state.frames.get(table)?;
            let pte = state.frames.pte(table, (vaddr >> (12 + 9 * (level - 1)) & 511) as usize);
            match pte.is_present() {
                false => return None,
                true if level == 1 => return Some(pte),
                true => table = pte.mfn(),
            }
        }
        None
    }

    /// The frame's number in the domain's own numbering, as the machine-to-physical table has it.
    pub fn pfn(&self, mfn: Mfn) -> Option<Pfn> {
        self.fake.lock().frames.get(mfn).map(|frame| frame.pfn)
    }

    /// `mmu_update` of its own tables.
    pub fn mmu_update(&self, updates: &[MmuUpdate]) -> (usize, Result<(), Errno>) {
        let domain = self.domain;
        self.fake.with(|state| count(updates, |update| state.frames.update(domain, domain, update.ptr, update.val)))
    }

    /// `mmuext_op`.
    pub fn mmuext_op(&self, operations: &[MmuextOp]) -> (usize, Result<(), Errno>) {
        self.fake.with(|state| count(operations, |operation| state.mmuext(self.domain, operation)))
    }

    /// `XENMEM_populate_physmap` of single pages.
    pub fn populate_physmap(&self, pfns: &[Pfn]) -> Result<Vec<Mfn>, Errno> {
        self.fake.with(|state| state.populate(self.domain, 0, pfns))
    }

    /// `XENMEM_decrease_reservation`; the number of frames that it gave back.
    pub fn decrease_reservation(&self, frames: &[Mfn]) -> usize {
        self.fake.with(|state| state.decrease(self.domain, frames)).unwrap_or(0)
    }

    /// Grants a frame to `to`.
    ///
    /// # Panics
    /// The grant table has no such entry.
    pub fn grant(&self, gref: GrantRef, to: DomId, mfn: Mfn, writable: bool) {
        let access = if writable { GrantFlags::empty() } else { GrantFlags::READONLY };
        let entry = GrantEntryV1 {
            flags: GrantFlags::PERMIT_ACCESS | access,
            domid: to,
            frame: u32::try_from(mfn.0).expect("a frame that version 1 can grant"),
        };
        let mut state = self.fake.lock();
        let at = state.grant_entry(self.domain, gref).expect("an entry of the grant table");
        state.write_grant(at, entry);
    }

    /// Takes a grant back; false if it is in use.
    pub fn end_grant(&self, gref: GrantRef) -> bool {
        let mut state = self.fake.lock();
        let Some(at) = state.grant_entry(self.domain, gref) else { return false };
        let unused = !state.read_grant(at).flags.intersects(GrantFlags::READING | GrantFlags::WRITING);
        if unused {
            state.write_grant(at, GrantEntryV1::default());
        }
        unused
    }

    /// `EVTCHNOP_alloc_unbound`.
    pub fn alloc_unbound(&self, remote: DomId) -> Result<Port, Errno> {
        self.fake.with(|state| {
            let limit = state.domain(self.domain)?.config.max_evtchn_port;
            state.ports.alloc(self.domain, remote, limit, 0)
        })
    }

    /// `EVTCHNOP_bind_interdomain`.
    pub fn bind_interdomain(&self, remote: DomId, port: Port) -> Result<Port, Errno> {
        self.fake.with(|state| {
            let limit = state.domain(self.domain)?.config.max_evtchn_port;
            state.ports.bind(self.domain, (remote, port), limit, 0)
        })
    }

    /// `EVTCHNOP_send`.
    pub fn send(&self, port: Port) -> Result<(), Errno> {
        self.fake.with(|state| state.ports.send(self.domain, port))
    }

    /// `EVTCHNOP_close`.
    pub fn close(&self, port: Port) -> Result<(), Errno> {
        self.fake.with(|state| state.ports.close(self.domain, port))
    }

    /// Takes the events; their ports.
    pub fn take_events(&self) -> Vec<Port> {
        self.fake.lock().ports.take(self.domain, 0, false)
    }

    /// `SCHEDOP_shutdown`.
    pub fn shutdown(&self, reason: ShutdownReason) -> Result<(), Errno> {
        self.fake.with(|state| {
            state.domain(self.domain)?.shutdown = Some(reason);
            Ok(())
        })
    }

    /// All octets of a frame.
    pub fn page(&self, mfn: Mfn) -> [u8; PAGE_SIZE] {
        let mut page = [0; PAGE_SIZE];
        self.read(mfn, 0, &mut page);
        page
    }
}
