//! `make soak`: forks without number, updates and deaths of the daemon, and what is left of them.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::dom0::{self, Job};
use crate::layout;
use crate::machine::Model;
use crate::options::BadArgument;

/// Forks, and seconds of updates, when nothing else is asked for.
const DEFAULTS: (u32, u32) = (100_000, 3600);
/// Longest that a fork takes with all that comes of it, on a busy build machine.
const FORK: Duration = Duration::from_millis(250);
/// Longest that all the rest takes.
const REST: Duration = Duration::from_secs(1800);

/// Runs the soak test with a number of forks (`FORKS`) and of seconds (`SECONDS_EACH`); empty words
/// stand for the defaults. Returns the status of dom0's script.
pub fn run(model: Model, forks: &str, seconds: &str) -> Result<u8> {
    let forks = number("FORKS", forks, DEFAULTS.0)?;
    let seconds = number("SECONDS_EACH", seconds, DEFAULTS.1)?;
    let out = layout::top().join("target/soak");
    std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let chosen = out.join("soak.conf");
    std::fs::write(&chosen, format!("FORKS={forks}\nSECONDS_EACH={seconds}\n"))?;
    dom0::run(&Job {
        model,
        script: layout::top().join("tests/dom0/soak.sh"),
        files: vec![layout::boot_tests().join("lib.sh"), chosen],
        out,
        limit: FORK * forks + Duration::from_secs(seconds.into()) * 2 + REST,
        cold: false,
    })
}

fn number(name: &str, word: &str, default: u32) -> Result<u32, BadArgument> {
    match word {
        "" => Ok(default),
        _ => word.parse().map_err(|_| BadArgument(format!("{name}={word} is not a number: use a whole one"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_judged() {
        assert_eq!(number("FORKS", "", 7).unwrap(), 7);
        assert_eq!(number("FORKS", "500", 7).unwrap(), 500);
        for word in ["-1", "many", "1.5", "99999999999"] {
            assert!(number("FORKS", word, 7).is_err());
        }
    }
}
