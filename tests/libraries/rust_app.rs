//! An application as a shared object, in Rust: its heap is that of the C runtime. Prints its words in their order, and a sum.

#![no_std]

extern crate alloc;

use alloc::ffi::CString;
use alloc::format;
use alloc::vec::Vec;
use core::alloc::{GlobalAlloc, Layout};
use core::ffi::{CStr, c_char, c_int, c_void};
use core::panic::PanicInfo;

unsafe extern "C" {
    fn aligned_alloc(align: usize, size: usize) -> *mut c_void;
    fn free(block: *mut c_void);
    fn puts(text: *const c_char) -> c_int;
    safe fn abort() -> !;
}

struct Heap;

// SAFETY: C's heap hands out disjoint blocks of the size and alignment that it is asked for.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: a power of two, and a multiple of it.
        unsafe { aligned_alloc(layout.align().max(16), layout.pad_to_align().size().next_multiple_of(16)).cast() }
    }

    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        // SAFETY: a block of `alloc`.
        unsafe { free(block.cast()) }
    }
}

#[global_allocator]
static HEAP: Heap = Heap;

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    abort()
}

fn say(text: &str) {
    let text = CString::new(text).unwrap_or_default();
    // SAFETY: a string that ends with a zero.
    unsafe { puts(text.as_ptr()) };
}

#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, words: *const *const c_char) -> c_int {
    // SAFETY: C's promise to `main`: so many strings.
    let words = (1..count as usize).map(|place| unsafe { CStr::from_ptr(*words.add(place)) });
    let mut words: Vec<&str> = words.filter_map(|word| word.to_str().ok()).collect();
    words.sort_unstable();
    for word in &words {
        say(&format!("rust: {word}"));
    }
    let sum: f64 = words.iter().filter_map(|word| word.parse::<f64>().ok()).sum();
    say(&format!("rust: {sum:.3} is the sum of {}", words.len()));
    0
}
