//! Compares each item of this crate that has a counterpart in Xen's public C headers with it: the
//! size of each structure, the offset and size of each field, and each constant.
//!
//! The table below holds each item once. The test writes a C program from it that prints the
//! headers' values, compiles and runs it with this machine's C compiler, and compares. Two
//! structures have no counterpart: the page-table entry, which is the processor's, and the E820
//! entry, which is the BIOS's.
//!
//! All is compared with the headers of this machine, and with those of other releases of Xen that
//! `make setup` has unpacked below `build/xen-headers`.

mod headers;
mod table;

use std::fmt::Write;
use std::path::Path;

use headers::{includes, output_of};
use xen_abi::Errno;

/// The interface that Xen 4.14 and later define. Newer headers still offer it.
const INTERFACE_VERSION: &str = "0x00040e00";

/// A C expression, and the value that this crate has for it.
pub struct Check {
    /// The expression.
    pub c: String,
    /// The value, as an unsigned integer of 64 bits.
    pub rust: u64,
    /// The relation between the two.
    pub rule: Rule,
}

/// The relation between the value in C and that of this crate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// They are the same.
    Same,
    /// The C structure may have further fields at its end, in a page that has room for them.
    AtLeast,
    /// They are the same in headers that define the macro; older ones do not.
    IfDefined,
}

impl Rule {
    fn holds(self, c: Option<u64>, rust: u64) -> bool {
        match self {
            Self::Same => c == Some(rust),
            Self::AtLeast => c.is_some_and(|c| c >= rust),
            Self::IfDefined => c.is_none_or(|c| c == rust),
        }
    }
}

const PRELUDE: &str = r#"
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <xen/xen.h>
#include <xen/callback.h>
#include <xen/elfnote.h>
#include <xen/errno.h>
#include <xen/event_channel.h>
#include <xen/features.h>
#include <xen/grant_table.h>
#include <xen/memory.h>
#include <xen/sched.h>
#include <xen/vcpu.h>
#include <xen/version.h>
#include <xen/io/console.h>
#include <xen/io/netif.h>
#include <xen/io/ring.h>
#include <xen/io/xenbus.h>
#include <xen/io/xs_wire.h>

int main(void)
{
"#;

#[test]
fn everything_is_as_in_the_c_headers() {
    let checks = table::checks();
    let mut body = String::new();
    for Check { c, rule, .. } in &checks {
        let print = format!("    printf(\"%llu\\n\", (unsigned long long)({c}));");
        match rule {
            Rule::IfDefined => writeln!(body, "#ifdef {c}\n{print}\n#else\n    puts(\"-\");\n#endif").unwrap(),
            _ => writeln!(body, "{print}").unwrap(),
        }
    }
    for include in includes() {
        let output = run_c("c_headers", &include, &body);
        let found: Vec<Option<u64>> = output.lines().map(|line| line.parse().ok()).collect();
        assert_eq!(found.len(), checks.len(), "the C program prints a line for each check");

        let differences: Vec<String> = checks
            .iter()
            .zip(found)
            .filter(|(check, found)| !check.rule.holds(*found, check.rust))
            .map(|(check, found)| format!("{} is {found:#x?} in C, {:#x} in Rust", check.c, check.rust))
            .collect();
        assert!(differences.is_empty(), "{}: {}", include.display(), differences.join("\n"));
    }
}

#[test]
fn every_error_that_xenstore_can_name_is_known() {
    let body = r#"
    for (size_t i = 0; i < sizeof(xsd_errors) / sizeof(xsd_errors[0]); i++)
        printf("%s %d\n", xsd_errors[i].errstring, xsd_errors[i].errnum);
"#;
    for include in includes() {
        let output = run_c("xsd_errors", &include, body);
        assert!(output.lines().count() > 0);
        for line in output.lines() {
            let (name, number) = line.split_once(' ').unwrap();
            assert_eq!(Errno::from_name(name.as_bytes()), Some(Errno(number.parse().unwrap())), "{name}");
        }
    }
}

/// The output of a C program with `body` in its `main`, and with these headers of Xen's.
fn run_c(name: &str, include: &Path, body: &str) -> String {
    let program = format!("{PRELUDE}{body}    return 0;\n}}\n");
    let version = format!("-D__XEN_INTERFACE_VERSION__={INTERFACE_VERSION}");
    output_of(name, &program, include, &[&version, "-Wall", "-Werror"])
}
