//! The target of a request (RFC 9112, section 3.2) and the host in it (RFC 3986).

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use crate::response::Status;

/// The path in a target, without its query, in its simplest form. Equivalent paths (RFC 3986,
/// section 6.2.2) become the same.
///
/// # Errors
/// The target is malformed, has no form that the method may have, or leads above the root.
pub fn path_of<'a>(method: &str, target: &'a str) -> Result<Cow<'a, str>, Status> {
    let path = match target.split_once("://") {
        _ if target.starts_with('/') => target,
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => {
            let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            if !is_authority(authority.as_bytes()) {
                return Err(Status::BAD_REQUEST);
            }
            path
        }
        // It asks about the server itself.
        None if target == "*" && method == "OPTIONS" => return Ok(target.into()),
        _ => return Err(Status::BAD_REQUEST),
    };
    // A fragment has no place here; nginx passes over it, too.
    let path = &path[..path.find(['?', '#']).unwrap_or(path.len())];
    match path {
        "" => Ok("/".into()),
        path if !path.contains('%') && !path.contains("/.") => Ok(path.into()),
        path => without_dots(&unescape(path)?).map(Cow::from),
    }
}

/// Replaces the escapes of characters that mean the same without (RFC 3986, section 6.2.2.2).
fn unescape(path: &str) -> Result<String, Status> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let escape = rest.get(at..at + 3).ok_or(Status::BAD_REQUEST)?;
        let octet = octet_of(escape.as_bytes()).filter(|octet| *octet != 0).ok_or(Status::BAD_REQUEST)?;
        out.push_str(&rest[..at]);
        match is_unreserved(octet) {
            true => out.push(octet.into()),
            false => out.push_str(&escape.to_ascii_uppercase()),
        }
        rest = &rest[at + 3..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Removes the segments `.` and `..` (RFC 3986, section 5.2.4).
fn without_dots(path: &str) -> Result<String, Status> {
    let mut kept = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => drop(kept.pop().ok_or(Status::BAD_REQUEST)?),
            segment => {
                kept.push(segment);
                continue;
            }
        }
        if is_last {
            kept.push("");
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in kept {
        out.push('/');
        out.push_str(segment);
    }
    Ok(out)
}

/// True if `text` is `uri-host [ ":" port ]` with a host that is not empty (RFC 9110, sections 4.2.1
/// and 7.2).
pub fn is_authority(text: &[u8]) -> bool {
    let (host, port) = match text.first() {
        Some(b'[') => match text.iter().position(|octet| *octet == b']') {
            Some(end) => text.split_at(end + 1),
            None => return false,
        },
        _ => text.split_at(text.iter().position(|octet| *octet == b':').unwrap_or(text.len())),
    };
    let has_port = match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    has_port
        && match host {
            [b'[', address @ .., b']'] => is_literal(address),
            host => !host.is_empty() && is_name(host),
        }
}

/// An address in brackets: IPv6, or of a later version (RFC 3986, section 3.2.2).
fn is_literal(address: &[u8]) -> bool {
    match core::str::from_utf8(address) {
        Ok(text) if text.starts_with(['v', 'V']) => text[1..].split_once('.').is_some_and(|(version, rest)| {
            let digits = !version.is_empty() && version.bytes().all(|octet| octet.is_ascii_hexdigit());
            let legal = |octet| is_unreserved(octet) || is_delimiter(octet) || octet == b':';
            digits && !rest.is_empty() && rest.bytes().all(legal)
        }),
        Ok(text) => text.parse::<core::net::Ipv6Addr>().is_ok(),
        Err(_) => false,
    }
}

/// A registered name, or an IPv4 address (RFC 3986, section 3.2.2).
fn is_name(host: &[u8]) -> bool {
    let mut rest = host;
    while let Some((&octet, after)) = rest.split_first() {
        rest = match octet {
            b'%' if octet_of(rest).is_some() => &rest[3..],
            octet if is_unreserved(octet) || is_delimiter(octet) => after,
            _ => return false,
        };
    }
    true
}

/// The octet that the escape at the start of `text` stands for.
fn octet_of(text: &[u8]) -> Option<u8> {
    let digit = |octet: u8| char::from(octet).to_digit(16).map(|value| value as u8);
    match text {
        [b'%', high, low, ..] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

/// RFC 3986, section 2.3.
fn is_unreserved(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"-._~".contains(&octet)
}

/// `sub-delims` in RFC 3986, section 2.2.
fn is_delimiter(octet: u8) -> bool {
    b"!$&'()*+,;=".contains(&octet)
}
