//! Judges what a boot test showed against what its case asks for.

use crate::cases::{Case, Ending};
use crate::report::{End, Report};

/// Status of a command that ran out of time in dom0 (128 + SIGKILL).
const STATUS_KILLED: u32 = 137;

/// All deviations from what `case` wants; empty when the test passed.
pub fn faults(case: &Case, report: &Report) -> Vec<String> {
    let mut faults = Vec::new();
    match report.end {
        End::None => faults.push("dom0 did not report how it ended".to_owned()),
        End::Status(STATUS_KILLED) => faults.push(format!("not over within {} s", case.seconds)),
        End::Status(0) if case.script => {}
        End::Status(status) if case.script => faults.push(format!("the script ended with status {status}")),
        End::Status(status) => faults.push(format!("xl create failed with status {status}")),
        End::Reason(_) if case.script => {}
        End::Reason(reason) if reason == code(case.ends) => {}
        End::Reason(reason) => faults.push(format!("ended by {}, not by {}", reason_name(reason), word(case.ends))),
    }
    let result = report.console.lines().rev().find_map(|line| line.split_once("Test result: "));
    match result.map(|(_, result)| result.trim()) {
        Some("SUCCESS") => {}
        Some(result) if result.starts_with("ERROR") => faults.push(format!("the test itself is wrong: {result}")),
        Some(result) => faults.push(result.to_owned()),
        None if case.wants_result() => faults.push("the guest said no test result".to_owned()),
        None => {}
    }
    faults.extend(missing(&case.console, &report.console).map(|text| format!("not on the console: {text:?}")));
    faults.extend(missing(&case.xl_dmesg, &report.dmesg).map(|text| format!("not in xl dmesg: {text:?}")));
    for text in case.absent.iter().filter(|text| report.console.contains(*text)) {
        faults.push(format!("on the console: {text:?}"));
    }
    faults
}

/// The first of `texts` that does not follow the ones before it in `log`.
fn missing<'a>(texts: &'a [String], mut log: &str) -> impl Iterator<Item = &'a String> {
    texts
        .iter()
        .find(move |text| match log.find(*text) {
            Some(at) => {
                log = &log[at + text.len()..];
                false
            }
            None => true,
        })
        .into_iter()
}

fn code(ending: Ending) -> u32 {
    match ending {
        Ending::Poweroff => 0,
        Ending::Reboot => 1,
        Ending::Crash => 3,
    }
}

fn word(ending: Ending) -> &'static str {
    reason_name(code(ending))
}

fn reason_name(reason: u32) -> &'static str {
    match reason {
        0 => "poweroff",
        1 => "reboot",
        2 => "suspend",
        3 => "crash",
        4 => "watchdog",
        5 => "soft reset",
        _ => "an unknown reason",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case() -> Case {
        Case { name: "a".into(), console: vec!["one".into(), "two".into()], ..Case::default() }
    }

    fn report(console: &str) -> Report {
        Report { console: console.into(), end: End::Reason(0), ..Report::default() }
    }

    #[test]
    fn success_needs_order_result_and_ending() {
        assert!(faults(&case(), &report("one\ntwo\nTest result: SUCCESS\n")).is_empty());
        assert_eq!(faults(&case(), &report("two\none\nTest result: SUCCESS\n")), ["not on the console: \"two\""]);
        assert_eq!(faults(&case(), &report("one two")), ["the guest said no test result"]);
        assert_eq!(faults(&case(), &report("one two\nTest result: FAILURE: x")), ["FAILURE: x"]);
        assert_eq!(faults(&case(), &report("one two\nTest result: ERROR: x")), ["the test itself is wrong: ERROR: x"]);
        let crash = Report { end: End::Reason(3), ..report("one two\nTest result: SUCCESS") };
        assert_eq!(faults(&case(), &crash), ["ended by crash, not by poweroff"]);
    }

    #[test]
    fn a_crash_can_be_what_is_asked_for() {
        let case = Case { ends: Ending::Crash, absent: vec!["bad".into()], ..Case::default() };
        assert!(faults(&case, &Report { end: End::Reason(3), ..report("") }).is_empty());
        assert_eq!(faults(&case, &Report { end: End::Reason(3), ..report("bad") }), ["on the console: \"bad\""]);
        assert_eq!(faults(&case, &report("")), ["ended by poweroff, not by crash"]);
    }

    #[test]
    fn a_script_is_judged_by_its_status() {
        let case = Case { script: true, seconds: 5, ..Case::default() };
        let status = |status| faults(&case, &Report { end: End::Status(status), ..Report::default() });
        assert!(status(0).is_empty());
        assert_eq!(status(1), ["the script ended with status 1"]);
        assert_eq!(status(137), ["not over within 5 s"]);
    }
}
