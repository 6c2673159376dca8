//! The guest as a server that closes connections in every way, for `tests/boot/net_closing.py` in
//! dom0.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;

use test_guests::{check_eq, expect, success};
use zooid::net::{Shutdown, TcpListener};
use zooid::println;

zooid::main!(main);

/// The number of octets that the client is sent before a connection ends in order.
const ANSWER: usize = 1 << 20;

fn main() {
    let listener = expect!(TcpListener::bind(8000));
    println!("listening");

    // Dropped with all of the answer still to be sent: the client gets it, and the end.
    let (stream, _) = expect!(listener.accept());
    expect!(stream.write_all(&vec![b'z'; ANSWER]));
    drop(stream);

    // Dropped with input that was not read: a reset.
    let (stream, _) = expect!(listener.accept());
    check_eq!(expect!(stream.peek(&mut [0; 8])), 8);
    drop(stream);

    // One direction shut down: the other one goes on.
    let (stream, _) = expect!(listener.accept());
    expect!(stream.shutdown(Shutdown::Write));
    let (mut buffer, mut total) = (vec![0; 4096], 0);
    loop {
        match expect!(stream.read(&mut buffer)) {
            0 => break,
            count => total += count,
        }
    }
    check_eq!(total, ANSWER);
    drop(stream);

    // The listener is dropped while a client waits to be accepted: a reset, and nobody listens any
    // more.
    let (stream, _) = expect!(listener.accept());
    check_eq!(expect!(stream.read(&mut buffer)), 4);
    drop(listener);
    expect!(stream.write_all(b"gone"));
    check_eq!(expect!(stream.read(&mut buffer)), 0);
    success();
}
