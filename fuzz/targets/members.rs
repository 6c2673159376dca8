//! The table of members, as a daemon that starts anew finds it: whatever stands there, each member has
//! one number, numbers are used once, and the page says what the daemon knows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xen_abi::{PAGE_SIZE, Pfn};
use xenctl::fake::FakeXen;
use xenctl::{CreateDomain, Hypervisor, Memory, Protection};
use zooid_fork_plan::id::PvmId;
use zooid_fork_plan::wire::members;

#[path = "../../toolstack/pvm/src/engine/memory_owner.rs"]
#[allow(dead_code)]
mod memory_owner;

use memory_owner::Members;

fuzz_target!(|input: (Vec<(u16, u32)>, Vec<(bool, u32)>)| {
    let (words, requests) = input;
    let xen = FakeXen::new(16);
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
    xen.set_max_mem(domain, 4).expect("its limit");
    let frames = xen.populate_physmap(domain, 0, &[Pfn(0)]).expect("its frame");
    let map = || xen.map_foreign(domain, &frames, Protection::ReadWrite).expect("the table");
    let page = map();
    for (place, value) in words {
        page.write_u32(usize::from(place) % (PAGE_SIZE / 4) * 4, value);
    }
    let mut table = Members::read(map());
    for (joins, id) in requests {
        // Few ids, so that the same ones come and go.
        let Some(id) = PvmId::from_raw(id) else { continue };
        if joins && table.number(id).is_none() {
            let full = table.is_full();
            match table.add(id) {
                Some(number) => assert_eq!((table.id(number), table.number(id)), (Some(id), Some(number))),
                None => assert!(full),
            }
        } else if !joins {
            table.remove(id);
        }
    }
    for number in 0..members::MAX + 1 {
        let found = table.id(number);
        if number < members::MAX {
            let stands = PvmId::from_raw(page.read_u32(members::IDS + 4 * number));
            assert_eq!(stands, found, "the page says something else");
        } else {
            assert_eq!(found, None);
        }
    }
});
