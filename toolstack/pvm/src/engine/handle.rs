//! The way of commands to the engine's thread.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use rustix::event::{EventfdFlags, eventfd};

use super::api::{Command, Error, Reply};

/// The sender of commands to the engine's thread.
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

/// The engine's end of a [`Handle`]. Tests of the users of handles hold it in the engine's place.
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
    /// Sends a command; its reply comes by its own channel.
    ///
    /// # Errors
    /// The engine has ended.
    pub fn send(&self, command: Command) -> Result<(), Closed> {
        self.commands.send(command).map_err(|_| Closed)?;
        self.waker.wake();
        Ok(())
    }

    /// Makes a command with a channel for the reply, sends it, and waits for the reply.
    ///
    /// # Errors
    /// [`Closed`]: the engine has ended. The inner error is the engine's answer.
    pub fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<Result<T, Error>, Closed> {
        let (reply, answer) = mpsc::channel();
        self.send(command(reply))?;
        answer.recv().map_err(|_| Closed)
    }
}

impl Waker {
    /// Wakes the engine, which looks for news.
    pub fn wake(&self) {
        // The counter is full only after 2^64 wakes without a read: the engine is awake anyhow.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

impl Inbox {
    /// The descriptor that becomes readable when a command has come.
    pub fn wake(&self) -> &OwnedFd {
        &self.waker.0
    }

    /// The waker of this inbox.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// The next command; none if there is none.
    pub fn take(&self) -> Option<Command> {
        self.commands.try_recv().ok()
    }

    /// Makes [`wake`](Self::wake) unreadable until the next command comes.
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
