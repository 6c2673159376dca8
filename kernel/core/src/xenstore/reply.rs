//! Reading the payloads of replies.

use super::{Access, Permission, StreamError, TransactionId};
use alloc::string::String;
use alloc::vec::Vec;
use xen_abi::DomId;
use xen_abi::io::xs_wire::strings;

/// A value or a string, decoded as text.
///
/// # Errors
/// [`StreamError::BadPayload`]: it is not UTF-8. xenstore keeps any bytes, so another client may be
/// to blame.
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

/// Collects a list of names that is too long for one reply, from those to
/// [`DirectoryPart`](super::Command::DirectoryPart).
#[derive(Debug, Default)]
pub struct NameList {
    /// The generation of the node that the parts belong to.
    generation: Vec<u8>,
    names: Vec<u8>,
}

impl NameList {
    /// The offset of the next part, in bytes.
    pub fn offset(&self) -> usize {
        self.names.len()
    }

    /// Takes the next part; returns true for the last. If the node has changed meanwhile, the list
    /// begins again.
    ///
    /// # Errors
    /// [`StreamError::BadPayload`].
    pub fn add(&mut self, payload: &[u8]) -> Result<bool, StreamError> {
        let end = payload.iter().position(|byte| *byte == 0).ok_or(StreamError::BadPayload)?;
        let (generation, part) = (&payload[..end], &payload[end + 1..]);
        if self.offset() == 0 {
            self.generation = generation.to_vec();
        } else if self.generation != generation {
            *self = Self::default();
            return Ok(false);
        }
        // An empty name stands behind the last one.
        let last = part == [0] || part.ends_with(&[0, 0]);
        if !part.ends_with(&[0]) {
            return Err(StreamError::BadPayload);
        }
        self.names.extend_from_slice(&part[..part.len() - usize::from(last)]);
        Ok(last)
    }

    /// The names.
    ///
    /// # Errors
    /// [`StreamError::BadPayload`].
    pub fn names(&self) -> Result<Vec<String>, StreamError> {
        names(&self.names)
    }
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

/// The answer from the reply to [`IsDomainIntroduced`](super::Command::IsDomainIntroduced).
///
/// # Errors
/// [`StreamError::BadPayload`].
pub fn introduced(payload: &[u8]) -> Result<bool, StreamError> {
    match payload {
        b"T\0" => Ok(true),
        b"F\0" => Ok(false),
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
