//! The heap: Rust's global allocator over the heap zone, which grows as it is used.
//!
//! The allocator can be replaced in this file alone. The kernel needs `init`, `extend`,
//! `allocate_first_fit` and `deallocate` of it, and no other file knows which one it is.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{NonNull, null_mut};

use linked_list_allocator::Heap;
use zooid_memory::Zone;

use crate::events::Masked;
use crate::mmu;

/// The smallest growth of the heap in bytes, so that growth is rare.
const MIN_GROWTH: usize = 128 << 10;

struct KernelHeap(Masked<Heap>);

#[global_allocator]
static HEAP: KernelHeap = KernelHeap(Masked::new(Heap::empty()));

/// Sizes of the heap in bytes.
#[derive(Clone, Copy, Debug)]
pub struct HeapStatistics {
    /// Bytes mapped.
    pub size: usize,
    /// Bytes handed out.
    pub used: usize,
}

/// Sizes of the heap now.
pub fn statistics() -> HeapStatistics {
    let heap = HEAP.0.lock();
    HeapStatistics { size: heap.size(), used: heap.used() }
}

/// Grows the heap so that `layout` fits; returns false when no frames are left.
fn grow(heap: &mut Heap, layout: Layout) -> bool {
    // The allocator keeps a header in each hole, and may have to align.
    let needed = layout.size() + layout.align() + 64;
    // The heap grows by at least an eighth: few growths for a large heap, little waste for a small
    // one.
    let wished = needed.max(MIN_GROWTH).max(heap.size() / 8);
    let Some((start, length)) = mmu::extend_heap(wished).or_else(|| mmu::extend_heap(needed)) else { return false };
    if heap.size() == 0 {
        // SAFETY: the range was mapped for the heap just now, and stays.
        unsafe { heap.init(start as *mut u8, length) };
    } else {
        // SAFETY: the range begins where the heap ends, as `extend_heap` promises.
        unsafe { heap.extend(length) };
    }
    true
}

// SAFETY: the allocator hands out disjoint parts of the mapped heap; `Masked` keeps others out
// meanwhile.
unsafe impl GlobalAlloc for KernelHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() > Zone::Heap.range().len() {
            // The next multiple is not in the zone, and may be the address 0.
            return null_mut();
        }
        let mut heap = self.0.lock();
        loop {
            if let Ok(block) = heap.allocate_first_fit(layout) {
                return block.as_ptr();
            }
            if !grow(&mut heap, layout) {
                return null_mut();
            }
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(block) = NonNull::new(block) else { return };
        // SAFETY: the caller got `block` from `alloc` with this layout.
        unsafe { self.0.lock().deallocate(block, layout) }
    }
}
