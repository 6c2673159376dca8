//! A web server for a few static pages: HTTP/1.0 and 1.1 with keep-alive and pipelining, a thread for each connection.
//!
//! It listens on the port of its first argument (default 80), and closes a connection whose client is silent for PATIENCE
//! seconds (a variable of its environment, default 30).

#![no_std]
#![no_main]

extern crate alloc;

mod connection;
mod date;
mod pages;
mod request;
mod response;

use alloc::boxed::Box;

use zooid::net::{self, TcpListener};
use zooid::time::Duration;
use zooid::{env, memory, println, thread};

zooid::main!(main);

/// A connection's thread needs little: its buffers lie in the heap.
const STACK_SIZE: usize = 32 << 10;

fn main() -> Result<(), Box<dyn core::error::Error>> {
    let port = match env::args().next() {
        Some(word) => word.parse().map_err(|_| "usage: httpd [PORT]")?,
        None => 80,
    };
    let patience = match env::var("PATIENCE") {
        Some(word) => word.parse().map_err(|_| "PATIENCE is a number of seconds")?,
        None => 30,
    };
    let patience = Duration::from_secs(patience);
    let listener = TcpListener::bind(port)?;
    if let Some(address) = net::status()?.address {
        println!("httpd on http://{}:{port}/", address.address);
    }
    for stream in listener.incoming() {
        let stream = stream?;
        // A third of the memory stays for the network and for what connections still need; the client may try again.
        let memory = memory::statistics();
        if memory.available() < memory.total / 3 {
            println!("a connection was refused: not enough memory");
            continue;
        }
        let server = thread::Builder::new().name("connection").stack_size(STACK_SIZE);
        if let Err(error) = server.spawn(move || connection::serve(&stream, patience)) {
            println!("a connection was refused: {error}");
        }
    }
    Ok(())
}
