//! Eager pages: pages of the heap that children write as soon as they run, which are cheaper copied
//! by the snapshot than on write.

use crate::wire::EARLY_PAGES;

/// The eager pages of a pVM, learnt from the reports of its children (`EARLY`): a page is eager if
/// two children in a row have written it early. There is room for a few. When it is full, the page
/// that became eager first goes; if that was wrong, it comes back in the same way.
#[derive(Clone, Debug)]
pub struct EagerPages {
    pages: Few,
    /// The place of the next eager page.
    next: usize,
    /// The pages that the last child has reported.
    last: Few,
}

/// A few page numbers, without the heap.
#[derive(Clone, Debug)]
struct Few {
    numbers: [u32; EARLY_PAGES],
    count: usize,
}

impl Few {
    const EMPTY: Self = Self { numbers: [0; EARLY_PAGES], count: 0 };

    fn all(&self) -> &[u32] {
        &self.numbers[..self.count]
    }
}

impl EagerPages {
    /// No page is eager.
    pub const NONE: Self = Self { pages: Few::EMPTY, next: 0, last: Few::EMPTY };

    /// Page numbers of the eager pages.
    pub fn pages(&self) -> &[u32] {
        self.pages.all()
    }

    /// Takes in the pages that a child has written early, at most [`EARLY_PAGES`]. Calls `change`
    /// with each page that becomes eager, which it may refuse, and with each that is no longer
    /// eager.
    pub fn learn(&mut self, early: &[u32], mut change: impl FnMut(u32, Heat) -> bool) {
        let early = &early[..early.len().min(EARLY_PAGES)];
        for page in early {
            if self.pages().contains(page) || !self.last.all().contains(page) || !change(*page, Heat::Eager) {
                continue;
            }
            if self.pages.count < EARLY_PAGES {
                self.pages.count += 1;
            } else {
                change(self.pages.numbers[self.next], Heat::Cold);
            }
            self.pages.numbers[self.next] = *page;
            self.next = (self.next + 1) % EARLY_PAGES;
        }
        self.last.numbers[..early.len()].copy_from_slice(early);
        self.last.count = early.len();
    }
}

/// The change of a page's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heat {
    /// It is eager from now on.
    Eager,
    /// It is a page like others again.
    Cold,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    /// Applies reports of pages to a model.
    fn learn(eager: &mut EagerPages, model: &mut BTreeSet<u32>, early: &[u32]) {
        eager.learn(early, |page, heat| match heat {
            Heat::Eager => model.insert(page),
            Heat::Cold => model.remove(&page),
        });
        assert_eq!(eager.pages().iter().copied().collect::<BTreeSet<_>>(), *model);
        assert_eq!(eager.pages().len(), model.len(), "none is there twice");
    }

    #[test]
    fn a_page_is_eager_when_two_children_in_a_row_wrote_it() {
        let (mut eager, mut model) = (EagerPages::NONE, BTreeSet::new());
        learn(&mut eager, &mut model, &[5, 9]);
        assert_eq!(eager.pages(), []);
        learn(&mut eager, &mut model, &[9, 7]);
        assert_eq!(eager.pages(), [9]);
        learn(&mut eager, &mut model, &[5]);
        learn(&mut eager, &mut model, &[5, 5]);
        assert_eq!(eager.pages(), [9, 5]);
    }

    #[test]
    fn the_oldest_makes_room() {
        let (mut eager, mut model) = (EagerPages::NONE, BTreeSet::new());
        let first: Vec<u32> = (0..EARLY_PAGES as u32).collect();
        learn(&mut eager, &mut model, &first);
        learn(&mut eager, &mut model, &first);
        assert_eq!(eager.pages(), first);
        learn(&mut eager, &mut model, &[100, 101]);
        learn(&mut eager, &mut model, &[101, 100]);
        assert_eq!(eager.pages()[..3], [101, 100, 2]);
        // It comes back.
        learn(&mut eager, &mut model, &[0]);
        learn(&mut eager, &mut model, &[0]);
        assert!(eager.pages().contains(&0) && !eager.pages().contains(&2));
    }

    #[test]
    fn a_page_that_cannot_be_is_not_eager() {
        let mut eager = EagerPages::NONE;
        eager.learn(&[1, 2], |_, _| true);
        eager.learn(&[1, 2], |page, _| page != 1);
        assert_eq!(eager.pages(), [2]);
    }

    #[test]
    fn a_long_report_is_cut() {
        let (mut eager, mut model) = (EagerPages::NONE, BTreeSet::new());
        let long: Vec<u32> = (0..1000).collect();
        learn(&mut eager, &mut model, &long);
        learn(&mut eager, &mut model, &long);
        assert_eq!(eager.pages(), &long[..EARLY_PAGES]);
    }
}
