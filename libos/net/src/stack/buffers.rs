//! Memory for TCP connections. From a budget, the first connections get large buffers and later
//! ones smaller ones, so that many fit and few are fast.
//!
//! A connection that ends leaves its socket here with its buffers, for the next one of that size,
//! because clearing fresh buffers would be the most expensive part of a short connection.

use alloc::vec::Vec;
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer};

/// The smallest size of a buffer in each direction, in bytes: more than a full segment.
const SMALLEST: usize = 2 << 10;

/// The largest size: four of the largest packets.
const LARGEST: usize = 256 << 10;

/// Pairs of numbers: with fewer connections than the first, the next one gets the budget divided by
/// the second.
const SHARES: [(usize, usize); 2] = [(8, 32), (64, 256)];
const LAST_SHARE: usize = 1024;

/// The unused sockets, and an account of all.
#[derive(Debug)]
pub struct Buffers {
    budget: usize,
    /// Bytes in the buffers of all sockets, in use or not.
    used: usize,
    live: usize,
    spare: Vec<Socket<'static>>,
}

impl Buffers {
    pub fn new(budget: usize) -> Self {
        Self { budget, used: 0, live: 0, spare: Vec::new() }
    }

    /// A closed socket in its initial state. `None`: the budget or the heap is used up.
    pub fn take(&mut self) -> Option<Socket<'static>> {
        let share = SHARES.iter().find(|(below, _)| self.live < *below).map_or(LAST_SHARE, |(_, share)| *share);
        let size = (self.budget / share / 2).clamp(SMALLEST, LARGEST);
        let socket = match self.spare.iter().position(|spare| spare.recv_capacity() == size) {
            Some(index) => self.spare.swap_remove(index),
            None => self.make(size)?,
        };
        self.live += 1;
        Some(socket)
    }

    /// Takes an unused socket back.
    pub fn give(&mut self, mut socket: Socket<'static>) {
        self.live -= 1;
        // `listen` and `connect` do not reset these.
        socket.abort();
        socket.set_congestion_control(CongestionControl::Reno);
        socket.set_nagle_enabled(true);
        socket.set_keep_alive(None);
        self.spare.push(socket);
    }

    fn make(&mut self, size: usize) -> Option<Socket<'static>> {
        while self.used + 2 * size > self.budget {
            let spare = self.spare.pop()?;
            self.used -= spare.recv_capacity() + spare.send_capacity();
        }
        let socket = Socket::new(SocketBuffer::new(zeroed(size)?), SocketBuffer::new(zeroed(size)?));
        self.used += 2 * size;
        Some(socket)
    }
}

/// `size` zero bytes, unless the heap has no room for them.
pub fn zeroed(size: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(size).ok()?;
    bytes.resize(size, 0);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_get_much_and_the_last_get_some() {
        let mut buffers = Buffers::new(16 << 20);
        let sizes: Vec<usize> = (0..500).map(|_| buffers.take().unwrap().recv_capacity()).collect();
        assert_eq!(
            (sizes[0], sizes[7], sizes[8], sizes[63], sizes[64]),
            (256 << 10, 256 << 10, 32 << 10, 32 << 10, 8 << 10)
        );
        assert!(sizes.iter().sum::<usize>() * 2 <= 16 << 20);
    }

    #[test]
    fn a_spent_budget_gives_nothing_until_something_comes_back() {
        let mut buffers = Buffers::new(64 << 10);
        let mut taken: Vec<_> = core::iter::from_fn(|| buffers.take()).collect();
        assert_eq!(taken.len(), 16);
        buffers.give(taken.pop().unwrap());
        assert!(buffers.take().is_some());
        assert!(buffers.take().is_none());
    }

    #[test]
    fn spare_sockets_of_another_size_make_room() {
        let mut buffers = Buffers::new(1 << 20);
        let many: Vec<_> = core::iter::from_fn(|| buffers.take()).collect();
        assert!(many.len() > 64);
        for socket in many {
            buffers.give(socket);
        }
        assert_eq!(buffers.take().unwrap().recv_capacity(), 16 << 10);
        assert!(buffers.used <= buffers.budget);
    }
}
