//! The frontend's side of the xenstore negotiation with the network backend.
//!
//! [`Frontend::step`] reads the present state of xenstore and does the next step. It is called once
//! at the start and after every watch event; further calls do no harm. The backend may go away and
//! come back at any time. The frontend then closes, returns to Initialising when the backend is
//! ready for it, and connects again with fresh rings.

use crate::device::{Connection, Features, MTU, MTU_MAX, MTU_MIN, Pages};
use crate::platform::{Link, OutOfResources, Platform, Xenstore};
use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;
use smoltcp::wire::EthernetAddress;
use xen_abi::io::xenbus::XenbusState as State;
use xen_abi::{DomId, Errno};

/// The obstacle to a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The guest has no network device (no `vif=` line in its configuration).
    NoDevice,
    /// The backend has not connected. The value is that of its `state` node.
    Backend(Option<String>),
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDevice => f.write_str("the guest has no network device; add a vif= line to its configuration"),
            Self::Backend(Some(state)) => {
                write!(f, "the network backend stays in state {state}; see its hotplug script and xen-netback")
            }
            Self::Backend(None) => {
                f.write_str("the network backend has no state in xenstore; is xen-netback loaded in dom0?")
            }
        }
    }
}

/// The reason for which a step failed. The state of the frontend has not changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrontendError {
    /// Xenstore refused, with this errno.
    Store(Errno),
    /// The kernel had no memory, grants or event channel left.
    Resources,
    /// A node has an invalid value (blame: toolstack or backend).
    Malformed {
        /// The node below the frontend's or the backend's directory.
        node: &'static str,
        /// Its value.
        value: String,
    },
}

impl fmt::Display for FrontendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => write!(f, "network device: {error}"),
            Self::Resources => f.write_str("network device: no memory, grants or event channels left"),
            Self::Malformed { node, value } => {
                write!(f, "network device: xenstore node {node} holds {value:?}")
            }
        }
    }
}

impl core::error::Error for FrontendError {}

impl From<Errno> for FrontendError {
    fn from(error: Errno) -> Self {
        Self::Store(error)
    }
}

impl From<OutOfResources> for FrontendError {
    fn from(_: OutOfResources) -> Self {
        Self::Resources
    }
}

/// The change made by a step. After anything but `Nothing` another step is due.
#[derive(Debug)]
pub enum Step<L: Link> {
    /// No change for the device.
    Nothing,
    /// A new connection. The one before it is void.
    Linked(Connection<L>),
    /// The backend has mapped the rings, so earlier requests must be announced again.
    Ready,
    /// The backend and the connection are gone.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// In Initialising, until the backend is in InitWait.
    Waiting,
    /// Published and in Connected; the backend may not have followed yet.
    Published,
    /// The backend followed.
    Connected,
    /// In Closed, until the backend can begin again.
    Closed,
}

/// The state machine of one `device/vif/N`.
#[derive(Debug)]
pub struct Frontend {
    path: String,
    /// The backend's directory, once known, and watched.
    backend: Option<String>,
    phase: Phase,
    obstacle: Obstacle,
    pages: Pages,
    offload: bool,
}

impl Frontend {
    /// A frontend for device `index`. If `offload` is false, it declines packets of several pages.
    pub fn new(index: u32, pages: Pages, offload: bool) -> Self {
        Self {
            path: format!("device/vif/{index}"),
            backend: None,
            phase: Phase::Waiting,
            obstacle: Obstacle::NoDevice,
            pages,
            offload,
        }
    }

    /// The obstacle to a connection; `None` when there is a connection.
    pub fn obstacle(&self) -> Option<&Obstacle> {
        match self.phase {
            Phase::Connected => None,
            Phase::Waiting | Phase::Published | Phase::Closed => Some(&self.obstacle),
        }
    }

    /// Forgets the device of the parent, in the child of a fork. The child has another one below
    /// the same path, or none.
    pub fn begin_life(&mut self) {
        self.phase = Phase::Waiting;
        self.obstacle = Obstacle::NoDevice;
    }

    /// True if the toolstack has made the device.
    ///
    /// # Errors
    /// Xenstore refused.
    pub fn has_device(&self, store: &mut impl Xenstore) -> Result<bool, FrontendError> {
        Ok(store.read(&self.node("backend"))?.is_some())
    }

    /// Watches the device's directory. It is called once, before the first step.
    ///
    /// # Errors
    /// Xenstore refused.
    pub fn start(&mut self, store: &mut impl Xenstore) -> Result<(), FrontendError> {
        Ok(store.watch(&self.path)?)
    }

    /// Does the step that the present contents of xenstore call for.
    ///
    /// # Errors
    /// See [`FrontendError`]; the next step tries again.
    pub fn step<P: Platform + Xenstore>(&mut self, platform: &mut P) -> Result<Step<P::Link>, FrontendError> {
        let Some(backend) = self.find_backend(platform)? else {
            self.obstacle = Obstacle::NoDevice;
            return Ok(self.lose(Phase::Waiting));
        };
        let text = platform.read(&format!("{backend}/state"))?;
        let theirs = state(text.as_deref());
        let ours = state(platform.read(&self.node("state"))?.as_deref());
        self.obstacle = Obstacle::Backend(text);

        match (self.phase, theirs) {
            (Phase::Waiting, State::INIT_WAIT) => self.connect(platform, &backend),
            (Phase::Waiting, _) => Ok(Step::Nothing),
            // The toolstack made the directory anew: this is another device than the connected one.
            (_, _) if ours == State::INITIALISING => {
                let step = self.lose(Phase::Waiting);
                match theirs {
                    State::INIT_WAIT => self.connect(platform, &backend),
                    _ => Ok(step),
                }
            }
            (Phase::Published, State::INITIALISING | State::INIT_WAIT | State::INITIALISED) => Ok(Step::Nothing),
            (Phase::Published, State::CONNECTED) => {
                self.phase = Phase::Connected;
                Ok(Step::Ready)
            }
            (Phase::Connected, State::CONNECTED) => Ok(Step::Nothing),
            (Phase::Published | Phase::Connected, _) => Ok(self.close(platform)),
            (Phase::Closed, _) => self.reopen(platform, &backend, theirs),
        }
    }

    /// Gives the connection up, because the backend leaves or broke the protocol. Later steps begin
    /// anew once the backend can.
    pub fn close<P: Platform + Xenstore>(&mut self, platform: &mut P) -> Step<P::Link> {
        let step = self.lose(Phase::Closed);
        // If this fails, the toolstack has removed the directory, and the backend does not wait for
        // us.
        let _ = self.set_state(platform, State::CLOSED);
        step
    }

    /// Begins again after Closed, once the backend can. A backend that is being removed (`online`
    /// is 0) must see the frontend stay in Closed, or its removal never ends.
    fn reopen<P: Platform + Xenstore>(
        &mut self,
        platform: &mut P,
        backend: &str,
        theirs: State,
    ) -> Result<Step<P::Link>, FrontendError> {
        let ready = match theirs {
            State::INITIALISING | State::INIT_WAIT | State::INITIALISED => true,
            State::CLOSED => platform.read(&format!("{backend}/online"))?.as_deref() == Some("1"),
            _ => false,
        };
        if ready {
            self.set_state(platform, State::INITIALISING)?;
            self.phase = Phase::Waiting;
            if theirs == State::INIT_WAIT {
                return self.connect(platform, backend);
            }
        }
        Ok(Step::Nothing)
    }

    /// The backend's directory, as the frontend's names it, watched from the first time it is seen.
    fn find_backend(&mut self, store: &mut impl Xenstore) -> Result<Option<String>, FrontendError> {
        let found = store.read(&self.node("backend"))?;
        if found != self.backend {
            if let Some(old) = self.backend.take() {
                store.unwatch(&format!("{old}/state"));
            }
            if let Some(new) = &found {
                store.watch(&format!("{new}/state"))?;
            }
            self.backend.clone_from(&found);
        }
        Ok(found)
    }

    fn connect<P: Platform + Xenstore>(
        &mut self,
        platform: &mut P,
        backend: &str,
    ) -> Result<Step<P::Link>, FrontendError> {
        let domid = self.required(platform, "backend-id")?;
        let domid = DomId(domid.parse().map_err(|_| malformed("backend-id", domid))?);
        let mac = self.required(platform, "mac")?;
        let mac = parse_mac(&mac).ok_or_else(|| malformed("mac", mac))?;
        let mtu = match platform.read(&self.node("mtu"))? {
            Some(text) => parse_mtu(&text).ok_or_else(|| malformed("mtu", text))?,
            None => MTU,
        };
        let mut offered = |feature| -> Result<bool, FrontendError> {
            let value = platform.read(&format!("{backend}/{feature}"))?;
            Ok(value.as_deref() == Some("1"))
        };
        // The data is copied into our pages (rx-copy). A backend without it flips pages, which no
        // backend has done since Linux 2.6.
        if !offered("feature-rx-copy")? {
            return Err(malformed("feature-rx-copy", String::new()));
        }
        let gso = self.offload && offered("feature-sg")? && offered("feature-gso-tcpv4")?;
        // Longer packets take several pages, as large segments do.
        let mtu = if gso { mtu } else { mtu.min(MTU) };

        let link = platform.open(domid, self.pages.tx, self.pages.rx)?;
        let connection = Connection::new(link, self.pages, Features { mac, gso, mtu });
        self.publish(platform, connection.link(), gso)?;
        self.phase = Phase::Published;
        Ok(Step::Linked(connection))
    }

    /// Writes the nodes for the backend. It reads them only once it sees Connected, so the state
    /// comes last and no transaction is needed.
    fn publish(&self, store: &mut impl Xenstore, link: &impl Link, gso: bool) -> Result<(), FrontendError> {
        let (tx, rx) = link.ring_grefs();
        let gso = if gso { "1" } else { "0" };
        store.write(&self.node("tx-ring-ref"), &tx.0.to_string())?;
        store.write(&self.node("rx-ring-ref"), &rx.0.to_string())?;
        store.write(&self.node("event-channel"), &link.port().0.to_string())?;
        store.write(&self.node("request-rx-copy"), "1")?;
        store.write(&self.node("feature-rx-notify"), "1")?;
        store.write(&self.node("feature-sg"), gso)?;
        store.write(&self.node("feature-gso-tcpv4"), gso)?;
        self.set_state(store, State::CONNECTED)
    }

    fn required(&self, store: &mut impl Xenstore, node: &'static str) -> Result<String, FrontendError> {
        let value = store.read(&self.node(node))?;
        value.ok_or_else(|| malformed(node, String::new()))
    }

    fn set_state(&self, store: &mut impl Xenstore, state: State) -> Result<(), FrontendError> {
        Ok(store.write(&self.node("state"), &state.0.to_string())?)
    }

    fn lose<L: Link>(&mut self, phase: Phase) -> Step<L> {
        let linked = matches!(self.phase, Phase::Published | Phase::Connected);
        self.phase = phase;
        if linked { Step::Lost } else { Step::Nothing }
    }

    fn node(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }
}

/// The state in a node. A missing or malformed one counts as UNKNOWN.
fn state(text: Option<&str>) -> State {
    text.and_then(|text| text.parse().ok()).map_or(State::UNKNOWN, State)
}

fn malformed(node: &'static str, value: String) -> FrontendError {
    FrontendError::Malformed { node, value }
}

fn parse_mtu(text: &str) -> Option<usize> {
    text.parse().ok().filter(|mtu| (MTU_MIN..=MTU_MAX).contains(mtu))
}

/// `00:16:3e:01:02:03`, the address of one host.
fn parse_mac(text: &str) -> Option<EthernetAddress> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for octet in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *octet = u8::from_str_radix(part, 16).ok()?;
    }
    let mac = EthernetAddress(mac);
    (parts.next().is_none() && mac.is_unicast() && mac.0 != [0; 6]).then_some(mac)
}
