//! Shared memory (POSIX `shm_open` and `mmap`).

use alloc::sync::Arc;

use xen_abi::PAGE_SIZE;

use crate::error::Error;
use crate::layout::{BODY, Kind, Role};
use crate::object::{How, Object, Part, at_address, open};
use crate::platform::{Pages, Platform};

/// A region that relatives read and write. Clones are the same one; its memory is zeroed when it is
/// made.
pub struct SharedMemory<P: Platform> {
    part: Part<P>,
    size: usize,
}

impl<P: Platform> Clone for SharedMemory<P> {
    fn clone(&self) -> Self {
        Self { part: self.part.clone(), size: self.size }
    }
}

impl<P: Platform> SharedMemory<P> {
    /// A region without a name, for this pVM and its descendants.
    ///
    /// # Errors
    /// `Invalid` when `size` is 0; see [`Error`].
    pub fn new(size: usize) -> Result<Self, Error> {
        Self::make(None, How::ANONYMOUS, size)
    }

    /// The family's region of this name; `size`, in bytes, is for one that is made now.
    ///
    /// # Errors
    /// As [`new`](Self::new), and `Exists`, `NotFound`; `Invalid` when there is something else of
    /// this name.
    pub fn open(name: &str, how: How, size: usize) -> Result<Self, Error> {
        Self::make(Some(name), how, size)
    }

    /// One with or without a name.
    ///
    /// # Errors
    /// As [`new`](Self::new) and [`open`](Self::open).
    pub fn make(name: Option<&str>, how: How, size: usize) -> Result<Self, Error> {
        let Ok(octets) = u32::try_from(size) else { return Err(Error::OutOfMemory) };
        if size == 0 && how.create {
            return Err(Error::Invalid);
        }
        let pages = 1 + size.div_ceil(PAGE_SIZE).max(1);
        Self::from_part(open(Kind::Memory, name, pages, how, [octets, 0], Role::Reader)?)
    }

    fn from_part(part: Part<P>) -> Result<Self, Error> {
        let size = part.object().detail(0) as usize;
        if size > part.object().pages().size() - BODY {
            return Err(part.object().broken());
        }
        Ok(Self { part, size })
    }

    /// The open region that has this address, and the address's offset there.
    pub fn at_address(address: *const u8) -> Option<(Self, usize)> {
        let (object, offset) = at_address(address as usize, Kind::Memory)?;
        let memory = Self::from_part(Part::new(&object, Role::Reader)).ok()?;
        let offset = offset.checked_sub(BODY).filter(|offset| *offset < memory.size)?;
        Some((memory, offset))
    }

    pub(crate) fn object(&self) -> &Arc<Object<P>> {
        self.part.object()
    }

    /// The place in the object of the `size` bytes at `offset`, which have to be aligned.
    pub(crate) fn place(&self, offset: usize, size: usize) -> Result<usize, Error> {
        let fits = offset.is_multiple_of(size) && offset.checked_add(size).is_some_and(|end| end <= self.size);
        if fits { Ok(BODY + offset) } else { Err(Error::Invalid) }
    }

    /// Size in bytes.
    pub fn len(&self) -> usize {
        self.size
    }

    /// True if its size is 0.
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    fn at(&self, offset: usize, length: usize) -> usize {
        assert!(offset <= self.size && length <= self.size - offset, "access outside the shared memory");
        BODY + offset
    }

    /// Copies from `offset` on. A concurrent write of others may be copied in part.
    ///
    /// # Panics
    /// Outside the region, here and below.
    pub fn read(&self, offset: usize, buffer: &mut [u8]) {
        self.part.object().pages().copy_out(self.at(offset, buffer.len()), buffer);
    }

    /// Copies to `offset`.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        self.part.object().pages().copy_in(self.at(offset, bytes.len()), bytes);
    }

    /// An integer in it, at a multiple of its size.
    pub fn atomic_u32(&self, offset: usize) -> <P::Pages as Pages>::U32<'_> {
        self.part.object().pages().u32(self.at(offset, 4))
    }

    /// As [`atomic_u32`](Self::atomic_u32).
    pub fn atomic_u64(&self, offset: usize) -> <P::Pages as Pages>::U64<'_> {
        self.part.object().pages().u64(self.at(offset, 8))
    }

    /// Its first byte, for callers that order their accesses themselves.
    pub fn as_ptr(&self) -> *mut u8 {
        (self.part.object().pages().address() + BODY) as *mut u8
    }
}
