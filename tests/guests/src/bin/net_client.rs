//! The guest as a client, in the way that the argument names, of the servers of
//! `tests/boot/net_peer.py` in dom0.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, SocketAddrV4};

use test_guests::{Random, argument, check, check_eq, error, expect, success};
use zooid::ipc;
use zooid::net::{self, Error, Shutdown, SocketError, TcpListener, TcpStream, UdpSocket};
use zooid::poll::{Events, PollEntry, poll};
use zooid::process::{self, Status};
use zooid::thread;
use zooid::time::{Duration, Instant};

zooid::main!(main, mode = kernel);

const DOM0: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// An address that no host has.
const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 77);

/// Ports of `net_peer.py`.
const ECHO: u16 = 7001;
const SILENT: u16 = 7002;
const CALLER: u16 = 7003;
const CLOSED: u16 = 7999;

const SECOND: Duration = Duration::from_secs(1);

fn main() {
    match argument() {
        "connect" => connect(),
        "itself" => itself(),
        "neighbours" => neighbours(),
        "refused" => refused(),
        "timeouts" => timeouts(),
        "ports" => ports(),
        "udp" => udp(),
        "names" => names(),
        "poll" => poll_sockets(),
        "no_name_server" => no_name_server(),
        other => error!("no such part: {other}"),
    }
    success();
}

fn dom0(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(DOM0, port)
}

/// A connection carries 1 MiB both ways at once, and each direction ends by itself.
fn connect() {
    let stream = Arc::new(expect!(TcpStream::connect(dom0(ECHO))));
    check_eq!(stream.peer_addr(), Ok(dom0(ECHO)));
    let own = expect!(stream.local_addr());
    check_eq!(*own.ip(), Ipv4Addr::new(10, 0, 0, 2));
    check!(own.port() >= 49152);
    let mut random = Random::new(1);
    let sent: Arc<Vec<u8>> = Arc::new((0..1 << 20).map(|_| random.next_u64() as u8).collect());
    let writer = thread::spawn({
        let (stream, sent) = (stream.clone(), sent.clone());
        move || {
            expect!(stream.write_all(&sent));
            expect!(stream.shutdown(Shutdown::Write));
            check_eq!(stream.write(b"x"), Err(Error::Socket(SocketError::BrokenPipe)));
        }
    });
    let mut buffer = vec![0; 64 << 10];
    check_eq!(expect!(stream.peek(&mut buffer[..1])), 1);
    let mut received = Vec::new();
    loop {
        match expect!(stream.read(&mut buffer)) {
            0 => break,
            count => received.extend_from_slice(&buffer[..count]),
        }
    }
    writer.join();
    check!(received == *sent);
}

/// The guest reaches itself by its own address and by 127.0.0.1, over TCP and UDP.
fn itself() {
    let own = expect!(expect!(net::status()).address.ok_or("no address")).address;
    let listener = expect!(TcpListener::bind(80));
    let receiver = expect!(UdpSocket::bind(7));
    receiver.set_read_timeout(Some(SECOND));
    for address in [own, Ipv4Addr::LOCALHOST] {
        let client = expect!(TcpStream::connect_timeout(SocketAddrV4::new(address, 80), SECOND));
        let (server, peer) = expect!(listener.accept());
        check_eq!((*peer.ip(), client.local_addr()), (address, Ok(peer)));
        let writer = thread::spawn(move || expect!(client.write_all(&vec![7; 300_000])));
        let (mut buffer, mut received) = (vec![0; 64 << 10], 0);
        loop {
            match expect!(server.read(&mut buffer)) {
                0 => break,
                count => received += count,
            }
        }
        writer.join();
        check_eq!(received, 300_000);
        expect!(receiver.send_to(b"datagram", SocketAddrV4::new(address, 7)));
        check_eq!(receiver.recv_from(&mut buffer), Ok((8, SocketAddrV4::new(address, 7))));
        check_eq!(failed(TcpStream::connect(SocketAddrV4::new(address, CLOSED))), SocketError::ConnectionRefused);
    }
    let other = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 2), 80);
    check_eq!(failed(TcpStream::connect(other)), SocketError::NetworkUnreachable);
}

/// Twenty neighbours that do not answer delay none of those that do: dom0 has 10.0.0.100 to
/// 10.0.0.149, too.
fn neighbours() {
    expect!(net::status());
    let socket = expect!(UdpSocket::bind(0));
    let dead = |last| SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, last), 80);
    let attempt = thread::spawn(move || failed(TcpStream::connect(dead(60))));
    for last in 61..80 {
        expect!(socket.send_to(b"lost", dead(last)));
    }
    let began = Instant::now();
    for last in 100..150 {
        let live = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, last), CLOSED);
        check_eq!(failed(TcpStream::connect(live)), SocketError::ConnectionRefused);
    }
    // With one look-up a second it would be 50.
    check!(began.elapsed() < 20 * SECOND);
    check_eq!(attempt.join(), SocketError::HostUnreachable);
}

/// A closed port refuses at once, a host that is not there in the time that was given, one that
/// cannot be reached at once.
fn refused() {
    expect!(net::status());
    let began = Instant::now();
    check_eq!(failed(TcpStream::connect(dom0(CLOSED))), SocketError::ConnectionRefused);
    check!(began.elapsed() < SECOND);

    let began = Instant::now();
    let attempt = TcpStream::connect_timeout(SocketAddrV4::new(NOBODY, 80), SECOND);
    check_eq!(failed(attempt), SocketError::TimedOut);
    check!(began.elapsed() >= SECOND && began.elapsed() < 2 * SECOND);

    // Outside the network, and there is no gateway.
    let began = Instant::now();
    let attempt = TcpStream::connect(SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 1), 80));
    check_eq!(failed(attempt), SocketError::NetworkUnreachable);
    check!(began.elapsed() < SECOND);

    for address in ["0.0.0.0:80", "10.0.0.1:0", "255.255.255.255:80", "224.0.0.1:80"] {
        check_eq!(failed(TcpStream::connect(expect!(address.parse()))), SocketError::AddrNotAvailable);
    }
}

/// Reads and writes end when their time is over, and the connection is as good as before.
fn timeouts() {
    let silent = expect!(TcpStream::connect(dom0(SILENT)));
    let mut buffer = vec![0; 64 << 10];
    for milliseconds in [1, 100, 700] {
        let timeout = Duration::from_millis(milliseconds);
        silent.set_read_timeout(Some(timeout));
        let began = Instant::now();
        check_eq!(failed(silent.read(&mut buffer)), SocketError::TimedOut);
        check!(began.elapsed() >= timeout && began.elapsed() < timeout + SECOND);
    }
    // The peer does not read: once all buffers are full, nothing more can be written.
    silent.set_write_timeout(Some(SECOND));
    let refusal = loop {
        if let Err(error) = silent.write(&buffer) {
            break error;
        }
    };
    check!(refusal.is_timeout());

    let stream = expect!(TcpStream::connect(dom0(ECHO)));
    stream.set_read_timeout(Some(SECOND / 10));
    check_eq!(failed(stream.read(&mut buffer)), SocketError::TimedOut);
    expect!(stream.write_all(b"still there"));
    stream.set_read_timeout(None);
    check_eq!(expect!(stream.read(&mut buffer)), 11);
    expect!(stream.shutdown(Shutdown::Read));
    check_eq!(expect!(stream.read(&mut buffer)), 0);
}

/// A port has one listener and one datagram socket, until they are dropped.
fn ports() {
    let listener = expect!(TcpListener::bind(80));
    check_eq!(failed(TcpListener::bind(80)), SocketError::AddrInUse);
    drop(listener);
    check_eq!(expect!(TcpListener::bind(80)).local_port(), 80);
    let socket = expect!(UdpSocket::bind(80));
    check_eq!(failed(UdpSocket::bind(80)), SocketError::AddrInUse);
    drop(socket);
    check_eq!(expect!(UdpSocket::bind(80)).local_port(), Ok(80));
    let (one, other) = (expect!(TcpListener::bind(0)), expect!(TcpListener::bind(0)));
    check!(one.local_port() >= 49152 && other.local_port() >= 49152 && one.local_port() != other.local_port());
}

/// Datagrams of every length that fits go and come; one that does not fit is refused. A wait for an
/// answer that does not come ends.
fn udp() {
    let socket = expect!(UdpSocket::bind(0));
    socket.set_read_timeout(Some(5 * SECOND));
    let mut random = Random::new(2);
    let sent: Vec<u8> = (0..1473).map(|_| random.next_u64() as u8).collect();
    let mut buffer = vec![0; 2048];
    for length in [1, 512, 1471, 1472] {
        expect!(socket.send_to(&sent[..length], dom0(ECHO)));
        check_eq!(expect!(socket.recv_from(&mut buffer)), (length, dom0(ECHO)));
        check!(buffer[..length] == sent[..length]);
    }
    check_eq!(failed(socket.send_to(&sent, dom0(ECHO))), SocketError::MessageTooLong);
    check_eq!(failed(socket.send_to(b"x", dom0(0))), SocketError::AddrNotAvailable);
    let outside = SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 1), ECHO);
    check_eq!(failed(socket.send_to(b"x", outside)), SocketError::NetworkUnreachable);

    // The rest of a datagram that does not fit into the buffer is lost.
    expect!(socket.send_to(&sent[..100], dom0(ECHO)));
    check_eq!(expect!(socket.recv_from(&mut buffer[..10])), (10, dom0(ECHO)));

    socket.set_read_timeout(Some(SECOND / 2));
    for nobody in [dom0(CLOSED), SocketAddrV4::new(NOBODY, ECHO)] {
        let began = Instant::now();
        expect!(socket.send_to(b"anyone?", nobody));
        check_eq!(failed(socket.recv_from(&mut buffer)), SocketError::TimedOut);
        check!(began.elapsed() >= SECOND / 2 && began.elapsed() < 2 * SECOND);
    }
    // A datagram for a host that is not there is given up after 3 s, and the socket goes on.
    thread::sleep(4 * SECOND);
    expect!(socket.send_to(b"here", dom0(ECHO)));
    check_eq!(expect!(socket.recv_from(&mut buffer)), (4, dom0(ECHO)));
}

/// Sockets and a pipe from a child are polled together: only ready ones are reported.
fn poll_sockets() {
    const NONE: Events = Events::empty();
    const READ: Events = Events::READABLE;
    let (reader, writer) = expect!(ipc::pipe());
    let (start, step) = expect!(ipc::pipe());
    let child = match expect!(process::fork()) {
        None => {
            drop(step);
            expect!(start.read(&mut [0]));
            thread::sleep(SECOND / 20);
            expect!(writer.write_all(b"x"));
            // The child waits until the parent has seen that.
            check_eq!(expect!(start.read(&mut [0])), 0);
            process::exit(0)
        }
        Some(child) => child,
    };
    drop(writer);
    let stream = expect!(TcpStream::connect(dom0(ECHO)));
    let datagrams = expect!(UdpSocket::bind(0));
    let listener = expect!(TcpListener::bind(0));
    let look = |limit| {
        let mut entries = [
            PollEntry::new(&stream, READ),
            PollEntry::new(&datagrams, READ),
            PollEntry::new(&listener, READ),
            PollEntry::new(&reader, READ),
        ];
        poll(&mut entries, limit);
        entries.map(|entry| entry.ready)
    };
    let mut buffer = [0; 16];
    stream.set_nonblocking(true);
    datagrams.set_nonblocking(true);
    listener.set_nonblocking(true);
    let nothing_there = || {
        check_eq!(look(Some(SECOND / 20)), [NONE; 4]);
        check_eq!(failed(stream.read(&mut [0])), SocketError::WouldBlock);
        check_eq!(failed(datagrams.recv_from(&mut [0])), SocketError::WouldBlock);
        check_eq!(failed(listener.accept().map(|_| ())), SocketError::WouldBlock);
    };

    nothing_there();
    expect!(stream.write_all(b"echo"));
    check_eq!(look(Some(5 * SECOND)), [READ, NONE, NONE, NONE]);
    check_eq!(expect!(stream.read(&mut buffer)), 4);
    nothing_there();
    expect!(datagrams.send_to(b"echo", dom0(ECHO)));
    check_eq!(look(Some(5 * SECOND)), [NONE, READ, NONE, NONE]);
    check_eq!(expect!(datagrams.recv_from(&mut buffer)), (4, dom0(ECHO)));
    nothing_there();
    // dom0 connects to the port that it is told.
    expect!(datagrams.send_to(format!("connect {}", listener.local_port()).as_bytes(), dom0(CALLER)));
    check_eq!(look(Some(5 * SECOND)), [NONE, NONE, READ, NONE]);
    drop(expect!(listener.accept()));
    nothing_there();
    expect!(step.write_all(b"x"));
    check_eq!(look(Some(5 * SECOND)), [NONE, NONE, NONE, READ]);
    check_eq!(expect!(reader.read(&mut buffer)), 1);
    drop(step);
    check_eq!(look(Some(5 * SECOND)), [NONE, NONE, NONE, Events::HANGUP]);
    let ended = expect!(process::waitpid(Some(child), false));
    check_eq!(ended.map(|ended| ended.status), Some(Status::Exited(0)));

    // The end of a stream is something to read.
    let mut both = [PollEntry::new(&stream, READ | Events::WRITABLE)];
    check_eq!((poll(&mut both, None), both[0].ready), (1, Events::WRITABLE));
    expect!(stream.shutdown(Shutdown::Write));
    let mut end = [PollEntry::new(&stream, READ)];
    check_eq!((poll(&mut end, Some(5 * SECOND)), end[0].ready), (1, READ));
    check_eq!(expect!(stream.read(&mut buffer)), 0);

    // Nobody reads: writes soon have no room.
    let silent = expect!(TcpStream::connect(dom0(SILENT)));
    silent.set_nonblocking(true);
    let chunk = vec![0; 16 << 10];
    let mut entry = [PollEntry::new(&silent, Events::WRITABLE)];
    while poll(&mut entry, Some(SECOND / 2)) == 1 {
        check_eq!(entry[0].ready, Events::WRITABLE);
        while silent.write(&chunk).is_ok() {}
    }
    check_eq!(failed(silent.write(&chunk)), SocketError::WouldBlock);
}

/// Names are looked up at the two servers that `net=` gives.
fn names() {
    let last = |last| -> Result<Vec<Ipv4Addr>, Error> { Ok([Ipv4Addr::new(192, 0, 2, last)].into()) };
    check_eq!(net::lookup_host("192.0.2.7"), last(7));
    check_eq!(net::lookup_host("one.test"), Ok([Ipv4Addr::new(10, 0, 0, 1)].into()));
    let all = expect!(net::lookup_host("three.test"));
    check_eq!(all, [1, 2, 3].map(|last| Ipv4Addr::new(192, 0, 2, last)));
    // The question comes back in capitals; an address is before its aliases; the first server fails;
    // the name is one of the search list; the answer is too long for a datagram.
    check_eq!(net::lookup_host("loud.test"), last(4));
    check_eq!(net::lookup_host("Alias.Test"), last(5));
    check_eq!(net::lookup_host("second.test"), last(6));
    check_eq!(net::lookup_host("short"), last(7));
    check_eq!(expect!(net::lookup_host("long.test")).len(), 100);
    check_eq!(failed(net::lookup_host("none.test")), SocketError::NameNotFound);
    check_eq!(failed(net::lookup_host("bare.test")), SocketError::NameHasNoAddress);
    check_eq!(failed(net::lookup_host("failing.test")), SocketError::NameServerFailed);
    for bad in ["", "..", "a..test", &"a".repeat(64), &"a.".repeat(200)] {
        check!(failed(net::lookup_host(bad)) == SocketError::InvalidInput);
    }
    let began = Instant::now();
    check_eq!(failed(net::lookup_host("silent.test")), SocketError::NameServerSilent);
    check!(began.elapsed() < 30 * SECOND);
    check_eq!(net::lookup_host("one.test"), Ok([Ipv4Addr::new(10, 0, 0, 1)].into()));
}

fn no_name_server() {
    check_eq!(failed(net::lookup_host("one.test")), SocketError::InvalidInput);
}

/// The socket's error in `result`.
fn failed<T>(result: Result<T, Error>) -> SocketError {
    match result {
        Err(Error::Socket(error)) => error,
        Err(other) => error!("{other}"),
        Ok(_) => test_guests::failure!("a call that had to fail did not"),
    }
}
