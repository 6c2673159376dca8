//! Event channels: binding, sending, and the upcall that hands each pending port to its handler.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use xen_abi::event_channel::EvtchnStat;
use xen_abi::xen::{SharedInfo, Virq};
use xen_abi::{DomId, Errno, Port};
use zooid_core::evtchn::PortScan;

use crate::events::{self, Masked};
use crate::life::Component;
use crate::sync::WaitQueue;

/// A recurring condition that threads wait for.
///
/// It is level-like: a signal without a waiter is kept, and several signals count as one.
pub struct Event {
    signalled: AtomicBool,
    waiters: WaitQueue,
}

impl Event {
    /// An event that was not signalled.
    pub const fn new() -> Self {
        Self { signalled: AtomicBool::new(false), waiters: WaitQueue::new() }
    }

    /// Wakes the waiting threads, or lets the next wait return at once.
    pub fn signal(&self) {
        self.signalled.store(true, Ordering::Relaxed);
        self.waiters.wake_all();
    }

    /// Waits for a signal and takes it; returns false when `deadline` (system time) came first.
    pub fn wait(&self, deadline: Option<u64>) -> bool {
        self.waiters.wait_until(deadline, || self.signalled.swap(false, Ordering::Relaxed))
    }

    /// Waits until `ready` returns true. It is called at every signal, with events masked. Several
    /// threads may wait for different conditions. Returns false when `deadline` came first.
    pub fn wait_for(&self, deadline: Option<u64>, ready: impl FnMut() -> bool) -> bool {
        self.waiters.wait_until(deadline, ready)
    }
}

impl Default for Event {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Clone)]
enum Handler {
    /// A function called with events masked, on the stack of the interrupted code.
    Call(fn()),
    Event(Arc<Event>),
}

static HANDLERS: Masked<Vec<Option<Handler>>> = Masked::new(Vec::new());
static SCAN: Masked<PortScan> = Masked::new(PortScan::new());

fn set_handler(port: Port, handler: Option<Handler>) {
    let mut handlers = HANDLERS.lock();
    let index = port.0 as usize;
    if handlers.len() <= index {
        handlers.resize(index + 1, None);
    }
    handlers[index] = handler;
}

/// The number of forks that this domain's memory has come through as a child. It tells its own
/// ports from its parent's.
static LIVES: AtomicU32 = AtomicU32::new(0);

/// A bound port, closed when dropped. A port inherited from the parent of a fork is dead and does
/// nothing.
pub struct BoundPort {
    port: Port,
    life: u32,
}

impl BoundPort {
    /// Makes a port that `remote` may bind to; `event` is signalled when it sends.
    pub fn alloc_unbound(remote: DomId, event: Arc<Event>) -> Result<Self, Errno> {
        let port = xen_sys::event_channel_op_alloc_unbound(DomId::SELF, remote)?;
        Ok(Self::adopt(port, event))
    }

    /// Takes over a port that was bound for this domain by its builder.
    pub fn adopt(port: Port, event: Arc<Event>) -> Self {
        Self::with(port, Handler::Event(event))
    }

    fn with(port: Port, handler: Handler) -> Self {
        set_handler(port, Some(handler));
        unmask_port(port);
        Self { port, life: LIVES.load(Ordering::Relaxed) }
    }

    /// Makes a port that `remote` may bind to; `call` is called with events masked when it sends.
    pub fn offer(remote: DomId, call: fn()) -> Result<Self, Errno> {
        Ok(Self::with(xen_sys::event_channel_op_alloc_unbound(DomId::SELF, remote)?, Handler::Call(call)))
    }

    /// Binds a port that `remote` has made for this domain; `call` is called with events masked
    /// when it sends.
    pub fn bind(remote: DomId, port: Port, call: fn()) -> Result<Self, Errno> {
        // Without a handler, an event of the other side would be lost.
        let _mask = events::mask();
        Ok(Self::with(xen_sys::event_channel_op_bind_interdomain(remote, port)?, Handler::Call(call)))
    }

    /// True if the other side has bound the port and exists.
    pub fn is_bound(&self) -> bool {
        let status = xen_sys::event_channel_op_status(DomId::SELF, self.port);
        self.is_alive() && status.is_ok_and(|status| status.status == EvtchnStat::INTERDOMAIN)
    }

    /// The port's number, for the other side.
    pub fn port(&self) -> Port {
        self.port
    }

    /// Signals the other side.
    pub fn notify(&self) {
        // A failure means that the other side is gone, which its own protocol reports.
        if self.is_alive() {
            let _ = xen_sys::event_channel_op_send(self.port);
        }
    }

    fn is_alive(&self) -> bool {
        self.life == LIVES.load(Ordering::Relaxed)
    }
}

impl Drop for BoundPort {
    fn drop(&mut self) {
        if self.is_alive() {
            set_handler(self.port, None);
            let _ = xen_sys::event_channel_op_close(self.port);
        }
    }
}

/// Binds a virtual interrupt to a function that is called with events masked. It stays bound for
/// ever.
pub fn bind_virq(virq: Virq, handler: fn()) -> Result<(), Errno> {
    adopt_virq(xen_sys::event_channel_op_bind_virq(virq, 0)?, handler);
    Ok(())
}

/// The number of forks that this domain's memory has come through as a child.
pub fn lives() -> u32 {
    LIVES.load(Ordering::Relaxed)
}

/// In a child the parent's ports are forgotten: the ports of the domain are bound anew by those who
/// need them.
pub static LIFE: Component = Component { begin: |_| begin_life(), ..Component::PASSIVE };

fn begin_life() {
    LIVES.fetch_add(1, Ordering::Relaxed);
    HANDLERS.lock().fill(None);
}

/// Binds a function to a virtual interrupt that was bound to `port` before.
pub fn adopt_virq(port: Port, handler: fn()) {
    set_handler(port, Some(Handler::Call(handler)));
    unmask_port(port);
}

fn unmask_port(port: Port) {
    // EVTCHNOP_unmask also raises the upcall again when the port is pending already.
    let _ = xen_sys::event_channel_op_unmask(port);
}

fn word(array: *mut u64, index: usize) -> &'static AtomicU64 {
    // SAFETY: `array` is one of the 64-word bitmaps of the shared info page, which stays mapped for
    // ever; `index` is below 64; Xen changes the words with atomic operations only.
    unsafe { AtomicU64::from_ptr(array.add(index)) }
}

static UPCALLS: AtomicU64 = AtomicU64::new(0);

/// The number of upcalls so far. An idle guest must not cause any.
pub fn upcalls() -> u64 {
    UPCALLS.load(Ordering::Relaxed)
}

/// Hands every pending port to its handler. Called with events masked.
pub fn upcall() {
    UPCALLS.fetch_add(1, Ordering::Relaxed);
    let page = events::shared_info();
    let vcpu = events::vcpu_info();
    // SAFETY: address arithmetic inside the shared info page, here and in the next two lines.
    let (pending, mask) = unsafe { ((&raw mut (*page).evtchn_pending).cast(), (&raw mut (*page).evtchn_mask).cast()) };
    // SAFETY: bytes and words of the page that Xen changes atomically, and that stay mapped.
    let (upcall_pending, selector) = unsafe {
        (
            AtomicBool::from_ptr((&raw mut (*vcpu).evtchn_upcall_pending).cast()),
            AtomicU64::from_ptr(&raw mut (*vcpu).evtchn_pending_sel),
        )
    };
    let mut scan = SCAN.lock();
    while upcall_pending.swap(false, Ordering::SeqCst) {
        let mut selected = selector.swap(0, Ordering::SeqCst);
        let active = |index| word(pending, index).load(Ordering::SeqCst) & !word(mask, index).load(Ordering::SeqCst);
        while let Some(port) = scan.next(&mut selected, active) {
            word(pending, port as usize / 64).fetch_and(!(1 << (port % 64)), Ordering::SeqCst);
            deliver(Port(port));
        }
    }
}

/// Hands over one port if it is pending, without an upcall. It is for a loop that polls the port
/// with events masked: a pending port would end every poll at once.
pub fn take_pending(port: Port) {
    let page = events::shared_info();
    // SAFETY: if it is not null, it is the mapped page.
    if !page.is_null() && unsafe { clear_pending(page, port) } {
        deliver(port);
    }
}

/// Clears a port's pending bit; returns true if it was set. It uses no variable, so it can run in a
/// prepared domain.
///
/// # Safety
/// `page` is the mapped shared info page.
pub unsafe fn clear_pending(page: *mut SharedInfo, port: Port) -> bool {
    // SAFETY: address arithmetic inside the shared info page.
    let pending = unsafe { (&raw mut (*page).evtchn_pending).cast() };
    let bit = 1 << (port.0 % 64);
    word(pending, port.0 as usize / 64).fetch_and(!bit, Ordering::SeqCst) & bit != 0
}

fn deliver(port: Port) {
    // The lock is held only by code that crashed, whose report must not crash, too.
    let handler = HANDLERS.try_lock().and_then(|handlers| handlers.get(port.0 as usize).cloned().flatten());
    match handler {
        Some(Handler::Call(function)) => function(),
        Some(Handler::Event(event)) => event.signal(),
        // The port was closed between the send and now.
        None => {}
    }
}
