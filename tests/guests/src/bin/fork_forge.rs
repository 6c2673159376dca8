//! A hostile pVM. It takes one of its page tables of level 1 out of its tree, which makes an
//! ordinary page of it that pvmd goes on reading as a table. It writes entries there for frames
//! that it must not give to a child, and forks. Each such fork is refused, or its child has nothing
//! at those addresses.
//!
//! - `members`: the family's table of members, writable.
//! - `object`: memory that a sibling of the child made and nobody else has mapped.
//! - `ancestor`: a page that its own parent wrote after it was forked, when another pvmd has taken
//!   over.

#![no_std]
#![no_main]

extern crate alloc;

use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;

use test_guests::{argument, check_eq, error, expect, failure, success};
use xen_abi::pte::{Pte, PteFlags};
use xen_abi::xen::MmuUpdate;
use xen_abi::{DomId, Errno, Mfn, PAGE_SIZE, Pfn};
use zooid::ipc::SharedMemory;
use zooid::process::{self, ForkError, PvmId, Status};
use zooid::{println, thread, xenstore};
use zooid_fork_plan::wire::{device, device_page, guest};
use zooid_kernel::mmu::{self, Zone};
use zooid_kernel::shared::SharedPages;

zooid::main!(main, mode = kernel);

/// The octets that a table of level 1 covers.
const SPAN: usize = 512 * PAGE_SIZE;
/// Rules of pages, as pvmd reads them (docs/protocols/fork.md, "What a fork does with a page").
const SHARED: PteFlags = PteFlags::AVAILABLE_0;
const COPY_ON_WRITE: PteFlags = PteFlags::AVAILABLE_1;
const JOINT: PteFlags = PteFlags::AVAILABLE_2;
const READ: PteFlags = PteFlags::PRESENT.union(PteFlags::ACCESSED).union(PteFlags::NO_EXECUTE);
const WRITE: PteFlags = READ.union(PteFlags::WRITABLE).union(PteFlags::DIRTY);
/// The exit code of a child that finds a forged entry in its own tables.
const FOUND: u8 = 66;
/// Forks that are tried with each forged entry: the first may find a domain that was prepared
/// before.
const ROUNDS: u32 = 3;

static SECRET: AtomicU32 = AtomicU32::new(0);

fn main() {
    match argument() {
        "members" => members(),
        "object" => object(),
        "ancestor" => ancestor(),
        other => error!("unknown attack {other:?}"),
    }
    success();
}

/// An entry of a table.
fn update(table: Mfn, index: usize, pte: Pte) {
    let update = [MmuUpdate::pte(table.addr() + index as u64 * 8, pte)];
    // SAFETY: the entries that are changed are of joint addresses, where nothing of this program
    // is.
    if let Err(error) = unsafe { xen_sys::mmu_update(&update, DomId::SELF) } {
        error!("Xen refuses {pte:?} at {index} of {table:?}: {error:?}");
    }
}

/// The table in frame `mfn`, read where the kernel has it mapped.
fn read_entry(mfn: Mfn, index: usize) -> Pte {
    const M2P: usize = 0xffff_8000_0000_0000;
    // SAFETY: Xen maps the machine-to-physical table there for every PV guest; the frame is this
    // domain's.
    let pfn = Pfn(unsafe { (M2P as *const u64).add(mfn.0 as usize).read_volatile() });
    let window = Zone::Tables.base() + pfn.0 as usize * PAGE_SIZE;
    // SAFETY: every page table is mapped there to be read.
    Pte(unsafe { (window as *const u64).add(index).read_volatile() })
}

/// The table of level 2 that covers `address`.
fn second_level(address: usize) -> Mfn {
    let index = |level: u32| address >> (12 + 9 * (level - 1)) & 511;
    let third = read_entry(mmu::root(), index(4)).mfn();
    read_entry(third, index(3)).mfn()
}

/// A table that is out of the tree: the addresses that it covered, and the page.
struct Forged {
    base: usize,
    page: SharedPages,
    used: usize,
}

impl Forged {
    /// Takes a table out of the tree that pvmd knows.
    fn new() -> Self {
        let (Some(start), Some(place)) = (mmu::allocate_joint(1024), mmu::allocate_joint(1)) else {
            error!("no addresses")
        };
        let base = start.next_multiple_of(SPAN);
        // pvmd has seen the table and a child before.
        let Some(child) = expect!(process::fork()) else { process::exit(0) };
        check_eq!(status(child), Some(Status::Exited(0)));
        let (Some((table, _)), Some((cover, index))) = (mmu::place_of(base), mmu::place_of(place)) else {
            error!("no tables")
        };
        update(second_level(base), base / SPAN % 512, Pte::ABSENT);
        update(cover, index, Pte::new(table, WRITE));
        // SAFETY: mapped just now, for ever; it is no table any more.
        Self { base, page: unsafe { SharedPages::new(place as *mut u8, 1) }, used: 0 }
    }

    /// Writes the only entry that there is now, counts the change as the honest kernel does, and
    /// forks; no child may have at these addresses what `is_loot` knows.
    fn forge(&mut self, entry: Pte, is_loot: impl Fn(Pte) -> bool) {
        self.page.write_u64(self.used * 8, Pte::ABSENT.0);
        self.used += 1;
        self.page.write_u64(self.used * 8, entry.0);
        // SAFETY: the fork component has mapped the page there, for ever.
        let control = unsafe { SharedPages::new(device_page(device::CONTROL) as *mut u8, 1) };
        let counter = guest::changes(self.base);
        control.write_u32(counter, control.read_u32(counter).wrapping_add(1));
        let (mut made, mut refused, mut linked) = (0, 0, 0);
        for _ in 0..ROUNDS {
            match process::fork() {
                Ok(None) => process::exit(self.look(&is_loot)),
                Ok(Some(child)) => {
                    made += 1;
                    match status(child) {
                        Some(Status::Exited(FOUND)) => failure!("a child has {entry:?}, which was forged"),
                        Some(Status::Exited(count)) => linked += u32::from(count),
                        // A child with wrong memory harms only itself.
                        _ => {}
                    }
                }
                Err(ForkError::Again | ForkError::OutOfMemory | ForkError::Refused(Errno::EPERM)) => refused += 1,
                Err(error) => failure!("{error}"),
            }
        }
        println!("{entry:?}: {made} forks were made, {refused} refused; {linked} children had an entry there");
    }

    /// Checks the forged entries in a child, and returns its exit code.
    fn look(&self, is_loot: &impl Fn(Pte) -> bool) -> i32 {
        let mut present = 0;
        for index in 0..=self.used {
            let address = self.base + index * PAGE_SIZE;
            let Some((table, index)) = mmu::place_of(address) else { continue };
            let entry = read_entry(table, index);
            present += i32::from(entry.is_present());
            if entry.is_present() && is_loot(entry) {
                println!("in a child: {entry:?}");
                return FOUND.into();
            }
        }
        present
    }
}

fn status(child: PvmId) -> Option<Status> {
    expect!(process::waitpid(Some(child), false)).map(|ended| ended.status)
}

fn frame_of(address: usize) -> Mfn {
    mmu::mfn_of(address).unwrap_or_else(|| error!("nothing is mapped at {address:#x}"))
}

/// Attacks the table of members, which the family gets with a memory owner.
fn members() {
    let _memory = expect!(SharedMemory::new(PAGE_SIZE));
    let table = frame_of(device_page(device::MEMBERS));
    let mut forged = Forged::new();
    for rule in [JOINT, SHARED, COPY_ON_WRITE] {
        // Children may read the table.
        let is_loot = |entry: Pte| entry.mfn() == table && entry.flags().contains(PteFlags::WRITABLE);
        forged.forge(Pte::new(table, WRITE.union(rule)), is_loot);
    }
}

/// Attacks memory that a child makes, whose frame it tells.
fn object() {
    let told = expect!(SharedMemory::new(PAGE_SIZE));
    let Some(sibling) = expect!(process::fork()) else {
        let memory = expect!(SharedMemory::new(PAGE_SIZE));
        memory.write(0, b"a secret");
        told.write(0, &frame_of(memory.as_ptr() as usize).0.to_le_bytes());
        told.atomic_u32(8).store(1, Ordering::Release);
        while told.atomic_u32(8).load(Ordering::Acquire) == 1 {
            thread::sleep(Duration::from_millis(1));
        }
        let mut kept = [0; 8];
        memory.read(0, &mut kept);
        process::exit(i32::from(&kept != b"a secret"))
    };
    while told.atomic_u32(8).load(Ordering::Acquire) == 0 {
        thread::sleep(Duration::from_millis(1));
    }
    let mut octets = [0; 8];
    told.read(0, &mut octets);
    let frame = Mfn(u64::from_le_bytes(octets));
    let mut forged = Forged::new();
    for flags in [WRITE.union(JOINT), READ.union(JOINT), READ.union(SHARED)] {
        forged.forge(Pte::new(frame, flags), |entry| entry.mfn() == frame);
    }
    told.atomic_u32(8).store(2, Ordering::Release);
    check_eq!(status(sibling), Some(Status::Exited(0)));
}

/// Attacks a page of the parent, from a child.
fn ancestor() {
    let told = expect!(SharedMemory::new(PAGE_SIZE));
    SECRET.store(1, Ordering::Relaxed);
    let Some(child) = expect!(process::fork()) else {
        while told.atomic_u32(8).load(Ordering::Acquire) == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        let mut octets = [0; 8];
        told.read(0, &mut octets);
        let frame = Mfn(u64::from_le_bytes(octets));
        let mut forged = Forged::new();
        println!("restart pvmd");
        while told.atomic_u32(8).load(Ordering::Acquire) == 1 {
            thread::sleep(Duration::from_millis(1));
        }
        for rule in [SHARED, COPY_ON_WRITE] {
            forged.forge(Pte::new(frame, READ.union(rule)), |entry| entry.mfn() == frame);
        }
        process::exit(0)
    };
    // A page of the parent's alone: a new page of the heap is one once it is written.
    let secret = alloc::vec![0x5ec2_u32; 4096];
    told.write(0, &frame_of(secret.as_ptr() as usize + PAGE_SIZE).0.to_le_bytes());
    told.atomic_u32(8).store(1, Ordering::Release);
    while xenstore::read("data/restarted").is_err() {
        thread::sleep(Duration::from_millis(20));
    }
    told.atomic_u32(8).store(2, Ordering::Release);
    check_eq!(status(child), Some(Status::Exited(0)));
    drop(secret);
}
