//! A client's request, read from the bytes that have arrived (RFC 9110, RFC 9112).

use httparse::{EMPTY_HEADER, Request as Parsed, Status as ParseStatus};

use crate::response::Status;

/// Longest head of a request, in bytes.
pub const MAX_HEAD: usize = 8 << 10;
/// Longest body that is read, and ignored, to keep a connection.
const MAX_BODY: usize = 64 << 10;
const MAX_HEADERS: usize = 64;

/// A request whose head is complete.
#[derive(Debug)]
pub struct Request<'a> {
    /// `GET`, `HEAD`, ...
    pub method: &'a str,
    /// The target's path, with its query.
    pub path: &'a str,
    /// True if another request may follow on this connection.
    pub keep_alive: bool,
    /// Bytes of head and body.
    pub length: usize,
}

impl<'a> Request<'a> {
    /// Reads the request at the start of `bytes`; `None` while its head is not complete.
    ///
    /// # Errors
    /// The status of the answer before the connection is closed. The end of the request is not
    /// known any more.
    pub fn parse(bytes: &'a [u8]) -> Result<Option<Self>, Status> {
        let mut headers = [EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = Parsed::new(&mut headers);
        let head = match parsed.parse(bytes) {
            Ok(ParseStatus::Complete(length)) if length <= MAX_HEAD => length,
            Ok(ParseStatus::Partial) if bytes.len() < MAX_HEAD => return Ok(None),
            Ok(_) => return Err(Status::HEAD_TOO_LARGE),
            Err(httparse::Error::TooManyHeaders) => return Err(Status::HEAD_TOO_LARGE),
            Err(_) => return Err(Status::BAD_REQUEST),
        };
        let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(Status::BAD_REQUEST);
        };
        let mut keep_alive = version == 1;
        let mut body = None;
        let mut hosts = 0;
        for header in parsed.headers.iter() {
            let value = header.value.trim_ascii();
            if header.name.eq_ignore_ascii_case("connection") {
                for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    if option.eq_ignore_ascii_case(b"close") {
                        keep_alive = false;
                    } else if option.eq_ignore_ascii_case(b"keep-alive") && version == 0 {
                        keep_alive = true;
                    }
                }
            } else if header.name.eq_ignore_ascii_case("content-length") {
                let length = parse_length(value)?;
                // Two lengths that differ are an attack on a receiver that takes the other one (RFC
                // 9112, section 6.3).
                if body.is_some_and(|earlier| earlier != length) {
                    return Err(Status::BAD_REQUEST);
                }
                body = Some(length);
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                return Err(Status::NOT_IMPLEMENTED);
            } else if header.name.eq_ignore_ascii_case("host") {
                hosts += 1;
            }
        }
        if version == 1 && hosts != 1 {
            return Err(Status::BAD_REQUEST);
        }
        let body = body.unwrap_or(0);
        if body > MAX_BODY {
            return Err(Status::CONTENT_TOO_LARGE);
        }
        Ok(Some(Self { method, path: path_of(target), keep_alive, length: head + body }))
    }
}

/// The path in a target, which may be a whole URI (RFC 9112, section 3.2.2).
fn path_of(target: &str) -> &str {
    match target.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest.find('/').map_or("/", |at| &rest[at..]),
        _ => target,
    }
}

/// A length of digits only, without a sign or blanks (RFC 9110, section 8.6).
fn parse_length(value: &[u8]) -> Result<usize, Status> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Status::BAD_REQUEST);
    }
    core::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok()).ok_or(Status::CONTENT_TOO_LARGE)
}
