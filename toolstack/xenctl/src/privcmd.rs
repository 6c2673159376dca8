//! Hypercalls, by Linux's `/dev/xen/privcmd` (xen/sys/privcmd.h).
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem::offset_of;

use xen_abi::event_channel::EventChannelOp;
use xen_abi::grant_table::{GnttabSetupTable, GrantStatus, GrantTableOp};
use xen_abi::memory::{MemoryOp, MemoryReservation};
use xen_abi::version::XenVersionOp;
use xen_abi::xen::{Hypercall, MmuUpdate, MmuextOp};
use xen_abi::{DomId, Errno, Mfn};

use crate::buffer::{Loan, Pool};
use crate::control::{Request, mfn_at, u16_at, u32_at};
use crate::error::{Error, OpenError};
use crate::ioctl::{self, ioctl};
use crate::release::{Caller, XenVersion};

const PRIVCMD: &str = "/dev/xen/privcmd";
const BUFFERS: &str = "/dev/xen/hypercall";
const HYPERCALL: libc::c_ulong = ioctl::request(b'P', 0, size_of::<PrivcmdHypercall>());
/// `XENMEM_claim_pages`; no guest may use it, so `xen-abi` does not have it.
pub(crate) const CLAIM_PAGES: u64 = 24;
/// For the comparison with the C headers.
#[cfg(test)]
pub(crate) const REQUESTS: [u64; 1] = [HYPERCALL];

/// `privcmd_hypercall_t`.
#[repr(C)]
struct PrivcmdHypercall {
    op: u64,
    arg: [u64; 5],
}

/// The reason for which a call did nothing.
#[derive(Debug)]
pub enum CallError {
    /// Linux has no memory for it.
    Memory(io::Error),
    /// Xen refused it.
    Refused(Errno),
    /// Xen refused the grant-table operation.
    Grant(GrantStatus),
}

impl CallError {
    /// The error, with the operation's name.
    pub fn of(self, operation: &'static str) -> Error {
        match self {
            Self::Memory(error) => Error::Memory(error),
            Self::Refused(errno) => Error::Refused(operation, errno),
            Self::Grant(status) => Error::Grant(operation, status),
        }
    }
}

impl From<Errno> for CallError {
    fn from(errno: Errno) -> Self {
        Self::Refused(errno)
    }
}

/// The two devices.
#[derive(Debug)]
pub struct Privcmd {
    hypercalls: File,
    buffers: Pool,
}

impl Privcmd {
    /// Opens them.
    pub fn open() -> Result<Self, OpenError> {
        Ok(Privcmd { hypercalls: ioctl::open(PRIVCMD)?, buffers: Pool::new(ioctl::open(BUFFERS)?) })
    }

    /// The device that also maps foreign frames.
    pub fn device(&self) -> &File {
        &self.hypercalls
    }

    fn buffer(&self, length: usize) -> Result<Loan<'_>, CallError> {
        self.buffers.take(length).map_err(CallError::Memory)
    }

    /// Makes a `memory_op` that takes a `struct xen_memory_reservation`, with `numbers` as its
    /// list, which Xen may change. Returns the number of extents that were done, which may be less
    /// than all.
    ///
    /// # Errors
    /// No memory, or Xen's error.
    pub fn reservation(
        &self,
        operation: MemoryOp,
        domain: DomId,
        order: u32,
        numbers: &mut [u64],
    ) -> Result<usize, CallError> {
        const LIST: usize = size_of::<MemoryReservation>();
        let mut buffer = self.buffer(LIST + size_of_val(numbers))?;
        let address = buffer.address();
        buffer[..LIST].fill(0);
        put(&mut buffer, offset_of!(MemoryReservation, extent_start), &(address + LIST as u64).to_le_bytes());
        put(&mut buffer, offset_of!(MemoryReservation, nr_extents), &(numbers.len() as u64).to_le_bytes());
        put(&mut buffer, offset_of!(MemoryReservation, extent_order), &order.to_le_bytes());
        put(&mut buffer, offset_of!(MemoryReservation, domid), &domain.0.to_le_bytes());
        put_words(&mut buffer[LIST..], numbers.iter().copied());
        // SAFETY: Xen writes at most `nr_extents` numbers, for which `buffer` has room behind the
        // structure.
        let done = unsafe { self.call(Hypercall::MEMORY_OP, [u64::from(operation.0), address, 0, 0, 0]) }? as usize;
        let words = buffer[LIST..].chunks_exact(8);
        numbers.iter_mut().zip(words).for_each(|(number, word)| *number = mfn_at(word, 0).0);
        Ok(done)
    }

    /// `XENMEM_claim_pages`: a `struct xen_memory_reservation` without a list.
    ///
    /// # Errors
    /// No memory, or Xen's error.
    pub fn claim_pages(&self, domain: DomId, pages: u64) -> Result<(), CallError> {
        let mut buffer = self.buffer(size_of::<MemoryReservation>())?;
        let address = buffer.address();
        buffer[..size_of::<MemoryReservation>()].fill(0);
        put(&mut buffer, offset_of!(MemoryReservation, nr_extents), &pages.to_le_bytes());
        put(&mut buffer, offset_of!(MemoryReservation, domid), &domain.0.to_le_bytes());
        // SAFETY: Xen reads the structure, and writes nothing.
        unsafe { self.call(Hypercall::MEMORY_OP, [CLAIM_PAGES, address, 0, 0, 0]) }?;
        Ok(())
    }

    /// `mmu_update`. Returns the number of entries that were done, and the error of the next one.
    pub fn mmu_update(
        &self,
        pt_owner: DomId,
        pg_owner: DomId,
        updates: &[MmuUpdate],
    ) -> (usize, Result<(), CallError>) {
        // public/xen.h: the upper half is the owner of the tables, plus one; 0 there would be the
        // caller itself.
        let owners = (u64::from(pt_owner.0) + 1) << 16 | u64::from(pg_owner.0);
        let words = updates.iter().flat_map(|update| [update.ptr, update.val]);
        self.batch(Hypercall::MMU_UPDATE, updates.len(), size_of::<MmuUpdate>(), words, owners)
    }

    /// `mmuext_op`. Returns the number of operations that were done, and the error of the next one.
    pub fn mmuext_op(&self, domain: DomId, operations: &[MmuextOp]) -> (usize, Result<(), CallError>) {
        let words = operations.iter().flat_map(|op| [u64::from(op.cmd.0), op.arg1, op.arg2]);
        self.batch(Hypercall::MMUEXT_OP, operations.len(), size_of::<MmuextOp>(), words, u64::from(domain.0))
    }

    /// Makes a call that takes a list of `count` elements of `size` octets, a counter of those
    /// done, and `subject` as its last argument.
    fn batch(
        &self,
        hypercall: Hypercall,
        count: usize,
        size: usize,
        words: impl Iterator<Item = u64>,
        subject: u64,
    ) -> (usize, Result<(), CallError>) {
        /// The counter, on a line of its own before the list.
        const LIST: usize = 64;
        let mut buffer = match self.buffer(LIST + count * size) {
            Ok(buffer) => buffer,
            Err(error) => return (0, Err(error)),
        };
        let address = buffer.address();
        buffer[..LIST].fill(0);
        put_words(&mut buffer[LIST..], words);
        // SAFETY: Xen writes the counter, four octets at the start of `buffer`, and reads the list.
        let result = unsafe { self.call(hypercall, [address + LIST as u64, count as u64, address, subject, 0]) };
        (u32_at(&buffer, 0) as usize, result.map(drop).map_err(CallError::from))
    }

    /// `GNTTABOP_setup_table`: the frames of `domain`'s grant table, grown to `frames` of them.
    ///
    /// # Errors
    /// No memory, or Xen's error.
    pub fn grant_table_setup(&self, domain: DomId, frames: u32) -> Result<Vec<Mfn>, CallError> {
        const LIST: usize = size_of::<GnttabSetupTable>();
        let mut buffer = self.buffer(LIST + frames as usize * size_of::<Mfn>())?;
        let address = buffer.address();
        buffer[..LIST].fill(0);
        put(&mut buffer, offset_of!(GnttabSetupTable, dom), &domain.0.to_le_bytes());
        put(&mut buffer, offset_of!(GnttabSetupTable, nr_frames), &frames.to_le_bytes());
        put(&mut buffer, offset_of!(GnttabSetupTable, frame_list), &(address + LIST as u64).to_le_bytes());
        // SAFETY: Xen writes the status, inside the structure, and `nr_frames` frame numbers, for
        // which `buffer` has room.
        unsafe { self.call(Hypercall::GRANT_TABLE_OP, [u64::from(GrantTableOp::SETUP_TABLE.0), address, 1, 0, 0]) }?;
        let status = u16_at(&buffer, offset_of!(GnttabSetupTable, status));
        GrantStatus(status.cast_signed()).check().map_err(CallError::Grant)?;
        Ok(buffer[LIST..].chunks_exact(8).take(frames as usize).map(|octets| mfn_at(octets, 0)).collect())
    }

    /// Makes an `event_channel_op` whose structure has no pointers; `octets` go in and come out.
    ///
    /// # Errors
    /// No memory, or Xen's error.
    pub fn event_channel_op(&self, operation: EventChannelOp, octets: &mut [u8]) -> Result<(), CallError> {
        let mut buffer = self.buffer(octets.len())?;
        buffer[..octets.len()].copy_from_slice(octets);
        let address = buffer.address();
        // SAFETY: Xen writes inside the operation's structure; none is larger than a page, and a
        // buffer is one at least.
        unsafe { self.call(Hypercall::EVENT_CHANNEL_OP, [u64::from(operation.0), address, 0, 0, 0]) }?;
        octets.copy_from_slice(&buffer[..octets.len()]);
        Ok(())
    }

    /// Makes a hypercall, and returns its value.
    ///
    /// # Safety
    /// All memory of this process that Xen writes for this operation lies in a [`Loan`] that the
    /// caller holds exclusively.
    unsafe fn call(&self, op: Hypercall, arg: [u64; 5]) -> Result<u64, Errno> {
        let mut hypercall = PrivcmdHypercall { op: u64::from(op.0), arg };
        // SAFETY: the request reads and writes one `privcmd_hypercall_t`, which `hypercall` is; the
        // rest is the caller's duty.
        let result = unsafe { ioctl(&self.hypercalls, HYPERCALL, &raw mut hypercall) };
        // Linux hands Xen's error number on as its own.
        result.map_err(|error| Errno(error.raw_os_error().unwrap_or_default().unsigned_abs()))
    }
}

impl Caller for Privcmd {
    fn control(&self, version: u32, request: &mut Request) -> Result<(), CallError> {
        let mut buffer = self.buffer(request.length())?;
        let address = buffer.address();
        request.write_to(version, &mut buffer, address);
        // SAFETY: Xen writes to the structure and to its data, of which a `Request` names no more
        // than its length, for which `buffer` has room.
        unsafe { self.call(request.hypercall(), [address, 0, 0, 0, 0]) }?;
        request.read_from(&buffer);
        Ok(())
    }

    fn xen_version(&self) -> Option<XenVersion> {
        // SAFETY: this operation has no argument, and Xen writes no memory.
        let version = unsafe { self.call(Hypercall::XEN_VERSION, [XenVersionOp::VERSION.0.into(), 0, 0, 0, 0]) };
        version.ok().map(|version| XenVersion { major: (version >> 16) as u16, minor: version as u16 })
    }
}

fn put(memory: &mut [u8], at: usize, octets: &[u8]) {
    memory[at..at + octets.len()].copy_from_slice(octets);
}

fn put_words(memory: &mut [u8], words: impl Iterator<Item = u64>) {
    memory.chunks_exact_mut(8).zip(words).for_each(|(octets, word)| octets.copy_from_slice(&word.to_le_bytes()));
}
