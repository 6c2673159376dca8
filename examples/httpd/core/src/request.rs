//! A client's request, read from the bytes that have arrived (RFC 9110, RFC 9112).

use alloc::borrow::Cow;

use httparse::{EMPTY_HEADER, Request as Parsed, Status as ParseStatus};

use crate::response::Status;
use crate::target::{is_authority, path_of};

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
    /// The target's path, without its query, in its simplest form.
    pub path: Cow<'a, str>,
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
            Err(httparse::Error::Version) if names_version(bytes) => return Err(Status::VERSION_NOT_SUPPORTED),
            Err(_) => return Err(Status::BAD_REQUEST),
        };
        let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(Status::BAD_REQUEST);
        };
        let (mut close, mut keep) = (false, version == 1);
        let mut body = None;
        let mut is_coded = false;
        let mut hosts = 0;
        for header in parsed.headers.iter() {
            let value = header.value.trim_ascii();
            if header.name.eq_ignore_ascii_case("connection") {
                for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    close |= option.eq_ignore_ascii_case(b"close");
                    keep |= option.eq_ignore_ascii_case(b"keep-alive");
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
                is_coded = true;
            } else if header.name.eq_ignore_ascii_case("host") {
                hosts += 1;
                if !is_authority(value) {
                    return Err(Status::BAD_REQUEST);
                }
            }
        }
        // RFC 9112, section 3.2.
        if hosts > 1 || version == 1 && hosts == 0 {
            return Err(Status::BAD_REQUEST);
        }
        if is_coded {
            // With a length, or in an old version, the body's end is not certain (RFC 9112, sections
            // 6.1 and 6.3).
            let is_faulty = body.is_some() || version == 0;
            return Err(if is_faulty { Status::BAD_REQUEST } else { Status::NOT_IMPLEMENTED });
        }
        let body = body.unwrap_or(0);
        if body > MAX_BODY {
            return Err(Status::CONTENT_TOO_LARGE);
        }
        let path = path_of(method, target)?;
        // The option `close` counts more than any other (RFC 9112, section 9.3).
        Ok(Some(Self { method, path, keep_alive: keep && !close, length: head + body }))
    }
}

/// True if the first line ends with a version of HTTP, known or not (RFC 9112, section 2.3).
fn names_version(bytes: &[u8]) -> bool {
    let mut lines = bytes.trim_ascii_start().split(|byte| *byte == b'\n');
    let word = lines.next().and_then(|line| line.trim_ascii_end().rsplit(|byte| *byte == b' ').next());
    let version = word.and_then(|word| word.strip_prefix(b"HTTP/"));
    version.is_some_and(|version| version.first().is_some_and(u8::is_ascii_digit))
}

/// A length of digits only, without a sign or blanks (RFC 9110, section 8.6).
fn parse_length(value: &[u8]) -> Result<usize, Status> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Status::BAD_REQUEST);
    }
    core::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok()).ok_or(Status::CONTENT_TOO_LARGE)
}
