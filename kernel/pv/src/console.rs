//! The PV console: output and input over the ring that the toolstack set up (public/io/console.h).

use alloc::sync::Arc;
use core::fmt::{self, Write};
use core::mem::offset_of;

use spin::Once;
use xen_abi::Port;
use xen_abi::io::console::{XENCONS_IN_SIZE, XENCONS_OUT_SIZE, XenconsInterface};
use zooid_core::ring::ByteRing;

use crate::events::Masked;
use crate::evtchn::{BoundPort, Event};
use crate::life::Component;
use crate::shared::{ByteLane, SharedPages};
use crate::sync::Mutex;
use crate::{evtchn, power, thread, time, xenstore};

/// The time, in nanoseconds, that a crash report waits for the console daemon to take bytes.
const EMERGENCY_PATIENCE: u64 = 2_000_000_000;

const OUTPUT: ByteLane = ByteLane {
    ring: ByteRing::new(XENCONS_OUT_SIZE),
    buffer: offset_of!(XenconsInterface, out),
    prod: offset_of!(XenconsInterface, out_prod),
    cons: offset_of!(XenconsInterface, out_cons),
};
const INPUT: ByteLane = ByteLane {
    ring: ByteRing::new(XENCONS_IN_SIZE),
    buffer: offset_of!(XenconsInterface, r#in),
    prod: offset_of!(XenconsInterface, in_prod),
    cons: offset_of!(XenconsInterface, in_cons),
};

struct Ring {
    page: SharedPages,
    port: Port,
}

static RING: Masked<Option<Ring>> = Masked::new(None);
/// Signalled when the console daemon took or gave bytes; set once events work.
static EVENT: Once<(Arc<Event>, BoundPort)> = Once::new();
/// Held while a thread prints, so that lines do not mix.
static TURN: Mutex<()> = Mutex::new(());

/// Makes output work. It polls for room until [`init_events`].
///
/// # Safety
/// `page` is the console ring of this domain, mapped as [`SharedPages::new`] wants it.
pub unsafe fn init(page: *mut u8, port: Port) {
    // SAFETY: passed on to the caller.
    let page = unsafe { SharedPages::new(page, 1) };
    *RING.lock() = Some(Ring { page, port });
}

/// Makes waiting for room, and input, block the calling thread only.
pub fn init_events() {
    let port = RING.lock().as_ref().expect("the console is set up before its events").port;
    EVENT.call_once(|| {
        let event = Arc::new(Event::new());
        (event.clone(), BoundPort::adopt(port, event))
    });
}

/// Nobody is in the middle of printing at a fork; a child has a ring of its own, at the same
/// address.
pub static LIFE: Component = Component { quiesce, begin: |birth| begin_life(birth.console), ..Component::PASSIVE };

fn quiesce(act: &mut dyn FnMut()) {
    let _turn = TURN.lock();
    act();
}

fn begin_life(port: Port) {
    if let Some(ring) = &mut *RING.lock() {
        ring.port = port;
    }
    if let Some((event, _)) = EVENT.get() {
        // The port stays bound for ever.
        core::mem::forget(BoundPort::adopt(port, event.clone()));
    }
}

impl Ring {
    /// Puts as much of `bytes` in the ring as fits, and notifies the daemon. Returns the number of
    /// bytes.
    ///
    /// Indices that contradict the ring's size are the daemon's fault; its ring then counts as
    /// full.
    fn push(&self, bytes: &[u8]) -> usize {
        let done = OUTPUT.push(&self.page, bytes).unwrap_or(0);
        if done > 0 {
            let _ = xen_sys::event_channel_op_send(self.port);
        }
        done
    }

    fn pop(&self, into: &mut [u8]) -> usize {
        let done = INPUT.pop(&self.page, into).unwrap_or(0);
        if done > 0 {
            let _ = xen_sys::event_channel_op_send(self.port);
        }
        done
    }

    fn is_drained(&self) -> bool {
        OUTPUT.is_empty(&self.page)
    }

    fn left(&self) -> u32 {
        self.page.read_u32(OUTPUT.prod).wrapping_sub(self.page.read_u32(OUTPUT.cons))
    }

    /// Repeats `attempt` until it succeeds or until `deadline` (0: never), and blocks the whole
    /// vCPU in between.
    fn poll(&self, deadline: u64, mut attempt: impl FnMut() -> bool) {
        loop {
            // This comes before the attempt, so that a signal after it ends the poll.
            evtchn::take_pending(self.port);
            if attempt() || deadline != 0 && time::now_or_zero() >= deadline {
                return;
            }
            let _ = xen_sys::sched_op_poll(&[self.port], deadline);
        }
    }
}

/// Writes bytes; waits for room. Every line feed gets a carriage return before it, as a terminal
/// expects.
pub fn write(bytes: &[u8]) {
    let turn = thread::may_block().then(|| TURN.lock());
    write_in_turn(bytes);
    drop(turn);
}

/// Prints one formatted text, not mixed with the output of other threads.
pub fn print(text: fmt::Arguments<'_>) {
    let turn = thread::may_block().then(|| TURN.lock());
    let _ = InTurn.write_fmt(text);
    drop(turn);
}

struct InTurn;

impl Write for InTurn {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        write_in_turn(text.as_bytes());
        Ok(())
    }
}

fn write_in_turn(bytes: &[u8]) {
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if index > 0 {
            write_raw(b"\r\n");
        }
        write_raw(line);
    }
}

fn write_raw(mut bytes: &[u8]) {
    let mut push = |ring: &Ring| {
        bytes = &bytes[ring.push(bytes)..];
        bytes.is_empty()
    };
    match EVENT.get() {
        Some((event, _)) if thread::may_block() => {
            event.wait_for(None, || RING.lock().as_ref().is_none_or(&mut push));
        }
        _ => {
            if let Some(ring) = RING.lock().as_ref() {
                ring.poll(0, || push(ring));
            }
        }
    }
}

/// Reads at least one byte of input; blocks the calling thread until there is one.
pub fn read(into: &mut [u8]) -> usize {
    if into.is_empty() {
        return 0;
    }
    let (event, _) = EVENT.get().expect("input is read after boot");
    let mut count = 0;
    event.wait_for(None, || {
        count = RING.lock().as_ref().map_or(0, |ring| ring.pop(into));
        count > 0
    });
    count
}

/// Waits, for a limited time, until the daemon has taken all output. It is the last act before the
/// domain ends. From a child that has not been introduced to the daemon, pvmd takes the output.
pub fn drain() {
    if !xenstore::is_introduced() {
        return;
    }
    let Some(ring) = RING.try_lock() else { return };
    let Some(ring) = ring.as_ref() else { return };
    ring.poll(time::now() + EMERGENCY_PATIENCE, || ring.is_drained());
}

/// Octets that nobody has taken from the ring.
pub fn left() -> u32 {
    RING.try_lock().and_then(|ring| ring.as_ref().map(Ring::left)).unwrap_or(0)
}

/// Output for the report of a crash. It takes no lock that a crashed thread may hold, and its
/// waiting is limited.
pub struct Emergency {
    deadline: u64,
}

impl Emergency {
    /// Starts a report. A crash inside the report ends the domain at once.
    pub fn begin() -> Self {
        use core::sync::atomic::{AtomicBool, Ordering};
        static BEGUN: AtomicBool = AtomicBool::new(false);
        if BEGUN.swap(true, Ordering::Relaxed) {
            power::crash();
        }
        Self { deadline: time::now_or_zero() + EMERGENCY_PATIENCE }
    }

    fn put(&self, mut bytes: &[u8]) {
        let Some(ring) = RING.try_lock() else { return };
        let Some(ring) = ring.as_ref() else { return };
        ring.poll(self.deadline, || {
            bytes = &bytes[ring.push(bytes)..];
            bytes.is_empty()
        });
    }
}

impl Write for Emergency {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (index, line) in text.split('\n').enumerate() {
            if index > 0 {
                self.put(b"\r\n");
            }
            self.put(line.as_bytes());
        }
        Ok(())
    }
}
