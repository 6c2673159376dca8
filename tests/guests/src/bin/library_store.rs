//! Opens libraries of the host's store (tests/boot/library_store*.sh puts them there).
//!
//! - `share`: a library's constants and instructions are dom0's own pages, in children, too; nobody
//!   can write them.
//! - `hold VERSION`: has a library open, forks when it is asked to (`data/fork`), and ends when it
//!   is asked to (`data/stop`).
//! - `version VERSION RANGE...`: gets this version.
//! - `refused NAME=RULE...`: is refused these, by pvmd (`-`) or by its own rules.
//! - `churn`: opens and closes without end, until `data/stop`.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::ffi::{c_int, c_ulong};
use core::time::Duration;

use test_guests::{argument, check, check_eq, error, expect, failure, success};
use xen_abi::pte::{Pte, PteFlags};
use xen_abi::xen::{MmuUpdate, UvmFlags};
use xen_abi::{DomId, Errno, Mfn, PAGE_SIZE, Port};
use zooid::dl::{self, Error, Flags, Library};
use zooid::ipc::{How, SharedMemory};
use zooid::process::{self, Status};
use zooid::{env, memory, println, thread, xenstore};
use zooid_fork_plan::wire::{ANNOUNCEMENT, daemon, device, device_page, guest, operation};
use zooid_kernel::mmu;
use zooid_kernel::shared::{SharedPages, barrier};

zooid::main!(main);

dl::trust!(include_bytes!("../../../libraries/test-only.pub"));
dl::require!("libold.so", "^1");

const NOW: Flags = Flags { lazy: false, global: false, loaded: false, deep: false, stays: false };
/// Pages of constants and instructions that `libbulk.so` has at least.
const BULK: usize = (1 << 20 | 256 << 10) / PAGE_SIZE;

fn main() {
    match argument() {
        "share" => share(),
        "hold" => hold(),
        "version" => check_eq!(bulk().version(), number(1)),
        "refused" => refused(),
        "churn" => until_stop(|| drop(bulk())),
        other => error!("unknown test {other:?}"),
    }
    success();
}

fn number(place: usize) -> c_int {
    expect!(env::args().nth(place).and_then(|text| text.parse().ok()).ok_or("a number"))
}

/// `libbulk.so`.
struct Bulk(Library);

fn bulk() -> Bulk {
    Bulk(expect!(dl::open("libbulk.so", NOW)))
}

impl Bulk {
    fn function<F: Copy>(&self, name: &str) -> F {
        // SAFETY: tests/libraries/bulk.c says that the function is of this type.
        expect!(unsafe { self.0.function(name) })
    }

    fn address(&self, name: &str) -> usize {
        expect!(self.0.symbol(name)) as usize
    }

    fn version(&self) -> c_int {
        self.function::<extern "C" fn() -> c_int>("bulk_version")()
    }

    fn next(&self) -> c_int {
        self.function::<extern "C" fn() -> c_int>("bulk_next")()
    }

    /// Reads all constants and runs through all instructions.
    fn works(&self) {
        self.function::<extern "C" fn()>("bulk_walk")();
        let sum = self.function::<extern "C" fn() -> c_ulong>("bulk_sum")();
        check_eq!(sum, (self.version() as c_ulong) << 20);
    }

    /// The machine frames of a page of instructions and of one of constants.
    fn frames(&self) -> [Mfn; 2] {
        ["bulk_walk", "bulk_constants"].map(|name| {
            let address = self.address(name) + 64 * PAGE_SIZE;
            expect!(mmu::mfn_of(address).ok_or("it is mapped"))
        })
    }
}

fn share() {
    // The first round makes room that the loader keeps.
    drop(bulk());
    let free = || memory::statistics().free / PAGE_SIZE;
    let before = free();
    let library = bulk();
    let used = before - free();
    println!("{used} frames for {BULK} pages");
    check!(used < 16);
    library.works();
    check_eq!(library.next(), 41);
    let frames = library.frames();
    // The same frames again, at another address.
    attack(&library);
    for round in 0..4 {
        match expect!(process::fork()) {
            None => {
                library.works();
                check_eq!(library.next(), 42);
                check_eq!(library.frames(), frames);
                if round % 2 == 0 {
                    // A grandchild uses the library. Then the child closes it, and opens it again.
                    match expect!(process::fork()) {
                        None => {
                            library.works();
                            check_eq!((library.next(), library.frames()), (43, frames));
                            process::exit(0)
                        }
                        Some(child) => {
                            let ended = expect!(process::waitpid(Some(child), false));
                            check_eq!(ended.map(|ended| ended.status), Some(Status::Exited(0)));
                        }
                    }
                    drop(library);
                    check_eq!(bulk().frames(), frames);
                }
                attack(&bulk());
                process::exit(0)
            }
            Some(child) => {
                let ended = expect!(process::waitpid(Some(child), false));
                check_eq!(ended.map(|ended| ended.status), Some(Status::Exited(0)));
            }
        }
    }
    library.works();
    drop(library);
    // Its frames are freed, once no relative reads them.
    for _ in 0..10 {
        drop(bulk());
    }
    println!("{} frames are free, {before} were", free());
    check!(free() + 16 > before);
}

/// An attack on the pages of libraries: they stay unchanged, and the requests for libraries give
/// nothing else.
fn attack(library: &Bulk) {
    for name in ["bulk_walk", "bulk_constants"] {
        let address = (library.address(name) + 64 * PAGE_SIZE) & !(PAGE_SIZE - 1);
        let frame = expect!(mmu::mfn_of(address).ok_or("it is mapped"));
        let (table, index) = expect!(mmu::place_of(address).ok_or("there is a table"));
        let writable = Pte::new(frame, PteFlags::PRESENT | PteFlags::WRITABLE | PteFlags::NO_EXECUTE);
        let update = [MmuUpdate::pte(table.addr() + index as u64 * 8, writable)];
        let domains = (1..64).map(DomId).filter(|domain| *domain != domain_of_this());
        for owner in domains.chain([DomId::SELF, DomId::DOM0, DomId::IO, DomId::XEN]) {
            // SAFETY: Xen must refuse it.
            let result = unsafe { xen_sys::mmu_update(&update, owner) };
            if result.is_ok() {
                failure!("{name} can be written by way of domain {owner}");
            }
        }
        // SAFETY: as above.
        if unsafe { xen_sys::update_va_mapping(address as u64, writable, UvmFlags::INVLPG) }.is_ok() {
            failure!("{name} can be written by its address");
        }
        check_eq!(mmu::mfn_of(address), Some(frame));
    }
    library.works();

    let memory = expect!(SharedMemory::open("memory", How { create: true, exclusive: false }, PAGE_SIZE));
    let page = control();
    let object = page.read_u32(daemon::OBJECT);
    let place = mmu::place_of(memory.as_ptr() as usize);
    let (table, index) = expect!(place.ok_or("there is a table"));
    // A family's memory is no library, and a library is no family's memory; numbers are not
    // guessed.
    for (operation, number) in [(operation::MAP_LIBRARY, object), (operation::MAP_LIBRARY, 1), (operation::MAP, 1)] {
        check_eq!(ask(operation, 1, table, index, number, 0), Errno::ENOENT.0);
    }
    // No flag lets anybody write.
    for flags in [1, 2, 4, 16, u32::MAX] {
        check_eq!(ask(operation::MAP_LIBRARY, 1, table, index, object, flags), Errno::EINVAL.0);
    }
    memory.write(0, &[7]);
}

fn domain_of_this() -> DomId {
    DomId(expect!(expect!(xenstore::read("domid")).parse()))
}

fn control() -> SharedPages {
    // SAFETY: the fork component has mapped the page there, for ever; words of it are read and
    // written by several all the time.
    unsafe { SharedPages::new(device_page(device::CONTROL) as *mut u8, 1) }
}

/// Makes a request by hand, and returns its error number.
fn ask(operation: u32, count: u32, table: Mfn, index: usize, object: u32, flags: u32) -> u32 {
    let page = control();
    page.write_u64(guest::MAP_TABLE, table.0);
    page.write_u32(guest::MAP_INDEX, index as u32);
    page.write_u32(guest::OBJECT, object);
    page.write_u32(guest::OBJECT_OFFSET, 0);
    page.write_u32(guest::OBJECT_FLAGS, flags);
    page.write_u32(guest::OPERATION, operation);
    page.write_u32(guest::COUNT, count);
    barrier();
    let number = page.read_u32(guest::REQUEST).wrapping_add(1);
    page.write_u32(guest::REQUEST, number);
    let port = match page.read_u32(daemon::PORT) {
        // A root has written its port into its announcement.
        0 => expect!(expect!(xenstore::read(ANNOUNCEMENT)).rsplit(' ').next().unwrap_or_default().parse()),
        port => port,
    };
    expect!(xen_sys::event_channel_op_send(Port(port)));
    while page.read_u32_acquire(daemon::REPLY) != number {
        thread::sleep(Duration::from_millis(1));
    }
    page.read_u32(daemon::ERRNO)
}

/// Repeats `act` until there is `data/stop`.
fn until_stop(mut act: impl FnMut()) {
    while xenstore::read("data/stop").is_err() {
        act();
    }
}

fn hold() {
    let library = bulk();
    check_eq!(library.version(), number(1));
    library.works();
    println!("holds it");
    let mut forks = 0;
    until_stop(|| {
        if xenstore::read("data/fork").is_ok_and(|count| count.parse() == Ok(forks + 1)) {
            forks += 1;
            match expect!(process::fork()) {
                None => {
                    library.works();
                    check_eq!(library.version(), number(1));
                    process::exit(0)
                }
                Some(child) => {
                    let ended = expect!(process::waitpid(Some(child), false));
                    check_eq!(ended.map(|ended| ended.status), Some(Status::Exited(0)));
                    println!("fork {forks} is done");
                }
            }
        }
        thread::sleep(Duration::from_millis(20));
    });
    library.works();
}

fn refused() {
    for word in env::args().skip(1).collect::<Vec<_>>() {
        let (name, expected) = expect!(word.split_once('=').ok_or("NAME=RULE"));
        match dl::open(name, NOW) {
            Err(Error::Withheld(object)) if expected == "-" => check_eq!(object, name),
            Err(Error::NotFound(object)) if expected == "none" => check_eq!(object, name),
            Err(Error::Forbidden { object, rule }) => {
                check_eq!(object, name);
                let said = alloc::format!("{rule}");
                if !said.starts_with(expected) {
                    failure!("{name}: {said}, and not {expected}");
                }
            }
            other => failure!("{name}: {other:?}"),
        }
    }
}
