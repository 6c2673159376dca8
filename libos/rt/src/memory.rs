//! The memory of the pVM: its size and use.

use zooid_kernel::{heap, mmu};

/// Sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// All memory that the domain has.
    pub total: usize,
    /// Memory that is not in use. The heap and new stacks take from it.
    pub free: usize,
    /// The size of the heap so far. It never shrinks.
    pub heap_size: usize,
    /// The memory that the application and the kernel have allocated from the heap.
    pub heap_used: usize,
}

impl Statistics {
    /// The memory that can still be allocated, though not in one piece.
    pub fn available(&self) -> usize {
        self.free + self.heap_size - self.heap_used
    }
}

/// The present sizes.
pub fn statistics() -> Statistics {
    let (frames, heap) = (mmu::statistics(), heap::statistics());
    let bytes = |count: u64| count as usize * xen_abi::PAGE_SIZE;
    Statistics { total: bytes(frames.total), free: bytes(frames.free), heap_size: heap.size, heap_used: heap.used }
}
