//! Masking of event delivery, and the lock that is built on it.
//!
//! A pVM has one vCPU, so code that has masked events runs alone. [`Masked`] is a lock that cannot
//! be contended. It can only be re-entered by mistake, and that ends in a panic instead of a hang.

use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering, compiler_fence};

use xen_abi::xen::{SharedInfo, VcpuInfo};

static SHARED_INFO: AtomicPtr<SharedInfo> = AtomicPtr::new(core::ptr::null_mut());

/// Sets the address of the shared info page. Until then events count as masked, the state in which
/// Xen starts a vCPU.
pub fn set_shared_info(page: *mut SharedInfo) {
    SHARED_INFO.store(page, Ordering::Relaxed);
}

/// The shared info page. Xen writes it at any time, so its fields are read with volatile reads
/// only.
pub fn shared_info() -> *mut SharedInfo {
    SHARED_INFO.load(Ordering::Relaxed)
}

/// This vCPU's part of the shared info page.
pub fn vcpu_info() -> *mut VcpuInfo {
    // SAFETY: address arithmetic inside the page; nothing is read.
    unsafe { &raw mut (*shared_info()).vcpu_info[0] }
}

fn mask_byte() -> &'static AtomicBool {
    static EARLY: AtomicBool = AtomicBool::new(true);
    if shared_info().is_null() {
        return &EARLY;
    }
    // SAFETY: the page stays mapped for ever; the field is one byte that only this vCPU writes, as
    // 0 or 1, and that Xen writes on this vCPU's behalf at its own entries and exits.
    unsafe { AtomicBool::from_ptr((&raw mut (*vcpu_info()).evtchn_upcall_mask).cast()) }
}

/// Events are masked while this lives.
#[must_use]
pub struct MaskGuard {
    was_masked: bool,
}

/// Masks events until the guard is dropped. Guards may nest.
pub fn mask() -> MaskGuard {
    let byte = mask_byte();
    let was_masked = byte.load(Ordering::Relaxed);
    byte.store(true, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
    MaskGuard { was_masked }
}

/// True while events are masked.
pub fn masked() -> bool {
    mask_byte().load(Ordering::Relaxed)
}

/// Unmasks events and handles the pending ones.
pub fn unmask() {
    compiler_fence(Ordering::SeqCst);
    mask_byte().store(false, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
    if upcall_pending() {
        let _ = xen_sys::xen_version_version();
    }
}

fn upcall_pending() -> bool {
    // SAFETY: a mapped byte that Xen sets at any time: one volatile read.
    unsafe { (&raw const (*vcpu_info()).evtchn_upcall_pending).read_volatile() != 0 }
}

impl Drop for MaskGuard {
    fn drop(&mut self) {
        if !self.was_masked {
            unmask();
        }
    }
}

/// A value that is used with events masked.
pub struct Masked<T>(spin::Mutex<T>);

/// Access to a [`Masked`] value.
pub struct Access<'a, T> {
    value: spin::MutexGuard<'a, T>,
    _mask: MaskGuard,
}

impl<T> Masked<T> {
    /// A new value.
    pub const fn new(value: T) -> Self {
        Self(spin::Mutex::new(value))
    }

    /// Masks events and gives access.
    ///
    /// # Panics
    /// When this code already holds it.
    pub fn lock(&self) -> Access<'_, T> {
        let mask = mask();
        match self.0.try_lock() {
            Some(value) => Access { value, _mask: mask },
            None => panic!("a kernel lock was taken twice"),
        }
    }

    /// As [`Masked::lock`], but returns `None` when it is held: for the report of a crash.
    pub fn try_lock(&self) -> Option<Access<'_, T>> {
        let mask = mask();
        self.0.try_lock().map(|value| Access { value, _mask: mask })
    }
}

impl<T> Deref for Access<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Access<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}
