//! A deterministic simulation of a whole host: the real engine, a hypervisor and a xenstored in
//! memory, and many guests, honest and hostile.
//!
//! One seed decides everything: the order of acts, the faults, and the writes of hostile guests.
//! After every step, `judge` checks the properties that must hold, by the simulation's knowledge of
//! guests and hypervisor and not by the engine's. A seed with a violation is replayed by `SEED=7
//! cargo test -p pvm simulation_replay -- --nocapture`. docs/testing.md says more.

mod honest;
mod host;
mod hostile;
mod inspect;
mod instance;
mod judge;
mod memory;
mod profile;
mod random;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use self::host::{Found, Host};
use super::super::sabotage::{self, Sabotage};

/// Seeds of one run of the tests; below, the shortest time of a run.
const SEEDS: u64 = 3000;

/// Runs the host of a seed.
fn simulate(seed: u64, talks: bool) -> Result<Box<Host>, Box<(Host, Found)>> {
    let mut host = Host::new(seed, talks);
    match host.run_caught() {
        Ok(()) => Ok(Box::new(host)),
        Err(found) => Err(Box::new((host, found))),
    }
}

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs `seeds` seeds from `first` on, and for `time` at least; with a deliberate fault, until it
/// is found. Returns the number of seeds, and each violation with its seed.
fn search(first: u64, seeds: u64, time: Duration, fault: Option<Sabotage>) -> (u64, Vec<(u64, String)>) {
    let (next, found) = (AtomicU64::new(first), Mutex::new(Vec::new()));
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                sabotage::set(fault);
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let is_found =
                        || fault.is_some() && !found.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
                    if seed >= first + seeds && began.elapsed() >= time || is_found() {
                        break;
                    }
                    if let Err(error) = simulate(seed, false) {
                        let (host, Found(what)) = *error;
                        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                        found.push((seed, format!("{} [{}]", what, host.profile.kind)));
                    }
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort();
    (next.into_inner() - first, found)
}

#[test]
fn thousands_of_seeds_find_nothing() {
    let seconds = Duration::from_secs(setting("SECONDS_EACH").unwrap_or(0));
    let (seeds, found) = search(setting("SEED").unwrap_or(1), setting("SEEDS").unwrap_or(SEEDS), seconds, None);
    println!("{seeds} seeds");
    for (seed, what) in &found {
        println!("SEED={seed}: {what}");
    }
    assert!(found.is_empty(), "{} of {seeds} seeds find something", found.len());
}

#[test]
fn each_deliberate_fault_is_found() {
    let only = std::env::var("SABOTAGE").ok();
    let is_meant = |fault: &Sabotage| only.as_ref().is_none_or(|only| format!("{fault:?}") == *only);
    let mut missed = Vec::new();
    for fault in Sabotage::ALL.into_iter().filter(is_meant) {
        let (seeds, found) = search(1, SEEDS, Duration::ZERO, Some(fault));
        match found.first() {
            Some((seed, what)) => println!("{fault:?}: {seeds} seeds, SEED={seed}: {what}"),
            None => missed.push(fault),
        }
    }
    println!("{} of {} deliberate faults are found", Sabotage::ALL.len() - missed.len(), Sabotage::ALL.len());
    assert!(missed.is_empty(), "not found in {SEEDS} seeds: {missed:?}");
}

#[test]
fn simulation_replay() {
    let Some(seed) = setting("SEED") else { return };
    let fault = std::env::var("SABOTAGE").unwrap_or_default();
    sabotage::set(Sabotage::ALL.into_iter().find(|sabotage| format!("{sabotage:?}") == fault));
    match simulate(seed, true) {
        Ok(host) => println!("seed {seed}: nothing in {} steps", host.steps),
        Err(error) => {
            let (host, Found(what)) = *error;
            panic!("seed {seed}, step {}: {what}", host.steps)
        }
    }
}

#[test]
fn a_seed_leads_to_the_same_every_time() {
    for seed in 1..20 {
        let story = || match simulate(seed, false) {
            Ok(host) => (host.trace, host.fake.operations().len(), String::new()),
            Err(error) => {
                let (host, Found(what)) = *error;
                (host.trace, host.fake.operations().len(), what)
            }
        };
        assert_eq!(story(), story(), "seed {seed}");
    }
}
