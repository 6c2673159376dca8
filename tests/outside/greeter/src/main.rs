//! Greets on the console and, with the argument `serve`, whoever connects to TCP port 7.

#![no_std]
#![no_main]

use zooid::net::{self, TcpListener};
use zooid::{env, println};

zooid::main!(main);

fn main() -> Result<(), net::Error> {
    let name = env::var("NAME").unwrap_or("world");
    println!("Hello, {name}!");
    if env::args().next() != Some("serve") {
        return Ok(());
    }
    let listener = TcpListener::bind(7)?;
    println!("serving");
    for connection in listener.incoming() {
        connection?.write_all(b"Hello over TCP!\n")?;
    }
    Ok(())
}
