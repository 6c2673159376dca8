//! iperf3's control connection, from the server's side (iperf 3.12, src/iperf_api.h and
//! src/iperf_server_api.c).
//!
//! ```text
//! client                                server
//! cookie                 ->
//!                        <-  PARAM_EXCHANGE
//! parameters (JSON)      ->
//!                        <-  CREATE_STREAMS
//! cookie, on a new connection: the stream
//!                        <-  TEST_START, TEST_RUNNING
//! TEST_END               ->
//!                        <-  EXCHANGE_RESULTS
//! results (JSON)         ->
//!                        <-  results (JSON), DISPLAY_RESULTS
//! IPERF_DONE             ->
//! ```
//! A state is one signed octet; a JSON text follows its length in four octets, most significant
//! first.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use core::fmt;

use zooid::net::{self, TcpListener, TcpStream};

use crate::transfer::{Direction, Transferred};

/// The identifier of a test; the last octet is 0.
type Cookie = [u8; 37];

/// Longest JSON text that is read; a client's results take some hundred octets.
const TEXT_LIMIT: usize = 16 << 10;
/// iperf3's error for an option that is not implemented (src/iperf_api.h, IEUNIMP).
const UNIMPLEMENTED: u32 = 13;

/// The next state of the test; the numbers are iperf3's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum State {
    ServerError = -2,
    TestStart = 1,
    TestRunning = 2,
    TestEnd = 4,
    ParameterExchange = 9,
    CreateStreams = 10,
    ExchangeResults = 13,
    DisplayResults = 14,
    Done = 16,
}

/// The reason for which a test was not completed.
#[derive(Debug)]
pub enum ProtocolError {
    /// The connection failed.
    Network(net::Error),
    /// The client closed the connection.
    Closed,
    /// The client sent another state than the one that is due, for example CLIENT_TERMINATE (12).
    State(i8),
    /// A JSON text of the client is too long or not UTF-8.
    Text,
    /// The client asks for something other than one TCP stream in one direction.
    Unsupported,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(error) => error.fmt(out),
            Self::Closed => out.write_str("the client closed the connection"),
            Self::State(state) => write!(out, "the client sent the state {state}"),
            Self::Text => out.write_str("the client sent an unreadable text"),
            Self::Unsupported => out.write_str("only one TCP stream in one direction is supported"),
        }
    }
}

impl From<net::Error> for ProtocolError {
    fn from(error: net::Error) -> Self {
        Self::Network(error)
    }
}

/// The parameters of the client.
pub struct Parameters {
    /// True if the server sends.
    pub reverse: bool,
}

/// The control connection of one test.
pub struct Control {
    connection: TcpStream,
    cookie: Cookie,
}

impl Control {
    /// Waits for a client.
    pub fn accept(listener: &TcpListener) -> Result<Self, ProtocolError> {
        let (connection, _) = listener.accept()?;
        // States are single octets that must not wait for one another.
        connection.set_nodelay(true)?;
        let cookie = read_array(&connection)?;
        Ok(Self { connection, cookie })
    }

    /// Reads the client's parameters; refuses unsupported ones.
    pub fn exchange_parameters(&self) -> Result<Parameters, ProtocolError> {
        self.send(State::ParameterExchange)?;
        let text = self.read_text()?;
        // The client writes JSON without blanks, and only members that differ from their defaults.
        let has = |member: &str| text.contains(member);
        if !has("\"tcp\":true") || has("\"bidirectional\":true") || !has("\"parallel\":1,") {
            self.send(State::ServerError)?;
            self.connection.write_all(&UNIMPLEMENTED.to_be_bytes())?;
            self.connection.write_all(&0_u32.to_be_bytes())?;
            return Err(ProtocolError::Unsupported);
        }
        Ok(Parameters { reverse: has("\"reverse\":true") })
    }

    /// Waits for the stream of this test.
    pub fn accept_stream(&self, listener: &TcpListener) -> Result<TcpStream, ProtocolError> {
        loop {
            let (stream, _) = listener.accept()?;
            // Another client's connection is closed: one test at a time.
            if read_array(&stream).is_ok_and(|cookie: Cookie| cookie == self.cookie) {
                return Ok(stream);
            }
        }
    }

    /// Reads the client's results and sends ours.
    pub fn exchange_results(&self, ours: &Transferred) -> Result<(), ProtocolError> {
        self.send(State::ExchangeResults)?;
        self.read_text()?;
        let retransmits = match ours.direction {
            Direction::Receive => -1,
            Direction::Send => 0,
        };
        let text = format!(
            "{{\"cpu_util_total\":0,\"cpu_util_user\":0,\"cpu_util_system\":0,\"sender_has_retransmits\":{retransmits},\
             \"streams\":[{{\"id\":1,\"bytes\":{},\"retransmits\":{retransmits},\"jitter\":0,\"errors\":0,\"packets\":0,\
             \"start_time\":0,\"end_time\":{}.{:06}}}]}}",
            ours.bytes,
            ours.time.as_secs(),
            ours.time.subsec_micros(),
        );
        self.connection.write_all(&(text.len() as u32).to_be_bytes())?;
        Ok(self.connection.write_all(text.as_bytes())?)
    }

    /// Tells the client the next state.
    pub fn send(&self, state: State) -> Result<(), ProtocolError> {
        Ok(self.connection.write_all(&(state as i8).to_be_bytes())?)
    }

    /// Waits until the client announces `state`.
    pub fn expect(&self, state: State) -> Result<(), ProtocolError> {
        match i8::from_be_bytes(read_array(&self.connection)?) {
            said if said == state as i8 => Ok(()),
            said => Err(ProtocolError::State(said)),
        }
    }

    fn read_text(&self) -> Result<String, ProtocolError> {
        let length = u32::from_be_bytes(read_array(&self.connection)?) as usize;
        if length > TEXT_LIMIT {
            return Err(ProtocolError::Text);
        }
        let mut text = vec![0; length];
        read_exact(&self.connection, &mut text)?;
        String::from_utf8(text).map_err(|_| ProtocolError::Text)
    }
}

fn read_array<const N: usize>(connection: &TcpStream) -> Result<[u8; N], ProtocolError> {
    let mut octets = [0; N];
    read_exact(connection, &mut octets)?;
    Ok(octets)
}

fn read_exact(connection: &TcpStream, mut octets: &mut [u8]) -> Result<(), ProtocolError> {
    while !octets.is_empty() {
        match connection.read(octets)? {
            0 => return Err(ProtocolError::Closed),
            count => octets = &mut octets[count..],
        }
    }
    Ok(())
}
