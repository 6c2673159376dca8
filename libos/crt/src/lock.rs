//! Exclusion between threads, by [`System`](crate::System)'s `wait` and `wake`.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU32, Ordering};

use crate::system::system;

const FREE: u32 = 0;
const TAKEN: u32 = 1;
const AWAITED: u32 = 2;

pub(crate) fn try_acquire(word: &AtomicU32) -> bool {
    word.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_ok()
}

pub(crate) fn acquire(word: &AtomicU32) {
    if !try_acquire(word) {
        // A thread that has waited leaves `AWAITED` behind, because others may wait.
        while word.swap(AWAITED, Ordering::Acquire) != FREE {
            (system().wait)(word, AWAITED, None);
        }
    }
}

pub(crate) fn release(word: &AtomicU32) {
    if word.swap(FREE, Ordering::Release) == AWAITED {
        (system().wake)(word, 1);
    }
}

pub(crate) struct Lock<T> {
    word: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: the word lets one thread at a time have the value.
unsafe impl<T: Send> Sync for Lock<T> {}

impl<T> Lock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { word: AtomicU32::new(FREE), value: UnsafeCell::new(value) }
    }

    pub(crate) fn lock(&self) -> Locked<'_, T> {
        acquire(&self.word);
        Locked(self)
    }
}

pub(crate) struct Locked<'a, T>(&'a Lock<T>);

impl<T> Deref for Locked<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the word is ours until `drop`.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Locked<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the word is ours until `drop`, and `self` is borrowed for as long as the
        // reference lives.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Locked<'_, T> {
    fn drop(&mut self) {
        release(&self.0.word);
    }
}
