//! The xenstore client against the xenstored in memory.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use xen_abi::{DomId, Errno, Mfn, Port};
use zooid_core::xenstore::StreamError;

use super::{FakeXen, FakeXenstored, Fault};
use crate::xenstore::{Access, Command, Error, Permission};
use crate::{CreateDomain, Hypervisor};

const LONG: Duration = Duration::from_secs(60);

fn host() -> (FakeXen, FakeXenstored) {
    let fake = FakeXen::new(10);
    let xenstored = FakeXenstored::new(&fake);
    (fake, xenstored)
}

#[test]
fn nodes_are_written_listed_and_removed() {
    let (_, xenstored) = host();
    let store = xenstored.connect();
    store.write("/a/b", "1").unwrap();
    store.mkdir("/a/c").unwrap();
    store.write("/a/b/d", "").unwrap();
    store.set_permissions("/a/c", &[Permission { domain: DomId(3), access: Access::Read }]).unwrap();
    assert_eq!(store.read("/a/b"), Ok("1".into()));
    assert_eq!(store.list("/a"), Ok(vec!["b".into(), "c".into()]));
    assert_eq!(xenstored.permissions("/a/c").as_deref(), Some("r3"));
    store.remove("/a/b").unwrap();
    store.remove("/a/b").unwrap();
    assert_eq!(store.read("/a/b/d"), Err(Error::NotFound));
    assert_eq!(xenstored.nodes().into_keys().collect::<Vec<_>>(), ["/", "/a", "/a/c"]);
    let names: Vec<_> = (0..900).map(|index| format!("name-{index:04}")).collect();
    names.iter().for_each(|name| store.write(&format!("/many/{name}"), "").unwrap());
    assert_eq!(store.list("/many"), Ok(names));
}

#[test]
fn a_batch_is_done_in_order_and_tells_of_its_first_error() {
    for xenstored in [host().1, FakeXenstored::direct(&FakeXen::new(10))] {
        let store = xenstored.connect();
        let reader = [Permission { domain: DomId(3), access: Access::Read }];
        let commands = [
            Command::Write("/a/b", b"1"),
            Command::SetPermissions("/a", &reader),
            Command::Write("/a/b", b"2"),
            Command::Write("/a/c", b""),
            Command::Remove("/none"),
            Command::Remove("/a/c"),
        ];
        assert_eq!(store.batch(&commands), Ok(()));
        assert_eq!(store.list("/a"), Ok(vec!["b".into()]));
        assert_eq!((store.read("/a/b"), xenstored.permissions("/a").as_deref()), (Ok("2".into()), Some("r3")));
        assert_eq!(store.batch(&[]), Ok(()));

        // xenstored takes no part in the others' failure; what cannot be sent ends the list.
        let commands = [Command::Write("/d", b""), Command::Read("/none"), Command::Write("/e", b"")];
        assert_eq!(store.batch(&commands), Err(Error::NotFound));
        let commands = [Command::Write("/f", b""), Command::Mkdir("a\0b"), Command::Write("/g", b"")];
        assert_eq!(store.batch(&commands), Err(Error::EmbeddedNul));
        assert_eq!(xenstored.nodes().into_keys().collect::<Vec<_>>(), ["/", "/a", "/a/b", "/d", "/e", "/f"]);
        assert_eq!(store.read("/a/b"), Ok("2".into()), "no reply is taken for another");
    }
}

#[test]
fn a_transaction_is_done_whole_or_not_at_all() {
    let (_, xenstored) = host();
    let (store, other) = (xenstored.connect(), xenstored.connect());
    let mut runs = 0;
    let result = store.transact(|transaction| {
        runs += 1;
        transaction.write("/count", &runs.to_string())?;
        if runs == 1 {
            other.write("/between", "")?;
        }
        transaction.read("/count")
    });
    assert_eq!((result, runs), (Ok("2".into()), 2));
    let result = store.transact(|transaction| transaction.write("/undone", "").and(Err::<(), _>(Error::Invalid)));
    assert_eq!((result, store.read("/undone")), (Err(Error::Invalid), Err(Error::NotFound)));
}

#[test]
fn watches_tell_of_changes_until_they_are_dropped() {
    let (fake, xenstored) = host();
    let (store, other) = (xenstored.connect(), xenstored.connect());
    let watch = |path: &str| {
        let (sender, changes) = channel();
        (store.watch(path, move |path| drop(sender.send(path.to_owned()))).unwrap(), changes)
    };
    let (watched, changes) = watch("/a");
    let (_released, released) = watch("@releaseDomain");
    assert_eq!(changes.recv_timeout(LONG), Ok("/a".into()));
    assert_eq!(released.recv_timeout(LONG), Ok("@releaseDomain".into()));
    other.write("/a/b", "").unwrap();
    other.write("/ab", "").unwrap();
    other.remove("/a").unwrap();
    assert_eq!(changes.recv_timeout(LONG), Ok("/a/b".into()));
    assert_eq!(changes.recv_timeout(LONG), Ok("/a".into()));
    drop(watched);
    assert_eq!(changes.recv_timeout(LONG), Err(RecvTimeoutError::Disconnected));

    let config = CreateDomain {
        flags: 0,
        max_vcpus: 1,
        max_evtchn_port: 9,
        max_grant_frames: 1,
        max_maptrack_frames: 0,
        handle: [0; 16],
        cpupool: 0,
    };
    let domain = fake.create_domain(&config).unwrap();
    store.introduce(domain, Mfn(5), Port(1)).unwrap();
    assert_eq!(store.is_introduced(domain), Ok(true));
    fake.destroy(domain).unwrap();
    xenstored.domains_changed();
    assert_eq!(released.recv_timeout(LONG), Ok("@releaseDomain".into()));
    assert_eq!((store.is_introduced(domain), store.release(domain)), (Ok(false), Err(Error::NotFound)));
    assert_eq!(store.introduce(domain, Mfn(5), Port(1)), Err(Error::Other("ESRCH".into())));
}

#[test]
fn threads_share_a_connection() {
    let (_, xenstored) = host();
    let store = xenstored.connect();
    thread::scope(|scope| {
        for thread in 0..8 {
            let store = &store;
            scope.spawn(move || {
                let path = format!("/{thread}");
                for value in 0..100 {
                    store.write(&path, &value.to_string()).unwrap();
                    assert_eq!(store.read(&path), Ok(value.to_string()));
                }
            });
        }
    });
}

#[test]
fn the_end_of_the_connection_is_an_error_and_no_hang() {
    let (fake, xenstored) = host();
    let store = xenstored.connect();
    fake.inject(1, Fault::Fail(Errno::ENOSPC));
    assert_eq!(store.write("/a", "1"), Err(Error::NoSpace));
    fake.inject(2, Fault::KillBefore);
    store.write("/a", "1").unwrap();
    assert_eq!(store.write("/a", "2"), Err(StreamError::Closed.into()));
    assert_eq!(store.read("/a"), Err(StreamError::Closed.into()));
    fake.restart();
    let store = xenstored.connect();
    assert_eq!(store.read("/a"), Ok("1".into()));
    fake.inject(1, Fault::KillAfter);
    assert_eq!(store.write("/a", "3"), Err(StreamError::Closed.into()));
    fake.restart();
    assert_eq!(xenstored.connect_uncounted().read("/a"), Ok("3".into()));
}

#[test]
fn a_direct_xenstored_has_told_of_a_change_before_the_change_is_answered() {
    let fake = FakeXen::new(10);
    let xenstored = FakeXenstored::direct(&fake);
    let (store, other) = (xenstored.connect(), xenstored.connect_uncounted());
    let (sender, changes) = channel();
    let watch = store.watch("/a", move |path| sender.send(path.to_owned()).unwrap()).unwrap();
    assert_eq!(changes.try_recv(), Ok("/a".to_owned()));
    other.write("/a/b", "1").unwrap();
    assert_eq!(changes.try_recv(), Ok("/a/b".to_owned()));
    assert_eq!(store.read("/a/b"), Ok("1".to_owned()));
    drop(watch);
    other.write("/a/b", "2").unwrap();
    assert!(changes.try_recv().is_err());
    let operations = fake.operations().len();
    fake.inject(1, Fault::KillBefore);
    assert_eq!(store.read("/a/b"), Err(StreamError::Closed.into()));
    assert_eq!((fake.operations().len(), store.read("/a/b")), (operations + 1, Err(StreamError::Closed.into())));
    fake.restart();
    assert_eq!(xenstored.connect().read("/a/b"), Ok("2".to_owned()));
}
