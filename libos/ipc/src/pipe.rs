//! Pipes: streams of bytes (POSIX `pipe`, `read`, `write`).

use alloc::sync::Arc;
use core::time::Duration;

use xen_abi::PAGE_SIZE;
use zooid_core::ring::ByteRing;
use zooid_kernel::evtchn::Event;
use zooid_kernel::shared::ByteLane;

use crate::error::Error;
use crate::layout::{BODY, FIELDS, Kind, Role};
use crate::lock::lock;
use crate::object::{How, Object, Part, open};
use crate::poll::{Events, Pollable};
use crate::signal;
use crate::wait::{self, Patience};

/// Bytes that a pipe holds, as Linux has it.
pub const CAPACITY: usize = 65_536;
/// Most bytes that are written in one piece, whoever else writes (`PIPE_BUF`).
pub const ATOMIC: usize = 4096;

const LANE: ByteLane =
    ByteLane { ring: ByteRing::new(CAPACITY as u32), buffer: BODY, prod: FIELDS[0], cons: FIELDS[1] };

/// Where readers and writers wait, and their locks.
const READERS: usize = 0;
const WRITERS: usize = 1;

/// The end that is read from. Clones are the same end; it is closed with the last one of this pVM.
#[derive(Clone)]
pub struct PipeReader(Part);

/// The end that is written to. Clones are the same end; it is closed with the last one of this pVM.
#[derive(Clone)]
pub struct PipeWriter(Part);

/// Makes a pipe: the end to read from, and the one to write to.
///
/// # Errors
/// See [`Error`].
pub fn pipe() -> Result<(PipeReader, PipeWriter), Error> {
    let object = open(Kind::Pipe, None, (BODY + CAPACITY) / PAGE_SIZE, How::ANONYMOUS, [0; 2])?;
    Ok((PipeReader(Part::new(&object, Role::Reader)), PipeWriter(Part::new(&object, Role::Writer))))
}

/// Octets that wait to be read.
fn filled(object: &Object) -> Result<usize, Error> {
    let (prod, cons) = (object.pages().read_u32(LANE.prod), object.pages().read_u32(LANE.cons));
    match prod.wrapping_sub(cons) as usize {
        filled @ 0..=CAPACITY => Ok(filled),
        _ => Err(object.broken()),
    }
}

impl PipeReader {
    /// Reads what there is, waiting until there is something; 0 when nobody can write any more, or the buffer is empty.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn read(&self, buffer: &mut [u8]) -> Result<usize, Error> {
        self.read_within(buffer, Patience::Forever)
    }

    /// Reads what there is without waiting.
    ///
    /// # Errors
    /// [`WouldBlock`](Error::WouldBlock) when there is nothing.
    pub fn try_read(&self, buffer: &mut [u8]) -> Result<usize, Error> {
        self.read_within(buffer, Patience::None)
    }

    /// Reads what there is, waiting `limit` at most.
    ///
    /// # Errors
    /// [`WouldBlock`](Error::WouldBlock) when there was nothing.
    pub fn read_timeout(&self, buffer: &mut [u8], limit: Duration) -> Result<usize, Error> {
        self.read_within(buffer, Patience::within(limit))
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
            {
                let _lock = lock(object, READERS, patience)?;
                let count = LANE.pop(object.pages(), buffer).map_err(|_| object.broken())?;
                if count > 0 {
                    wait::wake(object, WRITERS);
                    return Ok(count);
                }
            }
            let over = || !matches!(filled(object), Ok(0)) || !object.has(Role::Writer);
            if !wait::wait(object, READERS, patience, over) {
                return Err(Error::WouldBlock);
            }
            // Asked in this order: what the last writer wrote before it went is read first.
            if !object.has(Role::Writer) && filled(object)? == 0 {
                return Ok(0);
            }
        }
    }
}

impl PipeWriter {
    /// Writes all of `bytes`. Up to [`ATOMIC`] bytes are written in one piece, whoever else writes.
    ///
    /// # Errors
    /// [`BrokenPipe`](Error::BrokenPipe) when nobody can read any more.
    pub fn write_all(&self, bytes: &[u8]) -> Result<(), Error> {
        self.write_within(bytes, Patience::Forever).map(|_| ())
    }

    /// Writes what there is room for, and returns how many bytes that was; up to [`ATOMIC`] bytes are written whole or not at all.
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
        self.write_within(bytes, Patience::within(limit))
    }

    /// Writes all of `bytes`, or, when the patience is over before, as many as there was room for.
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
        let room = || filled(object).map(|filled| CAPACITY - filled);
        loop {
            if !object.has(Role::Reader) {
                signal::raise_if_handled(signal::SIGPIPE);
                return Err(Error::BrokenPipe);
            }
            {
                let _lock = lock(object, WRITERS, patience)?;
                if room()? >= least {
                    let count = LANE.push(object.pages(), bytes).map_err(|_| object.broken())?;
                    wait::wake(object, READERS);
                    return Ok(count);
                }
            }
            let over =
                || room().is_ok_and(|room| room >= least) || object.check().is_err() || !object.has(Role::Reader);
            if !wait::wait(object, WRITERS, patience, over) {
                return Err(Error::WouldBlock);
            }
        }
    }
}

impl Pollable for PipeReader {
    fn ready(&self, wanted: Events) -> Events {
        let object = self.0.object();
        let end = if object.has(Role::Writer) { Events::empty() } else { Events::HANGUP };
        match filled(object) {
            Err(_) => Events::ERROR,
            Ok(0) => end,
            Ok(_) => (Events::READABLE & wanted) | end,
        }
    }

    fn watch(&self, _: Events, event: &Arc<Event>) {
        wait::watch(self.0.object(), READERS, event);
    }

    fn unwatch(&self, event: &Arc<Event>) {
        wait::unwatch(event);
    }
}

impl Pollable for PipeWriter {
    fn ready(&self, wanted: Events) -> Events {
        let object = self.0.object();
        match filled(object) {
            Ok(_) if !object.has(Role::Reader) => Events::ERROR,
            Ok(filled) if CAPACITY - filled >= ATOMIC => Events::WRITABLE & wanted,
            Ok(_) => Events::empty(),
            Err(_) => Events::ERROR,
        }
    }

    fn watch(&self, _: Events, event: &Arc<Event>) {
        wait::watch(self.0.object(), WRITERS, event);
    }

    fn unwatch(&self, event: &Arc<Event>) {
        wait::unwatch(event);
    }
}
