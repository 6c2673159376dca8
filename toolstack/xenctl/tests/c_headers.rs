//! Compares the layouts that `sysctl` uses with Xen's C headers, by compiling a C program that
//! prints them: with the headers of this machine, and those of other releases of Xen that `make
//! setup` has unpacked below `build/xen-headers`.

#[path = "../../../xen/abi/tests/headers/mod.rs"]
mod headers;

use std::path::Path;

use headers::{includes, output_of};
use xenctl::domctl::DOMAIN_INFO_SIZE;
use xenctl::sysctl::SIZE;
use xenctl::{RELEASES, Release};

const PROGRAM: &str = r#"
#define __XEN_TOOLS__ 1
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <xen/sysctl.h>

#define OFFSET(member) printf("%zu\n", offsetof(struct xen_sysctl, member))

int main(void)
{
    printf("%d\n%d\n", XEN_SYSCTL_INTERFACE_VERSION, XEN_DOMCTL_INTERFACE_VERSION);
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
    for include in includes() {
        let output = output_of("sysctl", PROGRAM, &include, &[]);
        let [sysctl, domctl, layouts] = output.splitn(3, '\n').collect::<Vec<_>>()[..] else { panic!("{output}") };
        let versions = (sysctl.parse().unwrap(), domctl.parse().unwrap());
        let is_it = |release: &Release| (release.sysctl, release.domctl) == versions;
        if !RELEASES.iter().any(is_it) {
            // `Xen::open` refuses such a Xen.
            assert_ne!(include, Path::new("/usr/include"), "the headers are of interfaces {versions:#x?}");
            eprintln!("{}: of interfaces {versions:#x?}, which are no supported ones", include.display());
            continue;
        }
        let expected = format!(
            "{SIZE}\n4\n{}\n8\n12\n16\n24\n8\n16\n9\n12\n16\n24\n{DOMAIN_INFO_SIZE}\n4\n8\n1 3 6 7\n",
            8 + 48 // u, then ten words and total_pages
        );
        assert_eq!(layouts, expected, "{}", include.display());
    }
}
