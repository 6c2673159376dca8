//! Names of signals.

use std::fmt;
use std::str::FromStr;

/// A signal, by Linux' number on x86 (signal(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(pub u8);

/// Highest signal number of a pVM.
const MOST: u8 = 63;

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

impl FromStr for Signal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(number) = text.parse::<u8>() {
            return match number {
                1..=MOST => Ok(Self(number)),
                _ => Err(format!("signals have numbers from 1 to {MOST}")),
            };
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        (1..).zip(NAMES).find(|(_, known)| *known == name).map(|(number, _)| Self(number)).ok_or_else(|| {
            "there is no such signal: use a number, or a name such as TERM, KILL, USR1 (`kill -l` lists them)"
                .to_owned()
        })
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(usize::from(self.0).wrapping_sub(1)) {
            Some(name) => write!(out, "SIG{name}"),
            None => write!(out, "signal {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in
            [("9", 9), ("KILL", 9), ("SIGKILL", 9), ("term", 15), ("sigusr1", 10), ("SYS", 31), ("40", 40)]
        {
            assert_eq!(text.parse(), Ok(Signal(number)));
        }
        for text in ["", "0", "64", "-1", "SIG", "KILLER", "SIGSIGKILL"] {
            assert!(text.parse::<Signal>().is_err(), "{text}");
        }
        assert_eq!((Signal(9).to_string(), Signal(40).to_string()), ("SIGKILL".into(), "signal 40".into()));
    }
}
