//! Pages that another domain can read or write at any time.
//!
//! No reference into such a page exists, except for atomic integers. Every other access is a
//! volatile read or write of one integer, or a copy into or out of private memory. A reader copies
//! once, then checks the copy.

use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

use xen_abi::PAGE_SIZE;
use zooid_core::ring::{BadIndex, ByteRing};

/// A run of pages that are shared with another domain, or with Xen.
pub struct SharedPages {
    base: *mut u8,
    len: usize,
}

// SAFETY: the value is only a range of addresses. All accesses are volatile, and a concurrent write
// has the same effect whether the other domain or another thread makes it.
unsafe impl Send for SharedPages {}
// SAFETY: as above.
unsafe impl Sync for SharedPages {}

macro_rules! accessors {
    ($($read:ident $write:ident $type:ty;)*) => {$(
        /// Reads one integer at byte `offset`, once.
        pub fn $read(&self, offset: usize) -> $type {
            // SAFETY: the address is inside the mapped range and aligned, as `at` checked.
            unsafe { self.at(offset, size_of::<$type>(), align_of::<$type>()).cast::<$type>().read_volatile() }
        }

        /// Writes one integer at byte `offset`.
        pub fn $write(&self, offset: usize, value: $type) {
            // SAFETY: the address is inside the mapped range and aligned, as `at` checked.
            unsafe { self.at(offset, size_of::<$type>(), align_of::<$type>()).cast::<$type>().write_volatile(value) }
        }
    )*};
}

impl SharedPages {
    /// Takes `pages` pages at `base`.
    ///
    /// # Safety
    /// They are mapped and writable for as long as this value lives, and no reference points into
    /// them.
    pub const unsafe fn new(base: *mut u8, pages: usize) -> Self {
        Self { base, len: pages * PAGE_SIZE }
    }

    /// Size in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// False: a run of pages has at least one.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Virtual address of the first byte.
    pub fn address(&self) -> usize {
        self.base as usize
    }

    /// Most callers pass constants, for which one comparison is left of the checks.
    fn at(&self, offset: usize, size: usize, align: usize) -> *mut u8 {
        if offset > self.len || size > self.len - offset || !offset.is_multiple_of(align) {
            outside();
        }
        self.base.wrapping_add(offset)
    }

    accessors! {
        read_u8 write_u8 u8;
        read_u16 write_u16 u16;
        read_u32 write_u32 u32;
        read_u64 write_u64 u64;
    }

    /// Reads a 32-bit value at byte `offset`, once; later accesses are not moved before it.
    pub fn read_u32_acquire(&self, offset: usize) -> u32 {
        let value = self.read_u32(offset);
        fence(Ordering::Acquire);
        value
    }

    /// Writes a 32-bit value at byte `offset`; earlier accesses are not moved behind it.
    pub fn write_u32_release(&self, offset: usize, value: u32) {
        fence(Ordering::Release);
        self.write_u32(offset, value);
    }

    /// A 32-bit value at byte `offset`, for atomic operations. The other side uses such, too.
    #[inline]
    pub fn atomic_u32(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: the address is inside the mapped range and aligned, as `at` checked. Atomic
        // accesses allow concurrent changes.
        unsafe { AtomicU32::from_ptr(self.at(offset, 4, 4).cast()) }
    }

    /// As [`atomic_u32`](Self::atomic_u32), for 16 bits.
    #[inline]
    pub fn atomic_u16(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: as there.
        unsafe { AtomicU16::from_ptr(self.at(offset, 2, 2).cast()) }
    }

    /// As [`atomic_u32`](Self::atomic_u32), for 64 bits.
    #[inline]
    pub fn atomic_u64(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: as for `atomic_u32`.
        unsafe { AtomicU64::from_ptr(self.at(offset, 8, 8).cast()) }
    }

    /// Replaces a 16-bit value in one step by the result of `next`; returns false when `next`
    /// refuses the value found.
    pub fn compare_exchange_u16(&self, offset: usize, next: impl FnMut(u16) -> Option<u16>) -> bool {
        // SAFETY: the address is inside the mapped range and aligned, as `at` checked; the other
        // side uses atomic operations on such a value.
        let value = unsafe { AtomicU16::from_ptr(self.at(offset, 2, 2).cast()) };
        value.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next).is_ok()
    }

    /// Copies from byte `offset` into private memory.
    pub fn copy_out(&self, offset: usize, into: &mut [u8]) {
        let source = self.at(offset, into.len(), 1);
        // SAFETY: `source` is a mapped range of that length; `into` is private, so they do not
        // overlap. A write of the other side during the copy changes the copied values, nothing
        // else.
        unsafe { core::ptr::copy_nonoverlapping(source.cast_const(), into.as_mut_ptr(), into.len()) }
    }

    /// Copies private memory to byte `offset`.
    pub fn copy_in(&self, offset: usize, from: &[u8]) {
        let target = self.at(offset, from.len(), 1);
        // SAFETY: as in `copy_out`.
        unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), target, from.len()) }
    }
}

#[cold]
#[inline(never)]
fn outside() -> ! {
    panic!("access outside a shared page")
}

/// Orders all earlier accesses before all later ones, for both sides of a ring, as the `xen_mb()`
/// of public/io/ring.h.
pub fn barrier() {
    fence(Ordering::SeqCst);
}

/// One direction of a byte ring in a shared page: the places of its buffer and its two indices.
#[derive(Clone, Copy)]
pub struct ByteLane {
    /// Geometry of the buffer.
    pub ring: ByteRing,
    /// Byte offset of the buffer.
    pub buffer: usize,
    /// Byte offset of the writer's index.
    pub prod: usize,
    /// Byte offset of the reader's index.
    pub cons: usize,
}

impl ByteLane {
    /// Writes as many bytes as there is room for, and returns their number. The caller then
    /// notifies the reader.
    pub fn push(&self, page: &SharedPages, bytes: &[u8]) -> Result<usize, BadIndex> {
        let (prod, cons) = (page.read_u32(self.prod), page.read_u32(self.cons));
        let spans = self.ring.writable(prod, cons, bytes.len())?;
        barrier();
        let (first, second) = bytes[..spans.len()].split_at(spans.first.len());
        page.copy_in(self.buffer + spans.first.start, first);
        page.copy_in(self.buffer + spans.second.start, second);
        barrier();
        page.write_u32(self.prod, prod.wrapping_add(spans.len() as u32));
        Ok(spans.len())
    }

    /// Reads the available bytes, at most `into.len()`, and returns their number. The caller then
    /// notifies the writer.
    pub fn pop(&self, page: &SharedPages, into: &mut [u8]) -> Result<usize, BadIndex> {
        let (prod, cons) = (page.read_u32(self.prod), page.read_u32(self.cons));
        let spans = self.ring.readable(prod, cons, into.len())?;
        barrier();
        let (first, second) = into[..spans.len()].split_at_mut(spans.first.len());
        page.copy_out(self.buffer + spans.first.start, first);
        page.copy_out(self.buffer + spans.second.start, second);
        barrier();
        page.write_u32(self.cons, cons.wrapping_add(spans.len() as u32));
        Ok(spans.len())
    }

    /// True if the reader has read everything.
    pub fn is_empty(&self, page: &SharedPages) -> bool {
        page.read_u32(self.prod) == page.read_u32(self.cons)
    }
}
