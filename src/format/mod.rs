//! What the bytes mean: pure functions over bytes, without files, threads or time.

pub(crate) mod control_row;
pub(crate) mod frame;
mod line;
pub(crate) mod manifest;
#[cfg(test)]
pub(crate) mod manual;
pub(crate) mod names;
pub(crate) mod queue_entry;
mod retention;
pub(crate) mod search;
pub(crate) mod segment_header;

use std::ops::Range;

/// The little-endian number in these 4 bytes.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// The little-endian number in these 8 bytes.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The little-endian number in these 16 bytes.
pub(crate) fn u128_at(bytes: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(bytes[at..at + 16].try_into().expect("sixteen bytes"))
}

/// Puts `value` (from `to_le_bytes`) where a field is.
pub(crate) fn put(bytes: &mut [u8], field: Range<usize>, value: &[u8]) {
    bytes[field].copy_from_slice(value);
}
