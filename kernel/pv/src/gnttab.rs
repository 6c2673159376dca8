//! The grant table (version 1): the frames of this domain that another domain may map or copy.
//!
//! Only pages that were made for it are ever granted: [`GrantedPages`], some of which the other
//! domain may write, and [`ReadablePages`], which it may only read.

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use xen_abi::grant_table::{GrantEntryV1, GrantFlags};
use xen_abi::{DomId, GrantRef, Mfn, PAGE_SIZE};

use xen_sys::GrantTableError;
use zooid_memory::{PageClass, device};

use crate::events::Masked;
use crate::life::Component;
use crate::mmu;
use crate::shared::{SharedPages, barrier};

/// Frames of the table that are mapped: 512 entries each.
pub const FRAMES: u32 = 4;
/// Entry of the fork component's control page, the same in parent and child.
pub const CONTROL: GrantRef = GrantRef::FIRST_FREE;
const ENTRIES: u32 = FRAMES * (PAGE_SIZE / size_of::<GrantEntryV1>()) as u32;

struct Table {
    entries: SharedPages,
    free: Vec<GrantRef>,
}

static TABLE: Masked<Option<Table>> = Masked::new(None);

/// Pages could not be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantError {
    /// All entries of the table are in use.
    TableFull,
    /// No frames are left.
    OutOfMemory,
}

impl fmt::Display for GrantError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::TableFull => "all grant table entries are in use",
            Self::OutOfMemory => "not enough memory for shared pages",
        })
    }
}

impl core::error::Error for GrantError {}

/// The other domain's access to a granted frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Read,
    ReadWrite,
}

/// An entry of the table that is in use. [`Grant::end`] gives it back.
#[must_use = "a granted frame stays with the other domain until the grant is ended"]
#[derive(Debug)]
struct Grant {
    reference: GrantRef,
}

/// The other domain still uses the frame; the grant goes on.
struct StillMapped(Grant);

/// Asks Xen for the table's frames and maps them.
pub fn init() -> Result<(), GrantTableError> {
    let mut frames = [Mfn(0); FRAMES as usize];
    xen_sys::grant_table_op_setup_table(DomId::SELF, &mut frames)?;
    let entries = mmu::map_reserved(device::GRANT_TABLE, &frames).map_err(GrantTableError::Hypercall)?;
    let free = (CONTROL.0 + 1..ENTRIES).rev().map(GrantRef).collect();
    *TABLE.lock() = Some(Table { entries, free });
    Ok(())
}

/// Lets `domain` map or copy `frame`.
fn grant(domain: DomId, frame: Mfn, access: Access) -> Result<Grant, GrantError> {
    let mut table = TABLE.lock();
    let table = table.as_mut().ok_or(GrantError::TableFull)?;
    let reference = table.free.pop().ok_or(GrantError::TableFull)?;
    table.fill(reference, domain, frame, access);
    Ok(Grant { reference })
}

/// Lets domain 0 read and write the control page, for ever.
pub fn grant_control_page(frame: Mfn) {
    if let Some(table) = &*TABLE.lock() {
        table.fill(CONTROL, DomId::DOM0, frame, Access::ReadWrite);
    }
}

/// Number of frames that one grant table has at most with Xen's defaults (`gnttab_max_frames`).
const MOST_FRAMES: u32 = (device::RESERVED - device::GRANT_TABLE) as u32;
const ENTRIES_PER_FRAME: u32 = ENTRIES / FRAMES;

/// Lets domain 0 read `frame`, any page of this domain's, until [`forget`]. The table grows as
/// needed.
pub fn let_read(frame: Mfn) -> Result<GrantRef, GrantError> {
    let mut table = TABLE.lock();
    let table = table.as_mut().ok_or(GrantError::TableFull)?;
    if table.free.is_empty() {
        table.grow()?;
    }
    let reference = table.free.pop().ok_or(GrantError::TableFull)?;
    table.fill(reference, DomId::DOM0, frame, Access::Read);
    Ok(reference)
}

/// The frame that an entry grants.
pub fn granted_frame(reference: GrantRef) -> Mfn {
    let table = TABLE.lock();
    let table = table.as_ref().expect("a grant in use has a table");
    Mfn(u64::from(table.entries.read_u32(offset(reference) + 4)))
}

/// Ends a grant of [`let_read`]; returns false, and the grant stays, while domain 0 has the page
/// mapped.
pub fn forget(reference: GrantRef) -> bool {
    Grant { reference }.end().is_ok()
}

/// The table of a child grants nothing but the control page. Holders of grants of [`let_read`] have
/// to forget those of the parent.
pub static LIFE: Component = Component { begin: |_| begin_life(), ..Component::PASSIVE };

fn begin_life() {
    if let Some(table) = &mut *TABLE.lock()
        && table.entries.len() > FRAMES as usize * PAGE_SIZE
    {
        // SAFETY: this part is mapped in a child.
        table.entries = unsafe { SharedPages::new(table.entries.address() as *mut u8, FRAMES as usize) };
        table.free.retain(|reference| reference.0 < ENTRIES);
    }
}

/// True if an entry of this number exists. It may not in a child whose parent had a larger table.
pub fn exists(reference: GrantRef) -> bool {
    TABLE.lock().as_ref().is_some_and(|table| offset(reference) < table.entries.len())
}

impl Table {
    /// Doubles the table, as far as Xen allows.
    fn grow(&mut self) -> Result<(), GrantError> {
        let old = (self.entries.len() / PAGE_SIZE) as u32;
        let new = (2 * old).min(MOST_FRAMES);
        if new == old {
            return Err(GrantError::TableFull);
        }
        let mut frames = [Mfn(0); MOST_FRAMES as usize];
        let frames = &mut frames[..new as usize];
        xen_sys::grant_table_op_setup_table(DomId::SELF, frames).map_err(|_| GrantError::TableFull)?;
        self.free.try_reserve((new * ENTRIES_PER_FRAME) as usize).map_err(|_| GrantError::OutOfMemory)?;
        mmu::map_reserved(device::GRANT_TABLE + old as usize, &frames[old as usize..])
            .map_err(|_| GrantError::OutOfMemory)?;
        // SAFETY: mapped in a row, the old part and the new, for ever.
        self.entries = unsafe { SharedPages::new(self.entries.address() as *mut u8, new as usize) };
        self.free.extend((old * ENTRIES_PER_FRAME..new * ENTRIES_PER_FRAME).rev().map(GrantRef));
        Ok(())
    }

    fn fill(&self, reference: GrantRef, domain: DomId, frame: Mfn, access: Access) {
        let at = offset(reference);
        self.entries.write_u32(at + 4, frame.0 as u32);
        self.entries.write_u16(at + 2, domain.0);
        barrier();
        let flags = match access {
            Access::Read => GrantFlags::PERMIT_ACCESS | GrantFlags::READONLY,
            Access::ReadWrite => GrantFlags::PERMIT_ACCESS,
        };
        self.entries.write_u16(at, flags.bits());
    }
}

impl Grant {
    /// Ends the permission; refused while the other domain has the frame mapped.
    fn end(self) -> Result<(), StillMapped> {
        let mut table = TABLE.lock();
        let Some(table) = table.as_mut() else { return Ok(()) };
        let at = offset(self.reference);
        // As public/grant_table.h says: the flags are cleared only if neither reading nor writing
        // is set, in one step.
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

/// Pages of this domain that another domain may read and write.
pub struct GrantedPages {
    /// `None` only during the drop.
    pages: Option<SharedPages>,
    grants: Vec<Grant>,
}

/// Pages that could not be freed because the other domain still had them mapped, with their grants.
static LINGERING: Masked<Vec<GrantedPages>> = Masked::new(Vec::new());

impl GrantedPages {
    /// Makes `count` zeroed pages in a row and grants each to `domain`.
    pub fn new(domain: DomId, count: usize) -> Result<Self, GrantError> {
        Self::with_access(domain, count, Access::ReadWrite, PageClass::Device)
    }

    fn with_access(domain: DomId, count: usize, access: Access, class: PageClass) -> Result<Self, GrantError> {
        free_lingering();
        let pages = mmu::new_shared_pages(count, class).map_err(|_| GrantError::OutOfMemory)?;
        let base = pages.address();
        let mut granted = Self { pages: Some(pages), grants: Vec::with_capacity(count) };
        for page in 0..count {
            let frame = mmu::mfn_of(base + page * PAGE_SIZE).expect("new pages are mapped");
            granted.grants.push(grant(domain, frame, access)?);
        }
        Ok(granted)
    }

    /// The gref by which the other domain knows page `page`.
    pub fn reference(&self, page: usize) -> GrantRef {
        self.grants[page].reference
    }

    /// The pages themselves.
    pub fn pages(&self) -> &SharedPages {
        self.pages.as_ref().expect("present until dropped")
    }

    /// Ends the grants that can be ended. Returns true when none is left.
    fn end_grants(&mut self) -> bool {
        let all = core::mem::take(&mut self.grants);
        self.grants = all.into_iter().filter_map(|grant| grant.end().err().map(|still| still.0)).collect();
        self.grants.is_empty()
    }
}

impl Drop for GrantedPages {
    fn drop(&mut self) {
        let Some(pages) = self.pages.take() else { return };
        if self.end_grants() {
            mmu::free_shared_pages(pages);
        } else {
            let grants = core::mem::take(&mut self.grants);
            LINGERING.lock().push(Self { pages: Some(pages), grants });
        }
    }
}

/// Frees the pages that other domains have released by now.
fn free_lingering() {
    let lingering = core::mem::take(&mut *LINGERING.lock());
    drop(lingering);
}

/// Pages of this domain that another domain may read, but not write, so that slices of them may
/// exist.
pub struct ReadablePages(GrantedPages);

impl ReadablePages {
    /// Makes `count` zeroed pages in a row and grants each to `domain`, for reading.
    pub fn new(domain: DomId, count: usize) -> Result<Self, GrantError> {
        GrantedPages::with_access(domain, count, Access::Read, PageClass::Device).map(Self)
    }

    /// As [`new`](Self::new), for domain 0: pages that a child reads at the same address until it
    /// frees them.
    pub fn for_snapshot(count: usize) -> Result<Self, GrantError> {
        GrantedPages::with_access(DomId::DOM0, count, Access::Read, PageClass::Snapshot).map(Self)
    }

    /// Address of the first page.
    pub fn address(&self) -> usize {
        self.0.pages().address()
    }

    /// The gref by which the other domain knows page `page`.
    pub fn reference(&self, page: usize) -> GrantRef {
        self.0.reference(page)
    }

    /// A part of the pages.
    pub fn bytes(&mut self, range: Range<usize>) -> &mut [u8] {
        let pages = self.0.pages();
        assert!(range.start <= range.end && range.end <= pages.len(), "outside the shared pages");
        let start = (pages.address() + range.start) as *mut u8;
        // SAFETY: mapped pages of this domain's own, borrowed mutably; the other domain cannot
        // write them.
        unsafe { core::slice::from_raw_parts_mut(start, range.len()) }
    }
}
