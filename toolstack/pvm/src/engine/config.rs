//! What the engine is told when it starts.

use std::time::Duration;

/// Settings of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How children get their parents' memory.
    pub backend: BackendChoice,
    /// What is checked before a fork.
    pub overcommit: Overcommit,
    /// Prepared domains that a root pVM has at least.
    pub pool: u32,
    /// Limits for each family.
    pub family: Quota,
    /// Limits for all pVMs of the host together.
    pub host: Quota,
    /// Memory in KiB that stays free for others, whatever the quotas say.
    pub keep_free_kib: u64,
    /// The child's network device; nothing: a child has none.
    pub child_vif: Option<ChildVif>,
    /// How long a fork from outside may take.
    pub outside_timeout: Duration,
    /// How long a prepared domain may take to its waiting point, and a child to resume, before it counts as broken.
    pub start_timeout: Duration,
    /// For tests: end at once, as if killed, at this operation of the executor.
    pub die_at: Option<DieAt>,
}

/// Where [`Config::die_at`] ends the daemon: text such as `17` or `17:after`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DieAt {
    /// Number of the operation, from 0, counted since the start.
    pub operation: u64,
    /// After it, and not before.
    pub after: bool,
}

/// Which way children get their parents' memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// Foreign page-table entries where dom0 can make them, else grants.
    #[default]
    Auto,
    /// Foreign page-table entries.
    Foreign,
    /// Grants.
    Grant,
}

/// What is checked before a fork.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overcommit {
    /// Only that the pages which a child copies at once are there. A later write that finds no frame ends the writer.
    #[default]
    Always,
    /// That both sides could copy everything.
    Never,
}

/// Limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// pVMs and prepared domains.
    pub pvms: u32,
    /// Their memory, in KiB.
    pub memory_kib: u64,
    /// Children made within a second, on average; as many again may come at once.
    pub forks_per_second: u32,
}

/// A child's network device. Its MAC is made from the child's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildVif {
    /// Bridge that the device is plugged into.
    pub bridge: String,
    /// Hotplug script, with its path.
    pub script: String,
    /// What the child is told of its address, as its own setting `net=` would: `dhcp`, or an address.
    pub net: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            backend: BackendChoice::Auto,
            overcommit: Overcommit::Always,
            pool: 1,
            family: Quota { pvms: 1024, memory_kib: 4 << 20, forks_per_second: 1000 },
            host: Quota { pvms: 8192, memory_kib: u64::MAX, forks_per_second: 2000 },
            keep_free_kib: 16 << 10,
            child_vif: None,
            outside_timeout: Duration::from_secs(5),
            start_timeout: Duration::from_secs(10),
            die_at: None,
        }
    }
}

impl std::str::FromStr for DieAt {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, after) = match text.split_once(':') {
            Some((number, when)) => (number, when == "after"),
            None => (text, false),
        };
        Ok(Self { operation: number.parse()?, after })
    }
}
