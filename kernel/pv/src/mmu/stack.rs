//! Stacks of threads: mapped pages with an unmapped page below.
//!
//! All pages of a stack are present from the start, because Xen writes exception and event frames
//! at the stack pointer of a guest in kernel mode and ends the domain if it cannot.

use alloc::vec::Vec;

use xen_abi::PAGE_SIZE;
use zooid_memory::{PageClass, Zone};

use super::{allocate, map_new, release, unmap_and_free};
use crate::events::Masked;
use crate::thread::DEFAULT_STACK_SIZE;

/// Unused stacks of the default size, kept because mapping costs some hundred instructions a page.
static CACHE: Masked<Vec<(usize, usize)>> = Masked::new(Vec::new());
const CACHE_LIMIT: usize = 16;

/// No stack could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackError {
    /// No frames or no address range are left.
    OutOfMemory,
}

/// The stack of a thread.
pub struct Stack {
    base: usize,
    size: usize,
    /// Lowest address taken by `reserve` and `push`.
    top: usize,
}

impl Stack {
    /// Makes a stack of at least `size` bytes.
    pub fn new(size: usize) -> Result<Self, StackError> {
        let size = size.max(2 * PAGE_SIZE).checked_next_multiple_of(PAGE_SIZE).ok_or(StackError::OutOfMemory)?;
        if size == DEFAULT_STACK_SIZE
            && let Some((base, size)) = CACHE.lock().pop()
        {
            return Ok(Self { base, size, top: base + size });
        }
        let base = allocate(Zone::Stacks, size / PAGE_SIZE, PageClass::Stack).ok_or(StackError::OutOfMemory)?;
        if map_new(base, size / PAGE_SIZE, PageClass::Stack).is_err() {
            release(base);
            return Err(StackError::OutOfMemory);
        }
        Ok(Self { base, size, top: base + size })
    }

    /// Takes `size` bytes, zeroed, from the top, at a multiple of `align`. No thread runs on the
    /// stack yet.
    pub fn reserve(&mut self, size: usize, align: usize) -> usize {
        let start = (self.top - size) & !(align - 1);
        assert!(start >= self.base, "the stack is too small for its thread block");
        self.top = start;
        // SAFETY: inside this stack's pages, which nothing else uses yet.
        unsafe { (start as *mut u8).write_bytes(0, size) };
        start
    }

    /// Pushes a word. No thread runs on the stack yet.
    pub fn push(&mut self, value: u64) {
        let slot = self.reserve(size_of::<u64>(), align_of::<u64>());
        // SAFETY: `reserve` gave it, aligned.
        unsafe { (slot as *mut u64).write(value) };
    }

    /// Discards the pushed words, on a stack that no thread runs on any more.
    pub fn clear(&mut self) {
        self.top = self.end();
    }

    /// The first address behind the stack.
    pub fn end(&self) -> usize {
        self.base + self.size
    }

    /// The stack pointer after the pushed words.
    pub fn top(&self) -> u64 {
        self.top as u64
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if self.size == DEFAULT_STACK_SIZE {
            let mut cache = CACHE.lock();
            if cache.len() < CACHE_LIMIT {
                cache.push((self.base, self.size));
                return;
            }
        }
        unmap_and_free(self.base, self.size / PAGE_SIZE);
        release(self.base);
    }
}
