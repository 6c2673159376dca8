//! The xenstore client's side of the protocol: bytes in, bytes out.
//!
//! Requests become bytes in [`Client::encode`]. Bytes from xenstored go into [`Client::feed`], in
//! whatever pieces the ring delivered them, and come out of [`Client::receive`] as [`Incoming`]
//! messages. Replies are matched to requests by their number, so any number of requests can be
//! under way. The ring and the waiting are the caller's.
//!
//! The protocol is Xen's `docs/misc/xenstore.txt`; the layout of messages is
//! [`xen_abi::io::xs_wire`].

mod error;
mod reply;
mod request;

pub use error::{Error, StreamError};
use reply::text;
pub use reply::{NameList, introduced, names, permissions, transaction};
pub use request::{Access, Command, Permission, Request, TransactionId};

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use xen_abi::io::xs_wire::{Header, XsType, strings};

/// One connection to xenstored.
#[derive(Debug, Default)]
pub struct Client {
    /// The number of the last request.
    last_id: u32,
    /// Requests without a reply so far, and their types.
    pending: BTreeMap<u32, XsType>,
    /// The bytes received that form no whole message yet.
    received: Vec<u8>,
}

/// A message from xenstored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// The answer to a request: its payload, for [`names`] and its siblings to read, or an error.
    Reply {
        /// The number that [`Client::encode`] returned for the request.
        request_id: u32,
        /// The payload, or xenstored's refusal.
        result: Result<Vec<u8>, Error>,
    },
    /// A change at or below a watched path.
    Watch {
        /// The path that changed; relative if the watched one was.
        path: String,
        /// The token of the watch.
        token: String,
    },
}

impl Client {
    /// A connection with nothing under way.
    pub const fn new() -> Self {
        Self { last_id: 0, pending: BTreeMap::new(), received: Vec::new() }
    }

    /// Gives a request a number and encodes it. The bytes must be sent whole and unmixed.
    ///
    /// # Errors
    /// [`Error::TooLong`] and [`Error::EmbeddedNul`]; no number is used up in these cases.
    pub fn encode(&mut self, request: &Request<'_>) -> Result<(u32, Vec<u8>), Error> {
        let kind = request.command.kind();
        let payload = request.command.payload()?;
        let id = self.unused_id();
        let header = Header::new(kind, id, request.transaction.0, payload.len()).map_err(|_| Error::TooLong)?;
        let mut bytes = Vec::with_capacity(Header::SIZE + payload.len());
        bytes.extend_from_slice(&header.encode());
        bytes.extend_from_slice(&payload);
        self.last_id = id;
        self.pending.insert(id, kind);
        Ok((id, bytes))
    }

    /// Discards the received part of a message, because the rest will not come.
    pub fn forget_partial(&mut self) {
        self.received.clear();
    }

    /// Takes the bytes that arrived from xenstored.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// The next whole message, or `None` until more bytes have been fed.
    ///
    /// # Errors
    /// [`Error::Broken`]: xenstored broke the protocol. The beginning of the next message is
    /// unknown, so every later call returns the same error.
    pub fn receive(&mut self) -> Result<Option<Incoming>, Error> {
        let Some((header, payload)) = self.received.split_first_chunk() else { return Ok(None) };
        let header = Header::decode(*header).map_err(|too_long| StreamError::TooLong(too_long.len))?;
        let Some(payload) = payload.get(..header.payload_len()) else { return Ok(None) };

        let incoming = match header.kind() {
            XsType::WATCH_EVENT => watch_event(payload)?,
            kind => {
                let request_id = header.req_id();
                let result = self.reply(request_id, kind, payload)?;
                self.pending.remove(&request_id);
                Incoming::Reply { request_id, result }
            }
        };
        self.received.drain(..Header::SIZE + header.payload_len());
        Ok(Some(incoming))
    }

    fn reply(&self, id: u32, kind: XsType, payload: &[u8]) -> Result<Result<Vec<u8>, Error>, StreamError> {
        match self.pending.get(&id) {
            None => Err(StreamError::UnknownRequest(id)),
            Some(_) if kind == XsType::ERROR => Ok(Err(Error::from_name(payload))),
            Some(expected) if kind == *expected => Ok(Ok(payload.to_vec())),
            Some(expected) => Err(StreamError::WrongType { expected: *expected, found: kind }),
        }
    }

    /// The next number that no pending request has. It is never 0, which stands in watch events.
    fn unused_id(&self) -> u32 {
        let mut id = self.last_id.wrapping_add(1);
        while id == 0 || self.pending.contains_key(&id) {
            id = id.wrapping_add(1);
        }
        id
    }
}

fn watch_event(payload: &[u8]) -> Result<Incoming, StreamError> {
    let mut parts = strings(payload).map(text);
    match (parts.next(), parts.next()) {
        (Some(Ok(path)), Some(Ok(token))) => Ok(Incoming::Watch { path, token }),
        _ => Err(StreamError::BadPayload),
    }
}

#[cfg(test)]
mod tests;
