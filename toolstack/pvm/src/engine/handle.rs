//! How commands reach the engine's thread.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use rustix::event::{EventfdFlags, eventfd};

use super::api::{Command, Error, Reply};

/// Takes commands to the engine's thread.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: Sender<Command>,
    waker: Waker,
}

/// Wakes the engine's thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

/// The engine has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// The engine's end of a [`Handle`]; tests of what uses handles hold it in the engine's place.
#[derive(Debug)]
pub struct Inbox {
    commands: Receiver<Command>,
    waker: Waker,
}

/// A handle, and the inbox that its commands land in.
///
/// # Errors
/// Linux gives no eventfd.
pub fn pair() -> std::io::Result<(Handle, Inbox)> {
    let waker = Waker(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?));
    let (sender, receiver) = mpsc::channel();
    Ok((Handle { commands: sender, waker: waker.clone() }, Inbox { commands: receiver, waker }))
}

impl Handle {
    /// Hands a command over; its reply comes by its own channel.
    ///
    /// # Errors
    /// The engine has ended.
    pub fn send(&self, command: Command) -> Result<(), Closed> {
        self.commands.send(command).map_err(|_| Closed)?;
        self.waker.wake();
        Ok(())
    }

    /// Makes a command of a place for the reply, hands it over, and waits for the reply.
    ///
    /// # Errors
    /// The engine has ended; or what the engine answered.
    pub fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<Result<T, Error>, Closed> {
        let (reply, answer) = mpsc::channel();
        self.send(command(reply))?;
        answer.recv().map_err(|_| Closed)
    }
}

impl Waker {
    /// Makes it look for what is new.
    pub fn wake(&self) {
        // Full means that the engine has not looked for 2^64 times: it is awake anyhow.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

impl Inbox {
    /// What becomes readable when a command has come.
    pub fn wake(&self) -> &OwnedFd {
        &self.waker.0
    }

    /// What wakes whoever waits at this inbox.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// The next command; nothing when there is none.
    pub fn take(&self) -> Option<Command> {
        self.commands.try_recv().ok()
    }

    /// Makes [`wake`](Self::wake) unreadable; commands that come from now on make it readable again.
    pub fn clear(&self) {
        let _ = rustix::io::read(&self.waker.0, &mut [0; 8]);
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the engine has ended")
    }
}

impl std::error::Error for Closed {}
