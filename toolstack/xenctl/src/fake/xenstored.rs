//! A xenstored in memory, to which real [`Store`]s connect by a pair of sockets, or directly.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use xen_abi::io::xs_wire::{Header, XENSTORE_PAYLOAD_MAX, XsType, strings};
use xen_abi::{DomId, Errno};

use super::state::State as Machine;
use super::{FakeXen, KILLED};
use crate::xenstore::{Inlet, Line, Store};

/// The xenstored beside a [`FakeXen`].
///
/// All requests of the process's connections are operations of the process, which
/// [`FakeXen::inject`] counts. When the process is ended, its connections end. Permissions are kept
/// and not enforced. There are no quotas.
#[derive(Clone, Debug)]
pub struct FakeXenstored {
    fake: FakeXen,
    state: Arc<Mutex<State>>,
    /// It answers in the asking thread.
    direct: bool,
}

#[derive(Debug, Default)]
struct State {
    nodes: Nodes,
    /// Counts changes, so that a transaction sees a conflict.
    generation: u64,
    last_number: u32,
    transactions: BTreeMap<u32, (u64, Nodes, Vec<String>)>,
    watches: Vec<(Arc<Connection>, String, String)>,
    introduced: BTreeSet<DomId>,
    /// See [`FakeXenstored::lost_consoles`].
    lost_consoles: BTreeSet<DomId>,
}

type Nodes = BTreeMap<String, Node>;

#[derive(Clone, Debug)]
struct Node {
    value: Vec<u8>,
    /// In the protocol's form.
    permissions: Vec<u8>,
}

#[derive(Debug)]
struct Connection {
    way: Way,
    /// It is the process's, not one of a guest or a test.
    counted: bool,
}

/// The way out for replies and events.
#[derive(Debug)]
enum Way {
    Socket(UnixStream),
    Direct(Inlet),
}

/// A store's end of a direct connection.
#[derive(Debug)]
struct DirectLine {
    server: FakeXenstored,
    connection: Arc<Connection>,
}

impl Line for DirectLine {
    fn send(&self, mut octets: &[u8]) -> io::Result<()> {
        while !octets.is_empty() {
            let (header, payload) = receive(&mut octets)?;
            self.server.answer(&self.connection, header, &payload)?;
        }
        Ok(())
    }

    fn end(&self) {
        self.server.forget(&self.connection);
    }
}

impl FakeXenstored {
    /// An empty xenstored. A thread serves each connection, as in reality.
    pub fn new(fake: &FakeXen) -> Self {
        FakeXenstored { fake: fake.clone(), state: Arc::default(), direct: false }
    }

    /// One without threads: each request is answered, and each watcher told, before anything else
    /// happens.
    pub fn direct(fake: &FakeXen) -> Self {
        FakeXenstored { direct: true, ..Self::new(fake) }
    }

    /// A connection of the process.
    pub fn connect(&self) -> Store {
        self.serve(true)
    }

    /// A connection of guests or other tools, which does not count.
    pub fn connect_uncounted(&self) -> Store {
        self.serve(false)
    }

    /// All paths and values.
    pub fn nodes(&self) -> BTreeMap<String, String> {
        let text = |node: &Node| String::from_utf8_lossy(&node.value).into_owned();
        self.lock().nodes.iter().map(|(path, node)| (path.clone(), text(node))).collect()
    }

    /// The permissions of a node in the protocol's form, one behind the other: `n3r0`.
    pub fn permissions(&self, path: &str) -> Option<String> {
        let permissions = self.lock().nodes.get(path)?.permissions.clone();
        Some(strings(&permissions).map(String::from_utf8_lossy).collect())
    }

    /// The domains that it serves.
    pub fn introduced(&self) -> Vec<DomId> {
        self.lock().introduced.iter().copied().collect()
    }

    /// Number of domains whose consoles were in the store, and which were never introduced.
    /// xenconsoled looks at all domains when one comes or goes, so it may have mapped these. It
    /// does not hear of their end, and keeps the mappings.
    pub fn lost_consoles(&self) -> usize {
        self.lock().lost_consoles.len()
    }

    /// Looks for domains that have ended, as xenstored does on Xen's event: forgets dying ones, and
    /// fires the watches of `@releaseDomain`.
    pub fn domains_changed(&self) {
        self.fake.with(|machine| {
            let mut state = self.lock();
            state.introduced.retain(|id| machine.domain(*id).is_ok_and(|domain| !domain.dying));
            fire(machine, &state, "@releaseDomain");
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, counted: bool) -> Store {
        let server = self.clone();
        if self.direct {
            return Store::direct(|inlet| {
                let connection = Arc::new(Connection { way: Way::Direct(inlet), counted });
                Box::new(DirectLine { server, connection })
            });
        }
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let ends = ours.try_clone().expect("a socket");
        let connection = Arc::new(Connection { way: Way::Socket(ours), counted });
        thread::spawn(move || {
            // Ends when the store is dropped.
            while let Ok((header, payload)) = receive(&ends) {
                if server.answer(&connection, header, &payload).is_err() {
                    break;
                }
            }
            let _ = ends.shutdown(Shutdown::Both);
            server.forget(&connection);
        });
        Store::over(theirs).expect("a thread")
    }

    /// Forgets a connection that has ended.
    fn forget(&self, connection: &Arc<Connection>) {
        self.lock().watches.retain(|(watcher, ..)| !Arc::ptr_eq(watcher, connection));
    }

    fn answer(&self, connection: &Arc<Connection>, header: Header, payload: &[u8]) -> io::Result<()> {
        // The machine is locked before the store, everywhere.
        let act = |machine: &mut Machine| act(machine, &mut self.lock(), connection, header, payload);
        let result = match connection.counted {
            false => self.fake.with(act),
            true => {
                let name = header.kind().name().unwrap_or("xenstore");
                self.fake.operate(name, act).map_err(|error| error.errno().unwrap_or(KILLED))
            }
        };
        match result {
            Err(KILLED) if connection.counted => Err(io::ErrorKind::ConnectionAborted.into()),
            Err(errno) => send(connection, XsType::ERROR, &header, format!("{errno}\0").as_bytes()),
            Ok(reply) => send(connection, header.kind(), &header, &reply),
        }
    }
}

/// Carries out a request; the reply's payload.
fn act(
    machine: &mut Machine,
    state: &mut State,
    connection: &Arc<Connection>,
    header: Header,
    payload: &[u8],
) -> Result<Vec<u8>, Errno> {
    let texts: Vec<String> = strings(payload).map(|text| String::from_utf8_lossy(text).into_owned()).collect();
    let text = |index: usize| texts.get(index).ok_or(Errno::EINVAL);
    let number = |index: usize| text(index)?.parse::<u64>().map_err(|_| Errno::EINVAL);
    let path = text(0)?;
    let done = Ok(b"OK\0".to_vec());
    match header.kind() {
        XsType::READ => Ok(state.node(header, path)?.value.clone()),
        XsType::GET_PERMS => Ok(state.node(header, path)?.permissions.clone()),
        XsType::DIRECTORY => match state.children(header, path)? {
            names if names.len() > XENSTORE_PAYLOAD_MAX => Err(Errno::E2BIG),
            names => Ok(names),
        },
        XsType::DIRECTORY_PART => {
            let mut names = state.children(header, path)?;
            names.push(0);
            let part = names.get(number(1)? as usize..).ok_or(Errno::EINVAL)?;
            let mut reply = format!("{}\0", state.generation).into_bytes();
            reply.extend(&part[..part.len().min(XENSTORE_PAYLOAD_MAX - reply.len())]);
            // A part ends with a whole name.
            let end = reply.iter().rposition(|octet| *octet == 0).map_or(0, |end| end + 1);
            reply.truncate(end);
            Ok(reply)
        }
        XsType::WRITE => {
            let value = payload[path.len() + 1..].to_vec();
            change(machine, state, header, path, |nodes| {
                make(nodes, path);
                nodes.get_mut(path).expect("just made").value = value;
                Ok(())
            })
        }
        XsType::MKDIR => change(machine, state, header, path, |nodes| {
            make(nodes, path);
            Ok(())
        }),
        XsType::RM => change(machine, state, header, path, |nodes| {
            nodes.remove(path).ok_or(Errno::ENOENT)?;
            nodes.retain(|other, _| !is_below(other, path));
            Ok(())
        }),
        XsType::SET_PERMS => change(machine, state, header, path, |nodes| {
            nodes.get_mut(path).ok_or(Errno::ENOENT)?.permissions = payload[path.len() + 1..].to_vec();
            Ok(())
        }),
        XsType::WATCH => {
            let watch = (connection.clone(), path.clone(), text(1)?.clone());
            // xenstored sends the event behind the reply; a client has to bear either order.
            tell(&watch, path);
            state.watches.push(watch);
            done
        }
        XsType::UNWATCH => {
            let token = text(1)?;
            let is_this = |watch: &(Arc<Connection>, String, String)| {
                Arc::ptr_eq(&watch.0, connection) && (&watch.1, &watch.2) == (path, token)
            };
            let found = state.watches.iter().position(is_this).ok_or(Errno::ENOENT)?;
            state.watches.remove(found);
            done
        }
        XsType::TRANSACTION_START => {
            state.last_number += 1;
            let begun = (state.generation, state.nodes.clone(), Vec::new());
            state.transactions.insert(state.last_number, begun);
            Ok(format!("{}\0", state.last_number).into_bytes())
        }
        XsType::TRANSACTION_END => {
            let (generation, nodes, changed) = state.transactions.remove(&header.tx_id()).ok_or(Errno::ENOENT)?;
            if path == "T" && !changed.is_empty() {
                if generation != state.generation {
                    return Err(Errno::EAGAIN);
                }
                (state.nodes, state.generation) = (nodes, generation + 1);
                changed.iter().for_each(|path| fire(machine, state, path));
            }
            done
        }
        XsType::INTRODUCE => {
            let domain = DomId(number(0)? as u16);
            machine.domain(domain)?;
            state.introduced.insert(domain);
            state.lost_consoles.remove(&domain);
            fire(machine, state, "@introduceDomain");
            done
        }
        XsType::RELEASE => {
            let known = state.introduced.remove(&DomId(number(0)? as u16));
            fire(machine, state, "@releaseDomain");
            if known { done } else { Err(Errno::ENOENT) }
        }
        XsType::IS_DOMAIN_INTRODUCED => {
            let known = state.introduced.contains(&DomId(number(0)? as u16));
            Ok(if known { b"T\0".to_vec() } else { b"F\0".to_vec() })
        }
        _ => Err(Errno::ENOSYS),
    }
}

/// Changes the nodes, or those of the transaction.
fn change(
    machine: &mut Machine,
    state: &mut State,
    header: Header,
    path: &str,
    change: impl FnOnce(&mut Nodes) -> Result<(), Errno>,
) -> Result<Vec<u8>, Errno> {
    if !path.starts_with('/') {
        return Err(Errno::EINVAL);
    }
    match header.tx_id() {
        0 => {
            change(&mut state.nodes)?;
            state.generation += 1;
            fire(machine, state, path);
            if let Some(domain) =
                path.strip_prefix("/local/domain/").and_then(|path| path.strip_suffix("/console/port"))
                && let Ok(domain) = domain.parse().map(DomId)
                && !state.introduced.contains(&domain)
                && machine.domain(domain).is_ok_and(|domain| !domain.dying)
            {
                state.lost_consoles.insert(domain);
            }
        }
        id => {
            let (_, nodes, changed) = state.transactions.get_mut(&id).ok_or(Errno::ENOENT)?;
            change(nodes)?;
            changed.push(path.to_owned());
        }
    }
    Ok(b"OK\0".to_vec())
}

/// Sends a change of `path` to the watchers of it, of nodes above, and of nodes below.
fn fire(machine: &Machine, state: &State, path: &str) {
    for watch in state.watches.iter().filter(|(watcher, ..)| !(machine.killed && watcher.counted)) {
        if watch.1 == path || is_below(path, &watch.1) {
            tell(watch, path);
        } else if is_below(&watch.1, path) {
            tell(watch, &watch.1);
        }
    }
}

impl State {
    fn nodes(&self, header: Header) -> Result<&Nodes, Errno> {
        match header.tx_id() {
            0 => Ok(&self.nodes),
            id => self.transactions.get(&id).map(|(_, nodes, _)| nodes).ok_or(Errno::ENOENT),
        }
    }

    fn node(&self, header: Header, path: &str) -> Result<&Node, Errno> {
        self.nodes(header)?.get(path).ok_or(Errno::ENOENT)
    }

    /// The names right below a node, each with a NUL.
    fn children(&self, header: Header, path: &str) -> Result<Vec<u8>, Errno> {
        self.node(header, path)?;
        let below = self.nodes(header)?.keys().filter(|other| is_below(other, path));
        let names =
            below.map(|other| &other[path.trim_end_matches('/').len() + 1..]).filter(|name| !name.contains('/'));
        Ok(names.flat_map(|name| name.bytes().chain([0])).collect())
    }
}

fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above.trim_end_matches('/')).is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'))
}

/// Makes a node and those above it, unless they exist. A new one has the permissions of the one
/// above.
fn make(nodes: &mut Nodes, path: &str) {
    if nodes.contains_key(path) {
        return;
    }
    let permissions = match path.rsplit_once('/').filter(|_| path != "/") {
        Some((above, _)) => {
            let above = if above.is_empty() { "/" } else { above };
            make(nodes, above);
            nodes[above].permissions.clone()
        }
        None => b"n0\0".to_vec(),
    };
    nodes.insert(path.to_owned(), Node { value: Vec::new(), permissions });
}

/// Sends the event of a watch. The connection may have ended.
fn tell((connection, _, token): &(Arc<Connection>, String, String), path: &str) {
    let payload = format!("{path}\0{token}\0");
    let header = Header::new(XsType::WATCH_EVENT, 0, 0, payload.len()).expect("a short path");
    let _ = connection.send(&[&header.encode()[..], payload.as_bytes()].concat());
}

impl Connection {
    fn send(&self, octets: &[u8]) -> io::Result<()> {
        match &self.way {
            Way::Socket(socket) => (&mut &*socket).write_all(octets),
            Way::Direct(inlet) => {
                inlet.receive(octets);
                Ok(())
            }
        }
    }
}

fn send(connection: &Connection, kind: XsType, request: &Header, payload: &[u8]) -> io::Result<()> {
    let header = Header::new(kind, request.req_id(), request.tx_id(), payload.len()).map_err(io::Error::other)?;
    connection.send(&[&header.encode()[..], payload].concat())
}

fn receive(mut from: impl Read) -> io::Result<(Header, Vec<u8>)> {
    let mut octets = [0; Header::SIZE];
    from.read_exact(&mut octets)?;
    let header = Header::decode(octets).map_err(io::Error::other)?;
    let mut payload = vec![0; header.payload_len()];
    from.read_exact(&mut payload)?;
    Ok((header, payload))
}
