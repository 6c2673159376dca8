//! Network: TCP and UDP sockets in the style of `std::net`, with blocking calls on threads, over
//! IPv4.
//!
//! The network comes up at the first call that needs it, with the setting `net=` (`dhcp` without
//! one), and stays up. A thread of its own takes in packets; a call that sends does so itself.
//! Connections and datagrams to the pVM's own address, or to 127.0.0.1, stay inside.
//!
//! In the child of a fork, connections of the parent return `NotConnected`. Listeners and UDP
//! sockets are the child's, on its own address. If the parent's network was up, the child's comes
//! up by itself; a call that needs it waits as at first.

mod platform;
mod tcp;
mod udp;

use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use core::task::Waker;

pub use core::net::{Ipv4Addr, SocketAddrV4};
use spin::Once;
use zooid_kernel::boot::{command_line, refuse};
use zooid_kernel::events::Masked;
use zooid_kernel::evtchn::{self, Event};
use zooid_kernel::life::{self, Component, Order};
use zooid_kernel::sync::{Mutex, MutexGuard};
use zooid_kernel::{at_boot, heap, mmu, random, thread, time};
pub use zooid_net::Error as SocketError;
use zooid_net::netfront::{FrontendError, Obstacle};
pub use zooid_net::stack::{NotReady, Status};
use zooid_net::{Instant, NetConfig, Settings};

use crate::poll::{AnyEvent, Events};
use crate::time::Duration;
use platform::Kernel;
pub use tcp::{Incoming, Shutdown, TcpListener, TcpStream};
pub use udp::UdpSocket;

type Stack = zooid_net::Stack<Kernel>;

/// The time in nanoseconds that a call waits for the device and for an address.
const START_PATIENCE: u64 = 10_000_000_000;

/// The reason for which a network call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The call on this socket failed; the kinds are those of `std::io::ErrorKind`.
    Socket(SocketError),
    /// There is no network.
    Down(Down),
}

/// The reason for which there is no network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Down {
    /// The device or the address is missing, or not wanted.
    NotReady(NotReady),
    /// The device could not be set up.
    Device(FrontendError),
    /// There was no memory for its thread.
    OutOfMemory,
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(error) => error.fmt(out),
            Self::Down(reason) => write!(out, "no network: {reason}"),
        }
    }
}

impl fmt::Display for Down {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReady(reason) => reason.fmt(out),
            Self::Device(error) => error.fmt(out),
            Self::OutOfMemory => out.write_str("not enough memory"),
        }
    }
}

impl core::error::Error for Error {}
impl core::error::Error for Down {}

impl From<SocketError> for Error {
    fn from(error: SocketError) -> Self {
        Self::Socket(error)
    }
}

impl Error {
    /// True if the call failed because its time-out has passed.
    pub fn is_timeout(&self) -> bool {
        *self == Self::Socket(SocketError::TimedOut)
    }
}

/// The network's state: address, Ethernet address, packets counted. Waits until it is up.
pub fn status() -> Result<Status, Error> {
    Ok(network()?.lock().status())
}

/// The IPv4 addresses of a host name, by the name servers of `net=` or of DHCP. The errors keep apart
/// that there is no such name, that no server could say, and that none answered
/// ([`SocketError::NameNotFound`], [`SocketError::NameServerFailed`],
/// [`SocketError::NameServerSilent`]).
pub fn lookup_host(name: &str) -> Result<Vec<Ipv4Addr>, Error> {
    if let Ok(address) = name.parse() {
        return Ok([address].into());
    }
    let network = network()?;
    let waiter = Waiter::new();
    let mut query = Some(network.with(|stack| stack.resolve(name))?);
    network.wait(&waiter, Limit::None, |stack, waker| {
        let current = query.take().ok_or(SocketError::NameNotFound)?;
        stack.resolved(current).map_err(|(error, still)| {
            if let Some(still) = still {
                stack.wake_on_resolved(&still, waker);
                query = Some(still);
            }
            error
        })
    })
}

/// The one network of this pVM.
struct Network {
    stack: Mutex<Stack>,
    /// Signalled when the network thread has something to do.
    attention: Arc<Event>,
    /// System time at which the network thread next runs by itself.
    next_look: AtomicU64,
    /// Set once the network thread was made.
    has_thread: AtomicBool,
    /// The life of the domain ([`evtchn::lives`]) that the stack belongs to.
    life: AtomicU32,
    /// The last life in which the network was up at some time, plus 1.
    up: AtomicU32,
    /// Counts the network thread's turns while the network is not up, and is signalled with them.
    turns: AtomicU32,
    turn: Event,
}

static NETWORK: Once<Network> = Once::new();
/// Held while the network is made.
static START: Mutex<()> = Mutex::new(());

/// The network, once it is up.
fn network() -> Result<&'static Network, Error> {
    let network = match NETWORK.get() {
        Some(network) if network.has_thread.load(Ordering::Relaxed) => network,
        _ => start().map_err(Error::Down)?,
    };
    network.wait_until_up()?;
    Ok(network)
}

fn start() -> Result<&'static Network, Down> {
    core::hint::black_box(&COMPONENT);
    let _turn = START.lock();
    let network = match NETWORK.get() {
        Some(network) => network,
        None => {
            let attention = Arc::new(Event::new());
            let stack = Mutex::new(make_stack(attention.clone())?);
            NETWORK.call_once(|| Network {
                stack,
                attention,
                next_look: AtomicU64::new(u64::MAX),
                has_thread: AtomicBool::new(false),
                life: AtomicU32::new(evtchn::lives()),
                up: AtomicU32::new(0),
                turns: AtomicU32::new(0),
                turn: Event::new(),
            })
        }
    };
    if !network.has_thread.load(Ordering::Relaxed) {
        thread::spawn_service("network", thread::DEFAULT_STACK_SIZE, serve).map_err(|_| Down::OutOfMemory)?;
        network.has_thread.store(true, Ordering::Relaxed);
    }
    Ok(network)
}

fn make_stack(attention: Arc<Event>) -> Result<Stack, Down> {
    let is_child = evtchn::lives() != 0;
    let config = match command_line().setting("net").unwrap_or("dhcp").parse() {
        Ok(NetConfig::Off) if !is_child => return Err(Down::NotReady(NotReady::Off)),
        Ok(config) => config,
        Err(error) => refuse(format_args!("{error}")),
    };
    let memory = mmu::statistics().total as usize * xen_abi::PAGE_SIZE;
    let settings = Settings::for_memory(memory, random::u64());
    let make = if is_child { Stack::for_child } else { Stack::new };
    make(Kernel::new(attention), config, settings, now()).map_err(Down::Device)
}

/// The network thread. A child starts it anew.
fn serve() {
    if let Some(network) = NETWORK.get() {
        network.run();
    }
}

at_boot! {
    /// Joins the lives of the pVM, in an image that uses the network.
    COMPONENT, "net", join
}

/// The network is whole in a child, where [`Network::lock`] makes it the child's own.
static LIFE: Component = Component { quiesce: stand_still, ..Component::PASSIVE };

fn join() {
    life::join(Order::Network, &LIFE);
}

/// Lets a fork happen while no thread makes or uses the network.
fn stand_still(fork: &mut dyn FnMut()) {
    let _start = START.lock();
    let _stack = NETWORK.get().map(|network| network.stack.lock());
    fork();
}

/// Follows xenstore and moves packets. Returns the system time of the next step.
fn step(stack: &mut Stack) -> u64 {
    if stack.platform().take_changes()
        && let Err(error) = stack.xenstore_changed(now())
    {
        log::error!("{error}");
    }
    system_time(stack.poll(now()))
}

impl Network {
    fn run(&self) {
        loop {
            let next = {
                let mut stack = self.lock();
                let next = step(&mut stack);
                self.next_look.store(next, Ordering::Relaxed);
                if !self.is_up() {
                    self.count_turn(&stack);
                }
                next
            };
            self.attention.wait((next != u64::MAX).then_some(next));
        }
    }

    /// The stack, in the state of this life of the domain.
    fn lock(&self) -> MutexGuard<'_, Stack> {
        let mut stack = self.stack.lock();
        let life = evtchn::lives();
        if life != 0 && self.life.load(Ordering::Relaxed) != life {
            self.life.store(life, Ordering::Relaxed);
            stack.begin_life(random::u64());
        }
        stack
    }

    /// True if the network was up at some time in this life.
    fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed) == evtchn::lives() + 1
    }

    fn count_turn(&self, stack: &Stack) {
        if stack.ready().is_ok() {
            self.up.store(evtchn::lives() + 1, Ordering::Relaxed);
            log::info!("network: {:?}, heap {:?}", stack.status(), heap::statistics());
        }
        self.turns.fetch_add(1, Ordering::Relaxed);
        self.turn.signal();
    }

    /// Waits until the network is up for the first time in this life.
    fn wait_until_up(&self) -> Result<(), Error> {
        let mut deadline = None;
        while !self.is_up() {
            let seen = self.turns.load(Ordering::Relaxed);
            let Err(reason) = self.lock().ready() else { break };
            let hopeless = match reason {
                NotReady::Off => true,
                // The toolstack makes the devices of a configuration before the guest runs, but
                // those of a child after.
                NotReady::Device(Obstacle::NoDevice) => evtchn::lives() == 0,
                _ => false,
            };
            let deadline = *deadline.get_or_insert_with(|| time::now() + START_PATIENCE);
            if hopeless || !self.turn.wait_for(Some(deadline), || self.turns.load(Ordering::Relaxed) != seen) {
                return Err(Error::Down(Down::NotReady(reason)));
            }
        }
        Ok(())
    }

    /// Makes a call on the stack and sends the resulting packets.
    fn with<T>(&self, act: impl FnOnce(&mut Stack) -> T) -> T {
        let mut stack = self.lock();
        let result = act(&mut stack);
        self.transmit(&mut stack);
        result
    }

    fn transmit(&self, stack: &mut Stack) {
        if !stack.has_queued() {
            return;
        }
        let next = system_time(stack.transmit(now()));
        if next < self.next_look.load(Ordering::Relaxed) {
            self.next_look.store(next, Ordering::Relaxed);
            self.attention.signal();
        }
    }

    /// Repeats `attempt` until it returns another result than `WouldBlock`. An attempt that returns
    /// it has registered the waker. Returns `TimedOut` when the limit passes, and `WouldBlock` if
    /// it must not wait.
    fn wait<T>(
        &self,
        waiter: &Waiter,
        limit: Limit,
        mut attempt: impl FnMut(&mut Stack, &Waker) -> Result<T, SocketError>,
    ) -> Result<T, Error> {
        let mut deadline = None;
        loop {
            let mut stack = self.lock();
            match attempt(&mut stack, &waiter.waker) {
                Err(SocketError::WouldBlock) if limit != Limit::Now => {}
                result => {
                    self.transmit(&mut stack);
                    return result.map_err(Error::Socket);
                }
            }
            drop(stack);
            // The clock is read only by a call that has to wait.
            if let (None, Limit::Within(timeout)) = (deadline, limit) {
                deadline = Some(time::after(timeout));
            }
            if !waiter.event.event.wait(deadline) {
                return Err(Error::Socket(SocketError::TimedOut));
            }
        }
    }
}

/// The time that a call may wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Limit {
    /// Without a limit.
    #[default]
    None,
    Within(Duration),
    /// The call does not wait.
    Now,
}

impl Limit {
    fn of(timeout: Option<Duration>) -> Self {
        timeout.map_or(Self::None, Self::Within)
    }
}

/// The event on which a thread waits for changes of a socket.
struct Waiter {
    event: Arc<WakeEvent>,
    waker: Waker,
}

struct WakeEvent {
    event: Event,
    /// Events of threads that wait for other objects, too; they are also signalled.
    watchers: Masked<Vec<AnyEvent>>,
}

impl Wake for WakeEvent {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.event.signal();
        self.watchers.lock().iter().for_each(|watcher| watcher.signal());
    }
}

impl Waiter {
    fn new() -> Self {
        let event = Arc::new(WakeEvent { event: Event::new(), watchers: Masked::new(Vec::new()) });
        Self { waker: Waker::from(event.clone()), event }
    }

    fn watch(&self, watcher: &AnyEvent) {
        self.event.watchers.lock().push(watcher.clone());
    }

    fn unwatch(&self, watcher: &AnyEvent) {
        self.event.watchers.lock().retain(|other| !Arc::ptr_eq(other, watcher));
    }
}

/// The wanted events that a socket is ready for. `ask` makes a call for reading or for writing that
/// transfers nothing.
fn readiness(wanted: Events, mut ask: impl FnMut(Events) -> Result<(), SocketError>) -> Events {
    let mut ready = Events::empty();
    for direction in [Events::READABLE, Events::WRITABLE].into_iter().filter(|direction| wanted.contains(*direction)) {
        ready |= match ask(direction) {
            Ok(()) => direction,
            Err(SocketError::WouldBlock) => Events::empty(),
            Err(_) => direction | Events::ERROR,
        };
    }
    ready
}

/// The stack's clock: system time in microseconds.
fn now() -> Instant {
    Instant::from_micros((time::now() / 1000) as i64)
}

fn system_time(at: Option<Instant>) -> u64 {
    at.map_or(u64::MAX, |at| at.total_micros().max(0) as u64 * 1000)
}
