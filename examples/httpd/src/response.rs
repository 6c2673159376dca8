//! What the server answers.

use alloc::format;
use alloc::vec::Vec;

use zooid::time::unix_time;

use crate::date::Date;
use crate::pages::{self, Page};
use crate::request::Request;

/// A status code and its phrase (RFC 9110, section 15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(u16, &'static str);

impl Status {
    const OK: Self = Self(200, "OK");
    const NOT_FOUND: Self = Self(404, "Not Found");
    const METHOD_NOT_ALLOWED: Self = Self(405, "Method Not Allowed");
    /// The request cannot be understood.
    pub const BAD_REQUEST: Self = Self(400, "Bad Request");
    /// The body is longer than the server reads.
    pub const CONTENT_TOO_LARGE: Self = Self(413, "Content Too Large");
    /// The head is longer than the server reads.
    pub const HEAD_TOO_LARGE: Self = Self(431, "Request Header Fields Too Large");
    /// The request needs something that the server does not do.
    pub const NOT_IMPLEMENTED: Self = Self(501, "Not Implemented");
}

/// Appends the answer to `request` to `out`.
pub fn answer(request: &Request<'_>, out: &mut Vec<u8>) {
    let with_body = request.method != "HEAD";
    if !matches!(request.method, "GET" | "HEAD") {
        return put(Status::METHOD_NOT_ALLOWED, "Allow: GET, HEAD\r\n", None, request.keep_alive, with_body, out);
    }
    match pages::find(request.path) {
        Some(page) => put(Status::OK, "", Some(page), request.keep_alive, with_body, out),
        None => put(Status::NOT_FOUND, "", None, request.keep_alive, with_body, out),
    }
}

/// Appends the answer to something that is no request: the connection is closed after it.
pub fn refuse(status: Status, out: &mut Vec<u8>) {
    put(status, "", None, false, true, out);
}

fn put(status: Status, extra: &str, page: Option<&Page>, keep_alive: bool, with_body: bool, out: &mut Vec<u8>) {
    let Status(code, phrase) = status;
    let text = format!("{code} {phrase}\n");
    let (media_type, body) = match page {
        Some(page) => (page.media_type, page.body),
        None => ("text/plain", text.as_bytes()),
    };
    let connection = if keep_alive { "keep-alive" } else { "close" };
    let (length, date) = (body.len(), Date(unix_time()));
    let head = format!(
        "HTTP/1.1 {code} {phrase}\r\nServer: zooid\r\nDate: {date}\r\nContent-Type: {media_type}\r\n\
         Content-Length: {length}\r\nConnection: {connection}\r\n{extra}\r\n"
    );
    out.extend_from_slice(head.as_bytes());
    if with_body {
        out.extend_from_slice(body);
    }
}
