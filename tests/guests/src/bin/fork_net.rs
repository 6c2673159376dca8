//! The network in a fork, driven by tests/boot/fork_net.py: what a client sends comes back, but for three commands. `fork` forks in the
//! middle of the connection's own thread, with other connections and sockets open; `wait` waits for a child; `exit` ends.
//!
//! The child makes sure that all it has of its parent's connections is dead, and goes on as a server of its own.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use test_guests::{check, check_eq, expect, failure};
use zooid::net::{self, Error, Shutdown, SocketAddrV4, SocketError, TcpListener, TcpStream, UdpSocket};
use zooid::sync::Mutex;
use zooid::time::{Duration, Instant};
use zooid::{println, process, thread};

zooid::main!(main);

const PORT: u16 = 7000;

/// Every connection that was accepted and not closed.
static CONNECTIONS: Mutex<Vec<Arc<TcpStream>>> = Mutex::new(Vec::new());

fn main() {
    let listener = Arc::new(expect!(TcpListener::bind(PORT)));
    let datagrams = Arc::new(expect!(UdpSocket::bind(PORT)));
    serve_datagrams(datagrams.clone());
    serve(&listener, &datagrams)
}

/// Says where this pVM is, and takes connections for ever.
fn serve(listener: &Arc<TcpListener>, datagrams: &Arc<UdpSocket>) -> ! {
    match net::status().map(|status| (status.address, status.mac)) {
        Ok((Some(address), Some(mac))) => println!("serving on {} {mac}", address.address),
        Ok(other) => failure!("up without an address: {other:?}"),
        Err(error) => {
            println!("{error}");
            process::exit(3)
        }
    }
    loop {
        let (stream, _) = expect!(listener.accept());
        let (listener, datagrams) = (listener.clone(), datagrams.clone());
        thread::spawn(move || converse(&Arc::new(stream), &listener, &datagrams));
    }
}

fn serve_datagrams(socket: Arc<UdpSocket>) {
    thread::spawn(move || {
        let mut buffer = [0; 1500];
        loop {
            let (length, peer) = expect!(socket.recv_from(&mut buffer));
            expect!(socket.send_to(&buffer[..length], peer));
        }
    });
}

/// One connection, until its client closes it.
fn converse(stream: &Arc<TcpStream>, listener: &Arc<TcpListener>, datagrams: &Arc<UdpSocket>) {
    CONNECTIONS.lock().push(stream.clone());
    let mut buffer = [0; 4096];
    while let Ok(length) = stream.read(&mut buffer) {
        let answer = match &buffer[..length] {
            b"" => break,
            b"fork\n" => fork(stream, listener, datagrams),
            b"wait\n" => wait(),
            b"exit\n" => process::exit(7),
            octets => {
                if stream.write_all(octets).is_err() {
                    break;
                }
                continue;
            }
        };
        if stream.write_all(answer.as_bytes()).is_err() {
            break;
        }
    }
    CONNECTIONS.lock().retain(|other| !Arc::ptr_eq(other, stream));
}

fn wait() -> String {
    let ended = expect!(process::wait());
    format!("{} {}\n", ended.id, ended.status.exit_code())
}

fn fork(stream: &Arc<TcpStream>, listener: &Arc<TcpListener>, datagrams: &Arc<UdpSocket>) -> String {
    // Held during the fork, so that no other thread has it in the child.
    let mut connections = CONNECTIONS.lock();
    match process::fork() {
        Ok(Some(child)) => return format!("{child}\n"),
        Ok(None) => {}
        Err(error) => return format!("{error}\n"),
    }
    let start = Instant::now();
    for connection in connections.iter() {
        check_dead(connection);
    }
    check!(start.elapsed() < Duration::from_secs(1));
    // Some are closed before there is a device, the others after.
    let count = connections.len();
    connections.truncate(count / 2);
    println!("{count} connections are dead");
    drop(connections);
    thread::spawn(|| {
        let _ = net::status();
        CONNECTIONS.lock().clear();
    });
    check_dead(stream);
    serve_datagrams(datagrams.clone());
    serve(listener, datagrams)
}

/// Every call on a connection of the parent fails in the same way, at once.
fn check_dead(stream: &TcpStream) {
    const DEAD: Error = Error::Socket(SocketError::NotConnected);
    let mut buffer = [0; 16];
    check_eq!(stream.read(&mut buffer), Err(DEAD));
    check_eq!(stream.peek(&mut buffer), Err(DEAD));
    check_eq!(stream.write(b"from the child"), Err(DEAD));
    check_eq!(stream.shutdown(Shutdown::Both), Err(DEAD));
    check_eq!(stream.set_nodelay(true), Err(DEAD));
    check_eq!(stream.peer_addr(), Err::<SocketAddrV4, _>(DEAD));
    check_eq!(stream.local_addr(), Err::<SocketAddrV4, _>(DEAD));
    check_eq!(DEAD.to_string(), "not connected");
}
