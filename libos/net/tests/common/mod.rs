//! A dom0 for the tests: xenstore, a toolstack, a network backend that behaves like Linux's
//! xen-netback, and a bridge.
//!
//! Nothing here uses the crate's own ring or slot code: slots are decoded octet by octet from the
//! diagrams of `public/io/netif.h`.
#![allow(dead_code)] // each test binary uses its own part

pub mod back;
pub mod lan;
pub mod server;
pub mod strangers;

use back::{Back, Memory, Words};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use xen_abi::{DomId, Errno, GrantRef, Port};
use zooid_net::platform::{Link, OutOfResources, Platform, SharedPage, Xenstore};

pub const PAGE: usize = 4096;

/// The state that the guest and dom0 share.
pub struct Host {
    pub nodes: RefCell<BTreeMap<String, String>>,
    pub watches: RefCell<Vec<String>>,
    /// A watch has fired since the guest's last step.
    pub watch_pending: Cell<bool>,
    /// The event channel has fired since the guest's last step.
    pub event_pending: Rc<Cell<bool>>,
    /// The guest has notified the backend.
    pub kicked: Rc<Cell<bool>>,
    /// Memory of the newest link, by which the backend maps it.
    pub memory: RefCell<Option<Rc<Memory>>>,
    pub opened: Cell<u32>,
    pub fail_open: Cell<bool>,
    /// Every write of the frontend, in order.
    pub writes: RefCell<Vec<(String, String)>>,
    pub back: RefCell<Option<Back>>,
    /// The frontend's directory cannot be written: the toolstack removed it.
    pub sealed: Cell<bool>,
    pub features: Cell<&'static [&'static str]>,
}

pub const BACKEND: &str = "/local/domain/0/backend/vif/7/0";
pub const FEATURES: &[&str] = &["feature-rx-copy", "feature-sg", "feature-gso-tcpv4"];

impl Host {
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            nodes: RefCell::default(),
            watches: RefCell::default(),
            watch_pending: Cell::new(false),
            event_pending: Rc::default(),
            kicked: Rc::default(),
            memory: RefCell::default(),
            opened: Cell::new(0),
            fail_open: Cell::new(false),
            writes: RefCell::default(),
            back: RefCell::default(),
            sealed: Cell::new(false),
            features: Cell::new(FEATURES),
        })
    }

    pub fn node(&self, path: &str) -> Option<String> {
        self.nodes.borrow().get(path).cloned()
    }

    /// Sets a node as dom0 does, firing watches.
    pub fn set(&self, path: &str, value: &str) {
        self.nodes.borrow_mut().insert(path.into(), value.into());
        self.fire(path);
    }

    pub fn remove(&self, path: &str) {
        self.nodes.borrow_mut().retain(|node, _| !node.starts_with(path));
        self.fire(path);
    }

    fn fire(&self, path: &str) {
        let below = |watch: &String| path.starts_with(watch.as_str()) || watch.starts_with(path);
        if self.watches.borrow().iter().any(below) {
            self.watch_pending.set(true);
        }
    }

    pub fn backend_state(&self) -> Option<String> {
        self.node(&format!("{BACKEND}/state"))
    }

    pub fn set_backend_state(&self, state: &str) {
        self.set(&format!("{BACKEND}/state"), state);
    }

    /// The steps of `xl network-attach` (or of a guest's creation), and of xen-netback's probe.
    pub fn attach(&self, mac: &str) {
        self.sealed.set(false);
        self.set("device/vif/0/backend", BACKEND);
        self.set("device/vif/0/backend-id", "0");
        self.set("device/vif/0/mac", mac);
        self.set("device/vif/0/state", "1");
        self.set(&format!("{BACKEND}/online"), "1");
        for feature in self.features.get() {
            self.set(&format!("{BACKEND}/{feature}"), "1");
        }
        self.set_backend_state("2");
    }

    /// The first half of `xl network-detach`.
    pub fn begin_detach(&self) {
        self.set(&format!("{BACKEND}/online"), "0");
        self.set_backend_state("5");
    }

    /// The second half, once the backend is in Closed.
    pub fn finish_detach(&self) {
        self.remove("device/vif/0");
        self.remove(BACKEND);
        self.sealed.set(true);
    }

    /// The reaction of xen-netback to a change of the frontend's state (`frontend_changed`).
    pub fn backend_react(&self) {
        let front = self.node("device/vif/0/state");
        let back = self.backend_state();
        match (front.as_deref(), back.as_deref()) {
            (Some("1"), Some("6")) => self.set_backend_state("2"),
            (Some("4"), Some("2")) => {
                let memory = self.memory.borrow().clone().expect("a connected frontend has rings");
                let node = |name: &str| self.node(&format!("device/vif/0/{name}")).expect(name);
                assert_eq!(node("tx-ring-ref"), memory.base.to_string());
                assert_eq!(node("rx-ring-ref"), (memory.base + 1).to_string());
                assert_eq!(node("event-channel"), (memory.base + 2).to_string());
                assert_eq!(node("request-rx-copy"), "1");
                assert_eq!(node("feature-rx-notify"), "1");
                assert_eq!(self.node("device/vif/0/feature-no-csum-offload"), None);
                let gso = node("feature-gso-tcpv4") == "1" && node("feature-sg") == "1";
                *self.back.borrow_mut() = Some(Back::new(memory, gso, self.event_pending.clone()));
                self.set_backend_state("4");
            }
            (Some("6"), Some("4" | "5")) => {
                *self.back.borrow_mut() = None;
                self.set_backend_state("6");
            }
            _ => {}
        }
    }
}

pub struct TestPlatform(pub Rc<Host>);

impl Platform for TestPlatform {
    type Link = TestLink;

    fn open(&mut self, backend: DomId, tx_pages: usize, rx_pages: usize) -> Result<TestLink, OutOfResources> {
        assert_eq!(backend, DomId(0));
        if self.0.fail_open.get() {
            return Err(OutOfResources);
        }
        let serial = self.0.opened.get() + 1;
        self.0.opened.set(serial);
        let memory = Rc::new(Memory::new(serial * 10_000, tx_pages, rx_pages));
        *self.0.memory.borrow_mut() = Some(memory.clone());
        Ok(TestLink { memory, tx: vec![0; tx_pages * PAGE], kicked: self.0.kicked.clone() })
    }
}

impl Xenstore for TestPlatform {
    fn read(&mut self, path: &str) -> Result<Option<String>, Errno> {
        Ok(self.0.node(path))
    }

    fn write(&mut self, path: &str, value: &str) -> Result<(), Errno> {
        if self.0.sealed.get() {
            return Err(Errno::EACCES);
        }
        self.0.writes.borrow_mut().push((path.into(), value.into()));
        self.0.set(path, value);
        Ok(())
    }

    fn watch(&mut self, path: &str) -> Result<(), Errno> {
        let mut watches = self.0.watches.borrow_mut();
        if watches.iter().all(|watch| watch != path) {
            watches.push(path.into());
            self.0.watch_pending.set(true);
        }
        Ok(())
    }

    fn unwatch(&mut self, path: &str) {
        self.0.watches.borrow_mut().retain(|watch| watch != path);
    }
}

/// The guest's end of the shared memory.
pub struct TestLink {
    memory: Rc<Memory>,
    tx: Vec<u8>,
    kicked: Rc<Cell<bool>>,
}

impl SharedPage for Words {
    fn read(&self, index: usize) -> u32 {
        self.0.borrow()[index]
    }
    fn write(&self, index: usize, value: u32) {
        self.0.borrow_mut()[index] = value;
    }
}

impl Link for TestLink {
    type Ring = Words;

    fn tx_ring(&self) -> &Self::Ring {
        &self.memory.tx_ring
    }
    fn rx_ring(&self) -> &Self::Ring {
        &self.memory.rx_ring
    }
    fn ring_grefs(&self) -> (GrantRef, GrantRef) {
        (GrantRef(self.memory.base), GrantRef(self.memory.base + 1))
    }
    fn port(&self) -> Port {
        Port(self.memory.base + 2)
    }
    fn tx_gref(&self, page: usize) -> GrantRef {
        // The backend sees the page in its state when the reference is put into a request.
        let range = page * PAGE..(page + 1) * PAGE;
        self.memory.tx.borrow_mut()[range.clone()].copy_from_slice(&self.tx[range]);
        GrantRef(self.memory.base + 1000 + page as u32)
    }
    fn rx_gref(&self, page: usize) -> GrantRef {
        GrantRef(self.memory.base + 2000 + page as u32)
    }
    fn tx_bytes(&mut self, range: Range<usize>) -> &mut [u8] {
        &mut self.tx[range]
    }
    fn rx_copy(&self, page: usize, offset: usize, out: &mut [u8]) {
        let start = page * PAGE + offset;
        out.copy_from_slice(&self.memory.rx.borrow()[start..start + out.len()]);
    }
    fn notify(&self) {
        self.kicked.set(true);
    }
}

impl Drop for TestLink {
    fn drop(&mut self) {
        self.memory.ended.set(true);
    }
}
