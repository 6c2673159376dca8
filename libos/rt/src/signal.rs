//! Signals between relatives, and from dom0 (`pvm kill -s`).
//!
//! Handlers run in a thread of their own, one at a time, never in the middle of another thread. A
//! handler may therefore use all of the libOS. Without a handler, most signals end the pVM, as in
//! POSIX; `SIGCHLD`, `SIGCONT`, `SIGURG`, `SIGWINCH`, and `SIGPIPE` do nothing. A child has its
//! parent's handlers and mask.

pub use zooid_ipc::Error;
pub use zooid_ipc::signal::{
    Action, Blocked, LAST, SIGCHLD, SIGCONT, SIGKILL, SIGPIPE, SIGSTOP, block, pending, set, set_action, set_mask,
    unblock, wait, wait_timeout, wait_within,
};
