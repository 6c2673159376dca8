//! Errors of IpC.

use core::fmt;

use xen_abi::Errno;

/// The reason for which a call on an object failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The call would have to wait, and must not, or its time is over (`EAGAIN`, `ETIMEDOUT`).
    WouldBlock,
    /// Nobody reads any more (`EPIPE`).
    BrokenPipe,
    /// A message is longer than the queue allows, or than the buffer (`EMSGSIZE`).
    TooLong,
    /// An object of this name exists already (`EEXIST`).
    Exists,
    /// No object of this name exists (`ENOENT`).
    NotFound,
    /// An argument or a name is invalid (`EINVAL`).
    Invalid,
    /// This pVM does not have the mutex (`EPERM`).
    NotOwner,
    /// A count would become too large (`EOVERFLOW`).
    Overflow,
    /// The family's quota, or memory, is used up (`ENOSPC`, `ENOMEM`, `EMFILE`).
    OutOfMemory,
    /// There is no pvmd in dom0, or it does not answer: is it running?
    NoDaemon,
    /// The object holds an invalid value, or is of another kind (`EIO`). It cannot
    /// be used any more. The member that wrote it is to blame.
    Broken,
    /// pvmd or Xen refused for another reason.
    Refused(Errno),
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::EEXIST => Self::Exists,
            Errno::ENOENT | Errno::ESRCH => Self::NotFound,
            Errno::EINVAL => Self::Invalid,
            Errno::ENOSPC | Errno::ENOMEM | Errno::EMFILE => Self::OutOfMemory,
            Errno::ENOTCONN => Self::NoDaemon,
            errno => Self::Refused(errno),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::WouldBlock => "it would have to wait",
            Self::BrokenPipe => "nobody reads any more",
            Self::TooLong => "the message is too long",
            Self::Exists => "there is something of this name already",
            Self::NotFound => "there is nothing of this name",
            Self::Invalid => "an argument makes no sense",
            Self::NotOwner => "this pVM does not have the mutex",
            Self::Overflow => "a count would become too large",
            Self::OutOfMemory => "no more memory for objects: see the family's quota (pvmd --family-memory)",
            Self::NoDaemon => "pvmd does not answer: is it running in dom0?",
            Self::Broken => "a relative has written nonsense into the object",
            Self::Refused(errno) => return write!(out, "the object was refused: {errno}"),
        })
    }
}

impl core::error::Error for Error {}
