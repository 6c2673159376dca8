//! The memory of a simulated guest: its layout, its page tables, and its accesses.

use xen_abi::arch_x86::VgcfFlags;
use xen_abi::pte::{PTES_PER_TABLE, Pte, PteFlags};
use xen_abi::xen::{MmuUpdate, MmuextCmd, MmuextOp};
use xen_abi::{DomId, GrantRef, Mfn, PAGE_SIZE, Pfn, Port};
use xenctl::fake::{FakeXen, Guest};
use xenctl::{Hypervisor, Memory, Protection, VcpuGuestContext};
use zooid_fork_plan::layout::Layout;
use zooid_fork_plan::link::Backend;
use zooid_fork_plan::plan::{ParentTable, Plan, Special, index};
use zooid_fork_plan::wire::{CONTROL_GREF, MAGIC, VERSION, daemon, device, device_page, guest, state};
use zooid_memory::{PageClass, Zone};

use crate::testing::small_domain;

/// Pages of the heap that a guest uses, and of variables.
pub const HEAP_PAGES: usize = 6;
pub const DATA_PAGES: usize = 2;
/// First page of the snapshot buffers in the image, a page each.
const BUFFERS: usize = 24;

pub fn heap(page: usize) -> usize {
    Zone::Heap.base() + page * PAGE_SIZE
}

pub fn data(page: usize) -> usize {
    Zone::Image.base() + (16 + page) * PAGE_SIZE
}

pub fn buffer(number: usize) -> usize {
    Zone::Image.base() + (BUFFERS + number) * PAGE_SIZE
}

pub fn layout() -> Layout {
    let image = Zone::Image.base();
    Layout {
        entry: image as u64 + 0x40,
        p2m_entries: 512,
        p2m: image + 0x10_0000,
        bitmaps: image + 0x12_0000,
        start_info: image + 0x13_0000,
    }
}

/// Makes a domain in the state in which a toolstack and a booted kernel leave it; its port for the
/// daemon.
pub fn boot(tools: &FakeXen, handle: [u8; 16]) -> (Guest, Port) {
    let entry = |class: PageClass| Pte::new(Mfn(0), class.pte_flags()).0;
    let mut heap = Box::new([0; PTES_PER_TABLE]);
    heap[..HEAP_PAGES].fill(entry(PageClass::Heap));
    let mut image = Box::new([0; PTES_PER_TABLE]);
    image[0] = entry(PageClass::Text);
    image[16..16 + DATA_PAGES].fill(entry(PageClass::Data));
    image[BUFFERS..BUFFERS + 2].fill(entry(PageClass::Snapshot));
    let tables = [
        ParentTable { base: Zone::Heap.base(), entries: heap },
        ParentTable { base: Zone::Image.base(), entries: image },
    ];
    let plan = Plan::new(Backend::Grant, &layout(), &tables, 8).unwrap();
    let config = small_domain(handle);
    let domain = tools.create_domain(&config).unwrap();
    tools.max_vcpus(domain, 1).unwrap();
    tools.set_max_mem(domain, 4 * 600).unwrap();
    let pfns: Vec<Pfn> = (0..plan.frames() as u64).map(Pfn).collect();
    let mfns = tools.populate_physmap(domain, 0, &pfns).unwrap();
    let shared_info = tools.domain_info(domain).unwrap().unwrap().shared_info_frame;
    let pages = tools.map_foreign(domain, &mfns, Protection::ReadWrite).unwrap();
    for (number, table) in plan.tables.iter().enumerate() {
        for (index, entry) in
            plan.table_entries(table, &mfns, shared_info).iter().enumerate().filter(|(_, it)| **it != 0)
        {
            pages.write_u64(number * PAGE_SIZE + index * 8, *entry);
        }
    }
    drop(pages);
    let guest = tools.guest(domain);
    tools.mmuext_op(domain, &[MmuextOp::on_frame(MmuextCmd::PIN_L4_TABLE, mfns[0])]).1.unwrap();
    let mut context = VcpuGuestContext { flags: VgcfFlags::IN_KERNEL | VgcfFlags::ONLINE, ..Default::default() };
    context.ctrlreg[3] = VcpuGuestContext::cr3(mfns[0]);
    tools.set_vcpu_context(domain, 0, &context).unwrap();
    let page = mfns[plan.special(Special::Control).unwrap().0 as usize];
    guest.grant(GrantRef(CONTROL_GREF), DomId::DOM0, page, true);
    let port = guest.alloc_unbound(DomId::DOM0).unwrap();
    let control = Control { guest: guest.clone(), page };
    control.describe();
    control.put(guest::TIMER_PORT, port.0);
    control.put(guest::STATE, state::RUNNING);
    tools.unpause(domain).unwrap();
    (guest, port)
}

/// A guest's control page.
#[derive(Clone, Debug)]
pub struct Control {
    guest: Guest,
    page: Mfn,
}

impl Control {
    pub fn of(guest: &Guest) -> Option<Self> {
        let page = entry(guest, device_page(device::CONTROL))?.mfn();
        Some(Control { guest: guest.clone(), page })
    }

    pub fn get(&self, field: usize) -> u32 {
        let mut octets = [0; 4];
        self.guest.read(self.page, field, &mut octets);
        u32::from_le_bytes(octets)
    }

    pub fn get_u64(&self, field: usize) -> u64 {
        u64::from(self.get(field)) | u64::from(self.get(field + 4)) << 32
    }

    pub fn put(&self, field: usize, value: u32) {
        self.guest.write(self.page, field, &value.to_le_bytes());
    }

    pub fn put_u64(&self, field: usize, value: u64) {
        self.guest.write(self.page, field, &value.to_le_bytes());
    }

    pub fn put_octets(&self, field: usize, octets: &[u8]) {
        self.guest.write(self.page, field, octets);
    }

    pub fn count(&self, field: usize) {
        self.put(field, self.get(field).wrapping_add(1));
    }

    /// Sends an event to the daemon. A root keeps the number of its port in a field that is for the
    /// guest alone.
    pub fn send(&self) {
        let port = Some(self.get(daemon::PORT)).filter(|port| *port != 0).unwrap_or(self.get(guest::TIMER_PORT));
        // A daemon may not have bound it.
        let _ = self.guest.send(Port(port));
    }

    /// Writes its layout.
    pub fn describe(&self) {
        let layout = layout();
        self.put_u64(guest::MAGIC, MAGIC);
        self.put(guest::VERSION, VERSION);
        self.put_u64(guest::ENTRY, layout.entry);
        self.put_u64(guest::P2M_ENTRIES, layout.p2m_entries as u64);
        self.put_u64(guest::P2M, layout.p2m as u64);
        self.put_u64(guest::BITMAPS, layout.bitmaps as u64);
        self.put_u64(guest::START_INFO, layout.start_info as u64);
        self.put_u64(guest::SNAPSHOT, buffer(0) as u64);
        self.put(guest::SNAPSHOT_PAGES, 1);
    }
}

/// The entry that a domain has at an address.
pub fn entry(guest: &Guest, address: usize) -> Option<Pte> {
    guest.translate(guest.root_table()?, address as u64)
}

/// The table of a level that covers an address of a domain.
pub fn table(guest: &Guest, address: usize, level: u32) -> Option<Mfn> {
    let mut table = guest.root_table()?;
    for above in (level + 1..=4).rev() {
        let entry = Pte(word(guest, table, index(address, above) * 8)?);
        table = entry.is_present().then(|| entry.mfn())?;
    }
    Some(table)
}

/// A word of a frame, if there is such a frame.
pub fn word(guest: &Guest, frame: Mfn, offset: usize) -> Option<u64> {
    guest.pfn(frame)?;
    let mut octets = [0; 8];
    guest.read(frame, offset, &mut octets);
    Some(u64::from_le_bytes(octets))
}

/// The first word of the page at an address.
pub fn read(guest: &Guest, address: usize) -> Option<u64> {
    word(guest, entry(guest, address)?.mfn(), 0)
}

/// Writes the first word of a page; false if it is not writable.
pub fn write(guest: &Guest, address: usize, value: u64) -> bool {
    let entry = entry(guest, address).filter(|entry| entry.flags().contains(PteFlags::WRITABLE));
    entry.inspect(|entry| guest.write(entry.mfn(), 0, &value.to_le_bytes())).is_some()
}

/// Sets an entry of the domain's own level 1 table, and counts the change; true if Xen took it.
pub fn set_entry(guest: &Guest, control: &Control, address: usize, entry: Pte) -> bool {
    let Some(table) = table(guest, address, 1) else { return false };
    let update = MmuUpdate::pte(table.addr() + index(address, 1) as u64 * 8, entry);
    let done = guest.mmu_update(&[update]).1.is_ok();
    control.count(guest::changes(address));
    done
}
