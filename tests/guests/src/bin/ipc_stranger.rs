//! A hostile stranger: a pVM of another family that knows all about its victim (domain ids, frames,
//! numbers of objects, ids of members). It attacks the objects of the victim's family by
//! requests to pvmd, and by hypercalls. Each attempt has to be refused.
//!
//! - `victim`: the family that is attacked. It prints the numbers that a stranger would have to
//!   guess, and works until `data/stop` is there.
//! - `stranger WORD=NUMBER...`: attacks these targets (`domain`, `frame`, `table`, `object`,
//!   `member`).
//! - `storm`: asks for objects, their removal and wake-ups without end.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Debug;
use core::time::Duration;

use test_guests::{Random, argument, check, check_eq, error, expect, failure, success};
use xen_abi::event_channel::EventChannelOp;
use xen_abi::grant_table::{GntcopyFlags, GntmapFlags, GnttabCopy, GnttabCopyPtr, GnttabMapGrantRef};
use xen_abi::memory::{MemoryOp, MemoryReservation};
use xen_abi::pte::{Pte, PteFlags};
use xen_abi::xen::{Hypercall, MmuUpdate, MmuextCmd, MmuextOp, UvmFlags};
use xen_abi::{DomId, Errno, GrantRef, Mfn, PAGE_SIZE, Pfn, Port};
use zooid::ipc::{self, Attributes, How, MessageQueue, SharedMemory};
use zooid::{env, println, process, thread, xenstore};
use zooid_fork::objects;
use zooid_fork_plan::wire::{ANNOUNCEMENT, daemon, device, device_page, guest, members, object_flags, operation};
use zooid_kernel::mmu;
use zooid_kernel::shared::{SharedPages, barrier};

zooid::main!(main);

const CREATE: How = How { create: true, exclusive: false };
const EXCLUSIVE: How = How { create: true, exclusive: true };
/// Octets of memory that the victim's family shares.
const SIZE: usize = 5 * PAGE_SIZE;
/// The number of grants and ports that are tried of each domain, more than a domain has.
const GRANTS: u32 = 2048;
const PORTS: u32 = 4096;

fn main() {
    match argument() {
        "victim" => victim(),
        "stranger" => Stranger::new().attack(),
        "storm" => storm(),
        other => error!("unknown part {other:?}"),
    }
    success();
}

/// A page of the DEVICE zone that is there from boot on.
fn control() -> SharedPages {
    // SAFETY: the fork component has mapped the page there, for ever; words of it are read and
    // written by several all the time.
    unsafe { SharedPages::new(device_page(device::CONTROL) as *mut u8, 1) }
}

/// FNV-1a.
fn sum(octets: &[u8]) -> u64 {
    octets.iter().fold(0xcbf2_9ce4_8422_2325, |sum, octet| (sum ^ u64::from(*octet)).wrapping_mul(0x100_0000_01b3))
}

/// Runs parent and child. The one fills their shared memory and sends its sum through a queue;
/// the other sums it up and answers through a pipe.
fn victim() {
    let memory = expect!(SharedMemory::open("memory", EXCLUSIVE, SIZE));
    let object = control().read_u32(daemon::OBJECT);
    let queue = expect!(MessageQueue::open("queue", EXCLUSIVE, Attributes { messages: 4, size: 8 }));
    let other = control().read_u32(daemon::OBJECT);
    let (answers, answer) = expect!(ipc::pipe());
    let Some(child) = expect!(process::fork()) else { assistant(&memory, &queue, &answer) };
    let address = memory.as_ptr() as usize;
    let frame = |page| mmu::mfn_of(address + page * PAGE_SIZE).map_or(0, |frame| frame.0);
    let table = mmu::place_of(address).map_or(0, |(table, _)| table.0);
    let members = mmu::mfn_of(device_page(device::MEMBERS)).map_or(0, |frame| frame.0);
    let own = mmu::mfn_of(device_page(device::CONTROL)).map_or(0, |frame| frame.0);
    println!(
        "secrets: frame={} frame={} frame={members} frame={own} table={table} object={object} object={other} member={} member={child}",
        frame(0),
        frame(SIZE / PAGE_SIZE - 1),
        process::id().map_or(0, |id| id.raw()),
    );
    let mut random = Random::new(1);
    let mut octets = vec![0; SIZE];
    let mut rounds = 0_u32;
    // The number of rounds is limited, so that a failed test ends.
    while rounds < 100_000 && (!rounds.is_multiple_of(8) || xenstore::read("data/stop").is_err()) {
        octets.iter_mut().for_each(|octet| *octet = random.next_u64() as u8);
        memory.write(0, &octets);
        let sum = sum(&octets);
        expect!(queue.send(&sum.to_le_bytes(), rounds % 7));
        let mut reply = [0; 8];
        let mut at = 0;
        while at < 8 {
            at += expect!(answers.read(&mut reply[at..]));
        }
        check_eq!(u64::from_le_bytes(reply), !sum);
        rounds += 1;
        if rounds == 10 {
            println!("at work");
        }
    }
    expect!(queue.send(&[], 0));
    let ended = expect!(process::waitpid(Some(child), false));
    check_eq!(ended.map(|ended| ended.status), Some(process::Status::Exited(0)));
    check!(rounds > 10);
    println!("{rounds} rounds");
    for name in ["memory", "queue"] {
        expect!(ipc::unlink(name));
    }
}

fn assistant(memory: &SharedMemory, queue: &MessageQueue, answer: &ipc::PipeWriter) -> ! {
    let mut octets = vec![0; SIZE];
    let mut message = [0; 8];
    loop {
        let (length, _) = expect!(queue.receive(&mut message));
        if length == 0 {
            process::exit(0);
        }
        memory.read(0, &mut octets);
        let sum = sum(&octets);
        check_eq!(sum, u64::from_le_bytes(message));
        expect!(answer.write_all(&(!sum).to_le_bytes()));
    }
}

/// The channel to pvmd, without the component's checks.
struct Daemon {
    page: SharedPages,
    port: Port,
}

impl Daemon {
    fn new() -> Self {
        let page = control();
        let mut port = page.read_u32(daemon::PORT);
        if port == 0 {
            // A root has chosen the port itself.
            let announcement = expect!(xenstore::read(ANNOUNCEMENT));
            let last = announcement.rsplit(' ').next().and_then(|port| port.parse().ok());
            port = last.unwrap_or_else(|| error!("announced as {announcement:?}"));
        }
        Self { page, port: Port(port) }
    }

    /// The error number of a request.
    fn ask(&self, operation: u32, count: u32) -> Result<(), Errno> {
        let number = self.page.read_u32(guest::REQUEST).wrapping_add(1);
        self.page.write_u32(guest::OPERATION, operation);
        self.page.write_u32(guest::COUNT, count);
        barrier();
        self.page.write_u32(guest::REQUEST, number);
        expect!(xen_sys::event_channel_op_send(self.port));
        while self.page.read_u32_acquire(daemon::REPLY) != number {
            thread::sleep(Duration::from_micros(20));
        }
        match self.page.read_u32(daemon::ERRNO) {
            0 => Ok(()),
            errno => Err(Errno(errno)),
        }
    }

    fn put_name(&self, name: &str) {
        self.page.write_u32(guest::NAME_LENGTH, name.len() as u32);
        self.page.copy_in(guest::NAME, name.as_bytes());
    }

    fn create(&self, name: &str, pages: u32, flags: u32) -> Result<u32, Errno> {
        self.put_name(name);
        self.page.write_u32(guest::OBJECT_PAGES, pages);
        self.page.write_u32(guest::OBJECT_FLAGS, flags);
        self.ask(operation::CREATE, 1).map(|()| self.page.read_u32(daemon::OBJECT))
    }

    fn map(&self, (table, index): (Mfn, usize), object: u32, offset: u32, count: u32) -> Result<(), Errno> {
        self.page.write_u64(guest::MAP_TABLE, table.0);
        self.page.write_u32(guest::MAP_INDEX, index as u32);
        self.page.write_u32(guest::OBJECT, object);
        self.page.write_u32(guest::OBJECT_OFFSET, offset);
        self.page.write_u32(guest::OBJECT_FLAGS, 0);
        self.ask(operation::MAP, count)
    }

    fn unlink(&self, name: &str) -> Result<(), Errno> {
        self.put_name(name);
        self.ask(operation::UNLINK, 1)
    }

    fn to(&self, operation: u32, object: u32, count: u32) -> Result<(), Errno> {
        self.page.write_u32(guest::OBJECT, object);
        self.ask(operation, count)
    }
}

/// The attacker's targets and means.
struct Stranger {
    daemon: Daemon,
    domains: Vec<DomId>,
    frames: Vec<Mfn>,
    tables: Vec<Mfn>,
    objects: Vec<u32>,
    members: Vec<u32>,
    /// The address at which two pages could be mapped.
    place: usize,
    refused: u32,
}

impl Stranger {
    fn new() -> Self {
        let of = |what: &str| -> Vec<u64> {
            let words = env::args().filter_map(|word| word.split_once('='));
            words.filter(|(word, _)| *word == what).filter_map(|(_, number)| number.parse().ok()).collect()
        };
        let Some(place) = mmu::allocate_joint(2) else { error!("no address") };
        let stranger = Self {
            daemon: Daemon::new(),
            domains: of("domain").into_iter().map(|number| DomId(number as u16)).collect(),
            frames: of("frame").into_iter().map(Mfn).collect(),
            tables: of("table").into_iter().map(Mfn).collect(),
            objects: of("object").into_iter().map(|number| number as u32).collect(),
            members: of("member").into_iter().map(|number| number as u32).collect(),
            place,
            refused: 0,
        };
        // Parent, child and memory owner at least; four frames, a table, two objects, two members.
        check!(stranger.domains.len() >= 3 && stranger.frames.len() == 4 && stranger.tables.len() == 1);
        check!(stranger.objects.len() == 2 && stranger.members.len() == 2);
        stranger
    }

    fn attack(mut self) {
        self.requests();
        // With a memory owner of its own, pvmd checks more of its requests.
        self.own_objects();
        self.requests();
        println!("requests: {} refused", self.refused);
        self.grants();
        self.ports();
        println!("and with grants and ports: {}", self.refused);
        self.entries();
        self.reservations();
        self.xenstore();
        println!("all in all: {}", self.refused);
    }

    /// Counts an attempt, which has to fail.
    fn refused<T, E: Debug>(&mut self, what: &str, about: impl Debug, result: Result<T, E>) {
        match result {
            Ok(_) => failure!("{what} {about:?} is not refused"),
            Err(_) => self.refused += 1,
        }
    }

    /// As [`refused`](Self::refused), with this error.
    fn denied(&mut self, what: &str, about: impl Debug, result: Result<(), Errno>, errno: Errno) {
        if result != Err(errno) {
            failure!("{what} {about:?}: {result:?}, not {errno:?}");
        }
        self.refused += 1;
    }

    fn place(&self) -> (Mfn, usize) {
        let Some(place) = mmu::place_of(self.place) else { error!("no table") };
        place
    }

    /// Requests for objects and members of another family.
    fn requests(&mut self) {
        let place = self.place();
        for name in ["memory", "queue"] {
            let result = self.daemon.create(name, 1, 0).map(drop);
            self.denied("opening", name, result, Errno::ENOENT);
            let result = self.daemon.unlink(name);
            self.denied("removing", name, result, Errno::ENOENT);
        }
        let near = self.objects.clone().into_iter().flat_map(|object| object.wrapping_sub(3)..object.wrapping_add(3));
        for object in (0..400).chain(near).chain([u32::MAX, 1 << 31]) {
            let result = self.daemon.map(place, object, 0, 1);
            self.denied("mapping object", object, result, Errno::ENOENT);
        }
        // If it has a memory owner, it is number 0 itself.
        for number in (1..members::MAX as u32).step_by(7).chain([2, u32::MAX]) {
            let result = self.daemon.to(operation::RELAY, number, 1);
            self.denied("waking member", number, result, Errno::ENOENT);
        }
        for member in self.members.clone() {
            for signal in [0, 9, 15] {
                let result = self.daemon.to(operation::KILL, member, signal);
                self.refused("a signal to", member, result);
            }
        }
    }

    /// Opens a name that the victim has, too: the object is this family's own, and requests on it
    /// give nothing of others.
    fn own_objects(&mut self) {
        let flags = object_flags::CREATE | object_flags::EXCLUSIVE;
        let own = expect!(self.daemon.create("memory", 1, flags));
        check_eq!(self.daemon.page.read_u32(daemon::OBJECT_IS_NEW), 1);
        let (table, index) = self.place();
        for offset in [1, 2, 400, u32::MAX] {
            let result = self.daemon.map((table, index), own, offset, 1);
            self.denied("mapping page", offset, result, Errno::EINVAL);
        }
        for count in [2, 512, u32::MAX] {
            let result = self.daemon.map((table, index), own, 0, count);
            self.denied("mapping so many pages:", count, result, Errno::EINVAL);
        }
        // Tables and other frames of the victim's, and frames that are nobody's.
        let wild = [Mfn(0), Mfn(1), Mfn(1 << 39), Mfn(u64::MAX)];
        for frame in self.tables.clone().into_iter().chain(self.frames.clone()).chain(wild) {
            let result = self.daemon.map((frame, index), own, 0, 1);
            self.denied("mapping to table", frame, result, Errno::EINVAL);
        }
        expect!(self.daemon.map((table, index), own, 0, 1));
        let frame = mmu::mfn_of(self.place);
        check!(frame.is_some_and(|frame| !self.frames.contains(&frame)));
        // SAFETY: mapped just now, two pages of which only the first is used.
        let page = unsafe { SharedPages::new(self.place as *mut u8, 1) };
        let mut octets = vec![1; PAGE_SIZE];
        page.copy_out(0, &mut octets);
        check!(octets.iter().all(|octet| *octet == 0));
        page.copy_in(0, b"from a stranger");
        expect!(self.daemon.unlink("memory"));
        mmu::free_joint(self.place, 2);
        let Some(place) = mmu::allocate_joint(2) else { error!("no address") };
        self.place = place;
    }

    /// Maps and copies grants of other domains to other domains.
    fn grants(&mut self) {
        let own = mmu::mfn_of(device_page(device::CONTROL)).unwrap_or(Mfn(0));
        for domain in self.domains.clone() {
            for first in (0..GRANTS).step_by(64) {
                let refs = || (first..first + 64).map(GrantRef);
                let map = |gref| GnttabMapGrantRef {
                    host_addr: self.place as u64,
                    flags: GntmapFlags::HOST_MAP,
                    gref,
                    dom: domain,
                    ..Default::default()
                };
                let copy = |gref| GnttabCopy {
                    source: GnttabCopyPtr::gref(domain, gref, 0),
                    dest: GnttabCopyPtr::frame(own, 0),
                    // A successful attack changes the magic.
                    len: 4,
                    flags: GntcopyFlags::SOURCE_GREF,
                    ..Default::default()
                };
                let mut maps: Vec<_> = refs().map(map).collect();
                let mut copies: Vec<_> = refs().map(copy).collect();
                // SAFETY: nothing is in use at the address.
                expect!(unsafe { xen_sys::grant_table_op_map_grant_ref(&mut maps) });
                // SAFETY: all that may change is the magic, which is read by pvmd at the
                // announcement only.
                expect!(unsafe { xen_sys::grant_table_op_copy(&mut copies) });
                for (map, copy) in maps.iter().zip(&copies) {
                    self.refused("mapping grant", (domain, map.gref), map.status.check());
                    self.refused("copying grant", (domain, map.gref), copy.status.check());
                }
            }
            for frame in self.frames.clone() {
                let theirs = GnttabCopyPtr { domid: domain, ..GnttabCopyPtr::frame(frame, 0) };
                let ours = GnttabCopyPtr::frame(own, 0);
                for (source, dest) in [(theirs, ours), (ours, theirs), (GnttabCopyPtr::frame(frame, 0), ours)] {
                    let mut copies = [GnttabCopy { source, dest, len: 4, ..Default::default() }];
                    // SAFETY: as above.
                    expect!(unsafe { xen_sys::grant_table_op_copy(&mut copies) });
                    self.refused("copying frame", (domain, frame), copies[0].status.check());
                }
            }
        }
    }

    /// Binds ports of others, of which some are made for relatives to bind.
    fn ports(&mut self) {
        let self_and_dom0 = [DomId::SELF, DomId::DOM0];
        for domain in self.domains.clone() {
            for port in (0..PORTS).map(Port) {
                self.refused("binding", (domain, port), xen_sys::event_channel_op_bind_interdomain(domain, port));
            }
            for port in (0..64).map(Port) {
                self.refused("the status of", (domain, port), xen_sys::event_channel_op_status(domain, port));
            }
            for remote in self_and_dom0 {
                self.refused("a port in", domain, xen_sys::event_channel_op_alloc_unbound(domain, remote));
            }
            // SAFETY: on another domain it could change nothing here.
            let reset = unsafe { call(Hypercall::EVENT_CHANNEL_OP, RESET.0.into(), &mut [u32::from(domain.0)]) };
            self.refused("closing all ports of", domain, reset);
        }
    }

    /// Writes entries for other domains' frames into its own tables, and any entries into theirs.
    fn entries(&mut self) {
        let (table, index) = self.place();
        let entry = table.addr() + index as u64 * 8;
        let rights = PteFlags::PRESENT | PteFlags::WRITABLE | PteFlags::ACCESSED | PteFlags::DIRTY;
        let own = mmu::mfn_of(device_page(device::CONTROL)).unwrap_or(Mfn(0));
        let frames: Vec<Mfn> = self.frames.iter().chain(&self.tables).copied().collect();
        for owner in self.domains.clone().into_iter().chain([DomId::SELF]) {
            for frame in frames.iter().copied() {
                for flags in [rights, PteFlags::PRESENT] {
                    let update = [MmuUpdate::pte(entry, Pte::new(frame, flags))];
                    // SAFETY: nothing is in use at the address, and the domain has no right to the
                    // frame.
                    self.refused("an entry for", (owner, frame), unsafe { xen_sys::mmu_update(&update, owner) });
                    let update = [MmuUpdate::pte(frame.addr(), Pte::new(own, flags))];
                    // SAFETY: the table is another's.
                    self.refused("an entry in", (owner, frame), unsafe { xen_sys::mmu_update(&update, owner) });
                }
                let update = [MmuUpdate::machphys(frame, Pfn(5))];
                // SAFETY: the frame is another's.
                self.refused("a pfn for", (owner, frame), unsafe { xen_sys::mmu_update(&update, owner) });
                let on_frame = |command| MmuextOp::on_frame(command, frame);
                for what in [
                    on_frame(MmuextCmd::PIN_L1_TABLE),
                    on_frame(MmuextCmd::PIN_L4_TABLE),
                    on_frame(MmuextCmd::UNPIN_TABLE),
                    on_frame(MmuextCmd::CLEAR_PAGE),
                    MmuextOp::copy_page(frame, own),
                    MmuextOp::copy_page(own, frame),
                ] {
                    // SAFETY: the frame is another's; what a copy would overwrite is read by nobody
                    // any more.
                    self.refused("an operation on", (owner, frame), unsafe { xen_sys::mmuext_op(&[what], owner) });
                }
            }
        }
        for frame in frames {
            let entry = Pte::new(frame, rights);
            // SAFETY: nothing is in use at the address.
            let result = unsafe { xen_sys::update_va_mapping(self.place as u64, entry, UvmFlags::NONE) };
            self.refused("a mapping of", frame, result);
        }
    }

    /// Attacks the memory and the lives of other domains.
    fn reservations(&mut self) {
        for domain in self.domains.clone() {
            self.refused("pages of", domain, xen_sys::memory_op_current_reservation(domain));
            self.refused("limit of", domain, xen_sys::memory_op_maximum_reservation(domain));
            let adjust = [MemoryOp::INCREASE_RESERVATION, MemoryOp::DECREASE_RESERVATION, MemoryOp::POPULATE_PHYSMAP];
            let frames = self.frames.clone();
            for (operation, frame) in adjust.into_iter().flat_map(|op| frames.iter().map(move |frame| (op, *frame))) {
                let mut extents = [frame.0];
                let mut reservation = [MemoryReservation {
                    extent_start: extents.as_mut_ptr(),
                    nr_extents: 1,
                    extent_order: 0,
                    mem_flags: 0,
                    domid: domain,
                }];
                // SAFETY: Xen writes a number to `extents` at most; the frame is another's.
                let result = unsafe { call(Hypercall::MEMORY_OP, operation.0.into(), &mut reservation) };
                // Xen says how many it has done.
                self.refused(
                    "memory of",
                    (domain, operation),
                    if result == Ok(0) { Err(Errno::EPERM) } else { result },
                );
            }
            // SAFETY: on another domain it could change nothing here.
            let shutdown = unsafe { call(Hypercall::SCHED_OP, REMOTE_SHUTDOWN, &mut [u32::from(domain.0), 0]) };
            self.refused("shutting down", domain, shutdown);
            let mut destroy = [0_u32; 64];
            destroy[..3].copy_from_slice(&[DESTROY_DOMAIN, DOMCTL_VERSION, domain.0.into()]);
            // SAFETY: as above. The structure is the first argument here.
            let destroyed = unsafe { call_first(Hypercall::DOMCTL, &mut destroy) };
            self.denied("destroying", domain, destroyed.map(drop), Errno::EPERM);
        }
    }

    /// Attacks the homes of others in xenstore.
    fn xenstore(&mut self) {
        for domain in self.domains.clone() {
            for node in ["name", "members", "objects", "data/zooid-fork", "zooid"] {
                let path = alloc::format!("/local/domain/{domain}/{node}");
                self.refused("reading", &path, xenstore::read(&path));
                self.refused("writing", &path, xenstore::write(&path, "0"));
                self.refused("removing", &path, xenstore::remove(&path));
            }
        }
    }
}

/// `EVTCHNOP_reset`, `SCHEDOP_remote_shutdown`, `XEN_DOMCTL_destroydomain` and the interface
/// version of Xen 4.17 (public/event_channel.h, sched.h, domctl.h).
const RESET: EventChannelOp = EventChannelOp(10);
const REMOTE_SHUTDOWN: u64 = 4;
const DESTROY_DOMAIN: u32 = 2;
const DOMCTL_VERSION: u32 = 0x15;

/// A hypercall that no honest guest makes: an operation, and its structure.
///
/// # Safety
/// `argument` is what Xen expects for this operation, which breaks nothing that Rust relies on.
unsafe fn call<T>(hypercall: Hypercall, operation: u64, argument: &mut [T]) -> Result<u64, Errno> {
    let argument = argument.as_mut_ptr().expose_provenance() as u64;
    // SAFETY: the caller's promise.
    unsafe { enter(hypercall, operation, argument) }
}

/// As [`call`], where the structure stands alone.
///
/// # Safety
/// As for [`call`].
unsafe fn call_first<T>(hypercall: Hypercall, argument: &mut [T]) -> Result<u64, Errno> {
    let argument = argument.as_mut_ptr().expose_provenance() as u64;
    // SAFETY: the caller's promise.
    unsafe { enter(hypercall, argument, 0) }
}

/// # Safety
/// As [`call`].
unsafe fn enter(hypercall: Hypercall, first: u64, second: u64) -> Result<u64, Errno> {
    type Entry = unsafe extern "C" fn(u64, u64) -> i64;
    let entry = (&raw const xen_sys::hypercall_page).addr() + hypercall.0 as usize * xen_sys::HYPERCALL_ENTRY_SIZE;
    // SAFETY: code that Xen provides there; it takes its arguments and gives its result in the
    // registers of a C function, and changes none that such a function may not.
    let entry: Entry = unsafe { core::mem::transmute(entry) };
    // SAFETY: the caller's promise.
    Errno::check(unsafe { entry(first, second) })
}

/// Makes requests without end, from a parent and its children.
fn storm() {
    // The object makes this pVM a member; else there would be no memory owner.
    let _memory = expect!(SharedMemory::open("storm", CREATE, 1));
    let mut name = *b"storm 0";
    for number in b'1'..=b'3' {
        if expect!(process::fork()).is_none() {
            name[6] = number;
            break;
        }
    }
    println!("storm begins");
    let name = expect!(core::str::from_utf8(&name));
    loop {
        // It waits for each answer as anybody does: it costs others only the daemon's time.
        let _ = objects::open(Some(name), 16, true, false, |_| ());
        let _ = objects::relay(0);
        let _ = objects::unlink(name);
    }
}
