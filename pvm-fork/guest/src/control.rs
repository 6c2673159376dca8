//! The control page: what guest and pvmd tell each other, and how a request is made.

use alloc::format;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use spin::Once;
use xen_abi::event_channel::EvtchnStat;
use xen_abi::xen::StartInfo;
use xen_abi::{DomId, Errno, Pfn, Port};
use zooid_fork_plan::wire::{self, backend, daemon, device, guest, operation, state};
use zooid_kernel::events::{self, Masked};
use zooid_kernel::evtchn::{self, BoundPort, Event};
use zooid_kernel::life::{self, Birth, Component, Order};
use zooid_kernel::mmu::{self, Mapped, cow};
use zooid_kernel::shared::{SharedPages, barrier};
use zooid_kernel::sync::Mutex;
use zooid_kernel::{gnttab, thread, time, xenstore};

use crate::{eager, family, grants, objects, shell, snapshot};

/// How long a guest waits for a pvmd that is not there, in nanoseconds: one that was killed comes back in this time.
const PATIENCE: u64 = 10_000_000_000;
/// How often it looks whether pvmd is there, in nanoseconds.
const LOOK: u64 = 500_000_000;

/// The channel to pvmd.
pub struct Control {
    pub page: SharedPages,
    port: Masked<BoundPort>,
    /// Signalled when pvmd has answered, or has news.
    pub event: Arc<Event>,
    /// Held for the time of a request.
    turn: Mutex<()>,
    /// The last COMMIT that made children: they may read this pVM's frames until pvmd says that they are gone.
    last_commit: AtomicU32,
}

static CONTROL: Once<Control> = Once::new();
/// The image forks by itself.
static FORKS: AtomicBool = AtomicBool::new(false);

/// The component's own part in lives.
static LIFE: Component = Component {
    begin: |_| {
        if let Some(control) = control() {
            control.begin_own_life();
        }
    },
    end: family::end,
    ..Component::PASSIVE
};

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
        turn: Mutex::new(()),
        last_commit: AtomicU32::new(0),
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

/// Counts a change of the page tables, so that pvmd need not look for it.
fn count_change(address: usize, change: Mapped) {
    let Some(control) = CONTROL.get() else { return };
    let counter = match change {
        Mapped::Pages => guest::changes(address),
        Mapped::Table => guest::TABLES,
    };
    control.page.write_u32(counter, control.page.read_u32(counter).wrapping_add(1));
}

/// A write to a page that a fork has protected.
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
    /// Writes what pvmd must know of this image, and the component's version.
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

    /// Prepared domains that wait for a fork of this pVM.
    pub fn ready(&self) -> u32 {
        self.page.read_u32(daemon::READY)
    }

    /// Tells pvmd to look at the page.
    pub fn notify(&self) {
        self.port.lock().notify();
    }

    /// Whether other domains may read frames of this one.
    pub fn is_shared(&self) -> bool {
        self.last_commit.load(Ordering::Relaxed) != self.page.read_u32(daemon::UNSHARED)
    }

    fn post(&self, operation: u32, count: u32) -> u32 {
        let number = self.page.read_u32(guest::REQUEST).wrapping_add(1);
        self.page.write_u32(guest::OPERATION, operation);
        self.page.write_u32(guest::COUNT, count);
        barrier();
        self.page.write_u32(guest::REQUEST, number);
        number
    }

    fn is_answered(&self, number: u32) -> bool {
        self.page.read_u32_acquire(daemon::REPLY) == number
    }

    fn result(&self) -> Result<(), Errno> {
        match self.page.read_u32(daemon::ERRNO) {
            0 => Ok(()),
            errno => Err(Errno(errno)),
        }
    }

    /// Whether children get copies of their own at once, by way of grants, and share nothing.
    pub fn copies(&self) -> bool {
        self.page.read_u32(daemon::BACKEND) == backend::GRANT
    }

    /// Has `count` domains prepared; other threads run meanwhile.
    pub fn prepare(&self, count: u32) -> Result<(), Errno> {
        self.request(operation::PREPARE, count, |_| (), |_| ())
    }

    /// Asks for something, for which `fill` writes what is needed into the page, and `take` reads the reply; other threads run
    /// meanwhile.
    pub fn request<R>(
        &self,
        operation: u32,
        count: u32,
        fill: impl FnOnce(&SharedPages),
        take: impl FnOnce(&SharedPages) -> R,
    ) -> Result<R, Errno> {
        let _turn = self.turn.lock();
        fill(&self.page);
        let number = self.post(operation, count);
        self.notify();
        let mut give_up = time::now() + PATIENCE;
        while !self.event.wait_for(Some(time::now() + LOOK), || self.is_answered(number)) {
            if self.daemon_is_there() {
                give_up = time::now() + PATIENCE;
            } else if time::now() >= give_up {
                // A pvmd that comes back later finds another request.
                self.post(operation::NONE, 0);
                return Err(Errno::ENOTCONN);
            }
        }
        self.result().map(|()| take(&self.page))
    }

    /// Has pvmd make `count` prepared domains children of this pVM as it is now. Events are masked, and nothing may write to
    /// the heap from [`cow::protect`] on until this returns: pvmd would take the copy for what is to be shared.
    pub fn commit(&self, count: u32, buffer: u32, port: Port) -> Result<(), Errno> {
        self.page.write_u32(guest::BUFFER, buffer);
        let number = self.post(operation::COMMIT, count);
        let before = self.last_commit.load(Ordering::Relaxed);
        if !self.copies() {
            self.last_commit.store(number, Ordering::Relaxed);
        }
        let _ = xen_sys::event_channel_op_send(port);
        let mut give_up = time::now() + PATIENCE;
        let result = loop {
            // Before the look: what is signalled after it ends the poll.
            // SAFETY: the page is mapped.
            unsafe { evtchn::clear_pending(events::shared_info(), port) };
            if self.is_answered(number) {
                break self.result();
            }
            let now = time::now();
            if now >= give_up {
                if !self.daemon_is_there() {
                    // A pvmd that comes back later finds another request.
                    self.post(operation::NONE, 0);
                    break Err(Errno::ENOTCONN);
                }
                give_up = now + PATIENCE;
            }
            let _ = xen_sys::sched_op_poll(&[port], now + LOOK);
        };
        if result.is_err() {
            self.last_commit.store(before, Ordering::Relaxed);
        }
        result
    }

    /// The number of the port to pvmd.
    pub fn port(&self) -> Port {
        self.port.lock().port()
    }

    /// Whether a pvmd has bound the channel.
    pub fn daemon_is_there(&self) -> bool {
        let port = self.port();
        xen_sys::event_channel_op_status(DomId::SELF, port).is_ok_and(|status| status.status == EvtchnStat::INTERDOMAIN)
    }

    /// What this child was born with.
    fn birth(&self, all_threads: bool) -> Birth {
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
        }
    }

    /// Makes this domain's own what was the parent's. Events are masked, and nothing has run in the child before.
    pub fn begin_life(&self, all_threads: bool) {
        // Whatever is written from here on is written early.
        eager::begin_life();
        // SAFETY: the first act in the child, for which pvmd has filled all this before GO.
        unsafe { life::begin(&self.birth(all_threads)) };
    }

    /// The component's own part of it.
    fn begin_own_life(&self) {
        grants::begin_life();
        self.last_commit.store(0, Ordering::Relaxed);
        *self.port.lock() = BoundPort::adopt(Port(self.page.read_u32(daemon::PORT)), self.event.clone());
        self.describe();
        snapshot::inherit(self);
        family::begin_life();
        objects::begin_life(self);
    }

    /// Wakes who waits for news, if there is some that came while this pVM did not listen. It writes to the heap only then: right after
    /// a fork that is dear.
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
