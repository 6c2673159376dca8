//! The engine's settings.

use std::path::PathBuf;
use std::time::Duration;

use crate::library::{KEYS, STORE};

/// Settings of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The way by which children get their parents' memory.
    pub backend: BackendChoice,
    /// The memory that is checked before a fork.
    pub overcommit: Overcommit,
    /// Prepared domains that a root pVM has at least.
    pub pool: u32,
    /// Limits for each family.
    pub family: Quota,
    /// Limits for all pVMs of the host together.
    pub host: Quota,
    /// Memory in KiB that stays free for others, whatever the quotas say.
    pub keep_free_kib: u64,
    /// The directory of the libraries that pVMs may open.
    pub libraries: PathBuf,
    /// The directory of the public keys that are trusted for libraries.
    pub keys: PathBuf,
    /// Most memory of libraries that pVMs have mapped, in KiB.
    pub library_memory_kib: u64,
    /// Most memory of dom0 for page tables of one family's pVMs, in KiB.
    pub family_tables_kib: u64,
    /// The domains that may announce themselves as pVMs.
    pub announce: Announce,
    /// The child's network device; none if children have none.
    pub child_vif: Option<ChildVif>,
    /// The time that a child lives before xenstored and xenconsoled are told of it.
    pub introduce_after: Duration,
    /// The longest time of a fork from outside.
    pub outside_timeout: Duration,
    /// The longest time of a prepared domain to its waiting point, and of a child to resume, before
    /// it counts as broken.
    pub start_timeout: Duration,
    /// For tests: the operation of the executor at which the daemon ends as if killed.
    pub die_at: Option<DieAt>,
}

/// The place where [`Config::die_at`] ends the daemon: text such as `17`, `17:after`, `Record` or
/// `Record.2:after`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DieAt {
    /// The operation.
    pub point: Point,
    /// The daemon ends after it, and not before.
    pub after: bool,
}

/// An operation, counted since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Point {
    /// The one of this number, from 0.
    Number(u64),
    /// The one of this number, from 1, among those of this name.
    Named(String, u64),
}

/// The way by which children get their parents' memory.
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

/// The memory that is checked before a fork.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overcommit {
    /// Only the pages that a child copies at once. A later write that finds no frame ends the
    /// writer.
    #[default]
    Always,
    /// Copies of all pages by both sides.
    Never,
}

/// The domains that may announce themselves as pVMs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Announce {
    /// Those that were started with a Zooid image, and those with a node that only dom0 can write.
    #[default]
    Known,
    /// All.
    Any,
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

/// A child's network device. Its MAC is made from random bits of the host and the child's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildVif {
    /// Bridge that the device is plugged into.
    pub bridge: String,
    /// Hotplug script, with its path.
    pub script: String,
    /// The child's address as its setting `net=` has it: `dhcp`, or an address.
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
            libraries: STORE.into(),
            keys: KEYS.into(),
            library_memory_kib: 1 << 20,
            family_tables_kib: 256 << 10,
            announce: Announce::default(),
            child_vif: None,
            introduce_after: Duration::from_millis(100),
            outside_timeout: Duration::from_secs(5),
            start_timeout: Duration::from_secs(10),
            die_at: None,
        }
    }
}

impl std::str::FromStr for DieAt {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (point, after) = match text.split_once(':') {
            Some((point, when)) => (point, when == "after"),
            None => (text, false),
        };
        let is_name = point.starts_with(|first: char| first.is_ascii_uppercase());
        let point = match point.split_once('.') {
            Some((name, number)) if is_name => Point::Named(name.to_owned(), number.parse()?),
            None if is_name => Point::Named(point.to_owned(), 1),
            _ => Point::Number(point.parse()?),
        };
        Ok(Self { point, after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_to_die_at_is_a_number_or_a_name() {
        let named = |name: &str, number| Point::Named(name.to_owned(), number);
        for (text, point, after) in [
            ("17", Point::Number(17), false),
            ("17:after", Point::Number(17), true),
            ("Record", named("Record", 1), false),
            ("Record.2:after", named("Record", 2), true),
        ] {
            assert_eq!(text.parse(), Ok(DieAt { point, after }), "{text}");
        }
        for text in ["", "x", "1.2", "Record.", "Record.x", ":after"] {
            assert!(text.parse::<DieAt>().is_err(), "{text}");
        }
    }
}
