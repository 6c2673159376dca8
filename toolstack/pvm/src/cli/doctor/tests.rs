//! The judgement of hosts that lack something, and the comparison of the lists on the fake Xen.

use std::os::unix::net::UnixListener;

use xen_abi::DomId;
use xenctl::Hypervisor;
use xenctl::fake::{FakeXen, FakeXenstored};
use zooid_fork_plan::id::{Handle, Kind, PvmId};

use super::books::{Known, Look, judge};
use super::host::{Daemon, Facts, Grants, Places, StoreKind, Tsc, consoles, is_locked, left, limit};
use super::*;
use crate::engine::{PoolInfo, PvmInfo};
use crate::testing::{TemporaryDirectory, small_domain};

/// A host on which all is well.
fn good() -> Facts {
    Facts {
        version: Some("4.17.5".into()),
        capabilities: Some("xen-3.0-x86_64 hvm-3.0-x86_64".into()),
        is_dom0: true,
        guest_type: Some("PV".into()),
        release: Ok("4.17"),
        denied: false,
        free_kib: Some(8 << 20),
        tsc: Tsc::Native,
        grants: Some(Grants { frames: 64, maptrack: 1024 }),
        bridges: vec!["xenbr0".into()],
        config: Ok((Some("xenbr0".into()), 16 << 10)),
        store: Ok(()),
        store_kind: StoreKind::C,
        daemon: Daemon::Runs {
            program: concat!("pvmd ", env!("CARGO_PKG_VERSION")).into(),
            pid: 77,
            descriptors: Some((23, 65536)),
        },
        locked: Some(true),
        socket_mode: Some(0o140_660),
        left: Vec::new(),
        consoles: Some((0, 0)),
        socket: "/run/zooid/pvmd.sock".into(),
    }
}

/// The gravest finding's check, level and exit code of a host.
fn worst(facts: &Facts) -> (&'static str, Level, u8) {
    let findings = facts.judge();
    for finding in &findings {
        assert!(!finding.message.contains('\n') && !finding.message.is_empty(), "{}", finding.message);
        assert_eq!(finding.remedy.is_none(), finding.level == Level::Good, "{}: what to do?", finding.message);
    }
    let of = |level| findings.iter().find(|finding| finding.level == level);
    let worst = of(Level::Bad).or_else(|| of(Level::Note)).unwrap_or(&findings[0]);
    (worst.check, worst.level, status(&findings))
}

#[test]
fn a_good_host_has_nothing_but_good_lines() {
    assert_eq!(worst(&good()), ("xen", Level::Good, 0));
    let text = render(&good().judge(), false);
    assert_eq!(
        text,
        "good    xen          Xen 4.17.5, with the interfaces of 4.17\n\
         good    dom0         dom0 is a PV guest: children share their parents' memory\n\
         good    memory       8192 MiB are free\n\
         good    grants       grant tables have 64 frames; dom0 maps 262144 grants at once, which is enough for about 507 pVMs with a network\n\
         good    tsc          Xen takes the processors' TSC for reliable: guests read it themselves\n\
         good    bridge       bridges: xenbr0\n\
         good    xenstored    xenstored answers; it is the one in C\n\
         good    pvmd         pvmd 0.1.0 runs, as process 77\n\
         good    descriptors  pvmd has 23 of at most 65536 file descriptors\n"
            .replace("0.1.0", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn what_a_host_lacks_is_named_and_decides_the_status() {
    use Level::{Bad, Note};
    let runs = |program: &str, descriptors| Daemon::Runs { program: program.into(), pid: 77, descriptors };
    let this = concat!("pvmd ", env!("CARGO_PKG_VERSION"));
    let new = "this is Xen 4.23, whose domctl interface is unknown: Xen 4.17 to 4.22 is supported";
    for (facts, expected) in [
        (Facts { release: Err(new.into()), free_kib: None, ..good() }, ("xen", Bad, 1)),
        (Facts { release: Err("cannot open /dev/xen/privcmd".into()), version: None, ..good() }, ("xen", Bad, 1)),
        (Facts { release: Err("permission denied".into()), denied: true, ..good() }, ("xen", Bad, 122)),
        (Facts { is_dom0: false, ..good() }, ("dom0", Bad, 1)),
        (Facts { capabilities: Some("hvm-3.0-x86_64".into()), ..good() }, ("dom0", Bad, 1)),
        (Facts { guest_type: Some("PVH".into()), ..good() }, ("dom0", Note, 0)),
        (Facts { free_kib: Some(20 << 10), ..good() }, ("memory", Note, 0)),
        (Facts { free_kib: Some(16 << 10), ..good() }, ("memory", Bad, 1)),
        (Facts { grants: Some(Grants { frames: 64, maptrack: 32 }), ..good() }, ("grants", Note, 0)),
        (Facts { tsc: Tsc::Emulated, ..good() }, ("tsc", Note, 0)),
        (Facts { bridges: Vec::new(), config: Ok((None, 0)), ..good() }, ("bridge", Note, 0)),
        (Facts { bridges: vec!["br1".into()], ..good() }, ("bridge", Bad, 1)),
        (Facts { config: Err("pvmd.toml, line 1: unknown field".into()), ..good() }, ("config", Bad, 1)),
        (Facts { store: Err("it does not answer within 5 s".into()), ..good() }, ("xenstored", Bad, 1)),
        (Facts { store_kind: StoreKind::OCaml, ..good() }, ("xenstored", Note, 0)),
        (Facts { daemon: Daemon::Missing { left_socket: true }, ..good() }, ("pvmd", Bad, 121)),
        (Facts { daemon: Daemon::Silent("pvmd does not answer".into()), ..good() }, ("pvmd", Bad, 121)),
        (Facts { daemon: Daemon::NoRight("no right".into()), ..good() }, ("pvmd", Bad, 122)),
        (Facts { daemon: runs("pvmd 0.0.1", None), ..good() }, ("pvmd", Bad, 1)),
        (Facts { daemon: runs(this, Some((10, 1024))), ..good() }, ("descriptors", Note, 0)),
        (Facts { daemon: runs(this, Some((960, 1024))), ..good() }, ("descriptors", Bad, 1)),
        (Facts { left: vec!["/run/zooid/pvmd.5".into()], ..good() }, ("files", Bad, 1)),
        (Facts { locked: Some(false), ..good() }, ("files", Bad, 1)),
        (Facts { socket_mode: Some(0o140_666), ..good() }, ("files", Bad, 1)),
        (Facts { consoles: Some((3, 4096)), ..good() }, ("files", Note, 0)),
        // More than one: a host that lacks something is not only without a daemon.
        (Facts { is_dom0: false, daemon: Daemon::Missing { left_socket: false }, ..good() }, ("dom0", Bad, 1)),
    ] {
        assert_eq!(worst(&facts), expected);
    }
}

#[test]
fn facts_are_read_as_xen_and_linux_write_them() {
    let key = "(XEN) 's' pressed -> dumping softtsc\n";
    for (log, tsc) in [
        ("(XEN) TSC marked as reliable, warp = 0 (count=2)\n(XEN) No domains have emulated TSC", Tsc::Native),
        (
            "(XEN) TSC has constant rate, no deep Cstates, passed warp test, deemed reliable, warp=0 (count=2)",
            Tsc::Native,
        ),
        ("(XEN) TSC has constant rate, deep Cstates possible, so not reliable, warp=0 (count=2)", Tsc::Emulated),
        (
            "(XEN) TSC marked as reliable, warp = 0 (count=1)\n(XEN) TSC not marked as either constant or reliable, warp=9 (count=2)",
            Tsc::Emulated,
        ),
        ("(XEN) nothing", Tsc::Unknown),
    ] {
        assert_eq!(Tsc::parse(&format!("{key}{log}\n")), tsc, "{log}");
    }
    assert_eq!(Grants::parse(" placeholder dom0_mem=1G"), Grants { frames: 64, maptrack: 1024 });
    assert_eq!(
        Grants::parse("gnttab_max_frames=32 x gnttab_max_maptrack_frames=0x100 gnttab_max_frames=128"),
        Grants { frames: 128, maptrack: 256 }
    );
    let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                  Max open files            1024                 524288               files     \n";
    assert_eq!(limit(limits), Some(1024));
    assert_eq!(limit("Max open files            unlimited            unlimited            files"), Some(u64::MAX));
    assert_eq!(limit(""), None);
}

/// A pVM as pvmd describes it.
fn pvm(id: PvmId, name: &str) -> PvmInfo {
    serde_json::from_value(json!({
        "id": id.raw(), "domid": id.domain().0, "name": name, "kind": "child", "state": "running", "can_fork": true,
        "parent": null, "root": id.raw(), "children": [], "prepared": 0, "backend": null, "memory_kib": 0,
        "max_memory_kib": 0, "cpu_ns": 0, "since_us": 0, "ended": null
    }))
    .unwrap()
}

fn id(domain: u16, generation: u16) -> PvmId {
    PvmId::new(DomId(domain), generation).unwrap()
}

#[test]
fn files_of_what_has_ended_are_found_and_removed() {
    let directory = TemporaryDirectory::new("doctor");
    let root = directory.path();
    for path in ["proc/5", "run/pvmd.5/socket", "run/pvmd.6", "run/pvmd.lock", "run/other.7", "var/log/xen/console"] {
        fs::create_dir_all(root.join(path)).unwrap();
    }
    let places = Places { root: root.into(), socket: root.join("run/pvmd.sock"), config: root.join("pvmd.toml") };
    // That of process 5 is about to start.
    assert_eq!(left(&places), [root.join("run/pvmd.6")]);

    let (lives, gone) = (id(7, 3), id(8, 3));
    for name in [format!("web-{lives}"), format!("web-{gone}"), "web".into(), "web-2".into(), "other.log".into()] {
        fs::write(root.join(format!("var/log/xen/console/guest-{name}.log")), b"12345").unwrap();
    }
    assert_eq!(consoles(&places, &[pvm(lives, &format!("web-{lives}"))]), (1, 5));

    let mut findings = Facts { left: left(&places), ..good() }.judge();
    assert_eq!(status(&findings), 1);
    repair(&mut findings, |mend| act_on_file(mend, None));
    assert_eq!(status(&findings), 0);
    assert!(!root.join("run/pvmd.6").exists() && root.join("run/pvmd.5").exists());
    assert!(render(&findings, true).contains("mended  files"));
}

#[test]
fn a_socket_is_removed_only_while_no_daemon_can_start() {
    let directory = TemporaryDirectory::new("doctor-socket");
    let socket = directory.path().join("pvmd.sock");
    drop(UnixListener::bind(&socket).unwrap());
    let mend = Mend::Socket(socket.clone());
    let lock = socket.with_extension("lock");
    assert!(!is_locked(&lock));
    let daemon = DaemonLock::take(&socket, false).unwrap();
    assert!(is_locked(&lock));
    assert!(DaemonLock::take(&socket, false).is_none(), "another has it");
    assert!(act_on_file(&mend, None).is_err() && socket.symlink_metadata().is_ok());
    drop(daemon);
    let lock = DaemonLock::take(&socket, false);
    act_on_file(&mend, lock.as_ref()).unwrap();
    assert!(socket.symlink_metadata().is_err());
    assert!(DaemonLock::take(&socket, true).is_none(), "a daemon has answered");
}

/// A host with a fake Xen and a fake xenstored.
struct Host {
    xen: FakeXen,
    server: FakeXenstored,
    store: Store,
}

impl Host {
    fn new() -> Self {
        let xen = FakeXen::new(1000).uncounted();
        let server = FakeXenstored::direct(&xen);
        let store = server.connect_uncounted();
        store.write("/local/domain/0/name", "Domain-0").unwrap();
        Self { xen, server, store }
    }

    /// A domain of pvmd's.
    fn domain(&self, kind: Option<Kind>) -> PvmId {
        let config = small_domain(Handle::UNFINISHED);
        let id = id(self.xen.create_domain(&config).unwrap().0, 3);
        if let Some(kind) = kind {
            let handle = Handle { kind, id, parent: id, commit: 1 };
            self.xen.set_handle(id.domain(), &handle.to_octets()).unwrap();
        }
        id
    }

    fn home(&self, id: PvmId) {
        let domain = id.domain();
        self.store.write(&format!("/local/domain/{domain}/zooid"), &format!("{id} {id} {id}")).unwrap();
        self.store.write(&format!("/local/domain/{domain}/name"), "web").unwrap();
        self.store.write(&format!("/libxl/{domain}/type"), "pv").unwrap();
    }

    fn look(&self, known: Option<(&[PvmId], &[PvmId])>) -> Look {
        let known = known.map(|(pvms, pool)| Known {
            pvms: pvms.iter().map(|id| pvm(*id, "web")).collect(),
            pool: pool
                .iter()
                .map(|id| PoolInfo {
                    id: id.raw(),
                    domid: id.domain().0,
                    parent: 1,
                    state: crate::engine::State::Waiting,
                    memory_kib: 0,
                    linked_pages: 0,
                })
                .collect(),
        });
        Look::take(&self.xen, &self.store, known).unwrap()
    }

    /// The common part of two looks.
    fn findings(&self, known: Option<(&[PvmId], &[PvmId])>) -> Vec<Finding> {
        judge(&self.look(known), &self.look(known))
    }

    fn repair(&self, findings: &mut [Finding], alone: bool) {
        repair(findings, |mend| match mend {
            Mend::Mismatch(mismatch) => mismatch.mend(&self.xen, &self.store, alone),
            mend => act_on_file(mend, None),
        });
    }
}

fn lines(findings: &[Finding]) -> Vec<&str> {
    findings.iter().map(|finding| &*finding.message).collect()
}

#[test]
fn a_host_whose_lists_agree_is_well() {
    let host = Host::new();
    let (child, waiting) = (host.domain(Some(Kind::Child)), host.domain(Some(Kind::Prepared)));
    let owner = host.domain(Some(Kind::MemoryOwner));
    [child, waiting, owner].into_iter().for_each(|id| host.home(id));
    let findings = host.findings(Some((&[child], &[waiting])));
    assert_eq!(lines(&findings), ["Xen, xenstore and pvmd agree about pvmd's domains, of which there are 3"]);
    assert_eq!(status(&findings), 0);
}

#[test]
fn a_home_of_a_domain_that_has_gone_is_removed_and_nothing_else() {
    let host = Host::new();
    let child = host.domain(Some(Kind::Child));
    host.home(child);
    let before = host.server.nodes();
    host.home(id(9, 2));
    host.store.write("/local/domain/0/backend/vif/9/0/state", "6").unwrap();
    // The home of a domain that a toolstack made is not ours.
    host.store.write("/local/domain/10/name", "other").unwrap();
    let mut findings = host.findings(Some((&[child], &[])));
    assert_eq!(lines(&findings), ["/local/domain/9 is the home of a domain that has gone"]);
    assert_eq!(status(&findings), 1);
    host.repair(&mut findings, false);
    assert_eq!((status(&findings), findings[0].repaired), (0, true));
    host.store.remove("/local/domain/10").unwrap();
    let rest = |nodes: std::collections::BTreeMap<String, String>| -> Vec<String> {
        nodes.into_keys().filter(|path| !path.starts_with("/local/domain/0/backend")).collect()
    };
    assert_eq!(rest(host.server.nodes()), rest(before));
    assert!(!host.server.nodes().contains_key("/local/domain/0/backend/vif/9"));
    assert_eq!(host.findings(Some((&[child], &[]))).len(), 1);
}

#[test]
fn a_home_that_is_taken_again_before_the_repair_stays() {
    let host = Host::new();
    host.home(id(1, 2));
    let mut findings = host.findings(Some((&[], &[])));
    assert_eq!(lines(&findings), ["/local/domain/1 is the home of a domain that has gone"]);
    let child = host.domain(Some(Kind::Child));
    assert_eq!(child.domain(), DomId(1));
    host.home(child);
    let nodes = host.server.nodes();
    host.repair(&mut findings, false);
    assert!(!findings[0].repaired && findings[0].remedy.as_ref().unwrap().contains("it has changed meanwhile"));
    assert_eq!(host.server.nodes(), nodes);
    // The same with a home that was not written yet.
    let host = Host::new();
    host.home(id(1, 2));
    let mut findings = host.findings(None);
    host.domain(None);
    host.repair(&mut findings, true);
    assert!(!findings[0].repaired && host.server.nodes().contains_key("/local/domain/1/zooid"));
}

#[test]
fn prepared_domains_that_nobody_owns_are_destroyed_only_while_no_daemon_runs() {
    let host = Host::new();
    let (prepared, begun) = (host.domain(Some(Kind::Prepared)), host.domain(None));
    host.home(prepared);
    let expected = [
        "domain 1 was prepared for a child, and nobody owns it",
        "domain 2 was prepared for a child, and nobody owns it",
    ];
    // With a daemon, one of them may be under construction.
    let mut findings = host.findings(Some((&[], &[])));
    assert_eq!(lines(&findings)[0], "domain 1 was prepared for a child, and pvmd does not list it");
    assert_eq!((findings.len(), status(&findings)), (2, 0));
    host.repair(&mut findings, false);
    assert!(findings.iter().all(|finding| !finding.repaired) && host.xen.guests().len() == 2);

    let mut findings = host.findings(None);
    assert_eq!(lines(&findings), expected);
    // A daemon starts before the repair.
    host.repair(&mut findings, false);
    assert_eq!((status(&findings), host.xen.guests().len()), (1, 2));
    let mut findings = host.findings(None);
    // One has become another's.
    let handle = Handle { kind: Kind::Child, id: begun, parent: prepared, commit: 1 };
    host.xen.set_handle(begun.domain(), &handle.to_octets()).unwrap();
    host.repair(&mut findings, true);
    assert_eq!(findings.iter().map(|finding| finding.repaired).collect::<Vec<_>>(), [true, false]);
    let left: Vec<DomId> = host.xen.guests().iter().map(|info| info.id).collect();
    assert_eq!(left, [begun.domain()]);
    assert!(!host.server.nodes().contains_key("/local/domain/1"));
}

#[test]
fn what_only_the_daemon_can_mend_is_named_with_advice() {
    let host = Host::new();
    let (unknown, homeless, occupied) =
        (host.domain(Some(Kind::Child)), host.domain(Some(Kind::Child)), host.domain(Some(Kind::Child)));
    let missing = id(40, 1);
    host.home(unknown);
    host.home(id(occupied.domain().0, 9));
    let mut findings = host.findings(Some((&[homeless, occupied, missing], &[])));
    let mut said = lines(&findings);
    said.sort_unstable();
    assert_eq!(
        said,
        [
            format!("domain 1 is the pVM {unknown}, which pvmd does not know"),
            format!("domain 2, the pVM {homeless}, has no home in xenstore: no tool shows its name"),
            format!("pvmd lists the pVM {missing}, whose domain 40 does not exist"),
            "the home of domain 3 says that it is another pVM's".to_owned(),
        ]
    );
    assert!(findings.iter().all(|finding| finding.remedy.is_some() && finding.mend.is_none()));
    let before = (host.xen.census(), host.server.nodes());
    host.repair(&mut findings, true);
    assert_eq!((host.xen.census(), host.server.nodes()), before);

    // Without a daemon: ended ones wait for the next.
    let host = Host::new();
    let ended = host.domain(Some(Kind::Ended));
    host.home(ended);
    let findings = host.findings(None);
    assert_eq!(lines(&findings), ["the pVM of domain 1 has ended, and its parent was not told"]);
    assert_eq!(status(&findings), 0);
}

#[test]
fn what_changes_between_two_looks_is_no_finding() {
    let host = Host::new();
    host.home(id(9, 2));
    let first = host.look(Some((&[], &[])));
    host.store.remove("/local/domain/9").unwrap();
    let waiting = host.domain(Some(Kind::Prepared));
    let second = host.look(Some((&[], &[])));
    assert_eq!(
        lines(&judge(&first, &second)),
        ["Xen, xenstore and pvmd agree about pvmd's domains, of which there are 1"]
    );
    let third = host.look(Some((&[], &[waiting])));
    assert_eq!(status(&judge(&second, &third)), 0);
}

#[test]
fn json_has_all_findings_and_the_status() {
    let facts = Facts { daemon: Daemon::Missing { left_socket: true }, ..good() };
    let findings = facts.judge();
    let value = to_json(&findings, status(&findings));
    assert_eq!(value["status"], 121);
    let bad: Vec<&Value> = value["findings"].as_array().unwrap().iter().filter(|it| it["level"] == "bad").collect();
    assert_eq!(
        *bad[0],
        json!({
            "check": "pvmd", "level": "bad", "message": "pvmd does not run (nobody at /run/zooid/pvmd.sock)",
            "remedy": "`systemctl start pvmd`", "repaired": false
        })
    );
    assert!(render(&findings, false).ends_with("`pvm doctor --repair` mends 1 of these.\n"));
}
