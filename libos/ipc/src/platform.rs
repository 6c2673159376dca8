//! The traits that IpC needs. They have no values of their own: there is one kernel, and one pVM.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use xen_abi::{DomId, Errno, Port as Number};
use zooid_fork_plan::id::PvmId;

use crate::object::State;

/// An integer in an object, which members use at the same time.
///
/// Accesses are sequentially consistent ([`Ordering::SeqCst`]) unless said otherwise.
pub trait Word<T> {
    /// Its value.
    fn load(&self) -> T;

    /// Sets it.
    fn store(&self, value: T);

    /// Its value; later accesses are not moved before this (acquire).
    fn read(&self) -> T;

    /// Sets it; earlier accesses are not moved behind this (release).
    fn write(&self, value: T);

    /// Sets it, and returns its former value.
    fn swap(&self, value: T) -> T;

    /// Sets it if it is `old`. Returns its former value, as an error if that was not `old`.
    fn compare_exchange(&self, old: T, new: T) -> Result<T, T>;

    /// Sets these bits, and returns the former value.
    fn fetch_or(&self, bits: T) -> T;

    /// Clears all other bits, and returns the former value.
    fn fetch_and(&self, bits: T) -> T;

    /// Adds, wrapping around, and returns the former value.
    fn fetch_add(&self, value: T) -> T;

    /// Sets it to the larger one of both, and returns the former value.
    fn fetch_max(&self, value: T) -> T;

    /// Sets it to the result of `next`, and returns the former value; as an error when `next`
    /// refuses that.
    fn fetch_update(&self, next: impl FnMut(T) -> Option<T>) -> Result<T, T>;
}

macro_rules! words {
    ($($atomic:ty, $integer:ty;)*) => {$(
        impl Word<$integer> for &$atomic {
            fn load(&self) -> $integer {
                <$atomic>::load(self, Ordering::SeqCst)
            }
            fn store(&self, value: $integer) {
                <$atomic>::store(self, value, Ordering::SeqCst);
            }
            fn read(&self) -> $integer {
                <$atomic>::load(self, Ordering::Acquire)
            }
            fn write(&self, value: $integer) {
                <$atomic>::store(self, value, Ordering::Release);
            }
            fn swap(&self, value: $integer) -> $integer {
                <$atomic>::swap(self, value, Ordering::SeqCst)
            }
            fn compare_exchange(&self, old: $integer, new: $integer) -> Result<$integer, $integer> {
                <$atomic>::compare_exchange(self, old, new, Ordering::SeqCst, Ordering::SeqCst)
            }
            fn fetch_or(&self, bits: $integer) -> $integer {
                <$atomic>::fetch_or(self, bits, Ordering::SeqCst)
            }
            fn fetch_and(&self, bits: $integer) -> $integer {
                <$atomic>::fetch_and(self, bits, Ordering::SeqCst)
            }
            fn fetch_add(&self, value: $integer) -> $integer {
                <$atomic>::fetch_add(self, value, Ordering::SeqCst)
            }
            fn fetch_max(&self, value: $integer) -> $integer {
                <$atomic>::fetch_max(self, value, Ordering::SeqCst)
            }
            fn fetch_update(&self, next: impl FnMut($integer) -> Option<$integer>) -> Result<$integer, $integer> {
                <$atomic>::fetch_update(self, Ordering::SeqCst, Ordering::SeqCst, next)
            }
        }
    )*};
}

words! {
    AtomicU16, u16;
    AtomicU32, u32;
    AtomicU64, u64;
}

/// The pages of an object, which members read and write at any time. Dropping them unmaps them.
///
/// Offsets are in octets, and aligned. An access outside the pages panics.
pub trait Pages {
    /// A word of 16 bits.
    type U16<'a>: Word<u16>
    where
        Self: 'a;
    /// A word of 32 bits.
    type U32<'a>: Word<u32>
    where
        Self: 'a;
    /// A word of 64 bits.
    type U64<'a>: Word<u64>
    where
        Self: 'a;

    /// The integer at this offset.
    fn u16(&self, offset: usize) -> Self::U16<'_>;

    /// The integer at this offset.
    fn u32(&self, offset: usize) -> Self::U32<'_>;

    /// The integer at this offset.
    fn u64(&self, offset: usize) -> Self::U64<'_>;

    /// Copies from `offset` on. A concurrent write of others may be copied in part.
    fn copy_out(&self, offset: usize, into: &mut [u8]);

    /// Copies to `offset`.
    fn copy_in(&self, offset: usize, from: &[u8]);

    /// Size in octets.
    fn size(&self) -> usize;

    /// Their address in this pVM's memory.
    fn address(&self) -> usize;

    /// The machine frame of the first one: no other object has it.
    fn frame(&self) -> u64;
}

/// An event channel to a member. Its events call [`ring`](crate::ring) with events masked. Dropping
/// it closes it.
pub trait Port {
    /// Its number in this domain.
    fn number(&self) -> Number;

    /// Sends an event.
    fn notify(&self);

    /// True if the other side has bound it, and is there.
    fn is_bound(&self) -> bool;
}

/// An event that a thread waits for, together with others.
pub trait Signal: Send + Sync {
    /// Wakes the waiter, or lets the next wait return at once. Events are masked.
    fn signal(&self);
}

/// Threads of this pVM, which take turns on one vCPU, and the clock.
pub trait Threads {
    /// A handle of a thread.
    type Thread: Copy + PartialEq + Send;
    /// Events are masked, and no other thread runs, while this lives and the thread does not block.
    type Mask;
    /// The event that a poll waits for.
    type Event: Signal + 'static;

    /// Masks events. Calls may nest.
    fn mask() -> Self::Mask;

    /// The calling thread.
    fn current() -> Self::Thread;

    /// Blocks the calling thread until it is woken, or until `deadline` (ns); `false` when the
    /// deadline came first. The caller has masked events since it decided to block.
    fn block(deadline: Option<u64>) -> bool;

    /// Wakes a thread; `false`, and nothing happens, if it is not blocked.
    fn wake(thread: Self::Thread) -> bool;

    /// An event that was not signalled.
    fn event() -> Self::Event;

    /// Waits for a signal and takes it; `false` when the deadline came first.
    fn wait(event: &Self::Event, deadline: Option<u64>) -> bool;

    /// System time in nanoseconds.
    fn now() -> u64;

    /// Blocks the calling thread until system time `time`, in nanoseconds.
    fn sleep_until(time: u64);

    /// Orders all earlier accesses before all later ones, for all members.
    fn fence();
}

/// The members of the family, and requests to pvmd. Errors are those of docs/protocols/ipc.md, and
/// `ENOTCONN` when no pvmd answers.
pub trait Family {
    /// Pages of objects.
    type Pages: Pages;
    /// Event channels to members.
    type Port: Port;

    /// Joins the family: from now on the functions of [`object::hooks`](crate::object::hooks) are
    /// called.
    ///
    /// # Errors
    /// `ENOTCONN`.
    fn take_part() -> Result<(), Errno>;

    /// Makes an object of `pages` zeroed pages, or opens the one that has this name, and maps it.
    /// These words of `header` are written into a new one, at their offsets and in their order. A
    /// fork comes before all of this or after it.
    ///
    /// # Errors
    /// `EEXIST`, `ENOENT`, `EINVAL` (the name), `ENOSPC`, `ENOMEM`, `EMFILE`, `ENOTCONN`.
    fn open(
        name: Option<&str>,
        pages: usize,
        make: bool,
        exclusive: bool,
        header: &[(usize, u32)],
    ) -> Result<Self::Pages, Errno>;

    /// Removes a name.
    ///
    /// # Errors
    /// `ENOENT`, `EINVAL`, `ENOTCONN`.
    fn unlink(name: &str) -> Result<(), Errno>;

    /// Asks pvmd to have [`news`](crate::object::hooks::news) called in a member.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTCONN`.
    fn relay(member: u16) -> Result<(), Errno>;

    /// Asks for a call of [`news`](crate::object::hooks::news) in this pVM soon, in a thread that
    /// may wait.
    fn look_again();

    /// Asks pvmd to send a signal to a relative.
    ///
    /// # Errors
    /// `ESRCH`, `EINVAL`, `ENOTCONN`.
    fn kill(target: PvmId, signal: u8) -> Result<(), Errno>;

    /// This pVM's number as a member, which changes with a fork; `None` before the first object.
    fn member() -> Option<u16>;

    /// The id of the member with this number, if it has not stopped. Only a member may ask.
    fn member_id(number: u16) -> Option<PvmId>;

    /// The number of a member that has not stopped.
    fn member_number(id: PvmId) -> Option<u16>;

    /// A new port that `remote` may bind.
    fn offer(remote: DomId) -> Option<Self::Port>;

    /// Binds the port that `remote` has made for this domain.
    fn bind(remote: DomId, port: Number) -> Option<Self::Port>;
}

/// All that IpC needs.
pub trait Platform: Threads + Family + Sized + 'static {
    /// Calls `use_it` with this pVM's state, with events masked. `use_it` must not call this
    /// again.
    fn with<R>(use_it: impl FnOnce(&mut State<Self>) -> R) -> R;

    /// Starts the thread of the signals, which calls [`signal::serve`](crate::signal::serve), and
    /// has [`signal::raise`](crate::signal::raise) called with signals of pvmd; `false` if there is
    /// no memory for it.
    fn start_signals() -> bool;

    /// Calls a handler as a part of the application.
    fn call(handler: fn(u8), signal: u8);

    /// Takes the default action of POSIX for a signal that nobody handles.
    fn take_default_action(signal: u8);
}

/// An event of [`Threads`], of any platform.
pub type AnyEvent = Arc<dyn Signal>;
