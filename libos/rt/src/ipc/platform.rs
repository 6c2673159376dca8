//! The [`Platform`] of the IpC component: connects it to the kernel
//! and to the fork component.

use core::ops::Deref;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

use xen_abi::{DomId, Errno, Port as Number};
use zooid_fork::PvmId;
use zooid_fork::objects::{self, Relatives};
use zooid_ipc::object::{State, hooks};
use zooid_ipc::platform::{Family, Pages, Platform, Port, Signal, Threads};
use zooid_kernel::events::{self, MaskGuard, Masked};
use zooid_kernel::evtchn::{BoundPort, Event};
use zooid_kernel::life::{self, Component, Order};
use zooid_kernel::shared::SharedPages;
use zooid_kernel::thread::{self, ThreadId};
use zooid_kernel::{at_boot, time};

const STACK_SIZE: usize = 64 << 10;

/// The platform: this pVM's kernel and fork component.
pub enum Kernel {}

static STATE: Masked<State<Kernel>> = Masked::new(State::new());

static LIFE: Component =
    Component { begin: |_| hooks::begin_life::<Kernel>(), end: |_| hooks::ending::<Kernel>(), ..Component::PASSIVE };

at_boot! {
    /// Joins the lives of the pVM, in an image that uses objects.
    COMPONENT, "ipc", join
}

fn join() {
    life::join(Order::Ipc, &LIFE);
}

/// An object's pages, which are unmapped when this is dropped.
pub struct Joint {
    pages: SharedPages,
    frame: u64,
}

impl Deref for Joint {
    type Target = SharedPages;

    fn deref(&self) -> &SharedPages {
        &self.pages
    }
}

impl Drop for Joint {
    fn drop(&mut self) {
        objects::unmap(&self.pages);
    }
}

impl Pages for Joint {
    type U16<'a> = &'a AtomicU16;
    type U32<'a> = &'a AtomicU32;
    type U64<'a> = &'a AtomicU64;

    fn u16(&self, offset: usize) -> &AtomicU16 {
        self.atomic_u16(offset)
    }

    fn u32(&self, offset: usize) -> &AtomicU32 {
        self.atomic_u32(offset)
    }

    fn u64(&self, offset: usize) -> &AtomicU64 {
        self.atomic_u64(offset)
    }

    fn copy_out(&self, offset: usize, into: &mut [u8]) {
        self.pages.copy_out(offset, into);
    }

    fn copy_in(&self, offset: usize, from: &[u8]) {
        self.pages.copy_in(offset, from);
    }

    fn size(&self) -> usize {
        self.len()
    }

    fn address(&self) -> usize {
        self.pages.address()
    }

    fn frame(&self) -> u64 {
        self.frame
    }
}

/// A port of this domain.
pub struct Bound(BoundPort);

impl Port for Bound {
    fn number(&self) -> Number {
        self.0.port()
    }

    fn notify(&self) {
        self.0.notify();
    }

    fn is_bound(&self) -> bool {
        self.0.is_bound()
    }
}

/// The event that a poll waits for.
pub struct PollEvent(Event);

impl Signal for PollEvent {
    fn signal(&self) {
        self.0.signal();
    }
}

impl Threads for Kernel {
    type Thread = ThreadId;
    type Mask = MaskGuard;
    type Event = PollEvent;

    fn mask() -> MaskGuard {
        events::mask()
    }

    fn current() -> ThreadId {
        thread::current()
    }

    fn block(deadline: Option<u64>) -> bool {
        thread::block(deadline)
    }

    fn wake(thread: ThreadId) -> bool {
        thread::wake(thread)
    }

    fn event() -> PollEvent {
        PollEvent(Event::new())
    }

    fn wait(event: &PollEvent, deadline: Option<u64>) -> bool {
        event.0.wait(deadline)
    }

    fn now() -> u64 {
        time::now()
    }

    fn sleep_until(time: u64) {
        thread::sleep_until(time);
    }

    fn fence() {
        fence(Ordering::SeqCst);
    }
}

impl Family for Kernel {
    type Pages = Joint;
    type Port = Bound;

    fn take_part() -> Result<(), Errno> {
        core::hint::black_box(&COMPONENT);
        objects::take_part(Relatives { news: hooks::news::<Self>, child: hooks::child::<Self> })
    }

    fn open(
        name: Option<&str>,
        pages: usize,
        make: bool,
        exclusive: bool,
        header: &[(usize, u32)],
    ) -> Result<Joint, Errno> {
        let fill = |pages: &SharedPages| {
            header.iter().for_each(|(at, word)| pages.atomic_u32(*at).store(*word, Ordering::Release));
        };
        let pages = objects::open(name, pages, make, exclusive, fill)?;
        let frame = objects::first_frame(&pages).map_or(0, |frame| frame.0);
        Ok(Joint { pages, frame })
    }

    fn unlink(name: &str) -> Result<(), Errno> {
        objects::unlink(name)
    }

    fn relay(member: u16) -> Result<(), Errno> {
        objects::relay(member)
    }

    fn look_again() {
        objects::look_again();
    }

    fn kill(target: PvmId, signal: u8) -> Result<(), Errno> {
        objects::kill(target, signal)
    }

    fn member() -> Option<u16> {
        objects::member()
    }

    fn member_id(number: u16) -> Option<PvmId> {
        objects::member_id(number)
    }

    fn member_number(id: PvmId) -> Option<u16> {
        objects::member_number(id)
    }

    fn offer(remote: DomId) -> Option<Bound> {
        BoundPort::offer(remote, zooid_ipc::ring::<Self>).ok().map(Bound)
    }

    fn bind(remote: DomId, port: Number) -> Option<Bound> {
        BoundPort::bind(remote, port, zooid_ipc::ring::<Self>).ok().map(Bound)
    }
}

impl Platform for Kernel {
    fn with<R>(use_it: impl FnOnce(&mut State<Self>) -> R) -> R {
        use_it(&mut STATE.lock())
    }

    fn start_signals() -> bool {
        objects::handle_signals(zooid_ipc::signal::raise::<Self>);
        thread::spawn_service("signals", STACK_SIZE, zooid_ipc::signal::serve::<Self>).is_ok()
    }

    fn call(handler: fn(u8), signal: u8) {
        thread::run_application(&mut || handler(signal));
    }

    fn take_default_action(signal: u8) {
        zooid_fork::take_default_action(signal);
    }
}
