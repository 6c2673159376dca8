//! xenstore between dom0 and a guest (tests/boot/xenstore_dom0.sh): a long value, a long list, bytes that are no text, and
//! a hundred changes at a time.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;

use test_guests::{check, check_eq, expect, success};
use zooid::println;
use zooid::time::Duration;
use zooid::xenstore::{self, Error};

zooid::main!(main);

fn main() {
    let mut changes = expect!(xenstore::watch("data/change"));
    let mut steps = expect!(xenstore::watch("data/step"));
    changes.wait();
    println!("watching");
    while xenstore::read("data/step").is_err() {
        steps.wait();
    }

    let long = expect!(xenstore::read("data/long"));
    println!("a value of {} bytes", long.len());
    check!(long.len() >= 4000 && long.bytes().all(|byte| byte == b'v'));

    let names: BTreeSet<String> = expect!(xenstore::list("data/list")).into_iter().collect();
    let wanted: BTreeSet<String> = (100..800).map(|number| format!("entry-{number}")).collect();
    check_eq!(names, wanted);

    check_eq!(xenstore::read("data/bytes"), Err(Error::NotUtf8));

    let mut missing: BTreeSet<String> = (100..200).map(|number| format!("data/change/{number}")).collect();
    while !missing.is_empty() {
        match changes.wait_timeout(Duration::from_secs(10)) {
            Some(path) => missing.remove(&path),
            None => test_guests::failure!("no event for {missing:?}"),
        };
    }
    expect!(xenstore::write("data/answer", "seen"));
    success();
}
