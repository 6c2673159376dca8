//! The MAC addresses of children's devices.

use std::fs;

use zooid_fork_plan::id::PvmId;

/// Octets of an entry of `brforward`: `struct __fdb_entry` (linux/if_bridge.h), which begins with
/// the address.
const FDB_ENTRY: usize = 16;
/// The random part of the host, in bits.
const HOST_BITS: u32 = 22;
/// The part of the pVM: its domain number and eight bits of its generation. They differ among all
/// living pVMs of the host.
const PVM_BITS: u32 = 23;
/// Addresses that are tried.
const TRIES: u32 = 16;

/// A MAC address, in the order in which it is sent.
type Mac = [u8; 6];

/// The address for a device of `id` on `bridge`: one that the bridge has not seen. It is locally
/// administered (IEEE 802, section 8.4), because Xen's prefix leaves too few bits for hosts that
/// share a segment.
pub fn choose(id: PvmId, bridge: &str) -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let seen = fs::read(format!("/sys/class/net/{bridge}/brforward")).unwrap_or_default();
    text(unseen(host_part(&boot), id, &seen))
}

/// The host's part, from the text of `boot_id` (random(4)): random, and the same until the host
/// boots again. A machine id would be the same on hosts that were copied.
fn host_part(boot: &str) -> u32 {
    let digits = boot.bytes().filter_map(|octet| char::from(octet).to_digit(16));
    digits.take(6).fold(0, |sum, digit| sum << 4 | digit) & ((1 << HOST_BITS) - 1)
}

/// The first address that is not in the table `seen` of a bridge.
fn unseen(host: u32, id: PvmId, seen: &[u8]) -> Mac {
    let has_seen = |mac: &Mac| seen.chunks_exact(FDB_ENTRY).any(|entry| entry[..6] == *mac);
    let mut tries = (0..TRIES).map(|number| address(host.wrapping_add(number), id));
    tries.find(|mac| !has_seen(mac)).unwrap_or_else(|| address(host, id))
}

fn address(host: u32, id: PvmId) -> Mac {
    let host = u64::from(host & ((1 << HOST_BITS) - 1));
    let pvm = u64::from(id.raw() & ((1 << PVM_BITS) - 1));
    let [_, _, first, rest @ ..] = (host << 24 | pvm).to_be_bytes();
    let mut mac = [0; 6];
    // The two lowest bits of the first octet say: of one host, and given by an administrator.
    mac[0] = first << 2 | 0b10;
    mac[1..].copy_from_slice(&rest);
    mac
}

fn text(mac: Mac) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use xen_abi::DomId;

    const BOOT: &str = "6fd5a44b-8b7c-4f7e-9a3e-0f4f2d1c6b5a\n";

    fn id(domain: u16, generation: u16) -> PvmId {
        PvmId::new(DomId(domain), generation).unwrap()
    }

    #[test]
    fn an_address_of_a_child_is_unicast_local_and_of_host_and_pvm() {
        let host = host_part(BOOT);
        assert_eq!(host, 0x2f_d5a4);
        assert_eq!(text(address(host, id(5, 3))), "be:d5:a4:01:80:05");
        for host in [0, 1, host, u32::MAX] {
            assert_eq!(address(host, id(5, 3))[0] & 0b11, 0b10);
        }
        let mut all = [(0, 5, 3), (1, 5, 3), (1 << 21, 5, 3), (0, 6, 3), (0, 5, 4), (0, 0x7fef, 3)]
            .map(|(host, domain, generation)| address(host, id(domain, generation)));
        all.sort_unstable();
        assert!(all.windows(2).all(|pair| pair[0] != pair[1]), "{all:x?}");
        assert_eq!(host_part(""), 0, "without a boot id there is still an address");
    }

    #[test]
    fn an_address_that_the_bridge_has_seen_is_another_hosts() {
        let entry = |mac: Mac| {
            let mut entry = [0; FDB_ENTRY];
            entry[..6].copy_from_slice(&mac);
            entry
        };
        let first = unseen(7, id(5, 3), &[]);
        assert_eq!(first, unseen(7, id(5, 3), &entry([2; 6])));
        let second = unseen(7, id(5, 3), &[entry([2; 6]), entry(first)].concat());
        assert_ne!(second, first);
        assert_eq!(second, unseen(8, id(5, 3), &[]));
        // Half an entry is none.
        assert_eq!(unseen(7, id(5, 3), &entry(first)[..12]), first);
        let all = (0..TRIES).flat_map(|number| entry(unseen(7 + number, id(5, 3), &[]))).collect::<Vec<_>>();
        assert_eq!(unseen(7, id(5, 3), &all), first, "somebody sends from all of them");
    }
}
