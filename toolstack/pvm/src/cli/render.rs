//! The text output of `pvm`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use xen_abi::Errno;

use crate::engine::{Event, EventKind, ObjectInfo, PoolInfo, PvmInfo, State, Stats};
use crate::library::{Entry, TrustedKey};
use crate::plain::plain;

/// The parts of the caller's environment that ages and lines of trees depend on.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings {
    /// The present time, in microseconds since 1970.
    pub now_us: u64,
    /// True if the terminal shows more than ASCII.
    pub unicode: bool,
}

/// The pVMs as a table.
pub fn list(pvms: &[PvmInfo], around: Surroundings) -> String {
    let mut table = Table::new(&["ID", "DOMID", "NAME", "STATE", "PARENT", "CHILDREN", "MEMORY", "CPU", "AGE"]);
    for pvm in pvms {
        table.row([
            pvm.id.to_string(),
            pvm.domid.to_string(),
            plain(&pvm.name),
            state(pvm),
            pvm.parent.map_or_else(dash, |id| id.to_string()),
            pvm.children.len().to_string(),
            memory(pvm.memory_kib),
            span(pvm.cpu_ns),
            age(pvm.since_us, around.now_us),
        ]);
    }
    table.text()
}

/// The pVMs as families.
pub fn tree(pvms: &[PvmInfo], around: Surroundings) -> String {
    let mut children: HashMap<Option<u32>, Vec<&PvmInfo>> = HashMap::new();
    for pvm in pvms {
        // A pVM stands at the left if its parent is not shown, or if it claims to be its own
        // parent.
        let parent = pvm.parent.filter(|parent| *parent != pvm.id && pvms.iter().any(|other| other.id == *parent));
        children.entry(parent).or_default().push(pvm);
    }
    let shape = if around.unicode { ["├─ ", "└─ ", "│  ", "   "] } else { ["|-- ", "`-- ", "|   ", "    "] };
    let mut text = String::new();
    // Depth first: the last entry of the stack is shown next. Each has the text in front of it, and
    // in front of its children.
    let mut stack: Vec<(&PvmInfo, String, String)> = Vec::new();
    let roots = children.remove(&None).unwrap_or_default();
    stack.extend(roots.into_iter().rev().map(|root| (root, String::new(), String::new())));
    while let Some((pvm, branch, indent)) = stack.pop() {
        let _ = writeln!(text, "{branch}{} {} {}, {}", plain(&pvm.name), pvm.id, state(pvm), memory(pvm.memory_kib));
        let family = children.remove(&Some(pvm.id)).unwrap_or_default();
        let (mut branch, mut below) = (shape[1], shape[3]);
        for child in family.into_iter().rev() {
            stack.push((child, format!("{indent}{branch}"), format!("{indent}{below}")));
            (branch, below) = (shape[0], shape[2]);
        }
    }
    text
}

/// All facts about one pVM.
pub fn inspect(pvm: &PvmInfo, around: Surroundings) -> String {
    let ids = |ids: &[u32]| if ids.is_empty() { dash() } else { join(ids) };
    let backend = pvm.backend.map_or_else(dash, |backend| format!("{backend:?}").to_lowercase());
    let rows = [
        ("id", pvm.id.to_string()),
        ("domid", pvm.domid.to_string()),
        ("name", plain(&pvm.name)),
        ("kind", format!("{:?}", pvm.kind).to_lowercase()),
        ("state", state(pvm)),
        ("parent", pvm.parent.map_or_else(dash, |id| id.to_string())),
        ("root", pvm.root.to_string()),
        ("children", ids(&pvm.children)),
        ("can fork", if pvm.can_fork { "yes" } else { "no" }.to_owned()),
        ("backend", backend),
        ("prepared", pvm.prepared.to_string()),
        ("memory", format!("{} of at most {}", memory(pvm.memory_kib), memory(pvm.max_memory_kib))),
        ("cpu", span(pvm.cpu_ns)),
        ("since", format!("{} ({})", moment(pvm.since_us), age(pvm.since_us, around.now_us))),
        ("console log", plain(&super::logs::path(&pvm.name).display().to_string())),
    ];
    let mut text = String::new();
    for (name, value) in rows {
        let _ = writeln!(text, "{name:12} {value}");
    }
    if let Some(ended) = pvm.ended {
        let _ = writeln!(
            text,
            "{:12} {} (exit code {}) at {}",
            "ended",
            ended.status,
            ended.exit_code,
            moment(ended.at_us)
        );
    }
    text
}

/// Counters and times.
pub fn stats(stats: &Stats) -> String {
    let refused: u64 = stats.refused.iter().map(|(_, count)| count).sum();
    let mut reasons: Vec<String> =
        stats.refused.iter().map(|(errno, count)| format!("{} {count}", Errno(*errno))).collect();
    reasons.sort();
    let mut text = format!("{} alive, {} prepared for forks\n", stats.alive, stats.pool);
    let _ = write!(
        text,
        "since pvmd started: {} forks, {refused} refused{}, {} domains prepared, {} pVMs ended; {} page-table entries relinked\n\n",
        stats.forks,
        if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) },
        stats.prepared,
        stats.ended,
        stats.relinked_entries
    );
    let mut table = Table::new(&["STEP", "COUNT", "LAST", "MEAN", "MAX"]);
    for step in &stats.steps {
        let time = |ns| if step.count == 0 { dash() } else { span(ns) };
        let [last, mean, max] = [step.last_ns, step.mean_ns, step.max_ns].map(time);
        table.row([plain(&step.step), step.count.to_string(), last, mean, max]);
    }
    text + &table.text()
}

/// The prepared domains.
pub fn pool(pool: &[PoolInfo]) -> String {
    let mut table = Table::new(&["ID", "DOMID", "PARENT", "STATE", "MEMORY", "LINKED"]);
    for domain in pool {
        table.row([
            domain.id.to_string(),
            domain.domid.to_string(),
            domain.parent.to_string(),
            format!("{:?}", domain.state).to_lowercase(),
            memory(domain.memory_kib),
            memory(domain.linked_pages * 4),
        ]);
    }
    table.text()
}

/// Named objects.
pub fn objects(objects: &[ObjectInfo]) -> String {
    let mut table = Table::new(&["NAME", "MEMORY", "FAMILY", "OWNER"]);
    for object in objects {
        table.row([
            plain(&object.name),
            memory(object.pages * 4),
            object.family.to_string(),
            object.memory_owner.to_string(),
        ]);
    }
    table.text()
}

/// An event as one line.
pub fn event(event: &Event) -> String {
    let what = match &event.kind {
        EventKind::Started { parent: None, .. } => "started".to_owned(),
        EventKind::Started { parent: Some(parent), .. } => format!("started, a child of {parent}"),
        EventKind::Forked { children, duration_ns } => format!("forked {} in {}", join(children), span(*duration_ns)),
        EventKind::Prepared { prepared, domid } => format!("has {prepared} prepared for it in domain {domid}"),
        EventKind::Refused { errno, reason } => format!("was refused a fork: {} ({})", plain(reason), Errno(*errno)),
        EventKind::LibraryRefused { library, rule } => {
            format!("was refused the library {}: {}", plain(library), plain(rule))
        }
        EventKind::LibraryUpdated { library, from, to } => {
            format!("has the library {} in version {} in place of {}", plain(library), plain(to), plain(from))
        }
        EventKind::LibraryKept { library, reason } => {
            format!("keeps the library {} as it is: {}", plain(library), plain(reason))
        }
        EventKind::Ended { status, .. } => format!("ended: {status}"),
        EventKind::Trouble { message } => format!("trouble: {}", plain(message)),
    };
    format!("{} {} {} {what}", moment(event.at_us), event.id, plain(&event.name))
}

/// Libraries as a table.
pub fn libraries(entries: &[Entry]) -> String {
    let mut table = Table::new(&["NAME", "VERSION", "SIZE", "SIGNER", "IMAGES", "FAMILIES", "NOTES"]);
    for entry in entries {
        let mut notes = Vec::new();
        notes.extend(entry.damage.as_ref().map(|damage| format!("damaged: {damage}")));
        notes.extend(entry.revoked.then(|| "revoked".to_owned()));
        notes.extend(entry.trusted_as.is_none().then(|| "not trusted".to_owned()));
        notes.extend(entry.red_zone.is_some().then(|| "red zone".to_owned()));
        table.row([
            entry.name.clone(),
            entry.version.clone(),
            memory(entry.size.div_ceil(1024)),
            entry.trusted_as.clone().unwrap_or_else(|| entry.signer.chars().take(16).collect()),
            all_or(&entry.images),
            all_or(&entry.families),
            plain(&notes.join(", ")),
        ]);
    }
    table.text()
}

/// All facts about one library.
pub fn library(entry: &Entry) -> String {
    let trusted = match &entry.trusted_as {
        Some(name) => format!("trusted as {name}"),
        None => "not trusted".to_owned(),
    };
    let rows = [
        ("name", entry.name.clone()),
        ("version", entry.version.clone()),
        ("build id", entry.build_id.clone().unwrap_or_else(dash)),
        ("size", format!("{} octets", entry.size)),
        ("sha512", entry.sha512.clone()),
        ("red zone", entry.red_zone.clone().unwrap_or_else(dash)),
        ("images", all_or(&entry.images)),
        ("families", all_or(&entry.families)),
        ("revoked", if entry.revoked { "yes" } else { "no" }.to_owned()),
        ("signer", format!("{}, {trusted}", entry.signer)),
    ];
    let damage = entry.damage.as_ref().map(|damage| ("damage", plain(damage)));
    rows.iter().chain(&damage).map(|(name, value)| format!("{name:12} {value}\n")).collect()
}

/// Keys as a table.
pub fn keys(keys: &[TrustedKey]) -> String {
    let mut table = Table::new(&["NAME", "KEY"]);
    for key in keys {
        table.row([key.name.clone(), key.key.clone()]);
    }
    table.text()
}

fn all_or(names: &[String]) -> String {
    if names.is_empty() { "all".to_owned() } else { names.join(" ") }
}

/// Its state, or its end.
fn state(pvm: &PvmInfo) -> String {
    match (pvm.state, pvm.ended) {
        (State::Ended, Some(ended)) => ended.status.to_string(),
        (state, _) => format!("{state:?}").to_lowercase(),
    }
}

fn dash() -> String {
    "-".to_owned()
}

fn join(ids: &[u32]) -> String {
    ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
}

fn memory(kib: u64) -> String {
    match kib {
        0..1024 => format!("{kib} KiB"),
        _ if kib.is_multiple_of(1024) || kib >= 100 << 10 => format!("{} MiB", (kib + 512) >> 10),
        _ => format!("{:.1} MiB", kib as f64 / 1024.0),
    }
}

/// A duration with three digits.
fn span(ns: u64) -> String {
    let (value, unit) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (ns as f64 / 1e3, "us"),
        1_000_000..1_000_000_000 => (ns as f64 / 1e6, "ms"),
        _ => (ns as f64 / 1e9, "s"),
    };
    let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.decimals$} {unit}")
}

fn age(since_us: u64, now_us: u64) -> String {
    let seconds = now_us.saturating_sub(since_us) / 1_000_000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

fn moment(at_us: u64) -> String {
    // The last date that has a text, 9999-12-31T23:59:59.999999Z.
    let last_us = 253_402_300_799_999_999;
    humantime::format_rfc3339_micros(UNIX_EPOCH + Duration::from_micros(at_us.min(last_us))).to_string()
}

/// Columns as wide as their widest cell.
struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(titles: &[&str]) -> Self {
        Self { rows: vec![titles.iter().map(|title| (*title).to_owned()).collect()] }
    }

    fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    fn text(&self) -> String {
        let columns = self.rows[0].len();
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(line, "{cell:width$}  ");
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Backend, EndStatus, Ended, Kind, StepTime};

    const NOW: u64 = 1_700_000_000_000_000;
    const ASCII: Surroundings = Surroundings { now_us: NOW, unicode: false };

    fn pvm(id: u32, name: &str, parent: Option<u32>, seconds: u64) -> PvmInfo {
        PvmInfo {
            id,
            domid: id as u16 & 0x7fff,
            name: name.to_owned(),
            kind: if parent.is_some() { Kind::Child } else { Kind::Root },
            state: State::Running,
            can_fork: true,
            parent,
            root: 163_845,
            children: Vec::new(),
            prepared: 1,
            backend: Some(Backend::Foreign),
            memory_kib: 420,
            max_memory_kib: 66_560,
            cpu_ns: 1_234_567,
            since_us: NOW - seconds * 1_000_000,
            ended: None,
        }
    }

    /// A family of three generations, an orphan, and one that has ended.
    fn pvms() -> Vec<PvmInfo> {
        let mut root = pvm(163_845, "httpd", None, 200_000);
        root.children = vec![6, 7];
        root.memory_kib = 65_536;
        let mut worker = pvm(6, "httpd.6", Some(163_845), 9_000);
        worker.children = vec![8];
        let mut paused = pvm(7, "httpd.7", Some(163_845), 300);
        paused.state = State::Paused;
        paused.memory_kib = 1_500;
        let mut ended = pvm(8, "httpd.8", Some(6), 5);
        ended.state = State::Ended;
        ended.ended = Some(Ended { id: 8, status: EndStatus::Exit { code: 3 }, exit_code: 3, at_us: NOW });
        let mut other = pvm(65_545, "hello\x1b[2J\u{202e}", None, 0);
        (other.can_fork, other.backend, other.prepared, other.root) = (false, None, 0, 65_545);
        vec![root, worker, paused, ended, other, pvm(9, "orphan", Some(4), 2)]
    }

    #[test]
    fn golden() {
        let text: [(&str, String); 8] = [
            ("list", list(&pvms(), ASCII)),
            ("tree", tree(&pvms(), ASCII)),
            ("tree-unicode", tree(&pvms(), Surroundings { unicode: true, ..ASCII })),
            ("inspect", inspect(&pvms()[3], ASCII)),
            ("stats", stats(&some_stats())),
            ("pool", pool(&some_pool())),
            ("objects", objects(&some_objects())),
            ("events", some_events().iter().map(|one| event(one) + "\n").collect()),
        ];
        for (name, text) in text {
            let file = format!("{}/src/cli/golden/{name}.txt", env!("CARGO_MANIFEST_DIR"));
            // After an intended change: BLESS=1 cargo test -p pvm golden, and look at the
            // difference.
            if std::env::var_os("BLESS").is_some() {
                std::fs::write(&file, &text).unwrap();
            }
            assert_eq!(text, std::fs::read_to_string(&file).unwrap(), "{file}");
        }
    }

    fn some_stats() -> Stats {
        let step =
            |step: &str, last_ns, mean_ns, max_ns| StepTime { step: step.into(), count: 2, last_ns, mean_ns, max_ns };
        Stats {
            forks: 2,
            refused: vec![(12, 1), (11, 7)],
            prepared: 3,
            ended: 1,
            alive: 2,
            pool: 1,
            operations: 120,
            relinked_entries: 9,
            steps: vec![step("plan", 999, 4_100, 99_960), step("apply", 12_345_678, 2_000_000_000, u64::MAX)],
        }
    }

    fn some_pool() -> Vec<PoolInfo> {
        let domain =
            |id, state| PoolInfo { id, domid: 9, parent: 163_845, state, memory_kib: 420, linked_pages: 1_008 };
        vec![domain(7, State::Waiting), domain(2_000_000_009, State::Starting)]
    }

    fn some_objects() -> Vec<ObjectInfo> {
        let object = |name: &str, pages| ObjectInfo { name: name.into(), pages, family: 163_845, memory_owner: 12 };
        vec![object("queue", 17), object("a\x1b[2J\u{2067} na\u{200f}me", 512)]
    }

    fn some_events() -> Vec<Event> {
        [
            EventKind::Started { kind: Kind::Root, parent: None },
            EventKind::Started { kind: Kind::Child, parent: Some(5) },
            EventKind::Forked { children: vec![6, 7], duration_ns: 38_000 },
            EventKind::Prepared { prepared: 8, domid: 8 },
            EventKind::Refused { errno: 11, reason: "the family is full".into() },
            EventKind::LibraryRefused { library: "libz.so.1".into(), rule: "version rule: 1.0.0 is revoked".into() },
            EventKind::LibraryUpdated { library: "libz.so.1".into(), from: "1.0.0".into(), to: "1.0.1".into() },
            EventKind::LibraryKept { library: "libz.so.1".into(), reason: "migrate has returned 7".into() },
            EventKind::Ended { status: EndStatus::Signal { signal: 9 }, exit_code: 137 },
            EventKind::Trouble { message: "a prepared domain\nbroke".into() },
        ]
        .map(|kind| Event { at_us: NOW, id: 163_845, domid: 5, name: "httpd".into(), kind })
        .into()
    }

    #[test]
    fn a_family_that_goes_in_circles_is_no_endless_tree() {
        let pvms = [pvm(5, "a", Some(6), 0), pvm(6, "b", Some(5), 0), pvm(7, "c", Some(7), 0)];
        assert_eq!(tree(&pvms, ASCII), "c 7 running, 420 KiB\n");
    }

    #[test]
    fn the_place_of_the_console_commands_no_terminal() {
        let text = inspect(&pvm(5, "x\x1b[2J\u{202e}y", None, 0), ASCII);
        assert!(text.contains("guest-x[2Jy.log") && !text.contains(|c: char| c != '\n' && crate::plain::is_command(c)));
        assert!(
            inspect(&PvmInfo { since_us: u64::MAX, ..pvm(5, "x", None, 0) }, ASCII).contains("9999-12-31T23:59:59")
        );
    }

    #[test]
    fn spans_have_three_digits() {
        for (ns, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 us"),
            (9_994, "9.99 us"),
            (9_996, "10.0 us"),
            (99_960, "100 us"),
            (1_500_000, "1.50 ms"),
            (61_000_000_000, "61.0 s"),
        ] {
            assert_eq!(span(ns), text);
        }
    }
}
