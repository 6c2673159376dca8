//! The rows of the benchmark.

/// One row of the benchmark.
pub struct Row {
    pub name: &'static str,
    pub unit: &'static str,
    /// The upper limit of the ratio, or of our value if there is no anchor. `None`: the row is only
    /// shown.
    pub goal: Option<f64>,
    pub better: Better,
    pub anchor: Anchor,
    pub source: Source,
}

/// The better one of two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// A cost.
    Less,
    /// A throughput.
    More,
}

/// The value that ours is compared with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Anchor {
    None,
    /// A value that does not depend on the machine.
    Fixed(f64, &'static str),
    /// Measured in the same boot.
    Measured(&'static str),
}

/// The source of the samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The size of this image's file.
    Image(&'static str),
    /// `tests/bench/measure.py`, which needs these files of `build/bench` for it.
    Dom0(&'static [&'static str]),
}

const GRUB_FILES: Source = Source::Dom0(&["grub-x86_64-xen.bin"]);
const LINUX_FILES: Source = Source::Dom0(&["vmlinux", "linux.cpio"]);

const NGINX: Anchor = Anchor::Measured("nginx in a Linux PV domU");
const LINUX: Anchor = Anchor::Measured("Linux PV domU");
const IPERF3: Anchor = Anchor::Measured("iperf3 in a Linux PV domU");

/// A row about forks, whose `name` `tests/bench/forks.py` knows.
const fn fork(name: &'static str, goal: Option<f64>, anchor: &'static str) -> Row {
    Row {
        name,
        unit: "us",
        goal,
        better: Better::Less,
        anchor: Anchor::Measured(anchor),
        source: Source::Dom0(&["fork"]),
    }
}

/// A row about IpC, whose `name` `tests/bench/ipc.py` knows.
const fn ipc(name: &'static str, goal: f64) -> Row {
    Row {
        name,
        unit: "us",
        goal: Some(goal),
        better: Better::Less,
        anchor: Anchor::Measured("two Linux processes"),
        source: Source::Dom0(&["ipc"]),
    }
}

/// A row about opening a library, whose `name` `tests/bench/dl.py` knows.
const fn dl(name: &'static str, goal: Option<f64>) -> Row {
    Row {
        name,
        unit: "us",
        goal,
        better: Better::Less,
        anchor: Anchor::Measured("dlopen of the same file in Linux"),
        source: Source::Dom0(&["dl"]),
    }
}

const FORK_CALL: &str = "fork() in Linux, 4 MiB";
const FORK_CALL_256: &str = "fork() in Linux, 256 MiB";
const FORK_DIRTY: &str = "fork() in Linux, 4 MiB written since the last";
const FORK_WRITE: &str = "the same in Linux";
const FORK_RATE: &str = "fork, exit, wait in Linux, 4 MiB";
const SECOND: &str = "its second fork";
const FIRST_100: &str = "its first 100";
const BOOTED: &str = "a booted pVM";

#[rustfmt::skip]
pub const ROWS: [Row; 46] = [
    Row { name: "image_hello", unit: "bytes", goal: Some(200e3), better: Better::Less, anchor: Anchor::None, source: Source::Image("hello") },
    Row { name: "image_httpd", unit: "bytes", goal: Some(700e3), better: Better::Less, anchor: Anchor::None, source: Source::Image("httpd") },
    Row { name: "min_memory", unit: "MiB", goal: Some(1.0), better: Better::Less, anchor: Anchor::Fixed(4.0, "floor of Xen 4.17's PV builder"), source: Source::Dom0(&[]) },
    Row { name: "boot_xl", unit: "ms", goal: Some(0.7), better: Better::Less, anchor: Anchor::Measured("xl create of grub-x86_64-xen.bin"), source: GRUB_FILES },
    Row { name: "http", unit: "requests/s", goal: Some(0.5), better: Better::More, anchor: NGINX, source: LINUX_FILES },
    Row { name: "ping", unit: "ms", goal: Some(1.0), better: Better::Less, anchor: LINUX, source: LINUX_FILES },
    Row { name: "tcp_in", unit: "Gbit/s", goal: Some(1.0), better: Better::More, anchor: IPERF3, source: LINUX_FILES },
    Row { name: "tcp_out", unit: "Gbit/s", goal: Some(1.0), better: Better::More, anchor: IPERF3, source: LINUX_FILES },
    fork("fork", Some(0.10), FORK_CALL),
    fork("fork_dirty", None, FORK_DIRTY),
    fork("fork_clean", None, FORK_CALL),
    fork("fork_cold", None, FORK_CALL),
    fork("fork_pause", Some(0.03), FORK_CALL),
    fork("fork_write", Some(0.5), FORK_WRITE),
    fork("fork_256", Some(0.02), FORK_CALL_256),
    fork("fork_first", Some(1.2), SECOND),
    fork("fork_rate", Some(0.5), FORK_RATE),
    fork("fork_1000", Some(1.2), FIRST_100),
    Row { unit: "MiB", ..fork("clone_mem", Some(0.15), BOOTED) },
    fork("fork_grant", None, FORK_CALL),
    fork("fork_dirty_grant", None, FORK_DIRTY),
    fork("fork_clean_grant", None, FORK_CALL),
    fork("fork_cold_grant", None, FORK_CALL),
    fork("fork_pause_grant", None, FORK_CALL),
    fork("fork_write_grant", None, FORK_WRITE),
    fork("fork_first_grant", None, SECOND),
    fork("fork_rate_grant", None, FORK_RATE),
    fork("fork_1000_grant", None, FIRST_100),
    Row { unit: "MiB", ..fork("clone_mem_grant", None, BOOTED) },
    ipc("pipe", 0.8),
    ipc("pipe_4k", 0.8),
    ipc("pipe_64k", 0.8),
    Row { unit: "MiB/s", better: Better::More, ..ipc("pipe_bulk", 1.0) },
    ipc("mq", 0.8),
    Row { anchor: Anchor::None, goal: None, ..ipc("mq_bulk", 1.0) },
    ipc("signal", 0.8),
    ipc("shm", 0.8),
    ipc("sem", 0.8),
    ipc("exit_wait", 1.0),
    Row { anchor: Anchor::Measured("a later one"), ..ipc("ipc_first", 2.0) },
    dl("dlopen", Some(1.0)),
    dl("dlopen_first", None),
    dl("dlopen_user", None),
    Row { unit: "KiB", anchor: Anchor::Measured("the same library from an archive"), ..dl("dlopen_memory", None) },
    Row { unit: "ms", anchor: Anchor::Measured("pvm run hello"), ..dl("run_app", None) },
    Row { anchor: Anchor::Measured("a request otherwise"), ..dl("lib_update", None) },
];
