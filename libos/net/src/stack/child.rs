//! What a fork makes of a stack in the child.
//!
//! The child's memory holds its parent's stack, and all of that goes on in the parent: device, address, connections. The child
//! gets a device and an address of its own, some time later. Listeners and UDP sockets stay, empty, and are reached there;
//! handles of connections and name queries are stale, and no packet is ever sent for them.

use super::{Kind, NotReady, Random, Stack};
use crate::config::NetConfig;
use crate::netfront::FrontendError;
use crate::platform::{Platform, Xenstore};

/// Where a child's configuration stands, below its home: what `net=` may say. Who makes the child's device writes this
/// before.
pub const CONFIG_NODE: &str = "data/zooid-net";

/// Whose the configuration is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    /// This domain's own.
    Own(NetConfig),
    /// That of the parent, in a child that was not told its own yet.
    Parent {
        config: NetConfig,
        /// The child has a device, so that nothing more will be told.
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

    /// Why there will be no network, as far as the configuration tells.
    pub(super) fn obstacle(self) -> Option<NotReady> {
        match self {
            Self::Own(NetConfig::Off) | Self::Parent { config: NetConfig::Off, .. } => Some(NotReady::Off),
            Self::Parent { config: NetConfig::Static(_), final_word: true } => Some(NotReady::NoAddress),
            _ => None,
        }
    }
}

impl<P: Platform + Xenstore> Stack<P> {
    /// Makes what was the parent's stack the child's, before anything else is asked of it. It then waits for the
    /// child's own configuration and device. `seed` is other than the parent's and all siblings'.
    ///
    /// Of the platform, nothing is used; the watches that it keeps must tell of the child's own xenstore home from now on.
    pub fn begin_life(&mut self, seed: u64) {
        self.origin = Origin::parents(self.origin.config());
        self.random = Random(seed);
        self.frontend.begin_life();
        self.net.device.begin_life();
        self.net.interface = None;
        self.net.next_deadline = None;
        self.address = None;
        self.flows.clear();
        self.time_wait.clear();
        for listener in self.listeners.values_mut() {
            listener.begin_life();
        }
        self.forget_queries();
        (self.dns, self.dhcp) = (None, None);
        for handle in self.net.table.select(|entry| !matches!(entry.kind, Kind::Udp(_))) {
            self.forget(handle);
        }
        for handle in self.net.table.select(|_| true) {
            self.udp_begin_life(handle);
        }
    }

    /// Finds out a child's own configuration. False when there is none yet, or it wants no network: the device is to be
    /// left alone.
    pub(super) fn settle_configuration(&mut self) -> Result<bool, FrontendError> {
        let parents = match self.origin {
            Origin::Own(config) => return Ok(config != NetConfig::Off),
            Origin::Parent { config, .. } => config,
        };
        self.platform.watch(CONFIG_NODE)?;
        // In this order, because the device is made last.
        let has_device = self.frontend.has_device(&mut self.platform)?;
        let config = match self.platform.read(CONFIG_NODE)? {
            Some(text) => text.parse().map_err(|_| FrontendError::Malformed { node: CONFIG_NODE, value: text })?,
            // An address that was given belongs to the parent alone.
            None if has_device && !matches!(parents, NetConfig::Static(_)) => parents,
            None => {
                self.origin = Origin::Parent { config: parents, final_word: has_device };
                return Ok(false);
            }
        };
        self.platform.unwatch(CONFIG_NODE);
        self.origin = Origin::Own(config);
        self.configure(config);
        Ok(config != NetConfig::Off)
    }
}
