//! `qsort` and `bsearch`. With any results of the comparison, nothing outside the array is touched,
//! and the sort ends.

use core::cmp::Ordering;
use core::ffi::{c_int, c_void};
use core::ptr;

use crate::memory::{free, malloc};

pub(crate) type Compare = unsafe extern "C" fn(*const c_void, *const c_void) -> c_int;
type CompareWith = unsafe extern "C" fn(*const c_void, *const c_void, *mut c_void) -> c_int;

pub(crate) unsafe extern "C" fn qsort(start: *mut u8, count: usize, size: usize, compare: Compare) {
    // SAFETY: as C demands.
    unsafe { sort(start, count, size, &|one, other| compare(one.cast(), other.cast())) }
}

pub(crate) unsafe extern "C" fn qsort_r(
    start: *mut u8,
    count: usize,
    size: usize,
    compare: CompareWith,
    with: *mut c_void,
) {
    // SAFETY: as C demands.
    unsafe { sort(start, count, size, &|one, other| compare(one.cast(), other.cast(), with)) }
}

pub(crate) unsafe extern "C" fn bsearch(
    key: *const c_void,
    start: *const u8,
    count: usize,
    size: usize,
    compare: Compare,
) -> *const u8 {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        let element = start.wrapping_add(middle * size);
        // SAFETY: as C demands.
        match (unsafe { compare(key, element.cast()) }).cmp(&0) {
            Ordering::Equal => return element,
            Ordering::Less => high = middle,
            Ordering::Greater => low = middle + 1,
        }
    }
    ptr::null()
}

type Order<'a> = &'a dyn Fn(*const u8, *const u8) -> c_int;

/// # Safety
/// There are `count` elements of this size, and only the caller uses them.
unsafe fn sort(start: *mut u8, count: usize, size: usize, order: Order) {
    if count < 2 || size == 0 {
        return;
    }
    // SAFETY: any size will do.
    let spare = unsafe { malloc(count.saturating_mul(size)) };
    if spare.is_null() {
        // SAFETY: passed on to the caller.
        return unsafe { heap_sort(start, count, size, order) };
    }
    // SAFETY: passed on to the caller; the spare memory is as large, and new.
    unsafe { merge_sort(start, spare, count, size, order) };
    // SAFETY: it came from `malloc`.
    unsafe { free(spare) };
}

/// Merges runs of 1, 2, 4... elements from one array to the other. Equal elements keep their order,
/// as they do with glibc.
///
/// # Safety
/// As for [`sort`], for both arrays.
unsafe fn merge_sort(start: *mut u8, spare: *mut u8, count: usize, size: usize, order: Order) {
    let (mut from, mut to) = (start, spare);
    let mut run = 1;
    while run < count {
        let mut first = 0;
        while first < count {
            let middle = (first + run).min(count);
            let end = (middle + run).min(count);
            let (mut left, mut right) = (first, middle);
            for place in first..end {
                let (one, other) = (from.wrapping_add(left * size), from.wrapping_add(right * size));
                let take_left = left < middle && (right == end || order(one, other) <= 0);
                // SAFETY: both indices are below the count.
                unsafe {
                    ptr::copy_nonoverlapping(if take_left { one } else { other }, to.wrapping_add(place * size), size)
                };
                left += usize::from(take_left);
                right += usize::from(!take_left);
            }
            first = end;
        }
        (from, to) = (to, from);
        run *= 2;
    }
    if from != start {
        // SAFETY: both have as many octets.
        unsafe { ptr::copy_nonoverlapping(from, start, count * size) };
    }
}

/// Sorts in place, if there is no memory.
///
/// # Safety
/// As for [`sort`].
pub(crate) unsafe fn heap_sort(start: *mut u8, count: usize, size: usize, order: Order) {
    let element = |index: usize| start.wrapping_add(index * size);
    let sift = |root: usize, end: usize| {
        let mut root = root;
        while root * 2 + 1 < end {
            let mut child = root * 2 + 1;
            if child + 1 < end && order(element(child), element(child + 1)) < 0 {
                child += 1;
            }
            if order(element(root), element(child)) >= 0 {
                break;
            }
            // SAFETY: two elements of the caller's.
            unsafe { ptr::swap_nonoverlapping(element(root), element(child), size) };
            root = child;
        }
    };
    for root in (0..count / 2).rev() {
        sift(root, count);
    }
    for end in (1..count).rev() {
        // SAFETY: two elements of the caller's.
        unsafe { ptr::swap_nonoverlapping(element(0), element(end), size) };
        sift(0, end);
    }
}
