//! The kind of host that a seed makes.

use super::honest::Act;
use super::hostile::Evil;
use super::random::Random;

/// Settings that a seed chooses, so that each kind of trouble is frequent in some runs.
#[derive(Clone, Debug)]
pub struct Profile {
    pub kind: &'static str,
    pub steps: u64,
    /// Microseconds that a step takes at most.
    pub pause_us: u64,
    /// Steps of 100 that are the daemon's.
    pub engine: u64,
    pub roots: u64,
    /// Roots of 100 that are hostile; below, children of honest pVMs, of 100, that become hostile, and
    /// most children of a hostile fork.
    pub hostile_roots: u64,
    pub become_hostile: u64,
    pub hostile_children: u64,
    /// Numbers that domains may have, pages of the machine, grants that dom0 can map.
    pub domains: u16,
    pub pages: u64,
    pub maptrack: usize,
    pub pool: u32,
    pub family: u32,
    /// Forks in a second: of a family, and of the host.
    pub rates: (u32, u32),
    /// Operations of 100,000 that fail.
    pub faults: u64,
    pub grants: bool,
    pub honest: Vec<(u64, Act)>,
    pub hostile: Vec<(u64, Evil)>,
}

impl Profile {
    pub fn choose(random: &mut Random) -> Self {
        let honest = vec![
            (30, Act::Write),
            (10, Act::Check),
            (14, Act::Fork),
            (4, Act::Exit),
            (1, Act::Crash),
            (2, Act::Create),
            (2, Act::Map),
            (1, Act::Unlink),
            (2, Act::Kill),
            (1, Act::Early),
        ];
        let hostile = vec![
            (10, Evil::Prepare),
            (10, Evil::Commit),
            (4, Evil::Field),
            (4, Evil::Ask),
            (2, Evil::State),
            (3, Evil::Ended),
            (1, Evil::Shutdown),
            (3, Evil::Unhook),
            (6, Evil::Forge),
            (3, Evil::Remap),
            (2, Evil::Grants),
            (2, Evil::GiveBack),
            (1, Evil::Announce),
            (1, Evil::Ports),
            (6, Evil::Objects),
            (2, Evil::Kill),
        ];
        let base = Profile {
            kind: "mixed",
            steps: 1500,
            pause_us: 200,
            engine: 50,
            roots: 2 + random.below(2),
            hostile_roots: 30,
            become_hostile: 10,
            hostile_children: 3,
            domains: 60,
            pages: 20_000,
            maptrack: 100_000,
            pool: 1 + random.below(3) as u32,
            family: 24,
            rates: (1000, 2000),
            faults: 0,
            grants: false,
            honest,
            hostile,
        };
        let only = |kinds: &[(u64, Evil)]| kinds.to_vec();
        match random.below(12) {
            0 => Profile { kind: "honest", hostile_roots: 0, become_hostile: 0, ..base },
            1 => Profile { kind: "honest, faults", hostile_roots: 0, become_hostile: 0, faults: 400, ..base },
            2 => Profile {
                kind: "few numbers",
                hostile_roots: 0,
                become_hostile: 0,
                domains: 16 + random.below(8) as u16,
                family: 6,
                roots: 3,
                steps: 3000,
                ..base
            },
            3 => Profile {
                kind: "enders",
                hostile_roots: 60,
                hostile: only(&[(6, Evil::Prepare), (10, Evil::Commit), (6, Evil::Ended), (1, Evil::State)]),
                pool: 2,
                ..base
            },
            4 => Profile {
                kind: "forgers",
                hostile_roots: 40,
                become_hostile: 40,
                hostile: only(&[
                    (8, Evil::Unhook),
                    (20, Evil::Forge),
                    (3, Evil::Commit),
                    (2, Evil::Prepare),
                    (4, Evil::Objects),
                    (1, Evil::Remap),
                ]),
                faults: if random.chance(1, 2) { 60 } else { 0 },
                ..base
            },
            5 => Profile {
                kind: "storm",
                hostile_roots: 50,
                hostile_children: 40,
                domains: 200,
                pages: 100_000,
                family: 60,
                steps: 4000,
                hostile: only(&[(1, Evil::Prepare), (3, Evil::Commit), (1, Evil::Ended)]),
                ..base
            },
            6 => Profile {
                kind: "grants",
                grants: true,
                maptrack: 100_000,
                hostile: only(&[(10, Evil::Grants), (2, Evil::Prepare), (2, Evil::Commit), (1, Evil::Ended)]),
                ..base
            },
            7 => Profile {
                kind: "rates",
                rates: (30, 60),
                hostile: only(&[(2, Evil::Prepare), (20, Evil::Commit)]),
                hostile_roots: 50,
                ..base
            },
            8 => Profile { kind: "short", pages: 700 + random.below(800), domains: 14, faults: 30, ..base },
            9 => Profile {
                kind: "chain",
                hostile_roots: 0,
                become_hostile: 0,
                roots: 1,
                steps: if random.chance(1, 8) { 30_000 } else { 3000 },
                honest: vec![(10, Act::Fork), (5, Act::Exit), (2, Act::Write)],
                ..base
            },
            10 => Profile { kind: "faults", faults: 200, ..base },
            _ => base,
        }
    }
}
