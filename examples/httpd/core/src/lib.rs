//! The thinking half of `httpd`: from the bytes of requests (RFC 9110, RFC 9112) to those of
//! answers. It has no sockets and no clock, so that its tests run on the build machine.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod date;
mod pages;
mod request;
mod response;
mod target;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;

pub use date::Date;
use request::{MAX_HEAD, Request};

/// Answers all requests in `input` whose head is complete and removes them, with their bodies.
/// `skip` is the number of bytes of the last body that are still to come. `date` appends the
/// present date. Returns false if the connection is to be closed.
pub fn take_requests(input: &mut Vec<u8>, skip: &mut usize, date: fn(&mut Vec<u8>), output: &mut Vec<u8>) -> bool {
    let mut done = *skip;
    let mut keep = true;
    while keep && done < input.len() {
        match Request::parse(&input[done..]) {
            Ok(Some(request)) => {
                response::answer(&request, date, output);
                done += request.length;
                keep = request.keep_alive;
            }
            Ok(None) => break,
            Err(status) => {
                response::refuse(status, date, output);
                keep = false;
            }
        }
    }
    *skip = done.saturating_sub(input.len());
    input.drain(..done - *skip);
    debug_assert!(!keep || input.len() < MAX_HEAD);
    keep
}
