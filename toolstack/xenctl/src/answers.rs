//! A long sequence of operations, allowed and forbidden, and the answers of a hypervisor.
//!
//! [`RECORDED`] has Xen's answers. The fake has to give the same ones in a unit test, and Xen
//! itself in a booted dom0 (`src/bin/answers.rs`), so neither can drift away from the other unseen.
#![forbid(unsafe_code)]

use xen_abi::arch_x86::VgcfFlags;
use xen_abi::pte::{Pte, PteFlags};
use xen_abi::xen::{MmuCommand, MmuUpdate, MmuextCmd, MmuextOp};
use xen_abi::{DomId, Errno, GrantRef, Mfn, PAGE_SIZE, Pfn, Port};

use crate::{CreateDomain, Error, Events, Hypervisor, Memory, Protection, VcpuGuestContext};

/// The answers of Xen 4.17, a line for each operation; taken by `answers --print` in dom0.
pub const RECORDED: &str = include_str!("fake/answers.txt");

const RW: PteFlags = PteFlags::PRESENT.union(PteFlags::WRITABLE).union(PteFlags::USER);
const RO: PteFlags = PteFlags::PRESENT.union(PteFlags::USER);
const CONFIG: CreateDomain = CreateDomain {
    flags: 0,
    max_vcpus: 1,
    max_evtchn_port: 63,
    max_grant_frames: 2,
    max_maptrack_frames: 0,
    handle: [9; 16],
    cpupool: 0,
};
/// A number that no domain has: no test makes so many.
const NOBODY: DomId = DomId(0x7000);
/// Indices of a domain's frames: tables of the levels 4, 3, 2, 1 and 1, and pages.
const L4: usize = 0;
const L3: usize = 1;
const L2: usize = 2;
const L1: usize = 3;
const OTHER_L1: usize = 4;
const PAGE: usize = 5;
const FRAMES: usize = 10;
/// Most pages of a domain.
const MOST: u64 = 12;
/// Entries of a table that are written. They are few, so that old ones are replaced.
const ENTRIES: u64 = 4;
/// Domains in the random part, and mappings at a time.
const DOMAINS: usize = 3;
const MAPPINGS: usize = 6;
const SEED: u64 = 20_261_130;
const RANDOM: usize = 3000;

/// Gives the sequence to `xen`; a line for each answer. No domain is left.
pub fn answers<X: Hypervisor>(xen: &X) -> Vec<String> {
    let mut lines = Lines(Vec::new());
    for (name, part) in [
        ("nobody", nobody as fn(&X, &mut Lines)),
        ("new", new),
        ("pauses", pauses),
        ("memory", memory),
        ("tables", tables),
        ("unhooked", unhooked),
        ("foreign", foreign),
        ("zombie", zombie),
        ("grants", grants),
        ("vcpu", vcpu),
        ("ports", ports),
    ] {
        lines.0.push(format!("# {name}"));
        part(xen, &mut lines);
    }
    lines.0.push("# random".to_owned());
    random(xen, &mut lines);
    lines.0
}

/// The lines that differ from the `recorded` ones.
pub fn differences(recorded: &str, lines: &[String]) -> Vec<String> {
    let recorded: Vec<&str> = recorded.lines().collect();
    let longest = recorded.len().max(lines.len());
    let differs = |place: &usize| recorded.get(*place).copied() != lines.get(*place).map(String::as_str);
    let line = |place: usize| {
        let (was, is) = (recorded.get(place), lines.get(place));
        format!(
            "line {}: recorded {:?}, and it is {:?}",
            place + 1,
            was.unwrap_or(&"nothing"),
            is.map_or("nothing", |is| is)
        )
    };
    (0..longest).filter(differs).map(line).collect()
}

struct Lines(Vec<String>);

impl Lines {
    fn say<T>(&mut self, what: &str, answer: Result<T, Error>) -> Option<T> {
        self.0.push(format!("{what}: {}", word(answer.as_ref().map(drop))));
        answer.ok()
    }

    /// Records an operation that counts its finished parts.
    fn count(&mut self, what: &str, (done, result): (usize, Result<(), Error>)) {
        self.0.push(format!("{what}: {done} {}", word(result.as_ref().copied())));
    }

    /// Records Xen's report of a domain.
    fn info<X: Hypervisor>(&mut self, xen: &X, domain: DomId) {
        let said = match xen.domain_info(domain) {
            Ok(Some(info)) => format!(
                "pages {} of {}, handle {}, vcpu {:?}{}{}",
                info.pages,
                info.max_pages,
                info.handle[0],
                info.max_vcpu_id,
                if info.is_paused() { ", paused" } else { "" },
                if info.is_dying() { ", dying" } else { "" }
            ),
            Ok(None) => "gone".to_owned(),
            Err(error) => word(Err(&error)),
        };
        self.0.push(format!("info: {said}"));
    }
}

fn word(answer: Result<(), &Error>) -> String {
    match answer {
        Ok(()) => "ok".to_owned(),
        Err(Error::Grant(_, status)) => status.to_string(),
        Err(error) => error.errno().map_or_else(|| error.to_string(), |errno: Errno| errno.to_string()),
    }
}

/// A domain of the sequence. It is destroyed when dropped, if it still exists.
struct House<'a, X: Hypervisor> {
    xen: &'a X,
    id: DomId,
    frames: Vec<Mfn>,
}

impl<'a, X: Hypervisor> House<'a, X> {
    /// A new domain with a vcpu that has no state, and no memory.
    fn empty(xen: &'a X) -> Result<Self, Error> {
        let house = House { xen, id: xen.create_domain(&CONFIG)?, frames: Vec::new() };
        xen.max_vcpus(house.id, 1)?;
        xen.set_max_mem(house.id, MOST * 4)?;
        Ok(house)
    }

    /// A domain with tables and pages, its top table pinned.
    fn build(xen: &'a X) -> Result<Self, Error> {
        let mut house = Self::empty(xen)?;
        house.frames = xen.populate_physmap(house.id, 0, &(0..FRAMES as u64).map(Pfn).collect::<Vec<_>>())?;
        let pages = xen.map_foreign(house.id, &house.frames, Protection::ReadWrite)?;
        (0..FRAMES).for_each(|page| pages.copy_in(page * PAGE_SIZE, &[0; PAGE_SIZE]));
        let entry = |table: usize, index: usize, frame: usize, flags| {
            pages.write_u64(table * PAGE_SIZE + index * 8, Pte::new(house.frames[frame], flags).0);
        };
        entry(L4, 0, L3, RW);
        entry(L3, 0, L2, RW);
        entry(L2, 0, L1, RW);
        entry(L2, 1, OTHER_L1, RW);
        entry(L1, 0, PAGE, RW);
        entry(L1, 1, PAGE + 1, RO);
        drop(pages);
        house.mmuext(MmuextCmd::PIN_L4_TABLE, L4).1?;
        Ok(house)
    }

    fn mmuext(&self, command: MmuextCmd, frame: usize) -> (usize, Result<(), Error>) {
        self.xen.mmuext_op(self.id, &[MmuextOp::on_frame(command, self.frames[frame])])
    }

    fn entry(&self, table: usize, index: u64, pte: Pte) -> MmuUpdate {
        MmuUpdate::pte(self.frames[table].addr() + index * 8, pte)
    }

    /// Sets one entry of one of its tables, to a frame of its own.
    fn set(&self, table: usize, index: u64, frame: usize, flags: PteFlags) -> (usize, Result<(), Error>) {
        self.xen.mmu_update(self.id, self.id, &[self.entry(table, index, Pte::new(self.frames[frame], flags))])
    }

    fn clear(&self, table: usize, index: u64) -> (usize, Result<(), Error>) {
        self.xen.mmu_update(self.id, self.id, &[self.entry(table, index, Pte::ABSENT)])
    }

    fn map(&self, frame: usize, protection: Protection) -> Result<X::Memory, Error> {
        self.xen.map_foreign(self.id, &[self.frames[frame]], protection)
    }
}

impl<X: Hypervisor> Drop for House<'_, X> {
    fn drop(&mut self) {
        if self.xen.domain_info(self.id).is_ok_and(|info| info.is_some_and(|info| !info.is_dying())) {
            let _ = self.xen.destroy(self.id);
        }
    }
}

/// A domain that does not exist.
fn nobody<X: Hypervisor>(xen: &X, lines: &mut Lines) {
    let house = House::build(xen).expect("a domain");
    let update = [house.entry(L1, 2, Pte::new(house.frames[PAGE], RO))];
    lines.info(xen, NOBODY);
    lines.say("max_vcpus", xen.max_vcpus(NOBODY, 1));
    lines.say("max_mem", xen.set_max_mem(NOBODY, 4));
    lines.say("pause", xen.pause(NOBODY));
    lines.say("unpause", xen.unpause(NOBODY));
    lines.say("destroy", xen.destroy(NOBODY));
    lines.say("handle", xen.set_handle(NOBODY, &[1; 16]));
    lines.say("context", xen.vcpu_context(NOBODY, 0));
    lines.say("tsc", xen.tsc_info(NOBODY));
    lines.say("policy", xen.cpu_policy(NOBODY));
    lines.say("claim", xen.claim_pages(NOBODY, 1));
    lines.say("populate", xen.populate_physmap(NOBODY, 0, &[Pfn(0)]));
    lines.say("decrease", xen.decrease_reservation(NOBODY, &[house.frames[PAGE]]));
    lines.count("update of its tables", xen.mmu_update(NOBODY, house.id, &update));
    lines.count("update to its frames", xen.mmu_update(house.id, NOBODY, &update));
    let pin = [MmuextOp::on_frame(MmuextCmd::PIN_L4_TABLE, house.frames[L4])];
    lines.count("pin", xen.mmuext_op(NOBODY, &pin));
    lines.say("grant table", xen.grant_table_setup(NOBODY, 1));
    lines.say("port", xen.alloc_unbound(NOBODY, DomId::DOM0));
    lines.say("port for it", xen.alloc_unbound(house.id, NOBODY));
    lines.say("reset", xen.evtchn_reset(NOBODY));
    lines.say("map", xen.map_foreign(NOBODY, &house.frames[PAGE..=PAGE], Protection::Read));
    lines.say("map grant", xen.map_grants(NOBODY, &[GrantRef(8)], Protection::Read));
}

/// A domain without vcpus or memory, and settings.
fn new<X: Hypervisor>(xen: &X, lines: &mut Lines) {
    for config in [
        CreateDomain { max_vcpus: 0, ..CONFIG },
        CreateDomain { max_grant_frames: 65, ..CONFIG },
        CreateDomain { max_grant_frames: 0, ..CONFIG },
    ] {
        if let Some(made) = lines.say("create", xen.create_domain(&config)) {
            lines.say("destroy", xen.destroy(made));
        }
    }
    let house = House { xen, id: xen.create_domain(&CONFIG).expect("a domain"), frames: Vec::new() };
    lines.info(xen, house.id);
    let update = [MmuUpdate::pte(0, Pte::ABSENT)];
    lines.count("update without a vcpu", xen.mmu_update(house.id, house.id, &update));
    lines.say("context without a vcpu", xen.vcpu_context(house.id, 0));
    lines.say("set context without a vcpu", xen.set_vcpu_context(house.id, 0, &VcpuGuestContext::default()));
    lines.say("two vcpus", xen.max_vcpus(house.id, 2));
    lines.say("no vcpus", xen.max_vcpus(house.id, 0));
    lines.say("a vcpu", xen.max_vcpus(house.id, 1));
    lines.say("a vcpu again", xen.max_vcpus(house.id, 1));
    lines.say("context", xen.vcpu_context(house.id, 0));
    lines.say("context of another", xen.vcpu_context(house.id, 1));
    lines.say("populate", xen.populate_physmap(house.id, 0, &[Pfn(0)]));
    lines.say("handle", xen.set_handle(house.id, &[1; 16]));
    lines.info(xen, house.id);
    lines.say("handle again", xen.set_handle(house.id, &[2; 16]));
    lines.info(xen, house.id);
    lines.say("policy", xen.cpu_policy(house.id).and_then(|policy| xen.set_cpu_policy(house.id, &policy)));
    lines.say("destroy", xen.destroy(house.id));
    lines.say("destroy again", xen.destroy(house.id));
    lines.info(xen, house.id);
}

fn pauses<X: Hypervisor>(xen: &X, lines: &mut Lines) {
    let house = House::empty(xen).expect("a domain");
    for _ in 0..2 {
        lines.say("pause", xen.pause(house.id));
    }
    for _ in 0..4 {
        lines.say("unpause", xen.unpause(house.id));
        lines.info(xen, house.id);
    }
    lines.say("policy once it was unpaused", {
        xen.cpu_policy(house.id).and_then(|policy| xen.set_cpu_policy(house.id, &policy))
    });
    let most = (0..300).take_while(|_| xen.pause(house.id).is_ok()).count();
    lines.0.push(format!("pauses at most: {most}"));
    lines.say("one more", xen.pause(house.id));
    let back = (0..300).take_while(|_| xen.unpause(house.id).is_ok()).count();
    lines.0.push(format!("taken back: {back}"));
}

fn memory<X: Hypervisor>(xen: &X, lines: &mut Lines) {
    let house = House::empty(xen).expect("a domain");
    let pfns: Vec<Pfn> = (0..MOST + 1).map(Pfn).collect();
    lines.say("more than it may have", xen.populate_physmap(house.id, 0, &pfns));
    lines.info(xen, house.id);
    lines.say("limit below what it has", xen.set_max_mem(house.id, 8));
    lines.info(xen, house.id);
    lines.say("one above the limit", xen.populate_physmap(house.id, 0, &pfns[..1]));
    lines.say("limit of nothing", xen.set_max_mem(house.id, 0));
    lines.say("limit of less than a page", xen.set_max_mem(house.id, 3));
    lines.info(xen, house.id);
    lines.say("limit", xen.set_max_mem(house.id, 4 * 1024));
    lines.say("extent", xen.populate_physmap(house.id, 9, &[Pfn(512)]));
    lines.say("another", xen.populate_physmap(house.id, 9, &[Pfn(1024)]));
    lines.info(xen, house.id);
    let own = xen.populate_physmap(house.id, 0, &[Pfn(2000)]).expect("a page")[0];
    let mapped = lines.say("map", xen.map_foreign(house.id, &[own], Protection::ReadWrite));
    let decrease = |lines: &mut Lines, what: &str, frames: &[Mfn]| {
        let done = xen.decrease_reservation(house.id, frames);
        lines.0.push(format!("{what}: {}", done.map_or_else(|error| word(Err(&error)), |count| count.to_string())));
    };
    decrease(lines, "give up while mapped", &[own]);
    lines.info(xen, house.id);
    decrease(lines, "give up again", &[own]);
    lines.say("map again", xen.map_foreign(house.id, &[own], Protection::Read));
    drop(mapped);
    lines.info(xen, house.id);
    lines.say("map what is free", xen.map_foreign(house.id, &[own], Protection::Read));
    decrease(lines, "give up what is free", &[own]);
    let other = House::build(xen).expect("a domain");
    decrease(lines, "give up what is another's", &[other.frames[PAGE]]);
    decrease(lines, "give up no frame", &[Mfn(1 << 50)]);
    lines.say("map what is another's", xen.map_foreign(house.id, &[other.frames[PAGE]], Protection::Read));
    lines.say("map no frame", xen.map_foreign(house.id, &[Mfn(1 << 38)], Protection::Read));
    let has = xen.domain_info(house.id).ok().flatten().map_or(0, |info| info.pages);
    lines.say("claim less than it has", xen.claim_pages(house.id, has - 1));
    lines.say("claim", xen.claim_pages(house.id, has + 10));
    lines.say("claim again", xen.claim_pages(house.id, has + 10));
    lines.say("end the claim", xen.claim_pages(house.id, 0));
    lines.say("claim above the limit", xen.claim_pages(house.id, 1025));
}

/// Pins, types and entries of all levels.
fn tables<X: Hypervisor>(xen: &X, lines: &mut Lines) {
    let house = House::build(xen).expect("a domain");
    let pins = [
        MmuextCmd::PIN_L1_TABLE,
        MmuextCmd::PIN_L2_TABLE,
        MmuextCmd::PIN_L3_TABLE,
        MmuextCmd::PIN_L4_TABLE,
        MmuextCmd::UNPIN_TABLE,
        MmuextCmd::UNPIN_TABLE,
        MmuextCmd::CLEAR_PAGE,
    ];
    for frame in [L4, L3, L2, L1, PAGE] {
        for pin in pins {
            lines.count(&format!("{pin:?} on {frame}"), house.mmuext(pin, frame));
        }
    }
    lines.count("pin", house.mmuext(MmuextCmd::PIN_L4_TABLE, L4));
    for frame in 0..=PAGE + 1 {
        lines.say(&format!("read {frame}"), house.map(frame, Protection::Read));
        lines.say(&format!("write {frame}"), house.map(frame, Protection::ReadWrite));
    }
    for table in [L4, L3, L2, L1] {
        for target in [L4, L3, L2, L1, PAGE] {
            // A writable entry of an upper table may not name a table of its own level: Xen has
            // linear page tables.
            for flags in if table == L1 { &[RW, RO][..] } else { &[RW][..] } {
                let writable = if *flags == RW { "writable" } else { "read-only" };
                lines.count(&format!("entry of {table} to {target}, {writable}"), house.set(table, 3, target, *flags));
            }
        }
        lines.count("clear it", house.clear(table, 3));
    }
    let slot = [house.entry(L4, 256, Pte::ABSENT)];
    lines.count("entry of the top table that is Xen's", xen.mmu_update(house.id, house.id, &slot));
    lines.count("unpin", house.mmuext(MmuextCmd::UNPIN_TABLE, L4));
    lines.count("what was a top table as one of level 1", house.mmuext(MmuextCmd::PIN_L1_TABLE, L4));
    lines.count("and of level 2", house.mmuext(MmuextCmd::PIN_L2_TABLE, L4));
    lines.count("and of level 4", house.mmuext(MmuextCmd::PIN_L4_TABLE, L4));
    let page = house.frames[PAGE];
    for command in [MmuCommand::PT_UPDATE_PRESERVE_AD, MmuCommand::MACHPHYS_UPDATE, MmuCommand(5)] {
        let update = MmuUpdate { ptr: (house.frames[L1].addr() + 16) | command.0, val: Pte::new(page, RO).0 };
        lines.count(&format!("{command:?}"), xen.mmu_update(house.id, house.id, &[update]));
    }
    let machphys = [MmuUpdate::machphys(page, Pfn(77))];
    lines.count("pfn", xen.mmu_update(DomId::DOM0, house.id, &machphys));
    lines.count("pfn of another's frame", xen.mmu_update(DomId::DOM0, DomId::DOM0, &machphys));
    let plain = [MmuUpdate::pte(page.addr() + 8, Pte(0x1234_5678))];
    lines.count("word in a page", xen.mmu_update(house.id, house.id, &plain));
    lines.0.push(format!("it is {:#x}", house.map(PAGE, Protection::Read).map_or(0, |page| page.read_u64(8))));
    let foreign = [MmuUpdate::pte(xen_page(xen).addr(), Pte::ABSENT)];
    lines.count("word in a frame of nobody", xen.mmu_update(house.id, house.id, &foreign));
    let updates = [
        house.entry(L1, 2, Pte::new(page, RO)),
        house.entry(L1, 3, Pte::new(house.frames[L1], RW)),
        house.entry(L1, 2, Pte::ABSENT),
    ];
    lines.count("up to the first that is refused", xen.mmu_update(house.id, house.id, &updates));
}

/// A frame that belongs to no domain.
fn xen_page<X: Hypervisor>(xen: &X) -> Mfn {
    let gone = House::build(xen).expect("a domain");
    gone.frames[PAGE]
}

/// Tables that are taken out of the tree, rewritten as ordinary pages, and put back.
fn unhooked<X: Hypervisor>(xen: &X, lines: &mut Lines) {
    let (house, other) = (House::build(xen).expect("a domain"), House::build(xen).expect("a domain"));
    lines.say("write while hooked", house.map(L1, Protection::ReadWrite));
    let reading = house.map(L1, Protection::Read).expect("a reading mapping");
    lines.count("unhook", house.clear(L2, 0));
    let table = house.map(L1, Protection::ReadWrite).expect("an ordinary page");
    lines.count("hook while it is written", house.set(L2, 0, L1, RW));
    for (what, pte) in [
        ("a foreign frame", Pte::new(other.frames[PAGE], RO)),
        ("a foreign frame, writable", Pte::new(other.frames[PAGE], RW)),
        ("a table, writable", Pte::new(house.frames[L2], RW)),
        ("itself, writable", Pte::new(house.frames[L1], RW)),
        ("itself, read-only", Pte::new(house.frames[L1], RO)),
        ("an own page", Pte::new(house.frames[PAGE + 2], RW)),
    ] {
        let table = house.map(L1, Protection::ReadWrite).expect("an ordinary page");
        table.write_u64(16, pte.0);
        drop(table);
        lines.0.push(format!("{what}: read as {}", reading.read_u64(16) == pte.0));
        lines.count("hook while it is written", house.set(L2, 0, L1, RW));
    }
    drop(table);
    lines.count("hook", house.set(L2, 0, L1, RW));
    lines.say("write what it names", house.map(PAGE + 2, Protection::ReadWrite));
    lines.count("unhook", house.clear(L2, 0));
    let table = house.map(L1, Protection::ReadWrite).expect("an ordinary page");
    table.write_u64(24, Pte::new(other.frames[PAGE], RO).0);
    drop(table);
    lines.count("hook with a foreign frame", house.set(L2, 0, L1, RW));
    lines.count("pin with a foreign frame", house.mmuext(MmuextCmd::PIN_L1_TABLE, L1));
    let foreign = [MmuUpdate::pte(house.frames[L1].addr() + 24, Pte::new(other.frames[PAGE], RO))];
    lines.count("word that would be an entry", xen.mmu_update(house.id, other.id, &foreign));
}

/// Entries that name frames of another domain.
fn foreign<X: Hypervisor>(xen: &X, lines: &mut Lines) {
    let (parent, child) = (House::build(xen).expect("a domain"), House::build(xen).expect("a domain"));
    let set = |index, frame: Mfn, owner, flags| {
        xen.mmu_update(child.id, owner, &[child.entry(L1, index, Pte::new(frame, flags))])
    };
    for (what, frame, owner) in [
        ("a page of the parent's", parent.frames[PAGE], parent.id),
        ("as the child's own", parent.frames[PAGE], child.id),
        ("as dom0's", parent.frames[PAGE], DomId::DOM0),
        ("a page of the child's as the parent's", child.frames[PAGE], parent.id),
        ("a table of the parent's", parent.frames[L1], parent.id),
        ("the parent's top table", parent.frames[L4], parent.id),
    ] {
        lines.count(&format!("{what}, read-only"), set(2, frame, owner, RO));
        lines.count(&format!("{what}, writable"), set(2, frame, owner, RW));
    }
    lines.count("a table of the parent's in an upper table", {
        xen.mmu_update(child.id, parent.id, &[child.entry(L2, 3, Pte::new(parent.frames[L1], RW))])
    });
    lines.count("again, read-only", set(2, parent.frames[PAGE], parent.id, RO));
    lines.count("the child makes it writable", set(2, parent.frames[PAGE], child.id, RW));
    lines.count("the child changes other flags", set(2, parent.frames[PAGE], child.id, RO | PteFlags::ACCESSED));
    lines.count("the child puts it elsewhere", set(3, parent.frames[PAGE], child.id, RO));
    lines.count("the parent unpins", parent.mmuext(MmuextCmd::UNPIN_TABLE, L4));
    lines.count("the child's table comes off", child.clear(L2, 0));
    lines.count("and does not come back", child.set(L2, 0, L1, RW));
    lines.count("nor with the parent's entries", {
        xen.mmu_update(child.id, parent.id, &[child.entry(L2, 0, Pte::new(child.frames[L1], RW))])
    });
}

/// A domain that was destroyed while others hold its frames.
fn zombie<X: Hypervisor>(xen: &X, lines: &mut Lines) {
    let (parent, child) = (House::build(xen).expect("a domain"), House::build(xen).expect("a domain"));
    let entry = |index, frame: usize, flags| [child.entry(L1, index, Pte::new(parent.frames[frame], flags))];
    lines.count("entry", xen.mmu_update(child.id, parent.id, &entry(2, PAGE, RO)));
    let mapped = lines.say("map", parent.map(PAGE + 1, Protection::ReadWrite));
    let table = lines.say("map a table", parent.map(L1, Protection::Read));
    lines.say("destroy", xen.destroy(parent.id));
    lines.info(xen, parent.id);
    lines.say("destroy again", xen.destroy(parent.id));
    lines.say("pause", xen.pause(parent.id));
    lines.say("unpause", xen.unpause(parent.id));
    lines.say("handle", xen.set_handle(parent.id, &[4; 16]));
    lines.say("max_mem", xen.set_max_mem(parent.id, 1024));
    lines.say("max_vcpus", xen.max_vcpus(parent.id, 1));
    lines.say("context", xen.vcpu_context(parent.id, 0));
    lines.say("populate", xen.populate_physmap(parent.id, 0, &[Pfn(100)]));
    lines.say("claim", xen.claim_pages(parent.id, 100));
    lines.say("port", xen.alloc_unbound(parent.id, DomId::DOM0));
    lines.say("grant table", xen.grant_table_setup(parent.id, 1));
    lines.say("reset", xen.evtchn_reset(parent.id));
    lines.count("update of its tables", parent.set(L1, 0, PAGE, RO));
    lines.count("pin", parent.mmuext(MmuextCmd::PIN_L4_TABLE, L4));
    lines.count("pin what is left", parent.mmuext(MmuextCmd::PIN_L1_TABLE, PAGE + 1));
    lines.count("entry", xen.mmu_update(child.id, parent.id, &entry(3, PAGE, RO)));
    lines.count("entry, writable", xen.mmu_update(child.id, parent.id, &entry(1, PAGE + 1, RW)));
    lines.count("entry to what is gone", xen.mmu_update(child.id, parent.id, &entry(1, PAGE + 2, RO)));
    lines.say("map what is left", parent.map(PAGE, Protection::ReadWrite));
    lines.say("map what is gone", parent.map(PAGE + 2, Protection::Read));
    drop(mapped);
    drop(table);
    lines.info(xen, parent.id);
    lines.count(
        "take the entries away",
        xen.mmu_update(child.id, child.id, &[1, 2, 3].map(|at| child.entry(L1, at, Pte::ABSENT))),
    );
    lines.info(xen, parent.id);
}

fn grants<X: Hypervisor>(xen: &X, lines: &mut Lines) {
    let house = House::build(xen).expect("a domain");
    lines.say("grant table of three frames", xen.grant_table_setup(house.id, 3));
    let table = lines.say("of two", xen.grant_table_setup(house.id, 2)).unwrap_or_default();
    lines.say("of one", xen.grant_table_setup(house.id, 1));
    let entries = xen.map_foreign(house.id, &table, Protection::ReadWrite).expect("a grant table");
    const ACCESS: u64 = 1;
    const READ_ONLY: u64 = 4;
    let frame = |index: usize| house.frames[index].0 << 32;
    let other = House::build(xen).expect("a domain");
    for (gref, word) in [
        (8, ACCESS | frame(PAGE)),
        (9, ACCESS | READ_ONLY | frame(PAGE)),
        (10, frame(PAGE)),
        (11, ACCESS | 5 << 16 | frame(PAGE)),
        (12, ACCESS | frame(L1)),
        (13, ACCESS | READ_ONLY | frame(L1)),
        (14, ACCESS | other.frames[PAGE].0 << 32),
        (600, ACCESS | frame(PAGE + 1)),
        (1024, 0),
        (100_000, 0),
    ] {
        if word != 0 {
            entries.write_u64(gref * 8, word);
        }
        for protection in [Protection::Read, Protection::ReadWrite] {
            let mapped = lines.say(&format!("map {gref} {protection:?}"), {
                xen.map_grants(house.id, &[GrantRef(gref as u32)], protection)
            });
            if mapped.is_some() {
                lines.0.push(format!("in use: {:#x}", entries.read_u32(gref * 8) & 0x18));
            }
        }
        if word != 0 {
            lines.0.push(format!("not in use: {:#x}", entries.read_u32(gref * 8) & 0x18));
        }
    }
    let all = lines.say("all or nothing", xen.map_grants(house.id, &[GrantRef(8), GrantRef(10)], Protection::Read));
    drop(all);
    let first = lines.say("map", xen.map_grants(house.id, &[GrantRef(8)], Protection::ReadWrite));
    lines.count("the granted page as a table", house.mmuext(MmuextCmd::PIN_L1_TABLE, PAGE));
    entries.write_u64(9 * 8, ACCESS | READ_ONLY | frame(PAGE + 1));
    drop(entries);
    lines.say("destroy", xen.destroy(house.id));
    lines.info(xen, house.id);
    lines.say("map a grant of a dying domain", xen.map_grants(house.id, &[GrantRef(9)], Protection::Read));
    drop(first);
    lines.info(xen, house.id);
}

/// The state of a vcpu. The domain is never unpaused.
fn vcpu<X: Hypervisor>(xen: &X, lines: &mut Lines) {
    let house = House::build(xen).expect("a domain");
    let mut context = VcpuGuestContext { flags: VgcfFlags::IN_KERNEL, ..VcpuGuestContext::default() };
    context.user_regs.cs = 0xe033;
    context.user_regs.ss = 0xe02b;
    context.kernel_ss = 0xe02b;
    let mut set = |what: &str, vcpu, cr3: Option<Mfn>, context: &mut VcpuGuestContext| {
        context.ctrlreg[3] = cr3.map_or(0, VcpuGuestContext::cr3);
        lines.say(what, xen.set_vcpu_context(house.id, vcpu, context));
    };
    set("no table", 0, None, &mut context);
    set("a page for a table", 0, Some(house.frames[PAGE]), &mut context);
    set("a table of level 3", 0, Some(house.frames[L3]), &mut context);
    set("another vcpu", 1, Some(house.frames[L4]), &mut context);
    set("the top table", 0, Some(house.frames[L4]), &mut context);
    set("the same", 0, Some(house.frames[L4]), &mut context);
    set("another top table", 0, Some(house.frames[PAGE]), &mut context);
    lines.say("context", xen.vcpu_context(house.id, 0));
    lines.count("unpin while it is used", house.mmuext(MmuextCmd::UNPIN_TABLE, L4));
    lines.say("write while it is used", house.map(L4, Protection::ReadWrite));
    let foreign = House::build(xen).expect("a domain");
    context.ctrlreg[3] = VcpuGuestContext::cr3(house.frames[L4]);
    lines.say("the top table of another domain", xen.set_vcpu_context(foreign.id, 0, &context));
}

fn ports<X: Hypervisor>(xen: &X, lines: &mut Lines) {
    let (house, other) = (House::empty(xen).expect("a domain"), House::empty(xen).expect("a domain"));
    let events = xen.events().expect("ports");
    let port = lines.say("port", xen.alloc_unbound(house.id, DomId::DOM0)).unwrap_or(Port(0));
    let theirs = lines.say("port for another", xen.alloc_unbound(house.id, other.id)).unwrap_or(Port(0));
    lines.0.push(format!("they are {} and {}", port.0, theirs.0));
    lines.say("bind what is another's", events.bind_interdomain(house.id, theirs));
    lines.say("bind no port", events.bind_interdomain(house.id, Port(60)));
    lines.say("bind beyond the limit", events.bind_interdomain(house.id, Port(70)));
    let bound = lines.say("bind", events.bind_interdomain(house.id, port));
    lines.say("bind again", events.bind_interdomain(house.id, port));
    lines.say("unbind", events.unbind(bound.unwrap_or(Port(0))));
    lines.say("unbind again", events.unbind(bound.unwrap_or(Port(0))));
    lines.say("bind once more", events.bind_interdomain(house.id, port));
    let most = (0..200).take_while(|_| xen.alloc_unbound(house.id, DomId::DOM0).is_ok()).count();
    lines.0.push(format!("ports at most: {most} more"));
    lines.say("one more", xen.alloc_unbound(house.id, DomId::DOM0));
    lines.say("reset", xen.evtchn_reset(house.id));
    lines.say("port", xen.alloc_unbound(house.id, DomId::DOM0));
    lines.say("unpause", xen.unpause(house.id));
    lines.say("reset while it runs", xen.evtchn_reset(house.id));
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) % limit as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// Random operations on three domains that come and go.
fn random<X: Hypervisor>(xen: &X, lines: &mut Lines) {
    let mut random = Random(SEED);
    let mut houses: [House<X>; DOMAINS] = std::array::from_fn(|_| House::build(xen).expect("a domain"));
    let mut mappings: [Option<X::Memory>; MAPPINGS] = [const { None }; MAPPINGS];
    // A mapped frame is not freed, so its number never comes again as another frame's.
    let keep = |domain, frames: &[Mfn]| xen.map_foreign(domain, frames, Protection::Read).expect("its own frames");
    let mut kept: Vec<_> = houses.iter().map(|house| keep(house.id, &house.frames)).collect();
    for _ in 0..RANDOM {
        let (at, from, slot) = (random.below(DOMAINS), random.below(DOMAINS), random.below(MAPPINGS));
        let (house, other) = (&houses[at], &houses[from]);
        let (frame, target) = (random.below(FRAMES), random.below(FRAMES));
        let index = random.below(ENTRIES as usize) as u64;
        match random.below(100) {
            0..40 => {
                let table = random.pick(&[L1, L1, L1, OTHER_L1, OTHER_L1, L2, L2, L3, L4, frame]);
                // Upper entries are writable, because of linear page tables; so is a page used as
                // such a table.
                let flags = if table == L1 || table == OTHER_L1 { random.pick(&[RO, RW]) } else { RW };
                let owner = if random.below(4) == 0 { houses[random.below(DOMAINS)].id } else { other.id };
                let pte = if random.below(4) == 0 { Pte::ABSENT } else { Pte::new(other.frames[target], flags) };
                let name =
                    if pte == Pte::ABSENT { "nothing".to_owned() } else { format!("{from}.{target} {}", flags.bits()) };
                let as_whose = houses.iter().position(|house| house.id == owner).unwrap_or(DOMAINS);
                lines.count(
                    &format!("entry {at}.{table}.{index} {name} of {as_whose}"),
                    xen.mmu_update(house.id, owner, &[house.entry(table, index, pte)]),
                );
            }
            40..55 => {
                let command = random.pick(&[
                    MmuextCmd::PIN_L1_TABLE,
                    MmuextCmd::PIN_L1_TABLE,
                    MmuextCmd::PIN_L2_TABLE,
                    MmuextCmd::PIN_L4_TABLE,
                    MmuextCmd::UNPIN_TABLE,
                    MmuextCmd::UNPIN_TABLE,
                    MmuextCmd::UNPIN_TABLE,
                    MmuextCmd::CLEAR_PAGE,
                ]);
                lines.count(
                    &format!("{command:?} {at} {from}.{frame}"),
                    xen.mmuext_op(house.id, &[MmuextOp::on_frame(command, other.frames[frame])]),
                );
            }
            55..72 => {
                let protection = random.pick(&[Protection::Read, Protection::ReadWrite]);
                let what = format!("map {at} {from}.{frame} {protection:?}");
                mappings[slot] = None;
                mappings[slot] = lines.say(&what, xen.map_foreign(house.id, &[other.frames[frame]], protection));
            }
            72..82 => mappings[slot] = None,
            82..88 => {
                // Writes of a guest to a page that it may write.
                if let Ok(page) = xen.map_foreign(house.id, &[house.frames[frame]], Protection::ReadWrite) {
                    page.write_u64(index as usize * 8, Pte::new(other.frames[target], RW).0);
                    lines.0.push(format!("write {at}.{frame}.{index} {from}.{target}"));
                }
            }
            88..93 => {
                let done = xen.decrease_reservation(house.id, &[other.frames[frame]]);
                let said = done.map_or_else(|error| word(Err(&error)), |count| count.to_string());
                lines.0.push(format!("give up {at} {from}.{frame}: {said}"));
            }
            93..96 => {
                let got = xen.populate_physmap(house.id, 0, &[Pfn(frame as u64)]);
                if let Some(got) = lines.say(&format!("populate {at}.{frame}"), got) {
                    let page = xen.map_foreign(house.id, &got, Protection::ReadWrite).expect("its own frame");
                    page.copy_in(0, &[0; PAGE_SIZE]);
                    kept.push(keep(house.id, &got));
                    houses[at].frames[frame] = got[0];
                }
            }
            96..98 => lines.info(xen, house.id),
            98 => {
                lines.say(&format!("destroy {at}"), xen.destroy(house.id));
                lines.info(xen, house.id);
            }
            _ => {
                lines.0.push(format!("new {at}"));
                houses[at] = House::build(xen).expect("a domain");
                kept.push(keep(houses[at].id, &houses[at].frames));
            }
        }
    }
    let ids = houses.each_ref().map(|house| house.id);
    drop(houses);
    ids.into_iter().for_each(|id| lines.info(xen, id));
    drop((mappings, kept));
    ids.into_iter().for_each(|id| lines.info(xen, id));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeXen;

    #[test]
    fn the_fake_answers_as_xen_did() {
        let xen = FakeXen::new(100_000);
        let before = xen.census();
        let differences = differences(RECORDED, &answers(&xen));
        assert!(
            differences.is_empty(),
            "{} differ: {:#?}",
            differences.len(),
            &differences[..differences.len().min(20)]
        );
        assert_eq!(xen.census(), before, "and nothing is left");
    }

    #[test]
    fn another_answer_a_missing_one_and_one_too_many_are_found() {
        let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(differences("a\nb", &lines("a b")).is_empty());
        for other in ["a c", "a", "a b c"] {
            assert_eq!(differences("a\nb", &lines(other)).len(), 1);
        }
    }
}
