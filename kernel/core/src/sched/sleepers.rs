//! Deadlines: a binary heap whose entries can be removed by thread slot.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sleeper {
    deadline: u64,
    slot: u32,
}

/// At most one deadline per slot. Only [`Sleepers::try_reserve`] allocates.
#[derive(Debug)]
pub(super) struct Sleepers {
    /// A binary min-heap by deadline: the children of `i` are `2 * i + 1` and `2 * i + 2`.
    heap: Vec<Sleeper>,
    /// The position of each slot's entry in the heap.
    positions: Vec<Option<u32>>,
}

impl Sleepers {
    pub(super) const fn new() -> Self {
        Self { heap: Vec::new(), positions: Vec::new() }
    }

    /// Makes room for the slots below `slots`.
    pub(super) fn try_reserve(&mut self, slots: usize) -> Result<(), TryReserveError> {
        self.heap.try_reserve(slots - self.heap.len())?;
        self.positions.try_reserve(slots - self.positions.len())?;
        self.positions.resize(slots, None);
        Ok(())
    }

    /// The earliest deadline of all.
    pub(super) fn earliest(&self) -> Option<u64> {
        self.heap.first().map(|sleeper| sleeper.deadline)
    }

    /// Adds a slot that is not in the heap.
    pub(super) fn insert(&mut self, slot: u32, deadline: u64) {
        debug_assert!(self.positions[slot as usize].is_none(), "slot {slot} sleeps already");
        self.heap.push(Sleeper { deadline, slot });
        self.rise(self.heap.len() - 1);
    }

    /// Removes the slot's deadline, if it has one.
    pub(super) fn remove(&mut self, slot: u32) {
        if let Some(position) = self.positions[slot as usize] {
            self.remove_at(position as usize);
        }
    }

    /// Removes all deadlines.
    pub(super) fn clear(&mut self) {
        self.heap.clear();
        self.positions.fill(None);
    }

    /// Removes the earliest sleeper whose deadline is `now` or before and returns its slot.
    pub(super) fn pop_due(&mut self, now: u64) -> Option<u32> {
        let first = *self.heap.first().filter(|sleeper| sleeper.deadline <= now)?;
        self.remove_at(0);
        Some(first.slot)
    }

    fn remove_at(&mut self, position: usize) {
        let removed = self.heap.swap_remove(position);
        self.positions[removed.slot as usize] = None;
        if position < self.heap.len() {
            // The last entry moved here; it may belong further up or further down.
            let position = self.rise(position);
            self.sink(position);
        }
    }

    /// Moves the entry up until its parent is not later. Returns where it ends.
    fn rise(&mut self, mut position: usize) -> usize {
        while position > 0 {
            let parent = (position - 1) / 2;
            if self.heap[parent].deadline <= self.heap[position].deadline {
                break;
            }
            self.swap(parent, position);
            position = parent;
        }
        self.note(position);
        position
    }

    /// Moves the entry down until no child is earlier.
    fn sink(&mut self, mut position: usize) {
        loop {
            let left = 2 * position + 1;
            let Some(child) = (left..self.heap.len().min(left + 2)).min_by_key(|&c| self.heap[c].deadline) else {
                break;
            };
            if self.heap[position].deadline <= self.heap[child].deadline {
                break;
            }
            self.swap(position, child);
            position = child;
        }
        self.note(position);
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.note(a);
        self.note(b);
    }

    fn note(&mut self, position: usize) {
        let slot = self.heap[position].slot;
        self.positions[slot as usize] = Some(position as u32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn behaves_like_a_sorted_list() {
        const SLOTS: u32 = 40;
        let mut random = Random::new(5);
        let mut sleepers = Sleepers::new();
        sleepers.try_reserve(SLOTS as usize).unwrap();
        let mut model: Vec<Sleeper> = Vec::new();
        for _ in 0..20_000 {
            let slot = random.below(SLOTS.into()) as u32;
            match random.below(4) {
                0 | 1 if !model.iter().any(|s| s.slot == slot) => {
                    let deadline = random.below(100);
                    sleepers.insert(slot, deadline);
                    model.push(Sleeper { deadline, slot });
                }
                2 => {
                    sleepers.remove(slot);
                    model.retain(|s| s.slot != slot);
                }
                _ => {
                    let now = random.below(30);
                    let earliest = model.iter().map(|s| s.deadline).min();
                    match sleepers.pop_due(now) {
                        Some(slot) => {
                            let at = model.iter().position(|s| s.slot == slot).unwrap();
                            assert_eq!(Some(model.swap_remove(at).deadline), earliest);
                            assert!(earliest.unwrap() <= now);
                        }
                        None => assert!(earliest.is_none_or(|e| e > now)),
                    }
                }
            }
            assert_eq!(sleepers.earliest(), model.iter().map(|s| s.deadline).min());
        }
    }
}
