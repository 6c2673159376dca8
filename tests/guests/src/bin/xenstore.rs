//! xenstore: entries are written, read, listed and removed; every refusal is an error of its own; a
//! transaction is one step; watches tell of every change.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use test_guests::{Random, check, check_eq, expect, success};
use xen_abi::DomId;
use zooid::thread;
use zooid::time::{Duration, Instant};
use zooid::xenstore::{self, Access, Error, Permission};

zooid::main!(main);

fn main() {
    entries();
    sizes();
    refusals();
    permissions();
    transactions();
    watches();
    threads();
    success();
}

fn entries() {
    expect!(xenstore::write("data/a", "one"));
    check_eq!(xenstore::read("data/a"), Ok("one".to_string()));
    expect!(xenstore::write("data/a", ""));
    check_eq!(xenstore::read("data/a"), Ok(String::new()));
    // Relative and absolute paths name the same.
    let home = format!("/local/domain/{}", expect!(xenstore::read("domid")));
    expect!(xenstore::write(&format!("{home}/data/a"), "two\nlines, \u{e4}"));
    check_eq!(xenstore::read("data/a"), Ok("two\nlines, \u{e4}".to_string()));
    // Missing nodes on the way are made, and have no value.
    expect!(xenstore::write("data/b/c/d", "deep"));
    check_eq!(xenstore::read("data/b/c"), Ok(String::new()));
    expect!(xenstore::make_directory("data/e"));
    expect!(xenstore::make_directory("data/e"));
    let mut names = expect!(xenstore::list("data"));
    names.sort();
    check_eq!(names, ["a", "b", "e"]);
    check_eq!(xenstore::list("data/e"), Ok(Vec::new()));
    for name in ["a", "b", "e", "e"] {
        expect!(xenstore::remove(&format!("data/{name}")));
    }
    check_eq!(xenstore::read("data/b/c/d"), Err(Error::NotFound));
    check_eq!(xenstore::list("data"), Ok(Vec::new()));

    let wanted: Vec<String> = (0..100).map(|number| format!("entry-{number:03}")).collect();
    for name in &wanted {
        expect!(xenstore::write(&format!("data/many/{name}"), name));
    }
    let mut names = expect!(xenstore::list("data/many"));
    names.sort();
    check_eq!(names, wanted);
    expect!(xenstore::remove("data/many"));
}

/// Values of every size that xenstored takes from a guest, around the size of the ring too.
fn sizes() {
    let mut random = Random::new(1);
    for length in [1, 2, 255, 256, 257, 990, 1000, 1007, 1008, 1009, 1023, 1024, 1025, 1500, 1900] {
        let value: String = (0..length).map(|_| (b'a' + random.below(26) as u8) as char).collect();
        expect!(xenstore::write("data/sized", &value));
        check_eq!(xenstore::read("data/sized"), Ok(value));
    }
    // xenstored's quota for one entry is 2,048 bytes; a request is at most 4,096 long, with
    // "data/sized" and its NUL.
    check_eq!(xenstore::write("data/sized", &"x".repeat(4096 - 11)), Err(Error::NoSpace));
    check_eq!(xenstore::write("data/sized", &"x".repeat(4096 - 10)), Err(Error::TooLong));
    check_eq!(expect!(xenstore::read("data/sized")).len(), 1900);
    expect!(xenstore::remove("data/sized"));
}

fn refusals() {
    check_eq!(xenstore::read("data/none"), Err(Error::NotFound));
    check_eq!(xenstore::list("data/none"), Err(Error::NotFound));
    check_eq!(xenstore::write("name", "other"), Err(Error::AccessDenied));
    check_eq!(xenstore::write("/local/domain/0/name", "other"), Err(Error::AccessDenied));
    check_eq!(xenstore::remove("/local"), Err(Error::AccessDenied));
    for bad in ["data//a", "data/a/", "data/a b", "data/a*", "", "//", "data/\u{e4}"] {
        check_eq!(xenstore::read(bad), Err(Error::Invalid));
    }
    check_eq!(xenstore::read("data/a\0b"), Err(Error::EmbeddedNul));
    check_eq!(xenstore::read(&"a".repeat(2049)), Err(Error::TooLong));
    check_eq!(xenstore::read(&format!("/{}", "a".repeat(3072))), Err(Error::TooLong));
    // None of this has broken the connection.
    check!(xenstore::read("domid").is_ok());
}

fn permissions() {
    expect!(xenstore::write("data/own", "mine"));
    let own = expect!(expect!(xenstore::read("domid")).parse());
    let list = [
        Permission { domain: DomId(own), access: Access::None },
        Permission { domain: DomId(0), access: Access::Read },
    ];
    expect!(xenstore::set_permissions("data/own", &list));
    check_eq!(xenstore::read("data/own"), Ok("mine".to_string()));
    check_eq!(xenstore::set_permissions("name", &list), Err(Error::AccessDenied));
    // An entry cannot be given away.
    let others = [Permission { domain: DomId(0), access: Access::ReadWrite }];
    check!(xenstore::set_permissions("data/own", &others).is_err());
    expect!(xenstore::remove("data/own"));
}

fn transactions() {
    expect!(xenstore::write("data/count", "1"));
    // A transaction's writes are seen inside it, and outside only when it has ended.
    expect!(xenstore::transact(|inside| {
        inside.write("data/count", "2")?;
        inside.write("data/new", "")?;
        check_eq!(inside.read("data/count")?, "2");
        check_eq!(xenstore::read("data/count")?, "1");
        check_eq!(xenstore::read("data/new"), Err(Error::NotFound));
        check!(inside.list("data")?.contains(&"new".to_string()));
        inside.remove("data/new")
    }));
    check_eq!(xenstore::read("data/count"), Ok("2".to_string()));
    check_eq!(xenstore::read("data/new"), Err(Error::NotFound));
    // An error undoes it.
    let result: Result<(), Error> = xenstore::transact(|inside| {
        inside.write("data/count", "3")?;
        Err(Error::Invalid)
    });
    check_eq!(result, Err(Error::Invalid));
    check_eq!(xenstore::read("data/count"), Ok("2".to_string()));
    // A transaction that conflicts with another change is repeated.
    let mut tries = 0;
    let count = xenstore::transact(|inside| {
        tries += 1;
        let count: u32 = inside.read("data/count")?.parse().unwrap_or(0);
        if tries < 3 {
            xenstore::write("data/count", &format!("{}", count + 10))?;
        }
        inside.write("data/count", &format!("{}", count + 1))?;
        Ok(count)
    });
    check_eq!((count, tries), (Ok(22), 3));
    check_eq!(xenstore::read("data/count"), Ok("23".to_string()));
    expect!(xenstore::remove("data/count"));
}

fn watches() {
    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(10);
    let mut watch = expect!(xenstore::watch("data/watched"));
    let mut other = expect!(xenstore::watch("data/watched"));
    let mut inner = expect!(xenstore::watch("data/watched/below"));
    for first in [&mut watch, &mut other] {
        check_eq!(first.wait_timeout(LONG).as_deref(), Some("data/watched"));
    }
    check_eq!(inner.wait_timeout(LONG).as_deref(), Some("data/watched/below"));
    let start = Instant::now();
    check_eq!(watch.wait_timeout(SHORT), None);
    check!(start.elapsed() >= SHORT);

    expect!(xenstore::write("data/watched", "x"));
    expect!(xenstore::write("data/watched/elsewhere", "x"));
    expect!(xenstore::write("data/watched/below/it", "x"));
    for watch in [&mut watch, &mut other] {
        check_eq!(watch.wait().as_deref(), Some("data/watched"));
        check_eq!(watch.wait().as_deref(), Some("data/watched/elsewhere"));
        // Making what is missing on the way is no event of its own.
        check_eq!(watch.wait().as_deref(), Some("data/watched/below/it"));
    }
    check_eq!(inner.wait().as_deref(), Some("data/watched/below/it"));
    // A watch that ended tells nothing more, the other goes on.
    drop(other);
    expect!(xenstore::remove("data/watched"));
    check_eq!(watch.wait().as_deref(), Some("data/watched"));
    check_eq!(inner.wait().as_deref(), Some("data/watched/below"));
    check_eq!(xenstore::watch("not valid").map(drop), Err(Error::Invalid));
}

/// Requests, transactions and watches of eight threads at once.
fn threads() {
    const ROUNDS: usize = 20;
    expect!(xenstore::write("data/total", "0"));
    let threads: Vec<_> = (0..8u64)
        .map(|seed| {
            thread::spawn(move || {
                let mut random = Random::new(seed);
                let path = format!("data/thread/{seed}");
                let mut watch = expect!(xenstore::watch(&path));
                watch.wait();
                for round in 0..ROUNDS {
                    let value = format!("{seed}-{round}-{}", "x".repeat(random.below(1500) as usize));
                    expect!(xenstore::write(&path, &value));
                    check_eq!(watch.wait().as_deref(), Some(path.as_str()));
                    check_eq!(xenstore::read(&path), Ok(value));
                    if round % 5 == 0 {
                        expect!(xenstore::transact(|inside| {
                            let total: usize = inside.read("data/total")?.parse().unwrap_or(0);
                            inside.write("data/total", &format!("{}", total + 1))
                        }));
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join());
    check_eq!(xenstore::read("data/total"), Ok(format!("{}", 8 * ROUNDS / 5)));
    expect!(xenstore::remove("data/thread"));
}
