//! `public/io/console.h`: the PV console's page.

use crate::io::ring::RingIndex;

/// Bytes of the ring from console to guest.
pub const XENCONS_IN_SIZE: u32 = 1024;
/// Bytes of the ring from guest to console.
pub const XENCONS_OUT_SIZE: u32 = 2048;

/// The page that a guest shares with the console, `struct xencons_interface`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct XenconsInterface {
    /// To the guest.
    pub r#in: [u8; XENCONS_IN_SIZE as usize],
    /// From the guest.
    pub out: [u8; XENCONS_OUT_SIZE as usize],
    /// Octets that the guest has read.
    pub in_cons: RingIndex,
    /// Octets that the console has written.
    pub in_prod: RingIndex,
    /// Octets that the console has read.
    pub out_cons: RingIndex,
    /// Octets that the guest has written.
    pub out_prod: RingIndex,
}
assert_layout!(
    XenconsInterface, 3088,
    r#in: 0, out: 1024, in_cons: 3072, in_prod: 3076, out_cons: 3080, out_prod: 3084,
);
