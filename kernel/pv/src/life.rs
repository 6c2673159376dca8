//! The lives of a domain's memory: it begins anew in each child of a fork, and ends with the pVM.
//!
//! Each component that a fork or an end concerns has one place in [`Order`], and joins there when
//! the image boots ([`join`]). Before a fork all stand still, the topmost first, so that no thread
//! in the middle of one layer waits for a layer below that stands still already. In a child each
//! begins, the lowest first. At an end each ends, the topmost first. The fork component calls all
//! of this.
//!
//! The module also has the kernel's other functions for that component: the entry into a prepared
//! domain, and the call that returns twice.

use core::ffi::c_void;

use xen_abi::{Pfn, Port};

use crate::events::Masked;
use crate::evtchn::Event;
use crate::{console, evtchn, gnttab, mmu, random, thread, time, xenstore};

pub use crate::entry::{resume_at, returns_twice};

/// The layers, the lowest first. A new component gets a variant here, above all that it calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Frames, page tables, copy-on-write: in a child nothing is allocated before.
    Memory,
    /// The settings that Xen needs for a domain that runs in guest user mode.
    Mode,
    /// Event channels. In a child the parent's ports are dead, and no port exists before this layer
    /// begins.
    Events,
    /// The grant table.
    Grants,
    /// The console's ring.
    Console,
    /// The xenstore ring.
    Xenstore,
    /// Random numbers.
    Random,
    /// The channel to pvmd, and this pVM's knowledge of its relatives.
    Fork,
    /// Threads: in a child the others end, and services begin anew, which may use everything below.
    Threads,
    /// The timer, which is set for the deadlines of threads.
    Time,
    /// The network.
    Network,
    /// Memory that is shared with relatives.
    Ipc,
    /// Shared objects, whose initialisers may call everything below.
    Libraries,
}

/// The number of layers.
const LAYERS: usize = Order::Libraries as usize + 1;

/// The functions that a component has called at forks and at the end of the pVM.
pub struct Component {
    /// Called before a fork.
    pub quiesce: Quiesce,
    /// Called in a child, with events masked and the calling thread alone. A first write to the
    /// heap is slow there.
    pub begin: fn(&Birth),
    /// Called when the pVM ends by itself; other threads run meanwhile.
    pub end: fn(Ending),
}

impl Component {
    /// Does nothing.
    pub const PASSIVE: Self = Self { quiesce: |act| act(), begin: |_| (), end: |_| () };
}

/// Calls its argument once, while no thread is in the middle of using a component; in a child, it
/// returns there, too.
pub type Quiesce = fn(&mut dyn FnMut());

/// The state that a child starts with.
pub struct Birth {
    /// Frame of the level 4 table in use.
    pub root: Pfn,
    /// Its own end of the console's channel.
    pub console: Port,
    /// Its own end of xenstore's channel.
    pub store: Port,
    /// The port of its timer's interrupt.
    pub timer: Port,
    /// Randomness that nobody else was given.
    pub seed: [u64; 4],
    /// True if all threads of the parent live on, and not only the one that has called.
    pub all_threads: bool,
    /// The child's introduction to the daemons that serve its rings.
    pub introduction: Introduction,
}

/// The moment from which xenstored and xenconsoled serve a child's rings.
#[derive(Clone, Copy)]
pub struct Introduction {
    /// Signalled when it has come.
    pub event: &'static Event,
    /// It has come.
    pub is_done: fn() -> bool,
}

/// The way in which a pVM ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With an exit code.
    Exited(i32),
    /// By a signal whose default action ends a pVM.
    Killed(u8),
}

static COMPONENTS: Masked<[Option<&'static Component>; LAYERS]> = Masked::new([None; LAYERS]);

/// Registers a component. It is called at boot, from a function in a section `.zooid.init.*`:
/// a component that joins later may be in the middle of an act that a fork does not know of.
pub fn join(layer: Order, component: &'static Component) {
    COMPONENTS.lock()[layer as usize] = Some(component);
}

/// As [`join`], for the kernel's own layers; they are linked into an image that calls this, and
/// into no other.
pub fn join_kernel() {
    let layers = [
        (Order::Memory, &mmu::cow::LIFE),
        (Order::Events, &evtchn::LIFE),
        (Order::Grants, &gnttab::LIFE),
        (Order::Console, &console::LIFE),
        (Order::Xenstore, &xenstore::LIFE),
        (Order::Random, &random::LIFE),
        (Order::Threads, &thread::LIFE),
        (Order::Time, &time::LIFE),
    ];
    layers.into_iter().for_each(|(layer, component)| join(layer, component));
}

fn component(layer: usize) -> Option<&'static Component> {
    COMPONENTS.lock()[layer]
}

/// Calls `act` while all layers above `layer` stand still.
pub fn quiesced_above(layer: Order, act: &mut dyn FnMut()) {
    quiesce(layer as usize + 1, LAYERS, act);
}

/// Calls `act` while all layers below `layer` stand still.
pub fn quiesced_below(layer: Order, act: &mut dyn FnMut()) {
    quiesce(0, layer as usize, act);
}

fn quiesce(first: usize, end: usize, act: &mut dyn FnMut()) {
    let Some((layer, component)) = (first..end).rev().find_map(|layer| Some((layer, component(layer)?))) else {
        return act();
    };
    (component.quiesce)(&mut || quiesce(first, layer, act));
}

/// Begins the life of a child.
///
/// # Safety
/// The first act in a child, with events masked; `birth` says what pvmd has made for it, and p2m,
/// bitmaps and start_info are filled.
pub unsafe fn begin(birth: &Birth) {
    (0..LAYERS).filter_map(component).for_each(|component| (component.begin)(birth));
}

/// Tells all components that the pVM ends. Returns; the domain's own end is the caller's.
pub fn end(ending: Ending) {
    (0..LAYERS).rev().filter_map(component).for_each(|component| (component.end)(ending));
}

/// The time that a child runs before its services do, in nanoseconds.
const SETTLE: u64 = 2_000_000;

/// Delays a service at the start of a child by [`SETTLE`]. A service calls it first if it talks to
/// other domains before anybody needs it: the parent may wait for the processor, and many children
/// have ended by then.
pub fn settle() {
    if evtchn::lives() > 0 {
        thread::sleep_until(time::now() + SETTLE);
    }
}

/// Gives Xen the trap table and the callbacks of this image: for a prepared domain, which uses no
/// variables.
pub fn init_traps() {
    crate::trap::init();
}

/// The function that [`returns_twice`] calls, with the stack pointer to resume at and its caller's
/// argument.
pub type Act = extern "C" fn(u64, *mut c_void) -> u64;
