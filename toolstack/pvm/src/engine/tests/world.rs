//! A host in memory: hypervisor, xenstored, xenconsoled, a toolstack that starts root pVMs, and
//! guests that keep to the protocol.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use xen_abi::arch_x86::VgcfFlags;
use xen_abi::pte::{PTES_PER_TABLE, Pte};
use xen_abi::sched::ShutdownReason;
use xen_abi::xen::{MmuUpdate, MmuextCmd, MmuextOp};
use xen_abi::{DomId, GrantRef, Mfn, PAGE_SIZE, Pfn, Port};
use xenctl::fake::{Census, FakeMapping, FakeXen, FakeXenstored, Fault, Guest};
use xenctl::xenstore::Store;
use xenctl::{Hypervisor, Memory, Protection, VcpuGuestContext};
use zooid_fork_plan::id::{Handle, Kind, PvmId};
use zooid_fork_plan::layout::Layout;
use zooid_fork_plan::link::Backend;
use zooid_fork_plan::plan::{ParentTable, Plan, Special, index};
use zooid_fork_plan::status::Status;
use zooid_fork_plan::wire::{
    ANNOUNCEMENT, CONTROL_GREF, ENDED_SLOTS, MAGIC, VERSION, daemon, device, device_page, guest, operation, state,
};
use zooid_memory::{PageClass, Zone};

use super::super::books::Pvm;
use super::super::clock::Clock;
use super::super::config::{Announce, ChildVif, Config};
use super::super::core::{Engine, Host, Timer};
use super::super::toolstack::{Done, Failed, Toolstack};
use crate::testing::small_domain;

/// Pages of each kind that a root begins with.
pub const HEAP_PAGES: usize = 40;
pub const DATA_PAGES: usize = 3;
/// Time after which a test counts as hanging.
const TOO_LONG: Duration = Duration::from_secs(120);

/// First addresses of the root's areas.
pub fn heap(page: usize) -> usize {
    Zone::Heap.base() + page * PAGE_SIZE
}

pub fn text(page: usize) -> usize {
    Zone::Image.base() + page * PAGE_SIZE
}

pub fn data(page: usize) -> usize {
    Zone::Image.base() + (16 + page) * PAGE_SIZE
}

/// The host.
pub struct World {
    pub fake: FakeXen,
    pub xenstored: FakeXenstored,
    store: Store,
    engine: Option<Engine<FakeXen>>,
    config: Config,
    pub clock: Clock,
    /// The requests and ends that guests were told, by domain.
    pub replies: BTreeMap<DomId, Vec<(u32, u32, Vec<u32>)>>,
    pub ends: BTreeMap<DomId, Vec<(u32, Status)>>,
    /// The index of the operation that failed, or was the last of its process.
    pub fault: Option<usize>,
    /// Children end as soon as they run.
    pub children_end: Option<Status>,
    /// What children have printed for which there was no console, with their names.
    pub output: Output,
}

pub type Output = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// No toolstack: roots are destroyed by the tests themselves, and children get no network device.
struct NoToolstack(Output);

impl Toolstack for NoToolstack {
    fn destroy(&self, _roots: Vec<DomId>, done: Done) {
        done(Ok(()));
    }

    fn attach_vif(&self, _parent: DomId, _child: PvmId, _config: &ChildVif, failed: Failed) {
        failed("vif-script: not done within 10s: it says nothing".to_owned());
    }

    fn keep_output(&self, name: &str, octets: &[u8]) {
        self.0.lock().unwrap().push((name.to_owned(), octets.to_vec()));
    }
}

/// Requests of guests for memory of another domain (MAP, MAP_LIBRARY).
impl World {
    /// An operation that maps pages of an object, from page `offset` on, to pages of the DEVICE
    /// zone; the error number. The guest counts the change.
    #[expect(clippy::too_many_arguments, reason = "the fields of the request")]
    pub fn map(
        &mut self,
        domain: DomId,
        operation: u32,
        object: u32,
        offset: u32,
        place: usize,
        count: u32,
        flags: u32,
    ) -> u32 {
        let address = device_page(place);
        let table = self.table(domain, address, 1);
        let control = self.control(domain);
        control.put_u64(guest::MAP_TABLE, table.0);
        control.put(guest::MAP_INDEX, index(address, 1) as u32);
        control.put(guest::OBJECT, object);
        control.put(guest::OBJECT_OFFSET, offset);
        control.put(guest::OBJECT_FLAGS, flags);
        let (errno, _) = self.request(domain, operation, count);
        control.count(guest::changes(address));
        errno
    }

    /// The guest removes entries of its own.
    pub fn unmap(&mut self, domain: DomId, place: usize, count: usize) {
        let address = device_page(place);
        let table = self.table(domain, address, 1);
        let update = |at| MmuUpdate::pte(table.addr() + (index(address, 1) + at) as u64 * 8, Pte::ABSENT);
        self.fake.guest(domain).mmu_update(&(0..count).map(update).collect::<Vec<_>>()).1.unwrap();
        self.control(domain).count(guest::changes(address));
    }

    /// Brings prepared domains up to date, so that they name no frame that their parent does not.
    pub fn refresh(&mut self, domain: DomId) {
        assert_eq!(self.request(domain, operation::PREPARE, 1).0, 0);
    }
}

impl World {
    /// Children are introduced as soon as they run.
    pub fn new(config: Config) -> Self {
        Self::with_young_children(Config { introduce_after: Duration::ZERO, ..config })
    }

    /// Children are introduced when the configuration says so.
    pub fn with_young_children(config: Config) -> Self {
        // Roots are booted without a kernel's file.
        let config = Config { announce: Announce::Any, ..config };
        let fake = FakeXen::new(20_000);
        let xenstored = FakeXenstored::new(&fake);
        let store = xenstored.connect_uncounted();
        for path in ["/local/domain", "/libxl"] {
            store.mkdir(path).unwrap();
        }
        let mut world = World {
            fake,
            xenstored,
            store,
            engine: None,
            config,
            clock: Clock::host(),
            replies: BTreeMap::new(),
            ends: BTreeMap::new(),
            fault: None,
            children_end: None,
            output: Arc::default(),
        };
        world.start_engine();
        world
    }

    fn start_engine(&mut self) {
        let store = Arc::new(self.xenstored.connect());
        if let Ok((mut engine, _)) = Engine::new(
            Arc::new(self.fake.clone()),
            store,
            Arc::new(NoToolstack(self.output.clone())),
            self.clock.clone(),
            self.config.clone(),
        ) {
            engine.recover();
            self.engine = Some(engine);
        }
    }

    pub fn engine(&mut self) -> &mut Engine<FakeXen> {
        self.engine.as_mut().expect("an engine runs")
    }

    /// The host that the engine works on.
    pub fn host(&mut self) -> &mut Host<FakeXen> {
        &mut self.engine().host
    }

    /// The id of the pVM that has this number.
    pub fn id_of(&mut self, domain: DomId) -> PvmId {
        self.host().books.id_of(domain).expect("a pVM that is known")
    }

    /// The books' entry of the pVM that has this number.
    pub fn pvm(&mut self, domain: DomId) -> Option<&Pvm<FakeMapping>> {
        let id = self.host().books.id_of(domain)?;
        self.host().books.get(id)
    }

    /// Lets all sides act until nothing changes any more. An engine that is killed begins anew.
    pub fn settle(&mut self) {
        let began = Instant::now();
        let mut quiet = 0;
        // The remains of a failed operation, and late changes, are handled in the next iteration.
        while quiet < 3 {
            assert!(began.elapsed() < TOO_LONG, "it does not come to rest: {:?}", self.fake.operations().last());
            if self.fake.is_killed() || self.engine.is_none() {
                self.engine = None;
                self.fake.restart();
                self.start_engine();
                continue;
            }
            let before = self.fake.operations().len();
            let engine = self.engine();
            engine.act(true, true);
            engine.act(false, false);
            // After the reply to this, all earlier changes have arrived.
            let _ = engine.host.store.read("/");
            let host = &engine.host;
            let introduces = host.config.introduce_after.is_zero();
            let waits = !host.jobs.is_empty()
                || host.is_behind()
                || host.rest.until().is_some()
                || host.timers().any(|timer| match timer {
                    Timer::Introduce(..) => introduces,
                    timer => matches!(timer, Timer::Console(..) | Timer::Deferred(_) | Timer::Domains),
                });
            let acted = self.guests_act();
            // Two operations: the engine's question for events, and the read above.
            let is_quiet = !acted && !waits && self.fake.operations().len() - before == 2;
            quiet = if is_quiet { quiet + 1 } else { 0 };
        }
    }

    /// A count of all resources in use, at rest.
    pub fn census(&mut self) -> (Census, usize, usize) {
        self.settle();
        (self.fake.census(), self.xenstored.nodes().len(), self.xenstored.lost_consoles())
    }

    /// Starts a root pVM, as a toolstack does.
    pub fn boot(&mut self, name: &str) -> Root {
        let root = Root::build(&self.fake);
        let home = format!("/local/domain/{}", root.guest.id());
        self.store.write(&format!("{home}/name"), name).unwrap();
        let port = root.guest.alloc_unbound(DomId::DOM0).unwrap();
        let announcement = format!("{VERSION} {CONTROL_GREF} {}", port.0);
        self.store.write(&format!("{home}/{ANNOUNCEMENT}"), &announcement).unwrap();
        self.store.introduce(root.guest.id(), Mfn(0), Port(0)).unwrap();
        Root { port, ..root }
    }

    /// The toolstack destroys a domain that it has started, and removes its home.
    pub fn destroy(&mut self, domain: DomId) {
        self.fake.guest(domain).destroy().unwrap();
        self.store.remove(&format!("/local/domain/{domain}")).unwrap();
        self.xenstored.domains_changed();
    }

    /// Children or prepared domains, by their handles.
    pub fn family(&self, kind: Kind) -> Vec<(DomId, Handle)> {
        let handles = self.fake.guests().into_iter().filter(|info| !info.is_dying());
        let handles = handles.filter_map(|info| Handle::parse(info.id, &info.handle).map(|handle| (info.id, handle)));
        handles.filter(|(_, handle)| handle.kind == kind).collect()
    }

    /// Lets guests and xenconsoled act; true if any did.
    fn guests_act(&mut self) -> bool {
        let mut acted = false;
        let nodes = self.xenstored.nodes();
        for domain in self.xenstored.introduced() {
            let path = format!("/local/domain/{domain}/console");
            if nodes.contains_key(&format!("{path}/ring-ref")) {
                let terminal = format!("{path}/tty");
                if !nodes.contains_key(&terminal) {
                    self.store.write(&terminal, "/dev/pts/0").unwrap();
                    acted = true;
                }
            }
        }
        for info in self.fake.guests() {
            if !info.is_dying() && !info.is_paused() && info.shutdown_reason().is_none() {
                acted |= self.guest_acts(info.id, Handle::parse(info.id, &info.handle));
            }
        }
        acted
    }

    fn guest_acts(&mut self, domain: DomId, handle: Option<Handle>) -> bool {
        let guest = self.fake.guest(domain);
        let Some(control) = Control::of(&guest) else { return false };
        let mut acted = self.take_news(domain, &control);
        if handle.is_none() {
            return acted;
        }
        match (control.get(guest::STATE), control.get(daemon::GO)) {
            (state::STARTING, _) => {
                control.put(guest::STATE, state::WAITING);
                control.send();
                acted = true;
            }
            (state::WAITING, 1..) => {
                // The properties that a child's kernel writes itself. It has the others by the
                // snapshot.
                control.describe_as(Root::layout());
                control.put(guest::STATE, state::RUNNING);
                control.send();
                acted = true;
            }
            (state::RUNNING, _) => {
                if let Some(status) = self.children_end {
                    control.end(status);
                    let _ = guest.shutdown(ShutdownReason::POWEROFF);
                    self.xenstored.domains_changed();
                    acted = true;
                }
            }
            _ => {}
        }
        acted
    }

    fn take_news(&mut self, domain: DomId, control: &Control) -> bool {
        let mut news = false;
        let number = control.get(daemon::REPLY);
        let replies = self.replies.entry(domain).or_default();
        if number != 0 && number == control.get(guest::REQUEST) && replies.last().is_none_or(|last| last.0 != number) {
            let made = control.get(daemon::MADE) as usize;
            let children = (0..made).map(|child| control.get(daemon::CHILDREN + 4 * child)).collect();
            replies.push((number, control.get(daemon::ERRNO), children));
            news = true;
        }
        let (mut cons, prod) = (control.get(guest::ENDED_CONS), control.get(daemon::ENDED_PROD));
        if prod.wrapping_sub(cons) > ENDED_SLOTS {
            cons = prod;
        }
        while cons != prod {
            let slot = daemon::ENDED + 8 * (cons % ENDED_SLOTS) as usize;
            let end = (control.get(slot), Status::from_raw(control.get(slot + 4)));
            self.ends.entry(domain).or_default().push(end);
            cons = cons.wrapping_add(1);
            news = true;
        }
        control.put(guest::ENDED_CONS, cons);
        news
    }

    /// Has a guest make a request, and lets all sides act; the error number and the children.
    pub fn request(&mut self, domain: DomId, operation: u32, count: u32) -> (u32, Vec<u32>) {
        let number = self.ask(domain, operation, count);
        self.settle();
        match self.replies.get(&domain).and_then(|replies| replies.last()) {
            Some((answered, errno, children)) if *answered == number => (*errno, children.clone()),
            _ => panic!("request {number} of domain {domain} is not answered: {}", self.story()),
        }
    }

    /// The operations around the injected fault, and the last ones.
    pub fn story(&self) -> String {
        let operations = self.fake.operations();
        let fault = self.fault.unwrap_or(operations.len()).min(operations.len());
        let near = &operations[fault.saturating_sub(8)..(fault + 12).min(operations.len())];
        let last = &operations[operations.len().saturating_sub(20)..];
        format!("the fault was the eighth of {near:?}, the last are {last:?}")
    }

    /// Has a guest make a request; its number.
    pub fn ask(&self, domain: DomId, operation: u32, count: u32) -> u32 {
        let control = Control::of(&self.fake.guest(domain)).expect("a guest with a control page");
        let number = control.get(guest::REQUEST).wrapping_add(1);
        control.put(guest::OPERATION, operation);
        control.put(guest::COUNT, count);
        control.put(guest::REQUEST, number);
        control.send();
        number
    }

    /// Forks one child of a pVM, by PREPARE and COMMIT as a guest does it.
    pub fn fork(&mut self, domain: DomId) -> DomId {
        let (errno, _) = self.request(domain, operation::PREPARE, 1);
        assert_eq!(errno, 0, "PREPARE");
        let (errno, children) = self.request(domain, operation::COMMIT, 1);
        assert_eq!((errno, children.len()), (0, 1), "COMMIT");
        DomId((children[0] & 0x7fff) as u16)
    }

    /// A guest says that it has ended, and a root shuts its domain down.
    pub fn end(&mut self, domain: DomId) {
        self.say_end(domain);
        self.settle();
    }

    /// As [`end`](Self::end), without a reaction of the other sides.
    pub fn say_end(&mut self, domain: DomId) {
        self.control(domain).end(Status::Exited(0));
        let guest = self.fake.guest(domain);
        if self.fake.guests().iter().any(|info| info.id == domain && Handle::parse(domain, &info.handle).is_none()) {
            let _ = guest.shutdown(ShutdownReason::POWEROFF);
            self.xenstored.domains_changed();
        }
    }

    /// Lets the engine alone act, until it has carried out all consequences.
    pub fn run_engine(&mut self) {
        self.engine().act(true, true);
        while self.host().is_behind() {
            // Background work waits for the end of a rest.
            std::thread::sleep(Duration::from_millis(1));
            self.engine().act(false, false);
        }
    }

    /// As [`kill`](Self::kill); the next daemon has other settings.
    pub fn restart_with(&mut self, change: impl FnOnce(&mut Config)) {
        change(&mut self.config);
        self.kill();
    }

    /// Kills the daemon; another one takes over.
    pub fn kill(&mut self) {
        self.fake.inject(1, Fault::KillBefore);
        self.settle();
    }

    /// The table of a level that covers an address of a domain.
    pub fn table(&self, domain: DomId, address: usize, level: u32) -> Mfn {
        let guest = self.fake.guest(domain);
        let mut table = guest.root_table().unwrap();
        for above in (level + 1..=4).rev() {
            let mut entry = [0; 8];
            guest.read(table, index(address, above) * 8, &mut entry);
            table = Pte(u64::from_le_bytes(entry)).mfn();
        }
        table
    }

    /// The control page of a domain.
    pub fn control(&self, domain: DomId) -> Control {
        Control::of(&self.fake.guest(domain)).expect("a guest with a control page")
    }

    /// The entry that a domain has at an address.
    pub fn entry(&self, domain: DomId, address: usize) -> Option<Pte> {
        let guest = self.fake.guest(domain);
        guest.translate(guest.root_table()?, address as u64)
    }

    /// The first word of the page that a domain has at an address.
    pub fn word(&self, domain: DomId, address: usize) -> Option<u64> {
        let mut octets = [0; 8];
        self.fake.guest(domain).read(self.entry(domain, address)?.mfn(), 0, &mut octets);
        Some(u64::from_le_bytes(octets))
    }
}

/// A guest's control page, and its port.
pub struct Control {
    guest: Guest,
    page: Mfn,
}

impl Control {
    pub fn of(guest: &Guest) -> Option<Self> {
        let page = guest.translate(guest.root_table()?, device_page(device::CONTROL) as u64)?.mfn();
        Some(Control { guest: guest.clone(), page })
    }

    pub fn get(&self, field: usize) -> u32 {
        let mut octets = [0; 4];
        self.guest.read(self.page, field, &mut octets);
        u32::from_le_bytes(octets)
    }

    pub fn put(&self, field: usize, value: u32) {
        self.guest.write(self.page, field, &value.to_le_bytes());
    }

    pub fn put_u64(&self, field: usize, value: u64) {
        self.put_octets(field, &value.to_le_bytes());
    }

    pub fn put_octets(&self, field: usize, octets: &[u8]) {
        self.guest.write(self.page, field, octets);
    }

    /// Increments a counter.
    pub fn count(&self, field: usize) {
        self.put(field, self.get(field).wrapping_add(1));
    }

    /// Sends an event to the daemon. A root keeps the number of its port in the field that is for
    /// the guest alone.
    pub fn send(&self) {
        let port = match self.get(daemon::PORT) {
            0 => self.get(guest::TIMER_PORT),
            port => port,
        };
        // It may be unbound at the moment.
        let _ = self.guest.send(Port(port));
    }

    fn describe_as(&self, layout: Layout) {
        self.put_u64(guest::MAGIC, MAGIC);
        self.put(guest::VERSION, VERSION);
        self.put_u64(guest::ENTRY, layout.entry);
        self.put_u64(guest::P2M_ENTRIES, layout.p2m_entries as u64);
        self.put_u64(guest::P2M, layout.p2m as u64);
        self.put_u64(guest::BITMAPS, layout.bitmaps as u64);
        self.put_u64(guest::START_INFO, layout.start_info as u64);
    }

    pub fn end(&self, status: Status) {
        self.put(guest::STATUS, status.to_raw());
        self.put(guest::STATE, state::ENDED);
        self.send();
    }
}

/// A root pVM.
pub struct Root {
    pub guest: Guest,
    port: Port,
}

impl Root {
    fn layout() -> Layout {
        let image = Zone::Image.base();
        Layout {
            entry: image as u64 + 0x40,
            p2m_entries: 1024,
            p2m: image + 0x10_0000,
            bitmaps: image + 0x12_0000,
            start_info: image + 0x13_0000,
        }
    }

    /// A domain as the guest's kernel has arranged it after boot. Each page of its plan has a
    /// frame.
    fn build(fake: &FakeXen) -> Self {
        let entry = |class: PageClass| Pte::new(Mfn(0), class.pte_flags()).0;
        let mut heap = Box::new([0; PTES_PER_TABLE]);
        heap[..HEAP_PAGES].fill(entry(PageClass::Heap));
        let mut image = Box::new([0; PTES_PER_TABLE]);
        image[..4].fill(entry(PageClass::Text));
        image[16..16 + DATA_PAGES].fill(entry(PageClass::Data));
        let tables = [
            ParentTable { base: Zone::Heap.base(), entries: heap },
            ParentTable { base: Zone::Image.base(), entries: image },
        ];
        let plan = Plan::new(Backend::Grant, &Self::layout(), &tables, 64).unwrap();
        let domain = fake.create_domain(&small_domain([0x4b; 16])).unwrap();
        fake.max_vcpus(domain, 1).unwrap();
        fake.set_max_mem(domain, 4 * 1024).unwrap();
        let pfns: Vec<Pfn> = (0..plan.frames() as u64).map(Pfn).collect();
        let mfns = fake.populate_physmap(domain, 0, &pfns).unwrap();
        let shared_info = fake.domain_info(domain).unwrap().unwrap().shared_info_frame;
        let pages = fake.map_foreign(domain, &mfns, Protection::ReadWrite).unwrap();
        for (number, table) in plan.tables.iter().enumerate() {
            for (index, entry) in plan.table_entries(table, &mfns, shared_info).iter().enumerate() {
                pages.write_u64(number * PAGE_SIZE + index * 8, *entry);
            }
        }
        for (number, address) in plan.private.iter().enumerate() {
            pages.write_u64((plan.private_start() + number) * PAGE_SIZE, *address as u64);
        }
        drop(pages);
        let guest = fake.guest(domain);
        fake.mmuext_op(domain, &[MmuextOp::on_frame(MmuextCmd::PIN_L4_TABLE, mfns[0])]).1.unwrap();
        let mut context = VcpuGuestContext { flags: VgcfFlags::IN_KERNEL | VgcfFlags::ONLINE, ..Default::default() };
        context.ctrlreg[3] = VcpuGuestContext::cr3(mfns[0]);
        fake.set_vcpu_context(domain, 0, &context).unwrap();
        fake.unpause(domain).unwrap();
        let page = mfns[plan.special(Special::Control).unwrap().0 as usize];
        guest.grant(GrantRef(CONTROL_GREF), DomId::DOM0, page, true);
        let control = Control { guest: guest.clone(), page };
        control.describe_as(Self::layout());
        control.put(guest::STATE, state::RUNNING);
        Root { guest, port: Port(0) }
    }

    pub fn id(&self) -> DomId {
        self.guest.id()
    }

    pub fn control(&self) -> Control {
        let control = Control::of(&self.guest).unwrap();
        control.put(guest::TIMER_PORT, self.port.0);
        control
    }
}
