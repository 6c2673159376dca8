//! The walk of a guest's page tables: whatever its memory holds, before the walk and between walks,
//! what is found lies in the zones, in order, within the limit, and nothing stays mapped.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xen_abi::pte::{Pte, PteFlags};
use xen_abi::{Mfn, Pfn};
use xenctl::fake::{FakeMapping, FakeXen, Guest};
use xenctl::{CreateDomain, Hypervisor};
use zooid_fork_plan::plan::{L1_SPAN, index};
use zooid_memory::Zone;

#[path = "../../toolstack/pvm/src/engine/failure.rs"]
#[allow(dead_code)]
mod failure;
#[path = "../../toolstack/pvm/src/engine/tables.rs"]
#[allow(dead_code)]
mod tables;

use tables::{Change, Tables};

/// Frames that the guest has: its tables, and what else they name.
const FRAMES: usize = 12;

/// A run of entries of a table, each to the next frame.
type Run = (u8, u16, u8, u16);

fuzz_target!(|input: (Vec<Run>, Vec<Run>, u8, u16)| {
    let (before, after, level, limit) = input;
    let limit = usize::from(limit) % 2048;
    let xen = FakeXen::new(64);
    let config = CreateDomain {
        flags: 0,
        max_vcpus: 1,
        max_evtchn_port: 1,
        max_grant_frames: 1,
        max_maptrack_frames: 0,
        handle: [0; 16],
        cpupool: 0,
    };
    let domain = xen.create_domain(&config).expect("a domain");
    xen.set_max_mem(domain, 4 * FRAMES as u64).expect("its limit");
    let pfns: Vec<Pfn> = (0..FRAMES as u64).map(Pfn).collect();
    let frames = xen.populate_physmap(domain, 0, &pfns).expect("its frames");
    let census = xen.census();
    let guest = xen.guest(domain);
    // The path to the zones, as far as `level` says, so that what lies behind it is reached.
    let path = Zone::Heap.base();
    let places = [index(path, 4), index(path, 3), index(path, 2)];
    for (depth, place) in places.into_iter().take(usize::from(level) % 4).enumerate() {
        put(&guest, frames[depth], place, frames[depth + 1]);
    }
    before.iter().for_each(|run| write(&guest, &frames, *run));
    if let Ok(mut tables) = Tables::read(&xen, domain, frames[0].addr(), limit, 0) {
        check(&tables, limit);
        after.iter().for_each(|run| write(&guest, &frames, *run));
        let change = tables.change(1, &mut Box::new([0; 512]));
        if tables.grow(&xen, domain, 1).is_ok() {
            assert_ne!(change, Change::Gone);
            check(&tables, limit);
            assert_eq!(tables.change(2, &mut Box::new([0; 512])), Change::None);
        }
    }
    let _ = tables::leaf_of(&xen, domain, frames[0].addr(), Zone::Device.base());
    assert_eq!(xen.census(), census, "something stays mapped");
});

fn check(tables: &Tables<FakeMapping>, limit: usize) {
    let bases: Vec<usize> = tables.bases().collect();
    assert!(bases.len() <= limit && bases.len() == tables.count());
    assert!(bases.is_sorted_by(|one, other| one < other), "a table that is found twice");
    for base in &bases {
        let zone = Zone::containing(*base);
        assert!(base.is_multiple_of(L1_SPAN) && zone.is_some_and(|zone| zone != Zone::Tables), "{base:#x}");
    }
    assert!(tables.copy_leaves().iter().map(|table| table.base).eq(bases));
}

fn put(guest: &Guest, table: Mfn, place: usize, frame: Mfn) {
    let entry = Pte::new(frame, PteFlags::PRESENT | PteFlags::WRITABLE);
    guest.write(table, place * 8, &entry.0.to_le_bytes());
}

fn write(guest: &Guest, frames: &[Mfn], (table, first, count, to): Run) {
    let table = frames[usize::from(table) % FRAMES];
    for number in 0..=usize::from(count) {
        let place = (usize::from(first) + number) % 512;
        match usize::from(to) {
            // A frame that is not its own, and an entry that is absent.
            0 => put(guest, table, place, Mfn(0)),
            1 => guest.write(table, place * 8, &[0; 8]),
            to => put(guest, table, place, frames[(to + number) % FRAMES]),
        }
    }
}
