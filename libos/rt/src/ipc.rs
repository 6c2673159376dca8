//! Objects shared by relatives: pipes, semaphores, message queues, memory. An object without a name
//! belongs to this pVM and the children that it forks afterwards. One with a name can be opened by
//! any member of the family, and exists until it is removed or the family has ended.
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
//! `read_timeout` waits a limited time; `read_within` covers all of them. [`poll`](crate::poll)
//! waits for several objects at once.

pub use zooid_ipc::memory::SharedMemory;
pub use zooid_ipc::pipe::{ATOMIC as PIPE_BUF, CAPACITY as PIPE_CAPACITY, PipeReader, PipeWriter, pipe};
pub use zooid_ipc::queue::{Attributes, MessageQueue};
pub use zooid_ipc::semaphore::Semaphore;
pub use zooid_ipc::{Error, How, Patience, queue, semaphore, shared, unlink};
