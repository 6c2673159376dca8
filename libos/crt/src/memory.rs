//! `malloc` and its kin, and anonymous memory of `mmap`, from Rust's global allocator.

use alloc::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc as grow};
use alloc::collections::BTreeMap;
use core::ffi::{c_int, c_long};
use core::ptr;

use crate::error::{self, EINVAL, ENOMEM, ENOSYS};
use crate::exit;
use crate::export::Export;
use crate::lock::Lock;

pub(crate) const MEMORY: &[Export] = exports![
    malloc,
    calloc,
    realloc,
    reallocarray,
    free,
    cfree = free,
    aligned_alloc,
    memalign = aligned_alloc,
    posix_memalign,
    valloc,
    malloc_usable_size,
    malloc_trim
];

/// The alignment of `max_align_t`.
const ALIGNMENT: usize = 16;
const PAGE: usize = 4096;

const LIVE: u32 = 0x6d65_6d21;
const FREED: u32 = 0x6672_6565;

/// The header of a block, right before the address that C gets.
#[repr(C, align(16))]
struct Header {
    size: usize,
    /// Alignment of the address that C gets, and its distance from the beginning of the block.
    alignment: u32,
    state: u32,
}

impl Header {
    fn layout(&self) -> Layout {
        // A layout for these was made when the block was allocated.
        layout(self.size, self.alignment as usize).expect("a live header")
    }
}

fn layout(size: usize, alignment: usize) -> Option<Layout> {
    Layout::from_size_align(size.checked_add(alignment)?, alignment).ok()
}

fn allocate(size: usize, alignment: usize, allocator: unsafe fn(Layout) -> *mut u8) -> *mut u8 {
    let block = match layout(size, alignment) {
        // SAFETY: the size is not 0: it has the alignment in it.
        Some(layout) => unsafe { allocator(layout) },
        None => ptr::null_mut(),
    };
    if block.is_null() {
        error::set(ENOMEM);
        return block;
    }
    let start = block.wrapping_add(alignment);
    // SAFETY: the header's 16 octets are in the block, before `start`, as the alignment is at least
    // 16.
    unsafe { start.cast::<Header>().sub(1).write(Header { size, alignment: alignment as u32, state: LIVE }) };
    start
}

/// The header of a block that C gives back.
///
/// # Safety
/// The pointer came from here. (One that did not, or was freed, is detected as long as the memory
/// before it was not overwritten.)
unsafe fn header<'a>(start: *mut u8) -> &'a mut Header {
    let place = start.cast::<Header>().wrapping_sub(1);
    if place.is_aligned() {
        // SAFETY: `allocate` wrote it; C gives it to one thread at a time.
        let header = unsafe { &mut *place };
        if header.state == LIVE {
            return header;
        }
    }
    exit::fail("free(): invalid pointer\n")
}

pub(crate) unsafe extern "C" fn malloc(size: usize) -> *mut u8 {
    allocate(size, ALIGNMENT, alloc)
}

pub(crate) unsafe extern "C" fn calloc(count: usize, size: usize) -> *mut u8 {
    allocate(count.saturating_mul(size), ALIGNMENT, alloc_zeroed)
}

pub(crate) unsafe extern "C" fn free(start: *mut u8) {
    if start.is_null() {
        return;
    }
    // SAFETY: as C demands, it came from here.
    let header = unsafe { header(start) };
    header.state = FREED;
    let layout = header.layout();
    // SAFETY: the block was allocated with this layout, and C has given it up.
    unsafe { dealloc(start.wrapping_sub(layout.align()), layout) }
}

pub(crate) unsafe extern "C" fn realloc(start: *mut u8, size: usize) -> *mut u8 {
    if start.is_null() {
        return allocate(size, ALIGNMENT, alloc);
    }
    if size == 0 {
        // SAFETY: passed on to the caller.
        unsafe { free(start) };
        return ptr::null_mut();
    }
    // SAFETY: as C demands, it came from here.
    let header = unsafe { header(start) };
    let old = header.layout();
    let (old_size, alignment) = (header.size, old.align());
    let Some(new) = layout(size, alignment) else {
        error::set(ENOMEM);
        return ptr::null_mut();
    };
    // The allocator decides if a block grows in its place. The header moves with it only if it is
    // at its beginning.
    if alignment == ALIGNMENT {
        // SAFETY: the block has the old layout; the new size is not 0 and makes a layout.
        let block = unsafe { grow(start.wrapping_sub(ALIGNMENT), old, new.size()) };
        if block.is_null() {
            error::set(ENOMEM);
            return block;
        }
        // SAFETY: the header begins the block.
        unsafe { (*block.cast::<Header>()).size = size };
        return block.wrapping_add(ALIGNMENT);
    }
    let moved = allocate(size, ALIGNMENT, alloc);
    if !moved.is_null() {
        // SAFETY: both have as many octets; the new one is not in other use.
        unsafe { ptr::copy_nonoverlapping(start, moved, old_size.min(size)) };
        // SAFETY: passed on to the caller.
        unsafe { free(start) };
    }
    moved
}

pub(crate) unsafe extern "C" fn reallocarray(start: *mut u8, count: usize, size: usize) -> *mut u8 {
    match count.checked_mul(size) {
        // SAFETY: passed on to the caller.
        Some(size) => unsafe { realloc(start, size) },
        None => {
            error::set(ENOMEM);
            ptr::null_mut()
        }
    }
}

pub(crate) unsafe extern "C" fn aligned_alloc(alignment: usize, size: usize) -> *mut u8 {
    if !alignment.is_power_of_two() || u32::try_from(alignment).is_err() {
        error::set(EINVAL);
        return ptr::null_mut();
    }
    allocate(size, alignment.max(ALIGNMENT), alloc)
}

pub(crate) unsafe extern "C" fn posix_memalign(place: *mut *mut u8, alignment: usize, size: usize) -> c_int {
    if !alignment.is_multiple_of(size_of::<usize>()) || !alignment.is_power_of_two() {
        return EINVAL;
    }
    let before = error::get();
    // SAFETY: any values will do.
    let start = unsafe { aligned_alloc(alignment, size) };
    error::set(before);
    if start.is_null() {
        return ENOMEM;
    }
    // SAFETY: as C demands, the place can be written.
    unsafe { place.write(start) };
    0
}

pub(crate) unsafe extern "C" fn valloc(size: usize) -> *mut u8 {
    allocate(size, PAGE, alloc)
}

pub(crate) unsafe extern "C" fn malloc_usable_size(start: *mut u8) -> usize {
    if start.is_null() {
        return 0;
    }
    // SAFETY: as C demands, it came from here.
    unsafe { header(start) }.size
}

pub(crate) unsafe extern "C" fn malloc_trim(_keep: usize) -> c_int {
    0
}

const PROT_EXEC: c_int = 4;
const MAP_PRIVATE: c_int = 2;
const MAP_FIXED: c_int = 0x10;
const MAP_ANONYMOUS: c_int = 0x20;
/// `MAP_FAILED`.
const FAILED: *mut u8 = ptr::without_provenance_mut(usize::MAX);

/// The blocks that `mmap` has given out: address and size in octets.
static MAPPED: Lock<BTreeMap<usize, usize>> = Lock::new(BTreeMap::new());

fn whole_pages(length: usize) -> Option<usize> {
    length.checked_next_multiple_of(PAGE).filter(|length| *length > 0)
}

/// Private memory that is zero, at any address. Its rights are those of the heap, whatever is asked
/// for. Code, files, and memory that others share are refused.
pub(crate) unsafe extern "C" fn mmap(
    _address: *mut u8,
    length: usize,
    protection: c_int,
    flags: c_int,
    _descriptor: c_int,
    _offset: c_long,
) -> *mut u8 {
    let is_plain = flags & (MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED) == MAP_PRIVATE | MAP_ANONYMOUS;
    if !is_plain || protection & PROT_EXEC != 0 {
        error::set(ENOSYS);
        return FAILED;
    }
    let Some(length) = whole_pages(length) else {
        error::set(EINVAL);
        return FAILED;
    };
    let block = allocate(length, PAGE, alloc_zeroed);
    if block.is_null() {
        return FAILED;
    }
    MAPPED.lock().insert(block.addr(), length);
    block
}

/// Gives a whole block of [`mmap`] back; a part of one is refused.
pub(crate) unsafe extern "C" fn munmap(address: *mut u8, length: usize) -> c_int {
    let mut mapped = MAPPED.lock();
    let is_whole = |size: &usize| whole_pages(length) == Some(*size);
    if !mapped.get(&address.addr()).is_some_and(is_whole) {
        error::set(EINVAL);
        return -1;
    }
    mapped.remove(&address.addr());
    drop(mapped);
    // SAFETY: a block of `allocate`, which nobody has any more.
    unsafe { free(address) };
    0
}
