//! The xenstore client. xenstore is the configuration database that all domains of a host share
//! (docs/misc/xenstore.txt in Xen).
//!
//! Any thread may call; each request blocks only its caller. Paths without a leading `/` are
//! relative to this domain's home, `/local/domain/<domid>`. Any thread that waits takes the
//! received messages from the ring; the thread that watches `control/shutdown` always waits (see
//! [`crate::power`]). The protocol is in `zooid_core::xenstore`; the ring and the waiting threads
//! are here.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem::offset_of;

use spin::Once;
use xen_abi::Port;
use xen_abi::io::xs_wire::{XENSTORE_RING_SIZE, XenstoreDomainInterface};
use zooid_core::ring::ByteRing;
pub use zooid_core::xenstore::{Access, Error, Permission};
use zooid_core::xenstore::{Client, Command, Incoming, NameList, Request, TransactionId, names, transaction};

use crate::events::Masked;
use crate::evtchn::{self, BoundPort, Event};
use crate::life::{Birth, Component, Introduction};
use crate::power;
use crate::shared::{ByteLane, SharedPages};
use crate::sync::Mutex;

const REQUESTS: ByteLane = ByteLane {
    ring: ByteRing::new(XENSTORE_RING_SIZE),
    buffer: offset_of!(XenstoreDomainInterface, req),
    prod: offset_of!(XenstoreDomainInterface, req_prod),
    cons: offset_of!(XenstoreDomainInterface, req_cons),
};
const REPLIES: ByteLane = ByteLane {
    ring: ByteRing::new(XENSTORE_RING_SIZE),
    buffer: offset_of!(XenstoreDomainInterface, rsp),
    prod: offset_of!(XenstoreDomainInterface, rsp_prod),
    cons: offset_of!(XenstoreDomainInterface, rsp_cons),
};

struct Store {
    page: SharedPages,
    port: Masked<BoundPort>,
    event: Arc<Event>,
    state: Masked<State>,
    /// Held while a request is put in the ring, so that requests do not mix.
    turn: Mutex<()>,
    /// A child is introduced to xenstored some time after its fork. All that is in the ring before is
    /// lost. None when it has been, and the parent's watches are set again.
    introduction: Masked<Option<Introduction>>,
}

struct State {
    client: Client,
    /// Requests in the ring, or taken from it, whose caller has no reply yet.
    outstanding: usize,
    /// Threads that wait for changes live on from the parent.
    all_threads: bool,
    replies: BTreeMap<u32, Result<Vec<u8>, Error>>,
    /// The watchers, by token.
    watches: BTreeMap<String, Watcher>,
    last_token: u64,
    /// The stream could not be understood; every later request fails.
    broken: Option<Error>,
}

struct Watcher {
    path: String,
    /// The life of the domain in which the watch was made.
    life: u32,
    /// Changed paths that the watcher has not taken yet.
    changes: VecDeque<String>,
    /// Signalled at each change.
    event: Option<Arc<Event>>,
}

static STORE: Once<Store> = Once::new();

fn store() -> &'static Store {
    STORE.get().expect("xenstore is used after boot")
}

/// Takes the ring over.
///
/// # Safety
/// `page` is the xenstore ring of this domain, mapped as [`SharedPages::new`] wants it.
pub unsafe fn init(page: *mut u8, port: Port) {
    // SAFETY: passed on to the caller.
    let page = unsafe { SharedPages::new(page, 1) };
    let event = Arc::new(Event::new());
    STORE.call_once(|| Store {
        page,
        port: Masked::new(BoundPort::adopt(port, event.clone())),
        event,
        state: Masked::new(State {
            client: Client::new(),
            outstanding: 0,
            all_threads: true,
            replies: BTreeMap::new(),
            watches: BTreeMap::new(),
            last_token: 0,
            broken: None,
        }),
        turn: Mutex::new(()),
        introduction: Masked::new(None),
    });
}

/// No request is under way at a fork; a child has a ring of its own, at the same address.
pub static LIFE: Component = Component { quiesce, begin: begin_life, ..Component::PASSIVE };

fn quiesce(act: &mut dyn FnMut()) {
    let store = store();
    let _turn = store.turn.lock();
    store.event.wait_for(None, || {
        let mut state = store.state.lock();
        store.receive(&mut state);
        state.outstanding == 0 || state.broken.is_some()
    });
    act();
}

fn begin_life(birth: &Birth) {
    let store = store();
    // The old port is dead, and dropping it does nothing.
    *store.port.lock() = BoundPort::adopt(birth.store, store.event.clone());
    *store.introduction.lock() = Some(birth.introduction);
    let mut state = store.state.lock();
    state.client.forget_partial();
    state.all_threads = birth.all_threads;
}

/// Someone is on the other side of this domain's rings: xenstored, and xenconsoled.
pub fn is_introduced() -> bool {
    STORE.get().is_none_or(|store| store.introduction.lock().is_none_or(|it| (it.is_done)()))
}

/// A child was introduced, and its watches are not set again yet.
pub fn has_old_watches() -> bool {
    store().introduction.lock().is_some_and(|it| (it.is_done)())
}

/// Sets the parent's watches again in a child that was introduced, because xenstored knows of none.
/// If services have begun anew, the one for the toolstack's requests sets its own.
pub fn renew_watches() {
    let store = store();
    *store.introduction.lock() = None;
    let life = evtchn::lives();
    let old: Vec<(String, String)> = {
        let mut state = store.state.lock();
        let but_not = (!state.all_threads).then_some(power::CONTROL_PATH);
        state.watches.retain(|_, watcher| watcher.life == life || Some(watcher.path.as_str()) != but_not);
        let old = state.watches.iter_mut().filter_map(|(token, watcher)| {
            (core::mem::replace(&mut watcher.life, life) != life).then(|| (watcher.path.clone(), token.clone()))
        });
        old.collect()
    };
    for (path, token) in old {
        match NO_TRANSACTION.request(Command::Watch { path: &path, token: &token }) {
            // The thread that made it had not been served before the fork.
            Ok(_) | Err(Error::Exists) => {}
            Err(error) => log::warn!("cannot watch {path} any more: {error}"),
        }
    }
}

impl Store {
    fn call(&self, request: &Request<'_>) -> Result<Vec<u8>, Error> {
        let (id, bytes) = {
            let mut state = self.state.lock();
            if let Some(error) = state.broken.clone() {
                return Err(error);
            }
            state.client.encode(request)?
        };
        // Before it counts as outstanding: a fork need not wait for it.
        let introduction = *self.introduction.lock();
        if let Some(Introduction { event, is_done }) = introduction {
            event.wait_for(None, is_done);
        }
        self.send(&bytes)?;
        let mut reply = None;
        self.event.wait_for(None, || {
            let mut state = self.state.lock();
            self.receive(&mut state);
            reply = state.replies.remove(&id).or_else(|| state.broken.clone().map(Err));
            reply.is_some()
        });
        self.state.lock().outstanding -= 1;
        // For a thread that waits until nothing is outstanding.
        self.event.signal();
        reply.expect("the wait ends with a reply")
    }

    fn send(&self, mut bytes: &[u8]) -> Result<(), Error> {
        let _turn = self.turn.lock();
        self.state.lock().outstanding += 1;
        let mut failed = None;
        self.event.wait_for(None, || {
            match REQUESTS.push(&self.page, bytes) {
                Ok(0) => {}
                Ok(count) => {
                    bytes = &bytes[count..];
                    self.port.lock().notify();
                }
                Err(bad) => failed = Some(Error::from(bad)),
            }
            bytes.is_empty() || failed.is_some()
        });
        failed.map_or(Ok(()), |error| {
            self.state.lock().outstanding -= 1;
            Err(error)
        })
    }

    /// Takes all messages of xenstored and hands each to the thread that waits for it.
    fn receive(&self, state: &mut State) {
        let mut buffer = [0; 256];
        while state.broken.is_none() {
            let count = match REPLIES.pop(&self.page, &mut buffer) {
                Ok(0) => return,
                Ok(count) => count,
                Err(bad) => {
                    state.broken = Some(bad.into());
                    return;
                }
            };
            self.port.lock().notify();
            // A message may be for a thread that has looked before, and that no event will wake.
            self.event.signal();
            state.client.feed(&buffer[..count]);
            loop {
                match state.client.receive() {
                    Ok(Some(Incoming::Reply { request_id, result })) => {
                        state.replies.insert(request_id, result);
                    }
                    Ok(Some(Incoming::Watch { path, token })) => {
                        if let Some(watcher) = state.watches.get_mut(&token) {
                            watcher.changes.push_back(path);
                            if let Some(event) = &watcher.event {
                                event.signal();
                            }
                        }
                    }
                    Ok(None) => break,
                    Err(error) => {
                        state.broken = Some(error);
                        break;
                    }
                }
            }
        }
    }
}

/// The value of `path`.
pub fn read(path: &str) -> Result<String, Error> {
    NO_TRANSACTION.read(path)
}

/// Sets the value of `path`; missing nodes on the way are made.
pub fn write(path: &str, value: &str) -> Result<(), Error> {
    NO_TRANSACTION.write(path, value)
}

/// Names of the entries below `path`.
pub fn list(path: &str) -> Result<Vec<String>, Error> {
    NO_TRANSACTION.list(path)
}

/// Removes `path` and all below it; it is no error if it does not exist.
pub fn remove(path: &str) -> Result<(), Error> {
    NO_TRANSACTION.remove(path)
}

/// Makes `path` with an empty value, unless it exists.
pub fn make_directory(path: &str) -> Result<(), Error> {
    NO_TRANSACTION.make_directory(path)
}

/// Sets the permissions of `path`. The first entry names the owner; its access is that of all
/// domains that are not named.
pub fn set_permissions(path: &str, permissions: &[Permission]) -> Result<(), Error> {
    NO_TRANSACTION.set_permissions(path, permissions)
}

/// A transaction under way: its requests take effect together when it ends, or not at all.
pub struct Transaction {
    id: TransactionId,
}

/// The value for requests that belong to no transaction.
const NO_TRANSACTION: Transaction = Transaction { id: TransactionId::NONE };

impl Transaction {
    fn request(&self, command: Command<'_>) -> Result<Vec<u8>, Error> {
        store().call(&Request { transaction: self.id, command })
    }

    /// As [`read`].
    pub fn read(&self, path: &str) -> Result<String, Error> {
        String::from_utf8(self.request(Command::Read(path))?).map_err(|_| Error::NotUtf8)
    }

    /// As [`write()`].
    pub fn write(&self, path: &str, value: &str) -> Result<(), Error> {
        self.request(Command::Write(path, value.as_bytes())).map(drop)
    }

    /// As [`list`].
    pub fn list(&self, path: &str) -> Result<Vec<String>, Error> {
        match self.request(Command::Directory(path)) {
            Err(Error::Other(name)) if name == "E2BIG" => self.list_in_parts(path),
            reply => Ok(names(&reply?)?),
        }
    }

    /// A list that is too long for one reply.
    fn list_in_parts(&self, path: &str) -> Result<Vec<String>, Error> {
        let mut list = NameList::default();
        while !list.add(&self.request(Command::DirectoryPart { path, offset: list.offset() })?)? {}
        Ok(list.names()?)
    }

    /// As [`remove`].
    pub fn remove(&self, path: &str) -> Result<(), Error> {
        match self.request(Command::Remove(path)) {
            Ok(_) | Err(Error::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// As [`make_directory`].
    pub fn make_directory(&self, path: &str) -> Result<(), Error> {
        self.request(Command::Mkdir(path)).map(drop)
    }

    /// As [`set_permissions`].
    pub fn set_permissions(&self, path: &str, permissions: &[Permission]) -> Result<(), Error> {
        self.request(Command::SetPermissions(path, permissions)).map(drop)
    }
}

/// Runs `body` in a transaction, and repeats it until it meets no other change. An error of `body`
/// undoes it.
pub fn transact<T>(mut body: impl FnMut(&Transaction) -> Result<T, Error>) -> Result<T, Error> {
    loop {
        let id = transaction(&NO_TRANSACTION.request(Command::StartTransaction)?)?;
        let transaction = Transaction { id };
        let result = body(&transaction);
        let end = transaction.request(Command::EndTransaction { commit: result.is_ok() });
        match (result, end) {
            (Ok(_), Err(Error::Again)) => {}
            (Ok(value), end) => return end.map(|_| value),
            (Err(error), _) => return Err(error),
        }
    }
}

/// A watch of a path and the paths below it. Dropping it ends the watch.
pub struct Watch {
    path: String,
    token: String,
}

/// Watches `path`. The first event comes at once.
pub fn watch(path: &str) -> Result<Watch, Error> {
    make_watch(path, None)
}

/// As [`watch`], and signals `event` at each change. It is for a thread that waits for other events
/// too, and asks with [`Watch::take`].
pub fn watch_with(path: &str, event: Arc<Event>) -> Result<Watch, Error> {
    make_watch(path, Some(event))
}

fn make_watch(path: &str, event: Option<Arc<Event>>) -> Result<Watch, Error> {
    let token = {
        let mut state = store().state.lock();
        state.last_token += 1;
        let token = state.last_token.to_string();
        state.watches.insert(
            token.clone(),
            Watcher { path: path.to_string(), life: evtchn::lives(), changes: VecDeque::new(), event },
        );
        token
    };
    // From here on, dropping `watch` cleans up.
    let watch = Watch { path: path.to_string(), token };
    match NO_TRANSACTION.request(Command::Watch { path, token: &watch.token }) {
        // It was set again in a child.
        Ok(_) | Err(Error::Exists) => Ok(watch),
        Err(error) => Err(error),
    }
}

impl Watch {
    /// Waits for the next event and returns the path that changed. Returns `None` when `deadline`
    /// (system time, ns) came first, or when xenstored broke the protocol and no more events will
    /// come.
    pub fn wait(&mut self, deadline: Option<u64>) -> Option<String> {
        let store = store();
        let mut changed = None;
        store.event.wait_for(deadline, || {
            let mut state = store.state.lock();
            store.receive(&mut state);
            changed = state.take_change(&self.token);
            changed.is_some() || state.broken.is_some()
        });
        changed
    }

    /// The next event, if there is one already.
    pub fn take(&mut self) -> Option<String> {
        store().state.lock().take_change(&self.token)
    }
}

impl State {
    fn take_change(&mut self, token: &str) -> Option<String> {
        self.watches.get_mut(token)?.changes.pop_front()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        store().state.lock().watches.remove(&self.token);
        // An error means that the watch was never made, or that the connection is broken.
        let _ = NO_TRANSACTION.request(Command::Unwatch { path: &self.path, token: &self.token });
    }
}
