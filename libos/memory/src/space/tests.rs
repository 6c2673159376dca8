use super::*;
use std::string::ToString;
use std::vec::Vec;

const HEAP: usize = Zone::Heap.base();
const PAGE: usize = PAGE_SIZE;

#[test]
fn regions_are_found_by_any_address_inside() {
    let mut space = AddressSpace::new();
    space.insert(HEAP..HEAP + 2 * PAGE, PageClass::Heap).unwrap();
    space.insert(HEAP + 2 * PAGE..HEAP + 3 * PAGE, PageClass::Heap).unwrap();
    let start = |address| space.lookup(address).map(|region| region.range.start);
    assert_eq!(start(HEAP - 1), None);
    assert_eq!(start(HEAP), Some(HEAP));
    assert_eq!(start(HEAP + 2 * PAGE - 1), Some(HEAP));
    assert_eq!(start(HEAP + 2 * PAGE), Some(HEAP + 2 * PAGE));
    assert_eq!(start(HEAP + 3 * PAGE), None);
    assert_eq!(space.remove(HEAP).unwrap().range.len(), 2 * PAGE);
    assert_eq!(space.remove(HEAP), None);
    assert_eq!(space.lookup(HEAP), None);
}

#[test]
fn overlaps_are_refused() {
    let mut space = AddressSpace::new();
    let taken = HEAP + 4 * PAGE..HEAP + 8 * PAGE;
    space.insert(taken.clone(), PageClass::Heap).unwrap();
    for (from, to) in [(3, 5), (4, 8), (5, 6), (7, 9), (0, 20)] {
        let range = HEAP + from * PAGE..HEAP + to * PAGE;
        assert_eq!(space.insert(range, PageClass::Heap), Err(RegionError::Overlap(taken.clone())));
    }
    space.insert(HEAP + 3 * PAGE..HEAP + 4 * PAGE, PageClass::Heap).unwrap();
    space.insert(HEAP + 8 * PAGE..HEAP + 9 * PAGE, PageClass::Heap).unwrap();
}

#[test]
fn senseless_ranges_are_refused() {
    let mut space = AddressSpace::new();
    let mut insert = |range, class| space.insert(range, class).unwrap_err();
    assert_eq!(insert(HEAP..HEAP, PageClass::Heap), RegionError::BadRange);
    assert_eq!(insert(HEAP + 1..HEAP + PAGE, PageClass::Heap), RegionError::BadRange);
    assert_eq!(insert(HEAP..HEAP + PAGE + 1, PageClass::Heap), RegionError::BadRange);
    assert_eq!(insert(0..PAGE, PageClass::Data), RegionError::OutsideZones);
    let stacks = Zone::Stacks.base();
    assert_eq!(insert(stacks - PAGE..stacks + PAGE, PageClass::Heap), RegionError::OutsideZones);
    let error = insert(stacks..stacks + PAGE, PageClass::Heap);
    assert_eq!(error, RegionError::WrongZone(PageClass::Heap, Zone::Stacks));
    assert_eq!(error.to_string(), "the zone \"stacks\" takes no heap");
}

#[test]
fn allocation_is_first_fit_and_leaves_guard_pages() {
    let mut space = AddressSpace::new();
    let base = Zone::Stacks.base();
    let stack = |space: &mut AddressSpace, pages| {
        (space.allocate(Zone::Stacks, pages * PAGE, PageClass::Stack).unwrap() - base) / PAGE
    };
    assert_eq!(stack(&mut space, 4), 1);
    assert_eq!(stack(&mut space, 2), 6);
    assert_eq!(stack(&mut space, 4), 9);
    space.remove(base + 6 * PAGE).unwrap();
    assert_eq!(stack(&mut space, 3), 14, "three pages do not fit where two were");
    assert_eq!(stack(&mut space, 2), 6);
}

#[test]
fn a_full_zone_says_so() {
    let mut space = AddressSpace::new();
    let size = Zone::Stacks.range().len();
    let mut stack = |length| space.allocate(Zone::Stacks, length, PageClass::Stack);
    let no_room = Err(RegionError::NoRoom(Zone::Stacks));
    assert_eq!(stack(size - PAGE), no_room);
    assert_eq!(stack(usize::MAX), no_room);
    assert_eq!(stack(0), Err(RegionError::BadRange));
    assert_eq!(stack(PAGE + 1), Err(RegionError::BadRange));
    assert!(stack(size - 2 * PAGE).is_ok());
    assert_eq!(stack(PAGE), no_room);
}

#[test]
fn random_use_keeps_regions_apart() {
    let mut seed = 9u64;
    let mut random = move |bound: usize| {
        // Knuth's MMIX generator; the upper bits are good.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % bound
    };
    let mut space = AddressSpace::new();
    let mut owned: Vec<Range<usize>> = Vec::new();
    for _ in 0..3000 {
        if random(3) == 0 && !owned.is_empty() {
            let range = owned.swap_remove(random(owned.len()));
            assert_eq!(space.remove(range.start).unwrap().range, range);
        } else {
            let pages = 1 + random(9);
            let start = space.allocate(Zone::Stacks, pages * PAGE, PageClass::Stack).unwrap();
            owned.push(start..start + pages * PAGE);
        }
        let all: Vec<_> = space.regions().map(|region| region.range.clone()).collect();
        assert_eq!(all.len(), owned.len());
        assert!(all.windows(2).all(|pair| pair[0].end + PAGE <= pair[1].start));
        assert!(all.iter().all(|range| Zone::containing(range.start - PAGE) == Some(Zone::Stacks)));
    }
}
