//! Compares each item of this crate that has a counterpart in Xen's public C headers with it: the
//! size of each structure, the offset and size of each field, and each constant.
//!
//! The table below holds each item once. The test writes a C program from it that prints the
//! headers' values, compiles and runs it with this machine's C compiler, and compares. Two
//! structures have no counterpart: the page-table entry, which is the processor's, and the E820
//! entry, which is the BIOS's.
//! entry, which is the processor's, and the E820 entry, which is the BIOS's.

mod table;

use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use xen_abi::Errno;

/// The interface that Xen 4.14 and later define. Newer headers still offer it.
const INTERFACE_VERSION: &str = "0x00040e00";

/// A C expression, and the value that this crate has for it.
pub struct Check {
    /// The expression.
    pub c: String,
    /// The value, as an unsigned integer of 64 bits.
    pub rust: u64,
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
    for Check { c, .. } in &checks {
        writeln!(body, "    printf(\"%llu\\n\", (unsigned long long)({c}));").unwrap();
    }
    let output = run_c("c_headers", &body);
    let found: Vec<u64> = output.lines().map(|line| line.parse().expect("the C program prints numbers")).collect();
    assert_eq!(found.len(), checks.len(), "the C program prints a line for each check");

    let differences: Vec<String> = checks
        .iter()
        .zip(found)
        .filter(|(check, found)| check.rust != *found)
        .map(|(check, found)| format!("{} is {found:#x} in C, {:#x} in Rust", check.c, check.rust))
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn every_error_that_xenstore_can_name_is_known() {
    let body = r#"
    for (size_t i = 0; i < sizeof(xsd_errors) / sizeof(xsd_errors[0]); i++)
        printf("%s %d\n", xsd_errors[i].errstring, xsd_errors[i].errnum);
"#;
    let output = run_c("xsd_errors", body);
    assert!(output.lines().count() > 0);
    for line in output.lines() {
        let (name, number) = line.split_once(' ').unwrap();
        assert_eq!(Errno::from_name(name.as_bytes()), Some(Errno(number.parse().unwrap())), "{name}");
    }
}

/// The output of a C program with `body` in its `main`.
fn run_c(name: &str, body: &str) -> String {
    assert!(
        Path::new("/usr/include/xen/xen.h").exists(),
        "Xen's C headers are missing: install the package libxen-dev"
    );
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (source, program) = (directory.join(format!("{name}.c")), directory.join(name));
    std::fs::write(&source, format!("{PRELUDE}{body}    return 0;\n}}\n")).unwrap();

    let compiled = Command::new("cc")
        .arg(format!("-D__XEN_INTERFACE_VERSION__={INTERFACE_VERSION}"))
        .args(["-std=gnu11", "-Wall", "-Werror", "-o"])
        .args([&program, &source])
        .output()
        .unwrap_or_else(|error| panic!("cannot run `cc` ({error}): install the packages gcc and libc6-dev"));
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));

    let ran = Command::new(&program).output().unwrap();
    assert!(ran.status.success(), "the C program ended with {}", ran.status);
    String::from_utf8(ran.stdout).unwrap()
}
