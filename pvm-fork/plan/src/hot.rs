//! Hot pages: pages of the heap that children write as soon as they run, which are cheaper copied by the snapshot than on write.

use crate::wire::EARLY_PAGES;

/// The hot pages of a pVM, learnt from what its children say (`EARLY`): a page is hot that two children in a row have written early. There
/// is room for a few; then the one that became hot first goes, and if that was wrong it comes back in the same way.
#[derive(Clone, Debug)]
pub struct HotPages {
    pages: Few,
    /// Where the next one goes.
    next: usize,
    /// What the last child has said.
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

impl HotPages {
    /// No page is hot.
    pub const NONE: Self = Self { pages: Few::EMPTY, next: 0, last: Few::EMPTY };

    /// Page numbers of the hot pages.
    pub fn pages(&self) -> &[u32] {
        self.pages.all()
    }

    /// Takes in which pages a child has written early, at most [`EARLY_PAGES`]. Calls `change` with each page that becomes hot, which
    /// it may refuse, and with each that is not any more.
    pub fn learn(&mut self, early: &[u32], mut change: impl FnMut(u32, Heat) -> bool) {
        let early = &early[..early.len().min(EARLY_PAGES)];
        for page in early {
            if self.pages().contains(page) || !self.last.all().contains(page) || !change(*page, Heat::Hot) {
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

/// What becomes of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heat {
    /// It is hot from now on.
    Hot,
    /// It is a page like others again.
    Cold,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    /// What was said of pages, applied to a model.
    fn learn(hot: &mut HotPages, model: &mut BTreeSet<u32>, early: &[u32]) {
        hot.learn(early, |page, heat| match heat {
            Heat::Hot => model.insert(page),
            Heat::Cold => model.remove(&page),
        });
        assert_eq!(hot.pages().iter().copied().collect::<BTreeSet<_>>(), *model);
        assert_eq!(hot.pages().len(), model.len(), "none is there twice");
    }

    #[test]
    fn a_page_is_hot_when_two_children_in_a_row_wrote_it() {
        let (mut hot, mut model) = (HotPages::NONE, BTreeSet::new());
        learn(&mut hot, &mut model, &[5, 9]);
        assert_eq!(hot.pages(), []);
        learn(&mut hot, &mut model, &[9, 7]);
        assert_eq!(hot.pages(), [9]);
        learn(&mut hot, &mut model, &[5]);
        learn(&mut hot, &mut model, &[5, 5]);
        assert_eq!(hot.pages(), [9, 5]);
    }

    #[test]
    fn the_oldest_makes_room() {
        let (mut hot, mut model) = (HotPages::NONE, BTreeSet::new());
        let first: Vec<u32> = (0..EARLY_PAGES as u32).collect();
        learn(&mut hot, &mut model, &first);
        learn(&mut hot, &mut model, &first);
        assert_eq!(hot.pages(), first);
        learn(&mut hot, &mut model, &[100, 101]);
        learn(&mut hot, &mut model, &[101, 100]);
        assert_eq!(hot.pages()[..3], [101, 100, 2]);
        // It comes back.
        learn(&mut hot, &mut model, &[0]);
        learn(&mut hot, &mut model, &[0]);
        assert!(hot.pages().contains(&0) && !hot.pages().contains(&2));
    }

    #[test]
    fn a_page_that_cannot_be_is_not_hot() {
        let mut hot = HotPages::NONE;
        hot.learn(&[1, 2], |_, _| true);
        hot.learn(&[1, 2], |page, _| page != 1);
        assert_eq!(hot.pages(), [2]);
    }

    #[test]
    fn a_long_report_is_cut() {
        let (mut hot, mut model) = (HotPages::NONE, BTreeSet::new());
        let long: Vec<u32> = (0..1000).collect();
        learn(&mut hot, &mut model, &long);
        learn(&mut hot, &mut model, &long);
        assert_eq!(hot.pages(), &long[..EARLY_PAGES]);
    }
}
