//! How much memory the pVM has, and where it is.

use zooid_kernel::{heap, mmu};

/// Sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// All memory that the domain has.
    pub total: usize,
    /// In use by nobody: the heap and new stacks take from it.
    pub free: usize,
    /// What the heap has taken so far. It gives nothing back.
    pub heap_size: usize,
    /// What the application and the kernel have allocated from the heap.
    pub heap_used: usize,
}

impl Statistics {
    /// What can still be allocated, though not in one piece.
    pub fn available(&self) -> usize {
        self.free + self.heap_size - self.heap_used
    }
}

/// The sizes now.
pub fn statistics() -> Statistics {
    let (frames, heap) = (mmu::statistics(), heap::statistics());
    let bytes = |count: u64| count as usize * xen_abi::PAGE_SIZE;
    Statistics { total: bytes(frames.total), free: bytes(frames.free), heap_size: heap.size, heap_used: heap.used }
}
