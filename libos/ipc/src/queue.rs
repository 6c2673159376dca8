//! Message queues (POSIX `mq_open`, `mq_send`, `mq_receive`).

use alloc::sync::Arc;
use core::time::Duration;

use xen_abi::PAGE_SIZE;

use crate::error::Error;
use crate::layout::{BODY, FIELDS, Kind, Role};
use crate::lock::lock;
use crate::object::{How, Object, Part, open};
use crate::platform::{AnyEvent, Pages, Platform, Word};
use crate::poll::{Events, Pollable};
use crate::wait::{self, Patience};

/// Most messages of a queue.
pub const MAX_MESSAGES: usize = 1024;
/// Most bytes of a message.
pub const MAX_SIZE: usize = 1 << 20;
/// Priorities are below this (`MQ_PRIO_MAX`).
pub const PRIORITIES: u32 = 32_768;

/// The wait points of readers and writers.
const READERS: usize = 0;
const WRITERS: usize = 1;
/// The number of the queue's only lock.
const LOCK: usize = 0;
/// u64: number of the next message.
const NEXT: usize = FIELDS[0];
/// Bitmap of slots that hold a message.
const FULL: usize = FIELDS[2];

/// The header of a slot: number of the message (u64), priority and length (u32 each).
const SLOT_HEADER: usize = 16;

/// The size of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Messages that it holds at most (`mq_maxmsg`).
    pub messages: usize,
    /// Bytes that a message has at most (`mq_msgsize`).
    pub size: usize,
}

impl Default for Attributes {
    /// The attributes that Linux gives by default.
    fn default() -> Self {
        Self { messages: 10, size: 8192 }
    }
}

impl Attributes {
    const fn slot(self) -> usize {
        SLOT_HEADER + self.size.next_multiple_of(8)
    }

    fn are_valid(self) -> bool {
        (1..=MAX_MESSAGES).contains(&self.messages) && (1..=MAX_SIZE).contains(&self.size)
    }
}

/// A queue of messages: the one of the highest priority is received first, and among those the
/// oldest. Clones are the same queue.
pub struct MessageQueue<P: Platform> {
    part: Part<P>,
    attributes: Attributes,
}

impl<P: Platform> Clone for MessageQueue<P> {
    fn clone(&self) -> Self {
        Self { part: self.part.clone(), attributes: self.attributes }
    }
}

impl<P: Platform> MessageQueue<P> {
    /// A queue without a name, for this pVM and its descendants.
    ///
    /// # Errors
    /// `Invalid` for impossible attributes; see [`Error`].
    pub fn new(attributes: Attributes) -> Result<Self, Error> {
        Self::make(None, How::ANONYMOUS, attributes)
    }

    /// The family's queue of this name; the attributes are for one that is made now.
    ///
    /// # Errors
    /// As [`new`](Self::new), and `Exists`, `NotFound`; `Invalid` when there is something else of
    /// this name.
    pub fn open(name: &str, how: How, attributes: Attributes) -> Result<Self, Error> {
        Self::make(Some(name), how, attributes)
    }

    /// One with or without a name.
    ///
    /// # Errors
    /// As [`new`](Self::new) and [`open`](Self::open).
    pub fn make(name: Option<&str>, how: How, attributes: Attributes) -> Result<Self, Error> {
        if !attributes.are_valid() {
            return Err(Error::Invalid);
        }
        let octets = BODY + attributes.messages * attributes.slot();
        let details = [attributes.messages as u32, attributes.size as u32];
        let part: Part<P> = open(Kind::Queue, name, octets.div_ceil(PAGE_SIZE), how, details, Role::Reader)?;
        let object = part.object();
        let attributes = Attributes { messages: object.detail(0) as usize, size: object.detail(1) as usize };
        if !attributes.are_valid() || BODY + attributes.messages * attributes.slot() > object.pages().size() {
            return Err(object.broken());
        }
        Ok(Self { part, attributes })
    }

    /// Its size.
    pub fn attributes(&self) -> Attributes {
        self.attributes
    }

    /// The number of messages that it held a moment ago (`mq_curmsgs`).
    pub fn len(&self) -> usize {
        self.words().map(|word| self.full(word).count_ones() as usize).sum()
    }

    /// True if it holds no message.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn words(&self) -> core::ops::Range<usize> {
        0..self.attributes.messages.div_ceil(64)
    }

    /// Word `word` of the bitmap, without bits beyond the last slot.
    fn full(&self, word: usize) -> u64 {
        let slots = (self.attributes.messages - 64 * word).min(64) as u32;
        self.object().pages().u64(FULL + 8 * word).read() & (u64::MAX >> (64 - slots))
    }

    fn slot(&self, number: usize) -> usize {
        BODY + number * self.attributes.slot()
    }

    fn object(&self) -> &Arc<Object<P>> {
        self.part.object()
    }

    /// Sends a message, waiting until there is room.
    ///
    /// # Errors
    /// [`TooLong`](Error::TooLong), [`Invalid`](Error::Invalid) (the priority is not below
    /// [`PRIORITIES`]).
    pub fn send(&self, message: &[u8], priority: u32) -> Result<(), Error> {
        self.send_within(message, priority, Patience::Forever)
    }

    /// Sends a message if there is room.
    ///
    /// # Errors
    /// As [`send`](Self::send), and [`WouldBlock`](Error::WouldBlock).
    pub fn try_send(&self, message: &[u8], priority: u32) -> Result<(), Error> {
        self.send_within(message, priority, Patience::None)
    }

    /// Sends a message, waiting `limit` at most.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send).
    pub fn send_timeout(&self, message: &[u8], priority: u32, limit: Duration) -> Result<(), Error> {
        self.send_within(message, priority, Patience::within::<P>(limit))
    }

    /// Sends a message, waiting so long.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send).
    pub fn send_within(&self, message: &[u8], priority: u32, patience: Patience) -> Result<(), Error> {
        if message.len() > self.attributes.size {
            return Err(Error::TooLong);
        }
        if priority >= PRIORITIES {
            return Err(Error::Invalid);
        }
        let object = self.object();
        loop {
            object.check()?;
            {
                let _lock = lock(object, LOCK, patience)?;
                if let Some(number) = self.free_slot() {
                    let pages = object.pages();
                    let (at, next) = (self.slot(number), pages.u64(NEXT).read());
                    pages.u64(NEXT).write(next.wrapping_add(1));
                    pages.u64(at).write(next);
                    pages.u32(at + 8).write(priority);
                    pages.u32(at + 12).write(message.len() as u32);
                    pages.copy_in(at + SLOT_HEADER, message);
                    // The mark comes last: a sender that ends before it has sent nothing.
                    self.mark(number, true);
                    wait::wake(object, READERS);
                    return Ok(());
                }
            }
            if !wait::wait(object, WRITERS, patience, || self.len() < self.attributes.messages) {
                return Err(Error::WouldBlock);
            }
        }
    }

    /// Receives a message, waiting until there is one. Returns its length and its priority. The
    /// buffer needs room for any message.
    ///
    /// # Errors
    /// [`TooLong`](Error::TooLong) when it has not.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<(usize, u32), Error> {
        self.receive_within(buffer, Patience::Forever)
    }

    /// Receives a message if there is one.
    ///
    /// # Errors
    /// As [`receive`](Self::receive), and [`WouldBlock`](Error::WouldBlock).
    pub fn try_receive(&self, buffer: &mut [u8]) -> Result<(usize, u32), Error> {
        self.receive_within(buffer, Patience::None)
    }

    /// Receives a message, waiting `limit` at most.
    ///
    /// # Errors
    /// As [`try_receive`](Self::try_receive).
    pub fn receive_timeout(&self, buffer: &mut [u8], limit: Duration) -> Result<(usize, u32), Error> {
        self.receive_within(buffer, Patience::within::<P>(limit))
    }

    /// Receives a message, waiting so long.
    ///
    /// # Errors
    /// As [`try_receive`](Self::try_receive).
    pub fn receive_within(&self, buffer: &mut [u8], patience: Patience) -> Result<(usize, u32), Error> {
        if buffer.len() < self.attributes.size {
            return Err(Error::TooLong);
        }
        let object = self.object();
        loop {
            object.check()?;
            {
                let _lock = lock(object, LOCK, patience)?;
                if let Some(number) = self.first() {
                    let (pages, at) = (object.pages(), self.slot(number));
                    let (priority, length) = (pages.u32(at + 8).read(), pages.u32(at + 12).read() as usize);
                    if length > self.attributes.size || priority >= PRIORITIES {
                        return Err(object.broken());
                    }
                    pages.copy_out(at + SLOT_HEADER, &mut buffer[..length]);
                    self.mark(number, false);
                    wait::wake(object, WRITERS);
                    return Ok((length, priority));
                }
            }
            if !wait::wait(object, READERS, patience, || !self.is_empty()) {
                return Err(Error::WouldBlock);
            }
        }
    }

    fn mark(&self, slot: usize, full: bool) {
        let word = self.object().pages().u64(FULL + 8 * (slot / 64));
        let (old, bit) = (word.read(), 1 << (slot % 64));
        word.write(if full { old | bit } else { old & !bit });
    }

    fn free_slot(&self) -> Option<usize> {
        let free = self.words().find_map(|word| {
            let full = self.full(word);
            (full != u64::MAX).then(|| word * 64 + full.trailing_ones() as usize)
        });
        free.filter(|slot| *slot < self.attributes.messages)
    }

    /// The slot of the next message to receive.
    fn first(&self) -> Option<usize> {
        let pages = self.object().pages();
        let mut best = None;
        for word in self.words() {
            let mut full = self.full(word);
            while full != 0 {
                let slot = word * 64 + full.trailing_zeros() as usize;
                full &= full - 1;
                let at = self.slot(slot);
                let key = (u32::MAX - pages.u32(at + 8).read(), pages.u64(at).read());
                if best.is_none_or(|(other, _)| key < other) {
                    best = Some((key, slot));
                }
            }
        }
        best.map(|(_, slot)| slot)
    }
}

impl<P: Platform> Pollable for MessageQueue<P> {
    fn ready(&self, wanted: Events) -> Events {
        let (object, length) = (self.object(), self.len());
        let mut ready = Events::empty();
        ready.set(Events::READABLE, length > 0);
        ready.set(Events::WRITABLE, length < self.attributes.messages);
        if object.check().is_err() { Events::ERROR } else { ready & wanted }
    }

    fn watch(&self, wanted: Events, event: &AnyEvent) {
        for (for_this, point) in [(Events::READABLE, READERS), (Events::WRITABLE, WRITERS)] {
            if wanted.contains(for_this) {
                wait::watch(self.object(), point, event);
            }
        }
    }

    fn unwatch(&self, event: &AnyEvent) {
        wait::unwatch::<P>(event);
    }
}
