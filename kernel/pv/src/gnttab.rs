//! The grant table (version 1): which of this domain's frames another domain may map or copy.

use alloc::vec::Vec;

use xen_abi::grant_table::{GrantEntryV1, GrantFlags};
use xen_abi::{DomId, GrantRef, Mfn, PAGE_SIZE};

use xen_sys::GrantTableError;

use crate::events::Masked;
use crate::mmu;
use crate::shared::{SharedPages, barrier};

/// Frames of the table that are mapped at boot: 512 entries each.
const FRAMES: u32 = 4;
const ENTRIES: u32 = FRAMES * (PAGE_SIZE / size_of::<GrantEntryV1>()) as u32;

struct Table {
    entries: SharedPages,
    free: Vec<GrantRef>,
}

static TABLE: Masked<Option<Table>> = Masked::new(None);

/// A frame could not be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantError {
    /// All entries of the table are in use.
    Full,
}

/// A frame that another domain may use. It has to be given back with [`Grant::end`].
#[must_use = "a granted frame stays with the other domain until the grant is ended"]
#[derive(Debug)]
pub struct Grant {
    reference: GrantRef,
}

/// The other domain still uses the frame; the grant goes on.
#[derive(Debug)]
pub struct StillMapped(pub Grant);

/// Asks Xen for the table's frames and maps them.
pub fn init() -> Result<(), GrantTableError> {
    let mut frames = [Mfn(0); FRAMES as usize];
    xen_sys::grant_table_op_setup_table(DomId::SELF, &mut frames)?;
    let entries = mmu::map_device(&frames).map_err(GrantTableError::Hypercall)?;
    let free = (GrantRef::FIRST_FREE.0..ENTRIES).rev().map(GrantRef).collect();
    *TABLE.lock() = Some(Table { entries, free });
    Ok(())
}

/// Lets `domain` map or copy `frame`, and write to it unless `read_only`.
pub fn grant(domain: DomId, frame: Mfn, read_only: bool) -> Result<Grant, GrantError> {
    let mut table = TABLE.lock();
    let table = table.as_mut().ok_or(GrantError::Full)?;
    let reference = table.free.pop().ok_or(GrantError::Full)?;
    let at = offset(reference);
    table.entries.write_u32(at + 4, frame.0 as u32);
    table.entries.write_u16(at + 2, domain.0);
    barrier();
    let writing = if read_only { GrantFlags::READONLY } else { GrantFlags::empty() };
    table.entries.write_u16(at, (GrantFlags::PERMIT_ACCESS | writing).bits());
    Ok(Grant { reference })
}

impl Grant {
    /// The number that the other domain is told.
    pub fn reference(&self) -> GrantRef {
        self.reference
    }

    /// Takes the permission back; refused while the other domain has the frame mapped.
    pub fn end(self) -> Result<(), StillMapped> {
        let mut table = TABLE.lock();
        let Some(table) = table.as_mut() else { return Ok(()) };
        let at = offset(self.reference);
        // As public/grant_table.h says: clear the flags only if neither reading nor writing is set, in one step.
        let ended = table.entries.compare_exchange_u16(at, |flags| {
            (flags & (GrantFlags::READING | GrantFlags::WRITING).bits() == 0).then_some(0)
        });
        if !ended {
            return Err(StillMapped(self));
        }
        barrier();
        table.free.push(self.reference);
        Ok(())
    }
}

fn offset(reference: GrantRef) -> usize {
    reference.0 as usize * size_of::<GrantEntryV1>()
}
