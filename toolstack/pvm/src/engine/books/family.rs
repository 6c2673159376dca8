//! A family, and its account of the work that it has dom0 do.

use std::time::{Duration, Instant};

use super::super::fair_share::FairShare;
use super::super::memory_owner::MemoryOwner;

/// All pVMs that descend from one root pVM.
#[derive(Debug)]
pub struct Family<M> {
    /// Its root's name, which outlives the root.
    pub(super) name: String,
    /// Living members; the books count them.
    pub(super) members: u32,
    /// The work that it may have dom0 do.
    pub account: Account,
    /// The domain that holds its shared memory, from the first object on.
    pub memory_owner: Option<MemoryOwner<M>>,
    /// Its share of the daemon's time, and the requests that wait for it.
    pub share: FairShare,
}

impl<M> Family<M> {
    pub(super) fn new(name: String, account: Account) -> Self {
        let share = FairShare::new(account.since);
        Self { name, members: 0, account, memory_owner: None, share }
    }
}

/// Refusals that a family gets at once. The rate of further ones is below.
const REFUSALS_AT_ONCE: u32 = 20;
const REFUSALS: u32 = 50;
/// The longest time that a refusal waits. A guest whose COMMIT is refused stands still meanwhile.
const LONGEST_REFUSAL: Duration = Duration::from_millis(250);
/// Most log lines and events, in a second, about refusals of one family.
const TOLD: u32 = 10;

/// The work that one family may still have dom0 do.
#[derive(Debug)]
pub struct Account {
    since: Instant,
    /// Forks.
    pub forks: Rate,
    /// Answers `ESTALE` to COMMITs, after which a guest has to send a PREPARE.
    pub stale: Rate,
    refusals: Rate,
    /// The moment at which the last waiting refusal is to be answered.
    refused_until: Instant,
    told: Rate,
}

impl Account {
    /// A full account; the family may make `forks` in a second.
    pub fn new(forks: u32, now: Instant) -> Self {
        Self {
            since: now,
            forks: Rate::full(forks, now),
            stale: Rate::full(forks, now),
            refusals: Rate::full(REFUSALS_AT_ONCE, now),
            refused_until: now,
            told: Rate::full(TOLD, now),
        }
    }

    /// The time by which the answer to a refused request is delayed. Refusals of one family are
    /// answered one after the other, so that many cost no more than few.
    pub fn delay_refusal(&mut self, now: Instant) -> Duration {
        if self.refused_until <= now && self.refusals.take_at(1, REFUSALS, REFUSALS_AT_ONCE, now) {
            return Duration::ZERO;
        }
        let next = self.refused_until.max(now) + Duration::from_secs(1) / REFUSALS;
        self.refused_until = next.min(now + LONGEST_REFUSAL);
        self.refused_until - now
    }

    /// One more refusal may be reported in the log and as an event.
    pub fn may_tell(&mut self, now: Instant) -> bool {
        self.told.take(1, TOLD, now)
    }
}

/// A budget that refills at a rate.
#[derive(Debug)]
pub struct Rate {
    left: f64,
    at: Instant,
}

impl Rate {
    /// A full budget.
    pub fn full(limit: u32, now: Instant) -> Self {
        Self { left: limit.into(), at: now }
    }

    /// Takes `count`, if there are so many, from a budget of `limit` that refills in a second.
    pub fn take(&mut self, count: usize, limit: u32, now: Instant) -> bool {
        self.take_at(count, limit, limit, now)
    }

    /// Takes `count`, if there are so many, from a budget of `most` that refills by `rate` a
    /// second.
    fn take_at(&mut self, count: usize, rate: u32, most: u32, now: Instant) -> bool {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * f64::from(rate);
        (self.left, self.at) = ((self.left + gained).min(most.into()), now);
        let enough = self.left >= count as f64;
        if enough {
            self.left -= count as f64;
        }
        enough
    }

    /// Returns a part that was taken and not used.
    pub fn give_back(&mut self, count: usize) {
        self.left += count as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_lets_a_second_through_at_once_and_then_as_many_as_come_back() {
        let start = Instant::now();
        let mut rate = Rate::full(10, start);
        assert!(rate.take(10, 10, start));
        assert!(!rate.take(1, 10, start));
        assert!(!rate.take(2, 10, start + Duration::from_millis(150)));
        assert!(rate.take(1, 10, start + Duration::from_millis(150)));
        assert!(!rate.take(11, 10, start + Duration::from_secs(100)), "never more than a second's");
        assert!(rate.take(10, 10, start + Duration::from_secs(100)));
        rate.give_back(3);
        assert!(
            rate.take(3, 10, start + Duration::from_secs(100)) && !rate.take(1, 10, start + Duration::from_secs(100))
        );
    }

    #[test]
    fn refusals_of_a_family_are_answered_one_after_the_other() {
        let start = Instant::now();
        let mut account = Account::new(10, start);
        let at_once = (0..100).filter(|_| account.delay_refusal(start).is_zero()).count();
        assert_eq!(at_once as u32, REFUSALS_AT_ONCE);
        assert_eq!(account.delay_refusal(start), LONGEST_REFUSAL, "80 others wait");
        let later = start + Duration::from_secs(10);
        assert!(account.delay_refusal(later).is_zero());
    }
}
