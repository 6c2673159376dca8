//! `public/io/netif.h`: the requests and responses in the rings of a virtual network interface.

use crate::GrantRef;
use crate::io::ring::Sring;

/// Longest packet that fits in requests, in bytes.
pub const XEN_NETIF_MAX_TX_SIZE: usize = 0xffff;
/// Slots that a backend must accept for one packet.
pub const XEN_NETIF_NR_SLOTS_MIN: u32 = 18;
/// Slots of a transmit ring of one page.
pub const NETIF_TX_RING_SIZE: u32 = Sring::slots(size_of::<NetifTxRequest>());
/// Slots of a receive ring of one page.
pub const NETIF_RX_RING_SIZE: u32 = Sring::slots(size_of::<NetifRxResponse>());

bitflags::bitflags! {
    /// Flags of a packet to be sent, `NETTXF_*`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct NettxFlags: u16 {
        /// The protocol's checksum is still to be filled in.
        const CSUM_BLANK = 1 << 0;
        /// The protocol's checksum was verified.
        const DATA_VALIDATED = 1 << 1;
        /// The packet goes on in the next request.
        const MORE_DATA = 1 << 2;
        /// A [`NetifExtraInfo`] follows.
        const EXTRA_INFO = 1 << 3;
    }
}

/// A packet, or a part of it, to be sent, `struct netif_tx_request`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetifTxRequest {
    /// Grant of the page that holds it.
    pub gref: GrantRef,
    /// Offset of the packet in the page, in bytes.
    pub offset: u16,
    /// More about the packet.
    pub flags: NettxFlags,
    /// Comes back in the response.
    pub id: u16,
    /// Bytes: of the whole packet in its first request, of the part in the others.
    pub size: u16,
}
assert_layout!(NetifTxRequest, 12, gref: 0, offset: 4, flags: 6, id: 8, size: 10);

open_enum! {
    /// The outcome of a request, `NETIF_RSP_*`.
    pub struct NetifStatus: i16 {
        /// The packet was not sent.
        DROPPED = -2;
        /// The request was malformed.
        ERROR = -1;
        /// The packet was sent.
        OKAY = 0;
        /// The slot held no request, but for example an extra info.
        NULL = 1;
    }
}

/// The answer to a [`NetifTxRequest`], `struct netif_tx_response`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetifTxResponse {
    /// The request's.
    pub id: u16,
    /// The outcome.
    pub status: NetifStatus,
}
assert_layout!(NetifTxResponse, 4, id: 0, status: 2);

/// A page to receive into, `struct netif_rx_request`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetifRxRequest {
    /// Comes back in the response.
    pub id: u16,
    /// Zero.
    pub pad: u16,
    /// Grant of the page, for writing.
    pub gref: GrantRef,
}
assert_layout!(NetifRxRequest, 8, id: 0, gref: 4);

bitflags::bitflags! {
    /// Flags of a received packet, `NETRXF_*`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct NetrxFlags: u16 {
        /// The protocol's checksum was verified.
        const DATA_VALIDATED = 1 << 0;
        /// The protocol's checksum was not filled in.
        const CSUM_BLANK = 1 << 1;
        /// The packet goes on in the next response.
        const MORE_DATA = 1 << 2;
        /// A [`NetifExtraInfo`] follows.
        const EXTRA_INFO = 1 << 3;
        /// The slot holds segmentation data only (an old form).
        const GSO_PREFIX = 1 << 4;
    }
}

/// A received packet, or a part of it, `struct netif_rx_response`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetifRxResponse {
    /// The request's.
    pub id: u16,
    /// Offset of the packet in the page, in bytes.
    pub offset: u16,
    /// More about the packet.
    pub flags: NetrxFlags,
    /// Length in bytes, or a [`NetifStatus`] if negative.
    pub status: i16,
}
assert_layout!(NetifRxResponse, 8, id: 0, offset: 2, flags: 4, status: 6);

open_enum! {
    /// The subject of an extra info, `XEN_NETIF_EXTRA_TYPE_*`.
    pub struct NetifExtraType: u8 {
        NONE = 0;
        /// Segmentation.
        GSO = 1;
        /// Listen to a multicast address.
        MCAST_ADD = 2;
        /// Listen to the multicast address no longer.
        MCAST_DEL = 3;
        /// The packet's hash.
        HASH = 4;
    }
}

bitflags::bitflags! {
    /// Flags of an extra info, `XEN_NETIF_EXTRA_FLAG_*`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct NetifExtraFlags: u8 {
        /// Another one follows.
        const MORE = 1 << 0;
    }
}

open_enum! {
    /// The segmentation of a large packet, `XEN_NETIF_GSO_TYPE_*`.
    pub struct NetifGsoType: u8 {
        NONE = 0;
        /// TCP over IPv4.
        TCPV4 = 1;
        /// TCP over IPv6.
        TCPV6 = 2;
    }
}

/// Further facts about a packet, in a slot of their own, `struct netif_extra_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetifExtraInfo {
    /// The field `type`.
    pub kind: NetifExtraType,
    /// Flag that says if another one follows.
    pub flags: NetifExtraFlags,
    /// The union `u`, whose meaning depends on `kind`.
    pub u: [u16; 3],
}
assert_layout!(NetifExtraInfo, 8, kind: 0, flags: 1, u: 2);
