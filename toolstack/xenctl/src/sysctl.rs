//! `public/sysctl.h`: the octets of a `xen_sysctl_t`, of its data and its answers.
//!
//! The layouts used here are the same in all of [`RELEASES`](crate::RELEASES). `tests/c_headers.rs`
//! compares them with the C headers of those releases that the build machine has.

use xen_abi::DomId;
use xen_abi::xen::Hypercall;

use crate::control::{Request, u32_at, u64_at};
use crate::domain::DomainInfo;
use crate::domctl::{self, DOMAIN_INFO_SIZE};

/// Size of `struct xen_sysctl`.
pub const SIZE: usize = 136;
/// Offset of its union `u`.
const U: usize = 8;
/// Number of domains that are asked for at once.
const DOMAINS_AT_ONCE: usize = 256;
/// Octets of Xen's log that are read at once.
const LOG_AT_ONCE: usize = 32 << 10;

/// `XEN_SYSCTL_*`.
mod command {
    pub const READCONSOLE: u32 = 1;
    pub const PHYSINFO: u32 = 3;
    pub const GETDOMAININFOLIST: u32 = 6;
    pub const DEBUG_KEYS: u32 = 7;
}

fn request(command: u32) -> Request {
    Request::new(Hypercall::SYSCTL, SIZE, command)
}

/// The request with `data` behind the guest handle at `handle`, and its length, in units of `unit`
/// octets, at `count`.
fn with_data(mut request: Request, data: &[u8], unit: usize, handle: usize, count: usize) -> Request {
    request.put_u32(count, (data.len() / unit) as u32);
    request.add_data(handle, data);
    request
}

/// `XEN_SYSCTL_physinfo`, answered by [`free_pages`].
pub(crate) fn physinfo() -> Request {
    request(command::PHYSINFO)
}

/// `XEN_SYSCTL_getdomaininfolist`: the domains from `first` on, answered by [`domains`].
pub(crate) fn domain_list(first: DomId) -> Request {
    let mut request = request(command::GETDOMAININFOLIST);
    request.put(U, &first.0.to_le_bytes());
    with_data(request, &[0; DOMAINS_AT_ONCE * DOMAIN_INFO_SIZE], DOMAIN_INFO_SIZE, U + 8, U + 4)
}

/// `XEN_SYSCTL_debug_keys`, as `xl debug-keys`; Xen answers in its log.
pub(crate) fn debug_keys(keys: &[u8]) -> Request {
    with_data(request(command::DEBUG_KEYS), keys, 1, U, U + 8)
}

/// `XEN_SYSCTL_readconsole`: Xen's log from the position `from` on, or from its start, answered by
/// [`log`].
pub(crate) fn read_console(from: u32) -> Request {
    let mut request = request(command::READCONSOLE);
    let incremental = 1;
    request.put(U + 1, &[incremental]);
    request.put_u32(U + 4, from);
    with_data(request, &[0; LOG_AT_ONCE], 1, U + 8, U + 16)
}

/// Pages that Xen has free, in the answer to a [`physinfo`].
pub(crate) fn free_pages(answer: &Request) -> u64 {
    u64_at(answer.octets(), U + 48)
}

/// The domains in the answer to a [`domain_list`]; an empty answer ends the list.
pub(crate) fn domains(answer: &Request) -> Vec<DomainInfo> {
    let count = u32_at(answer.octets(), U + 16) as usize;
    answer.data().chunks_exact(DOMAIN_INFO_SIZE).take(count).map(domctl::parse_info).collect()
}

/// The text in the answer to a [`read_console`], and the position of the next one.
pub(crate) fn log(answer: &Request) -> (&[u8], u32) {
    let count = (u32_at(answer.octets(), U + 16) as usize).min(answer.data().len());
    (&answer.data()[..count], u32_at(answer.octets(), U + 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The structure in the form that Xen reads.
    fn written(request: &Request) -> Vec<u8> {
        let mut memory = vec![0xff; request.length()];
        request.write_to(0x15, &mut memory, 0x7000_0000);
        memory
    }

    #[test]
    fn a_request_names_its_data() {
        let memory = written(&debug_keys(b"gq"));
        assert_eq!(memory[..8], [7, 0, 0, 0, 0x15, 0, 0, 0]);
        assert_eq!(u64_at(&memory, U), 0x7000_0000 + SIZE as u64);
        assert_eq!(memory[U + 8..U + 12], [2, 0, 0, 0]);
        assert_eq!(memory[SIZE..], *b"gq");
    }

    #[test]
    fn no_request_lets_xen_use_more_than_its_data() {
        let list = written(&domain_list(DomId(3)));
        assert_eq!(list[U..U + 2], [3, 0]);
        assert_eq!(u64_at(&list, U + 8), 0x7000_0000 + SIZE as u64);
        let count = u32::from_le_bytes(list[U + 4..U + 8].try_into().unwrap()) as usize;
        assert_eq!(SIZE + count * DOMAIN_INFO_SIZE, list.len());

        let console = written(&read_console(9));
        assert_eq!(console[U..U + 8], [0, 1, 0, 0, 9, 0, 0, 0]);
        let count = u32::from_le_bytes(console[U + 16..U + 20].try_into().unwrap()) as usize;
        assert_eq!(SIZE + count, console.len());
    }

    #[test]
    fn domains_are_those_that_xen_counted() {
        let mut list = domain_list(DomId(0));
        let mut memory = written(&list);
        memory[U + 16] = 2;
        memory[SIZE + DOMAIN_INFO_SIZE..][..16].copy_from_slice(&[5, 1, 0, 0, 0x21, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0]);
        list.read_from(&memory);
        let found = domains(&list);
        assert_eq!(found.len(), 2);
        assert_eq!(found[1], DomainInfo { id: DomId(0x105), flags: 0x21, pages: 0x400, ..found[1] });
        assert!(found[1].is_dying() && !found[0].is_dying());
    }

    #[test]
    fn the_log_is_as_long_as_xen_says_and_no_longer() {
        let mut request = read_console(0);
        let mut memory = written(&request);
        memory[U + 4] = 77;
        memory[U + 16..U + 20].copy_from_slice(&5_u32.to_le_bytes());
        memory[SIZE..SIZE + 5].copy_from_slice(b"(XEN)");
        request.read_from(&memory);
        assert_eq!(log(&request), (&b"(XEN)"[..], 77));
        memory[U + 16..U + 20].copy_from_slice(&u32::MAX.to_le_bytes());
        request.read_from(&memory);
        assert_eq!(log(&request).0.len(), LOG_AT_ONCE);
    }
}
