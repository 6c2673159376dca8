//! `malloc`: blocks keep their octets and their alignment, and do not overlap.

use core::ffi::c_int;
use std::vec::Vec;

use super::{Random, ours};

struct Block {
    start: *mut u8,
    size: usize,
    alignment: usize,
    mark: u8,
}

impl Block {
    fn check(&self) {
        assert_eq!(self.start.addr() % self.alignment, 0);
        let octets = unsafe { core::slice::from_raw_parts(self.start, self.size) };
        assert!(octets.iter().all(|octet| *octet == self.mark), "{} octets at {:?}", self.size, self.start);
    }
}

#[test]
fn blocks_keep_what_is_in_them() {
    let malloc = ours::<unsafe extern "C" fn(usize) -> *mut u8>(c"malloc");
    let calloc = ours::<unsafe extern "C" fn(usize, usize) -> *mut u8>(c"calloc");
    let realloc = ours::<unsafe extern "C" fn(*mut u8, usize) -> *mut u8>(c"realloc");
    let aligned = ours::<unsafe extern "C" fn(usize, usize) -> *mut u8>(c"aligned_alloc");
    let posix = ours::<unsafe extern "C" fn(&mut *mut u8, usize, usize) -> c_int>(c"posix_memalign");
    let free = ours::<unsafe extern "C" fn(*mut u8)>(c"free");
    let usable = ours::<unsafe extern "C" fn(*mut u8) -> usize>(c"malloc_usable_size");
    let mut random = Random(9);
    let mut blocks: Vec<Block> = Vec::new();
    for round in 0..30_000_u32 {
        let size = if random.below(50) == 0 { random.below(100_000) } else { random.below(300) };
        let mark = round as u8;
        let mut alignment = 16;
        let choice = random.below(8);
        let start = unsafe {
            match choice {
                0 | 1 => malloc(size),
                2 => {
                    let start = calloc(size, 1);
                    Block { start, size, alignment, mark: 0 }.check();
                    start
                }
                3 => {
                    alignment = 16 << random.below(9);
                    aligned(alignment, size)
                }
                4 => {
                    alignment = 8 << random.below(9);
                    let mut start = core::ptr::null_mut();
                    assert_eq!(posix(&mut start, alignment, size), 0);
                    start
                }
                5 if !blocks.is_empty() => {
                    let old = blocks.swap_remove(random.below(blocks.len()));
                    old.check();
                    let start = realloc(old.start, size + 1);
                    Block { start, size: old.size.min(size + 1), ..old }.check_kept();
                    start
                }
                _ => {
                    if !blocks.is_empty() {
                        let old = blocks.swap_remove(random.below(blocks.len()));
                        old.check();
                        free(old.start);
                    }
                    continue;
                }
            }
        };
        assert!(!start.is_null());
        assert!(unsafe { usable(start) } >= size);
        unsafe { start.write_bytes(mark, size) };
        blocks.push(Block { start, size, alignment, mark });
    }
    for block in blocks {
        block.check();
        unsafe { free(block.start) };
    }
}

impl Block {
    /// Checks a block after `realloc`, which promises the usual alignment only.
    fn check_kept(self) {
        Block { alignment: 16, ..self }.check();
    }
}

#[test]
fn too_much_is_refused() {
    let malloc = ours::<unsafe extern "C" fn(usize) -> *mut u8>(c"malloc");
    let calloc = ours::<unsafe extern "C" fn(usize, usize) -> *mut u8>(c"calloc");
    let reallocarray = ours::<unsafe extern "C" fn(*mut u8, usize, usize) -> *mut u8>(c"reallocarray");
    let aligned = ours::<unsafe extern "C" fn(usize, usize) -> *mut u8>(c"aligned_alloc");
    let posix = ours::<unsafe extern "C" fn(&mut *mut u8, usize, usize) -> c_int>(c"posix_memalign");
    unsafe {
        for size in [usize::MAX, usize::MAX - 15, isize::MAX as usize, isize::MAX as usize - 31] {
            assert!(malloc(size).is_null());
            assert_eq!(crate::error::get(), crate::error::ENOMEM);
        }
        assert!(calloc(1 << 33, 1 << 33).is_null());
        assert!(calloc(usize::MAX, 2).is_null());
        assert!(reallocarray(core::ptr::null_mut(), usize::MAX / 2, 3).is_null());
        assert!(aligned(24, 100).is_null());
        let mut start = core::ptr::null_mut();
        assert_eq!(posix(&mut start, 4, 100), crate::error::EINVAL);
        assert_eq!(posix(&mut start, 24, 100), crate::error::EINVAL);
        assert_eq!(posix(&mut start, 16, usize::MAX), crate::error::ENOMEM);
    }
}

#[test]
fn anonymous_memory_is_mapped_and_given_back() {
    type Map = unsafe extern "C" fn(*mut u8, usize, c_int, c_int, c_int, i64) -> *mut u8;
    let (map, unmap) = (ours::<Map>(c"mmap"), ours::<unsafe extern "C" fn(*mut u8, usize) -> c_int>(c"munmap"));
    // PROT_READ and PROT_WRITE; MAP_PRIVATE and MAP_ANONYMOUS.
    let get = |length, protection, flags| unsafe { map(core::ptr::null_mut(), length, protection, flags, -1, 0) };
    for length in [1, 4096, 10_000] {
        let block = get(length, 3, 0x22);
        assert_eq!(block.addr() % 4096, 0);
        let octets = unsafe { core::slice::from_raw_parts_mut(block, length) };
        assert!(octets.iter().all(|octet| *octet == 0));
        octets.fill(7);
        assert_eq!(unsafe { unmap(block.wrapping_add(4096), 4096) }, -1);
        assert_eq!(unsafe { unmap(block, length) }, 0);
        assert_eq!(unsafe { unmap(block, length) }, -1);
    }
    // Code, shared memory, a place, a file, nothing.
    for (length, protection, flags) in [(4096, 7, 0x22), (4096, 3, 0x21), (4096, 3, 0x32), (4096, 3, 2), (0, 3, 0x22)] {
        assert_eq!(get(length, protection, flags).addr(), usize::MAX, "{length} {protection} {flags:#x}");
    }
}
