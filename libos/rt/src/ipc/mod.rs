//! Objects that relatives share: pipes, semaphores, message queues, memory. An object without a
//! name is this pVM's and that of the children it forks afterwards; one with a name can be opened
//! by any member of the family, and exists until it is removed or the family has ended.
//!
//! ```ignore
//! let (reader, writer) = ipc::pipe()?;
//! match process::fork()? {
//!     None => {
//!         drop(reader);
//!         writer.write_all(b"hello")?;
//!     }
//!     Some(_) => {
//!         drop(writer);
//!         let mut buffer = [0; 64];
//!         while reader.read(&mut buffer)? > 0 {}
//!     }
//! }
//! ```
//!
//! A call that may have to wait exists in three forms: `read` waits, `try_read` does not,
//! `read_timeout` waits a limited time; `read_within` has all of them. [`poll`](crate::poll) waits
//! for several of them at once.

mod platform;

pub(crate) use platform::Kernel;
pub use zooid_ipc::pipe::{ATOMIC as PIPE_BUF, CAPACITY as PIPE_CAPACITY};
pub use zooid_ipc::queue::Attributes;
pub use zooid_ipc::{Error, How, Patience};

/// See [`zooid_ipc::memory::SharedMemory`].
pub type SharedMemory = zooid_ipc::memory::SharedMemory<Kernel>;
/// See [`zooid_ipc::pipe::PipeReader`].
pub type PipeReader = zooid_ipc::pipe::PipeReader<Kernel>;
/// See [`zooid_ipc::pipe::PipeWriter`].
pub type PipeWriter = zooid_ipc::pipe::PipeWriter<Kernel>;
/// See [`zooid_ipc::queue::MessageQueue`].
pub type MessageQueue = zooid_ipc::queue::MessageQueue<Kernel>;
/// See [`zooid_ipc::semaphore::Semaphore`].
pub type Semaphore = zooid_ipc::semaphore::Semaphore<Kernel>;

/// Limits of queues.
pub mod queue {
    pub use zooid_ipc::queue::{MAX_MESSAGES, MAX_SIZE, PRIORITIES};
}

/// Limits of semaphores.
pub mod semaphore {
    pub use zooid_ipc::semaphore::MAX_VALUE;
}

/// Mutexes, condition variables and semaphores in shared memory: see [`zooid_ipc::shared`].
pub mod shared {
    use super::Kernel;

    /// See [`zooid_ipc::shared::Mutex`].
    pub type Mutex = zooid_ipc::shared::Mutex<Kernel>;
    /// See [`zooid_ipc::shared::MutexGuard`].
    pub type MutexGuard<'a> = zooid_ipc::shared::MutexGuard<'a, Kernel>;
    /// See [`zooid_ipc::shared::Condvar`].
    pub type Condvar = zooid_ipc::shared::Condvar<Kernel>;
    /// See [`zooid_ipc::shared::Semaphore`].
    pub type Semaphore = zooid_ipc::shared::Semaphore<Kernel>;
}

/// Makes a pipe, and returns its read end and its write end.
///
/// # Errors
/// See [`Error`].
pub fn pipe() -> Result<(PipeReader, PipeWriter), Error> {
    zooid_ipc::pipe::pipe()
}

/// Removes a name of the family's. A member that has the object keeps it.
///
/// # Errors
/// `NotFound`; see [`Error`].
pub fn unlink(name: &str) -> Result<(), Error> {
    zooid_ipc::unlink::<Kernel>(name)
}
