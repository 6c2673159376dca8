//! The stack in the child of a fork.
//!
//! The child's memory holds its parent's stack, which goes on in the parent with its device,
//! address and connections. The child gets a device and an address of its own, some time later.
//! Listeners and UDP sockets stay, empty, and are reached there. Handles of connections and name
//! queries are stale, and no packet is ever sent for them.

use super::{Kind, NotReady, Random, Stack};
use crate::config::NetConfig;
use crate::netfront::FrontendError;
use crate::platform::{Platform, Xenstore};
use smoltcp::time::Instant;

/// The node of a child's configuration, below its home, in the form of `net=`. The maker of the
/// child's device writes it before the device.
pub const CONFIG_NODE: &str = "data/zooid-net";

/// The owner of the configuration.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    /// This domain's own.
    Own(NetConfig),
    /// The parent's configuration, in a child that has none of its own yet.
    Parent {
        config: NetConfig,
        /// The child has a device, so no configuration will follow.
        final_word: bool,
    },
}

impl Origin {
    fn config(self) -> NetConfig {
        match self {
            Self::Own(config) | Self::Parent { config, .. } => config,
        }
    }

    pub(super) fn parents(config: NetConfig) -> Self {
        Self::Parent { config, final_word: false }
    }

    pub(super) fn wants_lease(self) -> bool {
        matches!(self, Self::Own(NetConfig::Dhcp))
    }

    /// The reason for which there will be no network, as far as the configuration tells.
    pub(super) fn obstacle(self) -> Option<NotReady> {
        match self {
            Self::Own(NetConfig::Off) | Self::Parent { config: NetConfig::Off, .. } => Some(NotReady::Off),
            Self::Parent { config: NetConfig::Static(_), final_word: true } => Some(NotReady::NoAddress),
            _ => None,
        }
    }
}

impl<P: Platform + Xenstore> Stack<P> {
    /// Turns the parent's stack into the child's, before any other use. It then waits for the
    /// child's own configuration and device. `seed` differs from that of the parent and all
    /// siblings.
    ///
    /// Nothing of the platform is used. From now on its watches must report the child's own
    /// xenstore home.
    pub fn begin_life(&mut self, seed: u64) {
        self.origin = Origin::parents(self.origin.config());
        self.random = Random::new(seed);
        self.frontend.begin_life();
        self.net.device.begin_life();
        self.net.ethernet.begin_life();
        (self.net.interface, self.net.mac) = (None, None);
        self.net.next_deadline = None;
        self.address = None;
        self.flows.clear();
        self.half_open.clear();
        self.time_wait.clear();
        for listener in self.listeners.values_mut() {
            listener.begin_life();
        }
        self.forget_queries();
        self.dhcp = None;
        for handle in self.net.table.select(|entry| !matches!(entry.kind, Kind::Udp(_))) {
            self.forget(handle);
        }
        for handle in self.net.table.select(|_| true) {
            self.udp_begin_life(handle);
        }
    }

    /// Reads a child's own configuration. Returns false when there is none yet, or it wants no
    /// network; the device is then left alone.
    pub(super) fn settle_configuration(&mut self, now: Instant) -> Result<bool, FrontendError> {
        let parents = match self.origin {
            Origin::Own(config) => return Ok(config != NetConfig::Off),
            Origin::Parent { config, .. } => config,
        };
        self.platform.watch(CONFIG_NODE)?;
        // In this order, because the device is made last.
        let has_device = self.frontend.has_device(&mut self.platform)?;
        let config = match self.platform.read(CONFIG_NODE)? {
            Some(text) => text.parse().map_err(|_| FrontendError::Malformed { node: CONFIG_NODE, value: text })?,
            // A fixed address belongs to the parent alone.
            None if has_device && !matches!(parents, NetConfig::Static(_)) => parents,
            None => {
                self.origin = Origin::Parent { config: parents, final_word: has_device };
                return Ok(false);
            }
        };
        self.platform.unwatch(CONFIG_NODE);
        self.origin = Origin::Own(config);
        self.configure(config, now);
        Ok(config != NetConfig::Off)
    }
}
