//! The status of a pVM that has ended.

use core::fmt;

/// The way in which a pVM ended, as `wait` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// It called `exit`, or its `main` returned: the code.
    Exited(u8),
    /// A signal ended it: the signal's number.
    Killed(u8),
    /// It panicked, or an exception ended it.
    Crashed,
    /// It wrote to memory after a fork and no frame was left.
    OutOfMemory,
    /// The toolstack or the operator destroyed its domain.
    Destroyed,
}

impl Status {
    /// As a number: the kind in bits 8 to 15, code or signal below.
    pub const fn to_raw(self) -> u32 {
        match self {
            Self::Exited(code) => code as u32,
            Self::Killed(signal) => 1 << 8 | signal as u32,
            Self::Crashed => 2 << 8,
            Self::OutOfMemory => 3 << 8,
            Self::Destroyed => 4 << 8,
        }
    }

    /// The status with this number. A number that is none counts as a crash: only a broken guest
    /// writes one.
    pub const fn from_raw(raw: u32) -> Self {
        match (raw >> 8, raw as u8) {
            (0, code) => Self::Exited(code),
            (1, signal) => Self::Killed(signal),
            (3, 0) => Self::OutOfMemory,
            (4, 0) => Self::Destroyed,
            _ => Self::Crashed,
        }
    }

    /// The code a shell would show: the exit code, 128 and the signal, or 128 and SIGSEGV, SIGKILL,
    /// SIGKILL.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Killed(signal) => 128 | signal,
            Self::Crashed => 128 | 11,
            Self::OutOfMemory | Self::Destroyed => 128 | 9,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(out, "exit {code}"),
            Self::Killed(signal) => write!(out, "signal {signal}"),
            Self::Crashed => out.write_str("crash"),
            Self::OutOfMemory => out.write_str("oom"),
            Self::Destroyed => out.write_str("destroyed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        for status in [
            Status::Exited(0),
            Status::Exited(255),
            Status::Killed(9),
            Status::Crashed,
            Status::OutOfMemory,
            Status::Destroyed,
        ] {
            assert_eq!(Status::from_raw(status.to_raw()), status);
        }
        assert_eq!(Status::from_raw(u32::MAX), Status::Crashed);
    }
}
