//! What relatives share: pipes, semaphores, message queues, memory. An object without a name is this pVM's and that of the children
//! it forks afterwards; one with a name can be opened by any member of the family, and exists until it is removed or the family has ended.
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

use core::time::Duration;

use zooid_ipc::{Patience, pipe as pipes};
use zooid_kernel::time;

pub use zooid_ipc::memory::SharedMemory;
pub use zooid_ipc::pipe::{ATOMIC as PIPE_BUF, CAPACITY as PIPE_CAPACITY};
pub use zooid_ipc::queue::Attributes;
pub use zooid_ipc::{Error, How, queue, semaphore, unlink};

/// The same with an explicit limit of time: for the C ABI.
#[doc(hidden)]
pub mod raw {
    pub use zooid_ipc::memory::SharedMemory;
    pub use zooid_ipc::pipe::{Reader, Writer, pipe};
    pub use zooid_ipc::queue::{Attributes, MessageQueue};
    pub use zooid_ipc::semaphore::Semaphore;
    pub use zooid_ipc::signal::{set_mask as sigmask, wait_for as sigwait};
    pub use zooid_ipc::{Error, How, Patience};
}

/// Makes a pipe: the end to read from, and the one to write to.
///
/// # Errors
/// See [`Error`].
pub fn pipe() -> Result<(PipeReader, PipeWriter), Error> {
    let (reader, writer) = pipes::pipe()?;
    Ok((PipeReader(reader), PipeWriter(writer)))
}

fn within(limit: Duration) -> Patience {
    Patience::Until(time::after(limit))
}

/// The end of a pipe that is read from. Clones are the same end; it is closed when this pVM has no clone any more.
#[derive(Clone)]
pub struct PipeReader(pipes::Reader);

impl PipeReader {
    /// Reads what there is, waiting until there is something; 0 when nobody can write any more.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn read(&self, buffer: &mut [u8]) -> Result<usize, Error> {
        self.0.read(buffer, Patience::Forever)
    }

    /// Reads what there is without waiting.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] when there is nothing.
    pub fn try_read(&self, buffer: &mut [u8]) -> Result<usize, Error> {
        self.0.read(buffer, Patience::None)
    }

    /// Reads what there is, waiting `limit` at most.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] when there was nothing.
    pub fn read_timeout(&self, buffer: &mut [u8], limit: Duration) -> Result<usize, Error> {
        self.0.read(buffer, within(limit))
    }
}

/// The end of a pipe that is written to. Clones are the same end; it is closed when this pVM has no clone any more.
#[derive(Clone)]
pub struct PipeWriter(pipes::Writer);

impl PipeWriter {
    /// Writes all of `bytes`. Up to [`PIPE_BUF`] bytes are written in one piece, whoever else writes.
    ///
    /// # Errors
    /// [`Error::BrokenPipe`] when nobody can read any more.
    pub fn write_all(&self, bytes: &[u8]) -> Result<(), Error> {
        self.0.write(bytes, Patience::Forever).map(|_| ())
    }

    /// Writes what there is room for, and returns how many bytes that was; up to [`PIPE_BUF`] bytes are written whole or not at all.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] when there was no room, [`Error::BrokenPipe`].
    pub fn try_write(&self, bytes: &[u8]) -> Result<usize, Error> {
        self.0.write(bytes, Patience::None)
    }

    /// As [`try_write`](Self::try_write), but waits `limit` at most until all is written.
    ///
    /// # Errors
    /// As there.
    pub fn write_timeout(&self, bytes: &[u8], limit: Duration) -> Result<usize, Error> {
        self.0.write(bytes, within(limit))
    }
}

/// A semaphore. Clones are the same one.
#[derive(Clone)]
pub struct Semaphore(semaphore::Semaphore);

impl Semaphore {
    /// A semaphore without a name.
    ///
    /// # Errors
    /// [`Error::Invalid`] above [`semaphore::MAX_VALUE`]; see [`Error`].
    pub fn new(value: u32) -> Result<Self, Error> {
        semaphore::Semaphore::new(value).map(Self)
    }

    /// The family's semaphore of this name; `value` is for one that is made now.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open(name: &str, how: How, value: u32) -> Result<Self, Error> {
        semaphore::Semaphore::open(name, how, value).map(Self)
    }

    /// Its value, a moment ago.
    pub fn value(&self) -> u32 {
        self.0.value()
    }

    /// Takes one, waiting until there is one.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn wait(&self) -> Result<(), Error> {
        self.0.wait(Patience::Forever)
    }

    /// Takes one if there is one.
    ///
    /// # Errors
    /// [`Error::WouldBlock`].
    pub fn try_wait(&self) -> Result<(), Error> {
        self.0.wait(Patience::None)
    }

    /// Takes one, waiting `limit` at most.
    ///
    /// # Errors
    /// [`Error::WouldBlock`].
    pub fn wait_timeout(&self, limit: Duration) -> Result<(), Error> {
        self.0.wait(within(limit))
    }

    /// Gives one.
    ///
    /// # Errors
    /// [`Error::Overflow`] above [`semaphore::MAX_VALUE`].
    pub fn post(&self) -> Result<(), Error> {
        self.0.post()
    }
}

/// A queue of messages: of those with the highest priority, the oldest is received first. Clones are the same queue.
#[derive(Clone)]
pub struct MessageQueue(queue::MessageQueue);

impl MessageQueue {
    /// A queue without a name.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn new(attributes: Attributes) -> Result<Self, Error> {
        queue::MessageQueue::new(attributes).map(Self)
    }

    /// The family's queue of this name; the attributes are for one that is made now.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open(name: &str, how: How, attributes: Attributes) -> Result<Self, Error> {
        queue::MessageQueue::open(name, how, attributes).map(Self)
    }

    /// How large it is.
    pub fn attributes(&self) -> Attributes {
        self.0.attributes()
    }

    /// How many messages it holds, a moment ago.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sends a message, waiting until there is room.
    ///
    /// # Errors
    /// [`Error::TooLong`], [`Error::Invalid`] (the priority).
    pub fn send(&self, message: &[u8], priority: u32) -> Result<(), Error> {
        self.0.send(message, priority, Patience::Forever)
    }

    /// Sends a message if there is room.
    ///
    /// # Errors
    /// As [`send`](Self::send), and [`Error::WouldBlock`].
    pub fn try_send(&self, message: &[u8], priority: u32) -> Result<(), Error> {
        self.0.send(message, priority, Patience::None)
    }

    /// Sends a message, waiting `limit` at most.
    ///
    /// # Errors
    /// As [`send`](Self::send), and [`Error::WouldBlock`].
    pub fn send_timeout(&self, message: &[u8], priority: u32, limit: Duration) -> Result<(), Error> {
        self.0.send(message, priority, within(limit))
    }

    /// Receives a message, waiting until there is one: its length and its priority. The buffer has room for any message.
    ///
    /// # Errors
    /// [`Error::TooLong`] when it has not.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<(usize, u32), Error> {
        self.0.receive(buffer, Patience::Forever)
    }

    /// Receives a message if there is one.
    ///
    /// # Errors
    /// As [`receive`](Self::receive), and [`Error::WouldBlock`].
    pub fn try_receive(&self, buffer: &mut [u8]) -> Result<(usize, u32), Error> {
        self.0.receive(buffer, Patience::None)
    }

    /// Receives a message, waiting `limit` at most.
    ///
    /// # Errors
    /// As [`receive`](Self::receive), and [`Error::WouldBlock`].
    pub fn receive_timeout(&self, buffer: &mut [u8], limit: Duration) -> Result<(usize, u32), Error> {
        self.0.receive(buffer, within(limit))
    }
}
