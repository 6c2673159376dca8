//! Compares the layouts that `sysctl` uses with Xen's C headers, by compiling a C program that
//! prints them.

use std::path::Path;
use std::process::Command;

use xenctl::domctl::DOMAIN_INFO_SIZE;
use xenctl::sysctl::{SIZE, VERSIONS};

const PROGRAM: &str = r#"
#define __XEN_TOOLS__ 1
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <xen/sysctl.h>

#define OFFSET(member) printf("%zu\n", offsetof(struct xen_sysctl, member))

int main(void)
{
    printf("%d\n", XEN_SYSCTL_INTERFACE_VERSION);
    printf("%zu\n", sizeof(struct xen_sysctl));
    OFFSET(interface_version);
    OFFSET(u.physinfo.free_pages);
    OFFSET(u.getdomaininfolist.first_domain);
    OFFSET(u.getdomaininfolist.max_domains);
    OFFSET(u.getdomaininfolist.buffer);
    OFFSET(u.getdomaininfolist.num_domains);
    OFFSET(u.debug_keys.keys);
    OFFSET(u.debug_keys.nr_keys);
    OFFSET(u.readconsole.incremental);
    OFFSET(u.readconsole.index);
    OFFSET(u.readconsole.buffer);
    OFFSET(u.readconsole.count);
    printf("%zu\n", sizeof(struct xen_domctl_getdomaininfo));
    printf("%zu\n", offsetof(struct xen_domctl_getdomaininfo, flags));
    printf("%zu\n", offsetof(struct xen_domctl_getdomaininfo, tot_pages));
    printf("%d %d %d %d\n", XEN_SYSCTL_readconsole, XEN_SYSCTL_physinfo, XEN_SYSCTL_getdomaininfolist,
           XEN_SYSCTL_debug_keys);
    return 0;
}
"#;

#[test]
fn layouts_are_those_of_the_c_headers() {
    let output = run(PROGRAM);
    let (version, layouts) = output.split_once('\n').unwrap();
    assert!(VERSIONS.contains(&version.parse().unwrap()), "the headers are of interface {version}");
    let expected = format!(
        "{SIZE}\n4\n{}\n8\n12\n16\n24\n8\n16\n9\n12\n16\n24\n{DOMAIN_INFO_SIZE}\n4\n8\n1 3 6 7\n",
        8 + 48 // u, then ten words and total_pages
    );
    assert_eq!(layouts, expected);
}

/// The output of the C program.
fn run(program: &str) -> String {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (source, binary) = (directory.join("sysctl.c"), directory.join("sysctl"));
    std::fs::write(&source, program).unwrap();
    let compiled = Command::new("cc").args(["-std=gnu11", "-o"]).args([&binary, &source]).output().unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    String::from_utf8(Command::new(&binary).output().unwrap().stdout).unwrap()
}
