//! Threads.

use alloc::string::String;
use alloc::sync::Arc;
use core::time::Duration;

use zooid_kernel::sync::{Condvar, Mutex};
pub use zooid_kernel::thread::{DEFAULT_STACK_SIZE, SpawnError, yield_now};

use crate::time::Instant;

struct Packet<T> {
    result: Mutex<Option<T>>,
    done: Condvar,
}

/// A thread that can be joined. Dropping the handle lets the thread run on by itself.
pub struct JoinHandle<T> {
    packet: Arc<Packet<T>>,
}

impl<T> JoinHandle<T> {
    /// Waits until the thread has ended, and returns its result. A thread that panics ends the
    /// whole pVM.
    pub fn join(self) -> T {
        let mut result = self.packet.result.lock();
        loop {
            match result.take() {
                Some(value) => return value,
                None => result = self.packet.done.wait(result),
            }
        }
    }

    /// True if the thread has ended.
    pub fn is_finished(&self) -> bool {
        self.packet.result.lock().is_some()
    }
}

/// Options for a new thread.
#[derive(Debug)]
pub struct Builder {
    name: String,
    stack_size: usize,
}

impl Default for Builder {
    fn default() -> Self {
        Self { name: "thread".into(), stack_size: DEFAULT_STACK_SIZE }
    }
}

impl Builder {
    /// A thread named "thread" with [`DEFAULT_STACK_SIZE`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the name, which reports of a crash show.
    pub fn name(self, name: &str) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Sets the size of the stack in bytes. The page below it is unmapped, so that an overflow ends
    /// the pVM.
    pub fn stack_size(self, stack_size: usize) -> Self {
        Self { stack_size, ..self }
    }

    /// Starts the thread.
    pub fn spawn<T: Send + 'static>(
        self,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>, SpawnError> {
        let packet = Arc::new(Packet { result: Mutex::new(None), done: Condvar::new() });
        let handle = JoinHandle { packet: packet.clone() };
        zooid_kernel::thread::spawn_application(&self.name, self.stack_size, move || {
            let value = body();
            zooid_kernel::tls::end_thread();
            *packet.result.lock() = Some(value);
            packet.done.notify_all();
        })?;
        Ok(handle)
    }
}

/// Starts a thread with the default name and stack.
///
/// # Panics
/// When there is no memory for it; [`Builder::spawn`] returns an error instead.
pub fn spawn<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    match Builder::new().spawn(body) {
        Ok(handle) => handle,
        Err(error) => panic!("cannot start a thread: {error}"),
    }
}

/// Blocks the calling thread for at least `duration`.
pub fn sleep(duration: Duration) {
    sleep_until(Instant::now() + duration);
}

/// Blocks the calling thread until `deadline`.
pub fn sleep_until(deadline: Instant) {
    zooid_kernel::thread::sleep_until(deadline.system_time());
}
