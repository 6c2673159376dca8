//! Pipes: streams of bytes (POSIX `pipe`, `read`, `write`).

use core::time::Duration;

use xen_abi::PAGE_SIZE;
use zooid_core::ring::ByteRing;

use crate::error::Error;
use crate::layout::{BODY, FIELDS, Kind, Role};
use crate::lock::lock;
use crate::object::{How, Object, Part, open};
use crate::platform::{AnyEvent, Pages, Platform, Word};
use crate::poll::{Events, Pollable};
use crate::signal;
use crate::wait::{self, Patience};

/// Bytes that a pipe holds, as in Linux.
pub const CAPACITY: usize = 65_536;
/// Most bytes that are written in one piece, even among other writers (`PIPE_BUF`).
pub const ATOMIC: usize = 4096;

const RING: ByteRing = ByteRing::new(CAPACITY as u32);
/// u32, the writers' and the readers' index.
const PROD: usize = FIELDS[0];
const CONS: usize = FIELDS[1];

/// The wait points of readers and writers, which are also the numbers of their locks.
const READERS: usize = 0;
const WRITERS: usize = 1;

/// The read end. Clones are the same end; it is closed with the last one of this pVM.
pub struct PipeReader<P: Platform>(Part<P>);

impl<P: Platform> Clone for PipeReader<P> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// The write end. Clones are the same end; it is closed with the last one of this pVM.
pub struct PipeWriter<P: Platform>(Part<P>);

impl<P: Platform> Clone for PipeWriter<P> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// Makes a pipe, and returns its read end and its write end.
///
/// # Errors
/// See [`Error`].
pub fn pipe<P: Platform>() -> Result<(PipeReader<P>, PipeWriter<P>), Error> {
    let pages = (BODY + CAPACITY) / PAGE_SIZE;
    let reader = open(Kind::Pipe, None, pages, How::ANONYMOUS, [0; 2], Role::Reader)?;
    let writer = Part::new(reader.object(), Role::Writer);
    Ok((PipeReader(reader), PipeWriter(writer)))
}

/// The number of octets that wait to be read. `None`: the indices are invalid, if the caller has a
/// lock.
///
/// Without a lock the number may be too high: the readers' index is read first, and the other one
/// is ahead of it. 0 is exact. A writer that is told of less room than there is was told too early,
/// and is woken for the rest.
fn filled<P: Platform>(object: &Object<P>) -> Option<usize> {
    let cons = object.pages().u32(CONS).read();
    let filled = object.pages().u32(PROD).read().wrapping_sub(cons) as usize;
    (filled <= CAPACITY).then_some(filled)
}

/// The number of octets that there is room for, by [`filled`]: it may be too low.
fn room<P: Platform>(object: &Object<P>) -> usize {
    CAPACITY - filled(object).unwrap_or(CAPACITY)
}

/// Reads the available octets, with the readers' lock.
fn pop<P: Platform>(object: &Object<P>, into: &mut [u8]) -> Result<usize, Error> {
    let (pages, cons) = (object.pages(), object.pages().u32(CONS).read());
    let spans = RING.readable(pages.u32(PROD).read(), cons, into.len()).map_err(|_| object.broken())?;
    let (first, second) = into[..spans.len()].split_at_mut(spans.first.len());
    pages.copy_out(BODY + spans.first.start, first);
    pages.copy_out(BODY + spans.second.start, second);
    pages.u32(CONS).write(cons.wrapping_add(spans.len() as u32));
    Ok(spans.len())
}

/// Writes as much as there is room for, with the writers' lock, if that is `least` at least.
fn push<P: Platform>(object: &Object<P>, bytes: &[u8], least: usize) -> Result<usize, Error> {
    let (pages, prod) = (object.pages(), object.pages().u32(PROD).read());
    let spans = RING.writable(prod, pages.u32(CONS).read(), bytes.len()).map_err(|_| object.broken())?;
    if spans.len() < least {
        return Ok(0);
    }
    let (first, second) = bytes[..spans.len()].split_at(spans.first.len());
    pages.copy_in(BODY + spans.first.start, first);
    pages.copy_in(BODY + spans.second.start, second);
    pages.u32(PROD).write(prod.wrapping_add(spans.len() as u32));
    Ok(spans.len())
}

impl<P: Platform> PipeReader<P> {
    /// Reads the available bytes, waiting until there is one; 0 when nobody can write any more, or
    /// the buffer is empty.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn read(&self, buffer: &mut [u8]) -> Result<usize, Error> {
        self.read_within(buffer, Patience::Forever)
    }

    /// Reads the available bytes without waiting.
    ///
    /// # Errors
    /// [`WouldBlock`](Error::WouldBlock) when there is nothing.
    pub fn try_read(&self, buffer: &mut [u8]) -> Result<usize, Error> {
        self.read_within(buffer, Patience::None)
    }

    /// Reads the available bytes, waiting `limit` at most.
    ///
    /// # Errors
    /// [`WouldBlock`](Error::WouldBlock) when there was nothing.
    pub fn read_timeout(&self, buffer: &mut [u8], limit: Duration) -> Result<usize, Error> {
        self.read_within(buffer, Patience::within::<P>(limit))
    }

    /// As [`read`](Self::read), waiting so long.
    ///
    /// # Errors
    /// [`WouldBlock`](Error::WouldBlock) when the patience is over.
    pub fn read_within(&self, buffer: &mut [u8], patience: Patience) -> Result<usize, Error> {
        let object = self.0.object();
        object.check()?;
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let count = {
                let _lock = lock(object, READERS, patience)?;
                pop(object, buffer)?
            };
            if count > 0 {
                wait::wake(object, WRITERS);
                return Ok(count);
            }
            let over = || filled(object) != Some(0) || !object.has(Role::Writer);
            if !wait::wait(object, READERS, patience, over) {
                return Err(Error::WouldBlock);
            }
            // The order of the last two matters: data that the last writer wrote before it closed is
            // read first.
            let is_empty = || filled(object) == Some(0);
            if is_empty() && !object.has(Role::Writer) && is_empty() {
                return Ok(0);
            }
        }
    }
}

impl<P: Platform> PipeWriter<P> {
    /// Writes all of `bytes`. Up to [`ATOMIC`] bytes are written in one piece, even among other
    /// writers.
    ///
    /// # Errors
    /// [`BrokenPipe`](Error::BrokenPipe) when nobody can read any more.
    pub fn write_all(&self, bytes: &[u8]) -> Result<(), Error> {
        self.write_within(bytes, Patience::Forever).map(|_| ())
    }

    /// Writes as many bytes as there is room for, and returns their number. Up to [`ATOMIC`] bytes
    /// are written whole or not at all.
    ///
    /// # Errors
    /// [`WouldBlock`](Error::WouldBlock) when there was no room, [`BrokenPipe`](Error::BrokenPipe).
    pub fn try_write(&self, bytes: &[u8]) -> Result<usize, Error> {
        self.write_within(bytes, Patience::None)
    }

    /// As [`try_write`](Self::try_write), but waits `limit` at most until all is written.
    ///
    /// # Errors
    /// As there.
    pub fn write_timeout(&self, bytes: &[u8], limit: Duration) -> Result<usize, Error> {
        self.write_within(bytes, Patience::within::<P>(limit))
    }

    /// Writes all of `bytes`, or as many as there was room for when the patience is over.
    ///
    /// # Errors
    /// As for [`try_write`](Self::try_write).
    pub fn write_within(&self, bytes: &[u8], patience: Patience) -> Result<usize, Error> {
        let object = self.0.object();
        object.check()?;
        let mut written = 0;
        while written < bytes.len() {
            match self.write_some(&bytes[written..], if bytes.len() <= ATOMIC { bytes.len() } else { 1 }, patience) {
                Ok(count) => written += count,
                Err(Error::WouldBlock) if written > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    /// Writes as much as there is room for, once there is room for `least`.
    fn write_some(&self, bytes: &[u8], least: usize, patience: Patience) -> Result<usize, Error> {
        let object = self.0.object();
        loop {
            object.check()?;
            if !object.has(Role::Reader) {
                signal::raise_if_handled::<P>(signal::SIGPIPE);
                return Err(Error::BrokenPipe);
            }
            let count = {
                let _lock = lock(object, WRITERS, patience)?;
                push(object, bytes, least)?
            };
            if count > 0 {
                wait::wake(object, READERS);
                return Ok(count);
            }
            let over = || room(object) >= least || object.check().is_err() || !object.has(Role::Reader);
            if !wait::wait(object, WRITERS, patience, over) {
                return Err(Error::WouldBlock);
            }
        }
    }
}

impl<P: Platform> Pollable for PipeReader<P> {
    fn ready(&self, wanted: Events) -> Events {
        let object = self.0.object();
        let end = if object.has(Role::Writer) { Events::empty() } else { Events::HANGUP };
        match filled(object) {
            _ if object.check().is_err() => Events::ERROR,
            Some(0) => end,
            _ => (Events::READABLE & wanted) | end,
        }
    }

    fn watch(&self, _: Events, event: &AnyEvent) {
        wait::watch(self.0.object(), READERS, event);
    }

    fn unwatch(&self, event: &AnyEvent) {
        wait::unwatch::<P>(event);
    }
}

impl<P: Platform> Pollable for PipeWriter<P> {
    fn ready(&self, wanted: Events) -> Events {
        let object = self.0.object();
        if object.check().is_err() || !object.has(Role::Reader) {
            Events::ERROR
        } else if room(object) >= ATOMIC {
            Events::WRITABLE & wanted
        } else {
            Events::empty()
        }
    }

    fn watch(&self, _: Events, event: &AnyEvent) {
        wait::watch(self.0.object(), WRITERS, event);
    }

    fn unwatch(&self, event: &AnyEvent) {
        wait::unwatch::<P>(event);
    }
}
