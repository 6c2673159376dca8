//! What the fork component needs of the kernel besides what its modules offer (`begin_life` of each): the way into a prepared
//! domain, the call that returns twice, and the other components that must stand still meanwhile.

use alloc::vec::Vec;
use core::ffi::c_void;

use spin::Once;

use crate::events::Masked;

pub use crate::entry::{resume_at, returns_twice};

/// Gives Xen the trap table and the callbacks of this image: for a prepared domain, which uses no variables.
pub fn init_traps() {
    crate::trap::init();
}

/// What the child of a fork does first, once its variables are there; set by the image's mode.
pub static NEW_LIFE: Once<fn()> = Once::new();

/// What [`settle`] does; set by the fork component.
pub static SETTLE: Once<fn()> = Once::new();

/// What a service calls first that has others to talk to before anybody needs it: in a child it waits a little, because the parent
/// may wait for the processor, and because many a child has ended by then.
pub fn settle() {
    if let Some(settle) = SETTLE.get() {
        settle();
    }
}

/// What [`returns_twice`] calls: the stack pointer to resume at, and what its caller passed on.
pub type Act = extern "C" fn(u64, *mut c_void) -> u64;

/// Calls its argument once, while no thread is in the middle of using a component; in a child, it returns there, too.
pub type Quiesce = fn(&mut dyn FnMut());

static QUIESCE: Masked<Vec<Quiesce>> = Masked::new(Vec::new());

/// Has every fork happen inside `component`, from now on: for what other threads of the parent may be using, which must be whole in
/// the child. It may be called whether the image can fork or not.
pub fn on_fork(component: Quiesce) {
    QUIESCE.lock().push(component);
}

/// Calls `fork` while all components stand still, the last registered one first.
pub fn quiesced(fork: &mut dyn FnMut()) {
    let count = QUIESCE.lock().len();
    quiesce_first(count, fork);
}

fn quiesce_first(count: usize, fork: &mut dyn FnMut()) {
    match count.checked_sub(1) {
        None => fork(),
        Some(last) => {
            let component = QUIESCE.lock()[last];
            component(&mut || quiesce_first(last, fork));
        }
    }
}
