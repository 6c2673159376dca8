//! Exercises, in a booted dom0, all operations of the crate: makes two domains, lets one run on a
//! page table that names a frame of the other, maps, grants, signals, speaks with xenstore, and
//! destroys both. Ends with `check passed`, or at the first unexpected result.
#![forbid(unsafe_code)]

use std::error::Error as StdError;
use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::thread::sleep;
use std::time::{Duration, Instant};

use xen_abi::arch_x86::VgcfFlags;
use xen_abi::pte::{Pte, PteFlags};
use xen_abi::xen::{MmuUpdate, MmuextCmd, MmuextOp};
use xen_abi::{DomId, Errno, GrantRef, Mfn, PAGE_SIZE, Pfn, Port};
use xenctl::xenstore::{self, Access, Permission, Store};
use xenctl::{CreateDomain, Error, Events, Hypervisor, Memory, Protection, TscInfo, VcpuGuestContext, Xen};

type Result<T> = std::result::Result<T, Box<dyn StdError>>;

const ALL: PteFlags = PteFlags::PRESENT.union(PteFlags::WRITABLE).union(PteFlags::USER).union(PteFlags::ACCESSED);
const READ: PteFlags = PteFlags::PRESENT.union(PteFlags::USER).union(PteFlags::ACCESSED);
/// The address of the guest's pages: its program, its own data, and the other domain's page.
const BASE: u64 = 0x40_0000;
const DATA: u64 = BASE + 0x1000;
const FOREIGN: u64 = BASE + 0x2000;
/// The value that the guest finds in the other domain's page, and ends with.
const REASON: u32 = 77;

fn main() -> ExitCode {
    // At the first run, Xen and Linux keep a page or two for themselves.
    match check().and_then(|_| check()) {
        Ok((before, after)) if before == after => {
            println!("check passed");
            ExitCode::SUCCESS
        }
        Ok((before, after)) => {
            println!("check failed: {before} pages were free before, {after} are now");
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("check failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Fails with the unmet expectation.
fn expect(condition: bool, what: &str) -> Result<()> {
    println!("{} {what}", if condition { "ok  " } else { "FAIL" });
    if condition { Ok(()) } else { Err(what.into()) }
}

fn refused<T>(result: std::result::Result<T, Error>, errno: Errno, what: &str) -> Result<()> {
    let found = result.err().and_then(|error| error.errno());
    expect(found == Some(errno), &format!("{what}: {errno}, and it is {found:?}"))
}

/// Returns the number of free pages before and after.
fn check() -> Result<(u64, u64)> {
    let xen = Xen::open()?;
    let free = settled(&xen)?;
    let parent = create(&xen, [1; 16])?;
    let child = create(&xen, [2; 16])?;
    let outcome = with_domains(&xen, parent, child);
    // The remains of a failure are removed too, so that the next run begins clean.
    for domain in [parent, child] {
        if xen.domain_info(domain)?.is_some_and(|info| !info.is_dying()) {
            xen.destroy(domain)?;
        }
    }
    outcome?;
    expect(xen.domain_info(parent)?.is_none() && xen.domain_info(child)?.is_none(), "both are gone")?;
    Ok((free, settled(&xen)?))
}

fn create(xen: &Xen, handle: [u8; 16]) -> Result<DomId> {
    Ok(xen.create_domain(&CreateDomain {
        flags: 0,
        max_vcpus: 1,
        max_evtchn_port: 1023,
        max_grant_frames: 4,
        max_maptrack_frames: 0,
        handle,
        cpupool: 0,
    })?)
}

/// The number of free pages, once it is stable: Xen scrubs and frees in the background.
fn settled(xen: &Xen) -> Result<u64> {
    let mut last = 0;
    loop {
        let free = xen.free_pages()?;
        if free == last {
            return Ok(free);
        }
        last = free;
        sleep(Duration::from_millis(300));
    }
}

fn with_domains(xen: &Xen, parent: DomId, child: DomId) -> Result<()> {
    settings(xen, parent, child)?;
    let parent_frame = xen.populate_physmap(parent, 0, &[Pfn(0)])?[0];
    expect(xen.populate_physmap(parent, 9, &[Pfn(512)])?.len() == 1, "an extent of 512 pages")?;
    refused(xen.populate_physmap(parent, 9, &[Pfn(1024)]), Errno::ENOMEM, "more memory than the domain may have")?;
    expect(xen.domain_info(parent)?.is_some_and(|info| info.pages == 513), "the domain has its pages")?;
    let pages = xen.map_foreign(parent, &[parent_frame], Protection::ReadWrite)?;
    pages.write_u32(0, REASON);
    drop(pages);
    refused(xen.map_foreign(child, &[parent_frame], Protection::Read), Errno::EBUSY, "a frame of another domain")?;

    let frames = xen.populate_physmap(child, 0, &(0..7).map(Pfn).collect::<Vec<_>>())?;
    let (events, port, remote) = channel_to(xen, child)?;
    build(xen, child, &frames, remote)?;
    share(xen, parent, child, frames[3], parent_frame)?;
    grants(xen, child, frames[6])?;
    run(xen, child, frames[0], &events, port)?;

    // The frame outlives the parent's use of it, and the parent.
    expect(xen.decrease_reservation(parent, &[parent_frame])? == 1, "the parent gives the shared frame back")?;
    xen.destroy(parent)?;
    let zombie = xen.domain_info(parent)?;
    expect(
        zombie.is_some_and(|info| info.is_dying() && info.pages == 1),
        "the parent stays as a zombie with the shared frame",
    )?;
    let again = [MmuUpdate::pte(frames[3].addr() + 24, Pte::new(parent_frame, READ))];
    expect(xen.mmu_update(child, parent, &again).0 == 1, "the zombie's frame can be mapped once more")?;
    events.unbind(port)?;
    store(child, frames[6], xen)
}

fn settings(xen: &Xen, parent: DomId, child: DomId) -> Result<()> {
    for domain in [parent, child] {
        xen.max_vcpus(domain, 1)?;
    }
    xen.set_max_mem(parent, 514 * 4)?;
    xen.set_max_mem(child, 1024)?;
    let info = xen.domain_info(child)?.ok_or("no such domain")?;
    println!("{info:?}");
    expect(info.is_paused() && !info.is_dying() && info.handle == [2; 16], "a new domain is paused")?;
    expect(info.max_vcpu_id == Some(0) && info.max_pages == 256 && info.pages == 0, "vcpu and limit")?;
    expect(xen.domain_info(DomId(0x7000))?.is_none(), "no domain 28672")?;
    expect(xen.domains()?.iter().any(|info| info.id == child), "the child is in the list")?;
    xen.pause(child)?;
    xen.unpause(child)?;

    xen.set_handle(child, &[3; 16])?;
    expect(xen.domain_info(child)?.is_some_and(|info| info.handle == [3; 16]), "another handle")?;

    let policy = xen.cpu_policy(DomId::DOM0)?;
    println!("{} octets of policy", format!("{policy:?}").len());
    let parents = xen.cpu_policy(parent)?;
    xen.set_cpu_policy(child, &parents)?;
    expect(xen.cpu_policy(child)? == parents, "the child has the parent's policy")?;

    println!("{:?}", xen.tsc_info(parent)?);
    xen.set_tsc_info(child, &TscInfo { mode: TscInfo::NEVER_EMULATE, ..TscInfo::default() })?;
    expect(xen.tsc_info(child)?.mode == TscInfo::NEVER_EMULATE, "the counter is the processor's")?;

    let mut params = xen.sched_params(parent)?;
    println!("{params:?}");
    (params.weight, params.cap) = (512, 50);
    xen.set_sched_params(child, &params)?;
    expect(xen.sched_params(child)? == params, "weight and cap")?;

    xen.claim_pages(child, 100)?;
    xen.claim_pages(child, 0)?;
    refused(xen.claim_pages(child, 257), Errno::EINVAL, "a claim of more than the domain may have")?;
    refused(xen.vcpu_context(child, 0), Errno::ENODATA, "the state of a vcpu without one")
}

/// A port of ours, bound to one of the child's, and the child's port.
fn channel_to(xen: &Xen, child: DomId) -> Result<(xenctl::EventChannels, Port, Port)> {
    let events = xen.events()?;
    let remote = xen.alloc_unbound(child, DomId::DOM0)?;
    let port = events.bind_interdomain(child, remote)?;
    let early = events.wait(Some(Duration::from_secs(5)))?;
    expect(early == [port], "an event is pending when a port was bound")?;
    expect(events.wait(Some(Duration::ZERO))?.is_empty(), "and no other")?;
    events.unmask(port)?;
    events.notify(port)?;
    Ok((events, port, remote))
}

/// Fills the child's pages, tables first: 0 to 3 are of levels 4 to 1, 4 its program, 5 its data,
/// and 6 for grants.
fn build(xen: &Xen, child: DomId, frames: &[Mfn], port: Port) -> Result<()> {
    let pages = xen.map_foreign(child, frames, Protection::ReadWrite)?;
    for page in 0..frames.len() {
        pages.copy_in(page * PAGE_SIZE, &[0; PAGE_SIZE]);
    }
    let entry = |page: usize, index: usize, frame: Mfn, flags| {
        pages.write_u64(page * PAGE_SIZE + index * 8, Pte::new(frame, flags).0);
    };
    entry(0, 0, frames[1], ALL);
    entry(1, 0, frames[2], ALL);
    entry(2, (BASE >> 21) as usize, frames[3], ALL);
    entry(3, 0, frames[4], READ);
    entry(3, 1, frames[5], ALL);
    pages.copy_in(4 * PAGE_SIZE, &program());
    pages.write_u32(5 * PAGE_SIZE, port.0);
    pages.copy_page(4, &pages, 6);
    let mut copied = [0; 8];
    pages.copy_out(6 * PAGE_SIZE, &mut copied);
    expect(copied == program()[..8], "a page is copied")?;

    let pin = [MmuextOp::on_frame(MmuextCmd::PIN_L4_TABLE, frames[0])];
    let (done, result) = xen.mmuext_op(child, &pin);
    println!("pin while mapped for writing: {done} {result:?}");
    expect(done == 0 && result.is_err(), "tables that are mapped for writing cannot be pinned")?;
    drop(pages);
    let (done, result) = xen.mmuext_op(child, &pin);
    result?;
    expect(done == 1, "the tables are pinned")?;
    let writable = xen.map_foreign(child, &frames[3..4], Protection::ReadWrite);
    println!("{:?}", writable.as_ref().err());
    expect(writable.is_err(), "a pinned table cannot be mapped for writing")?;
    let table = xen.map_foreign(child, &frames[3..4], Protection::Read)?;
    expect(Pte(table.read_u64(0)).mfn() == frames[4], "but for reading")
}

/// Sends an event on the port at [`DATA`], and ends with the reason at [`FOREIGN`].
fn program() -> Vec<u8> {
    let call = |number: u8, operation: u8, argument: u64| {
        let mut code = vec![0xbf, operation, 0, 0, 0, 0x48, 0xbe];
        code.extend(argument.to_le_bytes());
        code.extend([0xb8, number, 0, 0, 0, 0x0f, 0x05]);
        code
    };
    let (event_channel_op, send) = (32, 4);
    let (sched_op, shutdown) = (29, 2);
    [call(event_channel_op, send, DATA), call(sched_op, shutdown, FOREIGN), vec![0xeb, 0xfe]].concat()
}

/// Writes the parent's frame into the child's table.
fn share(xen: &Xen, parent: DomId, child: DomId, l1: Mfn, frame: Mfn) -> Result<()> {
    let at = |index: u64, pte| MmuUpdate::pte(l1.addr() + index * 8, pte);
    let updates = [
        at(2, Pte::new(frame, READ)),
        at(4, Pte::new(frame, READ)),
        at(5, Pte::new(l1, READ)),
        at(6, Pte::new(frame, READ)),
    ];
    let (done, result) = xen.mmu_update(child, parent, &updates);
    refused(result, Errno::EBUSY, "a frame that is not the parent's")?;
    expect(done == 2, "updates are done up to the first that is refused")?;
    let (done, result) = xen.mmu_update(child, child, &[at(5, Pte::new(frame, READ))]);
    refused(result, Errno::EBUSY, "the frame as the child's own")?;
    expect(done == 0, "and nothing is done")?;
    let (done, result) = xen.mmu_update(child, parent, &[at(8, Pte::new(frame, ALL))]);
    result?;
    expect(done == 1, "the child may write to a frame of the parent's")?;
    let many = vec![at(7, Pte::new(frame, READ)); 70_000];
    let start = Instant::now();
    let (done, result) = xen.mmu_update(child, parent, &many);
    result?;
    expect(done == many.len(), &format!("{done} updates at once, {:?}", start.elapsed()))
}

/// Grants the child's page to this domain, as the child would, and maps it.
fn grants(xen: &Xen, child: DomId, frame: Mfn) -> Result<()> {
    let table = xen.grant_table_setup(child, 2)?;
    expect(table.len() == 2, "a grant table of two frames")?;
    let entries = xen.map_foreign(child, &table, Protection::ReadWrite)?;
    const ACCESS: u64 = 1;
    const READ_ONLY: u64 = 4;
    entries.write_u64(8 * 9, ACCESS | frame.0 << 32);
    entries.write_u64(8 * 600, ACCESS | READ_ONLY | frame.0 << 32);
    let page = xen.map_grants(child, &[GrantRef(9), GrantRef(600)], Protection::Read)?;
    let mut octets = [0; 8];
    page.copy_out(PAGE_SIZE, &mut octets);
    expect(octets == program()[..8], "granted pages are read")?;
    let writable = xen.map_grants(child, &[GrantRef(9)], Protection::ReadWrite)?;
    writable.write_u32(16, 0x1234);
    expect(page.read_u32(PAGE_SIZE + 16) == 0x1234, "and written")?;
    println!("flags while mapped: {:#x}", entries.read_u32(8 * 9) & 0xffff);
    expect(entries.read_u32(8 * 9) & 0x18 == 0x18, "the grant is in use")?;
    drop((page, writable));
    expect(entries.read_u32(8 * 9) & 0x18 == 0, "and no longer")?;
    let refused = xen.map_grants(child, &[GrantRef(600)], Protection::ReadWrite);
    println!("{:?}", refused.as_ref().err());
    expect(refused.is_err(), "what is granted for reading is not mapped for writing")?;
    expect(xen.map_grants(child, &[GrantRef(10)], Protection::Read).is_err(), "nor what is not granted")
}

fn run(xen: &Xen, child: DomId, l4: Mfn, events: &xenctl::EventChannels, port: Port) -> Result<()> {
    let mut context =
        VcpuGuestContext { flags: VgcfFlags::IN_KERNEL | VgcfFlags::ONLINE, ..VcpuGuestContext::default() };
    context.user_regs.cs = 0xe033;
    context.user_regs.ss = 0xe02b;
    context.user_regs.rip = BASE;
    context.user_regs.rsp = DATA + 0x1000;
    context.user_regs.rflags = 0x200;
    context.user_regs.r15 = 0x1234_5678_9abc_def0;
    context.kernel_ss = 0xe02b;
    context.kernel_sp = DATA + 0x1000;
    context.ctrlreg[3] = VcpuGuestContext::cr3(l4);
    context.fs_base = 0x1000;
    xen.set_vcpu_context(child, 0, &context)?;
    let loaded = xen.vcpu_context(child, 0)?;
    expect(
        loaded.user_regs.rip == BASE && loaded.user_regs.r15 == context.user_regs.r15 && loaded.fs_base == 0x1000,
        "the state of a vcpu is what was loaded",
    )?;
    expect(loaded.ctrlreg[3] == VcpuGuestContext::cr3(l4), "with its cr3")?;
    // The guest gets no upcall: an event is pending, and there is no handler.
    let shared_info = xen.domain_info(child)?.ok_or("the child is gone")?.shared_info_frame;
    xen.map_foreign(child, &[shared_info], Protection::ReadWrite)?.copy_in(1, &[1]);
    xen.unpause(child)?;
    let ports = events.wait(Some(Duration::from_secs(10)))?;
    expect(ports == [port], "an event came from the child")?;
    let deadline = Instant::now() + Duration::from_secs(10);
    let reason = loop {
        let info = xen.domain_info(child)?.ok_or("the child is gone")?;
        match info.shutdown_reason() {
            Some(reason) => break reason,
            None if Instant::now() > deadline => return Err(format!("the child did not end: {info:?}").into()),
            None => sleep(Duration::from_millis(20)),
        }
    };
    expect(reason.0 == REASON, "it read its reason in the parent's frame")?;
    let ended = xen.vcpu_context(child, 0)?.user_regs.rip;
    expect(ended > BASE && ended < BASE + 64, &format!("it stopped at {ended:#x}"))?;
    xen.pause(child)?;
    xen.evtchn_reset(child)?;
    Ok(())
}

fn store(child: DomId, ring: Mfn, xen: &Xen) -> Result<()> {
    let store = Store::connect()?;
    let directory = format!("/local/domain/{child}");
    let (sender, changes) = channel();
    let watch = store.watch(&directory, move |path| drop(sender.send(path.to_owned())))?;
    let next = || changes.recv_timeout(Duration::from_secs(10));
    expect(next()? == directory, "a watch reports at once")?;
    store.write(&format!("{directory}/name"), "check")?;
    expect(next()? == format!("{directory}/name"), "and at a change")?;
    expect(store.read(&format!("{directory}/name"))? == "check", "what was written is read")?;
    let permissions =
        [Permission { domain: child, access: Access::None }, Permission { domain: DomId(0), access: Access::Read }];
    store.set_permissions(&directory, &permissions)?;
    store.mkdir(&format!("{directory}/data"))?;
    let count = store.transact(|transaction| {
        for index in 0..400 {
            transaction.write(&format!("{directory}/many/a-name-that-is-rather-long-{index}"), "")?;
        }
        transaction.list(&directory).map(|names| names.len())
    })?;
    expect(count == 3, "a transaction sees its own changes")?;
    expect(store.list(&format!("{directory}/many"))?.len() == 400, "a list that is too long for one message")?;
    let undone = store.transact(|transaction| {
        transaction.write(&format!("{directory}/undone"), "1")?;
        Err::<(), _>(xenstore::Error::Invalid)
    });
    expect(undone == Err(xenstore::Error::Invalid), "a transaction can be given up")?;
    expect(store.read(&format!("{directory}/undone")) == Err(xenstore::Error::NotFound), "and leaves nothing")?;

    let pages = xen.map_foreign(child, &[ring], Protection::ReadWrite)?;
    pages.copy_in(0, &[0; PAGE_SIZE]);
    drop(pages);
    let table = xen.grant_table_setup(child, 2)?;
    xen.map_foreign(child, &table[..1], Protection::ReadWrite)?.write_u64(8, 1 | ring.0 << 32);
    let port = xen.alloc_unbound(child, DomId::DOM0)?;
    expect(!store.is_introduced(child)?, "xenstored does not know the child")?;
    store.introduce(child, ring, port)?;
    expect(store.is_introduced(child)?, "and now it does")?;
    let (sender, ended) = channel();
    let _released = store.watch("@releaseDomain", move |path| drop(sender.send(path.to_owned())))?;
    ended.recv_timeout(Duration::from_secs(10))?;
    xen.destroy(child)?;
    ended.recv_timeout(Duration::from_secs(10))?;
    expect(xen.domain_info(child)?.is_none_or(|info| info.is_dying()), "a watch tells of the domain's end")?;
    // xenstored has released the domain when it saw its end, or does so now.
    match store.release(child) {
        Ok(()) | Err(xenstore::Error::NotFound | xenstore::Error::Invalid) => {}
        Err(error) => return Err(error.into()),
    }
    store.remove(&directory)?;
    drop(watch);
    expect(store.read(&directory) == Err(xenstore::Error::NotFound), "nothing is left in xenstore")
}
