//! Conversions of C's pointers to Rust's types.

use core::{ptr, slice};

/// Octets in a row. The caller stops at the end.
#[derive(Clone)]
pub(crate) struct Octets(*const u8);

impl Iterator for Octets {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        // SAFETY: the caller of `octets` takes only octets that exist.
        let octet = unsafe { self.0.read() };
        self.0 = self.0.wrapping_add(1);
        Some(octet)
    }
}

/// # Safety
/// All octets that are taken can be read.
pub(crate) unsafe fn octets(start: *const u8) -> Octets {
    Octets(start)
}

/// A string without its end.
///
/// # Safety
/// The string ends, or the caller takes only octets that exist.
pub(crate) unsafe fn text(start: *const u8) -> impl Iterator<Item = u8> + Clone {
    // SAFETY: nothing is taken behind the end.
    unsafe { octets(start) }.take_while(|octet| *octet != 0)
}

/// # Safety
/// The string ends.
pub(crate) unsafe fn length(start: *const u8) -> usize {
    // SAFETY: passed on to the caller.
    unsafe { text(start) }.count()
}

/// # Safety
/// The string ends, and lives unchanged as long as the slice.
pub(crate) unsafe fn string<'a>(start: *const u8) -> &'a [u8] {
    // SAFETY: passed on to the caller.
    let length = unsafe { length(start) };
    // SAFETY: these were just read; the rest is passed on to the caller.
    unsafe { slice(start, length) }
}

/// # Safety
/// `count` octets can be read, and live unchanged as long as the slice. A null pointer may have
/// none.
pub(crate) unsafe fn slice<'a>(start: *const u8, count: usize) -> &'a [u8] {
    if count == 0 {
        return &[];
    }
    // SAFETY: passed on to the caller.
    unsafe { slice::from_raw_parts(start, count) }
}

/// # Safety
/// `count` octets can be written, by no other code as long as the slice lives. A null pointer may
/// have none.
pub(crate) unsafe fn slice_mut<'a>(start: *mut u8, count: usize) -> &'a mut [u8] {
    if count == 0 {
        return &mut [];
    }
    // SAFETY: passed on to the caller.
    unsafe { slice::from_raw_parts_mut(start, count) }
}

/// Copies octets and ends them with a NUL; returns the address of the NUL.
///
/// # Safety
/// There is room for the octets and the NUL.
pub(crate) unsafe fn put_text(to: *mut u8, octets: impl Iterator<Item = u8>) -> *mut u8 {
    let mut to = to;
    for octet in octets {
        // SAFETY: there is room.
        unsafe { to.write(octet) };
        to = to.wrapping_add(1);
    }
    // SAFETY: there is room.
    unsafe { to.write(0) };
    to
}

/// Stores a value at a place of the caller's, unless it is null.
///
/// # Safety
/// The place is null, or can be written.
pub(crate) unsafe fn store<T>(place: *mut T, value: T) {
    if !place.is_null() {
        // SAFETY: passed on to the caller. The place is C's and may be unaligned only if C's own
        // store could be.
        unsafe { ptr::write_unaligned(place, value) };
    }
}

/// A string from which a number is read, up to its limit and never behind its end.
#[derive(Clone, Copy)]
pub(crate) struct Reader {
    start: *const u8,
    limit: usize,
}

impl Reader {
    /// # Safety
    /// The string ends, or has as many octets as the limit. Indices are asked for in ascending
    /// order up to the first 0.
    pub(crate) unsafe fn new(start: *const u8, limit: usize) -> Self {
        Self { start, limit }
    }

    /// The octet at an index; 0 at the end.
    pub(crate) fn at(&self, index: usize) -> u8 {
        if index >= self.limit {
            return 0;
        }
        // SAFETY: by the promise of `new`'s caller, and because no octet before it was the end.
        unsafe { self.start.wrapping_add(index).read() }
    }

    /// The octets of a range that `at` has read.
    pub(crate) fn range(&self, from: usize, to: usize) -> &[u8] {
        // SAFETY: they were read by `at`.
        unsafe { slice(self.start.wrapping_add(from), to - from) }
    }
}
