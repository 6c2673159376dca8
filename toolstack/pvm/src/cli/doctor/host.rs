//! The host: hypervisor, dom0, memory, grants, network, clock, xenstored, pvmd and its files.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use xenctl::{Hypervisor, SUPPORTED, Xen};

use super::{Finding, Mend, NO_DAEMON, NO_RIGHT};
use crate::cli::client::Client;
use crate::cli::error::Error;
use crate::cli::xl;
use crate::engine::PvmInfo;
use crate::protocol::{DaemonVersion, Request};
use crate::server::{CONFIG, Settings};

/// Xen's defaults (`docs/misc/xen-command-line.pandoc`): frames of a domain's grant table, and
/// frames that record its mappings of others' grants.
const GRANT_FRAMES: u64 = 64;
const MAPTRACK_FRAMES: u64 = 1024;
/// Mappings that one frame records: `struct grant_mapping` of xen/common/grant_table.c has 16
/// octets.
const MAPPINGS_PER_FRAME: u64 = 256;
/// Mappings that dom0 has for one pVM with a network device: the control page, console and xenstore
/// rings, and netback's two rings and up to 512 slots.
const MAPPINGS_PER_PVM: u64 = 3 + 2 + 512;
/// Descriptors for few pVMs; the unit of systemd has 65,536.
const FEW_DESCRIPTORS: u64 = 4096;
/// Memory below which hardly anything can fork.
const LITTLE_KIB: u64 = 64 << 10;

/// The places where the facts are.
pub(super) struct Places {
    /// The root of the file system.
    pub root: PathBuf,
    /// pvmd's socket; other files of its are beside it.
    pub socket: PathBuf,
    /// pvmd's configuration.
    pub config: PathBuf,
}

impl Places {
    pub fn of_host(socket: &Path) -> Self {
        Self { root: "/".into(), socket: socket.to_owned(), config: CONFIG.into() }
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root.join(path)).ok().map(|text| text.trim().to_owned())
    }

    fn entries(&self, path: impl AsRef<Path>) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.root.join(path)).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    }

    /// A process has this number.
    fn lives(&self, pid: u32) -> bool {
        self.root.join(format!("proc/{pid}")).exists()
    }
}

/// The way that guests with `tsc_mode="default"` read the time-stamp counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tsc {
    Native,
    Emulated,
    Unknown,
}

impl Tsc {
    /// From Xen's log after the debug key `s` (`dump_softtsc` in xen/arch/x86/time.c).
    pub fn parse(log: &str) -> Self {
        let reliable = |line: &str| line.contains("TSC marked as reliable") || line.contains("deemed reliable");
        match log.lines().rev().find(|line| {
            line.contains("TSC marked as")
                || line.contains("TSC has constant rate")
                || line.contains("TSC not marked as")
        }) {
            Some(line) if reliable(line) => Self::Native,
            Some(_) => Self::Emulated,
            None => Self::Unknown,
        }
    }
}

/// The program that is xenstored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoreKind {
    C,
    OCaml,
    /// No process of dom0: a domain of its own, perhaps.
    Elsewhere,
}

/// Limits of grant tables, in frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grants {
    pub frames: u64,
    pub maptrack: u64,
}

impl Grants {
    /// From Xen's command line; its defaults where that says nothing.
    pub fn parse(command_line: &str) -> Self {
        let value = |name: &str| {
            let mut words = command_line.split_ascii_whitespace().rev();
            words.find_map(|word| number(word.strip_prefix(name)?.strip_prefix('=')?))
        };
        Self {
            frames: value("gnttab_max_frames").unwrap_or(GRANT_FRAMES),
            maptrack: value("gnttab_max_maptrack_frames").unwrap_or(MAPTRACK_FRAMES),
        }
    }
}

/// A number as Xen reads it: decimal, or hexadecimal behind `0x`.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The daemon, as it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Daemon {
    Runs {
        program: String,
        pid: u32,
        descriptors: Option<(u64, u64)>,
    },
    /// Nobody listens; the path is there all the same.
    Missing {
        left_socket: bool,
    },
    NoRight(String),
    Silent(String),
}

impl Daemon {
    /// It runs and answers.
    pub fn answers(&self) -> bool {
        matches!(self, Self::Runs { .. })
    }
}

/// The facts.
pub(super) struct Facts {
    /// Xen's version, as it names it.
    pub version: Option<String>,
    /// Kinds of guests that Xen runs.
    pub capabilities: Option<String>,
    pub is_dom0: bool,
    /// `PV` or `PVH`.
    pub guest_type: Option<String>,
    /// The release, or why it is not known.
    pub release: Result<&'static str, String>,
    pub denied: bool,
    pub free_kib: Option<u64>,
    pub tsc: Tsc,
    pub grants: Option<Grants>,
    pub bridges: Vec<String>,
    /// Bridge of children and memory that stays free, from pvmd's configuration.
    pub config: Result<(Option<String>, u64), String>,
    pub store: Result<(), String>,
    pub store_kind: StoreKind,
    pub daemon: Daemon,
    /// The daemon holds its lock; none without a daemon.
    pub locked: Option<bool>,
    /// Permissions of the socket.
    pub socket_mode: Option<u32>,
    /// Directories of daemons that have ended.
    pub left: Vec<PathBuf>,
    /// Records of consoles whose pVMs have gone: number and octets. None if pvmd does not tell.
    pub consoles: Option<(usize, u64)>,
    pub socket: PathBuf,
}

impl Facts {
    /// Looks everywhere. Nothing here fails: a fact that cannot be had is missing.
    pub fn gather(
        places: &Places,
        xen: &Result<Xen, xenctl::Error>,
        store: Result<(), &String>,
        daemon: &mut Result<Client, Error>,
    ) -> Self {
        let version = places.read("sys/hypervisor/version/major").and_then(|major| {
            let minor = places.read("sys/hypervisor/version/minor")?;
            let extra = places.read("sys/hypervisor/version/extra").unwrap_or_default();
            Some(format!("{major}.{minor}{extra}"))
        });
        // First: one that does not answer this is asked nothing else.
        let answered = ask_daemon(places, daemon);
        let tsc = xen.as_ref().ok().and_then(|xen| xen.debug_key(b's').ok());
        let denied = matches!(xen, Err(error) if error.errno().is_some_and(|errno| matches!(errno.0, 1 | 13)));
        let config = Settings::read(&places.config, false).and_then(|settings| {
            let config = settings.config()?;
            Ok((settings.child_bridge, config.keep_free_kib))
        });
        Self {
            version,
            capabilities: places.read("sys/hypervisor/properties/capabilities"),
            is_dom0: places.read("proc/xen/capabilities").is_some_and(|text| text.contains("control_d")),
            guest_type: places.read("sys/hypervisor/guest_type"),
            release: xen.as_ref().map(|xen| xen.release().name).map_err(ToString::to_string),
            denied,
            free_kib: xen.as_ref().ok().and_then(|xen| xen.free_pages().ok()).map(|pages| pages * 4),
            tsc: tsc.map_or(Tsc::Unknown, |log| Tsc::parse(&String::from_utf8_lossy(&log))),
            grants: grants(),
            bridges: bridges(places),
            config: config.map_err(|error| error.to_string()),
            store: store.map_err(Clone::clone),
            store_kind: store_kind(places),
            consoles: daemon.as_mut().ok().filter(|_| answered.answers()).and_then(|client| {
                let pvms: Vec<PvmInfo> = client.ask(Request::List { all: false }).ok()?;
                Some(consoles(places, &pvms))
            }),
            locked: answered.answers().then(|| is_locked(&places.socket.with_extension("lock"))),
            socket_mode: places.socket.metadata().ok().map(|metadata| metadata.permissions().mode()),
            daemon: answered,
            left: left(places),
            socket: places.socket.clone(),
        }
    }

    /// The findings, from the hypervisor up.
    pub fn judge(&self) -> Vec<Finding> {
        let mut all = vec![self.judge_xen(), self.judge_dom0()];
        all.extend([self.judge_memory(), self.judge_grants()].into_iter().flatten());
        all.extend([self.judge_tsc(), self.judge_bridge(), self.judge_store()]);
        all.extend(self.judge_daemon());
        all.extend(self.judge_files());
        all.extend(self.left.iter().map(|path| {
            let what = format!("{} is left of a pvmd that has ended", path.display());
            Finding::bad("files", what, format!("`rm -r {}`", path.display())).mended_by(Mend::File(path.clone()))
        }));
        if let Some((count @ 1.., octets)) = self.consoles {
            all.push(Finding::note(
                "files",
                format!("{count} records of consoles, {} KiB, are of pVMs that have gone", octets / 1024),
                "logrotate(8) can remove those below /var/log/xen/console that `pvm logs` need not show",
            ));
        }
        all
    }

    fn judge_xen(&self) -> Finding {
        let version = self.version.as_deref().unwrap_or("of an unknown version");
        match &self.release {
            Ok(release) => Finding::good("xen", format!("Xen {version}, with the interfaces of {release}")),
            Err(why) if self.denied => Finding::bad("xen", why, "run it as root").code(NO_RIGHT),
            Err(why) if self.version.is_none() => Finding::bad(
                "xen",
                format!("no Xen is below this Linux: {why}"),
                "boot into Xen (Debian: install xen-system-amd64)",
            ),
            Err(why) => {
                Finding::bad("xen", why, format!("use Xen {SUPPORTED}, and see that Linux has the module xen-privcmd"))
            }
        }
    }

    fn judge_dom0(&self) -> Finding {
        let takes_pv = self.capabilities.as_deref().is_none_or(|all| all.split(' ').any(|it| it == "xen-3.0-x86_64"));
        match self.guest_type.as_deref() {
            _ if !self.is_dom0 => {
                Finding::bad("dom0", "this Linux is not dom0", "run it in dom0, with xenfs mounted on /proc/xen")
            }
            _ if !takes_pv => Finding::bad(
                "dom0",
                "this Xen runs no 64-bit PV guests",
                "use one that was built with CONFIG_PV, and without `pv=` on its command line",
            ),
            Some("PV") => Finding::good("dom0", "dom0 is a PV guest: children share their parents' memory"),
            Some(other) => Finding::note(
                "dom0",
                format!("dom0 is a {other} guest: children get copies of their parents' pages"),
                "boot a PV dom0 (Xen's command line: no `dom0=pvh`) if that is too slow or too much",
            ),
            None => Finding::note("dom0", "Linux does not tell if dom0 is PV", "use Linux 4.13 or newer"),
        }
    }

    fn judge_memory(&self) -> Option<Finding> {
        let free = self.free_kib?;
        let keep = self.config.as_ref().map_or(0, |(_, keep)| *keep);
        let mib = free / 1024;
        Some(if free <= keep {
            Finding::bad(
                "memory",
                format!("{mib} MiB are free, and pvmd keeps {} MiB of them free", keep / 1024),
                "end domains, lower dom0_mem on Xen's command line, or lower keep-free in pvmd.toml",
            )
        } else if free < keep + LITTLE_KIB {
            Finding::note(
                "memory",
                format!("{mib} MiB are free: few pVMs can start or fork"),
                "lower dom0_mem on Xen's command line: dom0 gives nothing back by itself",
            )
        } else {
            Finding::good("memory", format!("{mib} MiB are free"))
        })
    }

    fn judge_grants(&self) -> Option<Finding> {
        let Grants { frames, maptrack } = self.grants?;
        let mappings = maptrack * MAPPINGS_PER_FRAME;
        let pvms = mappings / MAPPINGS_PER_PVM;
        let what = format!(
            "grant tables have {frames} frames; dom0 maps {mappings} grants at once, which is enough for about {pvms} pVMs with a network"
        );
        Some(if maptrack < MAPTRACK_FRAMES {
            Finding::note(
                "grants",
                what,
                format!("gnttab_max_maptrack_frames={MAPTRACK_FRAMES} on Xen's command line is usual"),
            )
        } else {
            Finding::good("grants", what)
        })
    }

    fn judge_tsc(&self) -> Finding {
        match self.tsc {
            Tsc::Native => {
                Finding::good("tsc", "Xen takes the processors' TSC for reliable: guests read it themselves")
            }
            Tsc::Emulated => Finding::note(
                "tsc",
                "Xen does not take the TSC for reliable: with the default tsc_mode each reading of the clock is an exception",
                "tsc_mode=\"native\" in a guest's configuration makes it cheap, if the processors' counters agree",
            ),
            Tsc::Unknown => {
                Finding::note("tsc", "Xen does not tell if it takes the TSC for reliable", "see `xl dmesg` for TSC")
            }
        }
    }

    fn judge_bridge(&self) -> Finding {
        let has = |name: &String| self.bridges.contains(name);
        match &self.config {
            Err(why) => Finding::bad("config", why, "mend the line; `pvmd --check` tells if it is good"),
            Ok((Some(bridge), _)) if !has(bridge) => Finding::bad(
                "bridge",
                format!("there is no bridge {bridge}, which pvmd plugs children into"),
                format!("make it (docs/real-host.md, \"A bridge\"), or change child-bridge in {CONFIG}"),
            ),
            Ok(_) if self.bridges.is_empty() => Finding::note(
                "bridge",
                "there is no bridge: guests have no network",
                "make one if they shall have one (docs/real-host.md, \"A bridge\")",
            ),
            Ok((child, _)) => {
                let children = if child.is_some() { "" } else { "; children get no device (child-bridge is not set)" };
                Finding::good("bridge", format!("bridges: {}{children}", self.bridges.join(", ")))
            }
        }
    }

    fn judge_store(&self) -> Finding {
        match (&self.store, self.store_kind) {
            (Err(why), _) => Finding::bad(
                "xenstored",
                format!("xenstored does not answer: {why}"),
                "start it (Debian: `systemctl restart xen`); it must not be restarted while domains live",
            ),
            (Ok(()), StoreKind::C) => Finding::good("xenstored", "xenstored answers; it is the one in C"),
            (Ok(()), StoreKind::OCaml) => Finding::note(
                "xenstored",
                "xenstored answers; it is the one in OCaml, which is not tested here",
                "use the one in C (XENSTORED=/usr/sbin/xenstored) if something is odd",
            ),
            (Ok(()), StoreKind::Elsewhere) => Finding::note(
                "xenstored",
                "xenstored answers, and is no process of dom0",
                "know that only one in dom0 is tested",
            ),
        }
    }

    fn judge_files(&self) -> Vec<Finding> {
        let mut all = Vec::new();
        if self.locked == Some(false) {
            let what = format!(
                "pvmd does not hold {}: a second one could start",
                self.socket.with_extension("lock").display()
            );
            all.push(Finding::bad(
                "files",
                what,
                "`systemctl restart pvmd`: the file was removed under it; pVMs live on",
            ));
        }
        if self.socket_mode.is_some_and(|mode| mode & 0o007 != 0) {
            let what = format!("{} is open to everybody, who so controls all pVMs", self.socket.display());
            all.push(Finding::bad("files", what, format!("`chmod o= {}`", self.socket.display())));
        }
        all
    }

    fn judge_daemon(&self) -> Vec<Finding> {
        let restart = "`systemctl restart pvmd`: pVMs live on";
        match &self.daemon {
            Daemon::NoRight(why) => vec![Finding::bad("pvmd", why, "run it as root").code(NO_RIGHT)],
            Daemon::Silent(why) => vec![Finding::bad("pvmd", why, restart).code(NO_DAEMON)],
            Daemon::Missing { left_socket } => {
                let missing = format!("pvmd does not run (nobody at {})", self.socket.display());
                let missing = Finding::bad("pvmd", missing, "`systemctl start pvmd`").code(NO_DAEMON);
                let socket = left_socket.then(|| {
                    let what = format!("{} is left of a pvmd that has ended", self.socket.display());
                    let remedy = format!("`rm {}`; the next pvmd replaces it anyway", self.socket.display());
                    Finding::new("files", super::Level::Note, what, Some(remedy))
                        .mended_by(Mend::Socket(self.socket.clone()))
                });
                std::iter::once(missing).chain(socket).collect()
            }
            Daemon::Runs { program, pid, descriptors } => {
                let own = concat!("pvmd ", env!("CARGO_PKG_VERSION"));
                let runs = if program == own {
                    Finding::good("pvmd", format!("{program} runs, as process {pid}"))
                } else {
                    Finding::bad("pvmd", format!("{program} runs; this is pvm {}", env!("CARGO_PKG_VERSION")), restart)
                };
                std::iter::once(runs).chain(descriptors.map(judge_descriptors)).collect()
            }
        }
    }
}

fn judge_descriptors((open, most): (u64, u64)) -> Finding {
    let what = format!("pvmd has {open} of at most {most} file descriptors");
    let remedy = "LimitNOFILE=65536 in pvmd.service";
    if open.saturating_mul(10) >= most.saturating_mul(9) {
        Finding::bad("descriptors", what, remedy)
    } else if most < FEW_DESCRIPTORS {
        Finding::note("descriptors", what, remedy)
    } else {
        Finding::good("descriptors", what)
    }
}

/// The limits that Xen has now, from its file system of parameters, else from its command line.
fn grants() -> Option<Grants> {
    let parameter = |name: &str| {
        let output = std::process::Command::new("xenhypfs").args(["cat", &format!("/params/{name}")]).output().ok()?;
        number(String::from_utf8_lossy(&output.stdout).trim()).filter(|_| output.status.success())
    };
    if let (Some(frames), Some(maptrack)) = (parameter("gnttab_max_frames"), parameter("gnttab_max_maptrack_frames")) {
        return Some(Grants { frames, maptrack });
    }
    let info = xl::run("info", &[]).ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("xen_commandline")?.split_once(':'));
    line.map(|(_, words)| Grants::parse(words))
}

fn bridges(places: &Places) -> Vec<String> {
    let devices = places.entries("sys/class/net").into_iter().filter(|path| path.join("bridge").is_dir());
    devices.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect()
}

fn store_kind(places: &Places) -> StoreKind {
    let names = places.entries("proc").into_iter().filter_map(|path| fs::read_to_string(path.join("comm")).ok());
    let mut kinds = names.filter_map(|name| match name.trim() {
        "xenstored" => Some(StoreKind::C),
        "oxenstored" => Some(StoreKind::OCaml),
        _ => None,
    });
    kinds.next().unwrap_or(StoreKind::Elsewhere)
}

fn ask_daemon(places: &Places, daemon: &mut Result<Client, Error>) -> Daemon {
    let silent = |error: &Error| Daemon::Silent(error.to_string());
    match daemon {
        Err(Error::NotRunning(_)) => Daemon::Missing { left_socket: places.socket.symlink_metadata().is_ok() },
        Err(error @ Error::NoRight(_)) => Daemon::NoRight(error.to_string()),
        Err(error) => silent(error),
        Ok(client) => match client.ask::<DaemonVersion>(Request::Version) {
            Err(error) => silent(&error),
            Ok(DaemonVersion { program, pid, .. }) => {
                let limits = places.read(&format!("proc/{pid}/limits")).unwrap_or_default();
                let open = places.entries(format!("proc/{pid}/fd")).len() as u64;
                Daemon::Runs { program, pid, descriptors: limit(&limits).map(|most| (open, most)) }
            }
        },
    }
}

/// Somebody has locked the file.
pub(super) fn is_locked(path: &Path) -> bool {
    let tried = File::open(path).map(|file| file.try_lock());
    matches!(tried, Ok(Err(TryLockError::WouldBlock)))
}

/// The soft limit of descriptors in `/proc/PID/limits` (proc_pid_limits(5)).
pub(super) fn limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_ascii_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// Directories `pvmd.PID` beside the socket: a daemon that starts has one for a moment, and one that
/// is killed then leaves it.
pub(super) fn left(places: &Places) -> Vec<PathBuf> {
    let Some((directory, stem)) = places.socket.parent().zip(places.socket.file_stem()) else { return Vec::new() };
    let is_left = |path: &PathBuf| {
        let pid = path.extension().and_then(|extension| extension.to_str()?.parse().ok());
        path.file_stem() == Some(stem) && path.is_dir() && pid.is_some_and(|pid| !places.lives(pid))
    };
    places.entries(directory).into_iter().filter(is_left).collect()
}

/// Records of consoles of children that are not among `pvms`: number and octets.
pub(super) fn consoles(places: &Places, pvms: &[PvmInfo]) -> (usize, u64) {
    let is_gone = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.and_then(|name| name.strip_prefix("guest-")?.strip_suffix(".log"));
        // A child's name is its family's and its id.
        let id = name.and_then(|name| name.rsplit_once('-')?.1.parse::<u32>().ok());
        id.is_some_and(|id| id >= crate::protocol::FIRST_GENERATION) && !pvms.iter().any(|pvm| Some(&*pvm.name) == name)
    };
    let gone = places.entries("var/log/xen/console").into_iter().filter(is_gone);
    gone.filter_map(|path| path.metadata().ok()).fold((0, 0), |(count, octets), file| (count + 1, octets + file.len()))
}
