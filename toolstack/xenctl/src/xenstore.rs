//! A client of xenstored in dom0, over its Unix socket (docs/misc/xenstore.txt in Xen).
//!
//! Any thread may call a [`Store`]; each request blocks only its caller. A thread of the store
//! reads the messages of xenstored, and hands changes of watched paths to the watchers. The
//! protocol is `zooid_core::xenstore`'s.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use xen_abi::{DomId, Mfn, Port};
pub use zooid_core::xenstore::{Access, Command, Error, Permission};
use zooid_core::xenstore::{
    Client, Incoming, NameList, Request, StreamError, TransactionId, introduced, names, transaction,
};

use crate::error::OpenError;

/// Paths of xenstored's socket. The second is the first on systems where `/var/run` is no link.
const SOCKETS: [&str; 2] = ["/run/xenstored/socket", "/var/run/xenstored/socket"];

/// A connection to xenstored. Paths are absolute, from `/`.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    line: Box<dyn Line>,
    state: Mutex<State>,
    /// Held while a request is sent, so that requests do not mix.
    sending: Mutex<()>,
}

/// The way out for requests.
pub(crate) trait Line: std::fmt::Debug + Send + Sync {
    /// Sends all of these octets, which are whole requests.
    ///
    /// # Errors
    /// The connection has ended.
    fn send(&self, octets: &[u8]) -> io::Result<()>;

    /// Ends the connection.
    fn end(&self);
}

impl Line for Arc<UnixStream> {
    fn send(&self, octets: &[u8]) -> io::Result<()> {
        (&**self).write_all(octets)
    }

    fn end(&self) {
        // It may have ended by itself.
        let _ = self.shutdown(Shutdown::Both);
    }
}

/// The way in for replies and events of a [`Store`] without a thread.
#[derive(Clone, Debug)]
pub(crate) struct Inlet(std::sync::Weak<Shared>);

impl Inlet {
    /// Handles octets from xenstored: replies and changes reach their receivers before it returns.
    pub fn receive(&self, octets: &[u8]) {
        if let Some(shared) = self.0.upgrade() {
            shared.take(octets);
        }
    }
}

/// The way of a reply to its caller.
type Reply = Receiver<Result<Vec<u8>, Error>>;

#[derive(Debug, Default)]
struct State {
    client: Client,
    /// The channels for replies, by the request's number.
    waiting: BTreeMap<u32, SyncSender<Result<Vec<u8>, Error>>>,
    /// The watchers, by token.
    watchers: BTreeMap<String, Watcher>,
    last_token: u64,
    /// The connection has ended or could not be understood; every later request fails.
    broken: Option<Error>,
}

/// The receiver of a watch's changes.
#[derive(Clone)]
struct Watcher(Arc<dyn Fn(&str) + Send + Sync>);

impl std::fmt::Debug for Watcher {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Watcher")
    }
}

impl Store {
    /// Connects to the xenstored of this host.
    ///
    /// # Errors
    /// There is none, or the caller is not root.
    pub fn connect() -> Result<Self, OpenError> {
        let connected = UnixStream::connect(SOCKETS[0]).or_else(|_| UnixStream::connect(SOCKETS[1]));
        connected.and_then(Self::over).map_err(|cause| OpenError { path: SOCKETS[0], cause })
    }

    /// Makes a store for the xenstored at the other end of `socket`.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn over(socket: UnixStream) -> io::Result<Self> {
        let socket = Arc::new(socket);
        let shared =
            Arc::new(Shared { line: Box::new(socket.clone()), state: Mutex::default(), sending: Mutex::default() });
        let reader = {
            let shared = shared.clone();
            thread::Builder::new().name("xenstore".into()).spawn(move || shared.serve(&socket))?
        };
        Ok(Store { shared, reader: Some(reader) })
    }

    /// Makes a store on a line that answers each request before it returns from [`Line::send`]. So
    /// the order does not depend on threads.
    pub(crate) fn direct(line: impl FnOnce(Inlet) -> Box<dyn Line>) -> Self {
        let shared = Arc::new_cyclic(|shared| Shared {
            line: line(Inlet(shared.clone())),
            state: Mutex::default(),
            sending: Mutex::default(),
        });
        Store { shared, reader: None }
    }

    fn outside(&self) -> Transaction<'_> {
        Transaction { shared: &self.shared, id: TransactionId::NONE }
    }

    /// The value of `path`; [`Error::NotFound`] if there is no such node.
    pub fn read(&self, path: &str) -> Result<String, Error> {
        self.outside().read(path)
    }

    /// Sets the value of `path`; missing nodes on the way are made.
    pub fn write(&self, path: &str, value: &str) -> Result<(), Error> {
        self.outside().write(path, value)
    }

    /// Names of the nodes right below `path`.
    pub fn list(&self, path: &str) -> Result<Vec<String>, Error> {
        self.outside().list(path)
    }

    /// Removes `path` and all below it; it is no error if it does not exist.
    pub fn remove(&self, path: &str) -> Result<(), Error> {
        self.outside().remove(path)
    }

    /// Makes `path` with an empty value, unless it exists.
    pub fn mkdir(&self, path: &str) -> Result<(), Error> {
        self.outside().mkdir(path)
    }

    /// Sets the permissions of `path`. The first entry names the owner; its access is that of all
    /// domains that are not named.
    pub fn set_permissions(&self, path: &str, permissions: &[Permission]) -> Result<(), Error> {
        self.outside().set_permissions(path, permissions)
    }

    /// Sends requests at once, and waits for the last reply: xenstored answers in order. It carries
    /// out each of them by itself. The caller of many requests wakes up once.
    ///
    /// # Errors
    /// The first error of a request; later ones may have been carried out. A node to be removed
    /// that does not exist is no error.
    pub fn batch(&self, commands: &[Command<'_>]) -> Result<(), Error> {
        let requests: Vec<Request<'_>> = commands.iter().map(|command| (*command).into()).collect();
        let (replies, sent) = self.shared.send(&requests, true);
        let mut results: Vec<_> = replies.iter().rev().map(|reply| self.shared.receive_reply(reply)).collect();
        results.reverse();
        for (command, result) in commands.iter().zip(results) {
            match (command, result) {
                (_, Ok(_)) | (Command::Remove(_), Err(Error::NotFound)) => {}
                (_, Err(error)) => return Err(error),
            }
        }
        sent
    }

    /// Runs `body` in a transaction, and repeats it until it meets no other change. An error of
    /// `body` undoes it.
    pub fn transact<T>(&self, mut body: impl FnMut(&Transaction<'_>) -> Result<T, Error>) -> Result<T, Error> {
        loop {
            let id = transaction(&self.outside().request(Command::StartTransaction)?)?;
            let transaction = Transaction { shared: &self.shared, id };
            let result = body(&transaction);
            let end = transaction.request(Command::EndTransaction { commit: result.is_ok() });
            match (result, end) {
                (Ok(_), Err(Error::Again)) => {}
                (Ok(value), end) => return end.map(|_| value),
                (Err(error), _) => return Err(error),
            }
        }
    }

    /// Calls `changed` with the path at every change at or below `path`, and once immediately,
    /// until the watch is dropped. `path` may be `@introduceDomain` or `@releaseDomain`.
    ///
    /// `changed` runs on the store's thread, on which replies arrive too. It must not wait for the
    /// result of another request; typically it sends on a channel.
    pub fn watch(&self, path: &str, changed: impl Fn(&str) + Send + Sync + 'static) -> Result<Watch, Error> {
        let token = {
            let mut state = self.shared.state();
            state.last_token += 1;
            let token = state.last_token.to_string();
            state.watchers.insert(token.clone(), Watcher(Arc::new(changed)));
            token
        };
        // From here on, dropping `watch` cleans up.
        let watch = Watch { shared: self.shared.clone(), path: path.to_owned(), token };
        self.outside().request(Command::Watch { path, token: &watch.token })?;
        Ok(watch)
    }

    /// Tells xenstored of a domain. `ring` is the frame of its ring, which its grant 1 gives to
    /// dom0, and `port` its port for the ring.
    pub fn introduce(&self, domain: DomId, ring: Mfn, port: Port) -> Result<(), Error> {
        self.outside().request(Command::Introduce { domain, ring, port }).map(drop)
    }

    /// Ends xenstored's service of a domain. It must come after the domain was destroyed: otherwise
    /// its ring stays mapped.
    pub fn release(&self, domain: DomId) -> Result<(), Error> {
        self.outside().request(Command::Release(domain)).map(drop)
    }

    /// True if xenstored serves a domain.
    pub fn is_introduced(&self, domain: DomId) -> Result<bool, Error> {
        Ok(introduced(&self.outside().request(Command::IsDomainIntroduced(domain))?)?)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Ends the reader's wait.
        self.shared.line.end();
        // A watcher may own the store. This thread is then the reader, which ends by itself.
        if let Some(reader) = self.reader.take().filter(|reader| reader.thread().id() != thread::current().id()) {
            let _ = reader.join();
        }
    }
}

/// A transaction under way: its requests take effect together when it ends, or not at all.
#[derive(Debug)]
pub struct Transaction<'a> {
    shared: &'a Shared,
    id: TransactionId,
}

impl Transaction<'_> {
    fn request(&self, command: Command<'_>) -> Result<Vec<u8>, Error> {
        self.shared.call(&Request { transaction: self.id, command })
    }

    /// As [`Store::read`].
    pub fn read(&self, path: &str) -> Result<String, Error> {
        String::from_utf8(self.request(Command::Read(path))?).map_err(|_| Error::NotUtf8)
    }

    /// As [`Store::write`].
    pub fn write(&self, path: &str, value: &str) -> Result<(), Error> {
        self.request(Command::Write(path, value.as_bytes())).map(drop)
    }

    /// As [`Store::list`].
    pub fn list(&self, path: &str) -> Result<Vec<String>, Error> {
        match self.request(Command::Directory(path)) {
            Err(Error::Other(name)) if name == "E2BIG" => {
                let mut list = NameList::default();
                while !list.add(&self.request(Command::DirectoryPart { path, offset: list.offset() })?)? {}
                Ok(list.names()?)
            }
            reply => Ok(names(&reply?)?),
        }
    }

    /// As [`Store::remove`].
    pub fn remove(&self, path: &str) -> Result<(), Error> {
        match self.request(Command::Remove(path)) {
            Ok(_) | Err(Error::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// As [`Store::mkdir`].
    pub fn mkdir(&self, path: &str) -> Result<(), Error> {
        self.request(Command::Mkdir(path)).map(drop)
    }

    /// As [`Store::set_permissions`].
    pub fn set_permissions(&self, path: &str, permissions: &[Permission]) -> Result<(), Error> {
        self.request(Command::SetPermissions(path, permissions)).map(drop)
    }
}

/// A watch, which ends when it is dropped. A change that was on its way at that time may still be
/// reported.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    path: String,
    token: String,
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The drop is outside of the lock, because it runs the watcher's own code, which may drop
        // anything.
        let _watcher = self.shared.state().watchers.remove(&self.token);
        // The reply is not waited for, because this may be the thread that reads it. An error means
        // that the watch was never made, or that the connection is broken.
        let _ = self.shared.send(&[Command::Unwatch { path: &self.path, token: &self.token }.into()], false);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a request and waits for the reply.
    fn call(&self, request: &Request<'_>) -> Result<Vec<u8>, Error> {
        let (replies, sent) = self.send(std::slice::from_ref(request), true);
        sent?;
        self.receive_reply(&replies[0])
    }

    /// Waits for a reply.
    fn receive_reply(&self, reply: &Reply) -> Result<Vec<u8>, Error> {
        // Senders are dropped only with a reason in `broken`.
        reply.recv().unwrap_or_else(|_| Err(self.state().broken.clone().unwrap_or(StreamError::Closed.into())))
    }

    /// Sends requests, up to the first that cannot be encoded. Gives the replies of those that were
    /// sent, if they are waited for, and the error that ended the list.
    fn send(&self, requests: &[Request<'_>], waits: bool) -> (Vec<Reply>, Result<(), Error>) {
        let _sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut octets, mut replies, mut result) = (Vec::new(), Vec::new(), Ok(()));
        {
            let mut state = self.state();
            if let Some(error) = &state.broken {
                return (replies, Err(error.clone()));
            }
            for request in requests {
                match state.client.encode(request) {
                    Ok((id, message)) => {
                        octets.extend(message);
                        if waits {
                            let (sender, reply) = sync_channel(1);
                            state.waiting.insert(id, sender);
                            replies.push(reply);
                        }
                    }
                    Err(error) => {
                        result = Err(error);
                        break;
                    }
                }
            }
        }
        if self.line.send(&octets).is_err() {
            // A part of the messages may be with xenstored, which would misread the octets behind
            // it.
            self.line.end();
            self.break_off(StreamError::Closed.into());
            result = Err(StreamError::Closed.into());
        }
        (replies, result)
    }

    /// Reads the messages of xenstored, to the end of the connection.
    fn serve(&self, mut socket: &UnixStream) {
        let mut buffer = [0; 4096];
        loop {
            let goes_on = match socket.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
                Ok(0) | Err(_) => self.break_off(StreamError::Closed.into()),
                Ok(count) => self.take(&buffer[..count]),
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Handles octets; false if they make no sense.
    fn take(&self, octets: &[u8]) -> bool {
        match self.receive(octets) {
            Ok(()) => true,
            Err(error) => self.break_off(error),
        }
    }

    /// Breaks the connection: every later request fails. Returns false.
    fn break_off(&self, error: Error) -> bool {
        let mut state = self.state();
        state.broken = Some(error);
        // The waiting callers see the end of their channels.
        state.waiting.clear();
        false
    }

    /// Handles the messages that `bytes` complete.
    fn receive(&self, bytes: &[u8]) -> Result<(), Error> {
        self.state().client.feed(bytes);
        loop {
            let mut state = self.state();
            match state.client.receive()? {
                None => return Ok(()),
                Some(Incoming::Reply { request_id, result }) => {
                    if let Some(waiter) = state.waiting.remove(&request_id) {
                        // A caller waits until the reply comes, and there is room for one.
                        let _ = waiter.try_send(result);
                    }
                }
                Some(Incoming::Watch { path, token }) => {
                    let watcher = state.watchers.get(&token).cloned();
                    // The lock is not held while the watcher's code runs.
                    drop(state);
                    if let Some(Watcher(changed)) = watcher {
                        changed(&path);
                    }
                }
            }
        }
    }
}
