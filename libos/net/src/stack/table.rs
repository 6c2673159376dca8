//! The sockets of a stack, each in a `SocketSet` of its own.
//!
//! smoltcp finds the socket of a packet, and the sockets with something to send, by a walk through
//! the whole set. With one set per socket the stack can look the socket up itself and touch only
//! those that have work: the cost of a packet does not grow with the number of connections.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::AnySocket;
use smoltcp::time::Instant;

/// A socket's handle, valid for as long as the socket lives. Later sockets in the same place have
/// other handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    index: usize,
    generation: u32,
}

/// One socket and the stack's data about it.
#[derive(Debug)]
pub struct Entry<K> {
    pub set: SocketSet<'static>,
    pub socket: SocketHandle,
    pub kind: K,
    /// The time of the socket's next turn if no event comes before.
    pub deadline: Option<Instant>,
    /// True while it is in the queue.
    queued: bool,
}

impl<K> Entry<K> {
    /// The socket, of the type that it was added with.
    pub fn get<T: AnySocket<'static>>(&mut self) -> &mut T {
        self.set.get_mut(self.socket)
    }
}

#[derive(Debug)]
struct Slot<K> {
    generation: u32,
    entry: Option<Entry<K>>,
}

/// All sockets, and the queue of those that may have something to send.
#[derive(Debug)]
pub struct Table<K> {
    slots: Vec<Slot<K>>,
    free: Vec<usize>,
    queue: VecDeque<Handle>,
}

impl<K> Table<K> {
    pub fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), queue: VecDeque::new() }
    }

    pub fn add<T: AnySocket<'static>>(&mut self, socket: T, kind: K) -> Handle {
        let mut set = SocketSet::new(vec![]);
        let entry = Entry { socket: set.add(socket), set, kind, deadline: None, queued: false };
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, entry: None });
            self.slots.len() - 1
        });
        let slot = &mut self.slots[index];
        slot.entry = Some(entry);
        Handle { index, generation: slot.generation }
    }

    pub fn get(&mut self, handle: Handle) -> Option<&mut Entry<K>> {
        let slot = self.slots.get_mut(handle.index)?;
        match slot.generation == handle.generation {
            true => slot.entry.as_mut(),
            false => None,
        }
    }

    pub fn remove(&mut self, handle: Handle) -> Option<Entry<K>> {
        self.get(handle)?;
        let slot = &mut self.slots[handle.index];
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(handle.index);
        slot.entry.take()
    }

    /// Queues the socket for a turn, if it is not queued.
    pub fn queue(&mut self, handle: Handle) {
        if let Some(entry) = self.get(handle)
            && !entry.queued
        {
            entry.queued = true;
            self.queue.push_back(handle);
        }
    }

    /// Puts a socket that could not be served back to the head of the queue.
    pub fn queue_first(&mut self, handle: Handle) {
        if let Some(entry) = self.get(handle)
            && !entry.queued
        {
            entry.queued = true;
            self.queue.push_front(handle);
        }
    }

    /// The next socket in the queue.
    pub fn next(&mut self) -> Option<Handle> {
        while let Some(handle) = self.queue.pop_front() {
            if let Some(entry) = self.get(handle) {
                entry.queued = false;
                return Some(handle);
            }
        }
        None
    }

    /// Number of sockets.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// True if a socket is queued.
    pub fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// All sockets for which `wanted` returns true.
    pub fn select(&self, wanted: impl Fn(&Entry<K>) -> bool) -> Vec<Handle> {
        let named = |(index, slot): (usize, &Slot<K>)| {
            let handle = Handle { index, generation: slot.generation };
            slot.entry.as_ref().filter(|e| wanted(e)).map(|_| handle)
        };
        self.slots.iter().enumerate().filter_map(named).collect()
    }

    /// Queues every socket whose deadline has come, and returns the earliest later deadline.
    pub fn queue_due(&mut self, now: Instant) -> Option<Instant> {
        let mut earliest = None;
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let Some(entry) = &mut slot.entry else {
                continue;
            };
            match entry.deadline {
                Some(deadline) if deadline <= now => {
                    if !entry.queued {
                        entry.queued = true;
                        self.queue.push_back(Handle { index, generation: slot.generation });
                    }
                }
                Some(deadline) => earliest = sooner(earliest, Some(deadline)),
                None => {}
            }
        }
        earliest
    }
}

/// The earlier of two moments, where `None` is never.
pub fn sooner(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, None) => a,
        (None, b) => b,
    }
}
