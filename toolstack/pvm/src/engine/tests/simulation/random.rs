//! A source of numbers: the same seed gives the same numbers.

/// A generator (Vigna's splitmix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True `times` times in `all`.
    pub fn chance(&mut self, times: u64, all: u64) -> bool {
        self.below(all) < times
    }

    /// One of them; none if there is none.
    pub fn pick<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        (!all.is_empty()).then(|| all[self.below(all.len() as u64) as usize].clone())
    }

    /// One of them, each as often as its weight says.
    pub fn weighed<T: Copy>(&mut self, all: &[(u64, T)]) -> T {
        let mut number = self.below(all.iter().map(|(weight, _)| weight).sum());
        for (weight, choice) in all {
            match number.checked_sub(*weight) {
                Some(rest) => number = rest,
                None => return *choice,
            }
        }
        unreachable!("the number is below the sum")
    }

    /// A number for a hostile guest's writes: mostly small.
    pub fn nonsense(&mut self) -> u32 {
        let number = self.next() as u32;
        [number, number % 4, number % 70, u32::MAX - number % 3][self.below(4) as usize]
    }
}
