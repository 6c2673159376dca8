//! The operator's settings: the same names are options of `pvmd` and keys of
//! `/etc/zooid/pvmd.toml`.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use std::{fmt, fs, io};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Deserializer, de};

use crate::engine::{Announce, BackendChoice, ChildVif, Config, DieAt, Overcommit, Quota};

/// Script that plugs a vif into its bridge (Xen's `docs/misc/vif-script`).
const VIF_SCRIPT: &str = "/etc/xen/scripts/vif-bridge";
/// Longest time of a setting.
const MAX_TIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest name of a network interface in Linux (IFNAMSIZ without its NUL).
const MAX_INTERFACE_NAME: usize = 15;

/// The settings from one source; the defaults are those of [`Config`].
#[derive(Args, Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    /// The way by which children get their parents' memory: foreign page-table entries, grants, or
    /// those of the two that dom0 can [default: auto]
    #[arg(long, value_enum, value_name = "NAME")]
    pub backend: Option<BackendName>,
    /// always: a fork reserves what it copies at once; never: it reserves all that both sides could
    /// copy [default: always]
    #[arg(long, value_enum, value_name = "WHEN")]
    pub overcommit: Option<OvercommitName>,
    /// Domains that are kept prepared for each root pVM [default: 1]
    #[arg(long, value_name = "NUMBER")]
    pub pool: Option<u32>,
    /// Most pVMs of one family, prepared domains included [default: 1024]
    #[arg(long, value_name = "NUMBER")]
    pub family_pvms: Option<u32>,
    /// Most memory of one family, such as 512M or 4G [default: 4G]
    #[arg(long, value_name = "SIZE")]
    pub family_memory: Option<Size>,
    /// Most forks of one family in a second, on average [default: 1000]
    #[arg(long, value_name = "NUMBER")]
    pub family_forks_per_second: Option<u32>,
    /// Most pVMs of the host, prepared domains included [default: 8192]
    #[arg(long, value_name = "NUMBER")]
    pub host_pvms: Option<u32>,
    /// Most memory of all pVMs together [default: no limit]
    #[arg(long, value_name = "SIZE")]
    pub host_memory: Option<Size>,
    /// Most forks of the host in a second, on average [default: 2000]
    #[arg(long, value_name = "NUMBER")]
    pub host_forks_per_second: Option<u32>,
    /// Memory that stays free for other domains, whatever the quotas say [default: 16M]
    #[arg(long, value_name = "SIZE")]
    pub keep_free: Option<Size>,
    /// Most memory of libraries that pVMs have mapped [default: 1G]
    #[arg(long, value_name = "SIZE")]
    pub library_memory: Option<Size>,
    /// Most memory of dom0 for page tables of one family's pVMs [default: 256M]
    #[arg(long, value_name = "SIZE")]
    pub family_tables: Option<Size>,
    /// Domains that may announce themselves as pVMs: known, those that were started with a Zooid
    /// image, or whose node /libxl/DOMID/zooid-announce dom0 has set to 1; any, all [default:
    /// known]
    #[arg(long, value_enum, value_name = "WHICH")]
    pub announce: Option<AnnounceName>,
    /// Bridge that children's network devices are plugged into; without it children have none
    #[arg(long, value_name = "INTERFACE")]
    pub child_bridge: Option<String>,
    /// Script that plugs them in [default: /etc/xen/scripts/vif-bridge]
    #[arg(long, value_name = "FILE")]
    pub child_script: Option<String>,
    /// Children's addresses, as the setting net= of a guest [default: dhcp]
    #[arg(long, value_name = "NET")]
    pub child_net: Option<String>,
    /// Longest time from `pvm fork` to a safe point, such as 5s or 500ms [default: 5s]
    #[arg(long, value_name = "TIME")]
    pub outside_timeout: Option<Time>,
    /// Longest time of a prepared domain to its waiting point, and of a child to resume [default:
    /// 10s]
    #[arg(long, value_name = "TIME")]
    pub start_timeout: Option<Time>,
    /// Socket that pvm talks to [default: /run/zooid/pvmd.sock]
    #[arg(long, value_name = "FILE")]
    pub socket: Option<PathBuf>,
    /// Group whose members may use the socket, beside root
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// Level of the log: off, error, warn, info, debug, trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<Level>,
    /// Form of the log: text, or one JSON object a line [default: text]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// For tests: end at once at this operation of the executor
    #[arg(long, value_name = "NUMBER[:after]", hide = true)]
    #[serde(skip)]
    pub die_at: Option<DieAt>,
}

/// Names of backends.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum BackendName {
    Auto,
    Foreign,
    Grant,
}

/// The policy for promises beyond the free memory.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum OvercommitName {
    Always,
    Never,
}

/// Domains that may say that they are pVMs.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum AnnounceName {
    Known,
    Any,
}

/// The format of the log.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// A line for people, or for journald where the daemon is started by systemd.
    #[default]
    Text,
    /// An object for programs.
    Json,
}

/// The level of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level(pub log::LevelFilter);

/// An amount of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// The amount in KiB.
    pub kib: u64,
}

/// A duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub Duration);

/// The reason for which a configuration was refused: one line with the place, the fault, and the
/// remedy.
#[derive(Debug)]
pub struct BadConfig(String);

impl Settings {
    /// Reads a file. A missing file sets nothing, unless it `must_exist`.
    ///
    /// # Errors
    /// The file cannot be read, or has an unknown setting.
    pub fn read(file: &Path, must_exist: bool) -> Result<Self, BadConfig> {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => return Ok(Self::default()),
            Err(error) => return Err(BadConfig(format!("cannot read {}: {error}", file.display()))),
        };
        toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            BadConfig(format!("{}, line {line}: {}", file.display(), error.message().replace('\n', " ")))
        })
    }

    /// The settings of this value, and those of `other` where this has none.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            backend: self.backend.or(other.backend),
            overcommit: self.overcommit.or(other.overcommit),
            pool: self.pool.or(other.pool),
            family_pvms: self.family_pvms.or(other.family_pvms),
            family_memory: self.family_memory.or(other.family_memory),
            family_forks_per_second: self.family_forks_per_second.or(other.family_forks_per_second),
            host_pvms: self.host_pvms.or(other.host_pvms),
            host_memory: self.host_memory.or(other.host_memory),
            host_forks_per_second: self.host_forks_per_second.or(other.host_forks_per_second),
            keep_free: self.keep_free.or(other.keep_free),
            library_memory: self.library_memory.or(other.library_memory),
            family_tables: self.family_tables.or(other.family_tables),
            announce: self.announce.or(other.announce),
            child_bridge: self.child_bridge.or(other.child_bridge),
            child_script: self.child_script.or(other.child_script),
            child_net: self.child_net.or(other.child_net),
            outside_timeout: self.outside_timeout.or(other.outside_timeout),
            start_timeout: self.start_timeout.or(other.start_timeout),
            socket: self.socket.or(other.socket),
            group: self.group.or(other.group),
            log: self.log.or(other.log),
            log_format: self.log_format.or(other.log_format),
            die_at: self.die_at.or(other.die_at),
        }
    }

    /// The configuration of the engine.
    ///
    /// # Errors
    /// Settings that contradict each other, or impossible values.
    pub fn config(&self) -> Result<Config, BadConfig> {
        let default = Config::default();
        let memory = |chosen: Option<Size>, default| chosen.map_or(default, |size| size.kib);
        let config = Config {
            backend: match self.backend {
                None => default.backend,
                Some(BackendName::Auto) => BackendChoice::Auto,
                Some(BackendName::Foreign) => BackendChoice::Foreign,
                Some(BackendName::Grant) => BackendChoice::Grant,
            },
            overcommit: match self.overcommit {
                None => default.overcommit,
                Some(OvercommitName::Always) => Overcommit::Always,
                Some(OvercommitName::Never) => Overcommit::Never,
            },
            pool: self.pool.unwrap_or(default.pool),
            introduce_after: default.introduce_after,
            family: Quota {
                pvms: self.family_pvms.unwrap_or(default.family.pvms),
                memory_kib: memory(self.family_memory, default.family.memory_kib),
                forks_per_second: self.family_forks_per_second.unwrap_or(default.family.forks_per_second),
            },
            host: Quota {
                pvms: self.host_pvms.unwrap_or(default.host.pvms),
                memory_kib: memory(self.host_memory, default.host.memory_kib),
                forks_per_second: self.host_forks_per_second.unwrap_or(default.host.forks_per_second),
            },
            keep_free_kib: memory(self.keep_free, default.keep_free_kib),
            library_memory_kib: memory(self.library_memory, default.library_memory_kib),
            family_tables_kib: memory(self.family_tables, default.family_tables_kib),
            announce: match self.announce {
                None => default.announce,
                Some(AnnounceName::Known) => Announce::Known,
                Some(AnnounceName::Any) => Announce::Any,
            },
            libraries: default.libraries,
            keys: default.keys,
            child_vif: self.child_bridge.clone().map(|bridge| ChildVif {
                bridge,
                script: self.child_script.clone().unwrap_or_else(|| VIF_SCRIPT.to_owned()),
                net: self.child_net.clone().unwrap_or_else(|| "dhcp".to_owned()),
            }),
            outside_timeout: self.outside_timeout.map_or(default.outside_timeout, |time| time.0),
            start_timeout: self.start_timeout.map_or(default.start_timeout, |time| time.0),
            die_at: self.die_at.clone(),
        };
        match self.fault(&config) {
            None => Ok(config),
            Some(fault) => Err(BadConfig(fault)),
        }
    }

    fn fault(&self, config: &Config) -> Option<String> {
        for (whose, quota) in [("family", config.family), ("host", config.host)] {
            if quota.pvms == 0 {
                return Some(format!("{whose}-pvms is 0: nothing could run, use 1 or more"));
            }
            if quota.memory_kib == 0 {
                return Some(format!("{whose}-memory is 0: nothing could run, use 4M or more"));
            }
        }
        if config.pool >= config.family.pvms {
            let (pool, pvms) = (config.pool, config.family.pvms);
            return Some(format!("pool = {pool} leaves no room in family-pvms = {pvms}: prepared domains count"));
        }
        if config.outside_timeout.is_zero() || config.start_timeout.is_zero() {
            return Some("outside-timeout and start-timeout must be longer than 0".to_owned());
        }
        if config.outside_timeout.max(config.start_timeout) > MAX_TIME {
            return Some("outside-timeout and start-timeout must be at most a day".to_owned());
        }
        match &config.child_vif {
            Some(vif) if !is_interface_name(&vif.bridge) => {
                Some(format!("child-bridge = {:?} is no name of a network interface: see `ip link`", vif.bridge))
            }
            Some(vif) if !Path::new(&vif.script).is_absolute() => {
                Some(format!("child-script = {:?} is not an absolute path", vif.script))
            }
            None if self.child_script.is_some() => {
                Some("child-script has no use without child-bridge: name the bridge too".to_owned())
            }
            None if self.child_net.is_some() => {
                Some("child-net has no use without child-bridge: name the bridge too".to_owned())
            }
            _ => None,
        }
    }
}

/// True if Linux would accept it as the name of a network interface (`dev_valid_name`).
fn is_interface_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_INTERFACE_NAME
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let shift = match unit {
            "K" | "KiB" => 0,
            "M" | "MiB" => 10,
            "G" | "GiB" => 20,
            _ => return Err(format!("{text:?} is no amount of memory: write 512M or 4G")),
        };
        let number: u64 = digits.parse().map_err(|_| format!("{text:?} is no amount of memory: write 512M or 4G"))?;
        match number.checked_mul(1 << shift) {
            Some(kib) if kib < 1 << 44 => Ok(Self { kib }),
            _ => Err(format!("{text:?} is more memory than a host can have")),
        }
    }
}

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text).map(Self).map_err(|_| format!("{text:?} is no time: write 5s or 500ms"))
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let what = || format!("{text:?} is no level: use off, error, warn, info, debug or trace");
        text.parse().map(Self).map_err(|_| what())
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer)
    }
}

impl<'de> Deserialize<'de> for Level {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer)
    }
}

fn from_text<'de, D: Deserializer<'de>, T: FromStr<Err = String>>(deserializer: D) -> Result<T, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

impl fmt::Display for BadConfig {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for BadConfig {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TemporaryDirectory;

    fn read(text: &str) -> Result<Settings, String> {
        let directory = TemporaryDirectory::new("settings");
        let file = directory.path().join("pvmd.toml");
        fs::write(&file, text).unwrap();
        Settings::read(&file, true).map_err(|error| error.to_string().replace(file.to_str().unwrap(), "FILE"))
    }

    #[test]
    fn nothing_chosen_is_the_engines_default() {
        let settings = Settings::read(Path::new("/no/such/file"), false).unwrap();
        assert_eq!(settings.config().unwrap(), Config::default());
        assert!(Settings::read(Path::new("/no/such/file"), true).is_err());
    }

    #[test]
    fn a_file_chooses_and_options_choose_over_it() {
        let file = read(
            "backend = 'grant'\novercommit = 'never'\npool = 3\nfamily-pvms = 10\nfamily-memory = '1G'\nhost-memory = '8G'\n\
             family-forks-per-second = 7\nkeep-free = '64M'\nchild-bridge = 'br0'\noutside-timeout = '1s'\nlog = 'debug'\n",
        )
        .unwrap();
        let options = Settings { pool: Some(4), backend: Some(BackendName::Foreign), ..Settings::default() };
        let config = options.or(file).config().unwrap();
        assert_eq!((config.backend, config.overcommit, config.pool), (BackendChoice::Foreign, Overcommit::Never, 4));
        assert_eq!(config.family, Quota { pvms: 10, memory_kib: 1 << 20, forks_per_second: 7 });
        assert_eq!((config.host.memory_kib, config.keep_free_kib), (8 << 20, 64 << 10));
        assert_eq!(
            config.child_vif,
            Some(ChildVif { bridge: "br0".into(), script: VIF_SCRIPT.into(), net: "dhcp".into() })
        );
        assert_eq!(config.outside_timeout, Duration::from_secs(1));
    }

    #[test]
    fn a_mistake_in_the_file_is_one_line_with_its_place() {
        for (text, expected) in [
            ("pool = 1\nbakend = 'grant'", "FILE, line 2: unknown field `bakend`, expected one of `backend`, "),
            ("backend = 'magic'", "FILE, line 1: unknown variant `magic`, expected one of `auto`, `foreign`, `grant`"),
            ("\n\nfamily-memory = '4 lots'", "FILE, line 3: \"4 lots\" is no amount of memory: write 512M or 4G"),
            ("family-memory = 4", "FILE, line 1: invalid type: integer `4`, expected a string"),
            ("pool = -1", "FILE, line 1: invalid value: integer `-1`, expected u32"),
            ("start-timeout = 'soon'", "FILE, line 1: \"soon\" is no time: write 5s or 500ms"),
            ("log = 'loud'", "FILE, line 1: \"loud\" is no level: use off, error, warn, info, debug or trace"),
            ("pool = ", "FILE, line 1: "),
            ("die-at = '1'", "FILE, line 1: unknown field `die-at`"),
        ] {
            let line = read(text).unwrap_err();
            assert!(line.starts_with(expected) && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (text, expected) in [
            ("family-pvms = 0", "family-pvms is 0"),
            ("host-memory = '0M'", "host-memory is 0"),
            ("pool = 8\nfamily-pvms = 8", "pool = 8 leaves no room in family-pvms = 8"),
            ("outside-timeout = '0s'", "outside-timeout and start-timeout"),
            ("start-timeout = '1000000000y'", "outside-timeout and start-timeout must be at most a day"),
            ("child-bridge = 'a/b'", "child-bridge = \"a/b\" is no name"),
            ("child-bridge = 'br0'\nchild-script = 'x'", "child-script = \"x\" is not"),
            ("child-script = '/x'", "child-script has no use"),
        ] {
            let line = read(text).unwrap().config().unwrap_err().to_string();
            assert!(line.starts_with(expected) && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn sizes() {
        for (text, kib) in [("4M", 4096), ("1GiB", 1 << 20), ("512K", 512), ("0M", 0)] {
            assert_eq!(text.parse(), Ok(Size { kib }));
        }
        for text in ["", "4", "M", "4 M", "-1M", "4m", "99999999999999999999G", "17592186044416M"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
