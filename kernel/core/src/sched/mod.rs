//! Run queue and timers as data: the next thread to run, the deadlines of sleeping threads, and the
//! time of the next timer.
//!
//! [`Scheduler`] holds no stacks and switches nothing; the kernel's shell asks it for a decision
//! and acts. It serves one vCPU, round robin. While several threads can run, time is cut into
//! slices. A thread that has run through a whole slice is preempted at its end, so it gets between
//! one and two. The clock is read only when a slice begins and when the timer fires, not when
//! threads change, because reading it can cost more than the change. Everything but
//! [`Scheduler::spawn`] runs in constant or logarithmic time, allocates nothing, and may therefore
//! run with events masked.
//!
//! A thread is in one [`State`] at a time:
//!
//! ```text
//!   spawn -> Ready -> pick -> Running -> exit -> Exited -> reap -> (slot is free)
//!              ^                |  |
//!              |---- preempt ---'  '- block -> Blocked
//!              '---- wake, timer_fired -----------'
//! ```

mod sleepers;

use alloc::collections::{TryReserveError, VecDeque};
use alloc::vec::Vec;
use sleepers::Sleepers;

/// A thread's identifier. The generation tells a thread from an earlier one that had the same slot,
/// so that a stale id is noticed and never reaches another thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ThreadId {
    slot: u32,
    generation: u32,
}

impl ThreadId {
    /// The thread's slot, a small number that is reused after [`Scheduler::reap`]. The shell
    /// indexes its own table of stacks and registers with it.
    pub const fn slot(self) -> usize {
        self.slot as usize
    }

    /// The number of threads that had this slot before.
    pub const fn generation(self) -> u32 {
        self.generation
    }
}

/// The state of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Waits for its turn.
    Ready,
    /// It has the vCPU.
    Running,
    /// Waits for a wake-up, a deadline, or both.
    Blocked,
    /// It has ended; its stack may still be in use until another thread runs.
    Exited,
}

/// The reason for which a blocked thread became ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeReason {
    /// [`Scheduler::wake`] was called for it.
    Woken,
    /// Its deadline passed.
    TimedOut,
}

#[derive(Clone, Copy, Debug)]
struct Thread {
    generation: u32,
    /// `None` while the slot is free.
    state: Option<State>,
    reason: WakeReason,
}

/// All threads of the guest.
#[derive(Debug)]
pub struct Scheduler {
    threads: Vec<Thread>,
    /// Free slots; has room for every slot.
    free: Vec<u32>,
    ready: VecDeque<u32>,
    sleepers: Sleepers,
    running: Option<ThreadId>,
    slice_ns: u64,
    /// The end of the present time slice; set while, and for a moment after, several threads can
    /// run.
    slice_end: Option<u64>,
    /// The running thread has been running since before the present slice began.
    ran_through: bool,
    /// The running thread has had a whole slice while others waited.
    slice_over: bool,
}

impl Scheduler {
    /// A scheduler without threads, with slices of `slice_ns` nanoseconds.
    pub const fn new(slice_ns: u64) -> Self {
        Self {
            threads: Vec::new(),
            free: Vec::new(),
            ready: VecDeque::new(),
            sleepers: Sleepers::new(),
            running: None,
            slice_ns,
            slice_end: None,
            ran_through: false,
            slice_over: false,
        }
    }

    /// Adds a thread and puts it at the end of the run queue.
    ///
    /// # Errors
    /// The heap has no room for the thread's bookkeeping; nothing has changed.
    pub fn spawn(&mut self) -> Result<ThreadId, TryReserveError> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => self.add_slot()?,
        };
        let thread = &mut self.threads[slot as usize];
        thread.state = Some(State::Ready);
        self.ready.push_back(slot);
        Ok(ThreadId { slot, generation: thread.generation })
    }

    /// Takes the next ready thread from the run queue and makes it the running one. `None`: no
    /// thread can run, and the vCPU blocks in the hypervisor.
    ///
    /// # Panics
    /// If a thread is running: call [`preempt`](Self::preempt), [`block`](Self::block) or
    /// [`exit`](Self::exit) first.
    pub fn pick(&mut self) -> Option<ThreadId> {
        assert!(self.running.is_none(), "pick while {:?} runs", self.running);
        let slot = self.ready.pop_front()?;
        let thread = &mut self.threads[slot as usize];
        thread.state = Some(State::Running);
        self.running = Some(ThreadId { slot, generation: thread.generation });
        self.ran_through = false;
        self.slice_over = false;
        self.running
    }

    /// Puts the running thread at the end of the run queue, because its slice is over or it yields.
    ///
    /// # Panics
    /// If no thread is running.
    pub fn preempt(&mut self) {
        let id = self.stop_running(State::Ready);
        self.ready.push_back(id.slot);
    }

    /// Blocks the running thread until [`wake`](Self::wake) or, if one is given, until `deadline`.
    ///
    /// The code that wakes the thread must not run between the caller's test of the condition and
    /// this call. Both therefore run under one masking of events.
    ///
    /// # Panics
    /// If no thread is running.
    pub fn block(&mut self, deadline: Option<u64>) {
        let id = self.stop_running(State::Blocked);
        if let Some(deadline) = deadline {
            self.sleepers.insert(id.slot, deadline);
        }
    }

    /// Makes a blocked thread ready and forgets its deadline. Returns false, and changes nothing,
    /// if the thread is not blocked or no longer exists.
    pub fn wake(&mut self, id: ThreadId) -> bool {
        if self.state(id) != Some(State::Blocked) {
            return false;
        }
        self.sleepers.remove(id.slot);
        self.make_ready(id.slot, WakeReason::Woken);
        true
    }

    /// Handles the timer at time `now`: makes every thread ready whose deadline is `now` or
    /// earlier, the earliest first, and ends the time slice if it is over.
    pub fn timer_fired(&mut self, now: u64) {
        while let Some(slot) = self.sleepers.pop_due(now) {
            self.make_ready(slot, WakeReason::TimedOut);
        }
        if self.slice_end.is_some_and(|end| end <= now) {
            self.slice_end = None;
            self.slice_over = self.ran_through && self.is_contended();
            self.ran_through = true;
        }
    }

    /// Ends the running thread. Its slot stays taken until [`reap`](Self::reap), because the caller
    /// still runs on its stack.
    ///
    /// # Panics
    /// If no thread is running.
    pub fn exit(&mut self) -> ThreadId {
        self.stop_running(State::Exited)
    }

    /// Frees the slot of an exited thread, once its stack is not in use. Returns false, and changes
    /// nothing, if the thread has not exited or is reaped already.
    pub fn reap(&mut self, id: ThreadId) -> bool {
        if self.state(id) != Some(State::Exited) {
            return false;
        }
        let thread = &mut self.threads[id.slot()];
        thread.state = None;
        thread.generation = thread.generation.wrapping_add(1);
        self.free.push(id.slot);
        true
    }

    /// Ends every thread but the running one, which alone lives on in the child of a fork.
    pub fn end_others(&mut self) {
        let running = self.running.map(ThreadId::slot);
        for (slot, thread) in self.threads.iter_mut().enumerate() {
            if Some(slot) != running && thread.state.take().is_some() {
                thread.generation = thread.generation.wrapping_add(1);
                self.free.push(slot as u32);
            }
        }
        self.ready.clear();
        self.sleepers.clear();
        self.slice_end = None;
        self.slice_over = false;
    }

    /// The running thread; `None` only between the end of one and [`pick`](Self::pick), and while
    /// idle.
    pub fn running(&self) -> Option<ThreadId> {
        self.running
    }

    /// The state of a thread; `None` if it no longer exists.
    pub fn state(&self, id: ThreadId) -> Option<State> {
        let thread = self.threads.get(id.slot())?;
        if thread.generation == id.generation { thread.state } else { None }
    }

    /// The reason for which the running thread's last [`block`](Self::block) ended.
    ///
    /// # Panics
    /// If no thread is running.
    pub fn wake_reason(&self) -> WakeReason {
        let id = self.running.expect("no thread is running");
        self.threads[id.slot()].reason
    }

    /// Number of threads that wait for their turn.
    pub fn ready_count(&self) -> usize {
        self.ready.len()
    }

    /// Number of threads that have been spawned and not reaped.
    pub fn thread_count(&self) -> usize {
        self.threads.len() - self.free.len()
    }

    /// True when the running thread is to be preempted: it has had a whole slice, and another
    /// thread waits.
    pub fn slice_is_over(&self) -> bool {
        self.slice_over
    }

    /// True when a time slice is to begin: several threads can run, and no slice has begun.
    pub fn wants_slice(&self) -> bool {
        self.is_contended() && self.slice_end.is_none()
    }

    /// Begins a time slice and returns its end, for which the timer must be set.
    pub fn begin_slice(&mut self, now: u64) -> u64 {
        let end = now.saturating_add(self.slice_ns);
        self.slice_end = Some(end);
        end
    }

    /// The latest time at which the timer must fire: the earliest deadline of a blocked thread, or
    /// the end of the slice.
    pub fn next_timer(&self) -> Option<u64> {
        self.slice_end.into_iter().chain(self.sleepers.earliest()).min()
    }

    fn is_contended(&self) -> bool {
        self.running.is_some() && !self.ready.is_empty()
    }

    /// Makes room for one more thread in every list, so that no later step allocates.
    fn add_slot(&mut self) -> Result<u32, TryReserveError> {
        let slots = self.threads.len() + 1;
        self.threads.try_reserve(1)?;
        self.free.try_reserve(slots)?;
        self.ready.try_reserve(slots - self.ready.len())?;
        self.sleepers.try_reserve(slots)?;
        let slot = self.threads.len() as u32;
        self.threads.push(Thread { generation: 0, state: None, reason: WakeReason::Woken });
        Ok(slot)
    }

    fn stop_running(&mut self, state: State) -> ThreadId {
        let id = self.running.take().expect("no thread is running");
        self.threads[id.slot()].state = Some(state);
        id
    }

    fn make_ready(&mut self, slot: u32, reason: WakeReason) {
        let thread = &mut self.threads[slot as usize];
        thread.state = Some(State::Ready);
        thread.reason = reason;
        self.ready.push_back(slot);
    }
}

#[cfg(test)]
mod tests;
