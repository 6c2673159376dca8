//! One connection, from its first byte to its close.

use alloc::vec::Vec;
use core::time::Duration;

use zooid::net::TcpStream;

use crate::request::{MAX_HEAD, Request};
use crate::response;

/// How long a client may be silent.
const PATIENCE: Duration = Duration::from_secs(30);
/// How much is read at once.
const READ_SIZE: usize = 2 << 10;

/// Serves requests until the client closes, is silent for too long, or sends something that is no request.
pub fn serve(stream: &TcpStream) {
    stream.set_read_timeout(Some(PATIENCE));
    stream.set_write_timeout(Some(PATIENCE));
    let mut input = Vec::with_capacity(READ_SIZE);
    let mut output = Vec::new();
    loop {
        let keep = take_requests(&mut input, &mut output);
        if !output.is_empty() && stream.write_all(&output).is_err() || !keep {
            return;
        }
        output.clear();
        let before = input.len();
        input.resize(before + READ_SIZE, 0);
        match stream.read(&mut input[before..]) {
            Ok(count) if count > 0 => input.truncate(before + count),
            // The end of the stream, a time-out, or a reset.
            _ => return,
        }
    }
}

/// Answers all complete requests in `input` and takes them out. False when the connection is to be closed.
fn take_requests(input: &mut Vec<u8>, output: &mut Vec<u8>) -> bool {
    let mut done = 0;
    let keep = loop {
        // A client that sends many requests at once gets its answers in portions.
        match Request::parse(&input[done..]) {
            Ok(Some(request)) if done + request.length <= input.len() => {
                response::answer(&request, output);
                done += request.length;
                if !request.keep_alive {
                    break false;
                }
            }
            Ok(_) => break true,
            Err(status) => {
                response::refuse(status, output);
                break false;
            }
        }
    };
    input.drain(..done);
    debug_assert!(!keep || input.len() <= MAX_HEAD + (64 << 10) + READ_SIZE);
    keep
}
