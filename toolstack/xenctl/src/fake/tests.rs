//! The rules of the fake, as scenes. `answers` compares it with Xen operation by operation.

use std::thread;
use std::time::Duration;

use xen_abi::arch_x86::VgcfFlags;
use xen_abi::pte::{Pte, PteFlags};
use xen_abi::sched::ShutdownReason;
use xen_abi::xen::{MmuUpdate, MmuextCmd, MmuextOp};
use xen_abi::{DomId, Errno, GrantRef, Mfn, PAGE_SIZE, Pfn, Port};

use super::{FakeXen, Fault, ForeignEntry, KILLED};
use crate::{CreateDomain, Error, Events, Hypervisor, Memory, Protection, VcpuGuestContext};

const ALL: PteFlags = PteFlags::PRESENT.union(PteFlags::WRITABLE);
const READ: PteFlags = PteFlags::PRESENT;
const CONFIG: CreateDomain = CreateDomain {
    flags: 0,
    max_vcpus: 1,
    max_evtchn_port: 63,
    max_grant_frames: 2,
    max_maptrack_frames: 0,
    handle: [9; 16],
    cpupool: 0,
};

fn errno<T>(result: Result<T, Error>) -> Option<Errno> {
    result.err().and_then(|error| error.errno())
}

fn create(xen: &FakeXen, pages: u64) -> DomId {
    let domain = xen.create_domain(&CONFIG).unwrap();
    xen.max_vcpus(domain, 1).unwrap();
    xen.set_max_mem(domain, pages * 4).unwrap();
    domain
}

/// A domain with tables in frames 0 (level 4) to 3 (level 1), and a page, 4, that the first two
/// entries of the last one map.
fn build(xen: &FakeXen) -> (DomId, Vec<Mfn>) {
    let domain = create(xen, 8);
    let frames = xen.populate_physmap(domain, 0, &(0..5).map(Pfn).collect::<Vec<_>>()).unwrap();
    let pages = xen.map_foreign(domain, &frames, Protection::ReadWrite).unwrap();
    for table in 0..3 {
        pages.write_u64(table * PAGE_SIZE, Pte::new(frames[table + 1], ALL).0);
    }
    pages.write_u64(3 * PAGE_SIZE, Pte::new(frames[4], ALL).0);
    pages.write_u64(3 * PAGE_SIZE + 8, Pte::new(frames[4], READ).0);
    drop(pages);
    pin(xen, domain, frames[0]).unwrap();
    (domain, frames)
}

fn pin(xen: &FakeXen, domain: DomId, l4: Mfn) -> Result<(), Error> {
    xen.mmuext_op(domain, &[MmuextOp::on_frame(MmuextCmd::PIN_L4_TABLE, l4)]).1
}

fn entry(table: Mfn, index: u64, frame: Mfn, flags: PteFlags) -> MmuUpdate {
    MmuUpdate::pte(table.addr() + index * 8, Pte::new(frame, flags))
}

#[test]
fn a_domain_comes_and_goes_without_a_trace() {
    let xen = FakeXen::new(100);
    let before = xen.census();
    let (domain, frames) = build(&xen);
    let info = xen.domain_info(domain).unwrap().unwrap();
    assert_eq!((info.pages, info.max_pages, info.handle, info.max_vcpu_id), (5, 8, [9; 16], Some(0)));
    assert!(info.is_paused());
    let mut context = VcpuGuestContext { flags: VgcfFlags::IN_KERNEL, ..VcpuGuestContext::default() };
    assert_eq!(errno(xen.vcpu_context(domain, 0)), Some(Errno::ENODATA));
    assert_eq!(errno(xen.set_vcpu_context(domain, 0, &context)), Some(Errno::EINVAL), "no table");
    context.ctrlreg[3] = VcpuGuestContext::cr3(frames[0]);
    context.debugreg[6] = 1 << 32;
    assert_eq!(errno(xen.set_vcpu_context(domain, 0, &context)), Some(Errno::EINVAL), "dr6 has 32 bits");
    context.debugreg[6] = 0xffff_0ff0;
    xen.set_vcpu_context(domain, 0, &context).unwrap();
    assert_eq!(xen.vcpu_context(domain, 0).unwrap(), context);
    context.ctrlreg[3] = VcpuGuestContext::cr3(frames[1]);
    assert_eq!(errno(xen.set_vcpu_context(domain, 0, &context)), Some(Errno::EOPNOTSUPP), "another cr3");
    xen.unpause(domain).unwrap();
    assert_eq!(errno(xen.unpause(domain)), Some(Errno::EINVAL));
    assert_eq!(errno(xen.set_cpu_policy(domain, &xen.cpu_policy(DomId::DOM0).unwrap())), Some(Errno::EEXIST));
    xen.guest(domain).shutdown(ShutdownReason::CRASH).unwrap();
    assert_eq!(xen.domain_info(domain).unwrap().unwrap().shutdown_reason(), Some(ShutdownReason::CRASH));
    xen.destroy(domain).unwrap();
    assert_eq!(xen.domain_info(domain).unwrap(), None);
    assert_eq!(errno(xen.destroy(domain)), Some(Errno::ESRCH));
    assert_eq!(xen.census(), before);
}

#[test]
fn memory_is_limited_by_the_domain_by_the_machine_and_by_claims() {
    let xen = FakeXen::new(20);
    let (first, second) = (create(&xen, 12), create(&xen, 64));
    assert_eq!(errno(xen.populate_physmap(first, 2, &[Pfn(0), Pfn(4), Pfn(8), Pfn(12)])), Some(Errno::ENOMEM));
    assert_eq!(xen.free_pages().unwrap(), 8, "what came before stays");
    assert_eq!(errno(xen.claim_pages(second, 9)), Some(Errno::ENOMEM));
    assert_eq!(errno(xen.claim_pages(first, 13)), Some(Errno::EINVAL));
    xen.claim_pages(second, 8).unwrap();
    let own: Vec<_> = xen.lock().frames.of(first).filter(|(_, frame)| !frame.special).map(|(mfn, _)| mfn).collect();
    assert_eq!(xen.decrease_reservation(first, &own[..2]).unwrap(), 2);
    assert_eq!(xen.decrease_reservation(first, &own[..2]).unwrap(), 0);
    assert_eq!(errno(xen.populate_physmap(first, 0, &[Pfn(0), Pfn(1), Pfn(2)])), Some(Errno::ENOMEM), "claimed");
    assert_eq!(xen.populate_physmap(second, 3, &[Pfn(0)]).unwrap().len(), 1);
    assert_eq!(xen.free_pages().unwrap(), 0);
}

#[test]
fn a_large_domain_takes_no_time() {
    let xen = FakeXen::new(1 << 17);
    let domain = create(&xen, 1 << 17);
    let frames = xen.populate_physmap(domain, 0, &(0..1 << 16).map(Pfn).collect::<Vec<_>>()).unwrap();
    let pages = xen.map_foreign(domain, &frames, Protection::ReadWrite).unwrap();
    pages.write_u64(9 * PAGE_SIZE, 7);
    assert_eq!((pages.read_u64(9 * PAGE_SIZE), pages.read_u64(PAGE_SIZE)), (7, 0));
    drop(pages);
    assert_eq!(xen.decrease_reservation(domain, &frames).unwrap(), 1 << 16);
    assert_eq!(xen.free_pages().unwrap(), 1 << 17);
}

#[test]
fn tables_are_checked_when_pinned_and_never_writable() {
    let xen = FakeXen::new(100);
    let (domain, frames) = build(&xen);
    assert_eq!(errno(pin(&xen, domain, frames[0])), Some(Errno::EINVAL), "pinned already");
    assert_eq!(errno(xen.map_foreign(domain, &frames[3..4], Protection::ReadWrite)), Some(Errno::EBUSY));
    let table = xen.map_foreign(domain, &frames[3..4], Protection::Read).unwrap();
    assert_eq!(Pte(table.read_u64(0)).mfn(), frames[4]);
    let update = |frame, flags| xen.mmu_update(domain, domain, &[entry(frames[3], 2, frame, flags)]).1;
    assert_eq!(errno(update(frames[2], ALL)), Some(Errno::EBUSY));
    update(frames[2], READ).unwrap();
    let upper = |frame| xen.mmu_update(domain, domain, &[entry(frames[2], 7, frame, ALL)]).1;
    assert_eq!(errno(upper(frames[1])), Some(Errno::EINVAL), "a table of another level");
    upper(frames[3]).unwrap();
    let before = xen.census();
    let unpin = [MmuextOp::on_frame(MmuextCmd::UNPIN_TABLE, frames[0])];
    xen.mmuext_op(domain, &unpin).1.unwrap();
    assert_eq!(errno(xen.mmuext_op(domain, &unpin).1), Some(Errno::EINVAL));
    assert_eq!(xen.census().references, 1, "only the mapping refers to a frame");
    let writable = xen.map_foreign(domain, &frames[4..], Protection::ReadWrite).unwrap();
    pin(&xen, domain, frames[0]).unwrap();
    assert_eq!(xen.census().references, before.references + 1);
    drop((writable, table));

    // A writable mapping of a table, or one of its entries, prevents the pin, and leaves no trace.
    let (other, tables) = build(&xen);
    xen.mmuext_op(other, &[MmuextOp::on_frame(MmuextCmd::UNPIN_TABLE, tables[0])]).1.unwrap();
    let before = xen.census();
    let writable = xen.map_foreign(other, &tables[3..4], Protection::ReadWrite).unwrap();
    assert_eq!(errno(pin(&xen, other, tables[0])), Some(Errno::EINVAL));
    writable.write_u64(16, Pte::new(tables[1], ALL).0);
    drop(writable);
    assert_eq!(errno(pin(&xen, other, tables[0])), Some(Errno::EBUSY));
    assert_eq!(xen.census(), before);
}

#[test]
fn a_foreign_entry_holds_the_frame_and_only_dom0_makes_it() {
    let xen = FakeXen::new(100);
    let before = xen.census();
    let ((parent, theirs), (child, own)) = (build(&xen), build(&xen));
    let (page, l1) = (theirs[4], own[3]);
    let updates = [entry(l1, 2, page, READ), entry(l1, 3, page, READ), entry(l1, 4, own[4], READ)];
    let (done, result) = xen.mmu_update(child, parent, &updates);
    assert_eq!((done, errno(result)), (2, Some(Errno::EBUSY)), "the child's frame is not the parent's");
    assert_eq!(xen.guest(child).translate(own[0], 3 << 12).unwrap().mfn(), page);
    let upper = [entry(own[2], 1, theirs[3], READ)];
    assert_eq!(errno(xen.mmu_update(child, parent, &upper).1), Some(Errno::EINVAL), "tables are not shared");

    let guest = xen.guest(child);
    assert_eq!(guest.mmu_update(&[entry(l1, 2, page, ALL)]), (0, Err(Errno::EBUSY)), "the child cannot write it");
    assert_eq!(guest.mmu_update(&[entry(l1, 5, page, READ)]), (0, Err(Errno::EBUSY)), "nor map it elsewhere");
    let accessed = READ | PteFlags::ACCESSED;
    assert_eq!(guest.mmu_update(&[entry(l1, 2, page, accessed)]).0, 1, "other flags are free");
    assert_eq!(guest.mmu_update(&[MmuUpdate::pte(l1.addr() + 16, Pte::ABSENT)]).0, 1);
    let detach = [MmuUpdate::pte(own[2].addr(), Pte::ABSENT)];
    let attach = [entry(own[2], 0, l1, ALL)];
    guest.mmuext_op(&[MmuextOp::on_frame(MmuextCmd::PIN_L1_TABLE, l1)]).1.unwrap();
    assert_eq!((guest.mmu_update(&detach).0, guest.mmu_update(&attach).0), (1, 1), "a pinned one comes and goes");
    guest.mmuext_op(&[MmuextOp::on_frame(MmuextCmd::UNPIN_TABLE, l1)]).1.unwrap();

    // The parent copies the page and gives it back, then ends; the child's entry keeps it.
    assert_eq!(xen.guest(parent).decrease_reservation(&[page]), 1);
    assert_eq!(xen.domain_info(parent).unwrap().unwrap().pages, 5, "it still counts");
    xen.destroy(parent).unwrap();
    let zombie = xen.domain_info(parent).unwrap().unwrap();
    assert!(zombie.is_dying() && zombie.pages == 1);
    assert_eq!(xen.mmu_update(child, parent, &[entry(l1, 6, page, READ)]).0, 1, "a zombie's frame");
    assert_eq!(xen.census().dying, 1);

    guest.mmu_update(&detach).1.unwrap();
    assert_eq!(xen.domain_info(parent).unwrap(), None, "the last reference is gone");
    assert_eq!(guest.mmu_update(&attach), (0, Err(Errno::EBUSY)), "the table still names it");
    xen.destroy(child).unwrap();
    assert_eq!(xen.census(), before);
}

#[test]
fn an_unpinned_table_with_foreign_entries_does_not_come_back() {
    let xen = FakeXen::new(100);
    let ((parent, theirs), (child, own)) = (build(&xen), build(&xen));
    xen.mmu_update(child, parent, &[entry(own[3], 2, theirs[4], READ)]).1.unwrap();
    let guest = xen.guest(child);
    guest.mmu_update(&[MmuUpdate::pte(own[2].addr(), Pte::ABSENT)]).1.unwrap();
    assert_eq!(guest.mmu_update(&[entry(own[2], 0, own[3], ALL)]), (0, Err(Errno::EBUSY)));
}

#[test]
fn grants_are_held_while_they_are_mapped() {
    let xen = FakeXen::new(100);
    let before = xen.census();
    let (domain, frames) = build(&xen);
    let guest = xen.guest(domain);
    assert_eq!(xen.grant_table_setup(domain, 2).unwrap().len(), 2);
    assert!(matches!(xen.grant_table_setup(domain, 3), Err(Error::Grant(..))));
    guest.grant(GrantRef(8), DomId::DOM0, frames[4], true);
    guest.grant(GrantRef(600), DomId::DOM0, frames[4], false);
    guest.grant(GrantRef(9), DomId(5), frames[4], true);
    let map = |gref, protection| xen.map_grants(domain, &[GrantRef(8), GrantRef(gref)], protection);
    assert_eq!(errno(map(600, Protection::ReadWrite)), Some(Errno::EINVAL));
    assert_eq!(errno(map(9, Protection::Read)), Some(Errno::EINVAL), "granted to another");
    assert!(guest.end_grant(GrantRef(9)));
    let page = xen.map_grants(domain, &[GrantRef(8)], Protection::ReadWrite).unwrap();
    let both = map(600, Protection::Read).unwrap();
    page.write_u32(4, 77);
    page.copy_page(0, &page, 0);
    assert_eq!((both.read_u32(4), both.read_u32(PAGE_SIZE + 4)), (77, 77));
    assert_eq!((guest.page(frames[4])[4], both.size()), (77, 2 * PAGE_SIZE));
    drop(page);
    assert!(!guest.end_grant(GrantRef(8)), "one mapping is left");
    xen.destroy(domain).unwrap();
    assert!(xen.domain_info(domain).unwrap().unwrap().is_dying());
    assert_eq!(both.read_u32(4), 77, "the pages outlive their owner");
    drop(both);
    assert_eq!(xen.census(), before);
}

#[test]
fn events_are_reported_once_and_after_an_unmask() {
    let xen = FakeXen::new(10);
    let before = xen.census();
    let domain = create(&xen, 0);
    let (guest, events, others) = (xen.guest(domain), xen.events().unwrap(), xen.events().unwrap());
    let remote = xen.alloc_unbound(domain, DomId::DOM0).unwrap();
    assert_eq!(errno(events.bind_interdomain(domain, Port(9))), Some(Errno::EINVAL));
    let port = events.bind_interdomain(domain, remote).unwrap();
    assert_eq!(errno(others.notify(port)), Some(Errno::ENOTCONN), "a port of another set");
    assert_eq!(events.wait(None).unwrap(), [port], "pending at once");
    guest.send(remote).unwrap();
    assert!(events.wait(Some(Duration::ZERO)).unwrap().is_empty(), "masked");
    events.unmask(port).unwrap();
    assert_eq!(events.wait(None).unwrap(), [port]);
    events.unmask(port).unwrap();
    events.notify(port).unwrap();
    assert_eq!((guest.take_events(), guest.take_events()), (vec![remote], vec![]));

    let unbound = events.bind_unbound_port(domain).unwrap();
    let theirs = guest.bind_interdomain(DomId::DOM0, unbound).unwrap();
    let sender = thread::spawn({
        let guest = guest.clone();
        move || guest.send(theirs).unwrap()
    });
    assert_eq!(events.wait(Some(Duration::from_secs(60))).unwrap(), [unbound]);
    sender.join().unwrap();
    events.unbind(unbound).unwrap();
    xen.unpause(domain).unwrap();
    assert_eq!(errno(xen.evtchn_reset(domain)), Some(Errno::EINVAL));
    xen.pause(domain).unwrap();
    xen.evtchn_reset(domain).unwrap();
    assert_eq!(xen.census().ports, 1);
    drop(events);
    xen.destroy(domain).unwrap();
    assert_eq!(xen.census(), before);
}

#[test]
fn an_operation_fails_where_it_is_told_to() {
    let xen = FakeXen::new(10);
    xen.inject(2, Fault::Fail(Errno::ENOMEM));
    xen.free_pages().unwrap();
    assert_eq!(errno(xen.create_domain(&CONFIG)), Some(Errno::ENOMEM));
    assert_eq!(xen.census().domains, 0);
    xen.create_domain(&CONFIG).unwrap();
    assert_eq!(xen.operations(), ["physinfo", "createdomain", "createdomain"]);
}

#[test]
fn a_killed_process_has_nothing_and_does_nothing() {
    for fault in [Fault::KillBefore, Fault::KillAfter] {
        let xen = FakeXen::new(100);
        let (domain, frames) = build(&xen);
        let before = xen.census();
        let page = xen.map_foreign(domain, &frames[4..], Protection::ReadWrite).unwrap();
        page.write_u32(0, 5);
        let events = xen.events().unwrap();
        events.bind_unbound_port(domain).unwrap();
        xen.inject(1, fault);
        assert_eq!(errno(xen.create_domain(&CONFIG)), Some(KILLED));
        assert!(xen.is_killed());
        page.write_u32(0, 6);
        assert_eq!(page.read_u32(0), 0);
        assert_eq!(errno(events.wait(None)), Some(KILLED));
        let left = xen.census();
        assert_eq!((left.mappings, left.ports, left.references), (0, 0, before.references));
        assert_eq!(left.domains, if fault == Fault::KillAfter { 2 } else { 1 });
        xen.restart();
        drop((page, events));
        assert_eq!(xen.guest(domain).page(frames[4])[0], 5);
        xen.domains().unwrap().into_iter().skip(1).for_each(|info| xen.destroy(info.id).unwrap());
        assert_eq!(xen.census().domains, 0);
    }
}

#[test]
fn a_number_comes_round_and_is_free_again_when_its_domain_has_wholly_gone() {
    let xen = FakeXen::new(100).with_domain_numbers(3);
    let (first, frames) = build(&xen);
    let next = || xen.create_domain(&CONFIG);
    assert_eq!((first, next().unwrap(), next().unwrap()), (DomId(1), DomId(2), DomId(3)));
    assert_eq!(errno(next()), Some(Errno::ENOMEM));
    let page = xen.map_foreign(first, &frames[4..], Protection::Read).unwrap();
    xen.destroy(first).unwrap();
    assert_eq!(errno(next()), Some(Errno::ENOMEM), "its memory is in use");
    drop(page);
    assert_eq!(next().unwrap(), DomId(1));
    xen.destroy(DomId(2)).unwrap();
    xen.destroy(DomId(3)).unwrap();
    xen.set_next_domain(3);
    assert_eq!((next().unwrap(), next().unwrap()), (DomId(3), DomId(2)));
}

#[test]
fn a_plan_is_asked_at_each_operation() {
    let xen = FakeXen::new(10);
    let mut left = 2;
    xen.set_plan(move |name| {
        left -= usize::from(name == "createdomain");
        (left == 0).then_some(Fault::Fail(Errno::EAGAIN))
    });
    assert_eq!(
        (xen.create_domain(&CONFIG).unwrap(), errno(xen.create_domain(&CONFIG))),
        (DomId(1), Some(Errno::EAGAIN))
    );
}

#[test]
fn dom0_maps_no_more_grants_than_its_maptrack_has_room_for() {
    let xen = FakeXen::new(100).with_maptrack(2);
    let (domain, frames) = build(&xen);
    xen.guest(domain).grant(GrantRef(8), DomId::DOM0, frames[4], false);
    let map = |count| xen.map_grants(domain, &vec![GrantRef(8); count], Protection::Read);
    let both = map(2).unwrap();
    assert_eq!((errno(map(1)), xen.maptrack()), (Some(Errno::EINVAL), 2));
    drop(both);
    map(1).unwrap();
}

#[test]
fn entries_that_name_frames_of_others_are_found_in_tables_alone() {
    let xen = FakeXen::new(100);
    let ((parent, theirs), (child, own)) = (build(&xen), build(&xen));
    xen.mmu_update(child, parent, &[entry(own[3], 2, theirs[4], READ)]).1.unwrap();
    let page = xen.map_foreign(child, &own[4..], Protection::ReadWrite).unwrap();
    page.write_u64(0, Pte::new(theirs[4], ALL).0);
    let found = xen.foreign_entries();
    assert_eq!(found, [ForeignEntry { domain: child, mfn: theirs[4], owner: parent, writable: false }]);
}
