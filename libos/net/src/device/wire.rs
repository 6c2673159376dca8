//! The slots of the two rings, as the words that they consist of (`public/io/netif.h`; x86 is
//! little-endian).

use xen_abi::io::netif::{
    NetifExtraFlags, NetifExtraInfo, NetifExtraType, NetifRxRequest, NetifRxResponse, NetifStatus, NetifTxRequest,
    NetifTxResponse, NetrxFlags,
};

/// A slot of the transmit ring: `union netif_tx_sring_entry`.
pub type TxSlot = [u32; 3];

/// A slot of the receive ring: `union netif_rx_sring_entry`.
pub type RxSlot = [u32; 2];

pub fn tx_request(request: NetifTxRequest) -> TxSlot {
    [request.gref.0, pair(request.offset, request.flags.bits()), pair(request.id, request.size)]
}

pub fn tx_extra(extra: NetifExtraInfo) -> TxSlot {
    let head = u16::from_le_bytes([extra.kind.0, extra.flags.bits()]);
    [pair(head, extra.u[0]), pair(extra.u[1], extra.u[2]), 0]
}

pub fn tx_response(slot: TxSlot) -> NetifTxResponse {
    let [id, status] = halves(slot[0]);
    NetifTxResponse { id, status: NetifStatus(status.cast_signed()) }
}

pub fn rx_request(request: NetifRxRequest) -> RxSlot {
    [pair(request.id, request.pad), request.gref.0]
}

pub fn rx_response(slot: RxSlot) -> NetifRxResponse {
    let [id, offset] = halves(slot[0]);
    let [flags, status] = halves(slot[1]);
    NetifRxResponse { id, offset, flags: NetrxFlags::from_bits_retain(flags), status: status.cast_signed() }
}

pub fn rx_extra(slot: RxSlot) -> NetifExtraInfo {
    let [head, first] = halves(slot[0]);
    let [kind, flags] = head.to_le_bytes();
    let [second, third] = halves(slot[1]);
    NetifExtraInfo {
        kind: NetifExtraType(kind),
        flags: NetifExtraFlags::from_bits_retain(flags),
        u: [first, second, third],
    }
}

fn pair(low: u16, high: u16) -> u32 {
    u32::from(low) | u32::from(high) << 16
}

fn halves(word: u32) -> [u16; 2] {
    [word as u16, (word >> 16) as u16]
}

#[cfg(test)]
mod tests {
    use super::*;
    use xen_abi::GrantRef;
    use xen_abi::io::netif::{NetifGsoType, NettxFlags};

    // The octets are taken from the diagrams in netif.h.

    fn words<const N: usize>(octets: &[u8]) -> [u32; N] {
        core::array::from_fn(|i| u32::from_le_bytes(octets[i * 4..i * 4 + 4].try_into().unwrap()))
    }

    #[test]
    fn transmit_slots() {
        let request = NetifTxRequest {
            gref: GrantRef(0x0403_0201),
            offset: 0x0605,
            flags: NettxFlags::MORE_DATA | NettxFlags::EXTRA_INFO,
            id: 0x0a09,
            size: 0x0c0b,
        };
        assert_eq!(tx_request(request), words(&[1, 2, 3, 4, 5, 6, 12, 0, 9, 10, 11, 12]));
        let extra = NetifExtraInfo {
            kind: NetifExtraType::GSO,
            flags: NetifExtraFlags::MORE,
            u: [1460, u16::from(NetifGsoType::TCPV4.0), 0],
        };
        assert_eq!(tx_extra(extra), words(&[1, 1, 0xb4, 5, 1, 0, 0, 0, 0, 0, 0, 0]));
        let response = tx_response(words(&[9, 10, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(response, NetifTxResponse { id: 0x0a09, status: NetifStatus::DROPPED });
    }

    #[test]
    fn receive_slots() {
        let request = NetifRxRequest { id: 0x0201, pad: 0, gref: GrantRef(0x0807_0605) };
        assert_eq!(rx_request(request), words(&[1, 2, 0, 0, 5, 6, 7, 8]));
        let response = rx_response(words(&[1, 2, 3, 4, 5, 0, 0xff, 0xff]));
        let flags = NetrxFlags::DATA_VALIDATED | NetrxFlags::MORE_DATA;
        assert_eq!(response, NetifRxResponse { id: 0x0201, offset: 0x0403, flags, status: -1 });
        let extra = rx_extra(words(&[1, 0, 0xb4, 5, 1, 0, 0, 0]));
        assert_eq!((extra.kind, extra.flags.is_empty(), extra.u), (NetifExtraType::GSO, true, [1460, 1, 0]));
    }
}
