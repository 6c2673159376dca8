//! The rows that there are.

/// One row.
pub struct Row {
    pub name: &'static str,
    pub unit: &'static str,
    /// What the ratio should be at most; without an anchor, what ours should be at most.
    pub goal: f64,
    pub better: Better,
    pub anchor: Anchor,
    pub source: Source,
}

/// Which of two values is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// A cost.
    Less,
    /// A throughput.
    More,
}

/// What ours is compared with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Anchor {
    None,
    /// A value that does not depend on the machine.
    Fixed(f64, &'static str),
    /// Measured in the same boot.
    Measured(&'static str),
}

/// Where the samples come from.
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

#[rustfmt::skip]
pub const ROWS: [Row; 8] = [
    Row { name: "image_hello", unit: "bytes", goal: 200e3, better: Better::Less, anchor: Anchor::None, source: Source::Image("hello") },
    Row { name: "image_httpd", unit: "bytes", goal: 700e3, better: Better::Less, anchor: Anchor::None, source: Source::Image("httpd") },
    Row { name: "min_memory", unit: "MiB", goal: 1.0, better: Better::Less, anchor: Anchor::Fixed(4.0, "floor of Xen 4.17's PV builder"), source: Source::Dom0(&[]) },
    Row { name: "boot_xl", unit: "ms", goal: 0.7, better: Better::Less, anchor: Anchor::Measured("xl create of grub-x86_64-xen.bin"), source: GRUB_FILES },
    Row { name: "http", unit: "requests/s", goal: 0.5, better: Better::More, anchor: NGINX, source: LINUX_FILES },
    Row { name: "ping", unit: "ms", goal: 1.0, better: Better::Less, anchor: LINUX, source: LINUX_FILES },
    Row { name: "tcp_in", unit: "Gbit/s", goal: 1.0, better: Better::More, anchor: IPERF3, source: LINUX_FILES },
    Row { name: "tcp_out", unit: "Gbit/s", goal: 1.0, better: Better::More, anchor: IPERF3, source: LINUX_FILES },
];
