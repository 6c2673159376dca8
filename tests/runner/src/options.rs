//! The caller's options for the emulated machine, checked before anything is started.

use std::fmt;
use std::str::FromStr;

/// Memory of the machine when nothing else is asked for, in MiB.
const DEFAULT_MEMORY: u32 = 2048;
/// Least memory in which dom0 and one small guest run, in MiB.
const MIN_MEMORY: u32 = 768;
/// Bounds of dom0's own share, in MiB.
const DOM0_MEMORY: (u32, u32) = (512, 1024);

/// A bad argument: one line with the fault and the remedy.
#[derive(Debug)]
pub struct BadArgument(pub String);

impl fmt::Display for BadArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadArgument {}

/// True if `name` has one of the words of `only` in it, or there are none.
pub fn picks(only: &str, name: &str) -> bool {
    let mut words = only.split_whitespace().peekable();
    words.peek().is_none() || words.any(|word| name.contains(word))
}

/// The clock of the emulated machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The host's time: quickest, for tests of function.
    Wall,
    /// A clock of one nanosecond for each emulated instruction: repeatable, for figures.
    Icount,
}

impl Clock {
    /// The word that selects it, also used in file names.
    pub fn name(self) -> &'static str {
        match self {
            Clock::Wall => "wall",
            Clock::Icount => "icount",
        }
    }
}

impl FromStr for Clock {
    type Err = BadArgument;

    fn from_str(word: &str) -> Result<Self, BadArgument> {
        match word {
            "" | "wall" => Ok(Clock::Wall),
            "icount" => Ok(Clock::Icount),
            _ => Err(BadArgument(format!("CLOCK={word} is not a clock: use CLOCK=wall or CLOCK=icount"))),
        }
    }
}

/// Memory of the machine, in MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory(u32);

impl Memory {
    /// All memory of the machine, in MiB.
    pub fn mib(self) -> u32 {
        self.0
    }

    /// dom0's share; the rest is Xen's and the guests'.
    pub fn dom0_mib(self) -> u32 {
        (self.0 * 3 / 8).clamp(DOM0_MEMORY.0, DOM0_MEMORY.1)
    }

    /// Judges `word` (MiB, empty for the default) on a host with `available` MiB free.
    ///
    /// # Errors
    /// Not a number, too little for dom0, or more than the host has.
    pub fn parse(word: &str, available: u64) -> Result<Self, BadArgument> {
        let bad = |what: String| Err(BadArgument(format!("MEM={word} {what}")));
        let mib = match word {
            "" => DEFAULT_MEMORY,
            _ => match word.parse() {
                Ok(mib) => mib,
                Err(_) => {
                    return bad(format!("is not a number of MiB: use a whole number, {MIN_MEMORY} or more"));
                }
            },
        };
        if mib < MIN_MEMORY {
            return bad(format!("is too little for Xen and dom0: use {MIN_MEMORY} or more"));
        }
        if u64::from(mib) > available {
            return bad(format!("MiB is more than this host has free ({available} MiB): use less"));
        }
        Ok(Memory(mib))
    }
}

/// The processor's kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cpu {
    /// x86-64 as it was first: SSE2 and little more.
    #[default]
    Qemu64,
    /// One with XSAVE, AVX and AVX2. dom0's kernel crashes on QEMU's `max` and `EPYC`.
    Haswell,
}

impl Cpu {
    /// QEMU's argument: its name, without what the emulation lacks.
    pub fn argument(self) -> &'static str {
        match self {
            Self::Qemu64 => "qemu64",
            Self::Haswell => "Haswell-noTSX,-pcid,-x2apic,-tsc-deadline,-invpcid",
        }
    }

    /// QEMU's name of it, also used in file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qemu64 => "qemu64",
            Self::Haswell => "Haswell-noTSX",
        }
    }

    /// Judges `word`; `None` when it is empty.
    ///
    /// # Errors
    /// Not a kind of processor that a machine is tested with.
    pub fn parse(word: &str) -> Result<Option<Self>, BadArgument> {
        let all = [Self::Qemu64, Self::Haswell];
        match all.into_iter().find(|cpu| cpu.name() == word) {
            None if !word.is_empty() => {
                Err(BadArgument(format!("CPU={word} is no kind of processor: use CPU=qemu64 or CPU=Haswell-noTSX")))
            }
            found => Ok(found),
        }
    }
}

/// Processors of the machine. A guest always has one virtual processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Processors(u32);

impl Processors {
    /// All code takes turns on one processor.
    pub const ONE: Self = Processors(1);
    /// Two domains, or two threads of dom0, run at the same moment.
    pub const TWO: Self = Processors(2);

    /// The number of processors.
    pub fn count(self) -> u32 {
        self.0
    }

    /// Judges `word`; `None` when it is empty.
    ///
    /// # Errors
    /// Not a number of processors that a machine is tested with.
    pub fn parse(word: &str) -> Result<Option<Self>, BadArgument> {
        match word {
            "" => Ok(None),
            "1" => Ok(Some(Self::ONE)),
            "2" => Ok(Some(Self::TWO)),
            "4" => Ok(Some(Processors(4))),
            _ => Err(BadArgument(format!("CPUS={word} is no number of processors: use CPUS=1, CPUS=2 or CPUS=4"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_judged_before_use() {
        let parse = |word| Memory::parse(word, 4096).map_err(|e| e.to_string());
        assert_eq!(parse("").unwrap().mib(), 2048);
        assert_eq!(parse("").unwrap().dom0_mib(), 768);
        assert_eq!(parse("768").unwrap().dom0_mib(), 512);
        assert_eq!(parse("4096").unwrap().dom0_mib(), 1024);
        for word in ["0", "767", "-1", "2G", "4097", "99999999999"] {
            let line = parse(word).unwrap_err();
            assert!(line.starts_with(&format!("MEM={word} ")), "{line}");
            assert!(!line.contains('\n'));
        }
    }

    #[test]
    fn a_machine_has_one_two_or_four_processors() {
        assert_eq!(Processors::parse("").unwrap(), None);
        assert_eq!(Processors::parse("2").unwrap(), Some(Processors::TWO));
        assert_eq!(Processors::parse("4").unwrap().map(Processors::count), Some(4));
        for word in ["0", "3", "-1", "two", "4294967297"] {
            assert!(Processors::parse(word).unwrap_err().to_string().starts_with(&format!("CPUS={word} ")));
        }
    }

    #[test]
    fn two_kinds_of_processor_have_names() {
        assert_eq!(Cpu::parse("").unwrap(), None);
        assert_eq!(Cpu::parse("Haswell-noTSX").unwrap(), Some(Cpu::Haswell));
        assert!(Cpu::parse("max").unwrap_err().to_string().starts_with("CPU=max "));
    }

    #[test]
    fn one_of_the_words_is_enough() {
        assert!(picks("", "fork_net") && picks(" ", "fork_net"));
        assert!(picks("net", "fork_net") && picks("httpd fork_", "fork_net"));
        assert!(!picks("httpd ipc", "fork_net"));
    }

    #[test]
    fn clocks_have_two_names() {
        assert_eq!("".parse::<Clock>().unwrap(), Clock::Wall);
        assert_eq!("icount".parse::<Clock>().unwrap(), Clock::Icount);
        assert!("sundial".parse::<Clock>().is_err());
    }
}
