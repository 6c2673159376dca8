//! A hostile pVM that asks more of pvmd than it may have, without end, in one of several ways. Others must not notice.
//!
//! - `commits`: COMMITs for which nothing is prepared.
//! - `prepares`: PREPAREs of more than any quota allows.
//! - `garbage`: operations that there are not.
//! - `ends`: children that end at once.
//! - `tables`: page tables for as many frames as it has, before it goes on as `prepares` for one domain.
//! - `grants`: one page, granted as memory of ever other addresses; for the backend that copies.

#![no_std]
#![no_main]

use core::time::Duration;

use test_guests::{argument, error, expect};
use xen_abi::{DomId, PAGE_SIZE, Port};
use zooid::process;
use zooid::{println, thread, xenstore};
use zooid_fork_plan::wire::{ANNOUNCEMENT, MAX_CHILDREN, daemon, device, device_page, directory, guest, operation};
use zooid_kernel::gnttab::ReadablePages;
use zooid_kernel::mmu;
use zooid_kernel::shared::{SharedPages, barrier};

zooid::main!(main, mode = kernel);

/// Octets that a table of level 1 covers.
const SPAN: usize = 512 * PAGE_SIZE;
/// An operation that there is not.
const UNKNOWN: u32 = 77;

fn main() {
    let kind = argument();
    // An honest fork first, so that pvmd knows this pVM well.
    let Some(_) = expect!(process::fork()) else { process::exit(0) };
    expect!(process::wait());
    let daemon = Daemon::new();
    println!("the flood begins");
    match kind {
        "commits" => loop {
            daemon.ask(operation::COMMIT, MAX_CHILDREN);
        },
        "prepares" => loop {
            daemon.ask(operation::PREPARE, MAX_CHILDREN);
        },
        "garbage" => loop {
            daemon.ask(UNKNOWN, 1);
        },
        "ends" => loop {
            match process::fork() {
                Ok(None) => process::exit(0),
                Ok(Some(_)) => drop(process::wait()),
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        },
        "tables" => {
            // One for each 2 MiB, which nobody has to be told of but pvmd.
            while mmu::allocate_joint(SPAN / PAGE_SIZE).is_some() {}
            let tables = daemon.page.read_u32(guest::TABLES);
            println!("{tables} tables");
            loop {
                daemon.ask(operation::PREPARE, 1);
                daemon.page.write_u32(guest::TABLES, daemon.page.read_u32(guest::TABLES).wrapping_add(1));
            }
        }
        "grants" => {
            let (mut list, mut table) = (readable(), readable());
            let page = readable().reference(0).0;
            table.bytes(0..PAGE_SIZE).as_chunks_mut().0.iter_mut().for_each(|word| *word = page.to_le_bytes());
            let reference = table.reference(0).0;
            daemon.page.write_u32(guest::GRANTS, list.reference(0).0);
            for round in 1_u64.. {
                let bytes = list.bytes(0..PAGE_SIZE);
                bytes[directory::COUNT..][..4].copy_from_slice(&1_u32.to_le_bytes());
                bytes[directory::ENTRIES..][..8].copy_from_slice(&(round * SPAN as u64).to_le_bytes());
                bytes[directory::ENTRIES + 8..][..4].copy_from_slice(&reference.to_le_bytes());
                daemon.ask(operation::PREPARE, MAX_CHILDREN);
            }
        }
        other => error!("unknown flood {other:?}"),
    }
}

/// A page that domain 0 may read, for ever.
fn readable() -> ReadablePages {
    match ReadablePages::new(DomId::DOM0, 1) {
        Ok(page) => page,
        Err(_) => error!("no grant"),
    }
}

/// The way to pvmd, without any of the component's care.
struct Daemon {
    page: SharedPages,
    port: Port,
}

impl Daemon {
    fn new() -> Self {
        // SAFETY: the fork component has mapped the page there, for ever; several write its words all the time.
        let page = unsafe { SharedPages::new(device_page(device::CONTROL) as *mut u8, 1) };
        let announcement = expect!(xenstore::read(ANNOUNCEMENT));
        let last = announcement.rsplit(' ').next().and_then(|port| port.parse().ok());
        Self { page, port: Port(last.unwrap_or_else(|| error!("announced as {announcement:?}"))) }
    }

    /// Asks, and waits for the answer, which is nothing to it.
    fn ask(&self, operation: u32, count: u32) {
        let number = self.page.read_u32(guest::REQUEST).wrapping_add(1);
        self.page.write_u32(guest::OPERATION, operation);
        self.page.write_u32(guest::COUNT, count);
        barrier();
        self.page.write_u32(guest::REQUEST, number);
        expect!(xen_sys::event_channel_op_send(self.port));
        while self.page.read_u32_acquire(daemon::REPLY) != number {
            thread::yield_now();
        }
    }
}
