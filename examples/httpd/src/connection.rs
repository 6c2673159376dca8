//! One connection, from its first byte to its close.

use alloc::vec::Vec;

use httpd_core::take_requests;
use zooid::net::{Shutdown, TcpStream};
use zooid::time::{Duration, Instant};

use crate::date;

/// Bytes that are read at once.
const READ_SIZE: usize = 2 << 10;
/// Time after the last answer in which further data of a client is discarded.
const LINGER: Duration = Duration::from_secs(2);

/// Serves requests until the client closes, is silent for `patience`, or sends a malformed request.
pub fn serve(stream: &TcpStream, patience: Duration) {
    stream.set_read_timeout(Some(patience));
    stream.set_write_timeout(Some(patience));
    let mut input = Vec::with_capacity(READ_SIZE);
    let mut output = Vec::with_capacity(READ_SIZE);
    let mut buffer = [0; READ_SIZE];
    let mut skip = 0;
    loop {
        let keep = take_requests(&mut input, &mut skip, date::append, &mut output);
        if stream.write_all(&output).is_err() {
            return;
        }
        if !keep {
            return end(stream, &mut buffer);
        }
        output.clear();
        match stream.read(&mut buffer) {
            Ok(count) if count > 0 => input.extend_from_slice(&buffer[..count]),
            // This is the end of the stream, a time-out, or a reset.
            _ => return,
        }
    }
}

/// Ends the connection after its last answer. Closing it with input unread would reset it, and the
/// client might never see the answer (RFC 9112, section 9.6).
fn end(stream: &TcpStream, buffer: &mut [u8]) {
    let deadline = Instant::now() + LINGER;
    stream.set_read_timeout(Some(LINGER));
    if stream.shutdown(Shutdown::Write).is_ok() {
        while Instant::now() < deadline && matches!(stream.read(buffer), Ok(1..)) {}
    }
}
