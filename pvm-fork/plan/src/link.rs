//! The rule of a fork for one entry of the parent's tables of level 1, and the changes of a table
//! since it was last looked at.

use alloc::boxed::Box;

use xen_abi::pte::{PTES_PER_TABLE, Pte, PteFlags};
use zooid_memory::ForkRule;

/// The entries of a page table.
pub type Entries = [u64; PTES_PER_TABLE];

/// The parts of a parent's entry that matter to its children. Not among them: the right to write,
/// which copy-on-write gives and takes; accessed and dirty; and what Xen adds.
const COMPARED: u64 =
    Pte::new(xen_abi::Mfn(u64::MAX), ForkRule::MASK.union(PteFlags::PRESENT).union(PteFlags::NO_EXECUTE)).0;
/// The first bit of an owner in a [`Shadow`]'s entry: bits that are neither compared nor part of a
/// frame's number.
const OWNER_SHIFT: u32 = 52;
/// The bits of an owner, when they are shifted down.
const OWNER_MASK: u64 = 0x7ff;
/// The number of entries that are compared at once, before single ones are.
const AT_ONCE: usize = 16;

/// The way in which a child gets its parent's pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// By entries that name the parent's frames.
    Foreign,
    /// By copies of pages that the parent has granted.
    Grant,
}

/// The owner of a frame among a family's domains: a place in the list of a pVM's ancestors, the
/// root's first, its own last. It has 11 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(pub u16);

impl Owner {
    /// The family's memory owner, to which the frames of all joint pages belong, and no others.
    pub const MEMORY_OWNER: Self = Self(0x7ff);
    /// The host's memory owner of libraries.
    pub const LIBRARIES: Self = Self(0x7fe);
    /// Most ancestors in a list, the pVM itself among them.
    pub const MOST: usize = 0x7fe;
}

/// The child's page at the address of a parent's page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// No page that depends on the parent's.
    Nothing,
    /// The parent's frame, by this entry, which is read-only.
    Linked(Pte),
    /// The memory owner's frame, by this entry.
    Joint(Pte),
    /// A frame of the host's libraries, by this entry, which is read-only.
    Library(Pte),
    /// A frame of its own, mapped with these flags.
    Private(PteFlags),
}

impl Page {
    /// The child's page where the parent has `entry`.
    pub fn of(entry: Pte, backend: Backend) -> Self {
        let flags = entry.flags();
        if !flags.contains(PteFlags::PRESENT) {
            return Self::Nothing;
        }
        let kept = flags.intersection(PteFlags::PRESENT.union(ForkRule::MASK).union(PteFlags::NO_EXECUTE));
        // Accessed and dirty are set from the start, so that the processor need not.
        let read_only = kept.union(PteFlags::ACCESSED);
        let read_write = read_only.union(PteFlags::WRITABLE).union(PteFlags::DIRTY);
        match (ForkRule::of(flags), backend) {
            (ForkRule::Special, _) => Self::Nothing,
            (ForkRule::Shared | ForkRule::CopyOnWrite, Backend::Foreign) => {
                Self::Linked(Pte::new(entry.mfn(), read_only))
            }
            (ForkRule::Shared, Backend::Grant) => Self::Private(read_only),
            (ForkRule::CopyOnWrite, Backend::Grant) => Self::Private(read_write),
            (ForkRule::Joint, _) if flags.contains(PteFlags::WRITABLE) => {
                Self::Joint(Pte::new(entry.mfn(), read_write))
            }
            (ForkRule::Joint, _) => Self::Joint(Pte::new(entry.mfn(), read_only)),
            (ForkRule::Library, _) => Self::Library(Pte::new(entry.mfn(), read_only)),
            (ForkRule::Private, _) if flags.contains(PteFlags::WRITABLE) => Self::Private(read_write),
            (ForkRule::Private, _) => Self::Private(read_only),
        }
    }
}

/// The time at which pvmd copies a page for a child, with the backend that copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// The page is not shared, or it comes by the snapshot.
    Never,
    /// At the preparation of a domain: nobody writes the page.
    Once,
    /// At the COMMIT that makes a domain a child.
    AtCommit,
}

impl Copied {
    /// The time at which the page of the parent's `entry` is copied.
    pub fn of(entry: Pte) -> Self {
        let flags = entry.flags();
        match ForkRule::of(flags) {
            _ if !flags.contains(PteFlags::PRESENT) => Self::Never,
            ForkRule::Shared if !flags.contains(PteFlags::WRITABLE) => Self::Once,
            ForkRule::Shared | ForkRule::CopyOnWrite => Self::AtCommit,
            ForkRule::Private | ForkRule::Joint | ForkRule::Library | ForkRule::Special => Self::Never,
        }
    }
}

/// A change at one address of a child, which brings it up to date with the parent's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Number of the entry in its table.
    pub index: u16,
    /// The child's page before the change.
    pub before: Page,
    /// The child's page after the change.
    pub after: Page,
}

/// A table of level 1 of a parent, as a child is linked to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadow {
    entries: Box<Entries>,
    backend: Backend,
}

impl Shadow {
    /// The shadow of a table that a child is not linked to at all.
    pub fn empty(backend: Backend) -> Self {
        Self { entries: Box::new([0; PTES_PER_TABLE]), backend }
    }

    /// Calls `found` for each entry of `now` for which the child's page has to change, in order,
    /// until it returns an error.
    ///
    /// # Errors
    /// The errors of `found`.
    pub fn compare<E>(&self, now: &Entries, mut found: impl FnMut(Change) -> Result<(), E>) -> Result<(), E> {
        for (chunk, (old, new)) in self.entries.chunks_exact(AT_ONCE).zip(now.chunks_exact(AT_ONCE)).enumerate() {
            let different = old.iter().zip(new).fold(0, |all, (old, new)| all | (old ^ new));
            if different & COMPARED == 0 {
                continue;
            }
            for (place, (old, new)) in old.iter().zip(new).enumerate() {
                let (before, after) = (Page::of(Pte(*old), self.backend), Page::of(Pte(*new), self.backend));
                if before != after {
                    found(Change { index: (chunk * AT_ONCE + place) as u16, before, after })?;
                }
            }
        }
        Ok(())
    }

    /// Notes that the child's page at `index` is now the one for the parent's `entry`, and
    /// the owner of the frame that it names.
    pub fn set(&mut self, index: u16, entry: Pte, owner: Owner) {
        let kept = match Page::of(entry, self.backend) {
            Page::Nothing => 0,
            Page::Linked(entry) | Page::Joint(entry) | Page::Library(entry) => entry.0,
            Page::Private(flags) => Pte::new(entry.mfn(), flags).0,
        };
        self.entries[usize::from(index)] = kept | u64::from(owner.0) << OWNER_SHIFT;
    }

    /// The owner of the frame that `entry` names, at `index` of a table of the domain that this is
    /// the shadow of; `None` if that is not the frame that the domain was linked to.
    pub fn owner(&self, index: u16, entry: Pte) -> Option<Owner> {
        let kept = self.entries[usize::from(index)];
        match Page::of(Pte(kept), self.backend) {
            Page::Linked(linked) if linked.mfn() == entry.mfn() => {
                Some(Owner((kept >> OWNER_SHIFT & OWNER_MASK) as u16))
            }
            _ => None,
        }
    }

    /// The number of entries that name frames of others.
    pub fn linked(&self) -> usize {
        let is_linked = |entry: &&u64| {
            matches!(Page::of(Pte(**entry), self.backend), Page::Linked(_) | Page::Joint(_) | Page::Library(_))
        };
        self.entries.iter().filter(is_linked).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;
    use xen_abi::Mfn;
    use zooid_memory::{PageClass, Protection};

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
            match Page::of(entry(class, 7), Backend::Foreign) {
                Page::Nothing => {
                    assert!(matches!(class, PageClass::PageTable | PageClass::Device | PageClass::Special))
                }
                Page::Private(flags) => assert_eq!(flags, class.pte_flags()),
                Page::Joint(joint) => {
                    assert_eq!((class, joint), (PageClass::Joint, entry(class, 7)), "the one that is meant to be");
                }
                Page::Library(_) => panic!("no class is mapped so: {class}"),
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
    fn a_library_is_linked_with_its_rights_and_never_to_be_written() {
        for protection in [Protection::ReadOnly, Protection::ReadExecute, Protection::ReadWrite] {
            let entry = Pte::new(Mfn(7), protection.pte_flags() | ForkRule::Library.pte_flags());
            for backend in [Backend::Foreign, Backend::Grant] {
                let Page::Library(linked) = Page::of(entry, backend) else { panic!("{entry:?}") };
                let expected = entry.flags() & !(PteFlags::WRITABLE | PteFlags::DIRTY);
                assert_eq!((linked.mfn(), linked.flags()), (Mfn(7), expected));
            }
            assert_eq!(Copied::of(entry), Copied::Never);
        }
    }

    #[test]
    fn bits_that_no_entry_of_a_child_may_have_are_dropped() {
        let dropped = PteFlags::AVAILABLE_1 | PteFlags::AVAILABLE_2;
        let linked = Page::of(Pte(!dropped.bits()), Backend::Foreign);
        let Page::Linked(linked) = linked else { panic!("{linked:?}") };
        let allowed = PteFlags::PRESENT | PteFlags::ACCESSED | PteFlags::AVAILABLE_0 | PteFlags::NO_EXECUTE;
        assert_eq!(linked.flags(), allowed);
    }

    #[test]
    fn a_change_is_found_wherever_it_is() {
        for index in 0..512 {
            let mut now = [0; 512];
            now[index] = entry(PageClass::Heap, 9).0;
            let mut shadow = Shadow::empty(Backend::Foreign);
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
        let mut shadow = Shadow::empty(Backend::Foreign);
        shadow.set(3, linked, Owner(2));
        shadow.set(4, entry(PageClass::Stack, 10), Owner(0));
        let mut now = [0; 512];
        let without_write = linked.0 & !(PteFlags::WRITABLE | PteFlags::DIRTY | PteFlags::ACCESSED).bits();
        now[3] = without_write | PteFlags::USER.bits() | PteFlags::GLOBAL.bits() | 1 << 52;
        // A private page in another frame of the parent's is a private page; a ring is none of the
        // child's business.
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
        let mut shadow = Shadow::empty(Backend::Foreign);
        shadow.set(0, entry(PageClass::Heap, 9), Owner(3));
        assert_eq!(shadow.owner(0, entry(PageClass::Heap, 9)), Some(Owner(3)));
        assert_eq!(shadow.owner(0, entry(PageClass::Heap, 10)), None);
        assert_eq!(shadow.owner(1, entry(PageClass::Heap, 9)), None);
        assert_eq!(shadow.linked(), 1);
    }

    #[test]
    fn a_child_that_gets_copies_has_frames_of_its_own() {
        for class in PageClass::ALL {
            let linked = matches!(Page::of(entry(class, 7), Backend::Foreign), Page::Linked(_));
            assert_eq!(linked, Copied::of(entry(class, 7)) != Copied::Never, "{class}");
            if let Page::Private(flags) = Page::of(entry(class, 7), Backend::Grant) {
                let writable =
                    matches!(class, PageClass::Data | PageClass::LibraryData | PageClass::Heap | PageClass::Stack);
                assert_eq!(flags.contains(PteFlags::WRITABLE), writable, "{class}");
            }
        }
        assert_eq!(Copied::of(entry(PageClass::Text, 1)), Copied::Once);
        assert_eq!(Copied::of(entry(PageClass::Snapshot, 1)), Copied::AtCommit);
        assert_eq!(Copied::of(Pte(entry(PageClass::Heap, 1).0 & !PteFlags::WRITABLE.bits())), Copied::AtCommit);

        let mut shadow = Shadow::empty(Backend::Grant);
        shadow.set(0, entry(PageClass::Heap, 1), Owner(0));
        let mut now = [0; 512];
        now[0] = entry(PageClass::Heap, 2).0;
        assert_eq!(changes(&shadow, &now), [], "another frame is the same page");
        now[1] = entry(PageClass::Heap, 3).0;
        assert_eq!(changes(&shadow, &now).len(), 1, "but a page that came is a change");
    }
}
