//! The answers of the server.

use alloc::vec::Vec;

use crate::pages::{self, Page};
use crate::request::Request;

/// A status code and its phrase (RFC 9110, section 15), as a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(&'static str);

impl Status {
    const OK: Self = Self("200 OK\n");
    const NOT_FOUND: Self = Self("404 Not Found\n");
    const METHOD_NOT_ALLOWED: Self = Self("405 Method Not Allowed\n");
    /// The request cannot be understood.
    pub const BAD_REQUEST: Self = Self("400 Bad Request\n");
    /// The body is longer than the server reads.
    pub const CONTENT_TOO_LARGE: Self = Self("413 Content Too Large\n");
    /// The head is longer than the server reads.
    pub const HEAD_TOO_LARGE: Self = Self("431 Request Header Fields Too Large\n");
    /// The request needs a feature that the server does not have.
    pub const NOT_IMPLEMENTED: Self = Self("501 Not Implemented\n");
    /// The version of HTTP is another one than 1.0 and 1.1.
    pub const VERSION_NOT_SUPPORTED: Self = Self("505 HTTP Version Not Supported\n");
}

/// Appends the answer to `request` to `out`. `date` appends the present date.
pub fn answer(request: &Request<'_>, date: fn(&mut Vec<u8>), out: &mut Vec<u8>) {
    let (keep_alive, with_body) = (request.keep_alive, request.method != "HEAD");
    if !matches!(request.method, "GET" | "HEAD") {
        return put(Status::METHOD_NOT_ALLOWED, "Allow: GET, HEAD\r\n", None, keep_alive, with_body, date, out);
    }
    match pages::find(&request.path) {
        Some(page) => put(Status::OK, "", Some(page), keep_alive, with_body, date, out),
        None => put(Status::NOT_FOUND, "", None, keep_alive, with_body, date, out),
    }
}

/// Appends the answer to a malformed request. The connection is closed after it.
pub fn refuse(status: Status, date: fn(&mut Vec<u8>), out: &mut Vec<u8>) {
    put(status, "", None, false, true, date, out);
}

fn put(
    status: Status,
    extra: &str,
    page: Option<&Page>,
    keep_alive: bool,
    with_body: bool,
    date: fn(&mut Vec<u8>),
    out: &mut Vec<u8>,
) {
    let Status(line) = status;
    let (media_type, body) = match page {
        Some(page) => (page.media_type, page.body),
        None => ("text/plain", line.as_bytes()),
    };
    let connection = if keep_alive { "keep-alive" } else { "close" };
    // Plain copies, because this is most of the cost of a request.
    for part in ["HTTP/1.1 ", line.trim_end(), "\r\nServer: zooid\r\nDate: "] {
        out.extend_from_slice(part.as_bytes());
    }
    date(out);
    for part in ["\r\nContent-Type: ", media_type, "\r\nConnection: ", connection, "\r\n", extra] {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(b"Content-Length: ");
    out.extend_from_slice(itoa::Buffer::new().format(body.len()).as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
    if with_body {
        out.extend_from_slice(body);
    }
}
