//! The data of one test.

use alloc::sync::Arc;
use alloc::vec;
use core::fmt;

use zooid::net::{Shutdown, TcpStream};
use zooid::thread::{self, JoinHandle};
use zooid::time::{Duration, Instant};

/// Bytes that are read or written at once, as in the client itself.
const BLOCK: usize = 128 << 10;
const STACK_SIZE: usize = 32 << 10;

/// The direction of the data, seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Receive,
    Send,
}

/// The bytes moved, their direction, and the time.
pub struct Transferred {
    pub direction: Direction,
    pub bytes: u64,
    pub time: Duration,
}

impl fmt::Display for Transferred {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.direction {
            Direction::Receive => "received",
            Direction::Send => "sent",
        };
        let micros = self.time.as_micros().max(1);
        let rate = u128::from(self.bytes) * 8 / micros;
        write!(out, "{verb} {} bytes in {micros} us: {rate} Mbit/s", self.bytes)
    }
}

/// A transfer under way, in a thread of its own.
#[must_use = "it goes on until it is finished"]
pub struct Transfer {
    stream: Arc<TcpStream>,
    mover: JoinHandle<u64>,
    direction: Direction,
    began: Instant,
}

impl Transfer {
    /// Starts to send or to receive on `stream`; `None` without memory for that.
    pub fn start(stream: TcpStream, direction: Direction) -> Option<Self> {
        let stream = Arc::new(stream);
        let began = Instant::now();
        let moved = stream.clone();
        let builder = thread::Builder::new().name("transfer").stack_size(STACK_SIZE);
        let mover = builder.spawn(move || move_data(&moved, direction)).ok()?;
        Some(Self { stream, mover, direction, began })
    }

    /// Ends the transfer.
    pub fn finish(self) -> Transferred {
        let Self { stream, mover, direction, began } = self;
        let time = began.elapsed();
        // A stream that the client has closed before needs no shutting down.
        let _ = stream.shutdown(Shutdown::Both);
        Transferred { direction, bytes: mover.join(), time }
    }
}

/// Moves data until the stream is shut down; returns the number of bytes.
fn move_data(stream: &TcpStream, direction: Direction) -> u64 {
    let mut block = vec![0; BLOCK];
    let mut bytes = 0;
    loop {
        let moved = match direction {
            Direction::Receive => stream.read(&mut block),
            Direction::Send => stream.write(&block),
        };
        match moved {
            Ok(0) | Err(_) => return bytes,
            Ok(count) => bytes += count as u64,
        }
    }
}
