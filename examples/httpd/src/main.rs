//! A web server for a few static pages: HTTP/1.0 and 1.1 with keep-alive and pipelining, a thread
//! for each connection.
//!
//! It listens on the port of its first argument (default 80), and closes a connection whose client
//! is silent for PATIENCE seconds (a variable of its environment, default 30). It forks WORKERS
//! children (default 0), each of which serves on an address of its own.

#![no_std]
#![no_main]

extern crate alloc;

mod connection;
mod date;

use alloc::boxed::Box;

use zooid::net::{self, TcpListener};
use zooid::time::Duration;
use zooid::{env, memory, println, process, thread};

zooid::main!(main);

/// Stack of a connection's thread, in bytes. It is small, because buffers lie in the heap.
const STACK_SIZE: usize = 32 << 10;

fn main() -> Result<(), Box<dyn core::error::Error>> {
    let port = match env::args().next() {
        Some(word) => word.parse().map_err(|_| "usage: httpd [PORT]")?,
        None => 80,
    };
    let number = |name, default| match env::var(name) {
        Some(word) => word.parse::<u32>().map_err(|_| name),
        None => Ok(default),
    };
    let patience = number("PATIENCE", 30).map_err(|_| "PATIENCE is a number of seconds")?;
    let workers = number("WORKERS", 0).map_err(|_| "WORKERS is a number of pVMs")?;
    let patience = Duration::from_secs(patience.into());
    let listener = TcpListener::bind(port)?;
    if let Some(address) = net::status()?.address {
        println!("httpd on http://{}:{port}/", address.address);
    }
    for _ in 0..workers {
        match process::fork()? {
            Some(worker) => println!("worker {worker} was forked"),
            None => {
                // The listener is the child's own now, on an address of its own as soon as there is
                // a device.
                if let Some(address) = net::status()?.address {
                    println!("worker on http://{}:{port}/", address.address);
                }
                return serve(&listener, patience);
            }
        }
    }
    if workers > 0 {
        thread::spawn(wait_for_workers);
    }
    serve(&listener, patience)
}

/// Logs the end of each worker.
fn wait_for_workers() {
    while let Ok(ended) = process::wait() {
        println!("worker {} has ended: {}", ended.id, ended.status);
    }
}

fn serve(listener: &TcpListener, patience: Duration) -> Result<(), Box<dyn core::error::Error>> {
    for stream in listener.incoming() {
        let stream = stream?;
        // A third of the memory stays for the network and for present connections; the client may
        // try again.
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
