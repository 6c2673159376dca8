use super::*;
use std::string::ToString;
use std::vec::Vec;

const HEAP: usize = Zone::Heap.base();
const PAGE: usize = PAGE_SIZE;

#[test]
fn regions_are_found_by_any_address_inside() {
    let mut space = AddressSpace::new();
    space
        .insert(HEAP..HEAP + 2 * PAGE, PageClass::Heap, 1)
        .unwrap();
    space
        .insert(HEAP + 2 * PAGE..HEAP + 3 * PAGE, PageClass::Heap, 2)
        .unwrap();
    let tag = |address| space.lookup(address).map(|region| region.tag);
    assert_eq!(tag(HEAP - 1), None);
    assert_eq!(tag(HEAP), Some(1));
    assert_eq!(tag(HEAP + 2 * PAGE - 1), Some(1));
    assert_eq!(tag(HEAP + 2 * PAGE), Some(2));
    assert_eq!(tag(HEAP + 3 * PAGE), None);
    assert_eq!(space.remove(HEAP).unwrap().tag, 1);
    assert_eq!(space.remove(HEAP), None);
    assert_eq!(space.lookup(HEAP), None);
}

#[test]
fn overlaps_are_refused() {
    let mut space = AddressSpace::new();
    let taken = HEAP + 4 * PAGE..HEAP + 8 * PAGE;
    space.insert(taken.clone(), PageClass::Heap, 0).unwrap();
    for (from, to) in [(3, 5), (4, 8), (5, 6), (7, 9), (0, 20)] {
        let range = HEAP + from * PAGE..HEAP + to * PAGE;
        assert_eq!(
            space.insert(range, PageClass::Heap, 0),
            Err(RegionError::Overlap(taken.clone()))
        );
    }
    space
        .insert(HEAP + 3 * PAGE..HEAP + 4 * PAGE, PageClass::Heap, 0)
        .unwrap();
    space
        .insert(HEAP + 8 * PAGE..HEAP + 9 * PAGE, PageClass::Heap, 0)
        .unwrap();
}

#[test]
fn senseless_ranges_are_refused() {
    let mut space = AddressSpace::new();
    let mut insert = |range, class| space.insert(range, class, 0).unwrap_err();
    assert_eq!(insert(HEAP..HEAP, PageClass::Heap), RegionError::BadRange);
    assert_eq!(
        insert(HEAP + 1..HEAP + PAGE, PageClass::Heap),
        RegionError::BadRange
    );
    assert_eq!(
        insert(HEAP..HEAP + PAGE + 1, PageClass::Heap),
        RegionError::BadRange
    );
    assert_eq!(insert(0..PAGE, PageClass::Data), RegionError::OutsideZones);
    let stacks = Zone::Stacks.base();
    assert_eq!(
        insert(stacks - PAGE..stacks + PAGE, PageClass::Heap),
        RegionError::OutsideZones
    );
    let error = insert(stacks..stacks + PAGE, PageClass::Heap);
    assert_eq!(error, RegionError::WrongZone(PageClass::Heap, Zone::Stacks));
    assert_eq!(error.to_string(), "the zone \"stacks\" takes no heap");
}

#[test]
fn allocation_is_first_fit_and_leaves_guard_pages() {
    let mut space = AddressSpace::new();
    let base = Zone::Stacks.base();
    let mut stack = |pages| {
        space
            .allocate(Zone::Stacks, pages, PageClass::Stack, 0)
            .unwrap()
    };
    let (a, b, c) = (stack(4), stack(2), stack(4));
    assert_eq!(a, base + PAGE..base + 5 * PAGE);
    assert_eq!(b, base + 6 * PAGE..base + 8 * PAGE);
    assert_eq!(c, base + 9 * PAGE..base + 13 * PAGE);
    space.remove(b.start);
    let mut stack = |pages| {
        space
            .allocate(Zone::Stacks, pages, PageClass::Stack, 0)
            .unwrap()
    };
    assert_eq!(
        stack(3).start,
        c.end + PAGE,
        "three pages do not fit between a and c"
    );
    assert_eq!(stack(2), b);
}

#[test]
fn a_full_zone_says_so() {
    let mut space = AddressSpace::new();
    let pages = Zone::Stacks.range().len() / PAGE;
    let no_room = Err(RegionError::NoRoom(Zone::Stacks));
    assert_eq!(
        space.allocate(Zone::Stacks, pages - 1, PageClass::Stack, 0),
        no_room
    );
    assert_eq!(
        space.allocate(Zone::Stacks, usize::MAX, PageClass::Stack, 0),
        no_room
    );
    assert_eq!(
        space.allocate(Zone::Stacks, 0, PageClass::Stack, 0),
        Err(RegionError::BadRange)
    );
    assert!(
        space
            .allocate(Zone::Stacks, pages - 2, PageClass::Stack, 0)
            .is_ok()
    );
    assert_eq!(
        space.allocate(Zone::Stacks, 1, PageClass::Stack, 0),
        no_room
    );
}

#[test]
fn a_region_grows_up_to_its_neighbour() {
    let mut space = AddressSpace::new();
    space.insert(HEAP..HEAP + PAGE, PageClass::Heap, 0).unwrap();
    let neighbour = HEAP + 5 * PAGE..HEAP + 6 * PAGE;
    space.insert(neighbour.clone(), PageClass::Heap, 0).unwrap();
    assert_eq!(
        space.extend(HEAP, HEAP + 6 * PAGE),
        Err(RegionError::Overlap(neighbour))
    );
    space.extend(HEAP, HEAP + 5 * PAGE).unwrap();
    assert_eq!(
        space.lookup(HEAP + 5 * PAGE - 1).unwrap().range,
        HEAP..HEAP + 5 * PAGE
    );
    assert_eq!(
        space.extend(HEAP, HEAP + 5 * PAGE),
        Err(RegionError::BadRange)
    );
    assert_eq!(
        space.extend(HEAP + PAGE, HEAP + 9 * PAGE),
        Err(RegionError::BadRange)
    );
    let end = Zone::Heap.end();
    assert_eq!(
        space.extend(HEAP + 5 * PAGE, end + PAGE),
        Err(RegionError::OutsideZones)
    );
    space.extend(HEAP + 5 * PAGE, end).unwrap();
}

#[test]
fn random_use_keeps_regions_apart() {
    let mut seed = 9u64;
    let mut random = move |bound: usize| {
        // Knuth's MMIX generator; the upper bits are good.
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
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
            let range = space
                .allocate(Zone::Stacks, pages, PageClass::Stack, 0)
                .unwrap();
            assert_eq!(range.len(), pages * PAGE);
            owned.push(range);
        }
        let all: Vec<_> = space.regions().map(|region| region.range.clone()).collect();
        assert_eq!(all.len(), owned.len());
        assert!(
            all.windows(2)
                .all(|pair| pair[0].end + PAGE <= pair[1].start)
        );
        assert!(
            all.iter()
                .all(|range| Zone::containing(range.start - PAGE) == Some(Zone::Stacks))
        );
    }
}
