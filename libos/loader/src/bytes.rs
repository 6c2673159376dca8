//! Reads of numbers and records at offsets that a file gives.

use core::mem::size_of;

use plain::Plain;

/// The record at `offset`, of any alignment. `None` if it is not wholly in `bytes`.
pub fn record<T: Plain + Copy + Default>(bytes: &[u8], offset: usize) -> Option<T> {
    let mut record = T::default();
    record.copy_from_bytes(bytes.get(offset..)?.get(..size_of::<T>())?).ok()?;
    Some(record)
}

pub fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

pub fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}
