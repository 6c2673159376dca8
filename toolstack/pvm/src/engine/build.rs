//! Builds a prepared domain, one operation at a time. Requests are served in between.

use std::fs::File;
use std::io::Read;
use std::mem::offset_of;

use xen_abi::arch_x86::VgcfFlags;
use xen_abi::xen::{MmuextCmd, MmuextOp, SharedInfo, StartInfo, VcpuInfo};
use xen_abi::{DomId, Errno, GrantRef, Mfn, PAGE_SIZE, Pfn, Port};
use xenctl::{CreateDomain, Events, Hypervisor, Memory, Protection, VcpuGuestContext};
use zooid_fork_plan::id::{Handle, Kind, PvmId};
use zooid_fork_plan::plan::{ParentTable, Plan, Special};
use zooid_fork_plan::relink::Linkage;
use zooid_fork_plan::wire::{CONTROL_GREF, daemon, device, device_page};

use super::books::{Channel, Prepared, Rings, is_domain_of};
use super::core::{Follow, Host, Peer, Timer};
use super::executor::{BUILD, Operation};
use super::failure::Failure;
use super::grant_backend::Copies;
use super::home::{self, Home};
use super::jobs::Job;
use super::relink::{Target, is_race, look_again};
use super::sabotage::{self, Sabotage};
use super::standstill::Standstill;

/// Tables that are linked in one step.
const TABLES_AT_ONCE: usize = 8;
/// Free frames of a prepared domain.
const RESERVE: usize = 64;
/// Highest port of a child: libxl's limit for any guest.
pub const MAX_PORT: u32 = 1023;
/// Order of the largest extent that is asked of Xen: 2 MiB.
const MAX_ORDER: u32 = 9;
/// Flags of kernel code and stack segments, `FLAT_KERNEL_CS` and `FLAT_KERNEL_SS`
/// (public/arch-x86/xen-x86_64.h).
const KERNEL_CS: u16 = 0xe033;
const KERNEL_SS: u16 = 0xe02b;
/// The interrupt flag, bit 9, which is set for a guest in ring 3.
const RFLAGS: u64 = 1 << 9;
/// dr6 and dr7 after a reset.
const DR6: u64 = 0xffff_0ff0;
const DR7: u64 = 0x400;
/// Size of an entry of a grant table of version 1, `grant_entry_v1_t`.
const GRANT_ENTRY: usize = 8;
/// `GTF_permit_access`.
const PERMIT_ACCESS: u32 = 1;
/// Grants of every PV domain (public/grant_table.h).
const CONSOLE_GREF: u32 = 0;
const XENSTORE_GREF: u32 = 1;

/// A prepared domain that is being built.
#[derive(Debug)]
pub struct Building<M> {
    /// The pVM that it is for.
    pub parent: PvmId,
    /// Number of the next operation.
    next: usize,
    tables: Vec<ParentTable>,
    plan: Option<Plan>,
    made: Option<Made>,
    mfns: Vec<Mfn>,
    shared_info: Mfn,
    ports: Ports,
    linkage: Option<Linkage>,
    /// Tables that are linked.
    linked: usize,
    copies: Copies<M>,
    bitmaps: Option<M>,
    page: Option<M>,
}

/// The domain, once it has a number.
#[derive(Clone, Debug)]
struct Made {
    id: PvmId,
    name: String,
}

#[derive(Clone, Copy, Debug, Default)]
struct Ports {
    console: Port,
    store: Port,
    /// The ports of the channel to the daemon: its own, and the daemon's.
    fork: Port,
    local: Option<Port>,
}

impl<M> Building<M> {
    /// A domain whose building has not begun.
    pub fn new(parent: PvmId) -> Self {
        Self {
            parent,
            next: 0,
            tables: Vec::new(),
            plan: None,
            made: None,
            mfns: Vec::new(),
            shared_info: Mfn(0),
            ports: Ports::default(),
            linkage: None,
            linked: 0,
            copies: Copies::default(),
            bitmaps: None,
            page: None,
        }
    }

    /// Has the table that covers `address` compared with the parent's again, though the parent has
    /// counted no change of it.
    pub fn look_again(&mut self, address: usize) {
        if let Some(linkage) = &mut self.linkage {
            look_again(linkage, address);
        }
    }

    fn plan(&self) -> &Plan {
        self.plan.as_ref().expect("the plan is the first operation")
    }

    fn made(&self) -> &Made {
        self.made.as_ref().expect("the domain is made by the second operation")
    }

    fn domain(&self) -> DomId {
        self.made().id.domain()
    }

    fn rings(&self) -> Rings {
        Rings {
            console: (self.special(Special::Console), self.ports.console),
            store: (self.special(Special::Xenstore), self.ports.store),
        }
    }

    fn special(&self, special: Special) -> Mfn {
        let pfn = self.plan().special(special).expect("a plan has each of the special pages");
        self.mfns[pfn.0 as usize]
    }
}

impl<H: Hypervisor> Host<H> {
    /// Does the next operation. If it fails, what was built is taken back.
    pub(super) fn build_step(&mut self, family: PvmId, mut building: Box<Building<H::Memory>>) {
        let parent = building.parent;
        let result = match BUILD.get(building.next) {
            Some(operation) if self.books.get(parent).is_some() && self.is_there(&building) => {
                self.executor.before(*operation);
                let result = self.build_operation(*operation, &mut building);
                self.executor.after(*operation);
                result
            }
            _ => Err(Failure::Gone),
        };
        match result {
            Ok(finished) => {
                building.next += usize::from(finished);
                if building.next < BUILD.len() {
                    self.jobs.push_first(family, Job::Build(building));
                } else if let Some(made) = building.made {
                    self.after(self.config.start_timeout, Timer::Waiting(parent, made.id));
                }
            }
            Err(failure) => {
                self.abandon_building(family, *building);
                self.follow(Follow::CannotPrepare(parent, failure));
            }
        }
    }

    /// The domain that is being built still exists. It may be destroyed, and another one get its
    /// number.
    fn is_there(&self, building: &Building<H::Memory>) -> bool {
        let Some(made) = &building.made else { return true };
        let is_it = |info: &xenctl::DomainInfo| is_domain_of(info, made.id) || info.handle == Handle::UNFINISHED;
        matches!(self.xen.domain_info(made.id.domain()), Ok(Some(info)) if is_it(&info) && !info.is_dying())
    }

    /// Does one operation; false if more of the same is left.
    fn build_operation(&mut self, operation: Operation, building: &mut Building<H::Memory>) -> Result<bool, Failure> {
        match operation {
            Operation::Plan => self.plan(building)?,
            Operation::Create => self.create(building)?,
            Operation::Sign => {
                let handle =
                    Handle { kind: Kind::Prepared, id: building.made().id, parent: building.parent, commit: 0 };
                self.xen.set_handle(building.domain(), &handle.to_octets())?;
            }
            Operation::Configure => self.configure(building)?,
            Operation::Populate => {
                let mut mfns = Vec::new();
                self.populate(building.domain(), building.plan().frames(), &mut mfns)?;
                building.mfns = mfns;
            }
            Operation::Channels => self.channels(building)?,
            Operation::Grants => self.grants(building)?,
            Operation::FillTables => self.fill_tables(building)?,
            Operation::FillPages => self.fill_pages(building)?,
            Operation::Pin => {
                let pin = [MmuextOp::on_frame(MmuextCmd::PIN_L4_TABLE, building.mfns[0])];
                self.xen.mmuext_op(building.domain(), &pin).1?;
                let owners = self.books.get(building.parent).ok_or(Failure::Gone)?.owners().clone();
                let linkage = Linkage::new(building.plan(), &building.tables, building.mfns.clone(), owners);
                building.linkage = Some(linkage);
                building.tables = Vec::new();
            }
            Operation::Link => return self.link(building),
            Operation::Map => {
                let gref = [GrantRef(CONTROL_GREF)];
                building.page = Some(self.xen.map_grants(building.domain(), &gref, Protection::ReadWrite)?);
            }
            Operation::Load => self.load(building)?,
            Operation::Home => {
                // The home of an earlier domain of this number may still be there.
                let domain = building.domain();
                if self.jobs.iter().any(|job| matches!(job, Job::Reap(reaping) if reaping.id().domain() == domain)) {
                    home::remove(&self.store, domain)?;
                }
                let parent = self.books.get(building.parent).ok_or(Failure::Gone)?;
                let made = building.made();
                let (root, ancestors) = (parent.root(), parent.owners());
                let home = Home { id: made.id, name: &made.name, rings: building.rings(), root, ancestors };
                home.mark(&self.store)?;
            }
            Operation::Start => {
                self.enlist(building)?;
                self.xen.unpause(building.domain())?;
            }
            _ => return Err(Failure::Gone),
        }
        Ok(true)
    }

    fn plan(&mut self, building: &mut Building<H::Memory>) -> Result<(), Failure> {
        self.follow_tables(building.parent)?;
        let parent = self.books.get(building.parent).ok_or(Failure::Gone)?;
        let forking = parent.forking.as_ref().ok_or(Failure::Gone)?;
        building.tables = forking.tables.copy_leaves();
        let plan = Plan::new(self.backend, &forking.layout, &building.tables, RESERVE)?;
        self.check_memory(building.parent, plan.frames() as u64)?;
        self.check_tables(building.parent, building.tables.len())?;
        building.plan = Some(plan);
        Ok(())
    }

    fn create(&mut self, building: &mut Building<H::Memory>) -> Result<(), Failure> {
        let parent = self.books.get(building.parent).ok_or(Failure::Gone)?;
        let forking = parent.forking.as_ref().ok_or(Failure::Gone)?;
        let domain = self.xen.create_domain(&CreateDomain {
            flags: 0,
            max_vcpus: 1,
            max_evtchn_port: MAX_PORT,
            max_grant_frames: -1,
            max_maptrack_frames: -1,
            handle: Handle::UNFINISHED,
            cpupool: forking.profile.cpupool,
        })?;
        let root = parent.root();
        let id = self.books.new_id(domain);
        let family = self.books.family_name(root).ok_or(Failure::Gone)?;
        building.made = Some(Made { id, name: format!("{family}-{id}") });
        Ok(())
    }

    fn configure(&mut self, building: &Building<H::Memory>) -> Result<(), Failure> {
        let domain = building.domain();
        let plan = building.plan();
        let parent = self.books.get(building.parent).ok_or(Failure::Gone)?;
        let profile = parent.forking.as_ref().ok_or(Failure::Gone)?.profile.clone();
        self.xen.max_vcpus(domain, 1)?;
        // Room for a copy of all pages, and for as many again: pages that it has copied away from
        // while descendants still read them.
        let pages = plan.frames() + self.room(plan.p2m_entries as u64) as usize;
        self.xen.set_max_mem(domain, (pages * PAGE_SIZE / 1024) as u64)?;
        self.claim(domain, pages as u64)?;
        self.xen.set_cpu_policy(domain, &profile.policy)?;
        self.xen.set_tsc_info(domain, &profile.tsc)?;
        if let Some(sched) = &profile.sched {
            self.xen.set_sched_params(domain, sched)?;
        }
        Ok(())
    }

    /// Gives a domain `count` frames from number 0 up, in extents as large as Xen has them. `mfns`
    /// gets those that Xen gave, also after an error.
    pub(super) fn populate(&self, domain: DomId, count: usize, mfns: &mut Vec<Mfn>) -> Result<(), Failure> {
        mfns.reserve_exact(count);
        let mut most = MAX_ORDER;
        while mfns.len() < count {
            let order = most.min((count - mfns.len()).ilog2());
            match self.xen.populate_physmap(domain, order, &[Pfn(mfns.len() as u64)]) {
                Ok(extent) => mfns.extend((0..1 << order).map(|number| Mfn(extent[0].0 + number))),
                Err(error) if order > 0 && error.errno() == Some(Errno::ENOMEM) => most = order - 1,
                Err(error) if error.errno() == Some(Errno::ENOMEM) => {
                    return Err(Failure::NoMemory("Xen has none left"));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn channels(&mut self, building: &mut Building<H::Memory>) -> Result<(), Failure> {
        let domain = building.domain();
        let ports = &mut building.ports;
        ports.console = self.xen.alloc_unbound(domain, DomId::DOM0)?;
        ports.store = self.xen.alloc_unbound(domain, DomId::DOM0)?;
        ports.fork = self.xen.alloc_unbound(domain, DomId::DOM0)?;
        ports.local = Some(self.events.bind_interdomain(domain, ports.fork)?);
        Ok(())
    }

    fn grants(&mut self, building: &Building<H::Memory>) -> Result<(), Failure> {
        let domain = building.domain();
        let frames = self.xen.grant_table_setup(domain, 1)?;
        let table = self.xen.map_foreign(domain, &frames, Protection::ReadWrite)?;
        for (gref, special) in
            [(CONSOLE_GREF, Special::Console), (XENSTORE_GREF, Special::Xenstore), (CONTROL_GREF, Special::Control)]
        {
            let at = gref as usize * GRANT_ENTRY;
            // The domain in the upper half of the first word is dom0. The flags are written last,
            // because they make the entry valid.
            table.write_u32(at + 4, building.special(special).0 as u32);
            table.write_u32(at, PERMIT_ACCESS);
        }
        Ok(())
    }

    fn fill_tables(&mut self, building: &mut Building<H::Memory>) -> Result<(), Failure> {
        let domain = building.domain();
        let info = self.xen.domain_info(domain)?.ok_or(Failure::Gone)?;
        building.shared_info = info.shared_info_frame;
        let plan = building.plan();
        let frames = &building.mfns[..plan.tables.len()];
        let pages = self.xen.map_foreign(domain, frames, Protection::ReadWrite)?;
        for (number, table) in plan.tables.iter().enumerate() {
            let entries = plan.table_entries(table, &building.mfns, building.shared_info);
            pages.copy_in(number * PAGE_SIZE, &octets(entries.iter().copied()));
        }
        Ok(())
    }

    fn fill_pages(&mut self, building: &mut Building<H::Memory>) -> Result<(), Failure> {
        let domain = building.domain();
        let plan = building.plan();
        let parent = self.books.get(building.parent).ok_or(Failure::Gone)?;
        let layout = parent.forking.as_ref().ok_or(Failure::Gone)?.layout;
        let linkage = Linkage::new(plan, &[], building.mfns.clone(), parent.owners().clone());
        let p2m = octets(linkage.p2m(plan.p2m_entries));
        let bitmaps = octets(linkage.bitmaps(plan.p2m_entries).iter().copied());
        let frames = &building.mfns[plan.special_start()..plan.private_start()];
        let pages = self.xen.map_foreign(domain, frames, Protection::ReadWrite)?;
        for (number, (special, _)) in plan.specials.iter().enumerate() {
            let mut page = [0; PAGE_SIZE];
            match special {
                Special::P2m(part) => copy_part(&mut page, &p2m, *part),
                Special::Bitmaps(part) => copy_part(&mut page, &bitmaps, *part),
                Special::StartInfo => start_info(&mut page, building, layout.p2m),
                Special::Control => self.control(&mut page, building)?,
                Special::ShellStack | Special::Console | Special::Xenstore => {}
            }
            pages.copy_in(number * PAGE_SIZE, &page);
        }
        let is_bitmap = |special: &Special| matches!(special, Special::Bitmaps(_));
        let bitmaps: Vec<Mfn> = plan
            .specials
            .iter()
            .map(|(special, _)| *special)
            .filter(is_bitmap)
            .map(|page| building.special(page))
            .collect();
        let shared_info = self.xen.map_foreign(domain, &[building.shared_info], Protection::ReadWrite)?;
        let mask = offset_of!(SharedInfo, vcpu_info) + offset_of!(VcpuInfo, evtchn_upcall_mask);
        shared_info.copy_in(mask, &[1]);
        building.bitmaps = Some(self.xen.map_foreign(domain, &bitmaps, Protection::ReadWrite)?);
        Ok(())
    }

    /// The daemon's half of the control page.
    fn control(&self, page: &mut [u8; PAGE_SIZE], building: &Building<H::Memory>) -> Result<(), Failure> {
        let parent = self.books.get(building.parent).ok_or(Failure::Gone)?;
        let mut put = |at: usize, value: u32| page[at..at + 4].copy_from_slice(&value.to_le_bytes());
        put(daemon::ID, building.made().id.raw());
        put(daemon::PARENT, parent.id().raw());
        put(daemon::ROOT, parent.root().raw());
        put(daemon::BACKEND, self.backend_number());
        put(daemon::PORT, building.ports.fork.0);
        put(daemon::ROOT_TABLE, 0);
        let seed = &mut page[daemon::SEED..daemon::SEED + 32];
        File::open("/dev/urandom")
            .and_then(|mut random| random.read_exact(seed))
            .map_err(|_| Failure::NoMemory("dom0 gives no random numbers"))
    }

    /// Links the next tables; true if those were the last.
    fn link(&mut self, building: &mut Building<H::Memory>) -> Result<bool, Failure> {
        let memory_owners = self.books.memory_owners_of(self.root_of(building.parent)?);
        let parent = self.books.get_mut(building.parent).ok_or(Failure::Gone)?;
        let (source, _) = parent.linking(memory_owners).ok_or(Failure::Gone)?;
        let tables = source.tables;
        let domain = building.made.as_ref().ok_or(Failure::Gone)?.id.domain();
        let linkage = building.linkage.as_mut().expect("made when its tables were pinned");
        let mut target = Target { domain, linkage, bitmaps: building.bitmaps.as_ref() };
        target.add_tables(&*self.xen, &source)?;
        let mut still = Standstill::of(&*self.xen, &self.store, source.domain);
        for number in building.linked..tables.count().min(building.linked + TABLES_AT_ONCE) {
            if let (Some(sources), Some(base)) = (source.sources, tables.base(number)) {
                let plan = building.plan.as_ref().expect("planned before");
                let frame = |address| plan.private_frame(address).map(|pfn| building.mfns[pfn.0 as usize]);
                let now = self.scratch.entries();
                tables.copy_leaf(number, now);
                building.copies.add_table(&*self.xen, domain, (base, now), frame, sources)?;
            }
            match target.relink(&*self.xen, &source, number, &mut self.scratch, Some(&mut still)) {
                // The parent has copied a page meanwhile. The entry is linked when the domain is
                // refreshed.
                Err(failure) if !is_race(&failure) => return Err(failure),
                _ => building.linked += 1,
            }
        }
        Ok(building.linked >= tables.count())
    }

    fn load(&mut self, building: &Building<H::Memory>) -> Result<(), Failure> {
        let parent = self.books.get(building.parent).ok_or(Failure::Gone)?;
        let layout = parent.forking.as_ref().ok_or(Failure::Gone)?.layout;
        let mut context = VcpuGuestContext { flags: VgcfFlags::IN_KERNEL | VgcfFlags::ONLINE, ..Default::default() };
        let regs = &mut context.user_regs;
        (regs.cs, regs.ss, regs.rflags) = (KERNEL_CS, KERNEL_SS, RFLAGS);
        regs.rip = layout.entry;
        regs.rsp = (device_page(device::SHELL_STACK) + PAGE_SIZE) as u64;
        regs.rdi = device_page(device::CONTROL) as u64;
        (context.kernel_ss, context.kernel_sp) = (KERNEL_SS.into(), regs.rsp);
        (context.debugreg[6], context.debugreg[7]) = (DR6, DR7);
        context.ctrlreg[3] = VcpuGuestContext::cr3(building.mfns[0]);
        self.xen.set_vcpu_context(building.domain(), 0, &context)?;
        Ok(())
    }

    /// Adds it to its parent's prepared domains. From here on its events are listened to.
    fn enlist(&mut self, building: &mut Building<H::Memory>) -> Result<(), Failure> {
        let made = building.made().clone();
        let memory_owners = self.books.memory_owners_of(self.root_of(building.parent)?);
        let parent = self.books.get_mut(building.parent).ok_or(Failure::Gone)?;
        let missing = "made by the operations before";
        let rings = building.rings();
        // The parent may have got more tables since the last one was linked.
        let linkage = building.linkage.as_mut().expect(missing);
        let (source, _) = parent.linking(memory_owners).ok_or(Failure::Gone)?;
        let mut target = Target { domain: made.id.domain(), linkage, bitmaps: building.bitmaps.as_ref() };
        target.add_tables(&*self.xen, &source)?;
        let port = building.ports.local.take().expect(missing);
        parent.prepared.push(Prepared {
            id: made.id,
            name: made.name,
            channel: Channel { page: building.page.take().expect(missing), port },
            linkage: building.linkage.take().expect(missing),
            bitmaps: building.bitmaps.take().expect(missing),
            copies: std::mem::take(&mut building.copies),
            rings,
            waiting: false,
            broken: false,
        });
        self.listen(port, Peer::Prepared(building.parent, made.id));
        Ok(())
    }

    /// Takes back what was built.
    pub(super) fn abandon_building(&mut self, family: PvmId, building: Building<H::Memory>) {
        if let Some(port) = building.ports.local {
            self.unlisten(port);
        }
        let Some(made) = building.made else { return };
        // After `enlist` the domain is built: it is in its parent's list.
        if let Some(parent) = self.books.get_mut(building.parent)
            && let Some(place) = parent.prepared.iter().position(|prepared| prepared.id == made.id)
        {
            let prepared = parent.prepared.remove(place);
            return self.discard(family, prepared);
        }
        drop((building.bitmaps, building.page, building.copies));
        if !sabotage::is(Sabotage::KeepBuilding) {
            self.remove_domain(family, made.id);
        }
    }
}

fn octets(words: impl Iterator<Item = u64>) -> Vec<u8> {
    words.flat_map(u64::to_le_bytes).collect()
}

/// Fills a page with part number `part` of octets that are longer than a page.
fn copy_part(page: &mut [u8; PAGE_SIZE], octets: &[u8], part: usize) {
    let rest = &octets[part * PAGE_SIZE..];
    let length = rest.len().min(PAGE_SIZE);
    page[..length].copy_from_slice(&rest[..length]);
}

fn start_info<M>(page: &mut [u8; PAGE_SIZE], building: &Building<M>, p2m: usize) {
    const MAGIC: &[u8] = b"xen-3.0-x86_64";
    page[..MAGIC.len()].copy_from_slice(MAGIC);
    let mut put = |at: usize, octets: &[u8]| page[at..at + octets.len()].copy_from_slice(octets);
    let plan = building.plan();
    put(offset_of!(StartInfo, nr_pages), &(plan.p2m_entries as u64).to_le_bytes());
    put(offset_of!(StartInfo, shared_info), &building.shared_info.addr().to_le_bytes());
    put(offset_of!(StartInfo, store_mfn), &building.special(Special::Xenstore).0.to_le_bytes());
    put(offset_of!(StartInfo, store_evtchn), &building.ports.store.0.to_le_bytes());
    let console = offset_of!(StartInfo, console);
    put(console, &building.special(Special::Console).0.to_le_bytes());
    put(console + 8, &building.ports.console.0.to_le_bytes());
    put(offset_of!(StartInfo, mfn_list), &(p2m as u64).to_le_bytes());
    put(offset_of!(StartInfo, nr_pt_frames), &(plan.tables.len() as u64).to_le_bytes());
}
