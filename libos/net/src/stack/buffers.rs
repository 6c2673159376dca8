//! Memory for TCP connections: a budget, from which the first connections get large buffers and later ones smaller
//! ones, so that many fit and few are fast.
//!
//! A connection that ends leaves its socket here with its buffers, for the next one of that size: clearing fresh
//! buffers would be the dearest part of a short connection.

use alloc::vec::Vec;
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer};

/// Buffers are never smaller than this, in each direction: a full segment and some.
const SMALLEST: usize = 2 << 10;

/// Nor larger: four of the largest packets under way.
const LARGEST: usize = 256 << 10;

/// How many connections may be there already, and what part of the budget the next one gets.
const SHARES: [(usize, usize); 2] = [(8, 32), (64, 256)];
const LAST_SHARE: usize = 1024;

/// The sockets that are not in use, and an account of all.
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

    /// A closed socket as new. `None`: the budget is spent, or the heap is.
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

    /// Takes a socket back that is in use no more.
    pub fn give(&mut self, mut socket: Socket<'static>) {
        self.live -= 1;
        // What `listen` and `connect` leave as it is.
        socket.abort();
        socket.set_congestion_control(CongestionControl::Reno);
        socket.set_nagle_enabled(true);
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
