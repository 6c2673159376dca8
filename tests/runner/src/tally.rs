//! The count of tests.

use std::fmt;
use std::ops::AddAssign;
use std::time::Duration;

/// The number of tests, and of those that have passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub registered: usize,
    pub passed: usize,
    pub failed: usize,
}

impl Tally {
    /// None of `registered` tests has run yet.
    pub fn registered(registered: usize) -> Self {
        Tally { registered, ..Tally::default() }
    }

    /// Counts a test, which has passed when there is no fault; what is to be said of it.
    pub fn finish(&mut self, name: &str, took: Duration, faults: &[String]) -> String {
        let seconds = took.as_secs_f64();
        if faults.is_empty() {
            self.passed += 1;
            return format!("test {name} ... ok ({seconds:.1} s)\n");
        }
        self.failed += 1;
        let mut said = format!("test {name} ... FAILED ({seconds:.1} s)\n");
        faults.iter().for_each(|fault| said += &format!("    {fault}\n"));
        said
    }

    /// Every registered test has run and passed.
    pub fn is_success(&self) -> bool {
        self.failed == 0 && self.passed == self.registered
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.registered += other.registered;
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing = self.registered.saturating_sub(self.passed + self.failed);
        if missing > 0 {
            writeln!(f, "{missing} of {} registered tests did not run", self.registered)?;
        }
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}
