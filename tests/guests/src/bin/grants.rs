//! Grants: pages are granted and taken back; when the table is full, that is an error; nothing is lost. With the argument
//! "mapped" dom0 maps a page and keeps it for a while: until it lets go, the page is not used for anything else.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::collections::BTreeSet;
use alloc::string::ToString;
use alloc::vec::Vec;

use test_guests::{check, check_eq, error, expect, settle, success};
use xen_abi::DomId;
use zooid::{env, memory, println, xenstore};
use zooid_kernel::gnttab::{GrantError, GrantedPages};

zooid::main!(main);

const DOM0: DomId = DomId(0);

fn main() {
    settle();
    match env::args().next() {
        None => exhaustion(),
        Some("mapped") => mapped(),
        Some(other) => error!("no such test: {other}"),
    }
    success();
}

fn exhaustion() {
    // Makes the page tables of the zone, and the lists.
    let count = fill();
    println!("{count} pages");
    check!(count > 1000);
    let before = memory::statistics();
    check_eq!(fill(), count);
    check_eq!(memory::statistics(), before);
}

/// Grants pages until the table is full, each under a number of its own. Returns how many.
fn fill() -> usize {
    let mut all = Vec::new();
    let error = loop {
        match GrantedPages::new(DOM0, 1) {
            Ok(pages) => all.push(pages),
            Err(error) => break error,
        }
    };
    check_eq!(error, GrantError::TableFull);
    let references: BTreeSet<_> = all.iter().map(|pages| pages.reference(0).0).collect();
    check_eq!(references.len(), all.len());
    all.len()
}

fn mapped() {
    let mut watch = expect!(xenstore::watch("data/step"));
    let mut wait_for = |step: &str| {
        while xenstore::read("data/step").as_deref() != Ok(step) {
            watch.wait();
        }
    };
    // The first use of the zone takes page tables.
    drop(GrantedPages::new(DOM0, 1));
    let before = memory::statistics().free;
    let pages = expect!(GrantedPages::new(DOM0, 1));
    pages.pages().copy_in(0, b"from the guest");
    expect!(xenstore::write("data/reference", &pages.reference(0).0.to_string()));
    println!("granted");
    wait_for("mapped");
    let mut answer = [0; 9];
    pages.pages().copy_out(100, &mut answer);
    check_eq!(&answer, b"from dom0");
    drop(pages);
    // dom0 has it still: the frame is not free, and another grant gets another frame and number.
    check_eq!(memory::statistics().free, before - 4096);
    let other = expect!(GrantedPages::new(DOM0, 1));
    check!(xenstore::read("data/reference") != Ok(other.reference(0).0.to_string()));
    drop(other);
    println!("dropped");
    wait_for("unmapped");
    // The next grant is the occasion to find that out.
    drop(GrantedPages::new(DOM0, 1));
    check_eq!(memory::statistics().free, before);
}
