//! Measures the network for the client `iperf3`: TCP, one stream, in either direction (`-R`), one
//! test after the other.

#![no_std]
#![no_main]

extern crate alloc;

mod protocol;
mod transfer;

use alloc::boxed::Box;
use core::fmt;

use zooid::net::{self, TcpListener};
use zooid::println;

use protocol::{Control, ProtocolError, State};
use transfer::{Direction, Transfer, Transferred};

zooid::main!(main);

/// The server's port for `iperf3`.
const PORT: u16 = 5201;

fn main() -> Result<(), Box<dyn core::error::Error>> {
    let listener = TcpListener::bind(PORT)?;
    if let Some(address) = net::status()?.address {
        println!("iperf3 server on {}:{PORT}", address.address);
    }
    loop {
        match test(&listener) {
            Ok(transferred) => println!("{transferred}"),
            Err(error) => println!("a test was ended: {error}"),
        }
    }
}

/// Waits for a client and does one test with it.
fn test(listener: &TcpListener) -> Result<Transferred, Error> {
    let control = Control::accept(listener)?;
    let parameters = control.exchange_parameters()?;
    let direction = if parameters.reverse { Direction::Send } else { Direction::Receive };

    control.send(State::CreateStreams)?;
    let stream = control.accept_stream(listener)?;
    control.send(State::TestStart)?;
    let transfer = Transfer::start(stream, direction).ok_or(Error::OutOfMemory)?;
    control.send(State::TestRunning)?;
    // The end of the test, for any reason, ends the transfer too.
    let ended = control.expect(State::TestEnd);
    let transferred = transfer.finish();
    ended?;

    control.exchange_results(&transferred)?;
    control.send(State::DisplayResults)?;
    control.expect(State::Done)?;
    Ok(transferred)
}

/// The reason for which a test has no result.
enum Error {
    /// The client, or the connection to it, failed.
    Protocol(ProtocolError),
    /// There is no memory for the thread that moves the data.
    OutOfMemory,
}

impl From<ProtocolError> for Error {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol(error) => error.fmt(out),
            Self::OutOfMemory => out.write_str("out of memory"),
        }
    }
}
