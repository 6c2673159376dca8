//! Reading the payloads of replies.

use super::{Access, Permission, StreamError, TransactionId};
use alloc::string::String;
use alloc::vec::Vec;
use xen_abi::DomId;
use xen_abi::io::xs_wire::strings;

/// A value or a string as text.
///
/// # Errors
/// [`StreamError::BadPayload`]: it is not UTF-8. xenstore keeps any bytes, so another client may be to blame.
pub fn text(bytes: &[u8]) -> Result<String, StreamError> {
    core::str::from_utf8(bytes).map(String::from).map_err(|_| StreamError::BadPayload)
}

/// The children's names from the reply to [`Directory`](super::Command::Directory).
///
/// # Errors
/// [`StreamError::BadPayload`].
pub fn names(payload: &[u8]) -> Result<Vec<String>, StreamError> {
    strings(payload).map(text).collect()
}

/// The permissions from the reply to [`GetPermissions`](super::Command::GetPermissions).
///
/// # Errors
/// [`StreamError::BadPayload`].
pub fn permissions(payload: &[u8]) -> Result<Vec<Permission>, StreamError> {
    strings(payload).map(|string| permission(&text(string)?).ok_or(StreamError::BadPayload)).collect()
}

/// The transaction from the reply to [`StartTransaction`](super::Command::StartTransaction).
///
/// # Errors
/// [`StreamError::BadPayload`].
pub fn transaction(payload: &[u8]) -> Result<TransactionId, StreamError> {
    let number = payload.strip_suffix(&[0]).unwrap_or(payload);
    match text(number)?.parse() {
        Ok(id) if id != TransactionId::NONE.0 => Ok(TransactionId(id)),
        _ => Err(StreamError::BadPayload),
    }
}

fn permission(string: &str) -> Option<Permission> {
    let mut rest = string.chars();
    let letter = rest.next()?;
    let access = Access::ALL.into_iter().find(|access| access.letter() == letter)?;
    let domain = DomId(rest.as_str().parse().ok()?);
    Some(Permission { domain, access })
}
