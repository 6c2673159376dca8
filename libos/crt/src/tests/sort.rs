//! Sorting and searching.

use core::ffi::{c_int, c_void};
use std::vec::Vec;

use super::{Random, ours};
use crate::sort::{Compare, heap_sort};

type Sort = unsafe extern "C" fn(*mut u8, usize, usize, Compare);
type Search = unsafe extern "C" fn(*const c_void, *const u8, usize, usize, Compare) -> *const u8;

unsafe extern "C" fn by_key(one: *const c_void, other: *const c_void) -> c_int {
    unsafe { (*one.cast::<u32>()).cmp(&*other.cast::<u32>()) as c_int }
}

unsafe extern "C" fn always(_: *const c_void, _: *const c_void) -> c_int {
    1
}

unsafe extern "C" fn any(one: *const c_void, other: *const c_void) -> c_int {
    unsafe { (*one.cast::<u32>()).wrapping_mul(0x9e37_79b9) as c_int ^ (*other.cast::<u32>() << 7) as c_int }
}

/// Rows of a key and a serial number.
fn patterns() -> Vec<Vec<[u32; 3]>> {
    let mut random = Random(3);
    let mut all: Vec<Vec<u32>> = Vec::new();
    for count in [0, 1, 2, 3, 7, 8, 100, 1000, 4097] {
        let count = count as u32;
        all.push((0..count).collect());
        all.push((0..count).rev().collect());
        all.push((0..count).map(|_| 5).collect());
        all.push((0..count).map(|index| index % 3).collect());
        all.push((0..count).map(|index| index.min(count - index)).collect());
        all.push((0..count).map(|index| if index % 2 == 0 { index } else { count - index }).collect());
        all.push((0..count).map(|_| random.next() as u32).collect());
    }
    all.into_iter()
        .map(|keys| keys.into_iter().enumerate().map(|(index, key)| [key, index as u32, !key]).collect())
        .collect()
}

#[test]
fn sorting_keeps_the_order_of_equals() {
    for rows in patterns() {
        let mut expected = rows.clone();
        expected.sort_by_key(|row| row[0]);
        let mut sorted = rows.clone();
        unsafe { ours::<Sort>(c"qsort")(sorted.as_mut_ptr().cast(), sorted.len(), 12, by_key) };
        assert_eq!(sorted, expected);
        for row in sorted.iter().step_by(7) {
            let found = unsafe {
                ours::<Search>(c"bsearch")((&raw const *row).cast(), sorted.as_ptr().cast(), sorted.len(), 12, by_key)
            };
            assert_eq!(unsafe { *found.cast::<u32>() }, row[0]);
        }
        let absent = [0x8000_1234_u32; 3];
        if !sorted.iter().any(|row| row[0] == absent[0]) {
            let found = unsafe {
                ours::<Search>(c"bsearch")((&raw const absent).cast(), sorted.as_ptr().cast(), sorted.len(), 12, by_key)
            };
            assert!(found.is_null());
        }
    }
}

#[test]
fn sorting_without_memory_sorts_too() {
    for rows in patterns() {
        let mut sorted = rows.clone();
        unsafe {
            heap_sort(sorted.as_mut_ptr().cast(), sorted.len(), 12, &|one, other| by_key(one.cast(), other.cast()))
        };
        assert!(sorted.is_sorted_by_key(|row| row[0]));
        same_rows(sorted, rows);
    }
}

#[test]
fn a_comparison_that_lies_costs_no_element() {
    for rows in patterns() {
        for compare in [always as Compare, any] {
            let mut sorted = rows.clone();
            unsafe { ours::<Sort>(c"qsort")(sorted.as_mut_ptr().cast(), sorted.len(), 12, compare) };
            same_rows(sorted, rows.clone());
            let mut sorted = rows.clone();
            unsafe {
                heap_sort(sorted.as_mut_ptr().cast(), sorted.len(), 12, &|one, other| compare(one.cast(), other.cast()))
            };
            same_rows(sorted, rows.clone());
        }
    }
}

fn same_rows(mut one: Vec<[u32; 3]>, mut other: Vec<[u32; 3]>) {
    one.sort_unstable();
    other.sort_unstable();
    assert_eq!(one, other);
}
