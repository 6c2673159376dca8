//! From C's pointers to what Rust can hold.

use core::{ptr, slice};

/// Octets one after the other. The end is the business of whoever takes them.
#[derive(Clone)]
pub(crate) struct Octets(*const u8);

impl Iterator for Octets {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        // SAFETY: the caller of `octets` takes only what is there.
        let octet = unsafe { self.0.read() };
        self.0 = self.0.wrapping_add(1);
        Some(octet)
    }
}

/// # Safety
/// As many octets can be read as are taken.
pub(crate) unsafe fn octets(start: *const u8) -> Octets {
    Octets(start)
}

/// A string without its end.
///
/// # Safety
/// The string ends, or the caller takes only what is there.
pub(crate) unsafe fn text(start: *const u8) -> impl Iterator<Item = u8> + Clone {
    // SAFETY: nothing is taken behind the end.
    unsafe { octets(start) }.take_while(|octet| *octet != 0)
}

/// # Safety
/// The string ends.
pub(crate) unsafe fn length(start: *const u8) -> usize {
    // SAFETY: handed on.
    unsafe { text(start) }.count()
}

/// # Safety
/// The string ends, and lives unchanged as long as the slice.
pub(crate) unsafe fn string<'a>(start: *const u8) -> &'a [u8] {
    // SAFETY: handed on.
    let length = unsafe { length(start) };
    // SAFETY: these were just read; the rest is handed on.
    unsafe { slice(start, length) }
}

/// # Safety
/// As many octets can be read, and live unchanged as long as the slice. A null pointer may have none.
pub(crate) unsafe fn slice<'a>(start: *const u8, count: usize) -> &'a [u8] {
    if count == 0 {
        return &[];
    }
    // SAFETY: handed on.
    unsafe { slice::from_raw_parts(start, count) }
}

/// # Safety
/// As many octets can be written, by nobody else as long as the slice lives. A null pointer may have none.
pub(crate) unsafe fn slice_mut<'a>(start: *mut u8, count: usize) -> &'a mut [u8] {
    if count == 0 {
        return &mut [];
    }
    // SAFETY: handed on.
    unsafe { slice::from_raw_parts_mut(start, count) }
}

/// Copies octets and ends them with a NUL; returns where that is.
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

/// Stores where the caller wants it, if anywhere.
///
/// # Safety
/// The place is null, or can be written.
pub(crate) unsafe fn store<T>(place: *mut T, value: T) {
    if !place.is_null() {
        // SAFETY: handed on. The place is C's and may be unaligned only if C's own store could be.
        unsafe { ptr::write_unaligned(place, value) };
    }
}

/// A string from which a number is read: no further than its limit, and never behind its end.
#[derive(Clone, Copy)]
pub(crate) struct Reader {
    start: *const u8,
    limit: usize,
}

impl Reader {
    /// # Safety
    /// The string ends, or has as many octets as the limit. Indices are asked for in ascending order up to the first 0.
    pub(crate) unsafe fn new(start: *const u8, limit: usize) -> Self {
        Self { start, limit }
    }

    /// The octet at an index; 0 at the end.
    pub(crate) fn at(&self, index: usize) -> u8 {
        if index >= self.limit {
            return 0;
        }
        // SAFETY: `new`'s caller: all before it were not the end.
        unsafe { self.start.wrapping_add(index).read() }
    }

    /// The octets of a range that was looked at.
    pub(crate) fn range(&self, from: usize, to: usize) -> &[u8] {
        // SAFETY: they were read by `at`.
        unsafe { slice(self.start.wrapping_add(from), to - from) }
    }
}
