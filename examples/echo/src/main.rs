//! Sends back the data that it receives, over TCP and UDP, on the port of its first argument
//! (default 7, RFC 862).

#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use alloc::vec;

use zooid::net::{self, TcpListener, TcpStream, UdpSocket};
use zooid::{env, memory, println, thread};

zooid::main!(main);

const STACK_SIZE: usize = 32 << 10;

fn main() -> Result<(), Box<dyn core::error::Error>> {
    let port = match env::args().next() {
        Some(word) => word.parse().map_err(|_| "usage: echo [PORT]")?,
        None => 7,
    };
    let listener = TcpListener::bind(port)?;
    let socket = UdpSocket::bind(port)?;
    if let Some(address) = net::status()?.address {
        println!("echo on {}:{port}, tcp and udp", address.address);
    }
    thread::Builder::new().name("udp").stack_size(STACK_SIZE).spawn(move || echo_datagrams(&socket))?;
    for stream in listener.incoming() {
        let stream = stream?;
        // A third of the memory stays for the network and for present connections; the client may
        // try again.
        let memory = memory::statistics();
        if memory.available() < memory.total / 3 {
            println!("a connection was refused: not enough memory");
            continue;
        }
        let echo = thread::Builder::new().name("tcp").stack_size(STACK_SIZE);
        if let Err(error) = echo.spawn(move || echo_stream(&stream)) {
            println!("a connection was refused: {error}");
        }
    }
    Ok(())
}

fn echo_stream(stream: &TcpStream) {
    let mut buffer = vec![0; 8 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) => {
                if stream.write_all(&buffer[..count]).is_err() {
                    return;
                }
            }
        }
    }
}

fn echo_datagrams(socket: &UdpSocket) {
    let mut buffer = vec![0; 2 << 10];
    loop {
        // A datagram that cannot be answered is lost, as datagrams may be.
        let _ = socket.recv_from(&mut buffer).and_then(|(count, peer)| socket.send_to(&buffer[..count], peer));
    }
}
