//! `public/sysctl.h`: the octets of a `xen_sysctl_t`, of what is asked with it and answered.
//!
//! The layouts used here are the same in all of [`VERSIONS`]; `tests/c_headers.rs` compares them with the C headers of the
//! build machine.

use xen_abi::DomId;

/// Interface versions that are known, newest last: Xen 4.17 to 4.20 have the first, 4.21 and 4.22 the second.
pub const VERSIONS: [u32; 2] = [0x15, 0x16];

/// Size of `struct xen_sysctl`.
pub const SIZE: usize = 136;
/// Offset of its union `u`.
const U: usize = 8;
/// Size of `struct xen_domctl_getdomaininfo`.
pub const DOMAIN_INFO_SIZE: usize = 112;
/// Most domains that are asked for at once.
const DOMAINS_AT_ONCE: usize = 256;
/// How much of Xen's log is read at once.
const LOG_AT_ONCE: usize = 32 << 10;

/// `XEN_SYSCTL_*`.
mod command {
    pub const READCONSOLE: u32 = 1;
    pub const PHYSINFO: u32 = 3;
    pub const GETDOMAININFOLIST: u32 = 6;
    pub const DEBUG_KEYS: u32 = 7;
}

/// A sysctl, with the memory that its guest handle names.
///
/// Every constructor writes into the octets how much of `data` Xen may use, and that is never more than there is: the
/// module that makes the call relies on it.
#[derive(Clone, Debug)]
pub struct Request {
    octets: [u8; SIZE],
    data: Vec<u8>,
    handle: Option<usize>,
}

impl Request {
    fn new(command: u32) -> Self {
        let mut request = Request { octets: [0; SIZE], data: Vec::new(), handle: None };
        request.put(0, command);
        request
    }

    /// With `data` behind the guest handle at `handle`, and its length, in units of `unit` octets, at `count`.
    fn with_data(mut self, data: Vec<u8>, unit: usize, handle: usize, count: usize) -> Self {
        self.put(count, (data.len() / unit) as u32);
        self.data = data;
        self.handle = Some(handle);
        self
    }

    /// `XEN_SYSCTL_physinfo`, answered by [`free_pages`].
    pub fn physinfo() -> Self {
        Request::new(command::PHYSINFO)
    }

    /// `XEN_SYSCTL_getdomaininfolist`: the domains from `first` on, answered by [`domains`].
    pub fn domain_list(first: DomId) -> Self {
        let mut request = Request::new(command::GETDOMAININFOLIST);
        request.octets[U..U + 2].copy_from_slice(&first.0.to_le_bytes());
        request.with_data(vec![0; DOMAINS_AT_ONCE * DOMAIN_INFO_SIZE], DOMAIN_INFO_SIZE, U + 8, U + 4)
    }

    /// `XEN_SYSCTL_debug_keys`: what `xl debug-keys` does; Xen answers in its log.
    pub fn debug_keys(keys: &[u8]) -> Self {
        Request::new(command::DEBUG_KEYS).with_data(keys.to_vec(), 1, U, U + 8)
    }

    /// `XEN_SYSCTL_readconsole`: Xen's log from the position `from` on, or from its start, answered by [`log`].
    pub fn read_console(from: u32) -> Self {
        let mut request = Request::new(command::READCONSOLE);
        let incremental = 1;
        request.octets[U + 1] = incremental;
        request.put(U + 4, from);
        request.with_data(vec![0; LOG_AT_ONCE], 1, U + 8, U + 16)
    }

    fn put(&mut self, at: usize, value: u32) {
        self.octets[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    fn get(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.octets[at..at + 4].try_into().expect("four octets"))
    }

    /// Octets of memory that the call needs: the sysctl itself and its data behind it.
    pub(crate) fn length(&self) -> usize {
        SIZE + self.data.len()
    }

    /// Writes sysctl and data to `memory`, which Xen sees at `address`.
    pub(crate) fn write_to(&self, version: u32, memory: &mut [u8], address: u64) {
        memory[..SIZE].copy_from_slice(&self.octets);
        memory[4..8].copy_from_slice(&version.to_le_bytes());
        if let Some(handle) = self.handle {
            memory[handle..handle + 8].copy_from_slice(&(address + SIZE as u64).to_le_bytes());
        }
        memory[SIZE..self.length()].copy_from_slice(&self.data);
    }

    /// Takes sysctl and data back as Xen left them.
    pub(crate) fn read_from(&mut self, memory: &[u8]) {
        self.octets.copy_from_slice(&memory[..SIZE]);
        let length = self.length();
        self.data.copy_from_slice(&memory[SIZE..length]);
    }
}

/// Pages that Xen has free, out of an answered [`Request::physinfo`].
pub fn free_pages(answer: &Request) -> u64 {
    u64_at(&answer.octets, U + 48)
}

/// What Xen says about a domain, `struct xen_domctl_getdomaininfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainInfo {
    pub id: DomId,
    /// `XEN_DOMINF_*`.
    pub flags: u32,
    /// Pages that it has.
    pub pages: u64,
}

impl DomainInfo {
    /// `XEN_DOMINF_dying`.
    const DYING: u32 = 1;

    /// Destroyed, but something still holds its memory: a zombie if that lasts.
    pub fn is_dying(&self) -> bool {
        self.flags & Self::DYING != 0
    }

    fn parse(octets: &[u8]) -> Self {
        DomainInfo {
            id: DomId(u16::from_le_bytes([octets[0], octets[1]])),
            flags: u32::from_le_bytes(octets[4..8].try_into().expect("four octets")),
            pages: u64_at(octets, 8),
        }
    }
}

/// The domains out of an answered [`Request::domain_list`]; when there are none, the list has ended.
pub fn domains(answer: &Request) -> Vec<DomainInfo> {
    let count = answer.get(U + 16) as usize;
    answer.data.chunks_exact(DOMAIN_INFO_SIZE).take(count).map(DomainInfo::parse).collect()
}

/// The text out of an answered [`Request::read_console`], and where the next one goes on.
pub fn log(answer: &Request) -> (&[u8], u32) {
    let count = (answer.get(U + 16) as usize).min(answer.data.len());
    (&answer.data[..count], answer.get(U + 4))
}

fn u64_at(octets: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(octets[at..at + 8].try_into().expect("eight octets"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Xen would find.
    fn written(request: &Request) -> Vec<u8> {
        let mut memory = vec![0xff; request.length()];
        request.write_to(0x15, &mut memory, 0x7000_0000);
        memory
    }

    #[test]
    fn a_request_names_its_data() {
        let memory = written(&Request::debug_keys(b"gq"));
        assert_eq!(memory[..8], [7, 0, 0, 0, 0x15, 0, 0, 0]);
        assert_eq!(u64_at(&memory, U), 0x7000_0000 + SIZE as u64);
        assert_eq!(memory[U + 8..U + 12], [2, 0, 0, 0]);
        assert_eq!(memory[SIZE..], *b"gq");
    }

    #[test]
    fn no_request_lets_xen_use_more_than_its_data() {
        let list = written(&Request::domain_list(DomId(3)));
        assert_eq!(list[U..U + 2], [3, 0]);
        assert_eq!(u64_at(&list, U + 8), 0x7000_0000 + SIZE as u64);
        let count = u32::from_le_bytes(list[U + 4..U + 8].try_into().unwrap()) as usize;
        assert_eq!(SIZE + count * DOMAIN_INFO_SIZE, list.len());

        let console = written(&Request::read_console(9));
        assert_eq!(console[U..U + 8], [0, 1, 0, 0, 9, 0, 0, 0]);
        let count = u32::from_le_bytes(console[U + 16..U + 20].try_into().unwrap()) as usize;
        assert_eq!(SIZE + count, console.len());
    }

    #[test]
    fn domains_are_those_that_xen_counted() {
        let mut list = Request::domain_list(DomId(0));
        let mut memory = written(&list);
        memory[U + 16] = 2;
        memory[SIZE + DOMAIN_INFO_SIZE..][..16].copy_from_slice(&[5, 1, 0, 0, 0x21, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0]);
        list.read_from(&memory);
        let found = domains(&list);
        assert_eq!(found.len(), 2);
        assert_eq!(found[1], DomainInfo { id: DomId(0x105), flags: 0x21, pages: 0x400 });
        assert!(found[1].is_dying() && !found[0].is_dying());
    }

    #[test]
    fn the_log_is_as_long_as_xen_says_and_no_longer() {
        let mut request = Request::read_console(0);
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
