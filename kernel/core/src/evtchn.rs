//! The order in which pending event channels are served.
//!
//! In Xen's two-level ABI (`public/xen.h`, `struct shared_info`), a port is a bit in 64 words of
//! pending bits and 64 words of mask bits. Each bit of the vCPU's selector `evtchn_pending_sel`
//! marks a pending word that may have a bit set. The upcall exchanges the selector with 0 and hands
//! it to [`PortScan`], which names one port after the other. It continues after the port that it
//! named last, so that a busy port cannot starve the others.

use xen_abi::event_channel::EVTCHN_2L_NR_CHANNELS;

const PORTS: u32 = EVTCHN_2L_NR_CHANNELS as u32;
/// Words in the bitmap of pending bits, and bits in the selector.
const WORDS: u32 = PORTS / 64;

/// The place where the last scan ended. Each vCPU has one.
#[derive(Clone, Debug, Default)]
pub struct PortScan {
    /// The first port of the next scan.
    start: u32,
}

impl PortScan {
    /// A scan that begins at port 0.
    pub const fn new() -> Self {
        Self { start: 0 }
    }

    /// The next port to serve, or `None` when `selector` is exhausted (it is 0 then).
    ///
    /// `active(word)` returns a word's `pending & !mask`, read afresh. The caller clears the port's
    /// pending bit before it serves the port, and calls again with the same selector. A port whose
    /// pending bit stays set comes up again after all others.
    pub fn next(&mut self, selector: &mut u64, mut active: impl FnMut(usize) -> u64) -> Option<u32> {
        while *selector != 0 {
            let first = self.start / 64;
            let word = (first + selector.rotate_right(first).trailing_zeros()) % WORDS;
            let bits = active(word as usize);
            if bits == 0 {
                *selector &= !(1 << word);
                continue;
            }
            let from = if word == first { self.start % 64 } else { 0 };
            let candidates = bits & (u64::MAX << from);
            if candidates != 0 {
                let port = word * 64 + candidates.trailing_zeros();
                self.start = (port + 1) % PORTS;
                return Some(port);
            }
            // Only ports before the starting point are left in this word: the other words go first.
            self.start = (word + 1) * 64 % PORTS;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;
    use std::vec::Vec;

    fn selector_of(pending: &[u64; WORDS as usize]) -> u64 {
        (0..WORDS as usize).filter(|&w| pending[w] != 0).fold(0, |selector, w| selector | 1 << w)
    }

    /// Serves everything that is pending and not masked.
    fn drain(scan: &mut PortScan, pending: &mut [u64; WORDS as usize], mask: &[u64; WORDS as usize]) -> Vec<u32> {
        let mut selector = selector_of(pending);
        let mut served = Vec::new();
        while let Some(port) = scan.next(&mut selector, |w| pending[w] & !mask[w]) {
            pending[port as usize / 64] &= !(1 << (port % 64));
            served.push(port);
        }
        assert_eq!(selector, 0);
        served
    }

    #[test]
    fn order_continues_after_the_last_port() {
        let mut scan = PortScan::new();
        let mut pending = [0; WORDS as usize];
        let mask = [0; WORDS as usize];
        pending[0] = 0b1011;
        pending[2] = 1 << 63;
        pending[63] = 1 << 63;
        assert_eq!(drain(&mut scan, &mut pending, &mask), [0, 1, 3, 191, 4095]);
        pending[0] = 0b110;
        assert_eq!(drain(&mut scan, &mut pending, &mask), [1, 2]);
        pending[0] = 0b1110;
        pending[5] = 1;
        assert_eq!(drain(&mut scan, &mut pending, &mask), [3, 320, 1, 2]);
    }

    #[test]
    fn masked_ports_stay() {
        let mut pending = [0; WORDS as usize];
        let mut mask = [0; WORDS as usize];
        pending[1] = 0b11;
        mask[1] = 0b01;
        assert_eq!(drain(&mut PortScan::new(), &mut pending, &mask), [65]);
        assert_eq!(pending[1], 0b01);
    }

    #[test]
    fn a_port_that_is_always_pending_starves_nobody() {
        let mut scan = PortScan::new();
        let mut selector = u64::MAX;
        let mut seen = Vec::new();
        for _ in 0..6 {
            seen.push(scan.next(&mut selector, |w| if w == 9 { 0b101 } else { u64::from(w == 3) }).unwrap());
        }
        assert_eq!(seen, [192, 576, 578, 192, 576, 578]);
    }

    #[test]
    fn every_port_is_served_once_in_rotated_order() {
        let mut random = Random::new(2);
        let mut scan = PortScan::new();
        for _ in 0..200 {
            let start = scan.start;
            let mut pending = [0; WORDS as usize];
            let mut mask = [0; WORDS as usize];
            for _ in 0..random.below(100) {
                pending[random.below(64) as usize] |= 1 << random.below(64);
                mask[random.below(64) as usize] |= 1 << random.below(64);
            }
            let mut expected: Vec<u32> = (0..PORTS)
                .filter(|&p| (pending[p as usize / 64] & !mask[p as usize / 64]) >> (p % 64) & 1 == 1)
                .collect();
            expected.sort_by_key(|&p| (p + PORTS - start) % PORTS);
            assert_eq!(drain(&mut scan, &mut pending, &mask), expected);
        }
    }
}
