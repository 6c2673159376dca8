//! Signals between relatives, and from dom0 (`pvm kill -s`).
//!
//! A handler runs in a thread of its own, one at a time, not in the middle of another thread: it may use everything of the libOS. Without one, most
//! signals end the pVM, as POSIX has it; `SIGCHLD`, `SIGCONT`, `SIGURG`, `SIGWINCH`, and `SIGPIPE` do nothing. A child has its parent's handlers and mask.

pub use zooid_ipc::Error;
pub use zooid_ipc::signal::{
    Action, Blocked, LAST, SIGCHLD, SIGCONT, SIGKILL, SIGPIPE, SIGSTOP, block, pending, set, set_action, set_mask,
    unblock, wait, wait_timeout, wait_within,
};
