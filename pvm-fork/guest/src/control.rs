//! The control page, by which guest and pvmd communicate, and requests to pvmd.

use alloc::format;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use spin::Once;
use xen_abi::event_channel::EvtchnStat;
use xen_abi::xen::StartInfo;
use xen_abi::{DomId, Errno, Pfn, Port};
use zooid_fork_core::Page;
use zooid_fork_core::mailbox::{Channel, Mailbox, Sharing};
use zooid_fork_plan::id::PvmId;
use zooid_fork_plan::wire::{self, backend, daemon, device, guest, operation, state};
use zooid_kernel::events::{self, Masked};
use zooid_kernel::evtchn::{self, BoundPort, Event};
use zooid_kernel::life::{self, Birth, Component, Introduction, Order};
use zooid_kernel::mmu::{self, Mapped, cow};
use zooid_kernel::shared::SharedPages;
use zooid_kernel::sync::Mutex;
use zooid_kernel::{gnttab, thread, time, xenstore};

use crate::{eager, family, grants, objects, shell, snapshot};

/// The channel to pvmd.
pub struct Control {
    pub page: SharedPages,
    port: Masked<BoundPort>,
    /// Signalled when pvmd has answered, or has news.
    pub event: Arc<Event>,
    /// Held for the time of a request, and of a fork.
    pub mailbox: Mutex<Mailbox>,
    /// Set while relatives may read this pVM's frames.
    sharing: Sharing,
}

impl Page for Control {
    fn read(&self, at: usize) -> u32 {
        self.page.read_u32_acquire(at)
    }

    fn write(&self, at: usize, value: u32) {
        self.page.write_u32_release(at, value);
    }
}

/// The right to make requests, during which no fork happens.
pub struct Held<'a> {
    control: &'a Control,
    mailbox: &'a mut Mailbox,
}

impl Held<'_> {
    /// Makes a request: `fill` writes its arguments into the page, and `take` reads the reply; other
    /// threads run meanwhile.
    ///
    /// # Errors
    /// Those of pvmd; `ENOTCONN` when there is none.
    pub fn request<R>(
        &mut self,
        operation: u32,
        count: u32,
        fill: impl FnOnce(&SharedPages),
        take: impl FnOnce(&SharedPages) -> R,
    ) -> Result<R, Errno> {
        let page = &self.control.page;
        self.mailbox.request(self.control, operation, count, || fill(page), || take(page))
    }
}

/// The channel for most requests: other threads run meanwhile.
impl Channel for Control {
    fn notify(&self) {
        Self::notify(self);
    }

    fn daemon_is_there(&self) -> bool {
        is_bound(self.port())
    }

    fn now(&self) -> u64 {
        time::now()
    }

    fn wait(&self, deadline: u64, answered: &mut dyn FnMut() -> bool) -> bool {
        self.event.wait_for(Some(deadline), answered)
    }
}

/// The channel for a COMMIT: events are masked, and no other thread runs.
struct Alone<'a> {
    control: &'a Control,
    port: Port,
}

impl Page for Alone<'_> {
    fn read(&self, at: usize) -> u32 {
        self.control.read(at)
    }

    fn write(&self, at: usize, value: u32) {
        self.control.write(at, value);
    }
}

impl Channel for Alone<'_> {
    fn notify(&self) {
        let _ = xen_sys::event_channel_op_send(self.port);
    }

    fn daemon_is_there(&self) -> bool {
        is_bound(self.port)
    }

    fn now(&self) -> u64 {
        time::now()
    }

    fn wait(&self, deadline: u64, answered: &mut dyn FnMut() -> bool) -> bool {
        loop {
            // The bit is cleared before the check, so that a later event ends the poll.
            // SAFETY: the page is mapped.
            unsafe { evtchn::clear_pending(events::shared_info(), self.port) };
            if answered() || time::now() >= deadline {
                return answered();
            }
            let _ = xen_sys::sched_op_poll(&[self.port], deadline);
        }
    }
}

/// True if a pvmd has bound the channel.
fn is_bound(port: Port) -> bool {
    xen_sys::event_channel_op_status(DomId::SELF, port).is_ok_and(|status| status.status == EvtchnStat::INTERDOMAIN)
}

static CONTROL: Once<Control> = Once::new();
/// Set if the image forks by itself.
static FORKS: AtomicBool = AtomicBool::new(false);

/// The component's own functions for forks and ends.
static LIFE: Component = Component {
    begin: |_| {
        if let Some(control) = control() {
            control.begin_own_life();
        }
    },
    end: family::end,
    ..Component::PASSIVE
};

/// pvmd has introduced this child to xenstored and xenconsoled.
fn is_introduced() -> bool {
    control().is_some_and(|control| control.page.read_u32(daemon::INTRODUCED) != 0)
}

/// Runs at boot, before [`start`], in an image that forks by itself.
pub fn expect_forks() {
    FORKS.store(true, Ordering::Relaxed);
}

/// The channel, if boot could set it up.
pub fn control() -> Option<&'static Control> {
    CONTROL.get()
}

/// Runs at boot: announces this pVM to pvmd, which prepares a domain for it.
pub fn start() {
    if let Err(error) = announce() {
        log::warn!("this pVM cannot fork: {error}");
    }
}

fn announce() -> Result<(), Errno> {
    let page = mmu::new_reserved_page(device::CONTROL)?;
    gnttab::grant_control_page(mmu::mfn_of(page.address()).expect("a new page is mapped"));
    let event = Arc::new(Event::new());
    let port = BoundPort::alloc_unbound(DomId::DOM0, event.clone())?;
    let announcement = format!("{} {} {}", wire::VERSION, wire::CONTROL_GREF, port.port().0);
    let control = CONTROL.call_once(|| Control {
        page,
        port: Masked::new(port),
        event,
        mailbox: Mutex::new(Mailbox::new()),
        sharing: Sharing::new(),
    });
    control.describe();
    snapshot::make(control, 0)?;
    mmu::MAPPED.call_once(|| count_change);
    cow::enable();
    cow::WRITE_FAULT.call_once(|| write_fault);
    life::join_kernel();
    life::join(Order::Fork, &LIFE);
    control.page.write_u32(guest::STATE, state::RUNNING);
    thread::spawn_service("family", 16 << 10, family::serve).map_err(|_| Errno::ENOMEM)?;
    xenstore::write(wire::ANNOUNCEMENT, &announcement).map_err(|error| {
        log::warn!("xenstore: {error}");
        Errno::EIO
    })
}

/// Counts a change of the page tables, so that pvmd need not search for it.
fn count_change(address: usize, change: Mapped) {
    let Some(control) = CONTROL.get() else { return };
    let counter = match change {
        Mapped::Pages => guest::changes(address),
        Mapped::Table => guest::TABLES,
    };
    control.page.write_u32(counter, control.page.read_u32(counter).wrapping_add(1));
}

/// Handles a write to a page that a fork has protected; true if the write may be tried again.
fn write_fault(address: usize) -> bool {
    let control = CONTROL.get();
    let shared = control.is_none_or(Control::is_shared);
    if !shared {
        cow::reclaim();
    }
    let resolved = cow::resolve_write(address, shared).unwrap_or_else(|_| family::end_out_of_memory());
    if let Some(control) = control.filter(|_| resolved) {
        eager::note(control, address);
    }
    resolved
}

impl Control {
    /// Writes the facts that pvmd needs about this image, and the component's version.
    fn describe(&self) {
        let (p2m, bitmaps, start_info) = mmu::records();
        self.page.write_u64(guest::MAGIC, wire::MAGIC);
        self.page.write_u32(guest::VERSION, wire::VERSION);
        self.page.write_u32(guest::NO_CHILDREN, u32::from(!FORKS.load(Ordering::Relaxed)));
        self.page.write_u64(guest::ENTRY, shell::shell_entry as *const () as u64);
        self.page.write_u64(guest::P2M_ENTRIES, mmu::statistics().total);
        self.page.write_u64(guest::P2M, p2m as u64);
        self.page.write_u64(guest::BITMAPS, bitmaps as u64);
        self.page.write_u64(guest::START_INFO, start_info as u64);
    }

    /// The number of prepared domains that wait for a fork of this pVM.
    pub fn ready(&self) -> u32 {
        self.page.read_u32(daemon::READY)
    }

    /// Tells pvmd to look at the page.
    pub fn notify(&self) {
        self.port.lock().notify();
    }

    /// True if other domains may read frames of this one.
    pub fn is_shared(&self) -> bool {
        self.sharing.is_shared(self)
    }

    /// True if children get copies of their own at once, by way of grants, and share nothing.
    pub fn copies(&self) -> bool {
        self.page.read_u32(daemon::BACKEND) == backend::GRANT
    }

    /// Asks pvmd to prepare `count` domains; other threads run meanwhile.
    pub fn prepare(&self, count: u32) -> Result<(), Errno> {
        self.request(operation::PREPARE, count, |_| (), |_| ())
    }

    /// Makes a request, as [`Held::request`] does.
    pub fn request<R>(
        &self,
        operation: u32,
        count: u32,
        fill: impl FnOnce(&SharedPages),
        take: impl FnOnce(&SharedPages) -> R,
    ) -> Result<R, Errno> {
        self.hold(|held| held.request(operation, count, fill, take))
    }

    /// Keeps forks away while `act` makes requests that belong together: a child has the result of
    /// all of them, or makes all of them itself. A thread that waits here may go on in a child that
    /// has all threads. So `act` has to look facts about this domain up by itself.
    pub fn hold<R>(&self, act: impl FnOnce(&mut Held) -> R) -> R {
        act(&mut Held { control: self, mailbox: &mut self.mailbox.lock() })
    }

    /// Asks pvmd to make prepared domains children of this pVM as it is now, and puts their ids in
    /// `children`. `request` is the number of the request from outside that this carries out, or 0.
    /// Events are masked, and nothing may write to the heap from [`cow::protect`] on until this
    /// returns: pvmd would share the copy in place of the page.
    pub fn commit(
        &self,
        mailbox: &mut Mailbox,
        buffer: u32,
        request: u32,
        children: &mut [Option<PvmId>],
    ) -> Result<usize, Errno> {
        self.page.write_u32(guest::BUFFER, buffer);
        self.page.write_u32(guest::COMMIT_FOR, request);
        let sharing = (!self.copies()).then_some(&self.sharing);
        mailbox.commit(&Alone { control: self, port: self.port() }, sharing, children)
    }

    /// The number of the port to pvmd.
    pub fn port(&self) -> Port {
        self.port.lock().port()
    }

    /// The state that this child starts with.
    fn birth(&'static self, all_threads: bool) -> Birth {
        let page = &self.page;
        let (_, _, start_info) = mmu::records();
        // SAFETY: a page of this domain's own that pvmd has filled; it stays.
        let info = unsafe { &*(start_info as *const StartInfo) };
        Birth {
            root: Pfn(u64::from(page.read_u32(daemon::ROOT_TABLE))),
            console: info.console.evtchn,
            store: info.store_evtchn,
            timer: Port(page.read_u32(guest::TIMER_PORT)),
            seed: [0, 8, 16, 24].map(|at| page.read_u64(daemon::SEED + at)),
            all_threads,
            introduction: Introduction { event: &self.event, is_done: is_introduced },
        }
    }

    /// Replaces the parent's state by this domain's own. Events are masked, and nothing has run in
    /// the child before.
    pub fn begin_life(&'static self, all_threads: bool) {
        // Writes from here on count as early ones.
        eager::begin_life();
        // SAFETY: the first act in the child, for which pvmd has filled all this before GO.
        unsafe { life::begin(&self.birth(all_threads)) };
    }

    /// The component's own part of [`begin_life`](Self::begin_life).
    fn begin_own_life(&self) {
        grants::begin_life();
        self.sharing.begin_life();
        *self.port.lock() = BoundPort::adopt(Port(self.page.read_u32(daemon::PORT)), self.event.clone());
        self.describe();
        snapshot::inherit(self);
        family::begin_life();
        objects::begin_life(self);
    }

    /// Wakes the waiters for news, if some came while this pVM did not listen. It
    /// writes to the heap only then, because such a write is slow right after a fork.
    pub fn catch_up(&self) {
        let page = &self.page;
        if page.read_u32(daemon::ENDED_PROD) != page.read_u32(guest::ENDED_CONS)
            || page.read_u32(daemon::OUTSIDE) != page.read_u32(guest::OUTSIDE_DONE)
            || page.read_u64(daemon::SIGNALS) != page.read_u64(guest::SIGNALS_TAKEN)
        {
            self.event.signal();
        }
    }
}
