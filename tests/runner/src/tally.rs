//! The count of tests, and what the failed ones said.

use std::fmt;
use std::ops::AddAssign;
use std::time::Duration;

/// The number of lines that are shown of each log of a failed test when it fails.
const LINES_AT_ONCE: usize = 40;
/// And before the counts.
const LINES_AT_THE_END: usize = 6;

/// The number of tests, and of those that have passed and failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub registered: usize,
    pub passed: usize,
    pub failed: usize,
    /// The verdicts of the failed tests, in whole lines. They are shown again before the counts: the
    /// end of a long log is read first, and may be all that was kept.
    pub failures: Vec<String>,
}

impl Tally {
    /// None of `registered` tests has run yet.
    pub fn registered(registered: usize) -> Self {
        Tally { registered, ..Tally::default() }
    }

    /// Counts a test, which has passed when there is no fault; what is to be said of it. `report`
    /// gives so many last lines of a failed test's logs.
    pub fn finish(
        &mut self,
        name: &str,
        took: Duration,
        faults: &[String],
        report: impl Fn(usize) -> String,
    ) -> String {
        let seconds = took.as_secs_f64();
        if faults.is_empty() {
            self.passed += 1;
            return format!("test {name} ... ok ({seconds:.1} s)\n");
        }
        self.failed += 1;
        let mut said = format!("test {name} ... FAILED ({seconds:.1} s)\n");
        faults.iter().for_each(|fault| said += &format!("    {fault}\n"));
        self.failures.push(format!("{said}{}", report(LINES_AT_THE_END)));
        said + &report(LINES_AT_ONCE)
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
        self.failures.extend(other.failures);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for failure in &self.failures {
            f.write_str(failure)?;
        }
        let missing = self.registered.saturating_sub(self.passed + self.failed);
        if missing > 0 {
            writeln!(f, "{missing} of {} registered tests did not run", self.registered)?;
        }
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_said_again_before_the_counts() {
        let mut tally = Tally::registered(2);
        assert_eq!(tally.finish("good", Duration::ZERO, &[], |_| unreachable!()), "test good ... ok (0.0 s)\n");
        let log = |lines| format!("    {lines} lines\n");
        let said = tally.finish("bad", Duration::ZERO, &["why".into()], log);
        assert_eq!(said, "test bad ... FAILED (0.0 s)\n    why\n    40 lines\n");
        let mut all = Tally::default();
        all += tally;
        assert_eq!(all.to_string(), "test bad ... FAILED (0.0 s)\n    why\n    6 lines\n1 passed, 1 failed");
    }
}
