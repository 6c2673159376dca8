//! What a fork does with one entry of the parent's tables of level 1, and what has changed since a table was last looked at.

use alloc::boxed::Box;

use xen_abi::pte::{PTES_PER_TABLE, Pte, PteFlags};
use zooid_memory::ForkRule;

/// The entries of a page table.
pub type Entries = [u64; PTES_PER_TABLE];

/// The parts of a parent's entry that matter to its children. Not among them: the right to write, which copy-on-write gives and
/// takes; accessed and dirty; and what Xen adds.
const COMPARED: u64 = Pte::new(xen_abi::Mfn(u64::MAX), RULE.union(PteFlags::PRESENT).union(PteFlags::NO_EXECUTE)).0;
const RULE: PteFlags = PteFlags::AVAILABLE_0.union(PteFlags::AVAILABLE_1);
/// Where a [`Shadow`] keeps an owner: bits that are neither compared nor part of a frame's number.
const OWNER_SHIFT: u32 = 52;
const OWNER_MASK: u64 = 0xff << OWNER_SHIFT;
/// Entries that are compared before it is looked at any closer.
const AT_ONCE: usize = 16;

/// Which of a family's domains owns a frame: a place in the list of a pVM's ancestors, the root's first, its own last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(pub u8);

/// What a child has at the address of a parent's page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// Nothing that has to do with the parent's.
    Nothing,
    /// The parent's frame, by this entry, which is read-only.
    Linked(Pte),
    /// A frame of its own, mapped with these flags.
    Private(PteFlags),
}

impl Page {
    /// What a child has where the parent has `entry`.
    pub fn of(entry: Pte) -> Self {
        let flags = entry.flags();
        if !flags.contains(PteFlags::PRESENT) {
            return Self::Nothing;
        }
        let kept = flags.intersection(PteFlags::PRESENT.union(RULE).union(PteFlags::NO_EXECUTE));
        // Accessed and dirty are set from the start, so that the processor need not.
        let read_only = kept.union(PteFlags::ACCESSED);
        match ForkRule::of(flags) {
            ForkRule::Special => Self::Nothing,
            ForkRule::Shared | ForkRule::CopyOnWrite => Self::Linked(Pte::new(entry.mfn(), read_only)),
            ForkRule::Private if flags.contains(PteFlags::WRITABLE) => {
                Self::Private(read_only.union(PteFlags::WRITABLE).union(PteFlags::DIRTY))
            }
            ForkRule::Private => Self::Private(read_only),
        }
    }
}

/// A change at one address of a child, to make it what the parent's tables say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Number of the entry in its table.
    pub index: u16,
    /// What the child has there.
    pub before: Page,
    /// What it is to have.
    pub after: Page,
}

/// A table of level 1 of a parent, as a child is linked to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadow(Box<Entries>);

impl Shadow {
    /// That of a table that a child is not linked to at all.
    pub fn empty() -> Self {
        Self(Box::new([0; PTES_PER_TABLE]))
    }

    /// Calls `found` for each entry of `now` for which the child is to have something else than it has, in order, until that
    /// returns an error.
    ///
    /// # Errors
    /// Those of `found`.
    pub fn compare<E>(&self, now: &Entries, mut found: impl FnMut(Change) -> Result<(), E>) -> Result<(), E> {
        for (chunk, (old, new)) in self.0.chunks_exact(AT_ONCE).zip(now.chunks_exact(AT_ONCE)).enumerate() {
            let different = old.iter().zip(new).fold(0, |all, (old, new)| all | (old ^ new));
            if different & COMPARED == 0 {
                continue;
            }
            for (place, (old, new)) in old.iter().zip(new).enumerate() {
                let (before, after) = (Page::of(Pte(*old)), Page::of(Pte(*new)));
                if before != after {
                    found(Change { index: (chunk * AT_ONCE + place) as u16, before, after })?;
                }
            }
        }
        Ok(())
    }

    /// Notes that the child now has at `index` what is to be had for the parent's `entry`, and whose frame that names.
    pub fn set(&mut self, index: u16, entry: Pte, owner: Owner) {
        let kept = match Page::of(entry) {
            Page::Nothing => 0,
            Page::Linked(linked) => linked.0,
            Page::Private(flags) => Pte::new(entry.mfn(), flags).0,
        };
        self.0[usize::from(index)] = kept | u64::from(owner.0) << OWNER_SHIFT;
    }

    /// Whose the frame is that `entry`, at `index` of a table of the domain that this is the shadow of, names: the one that it was
    /// linked to, if it names the same frame still, else that domain's own, `own`.
    pub fn owner(&self, index: u16, entry: Pte, own: Owner) -> Owner {
        let kept = self.0[usize::from(index)];
        match Page::of(Pte(kept & !OWNER_MASK)) {
            Page::Linked(linked) if linked.mfn() == entry.mfn() => Owner((kept >> OWNER_SHIFT) as u8),
            _ => own,
        }
    }

    /// How many entries name frames of others.
    pub fn linked(&self) -> usize {
        self.0.iter().filter(|entry| matches!(Page::of(Pte(**entry & !OWNER_MASK)), Page::Linked(_))).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;
    use xen_abi::Mfn;
    use zooid_memory::PageClass;

    fn changes(shadow: &Shadow, now: &Entries) -> Vec<Change> {
        let mut list = Vec::new();
        shadow
            .compare(now, |change| -> Result<(), ()> {
                list.push(change);
                Ok(())
            })
            .unwrap();
        list
    }

    fn entry(class: PageClass, frame: u64) -> Pte {
        Pte::new(Mfn(frame), class.pte_flags())
    }

    #[test]
    fn nothing_that_is_linked_can_be_written() {
        for class in PageClass::ALL {
            match Page::of(entry(class, 7)) {
                Page::Nothing => {
                    assert!(matches!(class, PageClass::PageTable | PageClass::Device | PageClass::Special))
                }
                Page::Private(flags) => assert_eq!(flags, class.pte_flags()),
                Page::Linked(linked) => {
                    assert_eq!(linked.mfn(), Mfn(7));
                    assert!(!linked.flags().intersects(PteFlags::WRITABLE | PteFlags::DIRTY));
                    let executable = !linked.flags().contains(PteFlags::NO_EXECUTE);
                    assert_eq!(executable, class == PageClass::Text);
                }
            }
        }
    }

    #[test]
    fn bits_that_no_entry_of_a_child_may_have_are_dropped() {
        let linked = Page::of(Pte(!PteFlags::AVAILABLE_1.bits()));
        let Page::Linked(linked) = linked else { panic!("{linked:?}") };
        let allowed = PteFlags::PRESENT | PteFlags::ACCESSED | PteFlags::AVAILABLE_0 | PteFlags::NO_EXECUTE;
        assert_eq!(linked.flags(), allowed);
    }

    #[test]
    fn a_change_is_found_wherever_it_is() {
        for index in 0..512 {
            let mut now = [0; 512];
            now[index] = entry(PageClass::Heap, 9).0;
            let mut shadow = Shadow::empty();
            let list = changes(&shadow, &now);
            assert_eq!(list.len(), 1);
            assert_eq!((usize::from(list[0].index), list[0].before), (index, Page::Nothing));
            shadow.set(list[0].index, Pte(now[index]), Owner(255));
            assert_eq!(changes(&shadow, &now), []);
            assert_eq!(changes(&shadow, &[0; 512]).len(), 1, "it goes away again");
        }
    }

    #[test]
    fn what_does_not_matter_to_a_child_is_no_change() {
        let linked = entry(PageClass::Heap, 9);
        let mut shadow = Shadow::empty();
        shadow.set(3, linked, Owner(2));
        shadow.set(4, entry(PageClass::Stack, 10), Owner(0));
        let mut now = [0; 512];
        let without_write = linked.0 & !(PteFlags::WRITABLE | PteFlags::DIRTY | PteFlags::ACCESSED).bits();
        now[3] = without_write | PteFlags::USER.bits() | PteFlags::GLOBAL.bits() | 1 << 52;
        // A private page in another frame of the parent's is a private page; a ring is none of the child's business.
        now[4] = entry(PageClass::Stack, 11).0;
        now[5] = entry(PageClass::Device, 12).0;
        assert_eq!(changes(&shadow, &now), []);
        // Another frame, another rule: each is a change.
        now[3] = entry(PageClass::Heap, 10).0;
        now[4] = entry(PageClass::RoData, 10).0;
        assert_eq!(changes(&shadow, &now).iter().map(|change| change.index).collect::<Vec<_>>(), [3, 4]);
    }

    #[test]
    fn an_owner_is_known_as_long_as_the_frame_is_the_same() {
        let mut shadow = Shadow::empty();
        shadow.set(0, entry(PageClass::Heap, 9), Owner(3));
        assert_eq!(shadow.owner(0, entry(PageClass::Heap, 9), Owner(5)), Owner(3));
        assert_eq!(shadow.owner(0, entry(PageClass::Heap, 10), Owner(5)), Owner(5));
        assert_eq!(shadow.owner(1, entry(PageClass::Heap, 9), Owner(5)), Owner(5));
        assert_eq!(shadow.linked(), 1);
    }
}
