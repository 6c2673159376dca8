//! Frames of other domains in this process: those that dom0 may map as the control domain (privcmd,
//! xen/sys/privcmd.h), and those that were granted to it (gntdev, xen/sys/gntdev.h).
//!
//! The frames' owner may write them at any time, so no reference into a mapping exists. Integers
//! are read and written as atomics, and octets are copied by an instruction that is opaque to the
//! compiler.
//!
//! A page does not vanish while it is mapped. A mapping holds a reference to the frame: a domain
//! that gives the frame back, or ends, goes on without it, and Xen frees the frame after the
//! mapping. A grant cannot be withdrawn while it is mapped either. A granted page whose granter has
//! ended can still be read and written; no other domain sees the writes.
#![allow(unsafe_code)]

use std::arch::asm;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use xen_abi::{DomId, GrantRef, Mfn, PAGE_SIZE};

use crate::error::Error;
use crate::hypervisor::{Memory, Protection};
use crate::ioctl::{self, ioctl};

pub const GNTDEV: &str = "/dev/xen/gntdev";
const MMAPBATCH_V2: libc::c_ulong = ioctl::request(b'P', 4, size_of::<PrivcmdMmapBatchV2>());
/// Sizes of `struct ioctl_gntdev_map_grant_ref` without its list, and of one element of the list.
const MAP_GRANT_HEAD: usize = 16;
const GRANT_REF: usize = 8;
/// Offsets of the index that the kernel writes, and of the reference in an element, behind the
/// domain.
const INDEX: usize = 8;
const GREF_SHIFT: u32 = 32;
const MAP_GRANT_REF: libc::c_ulong = ioctl::request(b'G', 0, MAP_GRANT_HEAD + GRANT_REF);
const UNMAP_GRANT_REF: libc::c_ulong = ioctl::request(b'G', 1, size_of::<UnmapGrantRef>());
/// For the comparison with the C headers.
#[cfg(test)]
pub(crate) const REQUESTS: [u64; 3] = [MMAPBATCH_V2, MAP_GRANT_REF, UNMAP_GRANT_REF];
/// For the comparison with the C headers.
#[cfg(test)]
pub(crate) const OFFSETS: [u64; 8] = [
    std::mem::offset_of!(PrivcmdMmapBatchV2, dom) as u64,
    std::mem::offset_of!(PrivcmdMmapBatchV2, addr) as u64,
    std::mem::offset_of!(PrivcmdMmapBatchV2, arr) as u64,
    std::mem::offset_of!(PrivcmdMmapBatchV2, err) as u64,
    INDEX as u64,
    MAP_GRANT_HEAD as u64,
    GREF_SHIFT as u64 / 8,
    std::mem::offset_of!(UnmapGrantRef, count) as u64,
];

/// `privcmd_mmapbatch_v2_t`.
#[repr(C)]
struct PrivcmdMmapBatchV2 {
    num: u32,
    dom: DomId,
    addr: u64,
    arr: *const Mfn,
    err: *mut i32,
}

/// `struct ioctl_gntdev_unmap_grant_ref`.
#[repr(C)]
struct UnmapGrantRef {
    index: u64,
    count: u32,
    pad: u32,
}

/// Mapped frames of another domain, in a row, until this is dropped.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    size: usize,
    protection: Protection,
    /// For grants: the entry of gntdev, to be removed after the pages are unmapped.
    _grants: Option<Grants>,
}

// SAFETY: the value owns a range of addresses that is the same for all threads. It is used by
// atomic accesses and by copies that allow for concurrent changes by other threads as well as by
// the other domain.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `frames` of `domain` by way of privcmd's `device`.
    ///
    /// # Errors
    /// Linux has no memory, or the error of the first frame that Xen refused.
    pub(crate) fn foreign(device: &File, domain: DomId, frames: &[Mfn], protection: Protection) -> Result<Self, Error> {
        let mapping = Self::new(device, frames.len(), 0, protection, None).map_err(|e| Error::os("map_foreign", &e))?;
        let mut errors = vec![0_i32; frames.len()];
        let mut batch = PrivcmdMmapBatchV2 {
            num: frames.len() as u32,
            dom: domain,
            addr: mapping.start.as_ptr() as u64,
            arr: frames.as_ptr(),
            err: errors.as_mut_ptr(),
        };
        // SAFETY: `arr` and `err` have `num` elements and live as long as the call; the frames go
        // to the pages of `mapping`, which no other code uses yet.
        let result = unsafe { ioctl(device, MMAPBATCH_V2, &raw mut batch) };
        // The kernel reports a failed page beside the others' success; an access to such a page
        // would be a SIGBUS.
        match errors.iter().find(|error| **error != 0) {
            Some(error) => Err(Error::os("map_foreign", &io::Error::from_raw_os_error(-error))),
            None => result.map(|_| mapping).map_err(|error| Error::os("map_foreign", &error)),
        }
    }

    /// Maps the grants `refs` of `domain` by way of gntdev's `device`.
    ///
    /// # Errors
    /// Linux has no memory, or Xen refused a grant, which the kernel reports as `EINVAL`.
    pub(crate) fn grants(
        device: &Arc<File>,
        domain: DomId,
        refs: &[GrantRef],
        protection: Protection,
    ) -> Result<Self, Error> {
        let grants = Grants::add(device, domain, refs).map_err(|error| Error::os("map_grants", &error))?;
        let offset = grants.index.cast_signed();
        Self::new(device, refs.len(), offset, protection, Some(grants)).map_err(|error| Error::os("map_grants", &error))
    }

    fn new(
        device: &File,
        pages: usize,
        offset: i64,
        protection: Protection,
        grants: Option<Grants>,
    ) -> io::Result<Self> {
        let size = pages * PAGE_SIZE;
        let access = match protection {
            Protection::Read => libc::PROT_READ,
            Protection::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
        };
        // SAFETY: a new mapping at an address that the kernel chooses touches no memory of ours.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), size, access, libc::MAP_SHARED, device.as_raw_fd(), offset) };
        match NonNull::new(start.cast()) {
            Some(mapped) if start != libc::MAP_FAILED => {
                Ok(Mapping { start: mapped, size, protection, _grants: grants })
            }
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The address of `length` octets at `offset`, checked to be inside the mapping and aligned.
    fn at(&self, offset: usize, length: usize, align: usize) -> NonNull<u8> {
        let inside = offset.checked_add(length).is_some_and(|end| end <= self.size);
        assert!(inside && offset.is_multiple_of(align), "{length} octets at {offset} of a mapping of {}", self.size);
        // SAFETY: `offset` is inside the mapping, or at its end for a length of 0.
        unsafe { self.start.add(offset) }
    }

    /// As [`at`](Self::at), for writing.
    fn at_mut(&self, offset: usize, length: usize, align: usize) -> NonNull<u8> {
        assert!(self.protection == Protection::ReadWrite, "a write to what is mapped for reading");
        self.at(offset, length, align)
    }
}

/// An atomic over the integer at `$address`, which was checked.
macro_rules! atomic {
    ($type:ident, $address:expr) => {
        // SAFETY: the address is mapped for as long as `self` is borrowed, and aligned, as `at`
        // checked. This process uses it by atomics and by `copy` only; the other domain's accesses
        // are like those of the copy.
        unsafe { $type::from_ptr($address.as_ptr().cast()) }
    };
}

impl Memory for Mapping {
    fn size(&self) -> usize {
        self.size
    }

    fn read_u32(&self, offset: usize) -> u32 {
        atomic!(AtomicU32, self.at(offset, 4, 4)).load(Ordering::Acquire)
    }

    fn write_u32(&self, offset: usize, value: u32) {
        atomic!(AtomicU32, self.at_mut(offset, 4, 4)).store(value, Ordering::Release);
    }

    fn read_u64(&self, offset: usize) -> u64 {
        atomic!(AtomicU64, self.at(offset, 8, 8)).load(Ordering::Acquire)
    }

    fn write_u64(&self, offset: usize, value: u64) {
        atomic!(AtomicU64, self.at_mut(offset, 8, 8)).store(value, Ordering::Release);
    }

    fn copy_out(&self, offset: usize, to: &mut [u8]) {
        let from = self.at(offset, to.len(), 1);
        // SAFETY: `to.len()` octets at `from` are mapped, as `at` checked, and `to` is borrowed
        // exclusively.
        unsafe { copy(from.as_ptr(), to.as_mut_ptr(), to.len()) };
    }

    fn copy_words_out(&self, offset: usize, to: &mut [u64]) {
        let octets = size_of_val(to);
        let from = self.at(offset, octets, size_of::<u64>());
        // SAFETY: `octets` octets at `from` are mapped, as `at` checked; `to` has as many and is
        // borrowed exclusively, and any octets make a word.
        unsafe { copy(from.as_ptr(), to.as_mut_ptr().cast(), octets) };
    }

    fn copy_in(&self, offset: usize, from: &[u8]) {
        let to = self.at_mut(offset, from.len(), 1);
        // SAFETY: `from.len()` octets at `to` are mapped for writing, as `at_mut` checked.
        unsafe { copy(from.as_ptr(), to.as_ptr(), from.len()) };
    }

    fn copy_page(&self, from_page: usize, to: &Self, to_page: usize) {
        let from = self.at(from_page * PAGE_SIZE, PAGE_SIZE, PAGE_SIZE);
        let to = to.at_mut(to_page * PAGE_SIZE, PAGE_SIZE, PAGE_SIZE);
        // SAFETY: both pages are mapped, the second for writing, as `at` and `at_mut` checked.
        unsafe { copy(from.as_ptr(), to.as_ptr(), PAGE_SIZE) };
    }
}

/// Copies octets that another domain may change meanwhile, on either side. The order of the single
/// accesses is undefined; all are done after the accesses before the call and before those after
/// it.
///
/// # Safety
/// `count` octets at `from` can be read, and as many at `to` written, without a reference to any of
/// them.
unsafe fn copy(from: *const u8, to: *mut u8, count: usize) {
    // SAFETY: both read and write memory that the caller answers for, and change the three
    // registers only. The direction flag is clear, by the ABI. Racing accesses are defined for the
    // processor, and the compiler does not see any.
    unsafe {
        asm!(
            "rep movsq",
            "mov rcx, {rest}",
            "rep movsb",
            rest = in(reg) count % 8,
            inout("rcx") count / 8 => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags),
        );
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing borrows from it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.size) };
    }
}

/// Grants that gntdev keeps for a mapping.
#[derive(Debug)]
struct Grants {
    device: Arc<File>,
    /// Their place in the device.
    index: u64,
    count: u32,
}

impl Grants {
    /// Tells gntdev the grants of a later mapping. Xen is asked for them when the mapping is made.
    fn add(device: &Arc<File>, domain: DomId, refs: &[GrantRef]) -> io::Result<Self> {
        // The structure has elements of eight octets only: a list of words has its alignment.
        let mut words = vec![0_u64; MAP_GRANT_HEAD / 8];
        words[0] = refs.len() as u64;
        words.extend(refs.iter().map(|gref| u64::from(domain.0) | u64::from(gref.0) << GREF_SHIFT));
        // SAFETY: the kernel reads the head and `count` references behind it, all of which `words`
        // has, and writes the index, the second word.
        unsafe { ioctl(device, MAP_GRANT_REF, words.as_mut_ptr()) }?;
        Ok(Grants { device: device.clone(), index: words[INDEX / 8], count: refs.len() as u32 })
    }
}

impl Drop for Grants {
    fn drop(&mut self) {
        let mut request = UnmapGrantRef { index: self.index, count: self.count, pad: 0 };
        // SAFETY: the request reads one `struct ioctl_gntdev_unmap_grant_ref`. A failure could not
        // be handled here.
        let _ = unsafe { ioctl(&self.device, UNMAP_GRANT_REF, &raw mut request) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mapping of anonymous memory instead of foreign frames.
    fn mapping(pages: usize, protection: Protection) -> Mapping {
        let size = pages * PAGE_SIZE;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: as in `Mapping::new`.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), size, access, flags, -1, 0) };
        Mapping { start: NonNull::new(start.cast()).unwrap(), size, protection, _grants: None }
    }

    #[test]
    fn what_is_written_is_read() {
        let pages = mapping(2, Protection::ReadWrite);
        pages.write_u64(PAGE_SIZE - 8, 0x0102_0304_0506_0708);
        assert_eq!(
            (pages.read_u64(PAGE_SIZE - 8), pages.read_u32(PAGE_SIZE - 4)),
            (0x0102_0304_0506_0708, 0x0102_0304)
        );
        pages.copy_in(PAGE_SIZE - 2, b"abcd");
        let mut octets = [0; 6];
        pages.copy_out(PAGE_SIZE - 3, &mut octets);
        assert_eq!(octets, *b"\x03abcd\0");
        let other = mapping(3, Protection::ReadWrite);
        pages.copy_page(1, &other, 2);
        other.copy_out(2 * PAGE_SIZE, &mut octets[..2]);
        assert_eq!(octets[..2], *b"cd");
        pages.copy_out(2 * PAGE_SIZE, &mut []);
        let mut words = [0; 2];
        pages.copy_words_out(PAGE_SIZE - 16, &mut words);
        assert_eq!(words, [pages.read_u64(PAGE_SIZE - 16), pages.read_u64(PAGE_SIZE - 8)]);
    }

    #[test]
    #[should_panic(expected = "8 octets at 4096 of a mapping of 4096")]
    fn nothing_is_read_outside() {
        mapping(1, Protection::Read).read_u64(PAGE_SIZE);
    }

    #[test]
    #[should_panic(expected = "octets at 18446744073709551615")]
    fn no_offset_overflows() {
        mapping(1, Protection::Read).copy_out(usize::MAX, &mut [0; 2]);
    }

    #[test]
    #[should_panic(expected = "a write to what is mapped for reading")]
    fn what_is_mapped_for_reading_is_not_written() {
        mapping(1, Protection::Read).write_u32(0, 1);
    }
}
