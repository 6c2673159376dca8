//! Memory that Xen may use in a hypercall, and the pool that it comes from.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use xen_abi::PAGE_SIZE;

/// Number of buffers that are kept. As many calls can be under way at once without a new mapping.
const KEPT: usize = 8;

/// Buffers that are reused, because a mapping costs more than most hypercalls.
#[derive(Debug)]
pub struct Pool {
    /// `/dev/xen/hypercall`, whose memory is always present. A hypercall fails with `EFAULT` on
    /// absent memory (Linux, drivers/xen/privcmd-buf.c).
    device: File,
    free: Mutex<Vec<Buffer>>,
}

impl Pool {
    /// A pool of memory from `device`.
    pub fn new(device: File) -> Self {
        Pool { device, free: Mutex::default() }
    }

    /// A buffer of at least `length` octets, with the contents that its last user left.
    ///
    /// # Errors
    /// Linux has no memory.
    pub fn take(&self, length: usize) -> io::Result<Loan<'_>> {
        let found = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let fitting = free.iter().position(|buffer| buffer.length >= length);
            // A buffer that is too small is replaced by a larger one, so that the pool grows with
            // the requests.
            fitting.or_else(|| free.len().checked_sub(1)).map(|index| free.swap_remove(index))
        };
        let buffer = match found {
            Some(buffer) if buffer.length >= length => buffer,
            _ => Buffer::new(&self.device, length)?,
        };
        Ok(Loan { pool: self, buffer: Some(buffer) })
    }
}

/// A buffer that goes back to its pool.
pub struct Loan<'a> {
    pool: &'a Pool,
    /// `None` once it has gone back.
    buffer: Option<Buffer>,
}

impl Loan<'_> {
    fn buffer(&self) -> &Buffer {
        self.buffer.as_ref().expect("present until the drop")
    }

    /// Its address, for a hypercall. Only the holder of the loan sees Xen's writes there.
    pub fn address(&self) -> u64 {
        self.buffer().start.as_ptr() as u64
    }
}

impl Deref for Loan<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let buffer = self.buffer();
        // SAFETY: `start` and `length` are those of a mapping that lives as long as the buffer.
        // Only the loan's holder uses it; the kernel and Xen write to it only during a call, whose
        // caller holds the loan exclusively.
        unsafe { std::slice::from_raw_parts(buffer.start.as_ptr(), buffer.length) }
    }
}

impl DerefMut for Loan<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        let buffer = self.buffer();
        // SAFETY: as in `deref`; `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(buffer.start.as_ptr(), buffer.length) }
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        let mut free = self.pool.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEPT {
            free.extend(self.buffer.take());
        }
    }
}

/// A mapping of the device.
#[derive(Debug)]
struct Buffer {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the buffer owns its mapping, which is the same for all threads.
unsafe impl Send for Buffer {}

impl Buffer {
    fn new(device: &File, length: usize) -> io::Result<Self> {
        let length = length.next_multiple_of(PAGE_SIZE);
        // SAFETY: a new mapping at an address that the kernel chooses touches no memory of ours.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                device.as_raw_fd(),
                0,
            )
        };
        match NonNull::new(start.cast()) {
            Some(mapped) if start != libc::MAP_FAILED => Ok(Buffer { start: mapped, length }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing borrows from it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pool of any file that can be mapped.
    fn pool(test: &str) -> Pool {
        let path = std::env::temp_dir().join(format!("xenctl-{test}-{}", std::process::id()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        file.set_len(1 << 20).unwrap();
        std::fs::remove_file(path).unwrap();
        Pool::new(file)
    }

    #[test]
    fn a_buffer_is_used_again_and_replaced_when_too_small() {
        let pool = pool("again");
        let first = pool.take(10).unwrap().address();
        let mut again = pool.take(PAGE_SIZE).unwrap();
        assert_eq!((again.address(), again.len()), (first, PAGE_SIZE));
        again[PAGE_SIZE - 1] = 1;
        drop(again);
        assert_eq!(pool.take(PAGE_SIZE + 1).unwrap().len(), 2 * PAGE_SIZE);
        assert_eq!(pool.free.lock().unwrap().len(), 1);
    }

    #[test]
    fn loans_at_one_time_are_distinct_and_not_all_kept() {
        let pool = pool("loans");
        let loans: Vec<_> = (0..KEPT + 2).map(|_| pool.take(1).unwrap()).collect();
        let mut addresses: Vec<_> = loans.iter().map(Loan::address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), KEPT + 2);
        drop(loans);
        assert_eq!(pool.free.lock().unwrap().len(), KEPT);
    }
}
