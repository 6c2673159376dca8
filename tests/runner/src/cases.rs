//! The register of boot tests, `tests/boot/cases.toml`: the guests to start, and the output to
//! expect.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::options::{Cpu, Processors};
use crate::{guests, layout};

/// The way in which a domain ends, by Xen's reason code (public/sched.h, SHUTDOWN_*).
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    #[default]
    Poweroff,
    Reboot,
    Crash,
}

/// One boot test. The fields are described at the top of the register.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    pub guest: Option<String>,
    #[serde(default = "default_memory")]
    pub memory: u32,
    #[serde(default)]
    pub extra: String,
    #[serde(default)]
    pub vif: bool,
    #[serde(default)]
    pub libraries: bool,
    #[serde(default)]
    pub ends: Ending,
    #[serde(default)]
    pub console: Vec<String>,
    #[serde(default)]
    pub absent: Vec<String>,
    #[serde(default)]
    pub xl_dmesg: Vec<String>,
    #[serde(default = "default_seconds")]
    pub seconds: u32,
    #[serde(default)]
    pub script: bool,
    pub result: Option<bool>,
    #[serde(default)]
    pub both: bool,
    #[serde(default)]
    pub scale: bool,
}

fn default_memory() -> u32 {
    8
}

fn default_seconds() -> u32 {
    20
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Register {
    #[serde(default)]
    case: Vec<Case>,
}

/// The families of cases that processors beside each other may break.
const ALTERNATING: [&str; 5] = ["fork", "ipc", "library_update", "posix", "pvm"];

/// The limit in seconds from which on a case is a long one.
const LONG: u32 = 120;

/// The cases whose turn it is at a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The quarter of the alternating cases that runs with two processors, 0 to 3.
    pub quarter: u32,
    /// The third of the long cases that runs, 0 to 2.
    pub third: u32,
}

impl Turn {
    /// The turn at a commit: the last digit of its id says the quarter, the four before it the
    /// third. No id stands for 0.
    pub fn of_commit(id: &str) -> Self {
        let id = id.trim_end();
        let number = id.get(id.len().saturating_sub(5)..).and_then(|end| u32::from_str_radix(end, 16).ok());
        let number = number.unwrap_or(0);
        Self { quarter: number % 4, third: (number >> 4) % 3 }
    }

    /// True if the alternating case has two processors.
    fn has_two(self, case: &Case) -> bool {
        sum(&case.name) % 4 == self.quarter
    }

    /// True if the case runs.
    pub fn holds(self, case: &Case) -> bool {
        case.seconds < LONG || sum(&case.name) % 3 == self.third
    }
}

/// The sum of a name's octets, which shares names out.
fn sum(name: &str) -> u32 {
    name.bytes().map(u32::from).sum()
}

/// The factor by which a busy machine may take longer.
const PATIENCE: u32 = 3;

impl Case {
    /// The time after which it counts as hung, in seconds from its beginning.
    pub fn limit(&self) -> u32 {
        PATIENCE * self.seconds
    }

    /// True if it runs in a machine of so many processors by default.
    pub fn runs_with(&self, processors: Processors, turn: Turn) -> bool {
        let alternates = ALTERNATING.iter().any(|family| self.name.starts_with(family));
        let own = if alternates && turn.has_two(self) { Processors::TWO } else { Processors::ONE };
        self.both || processors == own
    }

    /// The kind of processor that it runs with by default: cases of guest user mode, where code of
    /// others runs, have one with AVX.
    pub fn cpu(&self) -> Cpu {
        if self.name.starts_with("user") { Cpu::Haswell } else { Cpu::Qemu64 }
    }

    /// Name of the image that it starts.
    pub fn guest(&self) -> &str {
        self.guest.as_deref().unwrap_or(&self.name)
    }

    /// True if the guest must print "Test result: SUCCESS".
    pub fn wants_result(&self) -> bool {
        self.result.unwrap_or(self.ends == Ending::Poweroff && !self.script)
    }

    /// The configuration for `xl create`.
    pub fn config(&self) -> String {
        let mut config = format!(
            "name = '{}'\nkernel = '/opt/zooid/guests/{}'\nmemory = {}\n",
            self.name,
            self.guest(),
            self.memory
        );
        if !self.extra.is_empty() {
            config += &format!("extra = {}\n", quoted(&self.extra));
        }
        if self.vif {
            config += "vif = ['bridge=xenbr0']\n";
        }
        if self.libraries {
            config += "ramdisk = '/run/zooid/libraries.tar'\n";
        }
        config
    }
}

/// All registered cases.
///
/// # Errors
/// The register cannot be read, names a case twice, or leaves a test guest out.
pub fn registered() -> Result<Vec<Case>> {
    let file = layout::boot_tests().join("cases.toml");
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let cases = parse(&text).with_context(|| file.display().to_string())?;
    for name in guests::test_names()? {
        if !cases.iter().any(|case| case.guest() == name || mentions(case, &name)) {
            bail!("{}: no case starts the test guest {name}", file.display());
        }
    }
    Ok(cases)
}

/// True if the case's script names the image `guest`.
fn mentions(case: &Case, guest: &str) -> bool {
    let image = Path::new("guests").join(guest);
    let image = image.to_string_lossy();
    case.script && std::fs::read_to_string(script_file(case)).is_ok_and(|text| text.contains(&*image))
}

/// The dom0-side script of a case that has one: its own, or its guest's.
pub fn script_file(case: &Case) -> std::path::PathBuf {
    let own = layout::boot_tests().join(format!("{}.sh", case.name));
    if own.exists() { own } else { layout::boot_tests().join(format!("{}.sh", case.guest())) }
}

fn parse(text: &str) -> Result<Vec<Case>> {
    let register: Register = toml::from_str(text)?;
    for (index, case) in register.case.iter().enumerate() {
        if register.case[..index].iter().any(|other| other.name == case.name) {
            bail!("two cases have the name {}", case.name);
        }
    }
    Ok(register.case)
}

/// `text` as a string of xl's configuration (xlu__cfgl_dequote in Xen's
/// tools/libs/util/libxlu_cfg.c).
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_quoted_as_xl_reads_them() {
        assert_eq!(quoted(r#"a "b" 'c' \d"#), r#"'a "b" \'c\' \\d'"#);
    }

    #[test]
    fn a_case_has_defaults() {
        let cases = parse(
            "[[case]]\nname = 'a'\n[[case]]\nname = 'b'\nguest = 'a'\nends = 'crash'\nvif = true\nextra = 'x=\"1\"'",
        )
        .unwrap();
        assert_eq!(cases[0].config(), "name = 'a'\nkernel = '/opt/zooid/guests/a'\nmemory = 8\n");
        assert!(cases[0].wants_result());
        assert!(!cases[1].wants_result());
        assert!(cases[1].config().contains("extra = 'x=\"1\"'\nvif = ['bridge=xenbr0']\n"));
    }

    #[test]
    fn cases_alternate_between_one_processor_and_two() {
        let names = ["hello", "fork_d", "fork_e", "user_fork_d", "ipc_both"];
        let case = |name: &str| Case { name: name.into(), both: name.ends_with("both"), ..Case::default() };
        let runs = |processors, quarter| names.map(|name| case(name).runs_with(processors, Turn { quarter, third: 0 }));
        assert_eq!(runs(Processors::ONE, 0), [true, true, true, true, true]);
        assert_eq!(runs(Processors::TWO, 0), [false, false, false, false, true]);
        assert_eq!(runs(Processors::ONE, 1), [true, false, true, true, true]);
        assert_eq!(runs(Processors::TWO, 1), [false, true, false, false, true]);
        assert_eq!(runs(Processors::TWO, 2), [false, false, true, false, true]);
    }

    #[test]
    fn a_commit_decides_whose_turn_it_is() {
        assert_eq!(Turn::of_commit("022f62a\n"), Turn { quarter: 2, third: 0x2f62 % 3 });
        assert_eq!(Turn::of_commit("022f637\n"), Turn { quarter: 3, third: 0x2f63 % 3 });
        assert_eq!(Turn::of_commit(""), Turn { quarter: 0, third: 0 });
    }

    #[test]
    fn each_long_case_has_one_turn_of_three() {
        let turns = [0, 1, 2].map(|third| Turn { quarter: 0, third });
        for name in ["fork_chain", "library_store", "leaks"] {
            let case = |seconds| Case { name: name.into(), seconds, ..Case::default() };
            assert_eq!(turns.iter().filter(|turn| turn.holds(&case(LONG))).count(), 1);
            assert!(turns.iter().all(|turn| turn.holds(&case(LONG - 1))));
        }
    }

    #[test]
    fn mistakes_in_the_register_are_found() {
        for text in [
            "[[case]]\nname = 'a'\n[[case]]\nname = 'a'",
            "[[case]]\nname = 'a'\nmemroy = 8",
            "[[case]]\nmemory = 8",
            "[[case]]\nname = 'a'\nends = 'sleep'",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_register_is_sound() {
        let cases = registered().unwrap();
        assert!(!cases.is_empty());
        for case in cases.iter().filter(|case| case.script) {
            assert!(script_file(case).exists(), "tests/boot/{}.sh", case.name);
        }
    }
}
